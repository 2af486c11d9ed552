"""Reads a wheel's file name, METADATA, WHEEL and RECORD, and which libraries its Python loads.

The contents are not trusted: these functions run in a process with limits, and an exception
becomes a problem in the facts (``members``).
"""

from __future__ import annotations

import ast
import base64
import csv
import email.message
import email.parser
import functools
import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from packaging import metadata as core_metadata
from packaging.utils import canonicalize_name, canonicalize_version, parse_wheel_filename

from sessions.verify.wheel_facts import Binding

_Value = TypeVar("_Value", bound=ast.expr)

PACKAGE = "llama_cpp"
_DECORATOR = "ctypes_function_for_shared_library"  # returns a decorator: _ctypes_extensions.py
MODULE = 512 << 10  # bytes of one module; upstream's largest has 190 KB
PYTHON = 2 << 20  # bytes of all modules; upstream's have 700 KB
NODES = 200_000  # nodes of a module's syntax tree; upstream's largest has less than 25 000
REQUIRES = 500  # requirements that are read; upstream's releases have 30
LONG = 1000  # characters of a requirement or a version
MOST = 200  # problems of RECORD that are listed
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")  # binary distribution format specification


@dataclass(frozen=True)
class Metadata:
    """The parts of the file name, and the headers of METADATA and WHEEL."""

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


def read(file: str, texts: Mapping[str, bytes], members: Iterable[str] = ()) -> Metadata:
    """The contents of a wheel's file name and its ``.dist-info``.

    ``texts`` are the small members, ``members`` the names of all members.
    """
    problems = []
    name, version, build, tags = "", "", "", frozenset[str]()
    try:
        parsed, parsed_version, parsed_build, parsed_tags = parse_wheel_filename(file)
        name, version = str(parsed), str(parsed_version)
        build = "".join(map(str, parsed_build))
        tags = frozenset(str(tag) for tag in parsed_tags)
    except ValueError as error:  # InvalidWheelFilename, and numbers that are too long
        problems.append(f"the file name: {error}")
    tops = {member.split("/")[0] for member in (*texts, *members)}
    folders = sorted(top for top in tops if top.lower().endswith(".dist-info"))
    if len(folders) != 1:
        problems.append(f"{len(folders)} .dist-info folders: {', '.join(folders) or 'none'}")
    folder = folders[0] if folders else ""
    owner, _, number = folder.removesuffix(".dist-info").partition("-")
    if folder and canonicalize_name(owner) != name:
        problems.append(f"{folder} is not of {name or 'the file name'}")
    elif folder and _canonical(number) != _canonical(version):
        problems.append(f"{folder} is not of version {version}")
    for part in ("METADATA", "WHEEL", "RECORD"):
        if f"{folder}/{part}" not in texts:
            large = f"{folder}/{part}" in members
            problems.append(f"{part} cannot be read, or is too large" if large else f"no {part}")
    fields, requires = _bounded(_metadata(texts.get(f"{folder}/METADATA"), problems), problems)
    wheel = _wheel(texts.get(f"{folder}/WHEEL"), build, problems)
    return Metadata(
        name=name,
        version=version,
        tags=tuple(sorted(tags)),
        metadata_name=fields["name"],
        metadata_version=fields["version"],
        requires_python=fields["requires_python"],
        requires=tuple(requires),
        wheel_tags=tuple(sorted(wheel.get("tag", []))),
        purelib=wheel.get("root-is-purelib", ["?"])[0].lower() != "false",
        generator=wheel.get("generator", [""])[0],
        problems=tuple(problems),
    )


def _canonical(version: str) -> str:
    try:
        return canonicalize_version(version)
    except ValueError:  # a number with more digits than Python converts
        return version


def _metadata(data: bytes | None, problems: list[str]) -> core_metadata.RawMetadata:
    """The fields of METADATA, as ``packaging`` reads and validates them."""
    if data is None:
        return {}
    headers = _headers("METADATA", data, problems)
    # With these headers, readers split the body into parts, as in an e-mail with attachments.
    if any(key.lower().startswith(("content-", "mime-")) for key in headers):
        problems.append("METADATA: headers of a letter, by which readers take its text apart")
        return {}
    raw, unparsed = core_metadata.parse_email(str(headers))
    problems += [f"METADATA: {key} is unknown, or occurs more than once" for key in unparsed]
    try:
        core_metadata.Metadata.from_raw(raw)
    except core_metadata.ExceptionGroup as group:
        problems += [f"METADATA: {error}" for error in group.exceptions]
    except ValueError as error:
        problems.append(f"METADATA: {error}")
    return raw


