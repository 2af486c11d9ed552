"""Runs that are interrupted or killed, and runs at the same time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import (
    SOURCES,
    Checkout,
    Project,
    Running,
    Serve,
    SlowCompiler,
    copy_project,
    kill_tree,
    processes_of,
)


@pytest.fixture
def other(mini: Checkout, tmp_path: Path) -> Project:
    """Another checkout of the project, which shares the cache."""
    root = tmp_path / "another checkout"
    copy_project(root)
    (root / ".nox").symlink_to(mini.project.root / ".nox")
    return Project(root, mini.project.env)


def half_way(mini: Checkout, compiler: SlowCompiler) -> tuple[Running, psutil.Process]:
    """A build during which the compiler pauses; the compiler's process."""
    running = mini.start(*compiler.options)
    return running, compiler.wait_until_half_way(running, mini.build / "tree")


def can_continue(mini: Checkout, compiler: SlowCompiler) -> None:
    """There is no wheel; the next run compiles only what is missing."""
    assert not mini.wheels.exists() or not list(mini.wheels.iterdir())
    compiler.quick()
    mini.nox(*compiler.options).well()
    assert 0 < len(mini.compiled()) < SOURCES
    assert mini.record["version"] == "0.0.1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_run_ends_its_compilers_and_the_next_run_continues(
    mini: Checkout, slow_compiler: SlowCompiler, tmp_path: Path, number: signal.Signals
) -> None:
    slow_compiler.slow(300)
    running, _ = half_way(mini, slow_compiler)
    if number == signal.SIGKILL:
        kill_tree(running.process.pid)
        running.end()
    else:
        os.killpg(running.process.pid, number)
        ended = running.end(timeout=15)
        assert ended.code == 128 + number, ended.output
        assert "Traceback" not in ended.output, ended.output
    assert processes_of(tmp_path) == []
    can_continue(mini, slow_compiler)


def test_the_next_run_ends_the_compilers_of_a_killed_nox(
    mini: Checkout, slow_compiler: SlowCompiler
) -> None:
    slow_compiler.slow(20)
    running, orphan = half_way(mini, slow_compiler)
    os.killpg(running.process.pid, signal.SIGKILL)  # the compilers are in another group
    running.end()
    can_continue(mini, slow_compiler)
    assert not (orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE), (
        "the compiler of the killed run was still at work in the tree of the next"
    )


def test_a_killed_run_never_leaves_a_broken_wheel(mini: Checkout) -> None:
    """The runs are killed at several moments; the last one is not."""
    whole = mini.nox().well().seconds
    good = mini.record["sha256"]
    for part in (0.5, 0.7, 0.8, 0.9):
        mini.edit("vendor/llama.cpp/tools/mtmd/clip.cpp", "edition", "edition, again")
        running = mini.start()
        time.sleep(whole * part)
        kill_tree(running.process.pid)
        running.process.wait()
        leftovers = [p.name for p in mini.wheels.iterdir() if p.suffix not in (".whl", ".json")]
        assert len(list(mini.wheels.glob("*.whl"))) == 1
        assert all(name.startswith(".") or ".part" in name for name in leftovers), leftovers
    mini.nox().well()
    assert mini.record["sha256"] != good  # and nothing of the killed runs is left
    assert b"edition, again" in mini.libraries()["libmtmd.so"]


def test_two_runs_of_one_target_take_turns(mini: Checkout, slow_compiler: SlowCompiler) -> None:
    slow_compiler.slow(4)
    first, _ = half_way(mini, slow_compiler)
    second = mini.start(*slow_compiler.options)
    one, two = first.end().well(), second.end().well()
    assert "waiting for it to end" not in one.output
    assert "waiting for it to end" in two.output
    assert "wheel: up to date" in two.output
    assert mini.record["version"] == "0.0.1"


def test_two_first_runs_at_once(mini: Checkout) -> None:
    runs = [mini.start(), mini.start()]
    outputs = [running.end().well().output for running in runs]
    assert sum("waiting for it to end" in output for output in outputs) == 1, outputs
    assert mini.record["version"] == "0.0.1"


def test_clean_keeps_caches_that_the_build_of_another_checkout_uses(
    mini: Checkout, other: Project, slow_compiler: SlowCompiler
) -> None:
    cache = Path(mini.project.env["BLACKWHEEL_CACHE"])
    slow_compiler.slow(15)  # seconds: `clean` must end before the compiler, also on a busy machine
    options = tuple(w for w in slow_compiler.options if w not in ("--cache", "none"))
    running = mini.start(*options)
    slow_compiler.wait_until_half_way(running, mini.build / "tree")
    before = {path.name for path in cache.iterdir()}
    cleaned = other.nox("clean", "--caches").well()
    assert running.process.poll() is None, running.output
    assert {path.name for path in cache.iterdir()} >= {
        name for name in before if name.startswith(("tools-", "ccache"))
    }
    output = " ".join(cleaned.output.split())
    assert f"{cache / 'ccache'} stays, another run uses it: Process " in output
    assert f"in {mini.project.root})" in output
    running.end().well()
    assert mini.record["version"] == "0.0.1"


def test_a_killed_download_leaves_nothing_in_the_temporary_folder(
    project: Project, tools_alone: Path, tmp_path: Path, serve: Serve
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    name = "llama_cpp_python-0.3.16.tar.gz"
    pip = serve(name, os.urandom(2 * 10**6), size=10**8, stalls=True)
    env = {**pip, "BLACKWHEEL_CACHE": str(tools_alone), "TMPDIR": str(temporary)}
    running = project.start("source", "--target", "cpu", env=env)

    def unpacked() -> list[Path]:
        return [path for path in (tools_alone / "tmp").rglob("*.tar.gz") if path.stat().st_size]

    for _ in range(600):
        if unpacked():
            break
        assert running.process.poll() is None, running.output
        time.sleep(0.1)
    os.kill(running.process.pid, signal.SIGKILL)
    left = unpacked()
    running.end()
    assert left
    assert list(temporary.iterdir()) == []
    # The next run ends the pip that is still running, and deletes its files.
    (tmp_path / "empty").mkdir()
    nothing = {"PIP_FIND_LINKS": str(tmp_path / "empty"), "PIP_NO_INDEX": "1"}
    project.nox("source", "--target", "cpu", env={**env, **nothing}).badly("the source of")
    assert [path for path in (tools_alone / "tmp").iterdir() if path.is_dir()] == []
    assert list(temporary.iterdir()) == []
    assert processes_of(tools_alone) == []


def test_two_targets_at_once(project: Project) -> None:
    checkouts = [project.checkout("mini-a"), project.checkout("mini-b")]
    runs = [checkout.start() for checkout in checkouts]
    for running in runs:
        running.end().well()
    for checkout in checkouts:
        assert checkout.record["target"] == checkout.label
    assert checkouts[0].libraries() == checkouts[1].libraries()
