"""The job of a smoke run, the choice of its GPU, and the reading and checking of its report."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from sessions.build import baselines
from sessions.build.record_types import Wheel
from sessions.payload import child, report_file
from sessions.probe import gpu_for_tests
from sessions.run import (
    check_bench_report,
    check_smoke_report,
    families,
    report_matches_wheel,
    smoke_input,
)
from sessions.shared import wheel_name
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem
from sessions.targets import targets_file
from tests import fakes
from tests.problems import raises

TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
DIGEST = "0" * 64


def job(target: str = "rtx50", **changes: Any) -> dict[str, Any]:
    """The job of a target's wheel."""
    spec: BuildSpec = TARGETS[target]
    base = {"file": "x.whl", "sha256": DIGEST, "version": spec.version}
    return smoke_input.job(spec, **{**base, **changes})


def test_the_job_of_a_release_requires_the_types_that_it_knows() -> None:
    found = job("rtx50")
    assert found["version"] == "0.3.16"
    assert set(found["types"]) - set(found["needed"]) == {"NVFP4"}  # NVFP4 is tested all the same
    bounds = json.loads((smoke_input.PAYLOAD / "bounds.json").read_text(encoding="utf-8"))
    assert found["types"] == list(bounds["type"])
    assert set(bounds["since"]) <= set(bounds["type"])
    assert set(bounds["native_fp4"]) <= set(bounds["type"])
    assert all(0 < bound < 1 for bound in bounds["type"].values())


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
def test_a_release_that_has_nvfp4_must_know_it(version: str, needed: bool) -> None:
    assert ("NVFP4" in job(version=version)["needed"]) is needed


def test_only_the_fp4_target_has_wider_bounds() -> None:
    assert [name for name in TARGETS if job(name)["native_fp4"]] == ["rtx50-fp4"]


def test_a_job_names_its_wheel_and_can_be_written_as_json() -> None:
    found = job("rtx50-fp4", file="y.whl", sha256="1" * 64)
    assert found["identity"] == {"file": "y.whl", "sha256": "1" * 64, "target": "rtx50-fp4"}
    questions = [list(pair) for pair in smoke_input.QUESTIONS]
    assert json.loads(json.dumps(found)) == {**found, "questions": questions}


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
def test_the_capabilities_follow_from_the_architectures(
    archs: tuple[str, ...], expected: list[str]
) -> None:
    assert gpu_for_tests.capabilities(fakes.spec(archs=archs)) == expected


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
)
def test_whether_a_run_needs_a_gpu(
    words: tuple[str, ...], changes: dict[str, Any], wanted: bool, tmp_path: Path
) -> None:
    named: dict[str, Any] = {"asked": frozenset({"smoke"}), **changes}
    assert gpu_for_tests.needs_gpu(fakes.context(tmp_path, *words, **named)) is wanted


ADA = fakes.nvml_gpu(compute_capability="8.9")
SECOND = fakes.nvml_gpu(index=1)


@pytest.mark.parametrize(
    ("first", "words", "env", "expected"),
    [
        (ADA, (), {}, {"index": 1, "visible": "1", "second": None}),
        (fakes.nvml_gpu(), (), {}, {"index": 0, "visible": "0", "second": "1"}),
        (fakes.nvml_gpu(), ("--device", "0"), {}, {"index": 0, "second": None}),
        (fakes.nvml_gpu(), ("--device", "1"), {}, {"index": 1, "second": None}),
        (fakes.nvml_gpu(), (), {"CUDA_VISIBLE_DEVICES": "1"}, {"index": 1, "visible": "1"}),
    ],
    ids=["target", "two-gpus", "device-0", "device-1", "visible"],
)
def test_the_gpu_of_a_run(
    first: dict[str, Any],
    words: tuple[str, ...],
    env: dict[str, str],
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    ctx = fakes.context(tmp_path, *words, session="smoke", env=env)
    found = gpu_for_tests.gpu_for(ctx, fakes.nvml(first, SECOND))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("env", "nvml"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, fakes.nvml()),
        ({}, fakes.nvml(release="570.1")),
        ({}, {**fakes.nvml(), "devices": []}),
    ],
    ids=["hidden", "old-driver", "no-gpu"],
)
def test_without_a_usable_gpu_there_is_a_problem(
    env: dict[str, str], nvml: dict[str, Any], tmp_path: Path
) -> None:
    with raises("gpu-not-usable"):
        gpu_for_tests.gpu_for(fakes.context(tmp_path, env=env), nvml)


