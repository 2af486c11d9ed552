"""The gate: what may be released is let through, and each thing that is wrong is a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from sessions.release import gate
from sessions.release.evidence import Evidence, Reproduced, Run, unproven
from sessions.release.gate import Checkout, Situation
from sessions.run import smoke_results
from sessions.shared import knowledge
from sessions.shared.checks import Check
from sessions.shared.errors import Problem
from sessions.verify import checks_digest
from sessions.verify.report_model import VerifyReport
from tests import fakes

COMMIT = "4" * 40
CLEAN = Checkout(COMMIT, ())


def situation(found: Evidence, **changes: Any) -> Situation:
    base = Situation(checkout=CLEAN, beside=found.wheel, changed=(), chain=0, allow_untested=False)
    return dataclasses.replace(base, **changes)


def reasons(found: Evidence, **changes: Any) -> dict[str, Check]:
    """Each failing check by its id."""
    made = gate.judge(found, situation(found, **changes))
    assert len({check.id for check in made}) == len(made)
    assert [check.id for check in made if check.status != "ok" and not check.remedy] == []
    return {check.id: check for check in gate.failed(made)}


def with_report(found: Evidence, **changes: Any) -> Evidence:
    """With another smoke report, opened as every report is."""
    text = fakes.report_text(found.facts, found.spec.target, **changes)
    sha256 = changes.get("sha256", found.sha256)
    return dataclasses.replace(
        found, runs=(Run(smoke_results.opened(text, None, sha256, "there"), text),)
    )


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (fakes.evidence(), []),
        (fakes.fp4_evidence(), []),
        (fakes.cpu_evidence(), []),
    ],
    ids=["gpu", "fp4", "cpu"],
)
def test_what_is_tested_is_let_through(found: Evidence, missing: list[str]) -> None:
    made = gate.judge(found, situation(found))
    assert [c.id for c in made if c.status != "ok"] == missing
    assert unproven(found) == ()


def test_without_a_smoke_there_is_exactly_one_reason() -> None:
    found = fakes.evidence(runs=())
    (reason,) = reasons(found).values()
    assert reason.summary == "smoke: not run on a GPU of compute capability 12.0"
    assert reason.evidence == "it was not run on a GPU of compute capability 12.0"
    assert "nox -s smoke -- --target rtx50" in reason.remedy
    assert "nox -s bundle -- --target rtx50" in reason.remedy
    assert "nox -s release -- --target rtx50 --report FILE" in reason.remedy
    assert reason.remedy.endswith("add --allow-untested-gpu")


def test_untested_is_a_warning_where_it_is_allowed() -> None:
    found = fakes.evidence(runs=())
    assert reasons(found, allow_untested=True) == {}
    (warned,) = [
        check
        for check in gate.judge(found, situation(found, allow_untested=True))
        if check.status == "warn"
    ]
    assert warned.summary == "smoke: UNTESTED on a GPU of compute capability 12.0"
    assert unproven(found) == ("12.0",)


def changed(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda found: dataclasses.replace(found, **changes)


def wheel(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda found: dataclasses.replace(
        found, wheel=dataclasses.replace(found.wheel, **changes)
    )


def source(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda found: dataclasses.replace(
        found, source=dataclasses.replace(found.source, **changes)
    )


def verdict(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda found: dataclasses.replace(
        found, verify=dataclasses.replace(found.verify, **changes)
    )


def report(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda found: with_report(found, **changes)


def judged_again(found: Evidence) -> Evidence:
    """With the verdict that today's rules give, after another part was changed."""
    rules = checks_digest.fingerprint(found.spec, found.wheel)
    return dataclasses.replace(found, verify=dataclasses.replace(found.verify, fingerprint=rules))


