"""The functions that a library exports, and those that it imports from each other library."""

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
    """The C functions that a library exports."""
    if isinstance(binary, lief.ELF.Binary):
        names = [str(symbol.name) for symbol in binary.dynamic_symbols if symbol.exported]
    else:
        table = binary.get_export()
        names = [str(entry.name) for entry in table.entries] if table else []
    return frozenset(name for name in names if _C_NAME.fullmatch(name))


def functions(binary: Binary) -> dict[str, tuple[str, ...]]:
    """The functions that a library imports: file name of the other library -> their names.

    An ELF symbol counts if its version names the library, as all symbols of NVIDIA's runtime do.
    File names of DLLs are in lower case.
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
    """The CUDA major version of a wheel, and NVIDIA package -> functions imported from it."""
    majors, found = set(), dict[str, set[str]]()
    for _, binary in _libraries(wheel):
        for library, names in functions(binary).items():
            for package, major in _runtime(library):
                found.setdefault(package, set()).update(names)
                majors.add(major)
    return max(majors, default=""), {name: frozenset(found[name]) for name in sorted(found)}


def exported(wheel: Path) -> frozenset[str]:
    """The C functions that the libraries in a wheel of NVIDIA export."""
    found = [exports(binary) for file, binary in _libraries(wheel) if _runtime(file)]
    return frozenset[str]().union(*found)


def _runtime(file: str) -> list[tuple[str, str]]:
    """[(package, CUDA major)] for a library of NVIDIA's runtime on any system, else []."""
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
