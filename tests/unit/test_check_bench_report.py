"""Reading a benchmark's report: its values are checked, and its ratios are computed again."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sessions.payload import report_file
from sessions.run import check_bench_report
from sessions.run.record_types import BenchReport
from tests import fakes
from tests.problems import raises

DIGEST = "0" * 64
REMEDY = "what makes one"


def report_text(report: dict[str, Any]) -> str:
    """The text of a report file."""
    return report_file.text(report, report_file.BENCH)


def opened(report: dict[str, Any]) -> BenchReport:
    """The report as it is read from its file."""
    return check_bench_report.opened(report_text(report), "rtx50", DIGEST, "here", REMEDY)


BAD: tuple[Any, ...] = (math.inf, -math.inf, 10**400, math.nan, "5", True, [], {}, None)
CONDITION = fakes.bench_report()["conditions"][0]


def with_value(value: Any, metric: str = "import_seconds") -> dict[str, Any]:
    """A wheel with one other value."""
    wheel = fakes.bench_wheel()
    series = wheel["values"].get(metric, [1.0] * 8)
    return {**wheel, "values": {**wheel["values"], metric: [value, *series[1:]]}}


def test_a_report_is_read_with_its_ratios() -> None:
    found = opened(fakes.bench_report())
    assert (found.target, found.device, found.rounds) == ("rtx50", "NVIDIA GeForce RTX 5090", 8)
    assert [wheel.label for wheel in found.wheels] == ["rtx50", "seed"]
    assert found.wheels[0].values["import_seconds"] == tuple(100.0 + n for n in range(8))
    assert {ratio.metric for ratio in found.ratios} == set(found.wheels[0].values)
    assert {(ratio.baseline, ratio.ratio) for ratio in found.ratios} == {("seed", 1.0)}
    assert found.confidence == 0.99
    assert found.conditions[0]["celsius"] == 41
    assert opened(fakes.bench_report(fakes.bench_wheel())).ratios == ()


def test_the_ratios_of_a_report_are_ignored() -> None:
    slow = fakes.bench_wheel("slow")
    slow["values"]["import_seconds"] = [2 * v for v in slow["values"]["import_seconds"]]
    report = fakes.bench_report(fakes.bench_wheel(), slow, ratios=[{"ratio": 9.0}])
    (found,) = [r for r in opened(report).ratios if r.metric == "import_seconds"]
    assert (found.ratio, found.verdict, found.count) == (0.5, "better", 8)


def test_the_name_of_the_model_has_no_folder() -> None:
    model = {"file": "/home/me/real.gguf", "size": 7, "sha256": "2" * 64}
    wheels = [fakes.bench_wheel(), fakes.bench_wheel("seed")]
    for wheel in wheels:
        names = [name for name in check_bench_report.METRICS if name.startswith("real_")]
        wheel["values"] |= dict.fromkeys(names, [1.0] * 8)
    found = opened(fakes.bench_report(*wheels, model=model))
    assert found.model == {"file": "real.gguf", "size": 7, "sha256": "2" * 64}


WHEEL_CHANGES: list[dict[str, Any]] = [{"label": label} for label in ("", 7, None)]
WHEEL_CHANGES += [{"packages": "numpy"}, {"packages": [7]}, {"jit_files": -1}]
WHEEL_CHANGES += [{"brings_runtime": 1}, {"more": 1}, {"values": []}]
BAD_WHEELS: list[Any] = [
    *([{**fakes.bench_wheel(), **change}] for change in WHEEL_CHANGES),
    *([with_value(value)] for value in (*BAD, 0, -1.0, 1e308, 5e-324)),
    [],
    None,
    [[]],
    [fakes.bench_wheel(), fakes.bench_wheel()],
    [with_value(1.0, metric="nobody_knows")],
    [with_value(1.0), fakes.bench_wheel("seed", rounds=9)],
]
BAD_CONDITIONS: list[Any] = [{**CONDITION, "sm_mhz": value} for value in (*BAD[:-1], {})]
BAD_CONDITIONS += [{**CONDITION, "slowed": "heat"}, {**CONDITION, "slowed": [1]}]
BAD_CONDITIONS += [{**CONDITION, "more": 1}]
BAD_CONDITIONS += [{n: v for n, v in CONDITION.items() if n != "sm_mhz_highest"}]
FILE = {"file": "a.gguf"}
BAD_MODELS: tuple[Any, ...] = (7, [], FILE, {**FILE, "size": "7", "sha256": "2" * 64})
BAD_REPORTS: list[dict[str, Any]] = [
    *({"wheels": wheels} for wheels in BAD_WHEELS),
    *({"conditions": conditions} for conditions in (3, *([one] for one in BAD_CONDITIONS))),
    *({"seconds": value} for value in BAD),
    *({"rounds": value} for value in (*BAD, 1.5, "many", -1, 9)),
    *({"model": value} for value in BAD_MODELS),
    *({"device": value} for value in (7, "half \ud800", "two\nlines")),
    {"threads": True},
    {"driver": 580},
    {"more": 1},
]


@pytest.mark.parametrize("change", BAD_REPORTS, ids=lambda change: str(change)[:60])
def test_a_report_with_other_values_is_refused_with_a_remedy(change: dict[str, Any]) -> None:
    with raises("bench-report-invalid") as caught:
        opened(fakes.bench_report(**change))
    assert caught.value.remedy == REMEDY


@pytest.mark.parametrize("field", sorted(set(fakes.bench_report()) - {"ratios"}))
def test_a_report_without_a_required_field_is_refused(field: str) -> None:
    report = fakes.bench_report()
    del report[field]
    with raises("bench-report-invalid"):
        opened(report)


def test_values_that_nvml_did_not_return_are_none() -> None:
    found = opened(fakes.bench_report(conditions=[{**CONDITION, "sm_mhz": None, "watts": None}]))
    assert found.conditions[0]["sm_mhz"] is None


EMPTY = fakes.bench_wheel()
EMPTY["values"]["first_load_seconds"] = []
OTHER = fakes.bench_wheel(sha256="9" * 64)


@pytest.mark.parametrize(
    ("text", "id_", "evidence"),
    [
        (report_text(fakes.bench_report(EMPTY)), "invalid", "first_load_seconds"),
        (
            report_text(fakes.bench_report()).replace("100.0", "50.0"),
            "invalid",
            "its digest is not that of its content",
        ),
        (report_file.text(fakes.smoke_report()), "invalid", "no bench-report"),
        (report_text(fakes.bench_report(OTHER, sha256="9" * 64)), "other-wheel", "9999"),
        (report_text(fakes.bench_report(OTHER)), "invalid", "first wheel"),
        (report_text(fakes.bench_report(target="hopper")), "other-target", ""),
    ],
    ids=["empty-series", "changed", "smoke", "other-wheel", "other-first-wheel", "other-target"],
)
def test_a_damaged_report_or_one_about_something_else_is_refused(
    text: str, id_: str, evidence: str
) -> None:
    with raises(f"bench-report-{id_}") as caught:
        check_bench_report.opened(text, "rtx50", DIGEST, "here")
    assert evidence in caught.value.evidence


def test_the_tables_of_a_report() -> None:
    ((title, _, rows),) = check_bench_report.tables(report_text(fakes.bench_report()))
    assert title == "rtx50 against seed"
    assert rows
