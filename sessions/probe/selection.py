"""Chooses Python, compiler and toolkit among those that the probe found. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from sessions.probe.record_types import Compiler, InstalledToolkit, Python
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec, HostRange
from sessions.shared.host import Host

# Memory of one compile step, with a margin. Measured (resident): 814 MB for cicc on argsort.cu,
# 612 MB for llama-model.cpp (0.3.36 for 12.0a); 652 and 350 MB in 0.3.16 for 12.0.
STEP_MIB = 1024


def job_count(host: Host, requested: int | None) -> int:
    """How many compile steps run at once: ``requested``, or one per core if memory allows."""
    if requested:
        return requested
    return max(1, min(host.cores, host.memory_free_mib // STEP_MIB))


def choose_python(pythons: Sequence[Python], version: str, *, others: bool) -> Python | None:
    """The first 64-bit interpreter of that version, preferably one that can create a venv.

    With ``others``, an interpreter of another version that can install the build tools is accepted:
    the libraries in a wheel do not depend on Python, and the wheel is tagged for ``version``.
    """
    of_64_bits = [p for p in pythons if p.bits == 64]
    fitting = [p for p in of_64_bits if minor_version(p.version) == version]
    able = [
        p for p in of_64_bits if p.can_venv and minor_version(p.version) in knowledge.builders()
    ]
    candidates = [*(p for p in fitting if p.can_venv), *(able if others else ()), *fitting]
    return candidates[0] if candidates else None


def minor_version(version: str) -> str:
    """The minor version of a release: "3.12.1" -> "3.12"."""
    return ".".join(version.split(".")[:2])


def choose_toolkit(
    toolkits: Sequence[InstalledToolkit], spec: BuildSpec
) -> InstalledToolkit | None:
    """The installed toolkit that the target uses; None if it uses NVIDIA's packages."""
    if spec.cuda is None or spec.toolkit == "pypi":
        return None
    if spec.toolkit != "system":
        return next((t for t in toolkits if t.found_via == "--toolkit"), None)
    return next((t for t in toolkits if minor_version(t.version) == spec.cuda), None)


def host_config_number(compiler: Compiler) -> int:
    """What CUDA's host_config.h compares: the major version, or ``_MSC_VER`` (1944 for 19.44)."""
    major, minor = [*compiler.version.split("."), "0"][:2]
    return int(major) * 100 + int(minor) if compiler.family == "msvc" else int(major)


def refusal(compiler: Compiler, accepts: HostRange | None) -> str | None:
    """Why a compiler cannot be used; None if it can. ``accepts`` is None for a CPU build."""
    return unusable(compiler) or (outside(compiler, accepts) if accepts else None)


def unusable(compiler: Compiler) -> str | None:
    """Why no build can use this compiler; None if one can."""
    minimum = knowledge.host_minimum()[compiler.family]
    if compiler.unfit:
        return compiler.unfit
    if host_config_number(compiler) < minimum:
        return f"too old: upstream needs {compiler.family} {minimum}"
    return None


def outside(compiler: Compiler, accepts: HostRange) -> str | None:
    """Why a toolkit does not accept this compiler; None if it does."""
    match compiler.family:
        case "msvc":
            low, high = accepts.msvc_min, accepts.msvc_max
        case "clang":
            low, high = accepts.clang_min, accepts.clang_max
        case _:
            low, high = 0, accepts.gnu_max
    if low <= host_config_number(compiler) <= high:
        return None
    return f"CUDA accepts {compiler.family} {low or 'any'} to {high}"


def choose_compiler(
    compilers: Sequence[Compiler], accepts: HostRange | None, named: str | None
) -> tuple[Compiler | None, str]:
    """The compiler for a build, and why it was chosen; or None, and why none was.

    It is the one that the user named; else the first that fits; else the first that upstream
    supports, which nvcc is then told to accept. ``compilers`` are in order of preference.
    """
    if named:
        for compiler in compilers:
            if compiler.found_via == "--compiler":
                return compiler, f"{_name(compiler)}: named by --compiler"
        return None, f"--compiler {named} is not a C++ compiler that runs"
    if not compilers:
        return None, "none found"
    for compiler in compilers:
        if refusal(compiler, accepts) is None:
            if compiler.family == "msvc":
                return compiler, f"{_name(compiler)}: the newest that fits"
            return compiler, f"{_name(compiler)}: the first that fits of g++, g++-N, clang++"
    for compiler in compilers:
        if unusable(compiler) is None:
            why = refusal(compiler, accepts)
            return compiler, f"{_name(compiler)}: none fits ({why}), so CUDA is told to allow it"
    return None, "; ".join(f"{_name(c)}: {refusal(c, accepts)}" for c in compilers)


def _name(compiler: Compiler) -> str:
    return f"{compiler.family} {compiler.version} ({compiler.cxx})"
