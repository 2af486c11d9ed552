"""Records: one JSON file a stage leaves for the stages after it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from sessions.core import disk
from sessions.core.errors import Problem

SCHEMA = 1
T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass, or a container of them, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def from_json(kind: Any, value: Any) -> Any:
    """The inverse of ``to_json`` for the annotated type ``kind``. Raises TypeError, KeyError."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (arg for arg in typing.get_args(kind) if arg is not type(None))
        return from_json(inner, value)
    if origin is tuple:
        return tuple(from_json(typing.get_args(kind)[0], item) for item in value)
    if origin is dict:
        return {name: from_json(typing.get_args(kind)[1], item) for name, item in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(Any, kind)(
            **{f.name: from_json(hints[f.name], value[f.name]) for f in dataclasses.fields(kind)}
        )
    return value


def fingerprint(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_sha256(text: bytes) -> str:
    """SHA-256 of a text, whatever its line ends are."""
    return hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: UTF-8, each line ended by a line feed."""
    with disk.whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write(path: Path, kind: str, value: Any, *, ok: bool = True) -> None:
    """Write a record. One that is not ``ok`` is for people and programs; no stage takes it."""
    write_text(path, text(kind, value, ok=ok))


def text(kind: str, value: Any, *, ok: bool = True) -> str:
    """The text of a record.

    Its own digest goes with it, so that one which was changed by hand counts as damaged.
    """
    record = {"schema": SCHEMA, "kind": kind, "ok": ok, kind: to_json(value)}
    record["sha256"] = fingerprint(record)
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def read(path: Path, kind: str, type_: type[T], *, failed: bool = False) -> T | None:
    """The value of a record; None where it is missing, of another schema, damaged or changed.

    A record is only ever a shortcut: whoever gets None does the work again. With ``failed``,
    what is not ok is read too: for whoever tells of it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        said = record.pop("sha256")
        if record["schema"] != SCHEMA or said != fingerprint(record):
            return None
        if not failed and record["ok"] is not True:
            return None
        return typing.cast(T, from_json(type_, record[kind]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def need(path: Path, kind: str, type_: type[T]) -> T:
    """The value of a record that an earlier stage of the same run must have left."""
    value = read(path, kind, type_)
    if value is None:
        raise Problem(
            f"The record of {kind!r} is missing or cannot be read.",
            id="record-missing",
            evidence=str(path),
            remedy=f"nox -s {kind}",
        )
    return value
