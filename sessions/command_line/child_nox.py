"""Runs the sessions of one target in a separate nox process."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.command_line.option_list import BY_FIELD, takes
from sessions.shared import bootstrap, console, knowledge, programs
from sessions.shared.options import Options

# The options that decide how a wheel is built and tested. The others concern one session only.
_VALUES = (
    "version", "cuda", "arch", "python", "toolkit", "glibc", "source", "compiler", "cache", "jobs",
)  # fmt: skip
_SWITCHES = ("offline", "prerelease", "force")


def words(options: Options, session: str = "verify", *, given: bool = False) -> list[str]:
    """The options, except the target, to pass to a session and the sessions that it runs first.

    ``given``: the session gets a finished wheel, so the options of a build are left out.
    """
    args = []
    for name in (*_VALUES, *_SWITCHES):
        option, value = BY_FIELD[name], getattr(options, name)
        if name == "version" and value in knowledge.OFFERED - knowledge.sdists().keys():
            value = "latest"  # no other name of a release without a lock is accepted
        if value not in (None, False, option.default) and takes(option, [session], given=given):
            args.append(option.flag if value is True else f"{option.flag}={value}")
    if takes(BY_FIELD["cmake"], [session], given=given):
        args += [f"--cmake={word}" for word in options.cmake]
    return args


def command(root: Path, sessions: Sequence[str], target: str, more: Sequence[str]) -> list[str]:
    """The command line that runs sessions, and the sessions they need, for one target."""
    # UTF-8 on Windows too, where the default is the system's code page. An option, because
    # variables are ignored in isolated mode.
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
    """Run the sessions with this process's terminal; return the exit code."""
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
    """Run the sessions, print each line of output and write it to ``log``; return the exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8", buffering=1) as kept:
        words = command(root, sessions, target, more)
        return programs.stream(words, env=env, log=kept, on_line=console.say).returncode


def reason(output: str) -> str:
    """Why the sessions failed, from their output: the Problem, and the checks that failed."""
    aborted = re.findall(r"^error: (.+\n(?: {4}.+\n)*)", output, re.MULTILINE)
    wrong = re.findall(r"^[✗x] (.+)$", output, re.MULTILINE)
    lines = [line.strip() for line in (aborted[-1] if aborted else output).splitlines()]
    lines = [line for line in lines if line] or ["it said nothing"]
    what = lines[0] if aborted else lines[-1]
    if what.endswith(":"):  # a list follows
        what = " ".join(lines[:4])
    return f"{what} ({'; '.join(wrong)})" if wrong else what
