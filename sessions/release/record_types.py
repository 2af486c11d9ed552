"""The records ``release`` and ``gate``: a released wheel, and the checks of a wheel."""

from __future__ import annotations

from dataclasses import dataclass, field

from packaging.utils import parse_wheel_filename

from sessions.shared.check_result import Check


@dataclass(frozen=True)
class PythonWheel:
    """The wheel of a release for one more Python: the same libraries. Size in bytes."""

    python: str  # "3.12"
    file: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Release:
    """A wheel in ``dist/<target>/`` that passed the checks of ``release``. Size in bytes.

    ``tested`` is False if it was released without a run on a GPU of its architecture; ``proven``
    is the time of the run, ISO 8601 in UTC. ``commit`` is the commit of blackwheel that released
    it.
    """

    target: str
    arguments: tuple[str, ...]  # that choose it: "--target", "rtx50", "--python", "3.12"
    file: str
    sha256: str
    size: int
    version: str
    cuda: str | None
    archs: tuple[str, ...]
    tested: bool
    proven: str | None
    commit: str = ""
    pythons: tuple[PythonWheel, ...] = ()  # the same wheel for other Pythons
    devices: tuple[str, ...] = ()  # where it was tested: "NVIDIA H200 (9.0)", "the CPU"
    files: dict[str, str] = field(default_factory=dict)  # document -> sha256

    @property
    def wheels(self) -> tuple[PythonWheel, ...]:
        """Every wheel; the first one is the one that was tested."""
        return (PythonWheel("", self.file, self.sha256, self.size), *self.pythons)

    @property
    def system(self) -> str:
        """Operating system and processor from the wheel's tags: "linux-x86_64"."""
        platforms = {tag.platform for tag in parse_wheel_filename(self.file)[3]}
        (name,) = {_system(platform) for platform in platforms}
        return name


def _system(platform: str) -> str:
    if platform.startswith("win"):
        return f"windows-{platform.removeprefix('win_').replace('amd64', 'x86_64')}"
    return "linux-" + ("aarch64" if platform.endswith("aarch64") else "x86_64")


@dataclass(frozen=True)
class Gate:
    """Whether a target's wheel may be released: every check, and the file that was checked."""

    target: str
    file: str  # "" if there is none
    sha256: str
    untested: tuple[str, ...]  # compute capabilities, or "cpu", on which it was not tested
    checks: tuple[Check, ...]
