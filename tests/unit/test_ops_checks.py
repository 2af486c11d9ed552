"""The checks of the operator test: each finds an error that upstream's test itself accepts."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sessions.payload import ops_checks
from sessions.run import check_ops_report
from tests import fakes

Report = dict[str, Any]


def failing(report: Report, *, cuda: bool = True) -> list[str]:
    made = ops_checks.checks(report, check_ops_report.expected("0.3.16", cuda=cuda))
    assert [check["id"] for check in made] == [
        "libraries", "reference", "complete", "supported", "right", "narrowed", "known",
    ]  # fmt: skip
    assert all(check["remedy"] for check in made if check["status"] != "ok")
    return [check["id"] for check in made if check["status"] != "ok"]


@pytest.mark.parametrize("cuda", [True, False])
def test_the_numbers_of_the_table_pass(cuda: bool) -> None:
    assert failing(fakes.ops_report(cuda=cuda), cuda=cuda) == []


GOOD = fakes.ops_report()
BASE, CPU = "llama_cpp/lib/libggml-base.so", "llama_cpp/lib/libggml-cpu.so"


def rows(group: str, **changes: dict[str, int]) -> dict[str, Any]:
    """The rows of a good report, with these numbers added to rows of operators."""
    found = copy.deepcopy(GOOD[group])
    for name, numbers in changes.items():
        for field, number in numbers.items():
            found[name][field] += number
    return dict(found)


def without(group: str, name: str) -> dict[str, Any]:
    """The rows of a good report without one operator."""
    return {operator: row for operator, row in GOOD[group].items() if operator != name}


UNSUPPORTED = {
    name: {**row, "right": 0, "unsupported": row["unsupported"] + row["right"]}
    for name, row in GOOD["operators"].items()
}
GELU = GOOD["narrowed"]["GELU"]["right"]
ERRORS: dict[str, tuple[Report, list[str]]] = {
    # Without the backend, no case has a result, and upstream's test prints OK.
    "no-backend": (
        {"operators": {}, "narrowed": {}, "libraries": [BASE, CPU]},
        ["libraries", "complete", "narrowed"],
    ),
    # Upstream's test counts unsupported cases as passed, and ignores cases that a filter excludes.
    "nothing-supported": ({"operators": UNSUPPORTED}, ["supported"]),
    "one-more-unsupported": (
        {"operators": rows("operators", ADD={"unsupported": 1, "right": -1})},
        ["supported"],
    ),
    "case-excluded": ({"operators": rows("operators", ADD={"right": -1})}, ["complete"]),
    "operator-excluded": ({"operators": without("operators", "SSM_SCAN")}, ["complete"]),
    # `-b CPU` compares a library with itself.
    "compared-with-itself": ({"backend": "CPU"}, ["reference"]),
    # Without a narrow range, ReLU passes as GELU.
    "not-narrowed": ({"narrowed": without("narrowed", "GELU")}, ["narrowed"]),
    "narrowed-unsupported": (
        {"narrowed": rows("narrowed", GELU={"unsupported": GELU, "right": -GELU})},
        ["narrowed"],
    ),
    "other-library": (
        {"libraries": [*GOOD["libraries"], "/usr/lib/libggml-base.so.0"]},
        ["libraries"],
    ),
    "no-cuda-library": ({"libraries": [BASE]}, ["libraries"]),
    "crash": (
        {"problems": ["ADD-0: at ADD(b), after ADD(a): ended by -6: GGML_ASSERT"]},
        ["complete"],
    ),
    "wrong-case-without-a-name": (
        {"operators": rows("operators", GELU={"wrong": 1, "right": -1})},
        ["complete"],
    ),
}


@pytest.mark.parametrize(("changes", "found"), ERRORS.values(), ids=ERRORS)
def test_an_error_that_upstreams_test_accepts_fails_a_check(
    changes: Report, found: list[str]
) -> None:
    assert failing({**GOOD, **changes}) == found


def test_fewer_unsupported_cases_than_in_the_table_are_a_note() -> None:
    operators = rows("operators", CONV_2D={"unsupported": -1, "right": 1})
    report = {**GOOD, "operators": operators}
    assert failing(report) == []
    checks = ops_checks.checks(report, check_ops_report.expected("0.3.16", cuda=True))
    evidence = {check["id"]: check["evidence"] for check in checks}
    assert "note: CONV_2D: 1567 cases not supported, 1568 in the table" in evidence["supported"]


def wrong(*tries: str, narrowed: bool = False) -> Report:
    """A good report with one wrong case of GELU and the errors of its tries."""
    group = "narrowed" if narrowed else "operators"
    case = {"case": "GELU(a=1)", "narrowed": narrowed, "tries": list(tries)}
    changed = rows(group, GELU={"wrong": 1, "right": -1})
    return {**GOOD, group: changed, "wrong": [*GOOD["wrong"], case]}


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
    assert failing(wrong(*tries)) == found


def test_a_wrong_activation_in_the_narrow_range_fails() -> None:
    report = wrong("[GELU] NMSE = 0.000023000 > 0.000000100", narrowed=True)
    assert failing(report) == ["narrowed"]


def test_a_corrected_known_fault_fails_until_its_row_is_removed() -> None:
    report = copy.deepcopy(fakes.ops_report(cuda=False))
    row = report["operators"]["CPY"]
    report["wrong"], row["right"], row["wrong"] = [], row["right"] + row["wrong"], 0
    assert failing(report, cuda=False) == ["known"]


def test_a_known_fault_is_accepted_only_for_its_backend() -> None:
    cases = fakes.ops_report(cuda=False)["wrong"]
    operators = rows("operators", CPY={"wrong": len(cases), "right": -len(cases)})
    assert failing({**GOOD, "operators": operators, "wrong": cases}) == ["right"]


def test_a_backend_without_support_data_fails() -> None:
    expected = {**check_ops_report.expected("0.3.16", cuda=True), "tested": False}
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
    cuda, cpu = (check_ops_report.expected(version, cuda=flag) for flag in (True, False))
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
