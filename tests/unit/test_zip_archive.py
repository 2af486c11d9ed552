"""The zip file: whatever is wrong with it is said, nothing raises, nothing lands elsewhere."""

from __future__ import annotations

import errno
import hashlib
import random
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sessions.verify import zip_archive
from sessions.verify.zip_archive import Contents

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
ELF = b"\x7fELF\x02\x01\x01" + bytes(57)
PE = b"MZ\x90\x00" + bytes(60)


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], packed: bool = True) -> Path:
    """A real zip file. Doubles are let through: they are what is tested."""
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, data in members:
            made.writestr(name, data)
    return path


def renamed(path: Path, name: str) -> Path:
    """A zip file with one member of that very name: zipfile itself would fix some of them."""
    raw = name.encode()
    stand_in = b"#" * len(raw)
    zipped(path, (stand_in.decode(), b"x"))
    path.write_bytes(path.read_bytes().replace(stand_in, raw))
    return path


def of_kind(path: Path, kind: int) -> Path:
    info = zipfile.ZipInfo("llama_cpp/lib/libllama.so")
    info.external_attr = (kind | 0o755) << 16
    return zipped(path, (info, b"/etc/passwd"))


def patched(path: Path, signature: bytes, offset: int, data: bytes) -> Path:
    """Other bytes in the first header of that signature."""
    raw = bytearray(path.read_bytes())
    at = raw.index(signature) + offset
    raw[at : at + len(data)] = data
    path.write_bytes(raw)
    return path


def encrypted(path: Path) -> Path:
    flag = struct.pack("<H", 1)
    zipped(path, ("a.txt", b"x" * 20))
    return patched(patched(path, LOCAL, 6, flag), CENTRAL, 8, flag)


def overlapping(path: Path) -> Path:
    """One piece of data that five entries of the directory call theirs."""
    raw = zipped(path, ("a.bin", random.Random(1).randbytes(10_000)), packed=False).read_bytes()
    start, end = raw.index(CENTRAL), raw.index(END)
    entry = raw[start:end]
    entries = b"".join(entry.replace(b"a.bin", b"%d.bin" % n) for n in range(5))
    tail = bytearray(raw[end:])
    struct.pack_into("<HHL", tail, 8, 5, 5, len(entries))
    path.write_bytes(raw[:start] + entries + tail)
    return path


def crowded(path: Path) -> Path:
    return zipped(path, *((f"{n}.txt", b"") for n in range(10_000)), packed=False)


def larger_than_it_says(path: Path) -> Path:
    """A member that unpacks to a hundred times what the directory says."""
    zipped(path, ("a.txt", bytes(100_000)))
    return patched(path, CENTRAL, 24, struct.pack("<L", 1_000))


def damaged(path: Path) -> Path:
    zipped(path, ("a.txt", b"good"), ("b.txt", b"spoilt data"), packed=False)
    path.write_bytes(path.read_bytes().replace(b"spoilt", b"sPoilt"))
    return path


def garbled(path: Path) -> Path:
    """Packed data that cannot be unpacked at all."""
    raw = bytearray(zipped(path, ("a.bin", random.Random(2).randbytes(4_000))).read_bytes())
    raw[60:600] = b"\xff" * 540
    path.write_bytes(raw)
    return path


def cut(path: Path) -> Path:
    whole = zipped(path, ("a.txt", b"x" * 500), ("b.txt", b"y" * 500), packed=False).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def without_its_beginning(path: Path) -> Path:
    whole = zipped(path, ("a.txt", b"x" * 500), packed=False).read_bytes()
    path.write_bytes(whole[20:])
    return path


def from_the_future(path: Path) -> Path:
    """A member that says it needs version 9.9 of the zip specification."""
    return patched(zipped(path, ("a.txt", b"x")), CENTRAL, 6, b"\x63")


def packed_by(how: int) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        with zipfile.ZipFile(path, "w", how) as made:
            made.writestr("a.bin", b"x" * 2_000)
        return path

    return write


def damaged_lzma(path: Path) -> Path:
    raw = bytearray(packed_by(zipfile.ZIP_LZMA)(path).read_bytes())
    raw[38:50] = b"\xff" * 12
    path.write_bytes(raw)
    return path


def link_as_a_folder(path: Path) -> Path:
    info = zipfile.ZipInfo("llama_cpp/lib/")
    info.external_attr = (stat.S_IFLNK | 0o755) << 16
    return zipped(path, ("a.txt", b"x"), (info, b""))


def behind_a_program(path: Path) -> Path:
    zipped(path, ("a.txt", b"x"))
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    return path


