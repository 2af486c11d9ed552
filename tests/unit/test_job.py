"""What a smoke run is told, the card it gets, and the reports that are taken."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sessions.core import job, spec
from sessions.core.errors import Problem
from sessions.core.model import BuildSpec, Wheel
from sessions.payload import seal
from tests import fakes

TARGETS = spec.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
DIGEST = "0" * 64


def told(target: str = "rtx50", **changes: Any) -> dict[str, Any]:
    of: BuildSpec = TARGETS[target]
    named = {"file": "x.whl", "sha256": DIGEST, "version": of.version}
    return job.job(of, **{**named, **changes})


def test_an_older_release_need_not_know_the_newest_type() -> None:
    found = told("rtx50")
    assert found["version"] == "0.3.16"
    assert "NVFP4" not in found["needed"]
    assert "NVFP4" in found["types"]  # it is tried all the same
    assert set(found["types"]) - set(found["needed"]) == {"NVFP4"}


@pytest.mark.parametrize(
    ("version", "needed"),
    [
        ("0.3.35", False),
        ("0.3.36", True),
        ("0.3.36+local.1", True),
        ("0.3.36rc1", True),
        ("0.3.100", True),
        ("0.4", True),
        ("1.0.0", True),
    ],
)
def test_a_release_that_has_the_newest_type_must_know_it(version: str, needed: bool) -> None:
    assert ("NVFP4" in told(version=version)["needed"]) is needed


def test_every_type_that_is_tried_has_a_bound_and_every_late_one_is_a_type() -> None:
    bounds = json.loads((job.PAYLOAD / "bounds.json").read_text(encoding="utf-8"))
    assert told()["types"] == list(bounds["type"])
    assert set(bounds["since"]) <= set(bounds["type"])
    assert set(bounds["native_fp4"]) <= set(bounds["type"])
    assert all(0 < bound < 1 for bound in bounds["type"].values())


def test_native_fp4_is_of_the_target_that_claims_its_instructions_alone() -> None:
    assert [name for name in TARGETS if told(name)["native_fp4"]] == ["rtx50-fp4"]


def test_a_job_names_the_wheel_it_is_of() -> None:
    identity = told(file="y.whl", sha256="1" * 64)["identity"]
    assert identity == {"file": "y.whl", "sha256": "1" * 64, "target": "rtx50"}


def test_a_job_can_be_written_as_json() -> None:
    found = told("rtx50-fp4")
    again = json.loads(json.dumps(found))
    assert again == {**found, "questions": [list(pair) for pair in job.QUESTIONS]}


@pytest.mark.parametrize(
    ("archs", "expected"),
    [
        (("120a-real",), ["12.0"]),
        (("120-real",), ["12.0"]),
        (("100",), ["10.0"]),
        (("86-real", "89-real"), ["8.6", "8.9"]),
        (("120-real", "90-real", "90-virtual"), ["9.0", "12.0"]),
        ((), []),
    ],
    ids=lambda value: ";".join(value) or "none",
)
def test_architectures_are_compute_capabilities(
    archs: tuple[str, ...], expected: list[str]
) -> None:
    assert job.capabilities(fakes.spec(archs=archs)) == expected


# ---- the card -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "changes", "wanted"),
    [
        ((), {}, True),
        (("--device", "0"), {}, True),
        (("--device", "cpu"), {}, False),
        (("--report", "x.json"), {}, False),
        ((), {"spec": fakes.cpu_spec()}, False),
        ((), {"asked": frozenset({"release"})}, True),
        ((), {"asked": frozenset({"probe", "smoke"})}, True),
    ],
    ids=["smoke", "a-card", "cpu", "report", "cpu-target", "required", "two-sessions"],
)
def test_a_card_is_wanted_where_the_wheel_will_run_on_one(
    words: tuple[str, ...], changes: dict[str, Any], wanted: bool, tmp_path: Path
) -> None:
    named: dict[str, Any] = {"asked": frozenset({"smoke"}), **changes}
    assert job.wants_card(fakes.context(tmp_path, *words, **named)) is wanted


def test_the_card_of_the_target_is_taken(tmp_path: Path) -> None:
    second = fakes.card(index=1)
    nvml = fakes.nvml(fakes.card(compute_capability="8.9"), second)
    assert job.card_for(fakes.context(tmp_path), nvml) == {**second, "visible": "1"}


def test_a_gpu_that_a_scheduler_hides_is_not_taken(tmp_path: Path) -> None:
    nvml = fakes.nvml(fakes.card(), fakes.card(index=1))
    ctx = fakes.context(tmp_path, env={"CUDA_VISIBLE_DEVICES": "1"})
    assert job.card_for(ctx, nvml)["visible"] == "1"
    ctx = fakes.context(tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    with pytest.raises(Problem, match="hides every GPU"):
        job.card_for(ctx, nvml)


def test_the_card_that_is_named_is_taken(tmp_path: Path) -> None:
    nvml = fakes.nvml(fakes.card(), fakes.card(index=1))
    assert job.card_for(fakes.context(tmp_path, "--device", "1"), nvml)["index"] == 1


def test_no_card_is_a_problem_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="The NVIDIA driver finds no card here") as caught:
        job.card_for(fakes.context(tmp_path), {**fakes.nvml(), "devices": []})
    for way in ("nox -s bundle", "nox -s smoke -- --report FILE", "-- --device cpu"):
        assert way in caught.value.remedy


def test_the_driver_must_be_new_enough_for_the_targets_cuda(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"570\.1 is too old: this wheel needs 580"):
        job.card_for(fakes.context(tmp_path), fakes.nvml(release="570.1"))


# ---- reports ------------------------------------------------------------------------------------


def opened(report: dict[str, Any], wheel: Wheel | None = None, sha256: str = DIGEST) -> Any:
    return job.opened(seal.seal(report), wheel, sha256, "report.json")


def test_a_good_report_is_taken_whole() -> None:
    said = fakes.smoke_report()
    found = opened(said, fakes.wheel())
    assert found.origin == "report.json"
    assert (found.device, found.capability) == ("NVIDIA GeForce RTX 5090", "12.0")
    assert (found.file, found.sha256, found.target) == (fakes.wheel().file, DIGEST, "rtx50")
    assert [dataclasses.asdict(check) for check in found.checks] == said["checks"]
    assert list(found.cases) == said["cases"]
    assert found.times == said["times"]


def test_times_that_were_not_measured_are_left_out() -> None:
    # Where the wheel does not import there is no time it took.
    found = opened(fakes.smoke_report(times={"import_seconds": None, "load_seconds": 1}))
    assert found.times == {"load_seconds": 1.0}


def test_a_report_of_another_wheel_is_refused() -> None:
    with pytest.raises(Problem, match="This report is of another wheel") as caught:
        opened(fakes.smoke_report(), fakes.wheel(), "1" * 64)
    assert DIGEST in caught.value.evidence
    assert "1" * 64 in caught.value.evidence
    assert "nox -s bundle" in caught.value.remedy


def test_a_report_of_another_target_is_refused() -> None:
    said = fakes.smoke_report(target="rtx50+py3.12")
    with pytest.raises(Problem, match=r"of the target rtx50\+py3\.12, not rtx50\."):
        opened(said, fakes.wheel())


def test_of_a_wheel_that_is_given_the_target_is_not_known() -> None:
    assert opened(fakes.smoke_report(target="another")).target == "another"


def test_a_damaged_report_is_refused() -> None:
    text = seal.seal(fakes.smoke_report()).replace("GeForce", "Geforce")
    with pytest.raises(Problem, match="no report that can be trusted") as caught:
        job.opened(text, fakes.wheel(), DIGEST, "report.json")
    assert "changed or damaged" in caught.value.evidence


@pytest.mark.parametrize("field", sorted(set(fakes.smoke_report()) - {"system_info"}))
def test_a_report_that_lacks_a_field_is_refused(field: str) -> None:
    said = fakes.smoke_report()
    del said[field]
    with pytest.raises(Problem, match="no report that can be trusted") as caught:
        opened(said, fakes.wheel())
    assert field in caught.value.evidence


CASE = {
    "type": "F16",
    "batch": 4,
    "flash": True,
    "kv": "f16",
    "finite": True,
    "tokens": 26,
    "equal": 26,
    "nmse": 1e-6,
    "bound": 1e-4,
}


def test_a_case_with_all_it_must_have_is_read() -> None:
    # Else the damaged ones below would prove nothing.
    assert opened(fakes.smoke_report(cases=[CASE]), fakes.wheel()).cases == (CASE,)


@pytest.mark.parametrize(
    "changes",
    [
        {"checks": None},
        {"checks": ["ok"]},
        {"checks": [{"id": "device", "status": "ok"}]},
        {"checks": [{**fakes.smoke_report()["checks"][0], "more": 1}]},
        {"checks": [{**fakes.smoke_report()["checks"][0], "status": "good"}]},
        {"checks": [{**fakes.smoke_report()["checks"][0], "status": "warn"}]},
        {"cases": None},
        {"cases": ["F16"]},
        {"cases": [{**CASE, "batch": "4"}]},
        {"cases": [{**CASE, "type": 4}]},
        {"cases": [{n: v for n, v in CASE.items() if n != "kv"}]},
        {"cases": [{n: v for n, v in CASE.items() if n != "bound"}]},
        {"cases": [{**CASE, "nmse": None}]},
        {"times": {"load_seconds": "soon"}},
        {"times": {"load_seconds": [1]}},
        {"times": []},
        {"seconds": "many"},
        {"seconds": float("inf")},
        {"seconds": 10**400},
        {"device": "half \ud800"},
    ],
    ids=[
        "no-checks",
        "a-check-that-is-text",
        "a-check-without-summary",
        "a-check-with-more",
        "a-check-of-unknown-status",
        "a-check-that-warns",
        "no-cases",
        "a-case-that-is-text",
        "a-case-of-a-batch-that-is-text",
        "a-case-of-a-type-that-is-a-number",
        "a-case-without-a-cache",
        "a-case-without-bound",
        "a-case-without-error",
        "a-time-that-is-text",
        "a-time-that-is-a-list",
        "times-in-a-list",
        "seconds-that-are-text",
        "seconds-without-end",
        "seconds-no-float-can-hold",
        "half-a-character",
    ],
)
def test_a_report_of_other_forms_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="no report that can be trusted"):
        opened(fakes.smoke_report(**changes), fakes.wheel())


def test_the_report_that_an_h200_wrote_is_taken_and_holds() -> None:
    text = (fakes.ROOT / "tests/data/smoke/h200-hopper.json").read_text(encoding="utf-8")
    sha256 = seal.opened(text)["sha256"]
    found = job.opened(text, None, sha256, "h200-hopper.json")
    assert (found.device, found.capability, found.target) == ("NVIDIA H200", "9.0", "hopper")
    assert job.failed(found) == []
    assert len(found.cases) == 400
    assert all(case["nmse"] <= case["bound"] for case in found.cases)


@pytest.mark.parametrize(
    "cases",
    [
        [],
        [CASE, {**CASE, "nmse": 2e-4}],
        [{**CASE, "nmse": -1e-6}],
        [{**CASE, "nmse": float("nan")}],
        [{**CASE, "finite": False}],
        [{**CASE, "nmse": 2e-4, "bound": 1e-3}],
        [{**CASE, "type": "MXFP4", "bound": 0.2}],
        [{**CASE, "bound": 0.0, "nmse": 0.0}],
        [{**CASE, "type": "Q9_9"}],
        [{**CASE, "kv": "q9_9"}],
        [CASE, {"type": "Q4_K", "error": "a crash"}],
    ],
    ids=[
        "none",
        "over-its-bound",
        "less-than-nothing",
        "no-number",
        "not-finite",
        "a-wider-bound-than-there-is",
        "a-wider-bound-than-fp4-has",
        "no-bound",
        "of-no-type",
        "of-no-cache",
        "an-error",
    ],
)
def test_what_a_report_says_of_its_cases_does_not_count_against_them(
    cases: list[dict[str, Any]],
) -> None:
    found = opened(fakes.smoke_report(cases=cases))
    assert {check.status for check in found.checks} == {"ok"}
    assert job.failed(found) == ["known-answers"]


def test_cases_within_the_bounds_there_are_hold() -> None:
    fp4 = {**CASE, "type": "MXFP4", "nmse": 0.05, "bound": 0.1}
    cached = {**CASE, "kv": "q4_0", "nmse": 0.02, "bound": 0.0251}
    assert job.failed(opened(fakes.smoke_report(cases=[CASE, fp4, cached]))) == []


def test_a_proof_that_both_holds_and_fails_does_not_hold() -> None:
    checks = [*fakes.smoke_checks(), *fakes.smoke_checks("memory")]
    assert job.failed(opened(fakes.smoke_report(checks=checks))) == ["memory"]
