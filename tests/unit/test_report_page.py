"""The report page: it shows the values of the records, escapes them, and loads nothing."""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sessions.build.record_types import BuildStep
from sessions.release.documents import report_page, timeline_chart
from sessions.release.documents.report_page import Bar, Chart
from sessions.release.evidence import Evidence
from sessions.shared.check_result import Check, CheckGroup
from sessions.verify import wheel_rules
from tests import fakes
from tests.evidence import CHARTS, COMMIT, changed, proven, untested
from tests.html_page import Page

HOSTILE = "<script>alert(1)</script>'\"><img src=x onerror=y>&{{ 7*7 }}{% x %}</style></svg>"


def page(found: Evidence, bench: tuple[Chart, ...] = ()) -> Page:
    return Page(report_page.render(found, COMMIT, bench))


def with_checks(found: Evidence, *checks: Check) -> Evidence:
    groups = (CheckGroup("The file", checks),)
    return changed(found, verify={"groups": groups})


def with_case(**changes: Any) -> Evidence:
    """The tested wheel with another first case."""
    found = proven()
    first, *others = fakes.report(found).cases
    cases = ({**first, **changes}, *others)
    return fakes.reported(found, cases=cases)


@pytest.mark.parametrize("found", [untested(), proven()], ids=["untested", "tested"])
def test_the_page_loads_nothing_and_is_reproducible(found: Evidence) -> None:
    text = report_page.render(found, COMMIT, CHARTS)
    assert text == report_page.render(found, COMMIT, CHARTS)
    shown = Page(text)
    loading = {"script", "img", "iframe", "object", "embed", "video", "audio", "source", "base"}
    assert {tag for tag, _ in shown.tags} & (loading | {"form", "image", "use"}) == set()
    for tag, attributes in shown.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            value = attributes.get(name, "#")
            known = ("link", "data:,"), ("a", "../index.html")
            assert value.startswith("#") or (tag, value) in known, (tag, value)
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert re.findall(r"@import|@font-face|url\(|https?://|//[a-z]", text) == []
    (policy,) = [a["content"] for _, a in shown.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


@pytest.mark.parametrize("found", [untested(), proven()], ids=["untested", "tested"])
def test_the_outline_is_accessible(found: Evidence) -> None:
    shown = page(found, CHARTS)
    levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in shown.tags:
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
    names = [tag for tag, _ in shown.tags]
    assert all(names.count(landmark) == 1 for landmark in ("header", "nav", "main", "footer"))
    assert ("html", {"lang": "en"}) in shown.tags


def values(found: Evidence) -> Iterator[str]:
    """Every value of the records as it must be on the page."""
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
def test_every_value_of_the_records_is_on_the_page(found: Evidence) -> None:
    text = page(found).text
    assert [value for value in values(found) if value not in text] == []


def test_values_of_records_are_escaped() -> None:
    found = proven()
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
    words = ("device", "python", "system", "driver", "started", "origin")
    case = {**fakes.report(found).cases[0], "type": HOSTILE, "kv": HOSTILE}
    hostile = fakes.reported(
        with_checks(found, check, dataclasses.replace(check, id=HOSTILE)),
        **dict.fromkeys(words, HOSTILE),
        checks=(check,),
        cases=(case,),
        times={HOSTILE: 1.0},
    )
    hostile = changed(
        hostile,
        wheel=dict.fromkeys(("file", "compiler", "cuda"), HOSTILE),
        facts={
            "metadata_version": HOSTILE,
            "members": {**found.facts.members, library.member: 7},
            "libraries": (library, *others),
            "requires": (HOSTILE,),
            "bills": (dataclasses.replace(bill, materials=(part,)),),
        },
        toolkit={"components": {HOSTILE: HOSTILE}},
        spec={"target": HOSTILE, "warning": HOSTILE},
        timeline={"steps": (step,), "critical": (HOSTILE,)},
    )
    assert report_page.verdict(hostile) == "FAILED"  # it is shown nevertheless
    chart = Chart(HOSTILE, HOSTILE, (Bar(HOSTILE, 1.0),), HOSTILE)
    shown = report_page.render(hostile, HOSTILE, (chart,))
    good = {tag for tag, _ in page(proven(), CHARTS).tags}
    assert {tag for tag, _ in Page(shown).tags} - good <= {"strong"}
    assert "<script" not in shown
    assert "<img" not in shown
    assert shown.count(html.escape("<script>alert(1)</script>", quote=False)) > 30
    assert "{{ 7*7 }}" in shown  # not computed


def test_a_signature_is_only_mentioned() -> None:
    # It was checked when the report was imported; here it is only a file.
    (run,) = proven().runs
    signed = dataclasses.replace(run, signature="signed\n")
    assert ", with a signature." in page(proven(runs=(signed,))).text
    assert "signature" not in page(proven()).text


def test_a_wheel_without_a_run_is_untested() -> None:
    text = page(untested()).text
    assert (
        "UNTESTED Built and inspected, but not tested on a GPU of compute capability 12.0" in text
    )
    assert "No part of this wheel was run." in text
    assert "RELEASE" not in text


def test_a_wheel_tested_on_its_gpu_is_a_release() -> None:
    text = page(proven()).text
    assert "RELEASE Every check passed, on NVIDIA H200 (compute capability 9.0)." in text
    assert "UNTESTED" not in text
    assert "known answers, none out of bounds 400" in text
    assert "largest error, as a share of its bound 41%" in text


def test_a_report_of_another_wheel_does_not_count() -> None:
    found = dataclasses.replace(proven(), sha256="9" * 64)
    assert report_page.verdict(found) == "FAILED"  # verify.json belongs to another file too
    found = changed(found, verify={"sha256": "9" * 64})
    assert report_page.verdict(found) == "UNTESTED"
    assert "There is a report, but it belongs to another file" in page(found).text
    assert "TQ2_0" not in page(found).text


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (with_checks(untested(), Check("ptx", "fail", "ptx: there is", "e", "r")), "ptx"),
        (with_checks(untested()), "no check was shown"),
        (changed(untested(), verify={"sha256": "1" * 64}), "of another file"),
        (
            fakes.reported(proven(), checks=()),
            "no check was shown",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failed_or_missing_check_makes_it_failed(found: Evidence, why: str) -> None:
    assert report_page.verdict(found) == "FAILED", why
    assert "FAILED A check failed" in page(found).text


def test_a_failed_check_has_its_evidence_and_fix_and_no_installation() -> None:
    check = Check("ptx", "fail", "ptx: it is not as the target has it", "98 of it", "build anew")
    text = page(with_checks(untested(), check)).text
    assert "(failed) it is not as the target has it 98 of it build anew" in text
    assert "pip install" not in text


@pytest.mark.parametrize(
    ("changes", "text", "heat"),
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
    changes: dict[str, Any], text: str, heat: str
) -> None:
    found = with_case(**changes)
    assert report_page.cell(fakes.report(found).cases[0]) == {"said": text, "heat": heat}
    assert f'<td class="{heat}">{html.escape(text)}</td>' in report_page.render(found, COMMIT)


def test_a_case_with_an_error_shows_it() -> None:
    found = proven()
    broken = {"type": "F16", "batch": 4, "flash": True, "kv": "f16", "error": "it crashed"}
    never = {"type": "NVFP4", "error": "it hung"}
    broken_ = fakes.reported(found, cases=(*fakes.report(found).cases[:3], broken, never))
    text = page(broken_).text
    assert "known answers, 2 out of bounds 5" in text
    assert "F16 it crashed" in text
    assert "NVFP4 it hung" in text
    missing = fakes.reported(found, cases=fakes.report(found).cases[1:])
    assert '<td class="none">none</td>' in report_page.render(missing, COMMIT)


def test_the_runs_on_two_gpus_are_each_shown() -> None:
    (run,) = proven().runs
    other = dataclasses.replace(run.report, device="Another GPU", capability="12.0")
    found = proven(runs=(run, dataclasses.replace(run, report=other)))
    text = page(found).text
    assert "Every check passed, on NVIDIA H200 (compute capability 9.0) and Another GPU" in text
    assert "known answers, none out of bounds 800" in text
    assert "by type of the weights, on Another GPU" in text
    ids = re.findall(r' id="([^"]+)"', report_page.render(found, COMMIT))
    assert len(ids) == len(set(ids))
    assert {"run", "run-2", "heat-title", "heat-title-2"} <= set(ids)


def line(**changes: Any) -> Evidence:
    return changed(untested(), timeline=changes)


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ({"hits": 0, "misses": 152}, "None of 152 compilations was taken from the compiler cache"),
        ({"hits": 152, "misses": 0}, "152 of 152 compilations were taken from the compiler cache"),
        ({}, "AMD EPYC"),
    ],
)
def test_the_use_of_the_compiler_cache(cache: dict[str, int], words: str) -> None:
    found = line(cache=cache)
    host = dataclasses.replace(found.toolchain.host, cpu="AMD EPYC")
    text = page(changed(found, toolchain={"host": host})).text
    assert words in text
    assert ("a build without the cache takes longer" in text) is bool(cache.get("hits"))


