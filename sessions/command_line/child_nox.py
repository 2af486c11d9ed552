"""One target's chain of sessions, run by a nox of its own with this process's terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.command_line.option_list import BY_FIELD, takes
from sessions.shared import bootstrap, console, knowledge, programs
from sessions.shared.options import Options

# What decides how a wheel is built and tested; every other option is of one session only.
_VALUES = (
    "version", "cuda", "arch", "python", "toolkit", "glibc", "source", "compiler", "cache", "jobs",
)  # fmt: skip
_SWITCHES = ("offline", "prerelease", "force")


def words(options: Options, session: str = "verify", *, given: bool = False) -> list[str]:
    """The options, but for the target, that a session and those it runs first are handed.

    ``given`` where it is handed a finished wheel, so that it takes no options of a build.
    """
    found = []
    for name in (*_VALUES, *_SWITCHES):
        option, value = BY_FIELD[name], getattr(options, name)
        if name == "version" and value in knowledge.OFFERED - knowledge.sdists().keys():
            value = "latest"  # only this is taken without a lock
        if value not in (None, False, option.default) and takes(option, [session], given=given):
            found.append(option.flag if value is True else f"{option.flag}={value}")
    if takes(BY_FIELD["cmake"], [session], given=given):
        found += [f"--cmake={word}" for word in options.cmake]
    return found


def command(root: Path, sessions: Sequence[str], target: str, more: Sequence[str]) -> list[str]:
    """The command line that runs sessions, and those they need, for one target."""
    # UTF-8 also on Windows, where a child would write in the system's own code page; by an option,
    # which holds in isolated mode too.
    words = ["-s", *sessions, "--", f"--target={target}", *more]
    return [sys.executable, *bootstrap.FLAGS, "-X", "utf8", str(root / "noxfile.py"), *words]


def follow(
    root: Path,
    sessions: Sequence[str],
    target: str,
    more: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run it to the end, its output on this terminal; return the exit code."""
    return programs.inherit(command(root, sessions, target, more), env=env)


def heard(
    root: Path,
    sessions: Sequence[str],
    target: str,
    more: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
) -> int:
    """Run it to the end, each line said here and kept in ``log``; return the exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8", buffering=1) as kept:
        told = command(root, sessions, target, more)
        return programs.stream(told, env=env, log=kept, on_line=console.say).returncode


def reason(said: str) -> str:
    """Why a chain failed, from what it said: its Problem, and what it found to be wrong."""
    aborted = re.findall(r"^error: (.+\n(?: {4}.+\n)*)", said, re.MULTILINE)
    wrong = re.findall(r"^[✗x] (.+)$", said, re.MULTILINE)
    lines = [line.strip() for line in (aborted[-1] if aborted else said).splitlines()]
    lines = [line for line in lines if line] or ["it said nothing"]
    what = lines[0] if aborted else lines[-1]
    if what.endswith(":"):  # what it announces is part of it
        what = " ".join(lines[:4])
    return f"{what} ({'; '.join(wrong)})" if wrong else what
