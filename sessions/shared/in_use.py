"""Folders that several runs use: any number at once, or one run that replaces or deletes them.

Every user of a folder has a lock file of its own, which the system releases however the run ends.
This needs nothing but the exclusive lock that ``disk.lock`` needs too. (filelock's ReadWriteLock
needs SQLite, and a writer that waits there keeps out new readers: a child nox would wait for the
writer, the writer for the child's parent, and the parent for its child.)
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

from sessions.shared import disk, programs

POLL = 0.5  # seconds between two looks at a folder that is in use


@functools.cache
def share(path: Path, waiting: Callable[[str], None]) -> AbstractContextManager[object]:
    """Use the folder that ``path`` stands for until this process ends.

    Until then no other run replaces or deletes it. ``path`` is a lock file (``locks/NAME.lock``);
    the users' own are in ``locks/NAME.users``.
    """
    users = _users_folder(path)
    with disk.lock(path.with_suffix(".gate"), waiting):
        # The process's number is not the whole name: another host or container may have the same.
        number, name = tempfile.mkstemp(f"-{os.getpid()}.lock", "", users)
        os.close(number)
        return filelock.FileLock(name).acquire()


@contextlib.contextmanager
def sole(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Wait until no run uses the folder, this one included, and keep new users out meanwhile."""
    told = False
    while True:
        with unused(path, waiting) as users:
            if not users:
                yield
                return
        if not told:
            waiting(
                f"{path.stem} is in use: {', '.join(users)}; waiting for the end of that "
                "(Ctrl-C stops)."
            )
            told = True
        time.sleep(POLL)


@contextlib.contextmanager
def unused(path: Path, waiting: Callable[[str], None]) -> Iterator[tuple[str, ...]]:
    """The runs that use or make the folder, in words.

    If there are none, none begins to in the with block.
    """
    users = _users_folder(path)
    making = filelock.FileLock(path)
    with disk.lock(path.with_suffix(".gate"), waiting):
        found = tuple(_users(users))
        if not disk.is_held(path):
            try:
                making.acquire(timeout=0)
            except filelock.Timeout:
                found = (*found, disk.owner(path)[0])
        try:
            yield found
        finally:
            making.release()


def _users_folder(path: Path) -> Path:
    folder = path.with_suffix(".users")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _users(folder: Path) -> Iterator[str]:
    """Each living user; the files of those that ended are deleted. The gate must be held."""
    for file in sorted(folder.glob("*.lock")):
        if disk.is_free(file):
            file.unlink(missing_ok=True)
        elif sys.platform == "win32":
            yield disk.described(int(file.stem.rpartition("-")[2]))
        else:  # by its open files: a run in a container may have a number that is another's here
            yield disk.owner(file)[0]


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder of this run's own below ``parent``, deleted at the end.

    If this run is killed, the next run that makes one deletes it: on the disk that the results go
    to, not in the system's temporary folder, where nobody would look for 700 MB.
    """
    disk.mark(parent)
    gate = parent / "gate.lock"
    with disk.lock(gate, lambda _: None):
        _sweep(parent)
        # Short: Windows' programs have a greatest length of a path.
        folder = Path(tempfile.mkdtemp(prefix="", dir=parent))
        taken = filelock.FileLock(folder.with_suffix(".lock")).acquire()
    try:
        yield folder
    finally:
        with disk.lock(gate, lambda _: None):
            taken.lock.release()
            # What a virus scanner has open cannot be deleted on Windows: the next run does it.
            with contextlib.suppress(OSError):
                _discard(folder)


def temporary(scratch: Path) -> dict[str, str]:
    """What makes ``scratch`` the temporary folder of a child, which ends when the folder goes."""
    return dict.fromkeys(("TMPDIR", "TEMP", "TMP", programs.BUILD_MARK), str(scratch))


def _sweep(parent: Path) -> None:
    """Delete the folders of runs that ended without doing so. The gate must be held."""
    for folder in parent.iterdir():
        if not folder.is_dir() or not disk.is_free(folder.with_suffix(".lock")):
            continue
        programs.end_leftovers(
            programs.BUILD_MARK, str(folder)
        )  # a pip that outlived its run writes there
        with contextlib.suppress(OSError):
            _discard(folder)


def _discard(folder: Path) -> None:
    """Delete a folder of ``scratch`` and its lock file. The gate must be held."""
    disk.discard(folder)
    folder.with_suffix(".lock").unlink(missing_ok=True)