def _bounded(
    raw: core_metadata.RawMetadata, problems: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Name, version and requires_python, and the requirements, cut to what can be checked fast."""
    every = raw.get("requires_dist", [])
    requires = [text for text in every if len(text) <= LONG][:REQUIRES]
    if len(requires) != len(every):
        problems.append(
            f"METADATA: more than {REQUIRES} requirements, or one of thousands of signs"
        )
    fields = {key: str(raw.get(key, "")) for key in ("name", "version", "requires_python")}
    long = [key for key, text in fields.items() if len(text) > LONG]
    problems += [f"METADATA: {key} has over {LONG} signs" for key in long]
    return {key: text[:LONG] for key, text in fields.items()}, requires


def _wheel(data: bytes | None, build: str, problems: list[str]) -> dict[str, list[str]]:
    """The fields of WHEEL by their names in lower case.

    Source: the binary distribution format specification. Installers refuse a Wheel-Version with
    another major number and warn of another minor one; there is only 1.0.
    """
    if data is None:
        return {}
    headers = _headers("WHEEL", data, problems)
    fields: dict[str, list[str]] = {}
    for key, value in headers.items():
        fields.setdefault(key.lower(), []).append(value)
    for key, least, most in (
        ("wheel-version", 1, 1),
        ("root-is-purelib", 1, 1),
        ("generator", 0, 1),
        ("build", 0, 1),
        ("tag", 1, 1000),
    ):
        if not least <= len(fields.get(key, [])) <= most:
            problems.append(f"WHEEL: {len(fields.get(key, []))} lines {key}")
    if (number := fields.get("wheel-version", ["1.0"])[0]) != "1.0":
        problems.append(f"WHEEL: Wheel-Version {number}, and installers know 1.0")
    if fields.get("root-is-purelib", ["false"])[0].lower() not in ("true", "false"):
        problems.append("WHEEL: Root-Is-Purelib is neither true nor false")
    if fields.get("build", [build])[0] != build:
        problems.append(
            f"WHEEL: Build {fields['build'][0]}, and {build or 'none'} in the file name"
        )
    if str(headers.get_payload()).strip():
        problems.append("WHEEL: a text after its headers")
    return fields


def _headers(file: str, data: bytes, problems: list[str]) -> email.message.Message:
    """The headers of a text; its body is not parsed."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        problems.append(f"{file} is not UTF-8")
        return email.message.Message()
    headers = email.parser.HeaderParser().parsestr(text)
    if headers.defects or "\0" in text:
        problems.append(f"{file}: a line that is not a header")
    return headers


def record_problems(
    texts: Mapping[str, bytes], members: Mapping[str, int], digests: Mapping[str, str]
) -> Iterator[str]:
    """The first ``MOST`` differences between RECORD and the members.

    ``digests`` are the members' sha256 in hexadecimal.
    """
    path = next((m for m in members if re.fullmatch(r"[^/]+\.dist-info/RECORD", m)), None)
    if path is None:
        yield "there is no RECORD"
    elif path not in texts:
        yield "RECORD cannot be read, or is too large"
    else:
        yield from itertools.islice(_record(path, texts, members, digests), MOST)


def _record(
    path: str,
    texts: Mapping[str, bytes],
    members: Mapping[str, int],
    digests: Mapping[str, str],
) -> Iterator[str]:
    listed = {}
    try:
        rows = csv.reader(io.StringIO(texts[path].decode("utf-8"), newline=""), strict=True)
        for row in rows:
            if len(row) != 3:
                yield f"a line that is not a record: {','.join(row)[:80]!r}"
                continue
            if row[0] in listed:
                yield f"{row[0]}: listed twice"
            listed[row[0]] = (row[1], row[2])
    except (csv.Error, UnicodeDecodeError) as error:
        yield f"RECORD cannot be read: {error}"
        return
    if listed.get(path, ("", "")) != ("", ""):
        yield f"{path}: a hash or a size of itself"
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
    if algorithm not in ("sha384", "sha512"):  # the specification allows longer hashes
        algorithm = "sha256"
    elif text is None:
        return f"RECORD has its {algorithm}, which is checked for small texts only"
    else:
        digest = hashlib.new(algorithm, text).hexdigest()
    right = base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()
    return None if code == f"{algorithm}={right}" else "another hash than in RECORD"


def unparsed(members: Iterable[str], texts: Mapping[str, bytes]) -> tuple[str, ...]:
    """The modules of the package whose bindings are not known.

    They are not valid Python, are too large or too deep, or look up functions in a way that
    ``bindings`` does not read. A module that only loads a library (upstream's _ggml.py) is known.
    """
    known = {member for member, module in _modules(texts).items() if module and module.known}
    return tuple(member for member in filter(_is_module, members) if member not in known)


def bindings(texts: Mapping[str, bytes]) -> tuple[Binding, ...]:
    """The library that each module of the package loads with ctypes, and the functions it looks up.

    Upstream writes ``load_shared_library("llama", path)``, with the name as a literal or a constant
    of the module, and ``@ctypes_function("llama_decode", …)``. Forks load several libraries in
    one module, with a decorator for each.
    """
    modules = {member: module for member, module in _modules(texts).items() if module}
    reached = _reached({_name(member): module.imports for member, module in modules.items()})
    return tuple(
        Binding(member, library, functions, _name(member) in reached)
        for member, module in modules.items()
        for library, functions in module.functions.items()
    )


@dataclass(frozen=True)
class _Module:
    functions: Mapping[str, tuple[str, ...]]  # that it looks up, by library
    imports: frozenset[str]
    known: bool  # whether these are all: not if it makes a decorator and looks up nothing


def _modules(texts: Mapping[str, bytes]) -> dict[str, _Module | None]:
    """The facts of each module; None if it is not read. Only one syntax tree is kept at a time.

    Modules after the first ``PYTHON`` bytes are not read.
    """
    found: dict[str, _Module | None] = {}
    left = PYTHON
    for member, text in texts.items():
        if _is_module(member):
            found[member] = _module(member, text) if len(text) <= min(MODULE, left) else None
            left = max(0, left - len(text))
    return found


@functools.lru_cache(maxsize=2000)
def _module(member: str, text: bytes) -> _Module | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    nodes = list(itertools.islice(ast.walk(tree), NODES + 1))
    if len(nodes) > NODES:
        return None
    constants = _constants(tree)
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    found_in = (_loads(call, constants) for call in calls)
    libraries = [library for library in found_in if library is not None]
    variables = _variables(nodes, constants)
    if libraries:
        variables.setdefault("ctypes_function", libraries[0])
    functions = [
        found for node in nodes if isinstance(node, ast.FunctionDef) for found in _looks_up(node)
    ]
    found = {
        library: tuple(name for by, name in functions if variables.get(by) == library)
        for library in libraries
    }
    decorators = [call for call in calls if _called(call) == _DECORATOR]
    known = all(_decorates(call, variables) is not None for call in decorators)
    imports = [
        _imports(node, member) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    return _Module(
        found,
        frozenset().union(*imports),
        known and (not decorators or any(found.values())),
    )


def _is_module(member: str) -> bool:
    return member.startswith(f"{PACKAGE}/") and member.endswith(".py")


def _name(member: str) -> str:
    return member.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _reached(imports: Mapping[str, frozenset[str]]) -> set[str]:
    """The modules that are imported with the package, including imports in functions."""
    found: set[str] = set()
    waiting = [PACKAGE]
    while waiting:
        name = waiting.pop()
        if name in imports and name not in found:
            found.add(name)
            waiting += [*imports[name], name.rpartition(".")[0]]  # its package is imported first
    return found


def _assigned(nodes: Iterable[ast.AST], kind: type[_Value]) -> Iterator[tuple[str, _Value]]:
    """Each variable to which a value of this kind is assigned, and the value, by line number.

    ast.walk would return the contents of a block, such as a try, after the lines below the block.
    """
    found = [node for node in nodes if isinstance(node, (ast.Assign, ast.AnnAssign))]
    for node in sorted(found, key=lambda node: node.lineno):
        if isinstance(node.value, kind):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id, node.value


def _constants(tree: ast.Module) -> dict[str, object]:
    return {name: constant.value for name, constant in _assigned(tree.body, ast.Constant)}


def _variables(nodes: Iterable[ast.AST], constants: Mapping[str, object]) -> dict[str, str]:
    """The library of each variable whose value is a library, or a decorator for one."""
    found: dict[str, str] = {}
    for name, call in _assigned(nodes, ast.Call):
        library = _loads(call, constants)
        library = _decorates(call, found) if library is None else library
        if library is not None:
            found[name] = library
    return found


def _argument(call: ast.Call, name: str) -> ast.expr | None:
    """The first argument of a call, or the keyword argument with this name."""
    return next(iter([*call.args, *(k.value for k in call.keywords if k.arg == name)]), None)


def _loads(call: ast.Call, constants: Mapping[str, object]) -> str | None:
    """The library that a call loads, if it loads one."""
    if _called(call) != "load_shared_library":
        return None
    name = _argument(call, "lib_base_name")
    value = constants.get(name.id) if isinstance(name, ast.Name) else getattr(name, "value", None)
    return value if isinstance(value, str) else None


def _decorates(call: ast.Call, variables: Mapping[str, str]) -> str | None:
    """The library in which the decorator looks up functions, if the call makes a decorator."""
    library = _argument(call, "lib") if _called(call) == _DECORATOR else None
    return variables.get(library.id) if isinstance(library, ast.Name) else None


def _looks_up(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Each decorator of a function, and the C function that it looks up unconditionally."""
    for call in function.decorator_list:
        if isinstance(call, ast.Call):
            # A fourth argument or one of these keywords is a condition for the look-up.
            if len(call.args) > 3 or any(k.arg in ("enabled", "required") for k in call.keywords):
                continue
            name = _argument(call, "name")
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield _called(call), name.value


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _imports(node: ast.Import | ast.ImportFrom, member: str) -> set[str]:
    """The absolute names that an import statement of a module imports."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    package = member.split("/")[:-1]
    base = package[: len(package) - node.level + 1] if node.level else []
    name = ".".join([*base, *([node.module] if node.module else [])])
    return {name} | {f"{name}.{alias.name}" for alias in node.names}
