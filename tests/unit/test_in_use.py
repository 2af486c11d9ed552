"""What several runs use: nobody deletes it under them, whoever ends how. With real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from sessions.build import main_clean
from sessions.shared import disk, in_use, programs
from sessions.shared.context import Context
from tests import fakes

SETUP = """
import sys
from pathlib import Path
from sessions.shared import disk, in_use
from sessions.shared.errors import Problem
path = Path(sys.argv[1])
def say(text): print(text, flush=True)
"""
USES = "in_use.share(path, say); say('ready'); sys.stdin.read()"
HAS = "disk.hold(path, say); say('ready'); sys.stdin.read()"


# On Windows a venv's python.exe starts another process, whose number is not known here.
PYTHON, ENV = sys.executable, dict(os.environ)
if sys.platform == "win32":
    PYTHON, ENV["__PYVENV_LAUNCHER__"] = sys._base_executable, sys.executable


class Run:
    """Another process, at work until its standard input ends."""

    def __init__(self, code: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [PYTHON, "-c", SETUP + code, str(path)],
            cwd=fakes.ROOT,
            env=ENV,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def owner(self) -> str:
        """What the words on a lock of its begin with: Windows does not say who has one."""
        return "Another run" if sys.platform == "win32" else f"Process {self.process.pid} ("

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ready(self) -> Run:
        assert self.line() == "ready"
        return self

    def end(self) -> None:
        self.process.communicate(timeout=20)


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for other in started:
        other.process.kill()
        other.process.communicate(timeout=20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "cuda-13.1.lock"


def start(runs: list[Run], code: str, path: Path) -> Run:
    runs.append(Run(code, path))
    return runs[-1]


def users(path: Path) -> tuple[str, ...]:
    with in_use.unused(path, print) as found:
        return found


def test_any_number_of_runs_use_one_folder_and_each_is_named(path: Path, runs: list[Run]) -> None:
    others = [start(runs, USES, path).ready() for _ in range(3)]
    found = users(path)
    assert sorted(found) == sorted(
        next(text for text in found if f"Process {other.process.pid} (" in text) for other in others
    )
    assert all(str(fakes.ROOT) in text for text in found)
    for other in others:
        other.end()
    assert users(path) == ()


def test_a_run_that_was_killed_uses_nothing(path: Path, runs: list[Run]) -> None:
    other = start(runs, USES, path).ready()
    other.process.kill()
    other.process.wait()
    assert users(path) == ()
    assert list(path.with_suffix(".users").iterdir()) == []


def test_who_makes_a_folder_counts_as_its_user(path: Path, runs: list[Run]) -> None:
    other = start(runs, HAS, path).ready()
    (found,) = users(path)
    assert other.owner in found


def test_who_replaces_a_folder_waits_for_its_users_and_says_for_whom(
    path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_use, "POLL", 0.01)
    other = start(runs, USES, path).ready()
    said: list[str] = []

    def waiting(text: str) -> None:
        said.append(text)
        other.end()

    with in_use.sole(path, waiting):
        assert other.process.returncode == 0
    assert len(said) == 1
    assert f"Process {other.process.pid} (" in said[0]
    assert path.stem in said[0]


def test_no_run_begins_to_use_what_another_replaces(path: Path, runs: list[Run]) -> None:
    maker = start(
        runs, "\nwith in_use.sole(path, say): say('ready'); sys.stdin.read()", path
    ).ready()
    other = start(runs, USES, path)
    assert maker.owner in other.line()
    maker.end()
    other.ready()
    assert len(users(path)) == 1


def test_a_run_that_waits_for_users_keeps_no_new_one_out(path: Path, runs: list[Run]) -> None:
    """Else a child nox would wait for it, and it for the child's parent."""
    start(runs, USES, path).ready()
    writer = start(runs, "\nwith in_use.sole(path, say): say('alone')", path)
    assert "is in use" in writer.line()
    start(runs, USES, path).ready()
    for other in (runs[0], runs[2]):
        other.end()
    assert writer.line() == "alone"


def test_a_child_that_needs_its_parents_lock_is_told_at_once(path: Path, runs: list[Run]) -> None:
    disk.hold(path, print)
    code = "\ntry: disk.lock(path, say)\nexcept Problem as problem: say(problem.id)"
    assert start(runs, code, path).line() == "lock-of-parent"


def test_who_waits_for_a_lock_is_told_who_has_it(path: Path, runs: list[Run]) -> None:
    other = start(runs, HAS, path).ready()
    said: list[str] = []

    def waiting(text: str) -> None:
        said.append(text)
        other.end()

    with disk.lock(path, waiting):
        pass
    assert len(said) == 1
    assert other.owner in said[0]


# ---- temporary folders ----


def test_a_temporary_folder_goes_at_the_end(tmp_path: Path) -> None:
    with in_use.scratch(tmp_path / "tmp") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_bytes(b"700 MB")
        assert folder.parent == tmp_path / "tmp"
    # On Windows the file of a lock goes when it is released.
    kept = {disk.TAG} if sys.platform == "win32" else {disk.TAG, "gate.lock"}
    assert {path.name for path in (tmp_path / "tmp").iterdir()} == kept


def test_it_goes_after_a_failure_too(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), in_use.scratch(tmp_path / "tmp") as folder:
        (folder / "file").touch()
        raise KeyboardInterrupt
    assert not folder.exists()


