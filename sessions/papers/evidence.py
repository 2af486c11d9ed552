"""Every record of one target, read together: what all papers are made from.

Nothing is judged here. The record of a stage that failed is read like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sessions.core import benched, job, records
from sessions.core.errors import Problem
from sessions.core.model import (
    BenchReport,
    BuildEnv,
    BuildSpec,
    SmokeReport,
    Source,
    Timeline,
    Toolchain,
    Toolkit,
    VerifyReport,
    Wheel,
)
from sessions.core.spec import command
from sessions.wheelfile.model import WheelFacts

T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """What is known of one target's wheel. ``sha256`` is that of the file as it lies there now."""

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
    smoke: SmokeReport | None  # None where it was run nowhere
    sealed: str | None  # the smoke report as it was written where the proofs ran
    signature: str | None  # of that, by one of the keys that were asked for
    timeline: Timeline | None  # None where the wheel's build compiled nothing
    bench: BenchReport | None = None  # None where this wheel was not measured
    measured: str | None = None  # the benchmark's report as it was written where it ran


def read(spec: BuildSpec, build: Path, wheels: Path) -> Evidence:
    """All records in ``build/<target>/``, and the wheel in ``wheels/<target>/``.

    Raises Problem that names each one that is missing, damaged or was changed by hand.
    """
    missing: list[str] = []

    def need(stage: str, kind: type[T]) -> T | None:
        found = records.read(build / f"{stage}.json", stage, kind, failed=True)
        if found is None:
            missing.append(f"{stage}.json is {state(build / f'{stage}.json')}")
        return found

    toolchain = need("probe", Toolchain)
    source = need("source", Source)
    toolkit = need("toolkit", Toolkit) if spec.cuda else None
    configured = need("configure", BuildEnv)
    wheel = need("wheel", Wheel)
    facts = need("facts", WheelFacts)
    verify = need("verify", VerifyReport)
    report = need("smoke", SmokeReport) if (build / "smoke.json").exists() else None
    sealed, signature = _texts(build / job.SEALED, build / f"{job.SEALED}.sig")
    bench = need("bench", BenchReport) if (build / "bench.json").exists() else None
    if bench and wheel and bench.sha256 != wheel.sha256:
        bench = None  # of an earlier wheel: it is no proof, and need not be made again
    (measured,) = _texts(build / benched.SEALED)
    path = wheels / (wheel.file if wheel else "")
    if wheel and not path.is_file():
        missing.append(f"{path.name} is missing")
    if report and (problem := _unlike(report, sealed)):
        missing.append(f"{job.SEALED}: {problem}")
    if bench and (problem := _unlike_bench(bench, measured)):
        missing.append(f"{benched.SEALED}: {problem}")
    if missing or not (toolchain and source and configured and wheel and facts and verify):
        raise Problem(
            f"Not all records of {spec.target} are there.",
            evidence="\n".join(missing),
            remedy="; ".join(
                command(stage, spec)
                for stage in ("verify", "smoke", "bench")
                if stage == "verify" or any(line.startswith(stage) for line in missing)
            ),
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
        smoke=report,
        sealed=sealed if report else None,
        signature=signature if report else None,
        timeline=records.read(build / "steps.json", "steps", Timeline),
        bench=bench,
        measured=measured if bench else None,
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
    # The report as it was written there: only so do its digest and its signature hold.
    given = {
        "smoke.json": found.sealed,
        "smoke.json.sig": found.signature,
        "bench.json": found.measured,
    }
    return {**made, **{name: text for name, text in given.items() if text is not None}}


def _texts(*paths: Path) -> list[str | None]:
    return [path.read_bytes().decode("utf-8") if path.is_file() else None for path in paths]


def _unlike(report: SmokeReport, sealed: str | None) -> str:
    """How the report that was handed in differs from the record made of it; "" if not."""
    if sealed is None:
        return "missing"
    try:
        opened = job.opened(sealed, None, report.sha256, report.origin)
    except Problem as problem:
        return problem.evidence or problem.what
    return "" if opened == report else "smoke.json says otherwise"


def _unlike_bench(report: BenchReport, sealed: str | None) -> str:
    if sealed is None:
        return "missing"
    try:
        opened = benched.opened(sealed, report.target, report.sha256, report.origin)
    except Problem as problem:
        return problem.evidence or problem.what
    return "" if opened == report else "bench.json says otherwise"


def unproven(found: Evidence) -> tuple[str, ...]:
    """Where the wheel is to run and was not proven to: compute capabilities, or "cpu".

    Empty where the proofs of this very wheel hold on a device of each kind it is for. Every paper
    of a wheel for which this is not empty has the word UNTESTED in it.
    """
    wanted = tuple(job.capabilities(found.spec)) or ("cpu",)
    report = found.smoke
    if report is None or report.sha256 != found.sha256 or job.failed(report):
        return wanted
    proven = "cpu" if report.device == "cpu" else report.capability
    return tuple(device for device in wanted if device != proven)
