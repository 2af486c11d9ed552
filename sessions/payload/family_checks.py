"""Which rows of model families must be in a report, and whether they hold. Pure.

A plan is a list of rows: family, type, batch, flash, split ("" for all on one device), the bound
of the NMSE, ``late`` (the release need not know the family), ``known``: what upstream computes
otherwise in this release, or "", and ``limit``: the largest NMSE of a known fault that not every
GPU shows, or None where the answer must be over its bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]
KEY = ("family", "type", "batch", "flash", "split")
# A model is split if more than this is on each side; the embeddings (1 MiB) are always on the CPU.
HOST_MIB, GPU_MIB = 1.2, 0.5


def key(row: Row) -> tuple[Any, ...]:
    """What a row is of."""
    return tuple(row.get(name) for name in KEY)


def name(row: Row) -> str:
    """A row in words."""
    if row.get("batch") is None:
        return f"{row['family']} {row['type']}"
    flash = "flash" if row["flash"] else "plain"
    split = f", {row['split']} on the CPU" if row["split"] else ""
    return f"{row['family']} {row['type']}, batch {row['batch']}, {flash} attention{split}"


def row(whole: Row, result: Row) -> dict[str, Any]:
    """A row of a report, from what a process said of one way."""
    made = {**whole, **result}
    buffers = made.pop("buffers", {})
    if "error" not in made:
        model = {where: size for where, size in buffers.items() if where.endswith(" model")}
        gpu = sum(size for where, size in model.items() if where.startswith("CUDA"))
        made |= {"host_mib": sum(model.values()) - gpu, "gpu_mib": gpu}
    return made


def problems(plan: Iterable[Row], rows: Iterable[Row], *, on_gpu: bool) -> list[str]:
    """What is wrong with the rows of a report, in words; [] if every one holds."""
    wanted = {key(row): row for row in plan}
    keyed = [(key(row), row) for row in rows]
    found = []
    for each, count in Counter(way for way, _ in keyed).items():
        shown = name(dict(zip(KEY, each)))
        if each not in wanted and each[2] is not None:
            found.append(f"{shown}: not in the plan of this release")
        elif count > 1:
            found.append(f"{shown}: it appears {count} times")
    there = {way for way, _ in keyed}
    whole = {(row["family"], row["type"]) for _, row in keyed if row.get("batch") is None}
    tried = {row["family"] for _, row in keyed}
    for way, row in wanted.items():
        absent = way not in there and (row["family"], row["type"]) not in whole
        if absent and not (row["late"] and row["family"] not in tried):
            found.append(f"{name(row)}: missing")
    return found + [why for way, row in keyed if (why := wrong(wanted.get(way), row, on_gpu))]


def wrong(plan: Row | None, row: Row, on_gpu: bool) -> str:
    """What is wrong with one row; "" if it holds."""
    if "error" in row:
        return f"{name(row)}: {row['error']}"
    if plan is None:
        return ""  # said already
    value, bound = row["nmse"], plan["bound"]
    if not row["finite"] or not value >= 0:
        return f"{name(row)}: not a number"
    if plan["known"] and plan["limit"] is None:
        gone = value <= bound
        return f"{name(row)}: upstream has corrected a known fault: {plan['known']}" if gone else ""
    bound = plan["limit"] or bound
    if value > bound:
        return f"{name(row)}: NMSE {value:.2e}, allowed {bound:.0e}"
    split = row["host_mib"] > HOST_MIB and row["gpu_mib"] > GPU_MIB
    if on_gpu and row["split"] and not split:
        where = f"{row['host_mib']:.1f} MiB on the CPU, {row['gpu_mib']:.1f} on the GPU"
        return f"{name(row)}: the model is not split: {where}"
    return ""


def known(plan: Iterable[Row], rows: Iterable[Row]) -> list[str]:
    """Upstream's faults that the rows show, each once, with its families."""
    values = {key(row): row["nmse"] for row in rows if "nmse" in row}
    shown: dict[str, list[str]] = {}
    for row in plan:
        if row["known"] and values.get(key(row), 0.0) > row["bound"]:
            shown.setdefault(row["known"], []).append(row["family"])
    return sorted(f"{', '.join(dict.fromkeys(names))}: {what}" for what, names in shown.items())


def summary(plan: Iterable[Row], rows: Iterable[Row]) -> str:
    """What was computed, the row closest to its bound, and upstream's known faults."""
    plan, rows = list(plan), list(rows)
    bounds = {key(row): row for row in plan if not row["known"]}
    shares = [(row["nmse"] / bounds[key(row)]["bound"], name(row))
              for row in rows if "nmse" in row and key(row) in bounds]  # fmt: skip
    closest = max(shares, default=(0.0, "none"))
    families = {row["family"] for row in rows}
    unknown = sorted({row["family"] for row in plan if row["late"]} - families)
    text = (
        f"{len(shares)} cases of {len(families)} model families within their bounds "
        f"(worst: {closest[0]:.0%} of its bound, {closest[1]})"
    )
    if unknown:
        text += f"; this release does not know {', '.join(unknown)}"
    faults = known(plan, rows)
    return text + (f"; known faults of upstream: {'; '.join(faults)}" if faults else "")


def planned(job: Row) -> list[Row]:
    """The plan of the job's device."""
    found: list[Row] = job["family_plans"]["gpu" if job["layers"] else "cpu"]
    return found


def rows_of(found: Row) -> list[dict[str, Any]]:
    """Every row that the processes of model families said."""
    return [row for part in found.get("families", {}).values() for row in part["rows"]]


def check(job: Row, found: Row) -> dict[str, str]:
    """The check of a report: every row of the plan is there and holds."""
    plan, rows = planned(job), rows_of(found)
    bad = problems(plan, rows, on_gpu=job["layers"] != 0)
    if not rows:
        bad.append("no family was computed")
    shown = bad[:8] + ([f"… and {len(bad) - 8} more"] if len(bad) > 8 else [])
    said = f"wrong or missing: {len(bad)} of {len(plan)} cases of model families"
    remedy = (
        "do not use this wheel for these models; open an issue in the repository of blackwheel, "
        "with the report file"
    )
    return {
        "id": "families",
        "status": "fail" if bad else "ok",
        "summary": f"families: {said if bad else summary(plan, rows)}",
        "evidence": "\n".join(shown),
        "remedy": remedy if bad else "",
    }
