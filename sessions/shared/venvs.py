"""Creates venvs, and runs pip in them with the user's package index settings."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from sessions.payload import pipconfig
from sessions.shared import child_environment, in_use, programs
from sessions.shared.context import Context
from sessions.shared.errors import Problem


def program(venv: Path, name: str) -> Path:
    """A program of a venv: in ``bin``, or in ``Scripts`` with ".exe" on Windows."""
    if sys.platform == "win32":
        return venv / "Scripts" / f"{name}.exe"
    return venv / "bin" / name


def make(ctx: Context, python: str, version: str, venv: Path) -> None:
    """Create a venv with a Python of minor version ``version``. Raises Problem."""
    words = [python, "-I", "-m", "venv", str(venv)]
    done = programs.capture(words, env=child_environment.pip_environment(ctx.env))
    if done.returncode:
        raise Problem(
            f"Python {version} could not make a venv.",
            id="venv-failed",
            evidence=tail(done.output),
            remedy=f"install the venv module of Python {version} "
            f"(Debian, Ubuntu: apt install python{version}-venv)",
        )


def pip(ctx: Context, venv: Path, words: Sequence[str], what: str) -> str:
    """Run pip and return its stdout. ``what`` it installs, for messages. Raises Problem."""
    python, env = str(program(venv, "python")), child_environment.pip_environment(ctx.env)
    listed = _settings(python, tuple(env.items()))
    command = [python, "-I", "-X", "utf8", "-m", "pip", "--disable-pip-version-check", *words]
    if ctx.options.offline:
        command.append("--no-index")
    with ctx.scratch() as scratch:
        # pip downloads and unpacks in a temporary folder on the disk of the results. The mark lets
        # the next run end a pip that a killed run left.
        own = {"PYTHONUTF8": "1", **in_use.temporary(scratch)}
        env = {**pipconfig.environment(env, listed, words[0]), **own}
        done = programs.capture(command, env=env)
    if done.returncode:
        raise _pip_problem(done.output, what, offline=ctx.options.offline)
    return done.stdout


@functools.cache
def _settings(python: str, env: tuple[tuple[str, str], ...]) -> str:
    """The settings in pip's configuration files, as ``pip config list`` prints them."""
    done = programs.capture([python, *pipconfig.LIST], env={**dict(env), "PYTHONUTF8": "1"})
    if done.returncode:
        raise Problem(
            "pip cannot read its own settings.",
            id="pip-settings",
            evidence=tail(done.output),
            remedy="correct the file that pip names above (pip config debug lists all of them)",
        )
    return done.stdout


def _pip_problem(output: str, what: str, *, offline: bool) -> Problem:
    if "DO NOT MATCH THE HASHES" in output:
        return Problem(
            f"A download for {what} is not the file that was locked: damaged on the way, or "
            "another file under the same name. It was not used.",
            id="download-hash-mismatch",
            evidence=tail(output, 6),
            remedy="try again (pip cache purge removes a damaged copy); if it happens "
            "again, see which package index pip uses: pip config list",
        )
    if "No space left on device" in output:
        return Problem(
            f"The disk is full: {what} could not be installed.",
            id="install-disk-full",
            evidence=tail(output, 3),
            remedy="free some space, then run the same command again",
        )
    if "No matching distribution found" in output and offline:
        return Problem(
            f"{what[:1].upper()}{what[1:]}: not on this machine, and --offline forbids a download.",
            id="offline-missing",
            evidence=tail(output, 3),
            remedy="run once without --offline, or point PIP_FIND_LINKS to a folder that has it",
        )
    return Problem(
        f"pip could not get {what}.",
        id="pip-failed",
        evidence=tail(output),
        remedy="check the network and pip's configuration (pip config list), then run the same "
        "command again",
    )


def tail(text: str, lines: int = 10) -> str:
    """The last lines of an output, without pip's notices about itself."""
    kept = [line for line in text.splitlines() if line.strip() and "[notice]" not in line]
    return "\n".join(kept[-lines:])
