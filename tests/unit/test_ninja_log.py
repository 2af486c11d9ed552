"""The timeline of a build, from ninja's log and graph."""

from __future__ import annotations

import pytest

from sessions.build import ninja_log
from sessions.build.record_types import Timeline
from tests import evidence

HEADER = "# ninja log v7\n"
BEGAN = 1_795_000_000_000  # milliseconds; 2026-11-18T11:06:40Z
GRAPH = """\
rule CXX_COMPILER__a_unscanned_Release
  command = false
build order: phony || .
build a.dir/x.cpp.o: CXX_COMPILER__a_unscanned_Release /s/x.cpp || order
  FLAGS = -O3
build a.dir/y.c.o: C_COMPILER__a_unscanned_Release /s/y.c || order
build a.dir/z.cu.o: CUDA_COMPILER__a_unscanned_Release /s/z.cu | /s/z.cuh || order
build bin/a.so: CUDA_SHARED_LIBRARY_LINKER__a_Release a.dir/x.cpp.o a.dir/y.c.o $
    a.dir/z.cu.o | C$:/cuda$ 13/cuda.lib
build all.phony: phony bin/a.so
build b.dir/w.cpp.o: CXX_COMPILER__b_unscanned_Release /s/w.cpp
build bin/b.so | bin/b.lib: CXX_SHARED_LIBRARY_LINKER__b_Release b.dir/w.cpp.o | all.phony
"""


def line(start: int, end: int, output: str, *, began: int = BEGAN, command: str = "") -> str:
    # Ninja 1.12 and later note when the command began.
    return f"{start}\t{end}\t{(began + start) * 1_000_000}\t{output}\t{command or output}\n"


WHOLE = [
    line(5, 30, "a.dir/y.c.o"),
    line(5, 105, "a.dir/x.cpp.o"),
    line(30, 330, "a.dir/z.cu.o"),
    line(105, 205, "b.dir/w.cpp.o"),
    line(330, 340, "bin/a.so"),
    line(340, 345, "bin/b.so", command="b"),
    line(340, 345, "bin/b.lib", command="b"),
]


def read(lines: list[str], *, header: str = HEADER, graph: str = GRAPH) -> Timeline:
    return ninja_log.read(header + "".join(lines), graph, jobs=2, cache={"hits": 1})


def test_read_returns_the_steps_in_the_order_of_their_start() -> None:
    found = read(WHOLE)
    assert [(s.output, s.kind, s.start, s.end) for s in found.steps] == [
        ("a.dir/y.c.o", "c", 5, 30),
        ("a.dir/x.cpp.o", "c++", 5, 105),
        ("a.dir/z.cu.o", "cuda", 30, 330),
        ("b.dir/w.cpp.o", "c++", 105, 205),
        ("bin/a.so", "link", 330, 340),
        ("bin/b.so", "link", 340, 345),  # and bin/b.lib, of the same step
    ]
    assert (found.jobs, found.cache, found.earlier) == (2, {"hits": 1}, 0)
    assert found.began == "2026-11-18T11:06:40Z"


@pytest.mark.parametrize(
    ("then", "now", "critical"),
    [
        # Through a phony target and a step's second output; not through y or x, which are shorter.
        ("", "", ["a.dir/z.cu.o", "bin/a.so", "bin/b.so"]),
        ("/s/w.cpp\n", "/s/w.cpp || a.dir/z.cu.o\n", ["a.dir/z.cu.o", "b.dir/w.cpp.o", "bin/b.so"]),
        # Nothing waits for a validation.
        ("/s/w.cpp\n", "/s/w.cpp |@ a.dir/z.cu.o\n", ["a.dir/z.cu.o", "bin/a.so", "bin/b.so"]),
    ],
    ids=["inputs", "order-only", "validation"],
)
def test_critical_is_the_chain_of_steps_that_takes_longest(
    then: str, now: str, critical: list[str]
) -> None:
    assert list(read(WHOLE, graph=GRAPH.replace(then, now) if then else GRAPH).critical) == critical


