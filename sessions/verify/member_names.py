"""Checks the names of members: each must name the same file on every system. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

LONGEST = 240  # characters; Windows allows 260 for the whole path by default
PART = 255  # bytes of the name of a file or folder, on Linux and macOS
# Source: learn.microsoft.com, "Naming Files, Paths, and Namespaces".
_DEVICES = {
    "con", "prn", "aux", "nul", "conin$", "conout$",
    *(f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"),
}  # fmt: skip
_FORBIDDEN = re.compile(r'[<>:"|?*\\]')


def shown(name: str) -> str:
    """A name for a message: cut if it is long, quoted if it has unprintable characters."""
    text = name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
    return text if text.isprintable() else repr(text)


def problems(names: Sequence[str]) -> Iterator[str]:
    """The problems of the names of all members. Names of folders end with "/"."""
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{shown(name)}: {count} members of that name"
    for name in dict.fromkeys(names):
        if why := _why(name):
            yield f"{name[:LONGEST]!r}: {why}"
    yield from _collisions({name for name in names if len(name) <= LONGEST})


def _why(name: str) -> str | None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "leaves its folder"
    parts = name.removesuffix("/").split("/")
    if name and ("" in parts or "." in parts):
        return "not the shortest form of its path"
    if len(name) > LONGEST:
        return "too long for some systems"
    if not all(map(_portable, parts)):
        return "not a name for a file on every system"
    return None


def _portable(part: str) -> bool:
    """Whether Linux, macOS and Windows use this name of a file or folder unchanged."""
    return (
        part.isprintable()
        and 0 < len(part.encode("utf-8", "surrogatepass")) <= PART
        and unicodedata.normalize("NFC", part) == part
        and not _FORBIDDEN.search(part)
        and not part.endswith((".", " "))
        and not part.startswith(" ")
        and part.split(".")[0].rstrip(" ").casefold() not in _DEVICES
    )


def _collisions(names: set[str]) -> Iterator[str]:
    """Paths, including parent folders, that are the same path on some system."""
    spellings: dict[str, set[str]] = {}
    folders: set[str] = set()
    files: set[str] = set()
    for name in names:
        parts = name.removesuffix("/").split("/")
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            whole = count == len(parts) and not name.endswith("/")
            (files if whole else folders).add(_folded(path))
            spellings.setdefault(_folded(path), set()).add(path)
    for same in spellings.values():
        if len(same) > 1:
            first = max(same)
            yield f"{shown(first)}: {len(same)} names that Windows or macOS takes for one"
    for path in sorted(files & folders):
        yield f"{shown(max(spellings[path]))}: a file and a folder of one name"


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
