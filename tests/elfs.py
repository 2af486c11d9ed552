"""Builds small ELF libraries and fat binaries, and plants faults in them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

LOAD, DYNAMIC, INTERP, STACK = 1, 2, 3, 0x6474E551
NEEDED, SONAME, RPATH, RUNPATH, FLAGS, FLAGS_1 = 1, 14, 15, 29, 30, 0x6FFFFFFB
AUXILIARY, FILTER, AUDIT, DEPAUDIT, CONFIG = (
    0x7FFFFFFD, 0x7FFFFFFF, 0x6FFFFEFC, 0x6FFFFEFB, 0x6FFFFEFA,
)  # fmt: skip
TEXTREL = 22
CODE = bytes.fromhex("b80700000090c3")  # mov eax, 7; nop; ret


def library(
    *entries: tuple[int, str | int],
    code: bytes = CODE,
    sections: Sequence[tuple[int, int]] | None = None,
    data: bytes = b"",
    interpreter: bool = False,
) -> bytes:
    """A library that glibc loads, with one function ``f``.

    ``entries`` are further entries of its dynamic section, by tag; a text is added to its strings.
    ``sections`` are start and size in the file of the sections that are marked as code; by default
    one with all the code. ``data`` is part of the writable segment.
    """
    strings = bytearray(b"\0f\0")
    rows = []
    for tag, value in entries:
        if isinstance(value, str):
            rows.append((tag, len(strings)))
            strings += value.encode() + b"\0"
        else:
            rows.append((tag, value))
    count = 6 if interpreter else 5
    at = 64 + 56 * count
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0x1000, len(code))
    table = struct.pack("<5I", 1, 2, 1, 0, 0)  # DT_HASH: one bucket, two symbols
    head_size = at + len(symbols) + len(table) + len(strings)
    assert head_size <= 0x1000
    code_end = 0x1000 + len(code)
    writable = -(-code_end // 0x1000) * 0x1000
    rows += [(5, at + len(symbols) + len(table)), (10, len(strings)), (6, at), (11, 24),
             (4, at + len(symbols)), (0, 0)]  # fmt: skip
    dynamic = b"".join(struct.pack("<QQ", *row) for row in rows)
    total = len(dynamic) + len(data)
    segments = [
        (LOAD, 4, 0, 0, head_size, 0x1000),
        (LOAD, 5, 0x1000, 0x1000, len(code), 0x1000),
        (LOAD, 6, writable, writable, total, 0x1000),
        (DYNAMIC, 6, writable, writable, len(dynamic), 8),
        (STACK, 6, 0, 0, 0, 16),
    ]
    if interpreter:
        segments.append((INTERP, 4, 0, 0, 4, 1))
    names = b"\0.text\0.shstrtab\0"
    marked = [(0x1000, len(code))] if sections is None else sections
    headers = bytes(64)
    for start, size in marked:
        headers += struct.pack("<IIQQQQIIQQ", 1, 1, 6, start, start, size, 0, 0, 1, 0)
    end = writable + total
    headers += struct.pack("<IIQQQQIIQQ", 7, 3, 0, 0, end, len(names), 0, 0, 1, 0)
    end += len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, end, 0, 64, 56, count, 64,
        len(marked) + 2, len(marked) + 1,
    )  # fmt: skip
    body = header + b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, align)
        for kind, flags, offset, address, size, align in segments
    )
    body += symbols + table + strings
    body = body.ljust(0x1000, b"\0") + code
    return body.ljust(writable, b"\0") + dynamic + data + names + headers


def dynamic_size(data: bytes) -> int:
    """The size of a library's dynamic section in bytes."""
    (found,) = _headers(data, DYNAMIC)
    size: int = struct.unpack_from("<Q", data, found + 32)[0]
    return size


def with_sections(machine: int, *sections: tuple[bytes, int, bytes]) -> bytes:
    """An ELF file that has only sections: name, type and content of each."""
    names = b"\0" + b"".join(name + b"\0" for name, _, _ in sections) + b".shstrtab\0"
    body, headers = b"", bytes(64)
    for name, kind, content in [*sections, (b".shstrtab", 3, names)]:
        place = 64 + len(body), len(content)
        at = names.index(b"\0" + name + b"\0") + 1
        headers += struct.pack("<IIQQQQIIQQ", at, kind, 0, 0, *place, 0, 0, 1, 0)
        body += content
    count = len(sections) + 2
    start = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64,
        count, count - 1,
    )  # fmt: skip
    return start + body + headers


# ---- Fat binaries -------------------------------------------------------------------------------


