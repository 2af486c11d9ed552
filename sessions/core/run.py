"""Running programs: the only module that imports subprocess."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Windows opens a console for a console program whose parent has none (a run from an editor).
NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW
BUILD_MARK = "BLACKWHEEL_BUILD"  # in the environment of a compiler: the folder it works in


@dataclass(frozen=True)
class Finished:
    """A program's end. ``returncode`` is 127 where it was not found, 124 after the time limit."""

    command: tuple[str, ...]
    returncode: int
    output: str
    seconds: float


def capture(
    command: Sequence[str] | str,
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout: float | None = None,
    stdin: Path | None = None,
) -> Finished:
    """Run to the end and return stdout and stderr as one text. Never raises for its failure.

    A string is a whole command line of Windows: cmd.exe does not read quotes as other programs do.
    """
    words = [command] if isinstance(command, str) else list(command)
    start = time.monotonic()
    try:
        with Path(stdin or os.devnull).open("rb") as given:
            done = subprocess.run(
                command if isinstance(command, str) else words,
                env=dict(env),
                cwd=cwd,
                timeout=timeout,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                creationflags=NO_WINDOW,
            )
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        so_far = error.stdout or b""
        code = 124
        text = so_far if isinstance(so_far, str) else so_far.decode("utf-8", "replace")
    except OSError as error:
        code, text = 127, f"{words[0]}: {error.strerror or error}"
    return Finished(tuple(words), code, text, time.monotonic() - start)


def inherit(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run to the end with this process's own terminal; return the exit code.

    Its environment is this process's own too, or ``env``.
    When this process is interrupted, the program gets the time to end what it started.
    """
    child = subprocess.Popen(list(command), env=dict(env) if env is not None else None)
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=20)
        child.kill()
        raise


def stream(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: IO[str],
    on_line: Callable[[str], None],
    cwd: Path | None = None,
) -> Finished:
    """Run to the end, every output line into ``log`` and to ``on_line``.

    The program gets a process group of its own, which is ended whole when this
    one is interrupted: a compiler left behind would write into the next build.
    ``output`` of the result is empty; the log has it.
    """
    start = time.monotonic()
    try:
        child = subprocess.Popen(
            list(command),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
            start_new_session=True,
            creationflags=NO_WINDOW,
        )
    except OSError as error:
        text = f"{command[0]}: {error.strerror or error}"
        return Finished(tuple(command), 127, text, time.monotonic() - start)
    assert child.stdout is not None
    try:
        for line in child.stdout:
            log.write(line)
            on_line(line.rstrip("\n"))
        code = child.wait()
    except BaseException:
        _end_group(child)
        raise
    finally:
        child.stdout.close()
    return Finished(tuple(command), code, "", time.monotonic() - start)


def begin(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, for ``end``. Raises OSError.

    Its stdin is a pipe that closes when this process ends, however it ends.
    """
    return subprocess.Popen(
        list(command),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        creationflags=NO_WINDOW,
    )


def end(child: subprocess.Popen[bytes]) -> None:
    """End at once what ``begin`` started, and all that it started."""
    if sys.platform == "win32":
        _end_tree(child.pid)
    else:
        # Of a child that has ended the group may still have members.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin:
        child.stdin.close()


def typed(words: Sequence[str]) -> str:
    """A command as one types it; what cmd or PowerShell would read otherwise is in quotes."""
    if sys.platform != "win32":
        return shlex.join(words)
    return " ".join(w if re.fullmatch(r"[\w+=:./\\-]+", w) else f'"{w}"' for w in words)


def free_port() -> int:
    """A TCP port of this machine that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds() -> float:
    """CPU time of the children that have ended, in seconds; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0.0
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@functools.cache
def end_leftovers(name: str, value: str) -> None:
    """End, once a run, every process that has ``name`` as ``value`` in its environment.

    They are what a killed run left behind: compilers that would write into the next build.
    """
    import psutil  # not at the top: the bootstrap has the standard library alone

    found = []
    for process in psutil.process_iter():
        try:
            # A server of sccache serves other builds too, whoever's environment it began with.
            if process.environ().get(name) == value and process.name() != "sccache":
                process.kill()
                found.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(found, timeout=10)


def _end_tree(pid: int) -> None:
    """Windows has no process groups to end: each descendant is ended by itself."""
    import psutil

    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def _end_group(child: subprocess.Popen[str]) -> None:
    if sys.platform == "win32":
        _end_tree(child.pid)
    else:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
