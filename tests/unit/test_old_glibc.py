"""The link for glibc 2.28: the table of its symbols, and the files for the linker."""

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
def test_the_table_contains_the_symbols_of_glibc_2_28(
    library: str, name: str, version: str
) -> None:
    assert name in knowledge.glibc()[library][f"GLIBC_{version}"]


def test_the_table_contains_each_symbol_once_and_no_newer_version() -> None:
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


def test_the_added_functions_are_missing_in_the_table_and_need_only_what_it_has() -> None:
    """The functions that the C file defines, and those of glibc that it declares."""
    text = old_glibc._ADDED.read_text(encoding="utf-8")
    known = names_of(*knowledge.glibc())
    added = set(re.findall(r"^(?!GLIBC)[a-z ]+?(\w+)\([^;]*\{", text, re.MULTILINE))
    assert {"stat", "getcpu", "arc4random", "__isoc23_strtoull", "atexit"} <= added
    assert not (added | {"pthread_cond_clockwait", "__isoc23_strtol"}) & known
    needed = set(re.findall(r"^GLIBC [\w *]*?\b(\w+)\(", text, re.MULTILINE))
    assert {"__xstat", "strtol", "__cxa_atexit"} <= needed <= known


def test_assembly_and_version_script_of_a_stub_library() -> None:
    assert old_glibc.assembly(SMALL).splitlines() == [
        ".text", ".globl dlopen", ".type dlopen,@function", "dlopen: .byte 0", ".size dlopen,1",
        ".data", ".globl errors", ".type errors,@object", "errors: .byte 0", ".size errors,1",
        ".text", ".globl dlmopen", ".type dlmopen,@function", "dlmopen: .byte 0",
        ".size dlmopen,1", '.section .note.GNU-stack,"",@progbits',
    ]  # fmt: skip
    assert old_glibc.version_script(SMALL) == (
        "GLIBC_2.2.5 { dlopen; errors; };\nGLIBC_2.3.4 { dlmopen; };\n"
    )


def test_scripts_let_libc_find_the_other_libraries() -> None:
    scripts = old_glibc.scripts()
    assert scripts["libpthread.so"] == "INPUT(AS_NEEDED(-l:libpthread.so.0))\n"
    assert scripts["libc.so"].startswith("GROUP(-l:libc.so.6 AS_NEEDED(-l:libm.so.6 ")
    assert "-l:ld-linux-x86-64.so.2" in scripts["libc.so"]


def test_linker_flags_contain_no_absolute_path() -> None:
    flags = old_glibc.linker_flags().split()
    assert "-static-libstdc++" in flags
    assert not [flag for flag in flags if re.search(r"(^|[ ,=L])/", flag)]


@pytest.mark.parametrize("change", ["glibc.toml", "glibc_2_28.c", "old_glibc.py"])
def test_identity_depends_on_the_files_that_decide_the_link(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = old_glibc.identity(), code_digest.code
    monkeypatch.setattr(code_digest, "code", lambda p: "other" if p.name == change else real(p))
    assert old_glibc.identity() != before


def test_make_reports_a_compiler_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(command: list[str], **_: Any) -> Finished:
        return Finished(tuple(command), 1, "", 0.0, "as: unknown option")

    monkeypatch.setattr(programs, "capture", capture)
    with raises("glibc-stubs-failed") as caught:
        old_glibc.make(fakes.compiler(), tmp_path, {})
    assert "as: unknown option" in caught.value.evidence
