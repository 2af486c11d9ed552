"""Finished wheels in ``wheels/``: each of them whole, and made from today's inputs or not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sessions.core import disk, records
from sessions.core.model import Wheel


def is_current(wheel: Wheel, fingerprint: str, folder: Path) -> bool:
    """Whether the recorded wheel was made from these inputs and still lies there unchanged."""
    path = folder / wheel.file
    return (
        wheel.fingerprint == fingerprint
        and path.is_file()
        and records.file_sha256(path) == wheel.sha256
    )


def publish(wheel: Path, folder: Path) -> Path:
    """Put a finished wheel into its folder whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part, path = folder / f".{wheel.name}.part", folder / wheel.name
    try:
        with wheel.open("rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        disk.put(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
