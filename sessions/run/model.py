"""What was measured by running a wheel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sessions.shared.checks import Check


@dataclass(frozen=True)
class SmokeReport:
    """What was tested by running a wheel. Times in seconds.

    ``device`` is the name of the GPU, or "cpu"; ``origin`` is "here", or the file of the report.
    Each of ``cases`` is one evaluation: type, batch, flash, kv, nmse, bound, tokens, equal. Each of
    ``features`` is an answer of another check: check, case, nmse, bound.
    ``families`` has the set of model families, their rows (family, type, batch, flash, split,
    nmse, worst: the largest of one token, MiB of the model on the CPU and on the GPU), and the
    operations that were computed for them, each with its type and buffer.
    """

    file: str
    sha256: str
    target: str
    device: str
    capability: str | None
    driver: str | None
    python: str
    system: str
    origin: str
    started: str
    seconds: float
    checks: tuple[Check, ...]
    cases: tuple[dict[str, Any], ...]
    features: tuple[dict[str, Any], ...]
    families: dict[str, Any]
    times: dict[str, float]


@dataclass(frozen=True)
class BenchWheel:
    """One wheel of a benchmark: ``values`` has one series per metric (units: payload/stats.py).

    ``cpu_module`` is its module for the CPU that was used; None of a wheel without modules.
    ``brings_runtime`` is whether it requires NVIDIA's packages; where it does not, they were put
    on the loader's path. ``jit_files`` is what the driver left in an empty cache: compiled PTX.
    """

    label: str
    file: str
    sha256: str
    version: str
    cpu_module: str | None
    brings_runtime: bool
    packages: tuple[str, ...]  # files that were installed with it
    jit_files: int
    values: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class BenchRatio:
    """The median of the rounds' ratios, the target's wheel over a baseline's, and its interval.

    ``verdict`` is of the interval: better, worse, same (it holds 1), or unsure (too few values).
    """

    baseline: str
    metric: str
    ratio: float
    low: float
    high: float
    count: int
    verdict: Literal["better", "worse", "same", "unsure"]


@dataclass(frozen=True)
class BenchReport:
    """Wheels measured in turn, the target's first. Times in seconds.

    ``runtime`` says where NVIDIA's came from: packages (and then it is in the installed size),
    linked, toolkit or none. ``model`` is the real one: file, size in bytes, sha256.
    ``conditions`` are the GPU's at each step: clocks, temperature, memory. ``stops`` counts how
    often the measuring was stopped and went on later; that time is not in ``seconds``.
    ``cpu_threads`` are those for what the CPU computes of the larger model and of the real one,
    ``threads`` for the rest.
    """

    file: str
    sha256: str
    target: str
    device: str
    capability: str | None
    driver: str | None
    python: str
    system: str
    origin: str
    started: str
    seconds: float
    rounds: int
    stops: int
    threads: int
    cpu_threads: int
    runtime: str
    confidence: float
    model: dict[str, Any] | None
    wheels: tuple[BenchWheel, ...]
    ratios: tuple[BenchRatio, ...]
    conditions: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class OpsReport:
    """What upstream's operator test found of a wheel. Times in seconds.

    ``backend`` is the device that was tested: CUDA0, or SCALAR, with which the CPU code of the
    wheel was compared. ``operators`` has per operator the cases ``listed``, ``right``, ``wrong``
    and ``unsupported``; ``narrowed`` the same of activations with inputs of a narrow range. Each of
    ``wrong`` has the case, whether it was narrowed, and what it printed with each seed ("" is
    right). ``stops`` counts how often the run was stopped and went on later.
    """

    file: str
    sha256: str
    target: str
    device: str
    capability: str | None
    driver: str | None
    python: str
    system: str
    origin: str
    started: str
    seconds: float
    stops: int
    version: str
    backend: str
    operators: dict[str, dict[str, float]]
    narrowed: dict[str, dict[str, float]]
    wrong: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]
    libraries: tuple[str, ...]
    checks: tuple[Check, ...]
