"""The result of a check, and a group of them with a heading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The result of one check. ``remedy`` is empty only if the status is ok."""

    id: str
    status: Status
    summary: str
    evidence: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class CheckGroup:
    """Checks of one kind, with a heading for people."""

    name: str
    checks: tuple[Check, ...]
