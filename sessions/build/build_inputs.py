"""What a build is made from, in words: the one definition of it.

``clean`` compares what is known before anything is fetched with what a CMake tree was made from;
``configure`` adds the rest, and the digest of all is the fingerprint by which ``wheel`` is up to
date and ``release`` knows a wheel of today's inputs. What decides no byte of a wheel is not in it:
where folders are, which compiler cache is used, what a target is said to be, how long it took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sessions.fetch import toolkit_identity
from sessions.fetch.model import Source
from sessions.probe.model import Compiler, Toolchain
from sessions.shared import code_digest, knowledge, records
from sessions.shared.build_spec import BuildSpec

_SHOWN = 16  # hexadecimal digits of a digest


def machine(
    spec: BuildSpec, compiler: Compiler | None, python: str, toolkit: str
) -> dict[str, str]:
    """The inputs that are known once the machine was looked at. Ninja sees none of them change.

    ``python`` is the whole version, as its zlib writes the wheel; ``toolkit`` is what
    ``toolkit_identity.toolkit_identity`` returns.
    """
    sdist = knowledge.sdists().get(spec.version)
    locked = f"{spec.version} {sdist.sha256[:_SHOWN] if sdist else ''}"
    found = {
        "target": spec.target,  # which the bill of materials names
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
    """The Python that builds; where its wheel gets the tag of another one, that too."""
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
    """All inputs of a wheel: ``machine``'s, and what the later stages found.

    ``settings`` are without the machine's folders; ``additions`` are the files of ours that ship
    in the wheel, or decide what is added to it.
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
    """What a CMake tree has written down besides, and no wheel: folders, the compiler cache."""
    return {
        "folders": f"{root} {cache}",
        "Python's path": chain.python.path if chain.python else "none",
        "compiler cache": spec.cache,
    }


def tree(spec: BuildSpec, chain: Toolchain, root: Path, cache: Path) -> dict[str, str]:
    """All that a CMake tree is made from and that is known before anything is fetched."""
    python = chain.python.version if chain.python else ""
    kit = toolkit_identity.toolkit_identity(spec, chain.toolkit, chain.host.glibc)
    return machine(spec, chain.compiler, python, kit) | places(chain, spec, root, cache)


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each of today's inputs that differs, as "compiler: gnu 12.2.0 then, gnu 13.1.0 now"."""
    return [
        f"{name}: {then.get(name, 'unknown')} then, {value} now"
        for name, value in now.items()
        if then.get(name) != value
    ]