def spec(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda found: judged_again(
        dataclasses.replace(found, spec=dataclasses.replace(found.spec, **changes))
    )


def bad_check(found: Evidence) -> VerifyReport:
    group = found.verify.groups[0]
    checks = (Check("size", "fail", "size: larger", "", "less"), *group.checks[1:])
    groups = (dataclasses.replace(group, checks=checks), *found.verify.groups[1:])
    return dataclasses.replace(found.verify, groups=groups)


# What is wrong, the check that must find it, and words of its evidence.
PLANTED: dict[str, tuple[Callable[[Evidence], Evidence], str, str]] = {
    "operators-not-tested": (changed(ops=()), "ops", "not tested on a GPU of compute capability"),
    "wheel-tampered-with": (
        changed(sha256="e" * 64),
        "wheel",
        f"its sha256 is {'e' * 64}, and that of the built wheel is {'0' * 64}",
    ),
    "wheel-of-another-target": (wheel(target="hopper"), "wheel", "for the target hopper"),
    "settings-changed-since": (
        changed(build=fakes.build_env(variables=fakes.evidence().build.variables)),
        "build",
        "its settings, tools, toolkit or source have changed since",
    ),
    "source-changed-since": (source(digest="9" * 64), "build", "the source has changed since"),
    "other-version": (wheel(version="0.3.15"), "build", "version: 0.3.15, and the target has"),
    "other-cuda": (wheel(cuda="13.0"), "build", "CUDA: 13.0, and the target has 13.1"),
    "other-architecture": (wheel(archs=("90-real",)), "build", "architectures: ('90-real',)"),
    "edited-source": (source(edited=("llama_cpp/llama.py",)), "source", "edited: llama_cpp/"),
    "built-from-an-edited-source": (wheel(source_edited=True), "source", "an edited source"),
    "other-sdist": (source(sdist_sha256="5" * 64), "source", "not the locked one"),
    "checkout": (spec(source="/home/user/llama"), "source", "a checkout: /home/user/llama"),
    "bad-cuda": (spec(cuda="13.2"), "toolkit", "it miscompiles"),
    "no-toolkit": (changed(toolkit=None), "toolkit", "record of the CUDA toolkit is missing"),
    "verify-failed": (
        lambda found: dataclasses.replace(found, verify=bad_check(found)),
        "verify",
        "size: larger",
    ),
    "verify-of-another-wheel": (verdict(sha256="e" * 64), "verify", "another file"),
    "facts-of-another-wheel": (
        lambda found: dataclasses.replace(
            found, facts=dataclasses.replace(found.facts, sha256="e" * 64)
        ),
        "verify",
        "another file",
    ),
    "verify-by-other-rules": (verdict(fingerprint="e" * 64), "verify", "other rules"),
    "verify-without-a-check": (verdict(groups=()), "verify", "no check was made"),
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
    "smoke-failed": (
        report(checks=fakes.smoke_checks("memory")),
        "smoke",
        "checks that fail or are missing: memory",
    ),
    "smoke-without-an-answer": (
        report(cases=[]),
        "smoke",
        "F32: 16 of 16 cases are missing",
    ),
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
def test_each_thing_that_is_wrong_is_the_reason(name: str) -> None:
    plant, id_, words = PLANTED[name]
    found = plant(fakes.evidence())
    if id_ in ("build", "wheel", "source"):  # the verdict is of the record as it was
        found = judged_again(found)
    failing = reasons(found)
    more = {"bad-cuda": {"build"}, "wheel-tampered-with": {"verify", "smoke", "ops"}}
    assert set(failing) == {id_, *more.get(name, ())}, [
        c.summary + c.evidence for c in failing.values()
    ]
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
def test_what_is_wrong_around_the_records_is_a_reason(
    id_: str, changes: dict[str, Any], words: str
) -> None:
    failing = reasons(fakes.evidence(), **changes)
    assert set(failing) == {id_}
    assert words in failing[id_].evidence


def test_every_check_can_fail() -> None:
    planted = {id_ for _, id_, _ in PLANTED.values()}
    around = {"records", "wheel", "checkout", "documents", "chain", "reproduce"}
    found = fakes.evidence()
    made = gate.judge(found, situation(found, differs=()))
    assert {check.id for check in made} <= planted | around


def test_a_session_that_failed_is_no_second_reason() -> None:
    assert set(reasons(fakes.evidence(runs=()), chain=1)) == {"smoke"}


def test_a_second_build_that_was_not_asked_for_is_not_spoken_of() -> None:
    found = fakes.evidence()
    asked = {c.id for c in gate.judge(found, situation(found, differs=()))}
    assert asked - {c.id for c in gate.judge(found, situation(found))} == {"reproduce"}


def test_what_a_second_build_gave_earlier_still_counts() -> None:
    found = fakes.evidence(again=Reproduced("0" * 64, ("libggml.so: section .text",)))
    assert reasons(found)["reproduce"].evidence == "libggml.so: section .text"
    assert reasons(found, differs=()) == {}  # a newer one goes before it
    same = fakes.evidence(again=Reproduced("0" * 64, ()))
    (told,) = [c for c in gate.judge(same, situation(same)) if c.id == "reproduce"]
    assert told.status == "ok"


@pytest.mark.parametrize("plant", ["smoke-failed", "smoke-with-a-check-missing"])
def test_what_was_tried_and_failed_cannot_be_released_as_untested(plant: str) -> None:
    found = PLANTED[plant][0](fakes.evidence())
    assert set(reasons(found, allow_untested=True)) == {"smoke"}
    assert "--allow-untested-gpu" not in reasons(found)["smoke"].remedy


def test_a_run_on_another_gpu_or_the_cpu_leaves_it_untested() -> None:
    for plant in ("smoke-on-another-GPU", "smoke-on-the-cpu", "smoke-of-another-wheel"):
        found = PLANTED[plant][0](fakes.evidence())
        assert reasons(found, allow_untested=True) == {}
        assert unproven(found) == ("12.0",)


def test_a_wheel_of_a_compiler_that_cuda_refuses_must_be_run() -> None:
    found = fakes.evidence(runs=())
    settings = {**found.build.settings, "cmake.define.CMAKE_CUDA_FLAGS_INIT": gate.UNSUPPORTED}
    found = dataclasses.replace(found, build=dataclasses.replace(found.build, settings=settings))
    failing = reasons(found, allow_untested=True)
    assert set(failing) == {"smoke"}
    assert "such a wheel may crash" in failing["smoke"].evidence


def test_a_wheel_for_the_cpu_is_never_untested() -> None:
    found = fakes.cpu_evidence(runs=())
    failing = reasons(found, allow_untested=True)
    assert failing["smoke"].summary == "smoke: not run on the CPU"
    assert failing["smoke"].remedy == "nox -s smoke -- --target cpu"


def two(*reports: dict[str, Any]) -> Evidence:
    """A wheel for two compute capabilities, with these reports on it."""
    code = fakes.device(sass={"sm_120": 98, "sm_90": 98})
    inside = tuple(
        dataclasses.replace(lib, device=code) if lib.device else lib for lib in fakes.libraries()
    )
    both = fakes.claiming(archs=("120-real", "90-real"))
    found = fakes.evidence(fakes.wheel_facts(libraries=inside), spec=both)
    runs = [run for changes in reports for run in fakes.rerun(found, **changes).runs]
    ops = tuple(fakes.ops_run(found.facts, both, **device) for device in (H200, RTX))
    return dataclasses.replace(found, runs=tuple(runs), ops=ops)


H200: dict[str, Any] = {"device": "NVIDIA H200", "capability": "9.0"}
RTX: dict[str, Any] = {}


def test_a_wheel_for_two_architectures_is_released_when_it_was_run_on_both() -> None:
    found = two(H200, RTX)
    assert reasons(found) == {}
    assert unproven(found) == ()
    (told,) = [check for check in gate.judge(found, situation(found)) if check.id == "smoke"]
    assert "NVIDIA H200, a GPU of compute capability 9.0" in told.summary
    assert "NVIDIA GeForce RTX 5090, a GPU of compute capability 12.0" in told.summary


@pytest.mark.parametrize(
    ("reports", "missing"),
    [((RTX,), ("9.0",)), ((H200,), ("12.0",)), ((), ("9.0", "12.0"))],
)
def test_each_architecture_that_was_not_run_is_named(
    reports: tuple[dict[str, Any], ...], missing: tuple[str, ...]
) -> None:
    found = two(*reports)
    assert unproven(found) == missing
    reason = reasons(found)["smoke"]
    for place in missing:
        assert f"it was not run on a GPU of compute capability {place}" in reason.evidence
    assert reasons(found, allow_untested=True) == {}


def test_what_failed_on_one_of_two_architectures_is_not_untested() -> None:
    found = two(H200, {"checks": fakes.smoke_checks("memory")})
    assert unproven(found) == ("12.0",)
    assert set(reasons(found, allow_untested=True)) == {"smoke"}
    assert "checks that fail or are missing: memory" in reasons(found)["smoke"].evidence
    # A run that failed counts, wherever it was; and where all others hold.
    cpu: dict[str, Any] = {"device": "cpu", "capability": None, "cases": []}
    assert set(reasons(two(H200, RTX, cpu), allow_untested=True)) == {"smoke"}


def test_records_that_are_missing_are_the_reason_beside_the_checkouts() -> None:
    problem = Problem(
        "Not all records are there.",
        id="release-records-missing",
        evidence="verify.json",
        remedy="nox -s verify",
    )
    dirty = Checkout(COMMIT, ("?? a",))
    made = gate.unreadable(problem, situation(fakes.evidence(), checkout=dirty))
    assert [(c.id, c.status) for c in made] == [("records", "fail"), ("checkout", "fail")]
    assert made[0].remedy == "nox -s verify"
    assert made[0].evidence == "verify.json"


def test_the_commands_are_for_the_very_spec() -> None:
    spec = fakes.claiming(cuda="13.4", overrides=("--cuda", "13.4"))
    found = fakes.evidence(spec=spec, runs=())
    assert "-s smoke -- --target rtx50 --cuda 13.4;" in reasons(found)["smoke"].remedy


def test_a_folder_is_compared_with_what_was_written() -> None:
    files = {"a": "1", "b": "2", "c": "3"}
    assert gate.changed(files, files) == ()
    assert gate.changed(files, {"a": "1", "b": "0", "d": "4"}) == (
        "c: missing",
        "d: not written by release",
        "b: changed since it was written",
    )


def test_the_bad_toolkit_is_one_of_the_facts() -> None:
    assert knowledge.toolkit("13.2").bad  # else bad-cuda above plants nothing
