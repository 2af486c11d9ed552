"""Which session runs which others first: the noxfile's ``requires`` and the options know it so."""

from __future__ import annotations

from collections.abc import Iterable

_PREPARED = ("probe", "clean")
REQUIRES: dict[str, tuple[str, ...]] = {
    "probe": (),
    "clean": (),
    "source": _PREPARED,
    "toolkit": _PREPARED,
    "configure": ("source", "toolkit"),
    "wheel": ("configure",),
    "matrix": (),
    "verify": ("wheel",),
    "smoke": ("probe", "verify"),
    "ops": ("probe", "verify"),
    "bench": ("probe", "wheel"),
    "bundle": ("verify",),
    "release": (),
    "index": (),
    "publish": (),
    "lock": (),
}
# A wheel that --wheel names need not be built first.
_OF_A_GIVEN_WHEEL: dict[str, tuple[str, ...]] = {
    "verify": (),
    "smoke": ("probe",),
    "ops": ("probe",),
    "bench": ("probe",),
}
OF_FOLDERS = "index"  # takes folders beside its options
DEFAULT = "wheel"  # the session of a command that names none
PYTEST = ("tests", "integration", "tests_windows")  # their words after -- are pytest's
LINT = "lint"  # takes no words
SESSIONS = (*REQUIRES, *PYTEST, LINT)


def requires(session: str, *, given: bool = False, several: bool = False) -> tuple[str, ...]:
    """The sessions that nox runs before this one.

    ``given`` if --wheel names a finished wheel, ``several`` if --targets names targets: these have
    a chain each, which the session runs.
    """
    if several:
        return ()
    return _OF_A_GIVEN_WHEEL.get(session, REQUIRES[session]) if given else REQUIRES[session]


def closure(sessions: Iterable[str], *, given: bool = False) -> tuple[str, ...]:
    """These sessions and all that run before them, in the order of the table."""
    found: set[str] = set()
    new = set(sessions)
    while new:
        found |= new
        new = {name for session in new for name in requires(session, given=given)} - found
    return tuple(name for name in REQUIRES if name in found)
