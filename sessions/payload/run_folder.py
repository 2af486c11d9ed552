"""The working folder of a run, beside its report, with a lock; atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import bundle_refusals

STATE = "state.json"  # the results so far (bench.py, ops.py)
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds


@contextlib.contextmanager
def folder(report: Path, *, kept: bool) -> Iterator[Path]:
    """The working folder beside the report. The next run deletes what a killed run left there.

    With ``kept``, it is not deleted, because the run continues from it. Exits if it is in use.
    """
    folder = report.resolve().with_suffix(".unfinished")
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("a+b")
    except OSError as error:
        bundle_refusals.stop(
            f"{folder} cannot be made: {error}", "name a report in a folder of yours: --report"
        )
    with lock:
        # Its last owner may have deleted it meanwhile.
        if not _locked(lock) or not (folder / "lock").exists():
            remedy = "wait until it ends, or name another report: --report FILE"
            bundle_refusals.stop(f"Another run is using {folder}.", remedy)
        if not kept:
            _empty(folder)
        shutil.rmtree(folder / "bundle", ignore_errors=True)  # perhaps of another bundle
        try:
            yield folder
        finally:
            if not (folder / "run" / STATE).exists():
                _empty(folder)
                if sys.platform == "win32":  # an open file cannot be deleted there
                    lock.close()
                shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        elif child.name != "lock":
            child.unlink()


def _locked(file: IO[bytes]) -> bool:
    """Lock an open file for this process. Returns False if another process has locked it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


def write(path: Path, text: str) -> None:
    """Write a file completely, or leave it unchanged.

    On Windows, a virus scanner may have the new file open for a moment; then it cannot be moved.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        for pause in PAUSES if sys.platform == "win32" else ():
            try:
                part.replace(path)
                return
            except PermissionError:
                time.sleep(pause)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
