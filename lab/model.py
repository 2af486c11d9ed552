"""How long a build would take with more machines, from how long its steps took on one.

    python -m lab.model build/rtx50/steps.json [--physical 2]

prints a table: build servers of one core each, and of 16, beside a builder of two cores.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What of a step stays with the builder, by its kind. CPU time with CUDA 13.1 and GCC 12: of four
# CUDA files by nvcc --time (preprocessing twice, fatbinary: 7.4 of 119.8 s), of ten C and C++ files
# of the cpu target by g++ -E (1.5 of 46.8 s). Links are the builder's whole.
SHARES = {"cuda": 0.062, "c++": 0.031, "c": 0.031}


@dataclass(frozen=True)
class Work:
    """One step, in seconds of one core: what the builder must do itself, and what a server can."""

    local: float
    remote: float


def split(kind: str, seconds: float) -> Work:
    """A step of a Timeline, by the share of its kind that stays with the builder."""
    local = seconds * SHARES.get(kind, 1.0)
    return Work(local, seconds - local)


def wall(
    steps: Sequence[Work],
    *,
    servers: int,
    cores: int,
    builder: int,
    jobs: int,
    physical: int | None = None,
) -> float:
    """Seconds of a build: list scheduling of its steps, in order, with ``jobs`` at once.

    A step has a core of the ``builder``'s for its local part, then one of ``servers`` x ``cores``
    for the rest. Where all are one machine, it has ``physical`` cores, and none works twice.
    """
    if jobs < 1 or builder < 1 or servers < 0 or (servers and cores < 1):
        raise ValueError(f"{jobs} jobs, {builder} cores here, {servers} servers of {cores} cores")
    free, near = [0.0] * jobs, [0.0] * builder
    far = [0.0] * (servers * cores)
    end = 0.0
    for step in steps:
        start = heapq.heappop(free)
        if not far:
            done = _run(near, start, step.local + step.remote)
        else:
            done = _run(far, _run(near, start, step.local), step.remote)
        heapq.heappush(free, done)
        end = max(end, done)
    if physical:
        end = max(end, sum(step.local + step.remote for step in steps) / physical)
    return end


def _run(cores: list[float], ready: float, seconds: float) -> float:
    """Take the core that is free first. Returns when the work is done."""
    if not seconds:
        return ready
    done = max(ready, heapq.heappop(cores)) + seconds
    heapq.heappush(cores, done)
    return done


def table(timeline: Mapping[str, Any], physical: int | None) -> list[tuple[int, int, float]]:
    """Servers, cores of each, and the seconds that ninja would take, for a Timeline."""
    steps = [
        split(step["kind"], (step["end"] - step["start"]) / 1000) for step in timeline["steps"]
    ]
    rows = [(0, 0), (1, 1), (2, 1), (4, 1), (8, 1), (1, 16), (2, 16), (4, 16)]
    return [
        (servers, cores, wall(
            steps, servers=servers, cores=cores, builder=2,
            jobs=max(2, 2 * servers * cores), physical=physical,
        ))
        for servers, cores in rows
    ]  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("steps", type=Path)
    p.add_argument("--physical", type=int, help="all of them are one machine of so many cores")
    args = p.parse_args()
    timeline = json.loads(args.steps.read_text())["steps"]
    found = table(timeline, args.physical)
    for servers, cores, seconds in found:
        print(f"{servers} x {cores}: {seconds:.0f} s, {found[0][2] / seconds:.1f} times")


if __name__ == "__main__":
    main()
