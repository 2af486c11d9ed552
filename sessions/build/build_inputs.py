"""The inputs of a build, as a mapping from names to values. Its digest is the fingerprint.

``clean`` compares the inputs that are known before anything is fetched with those of the CMake
tree. ``configure`` adds the others; ``wheel`` is up to date if the fingerprint is the same. An
input that changes no byte of the wheel is left out: folders, the compiler cache, a target's
summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sessions.fetch import toolkit_identity
from sessions.fetch.record_types import Source
from sessions.probe.record_types import Compiler, Toolchain
from sessions.shared import code_digest, knowledge, records
from sessions.shared.build_spec import BuildSpec

_SHOWN = 16  # hexadecimal digits of a digest


def machine(
    spec: BuildSpec, compiler: Compiler | None, python: str, toolkit: str
) -> dict[str, str]:
    """The inputs that are known after the probe. ninja does not notice a change of them.

    ``python`` is the full version, because its zlib compresses the wheel. ``toolkit`` is the result
    of ``toolkit_identity.toolkit_identity``.
    """
    sdist = knowledge.sdists().get(spec.version)
    locked = f"{spec.version} {sdist.sha256[:_SHOWN] if sdist else ''}"
    found = {
        "target": spec.target,  # the SBOM contains it
        "source": "a checkout" if spec.source else locked,
        "architectures": ";".join(spec.archs) or "none",
        "python": _python(spec, python),
        "compiler": "none",
        "build tools": records.file_sha256(knowledge.tools_lock())[:_SHOWN],
        "toolkit": f"CUDA {spec.cuda} {spec.toolkit} {toolkit[:_SHOWN]}" if spec.cuda else "none",
    }
    if compiler is None:
        return found
    identity = dict(compiler.identity)
    release = identity.pop("release", "")
    found["compiler"] = f"{compiler.family} {compiler.version} {compiler.cxx} {release}".rstrip()
    if compiler.variables:
        found["Windows SDK"] = compiler.variables.get("WINDOWSSDKVERSION", "none")
        kept = {name: value for name, value in compiler.variables.items() if name != "PATH"}
        found["Visual Studio"] = records.fingerprint(kept)[:_SHOWN]
    found |= {f"compiler's {name}": value for name, value in identity.items()}
    return found | {f"linked {name}": value for name, value in compiler.linked.items()}


def _python(spec: BuildSpec, builder: str) -> str:
    """The version of the Python that builds; and of the wheel's Python, if that is another one."""
    other = builder and not builder.startswith(f"{spec.python}.")
    return f"{builder} for {spec.python}" if other else builder or "none"


def everything(
    before: Mapping[str, str],
    source: Source,
    settings: Mapping[str, str],
    requires: Iterable[str],
    epoch: str,
    additions: Iterable[Path],
    driver: int | None,
) -> dict[str, str]:
    """All inputs of a wheel. ``settings`` contain no folder of this machine.

    ``additions`` are our files that are in the wheel, or that decide what is added to it.
    """
    ours = {path.name: code_digest.code(path) for path in additions}
    return {
        **before,
        "source files": source.digest,
        "source date": epoch,
        "settings": records.fingerprint(settings)[:_SHOWN],
        "requirements": " ".join(requires) or "none",
        "additions": records.fingerprint([ours, driver])[:_SHOWN],
    }


def places(chain: Toolchain, spec: BuildSpec, root: Path, cache: Path) -> dict[str, str]:
    """What a CMake tree depends on and a wheel does not: folders and the compiler cache."""
    return {
        "folders": f"{root} {cache}",
        "Python's path": chain.python.path if chain.python else "none",
        "compiler cache": spec.cache,
    }


def tree(spec: BuildSpec, chain: Toolchain, root: Path, cache: Path) -> dict[str, str]:
    """The inputs of a CMake tree that are known before anything is fetched."""
    python = chain.python.version if chain.python else ""
    kit = toolkit_identity.toolkit_identity(spec, chain.toolkit, chain.host.glibc)
    return machine(spec, chain.compiler, python, kit) | places(chain, spec, root, cache)


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The current inputs that differ: "compiler: gnu 12.2.0 then, gnu 13.1.0 now"."""
    return [
        f"{name}: {then.get(name, 'unknown')} then, {value} now"
        for name, value in now.items()
        if then.get(name) != value
    ]
