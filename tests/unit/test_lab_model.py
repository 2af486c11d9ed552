"""The model of the build time in docs/scaling.md."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lab.model import Work, split, table, wall
from tests import evidence

REMOTE = [Work(0, 10)] * 8


def modelled(steps: list[Work], **changed: Any) -> float:
    return wall(steps, **{"servers": 1, "cores": 1, "builder": 2, "jobs": 100, **changed})


@pytest.mark.parametrize(
    ("steps", "settings", "seconds"),
    [
        ([Work(1, 9)] * 8, {"servers": 0, "cores": 0}, 40),
        ([Work(1, 9)] * 8, {"servers": 0, "cores": 0, "jobs": 1}, 80),
        (REMOTE, {"servers": 1}, 80),
        (REMOTE, {"servers": 2}, 40),
        (REMOTE, {"servers": 8}, 10),
        (REMOTE, {"servers": 16}, 10),
        (REMOTE, {"servers": 2, "cores": 2}, 20),
        (REMOTE, {"servers": 8, "jobs": 2}, 40),  # too few jobs
        (REMOTE, {"servers": 8, "physical": 2}, 40),  # all on one machine
        (REMOTE, {"servers": 1, "physical": 2}, 80),
        ([Work(0, 1)] * 10 + [Work(0, 50)], {"servers": 50}, 50),  # the longest step
        ([Work(4, 6)] * 10, {"servers": 100}, 20 + 6),  # two cores of the builder
        ([Work(4, 6)] * 10, {"servers": 100, "builder": 1}, 40 + 6),
    ],
)
def test_the_seconds_of_a_build(
    steps: list[Work], settings: dict[str, int], seconds: float
) -> None:
    assert modelled(steps, **settings) == seconds


def test_a_step_is_split_by_its_kind() -> None:
    assert split("cuda", 1000) == Work(62, 938)
    assert split("link", 10) == Work(10, 0)


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"builder": 0}, {"servers": 1, "cores": 0}])
def test_a_build_without_a_core_is_an_error(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="servers of"):
        modelled(REMOTE, **wrong)


def test_more_servers_help_until_the_builder_is_the_limit() -> None:
    timeline = dataclasses.asdict(evidence.cold())
    took = [(step.end - step.start) / 1000 for step in evidence.cold().steps]
    seconds = [row[2] for row in table(timeline, None)]
    alone, one, two, four = seconds[:4]
    assert alone == pytest.approx(sum(took) / 2, rel=0.05)
    assert one > 1.7 * alone
    assert one / two == pytest.approx(2, rel=0.05)
    assert two / four == pytest.approx(2, rel=0.05)
    own = sum(split(s["kind"], (s["end"] - s["start"]) / 1000).local for s in timeline["steps"])
    assert min(seconds) >= own / 2
    assert seconds[-1] <= own / 2 + max(took)
