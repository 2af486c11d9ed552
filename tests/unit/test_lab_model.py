"""The model of docs/scaling.md."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lab.model import Work, split, table, wall
from tests import evidence

REMOTE = [Work(0, 10)] * 8


def modelled(steps: list[Work], **changed: Any) -> float:
    return wall(steps, **{"servers": 1, "cores": 1, "builder": 2, "jobs": 100, **changed})


def test_without_servers_the_builder_does_it_all() -> None:
    assert modelled([Work(1, 9)] * 8, servers=0, cores=0) == 40
    assert modelled([Work(1, 9)] * 8, servers=0, cores=0, jobs=1) == 80


@pytest.mark.parametrize(("servers", "seconds"), [(1, 80), (2, 40), (4, 20), (8, 10), (16, 10)])
def test_what_servers_can_do_is_divided_by_them(servers: int, seconds: float) -> None:
    assert modelled(REMOTE, servers=servers) == seconds


def test_cores_of_one_server_count_as_servers_do() -> None:
    assert modelled(REMOTE, servers=2, cores=2) == modelled(REMOTE, servers=4)


def test_what_stays_with_the_builder_is_the_limit() -> None:
    steps = [Work(4, 6)] * 10
    assert modelled(steps, servers=100) == 20 + 6  # two cores of the builder, then the last rest
    assert modelled(steps, servers=100, builder=1) == 40 + 6


def test_the_longest_step_is_a_limit_too() -> None:
    assert modelled([Work(0, 1)] * 10 + [Work(0, 50)], servers=50) == 50


def test_jobs_keep_servers_idle_where_they_are_too_few() -> None:
    assert modelled(REMOTE, servers=8, jobs=2) == 40


def test_on_one_machine_no_core_works_twice() -> None:
    assert modelled(REMOTE, servers=8, physical=2) == 40
    assert modelled(REMOTE, servers=1, physical=2) == 80


def test_a_step_is_split_by_its_kind() -> None:
    assert split("cuda", 1000) == Work(62, 938)
    assert split("link", 10) == Work(10, 0)


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"builder": 0}, {"servers": 1, "cores": 0}])
def test_a_build_by_nobody_is_no_build(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="servers of"):
        modelled(REMOTE, **wrong)


def test_a_cold_build_of_rtx50_gains_from_every_server_until_its_own_part_is_the_limit() -> None:
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
