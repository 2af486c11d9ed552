"""What a package server has of a file, read from its index pages."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import posixpath
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

# Where the pages are, from the address for uploads: pypiserver, GitLab, Artifactory and Nexus have
# them in simple/, devpi in +simple/.
_PAGES = ("simple", "+simple")
_HASHES = ("sha256", "md5", "sha1", "sha224", "sha384", "sha512")
_SECONDS = 30.0  # without a word from the server
_FAILED = (OSError, http.client.HTTPException, ValueError)  # URLError is an OSError


def has(url: str, project: str, file: Path, env: Mapping[str, str], user: str, secret: str) -> str:
    """What the server at ``url`` has under the file's name: "same", "other" or "unseen".

    Unseen is what no page lists, and what cannot be compared: not proven to be absent. Name and
    password go to the server alone, and only if it asks.
    """
    for folder in _PAGES:
        with contextlib.suppress(*_FAILED):
            opener = urllib.request.build_opener(
                _SameHost(), urllib.request.HTTPSHandler(context=_certificates(env))
            )
            page = f"{url.rstrip('/')}/{folder}/{project}/"
            address, text = _get(opener, page, user, secret)
            for link in links(text.decode("utf-8", "replace")):
                target, fragment = urldefrag(urljoin(address, link))
                if unquote(posixpath.basename(urlsplit(target).path)) == file.name:
                    algorithm, there = _digest(opener, target, fragment, user, secret)
                    here = hashlib.new(algorithm, file.read_bytes()).hexdigest()
                    return "same" if here == there else "other"
    return "unseen"


def _digest(
    opener: urllib.request.OpenerDirector, url: str, fragment: str, user: str, secret: str
) -> tuple[str, str]:
    """The hash that a link carries (PEP 503); where it carries none, that of what it leads to."""
    algorithm, _, digest = fragment.partition("=")
    if algorithm in _HASHES and digest:
        return algorithm, digest
    return "sha256", hashlib.sha256(_get(opener, url, user, secret)[1]).hexdigest()


def links(page: str) -> Iterator[str]:
    """The addresses of all links of a page."""
    parser = _Links()
    parser.feed(page)
    yield from parser.found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


def _get(
    opener: urllib.request.OpenerDirector, url: str, user: str, secret: str
) -> tuple[str, bytes]:
    """The address that answered, and its answer; with the password only where one is asked for."""
    request = urllib.request.Request(url, headers={"Accept": "text/html, */*;q=0.1"})
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            return answer.url, answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in (401, 403) or not user:
            raise
    words = base64.b64encode(f"{user}:{secret}".encode()).decode()
    request.add_unredirected_header("Authorization", f"Basic {words}")
    with opener.open(request, timeout=_SECONDS) as answer:
        return answer.url, answer.read()


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Another host's page says nothing of this server: pypiserver sends on to PyPI."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            raise urllib.error.HTTPError(newurl, code, "another host", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _certificates(env: Mapping[str, str]) -> ssl.SSLContext:
    """The user's own certificate authorities, where twine and pip would find them."""
    for name in ("TWINE_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if env.get(name):
            path = Path(env[name])
            folder = path.is_dir()
            return ssl.create_default_context(
                cafile=None if folder else str(path), capath=str(path) if folder else None
            )
    return ssl.create_default_context()
