"""Builds a wheel a second time, without a cache and in another folder, and compares the two."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

from sessions.build.record_types import Wheel
from sessions.command_line import child_nox
from sessions.release.evidence import Evidence, Reproduced
from sessions.shared import child_environment, console, disk, programs, records, venvs
from sessions.shared.context import Context
from sessions.verify import diff


def again(ctx: Context, first: Evidence) -> tuple[str, ...]:
    """Build the wheel again, without a cache and in another folder. Returns the differences.

    They are recorded, except if there was no second wheel: that is no result about the first.
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
        (copy / ".nox").symlink_to(ctx.root / ".nox")  # the venv of the sessions is used again
    # Toolkit, tools and source are pinned by hash, so only the compiler cache is disabled.
    options = dataclasses.replace(
        ctx.options,
        cache="none",
        source=_absolute(ctx.options.source),
        toolkit=_absolute(ctx.options.toolkit),
        compiler=_absolute(ctx.options.compiler),
    )
    env = {**ctx.env, "BLACKWHEEL_CACHE": str(ctx.cache)}
    console.say(f"Building {ctx.spec.target} a second time, from nothing, in {copy}")
    name = ctx.spec.base
    code = child_nox.follow(copy, ["wheel"], name, child_nox.words(options), env=env)
    wheels = copy / "wheels" / ctx.spec.target
    second = records.read(wheels / "wheel.json", "wheel", Wheel)
    if code or second is None:
        return (f"the second build ended with {code} and no wheel; what it said is above",)
    one, other = first.path, wheels / second.file
    found = diff.differences(one, other)
    if found and (program := shutil.which("diffoscope", path=ctx.env.get("PATH"))):
        text = folder / "diffoscope.txt"
        programs.capture([program, "--text", str(text), str(one), str(other)], env=env)
        found = (*found, f"diffoscope says more: {text}")
    records.write(ctx.record("reproduce"), "reproduce", Reproduced(first.sha256, found))
    if not found:
        disk.remove(folder)
    return found


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().resolve()) if path and Path(path).exists() else path
