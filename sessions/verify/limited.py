"""Work on what may be hostile: each task in a process of its own, its memory and time limited.

``python -I -c BOOT JOB`` in that process, where JOB is a JSON file: limits, function, arguments.
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
MEMORY = 8 << 30  # bytes, of all tasks that run at a time
FILE = 2 << 30  # bytes; what a task may write into one file
# A task of a busy machine waits for a processor. So its limit is one of processor time, where the
# system counts that, and this many times as long by the clock.
PATIENCE = 5
_POLL = 0.02  # seconds between two looks at the processes
_WEIGH = 0.25  # seconds between two looks at their memory
# Isolated: neither the current folder nor PYTHONPATH decides what is imported.
_BOOT = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {__name__} as m; m.main()"
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Of one task: bytes of memory and seconds, each of its process and all that it starts.

    Seconds of processor time of each process; and ``PATIENCE`` times as many by the clock.
    """

    memory: int = 2 << 30
    seconds: float = 120


@dataclass(frozen=True)
class Task(Generic[T]):
    """A function, as "module:name", that returns ``kind``, and its arguments.

    ``kind`` and the arguments are of what ``records.to_json`` and JSON can carry: text, numbers,
    lists, dataclasses of them. Bytes are passed as files.
    """

    function: str
    kind: type[T]
    args: tuple[str | int, ...]
    limits: Limits = Limits()


@dataclass(frozen=True)
class Ended:
    """A task that gave no answer. ``why`` is a clause: "it needed more than 2048 MiB of memory"."""

    why: str


def call(task: Task[T], *, scratch: Path, env: Mapping[str, str]) -> T | Ended:
    """Run one task to its end. Raises OSError where this machine's disk was full, and the like."""
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
    """Run tasks, ``jobs`` at a time in their order; yield (index, result) as each ends.

    Fewer where their limits of memory come to more than ``memory`` bytes, or than are free.
    ``scratch`` takes what they are told and answer. After ``seconds`` those that run are ended
    and the rest are not begun. Whatever ends this process or this loop ends them too, at once.
    Raises OSError where this machine's disk was full, and the like.
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
        job.write_text(
            json.dumps(
                {
                    "function": task.function,
                    "args": task.args,
                    "memory": task.limits.memory,
                    "seconds": task.limits.seconds,
                    "answer": str(self.answer),
                }
            ),
            encoding="ascii",
        )
        self.start = self.weighed = time.monotonic()
        with self.output.open("wb") as output:
            command = [sys.executable, "-I", "-X", "utf8", "-c", _BOOT, str(job)]
            self.child = programs.begin(command, env=env, cwd=base.parent, output=output)

    def look(self) -> Any:
        """The result, or None while there is none."""
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
        # What C++ and Rust say when an allocation fails.
        if "bad_alloc" in text or "memory allocation of" in text or "MemoryError" in text:
            return _room(limits)
        last = text.strip().splitlines()[-1:] or ["it said nothing"]
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
    """Bytes that a process and all that it started have in memory."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total


# ---- In the process of the task ----------------------------------------------------------------


def main() -> None:
    """Run the task that the file in ``sys.argv[1]`` names; leave its answer."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    _limit(job["memory"], job["seconds"])
    threading.Thread(target=_watch, daemon=True).start()
    found: dict[str, Any]
    try:
        module, name = job["function"].split(":")
        function = getattr(importlib.import_module(module), name)
        found = {"value": records.to_json(function(*job["args"]))}
        text = json.dumps(found)
    except MemoryError:
        text = '{"memory": true}'
    except OSError as error:
        if disk.problem_of(error) is None:
            raise
        text = json.dumps({"oserror": [error.errno, error.strerror, error.filename]})
    Path(job["answer"]).write_text(text, encoding="ascii")


def _limit(memory: int, seconds: float) -> None:
    """Of this process and each that it starts. Windows has the parent's look at its memory."""
    if sys.platform == "win32":
        return
    import resource

    cpu = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch() -> None:
    """End when the parent has ended, however it did: the pipe that is stdin closes."""
    with contextlib.suppress(OSError):
        os.read(0, 1)
    if sys.platform == "win32":
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        os._exit(1)
    os.killpg(0, signal.SIGKILL)
