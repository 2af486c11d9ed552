"""Reads the facts of one ELF or PE library. It runs in a process with limits (``limited``)."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import lief
from packaging.version import Version

from sessions.verify import (
    cpu_code,
    elf,
    file_kinds,
    gpu_code,
    pe,
    source_paths,
    symbols,
    wheel_facts,
    wheel_rules,
)
from sessions.verify.wheel_facts import Library

_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_(\d{1,9}(?:\.\d{1,9})+)|(GLIBC_.*)")
FAULTS = 100  # faults of one library that are kept
Part = tuple[int, int]  # start and end of a part of a file
Code = tuple[int, int, int]  # machine code: its address, its start and end in the file


def read(file: Path | str, member: str, folder: Path | str) -> Library:
    """The facts of a file that is or should be a library. GPU code is unpacked into ``folder``."""
    lief.logging.disable()
    data = Path(file).read_bytes()
    found = dataclasses.replace(
        wheel_facts.unread(member, hashlib.sha256(data).hexdigest(), len(data), None),
        build_paths=source_paths.find(data),
    )
    if kind := file_kinds.code(member, data[:512], 0o111):
        return dataclasses.replace(found, error=f"{kind}, not a library")
    device = gpu_code.read(data, Path(folder))
    found = dataclasses.replace(found, device=device)
    binary = lief.parse(data)  # LIEF on Windows opens no path with letters beyond ASCII
    if isinstance(binary, lief.ELF.Binary):
        found, code = _elf(binary, data, found)
    elif isinstance(binary, lief.PE.Binary):
        found, code = _pe(binary, data, found)
    else:
        error = "neither an ELF nor a PE file"
        if data[:4] == b"\x7fELF":
            error = f"not an ELF file: {next(elf.faults(data), 'its headers cannot be read')}"
        return dataclasses.replace(found, error=error)
    pieces = ((address, data[start:end]) for address, start, end in code)
    instructions, features, first = cpu_code.scan(pieces if found.machine == "x86_64" else ())
    return dataclasses.replace(
        found,
        exports=_sorted(name for name in symbols.exports(binary) if not name.startswith("_")),
        instructions=instructions,
        cpu_features=features,
        first_use=first,
        guarded=wheel_rules.guarded(data, features, instructions),
        error=found.error or (device.error if device else None),
        runtime=_runtime(binary),
    )


def _elf(binary: lief.ELF.Binary, data: bytes, found: Library) -> tuple[Library, list[Code]]:
    stack = binary.get(lief.ELF.Segment.TYPE.GNU_STACK)
    code = _union(
        (s.offset, s.offset + s.size) for s in elf.sections(data) if s.executed and s.size
    )
    needs = [
        str(version.name)
        for library in binary.symbols_version_requirement
        for version in library.get_auxiliary_symbols()
    ]
    dynamic = elf.dynamic(data)
    loads = elf.segments(data)
    library = dataclasses.replace(
        found,
        format="elf",
        machine=_machine(binary.header.machine_type),
        imports=_sorted(binary.libraries),
        soname=dynamic.soname,
        search_paths=_sorted((*dynamic.rpath, *dynamic.runpath)),
        inherited_paths=_sorted(dynamic.rpath if not dynamic.runpath else ()),
        symbol_versions=newest(needs),
        # Without this segment the system makes the stack executable.
        executable_stack=stack is None or bool(stack.flags & lief.ELF.Segment.FLAGS.X),
        faults=tuple(itertools.islice(elf.faults(data), FAULTS)),
        error=_cut_short(data, _parts(binary)) or _hidden(binary, loads, code),
    )
    parts = [*code, *_unmarked(data, loads, code)]
    return library, [(elf.address_of(loads, start) or 0, start, end) for start, end in parts]


def _parts(binary: lief.ELF.Binary) -> Iterator[tuple[int, int]]:
    """Offset and size of everything that an ELF file's headers name."""
    header = binary.header
    yield header.section_header_offset, header.numberof_sections * header.section_header_size
    yield from ((s.file_offset, s.physical_size) for s in binary.segments)
    nowhere = lief.ELF.Section.TYPE.NOBITS
    yield from ((s.file_offset, s.size) for s in binary.sections if s.type != nowhere)


