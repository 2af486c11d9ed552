"""The checks of the operator test: each finds an error that upstream's test itself accepts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from sessions.payload import ops_checks
from sessions.run import ops_results
from tests import fakes

Report = dict[str, Any]


def failing(report: Report, *, cuda: bool = True) -> list[str]:
    made = ops_checks.checks(report, ops_results.expected("0.3.16", cuda=cuda))
    assert [check["id"] for check in made] == [
        "libraries", "reference", "complete", "supported", "right", "narrowed", "known",
    ]  # fmt: skip
    assert all(check["remedy"] for check in made if check["status"] != "ok")
    return [check["id"] for check in made if check["status"] != "ok"]


@pytest.mark.parametrize("cuda", [True, False])
def test_the_numbers_of_the_table_pass(cuda: bool) -> None:
    assert failing(fakes.ops_report(cuda=cuda), cuda=cuda) == []


def no_gpu(report: Report) -> None:
    """Without the backend, no case has a result, and upstream's test prints OK."""
    report["operators"] = {}
    report["narrowed"] = {}
    report["libraries"] = ["llama_cpp/lib/libggml-base.so", "llama_cpp/lib/libggml-cpu.so"]


def nothing_supported(report: Report) -> None:
    """Upstream's test counts unsupported cases as passed."""
    for row in report["operators"].values():
        row["unsupported"] += row["right"]
        row["right"] = 0


def one_filtered_out(report: Report) -> None:
    """Upstream's test ignores cases that a filter excludes."""
    report["operators"]["ADD"]["right"] -= 1


def an_operator_left_out(report: Report) -> None:
    del report["operators"]["SSM_SCAN"]


def with_itself(report: Report) -> None:
    """`-b CPU` compares a library with itself."""
    report["backend"] = "CPU"


def not_narrowed(report: Report) -> None:
    """Without a narrow range, ReLU passes as GELU."""
    del report["narrowed"]["GELU"]


def narrowed_and_not_supported(report: Report) -> None:
    row = report["narrowed"]["GELU"]
    row["unsupported"], row["right"] = row["unsupported"] + row["right"], 0


def wrong(report: Report, *tries: str, narrowed: bool = False) -> None:
    rows = report["narrowed" if narrowed else "operators"]
    rows["GELU"]["wrong"] += 1
    rows["GELU"]["right"] -= 1
    report["wrong"].append({"case": "GELU(a=1)", "narrowed": narrowed, "tries": list(tries)})


def another_library(report: Report) -> None:
    report["libraries"].append("/usr/lib/libggml-base.so.0")


def no_cuda_library(report: Report) -> None:
    report["libraries"] = ["llama_cpp/lib/libggml-base.so"]


def crashed(report: Report) -> None:
    report["problems"].append("ADD-0: at ADD(b), after ADD(a): ended by -6: GGML_ASSERT")


def wrong_and_not_named(report: Report) -> None:
    report["operators"]["GELU"]["wrong"] += 1
    report["operators"]["GELU"]["right"] -= 1


def one_more_not_supported(report: Report) -> None:
    report["operators"]["ADD"]["unsupported"] += 1
    report["operators"]["ADD"]["right"] -= 1


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (no_gpu, ["libraries", "complete", "narrowed"]),
        (nothing_supported, ["supported"]),
        (one_filtered_out, ["complete"]),
        (an_operator_left_out, ["complete"]),
        (with_itself, ["reference"]),
        (not_narrowed, ["narrowed"]),
        (narrowed_and_not_supported, ["narrowed"]),
        (another_library, ["libraries"]),
        (no_cuda_library, ["libraries"]),
        (crashed, ["complete"]),
        (wrong_and_not_named, ["complete"]),
        (one_more_not_supported, ["supported"]),
    ],
)
def test_an_error_that_upstreams_test_accepts_fails_a_check(
    change: Callable[[Report], None], found: list[str]
) -> None:
    report = copy.deepcopy(fakes.ops_report())
    change(report)
    assert failing(report) == found


