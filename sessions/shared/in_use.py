"""Shared use of folders: many runs may use a folder, or one run may replace or delete it.

Each user has a lock file of its own, which the system releases when the process ends. This is not
filelock's ReadWriteLock, where a waiting writer blocks new readers: a child nox would wait for the
writer, the writer for the child's parent, and the parent for the child.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import filelock

from sessions.shared import disk, locks, programs

POLL = 0.5  # seconds between two checks of a folder that is in use


@functools.cache
def share(path: Path, waiting: Callable[[str], None]) -> AbstractContextManager[object]:
    """Use a folder: until this process ends, no other run replaces or deletes it.

    ``path`` is the folder's lock file (``locks/NAME.lock``); the lock files of its users are in
    ``locks/NAME.users``.
    """
    users = _users_folder(path)
    with locks.lock(path.with_suffix(".gate"), waiting):
        # The process id is not the whole name: a process of another container may have the same.
        number, name = tempfile.mkstemp(f"-{os.getpid()}.lock", "", users)
        os.close(number)
        return filelock.FileLock(name).acquire()


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Wait until no run, including this one, uses the folder, and block new users meanwhile."""
    announced = False
    while True:
        with unused(path, waiting) as users:
            if not users:
                yield
                return
        if not announced:
            waiting(
                f"{path.stem} is in use: {', '.join(users)}; waiting for the end of that "
                "(Ctrl-C stops)."
            )
            announced = True
        time.sleep(POLL)


@contextlib.contextmanager
def unused(path: Path, waiting: Callable[[str], None]) -> Iterator[tuple[str, ...]]:
    """Descriptions of the runs that use or create the folder.

    If there are none, no run can begin to use it during the with block.
    """
    users = _users_folder(path)
    making = filelock.FileLock(path)
    with locks.lock(path.with_suffix(".gate"), waiting):
        runs = tuple(_users(users))
        if not locks.is_held(path):
            try:
                making.acquire(timeout=0)
            except filelock.Timeout:
                runs = (*runs, locks.owner(path)[0])
        try:
            yield runs
        finally:
            making.release()


def _users_folder(path: Path) -> Path:
    folder = path.with_suffix(".users")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _users(folder: Path) -> Iterator[str]:
    """Every running user. Deletes the files of ended users. The caller must hold the gate."""
    for file in sorted(folder.glob("*.lock")):
        if locks.is_free(file):
            file.unlink(missing_ok=True)
        elif sys.platform == "win32":
            yield locks.describe(int(file.stem.rpartition("-")[2]))
        else:  # by open files: in a container, the same process id is another process
            yield locks.owner(file)[0]


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder below ``parent``, on the disk of the results.

    It is deleted at the end. If this run is killed, the next run deletes it.
    """
    disk.mark(parent)
    gate = parent / "gate.lock"
    with locks.lock(gate, lambda _: None):
        _sweep(parent)
        # A short name, because Windows limits the length of paths.
        folder = Path(tempfile.mkdtemp(prefix="", dir=parent))
        taken = filelock.FileLock(folder.with_suffix(".lock")).acquire()
    try:
        yield folder
    finally:
        with locks.lock(gate, lambda _: None):
            taken.lock.release()
            # On Windows a file that a virus scanner has open stays; the next run deletes it.
            with contextlib.suppress(OSError):
                _discard(folder)


def temporary(scratch: Path) -> dict[str, str]:
    """The variables that make ``scratch`` a child's temporary folder, and mark the child."""
    return dict.fromkeys(("TMPDIR", "TEMP", "TMP", programs.BUILD_MARK), str(scratch))


def _sweep(parent: Path) -> None:
    """Delete the folders of killed runs. The caller must hold the gate."""
    for folder in parent.iterdir():
        if not folder.is_dir() or not locks.is_free(folder.with_suffix(".lock")):
            continue
        # A pip that is still running would write there.
        programs.end_leftovers(programs.BUILD_MARK, str(folder))
        with contextlib.suppress(OSError):
            _discard(folder)


def _discard(folder: Path) -> None:
    """Delete a folder of ``scratch`` and its lock file. The caller must hold the gate."""
    disk.discard(folder)
    folder.with_suffix(".lock").unlink(missing_ok=True)
