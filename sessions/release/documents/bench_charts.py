"""The results of a benchmark: charts for the report page, rows for the wheel card. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from sessions.release.documents.report_page import Bar, Chart
from sessions.run import check_bench_report
from sessions.run.record_types import BenchReport


@dataclass(frozen=True)
class Comparison:
    """The target's wheel divided by another one in one metric: the median of the rounds."""

    other: str
    metric: str
    ratio: str
    interval: str
    verdict: str


def charts(report: BenchReport) -> list[Chart]:
    """A chart for each measured metric: ratios to the other wheels, or this wheel's own value."""
    measured = report.wheels[0].values
    return [_chart(report, metric) for metric in check_bench_report.METRICS if metric in measured]


def _chart(report: BenchReport, metric: str) -> Chart:
    title, unit, better = check_bench_report.METRICS[metric]
    medians = [
        f"{wheel.label} {check_bench_report.shown(statistics.median(wheel.values[metric]), unit)}"
        for wheel in report.wheels
        if metric in wheel.values
    ]
    note = f"On {report.device}, {report.rounds} alternating rounds; medians: {', '.join(medians)}."
    compared = [item for item in report.ratios if item.metric == metric]
    if not compared:
        this = report.wheels[0]
        bar = Bar(this.label, statistics.median(this.values[metric]))
        return Chart(title, unit, (bar,), note)
    bars = tuple(
        Bar(f"over {item.baseline}: {item.verdict}", item.ratio, item.low, item.high)
        for item in compared
    )
    return Chart(title, f"ratio, {better} is better", bars, note, 1.0)


def comparisons(report: BenchReport) -> list[Comparison]:
    """Every ratio, formatted for the wheel card."""
    return [
        Comparison(
            other=item.baseline,
            metric=check_bench_report.METRICS[item.metric][0],
            ratio=f"{item.ratio:.3g}",
            interval=f"{item.low:.3g}-{item.high:.3g}" if item.count > 1 else "",
            verdict=item.verdict,
        )
        for item in report.ratios
    ]
