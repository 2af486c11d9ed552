"""The session clean: deletes what is stale; with options, everything that was built here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sessions.build import build_inputs
from sessions.build.record_types import Wheel
from sessions.probe.record_types import Toolchain
from sessions.shared import console, disk, in_use, records
from sessions.shared.context import Context

SOURCES = "llama-cpp-python-src"
_KILLED = "left by a run that was stopped"
SHOWN = 4  # differences that are shown; an update of the compiler has ten


@dataclass(frozen=True)
class Removal:
    """Something to delete: not without our mark if ``marked``, not while a run holds ``lock``."""

    path: Path
    why: str
    marked: bool
    lock: Path


def main(ctx: Context) -> None:
    """Delete what is stale or what the options name; print each path and the reason."""
    options = ctx.options
    removals = everything(ctx) if options.all else stale(ctx)
    if options.wheels:
        removals += finished(ctx)
    if options.caches:
        removals += caches(ctx)
    count = sum(_remove(ctx, removal) for removal in removals)
    done = f"{count} {'listed' if options.dry_run else 'deleted'}"
    console.done(f"clean: {done if removals else 'nothing stale'}")


def _remove(ctx: Context, removal: Removal) -> bool:
    """Delete it, or say why not. Returns whether it was deleted or, with --dry-run, listed."""
    with in_use.unused(removal.lock, console.say) as users:
        if users:
            console.warn(f"{removal.path} stays, another run uses it: {', '.join(users)}")
            return False
        verb = "would delete" if ctx.options.dry_run else "deleting"
        console.say(f"{verb} {removal.path}: {removal.why}")
        if ctx.options.dry_run:
            return True
        if removal.marked:
            disk.remove(removal.path)
        elif removal.path.parent == ctx.cache:
            # Renamed first: a half-deleted toolkit must not be used.
            with ctx.scratch() as scratch:
                disk.put(removal.path, scratch / "old")
        else:
            disk.discard(removal.path)
        return True


def stale(ctx: Context) -> list[Removal]:
    """The CMake tree if its inputs have changed, and libraries in an unpacked source."""
    found = leftovers(ctx)
    own = ctx.lock_of(ctx.spec.target)
    tree = ctx.build / "tree"
    chain = records.read(ctx.record("probe"), "probe", Toolchain)
    if tree.exists() and chain:
        then = records.read(ctx.build / "inputs.json", "inputs", dict[str, str])
        now = build_inputs.tree(ctx.spec, chain, ctx.root, ctx.cache)
        changes = (
            build_inputs.differences(then, now)
            if then
            else ["no record says what it was made from"]
        )
        if changes:
            more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
            found.append(Removal(tree, "; ".join(changes[:SHOWN]) + more, True, own))
        elif ctx.options.fresh and "wheel" in ctx.asked:
            found.append(Removal(tree, "--fresh", True, own))
    sources = ctx.root / SOURCES
    for libraries in sorted(sources.glob("*/llama_cpp/lib")):
        if disk.is_marked(libraries.parents[1]):
            why = "libraries of a build in the source tree; they would ship as if new"
            version = libraries.parents[1].name
            found.append(Removal(libraries, why, False, ctx.lock_of(f"source-{version}")))
    return found


def leftovers(ctx: Context) -> list[Removal]:
    """Temporary files and folders of runs that were killed."""
    found = []
    own = ctx.lock_of(ctx.spec.target)
    for folder in sorted((ctx.root / "build").glob(f".*{disk.GONE}")):
        found.append(Removal(folder, _KILLED, True, ctx.lock_of(folder.stem[1:])))
    for folder in sorted(ctx.build.glob(f".*{disk.GONE}")):
        found.append(Removal(folder, _KILLED, True, own))
    for folder in sorted((ctx.root / SOURCES).glob(".*")):
        if folder.suffix in (disk.GONE, disk.PART):
            lock = ctx.lock_of(f"source-{folder.stem[1:]}")
            found.append(Removal(folder, _KILLED, True, lock))
    for file in sorted(ctx.wheels.glob(f".*{disk.PART}")):
        found.append(Removal(file, _KILLED, False, own))
    return found


def everything(ctx: Context) -> list[Removal]:
    """Everything that was built, unpacked and recorded in this checkout, but the wheels."""
    found = [
        Removal(folder, "--all: unpacked source", True, ctx.lock_of(f"source-{folder.name}"))
        for folder in sorted((ctx.root / SOURCES).glob("[!.]*"))
        if disk.is_marked(folder)
    ]
    why = "--all: records, logs, staged source and CMake tree"
    for folder in sorted((ctx.root / "build").glob("[!.]*")):
        if disk.is_marked(folder):
            found.append(Removal(folder, why, True, ctx.lock_of(folder.name)))
    return leftovers(ctx) + found


def caches(ctx: Context) -> list[Removal]:
    """Everything in the cache folder but the locks, which other runs may hold or wait for."""
    disk.claim(ctx.cache)
    return [
        Removal(path, "--caches", False, ctx.cached_lock(path.name))
        for path in sorted(ctx.cache.iterdir())
        if path.name not in (disk.TAG, ctx.LOCKS, ctx.SCRATCH)
    ]


def finished(ctx: Context) -> list[Removal]:
    """Every wheel in wheels/ that has a record, and the record."""
    found = []
    for record in sorted((ctx.root / "wheels").glob("*/wheel.json")):
        wheel = records.read(record, "wheel", Wheel)
        if wheel:
            lock = ctx.lock_of(record.parent.name)
            found.append(Removal(record.parent / wheel.file, "--wheels", False, lock))
            found.append(Removal(record, "--wheels: its record", False, lock))
    return found
