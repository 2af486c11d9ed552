"""Finds the C++ compilers on this machine, and reads their versions."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from sessions.probe import visual_studio
from sessions.probe.record_types import Compiler
from sessions.shared.build_spec import BuildSpec
from sessions.shared.machine import Machine

_GNU = ("g++", *(f"g++-{n}" for n in range(16, 8, -1)))
_CLANG = ("clang++", *(f"clang++-{n}" for n in range(22, 9, -1)))


def find_compilers(ask: Machine, system: str, spec: BuildSpec) -> tuple[Compiler, ...]:
    """Every compiler, the preferred ones first; before them the one that the user named.

    On Linux they are gcc and clang, in the order of ``_GNU`` and ``_CLANG``; on Windows those of
    Visual Studio. If the user names one by another path than PATH has (g++-12 for g++), the path on
    PATH is used: nvcc is given that path, and a compiler cache compares it.
    """
    named = spec.compiler
    if system == "windows":
        return visual_studio.find(ask, named, prerelease=spec.prerelease)
    found: dict[str, Compiler] = {}
    on_path = ask("which", named) if named and "/" not in named else []
    candidates: list[tuple[str, str]] = []
    for name in (*_GNU, *_CLANG):
        candidates.extend((path, f"{name} on PATH") for path in ask("which", name))
    if named:
        path = (on_path or [named])[0]
        real, kind = ask("real", path), _kind(path)
        same = (p for p, _ in candidates if ask("real", p) == real and _kind(p) == kind)
        candidates.insert(0, (next(same, path), "--compiler"))
    for path, via in candidates:
        real = ask("real", path)
        compiler = ask_compiler(ask, path, via) if real not in found else None
        if compiler:
            found[real] = compiler
    return tuple(found.values())


def _kind(path: str) -> str:
    """The kind of a compiler (g++ for /usr/bin/g++-12): links of two kinds may lead to one file."""
    return PurePosixPath(path).name.rstrip("0123456789.-")


def ask_compiler(ask: Machine, path: str, via: str) -> Compiler | None:
    """The compiler at ``path``; None if it does not run, or no C compiler is beside it."""
    answer = ask("run", path, "--version")
    if answer["returncode"] != 0:
        return None
    parsed = parse_compiler(answer["output"])
    cxx = PurePosixPath(path)
    cc = cxx.with_name(re.sub(r"(?<![a-z])g\+\+", "gcc", cxx.name).replace("++", ""))
    if cxx.name in ("c++", "cxx"):
        cc = cxx.with_name("cc")
    if parsed is None or ask("run", str(cc), "--version")["returncode"] != 0:
        return None
    family, version = parsed
    return Compiler(family=family, version=version, cxx=path, cc=str(cc), found_via=via)


def parse_compiler(text: str) -> tuple[str, str] | None:
    """Family and version from the output of ``g++ --version`` or ``clang++ --version``."""
    clang = re.search(r"clang version (\d+(?:\.\d+)*)", text)
    if clang:
        return "clang", clang[1]
    first = text.partition("\n")[0]
    gnu = re.search(r"\)\s+(\d+(?:\.\d+)+)", first)
    return ("gnu", gnu[1]) if gnu and "Free Software Foundation" in text else None
