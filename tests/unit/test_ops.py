"""The session ops: imported reports, refusals, and the check of a release."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sessions.command_line import nox_session
from sessions.payload import report_file
from sessions.release import gate
from sessions.run import check_ops_report, main_ops, report_matches_wheel, signed_report
from sessions.run.record_types import OpsReport
from sessions.shared import records
from sessions.shared.check_result import Check
from sessions.shared.context import Context
from tests import fakes
from tests.problems import raises
from tests.unit.test_gate import situation

NAME = fakes.wheel().file


def context(root: Path, *words: str) -> Context:
    named: dict[str, Any] = {"session": "ops", "asked": frozenset({"ops"})}
    return fakes.context(root, *words, **named, machine=fakes.no_machine)


def imported(root: Path, report: dict[str, Any]) -> str:
    path = root / "ops-report.json"
    path.write_text(report_file.text(report, report_file.OPS), encoding="utf-8")
    return str(path)


def test_a_good_report_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = fakes.built(context(tmp_path))
    ctx = context(tmp_path, "--report", imported(tmp_path, fakes.ops_report(sha256=digest)))
    main_ops.main(ctx)
    record = check_ops_report.record(ctx.build, "12.0")
    found = records.read(record, "ops", OpsReport)
    assert found is not None
    assert check_ops_report.totals(found) == {
        "cases": 10_839, "right": 4_870, "wrong": 0, "unsupported": 5_969,
    }  # fmt: skip
    assert check_ops_report.places(ctx.build) == ("12.0",)
    assert "4870 right, 0 known upstream faults, 5969 not supported" in capsys.readouterr().out


def test_the_checks_of_a_report_are_computed_again(tmp_path: Path) -> None:
    digest = fakes.built(context(tmp_path))
    report = copy.deepcopy(fakes.ops_report(sha256=digest))
    report["operators"]["ROPE"]["right"] -= 1
    assert all(check["status"] == "ok" for check in report["checks"])
    ctx = context(tmp_path, "--report", imported(tmp_path, report))
    with raises("ops-failed"):
        main_ops.main(ctx)
    record = json.loads(check_ops_report.record(ctx.build, "12.0").read_text(encoding="utf-8"))
    assert record["ok"] is False


@pytest.mark.parametrize(
    ("changes", "id_"),
    [
        ({"sha256": "1" * 64}, "ops-report-other-wheel"),
        (  # consistent, but with the operators of another release
            {
                **fakes.ops_report("0.3.36"),
                "file": NAME.replace("0.3.16", "0.3.36"),
                "sha256": None,
            },
            "ops-report-other-wheel",
        ),
        ({"target": "ada"}, "ops-report-other-target"),
        ({"version": "0.3.36"}, "ops-report-invalid"),
        ({"device": "cpu"}, "ops-report-invalid"),
        ({"capability": "12"}, "ops-report-invalid"),
        ({"seconds": "1"}, "ops-report-invalid"),
        ({"operators": {"ADD": {"right": 1}}}, "ops-report-invalid"),
        ({"wrong": [{"case": "A", "narrowed": False, "tries": []}]}, "ops-report-invalid"),
        ({"wrong": [{"case": "A", "narrowed": False, "tries": [""]}]}, "ops-report-invalid"),
        ({"problems": "none"}, "ops-report-invalid"),
        ({"more": 1}, "ops-report-invalid"),
    ],
)
def test_an_invalid_report_or_one_about_another_wheel_is_refused(
    changes: dict[str, Any], id_: str, tmp_path: Path
) -> None:
    digest = fakes.built(context(tmp_path))
    report = {**fakes.ops_report(sha256=digest), **changes}
    report["sha256"] = report["sha256"] or digest
    with raises(id_) as caught:
        main_ops.main(context(tmp_path, "--report", imported(tmp_path, report)))
    assert caught.value.remedy == report_matches_wheel.again("ops", context(tmp_path).spec, None)
    assert check_ops_report.places(context(tmp_path).build) == ()


def test_a_smoke_report_is_refused(tmp_path: Path) -> None:
    digest = fakes.built(context(tmp_path))
    path = tmp_path / "report.json"
    path.write_text(report_file.text(fakes.smoke_report(sha256=digest)), encoding="utf-8")
    with raises("ops-report-invalid"):
        main_ops.main(context(tmp_path, "--report", str(path)))
    assert not signed_report.is_of_ops(path)
    assert signed_report.is_of_ops(Path(imported(tmp_path, fakes.ops_report())))


@pytest.mark.parametrize(
    ("words", "changes", "id_"),
    [
        (("--device", "cpu"), {}, "ops-cpu-of-cuda-target"),
        ((), {"version": "0.3.1"}, "ops-version-unknown"),
    ],
)
def test_a_run_that_tests_nothing_is_refused_before_a_build(
    words: tuple[str, ...], changes: dict[str, Any], id_: str
) -> None:
    with raises(id_):
        nox_session._check_ops(fakes.parsed(*words), fakes.spec(**changes))
    nox_session._check_ops(fakes.parsed("--device", "cpu"), fakes.cpu_spec())


# ---- the check of a release ----------------------------------------------------------------------


def release_check(**changes: Any) -> Check:
    allow, found = changes.pop("allow", False), fakes.evidence(**changes)
    made = gate.evaluate(found, situation(found, allow_untested=allow))
    (check,) = [check for check in made if check.id == "ops"]
    return check


def test_a_release_needs_the_operator_test() -> None:
    assert release_check().status == "ok"
    check = release_check(ops=())
    assert check.status == "fail"
    assert "--ops" in check.remedy
    assert "nox -s ops -- --target rtx50 --report FILE" in check.remedy
    assert release_check(ops=(), allow=True).status == "warn"


def test_a_failed_operator_test_is_not_accepted_as_untested() -> None:
    found = fakes.evidence()
    (run,) = found.ops
    rows = copy.deepcopy(run.report.operators)
    rows["ADD"]["right"] -= 1
    bad = fakes.ops_run(found.facts, found.spec, operators=rows)
    assert release_check(ops=(bad,), allow=True).status == "fail"


def test_a_report_about_another_wheel_does_not_count() -> None:
    found = fakes.evidence()
    other = fakes.ops_run(found.facts, found.spec, sha256="1" * 64)
    check = release_check(ops=(other,))
    assert check.status == "fail"
    assert "another wheel" in check.evidence


# ---- a report from an H200 ----------------------------------------------------------------------


def test_the_report_of_an_h200_passes_and_with_one_case_fewer_it_fails() -> None:
    text = (fakes.ROOT / "tests/data/ops/h200-0.3.16.json").read_text(encoding="utf-8")
    inside = json.loads(text)["report"]
    found = check_ops_report.opened(text, inside["target"], inside["sha256"], "h200-0.3.16.json")
    assert (found.device, found.capability, found.seconds) == ("NVIDIA H200", "9.0", 76.8)
    assert check_ops_report.totals(found) == {
        "cases": 10_839, "right": 4_870, "wrong": 0, "unsupported": 5_969,
    }  # fmt: skip
    assert check_ops_report.failed(found) == []
    assert sum(row["right"] for row in found.narrowed.values()) > 150
    rows = {**found.operators, "MUL_MAT_ID": {**found.operators["MUL_MAT_ID"], "right": 323}}
    assert check_ops_report.failed(dataclasses.replace(found, operators=rows)) == ["complete"]
    moved = {**found.operators["MUL_MAT_ID"], "right": 323, "unsupported": 1}
    rows = {**found.operators, "MUL_MAT_ID": moved}
    assert check_ops_report.failed(dataclasses.replace(found, operators=rows)) == ["supported"]
