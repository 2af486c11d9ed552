"""The command line that a message names: with the words by which the user called blackwheel."""

from __future__ import annotations

from sessions.shared import programs
from sessions.shared.target import BuildSpec


def command(session: str, spec: BuildSpec, *more: str) -> str:
    """The command line that runs a session for this very spec."""
    return programs.typed(["nox", "-s", session, "--", *spec.arguments, *more])
