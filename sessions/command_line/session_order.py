"""Which sessions nox runs before each session. The noxfile and the options use this table."""

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
# The same with --wheel: a finished wheel need not be built first.
_OF_A_GIVEN_WHEEL: dict[str, tuple[str, ...]] = {
    "verify": (),
    "smoke": ("probe",),
    "ops": ("probe",),
    "bench": ("probe",),
}
OF_FOLDERS = "index"  # takes folders in addition to options
DEFAULT = "wheel"  # the session of a command without -s
PYTEST = ("tests", "integration", "tests_windows")  # pass the words after -- to pytest
LINT = "lint"  # takes no words after --
SESSIONS = (*REQUIRES, *PYTEST, LINT)


def requires(session: str, *, given: bool = False, several: bool = False) -> tuple[str, ...]:
    """The sessions that nox runs before this one.

    ``given``: --wheel names a finished wheel. ``several``: --targets names targets; the session
    itself runs the sessions of each target.
    """
    if several:
        return ()
    return _OF_A_GIVEN_WHEEL.get(session, REQUIRES[session]) if given else REQUIRES[session]


def closure(sessions: Iterable[str], *, given: bool = False) -> tuple[str, ...]:
    """These sessions and all sessions that run before them, in the order of the table."""
    names: set[str] = set()
    new = set(sessions)
    while new:
        names |= new
        new = {name for session in new for name in requires(session, given=given)} - names
    return tuple(name for name in REQUIRES if name in names)
