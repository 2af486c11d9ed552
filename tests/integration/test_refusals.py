"""Errors are reported early, with a remedy, and leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import Checkout, Mounted, Project, Serve, which, write_program


def folders(parent: Path) -> list[str]:
    return sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.exists() else []


@pytest.mark.parametrize("cut", [False, True], ids=["wrong file", "cut short"])
@pytest.mark.parametrize(
    ("session", "target", "message"),
    [("source", "cpu", "the source of llama-cpp-python 0.3.16"), ("toolkit", "rtx50", "CUDA 13.1")],
)
def test_bad_download(
    project: Project,
    serve: Serve,
    tools_alone: Path,
    session: str,
    target: str,
    message: str,
    cut: bool,
) -> None:
    lock = project.root / "sessions" / "data" / "locks" / "cuda-13.1.txt"
    version = re.findall(r"^nvidia-cuda-nvcc==(\S+)", lock.read_text(encoding="utf-8"), re.M)[0]
    name = f"nvidia_cuda_nvcc-{version}-py3-none-manylinux2014_x86_64.whl"
    if session == "source":
        name = "llama_cpp_python-0.3.16.tar.gz"
    env = serve(name, os.urandom(25_000), size=50_000 if cut else 0)
    run = project.nox(
        session, "--target", target, env={**env, "BLACKWHEEL_CACHE": str(tools_alone)}
    )
    run.badly(message, *([] if cut else ["not the file that was locked"]))
    assert not list((tools_alone / "downloads").glob("*"))
    assert [name for name in folders(tools_alone) if "cuda" in name] == []
    assert folders(tools_alone / "tmp") == []
    assert folders(project.root / "llama-cpp-python-src") == []
    assert not (project.root / "build" / target / f"{session}.json").exists()


def test_source_that_is_not_available(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    env = {"PIP_FIND_LINKS": str(tmp_path / "empty")}
    run = project.nox("source", "--target", "cpu", "--offline", env=env)
    run.badly("not on this machine, and --offline forbids a download", "PIP_FIND_LINKS")


def fetched(cache: Path) -> list[str]:
    return [p.name for p in cache.rglob("*") if p.is_file() and p.name != "CACHEDIR.TAG"]


def python_alone(project: Project, folder: Path) -> str:
    """A PATH with Python and some basic tools, without a compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("python3.11", "sh", "ls", "cat", "uname"):
        (folder / name).symlink_to(which(name, project.env["PATH"]))
    return str(folder)


def old_compiler(folder: Path) -> Path:
    """A folder with gcc 7.5."""
    for name in ("g++", "gcc"):
        says = f"{name} (Debian 7.5.0-1) 7.5.0\nCopyright (C) 2017 Free Software Foundation, Inc."
        write_program(folder / name, f"#!/bin/sh\necho '{says}'\n")
    return folder


@pytest.mark.parametrize("target", ["cpu", "rtx50"])
def test_a_missing_compiler_is_reported_before_a_download(
    project: Project, tmp_path: Path, empty_cache: Path, target: str
) -> None:
    env = {"PATH": python_alone(project, tmp_path / "bin"), "BLACKWHEEL_CACHE": str(empty_cache)}
    run = project.nox("wheel", "--target", target, env=env)
    run.badly("C++ compiler: none found", "apt install g++", "dnf install gcc-c++")
    assert "✓ source: " not in run.output
    assert fetched(empty_cache) == []


@pytest.mark.parametrize("named", [False, True], ids=["on PATH", "by --compiler"])
def test_too_old_a_compiler(
    project: Project, tmp_path: Path, empty_cache: Path, named: bool
) -> None:
    old = old_compiler(tmp_path / "old")
    path = python_alone(project, tmp_path / "bin")
    options = ("--compiler", str(old / "g++")) if named else ()
    env = {"PATH": path if named else f"{old}:{path}", "BLACKWHEEL_CACHE": str(empty_cache)}
    run = project.nox("wheel", "--target", "cpu", *options, env=env)
    run.badly("7.5.0")
    assert re.search(r"needs gnu \d+", run.output), run.output
    assert "✓ source: " not in run.output
    assert fetched(empty_cache) == []


