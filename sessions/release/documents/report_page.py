"""Renders report.html: the checks, test results, contents and build of a wheel, from records.

The page needs no other file, no script and no network.
"""

from __future__ import annotations

import functools
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from sessions.build.ninja_log import summary
from sessions.release.documents import requirements, templating, timeline_chart
from sessions.release.evidence import Evidence, failed_runs, runs_of_wheel, untested_places
from sessions.release.provenance import neutral
from sessions.run import check_smoke_report
from sessions.run.record_types import SmokeReport
from sessions.shared import console, knowledge

KERNELS = 12  # families in the table; the last row is the sum of the others
LONGEST = 10  # steps in the table of the longest ones
ROW_HEIGHTS = (34, 300)  # pixels: of a row of the timeline; of all rows together


@dataclass(frozen=True)
class Bar:
    """One bar of a chart, with its confidence interval if there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """Bars of one unit. ``reference`` is a value to compare with: 1 for ratios."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    note: str = ""
    reference: float | None = None


@dataclass(frozen=True)
class Shown:
    """A run on the page. ``key`` is the suffix of its HTML ids: "" for the first run."""

    key: str
    report: SmokeReport
    signed: bool
    answers: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of the wheel or of its machine code."""

    name: str
    size: int  # bytes
    share: float  # percent
    note: str = ""


def render(found: Evidence, commit: str, bench: Sequence[Chart] = ()) -> str:
    """The page. ``commit`` is the commit of blackwheel; ``bench`` are the charts of a benchmark."""
    return _template().render(view(found, commit, bench))


@functools.cache
def _template() -> jinja2.Template:
    environment = templating.environment(html=True)
    environment.filters.update(
        size=size,
        number=lambda value: f"{value:,}",
        percent=lambda value: f"{value:.4f}".rstrip("0").rstrip(".") + "%",
        seconds=seconds,
        clock=clock,
        file=timeline_chart.name,
        base=lambda member: member.rsplit("/", 1)[-1],
        share=check_smoke_report.share,
        sci=lambda value: f"{value:.2e}",
    )
    return environment.get_template("report.html")


def view(found: Evidence, commit: str, bench: Sequence[Chart]) -> dict[str, Any]:
    """Every value that the page shows."""
    runs = [
        Shown(
            key=f"-{number}" if number > 1 else "",
            report=run.report,
            signed=run.signature is not None,
            answers=answers(run.report),
        )
        for number, run in enumerate(runs_of_wheel(found), 1)
    ]
    tables = [run.answers for run in runs]
    proofs = [*found.checks, *(check for run in runs for check in run.report.checks)]
    return {
        **requirements.view(found),
        "found": found,
        "commit": commit,
        "runs": runs,
        "answers": sum(len(run.report.cases) for run in runs),
        "out_of_bounds": sum(len(table["failed"]) for table in tables),
        "closest": max(
            (table["closest"] for table in tables if table["closest"]),
            key=check_smoke_report.share,
            default=None,
        ),
        "verdict": verdict(found),
        "untested": untested_places(found),
        "about": about(),
        "counts": Counter(check.status for check in proofs),
        "checks": found.checks,
        "names": knowledge.capability_names(),
        "parts": parts(found),
        "sass": requirements.pieces(found, "sass"),
        "kernels": kernels(found),
        "tensor": requirements.pieces(found, "tensor"),
        "requires": [need for need in found.facts.requires if "extra ==" not in need],
        "settings": {n: neutral(found, v) for n, v in found.build.settings.items()},
        "build": build(found),
        "bench": [(chart, scale(chart)) for chart in bench],
    }


def verdict(found: Evidence) -> str:
    """The result: "RELEASE", "UNTESTED", or "FAILED" if a check failed or there is none."""
    bad = [check for check in found.checks if check.status == "fail"]
    if bad or not found.checks or found.verify.sha256 != found.sha256 or failed_runs(found):
        return "FAILED"
    return "UNTESTED" if untested_places(found) else "RELEASE"


@functools.cache
def about() -> dict[str, dict[str, str]]:
    """The English title of each check: session -> id -> title."""
    words = tomllib.loads((templating.TEMPLATES / "words.toml").read_text(encoding="utf-8"))
    return {
        session: {id_: titles["en"] for id_, titles in words[session].items()}
        for session in ("verify", "smoke")
    }


def answers(report: SmokeReport) -> dict[str, Any]:
    """The known answers as a table: one row per type, one column per way to compute it."""
    cases = [case for case in report.cases if "batch" in case]
    ways = list(dict.fromkeys((case["kv"], case["flash"]) for case in cases))
    batches = sorted({case["batch"] for case in cases})
    columns = [(kv, flash, batch) for kv, flash in ways for batch in batches]
    rows: dict[str, dict[Any, Mapping[str, Any]]] = {}
    for case in cases:
        rows.setdefault(case["type"], {})[case["kv"], case["flash"], case["batch"]] = case
    held = [case for case in cases if check_smoke_report.holds(case)]
    return {
        "ways": ways,
        "batches": batches,
        "rows": {name: [cell(row.get(c)) for c in columns] for name, row in rows.items()},
        "closest": max(held, key=check_smoke_report.share, default=None),
        "failed": [case for case in report.cases if not check_smoke_report.holds(case)],
    }


def cell(case: Mapping[str, Any] | None) -> dict[str, Any]:
    """A case in the table: its error in percent of its bound, and the class of its colour."""
    if case is None:
        return {"said": "none", "heat": "none"}
    if not check_smoke_report.holds(case):
        wrong = "nmse" in case and case["finite"]
        return {
            "said": f"{100 * check_smoke_report.share(case):.0f} !" if wrong else "error",
            "heat": "over",
        }
    share = 100 * check_smoke_report.share(case)
    return {"said": f"{share:.0f}" if share >= 1 else "<1", "heat": f"h{min(int(share / 10), 9)}"}


def parts(found: Evidence) -> list[Part]:
    """The libraries, the largest first, and the sum of all other files. Sizes are unpacked."""
    members, whole = found.facts.members, max(sum(found.facts.members.values()), 1)
    names = {library.member for library in found.facts.libraries}
    rest = [size for member, size in members.items() if member not in names]
    libraries = [
        Part(member.rsplit("/", 1)[-1], members[member], 100 * members[member] / whole)
        for member in sorted(names, key=lambda member: (-members[member], member))
    ]
    all_else = f"{len(rest)} files of Python and documents"
    return [*libraries, Part(all_else, sum(rest), 100 * sum(rest) / whole)]


def kernels(found: Evidence) -> dict[str, Any]:
    """The machine code by kernel family, the largest first; the others are one part."""
    sizes = requirements.pieces(found, "kernels")
    whole = sum(sizes.values())
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    parts = [Part(name, size, 100 * size / whole) for name, size in ranked[:KERNELS]]
    if rest := ranked[KERNELS:]:
        left = sum(size for _, size in rest)
        parts.append(Part(f"{len(rest)} others", left, 100 * left / whole))
    return {"whole": whole, "count": len(sizes), "parts": parts}


def build(found: Evidence) -> dict[str, Any] | None:
    """The values for the timeline of the build; None if there is no timeline."""
    line = found.timeline
    if line is None or not line.steps:
        return None
    drawn = timeline_chart.bars(line)
    rows = max(bar.row for bar in drawn) + 1
    first, last = timeline_chart.span(line)
    height = max(min(ROW_HEIGHTS[0], ROW_HEIGHTS[1] // rows), 3)
    busy = sum(kind.time for kind in timeline_chart.kinds(line))
    return {
        "line": line,
        "sum": summary(line),
        "first": first,
        "bars": drawn,
        "rows": rows,
        "height": height,
        "marks": timeline_chart.marks(last - first),
        "kinds": [(kind, 100 * kind.time / max(busy, 1)) for kind in timeline_chart.kinds(line)],
        "chain": timeline_chart.chain(line),
        "longest": timeline_chart.longest(line, LONGEST),
        "compiled": sum(step.kind not in ("link", "other") for step in line.steps),
    }


def scale(chart: Chart) -> float:
    """The value of a bar with the full width."""
    ends = [end for bar in chart.bars for end in (bar.value, bar.high or 0)]
    return max([*ends, chart.reference or 0], default=0) or 1


def seconds(value: float) -> str:
    """Seconds for people: "0.63 s", "12.3 s", "2 min 11 s"."""
    if value >= 60:
        return console.duration(value)
    if value >= 10:
        return f"{value:.1f} s"
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"


def clock(value: float) -> str:
    """A time of the build in minutes and seconds: "19:17.2"."""
    tenths = round(value * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def size(value: int) -> str:
    """Bytes for people: "19.4 MB", "1.2 kB", "7 B"."""
    if value >= 1e6:
        return f"{value / 1e6:.1f} MB"
    return f"{value / 1e3:.1f} kB" if value >= 1e3 else f"{value} B"
