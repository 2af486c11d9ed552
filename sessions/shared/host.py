"""The machine itself, as the probe asked about it."""

from __future__ import annotations

from dataclasses import dataclass


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
