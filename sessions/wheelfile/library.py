"""The facts of one library, as a program of its own: what it reads may crash or hang a reader.

``python -m sessions.wheelfile.library FILE MEMBER FOLDER`` prints a Library as JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lief
from packaging.version import Version

from sessions.core import records
from sessions.wheelfile import devicecode, hostcode
from sessions.wheelfile.model import DeviceCode, Library

# A source or debug file by an absolute path that is not one every machine has. Names are UTF-8,
# and may have a space inside; a path begins where no name of another goes on.
_SIGN = rb"(?:[\w.+@~()-]|[\xc2-\xf4][\x80-\xbf]{1,3})"
_NAME = rb"%b+(?: +%b+)*" % (_SIGN, _SIGN)
_SOURCE = re.compile(
    rb"(?<![\w.+@~)/\\\x80-\xff-])"
    rb"(?:/(?!usr/(?:include|lib)/)%b(?:/%b)+|[A-Za-z]:[\\/](?!Program Files)%b(?:[\\/]%b)+)"
    rb"\.(?:c|cc|cpp|cxx|cu|cuh|h|hpp|inl|pdb|o|obj)(?!\w)" % ((_NAME,) * 4)
)
_C_NAME = re.compile(r"[A-Za-z]\w*")
_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_(\d+(?:\.\d+)+)|(GLIBC_.*)")


def read(path: Path, member: str, folder: Path) -> Library:
    """The facts of a file that is or should be a library; ``folder`` takes what is unpacked."""
    lief.logging.disable()
    data = path.read_bytes()
    device = devicecode.read(data, folder)
    binary = lief.parse(data)  # on Windows LIEF opens no path with letters beyond ASCII
    if isinstance(binary, lief.ELF.Binary):
        return _elf(binary, data, member, device)
    if isinstance(binary, lief.PE.Binary):
        return _pe(binary, data, member, device)
    return _library(data, member, device, format="", error="neither an ELF nor a PE file")


def _elf(binary: lief.ELF.Binary, data: bytes, member: str, device: DeviceCode | None) -> Library:
    tags = lief.ELF.DynamicEntry.TAG
    paths = [e for e in binary.dynamic_entries if e.tag in (tags.RPATH, tags.RUNPATH)]
    stack = binary.get(lief.ELF.Segment.TYPE.GNU_STACK)
    code = [s for s in binary.sections if s.has(lief.ELF.Section.FLAGS.EXECINSTR) and s.size]
    needs = [
        str(version.name)
        for library in binary.symbols_version_requirement
        for version in library.get_auxiliary_symbols()
    ]
    return _library(
        data,
        member,
        device,
        format="elf",
        machine=_machine(binary.header.machine_type),
        imports=_sorted(binary.libraries),
        search_paths=_sorted(p for e in paths for p in _search_path(e).split(":")),
        exports=_sorted(
            s.name for s in binary.dynamic_symbols if s.exported and _C_NAME.fullmatch(str(s.name))
        ),
        symbol_versions=newest(needs),
        # Without that segment the system takes the stack to be executable.
        executable_stack=stack is None or bool(stack.flags & lief.ELF.Segment.FLAGS.X),
        code=[*((s.virtual_address, bytes(s.content)) for s in code), *_unmarked(binary, code)],
        error=_cut_short(data, _parts(binary)) or _hidden(binary, code),
    )


def _parts(binary: lief.ELF.Binary) -> Iterator[tuple[int, int]]:
    """Offset and size of all that an ELF file says it holds: segments, sections, their table."""
    header = binary.header
    yield header.section_header_offset, header.numberof_sections * header.section_header_size
    yield from ((s.file_offset, s.physical_size) for s in binary.segments)
    nowhere = lief.ELF.Section.TYPE.NOBITS
    yield from ((s.file_offset, s.size) for s in binary.sections if s.type != nowhere)


def _executed(binary: lief.ELF.Binary) -> list[lief.ELF.Segment]:
    load, flag = lief.ELF.Segment.TYPE.LOAD, lief.ELF.Segment.FLAGS.X
    return [s for s in binary.segments if s.type == load and s.has(flag) and s.physical_size]


def _unmarked(
    binary: lief.ELF.Binary, code: Sequence[lief.ELF.Section]
) -> Iterator[tuple[int, bytes]]:
    """What the system would execute outside of every section that is marked as code.

    Not of a segment with the file's headers: there, older linkers put read-only data too
    (binutils 2.31 made -z separate-code the default).
    """
    for segment in _executed(binary):
        if segment.file_offset == 0:
            continue
        content, base = bytes(segment.content), segment.virtual_address
        marked = sorted((s.virtual_address - base, s.size) for s in code)
        at = 0
        for start, size in [*marked, (len(content), 0)]:
            rest = content[at : max(start, 0)]
            if rest.strip(b"\0\xcc"):  # else it is padding
                yield base + at, rest
            at = max(at, start + size)


def _hidden(binary: lief.ELF.Binary, code: Sequence[lief.ELF.Section]) -> str | None:
    """Why not all of the machine code is known, where that is so."""
    if not code and _executed(binary):
        return "machine code, but no section that is marked as such"
    parts = [range(s.virtual_address, s.virtual_address + s.size) for s in code]
    functions = [s for s in binary.dynamic_symbols if s.is_function and s.shndx and s.value]
    stray = [s for s in functions if not any(s.value in part for part in parts)]
    return (
        f"{len(stray)} functions outside of its code, such as {stray[0].name!s}" if stray else None
    )


def _machine(value: object) -> str:
    """LIEF's name of a machine; its number where LIEF has none."""
    return str(getattr(value, "name", f"machine {value}")).lower()


