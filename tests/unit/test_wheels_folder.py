"""Wheels in ``wheels/``: whether one is up to date, and how a new one is put there."""

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


def test_is_current_only_with_the_same_inputs_and_bytes(made: Path) -> None:
    record = fakes.wheel(sha256=records.file_sha256(made))
    assert wheels_folder.is_current(record, record.fingerprint, made.parent)
    assert not wheels_folder.is_current(record, "e" * 64, made.parent)
    made.write_bytes(b"other wheel")
    assert not wheels_folder.is_current(record, record.fingerprint, made.parent)
    made.unlink()
    assert not wheels_folder.is_current(record, record.fingerprint, made.parent)


def test_publish_copies_the_wheel_and_replaces_an_older_one(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wheels" / "rtx50"
    for data in (b"new wheel", b"newer wheel"):
        made.write_bytes(data)
        assert wheels_folder.publish(made, folder) == folder / NAME
        assert (folder / NAME).read_bytes() == data
        assert [p.name for p in folder.iterdir()] == [NAME]
    assert made.exists()


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
def test_an_interrupted_publish_keeps_the_older_wheel_and_leaves_nothing_else(
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
