"""Servers on loopback (static files, pypiserver, devpi, a proxy), and venvs to install into."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sessions.shared import programs

USER, PASSWORD = "releaser", "a secret: not to be seen"
_JSON = "application/vnd.pypi.simple.v1+json"


@dataclass
class Static:
    """A web server for files; ``seen`` are the requested paths."""

    url: str
    seen: list[str] = field(default_factory=list)


@contextlib.contextmanager
def static(folder: Path, *, negotiates: bool = False) -> Iterator[Static]:
    """Serve a folder; with ``negotiates``, index.json if a client accepts the JSON of PEP 691."""
    served = Static("")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            served.seen.append(self.path)
            if negotiates and self.path.endswith("/") and _JSON in self.headers["Accept"]:
                self.path += "index.json"
            return super().send_head()

        def guess_type(self, path: Any) -> str:
            return _JSON if str(path).endswith("/index.json") else super().guess_type(path)

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served.url = f"http://127.0.0.1:{server.server_port}/"
        yield served
        server.shutdown()


@contextlib.contextmanager
def _program(words: list[str], url: str, log: Path) -> Iterator[None]:
    """Run a server until the end of the with statement; enters it after the first answer."""
    with log.open("wb") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT)
    try:
        for _ in range(900):
            assert process.poll() is None, log.read_text(errors="replace")
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail(f"{words[0]} does not answer:\n{log.read_text(errors='replace')}")
        yield
    finally:
        process.kill()
        process.wait()


def installed(name: str) -> str:
    """The path of a program in the venv of these tests."""
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        pytest.fail(f"There is no {name}: nox -s integration installs it")
    return str(program)


@contextlib.contextmanager
def pypiserver(folder: Path, *options: str, authenticate: str = "update") -> Iterator[str]:
    """A pypiserver: USER may upload, everybody may read. Yields its address for uploads."""
    packages = folder / "packages"
    packages.mkdir(parents=True)
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    (folder / "htpasswd").write_text(f"{USER}:{{SHA}}{digest}\n")
    port = programs.free_port()
    words = [installed("pypi-server"), "run", "--interface", "127.0.0.1", "--port", str(port)]
    words += ["--passwords", str(folder / "htpasswd"), "--authenticate", authenticate]
    url = f"http://127.0.0.1:{port}/"
    if "--fallback-url" not in options:
        words.append("--disable-fallback")  # otherwise it redirects to PyPI
    with _program([*words, *options, str(packages)], url, folder / "log"):
        yield url


@dataclass(frozen=True)
class Devpi:
    """A devpi server, and the commands of its administrator."""

    url: str

    def index(self, name: str) -> str:
        """Create an index whose files cannot be replaced. Returns its address for uploads."""
        token = self._call("POST", "+login", {"user": "root", "password": PASSWORD}, "")
        auth = base64.b64encode(f"root:{token['result']['password']}".encode()).decode()
        user = {"password": PASSWORD, "email": "a@example.org"}
        with contextlib.suppress(urllib.error.HTTPError):  # it exists
            self._call("PUT", USER, user, auth)
        settings = {"type": "stage", "bases": [], "volatile": False, "acl_upload": [USER]}
        self._call("PUT", f"{USER}/{name}", settings, auth)
        return f"{self.url}{USER}/{name}/"

    def _call(self, method: str, path: str, value: Mapping[str, object], auth: str) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"X-Devpi-Auth": auth} if auth else {}
        request = urllib.request.Request(
            self.url + path, json.dumps(value).encode(), headers, method=method
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@contextlib.contextmanager
def devpi(folder: Path) -> Iterator[Devpi]:
    """A devpi server with a new database."""
    folder.mkdir(parents=True)
    data = ["--serverdir", str(folder / "data")]
    init = [installed("devpi-init"), *data, "--no-root-pypi", "--root-passwd", PASSWORD]
    succeeded(subprocess.run(init, capture_output=True, text=True, check=False))
    port = programs.free_port()
    words = [installed("devpi-server"), *data, "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/"
    with _program(words, f"{url}+api", folder / "log"):
        yield Devpi(url)


@dataclass(frozen=True)
class Venv:
    """A venv, in which the pip and the uv of these tests install."""

    python: Path
    env: Mapping[str, str] | None = None

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=self.env, capture_output=True, text=True, check=False, timeout=120
        )

    def pip(self, *words: str) -> subprocess.CompletedProcess[str]:
        pip = (sys.executable, "-m", "pip", "--python", str(self.python), "--no-cache-dir")
        return self.run(*pip, "--disable-pip-version-check", *words)

    def uv(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        uv = (installed("uv"), "pip", command, "--python", str(self.python), "--no-cache")
        return self.run(*uv, *words)

    def output(self, code: str) -> str:
        """The output of a Python program in the venv."""
        return succeeded(self.run(str(self.python), "-c", code)).stdout.strip()

    def mark(self) -> str:
        """The mark of the installed wheel (``tiny.wheel``)."""
        return self.output("import llama_cpp; print(llama_cpp.MARK)")


def venv(folder: Path, env: Mapping[str, str] | None = None, *, pip: bool = False) -> Venv:
    """Create a venv, without pip of its own unless ``pip``."""
    options = [] if pip else ["--without-pip"]
    subprocess.run([sys.executable, "-m", "venv", *options, str(folder)], check=True)
    return Venv(folder / "bin" / "python", env)


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Check the exit code, and show the output of a program that failed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@dataclass
class Cutter:
    """A proxy that closes a connection after ``limit`` bytes of a request."""

    url: str
    limit: int | None = None
    cuts: int = 0


@contextlib.contextmanager
def cutter(server: str) -> Iterator[Cutter]:
    """A proxy for ``server``; its address has another port and the same path."""
    host, _, rest = server.removeprefix("http://").partition("/")
    port = int(host.partition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Cutter(f"http://127.0.0.1:{listener.getsockname()[1]}/{rest}")
        threading.Thread(target=_accept, args=(listener, port, proxy), daemon=True).start()
        yield proxy


def _accept(listener: socket.socket, port: int, proxy: Cutter) -> None:
    with contextlib.suppress(OSError):  # the listener was closed
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_answers, args=(far, near), daemon=True).start()
            threading.Thread(target=_requests, args=(near, far, proxy), daemon=True).start()


def _answers(far: socket.socket, near: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := far.recv(1 << 16):
            near.sendall(data)
        near.shutdown(socket.SHUT_WR)


def _requests(near: socket.socket, far: socket.socket, proxy: Cutter) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := near.recv(1 << 12):
            if proxy.limit is not None and passed + len(data) > proxy.limit:
                proxy.cuts += 1
                break
            far.sendall(data)
            passed += len(data)
    for end in (near, far):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
