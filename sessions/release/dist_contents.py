"""``contents.json`` in ``dist/``: the digest of every other file, and what has changed since."""

from __future__ import annotations

from pathlib import Path

from sessions.release.evidence import state
from sessions.shared import disk, records

NAME = "contents.json"
RELEASE = "release.json"  # the record of a target's release, in the target's folder


def write(dist: Path) -> None:
    """Write the SHA-256 of every file in ``dist/``. This is the last step of writing ``dist/``."""
    records.write(dist / NAME, "contents", _digests(dist))


def changed(dist: Path) -> tuple[str, ...]:
    """The differences from what was written. The whole folder of a target may be deleted."""
    if not dist.exists():
        return ()
    now = _digests(dist)
    written = records.read(dist / NAME, "contents", dict[str, str])
    if written is None:
        return (f"{NAME}: {state(dist / NAME)}", *_differences({}, now))
    folders = {name.split("/")[0] for name in written}
    deleted = {f for f in folders if f"{f}/{RELEASE}" in written and not (dist / f).exists()}
    return _differences({n: d for n, d in written.items() if n.split("/")[0] not in deleted}, now)


def _differences(before: dict[str, str], now: dict[str, str]) -> tuple[str, ...]:
    return (
        *(f"{name}: missing" for name in sorted(before.keys() - now.keys())),
        *(f"{name}: not written by release" for name in sorted(now.keys() - before.keys())),
        *(
            f"{name}: changed since it was written"
            for name in sorted(before.keys() & now.keys())
            if before[name] != now[name]
        ),
    )


def _digests(dist: Path) -> dict[str, str]:
    return disk.tree_digest(dist, lambda name: name != NAME)


def released(dist: Path) -> tuple[str, ...]:
    """The targets that have a release in ``dist/``."""
    return tuple(sorted(path.parent.name for path in dist.glob(f"*/{RELEASE}")))
