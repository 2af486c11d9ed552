"""What is stale, and nothing else; or, when asked, everything the project made here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sessions.core import console, disk, inputs, records
from sessions.core.context import Context
from sessions.core.model import Toolchain, Wheel

SHOWN = 4  # differences of inputs that are told: a compiler's update has ten


@dataclass(frozen=True)
class Removal:
    """Something to delete, and why. ``marked`` folders are deleted only if they carry our mark."""

    path: Path
    why: str
    marked: bool


def main(ctx: Context) -> None:
    """List what goes and why, then delete it."""
    options = ctx.options
    removals = stale(ctx)
    if options.all:
        removals = [*everything(ctx)]
    if options.wheels:
        removals += finished(ctx)
    if options.caches:
        removals.append(Removal(ctx.cache, "--caches: downloads, toolkits, compiler cache", True))
    for removal in removals:
        verb = "would delete" if options.dry_run else "deleting"
        console.say(f"{verb} {removal.path}: {removal.why}")
        if not options.dry_run:
            # A source goes only when no other run is copying it.
            with ctx.source_lock(removal.path.name):
                _delete(removal)
    if not removals:
        console.done("clean: nothing stale")
    else:
        console.done(f"clean: {len(removals)} {'listed' if options.dry_run else 'deleted'}")


def stale(ctx: Context) -> list[Removal]:
    """The target's tree if it was made from other inputs, and libraries left in a source."""
    found = []
    tree = ctx.build / "tree"
    chain = records.read(ctx.record("probe"), "probe", Toolchain)
    if tree.exists() and chain:
        then = records.read(ctx.build / "inputs.json", "inputs", dict[str, str])
        now = inputs.tree(ctx.spec, chain, ctx.root, ctx.cache)
        changes = inputs.differences(then, now) if then else ["not known what it was made from"]
        if changes:
            more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
            found.append(Removal(tree, "; ".join(changes[:SHOWN]) + more, True))
        elif ctx.options.fresh and "wheel" in ctx.asked:
            found.append(Removal(tree, "--fresh", True))
    sources = ctx.root / "llama-cpp-python-src"
    for libraries in sorted(sources.glob("*/llama_cpp/lib")):
        if disk.is_marked(libraries.parents[1]):
            why = "libraries of a build in the source tree; they would ship as if new"
            found.append(Removal(libraries, why, False))
    return found


def everything(ctx: Context) -> list[Removal]:
    """All that was built, unpacked and recorded in this checkout; wheels and caches stay."""
    sources = sorted((ctx.root / "llama-cpp-python-src").glob("*"))
    found = [
        Removal(folder, "--all: unpacked source", True)
        for folder in sources
        if disk.is_marked(folder)
    ]
    for folder in sorted((ctx.root / "build").iterdir()):
        if not disk.is_marked(folder):
            continue
        if folder != ctx.build and not disk.is_free(folder.with_name(f"{folder.name}.lock")):
            console.warn(f"{folder} stays: another run is at work there")
            continue
        found.append(Removal(folder, "--all: records, logs, staged source and CMake tree", True))
    return found


def finished(ctx: Context) -> list[Removal]:
    """Every wheel of every target that a record of ours names."""
    found = []
    for record in sorted((ctx.root / "wheels").glob("*/wheel.json")):
        wheel = records.read(record, "wheel", Wheel)
        if wheel:
            found.append(Removal(record.parent / wheel.file, "--wheels", False))
            found.append(Removal(record, "--wheels: its record", False))
    return found


def _delete(removal: Removal) -> None:
    if removal.marked:
        disk.remove(removal.path)
    elif removal.path.is_dir() and not removal.path.is_symlink():
        shutil.rmtree(removal.path)
    else:
        removal.path.unlink(missing_ok=True)
