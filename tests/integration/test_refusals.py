"""What cannot work is said clearly, early, with what fixes it, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.conftest import Checkout, Mounted, Project, which, write_program

Serve = Callable[..., Mapping[str, str]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make a package index that has the one file; returns the environment that points to it."""
    servers: list[ThreadingHTTPServer] = []

    def start(name: str, data: bytes, *, cut: bool) -> Mapping[str, str]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = f'<a href="{name}">{name}</a>'.encode()
                body = data if self.path.endswith(name) else page
                self.send_response(200)
                kind = "application/octet-stream" if body is data else "text/html"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut and body is data else body)

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": f"http://127.0.0.1:{server.server_port}/",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def folders(parent: Path) -> list[str]:
    return sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.exists() else []


@pytest.mark.parametrize("cut", [False, True], ids=["wrong file", "cut short"])
def test_bad_download_of_the_source(
    project: Project, serve: Serve, tools_alone: Path, cut: bool
) -> None:
    env = serve("llama_cpp_python-0.3.16.tar.gz", os.urandom(50_000), cut=cut)
    env = {**env, "BLACKWHEEL_CACHE": str(tools_alone)}
    run = project.nox("source", "--target", "cpu", env=env)
    run.badly("the source of llama-cpp-python 0.3.16")
    if not cut:
        assert "not the file that was locked" in run.output
    assert not list((tools_alone / "downloads").glob("*"))
    assert not [path for path in (tools_alone / "tmp").iterdir() if path.is_dir()]
    assert folders(project.root / "llama-cpp-python-src") == []
    assert not (project.root / "build" / "cpu" / "source.json").exists()


@pytest.mark.parametrize("cut", [False, True], ids=["wrong file", "cut short"])
def test_bad_download_of_the_toolkit(
    project: Project, serve: Serve, tools_alone: Path, cut: bool
) -> None:
    lock = (project.root / "sessions" / "data" / "locks" / "cuda-13.1.txt").read_text(
        encoding="utf-8"
    )
    version = re.findall(r"^nvidia-cuda-nvcc==(\S+)", lock, re.MULTILINE)[0]
    wheel = f"nvidia_cuda_nvcc-{version}-py3-none-manylinux2014_x86_64.whl"
    env = serve(wheel, os.urandom(50_000), cut=cut)
    env = {**env, "BLACKWHEEL_CACHE": str(tools_alone)}
    run = project.nox("toolkit", "--target", "rtx50", env=env)
    run.badly("CUDA 13.1")
    if not cut:
        assert "not the file that was locked" in run.output
    assert [name for name in folders(tools_alone) if "cuda" in name] == []
    assert not (project.root / "build" / "rtx50" / "toolkit.json").exists()


