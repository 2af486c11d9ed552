"""Folders and files: marks, safe deletion, digests, locks."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from sessions.core.errors import USAGE, Problem

TAG = "CACHEDIR.TAG"
# The signature is fixed by the Cache Directory Tagging Specification (bford.info/cachedir).
_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# This folder was made by blackwheel, which may delete it.
"""
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds


def mark(folder: Path) -> None:
    """Make a folder if need be, and sign it as ours."""
    folder.mkdir(parents=True, exist_ok=True)
    tag = folder / TAG
    if not tag.exists() or tag.stat().st_size == 0:  # empty: a power cut came between
        tag.write_text(_TAG_TEXT, encoding="ascii", newline="\n")


def claim(folder: Path) -> None:
    """``mark`` for a folder the user named: never one that holds somebody else's files."""
    if folder.is_dir() and any(folder.iterdir()) and not is_marked(folder):
        raise Problem(
            "The cache folder holds other files, which blackwheel would not dare to delete.",
            id="cache-folder-foreign",
            code=USAGE,
            evidence=str(folder),
            remedy=f"name a folder of its own: BLACKWHEEL_CACHE={folder / 'blackwheel'}",
        )
    mark(folder)


def is_marked(folder: Path) -> bool:
    """Whether a folder carries our mark; never true of a link to one."""
    tag = folder / TAG
    return not folder.is_symlink() and tag.is_file() and tag.read_bytes() == _TAG_TEXT.encode()


def remove(folder: Path) -> None:
    """Delete a folder that carries our mark, and refuse any other.

    The mark goes last: an interrupted deletion leaves a folder that can still be deleted.
    """
    if not is_marked(folder):
        raise Problem(
            "This folder is not deleted, because it does not carry blackwheel's mark.",
            id="folder-not-ours",
            evidence=f"{folder} has no {TAG} of ours",
            remedy=f"look into it, and delete it yourself if it may go: {folder}",
        )
    for child in folder.iterdir():
        if child.name == TAG:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, onerror=_make_writable)
        else:
            child.unlink()
    (folder / TAG).unlink()
    folder.rmdir()


def _make_writable(function: Callable[..., object], path: str, _: object) -> None:
    """What Windows and a read-only folder need before a file in it can be deleted."""
    target = Path(path)
    for entry in (target.parent, target):
        if not entry.is_symlink():
            entry.chmod(stat.S_IRWXU)
    if function in (os.unlink, os.rmdir):
        function(path)
    else:
        shutil.rmtree(path)


def put(part: Path, whole: Path) -> None:
    """Rename a file or a folder that is whole; a file takes the place of an older one.

    On Windows a virus scanner or an indexer has what was just written open for a moment, and
    neither moves meanwhile.
    """
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            part.replace(whole)
            return
        except PermissionError:
            time.sleep(pause)
    part.replace(whole)


def files(root: Path, keep: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    """Every file below ``root`` whose relative POSIX path ``keep`` accepts, sorted.

    ``keep`` is asked of folders too, with a "/" at the end; a refused folder is not entered.
    """

    def walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            relative = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if keep(relative + "/"):
                    yield from walk(Path(entry.path), relative + "/")
            elif keep(relative):
                yield relative, Path(entry.path)

    yield from walk(root, "")


def tree_digest(root: Path, keep: Callable[[str], bool]) -> dict[str, str]:
    """SHA-256 of every file that ``keep`` accepts, by relative path; of a link, its target."""
    digests = {}
    for relative, path in files(root, keep):
        if path.is_symlink():
            data = b"link:" + os.fsencode(path.readlink())
        else:
            data = path.read_bytes()
        digests[relative] = hashlib.sha256(data).hexdigest()
    return digests


def signature(root: Path, keep: Callable[[str], bool]) -> str:
    """A quick digest of names, sizes and times: equal means that no file was written since."""
    parts = []
    for relative, path in files(root, keep):
        status = path.lstat()
        parts.append(f"{relative} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def lock(path: Path, waiting: Callable[[str], None]) -> AbstractContextManager[object]:
    """Take the lock ``path``, for a with statement; say so if another run has it."""
    import filelock  # not at the top: the bootstrap has the standard library alone

    path.parent.mkdir(parents=True, exist_ok=True)
    taken = filelock.FileLock(path)
    try:
        return taken.acquire(timeout=0)
    except filelock.Timeout:
        waiting(f"Another run is at work on {path.stem}; waiting for it to end (Ctrl-C stops).")
        return taken.acquire()


@functools.cache
def hold(path: Path, waiting: Callable[[str], None]) -> AbstractContextManager[object]:
    """Take the lock ``path`` until this process ends."""
    return lock(path, waiting)


def is_free(path: Path) -> bool:
    """Whether no run, this one included, has the lock ``path`` at this moment."""
    import filelock

    probe = filelock.FileLock(path)
    try:
        with probe.acquire(timeout=0):
            return True
    except filelock.Timeout:
        return False


def problem_of(error: OSError) -> Problem | None:
    """The user's side of an operating-system error: full disk, no permission. Else None."""
    where = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(
            "The disk is full.",
            id="disk-full",
            evidence=where,
            remedy="free some space (nox -s clean -- --all frees what was built here), then run "
            "the same command again: it goes on where it stopped",
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR) and error.filename:
        return Problem(
            "Something else is where a file or folder of blackwheel belongs.",
            id="path-occupied",
            evidence=f"{error.strerror}: {where}",
            remedy="move it away, then run the same command again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Problem(
            "A file or folder cannot be written.",
            id="path-not-writable",
            evidence=f"{error.strerror}: {where}",
            remedy="make it writable for you, or work in a folder of your own",
        )
    return None
