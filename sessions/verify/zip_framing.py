"""Reads the headers of a zip file, and refuses files that two readers could read differently.

A zip file describes each member twice: before its data and in the central directory. Installers
differ in which description they use, and in how they treat bytes that neither describes. Here both
must agree, and there must be no bytes between, before or after the members. Source: APPNOTE.TXT
6.3.10, sections 4.3 and 4.4. Features that no wheel needs are refused: zip64, comments, several
disks, and extra fields other than times and owners.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sessions.verify import member_names

DIRECTORY = 4 << 20  # bytes; the central directory of 2000 members has less than 0.5 MB
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
ENCRYPTED, LEVEL, DESCRIPTOR, UTF8 = 0x1, 0x6, 0x8, 0x800  # general purpose bit flags
STORED, DEFLATED = 0, 8
# Times and owners (Info-ZIP's UT, Ux, ux and PKWARE's NTFS), which change no content.
_HARMLESS = {0x5455, 0x5855, 0x7875, 0x000A}
_NEWEST = 45  # ten times the newest version of the specification that a reader may need


@dataclass(frozen=True)
class Entry:
    """A member, or a folder ("name/"), as both headers describe it. Sizes in bytes."""

    name: str
    method: int
    flags: int
    crc: int
    compressed: int
    size: int
    offset: int  # of its data in the file
    attributes: int  # external attributes; the upper 16 bits are the Unix mode
    time: str  # ISO 8601, without a time zone as in the file

    @property
    def folder(self) -> bool:
        """Whether it is a folder: its name ends with "/"."""
        return self.name.endswith("/")


@dataclass(frozen=True)
class _Header:
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    compressed: int
    size: int
    name: bytes
    extra: bytes


def read(path: Path, most: int) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The members in the order of their data, and all problems of the headers.

    If there are more than ``most`` members, none is read. Raises OSError.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        problems: list[str] = []
        entries = tuple(_members(stream, size, most, problems))
        return entries, tuple(problems)


def _members(stream: BinaryIO, size: int, most: int, problems: list[str]) -> Iterator[Entry]:
    stream.seek(max(size - _END.size, 0))
    tail = stream.read(_END.size)
    if len(tail) < _END.size or not tail.startswith(b"PK\x05\x06"):
        problems.append(_without_end(stream, size))
        return
    _, disk, first_disk, here, count, length, start, comment = _END.unpack(tail)
    if disk or first_disk or here != count or comment:
        problems.append("its end record counts two numbers of members, names a disk, or a comment")
    if 0xFFFF in (count, here) or 0xFFFFFFFF in (length, start):
        problems.append("zip64, which a wheel of at most 2 GB does not need")
        return
    if count > most or length > DIRECTORY:
        problems.append(f"{count} members; more than {most} are not read")
        return
    shift = size - _END.size - length - start
    if shift < 0:
        problems.append("not a zip file that can be read: it is cut short")
        return
    if shift:
        problems.append(
            f"{shift} bytes before its first member, as in a program that unpacks itself, "
            "or after its directory"
        )
    stream.seek(start + shift)
    found = list(_directory(stream.read(length), problems))
    if len(found) != count:
        problems.append(f"its end record counts {count} members, and its directory {len(found)}")
    end, last = shift, ""
    for header, where, attributes in sorted(found, key=lambda item: item[1]):
        name = _name(header, problems)
        where += shift
        if where < end:
            problems.append(f"members overlap: {member_names.shown(name)} begins within {last}")
            return
        if where > end:
            between = (
                f"between {last} and {member_names.shown(name)}" if last else "before the first"
            )
            problems.append(f"{where - end} bytes {between}")
        data = _local(stream, where, header, name, problems)
        if data is None:
            return
        end, last = data + header.compressed, member_names.shown(name)
        end += _descriptor(stream, end, header, name, problems)
        yield Entry(
            name, header.method, header.flags, header.crc, header.compressed, header.size, data,
            attributes, _moment(header.date, header.time),
        )  # fmt: skip
    if end != start + shift:
        problems.append(f"{start + shift - end} bytes between its last member and its directory")


def _without_end(stream: BinaryIO, size: int) -> str:
    stream.seek(max(size - _END.size - 0xFFFF, 0))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        return "not a zip file that can be read: it has no end record"
    return f"{len(tail) - at - _END.size} bytes after its end record: a comment, or another file"


def _directory(data: bytes, problems: list[str]) -> Iterator[tuple[_Header, int, int]]:
    """Each entry of the central directory: header, offset of the local header, attributes."""
    at = 0
    while at < len(data):
        if len(data) - at < _CENTRAL.size or data[at : at + 4] != b"PK\x01\x02":
            problems.append(f"its directory holds {len(data) - at} bytes that are not an entry")
            return
        (_, _, needed, flags, method, time, date, crc, compressed, size, names, extras, comments,
         disk, _, attributes, where) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        at += _CENTRAL.size
        if at + names + extras + comments > len(data):
            problems.append("not a zip file that can be read: its directory is cut short")
            return
        name, extra = data[at : at + names], data[at + names : at + names + extras]
        at += names + extras + comments
        if comments or disk:
            problems.append(f"{_shown(name)}: a comment, or on another disk")
        yield (
            _Header(needed, flags, method, time, date, crc, compressed, size, name, extra),
            where,
            attributes,
        )


def _name(header: _Header, problems: list[str]) -> str:
    """The member's name. Adds problems if readers may read the member differently."""
    shown = _shown(header.name)
    if header.flags & ENCRYPTED:
        problems.append(f"{shown}: encrypted")
    elif header.flags & ~(LEVEL | DESCRIPTOR | UTF8):
        problems.append(f"{shown}: flags {header.flags:#06x}")
    if header.method not in (STORED, DEFLATED):
        problems.append(f"{shown}: neither stored nor deflated, but method {header.method}")
    if header.needed > _NEWEST:
        problems.append(f"{shown}: it needs version {header.needed / 10} of zip")
    try:
        return header.name.decode("utf-8" if header.flags & UTF8 else "ascii")
    except UnicodeDecodeError:
        problems.append(f"{shown}: a name that is not marked as UTF-8, or is not UTF-8")
        return header.name.decode("cp437")


