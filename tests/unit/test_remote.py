"""Reading a server's pages; what a server answers is tested with real ones (integration)."""

from __future__ import annotations

import urllib.error
import urllib.request
from email.message import Message

import pytest

from sessions.core import remote


def test_every_link_of_a_page_is_found_however_it_is_written() -> None:
    page = (
        '<A HREF="a.whl#sha256=1">a</A><a class=x href=b.whl>b</a> <a name="c">c</a> <img src="d">'
        "<a data-requires-python='&gt;=3' href='../f/e%2B1.whl?x=1&amp;y=2'>e</a><a href>"
    )
    assert list(remote.links(page)) == ["a.whl#sha256=1", "b.whl", "../f/e%2B1.whl?x=1&y=2"]


@pytest.mark.parametrize(
    ("target", "follows"),
    [
        ("http://h:1/other/", True),
        ("http://h:2/simple/", False),
        ("https://pypi.example/simple/", False),
    ],
)
def test_a_redirect_to_another_host_is_not_followed(target: str, follows: bool) -> None:
    request = urllib.request.Request("http://h:1/simple/")
    handler = remote._SameHost()
    if follows:
        made = handler.redirect_request(request, None, 302, "", Message(), target)
        assert made is not None
        assert made.full_url == target
    else:
        with pytest.raises(urllib.error.HTTPError):
            handler.redirect_request(request, None, 302, "", Message(), target)
