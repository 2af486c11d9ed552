"""Reads from the machine what identifies a compiler or toolkit: versions and digests of files.

The release is not enough: an update of a distribution may keep it and change the programs, or
the libraries that are copied into the wheel.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePosixPath, PureWindowsPath

from sessions.probe import ms_runtime
from sessions.probe.record_types import Compiler, InstalledToolkit, Toolchain
from sessions.shared import knowledge
from sessions.shared.machine import Machine

_SHOWN = 16  # hexadecimal digits of a SHA-256


def of(ask: Machine, chain: Toolchain) -> Toolchain:
    """The toolchain with the identities of its chosen compiler and toolkit."""
    return dataclasses.replace(
        chain,
        compiler=compiler(ask, chain.compiler) if chain.compiler else None,
        toolkit=toolkit(ask, chain.toolkit) if chain.toolkit else None,
    )


def compiler(ask: Machine, found: Compiler) -> Compiler:
    """The compiler with its ``identity`` and ``linked``."""
    if found.family == "msvc":
        # cl.exe has another version in each build; the version of the SDK is in its variables.
        return dataclasses.replace(found, linked=_redistributed(ask, found))
    row = knowledge.load("compiler_identity.toml")[found.family]
    home = PurePosixPath(found.cxx).parent
    driver = PurePosixPath(ask("real", found.cxx))
    identity = {"release": _first_line(ask, found.cxx)}
    for path in dict.fromkeys((found.cc, found.cxx)):
        identity[PurePosixPath(path).name] = _digest(ask, path)
    for name in row["objects"]:
        identity[name] = _digest(ask, _program(ask, found.cc, name, home))
    for pattern in row["libraries"]:
        for path in ask("glob", str(driver.parent.parent / pattern)):
            identity[PurePosixPath(path).name] = _digest(ask, path)
    linker = _program(ask, found.cc, "ld", home)
    linked = {
        "linker": f"{_first_line(ask, linker)} {_digest(ask, linker)}",
        "C library": _first_line(ask, "/usr/bin/ldd"),
    }
    if "as" in row["objects"]:
        assembler = _program(ask, found.cc, "as", home)
        identity["as"] = f"{_first_line(ask, assembler)} {identity['as']}"
    for name in row["linked"]:
        # A compiler that has no such file prints the bare name.
        linked[name] = _digest(ask, _output(ask, found.cc, f"-print-file-name={name}"))
    return dataclasses.replace(found, identity=identity, linked=linked)


def toolkit(ask: Machine, found: InstalledToolkit) -> InstalledToolkit:
    """The installed toolkit with a digest of the names, sizes and times of its files."""
    return dataclasses.replace(found, files=ask("toolkit", found.root)[:_SHOWN])


def _redistributed(ask: Machine, found: Compiler) -> dict[str, str]:
    """The digests of Microsoft's runtime, which delvewheel copies into the wheel."""
    root = PureWindowsPath(found.variables.get("VCTOOLSREDISTDIR", ""))
    paths = ask("glob", str(root / "x64" / "Microsoft.VC*" / "*.dll")) if root.name else []
    named = {
        PureWindowsPath(path).name.lower(): path
        for path in paths
        if PureWindowsPath(path).parent.suffix in (".CRT", ".OpenMP")
    }
    return {name: _digest(ask, named.get(name, "")) for name in ms_runtime.files()}


def _program(ask: Machine, cc: str, name: str, home: PurePosixPath) -> str:
    """The path of a program that the compiler runs in a build, whose PATH is known."""
    path = _output(ask, cc, f"-print-prog-name={name}")
    if "/" in path:
        return path
    candidates = [str(folder / name) for folder in (home, PurePosixPath("/usr/bin"))]
    return next((path for path in candidates if ask("sha256", path)), name)


def _digest(ask: Machine, path: str) -> str:
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()
    digest: str | None = ask("sha256", path) if absolute else None
    return digest[:_SHOWN] if digest else "none"


def _first_line(ask: Machine, program: str) -> str:
    return _output(ask, program, "--version").partition("\n")[0].strip() or "does not say"


def _output(ask: Machine, *words: str) -> str:
    answer = ask("run", *words)
    return str(answer["output"]).strip() if answer["returncode"] == 0 else ""
