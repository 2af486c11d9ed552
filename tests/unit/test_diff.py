"""The comparison of two wheels shows each difference."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from sessions.verify import diff
from tests import elfs

FILES = {
    "llama_cpp/__init__.py": b"a = 1\nb = 2\n",
    "llama_cpp/data.bin": b"\x00\x01\xff\xfe",
    "x.dist-info/RECORD": b"llama_cpp/__init__.py,,\n",
}


def pack(folder: Path, files: dict[str, bytes], name: str = "a.whl", second: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(zipfile.ZipInfo(member, (2022, 11, 9, 12, 37, second)), data)
    return path


def elf(text: bytes, note: bytes = b"note", name: bytes = b".text") -> bytes:
    return elfs.with_sections(62, (name, 1, text), (b".note", 1, note))


def differing(tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]) -> tuple[str, ...]:
    one, other = pack(tmp_path / "one", first), pack(tmp_path / "other", second)
    return diff.differences(one, other)


LESS = {name: data for name, data in FILES.items() if "bin" not in name}


@pytest.mark.parametrize(
    ("one", "other", "lines"),
    [
        (FILES, FILES, ()),
        (FILES, LESS, ("llama_cpp/data.bin: only in the first",)),
        (LESS, FILES, ("llama_cpp/data.bin: only in the second",)),
        (FILES, dict(reversed(FILES.items())), ("the members are in another order",)),
    ],
    ids=["equal", "only-in-first", "only-in-second", "order"],
)
def test_differences_of_the_list_of_members(
    one: dict[str, bytes], other: dict[str, bytes], lines: tuple[str, ...], tmp_path: Path
) -> None:
    assert differing(tmp_path, one, other) == lines


def test_differences_of_name_and_time(tmp_path: Path) -> None:
    one, other = pack(tmp_path, FILES), pack(tmp_path, FILES, "b.whl")
    assert diff.differences(one, other) == ("name: a.whl, and b.whl",)
    one = pack(tmp_path / "one", {"a": b""})
    other = pack(tmp_path / "other", {"a": b""}, second=2)
    (line,) = diff.differences(one, other)
    assert line == "a: date_time is (2022, 11, 9, 12, 37, 0), and (2022, 11, 9, 12, 37, 2)"


@pytest.mark.parametrize(
    ("data", "again", "why"),
    [
        (b"a = 1\nb = 2\n", b"a = 1\nb = 3\n", "line 2 is 'b = 2', and 'b = 3'"),
        (b"a = 1\n", b"a = 1\nb = 2\n", "1 lines, and 2"),
        (b"\xff\x01", b"\xff\x02", "differs from byte 1 on"),
        (b"\xff\x01", b"\xff", "2 bytes, and 1"),
        (b"MZ no such file", b"MZ no such thing", "15 bytes, and 16"),
        (
            elf(b"\x90 /home/ana/src/llama.cpp \x90 same text"),
            elf(b"\x90 /home/eva/src/llama.cpp \x90 same text"),
            "section .text (1 texts of its own, such as ' /home/ana/src/llama.cpp ')",
        ),
        (
            elf(b"\1\2\3", b"\4"),
            elf(b"\1\5\3", b"\6"),
            "section .text (differs from byte 1 on), .note (differs from byte 0 on)",
        ),
        (
            elf(b"\1", name=b".text"),
            elf(b"\1", name=b".tex2"),
            "section .text only in one, .shstrtab (differs from byte 5 on), .tex2 only in one",
        ),
    ],
)
def test_differences_show_where_a_member_differs(
    data: bytes, again: bytes, why: str, tmp_path: Path
) -> None:
    assert differing(tmp_path, {"a": data}, {"a": again}) == (f"a: {why}",)


def test_a_difference_outside_the_members_is_found(tmp_path: Path) -> None:
    one, other = pack(tmp_path / "one", FILES), pack(tmp_path / "other", FILES)
    with zipfile.ZipFile(other, "a") as archive:
        archive.comment = b"made elsewhere"
    assert diff.differences(one, other) == ("the zip files differ outside their members",)


def test_a_file_that_is_not_a_zip_file_is_a_difference(tmp_path: Path) -> None:
    one, other = pack(tmp_path / "one", FILES), tmp_path / "other.whl"
    other.write_bytes(b"PK\x05\x06")
    assert "cannot be read" not in "".join(diff.differences(one, one))
    assert len(diff.differences(one, other)) == 2  # its name, and that it cannot be read
    assert "can be read" in diff.differences(one, other)[1]
