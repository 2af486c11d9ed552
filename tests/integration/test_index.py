"""The static index, read and installed from by pip and uv, from a web server that knows nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pypi_simple
import pytest

from sessions.release.index import builder
from tests import tiny
from tests.integration import servers
from tests.integration.conftest import sha256

PROJECT = "llama-cpp-python"
PLAIN = f"llama_cpp_python-0.3.16-{tiny.TAG}.whl"


@dataclass(frozen=True)
class Venv:
    """A fresh environment to install into."""

    python: Path
    env: Mapping[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=dict(self.env), capture_output=True, text=True, check=False, timeout=120
        )

    def pip(self, *words: str) -> subprocess.CompletedProcess[str]:
        pip = (sys.executable, "-m", "pip", "--python", str(self.python), "--no-cache-dir")
        return self.run(*pip, "--disable-pip-version-check", *words)

    def uv(self, *words: str) -> subprocess.CompletedProcess[str]:
        uv = (str(Path(sys.executable).with_name("uv")), "pip", words[0])
        return self.run(*uv, "--python", str(self.python), "--no-cache", *words[1:])

    def mark(self) -> str:
        """Which wheel was installed."""
        done = self.run(str(self.python), "-c", "import llama_cpp; print(llama_cpp.MARK)")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def well(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # On the host it is below a path with a space and a letter beyond ASCII.
    folder = tmp_path_factory.mktemp("host") / "some where" / "ñ"
    tiny.all_cards(folder)
    builder.write(folder)
    return folder


@pytest.fixture(scope="module")
def host(dist: Path) -> Iterator[servers.Static]:
    with servers.static(dist.parents[1]) as server:
        server.url += quote("some where/ñ/")
        yield server


@pytest.fixture
def venv(environment: dict[str, str], tmp_path: Path) -> Venv:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    return Venv(tmp_path / "v" / "bin" / "python", environment)


def test_a_client_library_reads_each_index(dist: Path, host: servers.Static) -> None:
    for sub in ("cu131-sm120/", "cu131-sm90/", "cpu/", ""):
        with pypi_simple.PyPISimple(f"{host.url}{sub}simple/") as client:
            assert client.get_index_page().projects == [PROJECT]
            page = client.get_project_page(PROJECT)
            assert page.repository_version == "1.1"
            wheels = [p for p in page.packages if p.filename.endswith(".whl")]
            assert wheels
            for package in wheels:
                client.download_package(package, dist / "got", verify=True)
                assert package.requires_python == ">=3.8,<4"
                metadata = client.get_package_metadata(package, verify=True)
                assert "\nName: llama_cpp_python\n" in metadata
        folder = dist / sub / "simple" / PROJECT
        told = pypi_simple.ProjectPage.from_json_data(
            json.loads((folder / "index.json").read_text()), f"{host.url}{sub}simple/{PROJECT}/"
        )
        assert [(p.filename, p.url, p.digests) for p in told.packages] == [
            (p.filename, p.url, p.digests) for p in page.packages
        ]
        assert all(p.size for p in told.packages)


def test_the_one_line_installs_the_gpus_wheel(venv: Venv, host: servers.Static) -> None:
    # As the GPU, the page and docs/package-index.md have it; the dependency comes from PyPI.
    url = f"{host.url}cu131-sm90/simple/"
    pip = (venv.pip, "--only-binary", PROJECT, "--extra-index-url", url, f"{PROJECT}==0.3.16")
    for tool, *words in (pip, (venv.uv, "--index", url, PROJECT)):
        host.seen.clear()
        well(tool("install", *words))
        assert venv.mark() == "hopper"
        listed = venv.pip("list", "--format", "freeze").stdout.lower().replace("-", "_")
        assert "llama_cpp_python==0.3.16" in listed
        assert "typing_extensions==" in listed
        wheel = next(path for path in host.seen if path.endswith(f"/hopper/{PLAIN}"))
        assert host.seen.index(f"{wheel}.metadata") < host.seen.index(wheel)  # PEP 658
        well(tool("uninstall", *(["-y"] if tool == venv.pip else []), PROJECT))


@pytest.mark.parametrize(("sub", "target"), [("cu131-sm120", "rtx50"), ("cu131-sm90", "hopper")])
@pytest.mark.parametrize("kind", ["html", "json"])
def test_pip_and_uv_install_from_html_and_from_json(
    venv: Venv, dist: Path, tmp_path: Path, sub: str, target: str, kind: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dist, copy)
    other = {"html": "index.json", "json": "index.html"}[kind]
    (copy / sub / "simple" / PROJECT / other).unlink()  # so that it cannot have been that one
    with servers.static(copy, negotiates=kind == "json") as host:
        url = f"{host.url}{sub}/simple/"
        for install in (venv.pip, venv.uv):
            well(install("install", "--no-deps", "--index-url", url, PROJECT))
            assert venv.mark() == target
            well(install("uninstall", *(["-y"] if install == venv.pip else []), PROJECT))


def test_the_pip_that_comes_with_python_installs_too(
    environment: dict[str, str], tmp_path: Path, host: servers.Static
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "v")], check=True)
    venv = Venv(tmp_path / "v" / "bin" / "python", environment)
    words = ("install", "--no-deps", "--no-cache-dir", "--index-url")
    url = f"{host.url}cu131-sm120/simple/"
    well(venv.run(str(venv.python), "-m", "pip", *words, url, PROJECT))
    assert venv.mark() == "rtx50"


def test_from_the_index_of_all_pip_takes_no_gpus_wheel(
    venv: Venv, dist: Path, tmp_path: Path
) -> None:
    with servers.static(dist) as host:
        well(venv.pip("install", "--no-deps", "--index-url", f"{host.url}simple/", PROJECT))
        assert venv.mark() == "cpu"
    gpu_alone = tmp_path / "gpu only"
    shutil.copytree(dist, gpu_alone)
    (gpu_alone / "cpu" / "release.json").unlink()
    builder.write(gpu_alone)
    with servers.static(gpu_alone) as host:
        words = ("download", "--no-deps", "-d", str(tmp_path / "got"), "--index-url")
        done = venv.pip(*words, f"{host.url}simple/", PROJECT, "--isolated")
    assert done.returncode != 0
    assert "No matching distribution found" in done.stderr


def test_a_wheel_that_was_changed_on_the_host_is_refused(
    venv: Venv, dist: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(dist, changed)
    wheel = changed / "hopper" / PLAIN
    shutil.copy2(changed / "rtx50" / PLAIN, wheel)
    assert sha256(wheel.read_bytes()) != sha256((dist / "hopper" / PLAIN).read_bytes())
    with servers.static(changed) as host:
        url = f"{host.url}cu131-sm90/simple/"
        done = venv.pip("install", "--no-deps", "--index-url", url, PROJECT)
        assert "DO NOT MATCH THE HASHES" in done.stderr
        done = venv.uv("install", "--no-deps", "--index-url", url, PROJECT)
        assert "Hash mismatch" in done.stderr
