"""What a build is made from, in words: the one definition of it.

``clean`` compares what is known before anything is fetched with what a CMake tree was made from;
``configure`` adds the rest, and the digest of all is the fingerprint by which ``wheel`` is up to
date and ``release`` knows a wheel of today's inputs. What decides no byte of a wheel is not in it:
where folders are, which compiler cache is used, what a target is said to be, how long it took.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessions.shared import knowledge, records
from sessions.shared.target import BuildSpec
from sessions.probe.model import Compiler, InstalledToolkit, Toolchain
from sessions.fetch.model import Source
from sessions.build.model import Wheel

SESSIONS = Path(__file__).resolve().parents[1]
# What sessions/fetch/main_toolkit.py adds to NVIDIA's files, by platform. Raise one whenever that changes:
# a test compares.
LAYOUT = {"linux": 1, "windows": 2}
# Who reads a wheel and who judges it. What they import, and the data that any of it names, counts
# too; of the session itself, which also prints and keeps records, its own file only.
_JUDGES = ("verify/reader.py", "verify/run_checks.py")
_SESSION = "verify/main_verify.py"
# What of a target and of a wheel's record no check of verify reads.
WORDS = ("summary", "warning", "toolkit", "cache", "compiler", "prerelease")
VOLATILE = ("steps", "wall_seconds", "cpu_seconds", "cache", "timing")
_SHOWN = 16  # hexadecimal digits of a digest


def machine(
    spec: BuildSpec, compiler: Compiler | None, python: str, toolkit: str
) -> dict[str, str]:
    """The inputs that are known once the machine was looked at. Ninja sees none of them change.

    ``python`` is the whole version, as its zlib writes the wheel; ``toolkit`` is what
    ``toolkit_identity`` returns.
    """
    sdist = knowledge.sdists().get(spec.version)
    locked = f"{spec.version} {sdist.sha256[:_SHOWN] if sdist else ''}"
    found = {
        "target": spec.target,  # which the bill of materials names
        "source": "a checkout" if spec.source else locked,
        "architectures": ";".join(spec.archs) or "none",
        "python": python or "none",
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
    ours = {path.name: code(path) for path in additions}
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


def toolkit_identity(spec: BuildSpec, installed: InstalledToolkit | None, glibc: str = "") -> str:
    """A digest of the toolkit that a target is built with; "" where it needs none or none is there.

    Only where a header is corrected for this ``glibc`` does one from packages differ by machine.
    Raises Problem where it is to be made from packages that are not locked.
    """
    if spec.cuda is None:
        return ""
    if spec.toolkit == "pypi":
        lock = knowledge.toolkit_lock(spec.cuda).read_text(encoding="utf-8")
        corrected = knowledge.headers(spec.cuda, glibc)
        return records.fingerprint(
            [lock, LAYOUT[spec.platform], *([corrected] if corrected else [])]
        )
    if installed is None:
        return ""
    return records.fingerprint([installed.root, installed.version, installed.files])


def tree(spec: BuildSpec, chain: Toolchain, root: Path, cache: Path) -> dict[str, str]:
    """All that a CMake tree is made from and that is known before anything is fetched."""
    python = chain.python.version if chain.python else ""
    kit = toolkit_identity(spec, chain.toolkit, chain.host.glibc)
    return machine(spec, chain.compiler, python, kit) | places(chain, spec, root, cache)


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each of today's inputs that differs, as "compiler: gnu 12.2.0 then, gnu 13.1.0 now"."""
    return [
        f"{name}: {then.get(name, 'unknown')} then, {value} now"
        for name, value in now.items()
        if then.get(name) != value
    ]


def verdict(spec: BuildSpec, record: Wheel | None) -> str:
    """Fingerprint of all that ``verify`` judges a wheel by."""
    rules = {path.relative_to(SESSIONS).as_posix(): code(path) for path in judging()}
    judged: list[dict[str, Any]] = []
    for value, unread in ((spec, WORDS), (record, VOLATILE)):
        whole = dataclasses.asdict(value) if value else {}
        judged.append({name: item for name, item in whole.items() if name not in unread})
    return records.fingerprint([judged, rules])


def judging() -> list[Path]:
    """The files by which a wheel is judged: modules, data, and what is added to each wheel."""
    modules = {SESSIONS / _SESSION, *imported(SESSIONS / name for name in _JUDGES)}
    names = {name for path in modules for name in _module(_text(path)).words}
    data = [SESSIONS / "data" / "knowledge" / name for name in names if name.endswith(".toml")]
    overlay = (SESSIONS / "build" / "overlay").glob("*.py")
    readers = SESSIONS / "data" / "locks" / "runtime.txt"  # the versions of what decodes libraries
    return sorted({*modules, *filter(Path.is_file, data), *overlay, readers})


def imported(paths: Iterable[Path]) -> set[Path]:
    """Modules of ours with all that they import of ours, or run by name ("NAME:function")."""
    found: set[Path] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            for name in _module(_text(path)).words:
                # A task of limited.py is named "sessions.module:function".
                waiting += _files(name.partition(":")[0]) if name.startswith("sessions.") else []
    return found


def _files(module: str) -> list[Path]:
    base = SESSIONS.joinpath(*module.split(".")[1:])
    return [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]


def code(path: Path) -> str:
    """A digest of what a file of ours says to a machine: comments and docstrings change nothing.

    What ships in a wheel as it is (``overlay/*.py``) counts with every byte, but for its line ends.
    """
    text = _text(path)
    if path.parent.name == "overlay" and path.suffix == ".py":
        return hashlib.sha256(text).hexdigest()
    match path.suffix:
        case ".py":
            return _module(text).code
        case ".toml":
            return records.fingerprint(tomllib.loads(text.decode("utf-8")))
        case _:
            lines = text.decode("utf-8").splitlines()
            return records.fingerprint(
                [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
            )


def _text(path: Path) -> bytes:
    return path.read_bytes().replace(b"\r\n", b"\n")


@dataclass(frozen=True)
class _Module:
    words: frozenset[str]  # its strings, and the names of what it imports
    code: str


@functools.cache
def _module(text: bytes) -> _Module:
    tree = ast.parse(text)
    words: set[str] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # less its docstring, if it has one
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                words |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(base)):
                words |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            case ast.Constant(value=str(value)):
                words |= {value, *re.findall(r"sessions(?:\.\w+)+", value)}
    return _Module(frozenset(words), hashlib.sha256(ast.dump(tree).encode()).hexdigest())


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
