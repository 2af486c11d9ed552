"""Reading the pages of a package server; the integration tests use real servers."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import pytest

from sessions.release import server_listing
from tests.problems import raises


def test_links_are_found_in_every_spelling() -> None:
    page = (
        '<A HREF="a.whl#sha256=1">a</A><a class=x href=b.whl>b</a> <a name="c">c</a> <img src="d">'
        "<a data-requires-python='&gt;=3' href='../f/e%2B1.whl?x=1&amp;y=2'>e</a><a href>"
        '<a data-requires-python=">=3" href="g.whl" href="h.whl">g</a><a\nhref = "i.whl" >i</a>'
        "<!-- <a href='j.whl'> --><abbr href='k.whl'><a href=''>"
    )
    assert list(server_listing.links(page)) == [
        "a.whl#sha256=1", "b.whl", "../f/e%2B1.whl?x=1&y=2", "g.whl", "i.whl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "unit",
    [
        "<a ", "<!--", "<![", "<", "<a href='", '<a b="', "<a b=", "<a b ", "&", "</", "-->",
        "<a b= ", "<a >", "<a '>", "<a b>", "<a ''>",
    ],
)  # fmt: skip
def test_a_hostile_page_is_read_in_linear_time(unit: str) -> None:
    page = unit * (160_000 // len(unit))
    begun = time.process_time()
    assert list(server_listing.links(page)) == []
    assert time.process_time() - begun < 4  # Python's HTML parser takes minutes for these pages


def test_a_page_with_too_many_links_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 50000 links"):
        list(server_listing.links("<a href=x>" * 50_001))


@pytest.mark.parametrize(
    ("target", "follows"),
    [
        ("http://h:1/other/", True),
        ("http://h:2/simple/", False),
        ("https://h:1/simple/", False),
        ("http://ana:x@h:1/other/", True),
        ("https://pypi.example/simple/", False),
        ("file:///etc/passwd", False),
    ],
)
def test_a_redirect_to_another_server_is_not_followed(target: str, follows: bool) -> None:
    request = urllib.request.Request("http://h:1/simple/")
    handler = server_listing._SameOrigin()
    if follows:
        redirected = handler.redirect_request(request, None, 302, "", Message(), target)
        assert redirected is not None
        assert redirected.full_url == target
    else:
        with pytest.raises(urllib.error.HTTPError):
            handler.redirect_request(request, None, 302, "", Message(), target)


def test_a_server_does_not_show_its_secrets() -> None:
    server = server_listing.Server("https://h/x/?token=abc", {"A": "env"}, "ana", "s3cret")
    assert server.page("simple", "p") == "https://h/x/simple/p/?token=abc"
    assert server.shown == "https://h/x/?***"
    assert "s3cret" not in repr(server)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_a_server_is_named(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(server: server_listing.Server, url: str) -> None:
        raise urllib.error.HTTPError(url, status, "Bad Gateway", Message(), None)

    monkeypatch.setattr(server_listing, "_opened", refuse)
    with raises("server-unreachable") as caught:
        server_listing.has("http://127.0.0.1:9/", "p", tmp_path / "a.whl", {}, "", "")
    assert str(status) in caught.value.evidence
