"""The static index: its pages match the releases, and no installer gets another GPU's wheel."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import posixpath
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from sessions.release.index import builder, choose_page
from sessions.release.record_types import PythonWheel
from sessions.shared import knowledge, programs, records
from tests import tiny
from tests.html_page import Page
from tests.problems import raises

PROJECT = "simple/llama-cpp-python"
PLAIN = f"llama_cpp_python-0.3.16-{tiny.TAG}.whl"


def anchors(folder: Path) -> dict[str, dict[str, str]]:
    links = Page((folder / "index.html").read_text(encoding="utf-8")).links
    assert len(dict(links)) == len(links), "a name twice on one page"
    return dict(links)


def data(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return value


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    tiny.all_cards(tmp_path / "dist")
    builder.write(tmp_path / "dist")
    return tmp_path / "dist"


@pytest.mark.parametrize(
    ("cuda", "archs", "output"),
    [
        (None, (), "cpu"),
        ("13.1", ("120-real",), "cu131-sm120"),
        ("13.1", ("120a-real",), "cu131-sm120a"),
        ("12.8", ("86-real", "89-real"), "cu128-sm86-sm89"),
        ("13.1", ("100",), "cu131-sm100-ptx100"),
        ("13.1", ("90-virtual",), "cu131-ptx90"),
    ],
)
def test_the_name_of_an_index(cuda: str | None, archs: tuple[str, ...], output: str) -> None:
    assert builder.label(cuda, archs) == output


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cpu", "--target cpu"),
        ("cpu+v0.3.36", "--target cpu --version 0.3.36"),
        ("rtx50+toolkit-my_cuda", "--target rtx50 --toolkit '/opt/my cuda'"),
        ("rtx50+cmake-GGML_CUDA_GRAPHS-OFF", "--target rtx50 --cmake GGML_CUDA_GRAPHS=OFF"),
    ],
)
def test_remedies_have_the_arguments_of_the_release(
    tmp_path: Path, target: str, words: str
) -> None:
    arguments = shlex.split(words)
    release = tiny.release(tmp_path, target, None, version="0.3.36", arguments=arguments)
    words = programs.typed(arguments)
    assert builder.command("publish", release, "--to", "X") == f"nox -s publish -- {words} --to X"
    (tmp_path / target / release.file).unlink()
    with raises("index-file-changed") as caught:
        builder.releases(tmp_path)
    assert caught.value.remedy == f"nox -s release -- {words}"


def test_each_gpu_has_an_index_with_only_its_wheel(dist: Path) -> None:
    subs = sorted(p.parent.name for p in dist.glob("*/simple"))
    assert subs == ["cpu", "cu131-sm120", "cu131-sm120a", "cu131-sm90"]
    for sub, target in (("cu131-sm120", "rtx50"), ("cu131-sm90", "hopper"), ("cpu", "cpu")):
        page = anchors(dist / sub / PROJECT)
        assert list(page) == [PLAIN]
        path = dist / sub / PROJECT / urldefrag(page[PLAIN]["href"])[0]
        assert path.resolve() == (dist / target / PLAIN).resolve()


def test_values_of_a_record_are_escaped(tmp_path: Path) -> None:
    release = tiny.release(tmp_path, "cpu", None)
    evil = dataclasses.replace(release, devices=("<script>1",), files={"<b>": "0" * 64})
    page = choose_page.render("x", [choose_page.Offer("<i>", "<i>", evil, evil.system)])
    assert not re.search("<script>1|<b>|<i>", page)
    assert "&lt;script&gt;1" in page


def test_only_untested_wheels_are_marked_on_every_page(dist: Path) -> None:
    pages = {path.parent: path.read_text() for path in dist.glob(f"*/{PROJECT}/index.html")}
    pages[dist / PROJECT] = (dist / PROJECT / "index.html").read_text()
    for folder, page in pages.items():
        of_fp4 = [name for name in anchors(folder) if "0.3.36" in name and name.endswith(".whl")]
        assert page.count("UNTESTED") == len(of_fp4)
        output = [entry["filename"] for entry in data(folder)["files"] if entry.get("_untested")]
        assert output == of_fp4
    assert sum("UNTESTED" in page for page in pages.values()) == 2


def test_the_index_of_all_has_no_plain_gpu_wheel(dist: Path) -> None:
    # Otherwise an installer without support for variants would take one of them.
    names = list(anchors(dist / PROJECT))
    plain = []
    for name in names:
        with contextlib.suppress(InvalidWheelFilename):
            parse_wheel_filename(name)
            plain.append(name)
    assert plain == [PLAIN]
    assert anchors(dist / PROJECT)[PLAIN]["href"].startswith("../../cpu/")
    stem = PLAIN.removesuffix(".whl")
    newer = stem.replace("0.3.16", "0.3.36")
    assert [name for name in names if name not in plain] == [
        f"{stem}-cu131_sm120.whl",
        f"{stem}-cu131_sm90.whl",
        "llama_cpp_python-0.3.16-variants.json",
        f"{newer}-cu131_sm120a.whl",
        "llama_cpp_python-0.3.36-variants.json",
    ]


def pages(dist: Path) -> list[Path]:
    return [dist / "simple", *dist.glob("*/simple")]


def test_every_link_is_relative_and_has_the_hash_of_its_file(dist: Path) -> None:
    seen = 0
    for page in pages(dist):
        assert anchors(page) == {"llama-cpp-python": {"href": "llama-cpp-python/"}}
        folder = page / "llama-cpp-python"
        for name, attrs in anchors(folder).items():
            href, fragment = urldefrag(attrs["href"])
            assert not re.match(r"[a-z]+:|/", href)
            path = folder / unquote(href)
            assert path.name == name
            assert fragment == f"sha256={hashlib.sha256(path.read_bytes()).hexdigest()}"
            if name.endswith(".whl"):
                metadata = path.with_name(path.name + ".metadata").read_bytes()
                assert metadata.startswith(b"Metadata-Version: 2.1\nName: llama_cpp_python\n")
                digest = f"sha256={hashlib.sha256(metadata).hexdigest()}"
                assert attrs["data-core-metadata"] == digest
                assert attrs["data-dist-info-metadata"] == digest
                assert attrs["data-requires-python"] == ">=3.8,<4"
            else:
                assert attrs.keys() == {"href"}
            seen += 1
    assert seen == 4 + 6


def test_json_and_html_agree(dist: Path) -> None:
    for page in pages(dist):
        assert data(page) == {
            "meta": {"api-version": "1.1"},
            "projects": [{"name": "llama-cpp-python"}],
        }
        folder = page / "llama-cpp-python"
        listing = data(folder)
        assert (listing["meta"], listing["name"]) == ({"api-version": "1.1"}, "llama-cpp-python")
        assert listing["versions"] == sorted(
            {f["filename"].split("-")[1] for f in listing["files"]}
        )
        found = anchors(folder)
        assert [f["filename"] for f in listing["files"]] == list(found)
        for file in listing["files"]:
            attrs = found[file["filename"]]
            assert f"{file['url']}#sha256={file['hashes']['sha256']}" == attrs["href"]
            assert file["size"] == (folder / unquote(file["url"])).stat().st_size
            assert file.get("requires-python") == attrs.get("data-requires-python")
            metadata = file.get("core-metadata", {}).get("sha256")
            assert file.get("dist-info-metadata", {}).get("sha256") == metadata
            assert attrs.get("data-core-metadata") == (f"sha256={metadata}" if metadata else None)
            # The time is the time of the test; an untested wheel has none.
            untested = "0.3.36" in file["filename"] or not file["filename"].endswith(".whl")
            assert file.get("upload-time") == (None if untested else tiny.PROVEN)


def test_the_index_is_reproducible(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(dist)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(4e9))
    builder.write(dist)
    assert tree(dist) == before
    other = tmp_path / "other"
    tiny.all_cards(other)
    builder.write(other)
    assert tree(other) == before


def test_deleted_releases_leave_the_index(dist: Path) -> None:
    (dist / "hopper" / "release.json").unlink()
    builder.write(dist)
    assert not (dist / "cu131-sm90" / "simple").exists()
    assert not (dist / "hopper" / f"{PLAIN}.metadata").exists()
    assert not [name for name in tree(dist / "simple") if "sm90" in name]
    assert "sm90" not in (dist / "simple/llama-cpp-python/index.json").read_text(encoding="utf-8")
    assert "hopper" not in (dist / "index.html").read_text(encoding="utf-8")
    for path in dist.glob("*/release.json"):
        path.unlink()
    builder.write(dist)
    assert [name for name in tree(dist) if "simple" in name or "index" in name] == []
    assert builder.releases(dist) == ()


def test_releases_for_one_gpu_share_an_index(dist: Path) -> None:
    tiny.release(dist, "rtx50+v0.3.9", "13.1", ("120-real",), version="0.3.9")
    windows = "cp311-cp311-win_amd64"
    tiny.release(dist, "windows", "13.1", ("120-real",), tag=windows)
    builder.write(dist)
    listing = data(dist / "cu131-sm120" / PROJECT)
    assert listing["versions"] == ["0.3.9", "0.3.16"]
    assert [f["url"] for f in listing["files"]] == [
        f"../../../rtx50/{PLAIN}",
        f"../../../windows/llama_cpp_python-0.3.16-{windows}.whl",
        f"../../../rtx50%2Bv0.3.9/llama_cpp_python-0.3.9-{tiny.TAG}.whl",
    ]
    output = json.loads((dist / PROJECT / "llama_cpp_python-0.3.16-variants.json").read_text())
    assert sorted(output["variants"]) == ["cu131_sm120", "cu131_sm90"]


def test_two_wheels_with_one_name_for_one_gpu_are_refused(dist: Path) -> None:
    before = tree(dist)
    before.pop("contents.json")  # it changes with the additional release
    tiny.release(dist, "rtx50+arch", "13.1", ("120-real",))
    with raises("index-same-name") as caught:
        builder.write(dist)
    assert f"rtx50/{PLAIN}\nrtx50+arch/{PLAIN}" == caught.value.evidence
    assert before.items() <= tree(dist).items()  # the index was not changed


def test_a_wheel_of_two_targets_is_listed_once(dist: Path) -> None:
    release = tiny.release(dist, "cpu", None)
    twin = dist / "cpu+twin"
    twin.mkdir()
    for name in (release.file, *release.files):
        (twin / name).write_bytes((dist / "cpu" / name).read_bytes())
    twin_release = dataclasses.replace(release, target="cpu+twin")
    records.write(twin / "release.json", "release", twin_release)
    builder.write(dist)
    assert list(anchors(dist / "cpu" / PROJECT)) == [PLAIN]


@pytest.mark.parametrize("name", [PLAIN, "WHEEL.md", "SHA256SUMS"])
def test_a_changed_or_missing_file_is_refused(dist: Path, name: str) -> None:
    path = dist / "hopper" / name
    path.write_bytes(path.read_bytes() + b"\0")
    with raises("index-file-changed") as caught:
        builder.write(dist)
    assert str(path) in caught.value.evidence
    path.unlink()
    with raises("index-file-changed"):
        builder.write(dist)


@pytest.mark.parametrize(
    "damage", ["", "{}", '{"schema": 1, "kind": "release", "ok": false}', None]
)
def test_a_damaged_or_wrong_record_is_refused(dist: Path, damage: str | None) -> None:
    other = (dist / "cpu" / "release.json").read_text()  # of another folder
    (dist / "hopper" / "release.json").write_text(other if damage is None else damage)
    with raises("index-record-unreadable") as caught:
        builder.write(dist)
    assert caught.value.remedy == "release hopper again with nox -s release"


def test_the_wheel_selection_page_has_a_command_for_each_wheel(dist: Path) -> None:
    text = (dist / "index.html").read_text(encoding="utf-8")
    lines = re.sub(r"<[^>]+>", "", text)
    base = "pip install --only-binary llama-cpp-python --extra-index-url ADDRESS-OF-THIS-FOLDER/"
    assert f"{base}cu131-sm90/simple/ llama-cpp-python==0.3.16" in lines
    assert f"{base}cu131-sm120a/simple/ llama-cpp-python==0.3.36" in lines
    assert lines.count("UNTESTED") == 1
    assert "H100, H200 (9.0)" in lines
    assert "GeForce RTX 50, RTX PRO Blackwell (12.0) with native FP4" in lines
    assert "Tested on the GPU, 2026-11-23" in lines
    links = [attributes["href"] for _, attributes in Page(text).links]
    local = [link for link in links if not link.startswith(("#", "https://pypi.org/"))]
    assert len(local) == 2 * 4  # the card and the file of each
    for link in local:
        assert (dist / unquote(link)).is_file()


def test_the_kinds_of_gpus_that_can_run_a_wheel(tmp_path: Path) -> None:
    def able(*archs: str, tag: str = tiny.TAG) -> list[str]:
        release = tiny.release(tmp_path, "rtx50", "13.1" if archs else None, archs, tag=tag)
        return choose_page.kinds(release)

    assert able("120-real") == ["12.0"]
    assert able("120a-real") == ["12.0"]
    assert able("90-real", "89-real") == ["9.0", "8.9"]
    assert able("100") == ["12.0", "10.0", "10.3"]
    assert able() == ["cpu"]
    arm = "cp311-cp311-manylinux_2_28_aarch64"
    # Machine code for 12.0 runs on 12.1; compute capability 9.0 exists with an Arm processor too.
    assert able("120-real", tag=arm) == ["12.0", "12.1-arm"]
    assert able("90-real", tag=arm) == ["9.0", "9.0-arm"]


def test_every_gpu_of_the_page_has_one_kind_and_a_source() -> None:
    named: dict[str, str] = {}
    for _, names in choose_page.gpus():
        for name, kind in names:
            assert named.setdefault(name, kind) == kind
            capability = kind.removesuffix("-arm")
            assert int(capability.replace(".", "")) in knowledge.capability_names()
    assert {"RTX 5090", "RTX 5080", "RTX 5070 Ti", "RTX PRO 6000 Workstation"} <= set(named)
    assert named["GH200"] == "9.0-arm"
    # NVIDIA's page omits some names; they have the capability of a GPU with the same chip.
    for row in knowledge.load("gpus.toml")["family"]:
        beyond = [name for name in row["names"] if re.search("Laptop|SUPER| D", name)]
        needed = {"page", "devices"} if beyond else {"page"}
        assert needed <= set(re.findall(r"\w+", row["source"])), row["family"]


def test_the_policy_of_the_page_allows_only_its_script(dist: Path) -> None:
    text = (dist / "index.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=.(https?:)?//(?!pypi\.org)", text)


def test_the_index_has_the_wheels_for_other_pythons(tmp_path: Path) -> None:
    first = tiny.release(tmp_path, "rtx50", "13.1", ("120-real",))
    other = tiny.wheel(tmp_path / "rtx50", "rtx50", tag=tiny.TAG.replace("cp311", "cp312"))
    more = PythonWheel("3.12", other.name, records.file_sha256(other), other.stat().st_size)
    release = dataclasses.replace(first, pythons=(more,))
    records.write(tmp_path / "rtx50" / "release.json", "release", release)
    builder.write(tmp_path)
    assert sorted(anchors(tmp_path / "cu131-sm120" / PROJECT)) == [first.file, other.name]
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'data-python="3.11 3.12"' in text
    assert "Python 3.11 to 3.12" in text
    assert len(data(tmp_path / PROJECT)["files"]) == 3  # and variants.json
    other.write_bytes(b"changed")
    with raises("index-file-changed"):
        builder.write(tmp_path)


@pytest.mark.parametrize(
    ("tag", "system"),
    [
        ("manylinux_2_17_x86_64.manylinux2014_x86_64", "linux-x86_64"),
        ("manylinux_2_39_aarch64", "linux-aarch64"),
        ("win_amd64", "windows-x86_64"),
        ("win_arm64", "windows-arm64"),
    ],
)
def test_the_system_of_a_release(tag: str, system: str, tmp_path: Path) -> None:
    assert tiny.release(tmp_path, "cpu", None, tag=f"cp311-cp311-{tag}").system == system


def test_a_cpu_wheel_needs_no_variants(tmp_path: Path) -> None:
    tiny.release(tmp_path, "cpu", None)
    builder.write(tmp_path)
    assert list(anchors(tmp_path / PROJECT)) == [PLAIN]
    everything = "".join(p.read_text() for p in tmp_path.rglob("index.html"))
    assert "wheel-variants" not in everything


def test_special_characters_in_a_name_are_quoted(tmp_path: Path) -> None:
    # Windows allows no file names with these characters of HTML.
    name = "a b+&ñ" if sys.platform == "win32" else 'a b+"<ñ>'
    release = tiny.release(tmp_path, name, None)
    builder.write(tmp_path)
    for folder in (tmp_path / PROJECT, tmp_path / "cpu" / PROJECT):
        href = unquote(urldefrag(anchors(folder)[release.file]["href"])[0])
        assert (folder / href).resolve() == (tmp_path / release.target / release.file).resolve()
        assert posixpath.basename(href) == release.file
