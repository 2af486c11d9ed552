"""Two wheels compared: what differs is named, and in what."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from sessions.verify import diff

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
    """A small ELF file with sections: what can be told apart by them."""
    names = b"\0" + name + b"\0.note\0.shstrtab\0"
    offsets, body = [], b""
    for part in (text, note, names):
        offsets.append((64 + len(body), len(part)))
        body += part
    start = 64 + len(body)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        3, 62, 1, 0, 0, start, 0, 64, 56, 0, 64, 4, 3,
    )  # fmt: skip
    at = [1, names.index(b".note"), names.index(b".shstrtab")]
    kinds = (1, 7, 3)
    table = bytes(64)
    for index, (offset, size) in enumerate(offsets):
        table += struct.pack("<IIQQQQIIQQ", at[index], kinds[index], 0, 0, offset, size, 0, 0, 1, 0)
    return head + body + table


def differing(tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes]) -> tuple[str, ...]:
    one, other = pack(tmp_path / "one", first), pack(tmp_path / "other", second)
    return diff.differences(one, other)


def test_the_same_bytes_differ_in_nothing(tmp_path: Path) -> None:
    assert differing(tmp_path, FILES, FILES) == ()


def test_another_name_is_a_difference(tmp_path: Path) -> None:
    one, other = pack(tmp_path, FILES), pack(tmp_path, FILES, "b.whl")
    assert diff.differences(one, other) == ("name: a.whl, and b.whl",)


def test_members_that_only_one_has_are_named(tmp_path: Path) -> None:
    less = {name: data for name, data in FILES.items() if "bin" not in name}
    assert differing(tmp_path, FILES, less) == ("llama_cpp/data.bin: only in the first",)
    assert differing(tmp_path, less, FILES) == ("llama_cpp/data.bin: only in the second",)


def test_another_order_is_a_difference(tmp_path: Path) -> None:
    turned = dict(reversed(FILES.items()))
    assert differing(tmp_path, FILES, turned) == ("the members are in another order",)


def test_another_time_is_a_difference(tmp_path: Path) -> None:
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
    ],
)
def test_it_says_where_a_member_differs(
    data: bytes, again: bytes, why: str, tmp_path: Path
) -> None:
    assert differing(tmp_path, {"a": data}, {"a": again}) == (f"a: {why}",)


def test_of_a_library_the_sections_are_named_and_their_own_texts(tmp_path: Path) -> None:
    one = elf(b"\x90 /home/ana/src/llama.cpp \x90 same text")
    other = elf(b"\x90 /home/eva/src/llama.cpp \x90 same text")
    (line,) = differing(tmp_path, {"lib.so": one}, {"lib.so": other})
    assert line == "lib.so: section .text (1 texts of its own, such as ' /home/ana/src/llama.cpp ')"


def test_sections_without_texts_say_from_where_on(tmp_path: Path) -> None:
    (line,) = differing(
        tmp_path, {"lib.so": elf(b"\1\2\3", b"\4")}, {"lib.so": elf(b"\1\5\3", b"\6")}
    )
    assert line == (
        "lib.so: section .text (differs from byte 1 on), .note (differs from byte 0 on)"
    )


def test_a_section_that_only_one_has_is_named(tmp_path: Path) -> None:
    (line,) = differing(
        tmp_path, {"lib.so": elf(b"\1", name=b".text")}, {"lib.so": elf(b"\1", name=b".tex2")}
    )
    assert ".text only in one" in line
    assert ".tex2 only in one" in line


def test_what_is_hidden_between_the_members_is_noticed(tmp_path: Path) -> None:
    one, other = pack(tmp_path / "one", FILES), pack(tmp_path / "other", FILES)
    with zipfile.ZipFile(other, "a") as archive:
        archive.comment = b"made elsewhere"
    assert diff.differences(one, other) == ("the zip files differ outside their members",)


def test_a_file_that_is_no_zip_is_a_difference_and_no_error(tmp_path: Path) -> None:
    one, other = pack(tmp_path / "one", FILES), tmp_path / "other.whl"
    other.write_bytes(b"PK\x05\x06")
    assert "cannot be read" not in "".join(diff.differences(one, one))
    assert len(diff.differences(one, other)) == 2  # its name, and that it cannot be read
    assert "can be read" in diff.differences(one, other)[1]
