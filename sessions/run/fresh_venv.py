"""A wheel in a fresh venv, as a user has it."""

from __future__ import annotations

from pathlib import Path

from sessions.probe.model import Toolchain
from sessions.shared import console, knowledge, options, programs, records, venvs
from sessions.shared.errors import Problem
from sessions.shared.nox_session import Context


def install(ctx: Context, wheel: Path, work: Path) -> Path:
    """A fresh venv with the wheel as pip installs it for a user, and what the payload imports."""
    chain = records.need(ctx.record("probe"), "probe", Toolchain)
    assert chain.python is not None
    venv = work / "venv"
    console.say(f"Installing {wheel.name} into a fresh venv of Python {chain.python.version}")
    env = options.pip_environment(ctx.env)
    made = programs.capture([chain.python.path, "-I", "-m", "venv", str(venv)], env=env)
    if made.returncode:
        raise Problem(
            "Python could not make a venv.",
            id="smoke-venv-failed",
            evidence=venvs.tail(made.output),
            remedy=f"install the venv module of Python {ctx.spec.python} (Debian, Ubuntu: "
            f"apt install python{ctx.spec.python}-venv)",
        )
    venvs.pip(ctx, venv, ["install", str(wheel)], "the wheel and what it requires")
    needs = ["install", "--no-deps", "--require-hashes", "-r", str(knowledge.payload_lock())]
    venvs.pip(ctx, venv, needs, "what the checks need (gguf)")
    return venv
