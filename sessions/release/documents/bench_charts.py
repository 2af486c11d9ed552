"""What a benchmark says, as charts for the page and as lines for the card. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from sessions.release.documents.report_page import Bar, Chart
from sessions.run import bench_results
from sessions.run.model import BenchReport


@dataclass(frozen=True)
class Comparison:
    """The target's wheel over another in one thing: the median of the rounds' ratios."""

    other: str
    metric: str
    ratio: str
    interval: str
    verdict: str


def charts(report: BenchReport) -> list[Chart]:
    """A chart for each thing that was measured: against every other wheel, or alone."""
    return [_chart(report, metric) for metric in bench_results.METRICS if metric in _own(report)]


def _chart(report: BenchReport, metric: str) -> Chart:
    title, unit, better = bench_results.METRICS[metric]
    medians = [
        f"{wheel.label} {bench_results.shown(statistics.median(wheel.values[metric]), unit)}"
        for wheel in report.wheels
        if metric in wheel.values
    ]
    told = f"On {report.device}, {report.rounds} alternating rounds; medians: {', '.join(medians)}."
    compared = [item for item in report.ratios if item.metric == metric]
    if not compared:
        (this,) = report.wheels[:1]
        bar = Bar(this.label, statistics.median(this.values[metric]))
        return Chart(title, unit, (bar,), told)
    bars = tuple(
        Bar(f"over {item.baseline}: {item.verdict}", item.ratio, item.low, item.high)
        for item in compared
    )
    return Chart(title, f"ratio, {better} is better", bars, told, 1.0)


def _own(report: BenchReport) -> dict[str, tuple[float, ...]]:
    return report.wheels[0].values


def comparisons(report: BenchReport) -> list[Comparison]:
    """Every ratio, as the card shows it."""
    return [
        Comparison(
            other=item.baseline,
            metric=bench_results.METRICS[item.metric][0],
            ratio=f"{item.ratio:.3g}",
            interval=f"{item.low:.3g}-{item.high:.3g}" if item.count > 1 else "",
            verdict=item.verdict,
        )
        for item in report.ratios
    ]
