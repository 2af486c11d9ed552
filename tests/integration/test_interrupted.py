"""Runs that are stopped half-way, and runs that meet."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import (
    SOURCES,
    Checkout,
    Project,
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


@pytest.fixture
def stalling() -> Iterator[Mapping[str, str]]:
    """The environment that points pip to a server that sends a part of a source, and waits."""
    name, ended = "llama_cpp_python-0.3.16.tar.gz", threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = f'<a href="{name}">{name}</a>'.encode()
            file = self.path.endswith(name)
            self.send_response(200)
            kind = "application/octet-stream" if file else "text/html"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(10**8 if file else len(page)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(os.urandom(2 * 10**6) if file else page)
                if file:
                    ended.wait()

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": f"http://127.0.0.1:{server.server_port}/",
        "PIP_NO_CACHE_DIR": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    ended.set()
    server.shutdown()
    server.server_close()


def nothing_half_made(mini: Checkout) -> None:
    """No wheel, whole or not: the run was stopped before there could be one."""
    assert not mini.wheels.exists() or not list(mini.wheels.iterdir())


def goes_on(mini: Checkout, compiler: SlowCompiler) -> None:
    """The next run compiles what is missing, not what is there, and its wheel is sound."""
    mini.nox(*compiler.options).well()
    assert 0 < len(mini.compiled()) < SOURCES
    assert mini.record["version"] == "0.0.1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_run_ends_its_compilers_and_the_next_goes_on(
    mini: Checkout, slow_compiler: SlowCompiler, tmp_path: Path, number: signal.Signals
) -> None:
    slow_compiler.slow(300)
    running = mini.start(*slow_compiler.options)
    slow_compiler.wait_until_half_way(running, mini.build / "tree")
    os.killpg(running.process.pid, number)
    ended = running.end(timeout=15)
    assert ended.code == 128 + number, ended.output
    assert "Traceback" not in ended.output, ended.output
    assert processes_of(tmp_path) == []
    nothing_half_made(mini)
    slow_compiler.quick()
    goes_on(mini, slow_compiler)


def test_kill_9_of_everything(mini: Checkout, slow_compiler: SlowCompiler, tmp_path: Path) -> None:
    slow_compiler.slow(300)
    running = mini.start(*slow_compiler.options)
    slow_compiler.wait_until_half_way(running, mini.build / "tree")
    kill_tree(running.process.pid)
    running.end()
    assert processes_of(tmp_path) == []
    nothing_half_made(mini)
    slow_compiler.quick()
    goes_on(mini, slow_compiler)


def test_kill_9_of_only_nox_leaves_no_compiler_to_disturb_the_next_run(
    mini: Checkout, slow_compiler: SlowCompiler
) -> None:
    """The compilers are in a group of their own; either they end too or the next run waits."""
    slow_compiler.slow(20)
    running = mini.start(*slow_compiler.options)
    orphan = slow_compiler.wait_until_half_way(running, mini.build / "tree")
    os.killpg(running.process.pid, signal.SIGKILL)
    running.end()
    nothing_half_made(mini)
    slow_compiler.quick()
    goes_on(mini, slow_compiler)
    assert not (orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE), (
        "the compiler of the killed run was still at work in the tree of the next"
    )


def test_stopped_between_build_and_publish(mini: Checkout) -> None:
    """Killed at moments spread over the whole run: never a broken wheel, and the last succeeds."""
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
    assert mini.record["sha256"] != good  # which also finds leftovers of the killed runs
    assert b"edition, again" in mini.libraries()["libmtmd.so"]


def test_two_runs_of_one_target_take_turns(mini: Checkout, slow_compiler: SlowCompiler) -> None:
    slow_compiler.slow(4)
    first = mini.start(*slow_compiler.options)
    slow_compiler.wait_until_half_way(first, mini.build / "tree")
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


def test_caches_that_another_checkouts_build_uses_stay(
    mini: Checkout, other: Project, slow_compiler: SlowCompiler
) -> None:
    """The build goes on with the toolkit, the tools and the compiler cache that it began with."""
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
    said = " ".join(cleaned.output.split())
    assert f"{cache / 'ccache'} stays, another run uses it: Process " in said
    assert f"in {mini.project.root})" in said
    running.end().well()
    assert mini.record["version"] == "0.0.1"


def test_kill_9_while_pip_downloads_leaves_nothing_in_the_temporary_folder(
    project: Project, tools_alone: Path, tmp_path: Path, stalling: Mapping[str, str]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {**stalling, "BLACKWHEEL_CACHE": str(tools_alone), "TMPDIR": str(temporary)}
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
    # The next run ends the pip that goes on, and deletes what it has.
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
