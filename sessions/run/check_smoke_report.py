"""Reads the report of a smoke run; checks that its cases are complete and within their bounds."""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from sessions.payload import report_file
from sessions.run import families, report_matches_wheel
from sessions.run import report_fields as fields
from sessions.run.record_types import SmokeReport
from sessions.shared.check_result import Check

PAYLOAD = Path(str(report_file.__file__)).parent


def opened(
    text: str,
    target: str | None,
    sha256: str,
    origin: str,
    file: str | None = None,
    remedy: str = report_matches_wheel.AGAIN,
) -> SmokeReport:
    """Read a report file. Raises Problem if it is damaged, or about another wheel or target."""
    return report_matches_wheel.opened(
        "smoke",
        lambda: _report(report_file.read(text), origin),
        sha256,
        target=target,
        file=file,
        remedy=remedy,
    )


def place(capability: str | None) -> str:
    """The part of a file name that says where a run was: the compute capability, or "cpu"."""
    return capability or "cpu"


def record(folder: Path, place: str, session: str = "smoke") -> Path:
    """The path of a run's record: one per compute capability, and one for the CPU."""
    return folder / f"{session}-{place}.json"


def report_path(folder: Path, place: str, session: str = "smoke") -> Path:
    """The path of a run's report, unchanged; its signature is beside it."""
    return folder / f"{session}-report-{place}.json"


def places(folder: Path, session: str = "smoke") -> tuple[str, ...]:
    """Where the wheel of a build folder was run, from the records: "9.0", "12.0", "cpu"."""
    names = [path.name for path in folder.glob(f"{session}-*")]
    found = [re.fullmatch(rf"{session}-({_CAPABILITY}|cpu)\.json", name) for name in names]
    return tuple(sorted((match[1] for match in found if match), key=_in_order))


def _in_order(place: str) -> tuple[float, str]:
    return (float("inf") if place == "cpu" else float(place), place)


_CAPABILITY = r"[1-9]\d{0,2}\.\d"
_ANYWHERE = frozenset(
    {
        "device", "known-answers", "greedy-tokens", "repeatable", "types", "grammar", "embeddings",
        "state", "vocabulary", "families", "cpu-modules",
    }
)  # fmt: skip
_ON_A_GPU = frozenset(["native-sass", "libraries", "full-offload", "memory"])


def failed(report: SmokeReport) -> list[str]:
    """Ids of the checks that fail, and of the required checks that are missing.

    What follows from the answers is computed here again, whatever the report's checks say.
    """
    wanted = _ANYWHERE if report.device == "cpu" else _ANYWHERE | _ON_A_GPU
    bad = {check.id for check in report.checks if check.status != "ok"}
    if gaps(report) or not all(map(holds, report.cases)):
        bad.add("known-answers")
    version = parse_wheel_filename(report.file)[1]
    if families.problems(version, report.families, on_gpu=report.device != "cpu"):
        bad.add("families")
    done = [case for case in report.cases if "nmse" in case]
    bounds = known_bounds()
    compared = [c for c in done if c["type"] in bounds["exact"] and c["kv"] == "f16"]
    if not compared or any(c["equal"] != c["tokens"] or not c["tokens"] for c in compared):
        bad.add("greedy-tokens")
    twice = [c for c in done if [c["flash"], c["kv"]] == bounds["repeated"]]
    if not twice or not all(case.get("repeats") for case in twice):
        bad.add("repeatable")
    there = {check.id for check in report.checks}
    return sorted(bad | _features_failed(report, there) | (wanted - there))


def _features_failed(report: SmokeReport, there: set[str]) -> set[str]:
    """Ids of the checks of features.json whose answers are missing, unknown or out of bounds.

    The check of two GPUs may be missing, because most machines have only one.
    """
    known, here = known_features(), "cpu" if report.device == "cpu" else "gpu"
    wanted = set(known["worst"]) - ({"two-gpus"} - there)
    if here == "cpu":
        wanted -= {"partial-offload", "two-gpus"}
    bad = {answer["check"] for answer in report.features} - wanted
    for name in wanted:
        found = [answer for answer in report.features if answer["check"] == name]
        rows = known["worst"][name]
        if name not in there or sorted(answer["case"] for answer in found) != sorted(rows):
            bad.add(name)
            continue
        for answer in found:
            widest = float(f"{known['factor'] * rows[answer['case']][here]:.3g}")
            if not 0 <= answer["nmse"] <= answer["bound"] <= widest:
                bad.add(name)
    return bad


