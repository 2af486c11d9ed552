"""Reading a zip file: every problem is reported, and nothing is written outside the folder."""

from __future__ import annotations

import errno
import hashlib
import random
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sessions.verify import zip_archive
from sessions.verify.zip_archive import Contents

ELF = b"\x7fELF\x02\x01\x01" + bytes(57)
PE = b"MZ\x90\x00" + bytes(60)


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], packed: bool = True) -> Path:
    """A zip file that Python writes, possibly with duplicate members."""
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, data in members:
            archive.writestr(name, data)
    return path


Make = Callable[[Path], Path]


def named(name: str) -> Make:
    """A zip file with one member with exactly this name; zipfile would change some names."""

    def write(path: Path) -> Path:
        raw = name.encode()
        stand_in = b"#" * len(raw)
        zipped(path, (stand_in.decode(), b"x"))
        path.write_bytes(path.read_bytes().replace(stand_in, raw))
        return path

    return write


def of_kind(kind: int, name: str = "llama_cpp/lib/libllama.so", data: bytes = b"x") -> Make:
    """A zip file with a member of this kind (stat.S_IFLNK, …)."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o755) << 16
    return lambda path: zipped(path, ("a.txt", b"x"), (info, data))


def crowded(path: Path) -> Path:
    return zipped(path, *((f"{n}.txt", b"") for n in range(10_000)), packed=False)


def damaged(path: Path) -> Path:
    zipped(path, ("a.txt", b"good"), ("b.txt", b"spoilt data"), packed=False)
    path.write_bytes(path.read_bytes().replace(b"spoilt", b"sPoilt"))
    return path


def garbled(path: Path) -> Path:
    """Compressed data that cannot be unpacked."""
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


def plain(data: bytes) -> Make:
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def pair(one: str, other: str) -> Make:
    return lambda path: zipped(path, (one, b"1"), (other, b"22"))


# A function that writes the file, and a part of the problem. See also test_zip_framing.
HOSTILE: dict[str, tuple[Make, str]] = {
    "duplicate": (pair("a.txt", "a.txt"), "a.txt: 2 members of that name"),
    "absolute": (named("/etc/passwd"), "'/etc/passwd': absolute path"),
    "drive": (named("C:/x.txt"), "'C:/x.txt': absolute path"),
    "leaves": (named("../evil.txt"), "'../evil.txt': leaves its folder"),
    "leaves-from-within": (named("a/b/../../../e.txt"), "leaves its folder"),
    "leaves-on-windows": (named("..\\evil.txt"), "leaves its folder"),
    "no-name": (lambda path: zipped(path, (zipfile.ZipInfo(""), b"x")), "'': not a name for a"),
    "folder-that-leaves": (pair("a.txt", "../../evil/"), "'../../evil/': leaves its folder"),
    "link-as-a-folder": (of_kind(stat.S_IFLNK, "llama_cpp/lib/", b""), "lib/: a symbolic link"),
    "no-member": (zipped, "it contains no file"),
    "folders-only": (lambda path: zipped(path, ("../folder/", b"")), "it contains no file"),
    "hidden-by-nul": (named("a.txt\x00.so"), r"'a.txt\x00.so': not a name for a file"),
    "link": (of_kind(stat.S_IFLNK), "libllama.so: a symbolic link"),
    "device": (of_kind(stat.S_IFBLK), "libllama.so: not a regular file"),
    "pipe": (of_kind(stat.S_IFIFO), "libllama.so: not a regular file"),
    "crowded": (crowded, "10000 members; more than 2000 are not read"),
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
    """The files in a folder with their contents, and its subfolders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder so deep that a member with several ".." in its name stays inside ``tmp_path``."""
    folder = tmp_path / "a" / "b" / "c" / "scratch"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.whl"


@pytest.mark.parametrize("name", HOSTILE)
def test_read_reports_the_problem_and_writes_nothing_outside_the_scratch_folder(
    name: str, path: Path, scratch: Path, tmp_path: Path
) -> None:
    make, problem = HOSTILE[name]
    make(path)
    before = tree(tmp_path)
    found = zip_archive.read(path, scratch)
    assert [line for line in found.problems if problem in line], found.problems
    written = {member for member in tree(tmp_path) if member not in before}
    assert {Path(member).parent for member in written} <= {scratch.relative_to(tmp_path)}
    # The generated names are a number with the member's suffix.
    assert [m for m in written if not Path(m).name.removesuffix(".so").isdecimal()] == []
    assert {member: tree(tmp_path)[member] for member in before} == before


@pytest.mark.parametrize("name", ["crowded", "no-zip", "empty", "no-member", "folders-only"])
def test_no_member_of_a_harmful_file_is_read(name: str, path: Path, scratch: Path) -> None:
    HOSTILE[name][0](path)
    found = zip_archive.read(path, scratch)
    assert found == Contents({}, {}, {}, {}, (), found.problems)
    assert len(found.problems) == 1
    assert list(scratch.iterdir()) == []


MIB = 1 << 20
NOISE = random.Random(4).randbytes(10_000)


@pytest.mark.parametrize(
    ("limit", "value", "members", "too_large"),
    [
        ("UNPACKED", MIB, [("a.so", bytes(MIB))], False),
        ("UNPACKED", MIB, [("a.so", bytes(MIB)), ("b.so", b"0")], True),
        ("SMALL", MIB, [("a.bin", bytes(MIB))], False),
        ("SMALL", MIB, [("a.bin", bytes(MIB + 1))], True),
        # The same content in a larger file, so that the ratio is smaller.
        ("SMALL", MIB, [("a.bin", bytes(MIB + 1)), ("b.bin", NOISE)], False),
        ("MEMBERS", 3, [(f"{n}.txt", b"x") for n in range(3)], False),
    ],
)
def test_a_file_that_unpacks_to_more_than_a_limit_is_not_read(
    limit: str,
    value: int,
    members: list[tuple[str, bytes]],
    too_large: bool,
    path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zip_archive, limit, value)
    found = zip_archive.read(zipped(path, *members), scratch)
    line = "it unpacks to 1048577 bytes; more than 1048576 are not read"
    assert found.problems == ((line,) if too_large else ())
    assert (found.members == {}) is too_large
    assert not too_large or list(scratch.iterdir()) == []


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


def test_read_returns_all_of_a_sound_file(sound: Path, scratch: Path) -> None:
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
    # Copies of libraries have generated names.
    assert {member: copy.read_bytes() for member, copy in found.libraries.items()} == {
        "llama_cpp/lib/libllama.so": ELF + b"llama",
        "llama_cpp/lib/libgomp.so.1": ELF + b"gomp",
    }
    assert sorted(copy.name for copy in found.libraries.values()) == ["1.so", "2.1"]
    assert sorted(scratch.iterdir()) == sorted(found.libraries.values())
    with zipfile.ZipFile(sound) as opened:
        right = {i.filename: hashlib.sha256(opened.read(i)).hexdigest() for i in opened.infolist()}
    assert found.digests == right


def test_a_member_larger_than_one_chunk_is_copied_completely(path: Path, scratch: Path) -> None:
    data = ELF + random.Random(3).randbytes((2 << 20) + 7)
    zipped(path, ("a.so", data), packed=False)
    found = zip_archive.read(path, scratch)
    assert found.digests == {"a.so": hashlib.sha256(data).hexdigest()}
    assert found.libraries["a.so"].read_bytes() == data


def test_the_digest_of_a_large_text_is_kept_without_the_text(
    path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "TEXT", 10)
    zipped(path, ("long.txt", b"x" * 11), ("short.txt", b"x" * 10))
    found = zip_archive.read(path, scratch)
    assert found.texts == {"short.txt": b"x" * 10}
    assert found.digests["long.txt"] == hashlib.sha256(b"x" * 11).hexdigest()
    assert found.problems == ()


def test_the_contents_of_a_damaged_member_are_left_out(path: Path, scratch: Path) -> None:
    found = zip_archive.read(damaged(path), scratch)
    assert found.texts == {"a.txt": b"good"}
    assert set(found.digests) == {"a.txt"}
    # It is still a member: the check of RECORD reports that it could not be read.
    assert set(found.members) == {"a.txt", "b.txt"}
    zipped(path, ("a.so", ELF + b"spoilt"), packed=False)
    path.write_bytes(path.read_bytes().replace(b"spoilt", b"sPoilt"))
    found = zip_archive.read(path, scratch)
    assert (found.libraries, found.digests) == ({}, {})
    assert [line for line in found.problems if line.startswith("a.so cannot be read")]


def test_times_are_distinct_and_sorted(path: Path, scratch: Path) -> None:
    dates = [(2026, 1, 2, 3, 4, 6), (2022, 11, 9, 12, 37, 20), (2026, 1, 2, 3, 4, 6)]
    zipped(path, *((zipfile.ZipInfo(f"{n}.txt", date), b"") for n, date in enumerate(dates)))
    found = zip_archive.read(path, scratch)
    assert found.times == ("2022-11-09T12:37:20", "2026-01-02T03:04:06")


def test_a_folder_is_not_a_member(path: Path, scratch: Path) -> None:
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
def test_is_library_uses_the_name_and_the_first_bytes(
    name: str, head: bytes, library: bool
) -> None:
    assert zip_archive.is_library(name, head) is library


def test_a_library_with_the_name_of_a_text_is_copied(path: Path, scratch: Path) -> None:
    zipped(path, ("llama_cpp/notes.txt", ELF), ("llama_cpp/notes.md", b"# Notes"))
    found = zip_archive.read(path, scratch)
    assert set(found.libraries) == {"llama_cpp/notes.txt"}
    assert set(found.texts) == {"llama_cpp/notes.md"}


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("zip_framing.read", OSError(errno.ENOSPC, "refused")),
        ("_member", OSError(errno.ENOSPC, "refused")),
        ("_member", OSError(errno.EACCES, "refused")),
        ("_member", TypeError("refused")),
    ],
)
def test_a_problem_of_this_machine_or_a_bug_is_raised(
    function: str, error: Exception, path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    zipped(path, ("a.so", ELF))
    monkeypatch.setattr(f"sessions.verify.zip_archive.{function}", refuse)
    with pytest.raises(type(error), match="refused"):
        zip_archive.read(path, scratch)
