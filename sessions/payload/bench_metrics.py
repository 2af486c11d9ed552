"""Statistics of a benchmark: medians, ratios and their confidence intervals; its tables.

Pure, except for the functions that describe a job's files. Standard library only, because a bundle
uses it too.
"""

from __future__ import annotations

import hashlib
import math
import re
import statistics
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Report = dict[str, Any]

# Metric -> its name for people, its unit, and whether less or more is better.
METRICS: dict[str, tuple[str, str, str]] = {
    "wheel_bytes": ("wheel size", "B", "less"),
    "installed_bytes": ("installed size", "B", "less"),
    "install_seconds": ("install", "s", "less"),
    "import_seconds": ("import", "s", "less"),
    "first_load_seconds": ("first load", "s", "less"),
    "first_token_cold_seconds": ("first token, cold", "s", "less"),
    "first_token_warm_seconds": ("first token, warm", "s", "less"),
    "prompt_per_second": ("prompt", "tokens/s", "more"),
    "generation_per_second": ("generation", "tokens/s", "more"),
    "vram_mib": ("peak VRAM", "MiB", "less"),
    "cpu_q4_k_prompt_per_second": ("CPU, Q4_K: prompt", "tokens/s", "more"),
    "cpu_q4_k_generation_per_second": ("CPU, Q4_K: generation", "tokens/s", "more"),
    "cpu_q8_0_prompt_per_second": ("CPU, Q8_0: prompt", "tokens/s", "more"),
    "cpu_q8_0_generation_per_second": ("CPU, Q8_0: generation", "tokens/s", "more"),
    "hybrid_prompt_per_second": ("GPU and CPU: prompt", "tokens/s", "more"),
    "hybrid_generation_per_second": ("GPU and CPU: generation", "tokens/s", "more"),
    "real_load_seconds": ("real: load", "s", "less"),
    "real_first_token_seconds": ("real: first token", "s", "less"),
    "real_prompt_per_second": ("real: prompt", "tokens/s", "more"),
    "real_generation_per_second": ("real: generation", "tokens/s", "more"),
    "real_vram_mib": ("real: peak VRAM", "MiB", "less"),
}
# A table has a dozen intervals; at 0.95, half of the tables of equal wheels would have an error.
CONFIDENCE = 0.99
ENOUGH = 8  # values; by chance, all are on one side of 1 with a probability of 2 ** (1 - 8) < 1%
NOTHING = 1e-3  # a relative difference of sizes; pip records the path of a wheel, which varies
COLUMNS = ("", "this", "other", "ratio", f"{CONFIDENCE:.0%}", "this is")


