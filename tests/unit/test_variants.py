"""Variant wheels: they equal the plain wheel, except for variant.json and RECORD."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from pathlib import Path

import pytest

from sessions.release.index import variants
from sessions.verify import metadata
from tests import tiny

INFO = "llama_cpp_python-0.3.16.dist-info"


@pytest.mark.parametrize(
    ("cuda", "archs", "driver", "sm"),
    [
        ("13.1", ("120-real",), "13.0", ["120_real"]),
        ("13.1", ("120a-real",), "13.0", ["120_real"]),
        ("12.8", ("89-real", "86-real"), "12.0", ["86_real", "89_real"]),
        # The driver compiles PTX, so it must support that CUDA version.
        ("13.1", ("100",), "13.1", ["100_real", "100_virtual"]),
        ("13.1", ("86-real", "90-virtual"), "13.1", ["86_real", "90_virtual"]),
    ],
)
def test_the_required_properties(
    cuda: str, archs: tuple[str, ...], driver: str, sm: list[str]
) -> None:
    assert variants.properties(cuda, archs) == {
        "nvidia": {"cuda_version_lower_bound": [driver], "sm_arch": sm}
    }


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A wheel whose members differ in time, kind and compression."""
    path = tiny.wheel(tmp_path / "plain", "rtx50", filler=2000)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("llama_cpp/lib/", (2020, 1, 2, 3, 4, 6)), b"")
        library = zipfile.ZipInfo("llama_cpp/lib/libllama.so", (2020, 1, 2, 3, 4, 8))
        library.compress_type = zipfile.ZIP_DEFLATED
        library.external_attr = 0o100755 << 16
        archive.writestr(library, b"machine code " * 500)
    return path


def variant_of(plain: Path, folder: Path) -> Path:
    folder.mkdir()
    needs = variants.properties("13.1", ("120-real",))
    return variants.make(plain, folder, "cu131_sm120", needs)


def test_a_variant_wheel_differs_only_in_variant_json_and_record(
    plain: Path, tmp_path: Path
) -> None:
    path = variant_of(plain, tmp_path / "out")
    assert path.name == f"llama_cpp_python-0.3.16-{tiny.TAG}-cu131_sm120.whl"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path) as new:
        names = [i.filename for i in new.infolist()]
        added = f"{INFO}/variant.json"
        assert [name for name in names if name != added] == [i.filename for i in old.infolist()]
        assert names.index(added) == names.index(f"{INFO}/RECORD") - 1
        for before in old.infolist():
            after = new.getinfo(before.filename)
            for part in ("date_time", "compress_type", "external_attr", "create_system"):
                assert getattr(after, part) == getattr(before, part)
            if before.filename != f"{INFO}/RECORD":
                assert new.read(after) == old.read(before)
        content = json.loads(new.read(added))
    assert list(content["variants"]) == ["cu131_sm120"]
    assert content["default-priorities"]["namespace"] == list(content["providers"]) == ["nvidia"]


def test_record_has_every_member(tmp_path: Path) -> None:
    plain = tiny.wheel(tmp_path / "plain", "rtx50")
    with zipfile.ZipFile(variant_of(plain, tmp_path / "out")) as archive:
        texts = {name: archive.read(name) for name in archive.namelist()}
    sizes = {name: len(text) for name, text in texts.items()}
    digests = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    assert list(metadata.record_problems(texts, sizes, digests)) == []
    texts[f"{INFO}/variant.json"] += b" "
    digests[f"{INFO}/variant.json"] = hashlib.sha256(texts[f"{INFO}/variant.json"]).hexdigest()
    assert list(metadata.record_problems(texts, sizes, digests)) != []  # and it is looked at


def test_a_variant_wheel_is_reproducible(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = variant_of(plain, tmp_path / "first").read_bytes()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(4e9))
    assert variant_of(plain, tmp_path / "second").read_bytes() == first


def test_a_wheel_without_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"llama_cpp_python-0.3.16-{tiny.TAG}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llama_cpp/__init__.py", "")
    with pytest.raises(KeyError, match="RECORD"):
        variant_of(path, tmp_path / "out")
