"""Readers for the values of a report that another machine wrote, each of a required type; pure.

A reader takes the name of a field and its value, and returns the value. It raises a ValueError
that names the field. Python itself accepts too much: True is an int, float("5") is a number, and
float(10**400) raises an OverflowError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Reader = Callable[[str, Any], Any]
LONGEST = 500  # characters of a field that is one line
LARGEST = 2**53  # the largest whole number that every JSON reader keeps exact


def any_number(name: str, value: Any) -> float:
    """A number, NaN and Infinity included, because a computation may return them."""
    if type(value) not in (int, float) or (type(value) is int and abs(value) > LARGEST):
        raise ValueError(f"{name} is not a number")
    return float(value)


def number(name: str, value: Any) -> float:
    """A finite number."""
    found = any_number(name, value)
    if not math.isfinite(found):
        raise ValueError(f"{name} is {found}, not a finite number")
    return found


def positive(name: str, value: Any) -> float:
    """A finite number greater than zero."""
    found = number(name, value)
    if found <= 0:
        raise ValueError(f"{name} is {found}, not greater than zero")
    return found


def count(name: str, value: Any) -> int:
    """A whole number that is not negative."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError(f"{name} is not a count")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False; 1 and "true" are refused."""
    if type(value) is not bool:
        raise ValueError(f"{name} is neither true nor false")
    return value


def text(name: str, value: Any) -> str:
    """A text of any number of lines."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value


def line(name: str, value: Any) -> str:
    """A text of one line, without control characters."""
    found = text(name, value)
    if not found or len(found) > LONGEST or not found.isprintable():
        raise ValueError(f"{name} is not a text of one line")
    return found


def table(name: str, value: Any) -> dict[str, Any]:
    """A JSON object with any names."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def optional(read: Reader) -> Reader:
    """Reads None, or what ``read`` reads."""
    return lambda name, value: None if value is None else read(name, value)


def list_of(read: Reader) -> Reader:
    """Reads a list; returns a tuple."""

    def items(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{name} is not a list")
        return tuple(read(f"{name}[{number}]", item) for number, item in enumerate(value))

    return items


def table_of(read: Reader) -> Reader:
    """Reads a JSON object with any names, each of one line."""
    return lambda name, value: {
        line(f"a name in {name}", key): read(key, item) for key, item in table(name, value).items()
    }


def object_of(fields: Mapping[str, Reader], may: Mapping[str, Reader] | None = None) -> Reader:
    """Reads a JSON object that has all of ``fields``, perhaps some of ``may``, and nothing else."""
    readers = {**fields, **(may or {})}

    def values(name: str, value: Any) -> dict[str, Any]:
        present = table(name, value).keys()
        if missing := fields.keys() - present:
            raise ValueError(f"{name} has no {', '.join(sorted(missing))}")
        if more := present - readers.keys():
            raise ValueError(f"{name} has {', '.join(map(repr, sorted(more)))}, which is not known")
        return {key: readers[key](key, item) for key, item in value.items()}

    return values
