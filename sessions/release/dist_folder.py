"""Writes ``dist/`` under another name, with the releases that stay, and then renames it."""

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
from sessions.release.record_types import Gate, Release
from sessions.shared import console, disk, locks, programs, records
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, Problem

PAGE = "RELEASE.md"


@dataclass(frozen=True)
class Outcome:
    """The checks of one target; if it may be released, also its record, wheel and documents."""

    gate: Gate
    changed: bool  # whether dist/ differs from what was written
    release: Release | None = None
    wheel: Path | None = None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    more: tuple[Path, ...] = ()  # the same wheel for other Pythons


@contextlib.contextmanager
def locked(ctx: Context, dist: Path) -> Iterator[None]:
    """Lock dist/, and repair or delete what an interrupted run left: git would show it.

    Raises Problem if dist/ has files that blackwheel did not write.
    """
    with locks.lock(ctx.root / "build" / "dist.lock", console.say):
        recover(dist)
        if dist.exists() and not disk.is_marked(dist):
            raise Problem(
                "dist/ was not made by blackwheel, so nothing is put there.",
                id="dist-not-ours",
                evidence=str(dist),
                remedy=f"move it away: {dist}",
            )
        yield


def recover(folder: Path) -> Path:
    """Restore or delete what an interrupted run left beside ``folder``; returns ``.NAME.part``."""
    part, old = _temporary(folder)
    _restore(folder)
    for leftover in (part, old):
        if leftover.exists():
            disk.remove(leftover)
    return part


def replace(folder: Path) -> None:
    """Rename ``.NAME.part`` to ``folder``. If that fails, the previous folder stays."""
    part, old = _temporary(folder)
    if folder.exists():
        disk.put(folder, old)
    try:
        disk.put(part, folder)
    finally:
        _restore(folder)
    if old.exists():
        disk.put(old, part)  # what is half deleted must never be restored
        disk.remove(part)


def _temporary(folder: Path) -> tuple[Path, Path]:
    """The names of the next folder while it is written, and of the previous one meanwhile."""
    return folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")


def _restore(folder: Path) -> None:
    """Restore the previous folder if a run ended before it renamed the next one."""
    _, old = _temporary(folder)
    if disk.is_marked(old) and not folder.exists():
        disk.put(old, folder)


def about(target: str, targets: Iterable[str], changed: Iterable[str]) -> tuple[str, ...]:
    """The changes in the folder of this target and in the common pages."""
    others = tuple(f"{name}/" for name in targets if name != target)
    return tuple(line for line in changed if not line.startswith(others))


def assemble(dist: Path, outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """Write dist/ again: the new releases, and the earlier ones that stay.

    Returns the targets that were refused now and whose earlier release stays.
    """
    part, _ = _temporary(dist)
    disk.mark(part)
    targets = {outcome.gate.target: outcome for outcome in outcomes}
    refused = {name: outcome.gate for name, outcome in targets.items() if not outcome.release}
    released = dist_contents.released(dist)
    stay = [name for name in released if name not in targets or name in refused]
    gates = _keep(dist, part, stay)
    for name, outcome in targets.items():
        if outcome.release and outcome.wheel:
            gates[name] = outcome.gate
            folder = part / name
            folder.mkdir()
            for wheel in (outcome.wheel, *outcome.more):
                shutil.copyfile(wheel, folder / wheel.name)
            for file, data in outcome.files.items():
                (folder / file).write_bytes(data)
            records.write(folder / dist_contents.RELEASE, "release", outcome.release)
    builder.write(part)
    records.write_text(part / PAGE, release_page.render(gates, refused))
    dist_contents.write(part)
    replace(dist)
    return tuple(name for name in stay if name in refused)


def refuse_changed(folder: Path, changed: Iterable[str]) -> None:
    """Raise Problem if a target's folder in dist/ changed after it was released."""
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
    """The commands that write the changed targets again, or one target if only pages changed.

    A run refuses other targets that were changed, so targets with other options are deleted first.
    """
    released = dist_contents.released(dist)
    bad = [name for name in released if any(line.startswith(f"{name}/") for line in changed)]
    groups: dict[tuple[str, ...], list[tuple[Path, str]]] = {}
    steps = []
    for folder in (dist / name for name in bad or released[:1]):
        release = records.read(folder / dist_contents.RELEASE, "release", Release)
        if release is None and "+" in folder.name:  # its options are unknown
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
    """Copy earlier releases into the new folder. Raises Problem if one of them was changed."""
    changed, gates = dist_contents.changed(dist), {}
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
        wheels = [wheel.file for wheel in release.wheels]
        for file in (*wheels, *release.files, dist_contents.RELEASE):  # and nothing else
            shutil.copyfile(folder / file, part / name / file)
        gates[name] = found
    return gates
