"""Releases of llama-cpp-python that are locked in the user's cache, not in this repository."""

from __future__ import annotations

from pathlib import Path

from sessions.shared import knowledge, records
from sessions.shared.knowledge import Sdist

_KIND = "sdist"


def path(cache: Path, version: str) -> Path:
    """The path of the record of a release."""
    return cache / "locked" / f"llama-cpp-python-{version}.json"


def write(cache: Path, sdist: Sdist) -> None:
    """Lock a release: write its record, and add it to ``knowledge``."""
    records.write(path(cache, sdist.version), _KIND, sdist)
    knowledge.add_sdists([sdist])


def load(cache: Path) -> None:
    """Add the releases that are locked in the cache to ``knowledge``."""
    sdists = (records.read(p, _KIND, Sdist) for p in sorted(path(cache, "*").parent.glob("*.json")))
    knowledge.add_sdists([sdist for sdist in sdists if sdist is not None])
