"""Hidden code is found: GPU code outside fat binaries, and members that contain other code."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest

from sessions.verify import fatbin, file_kinds, source_paths, zip_archive
from sessions.verify.fatbin import MAGIC, Unreadable
from tests import elfs
from tests.elfs import fat_binary, gpu_code

ONE, TWO = (
    fat_binary(gpu_code(b"the first")),
    fat_binary(gpu_code(b"the other"), gpu_code(b"text", fatbin.PTX)),
)
START = 0x2100  # where in the library the data begins
WRAPPER = struct.pack("<II", 0x466243B1, 1)


def device_library(data: bytes, *pointed: int) -> bytes:
    """A library with ``data`` at START, followed by structures that register these addresses."""
    wrappers = b"".join(WRAPPER + struct.pack("<QQ", place, 0) for place in pointed)
    before = START - 0x2000 - elfs.dynamic_size(elfs.library())
    return elfs.library(data=bytes(before) + data + wrappers)


SOUND = device_library(ONE + TWO, START, START + len(ONE))


def hidden(data: bytes) -> list[str]:
    return list(fatbin.hidden(data, fatbin.places(data)))


def test_hidden_finds_nothing_if_each_fat_binary_is_registered() -> None:
    assert [SOUND[a:b] for a, b in fatbin.places(SOUND)] == [ONE, TWO]
    assert hidden(SOUND) == []


def edit(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old, new, 1)


def with_data(more: bytes) -> Callable[[bytes], bytes]:
    return lambda _: device_library(ONE + TWO + more, START, START + len(ONE))


CUBIN = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 2, 190) + bytes(100)
PTX = b".version 9.1\n.target sm_120a\n.address_size 64\n.visible .entry f() { ret; }\0"
HIDDEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "header destroyed": (edit(MAGIC, bytes(8)), "registered as a fat binary at 0x2100 is not one"),
    "version of the header": (edit(MAGIC, MAGIC[:4] + b"\2\0\x10\0"), "an unknown header at"),
    "size of the header": (edit(MAGIC, MAGIC[:4] + b"\1\0\x20\0"), "an unknown header at"),
    "another magic": (edit(MAGIC, b"\x01\x5a\xe5\x1e" + MAGIC[4:]), "device code at 0x2110"),
    "not registered": (lambda _: device_library(ONE + TWO, START), "1 of 2 fat binaries are not"),
    "registered elsewhere": (
        lambda _: device_library(ONE + TWO, START, START + 16), "at 0x2110 is not one",
    ),
    "registered nowhere": (
        lambda _: device_library(ONE + TWO, START, START + len(ONE), 1 << 40),
        "outside of the file",
    ),
    "raw cubin": (with_data(CUBIN), "a cubin at"),
    "ELF file inside": (with_data(elfs.library()[:200]), "an ELF file at"),
    "raw PTX": (with_data(PTX), "PTX at"),
    "PTX with a comment": (with_data(b".target /* x */\tsm_90"), "PTX at"),
    "loose piece": (with_data(bytes(8) + gpu_code()), "a piece of device code at"),
    "bitcode": (with_data(b"BC\xc0\xde\x35\x14\0\0" + bytes(8)), "LLVM bitcode at"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "found"), HIDDEN.values(), ids=list(HIDDEN))
def test_hidden_finds_gpu_code_outside_the_fat_binaries(
    change: Callable[[bytes], bytes], found: str
) -> None:
    lines = hidden(change(SOUND))
    assert any(found in line for line in lines), lines


@pytest.mark.parametrize("text", [b".targets are met", b"a .version of it", b"sm_120"])
def test_hidden_ignores_text_that_is_not_ptx(text: bytes) -> None:
    assert hidden(with_data(text + bytes(300))(SOUND)) == []


def test_hidden_ignores_the_contents_of_a_fat_binary() -> None:
    inside = fat_binary(gpu_code(CUBIN), gpu_code(PTX, fatbin.PTX))
    assert hidden(device_library(inside, START)) == []


@pytest.mark.parametrize(("off", "count"), [(0, 0), (8, 2)])
def test_hidden_follows_pointers_that_a_relocation_writes(off: int, count: int) -> None:
    # Some linkers write zero into the file where a relocation writes when it is loaded.
    start = 0x2200
    rows = [(7, 0x2100), (8, 24), (9, 24)]
    size = elfs.dynamic_size(elfs.library(*rows))
    table = struct.pack("<QQq", start + len(ONE) + 8, 8, start + off)
    data = table.rjust(0x100 - size + 24, b"\0").ljust(0x200 - size, b"\0")
    lines = hidden(elfs.library(*rows, data=data + ONE + WRAPPER + bytes(16)))
    assert len(lines) == count, lines  # a registered address without a fat binary, and the reverse


def test_entries_are_every_piece_of_a_fat_binary() -> None:
    found = fatbin.entries(TWO)
    assert [(entry.kind, entry.arch, entry.size) for entry in found] == [(2, 120, 9), (1, 120, 4)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (fat_binary(gpu_code(), b"rest"), "4 bytes at the end"),
        (fat_binary(gpu_code(size=1 << 40)), "past the end of its fat binary"),
        (fat_binary(gpu_code(header=1 << 20)), "past the end of its fat binary"),
        (fat_binary(gpu_code(header=8)), "past the end of its fat binary"),
        (fat_binary(gpu_code(packed=100)), "past the end of its fat binary"),
        (fat_binary(gpu_code(kind=16)), "has the kind 16"),
        (fat_binary(gpu_code(packed=4, plain=1 << 40)), "unpacks to more"),
    ],
)
def test_entries_refuses_a_fat_binary_that_cannot_be_read_completely(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        fatbin.entries(data)


def test_nameless_removes_the_names_that_cuobjdump_would_print() -> None:
    named = fat_binary(gpu_code(b"x.cubin\nELF file    2: y.sm_90.cubin\n", name=64))
    assert fatbin.nameless(named, fatbin.entries(named))[48:56] == bytes(8)
    assert fatbin.nameless(named, []) == named


# ---- Members ------------------------------------------------------------------------------------

CODE: dict[str, tuple[str, bytes, int]] = {
    "static archive": ("llama_cpp/lib/evil.bin", b"!<arch>\n", 0),
    "gzip": ("llama_cpp/data", b"\x1f\x8b\x08\0", 0),
    "xz": ("llama_cpp/data", b"\xfd7zXZ\0\0", 0),
    "zstd": ("llama_cpp/data", b"\x28\xb5\x2f\xfd", 0),
    "bzip2": ("llama_cpp/data", b"BZh9", 0),
    "zip": ("llama_cpp/data", b"PK\x03\x04", 0),
    "tar": ("llama_cpp/data", bytes(257) + b"ustar\0", 0),
    "fat binary": ("llama_cpp/data", MAGIC, 0),
    "bitcode": ("llama_cpp/data", b"BC\xc0\xde\x35\x14", 0),
    "Mach-O": ("llama_cpp/data", b"\xcf\xfa\xed\xfe", 0),
    "COFF": ("llama_cpp/data", b"\x64\x86\x05\0" + bytes(16), 0),
    "script": ("llama_cpp/run", b"#!/bin/sh\n", 0o755),
    "PTX": ("llama_cpp/kernel.PTX", b".version 9.0", 0),
    "local": ("llama_cpp/lib/llama.dll.local", b"", 0),
}


@pytest.mark.parametrize(("name", "head", "mode"), CODE.values(), ids=list(CODE))
def test_a_member_with_other_code_is_treated_as_a_library(
    name: str, head: bytes, mode: int
) -> None:
    assert file_kinds.code(name, head, mode) is not None
    assert zip_archive.is_library(name, head, mode)


@pytest.mark.parametrize(
    ("name", "head", "mode"),
    [
        ("llama_cpp/llama.py", b"#!/usr/bin/env python\n", 0o644),
        ("llama_cpp/llama.py", b"import ctypes\n", 0o755),
        ("x.dist-info/METADATA", b"Metadata-Version: 2.1\n", 0),
        ("llama_cpp/data", b"", 0o777),
        ("llama_cpp/data", b"\x64\x86\x05\0" + bytes(12) + b"\xf0\0", 0),
    ],
)
def test_other_members_are_not_code(name: str, head: bytes, mode: int) -> None:
    assert file_kinds.code(name, head, mode) is None


# ---- Source paths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"/a(/a(", b"/a.c(/a(", b"/a a  a", b"C:/a(", b"/usr/include/a.c(", b"/a", b"/", b"/a/b.c",
     b"/a\xc3\xa9", b"\xc3\xc3/", b"((((/", b"/a/b.c "],
)  # fmt: skip
def test_source_paths_are_found_in_linear_time(text: bytes) -> None:
    def seconds(size: int) -> float:
        data = text * (size // len(text))
        start = time.perf_counter()
        source_paths.find(data)
        return time.perf_counter() - start

    # Quadratic, 64 kB of the first took 89 s. A busy machine may be ten times slower.
    assert seconds(256_000) < 10


def test_source_paths_are_limited_in_length_and_number() -> None:
    (path,) = source_paths.find(b"/home/a/" + b"a" * 100_000 + b"/b.c")
    assert len(path) == source_paths.LONGEST
    many = b"\0".join(b"/home/%d/b.c" % n for n in range(2 * source_paths.MOST))
    assert len(source_paths.find(many)) == source_paths.MOST
