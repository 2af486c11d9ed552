"""The kernel families that were started: their names, and their share of the code."""

from __future__ import annotations

import pytest

from sessions.verify import gpu_code
from tests.gpu import kernels


@pytest.mark.parametrize(
    ("written", "mangled", "family"),
    [
        (
            "void mul_mat_q<(ggml_type)12, 128, false>(char const*, int const*, float*)",
            "_Z9mul_mat_qIL9ggml_type12ELi128ELb0EEvPKcPKiPf",
            "mul_mat_q",
        ),
        ("acc_f32(float const*, float*, long)", "_Z7acc_f32PKfPfl", "acc_f32"),
        (
            "void cub::CUB_300001::DeviceReduceKernel<int>(int)",
            "_ZN3cub10CUB_30000118DeviceReduceKernelIiEEvi",
            "cub",
        ),
        ("k_bin_bcast", "k_bin_bcast", "k_bin_bcast"),
    ],
)
def test_a_kernel_has_the_same_family_as_its_mangled_name(
    written: str, mangled: str, family: str
) -> None:
    """CUPTI returns C++ names; the names in a wheel are mangled."""
    assert kernels.family(written) == family
    assert gpu_code.family(mangled) == family


def test_the_coverage_counts_families_and_bytes() -> None:
    sizes = {"a": 50, "b": 30, "c": 20}
    started = {"smoke": {"a", "cutlass"}, "ops": {"a", "b"}}
    assert kernels.coverage(sizes, started) == {
        "smoke": (1, 50.0), "ops": (2, 80.0), "neither": (1, 20.0),
    }  # fmt: skip


def test_the_kernels_of_a_wheel_are_read_from_its_facts() -> None:
    libraries = [{"device": None}, {}, {"device": {"kernels": {"a": 5}}}]
    assert kernels.wheel_kernels({"facts": {"libraries": libraries}}) == {"a": 5}
