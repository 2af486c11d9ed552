"""Reads a folder of reports from other machines, and finds the reports of a wheel."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sessions.payload import report_file
from sessions.run import signed_report
from sessions.shared.errors import USAGE, Problem

_SESSIONS = {report_file.KIND: "smoke", report_file.BENCH: "bench", report_file.OPS: "ops"}


@dataclass(frozen=True)
class Report:
    """A report file, and the session, the target and the wheel that it belongs to."""

    path: Path
    session: str
    target: str
    sha256: str  # of the wheel


def read(folder: Path) -> tuple[Report, ...]:
    """Every report in a folder. Raises Problem if a file is not a report, or if there is none."""
    found = [_report(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise Problem(
            f"There is no report in {folder}.",
            id="reports-none",
            code=USAGE,
            remedy="name the folder that the bundle wrote: --reports smoke-reports",
        )
    return tuple(found)


def _report(path: Path) -> Report:
    text = signed_report.read(path, "smoke").decode("utf-8")
    try:
        kind = json.loads(text)["kind"]
        report = report_file.read(text, kind)
        return Report(path, _SESSIONS[kind], str(report["target"]), str(report["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Problem(
            f"{path} is not a report, or it was changed.",
            id="reports-not-a-report",
            code=USAGE,
            evidence=str(error),
            remedy="move it out of the folder, or test that wheel again",
        ) from error


def of(found: Iterable[Report], sha256: str) -> list[Report]:
    """The reports of one wheel, benchmarks last because no check of a release needs them."""
    return sorted(
        (report for report in found if report.sha256 == sha256), key=lambda r: r.session == "bench"
    )


def unused(found: Iterable[Report], wheels: Sequence[str]) -> list[str]:
    """Warnings about the reports that belong to none of these wheels."""
    return [
        f"{report.path.name} belongs to another wheel of {report.target}, "
        f"sha256 {report.sha256[:12]}…"
        for report in found
        if report.sha256 not in wheels
    ]
