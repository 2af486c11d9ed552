"""Distributed compilation with sccache-dist: each build server has its own network namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import cluster
from sessions.shared import programs
from tests.integration.conftest import ODD, REPOSITORY, SOURCES, Checkout
from tests.integration.test_matrix import lock_cuda

pytestmark = pytest.mark.slow


@pytest.fixture
def sccache_dist(built: Checkout) -> str:
    if os.geteuid() != 0:
        pytest.fail("network namespaces and build servers need root")
    return cluster.sccache_dist(built.build / "configure.json")


def test_the_network_of_a_killed_run_is_removed() -> None:
    code = "import os, lab.cluster as c\nwith c.network(2): os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY)
    assert killed.returncode == -9
    assert f"{cluster.BRIDGE}-12" in namespaces()
    with cluster.network(1):
        assert f"{cluster.BRIDGE}-11" in namespaces()
        assert f"{cluster.BRIDGE}-12" not in namespaces()
    assert cluster.BRIDGE not in namespaces()


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout


def test_a_server_that_does_not_listen_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    port = programs.free_port()
    silent = cluster.running(["sleep", "100"], tmp_path / "log", port)
    with pytest.raises(RuntimeError, match=f"sleep does not listen at 127.0.0.1:{port}"), silent:
        pass


def env_of(folder: Path, servers: cluster.Cluster) -> dict[str, str]:
    return {**servers.env, "SCCACHE_DIR": str(folder / "sccache")}


def call_when(so: Callable[[], bool], do: Callable[[], object]) -> threading.Thread:
    """Call ``do`` in a thread when ``so`` is true, if that is within a minute."""

    def wait() -> None:
        until = time.monotonic() + 60
        while not so():
            if time.monotonic() > until:
                return
            time.sleep(0.01)
        do()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_build_servers_build_the_same_wheel_as_this_machine(
    mini: Checkout, built: Checkout, tmp_path: Path, sccache_dist: str
) -> None:
    with cluster.build_servers(tmp_path / "dist", sccache_dist, 2) as servers:
        ran = mini.nox("--cache", "sccache", "--jobs", "4", env=env_of(tmp_path, servers)).well()
    assert mini.record["cache"]["misses"] == SOURCES
    assert mini.record["cache"]["distributed"] == SOURCES
    assert f"{SOURCES} compiled on build servers" in ran.output
    assert mini.libraries() == built.libraries()


def test_a_file_for_the_gpu_is_compiled_on_build_servers(
    built: Checkout, tmp_path: Path, sccache_dist: str
) -> None:
    project = lock_cuda(built, tmp_path / ODD)
    words = ("--target", "rtx50", "--cache", "sccache", "--jobs", "2")
    with cluster.build_servers(tmp_path / "dist", sccache_dist, 1) as servers:
        project.start("wheel", *words, env=env_of(tmp_path, servers)).end(timeout=300).well()
        (server,) = servers.servers
        given = servers.given(server)
    text = (project.root / "wheels" / "rtx50" / "wheel.json").read_text()
    counts = json.loads(text)["wheel"]["cache"]
    assert (counts["misses"], counts["dist_errors"]) == (SOURCES + 1, 0)
    # A file for the CPU is one job, a file for nvcc several.
    assert counts["distributed"] == given > SOURCES + 1


def test_the_next_builder_takes_objects_of_build_servers_from_the_store(
    mini: Checkout, tmp_path: Path, sccache_dist: str
) -> None:
    options = ("--cache", "sccache", "--jobs", "2")
    with (
        cluster.s3(tmp_path / "store") as store,
        cluster.build_servers(tmp_path / "dist", sccache_dist, 1) as servers,
    ):
        env = {**servers.env, **store}
        mini.nox(*options, env=env).well()
        assert mini.record["cache"]["distributed"] == SOURCES
        mini.project.nox("clean", *mini.options, "--all").well()
        mini.nox(*options, "--fresh", env=env).well()
        assert mini.record["cache"]["remote_hits"] == SOURCES
        # sccache 0.16 preprocesses differently without a scheduler, which changes the keys.
        mini.project.nox("clean", *mini.options, "--all").well()
        mini.nox(*options, "--fresh", env=store).well()
        assert mini.record["cache"]["misses"] == SOURCES


def test_a_build_survives_the_death_of_a_build_server(
    mini: Checkout, built: Checkout, tmp_path: Path, sccache_dist: str
) -> None:
    with cluster.build_servers(tmp_path / "dist", sccache_dist, 2) as servers:
        doomed = next(iter(servers.servers))
        # As soon as it has received work, so that more work follows.
        killer = call_when(lambda: servers.given(doomed) > 0, lambda: servers.kill(doomed))
        options = ("--cache", "sccache", "--jobs", "4")
        ran = mini.nox(*options, env=env_of(tmp_path, servers)).well()
        killer.join(10)
    assert doomed not in servers.servers
    counts = mini.record["cache"]
    assert counts["misses"] == SOURCES
    assert counts["dist_errors"] > 0
    assert counts["distributed"] + counts["dist_errors"] >= SOURCES
    assert "build servers refused or failed" in " ".join(ran.output.split())
    assert mini.libraries() == built.libraries()


def test_without_a_scheduler_everything_is_compiled_here_with_a_warning(
    mini: Checkout, tmp_path: Path
) -> None:
    config = tmp_path / "builder.toml"
    text = cluster.BUILDER.format(scheduler="127.0.0.1", folder=tmp_path, client="t")
    config.write_text(text.replace("10600", str(programs.free_port())))
    env = {"SCCACHE_CONF": str(config), "SCCACHE_DIR": str(tmp_path / "sccache")}
    ran = mini.nox("--cache", "sccache", env=env).well()
    assert mini.record["cache"]["misses"] == SOURCES
    assert "no build server is used" in ran.output