def plain(data: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def pair(one: str, other: str) -> Callable[[Path], Path]:
    return lambda path: zipped(path, (one, b"1"), (other, b"22"))


def named(name: str) -> Callable[[Path], Path]:
    return lambda path: renamed(path, name)


# How the file is made, and what must be said of it.
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "duplicate": (pair("a.txt", "a.txt"), "a.txt: 2 members of that name"),
    "equal-but-for-case": (
        pair("Dir/A.py", "dir/a.py"),
        "dir/a.py: 2 names that Windows or macOS takes",
    ),
    "absolute": (named("/etc/passwd"), "'/etc/passwd': absolute path"),
    "drive": (named("C:/x.txt"), "'C:/x.txt': absolute path"),
    "drive-relative": (named("c:x.txt"), "'c:x.txt': absolute path"),
    "leaves": (named("../evil.txt"), "'../evil.txt': leaves its folder"),
    "leaves-from-within": (named("a/b/../../../e.txt"), "leaves its folder"),
    "leaves-on-windows": (named("..\\evil.txt"), "leaves its folder"),
    "backslash": (named("a\\b.txt"), r"'a\\b.txt': not a name for a file on every system"),
    "control-sign": (named("a\x1b[2Jb.txt"), r"not a name for a file on every system"),
    "hidden-from-its-first-byte": (named("\0.txt"), r"not a name for a file on every system"),
    "no-name": (
        lambda path: zipped(path, (zipfile.ZipInfo(""), b"x")),
        "'': not a name for a file",
    ),
    "folder-that-leaves": (pair("a.txt", "../../evil/"), "'../../evil/': leaves its folder"),
    "link-as-a-folder": (link_as_a_folder, "llama_cpp/lib/: a symbolic link"),
    "bzip2": (packed_by(zipfile.ZIP_BZIP2), "a.bin: neither stored nor deflated, but method "),
    "lzma": (packed_by(zipfile.ZIP_LZMA), "a.bin: neither stored nor deflated, but method "),
    "damaged-lzma": (damaged_lzma, "a.bin: neither stored nor deflated, but method 14"),
    "newer-zip": (from_the_future, "a.txt: it needs version 9.9 of zip"),
    "behind-a-program": (behind_a_program, "10 bytes before its first member"),
    "no-member": (zipped, "it contains no file"),
    "folders-only": (lambda path: zipped(path, ("../folder/", b"")), "it contains no file"),
    "hidden-by-nul": (named("a.txt\x00.so"), r"'a.txt\x00.so': not a name for a file"),
    "link": (lambda path: of_kind(path, stat.S_IFLNK), "libllama.so: a symbolic link"),
    "device": (lambda path: of_kind(path, stat.S_IFBLK), "libllama.so: not a regular file"),
    "pipe": (lambda path: of_kind(path, stat.S_IFIFO), "libllama.so: not a regular file"),
    "encrypted": (encrypted, "a.txt: encrypted"),
    "crowded": (crowded, "10000 members; more than 2000 are not read"),
    "overlapping": (overlapping, "members overlap: "),
    "larger-than-it-says": (
        larger_than_it_says,
        "a.txt: its local header has another size, 100000",
    ),
    "damaged": (damaged, "b.txt cannot be read: its checksum is another"),
    "garbled": (garbled, "a.bin cannot be read: "),
    "cut": (cut, "not a zip file that can be read: "),
    "without-its-beginning": (without_its_beginning, "read: "),
    "no-zip": (plain(b"<html>404</html>"), "not a zip file that can be read: "),
    "tar": (plain(b"a.txt" + bytes(1_019)), "not a zip file that can be read: "),
    "empty": (plain(b""), "not a zip file that can be read: "),
    "nothing-there": (lambda path: path, "not a zip file that can be read: "),
}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Deep enough that a member with a few ".." in its name would still land where it is seen."""
    folder = tmp_path / "a" / "b" / "c" / "scratch"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.whl"


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_is_said_and_nothing_is_written_outside_the_scratch_folder(
    name: str, path: Path, scratch: Path, tmp_path: Path
) -> None:
    make, said = HOSTILE[name]
    make(path)
    before = tree(tmp_path)
    found = zip_archive.read(path, scratch)
    assert [line for line in found.problems if said in line], found.problems
    written = {member for member in tree(tmp_path) if member not in before}
    assert {Path(member).parent for member in written} <= {scratch.relative_to(tmp_path)}
    # Names of ours: a number, and no more of the member's than a suffix.
    assert [m for m in written if not Path(m).name.removesuffix(".so").isdecimal()] == []
    assert {member: tree(tmp_path)[member] for member in before} == before


@pytest.mark.parametrize("name", ["crowded", "no-zip", "empty", "no-member", "folders-only"])
def test_of_a_file_that_could_do_harm_nothing_is_read(name: str, path: Path, scratch: Path) -> None:
    HOSTILE[name][0](path)
    found = zip_archive.read(path, scratch)
    assert found == Contents({}, {}, {}, {}, (), found.problems)
    assert len(found.problems) == 1
    assert list(scratch.iterdir()) == []


def test_a_bomb_is_not_unpacked(path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archive, "UNPACKED", 1 << 20)
    zipped(path, ("a.so", bytes(1 << 20)), ("b.so", b"0"))
    assert path.stat().st_size < 5_000
    found = zip_archive.read(path, scratch)
    assert found.problems == ("it unpacks to 1048577 bytes; more than 1048576 are not read",)
    assert found.members == {}
    assert list(scratch.iterdir()) == []


def test_what_unpacks_to_far_more_than_its_size_is_a_bomb_unless_it_is_small(
    path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "SMALL", 1 << 20)
    zipped(path, ("a.bin", bytes(1 << 20)))
    assert zip_archive.read(path, scratch).problems == ()
    zipped(path, ("a.bin", bytes((1 << 20) + 1)))
    assert zip_archive.read(path, scratch).problems == (
        "it unpacks to 1048577 bytes; more than 1048576 are not read",
    )
    # As much from a file of some size is none.
    zipped(path, ("a.bin", bytes((1 << 20) + 1)), ("b.bin", random.Random(4).randbytes(10_000)))
    assert zip_archive.read(path, scratch).problems == ()


def test_what_unpacks_to_the_limit_is_read(
    path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "UNPACKED", 1 << 20)
    zipped(path, ("a.so", bytes(1 << 20)))
    assert zip_archive.read(path, scratch).problems == ()


def test_as_many_members_as_the_limit_are_read(
    path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "MEMBERS", 3)
    zipped(path, *((f"{n}.txt", b"x") for n in range(3)))
    assert zip_archive.read(path, scratch).problems == ()


@pytest.fixture
def sound(path: Path) -> Path:
    members: Mapping[str, bytes] = {
        "llama_cpp/__init__.py": b"from .llama_cpp import *\n",
        "llama_cpp/lib/libllama.so": ELF + b"llama",
        "llama_cpp/lib/libgomp.so.1": ELF + b"gomp",
        "llama_cpp/py.typed": b"",
        "x.dist-info/RECORD": b"",
    }
    infos = [zipfile.ZipInfo(name, (2022, 11, 9, 12, 37, 20)) for name in members]
    for info in infos:
        info.external_attr = (stat.S_IFREG | 0o644) << 16
    return zipped(path, *zip(infos, members.values(), strict=True))


def test_a_sound_file_is_read_whole(sound: Path, scratch: Path) -> None:
    found = zip_archive.read(sound, scratch)
    assert found.problems == ()
    assert found.members == {
        "llama_cpp/__init__.py": 25,
        "llama_cpp/lib/libllama.so": 69,
        "llama_cpp/lib/libgomp.so.1": 68,
        "llama_cpp/py.typed": 0,
        "x.dist-info/RECORD": 0,
    }
    assert found.texts == {
        "llama_cpp/__init__.py": b"from .llama_cpp import *\n",
        "llama_cpp/py.typed": b"",
        "x.dist-info/RECORD": b"",
    }
    assert found.times == ("2022-11-09T12:37:20",)


def test_libraries_are_copied_under_names_of_ours(sound: Path, scratch: Path) -> None:
    found = zip_archive.read(sound, scratch)
    assert {member: copy.read_bytes() for member, copy in found.libraries.items()} == {
        "llama_cpp/lib/libllama.so": ELF + b"llama",
        "llama_cpp/lib/libgomp.so.1": ELF + b"gomp",
    }
    assert sorted(copy.name for copy in found.libraries.values()) == ["1.so", "2.1"]
    assert sorted(scratch.iterdir()) == sorted(found.libraries.values())


def test_digests_are_of_the_unpacked_members(sound: Path, scratch: Path) -> None:
    found = zip_archive.read(sound, scratch)
    with zipfile.ZipFile(sound) as opened:
        right = {i.filename: hashlib.sha256(opened.read(i)).hexdigest() for i in opened.infolist()}
    assert found.digests == right
    # That of nothing at all is known by heart.
    assert found.digests["llama_cpp/py.typed"].startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_a_member_larger_than_one_chunk_is_digested_and_copied_whole(
    path: Path, scratch: Path
) -> None:
    data = ELF + random.Random(3).randbytes((2 << 20) + 7)
    zipped(path, ("a.so", data), packed=False)
    found = zip_archive.read(path, scratch)
    assert found.digests == {"a.so": hashlib.sha256(data).hexdigest()}
    assert found.libraries["a.so"].read_bytes() == data


def test_a_large_text_is_digested_and_not_kept(
    path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "TEXT", 10)
    zipped(path, ("long.txt", b"x" * 11), ("short.txt", b"x" * 10))
    found = zip_archive.read(path, scratch)
    assert found.texts == {"short.txt": b"x" * 10}
    assert found.digests["long.txt"] == hashlib.sha256(b"x" * 11).hexdigest()
    assert found.problems == ()


def test_a_damaged_member_is_left_out_and_the_others_are_read(path: Path, scratch: Path) -> None:
    found = zip_archive.read(damaged(path), scratch)
    assert found.texts == {"a.txt": b"good"}
    assert set(found.digests) == {"a.txt"}
    # It is still one of the members: the check of RECORD says of it that it could not be read.
    assert set(found.members) == {"a.txt", "b.txt"}


def test_a_damaged_library_is_no_library_that_is_judged(path: Path, scratch: Path) -> None:
    zipped(path, ("a.so", ELF + b"spoilt"), packed=False)
    path.write_bytes(path.read_bytes().replace(b"spoilt", b"sPoilt"))
    found = zip_archive.read(path, scratch)
    assert found.libraries == {}
    assert found.digests == {}
    assert [line for line in found.problems if line.startswith("a.so cannot be read")]


def test_each_time_is_told_once(path: Path, scratch: Path) -> None:
    dates = [(2026, 1, 2, 3, 4, 6), (2022, 11, 9, 12, 37, 20), (2026, 1, 2, 3, 4, 6)]
    zipped(path, *((zipfile.ZipInfo(f"{n}.txt", date), b"") for n, date in enumerate(dates)))
    found = zip_archive.read(path, scratch)
    assert found.times == ("2022-11-09T12:37:20", "2026-01-02T03:04:06")


def test_a_folder_is_no_member(path: Path, scratch: Path) -> None:
    zipped(path, ("llama_cpp/", b""), ("llama_cpp/a.py", b"a"))
    found = zip_archive.read(path, scratch)
    assert set(found.members) == {"llama_cpp/a.py"}
    assert found.problems == ()


@pytest.mark.parametrize(
    ("name", "head", "library"),
    [
        ("llama_cpp/lib/libllama.so", b"", True),
        ("llama_cpp/lib/libgomp.so.1.0.0", b"", True),
        ("llama_cpp/lib/llama.dll", b"", True),
        ("llama_cpp/_core.pyd", b"", True),
        ("llama_cpp/lib/libllama.dylib", b"", True),
        ("bin/llama-cli.exe", b"", True),
        ("bin/llama-cli", ELF, True),
        ("llama_cpp/data/notes.txt", ELF, True),
        ("llama_cpp/LLAMA.DLL", PE, True),
        ("llama_cpp/data/picture.png", PE, True),
        ("README.md", b"MZ is how a program for Windows begins, and this is none." * 2, False),
        ("llama_cpp/so.py", b"import so", False),
        ("llama_cpp/lib.so.py", b"", False),
        ("llama_cpp/libllama.so.txt", b"", False),
        ("empty", b"", False),
    ],
)
def test_machine_code_is_known_by_its_name_or_by_how_it_begins(
    name: str, head: bytes, library: bool
) -> None:
    assert zip_archive.is_library(name, head) is library


def test_a_library_under_an_innocent_name_is_copied_and_judged(path: Path, scratch: Path) -> None:
    zipped(path, ("llama_cpp/notes.txt", ELF), ("llama_cpp/notes.md", b"# Notes"))
    found = zip_archive.read(path, scratch)
    assert {m: copy.read_bytes() for m, copy in found.libraries.items()} == {
        "llama_cpp/notes.txt": ELF
    }
    assert set(found.texts) == {"llama_cpp/notes.md"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=["full-disk", "no-permission"])
def test_what_is_wrong_with_this_machine_is_no_finding_about_the_wheel(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    path = zipped(tmp_path / "a.whl", ("a.so", b"\x7fELF"))
    monkeypatch.setattr(zip_archive, "_member", refuse)
    with pytest.raises(OSError, match="refused"):
        zip_archive.read(path, tmp_path)


def test_a_bug_of_ours_is_no_finding_about_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.so", b"\x7fELF")
    monkeypatch.setattr(
        zip_archive, "_member", lambda archive, info: None
    )  # a wrong number of words
    with pytest.raises(TypeError):
        zip_archive.read(path, tmp_path)
