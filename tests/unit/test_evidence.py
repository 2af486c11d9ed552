"""``evidence.read``: it reads all records of a target, and refuses missing and changed ones."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions.build.ninja_log import summary
from sessions.build.record_types import BuildStep, Timeline
from sessions.release.evidence import Evidence, OpsRun, Reproduced, Run, read, released_records
from sessions.shared import records
from tests import fakes
from tests.problems import raises

WHEEL = b"a wheel"
TIMELINE = Timeline("2026-01-02T03:04:05Z", 2, 0, {}, (BuildStep("a.o", "c", 0, 9),), ("a.o",))
SLOWER = dataclasses.replace(TIMELINE, steps=(BuildStep("a.o", "c", 0, 10),))
STAGES = ("probe", "source", "toolkit", "configure", "wheel", "facts", "verify", "steps")
VERIFY = "nox -s verify -- --target rtx50"
REMEDIES = {
    "smoke-12.0": "nox -s smoke -- --target rtx50",
    "bench": "nox -s bench -- --target rtx50",
    "steps": "nox -s wheel -- --target rtx50 --fresh",
}


@functools.cache
def wheel_evidence() -> Evidence:
    sha256 = hashlib.sha256(WHEEL).hexdigest()
    found = fakes.evidence(fakes.wheel_facts(sha256=sha256), timeline=TIMELINE)
    timing = {**summary(TIMELINE), "cpu_efficiency": 0.9}
    found = dataclasses.replace(found, wheel=dataclasses.replace(found.wheel, timing=timing))
    return fakes.measured(found, "seed")


class Project:
    """A project with all records of the wheel, and the wheel."""

    def __init__(self, root: Path, found: Evidence | None = None) -> None:
        found = found or wheel_evidence()
        self.build, self.wheels = root / "build", root / "wheels"
        self.found = dataclasses.replace(found, path=self.wheels / found.wheel.file)
        fakes.lay(self.build, found)
        self.wheels.mkdir()
        self.found.path.write_bytes(WHEEL)
        if found.bench and found.measured:
            records.write(self.build / "bench.json", "bench", found.bench)
            (self.build / "bench-report.json").write_bytes(found.measured.encode())

    def read(self) -> Evidence:
        return read(self.found.spec, self.build, self.wheels)

    def replace(self, name: str, old: bytes, new: bytes) -> None:
        path = self.build / name
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    def write_run(self, session: str, run: Run | OpsRun, place: str = "12.0") -> None:
        records.write(self.build / f"{session}-{place}.json", session, run.report)
        path = self.build / f"{session}-report-{place}.json"
        path.write_bytes(run.report_text.encode())

    def without_compilation(self) -> None:
        wheel = dataclasses.replace(self.found.wheel, timing={})
        records.write(self.build / "wheel.json", "wheel", wheel)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_all_records_are_read_back(project: Project) -> None:
    assert project.read() == project.found
    project.found.path.write_bytes(b"another wheel")
    assert project.read().sha256 == hashlib.sha256(b"another wheel").hexdigest()


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_record_is_refused(stage: str, project: Project) -> None:
    (project.build / f"{stage}.json").unlink()
    with raises("release-records-missing") as caught:
        project.read()
    assert caught.value.evidence == f"{stage}.json is missing"
    assert caught.value.remedy == REMEDIES.get(stage, VERIFY)


@pytest.mark.parametrize("stage", [*STAGES, "smoke-12.0", "bench"])
def test_a_record_that_was_changed_by_hand_is_refused(stage: str, project: Project) -> None:
    project.replace(f"{stage}.json", b"8", b"9")
    with raises("release-records-missing") as caught:
        project.read()
    assert f"{stage}.json is damaged, or was changed by hand" in caught.value.evidence
    assert REMEDIES.get(stage, VERIFY) in caught.value.remedy


SMOKE, OPS, BENCH = "smoke-report-12.0.json", "ops-report-12.0.json", "bench-report.json"
DIGEST = "its digest is not that of its content"
OTHER_NAME = "llama_cpp_python-0.3.9-py3-none-linux_x86_64.whl"
SAME_RELEASE = OTHER_NAME.replace("0.3.9", "0.3.16")  # ops accepts no other release in the name


def rerun(session: str, **changes: str) -> Callable[[Project], None]:
    def write(project: Project) -> None:
        found = project.found
        if session == "smoke":
            project.write_run(session, fakes.rerun(found, **changes).runs[0])
        else:
            project.write_run(session, fakes.ops_run(found.facts, found.spec, **changes))

    return write


def with_other_seconds(project: Project) -> None:
    text = fakes.report_text(project.found.facts, seconds=1.0)
    (project.build / SMOKE).write_bytes(text.encode())


def failed_verify_as_ok(project: Project) -> None:
    records.write(project.build / "verify.json", "verify", project.found.verify, ok=False)
    project.replace("verify.json", b'"ok": false', b'"ok": true')


@pytest.mark.parametrize(
    ("damage", "evidence", "session"),
    [
        (
            lambda p: records.write(p.build / "steps.json", "steps", SLOWER),
            "steps.json belongs to another build than the wheel",
            "wheel",
        ),
        (lambda p: p.found.path.unlink(), f"{fakes.wheel().file} is missing", "verify"),
        (failed_verify_as_ok, "verify.json is damaged, or was changed by hand", "verify"),
        (lambda p: (p.build / SMOKE).unlink(), f"{SMOKE}: missing", "smoke"),
        (lambda p: p.replace(SMOKE, b"1e-05", b"1e-06"), f"{SMOKE}: {DIGEST}", "smoke"),
        (lambda p: p.replace(SMOKE, b"Linux", b"Linu\xff"), f"{SMOKE}: {DIGEST}", "smoke"),
        (lambda p: p.replace(SMOKE, b"{", b"["), f"{SMOKE}: not a report", "smoke"),
        (with_other_seconds, f"{SMOKE}: smoke-12.0.json says otherwise", "smoke"),
        (rerun("smoke", capability="9.0"), f"{SMOKE}: it was run on 9.0, not on 12.0", "smoke"),
        (rerun("smoke", file=OTHER_NAME), f"{SMOKE}: it calls the wheel {OTHER_NAME}", "smoke"),
        (rerun("ops", capability="9.0"), f"{OPS}: it was run on 9.0, not on 12.0", "ops"),
        (rerun("ops", file=SAME_RELEASE), f"{OPS}: it calls the wheel {SAME_RELEASE}", "ops"),
        (lambda p: p.replace(BENCH, b"Linux", b"Linu\xff"), f"{BENCH}: {DIGEST}", "bench"),
        (lambda p: p.replace(BENCH, b"104.0", b"204.0"), f"{BENCH}: {DIGEST}", "bench"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    damage: Callable[[Project], None], evidence: str, session: str, project: Project
) -> None:
    damage(project)
    with raises("release-records-missing") as caught:
        project.read()
    assert caught.value.evidence.startswith(evidence)
    assert f"nox -s {session} -- --target rtx50" in caught.value.remedy


def test_a_second_build_counts_only_for_the_same_wheel(project: Project) -> None:
    path = project.build / "reproduce.json"
    for sha256, expected in ((project.found.sha256, True), ("e" * 64, False)):
        again = Reproduced(sha256, ("llama_cpp/lib/libllama.so: other",))
        records.write(path, "reproduce", again)
        assert project.read().again == (again if expected else None)
    project.replace("reproduce.json", b"other", b"so")
    with raises("release-records-missing") as caught:
        project.read()
    assert caught.value.remedy == f"delete {path}"


def test_optional_records_may_be_missing(project: Project) -> None:
    project.without_compilation()
    records.write(project.build / "steps.json", "steps", SLOWER)  # of an earlier build
    assert project.read().timeline == SLOWER
    for name in ("smoke-12.0.json", SMOKE, "ops-12.0.json", OPS, "steps.json", "bench.json"):
        (project.build / name).unlink()
    found = project.read()
    assert (found.runs, found.ops, found.timeline, found.bench) == ((), (), None, None)


def test_a_wheel_for_the_cpu_has_no_toolkit(tmp_path: Path) -> None:
    project = Project(tmp_path, fakes.cpu_evidence())
    project.without_compilation()
    assert not (project.build / "toolkit.json").exists()
    assert project.read().toolkit is None


def test_a_failed_smoke_is_read(project: Project) -> None:
    report = fakes.report(project.found)
    records.write(project.build / "smoke-12.0.json", "smoke", report, ok=False)
    assert project.read().runs == project.found.runs


def test_released_records_are_the_unchanged_files(project: Project) -> None:
    (project.build / f"{SMOKE}.sig").write_bytes(b"signed\n")
    files = released_records(project.read())
    assert sorted(files) == [
        "bench.json", "facts.json", "ops-12.0.json", "smoke-12.0.json", "smoke-12.0.json.sig",
        "steps.json", "verify.json", "wheel.json",
    ]  # fmt: skip
    for name in ("wheel", "facts", "verify", "steps"):
        assert files[f"{name}.json"] == (project.build / f"{name}.json").read_text("utf-8")
    assert json.loads(files["smoke-12.0.json"])["report"]["seconds"] == 61.5
    assert files["smoke-12.0.json.sig"] == "signed\n"
    assert files["bench.json"] == project.found.measured
    assert "/home/user" not in "".join(files.values())


def test_reports_of_another_wheel_are_not_released(project: Project) -> None:
    assert project.found.bench is not None
    earlier = dataclasses.replace(project.found.bench, sha256="e" * 64)
    records.write(project.build / "bench.json", "bench", earlier)
    found = project.read()
    assert (found.bench, found.measured) == (None, None)
    files = released_records(fakes.reported(found, sha256="e" * 64))
    assert not {"bench.json", "smoke-12.0.json"} & files.keys()


def test_the_runs_on_two_gpus_are_both_read(project: Project) -> None:
    (more,) = fakes.rerun(project.found, device="NVIDIA H200", capability="9.0").runs
    project.write_run("smoke", more, "9.0")
    found = project.read()
    assert found.runs == (more, *project.found.runs)  # in the order of the compute capabilities
    files = released_records(found)
    assert files["smoke-9.0.json"] == more.report_text
    assert files["smoke-12.0.json"] == project.found.runs[0].report_text
