"""``publish`` with real servers on loopback: pypiserver and devpi."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest

from sessions.release import server_listing
from sessions.shared import programs
from tests import tiny
from tests.integration import servers
from tests.integration.conftest import Project, Ran, sha256, snapshot
from tests.integration.servers import PASSWORD, USER

PROJECT = "llama-cpp-python"
CREDENTIALS = {"TWINE_USERNAME": USER, "TWINE_PASSWORD": PASSWORD}


@dataclass(frozen=True)
class Server:
    """An index on a server."""

    url: str
    pages: str

    def files(self) -> dict[str, str]:
        """The files that can be downloaded: name -> sha256."""
        page = urljoin(self.url, f"{self.pages}/{PROJECT}/")
        try:
            with urllib.request.urlopen(page) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError:
            return {}
        found = {}
        for link in server_listing.links(text):
            with urllib.request.urlopen(urljoin(page, link).partition("#")[0]) as answer:
                name = link.partition("#")[0].rpartition("/")[2]
                found[name] = sha256(answer.read())
        return found


@pytest.fixture(scope="module")
def devpi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Devpi]:
    with servers.devpi(tmp_path_factory.mktemp("devpi") / "server") as server:
        yield server


Start = Callable[[], Server]


@pytest.fixture(params=["pypiserver", "devpi"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """A function that creates an empty index, on a server of each kind."""
    with contextlib.ExitStack() as stack:

        def started() -> Server:
            if request.param == "pypiserver":
                folder = tmp_path / "server"
                return Server(stack.enter_context(servers.pypiserver(folder)), "simple")
            name = re.sub("[^a-z0-9]", "-", request.node.name.lower())
            return Server(request.getfixturevalue("devpi").index(name), "+simple")

        yield started


def publish(project: Project, *words: str, **env: str) -> Ran:
    ran = project.nox("publish", *words, env=env)
    assert PASSWORD not in ran.output
    return ran


def test_the_commands_are_printed_if_there_is_a_release(project: Project) -> None:
    publish(project).badly("Nothing has been released", "-s release -- --target NAME")
    tiny.all_cards(project.root / "dist")
    tiny.indexed(project.root / "dist")
    before = snapshot(project.root / "dist")
    output = publish(project).well().output
    assert "twine upload --repository-url URL dist/hopper/llama_cpp_python-0.3.16-" in output
    assert "gh release upload v0.3.36-rtx50-fp4 dist/rtx50-fp4/" in output
    assert snapshot(project.root / "dist") == before
    publish(project, "--target", "ada").badly("ada has not been released")


def test_without_a_server_the_error_names_its_address(project: Project) -> None:
    tiny.release(project.root / "dist", "cpu", None)
    url = f"http://127.0.0.1:{programs.free_port()}/"
    ran = publish(project, "--target", "cpu", "--to", url)
    ran.badly("No server answers at this address", url, "Connection refused")
    for word in ("password", "TWINE", "probe", "compiler", "GPU", "rtx50"):
        assert word not in ran.output
    assert list((project.root / "build").rglob("probe.json")) == []


def test_uploads_with_and_without_credentials(project: Project, start: Start) -> None:
    server = start()
    dist = project.root / "dist"
    wheel = tiny.release(dist, "hopper", "13.1", ("90-real",))
    to = ("--target", "hopper", "--to", server.url)

    publish(project, *to).badly("asks for a name and a password", "TWINE_USERNAME")
    wrong = {**CREDENTIALS, "TWINE_PASSWORD": "wrong"}
    publish(project, *to, **wrong).badly("does not let you upload", wheel.file)
    assert server.files() == {}

    done = publish(project, *to, **CREDENTIALS).well()
    assert "1 uploaded, 0 already there" in done.output
    assert server.files() == {wheel.file: wheel.sha256}

    again = publish(project, *to).well()  # without an upload no password is needed
    assert f"{wheel.file} is already on the server: the same file" in again.output
    assert "0 uploaded, 1 already there" in again.output

    other = tiny.release(dist, "hopper", "13.1", ("90-real",), filler=9)
    assert (other.file, other.sha256 == wheel.sha256) == (wheel.file, False)
    refused = publish(project, *to, **CREDENTIALS)
    refused.badly("another file with this name", "index of its own")
    assert server.files() == {wheel.file: wheel.sha256}


def test_after_a_broken_connection_only_missing_files_are_uploaded(
    project: Project, start: Start
) -> None:
    server = start()
    dist = project.root / "dist"
    small = tiny.release(dist, "cpu", None)
    large = tiny.release(dist, "cpu+v0.3.36", None, version="0.3.36", filler=600_000)
    before = snapshot(dist)
    with servers.cutter(server.url) as proxy:
        proxy.limit = 200_000
        broken = publish(project, "--to", proxy.url, **CREDENTIALS)
        broken.badly(
            f"The connection was lost during the upload of {large.file}", "only what is missing"
        )
        assert proxy.cuts >= 1
        assert server.files() == {small.file: small.sha256}
        assert snapshot(dist) == before

        proxy.limit = None
        rest = publish(project, "--to", proxy.url, **CREDENTIALS).well()
        assert "1 uploaded, 1 already there" in rest.output
        assert f"Uploading {small.file}" not in rest.output
    assert server.files() == {small.file: small.sha256, large.file: large.sha256}


def test_a_missing_index_is_named(project: Project, devpi: servers.Devpi) -> None:
    tiny.release(project.root / "dist", "cpu", None)
    missing = publish(project, "--to", f"{devpi.url}{USER}/none/", **CREDENTIALS)
    missing.badly("no index at this address", "docs/package-index.md")


def test_each_gpu_has_its_own_index(project: Project, devpi: servers.Devpi, tmp_path: Path) -> None:
    dist = project.root / "dist"
    tiny.all_cards(dist)
    urls = {"rtx50": devpi.index("cu131-sm120"), "hopper": devpi.index("cu131-sm90")}
    both = publish(project, "--to", urls["hopper"], **CREDENTIALS)
    both.badly("have the same file name", "-s publish -- --target cpu --to URL")
    for target, url in urls.items():
        publish(project, "--target", target, "--to", url, **CREDENTIALS).well()
    crossed = publish(project, "--target", "rtx50", "--to", urls["hopper"], **CREDENTIALS)
    crossed.badly("another file with this name", "two GPUs have the same file name")

    venv = servers.venv(tmp_path / "venv")
    words = ("install", "--isolated", "--no-deps", "--force-reinstall", "--index-url")
    for target, url in urls.items():
        servers.succeeded(venv.pip(*words, f"{url}+simple/", PROJECT))
        assert venv.mark() == target


def test_credentials_of_pypirc_are_found_by_address_and_by_name(
    project: Project, tmp_path: Path
) -> None:
    wheel = tiny.release(project.root / "dist", "cpu", None)
    home = tmp_path / "home"
    home.mkdir()
    with servers.pypiserver(tmp_path / "server") as url:
        lines = ["[distutils]", "index-servers = ours", "[ours]", f"repository = {url}"]
        lines += [f"username = {USER}", f"password = {PASSWORD}"]
        (home / ".pypirc").write_text("\n".join(lines))
        done = publish(project, "--to", url, HOME=str(home)).well()
        assert "1 uploaded" in done.output
        assert Server(url, "simple").files() == {wheel.file: wheel.sha256}
        done = publish(project, "--to", "ours", HOME=str(home)).well()
        assert "1 already there" in done.output
        publish(project, "--to", "others", HOME=str(home)).badly(
            "not the address of a package server"
        )


KEYRING = """
from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential

