"""What series of measurements say: medians, ratios, and how sure they are. Pure.

Imports the standard library alone, so that a bundle can show its table too.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

Report = dict[str, Any]

# What is measured: its name for people, its unit, and whether less or more of it is better.
METRICS: dict[str, tuple[str, str, str]] = {
    "wheel_bytes": ("wheel", "B", "less"),
    "installed_bytes": ("installed, with what it requires", "B", "less"),
    "install_seconds": ("install, from files", "s", "less"),
    "import_seconds": ("import", "s", "less"),
    "first_load_seconds": ("first load", "s", "less"),
    "first_token_cold_seconds": ("first token, nothing compiled yet", "s", "less"),
    "first_token_warm_seconds": ("first token, warm", "s", "less"),
    "prompt_per_second": ("prompt", "tokens/s", "more"),
    "generation_per_second": ("generation", "tokens/s", "more"),
    "vram_mib": ("peak VRAM", "MiB", "less"),
    "real_load_seconds": ("real model: load", "s", "less"),
    "real_first_token_seconds": ("real model: first token", "s", "less"),
    "real_prompt_per_second": ("real model: prompt", "tokens/s", "more"),
    "real_generation_per_second": ("real model: generation", "tokens/s", "more"),
    "real_vram_mib": ("real model: peak VRAM", "MiB", "less"),
}
CONFIDENCE = 0.99  # a dozen intervals are read at once: at 0.95 one of two equal wheels would lie
RESAMPLES = 5000
SEED = 2026
COLUMNS = ("", "this", "the other", "this / other", f"{CONFIDENCE:.0%} interval", "so it is")


def checked(metric: str, values: Sequence[float]) -> list[float]:
    """A series that can be judged. Raises ValueError: empty, or not positive numbers alone."""
    if metric not in METRICS:
        raise ValueError(f"{metric} is nothing that is measured")
    found = [float(value) for value in values]
    if not found:
        raise ValueError(f"{metric} was never measured")
    if not all(math.isfinite(value) and value > 0 for value in found):
        raise ValueError(f"{metric} has values that are no measurements: {found}")
    return found


def ratio(metric: str, one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The ratio of two medians and its interval, by resampling rounds: one's median on top.

    Both were measured in turn, so a round's two values share what else went on in the machine, and
    are drawn together. The draws are the same in every run. Raises ValueError where rounds differ.
    """
    first, second = checked(metric, one), checked(metric, other)
    if len(first) != len(second):
        raise ValueError(f"{metric}: {len(first)} values against {len(second)}")
    draw = random.Random(SEED)
    rounds = range(len(first))
    drawn = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(rounds, k=len(first))
        drawn.append(
            statistics.median([first[n] for n in chosen])
            / statistics.median([second[n] for n in chosen])
        )
    drawn.sort()
    tail = (1 - CONFIDENCE) / 2
    found = {
        "ratio": statistics.median(first) / statistics.median(second),
        "low": drawn[int(tail * RESAMPLES)],
        "high": drawn[min(int((1 - tail) * RESAMPLES), RESAMPLES - 1)],
        "count": len(first),
    }
    return {"metric": metric, **found, "verdict": verdict(metric, found["low"], found["high"])}


def verdict(metric: str, low: float, high: float) -> str:
    """What an interval of ratios says: "better", "worse", or "same" where it holds 1."""
    if low <= 1 <= high:
        return "same"
    return "better" if (low > 1) == (METRICS[metric][2] == "more") else "worse"


def ratios(report: Report) -> list[dict[str, Any]]:
    """The first wheel of a report against each of the others. Raises ValueError."""
    this, *others = report["wheels"]
    for wheel in report["wheels"]:
        if not wheel["values"] or set(wheel["values"]) != set(this["values"]):
            raise ValueError(f"{wheel['label']} was not measured as {this['label']} was")
    return [
        {"baseline": other["label"], **ratio(metric, values, other["values"][metric])}
        for other in others
        for metric, values in this["values"].items()
    ]


def shown(value: float, unit: str) -> str:
    """A value as people read it."""
    if unit == "B":
        return f"{value / 1e6:.1f} MB"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


Table = tuple[str, Sequence[str], list[tuple[str, ...]]]


def tables(report: Report) -> list[Table]:
    """What people are shown: title, columns, rows; one table for each baseline."""
    this, *others = report["wheels"]
    if not others:
        rows = []
        for metric, values in this["values"].items():
            title, unit, _ = METRICS[metric]
            ends = " to ".join(shown(end, unit) for end in (min(values), max(values)))
            middle = shown(statistics.median(values), unit)
            rows.append((title, middle, ends, f"{len(values)}"))
        return [(this["label"], ("", "median", "from to", "times"), rows)]
    found: dict[str, list[tuple[str, ...]]] = {other["label"]: [] for other in others}
    medians = {
        (wheel["label"], metric): shown(statistics.median(values), METRICS[metric][1])
        for wheel in report["wheels"]
        for metric, values in wheel["values"].items()
    }
    for item in ratios(report):
        label, metric = item["baseline"], item["metric"]
        found[label].append(
            (
                METRICS[metric][0],
                medians[this["label"], metric],
                medians[label, metric],
                f"{item['ratio']:.3g}",
                f"{item['low']:.3g} to {item['high']:.3g}" if item["count"] > 1 else "",
                item["verdict"],
            )
        )
    return [(f"{this['label']} against {label}", COLUMNS, rows) for label, rows in found.items()]