def test_builds_with_missing_steps_are_described() -> None:
    assert "106 outputs existed from an earlier run" in page(line(earlier=106)).text
    assert "existed from an earlier run" not in page(line()).text
    found = untested()
    repacked = page(changed(found, wheel={"steps": 0}))
    assert "packed again later, without compiling anything" in repacked.text
    text = page(dataclasses.replace(found, timeline=None)).text
    assert "There is no record of its steps" in text
    assert "critical path" not in text


def test_the_timeline_has_one_rectangle_per_step_and_a_line_below_critical_ones() -> None:
    shown = page(untested())
    steps = [a["class"].split()[0] for tag, a in shown.tags if tag == "rect" and "class" in a]
    kinds = ("cuda", "cxx", "c", "link", "critical")
    assert [steps.count(kind) for kind in kinds] == [98, 48, 6, 6, 5]


def test_the_timeline_of_many_jobs_has_a_limited_height() -> None:
    steps = tuple(BuildStep(f"{n}.o", "c", 0, 10) for n in range(256))
    shown = report_page.build(line(steps=steps, critical=("1.o",)))
    assert shown is not None
    assert shown["rows"] == 256
    assert shown["height"] == 3


def test_folders_of_the_build_machine_are_not_shown() -> None:
    found = untested()
    settings = {**found.build.settings, "a": "/home/user/blackwheel/x /home/user/.cache/blackwheel"}
    found = changed(found, build={"settings": settings})
    assert "/home/user" not in report_page.render(found, COMMIT)


