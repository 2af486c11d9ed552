"""The checks of a machine for a target: system, memory, Python, compiler, paths. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sessions.payload import cgroups
from sessions.probe import cuda_checks
from sessions.probe.record_types import Toolchain
from sessions.probe.selection import STEP_MIB, minor_version, outside, unusable
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check
from sessions.shared.host import Host

# With a margin. Measured: toolkit 826, build tools 217, source and download 240, CMake tree 140.
DISK_MIB = 6144


def checks(
    chain: Toolchain,
    spec: BuildSpec,
    flags: Mapping[str, str],
    temporary: Sequence[str] = (),
    external: str = "",
    limits: cgroups.Limits | None = None,
    nvml: str = "",
    targets: Mapping[str, BuildSpec] | None = None,
) -> tuple[Check, ...]:
    """All checks of the machine for the target. If one has status "fail", it cannot be built here.

    ``flags`` are the variables of the caller's environment that a build does not use: CC, CFLAGS,
    CMAKE_ARGS … ``temporary`` are the folders in TEMP and TMP (Windows). ``external`` is the file
    name of a wheel that is only tested, or "". ``limits`` are those of a container. ``nvml`` is the
    error of NVIDIA's driver, or "". ``targets`` are those of targets.toml, of which one may be for
    the GPUs of this machine.
    """
    return (
        *_check_host(chain.host),
        *(_check_limits(chain.host, limits) if limits else ()),
        *(_check_paths(chain.host, spec, external) if chain.host.system == "windows" else ()),
        *(_check_temporary(temporary) if spec.cuda else ()),
        *_check_python(chain, spec),
        *_check_compiler(chain, spec, flags),
        *(cuda_checks.checks(chain, spec, nvml, targets or {}) if spec.cuda else ()),
    )


def _check_host(host: Host) -> Iterator[Check]:
    name = f"{host.system} {host.machine}"
    if (host.system, host.machine) in (("linux", "x86_64"), ("windows", "AMD64")):
        yield Check("platform", "ok", f"platform: {name}")
    else:
        yield Check(
            "platform",
            "fail",
            f"platform: {name} is not supported",
            remedy="build on Linux x86-64 or Windows x64",
        )
    memory = Check(
        "memory",
        "warn",
        f"memory: {host.memory_free_mib} MiB free",
        evidence=f"a compile step may take {STEP_MIB} MiB",
        remedy="close other programs before the build, or compile fewer files at once: --jobs N",
    )
    disk = Check(
        "disk",
        "warn",
        f"disk: {host.disk_free_mib} MiB free",
        evidence=f"a first build takes about {DISK_MIB} MiB, toolkit and caches included",
        remedy="free some space before the build, for example nox -s clean -- --caches",
    )
    yield memory if host.memory_free_mib < STEP_MIB else Check("memory", "ok", memory.summary)
    yield disk if host.disk_free_mib < DISK_MIB else Check("disk", "ok", disk.summary)


def _check_limits(host: Host, limits: cgroups.Limits) -> Iterator[Check]:
    if limits.cpus is not None or limits.memory_mib is not None:
        parts = [f"{limits.cpus:g} CPUs" if limits.cpus is not None else "no limit of CPUs"]
        parts += [f"{host.memory_mib} MiB memory"] if limits.memory_mib is not None else []
        yield Check("limits", "ok", f"limits of this container: {', '.join(parts)}")


def _check_python(chain: Toolchain, spec: BuildSpec) -> Iterator[Check]:
    python = chain.python
    how = (
        f"winget install Python.Python.{spec.python}"
        if chain.host.system == "windows"
        else f"uv python install {spec.python}, or where Debian or Ubuntu has the package: "
        f"apt install python{spec.python}-venv"
    )
    if python is None:
        yield Check(
            "python",
            "fail",
            f"Python {spec.python}: none found (64-bit, on PATH)",
            remedy=f"install Python {spec.python} ({how}){_other_python(chain)}",
        )
    elif not python.can_venv:
        summary = f"Python {spec.python}: {python.path} has no venv module"
        yield Check("python", "fail", summary, remedy=f"install its venv module ({how})")
    elif minor_version(python.version) != spec.python:
        summary = f"Python: {python.version} builds the wheel for Python {spec.python}"
        yield Check("python", "ok", f"{summary}, {python.path}")
    else:
        yield Check("python", "ok", f"Python: {python.version}, {python.path}")


def _other_python(chain: Toolchain) -> str:
    """The option that builds a wheel for a Python of this machine; empty if there is none."""
    for python in chain.pythons:
        version = minor_version(python.version)
        if python.bits == 64 and python.can_venv and version in knowledge.builders():
            return f", or build a wheel for a Python that is installed: --python {version}"
    return ""


def _check_compiler(chain: Toolchain, spec: BuildSpec, flags: Mapping[str, str]) -> Iterator[Check]:
    summary = f"C++ compiler: {chain.compiler_why}"
    accepts = (chain.toolkit and chain.toolkit.accepts) or (
        knowledge.toolkit(spec.cuda).accepts if spec.cuda else None
    )
    windows = chain.host.system == "windows"
    if chain.compiler is None:
        yield Check(
            "compiler",
            "fail",
            summary,
            evidence=_studios(chain) if windows else "",
            remedy="name another one with --compiler, or leave --compiler out"
            if spec.compiler
            else _INSTALL_STUDIO
            if windows
            else "install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)",
        )
    elif reason := unusable(chain.compiler):
        yield Check(
            "compiler",
            "fail",
            summary,
            evidence=reason,
            remedy="name another one with --compiler, or leave --compiler out",
        )
    elif windows and not chain.compiler.variables:
        yield Check(
            "compiler",
            "fail",
            f"{summary}, but its environment could not be set",
            evidence=chain.setup_problem,
            remedy="Visual Studio Installer, Modify: add MSVC C++ x64/x86 build tools and a "
            "Windows SDK, or Repair; or name another compiler with --compiler PATH (of a cl.exe)",
        )
    elif accepts and (reason := outside(chain.compiler, accepts)):
        yield Check(
            "compiler",
            "warn",
            summary,
            evidence=f"{reason}. Wheels that were built this way have crashed "
            "(abetlen/llama-cpp-python#1543): release one only after nox -s smoke passed on "
            "the GPU",
            remedy="use a newer toolkit (--cuda 13.4), or "
            + (
                "add an older toolset in the Visual Studio Installer, Modify, Individual "
                "components: MSVC v143 - VS 2022 C++ x64/x86 build tools"
                if windows
                else "install a compiler in that range"
            ),
        )
    else:
        yield Check("compiler", "ok", summary)
    yield from _check_flags(flags)


def _check_flags(flags: Mapping[str, str]) -> Iterator[Check]:
    of_build = unused(flags)
    of_compiler = {name: value for name, value in flags.items() if name not in of_build}
    for id, found, instead in (
        ("compiler-environment", of_compiler, "--compiler PATH chooses a compiler"),
        (
            "build-environment",
            of_build,
            "a table of targets.toml says what is built, --version, --cuda, --arch and --toolkit "
            "change it, and --fresh builds it again",
        ),
    ):
        if found:
            are, them = ("is", "it") if len(found) == 1 else ("are", "them")
            yield Check(
                id,
                "warn",
                f"{', '.join(found)} of your shell {are} not used",
                evidence="\n".join(f"{name}={value}" for name, value in found.items()),
                remedy=f"unset {them}; to choose yourself: {instead}",
            )


def linked_runtime(chain: Toolchain, spec: BuildSpec) -> tuple[Check, ...]:
    """Whether the compiler has the static C++ runtime that a wheel for an older glibc needs."""
    if not spec.old_glibc or chain.compiler is None:
        return ()
    if chain.compiler.linked.get("libstdc++.a", "none") != "none":
        summary = f"libstdc++.a: linked into the wheel, which is for glibc {spec.glibc} and newer"
        return (Check("libstdc++", "ok", summary),)
    return (
        Check(
            "libstdc++",
            "fail",
            f"libstdc++.a: the compiler lacks it, and a wheel for glibc {spec.glibc} needs it",
            evidence=f"{chain.compiler.cc} -print-file-name=libstdc++.a names no file",
            remedy="install it (Fedora, RHEL: dnf install libstdc++-static; Debian, Ubuntu: apt "
            "install g++), or build for systems no older than this one: --glibc host",
        ),
    )


def unused(env: Mapping[str, str]) -> dict[str, str]:
    """The variables in ``env`` that other builds of llama-cpp-python read and this one does not.

    They are CMake's, scikit-build-core's, nvcc's, and those of ggml's options (its CMakeLists.txt).
    """
    names = ("FORCE_CMAKE", "CUDAARCHS", "CUDACXX", "CUDAHOSTCXX", "CUDAFLAGS")
    prefixes = ("CMAKE_", "GGML_", "SKBUILD_", "NVCC_")
    return {n: v for n, v in sorted(env.items()) if v and (n in names or n.startswith(prefixes))}


_INSTALL_STUDIO = (
    "install the Build Tools for Visual Studio with C++ (winget install "
    "Microsoft.VisualStudio.2022.BuildTools --override "
    '"--add Microsoft.VisualStudio.Workload.VCTools --includeRecommended --passive"), '
    "or add the workload Desktop development with C++ to the one you have"
)


def _studios(chain: Toolchain) -> str:
    found = [tool for tool in chain.tools if tool.found_via.startswith("vswhere")]
    rows = [f"{t.name} {t.version} ({t.found_via}), {t.path}" for t in found]
    return "\n".join(rows) or "no Visual Studio 2019 or later is installed (vswhere)"


def _check_paths(host: Host, spec: BuildSpec, external: str) -> Iterator[Check]:
    known = knowledge.load("windows.toml")["paths"]
    target = len(spec.target) + known["target"]
    if external:
        folder = f"build/{spec.target}/given/{external.removesuffix('.whl')[:100]}-01234567/"
        target = max(target, len(folder) + known["smoke"])
    for folder, below, name in (
        (host.root, max(known["checkout"], target), "this folder"),
        (host.cache, known["cache"], "the cache folder"),
    ):
        longest = len(folder) + 1 + below
        if longest > known["limit"]:
            yield Check(
                "paths",
                "fail",
                f"paths: {name} is too deep for Windows' compilers",
                evidence=f"{folder} is {len(folder)} characters long; a path below it would be "
                f"{longest}, and {known['limit']} is the greatest length",
                remedy="move it to a short path, for example C:\\bw"
                if folder == host.root
                else "set BLACKWHEEL_CACHE=C:\\bw-cache",
            )
            return
    if not (host.root + host.cache).isascii():
        yield Check(
            "paths",
            "warn",
            "paths: letters outside ASCII, which not every compiler on Windows can read",
            evidence=f"{host.root}\n{host.cache}\n"
            "only letters of the system code page were tested (Wine, fake compilers)",
            remedy="if the build cannot open a file, move this folder to C:\\bw and set "
            "BLACKWHEEL_CACHE=C:\\bw-cache",
        )
        return
    yield Check("paths", "ok", "paths: short enough for Windows, ASCII only")


def _check_temporary(folders: Sequence[str]) -> Iterator[Check]:
    spaced = [folder for folder in folders if " " in folder]
    if spaced:  # rare: with short names enabled, Windows has C:\Users\JOSPRE~1\… there
        yield Check(
            "temporary",
            "fail",
            "temporary files: their folder has a space in its path",
            evidence=f"{spaced[0]}: nvcc passes the names of its files to cl.exe without quotes",
            remedy="make a folder without a space, for example C:\\bw-temp; set TEMP and TMP to it",
        )