def test_source_that_cannot_be_had(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    env = {"PIP_FIND_LINKS": str(tmp_path / "empty")}
    run = project.nox("source", "--target", "cpu", "--offline", env=env)
    run.badly("not on this machine, and --offline forbids a download", "PIP_FIND_LINKS")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nonsense",), ("--nonsense", "--help")),
        (("--target", "nonsense"), ("no target 'nonsense'", "rtx50", "cpu")),
        (("--cuda", "13.2"), ("CUDA 13.2 is refused", "--force")),
        (("--compiler", "/nonsense/g++"), ("/nonsense/g++",)),
        (("--source", "/nonsense"), ("/nonsense", "--source PATH")),
    ],
    ids=" ".join,
)
def test_wrong_option(project: Project, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    """One of each place that refuses; the unit tests of options, spec and arguments have all."""
    # A CPU target needs no toolkit: the source is refused before one would be fetched.
    chosen = options if "--source" not in options else ("--target", "cpu", *options)
    project.nox("wheel", *chosen).badly(*words)
    assert folders(project.root / "llama-cpp-python-src") == []


def fetched(cache: Path) -> list[str]:
    return [p.name for p in cache.rglob("*") if p.is_file() and p.name != "CACHEDIR.TAG"]


def python_alone(project: Project, folder: Path) -> str:
    """A PATH that has Python and the shell's own tools, and no compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("python3.11", "sh", "ls", "cat", "uname"):
        (folder / name).symlink_to(which(name, project.env["PATH"]))
    return str(folder)


@pytest.mark.parametrize("target", ["cpu", "rtx50"])
def test_no_compiler_is_said_before_anything_is_fetched(
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
    old = tmp_path / "old"
    for name in ("g++", "gcc"):
        says = f"{name} (Debian 7.5.0-1) 7.5.0\nCopyright (C) 2017 Free Software Foundation, Inc."
        write_program(old / name, f"#!/bin/sh\necho '{says}'\n")
    path = python_alone(project, tmp_path / "bin")
    options = ("--compiler", str(old / "g++")) if named else ()
    env = {"PATH": path if named else f"{old}:{path}", "BLACKWHEEL_CACHE": str(empty_cache)}
    run = project.nox("wheel", "--target", "cpu", *options, env=env)
    run.badly("7.5.0")
    assert re.search(r"needs gnu \d+", run.output), run.output
    assert "✓ source: " not in run.output
    assert fetched(empty_cache) == []


def test_old_compiler_is_passed_over_where_there_is_a_good_one(
    project: Project, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    for name in ("g++", "gcc"):
        says = f"{name} (Debian 7.5.0-1) 7.5.0\nCopyright (C) 2017 Free Software Foundation, Inc."
        write_program(old / name, f"#!/bin/sh\necho '{says}'\n")
    env = {"PATH": f"{old}:{project.env['PATH']}"}
    run = project.nox("probe", "--target", "cpu", env=env).well()
    assert re.search(r"C\+\+ compiler: .*: the first that fits", run.output), run.output
    assert f"{old}/g++): the first" not in run.output


def test_a_file_where_the_wheels_should_go(mini: Checkout) -> None:
    """Root may write everywhere, so a file stands in for a folder that may not be written."""
    if mini.wheels.parent.exists():
        mini.wheels.parent.rename(mini.project.root / "moved away")
    mini.wheels.parent.write_text("in the way")
    mini.nox().badly(str(mini.wheels.parent))
    assert mini.wheels.parent.read_text() == "in the way"


def test_a_file_where_the_build_should_go(mini: Checkout) -> None:
    mini.build.parent.write_text("in the way")
    mini.nox().badly(str(mini.build.parent))


def test_a_file_where_the_cache_should_go(mini: Checkout, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    env = {"BLACKWHEEL_CACHE": str(tmp_path / "file" / "cache")}
    mini.nox(env=env).badly(str(tmp_path / "file"))


def as_if_it_were_enough(project: Project) -> None:
    """Have the project take any disk for large enough, so that a build meets its end."""
    path = project.root / "sessions" / "data" / "knowledge" / "disk.toml"
    path.write_text(re.sub(r"(?m)^mib = \d+$", "mib = 0", path.read_text(encoding="utf-8")))


def part(folder: Path, share: float) -> str:
    """So much of what a folder takes of a tmpfs, as its ``size``; the folder is deleted."""
    pages = sum(-(-p.stat().st_size // 4096) for p in folder.rglob("*") if p.is_file())
    shutil.rmtree(folder)
    return f"{max(4, int(4 * pages * share))}k"


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_disk_full_while_building(
    mini: Checkout, small_disk: Mounted, tmp_path: Path, share: float
) -> None:
    mini.nox("--cache", "none").well()
    shutil.rmtree(mini.wheels)
    as_if_it_were_enough(mini.project)
    prefix = small_disk(mini.build.parent, part(mini.build.parent, share), tmp_path / "listing")
    # Without a cache that has the files: the compiler itself meets the full disk.
    run = mini.project.nox("wheel", *mini.options, "--cache", "none", prefix=prefix)
    run.badly("disk is full", "free some space")
    assert not mini.wheels.exists() or not list(mini.wheels.iterdir())
    # With space again it goes on.
    mini.nox().well()
    assert mini.record["version"] == "0.0.1"


def test_disk_full_while_the_wheel_is_put_into_place(
    mini: Checkout, small_disk: Mounted, tmp_path: Path
) -> None:
    listing = tmp_path / "listing"
    mini.nox().well()
    as_if_it_were_enough(mini.project)
    prefix = small_disk(mini.wheels, part(mini.wheels, 0.5), listing)
    run = mini.project.nox("wheel", *mini.options, prefix=prefix)
    run.badly("disk is full", "free some space")
    assert listing.read_text() == "", "something partial was left"
    mini.nox().well()
    assert mini.record["version"] == "0.0.1"


def test_too_small_a_disk_is_said_before_anything_is_compiled(
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
def test_the_disk_that_is_written_to_is_asked_not_that_of_the_checkout(
    mini: Checkout, small_disk: Mounted, tmp_path: Path, where: str
) -> None:
    folder = mini.build.parent if where == "build" else mini.wheels
    prefix = small_disk(folder, "8m", tmp_path / "listing")
    run = mini.project.nox("wheel", *mini.options, prefix=prefix)
    run.badly("A build needs", "free some space there", str(folder))
    assert "cpu+source-mini/src" not in (tmp_path / "listing").read_text()


@pytest.mark.parametrize("session", ["bundle", "bench"])
def test_a_target_as_its_own_baseline_is_refused_at_once(project: Project, session: str) -> None:
    """Its build would wait for the lock of the run that waits for it."""
    words = ("--target", "rtx50", "--arch", "120-virtual", "--baseline", "ptx")
    project.nox(session, *words).badly("itself contains only PTX")
    assert not (project.root / "build").exists()
