"""Reads ELF files as the system's loader does: from the headers, not from the section table.

A fault is something that glibc's loader refuses (elf/dl-load.c: open_verify,
_dl_map_object_from_fd, _dl_map_segments; elf/get-dynamic-info.h), or by which it would load or
run something else. LIEF accepts files that the loader refuses.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAGE = 4096
_Row = tuple[Any, ...]
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PAIR = struct.Struct("<QQ")
_RELA = struct.Struct("<QQq")
_LOAD, _DYNAMIC, _INTERP, _TLS, _RELRO = 1, 2, 3, 7, 0x6474E552
_X, _W = 1, 2
_MACHINE = 62  # EM_X86_64
# Tags of the dynamic section (glibc's elf.h).
_NULL, _NEEDED, _PLTRELSZ, _STRTAB, _SYMTAB, _RELA_AT, _RELASZ, _RELAENT = 0, 1, 2, 5, 6, 7, 8, 9
_STRSZ, _SYMENT, _SONAME, _RPATH, _TEXTREL, _PLTREL = 10, 11, 14, 15, 22, 20
_JMPREL, _RUNPATH, _FLAGS, _FLAGS_1 = 23, 29, 30, 0x6FFFFFFB
_RELR, _RELRSZ = 36, 35
_HASH = {4, 0x6FFFFEF5}
_CODE = {12: "DT_INIT", 13: "DT_FINI"}
_ADDRESSES = {  # tags whose value is an address, and the tag with the size of the data there
    4: ("DT_HASH", None), _STRTAB: ("DT_STRTAB", _STRSZ), _SYMTAB: ("DT_SYMTAB", None),
    _RELA_AT: ("DT_RELA", _RELASZ), _JMPREL: ("DT_JMPREL", _PLTRELSZ),
    _RELR: ("DT_RELR", _RELRSZ), 12: ("DT_INIT", None), 13: ("DT_FINI", None),
    25: ("DT_INIT_ARRAY", 27), 26: ("DT_FINI_ARRAY", 28), 0x6FFFFEF5: ("DT_GNU_HASH", None),
    0x6FFFFFF0: ("DT_VERSYM", None), 0x6FFFFFFE: ("DT_VERNEED", None),
    0x6FFFFFFC: ("DT_VERDEF", None),
}  # fmt: skip
# Tags that load files besides those of DT_NEEDED, by a name in the string table.
_FOREIGN = {
    0x7FFFFFFD: "DT_AUXILIARY", 0x7FFFFFFF: "DT_FILTER", 0x6FFFFEFC: "DT_AUDIT",
    0x6FFFFEFB: "DT_DEPAUDIT", 0x6FFFFEFA: "DT_CONFIG",
}  # fmt: skip
# NOW, GLOBAL, GROUP, NODELETE, ORIGIN: what linkers set for -z now, nodelete and origin.
_HARMLESS_1 = 0x1 | 0x2 | 0x4 | 0x8 | 0x80
_FLAG_1 = {
    0x10: "DF_1_LOADFLTR", 0x20: "DF_1_INITFIRST", 0x40: "DF_1_NOOPEN: dlopen refuses it",
    0x100: "DF_1_DIRECT", 0x400: "DF_1_INTERPOSE", 0x800: "DF_1_NODEFLIB", 0x1000: "DF_1_NODUMP",
    0x2000: "DF_1_CONFALT", 0x4000: "DF_1_ENDFILTEE", 0x1000000: "DF_1_GLOBAUDIT",
    0x8000000: "DF_1_PIE: a program, which dlopen refuses",
}  # fmt: skip
# R_X86_64_* types that a shared library may have: not COPY (5), nor those that a linker resolves.
_RELATIVE, _IRELATIVE = 8, 37
_KINDS = {0, 1, 6, 7, 8, 16, 17, 18, 36, 37, 38}


@dataclass(frozen=True)
class Segment:
    """A program header. Offsets and sizes in bytes."""

    kind: int
    flags: int
    offset: int
    address: int
    filesz: int
    memsz: int
    align: int

    @property
    def executed(self) -> bool:
        """Whether the system loads and executes it."""
        return self.kind == _LOAD and bool(self.flags & _X)


@dataclass(frozen=True)
class Dynamic:
    """The names and search paths in the dynamic section, unchanged."""

    soname: str
    rpath: tuple[str, ...]  # entries of DT_RPATH
    runpath: tuple[str, ...]  # entries of DT_RUNPATH


@dataclass(frozen=True)
class Section:
    """A section header. Offsets and sizes in bytes."""

    name: str
    offset: int
    size: int
    executed: bool  # whether it is in the file and marked as code


def _table(data: bytes, entry: struct.Struct, at: int, size: int, count: int) -> list[_Row]:
    """Rows of a table of headers; none unless it is in the file, with rows of this size."""
    if size != entry.size or at + count * size > len(data):
        return []
    return list(entry.iter_unpack(data[at : at + count * size]))


def _header(data: bytes) -> _Row | None:
    """The fields of the file header; None for anything but a 64-bit little-endian ELF file."""
    if len(data) < _HEADER.size or data[:6] != b"\x7fELF\2\1":
        return None
    return _HEADER.unpack_from(data)


def segments(data: bytes) -> list[Segment]:
    """The program headers in the file. Empty for anything but a 64-bit ELF file."""
    header = _header(data)
    rows = _table(data, _SEGMENT, header[5], header[9], header[10]) if header else []
    return [
        Segment(kind, flags, offset, address, filesz, memsz, align)
        for kind, flags, offset, address, _, filesz, memsz, align in rows
    ]


def sections(data: bytes) -> list[Section]:
    """The section headers in the file. The loader does not read them."""
    header = _header(data)
    if header is None:
        return []
    rows, names = _table(data, _SECTION, header[6], header[11], header[12]), header[13]
    start, size = (rows[names][4], rows[names][5]) if names < len(rows) else (0, 0)
    return [
        Section(_text(data, start, size, name) or "", offset, length, bool(flags & 4) and kind != 8)
        for name, kind, flags, _, offset, length, *_ in rows  # SHF_EXECINSTR, SHT_NOBITS
    ]


def offset_of(loads: Sequence[Segment], address: int) -> int | None:
    """The offset in the file of an address; None if no segment has it in the file."""
    for load in loads:
        if load.kind == _LOAD and load.address <= address < load.address + load.filesz:
            return load.offset + address - load.address
    return None


def address_of(loads: Sequence[Segment], offset: int) -> int | None:
    """The address of an offset in the file; None if it is not loaded."""
    for load in loads:
        if load.kind == _LOAD and load.offset <= offset < load.offset + load.filesz:
            return load.address + offset - load.offset
    return None


def faults(data: bytes) -> Iterator[str]:
    """Why the loader would refuse a library, or what it would do besides loading it."""
    if len(data) < _HEADER.size:
        yield f"its {len(data)} bytes are less than an ELF header"
        return
    ident, kind, machine, version, _, at, _, _, ehsize, entry, count, *_ = _HEADER.unpack_from(data)
    if ident[:4] != b"\x7fELF":
        yield "its first bytes are not those of an ELF file"
    if ident[4] != 2:  # then its fields are elsewhere
        yield f"its class is {ident[4]}, not 64-bit"
        return
    for value, allowed, text in (
        (ident[5], (1,), "its byte order is {}, not little-endian"),
        (ident[6], (1,), "its ELF version is {}, not 1"),
        (version, (1,), "its ELF version is {}, not 1"),
        (ident[7], (0, 3), "its system is number {}, neither System V nor GNU"),
        (ident[8], (0,), "its ABI version is {}, not 0"),
        (any(ident[9:]), (False,), "the padding of its header is not zero"),
        (kind, (3,), "its type is {}, not a shared library"),
        (machine, (_MACHINE,), "its machine is number {}, not x86-64"),
        (ehsize, (_HEADER.size,), "its header says that it has {} bytes, not 64"),
        (entry, (_SEGMENT.size,), "its program headers have {} bytes each, not 56"),
    ):
        if value not in allowed:
            yield text.format(value)
    if entry == _SEGMENT.size and at + count * entry > len(data):
        yield "its program headers reach past the end of the file"
    found = segments(data)
    if found:
        yield from _segments(found, len(data))
        yield from _dynamic(data, found)
    elif entry == _SEGMENT.size:
        yield "no program header can be read"


def _segments(found: Sequence[Segment], size: int) -> Iterator[str]:
    loads = [s for s in found if s.kind == _LOAD]
    if not loads:
        yield "it has no segment to load"
    for load in loads:
        where = f"the segment at {load.address:#x}"
        if load.align & (load.align - 1) or load.align % PAGE:
            yield f"{where} is aligned to {load.align}, which is not a size of pages"
        elif load.align and (load.address - load.offset) % load.align:
            yield f"{where} is at an address and an offset that its alignment does not allow"
        if load.filesz > load.memsz:
            yield f"{where} has more bytes in the file than in memory"
        if load.address + load.memsz >= 1 << 47:
            yield f"{where} ends beyond the memory of a process"
        if load.flags & _X and load.flags & _W:
            yield f"{where} can be both written and executed"
    for before, after in itertools.pairwise(loads):
        if after.address < before.address:
            yield f"the segment at {after.address:#x} is not in the order of addresses"
        elif _down(after.address) < before.address + before.memsz and after.memsz:
            # Two segments may share a page of the file, but no page of memory.
            yield f"the segments at {before.address:#x} and {after.address:#x} overlap"
    for segment in found:
        if segment.offset + segment.filesz > size and segment.filesz:
            yield f"the segment of type {segment.kind:#x} reaches past the end of the file"
        if segment.kind == _INTERP:
            yield "it names a program interpreter, as programs do and libraries do not"
        if segment.kind == _TLS and segment.align & (segment.align - 1):
            yield f"its thread-local storage is aligned to {segment.align}"
        # The loader reads only the part of thread-local storage in the file; the rest is zero.
        used = segment.filesz if segment.kind == _TLS else segment.memsz
        if (
            used
            and segment.kind in (_DYNAMIC, _TLS, _RELRO)
            and not _inside(loads, segment.address, segment.filesz or 1)
        ):
            yield f"the segment of type {segment.kind:#x} is outside of what is loaded"


def _down(address: int) -> int:
    return address & -PAGE


def _dynamic(data: bytes, found: Sequence[Segment]) -> Iterator[str]:
    places = [s for s in found if s.kind == _DYNAMIC]
    if len(places) != 1:
        yield f"it has {len(places)} dynamic segments, not one"
        return
    if offset_of(found, places[0].address) != places[0].offset:
        yield "its dynamic segment is not where the loader looks for it"
        return
    entries = _entries(data, places[0])
    if entries is None:
        yield "its dynamic section has no end"
        return
    tags = dict(entries)  # if a tag occurs twice, the loader uses the last one
    for tag, name in ((_STRTAB, "DT_STRTAB"), (_SYMTAB, "DT_SYMTAB"), (_STRSZ, "DT_STRSZ")):
        if tag not in tags:
            yield f"its dynamic section has no {name}"
    for tag, name, size in ((_SYMENT, "DT_SYMENT", 24), (_RELAENT, "DT_RELAENT", 24),
                            (_PLTREL, "DT_PLTREL", 7), (37, "DT_RELRENT", 8)):  # fmt: skip
        if tags.get(tag, size) != size:
            yield f"its {name} is {tags[tag]}, not {size}"
    if _HASH.isdisjoint(tags):
        yield "its dynamic section has neither DT_HASH nor DT_GNU_HASH: no symbol is found"
    if 17 in tags:
        yield "it has relocations without addends (DT_REL), which x86-64 has not"
    for tag, (name, sized) in _ADDRESSES.items():
        size = tags.get(sized, 0) if sized else 1
        if tag in tags and size and not _inside(found, tags[tag], size):
            yield f"its {name} is outside of what is loaded"
    for tag, name in _CODE.items():
        if tag in tags and not _executed(found, tags[tag]):
            yield f"its {name} is not in code"
    flags = tags.get(_FLAGS, 0)
    if _TEXTREL in tags or flags & 4:
        yield "it has text relocations: its code is changed when it is loaded"
    more = tags.get(_FLAGS_1, 0)
    for bit, name in _FLAG_1.items():
        if more & bit:
            yield f"it has {name}"
    if rest := more & ~_HARMLESS_1 & ~sum(_FLAG_1):
        yield f"it has bits {rest:#x} of DT_FLAGS_1 that no library of ours has"
    strings = _strings(data, found, tags)
    for tag, value in entries:
        if tag in _FOREIGN:
            yield f"it loads another library by {_FOREIGN[tag]}: {strings(value)}"
        if tag in (_NEEDED, _SONAME, _RPATH, _RUNPATH) and strings(value) is None:
            yield "a name in its dynamic section is outside of its strings"
    if _RPATH in tags and _RUNPATH in tags:
        yield "it has both DT_RPATH and DT_RUNPATH, of which loaders differ in what they take"
    yield from _relocations(data, found, tags)


def _entries(data: bytes, place: Segment) -> list[tuple[int, int]] | None:
    """The dynamic section up to its DT_NULL; None without one."""
    entries: list[tuple[int, int]] = []
    for at in range(place.offset, min(place.offset + place.filesz, len(data)) - 15, 16):
        tag, value = _PAIR.unpack_from(data, at)
        if tag == _NULL:
            return entries
        entries.append((tag, value))
    return None


def _inside(found: Sequence[Segment], address: int, size: int) -> bool:
    return any(
        s.kind == _LOAD and s.address <= address and address + size <= s.address + s.memsz
        for s in found
    )


def _executed(found: Sequence[Segment], address: int) -> bool:
    return any(
        s.kind == _LOAD and s.flags & _X and s.address <= address < s.address + s.filesz
        for s in found
    )


def _strings(
    data: bytes, found: Sequence[Segment], tags: Mapping[int, int]
) -> Callable[[int], str | None]:
    """A function that reads a string of the dynamic section's string table."""
    start, size = offset_of(found, tags.get(_STRTAB, -1)), tags.get(_STRSZ, 0)
    return lambda at: None if start is None else _text(data, start, size, at)


