"""Which model families a run computes, and with which bounds: from ``families.toml``. Pure."""

from __future__ import annotations

import functools
import json
from typing import Any

from packaging.version import Version

from sessions.payload import family_checks
from sessions.run import report_fields
from sessions.shared import knowledge

FAMILIES = knowledge.KNOWLEDGE.parent / "families"
MANIFEST = "manifest.json"
SETS = ("default", "all")
BATCHES = (1, 32, 512)
Row = dict[str, Any]
NONE: Row = {"set": "default", "rows": [], "operations": []}  # of a report that has none


@functools.cache
def digests() -> dict[str, dict[str, str]]:
    """The sha256 of each family's GGUF file: family -> type -> digest."""
    found: dict[str, dict[str, str]] = json.loads((FAMILIES / MANIFEST).read_text("utf-8"))
    return found


def plan(version: Version, chosen: str, *, on_gpu: bool) -> list[Row]:
    """The rows of a run (``family_checks``), in the order in which they are computed."""
    facts, release = knowledge.load("families.toml"), version.base_version
    rows = []
    for name, family in facts["family"].items():
        if chosen == "default" and name not in facts["default"]["gpu" if on_gpu else "cpu"]:
            continue
        types = family["types"]
        if chosen == "default" and not on_gpu:
            types = list(dict.fromkeys((types[0], types[-1])))
        common = {"family": name, "late": Version(family.get("since", "0")) > version}
        rows += [
            {**common, "type": kind, **way, "bound": bound(name, kind), **fault}
            for kind in types
            for way in _ways(facts, name, family, on_gpu=on_gpu)
            for fault in [_fault(facts, name, kind, way["batch"], release, on_gpu=on_gpu)]
        ]
    return rows


def _ways(facts: Row, name: str, family: Row, *, on_gpu: bool) -> list[Row]:
    """Batch size, attention and split of each case. An encoder takes a text in one batch."""
    batches = (512,) if family.get("encoder") else BATCHES
    found = [{"batch": b, "flash": f, "split": ""} for b in batches for f in (False, True)]
    if on_gpu and name in facts["split"]["families"]:
        splits = ("experts", "half") if "router" in family else ("half",)
        found += [{"batch": b, "flash": True, "split": s} for s in splits for b in (1, 512)]
    return found


def bound(name: str, kind: str) -> float:
    """The largest NMSE of a family's model in one type."""
    bounds = knowledge.load("families.toml")["bound"]
    found: float = bounds.get(name, {}).get(kind) or bounds["type"][kind]
    return found


def _fault(facts: Row, name: str, kind: str, batch: int, release: str, *, on_gpu: bool) -> Row:
    """What upstream is known to compute otherwise in a case: ``known``, and ``limit``.

    A limit is the largest NMSE of a case that may be wrong, or right; without one it must be wrong.
    """
    row, large = facts["known"].get(name), facts["large-batches"]
    if row and release in row["releases"]:
        return {"known": row["what"], "limit": None}
    experts = on_gpu and "router" in facts["family"][name] and kind in large["types"]
    if experts and batch > large["batch"] and release in large["releases"]:
        return {"known": large["what"], "limit": large["limit"]}
    return {"known": "", "limit": None}


def faults(version: str, language: str, *, cuda: bool) -> list[str]:
    """What llama.cpp of a release is known to compute otherwise than the reference."""
    facts = knowledge.load("families.toml")
    rows = [*([facts["large-batches"]] if cuda else []), *facts["known"].values()]
    name = "what" if language == "en" else language
    return [row[name] for row in rows if version in row["releases"]]


def job(version: Version, chosen: str) -> Row:
    """What the payload is told: the plans of both devices, and each family's file."""
    facts = knowledge.load("families.toml")
    plans = {place: plan(version, chosen, on_gpu=place == "gpu") for place in ("gpu", "cpu")}
    named = sorted({row["family"] for rows in plans.values() for row in rows})
    return {
        "family_set": chosen,
        "family_plans": plans,
        "families": {
            name: {
                "encoder": bool(facts["family"][name].get("encoder")),
                "sha256": digests()[name],
            }
            for name in named
        },
    }


def problems(version: Version, given: Row, *, on_gpu: bool) -> list[str]:
    """What is wrong with the families of a report, whatever it says itself; [] if nothing."""
    wanted = plan(version, given["set"], on_gpu=on_gpu)
    return family_checks.problems(wanted, given["rows"], on_gpu=on_gpu)


def read(given: Row) -> Row:
    """The families of a report, as they may be in a record. Raises ValueError."""
    report_fields.only("families", given, ("set", "rows", "operations"))
    if given["set"] not in SETS:
        raise ValueError(f"{given['set']!r} is not a set of model families")
    if not isinstance(given["operations"], list):
        raise ValueError("operations is not a list")
    return {
        "set": given["set"],
        "rows": [_row(row) for row in report_fields.items("families", given["rows"])],
        "operations": [report_fields.line("an operation", text) for text in given["operations"]],
    }


_WAY = {"batch": report_fields.count, "flash": report_fields.flag}


def _row(item: Row) -> Row:
    names = ("family", "type")
    plain = {name: report_fields.line(name, item.get(name)) for name in names}
    if "error" in item:
        report_fields.only("a family's row", item, (*names, "error"), may=("split", *_WAY))
        way = {n: read(n, item[n]) for n, read in _WAY.items() if n in item}
        split = {"split": report_fields.text("split", item["split"])} if "split" in item else {}
        return {**plain, **way, **split, "error": report_fields.text("error", item["error"])}
    numbers = ("nmse", "worst")
    sizes = ("host_mib", "gpu_mib")
    report_fields.only("a family's row", item, (*names, *_WAY, *numbers, *sizes, "split", "tokens",
                                         "finite"))  # fmt: skip
    return {
        **plain,
        **{n: read(n, item[n]) for n, read in _WAY.items()},
        "split": report_fields.text("split", item["split"]),
        **{n: report_fields.number(n, item[n], any_float=True) for n in numbers},
        **{n: report_fields.number(n, item[n]) for n in sizes},
        "tokens": report_fields.count("tokens", item["tokens"]),
        "finite": report_fields.flag("finite", item["finite"]),
    }