def test_an_old_compiler_is_ignored_if_there_is_a_newer_one(
    project: Project, tmp_path: Path
) -> None:
    old = old_compiler(tmp_path / "old")
    env = {"PATH": f"{old}:{project.env['PATH']}"}
    run = project.nox("probe", "--target", "cpu", env=env).well()
    assert re.search(r"C\+\+ compiler: .*: the first that fits", run.output), run.output
    assert f"{old}/g++): the first" not in run.output


@pytest.mark.parametrize("folder", ["wheels", "build", "cache"])
def test_a_file_instead_of_a_folder(mini: Checkout, tmp_path: Path, folder: str) -> None:
    """Root may write to every folder, so a file is used instead of a read-only folder."""
    path = tmp_path / "cache" if folder == "cache" else mini.project.root / folder
    if path.exists():
        path.rename(tmp_path / "moved away")
    path.write_text("in the way")
    env = {"BLACKWHEEL_CACHE": str(path / "cache")} if folder == "cache" else {}
    mini.nox(env=env).badly(str(path))
    assert path.read_text() == "in the way"


def without_check_of_space(project: Project) -> None:
    """Disable the check of free space, so that the build itself fills the disk."""
    path = project.root / "sessions" / "data" / "knowledge" / "disk.toml"
    path.write_text(re.sub(r"(?m)^mib = \d+$", "mib = 0", path.read_text(encoding="utf-8")))


def part(folder: Path, share: float) -> str:
    """The size of a tmpfs for a share of the folder's files; the folder is deleted."""
    pages = sum(-(-p.stat().st_size // 4096) for p in folder.rglob("*") if p.is_file())
    shutil.rmtree(folder)
    return f"{max(4, int(4 * pages * share))}k"


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_disk_full_while_building(
    mini: Checkout, small_disk: Mounted, tmp_path: Path, share: float
) -> None:
    mini.nox("--cache", "none").well()
    shutil.rmtree(mini.wheels)
    without_check_of_space(mini.project)
    prefix = small_disk(mini.build.parent, part(mini.build.parent, share), tmp_path / "listing")
    # Without a compiler cache, so that the compiler itself fills the disk.
    run = mini.project.nox("wheel", *mini.options, "--cache", "none", prefix=prefix)
    run.badly("disk is full", "free some space")
    assert not mini.wheels.exists() or not list(mini.wheels.iterdir())
    # With enough space it continues.
    mini.nox().well()
    assert mini.record["version"] == "0.0.1"


def test_disk_full_while_the_wheel_is_copied(
    mini: Checkout, small_disk: Mounted, tmp_path: Path
) -> None:
    listing = tmp_path / "listing"
    mini.nox().well()
    without_check_of_space(mini.project)
    prefix = small_disk(mini.wheels, part(mini.wheels, 0.5), listing)
    run = mini.project.nox("wheel", *mini.options, prefix=prefix)
    run.badly("disk is full", "free some space")
    assert listing.read_text() == "", "something partial was left"
    mini.nox().well()
    assert mini.record["version"] == "0.0.1"


def test_a_small_disk_is_reported_before_the_build(
    mini: Checkout, small_disk: Mounted, tmp_path: Path
) -> None:
    disk = tmp_path / "small disk"
    copy = ("sh", "-c", 'cp -a "$1/." "$2"; shift 2; exec "$@"', "sh")
    prefix = small_disk(disk, "64m", tmp_path / "listing")
    words = (*prefix, *copy, str(mini.project.root), str(disk))
    run = mini.project.at(disk).nox("wheel", *mini.options, prefix=words)
    run.badly("A build needs", "MiB of disk", "free some space")
    assert "build/cpu+source-mini/src" not in (tmp_path / "listing").read_text()


@pytest.mark.parametrize("where", ["build", "wheels"])
def test_the_free_space_of_the_output_folders_is_checked(
    mini: Checkout, small_disk: Mounted, tmp_path: Path, where: str
) -> None:
    folder = mini.build.parent if where == "build" else mini.wheels
    prefix = small_disk(folder, "8m", tmp_path / "listing")
    run = mini.project.nox("wheel", *mini.options, prefix=prefix)
    run.badly("A build needs", "free some space there", str(folder))
    assert "cpu+source-mini/src" not in (tmp_path / "listing").read_text()
