"""Runs functions on untrusted data, each in a separate process with limits of memory and time.

The process is ``python -I -c BOOT JOB``; the JSON file JOB has limits, function and arguments.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil

from sessions.shared import disk, programs, records

ROOT = Path(__file__).resolve().parents[2]
ANSWER = 32 << 20  # bytes; the facts of the largest library of rtx50 have less than 1 MB
MEMORY = 8 << 30  # bytes, of all tasks that run at the same time
FILE = 2 << 30  # bytes; what a task may write into one file
# On a busy machine a task waits for a processor. So the limit is processor time, if the system
# counts it, and this many times as much elapsed time.
PATIENCE = 5
_POLL = 0.02  # seconds between two polls of the processes
_WEIGH = 0.25  # seconds between two measurements of their memory
# Isolated: modules come neither from the current folder nor from PYTHONPATH.
_BOOT = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {__name__} as m; m.main()"
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The limits of one task and the processes it starts: bytes of memory, and seconds.

    The seconds are processor time per process; ``PATIENCE`` times as many may elapse.
    """

    memory: int = 2 << 30
    seconds: float = 120


@dataclass(frozen=True)
class Task(Generic[T]):
    """A function ("module:name") that returns ``kind``, and its arguments.

    ``kind`` and the arguments must be types that ``records.to_json`` can write: text, numbers,
    lists and dataclasses of them. Bytes are passed as files.
    """

    function: str
    kind: type[T]
    args: tuple[str | int, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Ended:
    """A task without a result. ``why`` is a clause: "it needed more than 2048 MiB of memory"."""

    why: str


def call(task: Task[T], *, scratch: Path, env: Mapping[str, str]) -> T | Ended:
    """Run one task. Raises OSError for problems of this machine, such as a full disk."""
    ((_, result),) = call_all([task], scratch=scratch, env=env, jobs=1, seconds=float("inf"))
    return result


def call_all(
    tasks: Sequence[Task[T]],
    *,
    scratch: Path,
    env: Mapping[str, str],
    jobs: int,
    seconds: float,
    memory: int = MEMORY,
) -> Iterator[tuple[int, T | Ended]]:
    """Run tasks in their order, at most ``jobs`` at a time; yield (index, result) as each ends.

    Fewer run if their memory limits add up to more than ``memory`` bytes or the free memory.
    Their job and answer files are in ``scratch``. After ``seconds`` running tasks are ended, and
    the others do not start. When this process or this loop ends, all tasks end immediately.
    Raises OSError for problems of this machine, such as a full disk.
    """
    waiting, running = list(enumerate(tasks)), dict[int, _Running]()
    start = time.monotonic()
    room = min(memory, psutil.virtual_memory().available)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            while waiting or running:
                late = time.monotonic() - start > seconds
                while waiting and not late and len(running) < max(jobs, 1):
                    index, task = waiting[0]
                    taken = sum(process.task.limits.memory for process in running.values())
                    if running and taken + task.limits.memory > room:
                        break
                    del waiting[0]
                    running[index] = _Running(task, Path(folder) / str(index), env)
                for index, process in list(running.items()):
                    result = process.look()
                    if result is None and late:
                        result = _late(seconds)
                    if result is not None:
                        process.end()
                        del running[index]
                        yield index, result
                if late and not running:
                    yield from ((index, _late(seconds)) for index, _ in waiting)
                    return
                time.sleep(_POLL)
        finally:
            for process in running.values():
                process.end()


def _late(seconds: float) -> Ended:
    return Ended(f"the limit of {seconds:g} s for the whole wheel was reached")


class _Running:
    """A task's process."""

    def __init__(self, task: Task[Any], base: Path, env: Mapping[str, str]) -> None:
        self.task = task
        self.answer, self.output = base.with_suffix(".answer"), base.with_suffix(".out")
        job = base.with_suffix(".job")
        limits = {"memory": task.limits.memory, "seconds": task.limits.seconds}
        content = {"function": task.function, "args": task.args, "answer": str(self.answer)}
        job.write_text(json.dumps({**content, **limits}), encoding="ascii")
        self.start = self.weighed = time.monotonic()
        with self.output.open("wb") as output:
            command = [sys.executable, "-I", "-X", "utf8", "-c", _BOOT, str(job)]
            self.child = programs.begin(command, env=env, cwd=base.parent, output=output)

    def look(self) -> Any:
        """The result, or None while the task runs."""
        limits, now = self.task.limits, time.monotonic()
        if self.child.poll() is not None:
            return self._result(self.child.returncode)
        if now - self.start > PATIENCE * limits.seconds:
            return _time(limits)
        if now - self.weighed > _WEIGH:
            self.weighed = now
            if _memory(self.child.pid) > limits.memory:
                return _room(limits)
        return None

    def _result(self, code: int) -> Any:
        limits = self.task.limits
        if sys.platform != "win32" and code == -signal.SIGXCPU:
            return _time(limits)
        if sys.platform != "win32" and code == -signal.SIGKILL:
            return Ended("it was killed; the system does this if memory runs out")
        try:
            if self.answer.stat().st_size > ANSWER:
                return Ended(f"it found more than {ANSWER >> 20} MiB of facts, which are not read")
            found = json.loads(self.answer.read_text(encoding="ascii"))
            if "memory" in found:
                return _room(limits)
            if "oserror" in found:
                raise OSError(*found["oserror"])
            return records.from_json(self.task.kind, found["value"])
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            text = self.output.read_bytes()[-4000:].decode("utf-8", "replace")
        # What C++ and Rust print when an allocation fails.
        if "bad_alloc" in text or "memory allocation of" in text or "MemoryError" in text:
            return _room(limits)
        last = text.strip().splitlines()[-1:] or ["it printed nothing"]
        return Ended(f"it ended with {code}: {last[0][:200]}")

    def end(self) -> None:
        programs.end(self.child)


def _time(limits: Limits) -> Ended:
    return Ended(
        f"it needed more than {limits.seconds:g} s, its limit of time "
        "(on a busy machine, run verify again later)"
    )


def _room(limits: Limits) -> Ended:
    return Ended(f"it needed more than {limits.memory >> 20} MiB, its limit of memory")


def _memory(pid: int) -> int:
    """Resident memory (bytes) of a process and all its descendants."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total


# ---- In the process of the task ----------------------------------------------------------------


def main() -> None:
    """Run the task in the file ``sys.argv[1]``; write its answer."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    _limit(job["memory"], job["seconds"])
    threading.Thread(target=_watch, daemon=True).start()
    try:
        module, name = job["function"].split(":")
        function = getattr(importlib.import_module(module), name)
        text = json.dumps({"value": records.to_json(function(*job["args"]))})
    except MemoryError:
        text = '{"memory": true}'
    except OSError as error:
        if disk.problem_of(error) is None:
            raise
        text = json.dumps({"oserror": [error.errno, error.strerror, error.filename]})
    Path(job["answer"]).write_text(text, encoding="ascii")


def _limit(memory: int, seconds: float) -> None:
    """Limit this process and those it starts. On Windows only the parent checks the memory."""
    if sys.platform == "win32":
        return
    import resource

    cpu = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch() -> None:
    """End this process when its parent has ended, which closes the pipe that is stdin."""
    with contextlib.suppress(OSError):
        os.read(0, 1)
    if sys.platform == "win32":
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        os._exit(1)
    os.killpg(0, signal.SIGKILL)
