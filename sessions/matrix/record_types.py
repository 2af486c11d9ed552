"""The record ``matrix``: the wheels of several targets for several Pythons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MatrixRow:
    """The wheel of one target for one Python, and what it took. Size in bytes, times in seconds.

    ``outcome``: "repacked" is another Python's wheel under the tag of this Python; "same" is the
    unchanged wheel of another Python. ``folder`` is where it is in wheels/. ``shared`` names what
    came from earlier rows or from the compiler cache. A row that failed has no file, but a
    ``reason`` and a ``remedy``: in most cases the command that makes only this wheel.
    """

    target: str
    python: str
    outcome: Literal["built", "up to date", "repacked", "same", "failed"]
    folder: str
    file: str
    sha256: str
    size: int
    wall_seconds: float
    cpu_seconds: float | None
    cache: dict[str, int]
    shared: tuple[str, ...]
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Matrix:
    """The wheels of several targets, for several Pythons. ``began`` is ISO 8601 in UTC."""

    began: str
    seconds: float
    rows: tuple[MatrixRow, ...]
