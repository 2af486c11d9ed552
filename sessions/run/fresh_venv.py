"""Installs a wheel into a fresh venv, as a user does."""

from __future__ import annotations

from pathlib import Path

from sessions.probe.record_types import Toolchain
from sessions.shared import console, knowledge, venvs
from sessions.shared.context import Context


def install(ctx: Context, wheel: Path, work: Path) -> Path:
    """Make a venv with the wheel, its requirements and the packages that the payload imports."""
    chain = ctx.need("probe", Toolchain)
    assert chain.python is not None
    venv = work / "venv"
    console.say(f"Installing {wheel.name} into a fresh venv of Python {chain.python.version}")
    venvs.make(ctx, chain.python.path, ctx.spec.python, venv)
    venvs.pip(ctx, venv, ["install", str(wheel)], "the wheel and what it requires")
    needs = ["install", "--no-deps", "--require-hashes", "-r", str(knowledge.payload_lock())]
    venvs.pip(ctx, venv, needs, "what the checks need (gguf)")
    return venv
