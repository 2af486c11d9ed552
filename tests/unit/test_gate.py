"""``gate``: a sound wheel passes every check, and each planted defect fails its own check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions.release import gate
from sessions.release.evidence import Evidence, Reproduced, untested_places
from sessions.release.gate import Checkout, Situation
from sessions.release.other_pythons import Repacked
from sessions.release.record_types import PythonWheel
from sessions.shared.check_result import Check
from sessions.shared.errors import Problem
from sessions.verify import checks_digest
from tests import evidence, fakes
from tests.evidence import libraries_with

COMMIT = "4" * 40
CLEAN = Checkout(COMMIT, ())
FOUND = fakes.evidence()


def situation(found: Evidence, **changes: Any) -> Situation:
    base = Situation(checkout=CLEAN, beside=found.wheel, changed=(), chain=0, allow_untested=False)
    return dataclasses.replace(base, **changes)


def reasons(found: Evidence, **changes: Any) -> dict[str, Check]:
    """Each failing check by its id."""
    checks = gate.evaluate(found, situation(found, **changes))
    assert len({check.id for check in checks}) == len(checks)
    assert [check.id for check in checks if check.status != "ok" and not check.remedy] == []
    return {check.id: check for check in gate.failed(checks)}


def check_of(id_: str, found: Evidence, **changes: Any) -> Check:
    (check,) = [c for c in gate.evaluate(found, situation(found, **changes)) if c.id == id_]
    return check


@pytest.mark.parametrize(
    "found",
    [fakes.evidence(), fakes.fp4_evidence(), fakes.cpu_evidence()],
    ids=["gpu", "fp4", "cpu"],
)
def test_a_tested_wheel_passes(found: Evidence) -> None:
    assert {check.status for check in gate.evaluate(found, situation(found))} == {"ok"}
    assert untested_places(found) == ()


def test_without_a_smoke_report_only_smoke_fails() -> None:
    found = fakes.evidence(runs=())
    (reason,) = reasons(found).values()
    assert reason.summary == "smoke: not run on a GPU of compute capability 12.0"
    assert reason.evidence == "it was not run on a GPU of compute capability 12.0"
    assert "nox -s smoke -- --target rtx50" in reason.remedy
    assert "nox -s bundle -- --target rtx50" in reason.remedy
    assert "nox -s release -- --target rtx50 --report FILE" in reason.remedy
    assert reason.remedy.endswith("add --allow-untested-gpu")
    # A session that failed is not a second reason.
    assert set(reasons(found, chain=1)) == {"smoke"}


def test_untested_is_a_warning_if_it_is_allowed() -> None:
    found = fakes.evidence(runs=(), ops=())
    assert reasons(found, allow_untested=True) == {}
    for id_ in ("smoke", "ops"):
        check = check_of(id_, found, allow_untested=True)
        summary = f"{id_}: UNTESTED on a GPU of compute capability 12.0"
        assert (check.status, check.summary) == ("warn", summary)
    assert untested_places(found) == ("12.0",)


Plant = Callable[[Evidence], Evidence]


def changed(part: str = "", **changes: Any) -> Plant:
    """Change the evidence, or one part of it."""
    if not part:
        return lambda found: dataclasses.replace(found, **changes)
    return lambda found: evidence.changed(found, **{part: changes})


def report(**changes: Any) -> Plant:
    return lambda found: fakes.rerun(found, **changes)


def verified_again(found: Evidence) -> Evidence:
    """With the fingerprint of today's checks, after another part was changed."""
    rules = checks_digest.fingerprint(found.spec, found.wheel)
    return changed("verify", fingerprint=rules)(found)


def bad_check(found: Evidence) -> Evidence:
    group = found.verify.groups[0]
    checks = (Check("size", "fail", "size: larger", "", "less"), *group.checks[1:])
    groups = (dataclasses.replace(group, checks=checks), *found.verify.groups[1:])
    return changed("verify", groups=groups)(found)


