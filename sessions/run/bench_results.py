"""A benchmark's report, opened with distrust: its ratios are made anew from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sessions.payload import report_file, stats
from sessions.run import own_report, report_fields
from sessions.run.model import BenchRatio, BenchReport, BenchWheel

REPORT_FILE = "bench-report.json"  # the report as it was written where the wheels were measured
CONFIDENCE = stats.CONFIDENCE
LEAST = stats.ENOUGH  # rounds from which an interval can say anything
METRICS = stats.METRICS  # metric -> its name for people, its unit, whether less or more is better
wheels = stats.wheels
model = stats.model
code = stats.code
shown = stats.shown
LARGEST = 1e18  # of a value in any unit: more is not a measurement
_PLAIN = ("file", "sha256", "target", "device", "python", "system", "started", "runtime")
_COUNTS = ("rounds", "stops", "threads", "cpu_threads")
_SEEN = (
    "sm_mhz", "sm_mhz_highest", "memory_mhz_highest", "celsius", "watts", "before_mib", "vram_mib",
)  # fmt: skip


def opened(
    text: str, target: str, sha256: str, origin: str, remedy: str = own_report.AGAIN
) -> BenchReport:
    """A report file's content, if it is whole and of this very wheel. Raises Problem."""

    def read() -> BenchReport:
        return _report(report_file.read(text, report_file.BENCH), origin)

    return own_report.opened("bench", read, sha256, target=target, remedy=remedy)


def tables(text: str) -> list[stats.Table]:
    """What people are shown of a report that was opened: title, columns, rows."""
    return stats.tables(report_file.read(text, report_file.BENCH))


def _report(report: dict[str, Any], origin: str) -> BenchReport:
    """The record of a report whose digest is right. Raises ValueError for what is not one."""
    named = (*_PLAIN, *_COUNTS, "capability", "driver", "seconds", "model", "wheels", "conditions")
    report_fields.only("the report", report, named, may=("ratios",))
    capability, driver = report["capability"], report["driver"]
    plain: dict[str, Any] = {name: report_fields.line(name, report[name]) for name in _PLAIN}
    plain |= {name: report_fields.count(name, report[name]) for name in _COUNTS}
    measured = tuple(map(_wheel, report_fields.items("wheels", report["wheels"])))
    if len({wheel.label for wheel in measured}) != len(measured):
        raise ValueError("two wheels have one label")
    if not measured or measured[0].sha256 != plain["sha256"]:
        raise ValueError("the first wheel that was measured is not the one that it names")
    return BenchReport(
        **plain,
        capability=None if capability is None else report_fields.line("capability", capability),
        driver=None if driver is None else report_fields.line("driver", driver),
        origin=origin,
        seconds=report_fields.number("seconds", report["seconds"]),
        confidence=CONFIDENCE,
        model=_model(report["model"]),
        wheels=measured,
        ratios=tuple(BenchRatio(**item) for item in stats.ratios(report)),
        conditions=tuple(map(_condition, report_fields.items("conditions", report["conditions"]))),
    )


def _wheel(item: dict[str, Any]) -> BenchWheel:
    report_fields.only("a wheel", item, BenchWheel.__dataclass_fields__)
    values = report_fields.table("values", item["values"])
    packages, module = item["packages"], item["cpu_module"]
    if not isinstance(packages, list):
        raise ValueError("packages is not a list")
    return BenchWheel(
        **{
            name: report_fields.line(name, item[name])
            for name in ("label", "file", "sha256", "version")
        },
        cpu_module=None if module is None else report_fields.line("cpu_module", module),
        brings_runtime=report_fields.flag("brings_runtime", item["brings_runtime"]),
        packages=tuple(report_fields.line("a package", package) for package in packages),
        jit_files=report_fields.count("jit_files", item["jit_files"]),
        values={metric: _series(metric, series) for metric, series in values.items()},
    )


def _series(metric: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list):
        raise ValueError(f"{metric} is not a list of values")
    found = [report_fields.positive(metric, value) for value in values]
    if not all(1 / LARGEST <= value <= LARGEST for value in found):  # a ratio must be a number
        raise ValueError(f"{metric} has values that nobody measures")
    return tuple(stats.checked(metric, found))


def _condition(item: dict[str, Any]) -> dict[str, Any]:
    """What the GPU was like at one step, as payload/gpu_watch.py sums it up."""
    report_fields.only("a condition", item, ("wheel", "kind", "round", "slowed", "looks", *_SEEN))
    slowed = item["slowed"]
    if not isinstance(slowed, list):
        raise ValueError("slowed is not a list")
    return {
        **{name: report_fields.line(name, item[name]) for name in ("wheel", "kind")},
        **{name: report_fields.count(name, item[name]) for name in ("round", "looks")},
        **{n: None if item[n] is None else report_fields.number(n, item[n]) for n in _SEEN},
        "slowed": [report_fields.line("slowed", reason) for reason in slowed],
    }


def _model(item: Any) -> dict[str, Any] | None:
    if item is None:
        return None
    report_fields.only("model", report_fields.table("model", item), ("file", "size", "sha256"))
    return {
        "file": Path(report_fields.line("file", item["file"])).name,
        "size": report_fields.count("size", item["size"]),
        "sha256": report_fields.line("sha256", item["sha256"]),
    }
