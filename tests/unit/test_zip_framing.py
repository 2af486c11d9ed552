"""Zip headers and names of members: files that two readers could read differently are refused."""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from sessions.verify import member_names, zip_archive, zip_framing
from sessions.verify.zip_framing import Entry

UTF8 = 0x800


@dataclasses.dataclass
class Member:
    """A member to be written. ``local`` and ``central`` are fields that are wrong in one header."""

    name: str
    data: bytes = b"x = 1\n"
    method: int = 8
    flags: int = 0
    extra: bytes = b""
    central_extra: bytes | None = None
    comment: bytes = b""
    packed: bytes | None = None
    before: bytes = b""  # bytes before its local header
    after: bytes = b""  # bytes after its data
    local: dict[str, int | bytes] = dataclasses.field(default_factory=dict)
    central: dict[str, int | bytes] = dataclasses.field(default_factory=dict)
    listed: bool = True

    def but(self, **changes: Any) -> Member:
        return dataclasses.replace(self, **changes)


def packed(data: bytes) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeezer.compress(data) + squeezer.flush()


def written(
    *members: Member,
    prefix: bytes = b"",
    gap: bytes = b"",
    behind: bytes = b"",
    comment: bytes = b"",
    suffix: bytes = b"",
    end: dict[str, int] | None = None,
) -> bytes:
    """A zip file, byte by byte."""
    out, central = io.BytesIO(), io.BytesIO()
    out.write(prefix)
    for member in members:
        out.write(member.before)
        body = member.packed
        if body is None:
            body = packed(member.data) if member.method == 8 else member.data
        base: dict[str, Any] = {
            "needed": 20, "flags": member.flags, "method": member.method, "time": 0x6482,
            "date": 0x5569, "crc": zlib.crc32(member.data), "compressed": len(body),
            "size": len(member.data), "name": member.name.encode(), "extra": member.extra,
        }  # fmt: skip
        where = out.tell()
        out.write(header({**base, **member.local}))
        out.write(body + member.after)
        if member.central_extra is not None:
            base["extra"] = member.central_extra
        if member.listed:
            entry = {**base, **member.central}
            central.write(listed(entry, where, member.comment))
    out.write(gap)
    count = sum(member.listed for member in members)
    fields = {"disk": 0, "first": 0, "here": count, "count": count, "length": central.tell(),
              "start": out.tell(), **(end or {})}  # fmt: skip
    out.write(central.getvalue() + behind)
    out.write(struct.pack("<4s4H2LH", b"PK\x05\x06", *fields.values(), len(comment)) + comment)
    return out.getvalue() + suffix


def header(f: dict[str, Any]) -> bytes:
    """A local header."""
    numbers = [f[n] for n in ("needed", "flags", "method", "time", "date", "crc", "compressed")]
    lengths = f["size"], len(f["name"]), len(f["extra"])
    start = struct.pack("<4s5H3L2H", b"PK\x03\x04", *numbers, *lengths)
    return bytes(start + f["name"] + f["extra"])


def listed(f: dict[str, Any], where: int, comment: bytes) -> bytes:
    """An entry of the central directory, by default with the offset ``where``."""
    numbers = [f[n] for n in ("needed", "flags", "method", "time", "date", "crc", "compressed")]
    lengths = f["size"], len(f["name"]), len(f["extra"]), len(comment)
    others = f.get("disk", 0), 0, f.get("attributes", 0o100644 << 16), f.get("where", where)
    start = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 0x314, *numbers, *lengths, *others)
    return bytes(start + f["name"] + f["extra"] + comment)


A, B = Member("llama_cpp/a.py"), Member("llama_cpp/b.py", b"evil = 1\n")
HIDDEN = header(
    {"needed": 20, "flags": 0, "method": 0, "time": 0, "date": 33, "crc": zlib.crc32(b"evil"),
     "compressed": 4, "size": 4, "name": b"llama_cpp/a.py", "extra": b""}
) + b"evil"  # fmt: skip
ZIP64 = struct.pack("<HHQQ", 1, 16, 6, 8)
UNICODE_PATH = struct.pack("<HHBL", 0x7075, 5 + 4, 1, zlib.crc32(b"llama_cpp/a.py")) + b"e.py"


def local(**fields: int | bytes) -> tuple[Member, ...]:
    return (A.but(local=fields), B)


def both(**fields: int | bytes) -> tuple[Member, ...]:
    return (A.but(local=fields, central=fields), B)


def descriptor(member: Member, *, signed: bool = True, wrong: int = 0) -> bytes:
    numbers = zlib.crc32(member.data), len(packed(member.data)), len(member.data) + wrong
    return (b"PK\x07\x08" if signed else b"") + struct.pack("<3L", *numbers)


