"""BuildSpec: what to build. HostRange: which host compilers a CUDA toolkit accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheName = Literal["ccache", "sccache", "none"]
GLIBCS = ("2.28", "host")  # the values of --glibc


@dataclass(frozen=True)
class BuildSpec:
    """What to build: one table of ``targets.toml`` with the command line's overrides."""

    base: str  # the name of its table
    target: str  # base plus the overrides: "rtx50+py3.12"; folders have this name
    summary: str
    version: str  # of llama-cpp-python
    cuda: str | None  # "13.1"; None builds for the CPU only
    archs: tuple[str, ...]  # in the form of CMAKE_CUDA_ARCHITECTURES: "120-real"
    python: str  # "3.11"
    platform: str  # "linux" | "windows"
    toolkit: str = "pypi"  # "pypi" | "system" | a path
    source: str | None = None  # a checkout; None takes the locked sdist
    cache: CacheName = "ccache"
    glibc: str = "2.28"  # the oldest glibc that the wheel needs; "host": this machine's
    compiler: str | None = None  # path of a C++ compiler; None lets the probe choose
    prerelease: bool = False  # whether a preview of Visual Studio is accepted
    warning: str | None = None
    product: bool = True  # False: only for comparisons, so `--targets all` leaves it out
    budget_mb: int = 0  # largest size of the wheel in MB
    device_features: tuple[str, ...] = ()  # tensor-core instructions it must contain: "OMMA.E2M1"
    cmake: tuple[tuple[str, str], ...] = ()  # options of llama.cpp's CMake files, by name
    overrides: tuple[str, ...] = ()  # the options that differ from the table: "--python", "3.12"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options that select exactly this spec."""
        return ("--target", self.base, *self.overrides)

    @property
    def old_glibc(self) -> bool:
        """Whether it is linked with a glibc older than this machine's (``build/old_glibc.py``)."""
        return self.platform == "linux" and self.glibc != "host"


@dataclass(frozen=True)
class HostRange:
    """The host compilers that a CUDA toolkit accepts, from its ``crt/host_config.h``.

    Major versions, both ends included; for msvc, values of ``_MSC_VER``.
    """

    gnu_max: int
    clang_min: int
    clang_max: int
    msvc_min: int
    msvc_max: int
