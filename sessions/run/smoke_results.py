"""Whether the report of a smoke run is whole, on this wheel, and within the bounds."""

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
from sessions.run import families, own_report, report_fields
from sessions.run.model import SmokeReport
from sessions.shared.checks import Check

PAYLOAD = Path(str(report_file.__file__)).parent


def opened(
    text: str,
    target: str | None,
    sha256: str,
    origin: str,
    file: str | None = None,
    remedy: str = own_report.AGAIN,
) -> SmokeReport:
    """A report file's content, if it is whole and of this very wheel. Raises Problem."""

    def read() -> SmokeReport:
        return _report(report_file.read(text), origin)

    return own_report.opened("smoke", read, sha256, target=target, file=file, remedy=remedy)


def place(capability: str | None) -> str:
    """What files of a run are named after: the compute capability of its GPU, or "cpu"."""
    return capability or "cpu"


def record(folder: Path, place: str) -> Path:
    """Where the record of a run is: one for each compute capability, and one for the CPU."""
    return folder / f"smoke-{place}.json"


def report_path(folder: Path, place: str) -> Path:
    """Where the report of a run is as it was written; its signature is beside it."""
    return folder / f"smoke-report-{place}.json"


def places(folder: Path) -> tuple[str, ...]:
    """Where the wheel of a build folder was run, by the records there: "9.0", "12.0", "cpu"."""
    there = [re.fullmatch(rf"smoke-({_PLACE})\.json", path.name) for path in folder.glob("smoke-*")]
    return tuple(sorted((found[1] for found in there if found), key=_in_order))


def _in_order(place: str) -> tuple[float, str]:
    return (float("inf") if place == "cpu" else float(place), place)


_CAPABILITY = r"[1-9]\d{0,2}\.\d"


_PLACE = rf"{_CAPABILITY}|cpu"


_PLAIN = ("file", "sha256", "target", "device", "python", "system", "started")


_ANYWHERE = frozenset(
    {
        "device", "known-answers", "greedy-tokens", "repeatable", "types", "grammar", "embeddings",
        "state", "vocabulary", "families", "cpu-modules",
    }
)  # fmt: skip


_ON_A_CARD = frozenset(["native-sass", "libraries", "full-offload", "memory"])


def failed(report: SmokeReport) -> list[str]:
    """Ids of the checks that do not hold, and of those that should be there and are not.

    What can be derived from the answers is derived here, whatever the report says of them.
    """
    wanted = _ANYWHERE if report.device == "cpu" else _ANYWHERE | _ON_A_CARD
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
    """Ids of the checks of features.json whose answers are not those that there must be.

    Two GPUs are not everywhere, so that check need not be there; if it is, it must hold.
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
    """How the cases of a report differ from those that its release has, in words; [] if not.

    Every type that the release knows, in each batch size with each attention, exactly once. The
    same on a GPU and on the CPU. A type of later releases may be missing, but only whole.
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
    """Whether an answer is a number and within its bound, and that no wider than it may be."""
    if "nmse" not in case or not case["finite"]:
        return False
    bounds, name = known_bounds(), case["type"]
    if name not in bounds["type"] or case["kv"] not in bounds["kv"]:
        return False
    # A report does not say whether the kernels of its wheel compute in FP4.
    widest = bounds["native_fp4"].get(name, bounds["type"][name]) + bounds["kv"][case["kv"]]
    return bool(0 <= case["nmse"] <= case["bound"] and 0 < case["bound"] <= widest)


def share(case: Mapping[str, Any]) -> float:
    """How much of its bound a case took: 0.5 is half of it; infinite if it is not a number."""
    nmse, bound = case["nmse"], case["bound"]
    found = nmse / bound if bound > 0 else math.inf
    return math.inf if math.isnan(found) else float(found)