def remedy(ctx: Context, nvml: dict[str, Any]) -> str:
    """The remedy of the problem that there is no usable GPU."""
    with raises("gpu-not-usable") as caught:
        gpu_for_tests.gpu_for(ctx, nvml)
    return caught.value.remedy


NO_GPU = {**fakes.nvml(), "devices": []}


def test_without_a_gpu_the_remedy_has_commands_for_this_target(tmp_path: Path) -> None:
    found = remedy(
        fakes.context(tmp_path, spec=fakes.spec(target="hopper", archs=("90-real",))), NO_GPU
    )
    for way in ("bundle -- --target hopper", "smoke -- --target hopper --report FILE"):
        assert f"nox -s {way}" in found
    # --device cpu builds nothing, so the wheel is built first.
    built, run = "nox -s wheel -- --target hopper", "nox -s smoke -- --target hopper --device cpu"
    assert f"{built}, then: {run}" in found


def test_for_a_given_wheel_the_remedy_does_not_build_one(tmp_path: Path) -> None:
    ctx = fakes.context(tmp_path, "--wheel", "a.whl", session="smoke", asked=frozenset({"smoke"}))
    found = remedy(ctx, NO_GPU)
    assert "on the CPU only: add --device cpu to this command" in found
    assert "nox -s wheel" not in found


@pytest.mark.parametrize("session", ["smoke", "ops", "bench"])
def test_each_session_has_its_own_remedy(session: str, tmp_path: Path) -> None:
    ctx = fakes.context(tmp_path, session="probe", asked=frozenset({session}))
    old_driver = remedy(ctx, fakes.nvml(release="570.1"))
    assert old_driver.startswith("install a newer driver")
    assert "--report" not in old_driver
    assert "--bench" not in old_driver
    if session == "smoke":
        return
    found = remedy(ctx, NO_GPU)
    assert f"nox -s {session} -- --target rtx50 --report FILE" in found
    assert f"--{session}" in found  # an option of the bundle's program
    assert "--device cpu" not in found
    assert ("nox -s smoke" in found) is (session == "bench")


# ---- reading a report ---------------------------------------------------------------------------


def opened(report: dict[str, Any], wheel: Wheel | None = None, sha256: str = DIGEST) -> Any:
    """The report as it is read back from its text."""
    target, file = (wheel.target, wheel.file) if wheel else (None, None)
    return check_smoke_report.opened(report_file.text(report), target, sha256, "report.json", file)


def test_a_good_report_is_read_completely() -> None:
    report = fakes.smoke_report()
    found = opened(report, fakes.wheel())
    assert found.origin == "report.json"
    assert (found.device, found.capability) == ("NVIDIA GeForce RTX 5090", "12.0")
    assert (found.file, found.sha256, found.target) == (fakes.wheel().file, DIGEST, "rtx50")
    assert [dataclasses.asdict(check) for check in found.checks] == report["checks"]
    assert list(found.cases) == report["cases"]
    assert found.times == report["times"]
    # The times of a wheel that cannot be imported are None.
    times = {"import_seconds": None, "load_seconds": 1}
    assert opened(fakes.smoke_report(times=times)).times == {"load_seconds": 1.0}


OTHER_NAME = "llama_cpp_python-0.3.9-py3-none-linux_x86_64.whl"


