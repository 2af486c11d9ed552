"""The venv of the build tools."""

from __future__ import annotations

from pathlib import Path

from sessions.probe.model import Python, Toolchain
from sessions.probe.selection import line
from sessions.shared import console, disk, knowledge, options, programs, records, venvs
from sessions.shared.errors import Problem
from sessions.shared.nox_session import Context

_READY = "ready.json"


def tools(ctx: Context, kind: str = "tools") -> Path:
    """The venv of the Python that builds, with all that a lock names; made at most once.

    ``kind``: ``tools`` for the build tools, ``families`` for torch and transformers.
    """
    chain = records.need(ctx.record("probe"), "probe", Toolchain)
    if chain.python is None:
        raise Problem(
            f"There is no Python {ctx.spec.python} for the build.",
            id="python-missing",
            remedy=f"install Python {ctx.spec.python} with its venv module, then: nox -s probe",
        )
    lock = knowledge.LOCKS / f"{kind}.txt"
    identity = records.fingerprint(
        [chain.python.path, chain.python.version, lock.read_text("utf-8")]
    )
    name = f"{kind}-py{line(chain.python.version)}-{identity[:12]}"
    venv = ctx.cache / name
    ctx.use_cached(name)
    if (venv / _READY).exists():
        return venv
    with ctx.cache_lock(name):
        if not (venv / _READY).exists():
            _make(ctx, chain.python, venv, lock)
    return venv


def _make(ctx: Context, python: Python, venv: Path, lock: Path) -> None:
    disk.room({venv: knowledge.disk_mib("tools")}, "The venv of the build tools")
    disk.discard(venv)  # what a run that was stopped left
    version = line(python.version)
    console.say(f"Installing the build tools for Python {version} (once).")
    made = programs.capture(
        [python.path, "-I", "-m", "venv", str(venv)], env=options.pip_environment(ctx.env)
    )
    if made.returncode:
        raise Problem(
            "Python could not make a venv for the build tools.",
            id="tools-venv-failed",
            evidence=venvs.tail(made.output),
            remedy=f"install the venv module of Python {version} "
            f"(Debian, Ubuntu: apt install python{version}-venv)",
        )
    disk.mark(venv)
    venvs.pip(
        ctx, venv, ["install", "--no-deps", "--require-hashes", "-r", str(lock)], "the build tools"
    )
    records.write_text(venv / _READY, "{}\n")
