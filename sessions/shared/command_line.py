"""The command line that a message names: with the words by which the user called blackwheel."""

from __future__ import annotations

from sessions.shared import programs
from sessions.shared.target import BuildSpec


def command(session: str, spec: BuildSpec, *more: str) -> str:
    """The command line that runs a session for this very spec."""
    name, *parts = spec.target.split("+")
    words = ["nox", "-s", session, "--", "--target", name]
    for prefix, option, value in (
        ("v", "--version", spec.version),
        ("cuda", "--cuda", spec.cuda),
        ("arch", "--arch", ";".join(spec.archs)),
        ("py", "--python", spec.python),
        ("glibc", "--glibc", spec.glibc),
        ("toolkit-", "--toolkit", spec.toolkit),
        ("source-", "--source", spec.source),
    ):
        if value and any(part.startswith(prefix) for part in parts):
            words += [option, value]
    if any(part.startswith("cmake-") for part in parts):
        words += [word for name, value in spec.cmake for word in ("--cmake", f"{name}={value}")]
    return programs.typed([*words, *more])
