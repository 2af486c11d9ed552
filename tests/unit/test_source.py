"""Unpacking a source, finding edited files, a checkout of the user, locking a release."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from sessions.fetch import build_tools, main_source
from sessions.fetch.record_types import Pristine, Source
from sessions.fetch.source_filter import PRISTINE
from sessions.shared import disk, knowledge, locks, records, venvs
from sessions.shared.context import Context
from sessions.shared.knowledge import Sdist
from tests import fakes
from tests.problems import raises

SDIST = Sdist("1.0", "llama_cpp_python-1.0.tar.gz", "00ff", 1667997441, None)


def archive(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    return archive(tmp_path / "a.tar.gz", {"top-1.0/CMakeLists.txt": b"x", "top-1.0/docs/a": b"y"})


def test_unpack_leaves_the_files_that_a_build_reads_and_their_digests(
    tmp_path: Path, sdist: Path
) -> None:
    folder = tmp_path / "src" / "1.0"
    main_source.unpack(sdist, folder, SDIST)
    assert (folder / "CMakeLists.txt").read_bytes() == b"x"
    assert not (folder / "docs").exists()
    noted = records.need(folder / PRISTINE, "pristine", Pristine)
    digests = {"CMakeLists.txt": hashlib.sha256(b"x").hexdigest()}
    assert (noted.sdist, noted.files) == (SDIST.sha256, digests)
    assert main_source._pristine(folder, SDIST) == digests
    assert main_source._pristine(folder, dataclasses.replace(SDIST, sha256="11" * 32)) is None
    assert [p.name for p in folder.parent.iterdir()] == ["1.0"]
    (folder / "CMakeLists.txt").write_bytes(b"edited")
    main_source.unpack(sdist, folder, SDIST)
    assert (folder / "CMakeLists.txt").read_bytes() == b"x"
    disk.remove(folder)  # the folder is marked as ours
    assert not folder.exists()


@pytest.mark.parametrize("which", ["staging_excludes", "staging_keeps"])
def test_a_source_unpacked_with_another_filter_is_not_pristine(
    which: str, tmp_path: Path, sdist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "1.0"
    main_source.unpack(sdist, folder, SDIST)
    assert main_source._pristine(folder, SDIST) is not None
    folders = {"staging_excludes": (), "staging_keeps": ("docs/",)}[which]
    monkeypatch.setattr(knowledge, which, lambda: folders)
    assert main_source._pristine(folder, SDIST) is None
    main_source.unpack(sdist, folder, SDIST)
    assert set(main_source._pristine(folder, SDIST) or ()) == {"CMakeLists.txt", "docs/a"}


def test_unpack_does_not_replace_a_folder_without_our_mark(tmp_path: Path, sdist: Path) -> None:
    (tmp_path / "1.0").mkdir()
    (tmp_path / "1.0" / "mine").touch()
    with raises("folder-without-mark"):
        main_source.unpack(sdist, tmp_path / "1.0", SDIST)
    assert (tmp_path / "1.0" / "mine").exists()


@pytest.mark.parametrize(
    ("members", "links"),
    [
        ({"top-1.0/../../outside": b"x"}, {}),
        ({"top-1.0/ok": b"x"}, {"top-1.0/link": "/etc/passwd"}),
        ({"top-1.0/ok": b"x"}, {"top-1.0/link": "../../../outside"}),
    ],
)
def test_an_archive_with_a_path_outside_is_refused(
    tmp_path: Path, members: dict[str, bytes], links: dict[str, str]
) -> None:
    (tmp_path / "deep").mkdir()
    sdist = archive(tmp_path / "a.tar.gz", members, links)
    with raises("source-archive-unsafe"):
        main_source.unpack(sdist, tmp_path / "deep" / "1.0", SDIST)
    assert not (tmp_path / "deep" / "1.0").exists()
    assert not (tmp_path / "outside").exists()


def checkout(folder: Path) -> Path:
    for name in ("llama_cpp/__init__.py", "vendor/llama.cpp/CMakeLists.txt", "llama_cpp/lib/a.so"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('__version__ = "0.3.99"\n')
    return folder


def test_a_checkout_has_a_version_and_a_digest_without_its_libraries(tmp_path: Path) -> None:
    first = main_source.checkout(checkout(tmp_path))
    assert (first.version, first.sdist_sha256) == ("0.3.99", None)
    (tmp_path / "llama_cpp" / "lib" / "a.so").write_text("another build")
    assert main_source.checkout(tmp_path).digest == first.digest
    (tmp_path / "vendor" / "llama.cpp" / "CMakeLists.txt").write_text("edited")
    assert main_source.checkout(tmp_path).digest != first.digest


def test_a_folder_that_is_not_a_complete_checkout_is_refused(tmp_path: Path) -> None:
    with raises("source-not-upstream"):
        main_source.checkout(tmp_path)
    (checkout(tmp_path) / "vendor" / "llama.cpp" / "CMakeLists.txt").unlink()
    with raises("source-without-llama-cpp") as error:
        main_source.checkout(tmp_path)
    assert error.value.remedy == f"git -C {tmp_path} submodule update --init --recursive"


def test_two_checkouts_with_one_cache_download_a_source_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdist = archive(tmp_path / SDIST.file, {"top-1.0/CMakeLists.txt": b"x"})
    locked = dataclasses.replace(SDIST, sha256=records.file_sha256(sdist))
    downloads: list[Path] = []
    checked: list[str] = []

    def pip(ctx: Context, venv: Path, words: Sequence[str], what: str) -> str:
        assert not locks.is_free(ctx.cached_lock(SDIST.file))
        folder = Path(dict(itertools.pairwise(words))["-d"])
        downloads.append(folder)
        shutil.copyfile(sdist, folder / SDIST.file)
        return ""

    def room(needs: dict[Path, int], what: str) -> None:
        checked.extend(folder.name for folder in needs)

    monkeypatch.setattr(venvs, "pip", pip)
    monkeypatch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    monkeypatch.setattr(disk, "room", room)
    for name in ("one", "two"):
        ctx = fakes.context(tmp_path / name, session="source", cache=tmp_path / "cache")
        _, fresh = main_source._locked(ctx, locked)
        assert fresh
        assert (tmp_path / name / "llama-cpp-python-src" / "1.0" / "CMakeLists.txt").exists()
    assert [folder.parent for folder in downloads] == [tmp_path / "cache" / "tmp"]
    assert checked == ["downloads", "1.0", "1.0"]
    assert [path.name for path in (tmp_path / "cache" / "downloads").iterdir()] == [SDIST.file]


# ---- A release that this repository does not lock ------------------------------------------------


def test_a_release_is_locked_in_the_cache_at_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(knowledge, "_KEPT", {})
    monkeypatch.setattr(build_tools, "tools", lambda ctx: tmp_path)
    ctx = fakes.context(tmp_path)
    ctx = dataclasses.replace(ctx, spec=fakes.cpu_spec(version="9.9.9"))

    def pip(ctx: Context, venv: Path, words: Sequence[str], what: str) -> str:
        assert words[-1] == "llama-cpp-python==9.9.9"
        folder = Path(words[words.index("-d") + 1])
        settings = b'[tool.scikit-build]\nwheel.py-api = "py3"\n'
        files = {"PKG-INFO": b"Name: x", "pyproject.toml": settings, "CMakeLists.txt": b""}
        archive(
            folder / "x-9.9.9.tar.gz", {f"x-9.9.9/{name}": data for name, data in files.items()}
        )
        return ""

    monkeypatch.setattr(venvs, "pip", pip)
    main_source.main(ctx)
    locked = knowledge.sdists()["9.9.9"]
    assert locked.py_api == "py3"
    assert locked.sha256 == records.file_sha256(ctx.cache / "downloads" / "x-9.9.9.tar.gz")
    assert "is not locked in this repository" in capsys.readouterr().out
    monkeypatch.setattr(venvs, "pip", lambda *_: pytest.fail("downloaded again"))
    main_source.main(ctx)
    source = records.need(ctx.record("source"), "source", Source)
    assert (source.version, source.sdist_sha256, source.edited) == ("9.9.9", locked.sha256, ())
    # Another file of that name is refused from now on.
    knowledge._KEPT["9.9.9"] = dataclasses.replace(locked, sha256="0" * 64)
    with pytest.raises(pytest.fail.Exception):
        main_source.main(ctx)
