"""Digests of source files that ignore comments and docstrings."""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sessions.shared import records

SESSIONS = Path(__file__).resolve().parents[1]


def imported(paths: Iterable[Path]) -> set[Path]:
    """The paths, and all modules of ours that they import or run by name ("NAME:function")."""
    files: set[Path] = set()
    names: set[str] = set()
    waiting = set(paths)
    while waiting:
        files |= waiting
        new = {name for path in waiting for name in _module(_text(path)).ours} - names
        names |= new
        waiting = {path for name in new for path in _files(SESSIONS, name)} - files
    return files


@functools.cache
def _files(sessions: Path, module: str) -> list[Path]:
    base = sessions.joinpath(*module.split(".")[1:])
    files = (base.with_suffix(".py"), base / "__init__.py", base.parent / "__init__.py")
    return [path for path in files if path.is_file()]


def code(path: Path) -> str:
    """A digest of a source file that ignores comments and docstrings.

    Files that are copied into a wheel (``overlay/*.py``) and C files, in which # does not begin a
    comment, count with every byte except line ends.
    """
    text = _text(path)
    if path.suffix == ".c" or (path.parent.name == "overlay" and path.suffix == ".py"):
        return hashlib.sha256(text).hexdigest()
    return _digest(path.suffix, text)


@functools.cache
def _digest(suffix: str, text: bytes) -> str:
    match suffix:
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
    ours: frozenset[str]  # our modules that it imports or names in a string
    tables: frozenset[str]  # the knowledge files that it names: "cuda.toml"
    code: str


@functools.cache
def _module(text: bytes) -> _Module:
    tree = ast.parse(text)
    words: set[str] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # remove the docstring
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                words |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(base)):
                words |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            case ast.Constant(value=str(value)):
                words |= {value, *re.findall(r"sessions(?:\.\w+)+", value)}
    # A task of limited_process.py is named "sessions.module:function".
    ours = frozenset(word.partition(":")[0] for word in words if word.startswith("sessions."))
    tables = frozenset(word for word in words if word.endswith(".toml"))
    return _Module(ours, tables, hashlib.sha256(ast.dump(tree).encode()).hexdigest())


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
