"""Builds a wheel a second time, from nothing and in another folder."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

from sessions.build.model import Wheel
from sessions.command_line import child_nox
from sessions.release.evidence import Evidence, Reproduced
from sessions.shared import child_environment, console, disk, programs, records, venvs
from sessions.shared.context import Context
from sessions.verify import diff


def again(ctx: Context, first: Evidence) -> tuple[str, ...]:
    """Build the wheel a second time, from nothing and in another folder; how the two differ.

    What came out is recorded. That no second one could be built says nothing of the wheel.
    """
    folder = ctx.build / "again"
    if folder.exists():
        disk.remove(folder)
    disk.mark(folder)
    copy = folder / "checkout"
    env = child_environment.pip_environment(ctx.env)
    listed = programs.capture(["git", "-C", str(ctx.root), "ls-files", "-z"], env=env)
    if listed.returncode:
        return (f"not built again: git ls-files: {venvs.tail(listed.output, 2)}",)
    for name in filter(None, listed.stdout.split("\0")):
        if not (ctx.root / name).is_file():
            return (f"not built again: git ls-files names {name!r}, which is not a file here",)
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ctx.root / name, copy / name)
    if sys.platform != "win32" and (ctx.root / ".nox").exists():
        (copy / ".nox").symlink_to(ctx.root / ".nox")  # else the sessions' venv is made anew
    # Toolkit, tools and source are pinned by hash: only what was compiled must not come back.
    asked = ctx.options
    again = dataclasses.replace(
        asked,
        cache="none",
        source=_absolute(asked.source),
        toolkit=_absolute(asked.toolkit),
        compiler=_absolute(asked.compiler),
    )
    env = {**ctx.env, "BLACKWHEEL_CACHE": str(ctx.cache)}
    console.say(f"Building {ctx.spec.target} a second time, from nothing, in {copy}")
    name = ctx.spec.base
    code = child_nox.follow(copy, ["wheel"], name, child_nox.words(again), env=env)
    made = copy / "wheels" / ctx.spec.target
    second = records.read(made / "wheel.json", "wheel", Wheel)
    if code or second is None:
        return (f"the second build ended with {code} and no wheel; what it said is above",)
    one, other = first.path, made / second.file
    found = diff.differences(one, other)
    if found and (program := shutil.which("diffoscope", path=ctx.env.get("PATH"))):
        told = folder / "diffoscope.txt"
        programs.capture([program, "--text", str(told), str(one), str(other)], env=env)
        found = (*found, f"diffoscope says more: {told}")
    records.write(ctx.record("reproduce"), "reproduce", Reproduced(first.sha256, found))
    if not found:
        disk.remove(folder)
    return found


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().resolve()) if path and Path(path).exists() else path