def _search_path(entry: Any) -> str:
    return str(entry.runpath if entry.tag == lief.ELF.DynamicEntry.TAG.RUNPATH else entry.rpath)


def _pe(binary: lief.PE.Binary, data: bytes, member: str, device: DeviceCode | None) -> Library:
    execute = lief.PE.Section.CHARACTERISTICS.MEM_EXECUTE
    code = [s for s in binary.sections if s.has_characteristic(execute)]
    base = binary.imagebase
    exported = binary.get_export()
    return _library(
        data,
        member,
        device,
        format="pe",
        machine=_machine(binary.header.machine).replace("amd64", "x86_64"),
        imports=_sorted(str(i.name).lower() for i in [*binary.imports, *binary.delay_imports]),
        exports=_sorted(
            e.name for e in (exported.entries if exported else []) if _C_NAME.fullmatch(str(e.name))
        ),
        code=[(base + s.virtual_address, bytes(s.content)[: s.virtual_size]) for s in code],
        error=_cut_short(data, ((s.pointerto_raw_data, s.sizeof_raw_data) for s in binary.sections))
        or ("no section with machine code" if not code else None),
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
    search_paths: tuple[str, ...] = (),
    exports: tuple[str, ...] = (),
    symbol_versions: dict[str, str] | None = None,
    executable_stack: bool = False,
    code: Sequence[tuple[int, bytes]] = (),
) -> Library:
    instructions, features, first = hostcode.scan(code if machine == "x86_64" else ())
    found = {match[0].decode("utf-8", "replace") for match in _SOURCE.finditer(data)}
    return Library(
        member=member,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        format=format,
        machine=machine,
        imports=imports,
        search_paths=search_paths,
        exports=exports,
        symbol_versions=symbol_versions or {},
        executable_stack=executable_stack,
        build_paths=_sorted(found),
        instructions=instructions,
        cpu_features=features,
        first_use=first,
        device=device,
        error=error or (device.error if device else None),
    )


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


if __name__ == "__main__":
    file, name, scratch = sys.argv[1:]
    facts = read(Path(file), name, Path(scratch))
    print(json.dumps(records.to_json(facts)))