@pytest.mark.parametrize(
    ("changes", "wheel", "sha256", "id_", "evidence"),
    [
        ({}, fakes.wheel(), "1" * 64, "other-wheel", f"is {fakes.wheel().file} with sha256 1111"),
        ({}, None, "1" * 64, "other-wheel", "the wheel here has sha256 1111"),
        ({"file": OTHER_NAME}, fakes.wheel(), DIGEST, "other-wheel", f"names {OTHER_NAME}"),
        ({"target": "rtx50+py3.12"}, fakes.wheel(), DIGEST, "other-target", ""),
    ],
    ids=["digest", "digest-of-a-given-wheel", "name", "target"],
)
def test_a_report_about_something_else_is_refused(
    changes: dict[str, Any], wheel: Wheel | None, sha256: str, id_: str, evidence: str
) -> None:
    with raises(f"smoke-report-{id_}") as caught:
        opened(fakes.smoke_report(**changes), wheel, sha256)
    assert evidence in caught.value.evidence


def test_the_target_of_a_given_wheel_is_not_compared() -> None:
    assert opened(fakes.smoke_report(target="another")).target == "another"


@pytest.mark.parametrize(
    ("session", "platform", "there"),
    [
        ("smoke", "linux", "python3.12 smoke-rtx50+py3.12.pyz"),
        ("ops", "linux", "python3.12 smoke-rtx50+py3.12.pyz --ops"),
        ("bench", "windows", "py -3.12 smoke-rtx50+py3.12.pyz --bench"),
    ],
)
def test_the_remedy_makes_a_report_of_this_wheel(session: str, platform: str, there: str) -> None:
    words = ("--python", "3.12")
    spec = fakes.spec(
        base="rtx50", target="rtx50+py3.12", overrides=words, python="3.12", platform=platform
    )
    own = "--target rtx50 --python 3.12"
    assert report_matches_wheel.again(session, spec, None) == (
        f"run it again for this wheel, here: nox -s {session} -- {own}; or for another machine: "
        f"nox -s bundle -- {own}, and there: {there}"
    )
    given = report_matches_wheel.again(session, spec, "/a/b.whl")
    assert f"here: nox -s {session} -- {own} --wheel /a/b.whl; or" in given
    assert "-s bundle" not in given  # which takes no wheel


@pytest.mark.parametrize(
    "field", sorted(set(fakes.smoke_report()) - {"families", "features", "system_info"})
)
def test_a_report_without_a_required_field_is_refused(field: str) -> None:
    report = fakes.smoke_report(families=families.NONE)
    del report[field]
    with raises("smoke-report-invalid") as caught:
        opened(report, fakes.wheel())
    assert field in caught.value.evidence


CASE = {"type": "F16", "batch": 4, "flash": True, "kv": "f16", "finite": True}
CASE |= {"tokens": 26, "equal": 26, "nmse": 1e-6, "bound": 1e-4}
FEW = {"cases": [CASE], "families": families.NONE}  # a report need not be complete to be read


def test_a_complete_case_is_read() -> None:
    """So the cases below are refused only for their changes."""
    assert opened(fakes.smoke_report(**FEW), fakes.wheel()).cases == (CASE,)


BAD: tuple[Any, ...] = (0, math.inf, -math.inf, 10**400, math.nan, -1e-4, 0.0)
BAD += ("1e-4", None, True, [], {})


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


