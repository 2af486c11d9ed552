"""Renders RELEASE.md: for each target RELEASE or NOT RELEASABLE, the checks and the fixes. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from sessions.release.gate import failed
from sessions.release.record_types import Gate
from sessions.shared.check_result import Check

NOT = "NOT RELEASABLE"
_MARKS = {"ok": "yes", "warn": "yes, but", "fail": "**no**"}


def verdict(gate: Gate) -> str:
    """The result in one word: RELEASE, RELEASE, UNTESTED on …, or NOT RELEASABLE."""
    if failed(gate.checks):
        return NOT
    return f"RELEASE, UNTESTED on {', '.join(gate.untested)}" if gate.untested else "RELEASE"


def render(released: Mapping[str, Gate], refused: Mapping[str, Gate]) -> str:
    """The page in Markdown: the releases in dist/, and the targets that this run refused.

    A target can be in both: if a newer wheel is refused, the earlier release stays.
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
            noun = "reason" if len(reasons) == 1 else "reasons"
            lines += [f"{len(reasons)} {noun}:", "", *(_reason(check) for check in reasons), ""]
        lines += ["| check | passed | found |", "| --- | --- | --- |"]
        lines += [_row(check) for check in gate.checks]
    return "\n".join(lines) + "\n"


def _reason(check: Check) -> str:
    evidence = "".join(f"\n  - {plain(text)}" for text in check.evidence.splitlines())
    return f"- **{plain(check.summary)}**{evidence}\n  - fix: {plain(check.remedy)}"


def _row(check: Check) -> str:
    found = check.summary.removeprefix(f"{check.id}: ")
    return f"| {check.id} | {_MARKS[check.status]} | {plain(found)} |"


def plain(text: object) -> str:
    """A text for Markdown without any markup, on one line."""
    shown = html.escape(line(text), quote=False)  # with entities: not all know "\\<"
    return re.sub(r"[\\`*\[\]|#~]", r"\\\g<0>", shown)


def line(text: object) -> str:
    """A text on one line, without control characters and without changes of text direction."""
    return "".join(c if c.isprintable() else " " for c in str(text))