def streamed(member: Member, *, signed: bool = True, wrong: int = 0) -> Member:
    """As written to a pipe: sizes and checksum are after the data."""
    return dataclasses.replace(
        member,
        flags=8,
        local={"crc": 0, "compressed": 0, "size": 0},
        after=descriptor(member, signed=signed, wrong=wrong),
    )


HOSTILE: dict[str, bytes] = {
    "count-too-small": written(A, B, end={"here": 1, "count": 1}),
    "count-too-large": written(A, B, end={"here": 3, "count": 3}),
    "two-counts": written(A, B, end={"here": 1}),
    "another-disk": written(A, B, end={"disk": 1}),
    "directory-on-another-disk": written(A, B, end={"first": 1}),
    "directory-shorter-than-its-headers": written(A, B, end={"length": 40}),
    "directory-elsewhere": written(A, B, end={"start": 3}),
    "hidden-in-a-gap": written(A, B.but(before=HIDDEN)),
    "hidden-before-the-first": written(A.but(before=HIDDEN), B),
    "hidden-in-front-of-it-all": written(A, B, prefix=HIDDEN),
    "in-a-program": b"#!/bin/sh\n" + written(A, B),
    "hidden-after-the-last": written(A, B, gap=HIDDEN),
    "not-in-the-directory": written(A, B.but(listed=False)),
    "behind-the-directory": written(A, B, behind=b"PK\x06\x06" + bytes(52)),
    "archive-comment": written(A, B, comment=b"hello"),
    "comment-with-an-end-record": written(A, B, comment=written(B)),
    "behind-the-end": written(A, B, suffix=b"\n"),
    "another-zip-behind-the-end": written(A, B, suffix=written(B)),
    "comment-of-a-member": written(A.but(comment=b"x"), B),
    "local-name": written(*local(name=b"llama_cpp/e.py")),
    "local-size": written(*local(size=7)),
    "local-compressed-size": written(*local(compressed=7)),
    "local-method": written(*local(method=0)),
    "local-flags": written(*local(flags=2)),
    "local-checksum": written(*local(crc=1)),
    "local-time": written(*local(time=1)),
    "local-date": written(*local(date=33)),
    "local-version": written(*local(needed=10)),
    "local-extra-only": written(*local(extra=UNICODE_PATH)),
    "central-extra-only": written(A.but(central_extra=UNICODE_PATH), B),
    "unicode-path": written(A.but(extra=UNICODE_PATH), B),
    "zip64-sizes": written(A.but(extra=ZIP64), B),
    "aes": written(A.but(extra=struct.pack("<HH", 0x9901, 0)), B),
    "extra-cut-short": written(A.but(extra=b"UT\x09\x00abc"), B),
    "extra-too-short-for-a-field": written(A.but(extra=b"UT"), B),
    "encrypted": written(*both(flags=1)),
    "strongly-encrypted": written(*both(flags=0x41)),
    "patch-data": written(*both(flags=0x20)),
    "masked-headers": written(*both(flags=0x2000)),
    "bzip2": written(*both(method=12)),
    "deflate64": written(*both(method=9)),
    "from-the-future": written(*both(needed=63)),
    "name-in-no-charset": written(*both(name=b"llama_cpp/\xe9.py")),
    "name-not-utf8": written(*both(name=b"llama_cpp/\xff.py", flags=UTF8)),
    "member-on-another-disk": written(A.but(central={"disk": 1}), B),
    "offset-into-another": written(A, B.but(central={"where": 10})),
    "offset-behind-the-file": written(A, B.but(central={"where": 1 << 30})),
    "two-of-one": written(A, A.but(central={"where": 0})),
    "zip64-end": written(A, B, end={"start": 0xFFFFFFFF}),
    "zip64-count": written(A, B, end={"here": 0xFFFF, "count": 0xFFFF}),
    "stored-and-streamed": written(
        streamed(A).but(method=0, after=descriptor(A)), B
    ),
    "another-size-behind-the-data": written(streamed(A, wrong=1), B),
    "nothing-behind-the-data": written(streamed(A).but(after=b""), B),
    "data-behind-the-compressed": written(
        A.but(packed=packed(A.data) + HIDDEN), B
    ),
    "compressed-that-does-not-end": written(A.but(packed=packed(A.data)[:-1]), B),
    "stored-of-two-sizes": written(A.but(method=0, packed=A.data + b"#"), B),
    "larger-than-its-headers": written(*both(size=3)),
    "smaller-than-its-headers": written(*both(size=9)),
    "no-member": written(),
}  # fmt: skip


