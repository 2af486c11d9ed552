"""The link for an older glibc: its table of symbols, and the text that the linker gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from sessions.build import old_glibc
from sessions.shared import code_digest, knowledge, programs
from sessions.shared.programs import Finished
from sessions.verify import wheel_rules
from tests import fakes
from tests.problems import raises

SMALL = {"GLIBC_2.2.5": ("dlopen", "errors:object"), "GLIBC_2.3.4": ("dlmopen",)}


@pytest.mark.parametrize(
    ("library", "name", "version"),
    [
        ("libc.so.6", "memcpy", "2.14"),
        ("libc.so.6", "getrandom", "2.25"),
        ("libc.so.6", "fcntl64", "2.28"),
        ("libc.so.6", "stdout:object", "2.2.5"),
        ("libm.so.6", "expf", "2.27"),
        ("libm.so.6", "exp", "2.2.5"),  # 2.29 has a newer one
        ("libpthread.so.0", "pthread_create", "2.2.5"),  # in libc.so.6 since 2.34
        ("libdl.so.2", "dlopen", "2.2.5"),
        ("ld-linux-x86-64.so.2", "__tls_get_addr", "2.3"),
    ],
)
def test_the_table_has_what_glibc_2_28_has(library: str, name: str, version: str) -> None:
    assert name in knowledge.glibc()[library][f"GLIBC_{version}"]


@pytest.mark.parametrize(
    "name", ["stat", "getcpu", "arc4random", "pthread_cond_clockwait", "__isoc23_strtol"]
)
def test_the_table_has_nothing_that_is_newer(name: str) -> None:
    assert name not in names_of(*knowledge.glibc())


def test_the_table_has_each_symbol_of_a_library_once_and_no_newer_version() -> None:
    for library, versions in knowledge.glibc().items():
        assert list(versions) == sorted(versions, key=lambda v: Version(v.removeprefix("GLIBC_")))
        assert Version(list(versions)[-1].removeprefix("GLIBC_")) <= Version("2.28")
        entries = [name for names in versions.values() for name in names]
        assert len(entries) == len({entry.partition(":")[0] for entry in entries})
        assert library in wheel_rules.platform_libraries("linux").system
    assert len(names_of("libc.so.6")) > 2000


def names_of(*libraries: str) -> set[str]:
    found = knowledge.glibc()
    names = (n for lib in libraries for entries in found[lib].values() for n in entries)
    return {name.partition(":")[0] for name in names}


def test_what_is_added_is_missing_and_needs_nothing_that_is() -> None:
    """The functions of the C file, and those of glibc that it declares."""
    text = old_glibc._ADDED.read_text(encoding="utf-8")
    known = names_of(*knowledge.glibc())
    added = set(re.findall(r"^(?!GLIBC)[a-z ]+?(\w+)\([^;]*\{", text, re.MULTILINE))
    assert {"stat", "getcpu", "arc4random", "__isoc23_strtoull", "atexit"} <= added
    assert not added & known
    needed = set(re.findall(r"^GLIBC [\w *]*?\b(\w+)\(", text, re.MULTILINE))
    assert {"__xstat", "strtol", "__cxa_atexit"} <= needed <= known


def test_a_library_of_stubs_has_each_symbol_as_code_or_data() -> None:
    assert old_glibc.assembly(SMALL).splitlines() == [
        ".text", ".globl dlopen", ".type dlopen,@function", "dlopen: .byte 0", ".size dlopen,1",
        ".data", ".globl errors", ".type errors,@object", "errors: .byte 0", ".size errors,1",
        ".text", ".globl dlmopen", ".type dlmopen,@function", "dlmopen: .byte 0",
        ".size dlmopen,1", '.section .note.GNU-stack,"",@progbits',
    ]  # fmt: skip
    assert old_glibc.version_script(SMALL) == (
        "GLIBC_2.2.5 { dlopen; errors; };\nGLIBC_2.3.4 { dlmopen; };\n"
    )


def test_what_links_with_libc_finds_the_other_libraries() -> None:
    scripts = old_glibc.scripts()
    assert scripts["libpthread.so"] == "INPUT(AS_NEEDED(-l:libpthread.so.0))\n"
    assert scripts["libc.so"].startswith("GROUP(-l:libc.so.6 AS_NEEDED(-l:libm.so.6 ")
    assert "-l:ld-linux-x86-64.so.2" in scripts["libc.so"]


def test_no_option_of_the_linker_names_a_folder_of_this_machine() -> None:
    flags = old_glibc.linker_flags().split()
    assert "-static-libstdc++" in flags
    assert not [flag for flag in flags if re.search(r"(^|[ ,=L])/", flag)]


@pytest.mark.parametrize("change", ["glibc.toml", "glibc_2_28.c", "old_glibc.py"])
def test_what_decides_the_link_decides_its_identity(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = old_glibc.identity(), code_digest.code
    monkeypatch.setattr(code_digest, "code", lambda p: "other" if p.name == change else real(p))
    assert old_glibc.identity() != before


def test_a_line_of_c_that_begins_with_a_number_sign_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.c"
    digests = []
    for text in ("#define N 1\nint n = N;\n", "#define N 2\nint n = N;\n"):
        path.write_text(text)
        digests.append(code_digest.code(path))
    assert digests[0] != digests[1]


def test_a_compiler_that_cannot_make_the_stubs_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(command: list[str], **_: Any) -> Finished:
        return Finished(tuple(command), 1, "", 0.0, "as: unknown option")

    monkeypatch.setattr(programs, "capture", capture)
    with raises("glibc-stubs-failed") as caught:
        old_glibc.make(fakes.compiler(), tmp_path, {})
    assert "as: unknown option" in caught.value.evidence
