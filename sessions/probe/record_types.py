"""The record of the probe: what is on a machine, and what was chosen for a target."""

from __future__ import annotations

from dataclasses import dataclass, field

from sessions.shared import host
from sessions.shared.build_spec import HostRange
from sessions.shared.check_result import Check


@dataclass(frozen=True)
class Tool:
    """A program on the machine. ``version`` is None if it printed none."""

    name: str
    path: str
    version: str | None
    found_via: str


@dataclass(frozen=True)
class Python:
    """A Python interpreter. ``can_venv``: it has the modules venv and ensurepip."""

    path: str
    version: str
    found_via: str
    can_venv: bool
    bits: int


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, and the C compiler of the same release beside it.

    ``family`` is gnu, clang or msvc. ``vcvars``, ``toolset``, ``unfit`` and ``variables`` are set
    for msvc only. ``identity`` describes the programs that produce object files, ``linked`` what is
    linked into a library or copied into the wheel: name -> version and digest. Both are set for the
    chosen compiler only (probe/identity.py).
    """

    family: str
    version: str  # "12.2.0", "19.44.35207"
    cxx: str
    cc: str
    found_via: str
    vcvars: str = ""  # path of vcvars64.bat, which sets ``variables``
    toolset: str = ""  # "14.44.35207", as -vcvars_ver takes it
    unfit: str = ""  # why it is never used, even if CUDA accepts it
    variables: dict[str, str] = field(default_factory=dict)  # for the chosen one; reduced
    identity: dict[str, str] = field(default_factory=dict)
    linked: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InstalledToolkit:
    """A CUDA toolkit installed on the machine."""

    root: str
    version: str  # "13.0.88"
    found_via: str
    accepts: HostRange | None  # None: no readable host_config.h
    files: str = ""  # of the chosen one: digest of the files that a build reads (identity.py)


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
class Toolchain:
    """What the probe found, what it chose for the target, and the results of its checks."""

    host: host.Host
    pythons: tuple[Python, ...]
    compilers: tuple[Compiler, ...]
    toolkits: tuple[InstalledToolkit, ...]
    tools: tuple[Tool, ...]
    driver: Driver | None
    gpus: tuple[Gpu, ...]
    python: Python | None
    compiler: Compiler | None
    compiler_why: str
    setup_problem: str  # msvc: why its environment could not be set, or empty
    toolkit: InstalledToolkit | None  # None: the target uses NVIDIA's packages, or none was found
    jobs: int
    checks: tuple[Check, ...]
