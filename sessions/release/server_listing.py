"""Reads whether a package server has a file, from its index pages, which are not trusted.

pypi-simple 1.8 is not used: it reads answers of any size, follows redirects to any host, and parses
with Python's HTML parser, which takes quadratic time for some pages and raises AssertionError for
others.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import http.client
import posixpath
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from sessions.release.masking import masked
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem

# The folder of the pages below the address for uploads: simple/ of pypiserver, GitLab, Artifactory
# and Nexus, +simple/ of devpi.
_PAGES = ("simple", "+simple")
_HASHES = ("sha256", "md5", "sha1", "sha224", "sha384", "sha512")
_SECONDS = 30.0  # without data from the server
_WHOLE = 600.0  # seconds for a whole answer
_LARGEST = 8 * 2**20  # bytes of a page; a project with a thousand files needs 0.3 MB
_LINKS = 50_000  # of a page
_TAG = 8192  # characters of one tag
_BLOCK = 2**16
_PORTS = {"http": 80, "https": 443}
_GATEWAY = (502, 503, 504)  # from a proxy whose server does not answer
_FAILED = (OSError, http.client.HTTPException, ValueError)  # URLError is an OSError


@dataclass(frozen=True)
class Server:
    """The server. Name and password are sent only to its scheme, host and port."""

    url: str
    env: Mapping[str, str] = field(repr=False)
    user: str = ""
    secret: str = field(default="", repr=False)

    def page(self, folder: str, project: str) -> str:
        """The address of a project's page."""
        scheme, host, path, query, _ = urlsplit(self.url)
        return urlunsplit((scheme, host, f"{path.rstrip('/')}/{folder}/{project}/", query, ""))

    @property
    def shown(self) -> str:
        """Its address without secrets."""
        return masked(self.url, self.user, self.secret)


def has(url: str, project: str, file: Path, env: Mapping[str, str], user: str, secret: str) -> str:
    """What the server at ``url`` has under the file's name: "same", "other" or "unseen".

    "unseen" means that no page lists the name, or that the file cannot be compared. Raises Problem
    if no server answers or a page cannot be read.
    """
    server = Server(url, env, user, secret)
    for folder in _PAGES:
        page = _page(server, server.page(folder, project))
        if page is None:
            continue
        address, text = page
        states = {_state(server, link, file) for link in _named(address, text, file.name)}
        for state in ("other", "same"):
            if state in states:
                return state
    return "unseen"


def links(page: str) -> Iterator[str]:
    """The addresses of all links of a page, in linear time.

    Raises ValueError for more than ``_LINKS`` links. A "<a" without an end within ``_TAG``
    characters is skipped with these characters; otherwise the time would be quadratic.
    """
    page = "".join(_without_comments(page))
    at = count = 0
    while start := _START.search(page, at):
        tag = _OPEN.match(page, start.end(), start.end() + _TAG)
        at = tag.end() if tag else start.end() + _TAG
        count += 1
        if count > _LINKS:
            raise ValueError(f"more than {_LINKS} links")
        for name, *values in _ATTRIBUTE.findall(tag[0]) if tag else ():
            if name.lower() == "href":
                if value := html.unescape("".join(values)):
                    yield value
                break  # browsers and installers use the first href of a tag


_START = re.compile(r"<a(?=[\s/])", re.IGNORECASE)
_OPEN = re.compile(r"""(?:[^"'>]|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""")


def _without_comments(page: str) -> Iterator[str]:
    at = 0
    while (start := page.find("<!--", at)) >= 0:
        yield page[at:start]
        end = page.find("-->", start + 4)
        if end < 0:
            return
        at = end + 3
    yield page[at:]


def _named(address: str, page: str, name: str) -> Iterator[str]:
    """The links of a page that lead to a file of this name."""
    for link in links(page):
        with contextlib.suppress(ValueError):  # not a URL, for example "http://[x"
            target = urljoin(address, link)
            if unquote(posixpath.basename(urlsplit(target).path)) == name:
                yield target


def _state(server: Server, link: str, file: Path) -> str:
    """Compare a file with the hash of a link (PEP 503), or without a hash with the linked file."""
    target, fragment = urldefrag(link)
    algorithm, _, digest = fragment.partition("=")
    if algorithm in _HASHES and digest:
        with file.open("rb") as stream:
            here = hashlib.file_digest(stream, algorithm).hexdigest()
        return "same" if here == digest.lower() else "other"
    try:
        with _opened(server, target) as (answer, _):
            return "same" if _equal(answer, file) else "other"
    except _FAILED:
        return "unseen"


def _equal(answer: http.client.HTTPResponse, file: Path) -> bool:
    """Whether an answer has the bytes of a file. Reading stops at the first difference."""
    with file.open("rb") as stream:
        for block in _blocks(answer, file.stat().st_size + 1):
            if block != stream.read(len(block)):
                return False
        return not stream.read(1)