class Keyring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        return {secret!r} if (service, username) == ({url!r}, {user!r}) else None

    def set_password(self, service, username, password):
        raise NotImplementedError

    def get_credential(self, service, username):
        return SimpleCredential({user!r}, {secret!r}) if service == {url!r} else None
"""


def test_credentials_of_the_keyring_are_used(project: Project, tmp_path: Path) -> None:
    wheel = tiny.release(project.root / "dist", "cpu", None)
    config = tmp_path / "config" / "python_keyring"
    config.mkdir(parents=True)
    lines = ["[backend]", "default-keyring=ring.Keyring", f"keyring-path={config}"]
    (config / "keyringrc.cfg").write_text("\n".join(lines))
    with servers.pypiserver(tmp_path / "server") as url:
        ring = KEYRING.format(url=url, user=USER, secret=PASSWORD)
        (config / "ring.py").write_text(ring)
        publish(project, "--to", url, XDG_CONFIG_HOME=str(tmp_path / "config")).well()
        assert Server(url, "simple").files() == {wheel.file: wheel.sha256}


# ---- server_listing -----------------------------------------------------------------------------


def state(url: str, wheel: Path, user: str = "", secret: str = "") -> str:
    return server_listing.has(url, PROJECT, wheel, {}, user, secret)


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "off"])
def test_a_file_is_compared_by_any_hash_or_by_its_content(tmp_path: Path, algorithm: str) -> None:
    wheel = tiny.wheel(tmp_path / "a", "a")
    with servers.pypiserver(tmp_path / "server", "--hash-algo", algorithm) as url:
        assert state(url, wheel) == "unseen"
        (tmp_path / "server" / "packages" / wheel.name).write_bytes(wheel.read_bytes())
        assert state(url, wheel) == "same"
        assert state(url.rstrip("/"), wheel) == "same"
        assert state(url, tiny.wheel(tmp_path / "b", "b")) == "other"


def test_a_server_that_requires_it_gets_the_password(tmp_path: Path) -> None:
    wheel = tiny.wheel(tmp_path / "a", "a")
    everything = "update,download,list"
    with servers.pypiserver(tmp_path / "server", authenticate=everything) as url:
        (tmp_path / "server" / "packages" / wheel.name).write_bytes(wheel.read_bytes())
        assert state(url, wheel, USER, PASSWORD) == "same"
        assert state(url, wheel, USER, "wrong") == "unseen"
        assert state(url, wheel) == "unseen"


def test_files_of_another_server_do_not_count(tmp_path: Path) -> None:
    wheel = tiny.wheel(tmp_path / "a", "a")
    folder = tmp_path / "elsewhere" / PROJECT
    folder.mkdir(parents=True)
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    with servers.static(tmp_path / "elsewhere") as other:
        redirects = ("--fallback-url", other.url)
        with servers.pypiserver(tmp_path / "server", *redirects) as url:
            assert urllib.request.urlopen(f"{url}simple/{PROJECT}/").url.startswith(other.url)
            assert state(url, wheel) == "unseen"
            (tmp_path / "server" / "packages" / wheel.name).write_bytes(wheel.read_bytes())
            assert state(url, wheel) == "same"
