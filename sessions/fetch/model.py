"""What is fetched before a build: the source and the CUDA toolkit."""

from __future__ import annotations

from dataclasses import dataclass

from sessions.shared.build_spec import HostRange


@dataclass(frozen=True)
class Source:
    """An unpacked upstream source. ``digest`` covers every file a build reads."""

    version: str
    path: str
    sdist_sha256: str | None  # None for a user's own checkout
    digest: str
    edited: tuple[str, ...]  # files that differ from the locked sdist
    epoch: int  # SOURCE_DATE_EPOCH of the build, seconds


@dataclass(frozen=True)
class Pristine:
    """What was unpacked of an sdist: each file's digest. ``filter`` is that of what was left out.

    ``sdist`` and ``filter`` are SHA-256: the archive's, and that of the two lists of folders in
    data/knowledge/sdists.toml.
    """

    sdist: str
    filter: str
    files: dict[str, str]


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit ready for CMake. ``components`` are package or component versions."""

    origin: str  # "pypi" | "system"
    root: str
    version: str  # "13.1"
    fingerprint: str
    components: dict[str, str]
    accepts: HostRange
