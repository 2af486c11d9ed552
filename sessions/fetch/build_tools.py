"""The venv of the build tools."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from sessions.probe.model import Toolchain
from sessions.probe.selection import line
from sessions.shared import console, disk, knowledge, options, programs, records, venvs
from sessions.shared.errors import Problem
from sessions.shared.nox_session import Context

_READY = "ready.json"


def tools(ctx: Context) -> Path:
    """The venv of the Python that builds, with every locked build tool; made at most once."""
    chain = records.need(ctx.record("probe"), "probe", Toolchain)
    if chain.python is None:
        raise Problem(
            f"There is no Python {ctx.spec.python} for the build.",
            id="python-missing",
            remedy=f"install Python {ctx.spec.python} with its venv module, then: nox -s probe",
        )
    return _venv(ctx, chain.python.path, chain.python.version)


def own(ctx: Context) -> Path:
    """The same of the Python that runs this: for what has no target, and so no probe."""
    path: str = getattr(sys, "_base_executable", None) or sys.executable  # not that of a venv
    return _venv(ctx, path, platform.python_version())


def _venv(ctx: Context, python: str, version: str) -> Path:
    lock = knowledge.tools_lock()
    identity = records.fingerprint([python, version, lock.read_text("utf-8")])
    minor = line(version)
    name = f"tools-py{minor}-{identity[:12]}"
    venv = ctx.cache / name
    ctx.use_cached(name)
    if (venv / _READY).exists():
        return venv
    with ctx.cache_lock(name):
        if not (venv / _READY).exists():
            _make(ctx, python, minor, venv, lock)
    return venv


def _make(ctx: Context, python: str, minor: str, venv: Path, lock: Path) -> None:
    disk.room({venv: knowledge.disk_mib("tools")}, "The venv of the build tools")
    disk.discard(venv)  # what a run that was stopped left
    console.say(f"Installing the build tools for Python {minor} (once).")
    made = programs.capture(
        [python, "-I", "-m", "venv", str(venv)], env=options.pip_environment(ctx.env)
    )
    if made.returncode:
        raise Problem(
            "Python could not make a venv for the build tools.",
            id="tools-venv-failed",
            evidence=venvs.tail(made.output),
            remedy=f"install the venv module of Python {minor} "
            f"(Debian, Ubuntu: apt install python{minor}-venv)",
        )
    disk.mark(venv)
    venvs.pip(
        ctx, venv, ["install", "--no-deps", "--require-hashes", "-r", str(lock)], "the build tools"
    )
    records.write_text(venv / _READY, "{}\n")
