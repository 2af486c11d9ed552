"""What ran when: from ninja's log, whatever else is in it, and the graph it worked through."""

from __future__ import annotations

import dataclasses

import pytest

from sessions.build import ninja_log
from sessions.build.model import Timeline
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


def test_steps_are_those_of_the_log_by_when_they_began() -> None:
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


def test_the_critical_path_is_the_chain_of_steps_that_takes_longest() -> None:
    # Through a phony target and a step's second output; not by way of y or x, which are shorter.
    assert read(WHOLE).critical == ("a.dir/z.cu.o", "bin/a.so", "bin/b.so")


def test_it_is_by_time_and_not_by_the_number_of_steps() -> None:
    slow = [line(105, 900, "b.dir/w.cpp.o") if "w.cpp" in text else text for text in WHOLE]
    assert read(slow).critical == ("b.dir/w.cpp.o", "bin/b.so")


def test_what_only_orders_steps_counts_too() -> None:
    graph = GRAPH.replace("/s/w.cpp\n", "/s/w.cpp || a.dir/z.cu.o\n")
    assert read(WHOLE, graph=graph).critical == ("a.dir/z.cu.o", "b.dir/w.cpp.o", "bin/b.so")


def test_what_nothing_waits_for_does_not_count() -> None:
    graph = GRAPH.replace("/s/w.cpp\n", "/s/w.cpp |@ a.dir/z.cu.o\n")
    assert read(WHOLE, graph=graph).critical == ("a.dir/z.cu.o", "bin/a.so", "bin/b.so")


def test_a_sum_says_how_well_the_jobs_were_filled() -> None:
    assert ninja_log.summary(read(WHOLE)) == {
        "seconds": 0.34,
        "busy_seconds": 0.54,
        "efficiency": round(540 / 680, 4),
        "critical_seconds": 0.315,
    }


def test_of_an_earlier_run_only_the_number_of_outputs_counts() -> None:
    # A first run failed in the middle; the second made the rest, a minute later.
    later = BEGAN + 60_000
    rest = [line(2, 302, "a.dir/z.cu.o", began=later), line(302, 310, "bin/a.so", began=later)]
    found = read([*WHOLE[:2], *rest])
    assert [step.output for step in found.steps] == ["a.dir/z.cu.o", "bin/a.so"]
    assert found.earlier == 2
    assert found.began == "2026-11-18T11:07:40Z"
    assert found.critical == ("a.dir/z.cu.o", "bin/a.so")
    assert ninja_log.summary(found)["seconds"] == 0.308


def test_what_was_made_again_is_not_of_an_earlier_run() -> None:
    again = [line(3, 9, "a.dir/y.c.o", began=BEGAN + 9000)]
    assert read([*WHOLE, *again]).earlier == 6


def test_outputs_that_the_graph_no_longer_has_are_not_counted() -> None:
    gone = line(1, 2, "gone.o", began=BEGAN - 9000)
    assert read([gone, *WHOLE]).earlier == 0


def test_a_link_whose_time_is_that_of_its_output_is_of_the_run() -> None:
    # restat: the entry has the output's time, which is after the step began.
    link = f"330\t340\t{(BEGAN + 338) * 1_000_000}\tbin/a.so\tx\n"
    found = read([*WHOLE[:4], link])
    assert len(found.steps) == 5
    assert found.began == "2026-11-18T11:06:40Z"


def test_a_step_of_no_compiler_and_no_linker_is_another() -> None:
    found = read([*WHOLE, line(345, 350, "CMakeFiles/x.txt")], graph=GRAPH)
    assert found.steps[-1].kind == "other"


@pytest.mark.parametrize("header", ["# ninja log v4\n", "", "# ninja log v8\n"])
def test_a_log_of_another_version_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="no log of ninja's that is known"):
        read(WHOLE, header=header)


def test_a_log_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="no log of ninja's that is known"):
        read([])


def test_a_step_that_took_no_time_does_no_harm() -> None:
    assert ninja_log.summary(read([line(5, 5, "a.dir/y.c.o")]))["efficiency"] == 0


def test_names_of_windows_are_read_as_they_are() -> None:
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


def test_the_same_files_give_the_same_timeline() -> None:
    evidence.cold.cache_clear()
    first = evidence.cold()
    evidence.cold.cache_clear()
    assert dataclasses.asdict(first) == dataclasses.asdict(evidence.cold())
