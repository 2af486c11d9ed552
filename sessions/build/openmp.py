"""Makes the compiler's OpenMP runtime (libgomp) usable with glibc 2.28.

Its code needs nothing newer, but the distribution linked it with the newest version of each symbol:
pthread_create of 2.34 for example, which is the same function as 2.28's version 2.2.5. ``portable``
replaces these versions. Without OpenMP, ggml starts its threads again for each graph: on 16 cores,
a model of which half was on the GPU generated 2.9 times fewer tokens per second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sessions.shared.errors import Problem

FILE = "libgomp.so.1"
_LOADER = "ld-linux-x86-64.so.2"  # loaded in every process
# The prefix that newer headers give to strtol and the like. It only adds C23's "0b101".
_RENAMED = "__isoc23_"
Table = Mapping[str, Mapping[str, tuple[str, ...]]]


def homes(table: Table) -> dict[str, tuple[str, str]]:
    """Symbol -> the library and the version in glibc 2.28."""
    found: dict[str, tuple[str, str]] = {}
    for library, versions in table.items():
        for version, entries in versions.items():
            for entry in entries:
                found.setdefault(entry.partition(":")[0], (library, version))
    return found


def elf_hash(name: str) -> int:
    """The hash of a version's name (System V ABI, hash table section)."""
    value = 0
    for char in name.encode("ascii"):
        value = (value << 4) + char
        value = (value ^ ((value & 0xF0000000) >> 24)) & 0x0FFFFFFF
    return value


def portable(library: Path, table: Table) -> bytes:
    """The bytes of the runtime for glibc 2.28. Raises Problem if 2.28 lacks a symbol."""
    import lief  # takes a quarter of a second, so only where it is needed

    binary: Any = lief.ELF.parse(library.read_bytes())
    if binary is None:
        raise Problem(
            "The compiler's OpenMP runtime cannot be read.",
            id="openmp-unreadable",
            evidence=f"{library} is not an ELF library",
            remedy="choose another compiler with --compiler PATH, or link with this system's "
            "glibc: --glibc host",
        )
    home = homes(table)
    wanted: dict[str, str] = {}  # symbol -> version
    libraries: set[str] = set()
    symbols = [s for s in binary.dynamic_symbols if s.imported and _version(s) is not None]
    for symbol in symbols:
        if symbol.name.startswith(_RENAMED):
            symbol.name = symbol.name.removeprefix(_RENAMED)
    if missing := sorted({s.name for s in symbols} - home.keys()):
        raise Problem(
            "The compiler's OpenMP runtime needs functions that glibc 2.28 does not have.",
            id="openmp-newer-glibc",
            evidence=f"{library}: {', '.join(missing)}",
            remedy="choose another compiler with --compiler PATH, or link with this system's "
            "glibc: --glibc host",
        )
    for symbol in symbols:
        of, wanted[symbol.name] = home[symbol.name]
        libraries.add(of)
    present = [a for r in binary.symbols_version_requirement for a in r.get_auxiliary_symbols()]
    known = {version for _, version in home.values()}
    for version in present:
        if (
            version.name not in known
        ):  # replaced by the version that most of its symbols have in 2.28
            named = [wanted[s.name] for s in symbols if _version(s) == version.name]
            version.name = Counter(named).most_common(1)[0][0] if named else "GLIBC_2.2.5"
            version.hash = elf_hash(version.name)
    numbers = {version.name: version.other for version in present}
    for symbol in symbols:
        if _version(symbol) != wanted[symbol.name]:
            symbol.symbol_version.value = numbers[wanted[symbol.name]]
    for name in sorted(libraries - set(binary.libraries) - {_LOADER}):
        binary.add_library(name)
    builder: Any = lief.ELF.Builder(binary, lief.ELF.Builder.config_t())
    builder.build()
    return bytes(builder.get_build())


def _version(symbol: Any) -> str | None:
    version = symbol.symbol_version
    if version is None or not version.has_auxiliary_version:
        return None
    name: str = version.symbol_version_auxiliary.name
    return name