def gpu_code(payload: bytes = b"code", kind: int = 2, arch: int = 120, **more: int) -> bytes:
    """A piece of code in a fat binary (kind 1: PTX, 2: cubin): its header, then the code."""
    fields = {"header": 64, "size": len(payload), "packed": 0, "name": 0, "plain": 0} | more
    head = (
        kind, 0x0101, fields["header"], fields["size"], fields["packed"], 64, 8, 1, arch,
        fields["name"], fields["name"], 0x11, 0, fields["plain"],
    )  # fmt: skip
    return struct.pack("<HHIQIIHHIIIQQQ", *head) + payload


def fat_binary(*pieces: bytes, size: int | None = None) -> bytes:
    """A fat binary with these pieces; ``size`` is what its header says, if it is wrong."""
    content = b"".join(pieces)
    start = bytes.fromhex("50ed55ba01001000")
    return start + struct.pack("<Q", len(content) if size is None else size) + content


# ---- Faults of a library ------------------------------------------------------------------------

Change = Callable[[bytearray], None]


def at(place: int, layout: str, value: int) -> Change:
    """Write a number at an offset of the file."""

    def change(data: bytearray) -> None:
        struct.pack_into(layout, data, place, value)

    return change


def segment(kind: int, field: int, value: int, *, number: int = 0) -> Change:
    """Write a field (0 type, 8 offset, 16 address, 32 size in the file, 40 in memory, 48 alignment)
    of the ``number``-th program header of this type."""

    def change(data: bytearray) -> None:
        place = _headers(data, kind)[number] + field
        struct.pack_into("<I" if field < 8 else "<Q", data, place, value)

    return change


def _headers(data: bytes | bytearray, kind: int) -> list[int]:
    """Where in the file the program headers of this type are."""
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    places = range(start, start + 56 * count, 56)
    return [at for at in places if struct.unpack_from("<I", data, at)[0] == kind]


def without_loads(data: bytearray) -> None:
    for at in _headers(data, LOAD):
        struct.pack_into("<I", data, at, 0x6FFFFFFF)


def _dynamic(tag: int, offset: int, value: int) -> Change:
    """Write the tag (offset 0) or the value (offset 8) of an entry of the dynamic section."""

    def change(data: bytearray) -> None:
        (header,) = _headers(data, DYNAMIC)
        start, size = struct.unpack_from("<Q16xQ", data, header + 8)
        rows = range(start, start + size, 16)
        (found,) = [at for at in rows if struct.unpack_from("<Q", data, at)[0] == tag]
        struct.pack_into("<Q", data, found + offset, value)

    return change


def dynamic_tag(old: int, new: int) -> Change:
    return _dynamic(old, 0, new)


def dynamic_value(tag: int, value: int) -> Change:
    return _dynamic(tag, 8, value)


def cut(keep: int) -> Change:
    def change(data: bytearray) -> None:
        del data[keep:]

    return change


# glibc refuses each of these, or ends the process.
REFUSED: dict[str, Change] = {
    "magic": at(1, "<B", ord("e")),
    "class of 32 bits": at(4, "<B", 1),
    "class unknown": at(4, "<B", 7),
    "big-endian": at(5, "<B", 2),
    "version of the file": at(6, "<B", 2),
    "version of the header": at(20, "<I", 2),
    "system": at(7, "<B", 9),
    "ABI version": at(8, "<B", 5),
    "padding": at(12, "<B", 1),
    "type: object": at(16, "<H", 1),
    "type: core": at(16, "<H", 4),
    "machine": at(18, "<H", 183),
    "size of program headers": at(54, "<H", 32),
    "no program headers": at(56, "<H", 0),
    "program headers past the end": at(32, "<Q", 1 << 40),
    "no segment to load": without_loads,
    "address and offset apart": segment(LOAD, 16, 0x1008, number=1),
    "no dynamic segment": segment(DYNAMIC, 0, 0x6FFFFFFF),
    "dynamic segment outside": segment(DYNAMIC, 16, 0x7000000),
    "no strings": dynamic_tag(5, 0x6FFFFFFF),
    "no symbols": dynamic_tag(6, 0x6FFFFFFF),
    "strings outside": dynamic_value(5, 0x70000000),
    "symbols outside": dynamic_value(6, 0x70000000),
    "a header's half": cut(40),
    "headers only": cut(64),
    "half of it": cut(0x1004),
}
# Some releases of glibc load these; others do not, or reading the memory ends the process.
ODD: dict[str, Change] = {
    "segment past the end": segment(LOAD, 32, 1 << 20, number=1),
    "more in the file than in memory": segment(LOAD, 40, 1, number=1),
    "segments overlap": segment(LOAD, 40, 0x9000, number=1),
    "segments out of order": segment(LOAD, 16, 0x900000, number=0),
    "segment beyond memory": segment(LOAD, 40, 1 << 60, number=1),
    "alignment of no page": segment(LOAD, 48, 0x100, number=1),
    "alignment no power of two": segment(LOAD, 48, 0x3000, number=1),
    "size of symbols": dynamic_value(11, 16),
    "size of the header": at(52, "<H", 32),
}