@functools.cache
def known_bounds() -> dict[str, Any]:
    """What ``bounds.json`` has: the largest NMSE of each type, the cases, the types by release."""
    found: dict[str, Any] = json.loads((PAYLOAD / "bounds.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def known_features() -> dict[str, Any]:
    """What ``features.json`` has: each answer of each feature with the worst NMSE measured."""
    found: dict[str, Any] = json.loads((PAYLOAD / "features.json").read_text(encoding="utf-8"))
    return found


def late(version: Version) -> set[str]:
    """The types that this release of llama-cpp-python need not know."""
    since = known_bounds()["since"]
    return {name for name, first in since.items() if version.release < tuple(first)}


def _report(report: dict[str, Any], origin: str) -> SmokeReport:
    """The record of a report whose digest is right. Raises ValueError for what is not one."""
    report_fields.only("the report", report, (*_PLAIN, "capability", "driver", "seconds", "checks",
        "cases", "times"), may=("families", "features", "system_info"))  # fmt: skip
    plain = {name: report_fields.line(name, report[name]) for name in _PLAIN}
    capability, driver = report["capability"], report["driver"]
    if (plain["device"] == "cpu") != (capability is None):
        raise ValueError(f"its device is {plain['device']!r}, its compute capability {capability}")
    if capability:
        is_capability(capability)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", plain["started"]):
        raise ValueError("started is not a time, as 2026-01-02T03:04:05Z")
    parse_wheel_filename(plain["file"])  # InvalidWheelFilename is a ValueError
    times = report_fields.table("times", report["times"])
    return SmokeReport(
        **plain,
        capability=capability,
        driver=None if driver is None else report_fields.line("driver", driver),
        origin=origin,
        seconds=report_fields.number("seconds", report["seconds"]),
        checks=tuple(map(check, report_fields.items("checks", report["checks"]))),
        cases=tuple(map(_case, report_fields.items("cases", report["cases"]))),
        features=tuple(map(_feature, report_fields.items("features", report.get("features", [])))),
        families=families.read(
            report_fields.table("families", report.get("families", families.NONE))
        ),
        times={
            report_fields.line("a time's name", name): report_fields.number(name, value)
            for name, value in times.items()
            if value is not None  # where the wheel does not start, it takes no time
        },
    )


def is_capability(value: Any) -> None:
    """Raise ValueError for what is not a compute capability."""
    if not re.fullmatch(_CAPABILITY, report_fields.line("capability", value)):
        raise ValueError(f"{value!r} is not a compute capability")


def check(item: dict[str, Any]) -> Check:
    """A check as a report has it. Raises ValueError for what is not one."""
    report_fields.only("a check", item, Check.__dataclass_fields__)
    if item["status"] not in ("ok", "fail"):
        raise ValueError(f"{item['status']!r} is not the status of a check")
    made: dict[str, Any] = {name: report_fields.text(name, value) for name, value in item.items()}
    return Check(**made)


def _feature(item: dict[str, Any]) -> dict[str, Any]:
    report_fields.only("an answer of a feature", item, ("check", "case", "nmse", "bound"))
    return {
        "check": report_fields.line("check", item["check"]),
        "case": report_fields.line("case", item["case"]),
        "nmse": report_fields.number("nmse", item["nmse"], any_float=True),
        "bound": report_fields.positive("bound", item["bound"]),
    }


_WAY = {"batch": report_fields.count, "flash": report_fields.flag, "kv": report_fields.line}


_ANSWER = {
    "finite": report_fields.flag,
    "tokens": report_fields.count,
    "equal": report_fields.count,
}


def _case(item: dict[str, Any]) -> dict[str, Any]:
    """A case as it may be in a record: it has an answer, or the error that came instead."""
    name = report_fields.line("a case's type", item.get("type"))
    if "nmse" not in item:
        report_fields.only(f"a case of {name}", item, ("type", "error"), may=_WAY)
        known = {n: read(n, item[n]) for n, read in _WAY.items() if n in item}
        return {"type": name, **known, "error": report_fields.text("error", item["error"])}
    wanted = {**_WAY, **_ANSWER}
    report_fields.only(
        f"a case of {name}", item, ("type", "nmse", "bound", *wanted), may=("repeats",)
    )
    if "repeats" in item:
        wanted["repeats"] = report_fields.flag
    return {
        **item,
        **{n: read(n, item[n]) for n, read in wanted.items()},
        "nmse": report_fields.number("nmse", item["nmse"], any_float=True),
        "bound": report_fields.positive("bound", item["bound"]),
    }
