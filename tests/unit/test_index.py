"""``index``: one package index from several ``dist/`` folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions.command_line import option_values, parse_options
from sessions.release import dist_contents, main_index
from sessions.shared import disk
from sessions.shared.errors import USAGE
from tests import fakes, tiny
from tests.problems import raises

WINDOWS = "cp311-cp311-win_amd64"


def dist(folder: Path, *, tag: str = tiny.TAG, version: str = "0.3.16") -> Path:
    """A ``dist/`` with a GPU wheel and a CPU wheel for one system."""
    disk.mark(folder)
    tiny.release(folder, "rtx50", "13.1", ("120-real",), tag=tag, version=version)
    tiny.release(folder, "cpu", None, tag=tag, version=version)
    tiny.indexed(folder)
    return folder


def index(root: Path, *folders: Path) -> Path:
    words = map(str, folders)
    main_index.main(fakes.context(root, *words, session="index", asked=frozenset({"index"})))
    return root / "site"


def files(site: Path, sub: str) -> set[str]:
    listing = json.loads((site / sub / "simple" / "llama-cpp-python" / "index.json").read_text())
    return {file["filename"] for file in listing["files"]}


@pytest.fixture(autouse=True)
def parse_for_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse command lines for this session."""
    parse = parse_options.parse
    monkeypatch.setattr(fakes, "parsed", lambda *words: parse(words, ["index"]))


def test_one_index_has_two_systems_and_two_versions(tmp_path: Path) -> None:
    linux, windows = dist(tmp_path / "a"), dist(tmp_path / "b", tag=WINDOWS)
    older = dist(tmp_path / "c", version="0.3.15")
    site = index(tmp_path, linux, windows, older)
    names = {path.parent.name for path in site.glob("*/release.json")}
    assert names == {
        "rtx50-0.3.16-linux-x86_64", "cpu-0.3.16-linux-x86_64", "rtx50-0.3.16-windows-x86_64",
        "cpu-0.3.16-windows-x86_64", "rtx50-0.3.15-linux-x86_64", "cpu-0.3.15-linux-x86_64",
    }  # fmt: skip
    assert (
        files(site, "cu131-sm120")
        == files(site, "cpu")
        == {
            f"llama_cpp_python-0.3.16-{tiny.TAG}.whl",
            f"llama_cpp_python-0.3.16-{WINDOWS}.whl",
            f"llama_cpp_python-0.3.15-{tiny.TAG}.whl",
        }
    )
    assert dist_contents.changed(site) == ()
    page = (site / "index.html").read_text(encoding="utf-8")
    assert page.count('data-system="windows-x86_64"') == 2
    assert page.count('data-system="linux-x86_64"') == 4


def test_an_index_can_be_extended(tmp_path: Path) -> None:
    site = index(tmp_path, dist(tmp_path / "a", version="0.3.15"))
    again = index(tmp_path, site, dist(tmp_path / "b"), dist(tmp_path / "c"))  # b and c are equal
    assert len(list(again.glob("*/release.json"))) == 4
    assert not list(tmp_path.glob(".site*"))
    again.rename(tmp_path / ".site.old")  # a run was killed between the two renames
    assert len(list(index(tmp_path, site).glob("*/release.json"))) == 4


def test_two_different_wheels_of_one_release_are_refused(tmp_path: Path) -> None:
    one, two = dist(tmp_path / "a"), dist(tmp_path / "b")
    site = index(tmp_path, one)
    before = (site / "contents.json").read_bytes()
    tiny.release(two, "cpu", None, filler=9)
    tiny.indexed(two)
    with raises("index-same-name") as caught:
        index(tmp_path, one, two)
    assert str(two) in caught.value.evidence
    assert (site / "contents.json").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["rtx50/WHEEL.md", "rtx50/release.json", "index.html", "cpu/more.txt"]
)
def test_a_changed_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = dist(tmp_path / "a")
    (folder / name).write_text("changed")
    with raises("index-dist-changed") as caught:
        index(tmp_path, folder)
    assert name in caught.value.evidence
    assert not (tmp_path / "site").exists()


def test_a_wheel_that_differs_from_its_record_is_refused(tmp_path: Path) -> None:
    # Whoever changed the wheel also wrote contents.json again, but not the record of the release.
    folder = dist(tmp_path / "a")
    next(folder.glob("rtx50/*.whl")).write_bytes(b"another")
    dist_contents.write(folder)
    with raises("index-file-changed"):
        index(tmp_path, folder)


def test_a_folder_without_a_release_or_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with raises("index-not-a-dist"):
        index(tmp_path, tmp_path / "x")
    folder = dist(tmp_path / "a")
    (tmp_path / "site").mkdir()
    with raises("site-not-ours"):
        index(tmp_path, folder)


@pytest.mark.parametrize(
    ("words", "id"), [((), "option-missing"), (("gone",), "index-folder-missing")]
)
def test_a_missing_folder_is_a_usage_error(words: tuple[str, ...], id: str) -> None:
    with raises(id) as caught:
        option_values.check(parse_options.parse(words, ["index"]), ["index"], "")
    assert caught.value.code == USAGE


def test_other_sessions_accept_no_folders() -> None:
    with raises("option-unknown"):
        parse_options.parse(["dist"], ["release"])
