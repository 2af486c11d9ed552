"""The nouns of the project, as frozen dataclasses.

They hold only what JSON can hold, so that ``records.to_json`` and
``records.from_json`` carry them between stages unchanged. Paths are strings:
a record of a Windows machine is read on Linux by the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]
CacheName = Literal["ccache", "sccache", "none"]
StepKind = Literal["cuda", "c++", "c", "link", "other"]


@dataclass(frozen=True)
class BuildSpec:
    """What to build: one table of ``targets.toml`` with the command line's overrides."""

    target: str
    summary: str
    version: str  # of llama-cpp-python
    cuda: str | None  # "13.1"; None builds for the CPU alone
    archs: tuple[str, ...]  # as CMAKE_CUDA_ARCHITECTURES has them: "120-real"
    python: str  # "3.11"
    platform: str  # "linux" | "windows"
    toolkit: str = "pypi"  # "pypi" | "system" | a path
    source: str | None = None  # a checkout; None takes the locked sdist
    cache: CacheName = "ccache"
    compiler: str | None = None  # path of a C++ compiler; None lets the probe choose
    prerelease: bool = False  # whether a preview of Visual Studio will do
    warning: str | None = None
    budget_mb: int = 0  # what the wheel may weigh, in megabytes
    device_features: tuple[str, ...] = ()  # tensor-core instructions it claims: "OMMA.E2M1"


@dataclass(frozen=True)
class Tool:
    """A program found on the machine. ``version`` is None where it would not say."""

    name: str
    path: str
    version: str | None
    found_via: str


@dataclass(frozen=True)
class Python:
    """A Python interpreter; ``can_venv`` is whether venv and ensurepip are in it."""

    path: str
    version: str
    found_via: str
    can_venv: bool
    bits: int


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler and the C compiler of the same release beside it.

    ``family`` is gnu, clang or msvc; ``version`` is the compiler's own. ``vcvars``, ``toolset``,
    ``unfit`` and ``variables`` are of msvc only: one compiler of a Visual Studio runs in the
    environment that its script sets. ``identity`` is of the programs that make object files, and
    ``linked`` of what a library is linked with or the wheel gets a copy of: name -> version and
    digest; of the chosen compiler only (core/identity.py).
    """

    family: str
    version: str  # "12.2.0", "19.44.35207"
    cxx: str
    cc: str
    found_via: str
    vcvars: str = ""  # path of vcvars64.bat
    toolset: str = ""  # "14.44.35207", as -vcvars_ver takes it
    unfit: str = ""  # why it is not used, whatever CUDA accepts
    variables: dict[str, str] = field(default_factory=dict)  # of the chosen one, reduced
    identity: dict[str, str] = field(default_factory=dict)
    linked: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HostRange:
    """Host compilers that a CUDA toolkit accepts, from its ``crt/host_config.h``.

    Major versions, both ends included; for msvc values of ``_MSC_VER``.
    """

    gnu_max: int
    clang_min: int
    clang_max: int
    msvc_min: int
    msvc_max: int


@dataclass(frozen=True)
class InstalledToolkit:
    """A CUDA toolkit installed on the machine."""

    root: str
    version: str  # "13.0.88"
    found_via: str
    accepts: HostRange | None  # None: no readable host_config.h
    files: str = ""  # digest of the files of the chosen one that a build reads (core/identity.py)


@dataclass(frozen=True)
class Gpu:
    """A CUDA device as the driver's NVML reports it."""

    index: int
    name: str
    compute_capability: str  # "12.0"
    memory_mib: int


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: its release, and the newest CUDA version it supports."""

    release: str  # "580.159.04"
    cuda: str  # "13.0"


@dataclass(frozen=True)
class Host:
    """The machine itself. Sizes in MiB; ``cores`` are those this process may use."""

    system: str  # "linux" | "windows"
    release: str
    machine: str  # "x86_64"
    cpu: str
    cores: int
    memory_mib: int
    memory_free_mib: int
    disk_free_mib: int
    root: str = ""  # of the project; judged on Windows, where a path has a greatest length
    cache: str = ""
    glibc: str = ""  # "2.36", as its headers are taken to be; "" of a system without


@dataclass(frozen=True)
class Check:
    """One judgement. ``remedy`` is never empty unless the status is ok."""

    id: str
    status: Status
    summary: str
    evidence: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class CheckGroup:
    """Judgements of one kind, with a heading for people."""

    name: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Toolchain:
    """Everything the probe found, what it chose for the target, and its judgement."""

    host: Host
    pythons: tuple[Python, ...]
    compilers: tuple[Compiler, ...]
    toolkits: tuple[InstalledToolkit, ...]
    tools: tuple[Tool, ...]
    driver: Driver | None
    gpus: tuple[Gpu, ...]
    python: Python | None
    compiler: Compiler | None
    compiler_why: str
    setup_problem: str  # msvc: why its environment could not be set, else empty
    toolkit: InstalledToolkit | None  # the installed one the target asks for, if it does
    jobs: int
    checks: tuple[Check, ...]


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
    facts/sources.toml.
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


@dataclass(frozen=True)
class BuildEnv:
    """Everything that decides what the compiler does.

    ``variables`` are the whole environment of the build; ``settings`` are
    scikit-build-core's config settings (``python -m build -Ckey=value``). ``inputs`` are what
    the wheel is made from, in words (core/inputs.py), and ``fingerprint`` their digest.
    """

    variables: dict[str, str]
    settings: dict[str, str]
    requires: tuple[str, ...]  # added to the wheel's Requires-Dist
    fingerprint: str
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildStep:
    """One step of ninja's: from when to when, in milliseconds since ninja began."""

    output: str  # its first, below the CMake tree
    kind: StepKind
    start: int
    end: int


