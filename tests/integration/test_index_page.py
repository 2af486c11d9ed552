"""The wheel selection page in a browser: three sizes, two themes, keyboard, without JavaScript.

``BLACKWHEEL_SCREENSHOTS=FOLDER`` saves a screenshot of each size and theme.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from sessions.release.index import builder
from sessions.release.record_types import PythonWheel
from sessions.shared import records
from tests import tiny
from tests.integration.test_report_page import browser, complaints, visit  # noqa: F401

WIDTHS = (360, 768, 1280)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page for two systems, Pythons and versions, with tested and untested wheels."""
    dist = tmp_path_factory.mktemp("index") / "dist"
    first = tiny.release(dist, "rtx50", "13.1", ("120-real",), tested=False)
    other = tiny.wheel(dist / "rtx50", "rtx50", tag=tiny.TAG.replace("cp311", "cp312"))
    more = PythonWheel("3.12", other.name, records.file_sha256(other), other.stat().st_size)
    named = {
        "rtx50": dataclasses.replace(first, pythons=(more,)),
        "rtx50-0.3.16-windows-x86_64": dataclasses.replace(
            tiny.release(
                dist, "rtx50-0.3.16-windows-x86_64", "13.1", ("120-real",),
                tag="cp311-cp311-win_amd64", tested=False,
            ),
            target="rtx50",
        ),
        "hopper": dataclasses.replace(
            tiny.release(dist, "hopper", "13.1", ("90-real",)), devices=("NVIDIA H200 (9.0)",)
        ),
        "cpu": dataclasses.replace(tiny.release(dist, "cpu", None), devices=("the CPU",)),
    }  # fmt: skip
    for folder, release in named.items():
        records.write(dist / folder / "release.json", "release", release)
    tiny.release(
        dist, "rtx50-fp4", "13.1", ("120a-real",), version="0.3.36", tested=False,
        tag="py3-none-manylinux_2_35_x86_64",
    )  # fmt: skip
    builder.write(dist)
    return dist / "index.html"


def shown(page: Any) -> list[str]:
    rows: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("#wheels tbody tr")]
          .filter(row => row.checkVisibility()).map(row => row.querySelector("th").innerText)"""
    )
    return rows


def lines(page: Any) -> list[str]:
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("#wheels [data-tool] code")]
          .filter(line => line.checkVisibility()).map(line => line.textContent)"""
    )
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_is_accessible_in_each_size_and_theme(
    page: Path,
    visit: Any,  # noqa: F811
    scheme: str,
    width: int,
) -> None:
    opened, seen = visit(page, scheme, width)
    assert len(shown(opened)) == 5
    found = complaints(opened)
    if folder := os.environ.get("BLACKWHEEL_SCREENSHOTS"):
        opened.screenshot(path=Path(folder) / f"index-{scheme}-{width}.png", full_page=True)
    # On a phone the two columns are below each other and have the full width.
    wide = opened.evaluate(
        """document.querySelector("#wheels tbody th").getBoundingClientRect().width
        / document.querySelector("#wheels").getBoundingClientRect().width"""
    )
    assert (wide > 0.9) is (width == 360)
    assert found + seen == []


def test_the_selections_leave_one_command(
    page: Path,
    visit: Any,  # noqa: F811
) -> None:
    opened, seen = visit(page)
    opened.select_option("#gpu", label="RTX 5090")
    assert len(shown(opened)) == 3
    opened.select_option("#python", label="3.12")  # only for Linux
    assert [row.split("\n")[1].split(",")[0] for row in shown(opened)] == ["Linux x86-64"] * 2
    opened.select_option("#system", label="Windows x64")
    opened.select_option("#python", label="3.11")
    base = page.parent.as_uri() + "/cu131-sm120/simple/ llama-cpp-python==0.3.16"
    pip = "pip install --only-binary llama-cpp-python --extra-index-url "
    assert lines(opened) == [pip + base]
    opened.select_option("#tool", label="uv")
    assert lines(opened) == [f"uv pip install --index {base}"]
    assert opened.inner_text("#said") == "1 wheel fits."
    for gpu in ("no NVIDIA GPU", "GB10 (DGX Spark)", "GH200", "RTX 2080"):
        opened.select_option("#gpu", label=gpu)
        assert shown(opened) == [], gpu
        assert opened.is_visible("#none")
    assert complaints(opened) + seen == []


def test_the_button_copies_the_command(page: Path, visit: Any) -> None:  # noqa: F811
    opened, _ = visit(page)
    opened.select_option("#gpu", label="H200")
    opened.evaluate(
        """() => { window.got = []; navigator.clipboard.writeText = async t => got.push(t); }"""
        if opened.evaluate("!!navigator.clipboard")
        else """() => { window.got = []; document.execCommand = () => {
          got.push(String(getSelection())); return true; }; }"""
    )
    opened.click("#wheels tr:not([hidden]) [data-tool=pip] button")
    opened.wait_for_function("got.length === 1")
    assert opened.evaluate("got") == lines(opened)
    assert opened.inner_text("#said") == "The command was copied."


def test_the_page_can_be_used_with_the_keyboard(page: Path, visit: Any) -> None:  # noqa: F811
    opened, _ = visit(page)
    reached = []
    for _ in range(40):
        opened.keyboard.press("Tab")
        reached.append(
            opened.evaluate(
                "document.activeElement.id || document.activeElement.tagName.toLowerCase()"
            )
        )
    assert reached[1:5] == ["gpu", "system", "python", "tool"]
    again = reached.index("gpu", 2) if "gpu" in reached[2:] else len(reached)  # the next cycle
    assert reached[:again].count("button") == 5
    opened.focus("#gpu")
    opened.keyboard.type("RTX 5080")
    opened.keyboard.press("Enter")
    assert opened.input_value("#gpu") == "12.0"


def test_without_javascript_the_page_is_the_whole_table(page: Path, visit: Any) -> None:  # noqa: F811
    text = page.read_text(encoding="utf-8")
    bare = page.with_name("bare.html")
    start, end = text.index("<script>"), text.index("</script>")
    bare.write_text(text[:start] + text[end + len("</script>") :], encoding="utf-8")
    opened, seen = visit(bare, "light", 360)
    assert len(shown(opened)) == 5
    assert len(lines(opened)) == 10  # with pip and with uv
    assert not opened.is_visible("#choose")
    assert complaints(opened) + seen == []
