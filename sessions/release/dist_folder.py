"""The folder ``dist/``: made anew beside and renamed, with what was released before."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sessions.release import dist_contents
from sessions.release.documents import release_page
from sessions.release.index import builder
from sessions.release.model import Gate, Release
from sessions.shared import console, disk, programs, records
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, Problem

PAGE = "RELEASE.md"


@dataclass(frozen=True)
class Outcome:
    """One target's verdict; where it may be released, its record and the files beside its wheel."""

    gate: Gate
    changed: bool  # whether dist/ is not as it was written
    release: Release | None = None
    wheel: Path | None = None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    more: tuple[Path, ...] = ()  # the same wheel for other Pythons


@contextlib.contextmanager
def alone(ctx: Context, dist: Path) -> Iterator[None]:
    """Have dist/ only for this process, whole, and with nothing beside it that git would see."""
    with disk.lock(ctx.root / "build" / "dist.lock", console.say):
        _restore(dist)
        for leftover in _beside(dist):
            if leftover.exists():
                disk.remove(leftover)
        if dist.exists() and not disk.is_marked(dist):
            raise Problem(
                "dist/ was not made by blackwheel, so nothing is put there.",
                id="dist-not-ours",
                evidence=str(dist),
                remedy=f"move it away: {dist}",
            )
        yield


def _beside(dist: Path) -> tuple[Path, Path]:
    """Where the next dist/ is made, and where the last one waits for it."""
    return dist.with_name(".dist.part"), dist.with_name(".dist.old")


def _restore(dist: Path) -> None:
    """Put the last dist/ back where a run ended before it put the next one there."""
    _, old = _beside(dist)
    if disk.is_marked(old) and not dist.exists():
        disk.put(old, dist)


def about(target: str, targets: Iterable[str], changed: Iterable[str]) -> tuple[str, ...]:
    """The changes that are of this target or of the pages of all, and of no other target."""
    others = tuple(f"{name}/" for name in targets if name != target)
    return tuple(line for line in changed if not line.startswith(others))


def assemble(dist: Path, outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """Make dist/ anew beside and rename it: what was released now, and what was before.

    Returns the targets that were refused now and of which the last release stays.
    """
    part, old = _beside(dist)
    disk.mark(part)
    made = {outcome.gate.target: outcome for outcome in outcomes}
    refused = {name: outcome.gate for name, outcome in made.items() if not outcome.release}
    stay = [name for name in dist_contents.released(dist) if name not in made or name in refused]
    gates = _keep(dist, part, stay)
    for name, outcome in made.items():
        if outcome.release and outcome.wheel:
            gates[name] = outcome.gate
            place = part / name
            place.mkdir()
            for wheel in (outcome.wheel, *outcome.more):
                shutil.copyfile(wheel, place / wheel.name)
            for file, data in outcome.files.items():
                (place / file).write_bytes(data)
            records.write(place / dist_contents.RELEASE, "release", outcome.release)
    builder.write(part)
    records.write_text(part / PAGE, release_page.render(gates, refused))
    dist_contents.write(part)
    if dist.exists():
        disk.put(dist, old)
    try:
        disk.put(part, dist)
    finally:
        _restore(dist)
    if old.exists():
        disk.put(old, part)  # what is half deleted must never be taken for the last dist/
        disk.remove(part)
    return tuple(name for name in stay if name in refused)


def refuse_changed(folder: Path, changed: Iterable[str]) -> None:
    """Refuse a target's folder in dist/ that is not as it was released: nothing is taken over."""
    lines = [line for line in changed if line.startswith(f"{folder.name}/")]
    if lines:
        raise Problem(
            f"dist/{folder.name}/ was changed after release wrote it.",
            id="dist-changed",
            code=CHECK_FAILED,
            evidence="\n".join(lines),
            remedy=f"write it again: {again(folder.parent, lines)}; or delete {folder}",
        )


def again(dist: Path, changed: Collection[str]) -> str:
    """What writes anew the targets that were changed; where only pages were, one target.

    A run refuses every other target that was changed, so those of other options are deleted first.
    """
    released = dist_contents.released(dist)
    bad = [name for name in released if any(line.startswith(f"{name}/") for line in changed)]
    groups: dict[tuple[str, ...], list[tuple[Path, str]]] = {}
    steps = []
    for folder in (dist / name for name in bad or released[:1]):
        release = records.read(folder / dist_contents.RELEASE, "release", Release)
        if release is None and "+" in folder.name:  # nothing says which options it is of
            steps.append(f"delete {folder}")
            continue
        _, base, *more = release.arguments if release else ("--target", folder.name)
        groups.setdefault(tuple(more), []).append((folder, base))
    steps += [f"delete {folder}" for group in [*groups.values()][1:] for folder, _ in group]
    for options, group in groups.items():
        names = ",".join(base for _, base in group)
        steps.append(
            programs.typed(["nox", "-s", "release", "--", "--target", names, *options, "--fresh"])
        )
    return ", then ".join(steps) or "nox -s release -- --target NAME --fresh"


def _keep(dist: Path, part: Path, names: Iterable[str]) -> dict[str, Gate]:
    """Take over what was released before, if it is as it was written."""
    changed, passed = dist_contents.changed(dist), {}
    for name in names:
        folder = dist / name
        refuse_changed(folder, changed)
        release = records.read(folder / dist_contents.RELEASE, "release", Release)
        found = records.read(folder / "gate.json", "gate", Gate)
        if release is None or found is None:
            unreadable = f"{name}/: its records belong to another version, or cannot be read"
            refuse_changed(folder, [unreadable])
            continue
        (part / name).mkdir()
        more = [wheel.file for wheel in release.pythons]
        for file in (
            release.file,
            *more,
            *release.files,
            dist_contents.RELEASE,
        ):  # and nothing else
            shutil.copyfile(folder / file, part / name / file)
        passed[name] = found
    return passed
