"""Host: the machine on which a wheel is built or tested."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """The machine. Sizes in MiB; ``cores`` that this process may use."""

    system: str  # "linux" | "windows"
    release: str
    machine: str  # "x86_64"
    cpu: str
    cores: int
    memory_mib: int
    memory_free_mib: int
    disk_free_mib: int
    root: str = ""  # of the project; checked on Windows, which limits the length of paths
    cache: str = ""
    glibc: str = ""  # "2.36"; "" if the system has none
