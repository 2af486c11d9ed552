"""Finds Visual Studio, its compilers, and the environment variables that they need.

Uses Microsoft's ``vswhere`` and ``vcvars64.bat``.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from sessions.probe.record_types import Compiler, Tool
from sessions.shared.machine import Machine

OLDEST = 16  # Visual Studio 2019: the oldest that any CUDA 13 accepts
# Also incomplete installations and previews: the probe shows why they are not used.
_VSWHERE_OPTIONS = ("-all", "-prerelease", "-products", "*", "-format", "json", "-utf8")
_CL = r"VC\Tools\MSVC\*\bin\Hostx64\x64\cl.exe"


def find(ask: Machine, named: str | None, *, prerelease: bool) -> tuple[Compiler, ...]:
    """Every x64 compiler of every Visual Studio, the newest first; before them the named one."""
    found: dict[str, Compiler] = {}
    if named:
        path = ask("real", named if re.search(r"[\\/]", named) else _first(ask, named))
        if compiler := _compiler(ask, path, "--compiler", unfit=""):
            found[path.lower()] = compiler
    others = []
    for studio in installed(ask):
        name = str(studio.get("displayName") or f"Visual Studio {studio['installationVersion']}")
        pattern = glob.escape(studio["installationPath"]) + "\\" + _CL
        for path in ask("glob", pattern):
            unfit = _unfit(studio, prerelease=prerelease)
            compiler = _compiler(ask, path, name, unfit) if path.lower() not in found else None
            if compiler:
                others.append((_numbers(studio["installationVersion"]), compiler))
    # If two installations have the same version, the newer installation comes first.
    others.sort(key=lambda pair: (_numbers(pair[1].version), pair[0]), reverse=True)
    return (*found.values(), *(compiler for _, compiler in others))


def installed(ask: Machine) -> list[dict[str, Any]]:
    """Every Visual Studio 2019 and later, of any edition, as ``vswhere`` describes it."""
    folder = ask("env", "PROGRAMFILES(X86)") or r"C:\Program Files (x86)"
    documented = rf"{folder}\Microsoft Visual Studio\Installer\vswhere.exe"
    for program in (documented, *ask("which", "vswhere")):
        answer = ask("run", program, *_VSWHERE_OPTIONS)
        if answer["returncode"] == 0:
            return parse_vswhere(answer["output"])
    return []


def parse_vswhere(text: str) -> list[dict[str, Any]]:
    """The installations in the output of ``vswhere -format json``; empty if it is not JSON."""
    try:
        rows = json.loads(text)
    except ValueError:
        return []
    return [
        row
        for row in rows
        if row.get("installationPath")
        and _numbers(str(row.get("installationVersion", "0"))) >= (OLDEST,)
    ]


def tools(ask: Machine) -> tuple[Tool, ...]:
    """Every Visual Studio, with or without C++ tools, as rows of the table that probe prints."""
    return tuple(
        Tool(
            name=str(studio.get("displayName") or "Visual Studio"),
            path=studio["installationPath"],
            version=studio["installationVersion"],
            found_via="vswhere" + (f", {reason}" if (reason := _unfit(studio, True)) else ""),
        )
        for studio in installed(ask)
    )


def _unfit(studio: Mapping[str, Any], prerelease: bool) -> str:
    """Why an installation is not used; empty if it may be used."""
    if not studio.get("isComplete", True):
        return "its installation is not complete"
    if studio.get("isPrerelease") and not prerelease:
        return "it is a preview, which --prerelease allows"
    return ""


def _compiler(ask: Machine, path: str, via: str, unfit: str) -> Compiler | None:
    """The compiler at ``path``; None if its banner is not that of cl.exe for x64."""
    answer = ask("run", path)  # the banner is on stderr, the usage on stdout
    version = parse_cl(answer.get("errors", "")) or parse_cl(answer["output"])
    cl = PureWindowsPath(path)
    if version is None or len(cl.parents) < 7:
        return None
    return Compiler(
        family="msvc",
        version=version,
        cxx=path,
        cc=path,
        found_via=via,
        vcvars=str(cl.parents[6] / "Auxiliary" / "Build" / "vcvars64.bat"),
        toolset=cl.parents[3].name,
        unfit=unfit,
    )


def parse_cl(text: str) -> str | None:
    """The version in the banner of cl.exe for x64, in any language: "19.44.35207"; else None."""
    banner = text.partition("\n")[0]
    match = re.search(r"\b(19\.\d+\.\d+)", banner)
    return match[1] if match and re.search(r"\bx64\b", banner) else None


def environment(ask: Machine, compiler: Compiler) -> tuple[dict[str, str], str]:
    """The variables that ``vcvars64.bat`` sets for a compiler, and ""; or {} and what is wrong."""
    answer = ask("vcvars", compiler.vcvars, compiler.toolset)
    variables: dict[str, str] = answer["variables"]
    problem = problem_of(variables, compiler)
    return ({}, f"{problem}\n{answer['output']}".rstrip()) if problem else (variables, "")


def problem_of(variables: Mapping[str, str], compiler: Compiler) -> str:
    """What is wrong with the variables, or ""; vcvars64.bat exits with 0 even without an SDK."""
    if variables.get("VSCMD_ARG_TGT_ARCH") != "x64":
        target = variables.get("VSCMD_ARG_TGT_ARCH") or "nothing"
        return f"vcvars64.bat set an environment for {target} instead of x64"
    if variables.get("VCTOOLSVERSION") != compiler.toolset:
        chosen = variables.get("VCTOOLSVERSION") or "no toolset"
        return f"vcvars64.bat chose {chosen} instead of {compiler.toolset}"
    if not variables.get("WINDOWSSDKVERSION", "").strip("\\"):
        return "vcvars64.bat found no Windows SDK"
    for name in ("INCLUDE", "LIB"):
        if "ucrt" not in variables.get(name, "").lower():
            return f"vcvars64.bat set no {name} with the C runtime in it"
    folders = [PureWindowsPath(f) for f in variables.get("PATH", "").split(";") if f]
    if PureWindowsPath(compiler.cxx).parent not in folders:
        return f"vcvars64.bat did not put {PureWindowsPath(compiler.cxx).parent} on PATH"
    return ""


def _first(ask: Machine, name: str) -> str:
    found: list[str] = ask("which", name.removesuffix(".exe"))
    return found[0] if found else name


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
