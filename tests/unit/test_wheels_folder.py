"""Finished wheels: whether one is current, and how it gets into its folder."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from sessions.build import wheels_folder
from sessions.shared import records
from tests import fakes

NAME = fakes.wheel().file


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A wheel as the build left it."""
    path = tmp_path / "repaired" / NAME
    path.parent.mkdir()
    path.write_bytes(b"new wheel")
    return path


def test_a_wheel_of_the_same_inputs_that_lies_unchanged_is_current(made: Path) -> None:
    record = fakes.wheel(sha256=records.file_sha256(made))
    assert wheels_folder.is_current(record, record.fingerprint, made.parent)


def test_a_wheel_of_other_inputs_is_not_current(made: Path) -> None:
    record = fakes.wheel(sha256=records.file_sha256(made))
    assert not wheels_folder.is_current(record, "e" * 64, made.parent)


def test_a_wheel_that_is_gone_is_not_current(made: Path) -> None:
    record = fakes.wheel(sha256=records.file_sha256(made))
    made.unlink()
    assert not wheels_folder.is_current(record, record.fingerprint, made.parent)


def test_a_wheel_that_was_changed_is_not_current(made: Path) -> None:
    record = fakes.wheel(sha256=records.file_sha256(made))
    made.write_bytes(b"other wheel")
    assert not wheels_folder.is_current(record, record.fingerprint, made.parent)


def test_a_wheel_is_published_whole(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wheels" / "rtx50"
    assert wheels_folder.publish(made, folder) == folder / NAME
    assert (folder / NAME).read_bytes() == b"new wheel"
    assert [p.name for p in folder.iterdir()] == [NAME]
    assert made.exists()


def test_a_wheel_takes_the_place_of_an_older_one(made: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"old wheel")
    wheels_folder.publish(made, tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"new wheel"


def full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def ctrl_c(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "name"),
    [(shutil, "copyfile"), (os, "fsync"), (Path, "replace")],
    ids=["copy", "fsync", "rename"],
)
@pytest.mark.parametrize("end", [full_disk, ctrl_c])
def test_a_publication_that_breaks_leaves_the_older_wheel_and_nothing_else(
    where: object,
    name: str,
    end: object,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / NAME).write_bytes(b"old wheel")
    monkeypatch.setattr(where, name, end)
    with pytest.raises((OSError, KeyboardInterrupt)):
        wheels_folder.publish(made, folder)
    assert (folder / NAME).read_bytes() == b"old wheel"
    assert [p.name for p in folder.iterdir()] == [NAME]
