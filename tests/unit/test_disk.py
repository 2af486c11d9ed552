"""Folders: what is ours, what may be deleted, what has changed, whose turn it is."""

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

import filelock
import pytest

from sessions.shared import disk
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


def test_a_mark_is_a_cache_directory_tag(tmp_path: Path) -> None:
    disk.mark(tmp_path / "new" / "folder")
    tag = (tmp_path / "new" / "folder" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert disk.is_marked(tmp_path / "new" / "folder")


def test_marking_twice_changes_nothing(ours: Path) -> None:
    before = (ours / disk.TAG).stat().st_mtime_ns
    disk.mark(ours)
    assert (ours / disk.TAG).stat().st_mtime_ns == before


def test_a_marked_folder_is_removed_whole_and_nothing_outside_it(ours: Path) -> None:
    disk.remove(ours)
    assert not ours.exists()
    assert (ours.parent / "outside" / "kept.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("platform", "held", "waited"),
    [("win32", 0, 0), ("win32", 3, 3), ("win32", 99, 6), ("linux", 99, 0)],
)
def test_what_a_scanner_holds_for_a_moment_is_put_in_place_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, held: int, waited: int
) -> None:
    tried, pauses, replace = 0, list[float](), Path.replace

    def busy(part: Path, whole: Path) -> Path:
        nonlocal tried
        tried += 1
        if tried <= held:
            raise PermissionError(13, "The process cannot access the file", str(part))
        return replace(part, whole)

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(Path, "replace", busy)
    (tmp_path / "part").mkdir()
    with contextlib.suppress(PermissionError) if held > 6 else contextlib.nullcontext():
        disk.put(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole").exists() is (tried > held)
    assert len(pauses) == waited
    assert sum(pauses) < 10


def test_a_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    (tmp_path / "whole").write_text("old")
    disk.put(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole").read_text() == "new"


def test_a_folder_without_a_mark_is_refused(ours: Path) -> None:
    (ours / disk.TAG).unlink()
    with raises("folder-without-mark") as caught:
        disk.remove(ours)
    assert str(ours) in caught.value.remedy
    assert (ours / "a" / "b" / "c.txt").exists()


def test_the_mark_of_another_program_is_not_ours(ours: Path) -> None:
    (ours / disk.TAG).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of pip\n")
    with raises("folder-without-mark"):
        disk.remove(ours)
    disk.mark(ours)
    assert not disk.is_marked(ours), "another program's mark was overwritten"


@pytest.mark.usefixtures("links")
def test_a_link_to_a_marked_folder_is_refused(ours: Path) -> None:
    link = ours.parent / "also"
    link.symlink_to(ours)
    with raises("folder-without-mark"):
        disk.remove(link)
    assert (ours / "d.txt").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with raises("folder-without-mark"):
        disk.remove(tmp_path / "none")


def test_a_removal_that_was_interrupted_can_be_taken_up_again(
    ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            disk.remove(ours)
    # Whatever is left of it passes for no whole folder, and a second removal clears it.
    assert not ours.exists()
    left = ours.with_name(".ours.gone")
    assert disk.is_marked(left)
    disk.mark(ours)
    disk.remove(ours)
    assert not ours.exists()
    assert not left.exists()


@pytest.mark.parametrize("name", [".ours.gone", ".ours.part"])
def test_what_no_run_takes_for_a_whole_is_deleted_where_it_is(tmp_path: Path, name: str) -> None:
    disk.mark(tmp_path / name)
    disk.remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# ---- files ----


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    with disk.whole(tmp_path / "new" / "record.json") as part:
        part.write_text("half")
        assert [path.name for path in (tmp_path / "new").iterdir()] == [part.name]
        part.write_text("whole")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["record.json"]
    assert (tmp_path / "new" / "record.json").read_text() == "whole"


def test_a_file_that_breaks_half_way_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("old")
    with contextlib.suppress(KeyboardInterrupt), disk.whole(tmp_path / "record.json") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert (tmp_path / "record.json").read_text() == "old"


def test_what_a_killed_run_left_beside_a_file_goes_with_the_next(
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
    """Play disks: each folder of ``free`` is one, with so many MiB. Returns what is asked."""
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


def test_space_is_asked_of_the_disk_that_it_concerns(
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


def test_what_goes_to_one_disk_is_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = space(monkeypatch, {tmp_path: 1200})
    disk.room({tmp_path / "build": 1000, tmp_path / "wheels": 200}, "A build")
    assert asked == [tmp_path]
    with raises("disk-too-small"):
        disk.room({tmp_path / "build": 1000, tmp_path / "wheels": 201}, "A build")


@pytest.mark.usefixtures("links")
def test_files_come_sorted_and_a_refused_folder_is_not_entered(ours: Path) -> None:
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


def _grow(folder: Path) -> None:
    (folder / "d.txt").write_text("longer")


def _touch(folder: Path) -> None:
    os.utime(folder / "d.txt", ns=(1, 1))


def _add(folder: Path) -> None:
    (folder / "a" / "new.txt").write_text("")


def _delete(folder: Path) -> None:
    (folder / "a" / "b" / "c.txt").unlink()


def _rename(folder: Path) -> None:
    (folder / "d.txt").rename(folder / "e.txt")


@pytest.mark.parametrize("change", [_grow, _touch, _add, _delete, _rename])
def test_a_signature_notices(change: Callable[[Path], None], ours: Path) -> None:
    before = disk.signature(ours, anything)
    assert disk.signature(ours, anything) == before
    change(ours)
    assert disk.signature(ours, anything) != before


def test_a_signature_does_not_notice_what_a_build_does_not_read(ours: Path) -> None:
    def keep(name: str) -> bool:
        return not name.startswith("a/")

    before = disk.signature(ours, keep)
    _add(ours)
    assert disk.signature(ours, keep) == before


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "locks" / "rtx50.lock"
    with disk.lock(path, said.append):
        assert not disk.is_free(path)
    assert disk.is_free(path)
    assert said == []


def test_who_has_to_wait_for_a_lock_is_told_for_what(tmp_path: Path) -> None:
    path = tmp_path / "rtx50+v0.3.36.lock"
    other = filelock.FileLock(path)
    other.acquire()
    said: list[str] = []

    def waiting(text: str) -> None:
        said.append(text)
        other.release()

    with disk.lock(path, waiting):
        assert not disk.is_free(path)
    assert disk.is_free(path)
    assert len(said) == 1
    assert "is at work on rtx50+v0.3.36" in said[0]


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "The disk is full."),
        (errno.EACCES, "A file or folder cannot be written."),
        (errno.EPERM, "A file or folder cannot be written."),
        (errno.EROFS, "A file or folder cannot be written."),
    ],
)
def test_an_error_of_the_system_that_a_user_can_mend(number: int, what: str) -> None:
    problem = disk.problem_of(OSError(number, os.strerror(number), "/some/file"))
    assert problem is not None
    assert problem.what == what
    assert "/some/file" in problem.evidence
    assert problem.remedy


def test_any_other_error_of_the_system_is_a_bug_of_ours() -> None:
    assert disk.problem_of(OSError(errno.ENOENT, "No such file", "/some/file")) is None


def test_an_error_that_names_no_file_is_told_too() -> None:
    problem: Any = disk.problem_of(OSError(errno.ENOSPC, "No space left on device"))
    assert problem.evidence == ""


def test_a_mark_that_a_power_cut_left_empty_is_made_good(tmp_path: Path) -> None:
    (tmp_path / disk.TAG).write_bytes(b"")
    disk.mark(tmp_path)
    assert disk.is_marked(tmp_path)


def test_a_folder_the_user_named_is_claimed_only_when_it_is_empty_or_ours(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.tex").touch()
    with raises("cache-folder-foreign"):
        disk.claim(tmp_path / "others")
    assert not (tmp_path / "others" / disk.TAG).exists()
    disk.claim(tmp_path / "new")
    (tmp_path / "new" / "ccache").mkdir()
    disk.claim(tmp_path / "new")
    assert disk.is_marked(tmp_path / "new")