def test_a_chart_has_values_intervals_and_the_reference() -> None:
    shown = page(proven(), CHARTS)
    assert "this wheel 1.02 1.01 to 1.03" in shown.text
    assert "seed 0.6 none" in shown.text
    lines = [a["class"] for tag, a in shown.tags if tag == "line" and a["class"] in ("span", "one")]
    assert lines == ["span", "one", "span", "one", "one"]


def test_without_charts_there_is_no_section_about_speed() -> None:
    assert "#speed" not in report_page.render(proven(), COMMIT)


def test_a_cpu_wheel_has_no_gpu_code_to_show() -> None:
    found = untested()
    plain = tuple(dataclasses.replace(lib, device=None) for lib in found.facts.libraries)
    none: dict[str, Any] = {"cuda": None, "archs": ()}
    wheel = {**none, "requires": ()}
    found = changed(found, facts={"libraries": plain}, wheel=wheel, spec=none)
    found = dataclasses.replace(found, toolkit=None)
    text = page(found).text
    assert "GPU code for no GPU" in text
    assert "kernel family" not in text
    assert "not tested on the CPU" in text
    assert "GPU none Driver none Python" in text
    assert "packages from PyPI" not in text


def test_times_for_people() -> None:
    seconds = [report_page.seconds(value) for value in (0.0, 0.02, 0.63, 12.3456, 131.4)]
    assert seconds == ["0 ms", "20 ms", "0.63 s", "12.3 s", "2 min 11 s"]
    clock = [report_page.clock(value) for value in (0, 7.25, 59.96, 1156.94)]
    assert clock == ["0:00.0", "0:07.2", "1:00.0", "19:16.9"]


def test_the_installation_and_the_requirements() -> None:
    found = proven()
    shown = page(found)
    for text in (
        f"pip install {found.wheel.file}",
        "GPU compute capability 12.0 (Blackwell: RTX 50, RTX PRO)",
        "Driver NVIDIA 580 or newer",
        "Python CPython 3.11, 64-bit",
        "System Linux x86-64, glibc 2.27 or newer; "
        f"a CPU of level {wheel_rules.cpu().level} Download",
        f"{found.wheel.size / 1e6:.1f} MB, and 505 MB of NVIDIA’s packages from PyPI, which take",
    ):
        assert text in shown.text, text
    assert ("a", {"href": "../index.html"}) in shown.tags
