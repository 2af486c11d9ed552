"""Reads a benchmark's report, which is not trusted: ratios are computed again from its values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sessions.payload import bench_metrics, report_file
from sessions.run import report_fields as fields
from sessions.run import report_matches_wheel
from sessions.run.record_types import BenchRatio, BenchReport, BenchWheel

REPORT_FILE = "bench-report.json"  # the report as the measuring machine wrote it
CONFIDENCE = bench_metrics.CONFIDENCE
LEAST = bench_metrics.ENOUGH  # rounds that an interval needs
METRICS = (
    bench_metrics.METRICS
)  # metric -> its name for people, its unit, whether less or more is better
wheels = bench_metrics.wheels
model = bench_metrics.model
code = bench_metrics.code
shown = bench_metrics.shown
LARGEST = 1e18  # of a value in any unit; a larger one is not a measurement


def opened(
    text: str, target: str, sha256: str, origin: str, remedy: str = report_matches_wheel.AGAIN
) -> BenchReport:
    """Read a report file. Raises Problem if it is damaged, or about another wheel or target."""
    return report_matches_wheel.opened(
        "bench",
        lambda: _report(report_file.read(text, report_file.BENCH), origin),
        sha256,
        target=target,
        remedy=remedy,
    )


def tables(text: str) -> list[bench_metrics.Table]:
    """The tables of an opened report, for people: title, columns, rows."""
    return bench_metrics.tables(report_file.read(text, report_file.BENCH))


def _report(report: dict[str, Any], origin: str) -> BenchReport:
    """The record of a report file's content. Raises ValueError."""
    found = _REPORT("the report", report)
    found.pop("ratios", None)
    measured = found["wheels"]
    if len({wheel.label for wheel in measured}) != len(measured):
        raise ValueError("two wheels have one label")
    if not measured or measured[0].sha256 != found["sha256"]:
        raise ValueError("the first wheel that was measured is not the one that it names")
    ratios = tuple(BenchRatio(**item) for item in bench_metrics.ratios(report))
    return BenchReport(**found, origin=origin, confidence=CONFIDENCE, ratios=ratios)


def _series(name: str, value: Any) -> dict[str, tuple[float, ...]]:
    """The values of each metric. Their ratios must be finite, so extreme values are refused."""
    found = {}
    for metric, values in fields.table(name, value).items():
        numbers = fields.list_of(fields.positive)(metric, values)
        if not all(1 / LARGEST <= number <= LARGEST for number in numbers):
            raise ValueError(f"{metric} has values that nobody measures")
        found[metric] = tuple(bench_metrics.checked(metric, numbers))
    return found


_READ_WHEEL = fields.object_of(
    {
        **dict.fromkeys(("label", "file", "sha256", "version"), fields.line),
        "cpu_module": fields.optional(fields.line),
        "brings_runtime": fields.flag,
        "packages": fields.list_of(fields.line),
        "jit_files": fields.count,
        "values": _series,
    }
)
_READ_CONDITION = fields.object_of(  # of the GPU at one step: gpu_watch.summary
    {
        **dict.fromkeys(("wheel", "kind"), fields.line),
        **dict.fromkeys(("round", "looks"), fields.count),
        **dict.fromkeys(
            ("sm_mhz", "sm_mhz_highest", "memory_mhz_highest"), fields.optional(fields.number)
        ),
        **dict.fromkeys(
            ("celsius", "watts", "before_mib", "vram_mib"), fields.optional(fields.number)
        ),
        "slowed": lambda name, value: list(fields.list_of(fields.line)(name, value)),
    }
)
_REPORT: fields.Reader = fields.object_of(
    {
        **report_matches_wheel.FIELDS,
        **dict.fromkeys(("rounds", "stops", "threads", "cpu_threads"), fields.count),
        "runtime": fields.line,
        "model": fields.optional(
            fields.object_of(
                {
                    "file": lambda name, value: Path(fields.line(name, value)).name,
                    "size": fields.count,
                    "sha256": fields.line,
                }
            )
        ),
        "wheels": fields.list_of(lambda name, value: BenchWheel(**_READ_WHEEL(name, value))),
        "conditions": fields.list_of(_READ_CONDITION),
    },
    may={"ratios": lambda _, value: value},  # not used
)
