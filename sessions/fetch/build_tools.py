"""The venv of the build tools: created once per lock file and Python, in the cache folder."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from sessions.probe.record_types import Toolchain
from sessions.probe.selection import minor_version
from sessions.shared import console, disk, knowledge, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem

_READY = "ready.json"


def tools(ctx: Context) -> Path:
    """The venv of the Python that builds, with the locked tools. Raises Problem without one."""
    chain = ctx.need("probe", Toolchain)
    if chain.python is None:
        raise Problem(
            f"There is no Python {ctx.spec.python} for the build.",
            id="python-missing",
            remedy=f"install Python {ctx.spec.python} with its venv module, then: nox -s probe",
        )
    return _venv(ctx, chain.python.path, chain.python.version)


def own(ctx: Context, kind: str = "tools") -> Path:
    """The venv with the Python that runs this process: for a session that has no target.

    ``kind`` names the lock file: "tools", or "families" for the reference results of model
    families.
    """
    path: str = getattr(sys, "_base_executable", None) or sys.executable  # not the venv's
    return _venv(ctx, path, platform.python_version(), kind)


def _venv(ctx: Context, python: str, version: str, kind: str = "tools") -> Path:
    lock = knowledge.LOCKS / f"{kind}.txt"
    identity = records.fingerprint([python, version, lock.read_text("utf-8")])
    name = f"{kind}-py{minor_version(version)}-{identity[:12]}"
    venv = ctx.cache / name
    ctx.use_cached(name)
    if (venv / _READY).exists():
        return venv
    with ctx.cache_lock(name):
        if not (venv / _READY).exists():
            _create(ctx, python, minor_version(version), venv, lock)
    return venv


def _create(ctx: Context, python: str, version: str, venv: Path, lock: Path) -> None:
    disk.room({venv: knowledge.disk_mib("tools")}, "The venv of the build tools")
    disk.discard(venv)  # left by a run that was stopped
    console.say(f"Installing the build tools for Python {version} (once).")
    venvs.make(ctx, python, version, venv)
    disk.mark(venv)
    venvs.pip(
        ctx, venv, ["install", "--no-deps", "--require-hashes", "-r", str(lock)], "the build tools"
    )
    records.write_text(venv / _READY, "{}\n")