@dataclass(frozen=True)
class Timeline:
    """The last run of ninja that made anything: its steps, by when they began.

    ``earlier`` counts the outputs that were there already. ``critical`` names the outputs of the
    chain of steps, each needing the one before, that took longest: with any number of cores, the
    run would have taken no less. ``cache`` is what cachestats.py counts.
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


@dataclass(frozen=True)
class SmokeReport:
    """What was proven by running a wheel. Times in seconds.

    ``device`` is the card's name, or "cpu"; ``origin`` "here", or the file that brought the report.
    Each of ``cases`` is one evaluation: type, batch, flash, kv, nmse, bound, tokens, equal.
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
    times: dict[str, float]


@dataclass(frozen=True)
class BenchWheel:
    """One wheel of a benchmark: ``values`` has a series a metric, in the units of payload/stats.py.

    ``brings_runtime`` is whether it requires NVIDIA's packages; where it does not, they were put
    on the loader's path. ``jit_files`` is what the driver left in an empty cache: compiled PTX.
    """

    label: str
    file: str
    sha256: str
    version: str
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
    ``conditions`` are the card's at each step: clocks, temperature, memory. ``stops`` counts how
    often the measuring was stopped and went on later; that time is not in ``seconds``.
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
    runtime: str
    confidence: float
    model: dict[str, Any] | None
    wheels: tuple[BenchWheel, ...]
    ratios: tuple[BenchRatio, ...]
    conditions: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class VerifyReport:
    """The judgement of one wheel. ``fingerprint`` is of everything it was judged by."""

    file: str
    sha256: str
    target: str
    fingerprint: str
    seconds: float
    groups: tuple[CheckGroup, ...]


@dataclass(frozen=True)
class Release:
    """A wheel in ``dist/<target>/`` that the gate let through. Size in bytes.

    ``tested`` is False where it was released without a run on a card of its kind; ``proven`` is
    when it was run, ISO 8601 in UTC. ``commit`` is that of this project by which it was released.
    """

    target: str
    file: str
    sha256: str
    size: int
    version: str
    cuda: str | None
    archs: tuple[str, ...]
    tested: bool
    proven: str | None
    commit: str = ""
    files: dict[str, str] = field(default_factory=dict)  # what lies beside it -> sha256


@dataclass(frozen=True)
class Gate:
    """Whether a target's wheel may be released: every check, and the file it was made of."""

    target: str
    file: str  # "" where there is none
    sha256: str
    untested: tuple[str, ...]  # compute capabilities, or "cpu", on which it was not proven
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class MatrixRow:
    """The wheel of one target for one Python, and what it took. Size in bytes, times in seconds.

    ``outcome``: "repacked" is another Python's wheel under this one's tag, "same" that very wheel,
    which serves both. ``folder`` is where it lies in wheels/. ``shared`` names what earlier rows,
    or an earlier build's compiler cache, had made already. A row that failed has no file, but a
    ``reason`` and a ``remedy``: in most cases the command that makes this one alone.
    """

    target: str
    python: str
    outcome: Literal["built", "up to date", "repacked", "same", "failed"]
    folder: str
    file: str
    sha256: str
    size: int
    wall_seconds: float
    cpu_seconds: float | None
    cache: dict[str, int]
    shared: tuple[str, ...]
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Matrix:
    """The wheels of several targets, for several Pythons. ``began`` is ISO 8601 in UTC."""

    began: str
    seconds: float
    rows: tuple[MatrixRow, ...]
