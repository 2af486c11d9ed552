"""The model families that a run computes, with their bounds, from ``families.toml``. Pure."""

from __future__ import annotations

import functools
import json
from typing import Any

from packaging.version import Version

from sessions.payload import family_checks
from sessions.run import report_fields as fields
from sessions.shared import knowledge

FAMILIES = knowledge.KNOWLEDGE.parent / "families"
MANIFEST = "manifest.json"
SETS = ("default", "all")
BATCHES = (1, 32, 512)
Row = dict[str, Any]
NONE: Row = {"set": "default", "rows": [], "operations": []}  # for a report without families


@functools.cache
def digests() -> dict[str, dict[str, str]]:
    """The sha256 of each family's GGUF file: family -> type -> digest."""
    found: dict[str, dict[str, str]] = json.loads((FAMILIES / MANIFEST).read_text("utf-8"))
    return found


def plan(version: Version, chosen: str, *, on_gpu: bool) -> list[Row]:
    """The rows that a run computes, in their order; ``family_checks`` describes a row."""
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
    """Batch size, attention and split of each case. An encoder reads a text in one batch."""
    batches = (512,) if family.get("encoder") else BATCHES
    found = [{"batch": b, "flash": f, "split": ""} for b in batches for f in (False, True)]
    if on_gpu and name in facts["split"]["families"]:
        splits = ("experts", "half") if "router" in family else ("half",)
        found += [{"batch": b, "flash": True, "split": s} for s in splits for b in (1, 512)]
    return found


def bound(name: str, kind: str) -> float:
    """The largest NMSE that a family's model may have in one type."""
    bounds = knowledge.load("families.toml")["bound"]
    found: float = bounds.get(name, {}).get(kind) or bounds["type"][kind]
    return found


def _fault(facts: Row, name: str, kind: str, batch: int, release: str, *, on_gpu: bool) -> Row:
    """The known fault of upstream in a case: ``known`` is its text, or "" if there is none.

    With a ``limit``, the case may be right, or wrong up to that NMSE; without, it must be wrong.
    """
    row, large = facts["known"].get(name), facts["large-batches"]
    if row and release in row["releases"]:
        return {"known": row["what"], "limit": None}
    experts = on_gpu and "router" in facts["family"][name] and kind in large["types"]
    if experts and batch > large["batch"] and release in large["releases"]:
        return {"known": large["what"], "limit": large["limit"]}
    return {"known": "", "limit": None}


def faults(version: str, language: str, *, cuda: bool) -> list[str]:
    """The known faults of a release's llama.cpp, where it differs from the reference."""
    facts = knowledge.load("families.toml")
    rows = [*([facts["large-batches"]] if cuda else []), *facts["known"].values()]
    name = "what" if language == "en" else language
    return [row[name] for row in rows if version in row["releases"]]


def job(version: Version, chosen: str) -> Row:
    """The job's part for model families: the plans of both devices, and each family's file."""
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
    """What is wrong with the families of a report, from its numbers only; [] if nothing."""
    wanted = plan(version, given["set"], on_gpu=on_gpu)
    return family_checks.problems(wanted, given["rows"], on_gpu=on_gpu)


def read(name: str, value: Any) -> Row:
    """Read the families of a report (see ``report_fields``). Raises ValueError."""
    found: Row = _READ(name, value)
    if found["set"] not in SETS:
        raise ValueError(f"{found['set']!r} is not a set of model families")
    return {field: list(v) if isinstance(v, tuple) else v for field, v in found.items()}


def _row(name: str, value: Any) -> Row:
    read_row = _READ_ERROR if isinstance(value, dict) and "error" in value else _READ_ROW
    return dict(read_row(name, value))


_WAY = {"batch": fields.count, "flash": fields.flag, "split": fields.text}
_READ_ERROR = fields.object_of(
    {"family": fields.line, "type": fields.line, "error": fields.text}, may=_WAY
)
_READ_ROW = fields.object_of(
    {
        "family": fields.line,
        "type": fields.line,
        **_WAY,
        **dict.fromkeys(("nmse", "worst"), fields.any_number),
        **dict.fromkeys(("host_mib", "gpu_mib"), fields.number),
        "tokens": fields.count,
        "finite": fields.flag,
    }
)
_READ = fields.object_of(
    {"set": fields.line, "rows": fields.list_of(_row), "operations": fields.list_of(fields.line)}
)