def test_fewer_unsupported_cases_than_in_the_table_are_a_note() -> None:
    report = copy.deepcopy(fakes.ops_report())
    report["operators"]["CONV_2D"]["unsupported"] -= 1
    report["operators"]["CONV_2D"]["right"] += 1
    assert failing(report) == []
    (check,) = [
        check
        for check in ops_checks.checks(report, ops_results.expected("0.3.16", cuda=True))
        if check["id"] == "supported"
    ]
    assert "note: CONV_2D: 1567 cases not supported, 1568 in the table" in check["evidence"]


NEAR = "[GELU] NMSE = 0.000000190 > 0.000000100"
FAR = "[GELU] NMSE = 0.000000210 > 0.000000100"
NAN = "[GELU] NaN at index 3 (CUDA0=nan CPU=1.0)"


@pytest.mark.parametrize(
    ("tries", "found"),
    [
        ([NEAR, "", "", ""], []),  # wrong by chance
        ([NEAR, NEAR, NEAR, ""], []),
        ([NEAR, NEAR, NEAR, NEAR], ["right"]),
        ([NEAR, "", FAR, ""], ["right"]),
        ([NEAR], ["right"]),  # not repeated
        ([FAR, "", "", ""], ["right"]),
        ([NAN, "", "", ""], ["right"]),
        (["sentinel mismatch: sent_2", "", "", ""], ["right"]),
        ([NEAR, "the time limit", "", ""], ["right"]),
    ],
)
def test_a_wrong_case_passes_only_near_its_bound_and_if_another_seed_is_right(
    tries: list[str], found: list[str]
) -> None:
    report = copy.deepcopy(fakes.ops_report())
    wrong(report, *tries)
    assert failing(report) == found


def test_a_wrong_activation_in_the_narrow_range_fails() -> None:
    report = copy.deepcopy(fakes.ops_report())
    wrong(report, "[GELU] NMSE = 0.000023000 > 0.000000100", narrowed=True)
    assert failing(report) == ["narrowed"]


def test_a_corrected_known_fault_fails_until_its_row_is_removed() -> None:
    report = copy.deepcopy(fakes.ops_report(cuda=False))
    report["wrong"] = []
    report["operators"]["CPY"]["right"] += report["operators"]["CPY"]["wrong"]
    report["operators"]["CPY"]["wrong"] = 0
    assert failing(report, cuda=False) == ["known"]


def test_a_known_fault_is_accepted_only_for_its_backend() -> None:
    report = copy.deepcopy(fakes.ops_report())
    report["wrong"] = fakes.ops_report(cuda=False)["wrong"]
    report["operators"]["CPY"]["wrong"] = len(report["wrong"])
    report["operators"]["CPY"]["right"] -= len(report["wrong"])
    assert failing(report) == ["right"]


def test_a_backend_without_support_data_fails() -> None:
    expected = {**ops_results.expected("0.3.16", cuda=True), "tested": False}
    made = ops_checks.checks(fakes.ops_report(), expected)
    assert [check["id"] for check in made if check["status"] != "ok"] == ["supported"]


@pytest.mark.parametrize(
    ("version", "operators", "cases", "on_cuda", "sampled", "on_cpu"),
    [
        ("0.3.16", 90, 10_839, 5_969, 4_896, 610),
        ("0.3.36", 141, 23_366, 6_491, 12_957, 1_044),
    ],
)
def test_the_table_has_all_operators_of_a_release(
    version: str, operators: int, cases: int, on_cuda: int, sampled: int, on_cpu: int
) -> None:
    """On a CPU, four operators are tested with one eighth of their cases."""
    cuda, cpu = (ops_results.expected(version, cuda=flag) for flag in (True, False))
    assert (len(cuda["cases"]), sum(cuda["cases"].values())) == (operators, cases)
    assert (len(cpu["cases"]), sum(cpu["cases"].values())) == (operators, sampled)
    differ = [name for name in cuda["cases"] if cuda["cases"][name] != cpu["cases"][name]]
    assert (cuda["sample"]["operators"], cpu["sample"]["operators"]) == ([], sorted(differ))
    assert all(6 < cuda["cases"][name] / cpu["cases"][name] < 9 for name in differ)
    assert sum(cuda["unsupported"].values()) == on_cuda
    assert sum(cpu["unsupported"].values()) == on_cpu
    assert cuda["tested"]
    assert cpu["tested"]
    assert {"GELU", "GEGLU", "SILU", "SWIGLU"} <= set(cuda["narrow"])
