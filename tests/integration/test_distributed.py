"""Compilation by build servers, each in a network namespace of its own: sccache-dist."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.integration.conftest import SOURCES, Checkout
from tests.scaling import cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def sccache_dist(built: Checkout) -> str:
    if os.geteuid() != 0:
        pytest.fail("network namespaces and build servers need root")
    (found,) = Path(built.project.env["BLACKWHEEL_CACHE"]).glob("tools-*/bin/sccache-dist")
    return str(found)


def told(folder: Path, servers: cluster.Cluster) -> dict[str, str]:
    return {**servers.env, "SCCACHE_DIR": str(folder / "sccache")}


def test_build_servers_make_the_wheel_that_this_machine_makes(
    mini: Checkout, built: Checkout, tmp_path: Path, sccache_dist: str
) -> None:
    with cluster.build_servers(tmp_path / "dist", sccache_dist, 2) as servers:
        ran = mini.nox("--cache", "sccache", "--jobs", "4", env=told(tmp_path, servers)).well()
    assert mini.record["cache"]["misses"] == SOURCES
    assert mini.record["cache"]["distributed"] == SOURCES
    assert f"{SOURCES} compiled on build servers" in ran.output
    assert mini.libraries() == built.libraries()


def test_what_build_servers_made_is_taken_from_a_store_by_the_next_builder(
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
        # sccache 0.16 preprocesses another way where nothing can be distributed: another key.
        mini.project.nox("clean", *mini.options, "--all").well()
        mini.nox(*options, "--fresh", env=store).well()
        assert mini.record["cache"]["misses"] == SOURCES


def test_a_build_server_that_dies_loses_nothing(
    mini: Checkout, built: Checkout, tmp_path: Path, sccache_dist: str
) -> None:
    with cluster.build_servers(tmp_path / "dist", sccache_dist, 2) as servers:
        doomed = next(iter(servers.servers))

        def kill_half_way() -> None:
            log = mini.build / "wheel.log"
            while not log.exists() or "[2/" not in log.read_text(errors="replace"):
                time.sleep(0.05)
            servers.kill(doomed)

        killer = threading.Thread(target=kill_half_way)
        killer.start()
        options = ("--cache", "sccache", "--jobs", "4")
        mini.nox(*options, env=told(tmp_path, servers)).well()
        killer.join()
    assert doomed not in servers.servers
    counts = mini.record["cache"]
    assert counts["misses"] == SOURCES
    assert counts["distributed"] + counts["dist_errors"] >= SOURCES
    assert mini.libraries() == built.libraries()


def test_without_a_scheduler_everything_is_compiled_here_and_that_is_said(
    mini: Checkout, tmp_path: Path
) -> None:
    config = tmp_path / "builder.toml"
    text = cluster.BUILDER.format(scheduler="127.0.0.1", folder=tmp_path, client="t")
    config.write_text(text.replace("10600", str(cluster.free_port())))
    env = {"SCCACHE_CONF": str(config), "SCCACHE_DIR": str(tmp_path / "sccache")}
    ran = mini.nox("--cache", "sccache", env=env).well()
    assert mini.record["cache"]["misses"] == SOURCES
    assert "no build server is used" in ran.output
