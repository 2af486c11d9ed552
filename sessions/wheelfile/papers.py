"""What a wheel says of itself: file name, METADATA, WHEEL, RECORD, and what its Python loads."""

from __future__ import annotations

import ast
import base64
import csv
import email
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.utils import (
    InvalidWheelFilename,
    canonicalize_name,
    canonicalize_version,
    parse_wheel_filename,
)

from sessions.wheelfile.model import Binding

PACKAGE = "llama_cpp"
MODULE = 1 << 20  # bytes; upstream's largest module has 150 KB
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")  # binary distribution format specification


@dataclass(frozen=True)
class Papers:
    """The file name taken apart, and the headers of METADATA and WHEEL."""

    name: str
    version: str
    tags: tuple[str, ...]
    metadata_name: str
    metadata_version: str
    requires_python: str
    requires: tuple[str, ...]
    wheel_tags: tuple[str, ...]
    purelib: bool
    generator: str
    problems: tuple[str, ...]


def read(file: str, texts: Mapping[str, bytes]) -> Papers:
    """Everything a wheel's file name and its ``.dist-info`` say. Never raises for a bad one."""
    problems = []
    name, version, tags = "", "", frozenset[str]()
    try:
        parsed, parsed_version, _, parsed_tags = parse_wheel_filename(file)
        name, version = str(parsed), str(parsed_version)
        tags = frozenset(str(tag) for tag in parsed_tags)
    except InvalidWheelFilename as error:
        problems.append(f"the file name: {error}")
    folders = sorted({m.split("/")[0] for m in texts if m.split("/")[0].endswith(".dist-info")})
    if len(folders) != 1:
        problems.append(f"{len(folders)} .dist-info folders: {', '.join(folders) or 'none'}")
    folder = folders[0] if folders else ""
    owner, _, number = folder.removesuffix(".dist-info").partition("-")
    if folder and canonicalize_name(owner) != name:
        problems.append(f"{folder} is not of {name or 'the file name'}")
    elif folder and canonicalize_version(number) != canonicalize_version(version):
        problems.append(f"{folder} is not of version {version}")
    for part in ("METADATA", "WHEEL", "RECORD"):
        if f"{folder}/{part}" not in texts:
            problems.append(f"no {part}")
    metadata = _headers(texts.get(f"{folder}/METADATA", b""))
    wheel = _headers(texts.get(f"{folder}/WHEEL", b""))
    return Papers(
        name=name,
        version=version,
        tags=tuple(sorted(tags)),
        metadata_name=metadata.get("name", [""])[0],
        metadata_version=metadata.get("version", [""])[0],
        requires_python=metadata.get("requires-python", [""])[0],
        requires=tuple(metadata.get("requires-dist", [])),
        wheel_tags=tuple(sorted(wheel.get("tag", []))),
        purelib=wheel.get("root-is-purelib", ["?"])[0].lower() != "false",
        generator=wheel.get("generator", [""])[0],
        problems=tuple(problems),
    )


def _headers(text: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in email.message_from_bytes(text).items():
        found.setdefault(key.lower(), []).append(str(value))
    return found


def record_problems(
    texts: Mapping[str, bytes], members: Mapping[str, int], digests: Mapping[str, str]
) -> Iterator[str]:
    """Where RECORD and the members differ; ``digests`` are their sha256 in hexadecimal."""
    path = next((m for m in texts if re.fullmatch(r"[^/]+\.dist-info/RECORD", m)), None)
    if path is None:
        yield "there is no RECORD"
        return
    listed = {}
    text = texts[path].decode("utf-8", "replace")
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        yield f"RECORD cannot be read: {error}"
        return
    for row in rows:
        if len(row) != 3:
            yield f"a line that is no record: {','.join(row)[:80]!r}"
            continue
        if row[0] in listed:
            yield f"{row[0]}: listed twice"
        listed[row[0]] = (row[1], row[2])
    unrecorded = {f"{path.rsplit('/', 1)[0]}/{name}" for name in _UNRECORDED}
    for name in sorted(members.keys() - listed.keys() - unrecorded):
        yield f"{name}: not listed"
    for name in sorted(listed.keys() - members.keys()):
        yield f"{name}: listed, and not there"
    for name in sorted(members.keys() & listed.keys() - unrecorded):
        code, size = listed[name]
        if name not in digests:
            yield f"{name}: could not be read"
        elif problem := _hash_problem(code, digests[name], texts.get(name)):
            yield f"{name}: {problem}"
        elif size != str(members[name]):
            yield f"{name}: {members[name]} bytes, {size or 'no size'} in RECORD"


def _hash_problem(code: str, sha256: str, text: bytes | None) -> str | None:
    algorithm, digest = code.partition("=")[0], sha256
    if algorithm not in ("sha384", "sha512"):  # the specification allows what is longer
        algorithm = "sha256"
    elif text is None:
        return f"RECORD has its {algorithm}, which is judged of small texts alone"
    else:
        digest = hashlib.new(algorithm, text).hexdigest()
    right = base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()
    return None if code == f"{algorithm}={right}" else "another hash than in RECORD"


def unparsed(members: Iterable[str], texts: Mapping[str, bytes]) -> tuple[str, ...]:
    """The modules of the package that cannot be read as Python, or are too large or too deep."""
    modules = filter(_is_module, members)
    return tuple(m for m in modules if m not in texts or _tree(texts[m]) is None)


def bindings(texts: Mapping[str, bytes]) -> tuple[Binding, ...]:
    """Which library each module of the package loads through ctypes, and what it looks up in it.

    As upstream writes it: ``load_shared_library("llama", path)``, the name given as it is or by
    a constant of the module, and ``@ctypes_function("llama_decode", …)``.
    """
    trees = {m: tree for m, text in texts.items() if _is_module(m) and (tree := _tree(text))}
    reached = _reached({_name(member): _imports(tree, member) for member, tree in trees.items()})
    return tuple(
        Binding(member, library, tuple(_looks_up(tree)), _name(member) in reached)
        for member, tree in trees.items()
        if (library := _loads(tree))
    )


def _is_module(member: str) -> bool:
    return member.startswith(f"{PACKAGE}/") and member.endswith(".py")


def _name(member: str) -> str:
    return member.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _tree(text: bytes) -> ast.Module | None:
    if len(text) > MODULE:
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _reached(imports: Mapping[str, set[str]]) -> set[str]:
    """The modules that importing the package leads to, later imports in functions included."""
    found: set[str] = set()
    waiting = [PACKAGE]
    while waiting:
        name = waiting.pop()
        if name in imports and name not in found:
            found.add(name)
            waiting += [*imports[name], name.rpartition(".")[0]]  # its package is imported first
    return found


def _loads(tree: ast.Module) -> str | None:
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) == "load_shared_library" and node.args:
            name = node.args[0]
            value = name.value if isinstance(name, ast.Constant) else None
            if isinstance(name, ast.Name):
                value = constants.get(name.id)
            if isinstance(value, str):
                return value
    return None


def _looks_up(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and _called(call) == "ctypes_function":
                    # A fourth argument or enabled=… says under which condition it is looked up.
                    if len(call.args) > 3 or any(k.arg == "enabled" for k in call.keywords):
                        continue
                    name = call.args[0] if call.args else None
                    if isinstance(name, ast.Constant) and isinstance(name.value, str):
                        yield name.value


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _imports(tree: ast.Module, member: str) -> set[str]:
    """Absolute names of everything a module imports, at any depth of it."""
    package = member.split("/")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found
