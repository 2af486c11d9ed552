"""The report of the operator test: what is expected of it, how it is read, whether it holds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from sessions.payload import ops_checks, report_file
from sessions.run import own_report, report_fields, smoke_results
from sessions.run.model import OpsReport
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.checks import Check

_PLAIN = ("file", "sha256", "target", "device", "python", "system", "started", "version", "backend")
_FIGURES = ("listed", "right", "wrong", "unsupported", "seconds")


def expected(version: str, *, cuda: bool) -> dict[str, Any]:
    """What the table says of one release for one kind of backend, as ``ops_checks`` reads it."""
    row, kind = knowledge.ops()[version], "cuda" if cuda else "cpu"
    sampled = {} if cuda else row["sampled"]
    share = knowledge.load("ops.toml")["sample"]["share"]
    unsupported: dict[str, int] = {}
    for group in row["unsupported"]:
        if group["backend"] == kind:
            for name, count in group["operators"].items():
                unsupported[name] = unsupported.get(name, 0) + count
    unsupported |= {name: counts[1] for name, counts in sampled.items()}
    return {
        "cases": {**row["cases"], **{name: counts[0] for name, counts in sampled.items()}},
        "sample": {"operators": sorted(sampled), "share": share},
        "tested": kind in row["tested"],
        "unsupported": unsupported,
        "narrow": [name for name in knowledge.load("ops.toml")["narrow"] if name in row["cases"]],
        "limit": knowledge.load("ops.toml")["limit"],
        "known": [known for known in row.get("known", ()) if known["backend"] == kind],
        "library": "ggml-cuda" if cuda else "ggml-cpu",
        "backend": "CUDA0" if cuda else "SCALAR",
    }


def for_job(spec: BuildSpec, version: str) -> dict[str, Any]:
    """The part of a run's job that does not depend on the machine or the wheel's file."""
    found = expected(version, cuda=bool(spec.archs))
    return {"version": version, "backend": found["backend"], "expected": found, "only": []}


def record(folder: Path, place: str) -> Path:
    """Where the record of a run is: one for each compute capability, and one for the CPU."""
    return folder / f"ops-{place}.json"


def report_path(folder: Path, place: str) -> Path:
    """Where the report of a run is, as it was written; its signature is beside it."""
    return folder / f"ops-report-{place}.json"


def places(folder: Path) -> tuple[str, ...]:
    """Where the wheel of a build folder was tested, according to the records there."""
    names = [path.name for path in folder.glob("ops-*.json")]
    found = [re.fullmatch(r"ops-([1-9]\d{0,2}\.\d|cpu)\.json", name) for name in names]
    return tuple(sorted(match[1] for match in found if match))


def opened(
    text: str,
    target: str,
    sha256: str,
    origin: str,
    file: str | None = None,
    remedy: str = own_report.AGAIN,
) -> OpsReport:
    """A report file's content, if it is whole and of this very wheel. Raises Problem."""

    def read() -> OpsReport:
        return _report(report_file.read(text, report_file.OPS), origin)

    return own_report.opened("ops", read, sha256, target=target, file=file, remedy=remedy)


def checks(report: OpsReport) -> tuple[Check, ...]:
    """Every check, made anew from the figures, whatever the report says of them."""
    if report.version not in knowledge.ops():
        text = f"complete: blackwheel does not know the operators of {report.version}"
        return (
            Check(
                "complete", "fail", text, "", "add the release to sessions/data/knowledge/ops.toml"
            ),
        )
    wanted = expected(report.version, cuda=report.device != "cpu")
    made: list[Any] = list(ops_checks.checks(dataclasses.asdict(report), wanted))
    return tuple(Check(**check) for check in made)


def failed(report: OpsReport) -> list[str]:
    """Ids of the checks that do not hold."""
    return [check.id for check in checks(report) if check.status != "ok"]


def totals(report: OpsReport) -> dict[str, int]:
    """Cases, right, wrong and not supported, of all operators together."""
    rows = report.operators.values()
    found = {
        name: int(sum(row[name] for row in rows)) for name in ("right", "wrong", "unsupported")
    }
    return {"cases": sum(found.values()), **found}


def _report(report: dict[str, Any], origin: str) -> OpsReport:
    """The record of a report whose digest is right. Raises ValueError for what is not one."""
    rest = ("operators", "narrowed", "wrong", "problems", "libraries", "checks")
    report_fields.only(
        "the report", report, (*_PLAIN, "capability", "driver", "seconds", "stops", *rest)
    )
    capability, driver = report["capability"], report["driver"]
    if (report["device"] == "cpu") != (capability is None):
        raise ValueError(f"its device is {report['device']!r}, its capability {capability}")
    if capability is not None:
        smoke_results.is_capability(capability)
    plain = {name: report_fields.line(name, report[name]) for name in _PLAIN}
    if parse_wheel_filename(plain["file"])[1].public != plain["version"]:
        raise ValueError(f"{plain['file']} is not of the release {plain['version']}")
    return OpsReport(
        **plain,
        capability=capability,
        driver=None if driver is None else report_fields.line("driver", driver),
        origin=origin,
        seconds=report_fields.number("seconds", report["seconds"]),
        stops=report_fields.count("stops", report["stops"]),
        operators=_rows("operators", report["operators"]),
        narrowed=_rows("narrowed", report["narrowed"]),
        wrong=tuple(map(_wrong, report_fields.items("wrong", report["wrong"]))),
        problems=_texts("problems", report["problems"]),
        libraries=_texts("libraries", report["libraries"]),
        checks=tuple(map(smoke_results.check, report_fields.items("checks", report["checks"]))),
    )


def _rows(name: str, value: Any) -> dict[str, dict[str, float]]:
    found = {}
    for operator, row in report_fields.table(name, value).items():
        report_fields.only(operator, report_fields.table(operator, row), _FIGURES)
        counts = {field: report_fields.count(field, row[field]) for field in _FIGURES[:-1]}
        seconds = report_fields.number("seconds", row["seconds"])
        found[report_fields.line(name, operator)] = {**counts, "seconds": seconds}
    return found


def _wrong(item: dict[str, Any]) -> dict[str, Any]:
    report_fields.only("a wrong case", item, ("case", "narrowed", "tries"))
    tries = _texts("tries", item["tries"])
    if not tries or not tries[0]:
        raise ValueError("a wrong case does not say what was wrong")
    case = report_fields.text("case", item["case"])
    return {
        "case": case,
        "narrowed": report_fields.flag("narrowed", item["narrowed"]),
        "tries": list(tries),
    }


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return tuple(report_fields.text(name, item) for item in value)