def read(data: bytes, folder: Path) -> zip_archive.Contents:
    path = folder / "some.whl"
    path.write_bytes(data)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return zip_archive.read(path, scratch)


PROBLEMS = {
    "encrypted": "llama_cpp/a.py: encrypted",
    "offset-into-another": "members overlap: llama_cpp/b.py begins within llama_cpp/a.py",
    "bzip2": "llama_cpp/a.py: neither stored nor deflated, but method 12",
    "from-the-future": "llama_cpp/a.py: it needs version 6.3 of zip",
    "in-a-program": "10 bytes before its first member",
    "local-size": "llama_cpp/a.py: its local header has another size, 7",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_readers_could_read_differently_has_a_problem(
    name: str, tmp_path: Path
) -> None:
    problems = read(HOSTILE[name], tmp_path).problems
    assert problems != ()
    assert PROBLEMS.get(name, "") in "\n".join(problems)


def test_the_file_without_a_defect_is_sound(tmp_path: Path) -> None:
    found = read(written(A, B), tmp_path)
    assert found.problems == ()
    assert found.texts == {A.name: A.data, B.name: B.data}


SOUND: dict[str, bytes] = {
    "times-and-owners-of-info-zip": written(
        A.but(extra=b"UT\x05\x00\x03abcd", central_extra=b"UT\x05\x00\x01abcd")
    ),
    "streamed": written(streamed(A), B),
    "streamed-without-a-signature": written(streamed(A, signed=False), B),
    "stored": written(A.but(method=0), B),
    "empty": written(A.but(data=b""), B.but(data=b"", method=0)),
    "beyond-ascii": written(Member("llama_cpp/ñ.py", flags=UTF8)),
    "level-of-compression": written(*both(flags=2)),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_other_programs_write_is_sound_and_python_reads_the_same(
    name: str, tmp_path: Path
) -> None:
    found = read(SOUND[name], tmp_path)
    assert found.problems == ()
    with zipfile.ZipFile(tmp_path / "some.whl") as other:
        assert found.texts == {i.filename: other.read(i) for i in other.infolist()}


def test_read_returns_the_same_entries_as_python(tmp_path: Path) -> None:
    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            info = zipfile.ZipInfo(f"llama_cpp/{number}.py", (2022, 11, 9, 12, 37, 2 * number))
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            archive.writestr(info, bytes(number))
        archive.mkdir("llama_cpp/empty")
    entries, problems = zip_framing.read(path, 100)
    assert problems == ()
    with zipfile.ZipFile(path) as other:
        expected = [(i.filename, i.CRC, i.compress_size, i.file_size) for i in other.infolist()]
        modes = [i.external_attr for i in other.infolist()]
    assert [(e.name, e.crc, e.compressed, e.size) for e in entries] == expected
    assert [e.attributes for e in entries] == modes
    assert entries[3].time == "2022-11-09T12:37:06"
    assert [e.name for e in entries if e.folder] == ["llama_cpp/empty/"]
    assert isinstance(entries[0], Entry)


def test_a_library_is_recognized_after_megabytes_of_compressed_data(tmp_path: Path) -> None:
    """Two megabytes of empty blocks after each of its first four bytes."""
    data = b"\x7fELF" + bytes(100)

    def block(part: bytes, last: int = 0) -> bytes:
        return struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF) + part

    body = b"".join(block(data[n : n + 1]) + block(b"") * 400_000 for n in range(4))
    found = read(written(Member("notes.txt", data, packed=body + block(data[4:], 1))), tmp_path)
    assert found.problems == ()
    assert set(found.libraries) == {"notes.txt"}


def test_a_directory_of_a_million_members_is_not_read(tmp_path: Path) -> None:
    entry = listed(
        {"needed": 20, "flags": 0, "method": 0, "time": 0, "date": 33, "crc": 0, "compressed": 0,
         "size": 0, "name": b"a", "extra": b""}, 0, b"",
    )  # fmt: skip
    directory = entry * 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), 0, 0)
    found = read(directory + end, tmp_path)
    assert len(found.problems) == 1
    assert found.members == {}


# ---- Names --------------------------------------------------------------------------------------

