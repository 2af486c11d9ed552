"""Finished wheels in ``wheels/``: each of them whole, and made from today's inputs or not."""

from __future__ import annotations

from pathlib import Path

from sessions.build.model import Wheel
from sessions.shared import disk, records


def is_current(wheel: Wheel, fingerprint: str, folder: Path) -> bool:
    """Whether the recorded wheel was made from these inputs and still is there unchanged."""
    path = folder / wheel.file
    return (
        wheel.fingerprint == fingerprint
        and path.is_file()
        and records.file_sha256(path) == wheel.sha256
    )


def publish(wheel: Path, folder: Path) -> Path:
    """Put a finished wheel into its folder whole or not at all."""
    path = folder / wheel.name
    disk.copy(wheel, path)
    return path
