"""What joins a library to those it needs: of this Python's own libraries, which use glibc's."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path

import lief
import pytest

from sessions.shared import knowledge
from sessions.verify import symbols


def numpy_core() -> Path:
    """A compiled library that is there wherever the tests run on Linux."""
    core = importlib.import_module("numpy._core._multiarray_umath")
    assert core.__file__ is not None
    return Path(core.__file__)


@pytest.mark.skipif("sys.platform != 'linux'", reason="an ELF file")
def test_functions_are_told_by_the_library_that_they_come_from() -> None:
    binary = lief.parse(numpy_core().read_bytes())
    assert isinstance(binary, lief.ELF.Binary)
    found = symbols.functions(binary)
    assert {"memcpy", "malloc"} <= set(found["libc.so.6"])
    assert set(found) <= {str(name) for name in binary.libraries}
    assert "PyInit__multiarray_umath" in symbols.exports(binary)
    assert not symbols.exports(binary) & set(found["libc.so.6"])


@pytest.mark.skipif("sys.platform != 'linux'", reason="an ELF file")
def test_a_wheel_without_a_cuda_library_needs_nothing_of_nvidias_packages(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(numpy_core(), "llama_cpp/lib/libx.so")
        archive.writestr("llama_cpp/lib/libtext.so", "no library")
    assert symbols.needed(wheel) == ("", {})
    assert symbols.exported(wheel) == frozenset()


def test_what_is_recorded_of_the_real_wheel_is_what_it_needs() -> None:
    floors = knowledge.floors("13")
    assert "cublasGemmEx" in floors["nvidia-cublas"].needs
    assert "cudaMalloc" in floors["nvidia-cuda-runtime"].needs
