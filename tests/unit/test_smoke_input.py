"""What a smoke run is told, the GPU it gets, and the reports that are taken."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from sessions.build import baselines
from sessions.build.model import Wheel
from sessions.payload import child, report_file
from sessions.probe import gpu_choice
from sessions.run import bench_results, families, own_report, smoke_input, smoke_results
from sessions.shared import wheel_name
from sessions.shared.build_spec import BuildSpec
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem
from sessions.targets import targets_file
from tests import fakes
from tests.problems import raises

TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
DIGEST = "0" * 64


def told(target: str = "rtx50", **changes: Any) -> dict[str, Any]:
    of: BuildSpec = TARGETS[target]
    named = {"file": "x.whl", "sha256": DIGEST, "version": of.version}
    return smoke_input.job(of, **{**named, **changes})


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
    bounds = json.loads((smoke_input.PAYLOAD / "bounds.json").read_text(encoding="utf-8"))
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
    assert again == {**found, "questions": [list(pair) for pair in smoke_input.QUESTIONS]}


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
    assert gpu_choice.capabilities(fakes.spec(archs=archs)) == expected


# ---- the GPU -----------------------------------------------------------------------------------


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
    ids=["smoke", "a-GPU", "cpu", "report", "cpu-target", "required", "two-sessions"],
)
def test_a_gpu_is_wanted_where_the_wheel_will_run_on_one(
    words: tuple[str, ...], changes: dict[str, Any], wanted: bool, tmp_path: Path
) -> None:
    named: dict[str, Any] = {"asked": frozenset({"smoke"}), **changes}
    assert gpu_choice.needs_gpu(fakes.context(tmp_path, *words, **named)) is wanted


def test_the_gpu_of_the_target_is_taken(tmp_path: Path) -> None:
    second = fakes.nvml_gpu(index=1)
    nvml = fakes.nvml(fakes.nvml_gpu(compute_capability="8.9"), second)
    chosen = gpu_choice.gpu_for(fakes.context(tmp_path), nvml)
    assert chosen == {**second, "visible": "1", "second": None}


def test_another_gpu_of_the_target_is_told_too(tmp_path: Path) -> None:
    nvml = fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1))
    assert gpu_choice.gpu_for(fakes.context(tmp_path), nvml)["second"] == "1"
    ctx = fakes.context(tmp_path, "--device", "0", session="smoke")
    assert gpu_choice.gpu_for(ctx, nvml)["second"] is None


def test_a_gpu_that_a_scheduler_hides_is_not_taken(tmp_path: Path) -> None:
    nvml = fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1))
    ctx = fakes.context(tmp_path, env={"CUDA_VISIBLE_DEVICES": "1"})
    assert gpu_choice.gpu_for(ctx, nvml)["visible"] == "1"
    ctx = fakes.context(tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    with raises("gpu-not-usable"):
        gpu_choice.gpu_for(ctx, nvml)


def test_the_gpu_that_is_named_is_taken(tmp_path: Path) -> None:
    nvml = fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1))
    assert gpu_choice.gpu_for(fakes.context(tmp_path, "--device", "1"), nvml)["index"] == 1


def test_no_gpu_is_a_problem_with_the_ways_out(tmp_path: Path) -> None:
    """Each for the target that was asked for, not for the default one."""
    ctx = fakes.context(tmp_path, spec=fakes.spec(target="hopper", archs=("90-real",)))
    with raises("gpu-not-usable") as caught:
        gpu_choice.gpu_for(ctx, {**fakes.nvml(), "devices": []})
    for way in ("bundle -- --target hopper", "smoke -- --target hopper --report FILE"):
        assert f"nox -s {way}" in caught.value.remedy
    # With --device cpu nothing is built, so the wheel comes first.
    built, run = "nox -s wheel -- --target hopper", "nox -s smoke -- --target hopper --device cpu"
    assert f"{built}, then: {run}" in caught.value.remedy


def test_a_wheel_that_is_named_is_not_built_to_run_it_on_the_cpu(tmp_path: Path) -> None:
    ctx = fakes.context(tmp_path, "--wheel", "a.whl", session="smoke", asked=frozenset({"smoke"}))
    with raises("gpu-not-usable") as caught:
        gpu_choice.gpu_for(ctx, {**fakes.nvml(), "devices": []})
    assert "on the CPU only: add --device cpu to this command" in caught.value.remedy
    assert "nox -s wheel" not in caught.value.remedy


@pytest.mark.parametrize("session", ["ops", "bench"])
def test_without_a_gpu_each_session_names_its_own_way_out(session: str, tmp_path: Path) -> None:
    ctx = fakes.context(tmp_path, session="probe", asked=frozenset({session}))
    with raises("gpu-not-usable") as caught:
        gpu_choice.gpu_for(ctx, {**fakes.nvml(), "devices": []})
    remedy = caught.value.remedy
    assert f"nox -s {session} -- --target rtx50 --report FILE" in remedy
    assert f"--{session}" in remedy  # of the bundle's program
    assert "--device cpu" not in remedy
    assert ("nox -s smoke" in remedy) is (session == "bench")


@pytest.mark.parametrize("session", ["smoke", "ops", "bench"])
def test_with_a_driver_that_is_too_old_no_bundle_is_named(session: str, tmp_path: Path) -> None:
    ctx = fakes.context(tmp_path, session="probe", asked=frozenset({session}))
    with raises("gpu-not-usable") as caught:
        gpu_choice.gpu_for(ctx, fakes.nvml(release="570.1"))
    assert caught.value.remedy.startswith("install a newer driver")
    assert "--report" not in caught.value.remedy
    assert "--bench" not in caught.value.remedy


def test_the_driver_must_be_new_enough_for_the_targets_cuda(tmp_path: Path) -> None:
    with raises("gpu-not-usable"):
        gpu_choice.gpu_for(fakes.context(tmp_path), fakes.nvml(release="570.1"))


@pytest.mark.parametrize("session", ["smoke", "bench"])
@pytest.mark.parametrize("name", ["my-wheel.whl", "wheel.whl", "a-b-c-d-e.whl", "x.zip"])
def test_a_wheel_whose_name_says_nothing_is_refused(
    name: str, session: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"a wheel")
    ctx = fakes.context(tmp_path, "--wheel", str(tmp_path / name), session=session)
    with raises("wheel-name-invalid") as caught:
        smoke_input.chosen(ctx)
    assert (caught.value.id, caught.value.code) == ("wheel-name-invalid", USAGE)


# ---- reports ------------------------------------------------------------------------------------


def opened(report: dict[str, Any], wheel: Wheel | None = None, sha256: str = DIGEST) -> Any:
    target, file = (wheel.target, wheel.file) if wheel else (None, None)
    return smoke_results.opened(report_file.text(report), target, sha256, "report.json", file)


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
    with raises("smoke-report-other-wheel") as caught:
        opened(fakes.smoke_report(), fakes.wheel(), "1" * 64)
    assert DIGEST in caught.value.evidence
    assert f"the wheel here is {fakes.wheel().file} with sha256 {'1' * 64}" in caught.value.evidence
    with raises("smoke-report-other-wheel") as caught:
        opened(fakes.smoke_report(), None, "1" * 64)
    assert f"the wheel here has sha256 {'1' * 64}" in caught.value.evidence


@pytest.mark.parametrize(
    ("session", "platform", "there"),
    [
        ("smoke", "linux", "python3.12 smoke-rtx50+py3.12.pyz"),
        ("ops", "linux", "python3.12 smoke-rtx50+py3.12.pyz --ops"),
        ("bench", "windows", "py -3.12 smoke-rtx50+py3.12.pyz --bench"),
    ],
)
def test_a_report_is_made_again_of_this_very_wheel(session: str, platform: str, there: str) -> None:
    words = ("--python", "3.12")
    spec = fakes.spec(
        base="rtx50", target="rtx50+py3.12", overrides=words, python="3.12", platform=platform
    )
    own = "--target rtx50 --python 3.12"
    assert own_report.again(session, spec, None) == (
        f"run it again for this wheel, here: nox -s {session} -- {own}; or for another machine: "
        f"nox -s bundle -- {own}, and there: {there}"
    )
    given = own_report.again(session, spec, "/a/b.whl")
    assert f"here: nox -s {session} -- {own} --wheel /a/b.whl; or" in given
    assert "-s bundle" not in given  # which takes no wheel


def test_a_report_of_another_target_is_refused() -> None:
    said = fakes.smoke_report(target="rtx50+py3.12")
    with raises("smoke-report-other-target"):
        opened(said, fakes.wheel())


def test_of_a_wheel_that_is_given_the_target_is_not_known() -> None:
    assert opened(fakes.smoke_report(target="another")).target == "another"


def test_a_damaged_report_is_refused() -> None:
    text = report_file.text(fakes.smoke_report()).replace("GeForce", "Geforce")
    with raises("smoke-report-invalid") as caught:
        smoke_results.opened(text, "rtx50", DIGEST, "report.json")
    assert "changed or damaged" in caught.value.evidence


@pytest.mark.parametrize(
    "field", sorted(set(fakes.smoke_report()) - {"families", "features", "system_info"})
)
def test_a_report_that_lacks_a_field_is_refused(field: str) -> None:
    said = fakes.smoke_report(families=families.NONE)
    del said[field]
    with raises("smoke-report-invalid") as caught:
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


FEW = {"cases": [CASE], "families": families.NONE}  # a report need not be complete to be read


def test_a_case_with_all_it_must_have_is_read() -> None:
    # Else the damaged ones below would test nothing.
    assert opened(fakes.smoke_report(**FEW), fakes.wheel()).cases == (CASE,)


BAD: tuple[Any, ...] = (
    0,
    math.inf,
    -math.inf,
    10**400,
    math.nan,
    -1e-4,
    0.0,
    "1e-4",
    None,
    True,
    [],
    {},
)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


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
        *({"cases": [{**CASE, "bound": bound}]} for bound in BAD),
        *({"seconds": value} for value in BAD[1:4]),
        {"cases": [{**CASE, "nmse": 10**400}]},
        {"cases": [{**CASE, "nmse": "1e-6"}]},
        {"cases": [{**CASE, "batch": True}]},
        {"cases": [{**CASE, "flash": 1}]},
        {"cases": [{**CASE, "tokens": -1}]},
        {"cases": [{**CASE, "tokens": 1.5}]},
        {"cases": [{**CASE, "more": []}]},
        {"cases": [{**CASE, "repeats": None}]},
        {"cases": [{**CASE, "type": "half \udc00"}]},
        {"cases": [{"type": "F16", "error": 3}]},
        {"cases": [{"error": "no type"}]},
        {"cases": {}},
        {"checks": [{**fakes.smoke_report()["checks"][0], "summary": 1}]},
        {"times": {"load_seconds": True}},
        {"times": {"load\nseconds": 1.0}},
        {"capability": None},
        {"capability": "../../x"},
        {"capability": 12.0},
        {"device": "cpu"},
        {"driver": 580},
        {"driver": "580\n"},
        {"started": "yesterday"},
        {"file": "../x.whl", "cases": [CASE]},
        {"file": "x.whl", "cases": [CASE]},
        {"target": ""},
        {"python": "3" * 5000},
        {"more": nested(30)},
        {"features": None},
        {"features": [{**fakes.smoke_features()[0], "more": 1}]},
        {"features": [{**fakes.smoke_features()[0], "nmse": "1e-6"}]},
        {"features": [{**fakes.smoke_features()[0], "bound": 0}]},
        {"features": [{**fakes.smoke_features()[0], "case": "two\nlines"}]},
        {"times": {"load_seconds": "soon"}},
        {"times": {"load_seconds": [1]}},
        {"times": []},
        {"seconds": "many"},
        {"seconds": float("inf")},
        {"seconds": 10**400},
        {"device": "half \ud800"},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_report_of_other_forms_is_refused(changes: dict[str, Any]) -> None:
    with raises("smoke-report-invalid") as caught:
        opened(fakes.smoke_report(**{**FEW, **changes}))
    assert caught.value.code == CHECK_FAILED


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "9" * 5000,
        "[]",
        "null",
        "",
        "{}",
        '{"schema": 1, "kind": "smoke-report", "report": [], "sha256": ""}',
        '{"schema": 1, "kind": ["smoke-report"], "report": {}, "sha256": {}}',
    ],
    ids=lambda text: text[:20] or "empty",
)
@pytest.mark.parametrize("kind", ["smoke", "bench"])
def test_a_text_that_is_not_a_report_is_refused(kind: str, text: str) -> None:
    words = (None, DIGEST) if kind == "smoke" else ("rtx50", DIGEST)
    read: Any = smoke_results.opened if kind == "smoke" else bench_results.opened
    with pytest.raises(Problem) as caught:
        read(text, *words, "report.json")
    assert caught.value.id == f"{kind}-report-invalid"


def test_a_report_that_nests_deeply_where_nobody_looks_is_refused() -> None:
    said = fakes.smoke_report()
    text = report_file.text(said).replace(
        '"system_info": ', f'"system_info": {"[" * 5000}{"]" * 5000}, "x": '
    )
    with raises("smoke-report-invalid"):
        smoke_results.opened(text, None, DIGEST, "report.json")


def test_a_name_that_is_there_twice_is_refused() -> None:
    text = report_file.text(fakes.smoke_report()).replace(
        '"device": ', '"device": "NVIDIA H200", "device": ', 1
    )
    with raises("smoke-report-invalid") as caught:
        smoke_results.opened(text, None, DIGEST, "report.json")
    assert caught.value.evidence == "not a report: 'device' occurs twice"


def test_the_report_of_a_wheel_of_another_name_is_refused() -> None:
    said = fakes.smoke_report(file="llama_cpp_python-0.3.9-py3-none-linux_x86_64.whl")
    with raises("smoke-report-other-wheel"):
        opened(said, fakes.wheel())


def test_the_report_that_an_h200_wrote_is_taken_and_lacks_what_is_asked_since() -> None:
    text = (fakes.ROOT / "tests/data/smoke/h200-hopper.json").read_text(encoding="utf-8")
    sha256 = report_file.read(text)["sha256"]
    found = smoke_results.opened(text, None, sha256, "h200-hopper.json")
    assert (found.device, found.capability, found.target) == ("NVIDIA H200", "9.0", "hopper")
    # It was written before there were these checks, so a release asks for a newer one.
    assert smoke_results.failed(found) == [
        "cpu-modules",
        "families",
        "lora",
        "partial-offload",
        "text-embeddings",
        "threads",
        "vision",
    ]
    assert len(found.cases) == 400
    assert all(case["nmse"] <= case["bound"] for case in found.cases)


GOOD = fakes.smoke_cases(fakes.wheel().file)


def planted(type_: str = "F16", number: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """All cases, one of them changed."""
    at = next(n for n, case in enumerate(GOOD) if case["type"] == type_) + number
    return [{**case, **changes} if n == at else case for n, case in enumerate(GOOD)]


@pytest.mark.parametrize(
    "cases",
    [
        [],
        GOOD[:1],
        GOOD[:-1],
        [case for case in GOOD if case["type"] != "IQ1_M"],
        [case for case in GOOD if case["kv"] != "q4_0"],
        [*GOOD, GOOD[0]],
        [*GOOD, {**GOOD[0], "batch": 2}],
        [*GOOD, *fakes.smoke_cases(types=["NVFP4"])[:3]],
        planted(nmse=2e-4),
        planted(nmse=-1e-6),
        planted(nmse=float("nan")),
        planted(finite=False),
        planted(nmse=2e-4, bound=1e-3),
        planted("MXFP4", bound=0.2),
        planted(type="Q9_9"),
        planted(kv="q9_9"),
        [*GOOD[:-1], {"type": "Q4_K", "error": "a crash"}],
    ],
    ids=[
        "none",
        "one-of-400",
        "all-but-one",
        "a-type-less",
        "a-cache-less",
        "one-twice",
        "one-that-nobody-asks-for",
        "half-of-a-type-that-need-not-be-there",
        "over-its-bound",
        "less-than-nothing",
        "no-number",
        "not-finite",
        "a-wider-bound-than-there-is",
        "a-wider-bound-than-fp4-has",
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
    assert "known-answers" in smoke_results.failed(found)


@pytest.mark.parametrize(
    ("cases", "id_"),
    [
        (planted("F32", 0, equal=19), "greedy-tokens"),
        (planted("BF16", 1, equal=0, tokens=0), "greedy-tokens"),
        (planted("Q4_K", 1, repeats=False), "repeatable"),
        ([{n: v for n, v in case.items() if n != "repeats"} for case in GOOD], "repeatable"),
    ],
)
def test_what_answers_show_is_derived_from_them(cases: list[dict[str, Any]], id_: str) -> None:
    assert smoke_results.failed(opened(fakes.smoke_report(cases=cases))) == [id_]


ANSWERS = fakes.smoke_features()


def other(id_: str, **changes: Any) -> list[dict[str, Any]]:
    """The answers of the features, the first of a check changed."""
    at = next(n for n, answer in enumerate(ANSWERS) if answer["check"] == id_)
    return [{**answer, **changes} if n == at else answer for n, answer in enumerate(ANSWERS)]


@pytest.mark.parametrize(
    ("features", "ids"),
    [
        ([], ["lora", "partial-offload", "text-embeddings", "threads", "vision"]),
        (ANSWERS[1:], ["vision"]),
        ([*ANSWERS, ANSWERS[0]], ["vision"]),
        ([answer for answer in ANSWERS if answer["check"] != "lora"], ["lora"]),
        (other("lora", nmse=1e-3), ["lora"]),
        (other("lora", nmse=-1e-9), ["lora"]),
        (other("lora", nmse=math.nan), ["lora"]),
        (other("lora", nmse=1e-3, bound=1e-2), ["lora"]),
        (other("threads", bound=6e-3), ["threads"]),
        (other("vision", case="no such picture"), ["vision"]),
        (other("vision", check="hearing"), ["hearing", "vision"]),
        ([*ANSWERS, {**ANSWERS[0], "check": "two-gpus"}], ["two-gpus"]),
    ],
    ids=[
        "none",
        "one-less",
        "one-twice",
        "a-check-less",
        "over-its-bound",
        "less-than-nothing",
        "no-number",
        "a-wider-bound-than-there-is",
        "a-wider-bound-than-four-times-the-worst",
        "another-case",
        "another-check",
        "two-gpus-without-a-check",
    ],
)
def test_what_a_report_says_of_features_is_derived_from_their_answers(
    features: list[dict[str, Any]], ids: list[str]
) -> None:
    assert smoke_results.failed(opened(fakes.smoke_report(features=features))) == ids


def test_two_gpus_are_tested_where_there_are_two() -> None:
    rows = smoke_results.known_features()["worst"]["two-gpus"]
    more = [
        {"check": "two-gpus", "case": case, "nmse": row["gpu"], "bound": 2 * row["gpu"]}
        for case, row in rows.items()
    ]
    check = {**fakes.smoke_checks()[0], "id": "two-gpus"}
    checks = [*fakes.smoke_checks(), check]
    for features, ids in (([*ANSWERS, *more], []), ([*ANSWERS, *more[1:]], ["two-gpus"])):
        said = fakes.smoke_report(features=features, checks=checks)
        assert smoke_results.failed(opened(said)) == ids


def test_on_the_cpu_the_narrower_bounds_of_a_cpu_hold() -> None:
    where = {"device": "cpu", "capability": None, "driver": None}
    checks = [check for check in fakes.smoke_checks() if check["id"] not in fakes.ON_A_GPU]
    answers = fakes.smoke_features(on_gpu=False)
    wide = [{**a, "nmse": 1e-5, "bound": 1e-4} if a["check"] == "lora" else a for a in answers]
    for features, ids in ((answers, []), (wide, ["lora"])):
        said = fakes.smoke_report(features=features, checks=checks, **where)
        assert smoke_results.failed(opened(said)) == ids


def test_which_cases_are_missing_is_said() -> None:
    found = opened(fakes.smoke_report(cases=GOOD[:-1]))
    assert smoke_results.gaps(found) == ["IQ1_M: 1 of 16 cases are missing"]


def test_a_release_must_have_the_types_that_it_knows() -> None:
    file = "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    for cases, gaps in (
        (fakes.smoke_cases(file), []),
        (GOOD, ["NVFP4: 16 of 16 cases are missing"]),
    ):
        assert smoke_results.gaps(opened(fakes.smoke_report(file=file, cases=cases))) == gaps


def test_the_payload_computes_the_cases_that_are_asked_for() -> None:
    every = [{**case, "type": name} for name in told()["needed"] for case in child.CASES]
    keys = ("type", "batch", "flash", "kv")
    assert [{name: case[name] for name in keys} for case in GOOD] == [
        {name: case[name] for name in keys} for case in every
    ]


def test_cases_within_the_bounds_there_are_hold() -> None:
    for cases in (planted("MXFP4", nmse=0.05, bound=0.1), planted(number=7, nmse=0.02)):
        assert smoke_results.failed(opened(fakes.smoke_report(cases=cases))) == []


def test_a_check_that_both_holds_and_fails_does_not_hold() -> None:
    checks = [*fakes.smoke_checks(), *fakes.smoke_checks("memory")]
    assert smoke_results.failed(opened(fakes.smoke_report(checks=checks))) == ["memory"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("llama_cpp_python-0.3.16-py3-none-linux_x86_64.whl", "0.3.16"),
        ("llama_cpp_python-0.3.16+cu131-1-cp311-cp311-win_amd64.whl", "0.3.16+cu131"),
        ("my-wheel.whl", None),
        ("wheel.whl", None),
        ("llama_cpp_python-new-py3-none-any.whl", None),
    ],
)
def test_the_version_in_a_wheels_name(name: str, version: str | None) -> None:
    if version is not None:
        assert wheel_name.version(Path(name)) == version
        return
    with raises("wheel-name-invalid") as caught:
        wheel_name.version(Path(name))
    assert (caught.value.id, caught.value.code) == ("wheel-name-invalid", USAGE)


@pytest.mark.parametrize("session", ["smoke", "bench"])
def test_a_wheel_that_has_no_wheels_name_is_refused(tmp_path: Path, session: str) -> None:
    (tmp_path / "my-wheel.whl").touch()
    ctx = fakes.context(tmp_path, "--wheel", str(tmp_path / "my-wheel.whl"), session=session)
    with raises("wheel-name-invalid"):
        smoke_input.chosen(ctx)


def test_a_baseline_that_has_no_wheels_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my-wheel.whl").touch()
    with raises("wheel-name-invalid"):
        baselines.wheels(fakes.context(tmp_path, "--baseline", str(tmp_path / "my-wheel.whl")))


@pytest.mark.parametrize(
    ("nmse", "bound", "share"),
    [
        (0.5, 1.0, 0.5),
        (0.0, 1.0, 0.0),
        (1.0, 0.0, math.inf),
        (0.0, 0.0, math.inf),
        (1.0, -1.0, math.inf),
        (math.nan, 1.0, math.inf),
        (math.inf, 1.0, math.inf),
        (1.0, math.nan, math.inf),
    ],
)
def test_the_share_of_a_bound_is_a_number_or_infinite(
    nmse: float, bound: float, share: float
) -> None:
    assert smoke_results.share({"nmse": nmse, "bound": bound}) == share


@pytest.mark.parametrize(("capability", "place"), [("9.0", "9.0"), ("12.1", "12.1"), (None, "cpu")])
def test_a_run_has_files_of_its_own(capability: str | None, place: str, tmp_path: Path) -> None:
    assert smoke_results.place(capability) == place
    smoke_results.record(tmp_path, place).touch()
    smoke_results.report_path(tmp_path, place).touch()
    for other in (
        "smoke.json",
        "smoke-x.json",
        "smoke-report-8.0.json.sig",
        "smoke-9.0.json.1.part",
    ):
        (tmp_path / other).touch()
    assert smoke_results.places(tmp_path) == (place,)


def test_runs_are_in_the_order_of_their_capabilities(tmp_path: Path) -> None:
    for place in ("cpu", "12.0", "9.0", "8.6"):
        smoke_results.record(tmp_path, place).touch()
    assert smoke_results.places(tmp_path) == ("8.6", "9.0", "12.0", "cpu")
