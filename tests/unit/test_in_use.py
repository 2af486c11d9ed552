"""Locks and shared folders with real processes; ``clean`` deletes nothing that a run uses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import filelock
import pytest

from sessions.build import main_clean
from sessions.shared import disk, in_use, locks, programs, records
from sessions.shared.context import Context
from tests import fakes

SETUP = """
import sys
from pathlib import Path
from sessions.shared import disk, in_use, locks
from sessions.shared.errors import Problem
path = Path(sys.argv[1])
def say(text): print(text, flush=True)
"""
USES = "in_use.share(path, say); say('ready'); sys.stdin.read()"
HAS = "locks.hold(path, say); say('ready'); sys.stdin.read()"
# On Windows a venv's python.exe starts another process, whose id is not known here.
PYTHON, ENV = sys.executable, dict(os.environ)
if sys.platform == "win32":
    PYTHON, ENV["__PYVENV_LAUNCHER__"] = sys._base_executable, sys.executable


class Run:
    """Another process, which runs until its standard input ends."""

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
    def name(self) -> str:
        """The beginning of its description."""
        return f"Process {self.process.pid} ("

    @property
    def owner(self) -> str:
        """The beginning of its description as the owner of a lock, unknown on Windows."""
        return "Another run" if sys.platform == "win32" else self.name

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ready(self) -> Run:
        assert self.line() == "ready"
        return self

    def end(self) -> None:
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.end()


Start = Callable[[str, Path], Run]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts other processes, which end with the test."""
    runs: list[Run] = []

    def begin(code: str, path: Path) -> Run:
        runs.append(Run(code, path))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "cuda-13.1.lock"


def users(path: Path) -> tuple[str, ...]:
    with in_use.unused(path, print) as found:
        return found


def test_many_runs_use_one_folder_and_each_is_named(path: Path, start: Start) -> None:
    others = [start(USES, path).ready() for _ in range(3)]
    found = users(path)
    assert len(found) == 3
    for other in others:
        assert [str(fakes.ROOT) in text for text in found if other.name in text] == [True]
        other.end()
    assert users(path) == ()


def test_a_killed_run_is_not_a_user(path: Path, start: Start) -> None:
    start(USES, path).ready().kill()
    assert users(path) == ()
    assert list(path.with_suffix(".users").iterdir()) == []


def test_a_run_that_creates_a_folder_counts_as_its_user(path: Path, start: Start) -> None:
    other = start(HAS, path).ready()
    (found,) = users(path)
    assert other.owner in found


@pytest.mark.parametrize(("code", "lock"), [(USES, in_use.exclusive), (HAS, locks.lock)])
def test_a_run_waits_for_the_users_and_owners_of_a_folder_and_names_them(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, code: str, lock: Any
) -> None:
    monkeypatch.setattr(in_use, "POLL", 0.01)
    other = start(code, path).ready()
    lines: list[str] = []

    def waiting(text: str) -> None:
        lines.append(text)
        other.end()

    with lock(path, waiting):
        assert other.process.returncode == 0
    (line,) = lines
    assert (other.name if code == USES else other.owner) in line
    assert path.stem in line


def test_no_run_begins_to_use_a_folder_that_another_replaces(path: Path, start: Start) -> None:
    maker = start(
        "\nwith in_use.exclusive(path, say): say('ready'); sys.stdin.read()", path
    ).ready()
    other = start(USES, path)
    assert maker.owner in other.line()
    maker.end()
    other.ready()
    assert len(users(path)) == 1


def test_a_run_that_waits_for_users_does_not_block_new_users(path: Path, start: Start) -> None:
    """Otherwise a child nox would wait for it, and it would wait for the child's parent."""
    first = start(USES, path).ready()
    writer = start("\nwith in_use.exclusive(path, say): say('in the block')", path)
    assert "is in use" in writer.line()
    second = start(USES, path).ready()
    first.end()
    second.end()
    assert writer.line() == "in the block"


def test_a_child_that_needs_the_lock_of_its_parent_fails_at_once(path: Path, start: Start) -> None:
    locks.hold(path, print)
    code = "\ntry: locks.lock(path, say)\nexcept Problem as problem: say(problem.id)"
    assert start(code, path).line() == "lock-of-parent"


# ---- temporary folders ----


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_temporary_folder_is_deleted_at_the_end(
    tmp_path: Path, error: type[BaseException] | None
) -> None:
    with contextlib.suppress(KeyboardInterrupt), in_use.scratch(tmp_path / "tmp") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_bytes(b"700 MB")
        assert folder.parent == tmp_path / "tmp"
        if error:
            raise error
    # On Windows the file of a lock is deleted when the lock is released.
    kept = {disk.TAG} if sys.platform == "win32" else {disk.TAG, "gate.lock"}
    assert {path.name for path in (tmp_path / "tmp").iterdir()} == kept


