"""A released wheel, and whether one may be released."""

from __future__ import annotations

from dataclasses import dataclass, field

from sessions.shared.checks import Check


@dataclass(frozen=True)
class Release:
    """A wheel in ``dist/<target>/`` that the gate let through. Size in bytes.

    ``tested`` is False where it was released without a run on a GPU of its kind; ``tested`` is
    when it was run, ISO 8601 in UTC. ``commit`` is that of this project by which it was released.
    """

    target: str
    file: str
    sha256: str
    size: int
    version: str
    cuda: str | None
    archs: tuple[str, ...]
    tested: bool
    proven: str | None
    commit: str = ""
    files: dict[str, str] = field(default_factory=dict)  # what is beside it -> sha256


@dataclass(frozen=True)
class Gate:
    """Whether a target's wheel may be released: every check, and the file it was made of."""

    target: str
    file: str  # "" where there is none
    sha256: str
    untested: tuple[str, ...]  # compute capabilities, or "cpu", on which it was not tested
    checks: tuple[Check, ...]
