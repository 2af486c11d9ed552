"""The steps of a build as a drawing needs them: who ran beside whom, and a scale. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sessions.build.model import BuildStep, StepKind, Timeline

# Seconds between two marks of a scale: what people divide a minute and an hour by.
_ROUND = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000)
_MARKS = 5  # at most, beside the first


@dataclass(frozen=True)
class Bar:
    """One step in a drawing: its row, and where it is in percent of the whole time."""

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
    """Every step in the first row that is free when it begins: a row is one of ninja's jobs.

    Ninja's log does not say on which core of the machine a step ran.
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
    """When the first step began and when the last one ended."""
    return min(s.start for s in timeline.steps), max(s.end for s in timeline.steps)


def marks(milliseconds: int) -> list[tuple[float, str]]:
    """A scale for so long a time: where in percent, and what it says."""
    between = next((s for s in _ROUND if milliseconds / 1000 / s <= _MARKS), 36000.0)
    count = int(milliseconds / 1000 / between)
    return [(100_000 * n * between / milliseconds, _said(n * between)) for n in range(count + 1)]


def kinds(timeline: Timeline) -> list[Kind]:
    """What took how long together, the longest first."""
    found: dict[StepKind, list[int]] = {}
    for step in timeline.steps:
        found.setdefault(step.kind, []).append(step.end - step.start)
    return sorted((Kind(k, len(t), sum(t)) for k, t in found.items()), key=lambda k: -k.time)


def longest(timeline: Timeline, count: int) -> list[BuildStep]:
    """The steps that took longest, the longest first."""
    return sorted(timeline.steps, key=lambda s: (s.start - s.end, s.output))[:count]


def chain(timeline: Timeline) -> Sequence[BuildStep]:
    """The critical path's steps, first to last."""
    steps = {step.output: step for step in timeline.steps}
    return [steps[output] for output in timeline.critical]


def name(output: str) -> str:
    """The file a step makes or compiles: "mean.cu" for "…/ggml-cuda.dir/mean.cu.o"."""
    return re.sub(r"\.o(bj)?$", "", re.split(r"[/\\]", output)[-1])


def _said(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min" if not rest else f"{minutes}:{rest:02} min"
    return f"{minutes // 60} h" if not minutes % 60 else f"{minutes // 60}:{minutes % 60:02} h"
