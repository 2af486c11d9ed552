"""Records: JSON files with a digest, which phases write for later phases. Hashes of files."""

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
LIMIT = 64 << 20  # bytes; the largest record, facts.json, has less than one MB
T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass, or a container of them, as JSON values."""
    return json.loads(json.dumps(value, default=_fields))


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass. ``asdict`` is slower, because it copies the values."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def from_json(kind: Any, value: Any, *, whole: bool = True, name: str = "record") -> Any:
    """The inverse of ``to_json`` for the annotated type ``kind``.

    Values are not converted. Raises ValueError, with a line "NAME.field: …" per wrong field, if a
    value is not of its field's type, a field is unknown, or a field is missing. With ``whole`` a
    field with a default must not be missing either.
    """
    from cattrs import transform_error  # not at the top: it takes 0.1 s

    try:
        return _converter(whole).structure(value, kind)
    except Exception as error:  # cattrs raises whatever a hook or a constructor raises
        lines = [line.rpartition(" @ ") for line in transform_error(error, name, _reason)]
        raise ValueError("\n".join(f"{path}: {reason}" for reason, _, path in lines)) from error


def _reason(error: BaseException, kind: type | None) -> str:
    from cattrs.v import format_exception

    return str(error) if type(error) is ValueError else format_exception(error, kind)


@functools.cache
def _converter(whole: bool) -> Converter:
    """A converter without cattrs' own conversions, such as 13.1 to "13.1" or "abc" to a list."""
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
    """SHA-256 of a text, independent of its line ends."""
    return hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: UTF-8, with line feeds."""
    with disk.whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write(path: Path, kind: str, value: Any, *, ok: bool = True) -> None:
    """Write a record. One that is not ``ok`` is for people and scripts; no phase reads it."""
    write_text(path, text(kind, value, ok=ok))


def text(kind: str, value: Any, *, ok: bool = True) -> str:
    r"""The text of a record.

    It contains its own digest, so an edited record counts as damaged. Half of a surrogate pair,
    which may be in the name of a file, is written as "\ud800", because UTF-8 cannot encode it.
    """
    record = {"schema": SCHEMA, "kind": kind, "ok": ok, kind: value}
    plain = json.dumps(record, ensure_ascii=False, default=_fields)
    record = json.loads(re.sub("[\ud800-\udfff]", _half, plain))
    record["sha256"] = fingerprint(record)
    return _lines(record, 3) + "\n"


def _lines(value: Any, levels: int, margin: str = "\n") -> str:
    """JSON with a line per item in the outer ``levels``. ``json.dumps(indent=…)`` is slower."""
    if not levels or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    inner = f"{margin}  "
    if isinstance(value, list):
        items = [_lines(item, levels - 1, inner) for item in value]
    else:
        items = [
            f"{json.dumps(name, ensure_ascii=False)}: {_lines(item, levels - 1, inner)}"
            for name, item in value.items()
        ]
    start, end = "[]" if isinstance(value, list) else "{}"
    return f"{start}{inner}{f',{inner}'.join(items)}{margin}{end}"


def _half(match: re.Match[str]) -> str:
    return rf"\\u{ord(match[0]):04x}"


def read(path: Path, kind: str, type_: type[T], *, failed: bool = False) -> T | None:
    """The value of a record; None if it is missing, of another schema, damaged or edited.

    A caller that gets None does the work again. With ``failed``, a record that is not ok is read
    too, in order to report it.
    """
    try:
        record = loads(_bytes(path))
        digest = record.pop("sha256")
        head = [type(record["schema"]), record["schema"], record["kind"]]
        if head != [int, SCHEMA, kind] or set(record) != {"schema", "kind", "ok", kind}:
            return None
        if digest != fingerprint(record) or not (failed or record["ok"] is True):
            return None
        return typing.cast(T, from_json(type_, record[kind]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def loads(data: bytes, *, digits: int = 4000) -> Any:
    """Parse JSON of an untrusted file. Raises ValueError, or RecursionError for deep nesting.

    Refuses what Python's json accepts: NaN, infinity, numbers beyond a float's range, a name twice
    in an object, half of a surrogate pair; and integers of more than ``digits`` digits.
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
        result = dict(pairs)
        if len(result) < len(pairs):
            raise ValueError("a name occurs twice")
        return result

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
    """The bytes of a record. Raises ValueError for a fifo or a device, which may never end."""
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
    """The value of a record that an earlier phase of this run wrote.

    Raises Problem if there is none; the remedy is the command that writes it.
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