CHECK = fakes.smoke_report()["checks"][0]
FEATURE = fakes.smoke_features()[0]
BAD_CHECKS: list[Any] = ["ok", {"id": "device", "status": "ok"}]
BAD_CHECKS += [{**CHECK, "more": 1}, *({**CHECK, "status": name} for name in ("good", "warn"))]
BAD_CHECKS += [{**CHECK, "summary": 1}]
BAD_CASE_FIELDS: list[dict[str, Any]] = [{"bound": bound} for bound in BAD]
BAD_CASE_FIELDS += [{"nmse": value} for value in (None, 10**400, "1e-6")]
BAD_CASE_FIELDS += [{"batch": "4"}, {"batch": True}, {"flash": 1}, {"tokens": -1}, {"tokens": 1.5}]
BAD_CASE_FIELDS += [{"type": 4}, {"type": "half \udc00"}, {"repeats": None}, {"more": []}]
BAD_CASE_LIST: list[Any] = ["F16", {"type": "F16", "error": 3}, {"error": "no type"}]
BAD_CASE_LIST += [{n: v for n, v in CASE.items() if n != name} for name in ("kv", "bound")]
BAD_CASE_LIST += [{**CASE, **change} for change in BAD_CASE_FIELDS]
BAD_FEATURE_FIELDS = ({"more": 1}, {"nmse": "1e-6"}, {"bound": 0}, {"case": "two\nlines"})
BAD_TIMES: tuple[Any, ...] = (
    [],
    {"load_seconds": True},
    {"load_seconds": "soon"},
    {"load_seconds": [1]},
)
BAD_REPORTS: list[dict[str, Any]] = [
    {"checks": None},
    *({"checks": [check]} for check in BAD_CHECKS),
    {"cases": None},
    {"cases": {}},
    *({"cases": [case]} for case in BAD_CASE_LIST),
    {"features": None},
    *({"features": [{**FEATURE, **change}]} for change in BAD_FEATURE_FIELDS),
    *({"times": times} for times in (*BAD_TIMES, {"load\nseconds": 1.0})),
    *({"seconds": value} for value in (*BAD[1:4], "many")),
    *({"capability": value} for value in (None, "../../x", 12.0)),
    *({"device": value} for value in ("cpu", "half \ud800")),
    *({"driver": value} for value in (580, "580\n")),
    *({"file": name} for name in ("../x.whl", "x.whl")),
    {"started": "yesterday"},
    {"target": ""},
    {"python": "3" * 5000},
    {"more": nested(30)},
]


@pytest.mark.parametrize("changes", BAD_REPORTS, ids=lambda changes: str(changes)[:60])
def test_a_report_with_other_values_is_refused(changes: dict[str, Any]) -> None:
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
    read: Any = check_smoke_report.opened if kind == "smoke" else check_bench_report.opened
    with pytest.raises(Problem) as caught:
        read(text, *words, "report.json")
    assert caught.value.id == f"{kind}-report-invalid"


@pytest.mark.parametrize(
    ("old", "new", "evidence"),
    [
        ("GeForce", "Geforce", "changed or damaged"),
        ('"system_info": ', f'"system_info": {"[" * 5000}{"]" * 5000}, "x": ', ""),
        (
            '"device": ',
            '"device": "NVIDIA H200", "device": ',
            "not a report: 'device' occurs twice",
        ),
    ],
    ids=["changed", "deep", "twice"],
)
def test_a_changed_text_is_refused(old: str, new: str, evidence: str) -> None:
    text = report_file.text(fakes.smoke_report()).replace(old, new, 1)
    with raises("smoke-report-invalid") as caught:
        check_smoke_report.opened(text, None, DIGEST, "report.json")
    assert evidence in caught.value.evidence


def test_an_old_report_of_an_h200_is_read_and_lacks_newer_checks() -> None:
    text = (fakes.ROOT / "tests/data/smoke/h200-hopper.json").read_text(encoding="utf-8")
    sha256 = report_file.read(text)["sha256"]
    found = check_smoke_report.opened(text, None, sha256, "h200-hopper.json")
    assert (found.device, found.capability, found.target) == ("NVIDIA H200", "9.0", "hopper")
    later = ["cpu-modules", "families", "lora", "partial-offload", "text-embeddings", "threads"]
    assert check_smoke_report.failed(found) == [*later, "vision"]
    assert len(found.cases) == 400
    assert all(case["nmse"] <= case["bound"] for case in found.cases)


# ---- checking a report --------------------------------------------------------------------------


GOOD = fakes.smoke_cases(fakes.wheel().file)


