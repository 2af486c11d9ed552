"""Windows machines for the replay tests, written from documentation.

The probe has not run on them: the answers are those in documents and issue trackers of Microsoft
and NVIDIA. ``BLACKWHEEL_REGOLD=1`` writes them to ``tests/data/machines``, marked ``COMPOSED``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from sessions.shared.machine import Machine

# Not a question, so a replay never reads it.
COMPOSED = {"COMPOSED": "written by tests/machines.py from documentation; run on no machine"}
KIT = r"C:\Program Files (x86)\Windows Kits\10"
SDK = "10.0.26100.0"
VSWHERE = r"C:\Program Files (x86)\Microsoft Visual Studio\Installer\vswhere.exe"
PYTHON = r"C:\Users\Ana\AppData\Local\Programs\Python\Python311\python.exe"
LAUNCHER = r"C:\Users\Ana\AppData\Local\Programs\Python\Launcher\py.exe"
ROOT, CACHE = r"C:\Users\Ana\blackwheel", r"C:\Users\Ana\AppData\Local\blackwheel\blackwheel\Cache"
TEMP = r"C:\Users\Ana\AppData\Local\Temp"
# The host compilers in crt/host_config.h: highest gcc, first clang that is too new, range of
# _MSC_VER. 12.8 is from its release notes, the others are from NVIDIA's headers.
HOST_CONFIG = {
    "12.8": (14, 20, 1910, 1950),
    "13.0": (15, 21, 1920, 1950),
    "13.1": (15, 22, 1920, 1950),
}
BUILDS = {"12.8": "12.8.93", "13.0": "13.0.88", "13.1": "13.1.115"}


@dataclass(frozen=True)
class Studio:
    """An installation of Visual Studio in the output of ``vswhere``, and its toolsets for x64."""

    name: str  # "Visual Studio Community 2022"
    folder: str
    version: str
    toolsets: tuple[str, ...]
    complete: bool = True
    preview: bool = False
    sdk: bool = True


COMMUNITY_2022 = Studio(
    "Visual Studio Community 2022",
    r"C:\Program Files\Microsoft Visual Studio\2022\Community",
    "17.14.36811.4",
    ("14.38.33130", "14.44.35207"),
)
BUILD_TOOLS_2022 = Studio(
    "Visual Studio Build Tools 2022",
    r"C:\Program Files (x86)\Microsoft Visual Studio\2022\BuildTools",
    "17.14.36811.4",
    ("14.44.35207",),
)
HALF_INSTALLED = replace(COMMUNITY_2022, toolsets=("14.44.35207",), complete=False)
COMMUNITY_2026 = Studio(
    "Visual Studio Community 2026",
    r"C:\Program Files\Microsoft Visual Studio\18\Community",
    "18.1.11312.151",
    ("14.50.35717",),
)


@dataclass(frozen=True)
class Windows:
    """A Windows 11 machine with Python 3.11 and these programs."""

    studios: tuple[Studio, ...] = ()
    toolkits: tuple[str, ...] = ()
    gpu: str = ""
    root: str = ROOT
    env: Mapping[str, str] = field(default_factory=dict)


MACHINES = {
    "windows11-vs2022": Windows((COMMUNITY_2022,)),
    "windows11-vs2026": Windows((COMMUNITY_2026,)),
    "windows11-vs2022-vs2026": Windows((COMMUNITY_2026, COMMUNITY_2022)),
    "windows11-build-tools": Windows((BUILD_TOOLS_2022,)),
    "windows11-none": Windows(),
    "windows11-half-installed": Windows((HALF_INSTALLED,)),
    "windows11-cuda12.8-13.0-13.1-rtx5090": Windows(
        (COMMUNITY_2026, COMMUNITY_2022), ("12.8", "13.0", "13.1"), "NVIDIA GeForce RTX 5090"
    ),
}


def machine(windows: Windows) -> Machine:
    """The answers of the machine to the probe."""

    def ask(question: str, *words: str) -> Any:
        match question:
            case "host":
                return _host(windows)
            case "env":
                return {**_environment(windows), **windows.env}.get(words[0])
            case "which":
                return {"py": [LAUNCHER], "python": [PYTHON]}.get(words[0], [])
            case "glob":
                return sorted(p for p in _files(windows) if _matches(p, words[0]))
            case "real":
                return words[0]
            case "grep":
                return _grep(windows, words[1])
            case "run":
                return _run(windows, words)
            case "vcvars":
                return _vcvars(windows, *words)
            case "nvml":
                return _nvml(windows.gpu)
        raise ValueError(question)

    return ask


def _host(windows: Windows) -> dict[str, Any]:
    return {
        "system": "windows",
        "release": "11",
        "machine": "AMD64",
        "cpu": "AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD",
        "cores": 24,
        "memory_mib": 64669,
        "memory_free_mib": 48211,
        "disk_free_mib": 412345,
        "root": windows.root,
        "cache": CACHE,
    }


def _environment(windows: Windows) -> dict[str, str]:
    each = {f"CUDA_PATH_V{v.replace('.', '_')}": _cuda(v) for v in windows.toolkits}
    last = {"CUDA_PATH": _cuda(windows.toolkits[-1])} if windows.toolkits else {}
    folders = {"PROGRAMFILES(X86)": r"C:\Program Files (x86)", "TEMP": TEMP, "TMP": TEMP}
    return {**folders, **each, **last}


def _cuda(version: str) -> str:
    return rf"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v{version}"


def _cl(studio: Studio, toolset: str) -> str:
    return rf"{studio.folder}\VC\Tools\MSVC\{toolset}\bin\Hostx64\x64\cl.exe"


def _files(windows: Windows) -> list[str]:
    compilers = [_cl(studio, toolset) for studio in windows.studios for toolset in studio.toolsets]
    return [*compilers, *(_cuda(version) for version in windows.toolkits)]


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("\\"), pattern.split("\\")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _grep(windows: Windows, header: str) -> list[str] | None:
    for version in windows.toolkits:
        if header == _cuda(version) + r"\include\crt\host_config.h":
            gnu, clang, oldest, newer = HOST_CONFIG[version]
            return [
                f"#if _MSC_VER < {oldest} || _MSC_VER >= {newer}",
                f"#if __GNUC__ > {gnu}",
                f"#if (__clang_major__ >= {clang}) || (__clang_major__ < 3) || "
                "((__clang_major__ == 3) && (__clang_minor__ < 3))",
            ]
    return None


def _run(windows: Windows, words: Sequence[str]) -> dict[str, Any]:
    program = words[0]
    if program == VSWHERE and windows.studios:
        return _said(json.dumps([_instance(studio) for studio in windows.studios], indent=2))
    for studio in windows.studios:
        for toolset in studio.toolsets:
            if program == _cl(studio, toolset):
                return _said(
                    "Microsoft (R) C/C++ Optimizing Compiler Version "
                    f"19.{toolset.removeprefix('14.')} for x64\n"
                    "Copyright (C) Microsoft Corporation.  All rights reserved.\n\n"
                    "usage: cl [ option... ] filename... [ /link linkoption... ]\n"
                )
    for version in windows.toolkits:
        if program == _cuda(version) + r"\bin\nvcc.exe":
            return _said(
                "nvcc: NVIDIA (R) Cuda compiler driver\n"
                f"Cuda compilation tools, release {version}, V{BUILDS[version]}\n"
            )
    if program in (LAUNCHER, PYTHON):
        found = {"path": PYTHON, "version": "3.11.9", "bits": 64}
        return _said(json.dumps({**found, "in_venv": False, "can_venv": True}))
    return {"returncode": 127, "output": f"{program}: The system cannot find the file specified"}


def _said(output: str) -> dict[str, Any]:
    return {"returncode": 0, "output": output}


def _instance(studio: Studio) -> dict[str, Any]:
    product = studio.name.split()[2]
    return {
        "instanceId": "d5fa0c13",
        "installDate": "2026-09-01T10:00:00Z",
        "installationName": f"VisualStudio/{studio.version}",
        "installationPath": studio.folder,
        "installationVersion": studio.version,
        "productId": f"Microsoft.VisualStudio.Product.{product}",
        "state": 4294967295 if studio.complete else 1,
        "isComplete": studio.complete,
        "isLaunchable": studio.complete,
        "isPrerelease": studio.preview,
        "isRebootRequired": False,
        "displayName": studio.name,
        "catalog": {"productLineVersion": studio.name.split()[-1]},
    }


def _vcvars(windows: Windows, script: str, toolset: str) -> dict[str, Any]:
    for studio in windows.studios:
        if script == rf"{studio.folder}\VC\Auxiliary\Build\vcvars64.bat":
            if toolset not in studio.toolsets:
                text = f"[ERROR:vcvars.bat] Toolset directory for version '{toolset}' was not found"
                return {"variables": {}, "output": text}
            return {"variables": _variables(studio, toolset), "output": _banner(studio)}
    return {"variables": {}, "output": f"'{script}' is not recognized as a command"}


def _banner(studio: Studio) -> str:
    version = re.match(r"\d+\.\d+", studio.version)
    assert version
    return f"** Visual Studio Developer Command Prompt v{version[0]}"


def _variables(studio: Studio, toolset: str) -> dict[str, str]:
    tools = rf"{studio.folder}\VC\Tools\MSVC\{toolset}"
    binaries = rf"{KIT}\bin\{SDK}\x64"
    include, lib, path = [rf"{tools}\include"], [rf"{tools}\lib\x64"], [rf"{tools}\bin\Hostx64\x64"]
    kit = {}
    if studio.sdk:
        include += [rf"{KIT}\include\{SDK}\{part}" for part in ("ucrt", "um", "shared")]
        lib += [rf"{KIT}\lib\{SDK}\{part}\x64" for part in ("ucrt", "um")]
        path.append(binaries)
        kit = {"WINDOWSSDKDIR": KIT + "\\", "WINDOWSSDKVERSION": SDK + "\\", "UCRTVERSION": SDK}
    path += [rf"C:\Windows\{part}".rstrip("\\") for part in ("System32", "", r"System32\Wbem")]
    return {
        "PATH": ";".join(path),
        "INCLUDE": ";".join(include),
        "LIB": ";".join(lib),
        "VSINSTALLDIR": studio.folder + "\\",
        "VCINSTALLDIR": studio.folder + "\\VC\\",
        "VCTOOLSVERSION": toolset,
        "VCTOOLSINSTALLDIR": tools + "\\",
        "VCTOOLSREDISTDIR": rf"{studio.folder}\VC\Redist\MSVC\{toolset}" + "\\",
        "VSCMD_ARG_TGT_ARCH": "x64",
        "VSCMD_ARG_HOST_ARCH": "x64",
        **kit,
    }


def _nvml(gpu: str) -> dict[str, Any]:
    if not gpu:
        return {"error": "NVML Shared Library Not Found"}
    device = {"index": 0, "name": gpu, "compute_capability": "12.0", "memory_mib": 32607}
    return {"release": "591.44", "cuda": "13.1", "devices": [{**device, "memory_free_mib": 30712}]}
