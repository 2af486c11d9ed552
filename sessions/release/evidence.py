"""Every record of one target, read together: what all documents are made from.

Nothing is judged here. The record of a stage that failed is read like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sessions.build.model import BuildEnv, Timeline, Wheel
from sessions.build.ninja_log import summary
from sessions.fetch.model import Source, Toolkit
from sessions.probe import gpu_choice
from sessions.probe.model import Toolchain
from sessions.run import bench_results, ops_results, smoke_results
from sessions.run.model import BenchReport, OpsReport, SmokeReport
from sessions.run.own_report import Report
from sessions.shared import records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.errors import CHECK_FAILED, Problem, numbered
from sessions.shared.remedies import command
from sessions.verify.model import WheelFacts
from sessions.verify.report_model import VerifyReport

T = TypeVar("T")


@dataclass(frozen=True)
class Reproduced:
    """What came out of building the wheel of this sha256 a second time: how the two differ."""

    sha256: str
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One run of smoke: what it found, and the report as it was written where the wheel ran."""

    report: SmokeReport
    report_text: str
    signature: str | None = None  # that came with it; whose it is was asked when it came

    @property
    def place(self) -> str:
        """The compute capability of its GPU, or "cpu"."""
        return smoke_results.place(self.report.capability)

    @functools.cached_property
    def failed(self) -> tuple[str, ...]:
        """Ids of the checks that do not hold or are missing."""
        return tuple(smoke_results.failed(self.report))


@dataclass(frozen=True)
class OpsRun:
    """One run of the operator test, and its report as it was written where the wheel ran."""

    report: OpsReport
    report_text: str
    signature: str | None = None

    @property
    def place(self) -> str:
        """The compute capability of its GPU, or "cpu"."""
        return smoke_results.place(self.report.capability)


@dataclass(frozen=True)
class Evidence:
    """What is known of one target's wheel. ``sha256`` is that of the file as it is there now."""

    spec: BuildSpec
    path: Path  # of the wheel, in wheels/<target>/
    sha256: str
    toolchain: Toolchain
    source: Source
    toolkit: Toolkit | None  # None of a CPU target
    build: BuildEnv
    wheel: Wheel
    facts: WheelFacts
    verify: VerifyReport
    runs: tuple[Run, ...]  # one for each compute capability it ran on, and one for the CPU
    timeline: Timeline | None  # None where the wheel's build compiled nothing
    bench: BenchReport | None = None  # None where this wheel was not measured
    measured: str | None = None  # the benchmark's report as it was written where it ran
    again: Reproduced | None = None  # None where this wheel was not built a second time
    ops: tuple[OpsRun, ...] = ()  # of the operator test, as ``runs`` of smoke


def read(spec: BuildSpec, build: Path, wheels: Path) -> Evidence:
    """All records in ``build/<target>/``, and the wheel in ``wheels/<target>/``.

    Raises Problem that names each one that is missing, damaged or was changed by hand.
    """
    missing: dict[str, str] = {}  # what is wrong -> the command that fixes it

    def need(stage: str, kind: type[T], fix: str = "", path: Path | None = None) -> T | None:
        path = path or build / f"{stage}.json"
        found = records.read(path, stage, kind, failed=True)
        if found is None:
            missing[f"{path.name} is {state(path)}"] = fix or command("verify", spec)
        return found

    def may(stage: str, kind: type[T], fix: str) -> T | None:
        return need(stage, kind, fix) if (build / f"{stage}.json").exists() else None

    toolchain = need("probe", Toolchain)
    source = need("source", Source)
    toolkit = need("toolkit", Toolkit) if spec.cuda else None
    configured = need("configure", BuildEnv)
    wheel = need("wheel", Wheel)
    facts = need("facts", WheelFacts)
    verify = need("verify", VerifyReport)
    smoke, measure = command("smoke", spec), command("bench", spec)
    runs = []
    for place in smoke_results.places(build):
        path = smoke_results.report_path(build, place)
        record = smoke_results.record(build, place)
        report, text = need("smoke", SmokeReport, smoke, record), _text(path)
        if report and (
            problem := _unlike(report, text, smoke_results.opened, record)
            or _misnamed(report, wheel)
            or _elsewhere(report, place)
        ):
            missing[f"{path.name}: {problem}"] = smoke
        elif report and text is not None:
            runs.append(Run(report, text, _text(path.with_name(f"{path.name}.sig"))))
    ops: list[OpsRun] = []
    operators = command("ops", spec)
    for place in ops_results.places(build):
        path, record = ops_results.report_path(build, place), ops_results.record(build, place)
        found, text = need("ops", OpsReport, operators, record), _text(path)
        if found and (
            problem := _unlike(found, text, ops_results.opened, record)
            or _misnamed(found, wheel)
            or _elsewhere(found, place)
        ):
            missing[f"{path.name}: {problem}"] = operators
        elif found and text is not None:
            ops.append(OpsRun(found, text, _text(path.with_name(f"{path.name}.sig"))))
    bench = may("bench", BenchReport, measure)
    if bench and wheel and bench.sha256 != wheel.sha256:
        bench = None  # of an earlier wheel: it is not a check, and need not be made again
    measured = _text(build / bench_results.REPORT_FILE)
    again = may("reproduce", Reproduced, f"delete {build / 'reproduce.json'}")
    if again and wheel and again.sha256 != wheel.sha256:
        again = None
    rebuild = command("wheel", spec, "--fresh")
    timed = bool(wheel and wheel.timing)  # else nothing was compiled for it
    steps = need if timed else may
    timeline = steps("steps", Timeline, rebuild)
    if timeline and wheel and timed and not _sums_up(wheel, timeline):
        missing["steps.json belongs to another build than the wheel"] = rebuild
    path = wheels / (wheel.file if wheel else "")
    if wheel and not path.is_file():
        missing[f"{path.name} is missing"] = command("verify", spec)
    record = build / "bench.json"
    if bench and (problem := _unlike(bench, measured, bench_results.opened, record)):
        missing[f"{bench_results.REPORT_FILE}: {problem}"] = measure
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
        runs=tuple(runs),
        timeline=timeline,
        bench=bench,
        measured=measured if bench else None,
        again=again,
        ops=tuple(ops),
    )


