"""The records of what is fetched before a build: the source and the CUDA toolkit."""

from __future__ import annotations

from dataclasses import dataclass

from sessions.shared.build_spec import HostRange


@dataclass(frozen=True)
class Source:
    """An unpacked upstream source. ``digest`` is of all files that a build reads."""

    version: str
    path: str
    sdist_sha256: str | None  # None for a user's own checkout
    digest: str
    edited: tuple[str, ...]  # files that differ from the locked sdist
    epoch: int  # SOURCE_DATE_EPOCH of the build, seconds


@dataclass(frozen=True)
class Pristine:
    """What was unpacked from an sdist.

    ``sdist`` is the SHA-256 of the archive, ``filter`` a digest of the lists in
    data/knowledge/sdists.toml that decide which files are unpacked, ``files`` the digest of each
    file.
    """

    sdist: str
    filter: str
    files: dict[str, str]


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit for CMake. ``components``: versions of NVIDIA's packages or components."""

    origin: str  # "pypi" | "system"
    root: str
    version: str  # "13.1"
    fingerprint: str
    components: dict[str, str]
    accepts: HostRange
