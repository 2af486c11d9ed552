"""Marked folders, deletion, atomic writes, free space, digests, locks, errors of the system."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from sessions.shared import disk, locks
from tests.problems import raises


def anything(_: str) -> bool:
    return True


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A marked folder with a folder, files and a link to a file outside in it."""
    folder = tmp_path / "ours"
    disk.mark(folder)
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c.txt").write_text("c")
    (folder / "d.txt").write_text("d")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept.txt").write_text("kept")
    with contextlib.suppress(OSError):  # Windows lets only some users make links
        (folder / "link").symlink_to(tmp_path / "outside")
    return folder


def test_mark_writes_a_cache_directory_tag(tmp_path: Path) -> None:
    disk.mark(tmp_path / "new" / "folder")
    tag = (tmp_path / "new" / "folder" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert disk.is_marked(tmp_path / "new" / "folder")


def test_mark_writes_the_tag_again_only_if_it_is_empty(ours: Path) -> None:
    before = (ours / disk.TAG).stat().st_mtime_ns
    disk.mark(ours)
    assert (ours / disk.TAG).stat().st_mtime_ns == before
    (ours / disk.TAG).write_bytes(b"")  # by a power failure
    disk.mark(ours)
    assert disk.is_marked(ours)


def test_a_marked_folder_is_deleted_and_nothing_outside_it(ours: Path) -> None:
    disk.remove(ours)
    assert not ours.exists()
    assert (ours.parent / "outside" / "kept.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("platform", "held", "waited"),
    [("win32", 0, 0), ("win32", 3, 3), ("win32", 99, 6), ("linux", 99, 0)],
)
def test_on_windows_put_tries_again_while_a_scanner_has_the_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, held: int, waited: int
) -> None:
    pauses, replace = list[float](), Path.replace

    def busy(part: Path, whole: Path) -> Path:
        if len(pauses) < held:
            raise PermissionError(13, "The process cannot access the file", str(part))
        return replace(part, whole)

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(Path, "replace", busy)
    (tmp_path / "part").mkdir()
    with contextlib.suppress(PermissionError) if held > 6 else contextlib.nullcontext():
        disk.put(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole").exists() is (held <= waited)
    assert len(pauses) == waited
    assert sum(pauses) < 10


def test_put_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    (tmp_path / "whole").write_text("old")
    disk.put(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole").read_text() == "new"


def test_remove_refuses_a_folder_without_our_mark(ours: Path) -> None:
    (ours / disk.TAG).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of pip\n")
    with raises("folder-without-mark") as caught:
        disk.remove(ours)
    assert str(ours) in caught.value.remedy
    disk.mark(ours)
    assert not disk.is_marked(ours), "the mark of another program was overwritten"
    (ours / disk.TAG).unlink()
    for folder in (ours, ours / "missing"):
        with raises("folder-without-mark"):
            disk.remove(folder)
    assert (ours / "a" / "b" / "c.txt").exists()


@pytest.mark.usefixtures("links")
def test_remove_refuses_a_link_to_a_marked_folder(ours: Path) -> None:
    link = ours.parent / "also"
    link.symlink_to(ours)
    with raises("folder-without-mark"):
        disk.remove(link)
    assert (ours / "d.txt").exists()


def test_an_interrupted_removal_can_be_continued(ours: Path) -> None:
    interrupted = patch.object(shutil, "rmtree", side_effect=KeyboardInterrupt)
    with interrupted, pytest.raises(KeyboardInterrupt):
        disk.remove(ours)
    # The rest has another name, and the next removal deletes it.
    assert not ours.exists()
    left = ours.with_name(".ours.gone")
    assert disk.is_marked(left)
    disk.mark(ours)
    disk.remove(ours)
    assert not ours.exists()
    assert not left.exists()


@pytest.mark.parametrize("name", [".ours.gone", ".ours.part"])
def test_a_folder_with_a_temporary_name_is_deleted_without_a_rename(
    tmp_path: Path, name: str
) -> None:
    disk.mark(tmp_path / name)
    disk.remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# ---- files ----


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with disk.whole(tmp_path / "new" / "record.json") as part:
        part.write_text("half")
        assert [path.name for path in (tmp_path / "new").iterdir()] == [part.name]
        part.write_text("whole")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["record.json"]
    assert (tmp_path / "new" / "record.json").read_text() == "whole"


def test_temporary_files_of_killed_runs_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, living, other = ".a[1].json.77.part", ".a[1].json.78.part", ".a1.json.77.part"
    for name in (dead, living, other):
        (tmp_path / name).write_text("half")
    monkeypatch.setattr("psutil.pid_exists", lambda number: number == 78)
    with disk.whole(tmp_path / "a[1].json") as part:
        part.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {living, other, "a[1].json"}


# ---- space ----


def space(monkeypatch: pytest.MonkeyPatch, free: dict[Path, int]) -> list[Path]:
    """Simulate disks: ``free`` is folder -> MiB. Returns the folders that are asked."""
    asked: list[Path] = []
    stat = Path.stat

    def of(folder: Path) -> Path:
        return next(f for f in (folder, *folder.parents) if f in free)

    def device(folder: Path, **how: bool) -> Any:
        found = stat(folder, **how)
        values = [*found[:2], 1000 + list(free).index(of(folder)), *found[3:]]
        return os.stat_result(values)

    def usage(folder: Path) -> Any:
        asked.append(folder)
        return types.SimpleNamespace(free=free[of(folder)] * disk.MIB)

    monkeypatch.setattr(Path, "stat", device)
    monkeypatch.setattr("shutil.disk_usage", usage)
    return asked


def test_the_free_space_of_each_disk_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, checkout = tmp_path / "cache", tmp_path / "checkout"
    for folder in (cache, checkout):
        folder.mkdir()
    space(monkeypatch, {cache: 500, checkout: 2000})
    disk.room({checkout / "build" / "rtx50": 1000, cache / "ccache": 400}, "A build")
    with raises("disk-too-small") as caught:
        disk.room({checkout / "build" / "rtx50": 1000, cache / "ccache": 501}, "A build")
    assert caught.value.evidence == str(cache)


def test_the_needs_of_one_disk_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = space(monkeypatch, {tmp_path: 1200})
    disk.room({tmp_path / "build": 1000, tmp_path / "wheels": 200}, "A build")
    assert asked == [tmp_path]
    with raises("disk-too-small"):
        disk.room({tmp_path / "build": 1000, tmp_path / "wheels": 201}, "A build")


@pytest.mark.usefixtures("links")
def test_files_are_sorted_and_a_refused_folder_is_not_entered(ours: Path) -> None:
    asked: list[str] = []

    def keep(relative: str) -> bool:
        asked.append(relative)
        return relative != "a/"

    assert [name for name, _ in disk.files(ours, keep)] == ["CACHEDIR.TAG", "d.txt", "link"]
    assert "a/b/" not in asked


@pytest.mark.usefixtures("links")
def test_a_digest_covers_bytes_and_the_target_of_a_link(ours: Path) -> None:
    before = disk.tree_digest(ours, anything)
    assert list(before) == ["CACHEDIR.TAG", "a/b/c.txt", "d.txt", "link"]
    assert before["d.txt"] == "18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4"
    (ours / "link").unlink()
    (ours / "link").symlink_to("elsewhere")
    after = disk.tree_digest(ours, anything)
    assert [name for name in before if before[name] != after[name]] == ["link"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "grow": lambda folder: (folder / "d.txt").write_text("longer"),
    "touch": lambda folder: os.utime(folder / "d.txt", ns=(1, 1)),
    "add": lambda folder: (folder / "a" / "new.txt").write_text(""),
    "delete": lambda folder: (folder / "a" / "b" / "c.txt").unlink(),
    "rename": lambda folder: (folder / "d.txt").rename(folder / "e.txt"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_a_file_changes_the_signature(
    change: Callable[[Path], object], ours: Path
) -> None:
    before = disk.signature(ours, anything)
    assert disk.signature(ours, anything) == before
    change(ours)
    assert disk.signature(ours, anything) != before


def test_a_signature_ignores_files_that_are_not_kept(ours: Path) -> None:
    def keep(name: str) -> bool:
        return not name.startswith("a/")

    before = disk.signature(ours, keep)
    CHANGES["add"](ours)
    assert disk.signature(ours, keep) == before


def test_a_free_lock_is_acquired_without_a_message(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "rtx50.lock"
    with locks.lock(path, pytest.fail):
        assert not locks.is_free(path)
        assert locks.owner(path) == ("Another run", False)  # of all processes, this one has it
    assert locks.is_free(path)


@pytest.mark.parametrize(
    ("number", "id"),
    [
        (errno.ENOSPC, "disk-full"),
        (errno.EACCES, "path-not-writable"),
        (errno.EPERM, "path-not-writable"),
        (errno.EROFS, "path-not-writable"),
        (errno.ENOTDIR, "path-occupied"),
    ],
)
def test_an_error_of_the_system_that_a_user_can_fix(number: int, id: str) -> None:
    problem = disk.problem_of(OSError(number, os.strerror(number), "/some/file"))
    assert problem is not None
    assert problem.id == id
    assert "/some/file" in problem.evidence


def test_an_error_without_a_file_name_and_any_other_error() -> None:
    problem: Any = disk.problem_of(OSError(errno.ENOSPC, "No space left on device"))
    assert problem.evidence == ""
    assert disk.problem_of(OSError(errno.ENOENT, "No such file", "/some/file")) is None


def test_claim_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.tex").touch()
    with raises("cache-folder-foreign"):
        disk.claim(tmp_path / "others")
    assert not (tmp_path / "others" / disk.TAG).exists()
    disk.claim(tmp_path / "new")
    (tmp_path / "new" / "ccache").mkdir()
    disk.claim(tmp_path / "new")
    assert disk.is_marked(tmp_path / "new")
