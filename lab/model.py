"""Models the time of a build with more machines, from the times of its steps on one machine.

    python -m lab.model build/rtx50/steps.json [--physical 2]

prints a table for build servers with 1 and with 16 cores, and a builder with two cores.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The share of a step that only the builder can do, by kind. CPU times with CUDA 13.1 and GCC 12:
# four CUDA files with nvcc --time (preprocessing twice, fatbinary: 7.4 of 119.8 s), ten C and C++
# files of the cpu target with g++ -E (1.5 of 46.8 s). The builder does the whole of a link.
SHARES = {"cuda": 0.062, "c++": 0.031, "c": 0.031}


@dataclass(frozen=True)
class Work:
    """One step in seconds of one core: the part for the builder, and the part for a server."""

    local: float
    remote: float


def split(kind: str, seconds: float) -> Work:
    """Split a step of a Timeline by ``SHARES``."""
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
    """The seconds of a build: list scheduling of its steps in order, ``jobs`` at the same time.

    A step uses a core of the ``builder`` for its local part, then one of ``servers`` x ``cores``
    for the remote part. If all are one machine, it has ``physical`` cores. Raises ValueError for a
    build without a core.
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
    """Use the core that is free first. Returns the end of the work."""
    if not seconds:
        return ready
    done = max(ready, heapq.heappop(cores)) + seconds
    heapq.heappush(cores, done)
    return done


def table(timeline: Mapping[str, Any], physical: int | None) -> list[tuple[int, int, float]]:
    """Rows for a Timeline: servers, cores of each server, seconds of ninja."""
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
    p.add_argument("--physical", type=int, help="all are one machine with this number of cores")
    args = p.parse_args()
    timeline = json.loads(args.steps.read_text())["steps"]
    found = table(timeline, args.physical)
    for servers, cores, seconds in found:
        print(f"{servers} x {cores}: {seconds:.0f} s, {found[0][2] / seconds:.1f} times")


if __name__ == "__main__":
    main()
