"""The static index on a plain web server: pip, uv and a client library read and install from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pypi_simple
import pytest

from sessions.release.index import builder
from tests import tiny
from tests.integration import servers
from tests.integration.conftest import sha256
from tests.integration.servers import Venv, succeeded

PROJECT = "llama-cpp-python"
PLAIN = f"llama_cpp_python-0.3.16-{tiny.TAG}.whl"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The path on the server has a space and a letter that is not ASCII.
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
    return servers.venv(tmp_path / "v", environment)


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
        from_json = pypi_simple.ProjectPage.from_json_data(
            json.loads((folder / "index.json").read_text()), f"{host.url}{sub}simple/{PROJECT}/"
        )
        assert [(p.filename, p.url, p.digests) for p in from_json.packages] == [
            (p.filename, p.url, p.digests) for p in page.packages
        ]
        assert all(p.size for p in from_json.packages)


def test_the_documented_command_installs_the_wheel_for_the_gpu(
    venv: Venv, host: servers.Static
) -> None:
    # The command of the wheel card, the page and docs/package-index.md. A dependency is on PyPI.
    url = f"{host.url}cu131-sm90/simple/"
    pip = (venv.pip, "--only-binary", PROJECT, "--extra-index-url", url, f"{PROJECT}==0.3.16")
    for tool, *words in (pip, (venv.uv, "--index", url, PROJECT)):
        host.seen.clear()
        succeeded(tool("install", *words))
        assert venv.mark() == "hopper"
        listed = venv.pip("list", "--format", "freeze").stdout.lower().replace("-", "_")
        assert "llama_cpp_python==0.3.16" in listed
        assert "typing_extensions==" in listed
        wheel = next(path for path in host.seen if path.endswith(f"/hopper/{PLAIN}"))
        assert host.seen.index(f"{wheel}.metadata") < host.seen.index(wheel)  # PEP 658
        succeeded(tool("uninstall", *(["-y"] if tool == venv.pip else []), PROJECT))


@pytest.mark.parametrize(("sub", "target"), [("cu131-sm120", "rtx50"), ("cu131-sm90", "hopper")])
@pytest.mark.parametrize("kind", ["html", "json"])
def test_pip_and_uv_install_from_html_and_from_json(
    venv: Venv, dist: Path, tmp_path: Path, sub: str, target: str, kind: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dist, copy)
    other = {"html": "index.json", "json": "index.html"}[kind]
    (copy / sub / "simple" / PROJECT / other).unlink()  # so that it cannot be used
    with servers.static(copy, negotiates=kind == "json") as host:
        url = f"{host.url}{sub}/simple/"
        for install in (venv.pip, venv.uv):
            succeeded(install("install", "--no-deps", "--index-url", url, PROJECT))
            assert venv.mark() == target
            succeeded(install("uninstall", *(["-y"] if install == venv.pip else []), PROJECT))


def test_the_pip_of_python_installs_too(
    environment: dict[str, str], tmp_path: Path, host: servers.Static
) -> None:
    venv = servers.venv(tmp_path / "v", environment, pip=True)
    words = ("install", "--no-deps", "--no-cache-dir", "--index-url")
    url = f"{host.url}cu131-sm120/simple/"
    succeeded(venv.run(str(venv.python), "-m", "pip", *words, url, PROJECT))
    assert venv.mark() == "rtx50"


def test_pip_takes_no_gpu_wheel_from_the_index_of_all(
    venv: Venv, dist: Path, tmp_path: Path
) -> None:
    with servers.static(dist) as host:
        succeeded(venv.pip("install", "--no-deps", "--index-url", f"{host.url}simple/", PROJECT))
        assert venv.mark() == "cpu"
    gpu_only = tmp_path / "gpu only"
    shutil.copytree(dist, gpu_only)
    (gpu_only / "cpu" / "release.json").unlink()
    builder.write(gpu_only)
    with servers.static(gpu_only) as host:
        words = ("download", "--no-deps", "-d", str(tmp_path / "got"), "--index-url")
        done = venv.pip(*words, f"{host.url}simple/", PROJECT, "--isolated")
    assert done.returncode != 0
    assert "No matching distribution found" in done.stderr


def test_a_wheel_that_was_changed_on_the_server_is_refused(
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
