"""A benchmark's report, opened with distrust: its ratios are made anew from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sessions.core.errors import CHECK_FAILED, Problem
from sessions.core.model import BenchRatio, BenchReport, BenchWheel
from sessions.payload import seal, stats

SEALED = "bench-report.json"  # the report as it was written where the wheels were measured
CONFIDENCE = stats.CONFIDENCE
LEAST = stats.ENOUGH  # rounds from which an interval can say anything
METRICS = stats.METRICS  # metric -> its name for people, its unit, whether less or more is better
wheels = stats.wheels
model = stats.model
code = stats.code
shown = stats.shown
_PLAIN = (
    "file", "sha256", "target", "device", "capability", "driver", "python", "system", "started",
    "runtime",
)  # fmt: skip


def opened(text: str, target: str, sha256: str, origin: str) -> BenchReport:
    """A report file's content, if it is whole and of this very wheel. Raises Problem."""
    again = "measure this wheel anew: nox -s bench, or nox -s bundle, then smoke-….pyz --bench"
    try:
        report = seal.opened(text, seal.BENCH)
        found = BenchReport(
            origin=origin,
            seconds=float(report["seconds"]),
            rounds=int(report["rounds"]),
            stops=int(report["stops"]),
            threads=int(report["threads"]),
            confidence=CONFIDENCE,
            model=_model(report["model"]),
            wheels=tuple(_wheel(item) for item in report["wheels"]),
            ratios=tuple(BenchRatio(**item) for item in stats.ratios(report)),
            conditions=tuple(dict(item) for item in report["conditions"]),
            **{name: _text(report[name]) for name in _PLAIN},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(
            "This is no report that can be trusted.",
            id="bench-report-invalid",
            code=CHECK_FAILED,
            evidence=str(error),
            remedy=again,
        ) from error
    if (found.sha256, found.wheels[0].sha256) != (sha256, sha256):
        raise Problem(
            "This report is of another wheel.",
            id="bench-report-other-wheel",
            code=CHECK_FAILED,
            evidence=f"it names {found.file}, sha256 {found.sha256}\nthe wheel here has {sha256}",
            remedy=again,
        )
    if found.target != target:
        raise Problem(
            f"This report is of the target {found.target}, not {target}.",
            id="bench-report-other-target",
            code=CHECK_FAILED,
            remedy=again,
        )
    return found


def tables(text: str) -> list[stats.Table]:
    """What people are shown of a report that was opened: title, columns, rows."""
    return stats.tables(seal.opened(text, seal.BENCH))


def _wheel(item: dict[str, Any]) -> BenchWheel:
    values = {
        metric: tuple(stats.checked(metric, series)) for metric, series in item["values"].items()
    }
    return BenchWheel(
        label=str(item["label"]),
        file=str(item["file"]),
        sha256=str(item["sha256"]),
        version=str(item["version"]),
        brings_runtime=bool(item["brings_runtime"]),
        packages=tuple(map(str, item["packages"])),
        jit_files=int(item["jit_files"]),
        values=values,
    )


def _model(item: dict[str, Any] | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {
        "file": Path(_text(item["file"])).name,
        "size": int(item["size"]),
        "sha256": _text(item["sha256"]),
    }


def _text(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
