"""Computes the timeline drawing of a build: rows, positions of the steps, and a scale. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sessions.build.record_types import BuildStep, StepKind, Timeline

# Seconds between two marks of a scale: round numbers of seconds, minutes and hours.
_ROUND = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000)
_MARKS = 5  # the largest number of marks after the first


@dataclass(frozen=True)
class Bar:
    """One step in the drawing: its row, and its position and width in percent of the time."""

    step: BuildStep
    row: int
    left: float
    width: float
    critical: bool


@dataclass(frozen=True)
class Kind:
    """All steps of one kind. Times in milliseconds."""

    name: StepKind
    steps: int
    time: int


def bars(timeline: Timeline) -> list[Bar]:
    """Put every step into the first row that is free when it begins. A row is one job of ninja.

    The log of ninja does not contain the CPU core of a step.
    """
    first, last = span(timeline)
    whole, critical = max(last - first, 1), set(timeline.critical)
    free: list[int] = []  # when each row's last step ends
    drawn = []
    for step in timeline.steps:
        row = next((i for i, end in enumerate(free) if end <= step.start), len(free))
        free[row : row + 1] = [step.end]
        left, width = step.start - first, step.end - step.start
        place = 100 * left / whole, 100 * width / whole
        drawn.append(Bar(step, row, *place, step.output in critical))
    return drawn


def span(timeline: Timeline) -> tuple[int, int]:
    """The start of the first step and the end of the last one, in milliseconds."""
    return min(s.start for s in timeline.steps), max(s.end for s in timeline.steps)


def marks(milliseconds: int) -> list[tuple[float, str]]:
    """The marks of a scale for this time: position in percent, and text."""
    between = next((s for s in _ROUND if milliseconds / 1000 / s <= _MARKS), 36000.0)
    count = int(milliseconds / 1000 / between)
    return [(100_000 * n * between / milliseconds, _text(n * between)) for n in range(count + 1)]


def kinds(timeline: Timeline) -> list[Kind]:
    """The sum of the times per kind of step, the longest first."""
    found: dict[StepKind, list[int]] = {}
    for step in timeline.steps:
        found.setdefault(step.kind, []).append(step.end - step.start)
    return sorted((Kind(k, len(t), sum(t)) for k, t in found.items()), key=lambda k: -k.time)


def longest(timeline: Timeline, count: int) -> list[BuildStep]:
    """The steps that took longest, the longest first."""
    return sorted(timeline.steps, key=lambda s: (s.start - s.end, s.output))[:count]


def chain(timeline: Timeline) -> Sequence[BuildStep]:
    """The steps of the critical path in their order."""
    steps = {step.output: step for step in timeline.steps}
    return [steps[output] for output in timeline.critical]


def name(output: str) -> str:
    """The file that a step compiles or links: "mean.cu" for "…/ggml-cuda.dir/mean.cu.o"."""
    return re.sub(r"\.o(bj)?$", "", re.split(r"[/\\]", output)[-1])


def _text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min" if not rest else f"{minutes}:{rest:02} min"
    return f"{minutes // 60} h" if not minutes % 60 else f"{minutes // 60}:{minutes % 60:02} h"
