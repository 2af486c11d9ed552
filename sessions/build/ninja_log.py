"""The timeline of a build, from ninja's log and its build.ninja. Pure functions."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sessions.build.record_types import BuildStep, StepKind, Timeline

_HEADER = re.compile(r"# ninja log v[567]\n")
_TOKEN = re.compile(r"(?:\$.|[^\s$|:])+|\|[|@]?|:")
_TICK = 100_000_000  # nanoseconds; the resolution of file times is one tick of the system
_COMPILERS: dict[str, StepKind] = {"CUDA": "cuda", "CXX": "c++", "C": "c"}


@dataclass(frozen=True)
class Edge:
    """A build statement: the rule that produces an output, and its inputs."""

    rule: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    start: int
    end: int
    mtime: int
    output: str
    command: str  # its hash


def read(log: str, graph: str, *, jobs: int, cache: dict[str, int]) -> Timeline:
    """The last run in ``.ninja_log``. Raises ValueError for an empty log or an unknown version."""
    entries = list(_entries(log))
    edges = dict(parse(graph))
    # The time in an entry is the start of its step, or later (rules with restat, or ninja before
    # 1.12). So the run of the last entry did not begin before:
    last = entries[-1]
    since = last.mtime - last.end * 1_000_000 - _TICK
    latest = [entry for entry in entries if entry.mtime >= since]
    shared = {(e.start, e.end, e.command): e.output for e in reversed(latest)}
    took = {e.output: (shared[e.start, e.end, e.command], e.end - e.start) for e in latest}
    steps = [
        BuildStep(output, _kind(edges[output].rule if output in edges else ""), start, end)
        for (start, end, _), output in shared.items()
    ]
    known = {entry.output for entry in entries if entry.output in edges}
    zero = min(entry.mtime // 1_000_000 - entry.start for entry in latest) / 1000
    began = datetime.datetime.fromtimestamp(zero, datetime.UTC)
    return Timeline(
        began=began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        jobs=jobs,
        earlier=len(known - set(took)),
        cache=cache,
        steps=tuple(sorted(steps, key=lambda step: (step.start, step.end, step.output))),
        critical=_longest_chain(edges, took),
    )


def summary(timeline: Timeline) -> dict[str, float]:
    """The duration of the run, of its steps together, and how well these used the jobs."""
    took = {step.output: step.end - step.start for step in timeline.steps}
    wall = max(s.end for s in timeline.steps) - min(s.start for s in timeline.steps)
    return {
        "seconds": wall / 1000,
        "busy_seconds": sum(took.values()) / 1000,
        "efficiency": round(sum(took.values()) / (timeline.jobs * max(wall, 1)), 4),
        "critical_seconds": sum(took[output] for output in timeline.critical) / 1000,
    }


def parse(graph: str) -> Iterator[tuple[str, Edge]]:
    """Every output in the build statements of a ``build.ninja``, and its edge."""
    for line in graph.replace("$\r\n", "").replace("$\n", "").splitlines():
        if not line.startswith("build "):
            continue
        tokens = _TOKEN.findall(line.removeprefix("build "))
        colon = tokens.index(":")
        names = [_plain(w) for w in tokens[:colon] if w != "|"]
        needed = tokens[colon + 2 :]
        if "|@" in needed:  # validations: nothing waits for them
            needed = needed[: needed.index("|@")]
        inputs = tuple(_plain(w) for w in needed if w not in ("|", "||"))
        for name in names:
            yield name, Edge(tokens[colon + 1], inputs)


def _plain(word: str) -> str:
    return re.sub(r"\$([$ :])", r"\1", word)


def _entries(log: str) -> Iterator[_Entry]:
    if not _HEADER.match(log) or log.count("\n") < 2:
        raise ValueError(f"no log of ninja's that is known: {log[:40]!r}")
    for line in log.splitlines()[1:]:
        start, end, mtime, output, command = line.split("\t")
        yield _Entry(int(start), int(end), int(mtime), output, command)


def _kind(rule: str) -> StepKind:
    """The kind of a step, from CMake's name of its rule: CXX_SHARED_LIBRARY_LINKER__a_Release."""
    language, _, what = rule.split("__")[0].partition("_")
    if what.endswith("LINKER"):
        return "link"
    return _COMPILERS.get(language, "other") if what == "COMPILER" else "other"


def _longest_chain(
    edges: Mapping[str, Edge], took: Mapping[str, tuple[str, int]]
) -> tuple[str, ...]:
    """The outputs of the chain of steps that takes longest, each step needing the one before.

    ``took`` maps each output to the name of its step and the step's time.
    """

    @functools.cache
    def longest(output: str) -> tuple[int, tuple[str, ...]]:
        inputs = edges[output].inputs if output in edges else ()
        before = max(map(longest, inputs), default=(0, ()))
        if output not in took:
            return before
        step, time = took[output]
        return before[0] + time, (*before[1], step)

    return max(map(longest, took))[1]
