"""Starting one child process: a crash or a hang in it is a finding, not the end of the run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import child

PAYLOAD = Path(__file__).parent
# Windows opens a console for a console program whose parent has none.
NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW


def quiet_crashes() -> None:
    """Have no dialogue opened on Windows for a crash, here or in a child.

    It would wait for somebody to close it.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(
            msvcrt.SEM_FAILCRITICALERRORS  # a library that a library needs is missing
            | msvcrt.SEM_NOGPFAULTERRORBOX
            | msvcrt.SEM_NOOPENFILEERRORBOX
        )


def search_path() -> dict[str, str]:
    """PATH as a child has it: on Windows, libraries are looked for there too.

    Windows' own folder only; with no PATH at all, upstream's package fails.
    """
    if sys.platform == "win32":
        return {"PATH": str(Path(os.environ["SYSTEMROOT"], "System32"))}
    return {}


def spawn(
    python: str,
    told: Path,
    environment: Mapping[str, str],
    timeout: float,
    still: float | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """What a child said, line by line, and how it failed; None if it ended well.

    ``told`` is the job it reads; it works beside it. ``environment`` goes over this process's own.
    It is ended after ``timeout`` seconds, and after ``still`` seconds in which it printed nothing.
    """
    said, failed = told.with_suffix(".out"), told.with_suffix(".err")
    # Files: of a pipe, Windows' Python waits for the end, time limit or not, and what a child
    # started (a debugger, at a crash) holds it open.
    with said.open("wb") as out, failed.open("wb") as err:
        process = subprocess.Popen(
            [python, "-I", "-X", "faulthandler", str(PAYLOAD), "--child", str(told)],
            env={**os.environ, **search_path(), **environment},
            cwd=told.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            creationflags=NO_WINDOW,
        )
        try:
            ended = _ended(process, said, timeout, still)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    # Windows' codes of crashes are known by their hexadecimal numbers: 0xc0000005.
    code = hex(ended) if isinstance(ended, int) and ended >= 256 else ended
    output, errors = said.read_bytes(), failed.read_bytes()
    error = None
    if code != 0:
        error = f"ended by {code}: {reason(errors.decode('utf-8', 'replace'))}"
    return list(child.lines(output.decode("utf-8", "replace"))), error


def _ended(
    process: subprocess.Popen[bytes], said: Path, timeout: float, still: float | None
) -> int | str:
    """The exit code of a child, or which limit it reached."""
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
        if said.stat().st_size != size:
            size, since = said.stat().st_size, now
        elif still is not None and now - since >= still:
            return f"the limit of {still:g} s without an answer"


def reason(text: str) -> str:
    """What a process that failed said of it: the lines that name an error, else its last ones."""
    frame = re.compile(r"\[0x[0-9a-f]+\]$")  # of a C backtrace
    lines = [n.strip() for n in text.splitlines() if n.strip() and not frame.search(n.strip())]
    raised = [
        n for n, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Refused)\b", line)
    ]
    if raised:  # a traceback: its exception, whose text may go on for some lines
        return " ".join(" ".join(lines[raised[-1] :]).split())[:900]
    named = [
        n
        for n in lines
        if re.search(r"error|exception|assert|abort|PTX|kernel image|compiled|Refused", n, re.I)
    ]
    return " ".join(" ".join((named or lines)[-4:]).split())[-500:]