def _union(parts: Iterable[Part]) -> list[Part]:
    """The same bytes in order, each in only one part, so that it is decoded once."""
    found: list[Part] = []
    at = 0
    for start, end in sorted(parts):
        if end > max(start, at):
            found.append((max(start, at), end))
            at = end
    return found


def _unmarked(data: bytes, loads: Sequence[elf.Segment], code: Sequence[Part]) -> Iterator[Part]:
    """What the system would execute outside every section that is marked as code.

    Not in a segment with the file's headers: older linkers put read-only data there too
    (binutils 2.31 made -z separate-code the default).
    """
    executed = _union((s.offset, s.offset + s.filesz) for s in loads if s.executed and s.offset)
    for start, end in executed:
        at = start
        for first, last in [*code, (end, end)]:
            if min(first, end) > at and data[at : min(first, end)].strip(b"\0\xcc"):
                yield at, min(first, end)  # else it is padding
            at = max(at, last)


def _hidden(
    binary: lief.ELF.Binary, loads: Sequence[elf.Segment], code: Sequence[Part]
) -> str | None:
    """Why not all machine code is known; None if it is."""
    if not loads:
        return None  # a 32-bit file, or one whose other faults say so
    if not code and any(s.executed and s.filesz for s in loads):
        return "machine code, but no section that is marked as such"
    functions = [s for s in binary.dynamic_symbols if s.is_function and s.shndx and s.value]
    stray = [s for s in functions if not _within(code, elf.offset_of(loads, s.value))]
    return (
        f"{len(stray)} functions outside of its code, such as {stray[0].name!s}" if stray else None
    )


def _within(parts: Sequence[Part], offset: int | None) -> bool:
    if offset is None:
        return False
    index = bisect.bisect(parts, (offset, 1 << 64)) - 1
    return index >= 0 and offset < parts[index][1]


def _machine(value: object) -> str:
    """LIEF's name of a machine, or its number if LIEF has no name for it."""
    return str(getattr(value, "name", f"machine {value}")).lower()


def _pe(binary: lief.PE.Binary, data: bytes, found: Library) -> tuple[Library, list[Code]]:
    execute = lief.PE.Section.CHARACTERISTICS.MEM_EXECUTE
    places = {
        s.pointerto_raw_data: (
            binary.imagebase + s.virtual_address,
            s.pointerto_raw_data + min(s.sizeof_raw_data, s.virtual_size),
        )
        for s in binary.sections
        if s.has_characteristic(execute)
    }
    code = _union((start, end) for start, (_, end) in places.items())
    parts = ((s.pointerto_raw_data, s.sizeof_raw_data) for s in binary.sections)
    library = dataclasses.replace(
        found,
        format="pe",
        machine=_machine(binary.header.machine).replace("amd64", "x86_64"),
        imports=_sorted(pe.imports(binary)),
        faults=tuple(itertools.islice(pe.faults(binary, len(data)), FAULTS)),
        error=_cut_short(data, parts) or (None if code else "no section with machine code"),
    )
    return library, [(places[at][0] if at in places else 0, at, end) for at, end in code]


def _runtime(binary: symbols.Binary) -> dict[str, tuple[str, ...]]:
    system = "linux" if isinstance(binary, lief.ELF.Binary) else "windows"
    known = wheel_rules.platform_libraries(system)
    return {n: names for n, names in symbols.functions(binary).items() if known.runtime(n)}


def _sorted(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(sorted({str(name) for name in names}))


def _cut_short(data: bytes, parts: Iterable[tuple[int, int]]) -> str | None:
    end = max((offset + size for offset, size in parts), default=0)
    return f"cut short: {len(data)} bytes of {end}" if end > len(data) else None


def newest(versions: Iterable[str]) -> dict[str, str]:
    """The newest of each kind of symbol version: GLIBC_2.34 -> {"GLIBC": "2.34"}.

    Each glibc version without a number is kept: GLIBC_PRIVATE -> {"GLIBC_PRIVATE": "0"}.
    """
    found: dict[str, str] = {}
    for version in versions:
        match = _VERSION.fullmatch(version)
        if match is None:
            continue
        kind, number = match[1] or match[3], match[2] or "0"
        found[kind] = max(found.get(kind, "0"), number, key=Version)
    return dict(sorted(found.items()))
