"""Folders and files: marked folders, safe deletion, atomic writes, digests, free space."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sessions.shared.errors import Problem, UsageProblem

TAG = "CACHEDIR.TAG"
# The signature is fixed by the Cache Directory Tagging Specification (bford.info/cachedir).
_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# This folder was made by blackwheel, which may delete it.
"""
GONE = ".gone"  # suffix of a folder that is being deleted
PART = ".part"  # suffix of a file or folder that is being written
MIB = 1024 * 1024
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds


def mark(folder: Path) -> None:
    """Create a folder if it does not exist, and mark it as ours."""
    folder.mkdir(parents=True, exist_ok=True)
    tag = folder / TAG
    if not tag.exists() or tag.stat().st_size == 0:  # empty after a power failure
        tag.write_text(_TAG_TEXT, encoding="ascii", newline="\n")


def claim(folder: Path) -> None:
    """``mark`` a folder that the user named. Raises Problem if it contains other files."""
    if folder.is_dir() and any(folder.iterdir()) and not is_marked(folder):
        raise UsageProblem(
            "The cache folder contains files that are not blackwheel's, so it is not used.",
            id="cache-folder-foreign",
            evidence=str(folder),
            remedy=f"use an empty folder: BLACKWHEEL_CACHE={folder / 'blackwheel'}",
        )
    mark(folder)


def is_marked(folder: Path) -> bool:
    """Whether a folder has our mark. False for a link to a marked folder."""
    tag = folder / TAG
    return not folder.is_symlink() and tag.is_file() and tag.read_bytes() == _TAG_TEXT.encode()


def remove(folder: Path) -> None:
    """Delete a marked folder. Raises Problem for any other folder.

    It is renamed first, so that no run uses a part of it, and the mark is deleted last: the rest
    after an interruption (``.NAME.gone``) can still be deleted.
    """
    if not is_marked(folder):
        raise Problem(
            "This folder is not deleted, because blackwheel did not make it.",
            id="folder-without-mark",
            evidence=f"{folder} has no {TAG} of blackwheel",
            remedy=f"look at its files; if you do not need them, delete it yourself: {folder}",
        )
    if not (folder.name.startswith(".") and folder.suffix in (GONE, PART)):  # no run uses these
        gone = folder.with_name(f".{folder.name}{GONE}")
        if is_marked(gone):
            _empty(gone)
        put(folder, gone)
        folder = gone
    _empty(folder)


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.name != TAG:
            discard(child)
    (folder / TAG).unlink()
    folder.rmdir()


def discard(path: Path) -> None:
    """Delete a file, a link, or a folder with its content, even if it is read-only."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_make_writable)
    else:
        path.unlink(missing_ok=True)


def _make_writable(function: Callable[..., object], path: str, _: object) -> None:
    """Handle an error of ``rmtree``: make the file and its folder writable, and try again."""
    target = Path(path)
    for entry in (target.parent, target):
        if not entry.is_symlink():
            entry.chmod(stat.S_IRWXU)
    if function in (os.unlink, os.rmdir):
        function(path)
    else:
        shutil.rmtree(path)


def put(part: Path, whole: Path) -> None:
    """Rename a file or a folder; a file replaces an older one.

    On Windows it tries again for some seconds: a new file cannot be renamed while a virus scanner
    or an indexer has it open.
    """
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            part.replace(whole)
            return
        except PermissionError:
            time.sleep(pause)
    part.replace(whole)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields the temporary name under which to write it.

    The temporary file is in the same folder; it is flushed to the disk and renamed to ``path``.
    Temporary files of killed runs are deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    for old in path.parent.glob(f".{glob.escape(path.name)}.*{PART}"):
        if not _writes(old):
            old.unlink(missing_ok=True)
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        put(part, path)
    finally:
        part.unlink(missing_ok=True)


def _writes(part: Path) -> bool:
    """Whether the process whose id is in the name of a temporary file is alive."""
    import psutil  # not at the top: the bootstrap has only the standard library

    number = part.name.removesuffix(PART).rpartition(".")[2]
    return number.isdecimal() and psutil.pid_exists(int(number))


def copy(source: Path, path: Path) -> None:
    """Copy a file atomically."""
    with whole(path) as part:
        shutil.copyfile(source, part)


def room(needs: Mapping[Path, int], what: str) -> None:
    """Raise Problem if a disk has less free space than needed.

    ``needs``: folder -> MiB. The folders may be on the same disk, and need not exist yet.
    """
    disks: dict[int, list[tuple[Path, int]]] = {}
    for folder, mib in needs.items():
        existing = next(f for f in (folder, *folder.parents) if f.exists())
        disks.setdefault(existing.stat().st_dev, []).append((existing, mib))
    for folders in disks.values():
        needed = sum(mib for _, mib in folders)
        free = shutil.disk_usage(folders[0][0]).free // MIB
        if free < needed:
            raise Problem(
                f"{what} needs {needed} MiB of disk; {free} MiB are free.",
                id="disk-too-small",
                evidence="\n".join(str(folder) for folder, _ in folders),
                remedy="free some space there, or nox -s clean -- --all, then run the same command "
                "again",
            )


def files(root: Path, keep: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    """Every file below ``root`` whose relative POSIX path ``keep`` accepts, sorted.

    ``keep`` also gets the folders, with "/" at the end; a refused folder is not entered.
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
    """Relative path -> SHA-256 of every file that ``keep`` accepts; for a link, of its target."""
    digests = {}
    for relative, path in files(root, keep):
        if path.is_symlink():
            data = b"link:" + os.fsencode(path.readlink())
        else:
            data = path.read_bytes()
        digests[relative] = hashlib.sha256(data).hexdigest()
    return digests


def signature(root: Path, keep: Callable[[str], bool]) -> str:
    """A fast digest of names, sizes and times. It changes if a file is written."""
    parts = []
    for relative, path in files(root, keep):
        status = path.lstat()
        parts.append(f"{relative} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def problem_of(error: OSError) -> Problem | None:
    """The Problem for an error that the user can fix: full disk, no permission. Else None."""
    where = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(
            "The disk is full.",
            id="disk-full",
            evidence=where,
            remedy="free some space (nox -s clean -- --all frees what was built here), then run "
            "the same command again: it continues where it stopped",
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR) and error.filename:
        return Problem(
            "Another file or folder is where blackwheel wants to write.",
            id="path-occupied",
            evidence=f"{error.strerror}: {where}",
            remedy=f"move {where} away, then run the same command again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Problem(
            "A file or folder cannot be written.",
            id="path-not-writable",
            evidence=f"{error.strerror}: {where}",
            remedy=f"make {where or 'it'} writable for you, or work in a folder of your own",
        )
    return None
