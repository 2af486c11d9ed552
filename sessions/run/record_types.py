"""The reports of the sessions that run a wheel: smoke, ops and bench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sessions.shared.check_result import Check


@dataclass(frozen=True)
class RunReport:
    """The fields that the three reports share."""

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


@dataclass(frozen=True)
class SmokeReport(RunReport):
    """What was tested by running a wheel. Times in seconds.

    ``device`` is the name of the GPU, or "cpu"; ``origin`` is "here", or the file of the report.
    Each item of ``cases`` is one evaluation: type, batch, flash, kv, nmse, bound, tokens, equal.
    Each item of ``features`` is a result of another check: check, case, nmse, bound.
    ``families`` has the set of model families, their rows (family, type, batch, flash, split,
    nmse, worst: the largest of one token, MiB of the model on the CPU and on the GPU), and the
    operations that were computed for them, each with its type and buffer.
    """

    checks: tuple[Check, ...]
    cases: tuple[dict[str, Any], ...]
    features: tuple[dict[str, Any], ...]
    families: dict[str, Any]
    times: dict[str, float]


@dataclass(frozen=True)
class BenchWheel:
    """One wheel of a benchmark: ``values`` has one series per metric.

    The units are in payload/bench_metrics.py.

    ``cpu_module`` is the module for the CPU that was used; None for a wheel without modules.
    ``brings_runtime`` says whether it requires NVIDIA's packages; if not, they were put on the
    loader's path. ``jit_files``: files of compiled PTX that the driver wrote to an empty cache.
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
    """The median of the rounds' ratios (target's wheel / baseline) of one metric, and its interval.

    ``verdict`` says what the interval shows: better, worse, same (it contains 1), or unsure (too
    few values).
    """

    baseline: str
    metric: str
    ratio: float
    low: float
    high: float
    count: int
    verdict: Literal["better", "worse", "same", "unsure"]


@dataclass(frozen=True)
class BenchReport(RunReport):
    """Wheels measured alternately, the target's first. Times in seconds.

    ``runtime`` says where NVIDIA's CUDA runtime came from: packages (then the installed size
    contains it), linked, toolkit or none. ``model`` is the real model: file, size in bytes, sha256.
    ``conditions``: clocks, temperature and memory of the GPU at each step. ``stops`` counts how
    often the run was stopped and continued; the time between is not in ``seconds``.
    ``cpu_threads`` is the number of threads with which the CPU computes the larger model and the
    real model, ``threads`` the number for everything else.
    """

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
class OpsReport(RunReport):
    """The results of upstream's operator test with a wheel. Times in seconds.

    ``backend`` is the device that was tested: CUDA0, or SCALAR, with which the CPU code of the
    wheel was compared. ``operators`` has the number of ``listed``, ``right``, ``wrong``
    and ``unsupported`` cases of each operator; ``narrowed`` has the same for activations with a
    narrow range of inputs. Each item of ``wrong`` has the case, whether its range was narrow, and
    what it printed with each seed ("" if it was right). ``stops`` counts how often the run was
    stopped and continued.
    """

    stops: int
    version: str
    backend: str
    operators: dict[str, dict[str, float]]
    narrowed: dict[str, dict[str, float]]
    wrong: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]
    libraries: tuple[str, ...]
    checks: tuple[Check, ...]
