r"""A Visual Studio for the lab: a realistic tree of folders, whose programs are stand-ins.

    visualstudio.clear(lab)                     # none is installed
    visualstudio.install(lab, "2022")           # Community 17.14, toolsets 14.44 and 14.38
    vs = visualstudio.install(lab, "2026", product="BuildTools",
                              toolsets=("14.50.35717", "14.44.35207"))
    vs.path, vs.vcvars, vs.cl("14.44.35207"), vs.instance

What is the same as in the real one:

- vswhere.exe is in its documented folder and prints the instances in the .json files beside it,
  filtered by ``-all``, ``-prerelease`` and ``-products *``
- vcvarsall.bat sets the variables of VS 2022 17.x, including ``HostX64`` and ``\\\\`` in PATH,
  chooses a toolset in the same way, and fails with the same messages. It also takes a caller's
  VCToolsVersion for the requested version, appends to a caller's INCLUDE, LIB and LIBPATH, and
  leaves the environment incomplete after an error: VSCMD_ARG_TGT_ARCH, the SDK, no VCToolsVersion
- cl.exe prints its version and answers nvcc. It writes each call to ``cl.log`` beside it: one line
  per call, arguments separated by tabs
- the redistributable DLLs are Microsoft's own 14.44

link.exe, rc.exe and so on exist and do nothing. The files of the SDK are empty.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.windows.lab import Lab
from tests.windows.making import SOURCES

Year = Literal["2019", "2022", "2026"]
SDK = "10.0.26100.0"
X86 = "Program Files (x86)"
INSTALLER = f"{X86}/Microsoft Visual Studio/Installer"
KITS = f"{X86}/Windows Kits/10"


@dataclass(frozen=True)
class Release:
    """A Visual Studio as its installer leaves it by default."""

    major: int
    version: str
    shown: str
    folder: str  # below "Microsoft Visual Studio"
    toolsets: tuple[str, ...]  # the default first
    redist: str


RELEASES: dict[Year, Release] = {
    "2019": Release(16, "16.11.36107.9", "16.11.47", "2019", ("14.29.30133",), "14.29.30133"),
    "2022": Release(
        17,
        "17.14.36414.22",
        "17.14.13",
        "2022",
        ("14.44.35207", "14.38.33130"),
        "14.44.35112",
    ),
    "2026": Release(18, "18.0.11205.157", "18.0.0", "18", ("14.50.35717",), "14.50.35710"),
}


@dataclass(frozen=True)
class Installed:
    """A Visual Studio in the lab."""

    root: Path
    path: str  # the same, as Windows names it
    instance: dict[str, Any]  # what vswhere prints about it

    @property
    def vcvars(self) -> str:
        return rf"{self.path}\VC\Auxiliary\Build\vcvars64.bat"

    def cl(self, toolset: str) -> Path:
        return self.root / "VC/Tools/MSVC" / toolset / "bin/Hostx64/x64/cl.exe"


def clear(lab: Lab) -> None:
    """Remove every Visual Studio and the Windows SDK."""
    for folder in ("Program Files/Microsoft Visual Studio", f"{X86}/Microsoft Visual Studio", KITS):
        shutil.rmtree(lab.drive / folder, ignore_errors=True)


def install(
    lab: Lab,
    year: Year,
    *,
    product: str = "Community",
    toolsets: tuple[str, ...] | None = None,
    folder: str | None = None,
    prerelease: bool = False,
    complete: bool = True,
    sdk: str | None = SDK,
) -> Installed:
    r"""Install one.

    ``toolsets``: the default one first; none means without the C++ workload. ``folder``: where, as
    ``Tools (x86)\VS``, on drive C; else where its installer puts it. ``sdk``: the Windows SDK that
    comes with it, or None.
    """
    release = RELEASES[year]
    chosen = release.toolsets if toolsets is None else toolsets
    x86 = year == "2019" or product == "BuildTools"
    programs = X86 if x86 else "Program Files"
    name = folder or rf"{programs}\Microsoft Visual Studio\{release.folder}\{product}"
    root = lab.drive / name.replace("\\", "/")
    _write(root / "Common7/Tools/VsDevCmd.bat", "@exit /B 1\n")
    if product != "BuildTools":
        _copy(lab, "tool.exe", root / "Common7/IDE/devenv.exe")
    if chosen:
        _cpp(lab, root, year, chosen, sdk)
    if sdk:
        _sdk(lab, sdk)
    instance = _instance(release, year, product, lab.windows(root), prerelease, complete)
    marks = [
        *([] if complete else [".incomplete"]),
        *([".prerelease"] if prerelease else []),
        *([".buildtools"] if product == "BuildTools" else []),
    ]
    installer = lab.drive / INSTALLER
    _copy(lab, "vswhere.exe", installer / "vswhere.exe")
    text = json.dumps(instance, indent=2, ensure_ascii=False)
    _write(installer / f"{instance['instanceId']}{''.join(marks)}.json", text)
    return Installed(root, lab.windows(root), instance)


def _cpp(lab: Lab, root: Path, year: Year, toolsets: tuple[str, ...], sdk: str | None) -> None:
    """Install the C++ workload: scripts, compilers, redistributable DLLs."""
    release = RELEASES[year]
    default = toolsets[0]
    build = root / "VC/Auxiliary/Build"
    for name in ("", ".v14" + default[3]):
        _write(build / f"Microsoft.VCToolsVersion{name}.default.txt", f"{default}\n")
    _write(build / "Microsoft.VCRedistVersion.default.txt", f"{release.redist}\n")
    # The real script compares a name of at most two parts with the folder names, from the last to
    # the first. Here the first folder is written last, and wins.
    names = sorted(toolsets)
    matches = [
        f'if "%__VCVARS_VERSION%"=="{wanted}" set "__VCVARS_TOOLS_VERSION={toolset}"'
        for toolset in names
        for wanted in (*_beginnings(toolset), toolset)
    ]
    filled = {
        "NAMES": "Names",
        "YEAR": year,
        "MAJOR": str(release.major),
        "VSCMD_VER": release.shown,
        "SDK": sdk or "none",
        "DEFAULT": default,
        "REDIST": release.redist,
        "MATCHES": "\n".join(matches),
    }
    for name in ("vcvars64.bat", "vcvarsall.bat"):
        text = (SOURCES / name).read_text(encoding="ascii")
        for word, value in filled.items():
            text = text.replace(f"@{word}@", value)
        _write(build / name, text)
    for toolset in toolsets:
        tools = root / "VC/Tools/MSVC" / toolset
        for host, target in (("x64", "x64"), ("x64", "x86"), ("x86", "x86"), ("x86", "x64")):
            programs = tools / f"bin/Host{host}/{target}"
            _copy(lab, "cl.exe", programs / "cl.exe")
            _copy(lab, "lib.exe", programs / "lib.exe")
            for tool in ("link.exe", "dumpbin.exe"):
                _copy(lab, "tool.exe", programs / tool)
        _write(tools / "include/vcruntime.h", "")
        for target in ("x64", "x86"):
            _write(tools / f"lib/{target}/msvcrt.lib", "")
    _redistributables(lab, root / "VC/Redist/MSVC" / release.redist / "x64", release.major)


def _beginnings(toolset: str) -> list[str]:
    """The short names of a toolset: "14.44.35207" is found by 14.4 and 14.44."""
    major, minor, _ = toolset.split(".")
    return [f"{major}.{minor[: n + 1]}" for n in range(len(minor))]


def _redistributables(lab: Lab, folder: Path, major: int) -> None:
    version = f"Microsoft.VC14{major - 14 + (major == 18)}"
    python = lab.drive / "Python311"
    kinds = {"CRT": ["msvcp140*", "vcruntime140*", "concrt140*"], "OpenMP": ["vcomp140*"]}
    for kind, patterns in kinds.items():
        target = folder / f"{version}.{kind}"
        target.mkdir(parents=True, exist_ok=True)
        for pattern in patterns:
            for dll in python.glob(f"{pattern}.dll"):
                shutil.copy(dll, target)


def _sdk(lab: Lab, version: str) -> None:
    kits = lab.drive / KITS
    for file in (
        "ucrt/corecrt.h",
        "um/windows.h",
        "shared/winerror.h",
        "winrt/a.h",
        "cppwinrt/a.h",
    ):
        _write(kits / "Include" / version / file, "")
    for arch in ("x64", "x86"):
        _write(kits / "Lib" / version / "ucrt" / arch / "ucrt.lib", "")
        _write(kits / "Lib" / version / "um" / arch / "kernel32.lib", "")
        for tool in ("rc.exe", "mt.exe"):
            _copy(lab, "tool.exe", kits / "bin" / version / arch / tool)


def _instance(
    release: Release, year: Year, product: str, path: str, prerelease: bool, complete: bool
) -> dict[str, Any]:
    """Some of what vswhere 3.1 prints for an installation; it has text outside ASCII."""
    named = f"VisualStudio/{release.shown}+{release.version.split('.', 2)[2]}"
    title = "Build Tools" if product == "BuildTools" else product
    channel = f"VisualStudio.{release.major}.{'Preview' if prerelease else 'Release'}"
    program = (
        r"Common7\Tools\LaunchDevCmd.bat" if product == "BuildTools" else r"Common7\IDE\devenv.exe"
    )
    return {
        "instanceId": hashlib.sha256(path.encode()).hexdigest()[:8],
        "installDate": "2025-11-24T09:30:00Z",
        "installationName": named,
        "installationPath": path,
        "installationVersion": release.version,
        "productId": f"Microsoft.VisualStudio.Product.{product}",
        "productPath": rf"{path}\{program}",
        "state": 4294967295 if complete else 1,
        "isComplete": complete,
        "isLaunchable": True,
        "isPrerelease": prerelease,
        "isRebootRequired": False,
        "displayName": f"Visual Studio {title} {year}",
        "description": "Alles, was Sie zum Erstellen moderner Apps benötigen",
        "channelId": channel,
        "catalog": {
            "id": named,
            "productDisplayVersion": release.shown,
            "productLineVersion": release.folder,
            "productMilestoneIsPreRelease": str(prerelease),
        },
        "properties": {"nickname": ""},
    }


def _copy(lab: Lab, program: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(lab.folder / "programs" / program, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\r\n")
