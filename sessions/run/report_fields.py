"""Values of a file that somebody else wrote, each of the type that it must have; pure.

Python takes more than is meant: True is an int, float("5") a number, float(10**400) an
OverflowError. Each function raises ValueError that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

LONGEST = 500  # characters of a field that is one line
LARGEST = 2**53  # the largest whole number that every reader of JSON keeps exact


def number(name: str, value: Any, *, any_float: bool = False) -> float:
    """A finite number; with ``any_float`` also NaN and Infinity, which a computation may give."""
    if type(value) not in (int, float) or (type(value) is int and abs(value) > LARGEST):
        raise ValueError(f"{name} is not a number")
    found = float(value)
    if not (any_float or math.isfinite(found)):
        raise ValueError(f"{name} is {found}, not a finite number")
    return found


def positive(name: str, value: Any) -> float:
    """A finite number greater than zero."""
    found = number(name, value)
    if found <= 0:
        raise ValueError(f"{name} is {found}, not greater than zero")
    return found


def count(name: str, value: Any) -> int:
    """A whole number from zero on."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError(f"{name} is not a count")
    return value


def flag(name: str, value: Any) -> bool:
    """A truth value: 1 and "true" are none."""
    if type(value) is not bool:
        raise ValueError(f"{name} is neither true nor false")
    return value


def text(name: str, value: Any) -> str:
    """A text of any number of lines."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value


def line(name: str, value: Any) -> str:
    """A text of one line, without what commands a terminal."""
    found = text(name, value)
    if not found or len(found) > LONGEST or not found.isprintable():
        raise ValueError(f"{name} is not a text of one line")
    return found


def table(name: str, value: Any) -> dict[str, Any]:
    """An object of JSON."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def items(name: str, value: Any) -> list[dict[str, Any]]:
    """A list of objects."""
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return [table(f"{name}[{number}]", item) for number, item in enumerate(value)]


def only(
    name: str, value: dict[str, Any], names: Iterable[str], *, may: Iterable[str] = ()
) -> None:
    """That an object has these names, maybe some of ``may``, and no other."""
    wanted, there = set(names), set(value)
    if missing := wanted - there:
        raise ValueError(f"{name} has no {', '.join(sorted(missing))}")
    if more := there - wanted - set(may):
        raise ValueError(f"{name} has {', '.join(map(repr, sorted(more)))}, which is not known")
