"""Reads an untrusted zip file. Copies of its members get file names that it does not choose."""

from __future__ import annotations

import contextlib
import hashlib
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sessions.shared import disk
from sessions.verify import file_kinds, member_names, zip_framing
from sessions.verify.zip_framing import Entry

# Limits far above our wheels, which have less than 50 members and unpack to 30 MB, less than four
# times their size.
MEMBERS = 2000
UNPACKED = 2 << 30
RATIO = 200
SMALL = 64 << 20  # bytes; the ratio is not checked for files that unpack to less
TEXT = 2 << 20  # bytes; a larger text is not kept
TEXTS = 16 << 20  # bytes of all texts that are kept
LIBRARY = re.compile(r"\.(so(\.\d+)*|dll|pyd|dylib|exe)$")
_CHUNK = 1 << 20
_HEAD = 512  # bytes that ``is_library`` needs
_FOLDER = 0x10  # the bit of the external attributes for a folder of MS-DOS


@dataclass(frozen=True)
class Contents:
    """The contents of a zip file: members' sizes and digests, small texts, copies of libraries."""

    members: dict[str, int]
    digests: dict[str, str]  # sha256
    texts: dict[str, bytes]
    libraries: dict[str, Path]
    times: tuple[str, ...]
    problems: tuple[str, ...]


class _Broken(Exception):
    """A member's data is not what its headers say."""


def read(path: Path, folder: Path) -> Contents:
    """Read a zip file, and copy its libraries into ``folder`` under generated names.

    Everything that is wrong becomes a line of ``problems``. The members are not read if two
    readers may see different contents, or if the file could do harm.
    Raises OSError for problems of this machine, such as a full disk.
    """
    try:
        entries, problems = zip_framing.read(path, MEMBERS)
        size = path.stat().st_size
    except OSError as error:
        if disk.problem_of(error):
            raise
        return _nothing(f"not a zip file that can be read: {error}")
    files = [entry for entry in entries if not entry.folder]
    lines = [*problems, *_harmful(entries, size)]
    if not files and not lines:
        lines.append("it contains no file")
    if lines:
        return _nothing(*lines)
    lines += [*member_names.problems([entry.name for entry in entries]), *_unsound(entries)]
    digests: dict[str, str] = {}
    texts: dict[str, bytes] = {}
    libraries: dict[str, Path] = {}
    with path.open("rb") as stream:
        for number, entry in enumerate(files):
            copy = folder / f"{number}{_suffix(entry.name)}"
            room = TEXTS - sum(map(len, texts.values()))
            try:
                digest, text, library = _member(stream, entry, copy, room)
            except _Broken as error:
                lines.append(f"{member_names.shown(entry.name)} cannot be read: {error}")
                continue
            digests[entry.name] = digest
            if library:
                libraries[entry.name] = copy
            elif text is not None:
                texts[entry.name] = text
    return Contents(
        {entry.name: entry.size for entry in files},
        digests,
        texts,
        libraries,
        tuple(sorted({entry.time for entry in files})),
        tuple(lines),
    )


def _nothing(*problems: str) -> Contents:
    return Contents({}, {}, {}, {}, (), problems)


def _suffix(name: str) -> str:
    """The suffix for a copy's name, which readers use; only letters and digits."""
    match = re.search(r"\.[A-Za-z0-9]{1,3}$", name)
    return match[0] if match else ""


