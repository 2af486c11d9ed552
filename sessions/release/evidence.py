"""Reads all records of one target; every document of a release is written from them.

Nothing is checked here. The record of a session that failed is read too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sessions.build.ninja_log import summary
from sessions.build.record_types import BuildEnv, Timeline, Wheel
from sessions.fetch.record_types import Source, Toolkit
from sessions.probe import gpu_for_tests
from sessions.probe.record_types import Toolchain
from sessions.run import check_bench_report, check_ops_report, check_smoke_report
from sessions.run.record_types import BenchReport, OpsReport, SmokeReport
from sessions.run.report_matches_wheel import Report
from sessions.shared import records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check
from sessions.shared.command_text import command
from sessions.shared.errors import CHECK_FAILED, Problem, numbered
from sessions.verify.record_types import VerifyReport
from sessions.verify.wheel_facts import WheelFacts

T = TypeVar("T")
RunReport = TypeVar("RunReport", SmokeReport, OpsReport)


@dataclass(frozen=True)
class Reproduced:
    """How the wheel with this sha256 differs from the wheel of a second build."""

    sha256: str
    differs: tuple[str, ...]


@dataclass(frozen=True)
class _Run(Generic[RunReport]):
    """The record of a test run, and the text of the report on the machine where the wheel ran."""

    report: RunReport
    report_text: str
    signature: str | None = None  # it was checked when the report was imported

    @property
    def place(self) -> str:
        """The compute capability of its GPU, or "cpu"."""
        return check_smoke_report.place(self.report.capability)


@dataclass(frozen=True)
class Run(_Run[SmokeReport]):
    """One run of smoke."""

    @functools.cached_property
    def failed(self) -> tuple[str, ...]:
        """Ids of the checks that fail or are missing."""
        return tuple(check_smoke_report.failed(self.report))


@dataclass(frozen=True)
class OpsRun(_Run[OpsReport]):
    """One run of the operator test."""


@dataclass(frozen=True)
class Evidence:
    """All records of one target. ``sha256`` is the digest of the wheel file as it is now."""

    spec: BuildSpec
    path: Path  # the wheel in wheels/<target>/
    sha256: str
    toolchain: Toolchain
    source: Source
    toolkit: Toolkit | None  # None for a CPU target
    build: BuildEnv
    wheel: Wheel
    facts: WheelFacts
    verify: VerifyReport
    runs: tuple[Run, ...]  # one per compute capability, and one for the CPU
    timeline: Timeline | None  # None if the build compiled nothing
    bench: BenchReport | None = None  # None if this wheel was not measured
    measured: str | None = None  # the text of the benchmark's report
    again: Reproduced | None = None  # None if there was no second build
    ops: tuple[OpsRun, ...] = ()  # the same for the operator test

    @property
    def checks(self) -> list[Check]:
        """All checks of ``verify``."""
        return [check for group in self.verify.groups for check in group.checks]


def read(spec: BuildSpec, build: Path, wheels: Path) -> Evidence:
    """Read all records in ``build/<target>/`` and the wheel in ``wheels/<target>/``.

    Raises Problem that names each record that is missing, damaged or was changed by hand.
    """
    missing: dict[str, str] = {}  # what is wrong -> the command that fixes it

    def need(session: str, kind: type[T], fix: str = "", path: Path | None = None) -> T | None:
        path = path or build / f"{session}.json"
        found = records.read(path, session, kind, failed=True)
        if found is None:
            missing[f"{path.name} is {state(path)}"] = fix or command("verify", spec)
        return found

    def may(session: str, kind: type[T], fix: str) -> T | None:
        return need(session, kind, fix) if (build / f"{session}.json").exists() else None

    def runs(
        session: str, results: Any, kind: type[RunReport]
    ) -> Iterator[tuple[RunReport, str, str | None]]:
        fix = command(session, spec)
        for place in results.places(build):
            path, record = results.report_path(build, place), results.record(build, place)
            report, text = need(session, kind, fix, record), _text(path)
            if report and (
                problem := _difference(report, text, results.opened, record)
                or _wrong_file_name(report, wheel)
                or _wrong_place(report, place)
            ):
                missing[f"{path.name}: {problem}"] = fix
            elif report and text is not None:
                yield report, text, _text(path.with_name(f"{path.name}.sig"))

    toolchain = need("probe", Toolchain)
    source = need("source", Source)
    toolkit = need("toolkit", Toolkit) if spec.cuda else None
    configured = need("configure", BuildEnv)
    wheel = need("wheel", Wheel)
    facts = need("facts", WheelFacts)
    verify = need("verify", VerifyReport)
    smoke = tuple(Run(*run) for run in runs("smoke", check_smoke_report, SmokeReport))
    ops = tuple(OpsRun(*run) for run in runs("ops", check_ops_report, OpsReport))
    measure = command("bench", spec)
    bench = may("bench", BenchReport, measure)
    if bench and wheel and bench.sha256 != wheel.sha256:
        bench = None  # of an earlier wheel; a benchmark is not a check, so it may be missing
    measured = _text(build / check_bench_report.REPORT_FILE)
    again = may("reproduce", Reproduced, f"delete {build / 'reproduce.json'}")
    if again and wheel and again.sha256 != wheel.sha256:
        again = None
    rebuild = command("wheel", spec, "--fresh")
    timed = bool(wheel and wheel.timing)  # otherwise nothing was compiled for it
    timeline = (need if timed else may)("steps", Timeline, rebuild)
    if timeline and wheel and timed and not _sums_up(wheel, timeline):
        missing["steps.json belongs to another build than the wheel"] = rebuild
    path = wheels / (wheel.file if wheel else "")
    if wheel and not path.is_file():
        missing[f"{path.name} is missing"] = command("verify", spec)
    record = build / "bench.json"
    if bench and (problem := _difference(bench, measured, check_bench_report.opened, record)):
        missing[f"{check_bench_report.REPORT_FILE}: {problem}"] = measure
    if missing or not (toolchain and source and configured and wheel and facts and verify):
        raise Problem(
            f"Records of {spec.target} are missing or damaged.",
            id="release-records-missing",
            code=CHECK_FAILED,
            evidence="\n".join(missing),
            remedy=numbered(missing.values()),
        )
    return Evidence(
        spec=spec,
        path=path,
        sha256=records.file_sha256(path),
        toolchain=toolchain,
        source=source,
        toolkit=toolkit,
        build=configured,
        wheel=wheel,
        facts=facts,
        verify=verify,
        runs=smoke,
        timeline=timeline,
        bench=bench,
        measured=measured if bench else None,
        again=again,
        ops=ops,
    )


def state(record: Path) -> str:
    """Why a record cannot be read."""
    return "damaged, or was changed by hand" if record.exists() else "missing"


def released_records(found: Evidence) -> dict[str, str]:
    """The records that are released with a wheel: file name -> text."""
    values: dict[str, Any] = {"wheel": found.wheel, "facts": found.facts, "verify": found.verify}
    if found.timeline:
        values["steps"] = found.timeline
    files = {f"{kind}.json": records.text(kind, value) for kind, value in values.items()}
    # The unchanged text of each report; with another text its digest and signature would be wrong.
    runs: list[tuple[str, Run | OpsRun]] = [("smoke", run) for run in runs_of_wheel(found)]
    runs += [("ops", run) for run in ops_runs_of_wheel(found)]
    for session, run in runs:
        file = f"{session}-{run.place}.json"
        files[file] = run.report_text
        if run.signature is not None:
            files[f"{file}.sig"] = run.signature
    return files if found.measured is None else {**files, "bench.json": found.measured}


def _text(path: Path) -> str | None:
    """The text of a file, or None. If it is not UTF-8, its digest and signature will not match."""
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else None


def _sums_up(wheel: Wheel, timeline: Timeline) -> bool:
    """Whether the timing in a wheel's record, which has more values, is that of these steps."""
    return bool(timeline.steps) and summary(timeline).items() <= wheel.timing.items()


