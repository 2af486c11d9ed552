"""The report of the operator test: the expected results, reading a report, and its checks."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from packaging.utils import parse_wheel_filename

from sessions.payload import ops_checks, report_file
from sessions.run import check_smoke_report, report_matches_wheel
from sessions.run import report_fields as fields
from sessions.run.record_types import OpsReport
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check

# The files of a run; see check_smoke_report.
record = functools.partial(check_smoke_report.record, session="ops")
report_path = functools.partial(check_smoke_report.report_path, session="ops")
places = functools.partial(check_smoke_report.places, session="ops")


def expected(version: str, *, cuda: bool) -> dict[str, Any]:
    """A release's row of the table for one kind of backend, as ``ops_checks`` reads it."""
    row, kind = knowledge.ops()[version], "cuda" if cuda else "cpu"
    sampled = {} if cuda else row["sampled"]
    share = knowledge.load("ops_expected.toml")["sample"]["share"]
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
        "narrow": [
            name for name in knowledge.load("ops_expected.toml")["narrow"] if name in row["cases"]
        ],
        "limit": knowledge.load("ops_expected.toml")["limit"],
        "known": [known for known in row.get("known", ()) if known["backend"] == kind],
        "library": "ggml-cuda" if cuda else "ggml-cpu",
        "backend": "CUDA0" if cuda else "SCALAR",
    }


def for_job(spec: BuildSpec, version: str) -> dict[str, Any]:
    """The part of a run's job that depends on neither the machine nor the wheel's file."""
    found = expected(version, cuda=bool(spec.archs))
    return {"version": version, "backend": found["backend"], "expected": found, "only": []}


def opened(
    text: str,
    target: str,
    sha256: str,
    origin: str,
    file: str | None = None,
    remedy: str = report_matches_wheel.AGAIN,
) -> OpsReport:
    """Read a report file. Raises Problem if it is damaged, or about another wheel or target."""
    return report_matches_wheel.opened(
        "ops",
        lambda: _report(report_file.read(text, report_file.OPS), origin),
        sha256,
        target=target,
        file=file,
        remedy=remedy,
    )


def checks(report: OpsReport) -> tuple[Check, ...]:
    """Every check, computed from the report's numbers and not taken from its own checks."""
    if report.version not in knowledge.ops():
        text = f"complete: blackwheel does not know the operators of {report.version}"
        return (
            Check(
                "complete",
                "fail",
                text,
                "",
                "add the release to sessions/data/knowledge/ops_expected.toml",
            ),
        )
    wanted = expected(report.version, cuda=report.device != "cpu")
    made: list[Any] = list(ops_checks.checks(dataclasses.asdict(report), wanted))
    return tuple(Check(**check) for check in made)


def failed(report: OpsReport) -> list[str]:
    """Ids of the checks that fail."""
    return [check.id for check in checks(report) if check.status != "ok"]


def totals(report: OpsReport) -> dict[str, int]:
    """The numbers of cases that are right, wrong and not supported, over all operators."""
    rows = report.operators.values()
    found = {
        name: int(sum(row[name] for row in rows)) for name in ("right", "wrong", "unsupported")
    }
    return {"cases": sum(found.values()), **found}


def _report(report: dict[str, Any], origin: str) -> OpsReport:
    """The record of a report file's content. Raises ValueError."""
    found = _READ("the report", report)
    check_smoke_report.check_device(found)
    if parse_wheel_filename(found["file"])[1].public != found["version"]:
        raise ValueError(f"{found['file']} is not of the release {found['version']}")
    return OpsReport(**found, origin=origin)


def _tries(name: str, value: Any) -> list[str]:
    found = list(fields.list_of(fields.text)(name, value))
    if not found or not found[0]:
        raise ValueError("a wrong case does not say what was wrong")
    return found


_READ_ROWS = fields.table_of(
    fields.object_of(
        {
            **dict.fromkeys(("listed", "right", "wrong", "unsupported"), fields.count),
            "seconds": fields.number,
        }
    )
)
_READ: fields.Reader = fields.object_of(
    {
        **report_matches_wheel.FIELDS,
        "version": fields.line,
        "backend": fields.line,
        "stops": fields.count,
        "operators": _READ_ROWS,
        "narrowed": _READ_ROWS,
        "wrong": fields.list_of(
            fields.object_of({"case": fields.text, "narrowed": fields.flag, "tries": _tries})
        ),
        "problems": fields.list_of(fields.text),
        "libraries": fields.list_of(fields.text),
        "checks": fields.list_of(check_smoke_report.check),
    }
)
