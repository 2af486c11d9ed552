"""Tasks in processes with limits: their results, and how limits and signals end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from sessions.shared import programs
from sessions.verify import limited_process
from sessions.verify.limited_process import Ended, Limits, Task
from sessions.verify.wheel_facts import Material
from tests.limited_tasks import material

HERE = material.__module__
SMALL = 1 << 30
# The variables that Python and the imports of these tests need on Windows.
ENV = {n: os.environ[n] for n in ("SYSTEMROOT", "USERPROFILE") if sys.platform == "win32"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="no such limit or signal on Windows")


def task(name: str, *args: str | int, memory: int = SMALL, seconds: float = 60) -> Task[str]:
    return Task(f"{HERE}:{name}", str, args, Limits(memory, seconds))


def call(task: Task[str], tmp_path: Path) -> str | Ended:
    return limited_process.call(task, scratch=tmp_path, env=ENV)


def all_of(
    tasks: Sequence[Task[Any]], tmp_path: Path, jobs: int, seconds: float
) -> dict[int, object]:
    return dict(
        limited_process.call_all(tasks, scratch=tmp_path, env=ENV, jobs=jobs, seconds=seconds)
    )


# ---- Results -----------------------------------------------------------------------------------


def test_call_returns_what_the_function_returned(tmp_path: Path) -> None:
    name = "\udcff'\"\n\0é"
    work = Task(f"{HERE}:material", Material, (name, 7))
    assert limited_process.call(work, scratch=tmp_path, env=ENV) == material(name, 7)
    assert list(tmp_path.iterdir()) == []


def test_call_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "psutil", "sessions"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    work = Task(f"{HERE}:where", list[str], ())
    found = limited_process.call(work, scratch=tmp_path, env={**ENV, "PYTHONPATH": str(tmp_path)})
    assert found == [str(tmp_path), "False"]


@pytest.mark.parametrize(
    "name", [pytest.param("take_memory", marks=posix), "take_memory_in_a_program"]
)
def test_call_ends_a_task_at_its_memory_limit(name: str, tmp_path: Path) -> None:
    start = time.monotonic()
    found = call(task(name), tmp_path)
    assert found == Ended("it needed more than 1024 MiB, its limit of memory")
    assert time.monotonic() - start < 30


@posix
def test_a_task_that_waits_may_take_longer_than_its_processor_time(tmp_path: Path) -> None:
    assert call(task("wait", seconds=1), tmp_path) == "done"


@pytest.mark.parametrize("name", ["sleep", "spin"])
def test_call_ends_a_task_at_its_time_limit(name: str, tmp_path: Path) -> None:
    assert call(task(name, seconds=1), tmp_path) == Ended(
        "it needed more than 1 s, its limit of time (on a busy machine, run verify again later)"
    )


@posix
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("die", "it ended with -11: it printed nothing"),
        ("fail", "it ended with 1: LookupError: no such thing"),
        ("nosuch", "it ended with 1: AttributeError: "),
        ("say_much", "it found more than 32 MiB of facts, which are not read"),
    ],
)
def test_call_returns_why_a_task_has_no_result(name: str, why: str, tmp_path: Path) -> None:
    found = call(task(name), tmp_path)
    assert isinstance(found, Ended)
    assert found.why.startswith(why)


def test_call_raises_problems_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        call(task("full_disk"), tmp_path)
    assert caught.value.filename == "/some/file"


def test_call_all_ends_all_tasks_at_the_common_time_limit(tmp_path: Path) -> None:
    tasks = [task("sleep") for _ in range(3)]
    start = time.monotonic()
    assert all_of(tasks, tmp_path, 1, 1) == dict.fromkeys(
        range(3), Ended("the limit of 1 s for the whole wheel was reached")
    )
    assert time.monotonic() - start < 10


def test_call_all_yields_each_result_with_its_index(tmp_path: Path) -> None:
    tasks = [Task(f"{HERE}:material", Material, ("some", n)) for n in range(5)]
    assert all_of(tasks, tmp_path, 2, 60) == {n: material("some", n) for n in range(5)}


@pytest.mark.parametrize(("memory", "most"), [(2 * SMALL, 2), (SMALL, 1), (1, 1)])
def test_call_all_runs_only_as_many_tasks_as_memory_allows(
    memory: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, high = set[int](), 0
    begin, end = programs.begin, programs.end

    def begun(*words: Any, **how: Any) -> Any:
        nonlocal high
        child = begin(*words, **how)
        running.add(child.pid)
        high = max(high, len(running))
        return child

    def ended(child: Any) -> None:
        running.discard(child.pid)
        end(child)

    monkeypatch.setattr(programs, "begin", begun)
    monkeypatch.setattr(programs, "end", ended)
    tasks = [Task(f"{HERE}:material", Material, ("some", n), Limits(SMALL)) for n in range(4)]
    results = limited_process.call_all(
        tasks, scratch=tmp_path, env=ENV, jobs=4, seconds=60, memory=memory
    )
    assert len(list(results)) == 4
    assert (high, running) == (most, set())


# ---- Signals -----------------------------------------------------------------------------------

PARENT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from sessions.verify import limited_process
def stop(*_): sys.exit(143)
import signal
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
task = limited_process.Task("{here}:start_and_sleep", str, ({note!r},))
list(limited_process.call_all([task] * 3, scratch=Path({scratch!r}), env={{}}, jobs=1, seconds=600))
"""


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_signal_that_ends_the_parent_ends_all_tasks(name: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    code = PARENT.format(
        root=str(limited_process.ROOT), here=HERE, note=str(note), scratch=str(tmp_path)
    )
    # nohup ignores SIGHUP, and a child inherits that.
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{code}"
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    for _ in range(1000):
        if note.exists() and len(note.read_text().split()) == 2:
            break
        time.sleep(0.02)
    family = [psutil.Process(int(pid)) for pid in note.read_text().split()]
    parent.send_signal(getattr(signal, name))
    start = time.monotonic()
    parent.wait(10)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert time.monotonic() - start < 5
