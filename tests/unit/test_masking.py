"""``masked`` hides secrets in every encoding, and changes no other text."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from sessions.release.masking import masked

USER, SECRET = "ana", 'p&ss wörd/"1"'
LOGIN = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        html.escape(SECRET),
        json.dumps(SECRET)[1:-1],
        base64.b64encode(SECRET.encode()).decode(),
        LOGIN,
        LOGIN.rstrip("="),
        base64.urlsafe_b64encode(f"{USER}:{SECRET}".encode()).decode(),
        quote(LOGIN, safe=""),
        base64.b64encode(f"you sent {SECRET}".encode()).decode(),
    ],
)
@pytest.mark.parametrize("around", ["{}", "<b>{}</b>", "you sent '{}', which is wrong", "a={}&b"])
def test_a_known_password_is_masked_in_every_encoding(written: str, around: str) -> None:
    text = masked(around.format(written), USER, SECRET)
    assert written not in text
    assert "***" in text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Basic {LOGIN}", LOGIN),
        (f"authorization='Basic {LOGIN}'", LOGIN),
        (f'{{"Authorization": "Basic {LOGIN}"}}', LOGIN),
        ("Proxy-Authorization: Digest abcdef", "abcdef"),
        ("Authorization: token ghp_xyz", "ghp_xyz"),
        (f"you sent Basic {LOGIN}", LOGIN),
        (f"headers: {LOGIN}", LOGIN),
        ("Bearer abc.123-xyz", "abc.123-xyz"),
        ("https://ana:s3cret@h/simple/", "s3cret"),
        ("https://ana:s3/cr@et@h/simple/", "s3/cr"),
        ("see 'https://s3cret@h/'", "s3cret"),
        ("https://h/legacy/?token=s3cret", "s3cret"),
        ("https://h/legacy/?s3cret", "s3cret"),
        ("https://h/?a=1&token=s3cret#x", "s3cret"),
        ("GET /legacy/?a=1&api_key=s3cret HTTP/1.1", "s3cret"),
    ],
)
def test_text_that_looks_like_a_secret_is_masked(text: str, secret: str) -> None:
    assert secret not in masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "HTTPError: 409 Conflict from https://wheels.example.org/cu131-sm90/",
        "sha256 3872d3b8a13b602852bc4a260301debf846b498f09948aa47667501b1fac4ff9 at commit "
        "5e5b536a0b1c2d3e4f5061728394a5b6c7d8e9f0",
        "llama_cpp_python-0.3.16-cp311-cp311-manylinux_2_35_x86_64.whl is there already",
        "see https://packaging.python.org/specifications/pypirc, or ask: who? why?",
        "Basic authentication is required; the bearer token expired",
        "/srv/www/wheels/dist/cu131-sm120/simple/llama-cpp-python/index.html",
        "write to ana@example.org",
        "",
    ],
)
def test_other_text_stays_unchanged(text: str) -> None:
    assert masked(text) == text
    assert masked(text, "ana", "s3cret") == text