# The defect, the check that must fail, and a part of its evidence.
OTHER_SETTINGS = fakes.build_env(variables=fakes.evidence().build.variables)
PLANTED: dict[str, tuple[Plant, str, str]] = {
    "operators-not-tested": (changed(ops=()), "ops", "not tested on a GPU of compute capability"),
    "operators-of-another-wheel": (
        lambda found: dataclasses.replace(
            found, ops=(fakes.ops_run(found.facts, found.spec, sha256="e" * 64),)
        ),
        "ops",
        "a report belongs to another wheel, sha256 eee",
    ),
    "wheel-tampered-with": (
        changed(sha256="e" * 64),
        "wheel",
        f"its sha256 is {'e' * 64}, and that of the built wheel is {'0' * 64}",
    ),
    "wheel-of-another-target": (changed("wheel", target="hopper"), "wheel", "target hopper"),
    "other-settings": (changed(build=OTHER_SETTINGS), "build", "its settings, tools, toolkit or"),
    "other-source": (changed("source", digest="9" * 64), "build", "the source has changed since"),
    "other-version": (changed("wheel", version="0.3.15"), "build", "version: 0.3.15, and the"),
    "other-cuda": (changed("wheel", cuda="13.0"), "build", "CUDA: 13.0, and the target has 13.1"),
    "other-architecture": (changed("wheel", archs=("90-real",)), "build", "architectures: ('90-r"),
    "edited-source": (changed("source", edited=("a/llama.py",)), "source", "edited: a/llama.py"),
    "built-from-an-edited-source": (
        changed("wheel", source_edited=True),
        "source",
        "an edited source",
    ),
    "other-sdist": (changed("source", sdist_sha256="5" * 64), "source", "not the locked one"),
    "checkout": (changed("spec", source="/home/user/llama"), "source", "a checkout: /home/user/"),
    "bad-cuda": (changed("spec", cuda="13.2"), "toolkit", "it miscompiles"),
    "no-toolkit": (changed(toolkit=None), "toolkit", "record of the CUDA toolkit is missing"),
    "verify-failed": (bad_check, "verify", "size: larger"),
    "verify-of-another-wheel": (changed("verify", sha256="e" * 64), "verify", "another file"),
    "facts-of-another-wheel": (changed("facts", sha256="e" * 64), "verify", "another file"),
    "verify-by-other-rules": (changed("verify", fingerprint="e" * 64), "verify", "other rules"),
    "verify-without-a-check": (changed("verify", groups=()), "verify", "no check was made"),
    "smoke-of-another-wheel": (
        report(sha256="e" * 64),
        "smoke",
        "belongs to another wheel, sha256 eee",
    ),
    "smoke-on-another-GPU": (
        report(device="NVIDIA H200", capability="9.0"),
        "smoke",
        "it was run on NVIDIA H200 (9.0)",
    ),
    "smoke-on-the-cpu": (report(device="cpu", capability=None), "smoke", "it was run on cpu"),
    "smoke-failed": (report(checks=fakes.smoke_checks("memory")), "smoke", "missing: memory"),
    "smoke-without-an-answer": (report(cases=[]), "smoke", "F32: 16 of 16 cases are missing"),
    "smoke-of-one-type": (
        report(cases=fakes.smoke_cases(types=["F32"])),
        "smoke",
        "F16: 16 of 16 cases are missing",
    ),
    "smoke-with-a-check-missing": (
        report(checks=fakes.smoke_checks()[1:]),
        "smoke",
        "checks that fail or are missing: device",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_defect_fails_its_check_and_no_other(name: str) -> None:
    plant, id_, words = PLANTED[name]
    found = plant(fakes.evidence())
    if id_ in ("build", "wheel", "source", "toolkit"):  # else verify would fail too
        found = verified_again(found)
    failing = reasons(found)
    more = {"bad-cuda": {"build"}, "wheel-tampered-with": {"verify", "smoke", "ops"}}
    assert set(failing) == {id_, *more.get(name, ())}, list(failing.values())
    assert words in failing[id_].evidence


@pytest.mark.parametrize(
    ("id_", "changes", "words"),
    [
        ("wheel", {"beside": None}, "wheels/rtx50/wheel.json is not the record of its build"),
        ("wheel", {"beside": fakes.wheel(steps=1)}, "is not the record of its build"),
        ("checkout", {"checkout": Checkout(COMMIT, (" M noxfile.py",))}, " M noxfile.py"),
        ("checkout", {"checkout": Checkout("", (), "git: not found")}, "git: not found"),
        ("checkout", {"checkout": Checkout("", ())}, "git reports no commit"),
        (
            "documents",
            {"changed": ("WHEEL.md: changed since it was written",)},
            "WHEEL.md: changed",
        ),
        ("chain", {"chain": 1}, "its output is above"),
        ("reproduce", {"differs": ("llama_cpp/lib/libggml.so: section .text",)}, "libggml.so"),
    ],
)
def test_a_defect_outside_the_records_fails_its_check(
    id_: str, changes: dict[str, Any], words: str
) -> None:
    failing = reasons(fakes.evidence(), **changes)
    assert set(failing) == {id_}
    assert words in failing[id_].evidence


def test_every_check_can_fail() -> None:
    planted = {id_ for _, id_, _ in PLANTED.values()}
    around = {"records", "wheel", "checkout", "documents", "chain", "reproduce"}
    found = fakes.evidence()
    checks = gate.evaluate(found, situation(found, differs=()))
    assert {check.id for check in checks} <= planted | around


def test_a_second_build_is_checked_if_there_was_one() -> None:
    assert not [c for c in gate.evaluate(FOUND, situation(FOUND)) if c.id == "reproduce"]
    assert check_of("reproduce", FOUND, differs=()).status == "ok"
    other = fakes.evidence(again=Reproduced("0" * 64, ("libggml.so: section .text",)))
    assert reasons(other)["reproduce"].evidence == "libggml.so: section .text"
    assert reasons(other, differs=()) == {}  # the newer result counts
    same = fakes.evidence(again=Reproduced("0" * 64, ()))
    assert check_of("reproduce", same).status == "ok"


@pytest.mark.parametrize("plant", ["smoke-failed", "smoke-with-a-check-missing"])
def test_a_failed_test_cannot_be_released_as_untested(plant: str) -> None:
    found = PLANTED[plant][0](fakes.evidence())
    assert set(reasons(found, allow_untested=True)) == {"smoke"}
    assert "--allow-untested-gpu" not in reasons(found)["smoke"].remedy


def test_failed_operators_cannot_be_released_as_untested() -> None:
    (run,) = FOUND.ops
    name, row = next(iter(run.report.operators.items()))
    operators = {**run.report.operators, name: {**row, "right": row["right"] - 1}}
    wrong = dataclasses.replace(run, report=dataclasses.replace(run.report, operators=operators))
    found = fakes.evidence(ops=(wrong,))
    failing = reasons(found, allow_untested=True)
    assert set(failing) == {"ops"}
    assert failing["ops"].summary == "ops: operators fail on a GPU of compute capability 12.0"
    assert "on a GPU of compute capability 12.0, checks that fail: " in failing["ops"].evidence


@pytest.mark.parametrize(
    "plant", ["smoke-on-another-GPU", "smoke-on-the-cpu", "smoke-of-another-wheel"]
)
def test_with_a_run_on_another_device_the_wheel_is_untested(plant: str) -> None:
    found = PLANTED[plant][0](fakes.evidence())
    assert reasons(found, allow_untested=True) == {}
    assert untested_places(found) == ("12.0",)


def test_a_wheel_of_a_compiler_that_cuda_refuses_must_be_run() -> None:
    settings = {**FOUND.build.settings, "cmake.define.CMAKE_CUDA_FLAGS_INIT": gate.UNSUPPORTED}
    found = changed("build", settings=settings)(fakes.evidence(runs=()))
    failing = reasons(found, allow_untested=True)
    assert set(failing) == {"smoke"}
    assert "such a wheel may crash" in failing["smoke"].evidence


def test_a_wheel_for_the_cpu_must_be_run() -> None:
    failing = reasons(fakes.cpu_evidence(runs=(), ops=()), allow_untested=True)
    assert failing["smoke"].summary == "smoke: not run on the CPU"
    assert failing["smoke"].remedy == "nox -s smoke -- --target cpu"
    assert failing["ops"].summary == "ops: upstream's operator test was not run on the CPU"
    assert failing["ops"].remedy == "nox -s ops -- --target cpu"


H200: dict[str, Any] = {"device": "NVIDIA H200", "capability": "9.0"}
RTX: dict[str, Any] = {}


def for_two_gpus(*reports: dict[str, Any]) -> Evidence:
    """A wheel for two compute capabilities, with these reports."""
    code = fakes.device(sass={"sm_120": 98, "sm_90": 98})
    both = fakes.claiming(archs=("120-real", "90-real"))
    found = fakes.evidence(fakes.wheel_facts(libraries=libraries_with(code)), spec=both)
    runs = [run for changes in reports for run in fakes.rerun(found, **changes).runs]
    ops = tuple(fakes.ops_run(found.facts, both, **device) for device in (H200, RTX))
    return dataclasses.replace(found, runs=tuple(runs), ops=ops)


@pytest.mark.parametrize(
    ("reports", "missing"),
    [((H200, RTX), ()), ((RTX,), ("9.0",)), ((H200,), ("12.0",)), ((), ("9.0", "12.0"))],
)
def test_a_wheel_for_two_gpus_must_be_run_on_both(
    reports: tuple[dict[str, Any], ...], missing: tuple[str, ...]
) -> None:
    found = for_two_gpus(*reports)
    assert untested_places(found) == missing
    check = check_of("smoke", found)
    assert (check.status == "ok") is (missing == ())
    for place in missing:
        assert f"it was not run on a GPU of compute capability {place}" in check.evidence
    assert reasons(found, allow_untested=True) == {}
    if not missing:
        assert "NVIDIA H200, a GPU of compute capability 9.0" in check.summary
        assert "NVIDIA GeForce RTX 5090, a GPU of compute capability 12.0" in check.summary


def test_a_failure_on_any_device_fails_smoke() -> None:
    found = for_two_gpus(H200, {"checks": fakes.smoke_checks("memory")})
    assert untested_places(found) == ("12.0",)
    assert set(reasons(found, allow_untested=True)) == {"smoke"}
    assert "checks that fail or are missing: memory" in reasons(found)["smoke"].evidence
    # Also on a device that is not required.
    cpu: dict[str, Any] = {"device": "cpu", "capability": None, "cases": []}
    assert set(reasons(for_two_gpus(H200, RTX, cpu), allow_untested=True)) == {"smoke"}


def test_with_missing_records_only_they_and_the_checkout_are_checked() -> None:
    problem = Problem("a", id="release-records-missing", evidence="verify.json", remedy="nox -s x")
    dirty = Checkout(COMMIT, ("?? a",))
    checks = gate.unreadable(problem, situation(FOUND, checkout=dirty))
    assert [(c.id, c.status) for c in checks] == [("records", "fail"), ("checkout", "fail")]
    assert (checks[0].evidence, checks[0].remedy) == ("verify.json", "nox -s x")


def test_wheels_for_other_pythons_are_checked_if_there_are_any() -> None:
    wheel = PythonWheel("3.12", "a.whl", "0" * 64, 1)
    check = check_of("pythons", FOUND, pythons=Repacked((wheel,), (Path("a.whl"),)))
    assert (check.status, check.summary[-4:]) == ("ok", "3.12")
    failing = reasons(FOUND, pythons=Repacked(faults=("3.13: not checked",)))
    assert set(failing) == {"pythons"}
    assert failing["pythons"].evidence == "3.13: not checked"


def test_the_commands_have_the_options_of_the_target() -> None:
    spec = fakes.claiming(cuda="13.4", overrides=("--cuda", "13.4"))
    found = fakes.evidence(spec=spec, runs=())
    assert "-s smoke -- --target rtx50 --cuda 13.4;" in reasons(found)["smoke"].remedy