def _member(
    stream: BinaryIO, entry: Entry, copy: Path, room: int
) -> tuple[str, bytes | None, bool]:
    """Digest of a member, its text if it is small, and whether it is a library (then it is copied).

    ``room`` is the number of bytes of text that may still be kept.
    """
    digest, crc, size = hashlib.sha256(), 0, 0
    kept: list[bytes] = []
    library = small = False
    with contextlib.ExitStack() as stack:
        write: Callable[[bytes], object] = len  # of a large text only the digest is kept
        for number, chunk in enumerate(_chunks(stream, entry)):
            if number == 0:
                library = is_library(entry.name, chunk, entry.attributes >> 16)
                small = not library and entry.size <= min(TEXT, room)
                if library:
                    write = stack.enter_context(copy.open("wb")).write
                elif small:
                    write = kept.append
            digest.update(chunk)
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
            write(chunk)
    if size != entry.size:
        raise _Broken(f"it unpacks to {size} bytes, and not to {entry.size}")
    if crc != entry.crc:
        raise _Broken("its checksum is another")
    return digest.hexdigest(), b"".join(kept) if small else None, library


def _chunks(stream: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The member's data in one or more pieces. The first is long enough to recognize its kind.

    The first megabyte of compressed data may unpack to a single byte.
    """
    pieces, head = _data(stream, entry), b""
    for piece in pieces:
        head += piece
        if len(head) >= _HEAD:
            break
    yield head
    yield from pieces


def _data(stream: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The member's data in pieces of at most ``_CHUNK`` bytes.

    Raises _Broken as soon as there is more than the headers say, and at the end if there is less.
    """
    if entry.method == zip_framing.STORED:
        if entry.compressed != entry.size:
            raise _Broken("stored, and of two sizes")
        yield from _raw(stream, entry)
        return
    unpacker, left = zlib.decompressobj(-zlib.MAX_WBITS), entry.size
    try:
        for piece in _raw(stream, entry):
            waiting = piece
            while waiting or not unpacker.eof:
                if unpacker.eof:
                    raise _Broken("more data than its compressed content")
                chunk = unpacker.decompress(waiting, _CHUNK)
                left -= len(chunk)
                if left < 0:
                    raise _Broken(f"it unpacks to more than {entry.size} bytes")
                yield chunk
                waiting = unpacker.unused_data or unpacker.unconsumed_tail
                if not waiting and len(chunk) < _CHUNK:
                    break
    except zlib.error as error:
        raise _Broken(str(error)) from error
    if not unpacker.eof:
        raise _Broken("its compressed content does not end")


def _raw(stream: BinaryIO, entry: Entry) -> Iterator[bytes]:
    left = entry.compressed
    stream.seek(entry.offset)
    while left:
        piece = stream.read(min(left, _CHUNK))
        if not piece:
            raise _Broken("the file ends within it")
        left -= len(piece)
        yield piece


def is_library(name: str, head: bytes, mode: int = 0) -> bool:
    """Whether a member is code, also hidden code, by its name or its first bytes."""
    executable = head.startswith(b"\x7fELF") or (head.startswith(b"MZ") and b"\0" in head[:64])
    hidden = file_kinds.code(name, head, mode) is not None
    return executable or hidden or LIBRARY.search(name) is not None


def _harmful(entries: Sequence[Entry], size: int) -> Iterator[str]:
    """Why the members must not be read."""
    if any(len(entry.name) > member_names.LONGEST for entry in entries):
        yield f"a name of more than {member_names.LONGEST} characters, too long for some systems"
    unpacked, limit = sum(e.size for e in entries), min(UNPACKED, max(SMALL, RATIO * size))
    if unpacked > limit:
        yield f"it unpacks to {unpacked} bytes; more than {limit} are not read"


def _unsound(entries: Sequence[Entry]) -> Iterator[str]:
    """Members that are not regular files or folders."""
    for entry in entries:
        kind = stat.S_IFMT(entry.attributes >> 16)
        if kind not in (0, stat.S_IFDIR if entry.folder else stat.S_IFREG):
            what = "a symbolic link" if stat.S_ISLNK(kind) else "not a regular file"
            yield f"{entry.name}: {what}"
        if entry.folder and entry.size:
            yield f"{entry.name}: a folder with content"
        if not entry.folder and entry.attributes & _FOLDER:
            yield f"{entry.name}: a file that is marked as a folder"