def gaps(report: SmokeReport) -> list[str]:
    """How the cases of a report differ from those of its release, in words; [] if they do not.

    A release has each type that it knows, in each batch size with each attention, exactly once,
    on a GPU and on the CPU alike. Only a type of later releases may be missing entirely.
    """
    bounds, version = known_bounds(), parse_wheel_filename(report.file)[1]
    ways = {
        (int(batch), flash, kv) for batch in bounds["tokens"] for flash, kv in bounds["attention"]
    }
    there = Counter(
        (c["type"], (c.get("batch"), c.get("flash"), c.get("kv"))) for c in report.cases
    )
    found = [
        f"{name}: not a type of GGML's" for name in {n for n, _ in there} - set(bounds["type"])
    ]
    for name in bounds["type"]:
        seen = {way: count for (type_, way), count in there.items() if type_ == name}
        if not seen and name in late(version):
            continue
        if missing := ways - seen.keys():
            found.append(f"{name}: {len(missing)} of {len(ways)} cases are missing")
        if sum(seen.values()) > len(seen) or seen.keys() - ways:
            found.append(f"{name}: cases that occur twice, or are not expected")
    return found


def holds(case: Mapping[str, Any]) -> bool:
    """Whether an answer is a finite number within its bound, and the bound is not too wide."""
    if "nmse" not in case or not case["finite"]:
        return False
    bounds, name = known_bounds(), case["type"]
    if name not in bounds["type"] or case["kv"] not in bounds["kv"]:
        return False
    # A report does not contain whether the kernels of its wheel compute in FP4.
    widest = bounds["native_fp4"].get(name, bounds["type"][name]) + bounds["kv"][case["kv"]]
    return bool(0 <= case["nmse"] <= case["bound"] and 0 < case["bound"] <= widest)


def share(case: Mapping[str, Any]) -> float:
    """The NMSE of a case divided by its bound; infinite if it is not a number."""
    nmse, bound = case["nmse"], case["bound"]
    found = nmse / bound if bound > 0 else math.inf
    return math.inf if math.isnan(found) else float(found)


@functools.cache
def known_bounds() -> dict[str, Any]:
    """``bounds.json``: the largest NMSE of each type, the cases, and the types of each release."""
    found: dict[str, Any] = json.loads((PAYLOAD / "bounds.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def known_features() -> dict[str, Any]:
    """``features.json``: each answer of each feature, with the worst NMSE that was measured."""
    found: dict[str, Any] = json.loads((PAYLOAD / "features.json").read_text(encoding="utf-8"))
    return found


def late(version: Version) -> set[str]:
    """The types that were added to llama-cpp-python after this release."""
    since = known_bounds()["since"]
    return {name for name, first in since.items() if version.release < tuple(first)}


def _report(report: dict[str, Any], origin: str) -> SmokeReport:
    """The record of a report file's content. Raises ValueError."""
    found = _READ("the report", report)
    found.pop("system_info", None)
    check_device(found)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["started"]):
        raise ValueError("started is not a time, as 2026-01-02T03:04:05Z")
    parse_wheel_filename(found["file"])  # InvalidWheelFilename is a ValueError
    # A wheel that does not start has no times.
    times = {name: value for name, value in found["times"].items() if value is not None}
    missing: dict[str, Any] = {"features": (), "families": families.NONE}
    return SmokeReport(**{**missing, **found, "times": times}, origin=origin)


def check_device(report: Mapping[str, Any]) -> None:
    """Raise ValueError if the device and the compute capability of a report do not agree."""
    device, capability = report["device"], report["capability"]
    if (device == "cpu") != (capability is None):
        raise ValueError(f"its device is {device!r}, its compute capability {capability}")
    if capability is not None and not re.fullmatch(_CAPABILITY, capability):
        raise ValueError(f"{capability!r} is not a compute capability")


def check(name: str, value: Any) -> Check:
    """Read a check of a report (see ``report_fields``). Raises ValueError."""
    found = fields.object_of(dict.fromkeys(Check.__dataclass_fields__, fields.text))(name, value)
    if found["status"] not in ("ok", "fail"):
        raise ValueError(f"{found['status']!r} is not the status of a check")
    return Check(**found)


def _case(name: str, value: Any) -> dict[str, Any]:
    """Read a case: it has an answer, or the error that occurred instead."""
    read_case = _READ_ANSWER if isinstance(value, dict) and "nmse" in value else _READ_ERROR
    return dict(read_case(name, value))


_WAY = {"batch": fields.count, "flash": fields.flag, "kv": fields.line}
_READ_ERROR = fields.object_of({"type": fields.line, "error": fields.text}, may=_WAY)
_READ_ANSWER = fields.object_of(
    {
        "type": fields.line,
        **_WAY,
        "nmse": fields.any_number,
        "bound": fields.positive,
        "finite": fields.flag,
        "tokens": fields.count,
        "equal": fields.count,
    },
    may={"repeats": fields.flag},
)
_READ_FEATURE = fields.object_of(
    {"check": fields.line, "case": fields.line, "nmse": fields.any_number, "bound": fields.positive}
)
_READ: fields.Reader = fields.object_of(
    {
        **report_matches_wheel.FIELDS,
        "checks": fields.list_of(check),
        "cases": fields.list_of(_case),
        "times": fields.table_of(fields.optional(fields.number)),
    },
    may={
        "families": families.read,
        "features": fields.list_of(_READ_FEATURE),
        "system_info": lambda _, value: value,  # not used
    },
)
