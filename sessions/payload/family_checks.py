"""The rows of model families that a report must have, and the checks of their values. Pure.

A plan is a list of rows: family, type, batch, flash, split ("" if all is on one device), the bound
of the NMSE, ``late`` (the release may lack the family), ``known`` (a known fault of upstream in
this release, or ""), and ``limit``: the largest NMSE of a known fault that only some GPUs show, or
None if the answer must be over its bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]
KEY = ("family", "type", "batch", "flash", "split")
# A model is split if each side has more than this; the embeddings (1 MiB) are always on the CPU.
HOST_MIB, GPU_MIB = 1.2, 0.5


def key(row: Row) -> tuple[Any, ...]:
    """The values that identify a row."""
    return tuple(row.get(name) for name in KEY)


def name(row: Row) -> str:
    """The name of a row for people."""
    if row.get("batch") is None:
        return f"{row['family']} {row['type']}"
    flash = "flash" if row["flash"] else "plain"
    split = f", {row['split']} on the CPU" if row["split"] else ""
    return f"{row['family']} {row['type']}, batch {row['batch']}, {flash} attention{split}"


def row(whole: Row, result: Row) -> dict[str, Any]:
    """A row of a report: ``whole`` and a process's result, with the sizes of its buffers."""
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
    """What is wrong with one row; "" if nothing is."""
    if "error" in row:
        return f"{name(row)}: {row['error']}"
    if plan is None:
        return ""  # ``problems`` reports it
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
    """The known faults of upstream that occur in the rows, each once, with its families."""
    values = {key(row): row["nmse"] for row in rows if "nmse" in row}
    shown: dict[str, list[str]] = {}
    for row in plan:
        if row["known"] and values.get(key(row), 0.0) > row["bound"]:
            shown.setdefault(row["known"], []).append(row["family"])
    return sorted(f"{', '.join(dict.fromkeys(names))}: {what}" for what, names in shown.items())


def summary(plan: Iterable[Row], rows: Iterable[Row]) -> str:
    """The summary of a check: numbers, the row closest to its bound, and known faults."""
    plan, rows = list(plan), list(rows)
    bounds = {key(row): row for row in plan if not row["known"]}
    shares = [
        (row["nmse"] / bounds[key(row)]["bound"], name(row))
        for row in rows
        if "nmse" in row and key(row) in bounds
    ]
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
    """The plan for the job's device."""
    found: list[Row] = job["family_plans"]["gpu" if job["layers"] else "cpu"]
    return found


def rows_of(found: Row) -> list[dict[str, Any]]:
    """All rows of all families in the results."""
    return [row for part in found.get("families", {}).values() for row in part["rows"]]
