"""The OpenMP runtime for an older glibc: the version that each symbol gets."""

from __future__ import annotations

import pytest

from sessions.build import openmp
from sessions.shared import knowledge


@pytest.mark.parametrize(
    ("name", "value"),
    [("GLIBC_2.2.5", 0x9691A75), ("GLIBC_2.17", 0x6969197), ("GLIBC_2.34", 0x69691B4)],
)
def test_elf_hash(name: str, value: int) -> None:
    assert openmp.elf_hash(name) == value


@pytest.mark.parametrize(
    ("symbol", "library", "version"),
    [
        ("pthread_create", "libpthread.so.0", "GLIBC_2.2.5"),
        ("pthread_setaffinity_np", "libpthread.so.0", "GLIBC_2.3.4"),
        ("dlopen", "libdl.so.2", "GLIBC_2.2.5"),
        ("memcpy", "libc.so.6", "GLIBC_2.14"),
        ("stdout", "libc.so.6", "GLIBC_2.2.5"),
    ],
)
def test_homes(symbol: str, library: str, version: str) -> None:
    assert openmp.homes(knowledge.glibc())[symbol] == (library, version)
