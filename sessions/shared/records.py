"""Records: one JSON file a stage leaves for the stages after it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import stat
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sessions.shared import disk
from sessions.shared.errors import Problem

if TYPE_CHECKING:
    from cattrs import Converter

SCHEMA = 1
LIMIT = 64 << 20  # bytes; the largest that a stage leaves, facts.json, has less than one MB
T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass, or a container of them, as JSON values."""
    return json.loads(json.dumps(value, default=_fields))


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass. ``asdict`` would copy all that they hold, which takes longer."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def from_json(kind: Any, value: Any, *, whole: bool = True, name: str = "record") -> Any:
    """The inverse of ``to_json`` for the annotated type ``kind``.

    Nothing is converted: each value has its field's type, and no field is unknown. With ``whole``
    no field is missing either; else one that has a default may be. Raises ValueError that says for
    every field what is wrong, as "NAME.field: …".
    """
    from cattrs import transform_error  # a tenth of a second, which not every run needs

    try:
        return _converter(whole).structure(value, kind)
    except Exception as error:  # cattrs hands on whatever a hook or a constructor raises
        lines = [line.rpartition(" @ ") for line in transform_error(error, name, _reason)]
        raise ValueError("\n".join(f"{path}: {reason}" for reason, _, path in lines)) from error


def _reason(error: BaseException, kind: type | None) -> str:
    from cattrs.v import format_exception

    return str(error) if type(error) is ValueError else format_exception(error, kind)


@functools.cache
def _converter(whole: bool) -> Converter:
    """A converter that lacks cattrs' own conversions, of 13.1 to "13.1" and of "abc" to a list."""
    from cattrs import Converter, cols
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(forbid_extra_keys=True)

    def checked(inner: Callable[[Any, Any], Any], what: str, *kinds: type) -> Any:
        def structure(value: Any, kind: Any) -> Any:
            if type(value) not in kinds:
                raise ValueError(f"{value!r:.60} is not {what}")
            return inner(value, kind)

        return structure

    def number(value: Any, _: Any) -> Any:
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        return value

    def fields(kind: Any) -> Any:
        names = [field.name for field in dataclasses.fields(kind)]
        inner = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

        def structure(value: Any, _: Any) -> Any:
            missing = [name for name in names if name not in value]
            if whole and missing:
                raise ValueError(f"missing: {', '.join(missing)}")
            return inner(value, kind)

        return checked(structure, "an object", dict)

    def same(value: Any, _: Any) -> Any:
        return value

    for kind, what in ((str, "a string"), (int, "an integer"), (bool, "true or false")):
        converter.register_structure_hook(kind, checked(same, what, kind))
    converter.register_structure_hook(float, checked(number, "a number", float, int))
    converter.register_structure_hook_factory(dataclasses.is_dataclass, fields)
    for origin, make, what, plain in (
        (tuple, cols.homogenous_tuple_structure_factory, "a list", list),
        (list, cols.list_structure_factory, "a list", list),
        (dict, cols.mapping_structure_factory, "an object", dict),
    ):

        def factory(kind: Any, make: Any = make, what: str = what, plain: type = plain) -> Any:
            return checked(make(kind, converter), what, plain)

        def is_kind(kind: Any, origin: type = origin) -> bool:
            return typing.get_origin(kind) is origin

        converter.register_structure_hook_factory(is_kind, factory)
    converter.register_structure_hook(dict, checked(same, "an object", dict))
    return converter


def fingerprint(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_fields)
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
    r"""The text of a record.

    Its own digest goes with it, so that one which was changed by hand counts as damaged. Half of a
    surrogate pair, which a hostile file or a path may have in its name, is written as "\ud800":
    no text of UTF-8 can hold it.
    """
    record = {"schema": SCHEMA, "kind": kind, "ok": ok, kind: value}
    plain = json.dumps(record, ensure_ascii=False, default=_fields)
    record = json.loads(re.sub("[\ud800-\udfff]", _half, plain))
    record["sha256"] = fingerprint(record)
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _half(match: re.Match[str]) -> str:
    return rf"\\u{ord(match[0]):04x}"


def read(path: Path, kind: str, type_: type[T], *, failed: bool = False) -> T | None:
    """The value of a record; None where it is missing, of another schema, damaged or changed.

    A record is only ever a shortcut: whoever gets None does the work again. With ``failed``,
    what is not ok is read too: for whoever tells of it.
    """
    try:
        record = loads(_bytes(path))
        digest = record.pop("sha256")
        if type(record["schema"]) is not int or (record["schema"], record["kind"]) != (
            SCHEMA,
            kind,
        ):
            return None
        if set(record) != {"schema", "kind", "ok", kind} or digest != fingerprint(record):
            return None
        if not failed and record["ok"] is not True:
            return None
        return typing.cast(T, from_json(type_, record[kind]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def loads(data: bytes, *, digits: int = 4000) -> Any:
    """JSON of an untrusted file. Raises ValueError, or RecursionError where it is nested too deep.

    Refused, though Python's json takes it: NaN, infinity and numbers beyond a float's, a name that
    an object has twice, half of a surrogate pair; and integers of more than ``digits`` digits.
    """

    def integer(text: str) -> int:
        if len(text) > digits:
            raise ValueError(f"a number of {len(text)} digits")
        return int(text)

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text[:40]} is not a number that a record may contain")
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name occurs twice")
        return found

    value = json.loads(
        data.decode("utf-8"),
        parse_int=integer,
        parse_float=number,
        parse_constant=number,
        object_pairs_hook=once,
    )
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _bytes(path: Path) -> bytes:
    """A record's bytes. A fifo or a device in its place, which may never end, is not read."""
    with open(path, "rb", opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError(f"{path} is not a file")
        data = stream.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ValueError(f"{path} is larger than any record")
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def need(path: Path, kind: str, type_: type[T], remedy: str = "") -> T:
    """The value of a record that an earlier stage of the same run must have left.

    Else raises Problem, with the command that leaves it as the remedy.
    """
    value = read(path, kind, type_)
    if value is None:
        raise Problem(
            f"The session {kind} has not been run, or its record is damaged.",
            id="record-missing",
            evidence=str(path),
            remedy=remedy or f"nox -s {kind}",
        )
    return value
