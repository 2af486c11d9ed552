"""Imported and exported functions of libraries, tested with a compiled library of NumPy."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path

import lief
import pytest

from sessions.shared import knowledge
from sessions.verify import symbols


def numpy_core() -> Path:
    """A compiled library that exists wherever the tests run on Linux."""
    core = importlib.import_module("numpy._core._multiarray_umath")
    assert core.__file__ is not None
    return Path(core.__file__)


@pytest.mark.skipif("sys.platform != 'linux'", reason="an ELF file")
def test_functions_are_grouped_by_the_library_that_has_them() -> None:
    binary = lief.parse(numpy_core().read_bytes())
    assert isinstance(binary, lief.ELF.Binary)
    found = symbols.functions(binary)
    assert {"memcpy", "malloc"} <= set(found["libc.so.6"])
    assert set(found) <= {str(name) for name in binary.libraries}
    assert "PyInit__multiarray_umath" in symbols.exports(binary)
    assert not symbols.exports(binary) & set(found["libc.so.6"])


@pytest.mark.skipif("sys.platform != 'linux'", reason="an ELF file")
def test_a_wheel_without_cuda_libraries_needs_no_package_of_nvidia(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(numpy_core(), "llama_cpp/lib/libx.so")
        archive.writestr("llama_cpp/lib/libtext.so", "not a library")
    assert symbols.needed(wheel) == ("", {})
    assert symbols.exported(wheel) == frozenset()


def test_the_recorded_needs_of_the_real_wheel_contain_cublas_and_cudart() -> None:
    floors = knowledge.floors("13")
    assert "cublasGemmEx" in floors["nvidia-cublas"].needs
    assert "cudaMalloc" in floors["nvidia-cuda-runtime"].needs
