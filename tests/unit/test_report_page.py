"""The report page: it says what the records say, escapes what they hold, and loads nothing."""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from sessions.build.model import BuildStep, Timeline
from sessions.release.documents import report_page, timeline_chart
from sessions.release.documents.report_page import Bar, Chart
from sessions.release.evidence import Evidence
from sessions.shared.checks import Check, CheckGroup
from sessions.verify import wheel_rules
from tests import fakes
from tests.evidence import CHARTS, COMMIT, proven, untested

HOSTILE = "<script>alert(1)</script>'\"><img src=x onerror=y>&{{ 7*7 }}{% x %}</style></svg>"


class Page(HTMLParser):
    """Every start tag with its attributes, every text, and whether the tags are well nested."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def said(self) -> str:
        """All text of the page, each run of white space as one space."""
        return " ".join(" ".join(self.texts).split())


def page(found: Evidence, bench: tuple[Chart, ...] = ()) -> Page:
    return Page(report_page.render(found, COMMIT, bench))


def with_checks(found: Evidence, *checks: Check) -> Evidence:
    groups = (CheckGroup("The file", checks),)
    return dataclasses.replace(found, verify=dataclasses.replace(found.verify, groups=groups))


def with_case(**changes: Any) -> Evidence:
    """The tested wheel, but for its first case."""
    found = proven()
    first, *others = fakes.report(found).cases
    cases = ({**first, **changes}, *others)
    return fakes.reported(found, cases=cases)


@pytest.mark.parametrize("found", [untested(), proven()], ids=["untested", "tested"])
def test_the_same_records_give_the_same_bytes(found: Evidence) -> None:
    assert report_page.render(found, COMMIT, CHARTS) == report_page.render(found, COMMIT, CHARTS)


@pytest.mark.parametrize("found", [untested(), proven()], ids=["untested", "tested"])
def test_nothing_is_loaded(found: Evidence) -> None:
    text = report_page.render(found, COMMIT, CHARTS)
    made = Page(text)
    loading = {"script", "img", "iframe", "object", "embed", "video", "audio", "source", "base"}
    assert {tag for tag, _ in made.tags} & (loading | {"form", "image", "use"}) == set()
    for tag, attributes in made.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            value = attributes.get(name, "#")
            known = ("link", "data:,"), ("a", "../index.html")
            assert value.startswith("#") or (tag, value) in known, (tag, value)
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert re.findall(r"@import|@font-face|url\(|https?://|//[a-z]", text) == []
    (policy,) = [a["content"] for _, a in made.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


@pytest.mark.parametrize("found", [untested(), proven()], ids=["untested", "tested"])
def test_the_outline_is_sound(found: Evidence) -> None:
    made = page(found, CHARTS)
    levels = [int(tag[1]) for tag, _ in made.tags if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in made.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in made.tags:
        for id_ in attributes.get("aria-labelledby", "").split():
            assert id_ in ids, (tag, id_)
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
        if tag == "th":
            assert attributes["scope"] in ("col", "row", "colgroup")
        if attributes.get("role") == "region":
            assert attributes["tabindex"] == "0"
            assert attributes.get("aria-label") or attributes["aria-labelledby"]
        if tag == "svg":
            drawn = attributes.get("role") == "img" and attributes["aria-labelledby"]
            assert drawn or attributes["aria-hidden"] == "true"
    names = [tag for tag, _ in made.tags]
    assert all(names.count(landmark) == 1 for landmark in ("header", "nav", "main", "footer"))
    assert ("html", {"lang": "en"}) in made.tags


# Each what the records say, and the words of the page that say it.
def values(found: Evidence) -> Iterator[str]:
    wheel, facts = found.wheel, found.facts
    yield from (wheel.file, found.sha256, wheel.compiler, wheel.source_digest, wheel.fingerprint)
    yield from (f"llama-cpp-python {facts.metadata_version} for {found.spec.target}", COMMIT)
    yield f"{wheel.size / 1e6:.1f} MB"
    for group in found.verify.groups:
        yield group.name
        for check in group.checks:
            yield check.summary.removeprefix(f"{check.id}: ")
            yield from filter(None, (check.evidence, check.remedy))
    for library in facts.libraries:
        yield library.member.rsplit("/", 1)[-1]
        if library.device:
            yield from (f"{count:,}" for count in library.device.tensor.values())
            yield from library.device.tensor
    yield from ("mul_mat_q 35.5 MB 49.5%", "71.7 MB before compression, in 101 families")
    yield from (need for need in facts.requires if "extra ==" not in need)
    yield from (f"{part.name} {part.version}" for bill in facts.bills for part in bill.materials)
    yield from found.build.settings
    if found.toolkit:
        yield from (f"{name} {version}" for name, version in found.toolkit.components.items())
    for run in found.runs:
        report_ = run.report
        yield from (report_.device, report_.python, report_.system, report_.started, report_.origin)
        yield from (f"driver {report_.driver}", f"compute capability {report_.capability}")
        for check in report_.checks:
            yield check.summary.removeprefix(f"{check.id}: ")
        for case in report_.cases:
            attention = "flash" if case["flash"] else "plain"
            yield (
                f"{case['type']} {case['batch']} {case['kv']} {attention} {case['nmse']:.2e} "
                f"{case['bound']:.2e} {case['equal']} of {case['tokens']}"
            )
        yield from ("first token 20 ms", "generation, tokens per second 4,806")
    if found.timeline:
        for step in found.timeline.steps:
            yield f"{timeline_chart.name(step.output)} {step.kind} "
        yield from ("8 min 21 s", "16 min 35 s", "99.20%", "38.0 s", found.timeline.began)


@pytest.mark.parametrize("found", [untested(), proven()], ids=["untested", "tested"])
def test_what_the_records_say_is_there(found: Evidence) -> None:
    said = page(found).said
    assert [value for value in values(found) if value not in said] == []


def test_nothing_a_record_holds_becomes_markup() -> None:
    found = proven()
    assert found.timeline is not None
    assert found.toolkit is not None
    library, *others = found.facts.libraries
    device = dataclasses.replace(
        next(lib.device for lib in others if lib.device),
        kernels={HOSTILE: 1},
        tensor={HOSTILE: 1},
        sass={HOSTILE: 1},
        ptx={HOSTILE: 1},
    )
    library = dataclasses.replace(library, member=f"llama_cpp/lib/{HOSTILE}", device=device)
    step = BuildStep(HOSTILE, "cuda", 0, 10)
    check = Check("archive", "fail", HOSTILE, HOSTILE, HOSTILE)
    (bill,) = found.facts.bills
    part = dataclasses.replace(bill.materials[0], name=HOSTILE, version=HOSTILE, roles=(HOSTILE,))
    hostile = dataclasses.replace(
        with_checks(found, check, dataclasses.replace(check, id=HOSTILE)),
        wheel=dataclasses.replace(found.wheel, file=HOSTILE, compiler=HOSTILE, cuda=HOSTILE),
        facts=dataclasses.replace(
            found.facts,
            metadata_version=HOSTILE,
            members={**found.facts.members, library.member: 7},
            libraries=(library, *others),
            requires=(HOSTILE,),
            bills=(dataclasses.replace(bill, materials=(part,)),),
        ),
        runs=fakes.reported(
            found,
            device=HOSTILE,
            python=HOSTILE,
            system=HOSTILE,
            driver=HOSTILE,
            started=HOSTILE,
            origin=HOSTILE,
            checks=(check,),
            cases=({**fakes.report(found).cases[0], "type": HOSTILE, "kv": HOSTILE},),
            times={HOSTILE: 1.0},
        ).runs,
        toolkit=dataclasses.replace(found.toolkit, components={HOSTILE: HOSTILE}),
        spec=dataclasses.replace(found.spec, target=HOSTILE, warning=HOSTILE),
        timeline=dataclasses.replace(found.timeline, steps=(step,), critical=(HOSTILE,)),
    )
    assert (
        report_page.verdict(hostile) == "FAILED"
    )  # what the gate would refuse is shown all the same
    chart = Chart(HOSTILE, HOSTILE, (Bar(HOSTILE, 1.0),), HOSTILE)
    made = report_page.render(hostile, HOSTILE, (chart,))
    good = {tag for tag, _ in page(proven(), CHARTS).tags}
    assert {tag for tag, _ in Page(made).tags} - good <= {"strong"}
    assert "<script" not in made
    assert "<img" not in made
    assert made.count(html.escape("<script>alert(1)</script>", quote=False)) > 30
    assert "{{ 7*7 }}" in made  # not computed


def test_of_a_signature_it_is_said_that_it_came_along_and_no_more() -> None:
    # Whose it is was asked when the report came in; a file of that name tests nothing.
    (run,) = proven().runs
    signed = dataclasses.replace(run, signature="signed\n")
    assert ", with a signature." in page(proven(runs=(signed,))).said
    assert "signature" not in page(proven()).said


def test_a_wheel_that_was_run_nowhere_is_untested() -> None:
    said = page(untested()).said
    assert (
        "UNTESTED Built and inspected, but not tested on a GPU of compute capability 12.0" in said
    )
    assert "No part of this wheel was run." in said
    assert "RELEASE" not in said


def test_a_wheel_tested_on_its_gpu_is_a_release() -> None:
    said = page(proven()).said
    assert "RELEASE Every check passed, on NVIDIA H200 (compute capability 9.0)." in said
    assert "UNTESTED" not in said
    assert "known answers, none out of bounds 400" in said
    assert "largest error, as a share of its bound 41%" in said


def test_a_report_of_another_wheel_counts_for_nothing() -> None:
    found = dataclasses.replace(proven(), sha256="9" * 64)
    assert report_page.verdict(found) == "FAILED"  # verify's verdict is of another file too
    again = dataclasses.replace(found.verify, sha256="9" * 64)
    found = dataclasses.replace(found, verify=again)
    assert report_page.verdict(found) == "UNTESTED"
    assert "There is a report, but it belongs to another file" in page(found).said
    assert "TQ2_0" not in page(found).said


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (with_checks(untested(), Check("ptx", "fail", "ptx: there is", "e", "r")), "ptx"),
        (with_checks(untested()), "no check was made"),
        (
            dataclasses.replace(
                untested(), verify=dataclasses.replace(untested().verify, sha256="1" * 64)
            ),
            "of another file",
        ),
        (
            fakes.reported(proven(), checks=()),
            "no check was made",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_hold_makes_it_failed(found: Evidence, why: str) -> None:
    assert report_page.verdict(found) == "FAILED", why
    assert "FAILED A check failed" in page(found).said


def test_a_failing_check_says_why_and_what_mends_it() -> None:
    check = Check("ptx", "fail", "ptx: it is not as the target has it", "98 of it", "build anew")
    said = page(with_checks(untested(), check)).said
    assert "(failed) it is not as the target has it 98 of it build anew" in said


@pytest.mark.parametrize(
    ("changes", "said", "heat"),
    [
        ({"nmse": 5e-6, "bound": 2e-5}, "25", "h2"),
        ({"nmse": 2e-5, "bound": 2e-5}, "100", "h9"),
        ({"nmse": 2e-8, "bound": 2e-5}, "<1", "h0"),
        ({"nmse": 2e-5, "bound": 1e-4}, "20 !", "over"),  # wider than it may be
        ({"nmse": 1.5e-4, "bound": 1e-4}, "150 !", "over"),
        ({"nmse": 1e-7, "bound": 0.0}, "inf !", "over"),
        ({"nmse": -1.0, "bound": 1e-4}, "-1000000 !", "over"),
        ({"nmse": float("nan"), "bound": 1e-4}, "inf !", "over"),
        ({"nmse": float("nan"), "finite": False}, "error", "over"),
    ],
)
def test_an_answer_is_shown_as_a_share_of_its_bound(
    changes: dict[str, Any], said: str, heat: str
) -> None:
    found = with_case(**changes)
    assert report_page.cell(fakes.report(found).cases[0]) == {"said": said, "heat": heat}
    assert f'<td class="{heat}">{html.escape(said)}</td>' in report_page.render(found, COMMIT)


def test_a_case_that_ended_in_an_error_says_so() -> None:
    found = proven()
    broken = {"type": "F16", "batch": 4, "flash": True, "kv": "f16", "error": "it crashed"}
    never = {"type": "NVFP4", "error": "it hung"}
    changed = fakes.reported(found, cases=(*fakes.report(found).cases[:3], broken, never))
    said = page(changed).said
    assert "known answers, 2 out of bounds 5" in said
    assert "F16 it crashed" in said
    assert "NVFP4 it hung" in said


def test_the_runs_on_two_gpus_are_each_shown() -> None:
    (run,) = proven().runs
    other = dataclasses.replace(run.report, device="Another GPU", capability="12.0")
    found = proven(runs=(run, dataclasses.replace(run, report=other)))
    text = report_page.render(found, COMMIT)
    said = page(found).said
    assert "Every check passed, on NVIDIA H200 (compute capability 9.0) and Another GPU" in said
    assert "known answers, none out of bounds 800" in said
    assert "by type of the weights, on Another GPU" in said
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"run", "run-2", "heat-title", "heat-title-2"} <= set(ids)


def test_a_case_that_was_not_tried_is_none() -> None:
    found = proven()
    changed = fakes.reported(found, cases=fakes.report(found).cases[1:])
    text = report_page.render(changed, COMMIT)
    assert '<td class="none">none</td>' in text


def line(**changes: Any) -> Evidence:
    found = untested()
    assert isinstance(found.timeline, Timeline)
    return dataclasses.replace(found, timeline=dataclasses.replace(found.timeline, **changes))


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ({"hits": 0, "misses": 152}, "None of 152 compilations was taken from the compiler cache"),
        ({"hits": 152, "misses": 0}, "152 of 152 compilations were taken from the compiler cache"),
        ({}, "AMD EPYC"),
    ],
)
def test_what_the_compiler_cache_gave_is_said(cache: dict[str, int], words: str) -> None:
    found = line(cache=cache)
    host = dataclasses.replace(found.toolchain.host, cpu="AMD EPYC")
    found = dataclasses.replace(found, toolchain=dataclasses.replace(found.toolchain, host=host))
    said = page(found).said
    assert words in said
    assert ("a build without the cache takes longer" in said) is bool(cache.get("hits"))


def test_what_an_earlier_run_made_is_said() -> None:
    assert "106 outputs existed from an earlier run" in page(line(earlier=106)).said
    assert "existed from an earlier run" not in page(line()).said


def test_a_wheel_packed_again_says_that_nothing_was_compiled_for_it() -> None:
    found = untested()
    found = dataclasses.replace(found, wheel=dataclasses.replace(found.wheel, steps=0))
    assert "packed again later, without compiling anything" in page(found).said


def test_without_a_timeline_the_page_says_so() -> None:
    said = page(dataclasses.replace(untested(), timeline=None)).said
    assert "There is no record of its steps" in said
    assert "critical path" not in said


def test_the_timeline_has_a_rectangle_a_step_and_a_line_below_the_critical_ones() -> None:
    made = page(untested())
    steps = [a["class"].split()[0] for tag, a in made.tags if tag == "rect" and "class" in a]
    kinds = ("cuda", "cxx", "c", "link", "critical")
    assert [steps.count(kind) for kind in kinds] == [98, 48, 6, 6, 5]


def test_many_jobs_still_make_a_drawing_of_a_sane_height() -> None:
    steps = tuple(BuildStep(f"{n}.o", "c", 0, 10) for n in range(256))
    made = report_page.build(line(steps=steps, critical=("1.o",)))
    assert made is not None
    assert made["rows"] == 256
    assert made["height"] == 3


def test_folders_of_the_build_machine_are_not_shown() -> None:
    found = untested()
    settings = {**found.build.settings, "a": "/home/user/blackwheel/x /home/user/.cache/blackwheel"}
    found = dataclasses.replace(found, build=dataclasses.replace(found.build, settings=settings))
    assert "/home/user" not in report_page.render(found, COMMIT)


def test_a_chart_shows_values_intervals_and_the_reference() -> None:
    made = page(proven(), CHARTS)
    assert "this wheel 1.02 1.01 to 1.03" in made.said
    assert "seed 0.6 none" in made.said
    lines = [a["class"] for tag, a in made.tags if tag == "line" and a["class"] in ("span", "one")]
    assert lines == ["span", "one", "span", "one", "one"]


def test_without_charts_there_is_no_section_of_speed() -> None:
    assert "#speed" not in report_page.render(proven(), COMMIT)


def test_a_cpu_wheel_has_no_gpu_code_to_show() -> None:
    found = untested()
    plain = tuple(dataclasses.replace(lib, device=None) for lib in found.facts.libraries)
    facts = dataclasses.replace(found.facts, libraries=plain)
    wheel = dataclasses.replace(found.wheel, cuda=None, archs=())
    spec = dataclasses.replace(found.spec, cuda=None, archs=())
    found = dataclasses.replace(found, facts=facts, wheel=wheel, spec=spec, toolkit=None)
    said = page(found).said
    assert "GPU code for no GPU" in said
    assert "kernel family" not in said
    assert "not tested on the CPU" in said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0 ms"), (0.02, "20 ms"), (0.63, "0.63 s"), (12.3456, "12.3 s"), (131.4, "2 min 11 s")],
)
def test_seconds_are_said_as_people_compare_them(value: float, said: str) -> None:
    assert report_page.seconds(value) == said


def test_a_moment_is_minutes_and_seconds() -> None:
    assert [report_page.clock(v) for v in (0, 7.25, 59.96, 1156.94)] == [
        "0:00.0", "0:07.2", "1:00.0", "19:16.9",
    ]  # fmt: skip


def test_every_check_is_named_in_plain_words() -> None:
    words = report_page.about()
    found = proven()
    assert {check.id for check in fakes.report(found).checks} <= words["smoke"].keys()


# ---- install ------------------------------------------------------------------------------------


def test_it_says_how_to_install_the_wheel_and_what_it_needs() -> None:
    found = proven()
    page = Page(report_page.render(found, COMMIT))
    for text in (
        f"pip install {found.wheel.file}",
        "GPU compute capability 12.0 (Blackwell: RTX 50, RTX PRO)",
        "Driver NVIDIA 580 or newer",
        "Python CPython 3.11, 64-bit",
        "System Linux x86-64, glibc 2.27 or newer; "
        f"a CPU of level {wheel_rules.cpu().level} Download",
        f"{found.wheel.size / 1e6:.1f} MB, and 505 MB of NVIDIA’s packages from PyPI, which take",
    ):
        assert text in page.said, text
    assert ("a", {"href": "../index.html"}) in page.tags


def test_a_wheel_for_the_cpu_needs_no_gpu_and_no_driver() -> None:
    found = proven()
    libraries = tuple(dataclasses.replace(each, device=None) for each in found.facts.libraries)
    found = dataclasses.replace(
        found,
        spec=dataclasses.replace(found.spec, cuda=None, archs=()),
        wheel=dataclasses.replace(found.wheel, requires=()),
        facts=dataclasses.replace(found.facts, libraries=libraries),
    )
    page = Page(report_page.render(found, COMMIT))
    assert "GPU none Driver none Python" in page.said
    assert "packages from PyPI" not in page.said


def test_a_wheel_that_failed_a_check_has_no_line_to_install_it() -> None:
    found = proven()
    failed = Check("ptx", "fail", "ptx: there", "", "")
    verify = dataclasses.replace(found.verify, groups=(CheckGroup("x", (failed,)),))
    page = Page(report_page.render(dataclasses.replace(found, verify=verify), COMMIT))
    assert "FAILED" in page.said
    assert "pip install" not in page.said
