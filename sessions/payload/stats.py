"""What series of measurements say: medians, ratios, and how sure they are.

Pure, but for what describes a job's files. Imports the standard library only, so that a bundle can
show its table too.
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

# What is measured: its name for people, its unit, and whether less or more of it is better.
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
CONFIDENCE = 0.99  # a dozen intervals are read at once: at 0.95 one of two equal wheels would lie
ENOUGH = 8  # values: all on one side of 1 have a chance of 2 ** (1 - 8) by luck, under 1%
NOTHING = 1e-3  # of a size; pip notes where a wheel lay, and some paths are longer
COLUMNS = ("", "this", "other", "ratio", f"{CONFIDENCE:.0%}", "this is")


def wheels(target: str, paths: Sequence[Path], modules: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Wheels as a job has them, the one of the target first; the others go by their folders.

    After the first comes the same wheel with each of these modules for the CPU. Raises ValueError
    for one that it does not have.
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
    """The names of ggml's modules for the CPU in a wheel: "haswell", "x64" …."""
    with zipfile.ZipFile(wheel) as archive:
        names = [re.search(r"/(?:lib)?ggml-cpu-(\w+)\.(?:so|dll)$", n) for n in archive.namelist()]
    return sorted(name[1] for name in names if name)


def model(path: Path | None) -> dict[str, Any] | None:
    """The real model as a job has it: which one it is, whatever its name."""
    if path is None:
        return None
    size = path.stat().st_size
    return {"path": str(path), "file": path.name, "size": size, "sha256": digest(path)}


def code() -> str:
    """Which program measures: values of two programs are no series."""
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
    """A series that can be judged. Raises ValueError: empty, or not positive numbers only."""
    if metric not in METRICS:
        raise ValueError(f"{metric} is nothing that is measured")
    found = [float(value) for value in values]
    if not found:
        raise ValueError(f"{metric} was never measured")
    if not all(math.isfinite(value) and value > 0 for value in found):
        raise ValueError(f"{metric} has values that are no measurements: {found}")
    return found


def ratio(metric: str, one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The median of the rounds' ratios, one's value over the other's, and its interval.

    Both were measured in turn, so a round's two values share what else went on in the machine.
    Raises ValueError where rounds differ.
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
    """How many of so many values, at each end, lie outside of their median's interval.

    Each is above the true median with a chance of a half, whatever they are distributed like: the
    interval misses it where no more than these are on one side. Of fewer values than ``ENOUGH``
    none is left out, and the chance is higher than it should be.
    """
    out, miss = 0, 2 / 2**count
    while miss + 2 * math.comb(count, out + 1) / 2**count <= 1 - CONFIDENCE:
        out += 1
        miss += 2 * math.comb(count, out) / 2**count
    return out


def verdict(metric: str, low: float, high: float, count: int) -> str:
    """What an interval of ratios says: "better", "worse", or "same" where it holds 1.

    "unsure" where too few values were measured to say so; sizes are no matter of luck.
    """
    exact = METRICS[metric][1] == "B"
    if count < ENOUGH and not exact:
        return "unsure"
    if low <= 1 <= high or (exact and max(abs(low - 1), abs(high - 1)) < NOTHING):
        return "same"
    return "better" if (low > 1) == (METRICS[metric][2] == "more") else "worse"


def complete(report: Report) -> None:
    """Raises ValueError for a report that lacks a series, or a value in one."""
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
    """The first wheel of a report against each of the others. Raises ValueError."""
    complete(report)
    this, *others = report["wheels"]
    return [
        {"baseline": other["label"], **ratio(metric, values, other["values"].get(metric, ()))}
        for other in others
        for metric, values in in_order(this["values"])
    ]


def in_order(values: dict[str, list[float]]) -> list[tuple[str, list[float]]]:
    """Series as ``METRICS`` has them."""
    return [(metric, values[metric]) for metric in METRICS if metric in values]


def shown(value: float, unit: str) -> str:
    """A value as people read it."""
    if unit == "B":
        return f"{value / 1e6:.1f} MB"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"
    short = unit.replace("tokens", "tok")
    return f"{value:.0f} {short}" if value >= 100 else f"{value:.3g} {short}"


Table = tuple[str, Sequence[str], list[tuple[str, ...]]]


def tables(report: Report) -> list[Table]:
    """What people are shown: title, columns, rows; one table for each baseline."""
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
