"""Compares two wheels that should be identical: which members differ, and where."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from sessions.shared import records

SHOWN = 3  # texts of a section that are shown


def differences(one: Path, other: Path) -> tuple[str, ...]:
    """Every difference, including that of the file names; none if the bytes are equal."""
    if one.name == other.name and records.file_sha256(one) == records.file_sha256(other):
        return ()
    lines = [] if one.name == other.name else [f"name: {one.name}, and {other.name}"]
    try:
        with zipfile.ZipFile(one) as a, zipfile.ZipFile(other) as b:
            lines += _members(a, b)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        lines.append(f"one of the two is not a zip file that can be read: {error}")
    return tuple(lines) or ("the zip files differ outside their members",)


def _members(a: zipfile.ZipFile, b: zipfile.ZipFile) -> Iterator[str]:
    first, second = ({i.filename: i for i in archive.infolist()} for archive in (a, b))
    for name in sorted(first.keys() - second.keys()):
        yield f"{name}: only in the first"
    for name in sorted(second.keys() - first.keys()):
        yield f"{name}: only in the second"
    if list(first) != list(second) and first.keys() == second.keys():
        yield "the members are in another order"
    for name in sorted(first.keys() & second.keys()):
        data, again = a.read(name), b.read(name)
        if data != again:
            yield f"{name}: {_why(data, again)}"
        for field in ("date_time", "external_attr", "compress_type", "create_system", "extra"):
            was, now = getattr(first[name], field), getattr(second[name], field)
            if was != now:
                yield f"{name}: {field} is {was!r}, and {now!r}"


def _why(data: bytes, again: bytes) -> str:
    """Where two versions of a member differ: sections of a library, lines of a text."""
    if data[:4] == again[:4] == b"\x7fELF" or data[:2] == again[:2] == b"MZ":
        return _sections(data, again) or _first(data, again)
    try:
        before, after = data.decode().splitlines(), again.decode().splitlines()
    except UnicodeDecodeError:
        return _first(data, again)
    pairs = zip(before, after, strict=False)
    for number, (was, now) in enumerate(pairs, 1):
        if was != now:
            return f"line {number} is {was[:120]!r}, and {now[:120]!r}"
    return f"{len(before)} lines, and {len(after)}"


def _sections(data: bytes, again: bytes) -> str:
    import lief  # not at the top: every run of nox imports this module, and lief is slow to import

    found = []
    for content in (data, again):
        binary = lief.parse(content)
        if binary is None:
            return ""
        found.append({str(s.name): bytes(s.content) for s in binary.sections})
    first, second = found
    lines = []
    for name in dict.fromkeys([*first, *second]):
        if name not in first or name not in second:
            lines.append(f"{name} only in one")
        elif first[name] != second[name]:
            lines.append(f"{name} ({_texts(first[name], second[name])})")
    return "section " + ", ".join(lines) if lines else ""


def _texts(data: bytes, again: bytes) -> str:
    """The texts that only one of two sections has, such as the path of a folder."""
    kinds = [dict.fromkeys(re.findall(rb"[ -~]{6,}", content)) for content in (data, again)]
    for these, those in (kinds, kinds[::-1]):
        only = [text.decode()[:80] for text in these if text not in those]
        if only:
            return f"{len(only)} texts of its own, such as " + ", ".join(map(repr, only[:SHOWN]))
    return _first(data, again)


def _first(data: bytes, again: bytes) -> str:
    if len(data) != len(again):
        return f"{len(data)} bytes, and {len(again)}"
    at = next(i for i, (x, y) in enumerate(zip(data, again, strict=True)) if x != y)
    return f"differs from byte {at} on"
