"""The settings of a build, its steps, and the wheel that it made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

StepKind = Literal["cuda", "c++", "c", "link", "other"]


@dataclass(frozen=True)
class BuildEnv:
    """Everything that decides what the compiler does.

    ``variables`` are the whole environment of the build; ``settings`` are
    scikit-build-core's config settings (``python -m build -Ckey=value``). ``inputs`` are what
    the wheel is made from, in words (build/build_inputs.py), and ``fingerprint`` their digest.
    """

    variables: dict[str, str]
    settings: dict[str, str]
    requires: tuple[str, ...]  # added to the wheel's Requires-Dist
    fingerprint: str
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildStep:
    """One step of ninja: its start and end, in milliseconds since ninja started."""

    output: str  # its first, below the CMake tree
    kind: StepKind
    start: int
    end: int


@dataclass(frozen=True)
class Timeline:
    """The last run of ninja that made anything: its steps, in the order in which they started.

    ``earlier`` counts the outputs that existed before. ``critical`` names the outputs of the
    longest chain of steps in which each step needs the one before: with any number of cores, the
    run would take at least this long. ``cache`` has the counts of compiler_cache.py.
    """

    began: str  # ISO 8601, UTC
    jobs: int
    earlier: int
    cache: dict[str, int]
    steps: tuple[BuildStep, ...]
    critical: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """A finished wheel and how it was made. Sizes in bytes, times in seconds.

    ``timing`` sums up ninja's steps (steps.json has each): seconds, busy_seconds, efficiency
    (busy over jobs and seconds), critical_seconds; and cpu_efficiency: the session's cpu_seconds
    over jobs and wall_seconds, where the system tells them. Empty where nothing was compiled.
    """

    file: str
    sha256: str
    size: int
    fingerprint: str
    target: str
    version: str
    archs: tuple[str, ...]
    cuda: str | None
    compiler: str
    source_digest: str
    source_edited: bool
    steps: int
    wall_seconds: float
    cpu_seconds: float | None
    cache: dict[str, int]
    timing: dict[str, float]
    libraries: dict[str, str]  # file name -> sha256
    requires: tuple[str, ...]
    sbom: str  # sha256 of the bill of materials in it