def _text(data: bytes, start: int, size: int, at: int) -> str | None:
    """A string of a table, cut to 4096 bytes; None if it is not in the table."""
    limit = min(start + size, len(data))
    if at >= size or start + at >= limit:
        return None
    end = data.find(b"\0", start + at, limit)
    text = data[start + at : min(end, start + at + 4096)]
    return None if end < 0 else text.decode("utf-8", "backslashreplace")


def _relocations(data: bytes, found: Sequence[Segment], tags: Mapping[int, int]) -> Iterator[str]:
    """One line for each kind of fault in the relocations."""
    writable = sorted(
        (s.address, s.address + s.memsz) for s in found if s.kind == _LOAD and s.flags & _W
    )
    seen = set()
    for where, kind, _ in relocations(data, found, tags):
        if kind not in _KINDS:
            seen.add(f"it has a relocation of type {kind}, which the loader does not know")
        if kind and not any(start <= where and where + 8 <= end for start, end in writable):
            seen.add(f"a relocation writes at {where:#x}, where nothing can be written")
        if len(seen) > 8:
            break
    yield from sorted(seen)


def relocations(
    data: bytes, found: Sequence[Segment], tags: Mapping[int, int]
) -> Iterator[tuple[int, int, int]]:
    """Address, type and addend of every relocation in the file."""
    for at, size in ((_RELA_AT, _RELASZ), (_JMPREL, _PLTRELSZ)):
        start = offset_of(found, tags.get(at, -1))
        if start is None:
            continue
        end = min(start + tags.get(size, 0), len(data))
        for where, info, addend in _RELA.iter_unpack(
            data[start : start + (end - start) // 24 * 24]
        ):
            yield where, info & 0xFFFFFFFF, addend


def dynamic(data: bytes) -> Dynamic:
    """SONAME and search paths. If a tag occurs more than once, all its paths count."""
    found = segments(data)
    entries = _dynamic_entries(data, found)
    strings = _strings(data, found, dict(entries))

    def paths(tag: int) -> tuple[str, ...]:
        texts = [strings(value) for key, value in entries if key == tag]
        return tuple(part for text in texts for part in (text or "").split(":"))

    sonames = [strings(value) or "" for tag, value in entries if tag == _SONAME]
    return Dynamic(sonames[-1] if sonames else "", paths(_RPATH), paths(_RUNPATH))


def _dynamic_entries(data: bytes, found: Sequence[Segment]) -> list[tuple[int, int]]:
    """Tag and value of each entry of the dynamic section; empty if there is none."""
    place = next((s for s in found if s.kind == _DYNAMIC), None)
    return (_entries(data, place) or []) if place else []


def pointers(data: bytes, found: Sequence[Segment]) -> dict[int, int]:
    """The values relative to the library's base that the loader writes, by their address."""
    rows = relocations(data, found, dict(_dynamic_entries(data, found)))
    return {where: addend for where, kind, addend in rows if kind == _RELATIVE}
