"""CUDA's headers with those of a newer glibc (from zig), compiled by the real nvcc."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from sessions.fetch import main_toolkit
from sessions.fetch.record_types import Toolkit
from sessions.shared import knowledge, records
from tests.integration.conftest import REPOSITORY

CODE = """
#include <cmath>
#include <cstdio>
#include <cuda_runtime.h>
#if !__GLIBC_PREREQ(2, 42)
#error not the headers of that glibc
#endif
__global__ void k(double *x, float *y) { x[0] = rsqrt(x[1]); y[0] = rsqrtf(y[1]) + sinpif(y[2]); }
int main() {
    double *x = nullptr;
    float *y = nullptr;
    k<<<1, 1>>>(x, y);
    std::printf("%f", std::sqrt(2.0));
}
"""


def compiled(root: Path, include: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Compile the code with the headers of glibc 2.42; those in ``include`` replace CUDA's."""
    zig = importlib.util.find_spec("ziglang")
    assert zig is not None, "nox -s integration installs ziglang"
    assert zig.origin is not None
    headers = Path(zig.origin).parent / "lib" / "libc" / "include"
    parts = ("x86-linux-gnu", "generic-glibc", "x86-linux-any", "any-linux-any")
    words = [word for part in parts for word in ("-isystem", str(headers / part))]
    (folder / "x.cu").write_text(CODE)
    return subprocess.run(
        [root / "bin" / "nvcc", "-std=c++17", "-arch=sm_120", *words, "-D__GLIBC_MINOR__=42",
         "-I", include, "-c", "x.cu", "-o", "x.o"],
        cwd=folder, check=False, capture_output=True, text=True,
    )  # fmt: skip


def test_a_corrected_toolkit_compiles_with_a_newer_glibc(
    tmp_path: Path,
) -> None:
    made = records.read(REPOSITORY / "build" / "rtx50" / "toolkit.json", "toolkit", Toolkit)
    if made is None or not Path(made.root).is_dir():
        pytest.fail("There is no toolkit of the rtx50 wheel. Build it first: nox -s wheel")
    root, headers = Path(made.root), knowledge.headers(made.version, "2.42")
    shutil.copytree(root / "include", tmp_path / "include")
    before = compiled(root, tmp_path / "include", tmp_path)
    assert before.returncode != 0
    assert 'exception specification is incompatible with that of previous function "rsqrt"' in (
        before.stdout + before.stderr
    )
    main_toolkit.correct(tmp_path / "include", headers)
    after = compiled(root, tmp_path / "include", tmp_path)
    assert after.returncode == 0, after.stdout + after.stderr
