"""``index``: one package index of several ``dist/``, each as it was released."""

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
    """What ``release`` left on one system, with a GPU wheel and one for the CPU."""
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
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of a command line are those of this session."""
    parse = parse_options.parse
    monkeypatch.setattr(fakes, "parsed", lambda *words: parse(words, ["index"]))


def test_linux_and_windows_and_two_versions_are_in_one_index(tmp_path: Path) -> None:
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


def test_next_month_goes_on_from_the_index_of_this(tmp_path: Path) -> None:
    site = index(tmp_path, dist(tmp_path / "a", version="0.3.15"))
    again = index(tmp_path, site, dist(tmp_path / "b"))
    assert len(list(again.glob("*/release.json"))) == 4
    assert not list(tmp_path.glob(".site*"))


def test_the_same_release_in_two_folders_is_there_once(tmp_path: Path) -> None:
    site = index(tmp_path, dist(tmp_path / "a"), dist(tmp_path / "b"))
    assert len(list(site.glob("*/release.json"))) == 2


def test_two_wheels_of_one_name_are_refused_and_the_old_index_stays(tmp_path: Path) -> None:
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
def test_a_folder_that_was_changed_is_refused(name: str, tmp_path: Path) -> None:
    folder = dist(tmp_path / "a")
    (folder / name).write_text("changed")
    with raises("index-dist-changed") as caught:
        index(tmp_path, folder)
    assert name in caught.value.evidence
    assert not (tmp_path / "site").exists()


def test_a_wheel_that_its_record_does_not_name_is_refused(tmp_path: Path) -> None:
    # contents.json was written anew by whoever changed the wheel; the release's record was not.
    folder = dist(tmp_path / "a")
    next(folder.glob("rtx50/*.whl")).write_bytes(b"another")
    dist_contents.write(folder)
    with raises("index-file-changed"):
        index(tmp_path, folder)


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
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
def test_what_names_no_folder_is_refused_first(words: tuple[str, ...], id: str) -> None:
    with raises(id) as caught:
        option_values.check(parse_options.parse(words, ["index"]), ["index"], "")
    assert caught.value.code == USAGE


def test_no_other_session_takes_folders() -> None:
    with raises("option-unknown"):
        parse_options.parse(["dist"], ["release"])