def planted(type_: str = "F16", number: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """All cases, one of them changed."""
    at = next(n for n, case in enumerate(GOOD) if case["type"] == type_) + number
    return [{**case, **changes} if n == at else case for n, case in enumerate(GOOD)]


BAD_CASES = {
    "none": [],
    "one-of-400": GOOD[:1],
    "one-missing": GOOD[:-1],
    "type-missing": [case for case in GOOD if case["type"] != "IQ1_M"],
    "cache-missing": [case for case in GOOD if case["kv"] != "q4_0"],
    "one-twice": [*GOOD, GOOD[0]],
    "unexpected": [*GOOD, {**GOOD[0], "batch": 2}],
    "part-of-a-later-type": [*GOOD, *fakes.smoke_cases(types=["NVFP4"])[:3]],
    "over-its-bound": planted(nmse=2e-4),
    "negative": planted(nmse=-1e-6),
    "nan": planted(nmse=float("nan")),
    "not-finite": planted(finite=False),
    "bound-too-wide": planted(nmse=2e-4, bound=1e-3),
    "bound-too-wide-for-fp4": planted("MXFP4", bound=0.2),
    "unknown-type": planted(type="Q9_9"),
    "unknown-cache": planted(kv="q9_9"),
    "error": [*GOOD[:-1], {"type": "Q4_K", "error": "a crash"}],
}


@pytest.mark.parametrize("cases", BAD_CASES.values(), ids=BAD_CASES)
def test_bad_cases_fail_although_the_report_says_ok(cases: list[dict[str, Any]]) -> None:
    found = opened(fakes.smoke_report(cases=cases))
    assert {check.status for check in found.checks} == {"ok"}
    assert "known-answers" in check_smoke_report.failed(found)


@pytest.mark.parametrize(
    ("cases", "id_"),
    [
        (planted("F32", 0, equal=19), "greedy-tokens"),
        (planted("BF16", 1, equal=0, tokens=0), "greedy-tokens"),
        (planted("Q4_K", 1, repeats=False), "repeatable"),
        ([{n: v for n, v in case.items() if n != "repeats"} for case in GOOD], "repeatable"),
    ],
)
def test_checks_are_computed_from_the_cases(cases: list[dict[str, Any]], id_: str) -> None:
    assert check_smoke_report.failed(opened(fakes.smoke_report(cases=cases))) == [id_]


ANSWERS = fakes.smoke_features()


def other(id_: str, **changes: Any) -> list[dict[str, Any]]:
    """The answers of the features, the first of a check changed."""
    at = next(n for n, answer in enumerate(ANSWERS) if answer["check"] == id_)
    return [{**answer, **changes} if n == at else answer for n, answer in enumerate(ANSWERS)]


BAD_FEATURES = {
    "none": ([], ["lora", "partial-offload", "text-embeddings", "threads", "vision"]),
    "one-missing": (ANSWERS[1:], ["vision"]),
    "one-twice": ([*ANSWERS, ANSWERS[0]], ["vision"]),
    "check-missing": ([answer for answer in ANSWERS if answer["check"] != "lora"], ["lora"]),
    "over-its-bound": (other("lora", nmse=1e-3), ["lora"]),
    "negative": (other("lora", nmse=-1e-9), ["lora"]),
    "nan": (other("lora", nmse=math.nan), ["lora"]),
    "bound-too-wide": (other("lora", nmse=1e-3, bound=1e-2), ["lora"]),
    "bound-wider-than-four-times-the-worst": (other("threads", bound=6e-3), ["threads"]),
    "unknown-case": (other("vision", case="no such picture"), ["vision"]),
    "unknown-check": (other("vision", check="hearing"), ["hearing", "vision"]),
    "two-gpus-without-its-check": ([*ANSWERS, {**ANSWERS[0], "check": "two-gpus"}], ["two-gpus"]),
}


@pytest.mark.parametrize(("features", "ids"), BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_checks_of_features_are_computed_from_their_answers(
    features: list[dict[str, Any]], ids: list[str]
) -> None:
    assert check_smoke_report.failed(opened(fakes.smoke_report(features=features))) == ids


def test_the_check_of_two_gpus_is_optional() -> None:
    rows = check_smoke_report.known_features()["worst"]["two-gpus"]
    more = [
        {"check": "two-gpus", "case": case, "nmse": row["gpu"], "bound": 2 * row["gpu"]}
        for case, row in rows.items()
    ]
    check = {**fakes.smoke_checks()[0], "id": "two-gpus"}
    checks = [*fakes.smoke_checks(), check]
    for features, ids in (([*ANSWERS, *more], []), ([*ANSWERS, *more[1:]], ["two-gpus"])):
        report = fakes.smoke_report(features=features, checks=checks)
        assert check_smoke_report.failed(opened(report)) == ids


def test_on_the_cpu_the_bounds_are_narrower() -> None:
    where = {"device": "cpu", "capability": None, "driver": None}
    checks = [check for check in fakes.smoke_checks() if check["id"] not in fakes.ON_A_GPU]
    answers = fakes.smoke_features(on_gpu=False)
    wide = [{**a, "nmse": 1e-5, "bound": 1e-4} if a["check"] == "lora" else a for a in answers]
    for features, ids in ((answers, []), (wide, ["lora"])):
        report = fakes.smoke_report(features=features, checks=checks, **where)
        assert check_smoke_report.failed(opened(report)) == ids


def test_the_number_of_missing_cases_is_named() -> None:
    found = opened(fakes.smoke_report(cases=GOOD[:-1]))
    assert check_smoke_report.gaps(found) == ["IQ1_M: 1 of 16 cases are missing"]


def test_a_report_must_have_the_types_of_its_release() -> None:
    file = "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    for cases, gaps in (
        (fakes.smoke_cases(file), []),
        (GOOD, ["NVFP4: 16 of 16 cases are missing"]),
    ):
        assert check_smoke_report.gaps(opened(fakes.smoke_report(file=file, cases=cases))) == gaps


def test_the_payload_computes_the_required_cases() -> None:
    every = [{**case, "type": name} for name in job()["needed"] for case in child.CASES]
    keys = ("type", "batch", "flash", "kv")
    assert [{name: case[name] for name in keys} for case in GOOD] == [
        {name: case[name] for name in keys} for case in every
    ]


def test_cases_within_their_bounds_pass() -> None:
    for cases in (planted("MXFP4", nmse=0.05, bound=0.1), planted(number=7, nmse=0.02)):
        assert check_smoke_report.failed(opened(fakes.smoke_report(cases=cases))) == []


def test_a_check_that_occurs_twice_must_pass_twice() -> None:
    checks = [*fakes.smoke_checks(), *fakes.smoke_checks("memory")]
    assert check_smoke_report.failed(opened(fakes.smoke_report(checks=checks))) == ["memory"]


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
def test_the_version_is_read_from_the_file_name(name: str, version: str | None) -> None:
    if version is not None:
        assert wheel_name.version(Path(name)) == version
        return
    with raises("wheel-name-invalid"):
        wheel_name.version(Path(name))


@pytest.mark.parametrize("name", ["my-wheel.whl", "wheel.whl", "a-b-c-d-e.whl", "x.zip"])
def test_a_wheel_or_a_baseline_without_a_valid_name_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    for session in ("smoke", "bench"):
        with raises("wheel-name-invalid") as caught:
            smoke_input.chosen(fakes.context(tmp_path, "--wheel", str(path), session=session))
        assert caught.value.code == USAGE
    if path.suffix != ".whl":
        return  # refused, with another error
    with raises("wheel-name-invalid"):
        baselines.wheels(fakes.context(tmp_path, "--baseline", str(path)))


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
def test_the_share_of_a_bound(nmse: float, bound: float, share: float) -> None:
    assert check_smoke_report.share({"nmse": nmse, "bound": bound}) == share


@pytest.mark.parametrize(("capability", "place"), [("9.0", "9.0"), ("12.1", "12.1"), (None, "cpu")])
def test_each_place_has_its_own_files(capability: str | None, place: str, tmp_path: Path) -> None:
    assert check_smoke_report.place(capability) == place
    check_smoke_report.record(tmp_path, place).touch()
    check_smoke_report.report_path(tmp_path, place).touch()
    for other in (
        "smoke.json",
        "smoke-x.json",
        "smoke-report-8.0.json.sig",
        "smoke-9.0.json.1.part",
    ):
        (tmp_path / other).touch()
    assert check_smoke_report.places(tmp_path) == (place,)


def test_places_are_ordered_by_capability(tmp_path: Path) -> None:
    for place in ("cpu", "12.0", "9.0", "8.6"):
        check_smoke_report.record(tmp_path, place).touch()
    assert check_smoke_report.places(tmp_path) == ("8.6", "9.0", "12.0", "cpu")
