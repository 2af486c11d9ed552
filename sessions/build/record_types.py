"""The records of a build: its settings, its steps, and the wheel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

StepKind = Literal["cuda", "c++", "c", "link", "other"]


@dataclass(frozen=True)
class BuildEnv:
    """The environment and the settings of a build.

    ``variables`` are the whole environment, ``settings`` scikit-build-core's config settings
    (``python -m build -Ckey=value``). ``inputs`` name what the wheel is made from
    (build/build_inputs.py), and ``fingerprint`` is their digest.
    """

    variables: dict[str, str]
    settings: dict[str, str]
    requires: tuple[str, ...]  # added to the wheel's Requires-Dist
    fingerprint: str
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildStep:
    """A step of ninja: its start and end, in milliseconds since ninja started."""

    output: str  # the first one, relative to the CMake tree
    kind: StepKind
    start: int
    end: int


@dataclass(frozen=True)
class Timeline:
    """The last run of ninja that built anything; its steps in the order in which they started.

    ``earlier`` is the number of outputs that existed before. ``critical`` are the outputs of the
    longest chain of steps that each need the one before: with any number of cores, the run would
    take at least as long. ``cache`` has the counts of compiler_cache.py.
    """

    began: str  # ISO 8601, UTC
    jobs: int
    earlier: int
    cache: dict[str, int]
    steps: tuple[BuildStep, ...]
    critical: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """A wheel and how it was built. Sizes in bytes, times in seconds.

    ``timing`` summarizes ninja's steps (steps.json has each of them): seconds, busy_seconds,
    efficiency (busy_seconds over jobs and seconds), critical_seconds; and cpu_efficiency, which is
    cpu_seconds over jobs and wall_seconds, on systems that measure it. It is empty if nothing was
    compiled.
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
    sbom: str  # sha256 of the SBOM in it
