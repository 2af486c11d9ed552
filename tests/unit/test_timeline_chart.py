"""The timeline drawing of a build: rows, positions and a scale."""

from __future__ import annotations

import itertools

import pytest

from sessions.build.record_types import BuildStep, StepKind, Timeline
from sessions.release.documents import timeline_chart
from tests import evidence


def timeline(*steps: tuple[str, int, int], critical: tuple[str, ...] = ()) -> Timeline:
    kind: StepKind = "c++"
    found = tuple(BuildStep(name, kind, start, end) for name, start, end in steps)
    return Timeline("2026-11-18T11:06:40Z", 2, 0, {}, found, critical)


def test_a_step_is_in_the_first_free_row() -> None:
    line = timeline(("a", 0, 10), ("b", 0, 30), ("c", 10, 20), ("d", 15, 40), ("e", 30, 35))
    rows = {bar.step.output: bar.row for bar in timeline_chart.bars(line)}
    assert rows == {"a": 0, "b": 1, "c": 0, "d": 2, "e": 0}


def test_steps_of_a_row_do_not_overlap() -> None:
    drawn = timeline_chart.bars(evidence.cold())
    assert max(bar.row for bar in drawn) == 1  # two jobs
    for row in (0, 1):
        steps = [bar.step for bar in drawn if bar.row == row]
        assert all(a.end <= b.start for a, b in itertools.pairwise(steps))
    assert min(bar.left for bar in drawn) == 0
    assert max(bar.left + bar.width for bar in drawn) == pytest.approx(100)


def test_positions_are_percent_of_the_time() -> None:
    (first, second) = timeline_chart.bars(
        timeline(("a", 100, 150), ("b", 150, 300), critical=("b",))
    )
    assert (first.left, first.width, first.critical) == (0, 25, False)
    assert (second.left, second.width, second.critical) == (25, 75, True)


def test_a_step_without_duration_can_be_drawn() -> None:
    (bar,) = timeline_chart.bars(timeline(("a", 5, 5)))
    assert (bar.left, bar.width) == (0, 0)


@pytest.mark.parametrize(
    ("milliseconds", "texts"),
    [
        (340, ["0 s", "0.1 s", "0.2 s", "0.3 s"]),
        (6387, ["0 s", "2 s", "4 s", "6 s"]),
        (100_000, ["0 s", "20 s", "40 s", "1 min", "1:20 min", "1:40 min"]),
        (1_405_767, ["0 s", "5 min", "10 min", "15 min", "20 min"]),
        (9_000_000, ["0 s", "30 min", "1 h", "1:30 h", "2 h", "2:30 h"]),
        (90_000_000, ["0 s", "5 h", "10 h", "15 h", "20 h", "25 h"]),
        (1, ["0 s"]),
    ],
)
def test_a_scale_has_few_round_marks(milliseconds: int, texts: list[str]) -> None:
    marks = timeline_chart.marks(milliseconds)
    assert [text for _, text in marks] == texts
    assert all(0 <= at <= 100.0001 for at, _ in marks)


def test_kinds_and_longest_steps_are_summed_and_sorted() -> None:
    line = evidence.cold()
    (first, *others) = timeline_chart.kinds(line)
    assert (first.name, first.steps) == ("cuda", 98)
    assert sum(kind.time for kind in (first, *others)) == 994_635
    took = [step.end - step.start for step in timeline_chart.longest(line, 10)]
    assert len(took) == 10
    assert took == sorted(took, reverse=True)
    assert took[0] == max(step.end - step.start for step in line.steps)


def test_the_critical_path_is_in_order() -> None:
    line = evidence.cold()
    assert tuple(step.output for step in timeline_chart.chain(line)) == line.critical


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("a/ggml-cuda.dir/mean.cu.o", "mean.cu"),
        (r"vendor\a.dir\x.cpp.obj", "x.cpp"),
        ("bin/libllama.so", "libllama.so"),
        ("llama.dll", "llama.dll"),
    ],
)
def test_a_step_has_the_name_of_its_file(output: str, name: str) -> None:
    assert timeline_chart.name(output) == name
