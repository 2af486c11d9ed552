"""What to build, and which host compilers a CUDA toolkit accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheName = Literal["ccache", "sccache", "none"]
GLIBCS = ("2.28", "host")  # what a wheel for Linux can be linked with


@dataclass(frozen=True)
class BuildSpec:
    """What to build: one table of ``targets.toml`` with the command line's overrides."""

    base: str  # the name of its table
    target: str  # the same, with what differs: "rtx50+py3.12"; folders are named after it
    summary: str
    version: str  # of llama-cpp-python
    cuda: str | None  # "13.1"; None builds for the CPU only
    archs: tuple[str, ...]  # as CMAKE_CUDA_ARCHITECTURES has them: "120-real"
    python: str  # "3.11"
    platform: str  # "linux" | "windows"
    toolkit: str = "pypi"  # "pypi" | "system" | a path
    source: str | None = None  # a checkout; None takes the locked sdist
    cache: CacheName = "ccache"
    glibc: str = "2.28"  # the oldest glibc of Linux that the wheel is for; "host": this machine's
    compiler: str | None = None  # path of a C++ compiler; None lets the probe choose
    prerelease: bool = False  # whether a preview of Visual Studio will do
    warning: str | None = None
    product: bool = True  # False: built only to compare with, so `--targets all` leaves it out
    budget_mb: int = 0  # what the wheel may weigh, in megabytes
    device_features: tuple[str, ...] = ()  # tensor-core instructions it claims: "OMMA.E2M1"
    cmake: tuple[tuple[str, str], ...] = ()  # options of llama.cpp's CMake files, by name
    overrides: tuple[str, ...] = ()  # the options that make it differ: "--python", "3.12"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The part of a command line that chooses this very spec."""
        return ("--target", self.base, *self.overrides)

    @property
    def old_glibc(self) -> bool:
        """Whether it is linked with an older glibc than the machine's (``build/old_glibc.py``)."""
        return self.platform == "linux" and self.glibc != "host"


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
