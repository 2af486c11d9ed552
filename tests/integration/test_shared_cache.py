"""A builder with an empty disk takes another's work: from Redis, over HTTP, from an S3 store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lab import cluster
from sessions.shared import programs
from tests.integration.conftest import ODD, SOURCES, Checkout, Project, copy_project

Store = Callable[[Path], AbstractContextManager[dict[str, str]]]


@pytest.fixture
def other(mini: Checkout, tmp_path: Path) -> Checkout:
    """Another builder's checkout of the project, in another folder, of the same source."""
    root = tmp_path / "another builder" / ODD
    root.parent.mkdir()
    copy_project(root)
    (root / ".nox").symlink_to(mini.project.root / ".nox")
    return Checkout(mini.path, Project(root, mini.project.env))


def local(folder: Path) -> dict[str, str]:
    return {"CCACHE_DIR": str(folder)}


@pytest.mark.parametrize("store", [cluster.redis, cluster.http])
def test_ccaches_shared_store_gives_a_builder_with_an_empty_disk_everything(
    mini: Checkout, other: Checkout, tmp_path: Path, store: Store
) -> None:
    with store(tmp_path / "store") as remote:
        mini.nox(env={**remote, **local(tmp_path / "a")}).well()
        assert mini.record["cache"]["misses"] == SOURCES
        ran = other.nox(env={**remote, **local(tmp_path / "b")}).well()
    nothing_wrong = {"remote_errors": 0, "remote_timeouts": 0}
    assert other.record["cache"] == {
        "hits": SOURCES, "misses": 0, "remote_hits": SOURCES, **nothing_wrong
    }  # fmt: skip
    said = f"{SOURCES} of {SOURCES} from the cache, {SOURCES} of them from the shared one"
    assert said in ran.output
    assert other.record["sha256"] == mini.record["sha256"]


def test_what_lies_on_a_builders_disk_is_shared_without_compiling_it_again(
    mini: Checkout, other: Checkout, tmp_path: Path
) -> None:
    mini.nox(env=local(tmp_path / "a")).well()
    with cluster.redis(tmp_path / "store") as remote:
        mini.project.nox("clean", *mini.options, "--all").well()
        mini.nox(env={**remote, **local(tmp_path / "a"), "CCACHE_RESHARE": "true"}).well()
        assert mini.record["cache"]["misses"] == 0
        other.nox(env={**remote, **local(tmp_path / "b")}).well()
    assert other.record["cache"]["remote_hits"] == SOURCES


def test_a_store_that_does_not_answer_is_named_and_the_wheel_is_made(
    mini: Checkout, tmp_path: Path
) -> None:
    gone = {"CCACHE_REMOTE_STORAGE": f"redis://127.0.0.1:{programs.free_port()}"}
    ran = mini.nox(env={**gone, **local(tmp_path / "a")}).well()
    assert mini.record["cache"]["remote_errors"] == SOURCES
    assert f"the shared compiler cache failed {SOURCES} times" in " ".join(ran.output.split())


def test_the_password_of_a_store_is_nowhere_in_the_checkout(mini: Checkout, tmp_path: Path) -> None:
    with cluster.redis(tmp_path / "store") as remote:
        password = remote["CCACHE_REMOTE_STORAGE"].split("@")[0].rpartition("/")[2]
        assert len(password) > 8
        mini.nox(env={**remote, **local(tmp_path / "a")}).well()
    for folder in (mini.build, mini.wheels):
        texts = [path for path in folder.rglob("*") if path.is_file()]
        assert [path for path in texts if password.encode() in path.read_bytes()] == []


def test_sccache_takes_everything_from_an_s3_store(mini: Checkout, tmp_path: Path) -> None:
    with cluster.s3(tmp_path / "store") as remote:
        mini.nox("--cache", "sccache", env=remote).well()
        assert mini.record["cache"]["hits"] == 0
        made = mini.record["sha256"]
        # The same path: with sccache 0.16 it is in a file's key.
        mini.project.nox("clean", *mini.options, "--all").well()
        shutil.rmtree(mini.wheels)
        mini.nox("--cache", "sccache", env=remote).well()
    counts = mini.record["cache"]
    assert (counts["remote_hits"], counts["misses"]) == (SOURCES, 0)
    assert (counts["remote_errors"], counts["remote_timeouts"]) == (0, 0)
    assert mini.record["sha256"] == made


def test_a_wrong_key_of_an_s3_store_ends_the_build_at_once(mini: Checkout, tmp_path: Path) -> None:
    with cluster.s3(tmp_path / "store") as remote:
        wrong = {**remote, "AWS_SECRET_ACCESS_KEY": "not this"}
        mini.nox("--cache", "sccache", env=wrong).badly("sccache does not start", "Signature")


def test_another_builds_server_of_sccache_is_not_asked(mini: Checkout, tmp_path: Path) -> None:
    with cluster.s3(tmp_path / "store") as remote:
        mini.nox("--cache", "sccache", env={**remote, "SCCACHE_SERVER_PORT": "4226"}).well()
        assert any((tmp_path / "store" / "store").rglob("[0-9a-f]" * 64))
    text = json.loads((mini.wheels / "wheel.json").read_text())
    assert "remote_hits" in text["wheel"]["cache"]
