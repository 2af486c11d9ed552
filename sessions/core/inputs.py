"""What a CMake tree was made from, in words; and what a verdict was, as a digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sessions.core import facts, records, staging
from sessions.core.model import BuildSpec, Toolchain, Wheel

SESSIONS = Path(__file__).resolve().parents[1]
# Everything that reads a wheel and judges it, the additions that are wanted included.
_JUDGES = (
    "verify.py", "core/*.py", "wheelfile/*.py", "facts/*.toml", "facts/runtime.txt",
    f"overlay/{staging.LOADER}", f"overlay/{staging.DLLS}",
)  # fmt: skip


def inputs(spec: BuildSpec, chain: Toolchain) -> dict[str, str]:
    """The inputs of a build that ninja cannot see change."""
    compiler = chain.compiler
    sdist = facts.sdists().get(spec.version)
    given = {
        "source": spec.source or f"{spec.version} {sdist.sha256[:12] if sdist else ''}",
        "architectures": ";".join(spec.archs) or "none",
        "python": f"{chain.python.version} {chain.python.path}" if chain.python else "none",
        "compiler": f"{compiler.family} {compiler.version} {compiler.cxx}" if compiler else "none",
        "Windows SDK": compiler.variables.get("WINDOWSSDKVERSION", "none") if compiler else "none",
        "compiler cache": spec.cache,
        "build tools": records.file_sha256(facts.tools_lock())[:12],
    }
    if spec.cuda is None:
        return given
    if spec.toolkit == "pypi":
        lock = records.file_sha256(facts.toolkit_lock(spec.cuda))[:12]
        return {**given, "toolkit": f"CUDA {spec.cuda} {lock}"}
    found = chain.toolkit
    return {**given, "toolkit": f"{found.root} {found.version}" if found else spec.toolkit}


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each input that differs, as "compiler: gnu 12.2.0 then, gnu 13.1.0 now"."""
    return [
        f"{name}: {then.get(name, 'unknown')} then, {now.get(name, 'unknown')} now"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]


def verdict(spec: BuildSpec, record: Wheel | None) -> str:
    """Fingerprint of all that ``verify`` judges a wheel by."""
    files = [path for pattern in _JUDGES for path in SESSIONS.glob(pattern)]
    rules = {p.relative_to(SESSIONS).as_posix(): records.file_sha256(p) for p in files}
    return records.fingerprint([spec, record, rules])
