"""Package servers that are hostile or broken, on loopback: nothing leaks, and each is said."""

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


@dataclass
class Played:
    """A server that says what it is told to, and remembers what it was asked."""

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Authorization
    answer: Callable[[str, str], tuple[int, dict[str, str], bytes]] = lambda path, login: (
        404,
        {},
        b"",
    )


@contextlib.contextmanager
def played() -> Iterator[Played]:
    made = Played()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            login = self.headers.get("Authorization", "")
            made.asked.append((self.path, login))
            code, headers, body = made.answer(self.path, login)
            self.send_response(code)
            for name, value in {"Content-Type": "text/html", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not on stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_port}/"
        yield made
        server.shutdown()


@pytest.fixture
def server() -> Iterator[Played]:
    with played() as made:
        yield made


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(b"a wheel" * 1000)
    return path


def state(server: Played, wheel: Path) -> str:
    return server_listing.has(server.url, PROJECT, wheel, {}, USER, SECRET)


def page(link: str) -> Callable[[str, str], tuple[int, dict[str, str], bytes]]:
    """A server that has one page, with one link, for everybody."""
    text = f"<a href='{link}'>{NAME}</a>".encode()
    return lambda path, _: (200, {}, text) if path.startswith("/simple/") else (401, {}, b"")


def test_the_password_goes_to_no_other_server_that_a_page_links_to(
    server: Played, wheel: Path
) -> None:
    with played() as other:
        other.answer = lambda *_: (401, {"WWW-Authenticate": "Basic"}, b"")
        server.answer = page(f"{other.url}{NAME}")
        assert state(server, wheel) == "unseen"
        assert other.asked == [(f"/{NAME}", "")]


def test_the_password_goes_to_the_server_itself_where_it_asks(server: Played, wheel: Path) -> None:
    body = f"<a href='/files/{NAME}'>{NAME}</a>".encode()

    def answer(path: str, login: str) -> tuple[int, dict[str, str], bytes]:
        if login != f"Basic {LOGIN}":
            return 401, {"WWW-Authenticate": "Basic"}, b""
        return 200, {}, body if path.startswith("/simple/") else wheel.read_bytes()

    server.answer = answer
    assert state(server, wheel) == "same"
    assert [login for _, login in server.asked] == ["", f"Basic {LOGIN}"] * 2


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_carries_no_password_to_another_server(
    code: int, server: Played, wheel: Path
) -> None:
    with played() as other:
        other.answer = lambda *_: (401, {"WWW-Authenticate": "Basic"}, b"")
        server.answer = lambda _, login: (
            (code, {"Location": other.url}, b"") if login else (401, {}, b"")
        )
        assert state(server, wheel) == "unseen"
        assert other.asked == []


@pytest.mark.parametrize("where", ["link", "redirect"])
def test_a_file_of_this_machine_is_not_what_a_server_has(
    where: str, server: Played, wheel: Path
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
def test_other_links_are_not_followed(link: str, server: Played, wheel: Path) -> None:
    body = f"<a href='{link}{NAME}'>x</a><a href='{link}/{NAME}'>x</a>".encode()
    server.answer = lambda path, _: (200, {}, body) if "/simple/" in path else (404, {}, b"")
    assert state(server, wheel) == "unseen"


def test_hashes_are_compared_whatever_their_case_and_all_links_count(
    server: Played, wheel: Path
) -> None:
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
def test_a_file_without_hash_is_compared_whole(
    change: Callable[[bytes], bytes], found: str, server: Played, wheel: Path
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
def test_a_page_that_cannot_be_read_is_said_to_be_one(
    answer: Callable[[str, str], tuple[int, dict[str, str], bytes]],
    words: str,
    server: Played,
    wheel: Path,
) -> None:
    server.answer = answer
    with pytest.raises(Problem) as caught:
        state(server, wheel)
    assert caught.value.id == "server-page-unreadable"
    assert words in caught.value.evidence


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 410, 500])
def test_where_there_is_no_page_nothing_is_seen(code: int, server: Played, wheel: Path) -> None:
    server.answer = lambda *_: (code, {}, b"echo")
    assert state(server, wheel) == "unseen"


def test_a_port_where_nobody_listens_is_said_to_be_one(wheel: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(Problem) as caught:
        server_listing.has(f"http://127.0.0.1:{port}/?token=abc", PROJECT, wheel, {}, USER, SECRET)
    assert caught.value.id == "server-unreachable"
    assert f"127.0.0.1:{port}/?***" in caught.value.evidence


def test_a_server_without_tls_and_a_missing_certificate_are_told_apart(
    server: Played, wheel: Path, tmp_path: Path
) -> None:
    url = server.url.replace("http:", "https:")
    for env, id_ in (
        ({}, "server-certificate"),
        ({"TWINE_CERT": str(tmp_path / "none.pem")}, "server-certificate-file"),
    ):
        with pytest.raises(Problem) as caught:
            server_listing.has(url, PROJECT, wheel, env, USER, SECRET)
        assert caught.value.id == id_


def test_a_server_that_never_ends_is_left(
    server: Played, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_listing, "_WHOLE", 0.0)
    server.answer = page(NAME)
    with pytest.raises(Problem) as caught:
        state(server, wheel)
    assert caught.value.id == "server-unreachable"
