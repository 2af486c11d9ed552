"""The report page in headless Chromium: light and dark, phone and desktop sizes.

``BLACKWHEEL_SCREENSHOTS=FOLDER`` saves a screenshot of each.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from sessions.build.record_types import BuildStep
from sessions.release.documents import report_page
from sessions.release.evidence import Evidence
from sessions.shared.check_result import Check, CheckGroup
from tests import fakes
from tests.evidence import CHARTS, COMMIT, proven, untested

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
SCHEMES = ("light", "dark")
WIDTHS = (360, 1280)
LONG = "a" * 300
PARTS = "llama_cpp/lib/" + "very-long-name-" * 8 + ".so"


def crowded() -> Evidence:
    """A wheel with every colour of an answer, failures, long names and many jobs."""
    found = proven()
    assert found.timeline is not None
    cases = list(fakes.report(found).cases[:32])
    for tenth in range(12):  # up to 110% of the bound
        cases[tenth] = {**cases[tenth], "nmse": (tenth + 0.05) * 0.1, "bound": 1.0}
    cases[12] = {**cases[12], "finite": False}
    cases.append({"type": "NVFP4", "error": LONG})
    checks = (
        Check("ptx", "fail", f"ptx: {LONG}", f"{LONG}\n{LONG}", f"nox -s wheel -- {LONG}"),
        Check("reproducible", "warn", "reproducible: it could not be made again", "why", "how"),
        Check(LONG, "ok", LONG),
    )
    groups = (CheckGroup(LONG, checks),)
    library = dataclasses.replace(found.facts.libraries[0], member=PARTS)
    facts = dataclasses.replace(
        found.facts,
        members={**found.facts.members, PARTS: 10_000_000},
        libraries=(library, *found.facts.libraries),
        requires=(LONG,),
    )
    steps = tuple(BuildStep(f"{LONG}{n}.cu.o", "cuda", n, 9000 - n) for n in range(48))
    return dataclasses.replace(
        found,
        facts=facts,
        spec=dataclasses.replace(found.spec, warning=LONG),
        wheel=dataclasses.replace(found.wheel, file=LONG, source_edited=True),
        verify=dataclasses.replace(found.verify, groups=groups),
        runs=fakes.reported(found, cases=tuple(cases), origin=LONG, system=LONG).runs,
        build=dataclasses.replace(
            found.build, settings={**found.build.settings, LONG: f"{LONG} {LONG}"}
        ),
        timeline=dataclasses.replace(
            found.timeline, jobs=48, steps=steps, critical=(steps[0].output,)
        ),
    )


PAGES = {"tested": proven, "untested": untested, "crowded": crowded}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium with an empty profile."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("There is no Chromium: apt-get install --no-install-recommends chromium")
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=program, args=list(FLAGS)
        )
        yield context
        context.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """A function that opens a file. Returns the page, and a list of its requests and errors."""
    pages = []

    def opened(file: Path, scheme: str = "light", width: int = 1280) -> tuple[Any, list[str]]:
        page, seen = browser.new_page(), []
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.on("request", lambda request: seen.append(f"asked for {request.url[:100]}"))
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.goto(file.as_uri())
        seen.remove(f"asked for {file.as_uri()}"[: len("asked for ") + 100])
        return page, seen

    yield opened
    for page in pages:
        page.close()


def complaints(page: Any) -> list[str]:
    """The problems of a page: elements outside the window, and accessibility violations."""
    found = too_wide(page)
    for violation in Axe().run(page).response["violations"]:
        nodes = [node["html"][:80] for node in violation["nodes"]]
        found.append(f"{violation['impact']}: {violation['id']}: {nodes[:3]}")
    return found


def too_wide(page: Any) -> list[str]:
    """Horizontal overflow, and elements outside the window."""
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    found = [f"{wide} pixels too wide"] if wide else []
    found += page.evaluate(
        """() => [...document.querySelectorAll("body *")]
          .filter(e => e.checkVisibility() && !e.closest(".scroll, svg, .skip, .checks thead"))
          .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
          .map(e => `outside: ${e.outerHTML.slice(0, 80)}`)"""
    )
    return found


@pytest.fixture
def show(visit: Any, tmp_path: Path) -> Any:
    """A function that opens the report page of a wheel, or a text, like ``visit``."""

    def opened(page: Evidence | str, *words: Any, **named: Any) -> Any:
        file = tmp_path / "report.html"
        text = page if isinstance(page, str) else report_page.render(page, COMMIT, CHARTS)
        file.write_text(text, encoding="utf-8")
        return visit(file, *words, **named)

    return opened


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_accessible(name: str, scheme: str, width: int, show: Any) -> None:
    page, seen = show(PAGES[name](), scheme, width)
    assert seen == []
    if name != "crowded":  # it is checked below, with open details; for the others that is slow
        assert complaints(page) == []
    if folder := os.environ.get("BLACKWHEEL_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}-{scheme}-{width}.png", full_page=True)
    for detail in page.locator("details").all():
        detail.locator("summary").click()
    assert (complaints if name == "crowded" else too_wide)(page) == []
    assert seen == []


def test_the_page_follows_the_colour_scheme(show: Any) -> None:
    colours = [
        show(proven(), scheme)[0].evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in SCHEMES
    ]
    light, dark = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
    assert light > 3 * 230
    assert dark < 3 * 40


def test_the_page_can_be_used_with_the_keyboard(show: Any) -> None:
    page, _ = show(proven(), width=360)
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    box = page.locator(".skip").bounding_box()
    assert box["x"] >= 0  # visible with the focus
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focused}.matches('.scroll')"):
            break
    assert page.evaluate(f"{focused}.getAttribute('aria-labelledby')") == "heat-title"
    outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
    assert outline == "solid"
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    for _ in range(100):  # wait_for_function needs eval, which the policy of the page forbids
        if page.evaluate(f"{focused}.scrollLeft"):
            break
        page.wait_for_timeout(50)
    assert page.evaluate(f"{focused}.scrollLeft") > 0
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.parentElement.open")


def test_tables_keep_their_roles_on_a_phone(show: Any) -> None:
    # In some browsers a style that removes the layout of a table also removes its role.
    page, _ = show(proven(), width=360)
    table = page.get_by_role("table", name="Device code")
    header = table.get_by_role(
        "rowheader", name="PTX, which the driver compiles, only if the target asks for it"
    )
    assert header.count() == 1
    assert table.get_by_role("cell").all_inner_texts() == ["none"]
    assert page.get_by_role("img", name="Timeline of the build").count() == 1


@pytest.mark.parametrize(("motion", "behaviour"), [("reduce", "auto"), ("no-preference", "smooth")])
def test_reduced_motion_disables_smooth_scrolling(motion: str, behaviour: str, show: Any) -> None:
    page, _ = show(proven())
    page.emulate_media(reduced_motion=motion)
    shown = page.evaluate("getComputedStyle(document.documentElement).scrollBehavior")
    assert shown == behaviour


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ('<img alt="x" src="http://127.0.0.1:9/x.png">', "asked for http://127.0.0.1:9/x.png"),
        ("<script>console.log('hello')</script>", "console: hello"),
        ("<script>throw new Error('bad')</script>", "error: bad"),
        ('<p style="width:90rem">x</p>', "pixels too wide"),
        ('<p style="width:90rem">x</p>', "outside: <p style"),
        ('<p style="color:#ccc;background:#fff">hardly to be read</p>', "serious: color-contrast"),
        ('<h2>a</h2><h5 id="checks">b</h5>', "moderate: heading-order"),
        ('<img src="data:,">', "critical: image-alt"),
    ],
)
def test_a_bad_page_is_noticed(bad: str, problem: str, show: Any) -> None:
    """The tests above can fail. The policy of the page, which would block it, is removed."""
    text = report_page.render(untested(), COMMIT)
    head, _, rest = text.partition('<meta http-equiv="Content-Security-Policy"')
    rest = rest.partition("\n")[2]
    page, seen = show(f"{head}{rest.replace('<footer>', f'{bad}<footer>')}", width=360)
    assert any(problem in line for line in [*seen, *complaints(page)])


def test_the_policy_blocks_hostile_content(show: Any) -> None:
    text = report_page.render(untested(), COMMIT)
    with socket.create_server(("127.0.0.1", 0)) as server:
        image = f'<img alt="x" src="http://127.0.0.1:{server.getsockname()[1]}/x.png">'
        bad = f'{image}<script>document.title = "x"</script>'
        page, seen = show(text.replace("<footer>", f"{bad}<footer>"))
        server.settimeout(1)
        with pytest.raises(TimeoutError):
            server.accept()  # no request
    assert page.title() == "llama-cpp-python 0.3.16 for rtx50: UNTESTED"
    assert sum("Content Security Policy" in line for line in seen) == 2
