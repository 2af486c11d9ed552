"""The OpenMP runtime for an older glibc. test_old_glibc.py tests which version a symbol gets."""

from __future__ import annotations

import pytest

from sessions.build import openmp


@pytest.mark.parametrize(
    ("name", "value"),
    [("GLIBC_2.2.5", 0x9691A75), ("GLIBC_2.17", 0x6969197), ("GLIBC_2.34", 0x69691B4)],
)
def test_elf_hash(name: str, value: int) -> None:
    assert openmp.elf_hash(name) == value
