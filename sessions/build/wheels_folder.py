"""Wheels in ``wheels/``: whether one is up to date, and how a new one is put there."""

from __future__ import annotations

from pathlib import Path

from sessions.build.record_types import Wheel
from sessions.shared import disk, records


def is_current(wheel: Wheel, fingerprint: str, folder: Path) -> bool:
    """Whether the wheel of this record was built from these inputs and is unchanged."""
    path = folder / wheel.file
    return (
        wheel.fingerprint == fingerprint
        and path.is_file()
        and records.file_sha256(path) == wheel.sha256
    )


def publish(wheel: Path, folder: Path) -> Path:
    """Copy a wheel into ``folder`` atomically. Returns its path."""
    path = folder / wheel.name
    disk.copy(wheel, path)
    return path
