"""Replaces secrets by *** in text from servers, from twine and from the user. Pure."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

HIDDEN = "***"
# Up to the last @ before a space or quote, because a password may contain any character.
_LOGIN = re.compile(r"(?<=://)[^\s'\"<>]*@")
_QUERY = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s?#'\"<>]*\?)[^\s#'\"<>]+")
_PARAMETER = re.compile(r"([?&][\w.~-]+=)[^\s&#'\"<>]+")
_HEADER = re.compile(
    r"((?:proxy-)?authorization\\?[\"']?\s*[:=]\s*\\?[\"']?)[^\r\n\"']+", re.IGNORECASE
)
_BEARER = re.compile(r"(\bbearer\s+)(?=[A-Za-z._~+/-]*\d)[\w.~+/=-]+", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")


def masked(text: str, user: str = "", secret: str = "") -> str:
    """Replace the known secret and everything that looks like a secret.

    Known are ``secret`` and ``user:secret``, plain and encoded for URLs, JSON, HTML and base64.
    A login in a URL, the query of a URL, the value of an Authorization header, and the base64 of
    "name:password" look like a secret.
    """
    for form in sorted(set(_forms(user, secret)), key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    for pattern, shown in (
        (_LOGIN, f"{HIDDEN}@"),
        (_QUERY, rf"\g<1>{HIDDEN}"),
        (_PARAMETER, rf"\g<1>{HIDDEN}"),
        (_HEADER, rf"\g<1>{HIDDEN}"),
        (_BEARER, rf"\g<1>{HIDDEN}"),
    ):
        text = pattern.sub(shown, text)
    return _BASE64.sub(lambda found: HIDDEN if _is_login(found[0], secret) else found[0], text)


def _forms(user: str, secret: str) -> Iterator[str]:
    """The ways in which a password can be written in a text."""
    if not secret:
        return
    for plain in (secret, f"{user}:{secret}"):
        encoded = plain.encode("utf-8", "surrogateescape")
        for form in (
            plain,
            base64.b64encode(encoded).decode(),
            base64.urlsafe_b64encode(encoded).decode(),
        ):
            yield form
            yield from (quote(form, safe="", errors="replace"), quote_plus(form, errors="replace"))
            yield from (html.escape(form), json.dumps(form)[1:-1], repr(form)[1:-1])


def _is_login(token: str, secret: str) -> bool:
    """Whether a text is base64 of "name:password" or of a text that contains the password."""
    plain = token.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        decoded = base64.b64decode(plain + "=" * (-len(plain) % 4)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return (bool(secret) and secret in decoded) or (":" in decoded and decoded.isprintable())
