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
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

# Windows opens a console for a console program whose parent has none (a run from an editor).
NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW
_GRACE = 2.0  # seconds for the rest of an output, where another process holds the pipe open
BUILD_MARK = "BLACKWHEEL_BUILD"  # in the environment of a compiler: the folder it works in


@dataclass(frozen=True)
class Finished:
    """A program's end. ``returncode`` is 127 where it was not found, 124 after the time limit.

    What is read by a program is ``stdout``: a warning on stderr is not part of an answer.
    """

    command: tuple[str, ...]
    returncode: int
    stdout: str
    seconds: float
    stderr: str = ""

    @property
    def output(self) -> str:
        """All that it printed, for people: stdout, then stderr."""
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
    """Run to the end and return what it printed. Never raises for its failure.

    ``timeout`` is in seconds; after it the program and all that it started are ended. A string is
    a whole command line of Windows: cmd.exe does not read quotes as other programs do.
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
    code, streams = _heard(child, timeout)
    out, err = map(_text, streams)
    return Finished(tuple(words), code, out, time.monotonic() - start, err)


def _text(stream: bytearray) -> str:
    return stream.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _heard(
    child: subprocess.Popen[bytes], timeout: float | None
) -> tuple[int, tuple[bytearray, bytearray]]:
    """The exit code of a program, 124 after the time limit, and its stdout and stderr.

    Not ``communicate``: it waits for the end of the pipes, which a server that the program left
    behind holds open for as long as that runs, and on Windows it does so in spite of a time limit.
    """
    heard = bytearray(), bytearray()

    def read(stream: IO[bytes], into: bytearray) -> None:
        with stream:
            while block := os.read(stream.fileno(), 65536):
                into += block

    assert child.stdout is not None
    assert child.stderr is not None
    pairs = zip((child.stdout, child.stderr), heard, strict=True)
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
    return code, heard


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
    ``stdout`` of the result is empty; the log has it.
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


def ended_by_signals(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have the ends that others wish this process call ``handler``: SIGTERM, and SIGHUP.

    The latter is that of a terminal that was closed; where nohup has it ignored, it stays so.
    """
    signal.signal(signal.SIGTERM, handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


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
    import psutil  # not at the top: the bootstrap has the standard library only

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
    """End a process and all that it started, each by itself: they may have no group."""
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
        # A child that was waited for already has no group, or none that is ours to end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
    child.wait()