def _difference(
    report: Report, text: str | None, opened: Callable[[str, str, str, str], Report], path: Path
) -> str:
    """How the text of a report differs from the record ``path``; "" if it does not."""
    if text is None:
        return "missing"
    try:
        same = opened(text, report.target, report.sha256, report.origin) == report
    except Problem as problem:
        return problem.evidence or problem.what
    return "" if same else f"{path.name} says otherwise"


def _wrong_place(report: SmokeReport | OpsReport, place: str) -> str:
    """The problem if a run was not on the device in the name of its record; "" if it was."""
    found = check_smoke_report.place(report.capability)
    return "" if found == place else f"it was run on {found}, not on {place}"


def _wrong_file_name(report: SmokeReport | OpsReport, wheel: Wheel | None) -> str:
    """The problem if a report names another file. The name decides which cases were required."""
    wrong = wheel and report.sha256 == wheel.sha256 and report.file != wheel.file
    return f"it calls the wheel {report.file}" if wrong else ""


def runs_of_wheel(found: Evidence) -> tuple[Run, ...]:
    """The runs of exactly this file."""
    return tuple(run for run in found.runs if run.report.sha256 == found.sha256)


def failed_runs(found: Evidence) -> tuple[Run, ...]:
    """The runs of exactly this file in which a check failed or is missing."""
    return tuple(run for run in runs_of_wheel(found) if run.failed)


def ops_runs_of_wheel(found: Evidence) -> tuple[OpsRun, ...]:
    """The runs of the operator test with exactly this file."""
    return tuple(run for run in found.ops if run.report.sha256 == found.sha256)


def required_places(found: Evidence) -> tuple[str, ...]:
    """The devices that the wheel is for: compute capabilities, or "cpu"."""
    return tuple(gpu_for_tests.capabilities(found.spec)) or ("cpu",)


def untested_places(found: Evidence) -> tuple[str, ...]:
    """The devices that the wheel is for and on which no run passed: compute capabilities, or "cpu".

    If this is not empty, every document of the wheel contains the word UNTESTED.
    """
    failed = {run.place for run in failed_runs(found)}
    passed = {run.place for run in runs_of_wheel(found)} - failed
    return tuple(place for place in required_places(found) if place not in passed)
