"""One index of a Windows dist/ and a Linux dist/, written on Windows, used on both systems."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from sessions.build.record_types import Wheel
from sessions.release import dist_contents
from sessions.shared import disk, records
from tests import tiny
from tests.fakes import ROOT
from tests.integration import servers
from tests.windows import checkout
from tests.windows.lab import Lab

PROJECT = "llama-cpp-python"
WORDS = ("--no-deps", "--index-url")


@pytest.fixture(scope="module")
def linux_wheel() -> Path:
    """The wheel of ``nox -s wheel -- --target cpu``."""
    folder = ROOT / "wheels" / "cpu"
    record = records.read(folder / "wheel.json", "wheel", Wheel)
    if record is None or not (folder / record.file).is_file():
        pytest.fail("There is no cpu wheel for Linux. Build it first: nox -s wheel -- --target cpu")
    return folder / record.file


def released(dist: Path, wheel: Path) -> Path:
    """A ``dist/`` with the release of a CPU wheel."""
    if dist.exists():
        disk.remove(dist)
    disk.mark(dist)
    tiny.release(dist, "cpu", None, real=wheel)
    tiny.indexed(dist)
    return dist


@pytest.fixture(scope="module")
def site(lab: Lab, project: Path, wheel: Path, linux_wheel: Path) -> Path:
    """The index of both, written by the session in the Windows Python."""
    top = lab.drive / "of two systems"
    linux, windows = released(top / "linux", linux_wheel), released(top / "windows", wheel)
    folders = map(lab.windows, (linux, windows))
    ran = checkout.nox(lab, project, "-s", "index", "--", *folders).well()
    assert "index: 2 releases of 2 folders" in ran.output
    return project / "site"


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with servers.static(site) as server:
        yield f"{server.url}cpu/simple/"


def installed(packages: Path, wheel: Path) -> bool:
    """Whether this wheel is installed, according to the tags in the installed metadata."""
    (metadata,) = packages.glob("llama_cpp_python-*.dist-info/WHEEL")
    found = re.findall(r"^Tag: (.*)$", metadata.read_text(encoding="utf-8"), re.MULTILINE)
    return set(found) == {str(tag) for tag in parse_wheel_filename(wheel.name)[3]}


def test_the_index_written_on_windows_is_complete_on_linux(
    site: Path, wheel: Path, linux_wheel: Path
) -> None:
    assert dist_contents.changed(site) == ()
    for system, path in (("windows", wheel), ("linux", linux_wheel)):
        (copy,) = site.glob(f"cpu-*-{system}-x86_64/*.whl")
        assert (copy.name, copy.read_bytes()) == (path.name, path.read_bytes())
    page = (site / "index.html").read_text(encoding="utf-8")
    assert (
        page.count('data-system="linux-x86_64"') == page.count('data-system="windows-x86_64"') == 1
    )


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_linux_installs_the_wheel_for_linux(
    installer: str, url: str, linux_wheel: Path, tmp_path: Path
) -> None:
    venv = servers.venv(tmp_path / "v")
    tool = venv.pip if installer == "pip" else venv.uv
    servers.succeeded(tool("install", *WORDS, url, PROJECT))
    (packages,) = tmp_path.glob("v/lib/*/site-packages")
    assert installed(packages, linux_wheel)
    assert (packages / "llama_cpp" / "lib" / "libllama.so").is_file()


@pytest.fixture(scope="module")
def windows_venv(lab: Lab) -> Iterator[Path]:
    """A venv of the Windows Python with pip and the locked uv for Windows."""
    folder = lab.drive / "installers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lock = (ROOT / "sessions" / "data" / "locks" / "integration.txt").read_text(encoding="utf-8")
    (row,) = re.findall(r"^uv==.*?(?=^\S)", lock, re.MULTILINE | re.DOTALL)
    (folder / "uv.txt").write_text(row)
    env = checkout.environment(lab)
    lab.run(lab.python, "-m", "venv", folder / "v", env=env).well()
    python = folder / "v" / "Scripts" / "python.exe"
    words = ("install", "-q", "--no-deps", "--require-hashes", "-r", folder / "uv.txt")
    lab.run(python, "-m", "pip", *words, env=env).well()
    yield folder / "v"
    shutil.rmtree(folder)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_windows_installs_the_wheel_for_windows(
    installer: str, url: str, wheel: Path, lab: Lab, windows_venv: Path
) -> None:
    python = windows_venv / "Scripts" / "python.exe"
    env = checkout.environment(lab)
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    uv = (windows_venv / "Scripts" / "uv.exe", "pip")
    if installer == "pip":
        lab.run(*pip, "install", "--no-cache-dir", *WORDS, url, PROJECT, env=env).well()
    else:
        words = ("install", "--no-cache", "--python", python)
        lab.run(*uv, *words, *WORDS, url, PROJECT, env=env).well()
    packages = windows_venv / "Lib" / "site-packages"
    assert installed(packages, wheel)
    assert (packages / "llama_cpp" / "lib" / "llama.dll").is_file()
    lab.run(*pip, "uninstall", "-y", PROJECT, env=env).well()
