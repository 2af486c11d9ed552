"""Hostile or broken package servers on loopback: no password leaks, and each is an error."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sessions.release import server_listing
from sessions.shared.errors import Problem

PROJECT = "llama-cpp-python"
USER, SECRET = "ana", "s3cret"
LOGIN = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
NAME = "llama_cpp_python-0.3.16-py3-none-any.whl"


Answer = Callable[[str, str], tuple[int, dict[str, str], bytes]]


@dataclass
class Server:
    """A server with a replaceable answer that records its requests."""

    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Authorization
    answer: Answer = lambda path, login: (404, {}, b"")


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    made = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            login = self.headers.get("Authorization", "")
            made.requests.append((self.path, login))
            code, headers, body = made.answer(self.path, login)
            self.send_response(code)
            for name, value in {"Content-Type": "text/html", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_port}/"
        yield made
        server.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(b"a wheel" * 1000)
    return path


def state(server: Server, wheel: Path) -> str:
    return server_listing.has(server.url, PROJECT, wheel, {}, USER, SECRET)


def page(link: str) -> Answer:
    """An answer that has one page with one link and asks for no password."""
    text = f"<a href='{link}'>{NAME}</a>".encode()
    return lambda path, _: (200, {}, text) if path.startswith("/simple/") else (401, {}, b"")


def test_the_password_is_not_sent_to_a_linked_server(server: Server, wheel: Path) -> None:
    with serving() as other:
        other.answer = lambda *_: (401, {"WWW-Authenticate": "Basic"}, b"")
        server.answer = page(f"{other.url}{NAME}")
        assert state(server, wheel) == "unseen"
        assert other.requests == [(f"/{NAME}", "")]


def test_the_password_is_sent_to_the_server_that_asks_for_it(server: Server, wheel: Path) -> None:
    body = f"<a href='/files/{NAME}'>{NAME}</a>".encode()

    def answer(path: str, login: str) -> tuple[int, dict[str, str], bytes]:
        if login != f"Basic {LOGIN}":
            return 401, {"WWW-Authenticate": "Basic"}, b""
        return 200, {}, body if path.startswith("/simple/") else wheel.read_bytes()

    server.answer = answer
    assert state(server, wheel) == "same"
    assert [login for _, login in server.requests] == ["", f"Basic {LOGIN}"] * 2


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_the_password_is_not_sent_to_a_redirected_server(
    code: int, server: Server, wheel: Path
) -> None:
    with serving() as other:
        other.answer = lambda *_: (401, {"WWW-Authenticate": "Basic"}, b"")
        server.answer = lambda _, login: (
            (code, {"Location": other.url}, b"") if login else (401, {}, b"")
        )
        assert state(server, wheel) == "unseen"
        assert other.requests == []


@pytest.mark.parametrize("where", ["link", "redirect"])
def test_a_local_file_is_not_read_as_a_servers_file(
    where: str, server: Server, wheel: Path
) -> None:
    if where == "link":
        server.answer = page(wheel.as_uri())
    else:
        there = page(f"/x/{NAME}")
        server.answer = lambda path, login: (
            (302, {"Location": wheel.as_uri()}, b"") if "/x/" in path else there(path, login)
        )
    assert state(server, wheel) == "unseen"


@pytest.mark.parametrize("link", ["data:,a", "ftp://127.0.0.1/", "javascript:x", "http://[x/"])
def test_other_links_are_not_followed(link: str, server: Server, wheel: Path) -> None:
    body = f"<a href='{link}{NAME}'>x</a><a href='{link}/{NAME}'>x</a>".encode()
    server.answer = lambda path, _: (200, {}, body) if "/simple/" in path else (404, {}, b"")
    assert state(server, wheel) == "unseen"


def test_hashes_of_all_links_are_compared_without_case(server: Server, wheel: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    server.answer = page(f"{NAME}#sha256={digest.upper()}")
    assert state(server, wheel) == "same"
    twice = f"<a href='{NAME}#sha256={digest}'></a><a href='{NAME}#sha256={'0' * 64}'></a>"
    server.answer = lambda *_: (200, {}, twice.encode())
    assert state(server, wheel) == "other"


@pytest.mark.parametrize(
    ("change", "found"),
    [(lambda d: d, "same"), (lambda d: d[:-1], "other"), (lambda d: d + b"!", "other")],
)
def test_a_file_without_a_hash_is_downloaded_and_compared(
    change: Callable[[bytes], bytes], found: str, server: Server, wheel: Path
) -> None:
    listing = page(f"/x/{NAME}")
    server.answer = lambda path, login: (
        (200, {}, change(wheel.read_bytes())) if "/x/" in path else listing(path, login)
    )
    assert state(server, wheel) == found


def loops(path: str, _: str) -> tuple[int, dict[str, str], bytes]:
    return 302, {"Location": f"{path}x"}, b""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (loops, "endless redirects"),
        (lambda *_: (200, {}, b" " * (server_listing._LARGEST + 1)), "more than"),
        (lambda *_: (200, {}, b"<a href=x>" * (server_listing._LINKS + 1)), "more than"),
        (lambda *_: (200, {"Content-Type": "text/html; charset=utf-16"}, b"abc"), "utf-16"),
        (lambda *_: (200, {"Content-Type": "text/html; charset=none"}, b"abc"), "none"),
        (lambda *_: (200, {}, b"<a href='\xff'>"), "utf-8"),
        (lambda *_: (200, {"Content-Encoding": "gzip"}, b"abc"), "gzip"),
        (lambda *_: (200, {"Content-Length": "100"}, b"abc"), "IncompleteRead"),
        (lambda *_: (200, {f"X-{n}": "y" for n in range(200)}, b""), "headers"),
    ],
    ids=[
        "redirects", "large", "links", "utf-16", "unknown", "not-utf-8", "gzip", "cut", "headers",
    ],
)  # fmt: skip
def test_an_unreadable_page_is_an_error(
    answer: Answer,
    words: str,
    server: Server,
    wheel: Path,
) -> None:
    server.answer = answer
    with pytest.raises(Problem) as caught:
        state(server, wheel)
    assert caught.value.id == "server-page-unreadable"
    assert words in caught.value.evidence


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 410, 500])
def test_without_a_page_the_file_is_unseen(code: int, server: Server, wheel: Path) -> None:
    server.answer = lambda *_: (code, {}, b"echo")
    assert state(server, wheel) == "unseen"


def test_an_unreachable_server_is_an_error_without_its_token(wheel: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(Problem) as caught:
        server_listing.has(f"http://127.0.0.1:{port}/?token=abc", PROJECT, wheel, {}, USER, SECRET)
    assert caught.value.id == "server-unreachable"
    assert f"127.0.0.1:{port}/?***" in caught.value.evidence


def test_a_server_without_tls_and_a_missing_certificate_are_different_errors(
    server: Server, wheel: Path, tmp_path: Path
) -> None:
    url = server.url.replace("http:", "https:")
    for env, id_ in (
        ({}, "server-certificate"),
        ({"TWINE_CERT": str(tmp_path / "none.pem")}, "server-certificate-file"),
    ):
        with pytest.raises(Problem) as caught:
            server_listing.has(url, PROJECT, wheel, env, USER, SECRET)
        assert caught.value.id == id_


def test_a_server_that_never_ends_is_an_error(
    server: Server, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_listing, "_WHOLE", 0.0)
    server.answer = page(NAME)
    with pytest.raises(Problem) as caught:
        state(server, wheel)
    assert caught.value.id == "server-unreachable"
