"""Runs programs and ends them. Only this module imports subprocess."""

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
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

# On Windows, a console program whose parent has no console would open one.
NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW
_GRACE = 2.0  # seconds to wait for output if another process keeps the pipe open
BUILD_MARK = "BLACKWHEEL_BUILD"  # variable of child processes: the folder that they write to


@dataclass(frozen=True)
class Finished:
    """The result of a program. ``returncode``: 127 if it was not found, 124 after the time limit.

    Parse only ``stdout``: stderr may contain warnings.
    """

    command: tuple[str, ...]
    returncode: int
    stdout: str
    seconds: float
    stderr: str = ""

    @property
    def output(self) -> str:
        """Its whole output, for people: stdout, then stderr."""
        gap = "\n" if self.stdout and self.stderr and not self.stdout.endswith("\n") else ""
        return f"{self.stdout}{gap}{self.stderr}"


def capture(
    command: Sequence[str] | str,
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout: float | None = None,
    stdin: Path | None = None,
) -> Finished:
    """Run a program and return its output. It does not raise if the program fails.

    After ``timeout`` seconds the program and all its children are killed. ``stdin``: a file, by
    default empty. A string is a command line for Windows: cmd.exe has its own rules for quotes.
    """
    words = [command] if isinstance(command, str) else list(command)
    start = time.monotonic()
    try:
        with Path(stdin or os.devnull).open("rb") as given:
            child = subprocess.Popen(
                command if isinstance(command, str) else words,
                env=dict(env),
                cwd=cwd,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                creationflags=NO_WINDOW,
            )
    except OSError as error:
        text = f"{words[0]}: {error.strerror or error}"
        return Finished(tuple(words), 127, "", time.monotonic() - start, text)
    code, streams = _read_all(child, timeout)
    out, err = map(_text, streams)
    return Finished(tuple(words), code, out, time.monotonic() - start, err)


def _text(stream: bytearray) -> str:
    return stream.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _read_all(
    child: subprocess.Popen[bytes], timeout: float | None
) -> tuple[int, tuple[bytearray, bytearray]]:
    """The exit code of a program, 124 after the time limit, and its stdout and stderr.

    Not ``communicate``, which waits until the pipes are closed: a server that the program started
    keeps them open, and on Windows the time limit does not end that wait.
    """
    output = bytearray(), bytearray()

    def read(stream: IO[bytes], into: bytearray) -> None:
        with stream:
            while block := os.read(stream.fileno(), 65536):
                into += block

    assert child.stdout is not None
    assert child.stderr is not None
    pairs = zip((child.stdout, child.stderr), output, strict=True)
    readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in pairs]
    try:
        for reader in readers:
            reader.start()
        code = child.wait(timeout)
    except subprocess.TimeoutExpired:
        code = 124
        _end_tree(child.pid)
        child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    until = time.monotonic() + _GRACE
    for reader in readers:
        reader.join(max(0.0, until - time.monotonic()))
    return code, output


def inherit(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program with this process's terminal; return the exit code.

    ``env`` is by default this process's environment. If this process is interrupted, the program
    gets 20 seconds to end its children.
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
    """Run a program, and pass each line of output to ``log`` and ``on_line``.

    The program has its own process group, which is ended if this process is interrupted: a compiler
    that continues would write into the next build. ``stdout`` of the result is empty.
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
        end(child, grace=5.0)
        raise
    finally:
        child.stdout.close()
    return Finished(tuple(command), code, "", time.monotonic() - start)


def ended_by_signals(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Call ``handler`` for SIGTERM and SIGHUP (the terminal was closed).

    SIGHUP stays ignored if it is ignored, as with nohup.
    """
    signal.signal(signal.SIGTERM, handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def begin(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program in its own process group; ``end`` ends it. Raises OSError.

    Its stdin is a pipe, which closes when this process ends.
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


def end(child: subprocess.Popen[Any], *, grace: float = 0.0) -> None:
    """Kill a program that leads a process group, and all processes that it started.

    Before that the group gets SIGTERM, except on Windows, and ``grace`` seconds to end by itself:
    ninja has its compilers in other groups, and ends them and deletes their unfinished files.
    """
    if grace or sys.platform == "win32":
        _end_tree(child.pid, grace)
    if sys.platform != "win32":
        # A group may have ended already, and may have members after the program has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin:
        child.stdin.close()


def typed(words: Sequence[str]) -> str:
    """A command line to type, with quotes for the system's shell (cmd and PowerShell)."""
    if sys.platform != "win32":
        return shlex.join(words)
    return " ".join(w if re.fullmatch(r"[\w+=:./\\-]+", w) else f'"{w}"' for w in words)


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds() -> float:
    """CPU time of the ended children in seconds; 0 on Windows, which does not measure it."""
    if sys.platform == "win32":
        return 0.0
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@functools.cache
def end_leftovers(name: str, value: str) -> None:
    """Kill, once per run, every process whose environment variable ``name`` is ``value``.

    A killed run leaves them behind: compilers that would write into the next build.
    """
    import psutil  # not at the top: the bootstrap has only the standard library

    killed = []
    for process in psutil.process_iter():
        try:
            # An sccache server works for other builds too.
            if process.environ().get(name) == value and process.name() != "sccache":
                process.kill()
                killed.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(killed, timeout=10)


def _end_tree(pid: int, grace: float = 0.0) -> None:
    """Kill a process and its children one by one, because they may not be in one group.

    With ``grace`` the process's group gets SIGTERM first, and all of them this many seconds.
    """
    import psutil

    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return
    if grace and sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGTERM)
        psutil.wait_procs(family, timeout=grace)
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(family, timeout=10)