NAMES = {
    "dot": "llama_cpp/./__init__.py",
    "two-slashes": "llama_cpp//__init__.py",
    "leading-dot": "./llama_cpp/__init__.py",
    "two-dots": "llama_cpp/../llama_cpp/__init__.py",
    "absolute": "/llama_cpp/a.py",
    "unc": "//server/share/a.py",
    "drive": "C:/a.py",
    "drive-relative": "c:a.py",
    "backslash": "llama_cpp\\a.py",
    "trailing-dot": "llama_cpp/a.py.",
    "trailing-space": "llama_cpp/a.py ",
    "trailing-dot-of-a-folder": "llama_cpp./a.py",
    "leading-space": "llama_cpp/ a.py",
    "aux": "llama_cpp/aux",
    "aux-with-a-suffix": "llama_cpp/AUX.py",
    "nul": "llama_cpp/nul.txt",
    "nul-and-two-suffixes": "llama_cpp/nul.tar.gz",
    "con-and-a-space": "llama_cpp/con .py",
    "com": "llama_cpp/COM1.py",
    "com-superscript": "llama_cpp/com¹.py",
    "console": "llama_cpp/CONIN$",
    "device-as-a-folder": "prn/a.py",
    "stream": "llama_cpp/a.py:stream",
    "wildcard": "llama_cpp/a*.py",
    "question-mark": "llama_cpp/a?.py",
    "quote": 'llama_cpp/a".py',
    "pipe": "llama_cpp/a|b.py",
    "less": "llama_cpp/<a>.py",
    "nul-byte": "llama_cpp/a.py\0.txt",
    "newline": "llama_cpp/a\n.py",
    "right-to-left": "llama_cpp/a\u202eyp.so",
    "zero-width": "llama_cpp/a\u200b.py",
    "decomposed": "llama_cpp/n\u0303.py",
    "long": "llama_cpp/" + "a" * 300,
    "long-part": "llama_cpp/" + "ñ" * 130,
    "deep": "a/" * 10_000 + "a.py",
    "empty": "",
    "dot-only": ".",
    "folder-of-no-name": "llama_cpp//",
    "slash": "/",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_the_same_on_every_system_is_a_problem(name: str) -> None:
    assert len(list(member_names.problems([NAMES[name]]))) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["a.py", "a.py"],
        ["a.py", "A.py"],
        ["llama_cpp/a.py", "Llama_cpp/b.py"],
        ["straße.py", "STRASSE.py"],
        ["ﬁle.py", "file.py"],
        ["K.py", "\u212a.py"],
        ["a", "a/b.py"],
        ["a", "a/"],
        ["A", "a/b.py"],
    ],
)
def test_names_of_the_same_file_on_some_system_are_a_problem(names: list[str]) -> None:
    assert list(member_names.problems(names)) != []
    assert [list(member_names.problems([name])) for name in names if name.isascii()] == [
        [] for name in names if name.isascii()
    ]


def test_ordinary_names_have_no_problem() -> None:
    names = [
        "llama_cpp/", "llama_cpp/__init__.py", "llama_cpp/lib/libgomp.so.1", "llama_cpp/ñ.py",
        "llama_cpp_python-0.3.16+cu131.dist-info/RECORD", "llama_cpp/auxiliary.py",
        "llama_cpp/console.py", "llama_cpp/.hidden", "llama_cpp/com10.py", "a/b/c/a.py",
    ]  # fmt: skip
    assert list(member_names.problems(names)) == []


def test_a_folder_with_content_and_a_file_marked_as_a_folder_are_problems(tmp_path: Path) -> None:
    folder = Member("llama_cpp/", b"x", central={"attributes": (0o40755 << 16) | 0x10})
    found = read(written(folder, A), tmp_path)
    assert len(found.problems) == 1
    marked = A.but(central={"attributes": (0o100644 << 16) | 0x10})
    assert len(read(written(marked, B), tmp_path).problems) == 1


def seen_by_python(path: Path) -> dict[str, bytes] | None:
    """The members that Python (and so pip) unpacks; None if it refuses the file."""
    try:
        with zipfile.ZipFile(path) as other:
            return {info.filename: other.read(info) for info in other.infolist()}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, ValueError):
        return None
    except RuntimeError:  # encrypted
        return None


@pytest.mark.parametrize("how", ["flipped", "inserted", "removed"])
def test_every_changed_byte_is_a_problem_or_changes_nothing_for_any_reader(
    how: str, tmp_path: Path
) -> None:
    whole = written(A, streamed(B), Member("llama_cpp/"))
    expected = {A.name: A.data, B.name: B.data}
    unnoticed = 0
    for at in range(len(whole)):
        byte = bytes([whole[at] ^ 0x5B]) if how == "flipped" else b"\x41"
        end = at + (how != "inserted")
        found = read(whole[:at] + (b"" if how == "removed" else byte) + whole[end:], tmp_path)
        if not found.problems:
            unnoticed += 1
            assert found.texts == expected
            other = seen_by_python(tmp_path / "some.whl")
            assert {n: d for n, d in (other or expected).items() if d} == expected
    # The creator's version and the file modes in the central directory.
    assert unnoticed <= (3 * 12 if how == "flipped" else 0)
