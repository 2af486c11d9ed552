"""Starts a child process and reads what it prints; a crash or a hang is returned as an error."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PAYLOAD = Path(__file__).parent
# Windows opens a console for a console program whose parent has none.
NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW
GPU_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as NVML counts GPUs
NATIVE_ONLY = {**GPU_ORDER, "CUDA_DISABLE_PTX_JIT": "1"}


def quiet_crashes() -> None:
    """On Windows, open no dialogue for a crash, here or in a child: nobody would close it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(
            msvcrt.SEM_FAILCRITICALERRORS  # a library that a library needs is missing
            | msvcrt.SEM_NOGPFAULTERRORBOX
            | msvcrt.SEM_NOOPENFILEERRORBOX
        )


def started() -> str:
    """The time now in UTC, as a report has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def system() -> str:
    """The system of this machine, as a report has it."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def progress(done: int, total: int, now: str, left: float | None) -> None:
    """Print one line for the parent process; ``left`` is an estimate in seconds."""
    print("@" + json.dumps({"done": done, "total": total, "now": now, "left": left}), flush=True)


def search_path() -> dict[str, str]:
    """The PATH of a child: on Windows only the system's folder, elsewhere no change.

    Windows looks for libraries on PATH. With no PATH at all, upstream's package fails.
    """
    if sys.platform == "win32":
        return {"PATH": str(Path(os.environ["SYSTEMROOT"], "System32"))}
    return {}


def spawn(
    python: str,
    job_path: Path,
    environment: Mapping[str, str],
    timeout: float,
    still: float | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Run a child with a job. Returns its JSON lines, and its error or None.

    The child works in the folder of ``job_path``. ``environment`` is added to this process's own.
    The child is ended after ``timeout`` seconds, or after ``still`` seconds without output.
    """
    stdout, stderr = job_path.with_suffix(".out"), job_path.with_suffix(".err")
    # Files and not pipes: on Windows, Python waits for the end of a pipe in spite of a time limit,
    # and a program that the child started (a debugger after a crash) keeps the pipe open.
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            [python, "-I", "-X", "faulthandler", str(PAYLOAD), "--child", str(job_path)],
            env={**os.environ, **search_path(), **environment},
            cwd=job_path.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            creationflags=NO_WINDOW,
        )
        try:
            ended = _ended(process, stdout, timeout, still)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    # Windows' crash codes are known by their hexadecimal numbers: 0xc0000005.
    code = hex(ended) if isinstance(ended, int) and ended >= 256 else ended
    output, errors = (path.read_bytes().decode("utf-8", "replace") for path in (stdout, stderr))
    return list(lines(output)), f"ended by {code}: {reason(errors)}" if code != 0 else None


def lines(output: str) -> Iterator[dict[str, Any]]:
    """The JSON lines in a child's output. A line that was cut off is the last one."""
    for line in output.splitlines():
        if line.startswith("@{"):
            try:
                yield json.loads(line[1:])
            except ValueError:
                return


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of all lines; a later line replaces values of an earlier one."""
    return {name: value for part in parts for name, value in part.items()}


def _ended(
    process: subprocess.Popen[bytes], stdout: Path, timeout: float, still: float | None
) -> int | str:
    """The exit code of a child, or the limit that it reached."""
    end = time.monotonic() + timeout
    size, since = 0, time.monotonic()
    while True:
        now = time.monotonic()
        try:
            return process.wait(max(0.0, min(end - now, timeout if still is None else 1.0)))
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        if now >= end:
            return "the time limit"
        if stdout.stat().st_size != size:
            size, since = stdout.stat().st_size, now
        elif still is not None and now - since >= still:
            return f"the limit of {still:g} s without an answer"


def reason(text: str) -> str:
    """The lines of a failed process's stderr that name the error, else the last lines."""
    frame = re.compile(r"\[0x[0-9a-f]+\]$")  # of a C backtrace
    lines = [n.strip() for n in text.splitlines() if n.strip() and not frame.search(n.strip())]
    raised = [
        n for n, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Refused)\b", line)
    ]
    if raised:  # the exception of a traceback; its text may have several lines
        return " ".join(" ".join(lines[raised[-1] :]).split())[:900]
    named = [
        n
        for n in lines
        if re.search(r"error|exception|assert|abort|PTX|kernel image|compiled|Refused", n, re.I)
    ]
    return " ".join(" ".join((named or lines)[-4:]).split())[-500:]
