"""The facts of one library, read in a process of its own: see limited.py."""

from __future__ import annotations

import bisect
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
    wheel_rules,
)
from sessions.verify.model import DeviceCode, Library

_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_(\d{1,9}(?:\.\d{1,9})+)|(GLIBC_.*)")
FAULTS = 100  # of one library that are kept
Part = tuple[int, int]  # start and end of a part of a file


def read(file: Path | str, member: str, folder: Path | str) -> Library:
    """The facts of a file that is or should be a library; ``folder`` takes what is unpacked."""
    lief.logging.disable()
    data = Path(file).read_bytes()
    if kind := file_kinds.code(member, data[:512], 0o111):
        return _library(data, member, None, format="", error=f"{kind}, not a library")
    device = gpu_code.read(data, Path(folder))
    binary = lief.parse(data)  # on Windows LIEF opens no path with letters beyond ASCII
    if isinstance(binary, lief.ELF.Binary):
        return _elf(binary, data, member, device)
    if isinstance(binary, lief.PE.Binary):
        return _pe(binary, data, member, device)
    if data[:4] == b"\x7fELF":
        faults = next(elf.faults(data), "its headers cannot be read")
        return _library(data, member, device, format="", error=f"not an ELF file: {faults}")
    return _library(data, member, device, format="", error="neither an ELF nor a PE file")


def _elf(binary: lief.ELF.Binary, data: bytes, member: str, device: DeviceCode | None) -> Library:
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
    return _library(
        data,
        member,
        device,
        format="elf",
        machine=_machine(binary.header.machine_type),
        imports=_sorted(binary.libraries),
        soname=dynamic.soname,
        search_paths=_sorted((*dynamic.rpath, *dynamic.runpath)),
        inherited_paths=_sorted(dynamic.rpath if not dynamic.runpath else ()),
        exports=_exports(binary),
        symbol_versions=newest(needs),
        # Without that segment the system takes the stack to be executable.
        executable_stack=stack is None or bool(stack.flags & lief.ELF.Segment.FLAGS.X),
        code=[
            (elf.address_of(loads, start) or 0, start, end)
            for start, end in [*code, *_unmarked(data, loads, code)]
        ],
        faults=elf.faults(data),
        error=_cut_short(data, _parts(binary)) or _hidden(binary, loads, code),
        runtime=_runtime(binary),
    )


def _parts(binary: lief.ELF.Binary) -> Iterator[tuple[int, int]]:
    """Offset and size of all that an ELF file says it holds: segments, sections, their table."""
    header = binary.header
    yield header.section_header_offset, header.numberof_sections * header.section_header_size
    yield from ((s.file_offset, s.physical_size) for s in binary.segments)
    nowhere = lief.ELF.Section.TYPE.NOBITS
    yield from ((s.file_offset, s.size) for s in binary.sections if s.type != nowhere)


def _union(parts: Iterable[Part]) -> list[Part]:
    """The same parts in order, of which none has a byte of another: each is decoded once."""
    found: list[Part] = []
    at = 0
    for start, end in sorted(parts):
        if end > max(start, at):
            found.append((max(start, at), end))
            at = end
    return found


def _unmarked(data: bytes, loads: Sequence[elf.Segment], code: Sequence[Part]) -> Iterator[Part]:
    """What the system would execute outside of every section that is marked as code.

    Not of a segment with the file's headers: there, older linkers put read-only data too
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
    """Why not all of the machine code is known, where that is so."""
    if not loads:
        return None  # of 32 bits, or with other faults that say so
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
    """LIEF's name of a machine; its number where LIEF has none."""
    return str(getattr(value, "name", f"machine {value}")).lower()


def _pe(binary: lief.PE.Binary, data: bytes, member: str, device: DeviceCode | None) -> Library:
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
    return _library(
        data,
        member,
        device,
        format="pe",
        machine=_machine(binary.header.machine).replace("amd64", "x86_64"),
        imports=_sorted(pe.imports(binary)),
        exports=_exports(binary),
        code=[(places[start][0] if start in places else 0, start, end) for start, end in code],
        faults=pe.faults(binary, len(data)),
        error=_cut_short(data, ((s.pointerto_raw_data, s.sizeof_raw_data) for s in binary.sections))
        or ("no section with machine code" if not code else None),
        runtime=_runtime(binary),
    )


def _library(
    data: bytes,
    member: str,
    device: DeviceCode | None,
    *,
    format: str,
    error: str | None,
    machine: str = "",
    imports: tuple[str, ...] = (),
    soname: str = "",
    search_paths: tuple[str, ...] = (),
    inherited_paths: tuple[str, ...] = (),
    exports: tuple[str, ...] = (),
    symbol_versions: dict[str, str] | None = None,
    executable_stack: bool = False,
    code: Sequence[tuple[int, int, int]] = (),
    faults: Iterable[str] = (),
    runtime: dict[str, tuple[str, ...]] | None = None,
) -> Library:
    """``code`` is where there is machine code: its address, its start and end in the file."""
    pieces = ((address, data[start:end]) for address, start, end in code)
    instructions, features, first = cpu_code.scan(pieces if machine == "x86_64" else ())
    return Library(
        member=member,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        format=format,
        machine=machine,
        imports=imports,
        soname=soname,
        search_paths=search_paths,
        inherited_paths=inherited_paths,
        exports=exports,
        symbol_versions=symbol_versions or {},
        executable_stack=executable_stack,
        build_paths=source_paths.find(data),
        instructions=instructions,
        cpu_features=features,
        first_use=first,
        guarded=wheel_rules.guarded(data, features, instructions),
        device=device,
        faults=tuple(itertools.islice(faults, FAULTS)),
        error=error or (device.error if device else None),
        runtime=runtime or {},
    )


def _runtime(binary: symbols.Binary) -> dict[str, tuple[str, ...]]:
    known = wheel_rules.platform_libraries(
        "linux" if isinstance(binary, lief.ELF.Binary) else "windows"
    )
    return {n: names for n, names in symbols.functions(binary).items() if known.runtime(n)}


def _exports(binary: symbols.Binary) -> tuple[str, ...]:
    """The C functions that it has for others, less those of compilers and systems ("_init")."""
    return _sorted(name for name in symbols.exports(binary) if not name.startswith("_"))


def _sorted(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(sorted({str(name) for name in names}))


def _cut_short(data: bytes, parts: Iterable[tuple[int, int]]) -> str | None:
    end = max((offset + size for offset, size in parts), default=0)
    return f"cut short: {len(data)} bytes of {end}" if end > len(data) else None


def newest(versions: Iterable[str]) -> dict[str, str]:
    """The newest of each kind of symbol version: GLIBC_2.34 -> {"GLIBC": "2.34"}.

    Of glibc's without a number each counts: GLIBC_PRIVATE -> {"GLIBC_PRIVATE": "0"}.
    """
    found: dict[str, str] = {}
    for version in versions:
        match = _VERSION.fullmatch(version)
        if match is None:
            continue
        kind, number = match[1] or match[3], match[2] or "0"
        found[kind] = max(found.get(kind, "0"), number, key=Version)
    return dict(sorted(found.items()))
