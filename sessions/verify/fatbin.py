"""Finds and reads fat binaries (the containers of GPU code), and GPU code outside them.

Headers as in CUDA's fatbinary_section.h and as nvcc 13 writes them.
"""

from __future__ import annotations

import bisect
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sessions.verify import elf

# A fat binary begins with the magic 0xBA55ED50, version 1 and the size of its header (16 bytes),
# then 8 bytes with the size of the data after the header.
MAGIC = bytes.fromhex("50ed55ba01001000")
_HEADER = 16
# The header of a piece of code: kind, version, size of the header, size of the code, its compressed
# size, minor and major version of the format, architecture, place and length of a name, flags,
# unused, uncompressed size.
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
PTX, ELF = 1, 2
# The argument of __cudaRegisterFatBinary: magic 0x466243B1, version 1 (2: device-linked), the
# address of the fat binary, and another address.
_WRAPPERS = (bytes.fromhex("b143624601000000"), bytes.fromhex("b143624602000000"))
_SECTIONS = (".nv_fatbin", ".nv_fatb")
_RELOCATABLE = "__nv_relfatbin"  # of nvcc -rdc=true; not registered at run time
_CUDA = 190  # EM_CUDA
# Above the size of any real wheel: a false size in a header must not fill the disk.
UNPACKED = 2 << 30


@dataclass(frozen=True)
class Entry:
    """A piece of code in a fat binary. ``size`` in bytes, uncompressed."""

    kind: int
    arch: int
    size: int
    at: int  # offset of its header in the fat binary


class Unreadable(Exception):
    """GPU code that cannot be read completely."""


def places(data: bytes) -> list[tuple[int, int]]:
    """Start and end of every fat binary in a file. Raises Unreadable if one ends after the file."""
    found, at = [], data.find(MAGIC)
    while at >= 0:
        size = _HEADER + int.from_bytes(data[at + 8 : at + _HEADER], "little")
        if at + size > len(data):
            raise Unreadable(f"a fat binary of {size} bytes reaches past the end of the file")
        found.append((at, at + size))
        at = data.find(MAGIC, at + size)
    return found


def entries(fatbin: bytes) -> list[Entry]:
    """Every piece of code in a fat binary. Raises Unreadable if it contains anything else."""
    found, at = [], _HEADER
    while at < len(fatbin):
        if at + _ENTRY.size > len(fatbin):
            raise Unreadable(f"{len(fatbin) - at} bytes at the end of a fat binary are not code")
        kind, _, header, size, packed, _, _, _, arch, _, _, _, _, plain = _ENTRY.unpack_from(
            fatbin, at
        )
        if header < _ENTRY.size or at + header + size > len(fatbin) or packed > size:
            raise Unreadable("a piece of code reaches past the end of its fat binary")
        if kind not in (PTX, ELF):
            raise Unreadable(f"a piece of code has the kind {kind}, neither PTX nor machine code")
        found.append(Entry(kind, arch, plain or size, at))
        at += header + size
    if sum(entry.size for entry in found) > UNPACKED:
        raise Unreadable(f"its code unpacks to more than {UNPACKED} bytes")
    return found


def nameless(fatbin: bytes, found: Sequence[Entry]) -> bytes:
    """A fat binary without the names of its pieces, which cuobjdump would use as file names."""
    copy = bytearray(fatbin)
    for entry in found:
        copy[entry.at + 32 : entry.at + 40] = bytes(8)
    return bytes(copy)


def hidden(data: bytes, found: Sequence[tuple[int, int]]) -> Iterator[str]:
    """What is, or may be, GPU code outside a file's fat binaries.

    Also fat binaries that no host code registers, and registered addresses without one.
    """
    image = _image(data)
    rest = bytearray(data)
    for start, end in found:
        rest[start:end] = bytes(end - start)
    yield from _registered(rest, found, image)
    for name, start, end in image.sections:
        if name in _SECTIONS and rest[start:end].strip(b"\0"):
            yield f"bytes in {name} that are not a fat binary"
    yield from _planted(rest)


