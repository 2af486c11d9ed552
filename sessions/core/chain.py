"""One target's chain of sessions, run by a nox of its own with this process's terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.core import console, run
from sessions.core.options import Options

# What decides how a wheel is built and proven; every other option is of one session alone.
_VALUES = ("version", "cuda", "arch", "python", "toolkit", "source", "compiler", "cache", "jobs")
_SWITCHES = ("offline", "prerelease", "force")


def words(options: Options) -> list[str]:
    """The options that every session of a chain is given, but for the target, as words."""
    found = [(name, getattr(options, name)) for name in _VALUES]
    given = [f"--{name}={value}" for name, value in found if value is not None]
    return given + [f"--{name}" for name in _SWITCHES if getattr(options, name)]


def command(root: Path, sessions: Sequence[str], target: str, more: Sequence[str]) -> list[str]:
    """The command line that runs sessions, and those they need, for one target."""
    # UTF-8 also on Windows, where a child would write in the system's own code page; by an option,
    # which holds in isolated mode too.
    nox = [sys.executable, "-X", "utf8", "-m", "nox", "-f", str(root / "noxfile.py")]
    return [*nox, "-s", *sessions, "--", f"--target={target}", *more]


def follow(
    root: Path,
    sessions: Sequence[str],
    target: str,
    more: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run it to the end, its output on this terminal; return the exit code."""
    return run.inherit(command(root, sessions, target, more), env=env)


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
        return run.stream(told, env=env, log=kept, on_line=console.say).returncode


def reason(said: str) -> str:
    """Why a chain failed, from what it said: its Problem, and what it found to be wrong."""
    aborted = re.findall(r"^nox > Session \S+ aborted: (.+\n(?: {4}.+\n)*)", said, re.MULTILINE)
    wrong = re.findall(r"^[✗x] (.+)$", said, re.MULTILINE)
    lines = [line.strip() for line in (aborted[-1] if aborted else said).splitlines()]
    lines = [line for line in lines if line] or ["it said nothing"]
    what = lines[0] if aborted else lines[-1]
    if what.endswith(":"):  # what it announces is part of it
        what = " ".join(lines[:4])
    return f"{what} ({'; '.join(wrong)})" if wrong else what