def wheels(target: str, paths: Sequence[Path], modules: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The wheels of a job: the target's first; the labels of the others are their folders.

    The first is followed by the same wheel with each of these CPU modules. Raises ValueError if it
    does not have a module.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        label = (path.parent.name or path.stem) if found else target
        same = sum(wheel["label"].split(" #")[0] == label for wheel in found)
        shown = f"{label} #{same + 1}" if same else label
        found.append({"label": shown, "path": str(path), "sha256": digest(path)})
    there = cpu_modules(paths[0]) if modules else []
    for name in dict.fromkeys(modules):
        if name not in there:
            has = ", ".join(there) or "none"
            raise ValueError(f"{paths[0].name} has no module {name} for the CPU; it has {has}")
    more = [{**found[0], "label": f"{target} ({m})", "cpu": m} for m in dict.fromkeys(modules)]
    return [found[0], *more, *found[1:]]


def cpu_modules(wheel: Path) -> list[str]:
    """The names of ggml's CPU modules in a wheel: "haswell", "x64" …."""
    with zipfile.ZipFile(wheel) as archive:
        names = [re.search(r"/(?:lib)?ggml-cpu-(\w+)\.(?:so|dll)$", n) for n in archive.namelist()]
    return sorted(name[1] for name in names if name)


def model(path: Path | None) -> dict[str, Any] | None:
    """The real model in a job, with its digest, so that its name does not matter."""
    if path is None:
        return None
    size = path.stat().st_size
    return {"path": str(path), "file": path.name, "size": size, "sha256": digest(path)}


def code() -> str:
    """The digest of the measuring program: values of two programs must not be mixed."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, which may be large."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def checked(metric: str, values: Sequence[float]) -> list[float]:
    """A series of values. Raises ValueError if it is empty or has other than positive numbers."""
    if metric not in METRICS:
        raise ValueError(f"{metric} is nothing that is measured")
    found = [float(value) for value in values]
    if not found:
        raise ValueError(f"{metric} was never measured")
    if not all(math.isfinite(value) and value > 0 for value in found):
        raise ValueError(f"{metric} has values that are no measurements: {found}")
    return found


def ratio(metric: str, one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The median of the ratios (one / other) of all rounds, and its confidence interval.

    Both are measured in each round, so the load of the machine is the same for both values.
    Raises ValueError if the numbers of rounds differ.
    """
    first, second = checked(metric, one), checked(metric, other)
    if len(first) != len(second):
        raise ValueError(f"{metric}: {len(first)} values against {len(second)}")
    found = sorted(a / b for a, b in zip(first, second))
    out = outside(len(found))
    low, high = found[out], found[-1 - out]
    return {
        "metric": metric,
        "ratio": statistics.median(found),
        "low": low,
        "high": high,
        "count": len(found),
        "verdict": verdict(metric, low, high, len(found)),
    }


def outside(count: int) -> int:
    """The number of values at each end that are outside of the confidence interval of the median.

    Whatever the distribution, a value is above the true median with a probability of one half. So
    the interval misses the median only if at most this number of values is on one side. With fewer
    than ``ENOUGH`` values none is left out, and the confidence is lower than ``CONFIDENCE``.
    """
    out, miss = 0, 2 / 2**count
    while miss + 2 * math.comb(count, out + 1) / 2**count <= 1 - CONFIDENCE:
        out += 1
        miss += 2 * math.comb(count, out) / 2**count
    return out


def verdict(metric: str, low: float, high: float, count: int) -> str:
    """The meaning of an interval of ratios: "better", "worse", or "same" if it contains 1.

    It is "unsure" if there are too few values; sizes do not vary, so one value is enough.
    """
    exact = METRICS[metric][1] == "B"
    if count < ENOUGH and not exact:
        return "unsure"
    if low <= 1 <= high or (exact and max(abs(low - 1), abs(high - 1)) < NOTHING):
        return "same"
    return "better" if (low > 1) == (METRICS[metric][2] == "more") else "worse"


def complete(report: Report) -> None:
    """Raise ValueError if a series or a value is missing in a report."""
    for wheel in report["wheels"]:
        found = {name: checked(name, values) for name, values in wheel["values"].items()}
        for metric, (_, unit, _) in METRICS.items():
            if metric.startswith("real_") and not report["model"]:
                continue
            on_cpu, part = report["device"] == "cpu", metric.partition("_")[0]
            if part == ("hybrid" if on_cpu else "cpu") or (on_cpu and unit == "MiB"):
                continue
            least = 1 if unit == "B" or metric == "install_seconds" else report["rounds"]
            count = len(found.get(metric, ()))
            if count < max(least, 1):
                raise ValueError(f"{wheel['label']}: {count} values of {metric} instead of {least}")


def ratios(report: Report) -> list[dict[str, Any]]:
    """The ratios of the first wheel to each other wheel of a report. Raises ValueError."""
    complete(report)
    this, *others = report["wheels"]
    return [
        {"baseline": other["label"], **ratio(metric, values, other["values"].get(metric, ()))}
        for other in others
        for metric, values in in_order(this["values"])
    ]


def in_order(values: dict[str, list[float]]) -> list[tuple[str, list[float]]]:
    """The series in the order of ``METRICS``."""
    return [(metric, values[metric]) for metric in METRICS if metric in values]


def shown(value: float, unit: str) -> str:
    """A value with its unit, for people."""
    if unit == "B":
        return f"{value / 1e6:.1f} MB"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"
    short = unit.replace("tokens", "tok")
    return f"{value:.0f} {short}" if value >= 100 else f"{value:.3g} {short}"


Table = tuple[str, Sequence[str], list[tuple[str, ...]]]


def tables(report: Report) -> list[Table]:
    """The tables for people: title, columns, rows; one for each baseline."""
    this, *others = report["wheels"]
    if not others:
        rows: list[tuple[str, ...]] = []
        for metric, values in in_order(this["values"]):
            title, unit, _ = METRICS[metric]
            ends = "-".join(shown(end, unit) for end in (min(values), max(values)))
            middle = shown(statistics.median(values), unit)
            rows.append((title, middle, ends, f"{len(values)}"))
        return [(this["label"], ("", "median", "range", "times"), rows)]
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
                f"{item['low']:.3g}-{item['high']:.3g}" if item["count"] > 1 else "",
                item["verdict"],
            )
        )
    return [(f"{this['label']} against {label}", COLUMNS, rows) for label, rows in found.items()]
