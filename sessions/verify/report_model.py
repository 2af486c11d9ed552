"""The checks of one wheel."""

from __future__ import annotations

from dataclasses import dataclass

from sessions.shared.checks import CheckGroup


@dataclass(frozen=True)
class VerifyReport:
    """The judgement of one wheel. ``fingerprint`` is of everything it was judged by."""

    file: str
    sha256: str
    target: str
    fingerprint: str
    seconds: float
    groups: tuple[CheckGroup, ...]
