"""The progress of a build, from ninja's output: steps done, and an estimate of the time left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_STEP = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
# The time of a step relative to that of a C or C++ file, by the first part that the file's name
# contains. Measured in a build of 0.3.16 for rtx50 without a cache, on two cores
# (tests/data/ninja/cold.ninja_log): 25.6, 8.6, 4.1 and 1.8 s.
WEIGHTS = (("mmq-instance", 14.0), ("fattn-mma", 4.7), (".cu", 2.2), ("", 1.0))


@dataclass(frozen=True)
class Step:
    """One line of ninja's output: step ``done`` of ``total``, and its description."""

    done: int
    total: int
    what: str

    @property
    def file(self) -> str:
        """The file that is built, without its folders and the suffix of objects."""
        last = re.split(r"[/\\ ]", self.what)[-1]  # on Windows CMake writes both
        return re.sub(r"\.o(bj)?$", "", last) if "." in last else ""


def parse_step(line: str) -> Step | None:
    """The step in a line of ninja's output; None for any other line."""
    match = _STEP.match(line)
    return Step(int(match[1]), int(match[2]), match[3]) if match else None


def weight(file: str) -> float:
    """The time that a file's step takes, relative to a C++ file."""
    return next(weight for part, weight in WEIGHTS if part in file)


def time_left(steps: Sequence[Step], cuda: Sequence[str], elapsed: float) -> float | None:
    """Seconds left, estimated from the steps done in ``elapsed`` seconds; None after fewer than 5.

    ``cuda`` are the names of all CUDA files; some may have been compiled in an earlier run.
    """
    if len(steps) < 5:
        return None
    done = {step.file for step in steps}
    heavy = [weight(file) for file in cuda if file not in done]
    left = steps[-1].total - steps[-1].done
    count = min(len(heavy), left)
    to_come = left - count + (count * sum(heavy) / len(heavy) if heavy else 0)
    return elapsed * to_come / sum(weight(step.file) for step in steps)
