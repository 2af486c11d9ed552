"""The one page of a release: RELEASE or NOT RELEASABLE, with every reason and its command. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from sessions.release.gate import failed
from sessions.release.model import Gate
from sessions.shared.checks import Check

NOT = "NOT RELEASABLE"
_MARKS = {"ok": "yes", "warn": "yes, but", "fail": "**no**"}


def verdict(gate: Gate) -> str:
    """RELEASE, RELEASE, UNTESTED on …, or NOT RELEASABLE."""
    if failed(gate.checks):
        return NOT
    return f"RELEASE, UNTESTED on {', '.join(gate.untested)}" if gate.untested else "RELEASE"


def render(released: Mapping[str, Gate], refused: Mapping[str, Gate]) -> str:
    """The page, in Markdown: what is in dist/ by target, and what was refused in this run.

    A target can be in both: what was released of it before stays where a newer wheel is refused.
    """
    shown = [
        (gate, f"{name}, released before" if name in refused and gates is released else name)
        for name in sorted({*released, *refused})
        for gates in (refused, released)
        if (gate := gates.get(name))
    ]
    lines = ["# Release", "", "| target | verdict | wheel |", "| --- | --- | --- |"]
    lines += [f"| {name} | {verdict(g)} | {plain(g.file or 'none')} |" for g, name in shown]
    for gate, name in shown:
        lines += ["", f"## {name}: {verdict(gate)}", ""]
        lines += [f"SHA-256 `{gate.sha256}`", ""] if gate.sha256 else []
        reasons = failed(gate.checks)
        if reasons:
            said = "reason" if len(reasons) == 1 else "reasons"
            lines += [f"{len(reasons)} {said}:", "", *(_reason(check) for check in reasons), ""]
        lines += ["| check | passed | found |", "| --- | --- | --- |"]
        lines += [_row(check) for check in gate.checks]
    return "\n".join(lines) + "\n"


def _reason(check: Check) -> str:
    evidence = "".join(f"\n  - {plain(told)}" for told in check.evidence.splitlines())
    return f"- **{plain(check.summary)}**{evidence}\n  - fix: {plain(check.remedy)}"


def _row(check: Check) -> str:
    found = check.summary.removeprefix(f"{check.id}: ")
    return f"| {check.id} | {_MARKS[check.status]} | {plain(found)} |"


def plain(text: object) -> str:
    """A text in Markdown that shows as it is, on one line and inside a table too."""
    shown = html.escape(line(text), quote=False)  # with entities: not all know "\\<"
    return re.sub(r"[\\`*\[\]|#~]", r"\\\g<0>", shown)


def line(text: object) -> str:
    """A text without what ends a line, commands a terminal or turns the direction of writing."""
    return "".join(c if c.isprintable() else " " for c in str(text))