def test_critical_depends_on_time_and_not_on_the_number_of_steps() -> None:
    slow = [line(105, 900, "b.dir/w.cpp.o") if "w.cpp" in text else text for text in WHOLE]
    assert read(slow).critical == ("b.dir/w.cpp.o", "bin/b.so")


def test_summary() -> None:
    assert ninja_log.summary(read(WHOLE)) == {
        "seconds": 0.34,
        "busy_seconds": 0.54,
        "efficiency": round(540 / 680, 4),
        "critical_seconds": 0.315,
    }
    assert ninja_log.summary(read([line(5, 5, "a.dir/y.c.o")]))["efficiency"] == 0


def test_of_an_earlier_run_only_the_outputs_are_counted() -> None:
    # A first run failed in the middle; the second made the rest, a minute later.
    later = BEGAN + 60_000
    rest = [line(2, 302, "a.dir/z.cu.o", began=later), line(302, 310, "bin/a.so", began=later)]
    found = read([*WHOLE[:2], *rest])
    assert [step.output for step in found.steps] == ["a.dir/z.cu.o", "bin/a.so"]
    assert found.earlier == 2
    assert found.began == "2026-11-18T11:07:40Z"
    assert found.critical == ("a.dir/z.cu.o", "bin/a.so")
    assert ninja_log.summary(found)["seconds"] == 0.308


@pytest.mark.parametrize(
    ("lines", "earlier"),
    [
        ([*WHOLE, line(3, 9, "a.dir/y.c.o", began=BEGAN + 9000)], 6),  # built again
        ([line(1, 2, "gone.o", began=BEGAN - 9000), *WHOLE], 0),  # not in the graph
    ],
)
def test_earlier_counts_outputs_of_the_graph_that_were_not_built_again(
    lines: list[str], earlier: int
) -> None:
    assert read(lines).earlier == earlier


def test_a_step_with_restat_belongs_to_the_run() -> None:
    # restat: the entry has the output's time, which is after the step began.
    link = f"330\t340\t{(BEGAN + 338) * 1_000_000}\tbin/a.so\tx\n"
    found = read([*WHOLE[:4], link])
    assert len(found.steps) == 5
    assert found.began == "2026-11-18T11:06:40Z"


def test_a_step_without_compiler_and_linker_has_the_kind_other() -> None:
    found = read([*WHOLE, line(345, 350, "CMakeFiles/x.txt")], graph=GRAPH)
    assert found.steps[-1].kind == "other"


@pytest.mark.parametrize(
    ("header", "lines"),
    [("# ninja log v4\n", WHOLE), ("", WHOLE), ("# ninja log v8\n", WHOLE), (HEADER, [])],
)
def test_an_unknown_or_empty_log_is_refused(header: str, lines: list[str]) -> None:
    with pytest.raises(ValueError, match="no log of ninja's that is known"):
        read(lines, header=header)


def test_parse_reads_names_with_escapes() -> None:
    edges = dict(ninja_log.parse("build C$:/t$ x/a.obj: C_COMPILER__a C$:/s/a.c | d$$.h || o\n"))
    assert edges == {"C:/t x/a.obj": ninja_log.Edge("C_COMPILER__a", ("C:/s/a.c", "d$.h", "o"))}


def test_a_real_build_from_nothing() -> None:
    """The log of 158 steps on two cores, and CMake's own build statements."""
    found = evidence.cold()
    assert len(found.steps) == 158
    assert {step.kind for step in found.steps} == {"cuda", "c++", "c", "link"}
    assert [output.rsplit("/", 1)[-1] for output in found.critical] == [
        "mmf.cu.o",
        "libggml-cuda.so",
        "libggml.so",
        "libllama.so",
        "libmtmd.so",
    ]
    assert ninja_log.summary(found) == {
        "seconds": 501.352,
        "busy_seconds": 994.635,
        "efficiency": 0.992,
        "critical_seconds": 37.978,
    }
