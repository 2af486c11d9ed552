"""Functions by which a library and those that it needs are joined: its exports, its needs."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import lief

from sessions.verify import wheel_rules

Binary = lief.ELF.Binary | lief.PE.Binary
_C_NAME = re.compile(r"[A-Za-z_]\w*")


def exports(binary: Binary) -> frozenset[str]:
    """The C functions that a library has for others."""
    if isinstance(binary, lief.ELF.Binary):
        names = [str(symbol.name) for symbol in binary.dynamic_symbols if symbol.exported]
    else:
        table = binary.get_export()
        names = [str(entry.name) for entry in table.entries] if table else []
    return frozenset(name for name in names if _C_NAME.fullmatch(name))


def functions(binary: Binary) -> dict[str, tuple[str, ...]]:
    """The functions that a library takes from others: file name of the other -> their names.

    Of an ELF file those whose symbol version names the library that they come from, as all of
    NVIDIA's runtime do. The names of PE files are in lower case.
    """
    found: dict[str, set[str]] = {}
    if isinstance(binary, lief.ELF.Binary):
        owner = {
            version.name: str(needed.name)
            for needed in binary.symbols_version_requirement
            for version in needed.get_auxiliary_symbols()
        }
        for symbol in binary.dynamic_symbols:
            version = symbol.symbol_version
            if symbol.imported and version is not None and version.has_auxiliary_version:
                auxiliary = version.symbol_version_auxiliary
                library = owner.get(auxiliary.name) if auxiliary else None
                if library:
                    found.setdefault(library, set()).add(str(symbol.name))
    else:
        for needed in [*binary.imports, *binary.delay_imports]:
            names = {str(entry.name) for entry in needed.entries if entry.name}
            found.setdefault(str(needed.name).lower(), set()).update(names)
    return {name: tuple(sorted(names)) for name, names in sorted(found.items())}


def needed(wheel: Path) -> tuple[str, dict[str, frozenset[str]]]:
    """The CUDA major of a wheel, and package of NVIDIA's runtime -> functions taken from it."""
    majors, found = set(), dict[str, set[str]]()
    for _, binary in _libraries(wheel):
        for library, names in functions(binary).items():
            for package, major in _runtime(library):
                found.setdefault(package, set()).update(names)
                majors.add(major)
    return max(majors, default=""), {name: frozenset(found[name]) for name in sorted(found)}


def exported(wheel: Path) -> frozenset[str]:
    """The C functions that the runtime libraries of one of NVIDIA's packages export."""
    found = [exports(binary) for file, binary in _libraries(wheel) if _runtime(file)]
    return frozenset[str]().union(*found)


def _runtime(file: str) -> list[tuple[str, str]]:
    """(package, CUDA major) of a library of NVIDIA's runtime, on either system; else nothing."""
    systems = [wheel_rules.platform_libraries(name) for name in ("linux", "windows")]
    return [pair for system in systems if (pair := system.runtime(file))]


def _libraries(wheel: Path) -> Iterator[tuple[str, Binary]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.search(r"\.so[.\d]*$|\.dll$", name):
                file = name.rsplit("/", 1)[-1]
                binary = lief.parse(archive.read(name))
                if isinstance(binary, Binary):
                    yield file.lower() if file.endswith(".dll") else file, binary
