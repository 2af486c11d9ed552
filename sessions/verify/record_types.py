"""The record ``verify.json``: the results of the checks of one wheel."""

from __future__ import annotations

from dataclasses import dataclass

from sessions.shared.check_result import CheckGroup


@dataclass(frozen=True)
class VerifyReport:
    """The results for one wheel. ``fingerprint`` identifies the rules with which it was checked."""

    file: str
    sha256: str
    target: str
    fingerprint: str
    seconds: float
    groups: tuple[CheckGroup, ...]