def _page(server: Server, url: str) -> tuple[str, str] | None:
    """The address that answered, and its page; None if there is no such page. Raises Problem."""
    try:
        with _opened(server, url) as (answer, address):
            charset = answer.headers.get_content_charset("utf-8")
            encoding = answer.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":
                raise ValueError(f"Content-Encoding: {encoding}, which was not asked for")
            data = b"".join(_blocks(answer, _LARGEST + 1))
            if len(data) > _LARGEST:
                raise ValueError(f"more than {_LARGEST} bytes")
            text = data.decode(charset)
            for _ in links(text):  # raises ValueError if there are too many
                pass
            return address, text
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _GATEWAY:
            raise _silent(server, OSError(f"HTTP {error.code}, from a proxy on the way")) from None
        if 300 <= error.code < 400 and not isinstance(error, _Elsewhere):
            raise _unreadable(server, url, f"endless redirects: {error.code}") from None
        return None
    except (LookupError, ValueError, http.client.HTTPException) as error:
        raise _unreadable(server, url, f"{type(error).__name__}: {error}") from None
    except OSError as error:
        raise _silent(server, error) from None


def _unreadable(server: Server, url: str, why: str) -> Problem:
    return Problem(
        "The index page of the package server cannot be read.",
        id="server-page-unreadable",
        code=CHECK_FAILED,
        evidence=masked(f"{url}\n{why}", server.user, server.secret),
        remedy="check that --to names a package server, and read its log",
    )


def _silent(server: Server, error: OSError) -> Problem:
    """The error if no server answers, or if its certificate is not trusted."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    why = masked(f"{server.url}\n{reason}", server.user, server.secret)
    if isinstance(reason, ssl.SSLError):
        return Problem(
            "The server's certificate is not trusted, or the server does not use TLS.",
            id="server-certificate",
            evidence=why,
            remedy="set TWINE_CERT to the certificate of its authority",
        )
    return Problem(
        "No server answers at this address.",
        id="server-unreachable",
        evidence=why,
        remedy="check the address, the server and the network",
    )


def _blocks(answer: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    """The blocks of an answer, at most ``most`` bytes.

    Raises TimeoutError if the server is too slow, IncompleteRead if the answer ends early.
    """
    end = time.monotonic() + _WHOLE
    while most > 0 and (block := answer.read(min(_BLOCK, most))):
        most -= len(block)
        yield block
        if time.monotonic() > end:
            raise TimeoutError(f"not done after {_WHOLE:.0f} s")
    if most > 0 and answer.length:
        raise http.client.IncompleteRead(b"", answer.length)


@contextlib.contextmanager
def _opened(server: Server, url: str) -> Iterator[tuple[http.client.HTTPResponse, str]]:
    """An answer and its address. The password is sent only if the server asks for it.

    Raises HTTPError for an error status, ValueError for an address that is not http or https.
    """
    if urlsplit(url).scheme not in _PORTS:
        raise ValueError(f"{masked(url)} is not an address on the web")
    opener = urllib.request.OpenerDirector()  # build_opener would also open file:// and ftp://
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_certificates(server.env)),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _SameOrigin(),
    ):
        opener.add_handler(handler)
    accepted = {"Accept": "application/vnd.pypi.simple.v1+html, text/html, */*;q=0.1"}
    request = urllib.request.Request(url, headers=accepted)
    try:
        answer = opener.open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        ours = bool(server.user) and _origin(url) == _origin(server.url)
        if error.code not in (401, 403) or not ours:
            raise
        error.close()
        words = base64.b64encode(f"{server.user}:{server.secret}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {words}")
        answer = opener.open(request, timeout=_SECONDS)
    with answer:
        yield answer, answer.url


def _origin(url: str) -> tuple[str, str | None, int | None]:
    found = urlsplit(url)
    return found.scheme, found.hostname, found.port or _PORTS.get(found.scheme)


class _Elsewhere(urllib.error.HTTPError):
    """A redirect to another server, which is not followed."""


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows no redirect to another server: pypiserver redirects to PyPI, for example."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        if _origin(newurl) != _origin(req.full_url):
            raise _Elsewhere(newurl, code, "another host", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _certificates(env: Mapping[str, str]) -> ssl.SSLContext:
    """The user's certificate authorities, from the variables that twine and pip read."""
    for name in ("TWINE_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if env.get(name):
            path = Path(env[name])
            folder = path.is_dir()
            try:
                return ssl.create_default_context(
                    cafile=None if folder else str(path), capath=str(path) if folder else None
                )
            except OSError as error:  # SSLError too
                raise Problem(
                    f"{name} does not name certificates that can be read.",
                    id="server-certificate-file",
                    code=USAGE,
                    evidence=f"{path}: {error}",
                    remedy=f"set {name} to a file of PEM certificates, or unset it",
                ) from error
    return ssl.create_default_context()
