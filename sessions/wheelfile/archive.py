"""The zip file itself, read without trusting it. Nothing is written under a name it chooses."""

from __future__ import annotations

import contextlib
import hashlib
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sessions.core import disk
from sessions.wheelfile import kinds

# Far above our wheels: they have less than 50 members, and unpack to 30 MB, less than four times
# their size.
MEMBERS = 2000
UNPACKED = 2 << 30
RATIO = 200
SMALL = 64 << 20  # bytes; whatever unpacks to less may do so from any size
TEXT = 4 << 20  # bytes; a larger text is not kept
LIBRARY = re.compile(r"\.(so(\.\d+)*|dll|pyd|dylib|exe)$")
_CHUNK = 1 << 20
# What zipfile raises for a file that is damaged or means harm; anything else is a bug of ours.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, LookupError, RuntimeError,
    OverflowError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """What a zip file held: sizes and digests of members, small texts, copies of libraries."""

    members: dict[str, int]
    digests: dict[str, str]  # sha256
    texts: dict[str, bytes]
    libraries: dict[str, Path]
    times: tuple[str, ...]
    problems: tuple[str, ...]


def read(path: Path, folder: Path) -> Contents:
    """Read a zip file whole, copying its libraries into ``folder`` under names of ours.

    Whatever is wrong becomes a line of ``problems``; a file that could be meant to do harm is
    not read any further.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not _is_folder(info)]
            problems = list(_harmful(archive.infolist(), path.stat().st_size))
            if not infos:
                problems.append("it holds no file")
            if problems:
                return Contents({}, {}, {}, {}, (), tuple(problems))
            problems = list(_unsound(archive.infolist()))
            digests: dict[str, str] = {}
            texts: dict[str, bytes] = {}
            libraries: dict[str, Path] = {}
            for number, info in enumerate(infos):
                copy = folder / f"{number}{Path(info.filename).suffix[:4]}"
                try:
                    digest, text, library = _member(archive, info, copy)
                except (*_BROKEN, OSError) as error:
                    _ours(error)
                    problems.append(f"{info.filename} cannot be read: {error}")
                    continue
                digests[info.filename] = digest
                if library:
                    libraries[info.filename] = copy
                elif text is not None:
                    texts[info.filename] = text
    except (*_BROKEN, OSError) as error:
        _ours(error)
        return Contents({}, {}, {}, {}, (), (f"not a zip file that can be read: {error}",))
    times = {"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*i.date_time) for i in infos}
    return Contents(
        {info.filename: info.file_size for info in infos},
        digests,
        texts,
        libraries,
        tuple(sorted(times)),
        tuple(problems),
    )


def _ours(error: BaseException) -> None:
    """Raise what speaks of this machine and not of the wheel: a full disk, no permission."""
    if isinstance(error, OSError) and disk.problem_of(error):
        raise error


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, copy: Path
) -> tuple[str, bytes | None, bool]:
    """Digest of a member, its text if small, and whether it is a library (then it is copied)."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile unpacks the others without a bound: a chunk of them may be of any size.
        raise zipfile.BadZipFile(f"neither stored nor deflated, but method {info.compress_type}")
    digest = hashlib.sha256()
    kept: list[bytes] = []
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(archive.open(info))
        chunk = stream.read(_CHUNK)
        library = is_library(info.filename, chunk, info.external_attr >> 16)
        small = not library and info.file_size <= TEXT
        write: Callable[[bytes], object] = len  # of a large text the digest is enough
        if library:
            write = stack.enter_context(copy.open("wb")).write
        elif small:
            write = kept.append
        while chunk:
            digest.update(chunk)
            write(chunk)
            chunk = stream.read(_CHUNK)
    return digest.hexdigest(), b"".join(kept) if small else None, library


def is_library(name: str, head: bytes, mode: int = 0) -> bool:
    """Whether a member is code, be it hidden: by its name, or by how it begins."""
    executable = head.startswith(b"\x7fELF") or (head.startswith(b"MZ") and b"\0" in head[:64])
    hidden = kinds.code(name, head, mode) is not None
    return executable or hidden or LIBRARY.search(name) is not None


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/")  # is_dir() fails for a member without a name


def _harmful(infos: Sequence[zipfile.ZipInfo], size: int) -> Iterator[str]:
    """What speaks against reading the members at all."""
    if len(infos) > MEMBERS:
        yield f"{len(infos)} members; more than {MEMBERS} are not read"
    unpacked, limit = sum(info.file_size for info in infos), min(UNPACKED, max(SMALL, RATIO * size))
    if unpacked > limit:
        yield f"it unpacks to {unpacked} bytes; more than {limit} are not read"
    if sum(info.compress_size for info in infos) > size:
        yield "members overlap: together they are larger than the file"


def _unsound(infos: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    """What a wheel's member must not be, folders included."""
    if (before := min(info.header_offset for info in infos)) > 0:
        yield f"{before} bytes before its first member, as in a program that unpacks itself"
    names = [info.filename for info in infos]
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{name}: {count} members of that name"
    for name, count in Counter(n.casefold() for n in set(names)).items():
        if count > 1:
            yield f"{name}: {count} names that Windows takes for one"
    for info in infos:
        # orig_filename: Python ends the other at a NUL and turns the system's separator into "/".
        name = info.orig_filename
        if name.startswith("/") or re.match(r"[A-Za-z]:", name):
            yield f"{name!r}: absolute path"
        if ".." in re.split(r"[/\\]", name):
            yield f"{name!r}: leaves its folder"
        if not name or "\\" in name or not name.isprintable():
            yield f"{name!r}: no name for a file on every system"
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if _is_folder(info) else stat.S_IFREG):
            yield f"{name}: {'a symbolic link' if stat.S_ISLNK(kind) else 'no regular file'}"
        if info.flag_bits & 1:
            yield f"{name}: encrypted"
