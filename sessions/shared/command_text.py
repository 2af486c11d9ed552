"""Command lines for messages: of a session, and of the wheel's Python."""

from __future__ import annotations

from sessions.shared import programs
from sessions.shared.build_spec import BuildSpec


def command(session: str, spec: BuildSpec, *more: str) -> str:
    """The command line that runs a session for exactly this spec."""
    return programs.typed(["nox", "-s", session, "--", *spec.arguments, *more])


def python(spec: BuildSpec, *words: str) -> str:
    """A command line of the wheel's Python on the wheel's system.

    python.org's installer for Windows provides only ``py`` with a version (PEP 397).
    """
    windows = spec.platform == "windows"
    own = ["py", f"-{spec.python}"] if windows else [f"python{spec.python}"]
    return programs.typed([*own, *words])
