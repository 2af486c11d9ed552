"""Reading a build's output: how far it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_STEP = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
# Times of steps over that of a C or C++ file, by what is in the file's name: a cold build of 0.3.16
# for rtx50 on two cores (tests/data/ninja/cold.ninja_log): 25.6, 8.6, 4.1 and 1.8 s. The first
# part that a name has counts.
WEIGHTS = (("mmq-instance", 14.0), ("fattn-mma", 4.7), (".cu", 2.2), ("", 1.0))


@dataclass(frozen=True)
class Step:
    """One line of ninja's: step ``done`` of ``total``, and what it made."""

    done: int
    total: int
    what: str

    @property
    def file(self) -> str:
        """The file being made, without its folders and object suffix."""
        last = re.split(r"[/\\ ]", self.what)[-1]  # on Windows CMake writes either
        return re.sub(r"\.o(bj)?$", "", last) if "." in last else ""


def parse_step(line: str) -> Step | None:
    """A step of ninja's, or None for any other line."""
    match = _STEP.match(line)
    return Step(int(match[1]), int(match[2]), match[3]) if match else None


def weight(file: str) -> float:
    """How long a file's step takes, over one of C++."""
    return next(weight for part, weight in WEIGHTS if part in file)


def time_left(steps: Sequence[Step], cuda: Sequence[str], elapsed: float) -> float | None:
    """Seconds still to go, from the steps done in ``elapsed`` seconds.

    ``cuda`` names all CUDA files, of which some may have been compiled in an earlier run. None
    until there is something to go by.
    """
    if len(steps) < 5:
        return None
    done = {step.file for step in steps}
    heavy = [weight(file) for file in cuda if file not in done]
    left = steps[-1].total - steps[-1].done
    count = min(len(heavy), left)
    to_come = left - count + (count * sum(heavy) / len(heavy) if heavy else 0)
    return elapsed * to_come / sum(weight(step.file) for step in steps)