def _planted(rest: bytearray) -> Iterator[str]:
    for at in _each(rest, b"\x7fELF"):
        if 0 < at < len(rest) - 20 and rest[at + 4] in (1, 2) and rest[at + 5 : at + 7] == b"\1\1":
            machine = int.from_bytes(rest[at + 18 : at + 20], "little")
            what = "a cubin" if machine == _CUDA else "an ELF file"
            yield f"{what} at {at:#x}, outside of every fat binary"
    for at in _each(rest, MAGIC[:4]):
        yield f"a fat binary with an unknown header at {at:#x}"
    # An entry without a known header: its bytes for kind and version 1.1, then plausible sizes.
    for at in _each(rest, b"\0\1\1"):
        if at and rest[at - 1] in (PTX, ELF) and _plausible(rest, at - 1):
            yield f"a piece of device code at {at - 1:#x}, outside of every fat binary"
    for at in _each(rest, b".target"):
        if re.search(rb"\bsm_\d\d", rest[at : at + 256]):
            yield f"PTX at {at:#x}, outside of every fat binary"
    for at in _each(rest, b"BC\xc0\xde"):
        if bytes(rest[at + 4 : at + 8]) in (b"\x35\x14\0\0", b"\x21\x0c\0\0"):
            yield f"LLVM bitcode at {at:#x}"


def _plausible(rest: bytearray, at: int) -> bool:
    if at + _ENTRY.size > len(rest):
        return False
    _, _, header, size, packed, _, _, _, arch, *_ = _ENTRY.unpack_from(rest, at)
    inside = _ENTRY.size <= header <= 4096 and size > 0 and at + header + size <= len(rest)
    return bool(inside and packed <= size and 10 <= arch < 1000)


def _each(rest: bytearray, text: bytes) -> Iterator[int]:
    at = rest.find(text)
    while at >= 0:
        yield at
        at = rest.find(text, at + 1)


@dataclass(frozen=True)
class _Image:
    """The sections of a library, and the targets of its pointers after it is loaded."""

    sections: list[tuple[str, int, int]]  # name, start, end
    pointed: Callable[[int], int | None]  # offset of a pointer -> offset of its value


def _registered(rest: bytearray, found: Sequence[tuple[int, int]], image: _Image) -> Iterator[str]:
    starts = [start for start, _ in found]
    registered = set()
    for magic in _WRAPPERS:
        for at in _each(rest, magic):
            place = image.pointed(at + 8)
            registered.add(place)
            if place not in starts:
                where = "outside of the file" if place is None else f"at {place:#x}"
                yield f"what is registered as a fat binary {where} is not one"
    apart = [(start, end) for name, start, end in image.sections if name == _RELOCATABLE]
    linked = [s for s in starts if any(start <= s < end for start, end in apart)]
    if lost := sorted(set(starts) - registered - set(linked)):
        yield f"{len(lost)} of {len(starts)} fat binaries are not registered, as at {lost[0]:#x}"


def _image(data: bytes) -> _Image:
    if data[:4] == b"\x7fELF":
        return _elf(data)
    if data[:2] == b"MZ":
        return _pe(data)
    return _Image([], lambda _: None)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _elf(data: bytes) -> _Image:
    loads = elf.segments(data)
    pointers: Mapping[int, int] = elf.pointers(data, loads)

    def pointed(at: int) -> int | None:
        address = elf.address_of(loads, at)
        # Without a relocation the value is in the file (packed relocations add the base to it).
        value = _word(data, at) if address is None else pointers.get(address, _word(data, at))
        return elf.offset_of(loads, value)

    return _Image([(s.name, s.offset, s.offset + s.size) for s in elf.sections(data)], pointed)


def _pe(data: bytes) -> _Image:
    at = int.from_bytes(data[60:64], "little")
    count, optional = (
        struct.unpack_from("<2xH12xH", data, at + 4) if at + 24 < len(data) else (0, 0)
    )
    base = _word(data, at + 24 + 24)
    rows: list[tuple[int, int, int, str]] = []  # address, offset, size, name
    for number in range(count):
        header = data[at + 24 + optional + 40 * number :][:40]
        if len(header) == 40:
            name, _, address, size, start = struct.unpack_from("<8sIIII", header)
            rows.append((address, start, size, name.rstrip(b"\0").decode("latin-1")))
    rows.sort()

    def pointed(place: int) -> int | None:
        value = _word(data, place) - base
        index = bisect.bisect(rows, (value, 1 << 40, 0, "")) - 1
        if index < 0 or value - rows[index][0] >= rows[index][2]:
            return None
        return rows[index][1] + value - rows[index][0]

    return _Image([(name, start, start + size) for _, start, size, name in rows], pointed)
