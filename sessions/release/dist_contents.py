"""Whether ``dist/`` is as ``release`` wrote it: ``contents.json`` in it has every other file."""

from __future__ import annotations

from pathlib import Path

from sessions.release import gate
from sessions.release.evidence import state
from sessions.shared import disk, records

NAME = "contents.json"  # sha256 of all else in dist/; in there, so that it comes with the rest
RELEASE = "release.json"  # the record of each target's release, in its folder


def write(dist: Path) -> None:
    """Write down what there is in ``dist/``: the last step of making it."""
    records.write(dist / NAME, "contents", _digests(dist))


def changed(dist: Path) -> tuple[str, ...]:
    """How ``dist/`` differs from what was written. A target's whole folder may be deleted."""
    if not dist.exists():
        return ()
    there = _digests(dist)
    written = records.read(dist / NAME, "contents", dict[str, str])
    if written is None:
        return (f"{NAME}: {state(dist / NAME)}", *gate.changed({}, there))
    tops = {name.split("/")[0] for name in written}
    gone = {t for t in tops if f"{t}/{RELEASE}" in written and not (dist / t).exists()}
    kept = {name: digest for name, digest in written.items() if name.split("/")[0] not in gone}
    return gate.changed(kept, there)


def _digests(dist: Path) -> dict[str, str]:
    return disk.tree_digest(dist, lambda name: name != NAME)


def released(dist: Path) -> tuple[str, ...]:
    """The targets that have a release in ``dist/``."""
    return tuple(sorted(path.parent.name for path in dist.glob(f"*/{RELEASE}")))