def test_what_a_killed_run_left_goes_with_the_next_and_what_a_living_one_has_stays(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, str]] = []
    monkeypatch.setattr(programs, "end_leftovers", lambda *mark: ended.append(mark))
    code = """
with in_use.scratch(path) as folder:
    (folder / "big").write_bytes(bytes(1000))
    say(folder)
    sys.stdin.read()
"""
    killed, living = start(runs, code, tmp_path / "tmp"), start(runs, code, tmp_path / "tmp")
    left, kept = Path(killed.line()), Path(living.line())
    killed.process.kill()
    killed.process.wait()
    assert (left / "big").exists()
    with in_use.scratch(tmp_path / "tmp"):
        assert not left.exists()
        assert (kept / "big").exists()
    assert ended == [(programs.BUILD_MARK, str(left))], (
        "the pip of the killed run would write there"
    )


# ---- clean ----


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    context = fakes.context(tmp_path, "--caches", session="clean", asked=frozenset({"clean"}))
    disk.mark(context.cache)
    disk.mark(tmp_path / "build")
    for name in ("cuda-13.1-abc", "tools-py3.11-abc", "ccache", "downloads"):
        (context.cache / name).mkdir()
        (context.cache / name / "file").touch()
    return context


def left(ctx: Context) -> set[str]:
    return {p.name for p in ctx.cache.iterdir()} - {disk.TAG, ctx.LOCKS, ctx.SCRATCH}


def test_caches_that_another_run_uses_stay(
    ctx: Context, runs: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    used = ("cuda-13.1-abc", "ccache")
    others = [start(runs, USES, ctx.cached_lock(name)).ready() for name in used]
    main_clean.main(ctx)
    assert left(ctx) == set(used)
    said = " ".join(capsys.readouterr().out.split())
    for name, other in zip(used, others, strict=True):
        assert f"{ctx.cache / name} stays" in said
        assert f"Process {other.process.pid} (" in said
        other.end()
    main_clean.main(ctx)
    assert left(ctx) == set()


def test_a_lock_keeps_its_file_when_the_cache_goes(ctx: Context, runs: list[Run]) -> None:
    """A new file of that name would be another lock: two runs would have it at once."""
    lock = ctx.cached_lock("cuda-13.4-abc")
    other = start(runs, HAS, lock).ready()
    main_clean.main(ctx)
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(lock).acquire(timeout=0)
    other.end()


def test_a_target_and_a_source_that_another_run_uses_stay(ctx: Context, runs: list[Run]) -> None:
    for folder in ("build/hopper", "build/ada", "llama-cpp-python-src/0.3.16"):
        disk.mark(ctx.root / folder)
    start(runs, HAS, ctx.lock_of("hopper")).ready()
    start(runs, USES, ctx.lock_of("source-0.3.16")).ready()
    every = fakes.context(ctx.root, "--all", session="clean", asked=frozenset({"clean"}))
    main_clean.main(every)
    assert (ctx.root / "build" / "hopper").exists()
    assert not (ctx.root / "build" / "ada").exists()
    assert (ctx.root / "llama-cpp-python-src" / "0.3.16").exists()


def test_the_folder_of_a_run_on_a_given_wheel_stays(ctx: Context, runs: list[Run]) -> None:
    """Such a run does not have the target for itself, but works in its folder."""
    disk.mark(ctx.root / "build" / "hopper")
    start(runs, USES, ctx.lock_of("hopper")).ready()
    main_clean.main(fakes.context(ctx.root, "--all", session="clean", asked=frozenset({"clean"})))
    assert (ctx.root / "build" / "hopper").exists()


def test_wheels_of_a_target_at_work_stay_and_no_lock_is_named_after_a_wheel(
    ctx: Context, runs: list[Run]
) -> None:
    from sessions.shared import records

    for label in ("hopper", "ada"):
        folder = ctx.root / "wheels" / label
        folder.mkdir(parents=True)
        (folder / fakes.wheel().file).touch()
        records.write(folder / "wheel.json", "wheel", fakes.wheel(target=label))
    start(runs, HAS, ctx.lock_of("hopper")).ready()
    words = fakes.context(ctx.root, "--wheels", session="clean", asked=frozenset({"clean"}))
    main_clean.main(words)
    assert len(list((ctx.root / "wheels" / "hopper").iterdir())) == 2
    assert list((ctx.root / "wheels" / "ada").iterdir()) == []
    assert not [path for path in (ctx.root / "build").iterdir() if ".whl" in path.name]


def test_libraries_in_a_source_wait_for_who_copies_that_source(
    ctx: Context, runs: list[Run]
) -> None:
    source = ctx.root / "llama-cpp-python-src" / "0.3.16"
    disk.mark(source)
    (source / "llama_cpp" / "lib").mkdir(parents=True)
    start(runs, HAS, ctx.lock_of("source-0.3.16")).ready()
    removal = next(r for r in main_clean.stale(ctx) if r.path.name == "lib")
    assert removal.lock == ctx.lock_of("source-0.3.16")
    main_clean.main(fakes.context(ctx.root, session="clean"))
    assert (source / "llama_cpp" / "lib").exists()
    assert not ctx.lock_of("source-lib").exists()


def test_what_killed_runs_left_is_found_by_the_next_clean(ctx: Context) -> None:
    parts = ["build/.ada.gone", "llama-cpp-python-src/.0.3.16.part", "build/rtx50/.tree.gone"]
    for name in parts:
        disk.mark(ctx.root / name)
    ctx.wheels.mkdir(parents=True)
    (ctx.wheels / f".{fakes.wheel().file}.77.part").write_bytes(b"half")
    main_clean.main(fakes.context(ctx.root, session="clean"))
    assert not [name for name in parts if (ctx.root / name).exists()]
    assert list(ctx.wheels.iterdir()) == []


def test_the_cache_is_swept_of_a_folder_in_one_step(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed while it deletes a toolkit leaves no half of it under its name."""

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(disk, "discard", killed)
    with pytest.raises(KeyboardInterrupt):
        main_clean.main(ctx)
    assert "ccache" not in left(ctx)
    assert (ctx.cache / "cuda-13.1-abc" / "file").exists()