def _local(
    stream: BinaryIO, where: int, central: _Header, name: str, problems: list[str]
) -> int | None:
    """The offset of a member's data; None without a local header."""
    shown = member_names.shown(name)
    stream.seek(where)
    raw = stream.read(_LOCAL.size)
    if len(raw) < _LOCAL.size or not raw.startswith(b"PK\x03\x04"):
        problems.append(f"not a zip file that can be read: {shown} is not where it should be")
        return None
    _, needed, flags, method, time, date, crc, compressed, size, names, extras = _LOCAL.unpack(raw)
    label, extra = stream.read(names), stream.read(extras)
    local = _Header(needed, flags, method, time, date, crc, compressed, size, label, extra)
    late = ("crc", "compressed", "size") if flags & DESCRIPTOR else ()
    for field in ("needed", "flags", "method", "time", "date", "crc", "compressed", "size", "name"):
        one, other = getattr(local, field), getattr(central, field)
        if one != other and not (field in late and one == 0):
            problems.append(f"{shown}: its local header has another {field}, {one!r:.80}")
    for header in (local, central):
        if not _harmless(header.extra):
            problems.append(f"{shown}: an extra field that may change what it is")
            break
    return where + _LOCAL.size + len(label) + len(extra)


def _harmless(extra: bytes) -> bool:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4 + length
        if kind not in _HARMLESS:
            return False
    return at == len(extra)


def _descriptor(stream: BinaryIO, end: int, header: _Header, name: str, problems: list[str]) -> int:
    """The length of the data descriptor (checksum and sizes) after the data, if a flag is set."""
    if not header.flags & DESCRIPTOR:
        return 0
    stream.seek(end)
    plain = struct.pack("<3L", header.crc, header.compressed, header.size)
    found = stream.read(16)
    for expected in (b"PK\x07\x08" + plain, plain):
        # A reader without the directory cannot find the end of stored data.
        if found.startswith(expected) and header.method == DEFLATED:
            return len(expected)
    problems.append(f"{member_names.shown(name)}: its sizes are neither before nor after its data")
    return 0


def _moment(date: int, time: int) -> str:
    return (
        f"{1980 + (date >> 9):04}-{date >> 5 & 15:02}-{date & 31:02}"
        f"T{time >> 11:02}:{time >> 5 & 63:02}:{(time & 31) * 2:02}"
    )


def _shown(name: bytes) -> str:
    return member_names.shown(name.decode("utf-8", "backslashreplace"))