def state(record: Path) -> str:
    """Why a record that cannot be read counts as none."""
    return "damaged, or was changed by hand" if record.exists() else "missing"


def handed_on(found: Evidence) -> dict[str, str]:
    """The records that go with a released wheel, as files: name -> text."""
    made = {
        f"{kind}.json": records.text(kind, value)
        for kind, value in (
            ("wheel", found.wheel),
            ("facts", found.facts),
            ("verify", found.verify),
            ("steps", found.timeline),
        )
        if value is not None
    }
    # The reports as they were written there: only so do their digests and signatures hold.
    named = [(f"smoke-{run.place}.json", run.report_text, run.signature) for run in ran(found)]
    named += [(f"ops-{run.place}.json", run.report_text, run.signature) for run in ops_ran(found)]
    for file, text, signature in named:
        made[file] = text
        if signature is not None:
            made[f"{file}.sig"] = signature
    return made if found.measured is None else {**made, "bench.json": found.measured}


def _text(path: Path) -> str | None:
    """A file's text, if it is there. Where it is no UTF-8, no digest and no signature holds."""
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else None


def _sums_up(wheel: Wheel, timeline: Timeline) -> bool:
    """Whether a wheel's record, which has more beside, was made of these steps."""
    return bool(timeline.steps) and summary(timeline).items() <= wheel.timing.items()


def _unlike(
    report: Report, text: str | None, opened: Callable[[str, str, str, str], Report], path: Path
) -> str:
    """How the report that was handed in differs from the record ``path``; "" if not."""
    if text is None:
        return "missing"
    try:
        same = opened(text, report.target, report.sha256, report.origin) == report
    except Problem as problem:
        return problem.evidence or problem.what
    return "" if same else f"{path.name} says otherwise"


def _elsewhere(report: SmokeReport | OpsReport, place: str) -> str:
    """Whether a record is that of the place after which it is named; "" if so."""
    found = smoke_results.place(report.capability)
    return "" if found == place else f"it was run on {found}, not on {place}"


def _misnamed(report: SmokeReport | OpsReport, wheel: Wheel | None) -> str:
    """A file's name says the release of the wheel, and so which cases were to be run."""
    wrong = wheel and report.sha256 == wheel.sha256 and report.file != wheel.file
    return f"it calls the wheel {report.file}" if wrong else ""


def ran(found: Evidence) -> tuple[Run, ...]:
    """The runs of this very file: a report of another wheel says nothing of it."""
    return tuple(run for run in found.runs if run.report.sha256 == found.sha256)


def refuted(found: Evidence) -> tuple[Run, ...]:
    """The runs of this very file in which a test failed or is missing."""
    return tuple(run for run in ran(found) if run.failed)


def ops_ran(found: Evidence) -> tuple[OpsRun, ...]:
    """The runs of the operator test with this very file."""
    return tuple(run for run in found.ops if run.report.sha256 == found.sha256)


def needed(found: Evidence) -> tuple[str, ...]:
    """Where the wheel is to run, and so must have run: compute capabilities, or "cpu"."""
    return tuple(gpu_choice.capabilities(found.spec)) or ("cpu",)


def unproven(found: Evidence) -> tuple[str, ...]:
    """Where the wheel is to run and was not tested to: compute capabilities, or "cpu".

    Empty where the checks of this very wheel hold on a device of each kind it is for. Every paper
    of a wheel for which this is not empty has the word UNTESTED in it.
    """
    proven = {run.place for run in ran(found)} - {run.place for run in refuted(found)}
    return tuple(place for place in needed(found) if place not in proven)
