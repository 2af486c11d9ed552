"""Faults of ELF files: why the loader refuses one, and what else it would load or run."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sessions.verify import elf, library
from sessions.verify.wheel_facts import Library
from tests import elfs

SOUND = elfs.library((elfs.SONAME, "libsome.so"), (elfs.NEEDED, "libc.so.6"))


def read(data: bytes, tmp_path: Path) -> Library:
    path = tmp_path / "some.so"
    path.write_bytes(data)
    return library.read(path, "llama_cpp/lib/libsome.so", tmp_path / "new")


def test_a_sound_library_has_no_faults(tmp_path: Path) -> None:
    assert list(elf.faults(SOUND)) == []
    found = read(SOUND, tmp_path)
    assert (found.error, found.faults, found.device) == (None, (), None)
    assert (found.exports, found.imports, found.soname) == (("f",), ("libc.so.6",), "libsome.so")
    assert (found.instructions, found.executable_stack) == (3, False)


@pytest.mark.parametrize("name", [*elfs.REFUSED, *elfs.ODD])
def test_faults_names_what_the_loader_refuses(name: str, tmp_path: Path) -> None:
    data = bytearray(SOUND)
    (elfs.REFUSED | elfs.ODD)[name](data)
    assert list(elf.faults(bytes(data))) != []
    found = read(bytes(data), tmp_path)
    assert found.faults or found.error


@pytest.mark.parametrize("keep", range(0, len(SOUND), 499))
def test_faults_does_not_raise_for_any_part_of_a_library(keep: int) -> None:
    assert list(elf.faults(SOUND[:keep])) != [] or keep > 0x2000


@pytest.mark.parametrize(
    ("tag", "value", "fault"),
    [
        (elfs.AUXILIARY, "libevil.so", "DT_AUXILIARY: libevil.so"),
        (elfs.FILTER, "libevil.so", "DT_FILTER: libevil.so"),
        (elfs.AUDIT, "libevil.so", "DT_AUDIT: libevil.so"),
        (elfs.DEPAUDIT, "libevil.so", "DT_DEPAUDIT: libevil.so"),
        (elfs.CONFIG, "/tmp/ld.conf", "DT_CONFIG: /tmp/ld.conf"),
        (elfs.TEXTREL, 0, "text relocations"),
        (elfs.FLAGS, 4, "text relocations"),
        (elfs.FLAGS_1, 0x41, "DF_1_NOOPEN"),
        (elfs.FLAGS_1, 0x8000000, "DF_1_PIE"),
        (elfs.FLAGS_1, 0x400, "DF_1_INTERPOSE"),
        (elfs.FLAGS_1, 0x10, "DF_1_LOADFLTR"),
        (elfs.FLAGS_1, 0x40000000, "bits 0x40000000"),
        (elfs.NEEDED, 0x10000, "outside of its strings"),
        (12, 0x2000, "DT_INIT is not in code"),
        (25, 0x70000000, "neither"),
        (17, 0, "DT_REL"),
    ],
)
def test_faults_names_what_else_the_loader_would_do(tag: int, value: str | int, fault: str) -> None:
    entries = [(tag, value)]
    if tag == 25:  # DT_INIT_ARRAY needs its size
        entries, fault = [(25, value), (27, 8)], "DT_INIT_ARRAY is outside"
    (found,) = elf.faults(elfs.library(*entries))
    assert fault in found


@pytest.mark.parametrize("flags", [0, 1, 8, 0x81])
def test_faults_accepts_the_flags_that_linkers_set(flags: int) -> None:
    assert list(elf.faults(elfs.library((elfs.FLAGS_1, flags), (elfs.FLAGS, 8)))) == []


def test_faults_names_a_program_interpreter() -> None:
    (found,) = elf.faults(elfs.library(interpreter=True))
    assert "program interpreter" in found


def rela(*rows: tuple[int, int, int]) -> bytes:
    """A library with relocations (address, type, addend), which are at 0x2100."""
    table = b"".join(struct.pack("<QQq", *row) for row in rows)
    entries = [(7, 0x2100), (8, len(table)), (9, 24)]
    before = 0x100 - elfs.dynamic_size(elfs.library(*entries))
    return elfs.library(*entries, data=bytes(before) + table + bytes(64))


@pytest.mark.parametrize(
    ("row", "faults"),
    [
        ((0x2118, 8, 0x1000), []),
        ((0x1000, 8, 0), ["a relocation writes at 0x1000, where nothing can be written"]),
        ((0x2118, 99, 0), ["it has a relocation of type 99, which the loader does not know"]),
    ],
)
def test_faults_names_a_relocation_that_the_loader_cannot_do(
    row: tuple[int, int, int], faults: list[str]
) -> None:
    assert list(elf.faults(rela(row))) == faults


@pytest.mark.parametrize(
    ("entries", "paths", "inherited"),
    [
        ([(elfs.RUNPATH, "$ORIGIN:/opt")], ("$ORIGIN", "/opt"), ()),
        ([(elfs.RPATH, "$ORIGIN:")], ("", "$ORIGIN"), ("", "$ORIGIN")),
        ([(elfs.RPATH, "/a"), (elfs.RUNPATH, "/b")], ("/a", "/b"), ()),
        ([(elfs.RUNPATH, "/a"), (elfs.RUNPATH, "/b")], ("/a", "/b"), ()),
        ([], (), ()),
    ],
    ids=["runpath", "rpath", "both", "two", "none"],
)
def test_search_paths_are_all_that_a_loader_may_use(
    entries: list[tuple[int, str]],
    paths: tuple[str, ...],
    inherited: tuple[str, ...],
    tmp_path: Path,
) -> None:
    found = read(elfs.library(*entries), tmp_path)
    assert sorted(found.search_paths) == sorted(paths)
    assert sorted(found.inherited_paths) == sorted(inherited)


def test_code_in_many_section_headers_is_decoded_once(tmp_path: Path) -> None:
    code = elfs.CODE * 1000
    once = read(elfs.library(code=code), tmp_path)
    often = elfs.library(code=code, sections=[(0x1000, len(code))] * 100)
    found = read(often, tmp_path)
    assert found.instructions == once.instructions == 3000
    shifted = [(0x1000 + 7 * n, len(code) - 7 * n) for n in range(100)]
    assert read(elfs.library(code=code, sections=shifted), tmp_path).instructions == 3000


def test_executed_code_outside_its_section_is_decoded(tmp_path: Path) -> None:
    # The section has harmless bytes; the segment has an AVX-512 instruction too.
    code = elfs.CODE + bytes.fromhex("62f17c4858c1c3")
    data = bytearray(elfs.library(code=code, sections=[(0x1000, 7)]))
    assert read(bytes(data), tmp_path).cpu_features["AVX512F"] == 1
