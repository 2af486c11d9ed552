"""Locks: one run at a time works on a target, a source or a part of the cache; others wait."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import filelock
import psutil

from sessions.shared.errors import Problem

_held: set[Path] = set()  # the locks that this process keeps until it ends


def lock(path: Path, waiting: Callable[[str], None]) -> AbstractContextManager[object]:
    """Acquire the lock ``path``, for a with statement. ``waiting`` gets a line if it must wait.

    Raises Problem if the owner is a parent of this process, which waits for this process to end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    taken = filelock.FileLock(path)
    try:
        return taken.acquire(timeout=0)
    except filelock.Timeout:
        who, is_parent = owner(path)
        if is_parent:
            raise Problem(
                f"This run would wait for {path.stem}, which the command that started it is using: "
                "it would never end.",
                id="lock-of-parent",
                evidence=who,
                remedy="run the two commands one after the other, first the one that is named "
                "above",
            ) from None
        waiting(f"{who} is at work on {path.stem}; waiting for it to end (Ctrl-C stops).")
        return taken.acquire()


def owner(path: Path) -> tuple[str, bool]:
    """A description of the process that has the lock, and whether it is a parent of this one.

    On Windows only the open files of a parent can be listed without a delay.
    """
    parents = psutil.Process().parents()
    others = () if sys.platform == "win32" else psutil.process_iter()
    for process in (*parents, *others):
        with contextlib.suppress(psutil.Error):
            is_open = any(Path(file.path) == path.resolve() for file in process.open_files())
            if is_open and process.pid != os.getpid():
                return describe(process.pid), process in parents
    return "Another run", False


def describe(pid: int) -> str:
    """A process for people: its id, its command and its folder."""
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        nox = next((n for n, word in enumerate(words) if word in ("-s", "--session")), None)
        command = " ".join(" ".join(["nox", *words[nox:]] if nox else words).split())[:200]
        return f"Process {pid} ({command}, in {process.cwd()})"
    except psutil.Error:
        return f"Process {pid}"


@functools.cache
def hold(path: Path, waiting: Callable[[str], None]) -> AbstractContextManager[object]:
    """Acquire the lock ``path`` until this process ends."""
    taken = lock(path, waiting)
    _held.add(path)
    return taken


def is_held(path: Path) -> bool:
    """Whether ``hold`` has acquired the lock ``path`` in this process."""
    return path in _held


def is_free(path: Path) -> bool:
    """Whether no process, including this one, has the lock ``path``."""
    probe = filelock.FileLock(path)
    try:
        with probe.acquire(timeout=0):
            return True
    except filelock.Timeout:
        return False