def test_the_next_run_deletes_temporary_folders_of_killed_runs_only(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, str]] = []
    monkeypatch.setattr(programs, "end_leftovers", lambda *mark: ended.append(mark))
    code = """
with in_use.scratch(path) as folder:
    (folder / "big").write_bytes(bytes(1000))
    say(folder)
    sys.stdin.read()
"""
    killed, living = start(code, tmp_path / "tmp"), start(code, tmp_path / "tmp")
    left, kept = Path(killed.line()), Path(living.line())
    killed.kill()
    assert (left / "big").exists()
    with in_use.scratch(tmp_path / "tmp"):
        assert not left.exists()
        assert (kept / "big").exists()
    assert ended == [(programs.BUILD_MARK, str(left))]  # a pip of the killed run would write there


# ---- clean ----


def clean(root: Path, *words: str) -> None:
    main_clean.main(fakes.context(root, *words, session="clean", asked=frozenset({"clean"})))


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


def test_clean_keeps_caches_that_another_run_uses(
    ctx: Context, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    used = ("cuda-13.1-abc", "ccache")
    others = [start(USES, ctx.cached_lock(name)).ready() for name in used]
    main_clean.main(ctx)
    assert left(ctx) == set(used)
    output = " ".join(capsys.readouterr().out.split())
    for name, other in zip(used, others, strict=True):
        assert f"{ctx.cache / name} stays" in output
        assert other.name in output
        other.end()
    main_clean.main(ctx)
    assert left(ctx) == set()


def test_clean_keeps_the_files_of_locks(ctx: Context, start: Start) -> None:
    """A new file of that name would be another lock, and two runs could have it at once."""
    lock = ctx.cached_lock("cuda-13.4-abc")
    other = start(HAS, lock).ready()
    main_clean.main(ctx)
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(lock).acquire(timeout=0)
    other.end()


@pytest.mark.parametrize("code", [HAS, USES])  # USES: a run with --wheel works in the folder too
def test_clean_keeps_a_target_and_a_source_that_another_run_uses(
    ctx: Context, start: Start, code: str
) -> None:
    for folder in ("build/hopper", "build/ada", "llama-cpp-python-src/0.3.16"):
        disk.mark(ctx.root / folder)
    start(code, ctx.lock_of("hopper")).ready()
    start(USES, ctx.lock_of("source-0.3.16")).ready()
    clean(ctx.root, "--all")
    assert (ctx.root / "build" / "hopper").exists()
    assert not (ctx.root / "build" / "ada").exists()
    assert (ctx.root / "llama-cpp-python-src" / "0.3.16").exists()


def test_clean_keeps_wheels_of_a_target_that_another_run_uses(ctx: Context, start: Start) -> None:
    for label in ("hopper", "ada"):
        folder = ctx.root / "wheels" / label
        folder.mkdir(parents=True)
        (folder / fakes.wheel().file).touch()
        records.write(folder / "wheel.json", "wheel", fakes.wheel(target=label))
    start(HAS, ctx.lock_of("hopper")).ready()
    clean(ctx.root, "--wheels")
    assert len(list((ctx.root / "wheels" / "hopper").iterdir())) == 2
    assert list((ctx.root / "wheels" / "ada").iterdir()) == []
    assert not [path for path in (ctx.root / "build").iterdir() if ".whl" in path.name]


def test_clean_keeps_libraries_in_a_source_that_another_run_copies(
    ctx: Context, start: Start
) -> None:
    source = ctx.root / "llama-cpp-python-src" / "0.3.16"
    disk.mark(source)
    (source / "llama_cpp" / "lib").mkdir(parents=True)
    start(HAS, ctx.lock_of("source-0.3.16")).ready()
    removal = next(r for r in main_clean.stale(ctx) if r.path.name == "lib")
    assert removal.lock == ctx.lock_of("source-0.3.16")
    clean(ctx.root)
    assert (source / "llama_cpp" / "lib").exists()
    assert not ctx.lock_of("source-lib").exists()


def test_clean_deletes_what_killed_runs_left(ctx: Context) -> None:
    parts = ["build/.ada.gone", "llama-cpp-python-src/.0.3.16.part", "build/rtx50/.tree.gone"]
    for name in parts:
        disk.mark(ctx.root / name)
    ctx.wheels.mkdir(parents=True)
    (ctx.wheels / f".{fakes.wheel().file}.77.part").write_bytes(b"half")
    clean(ctx.root)
    assert not [name for name in parts if (ctx.root / name).exists()]
    assert list(ctx.wheels.iterdir()) == []


def test_a_killed_clean_leaves_no_incomplete_folder_under_its_name(ctx: Context) -> None:
    killed = patch.object(disk, "discard", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        main_clean.main(ctx)
    assert "ccache" not in left(ctx)
    assert (ctx.cache / "cuda-13.1-abc" / "file").exists()
