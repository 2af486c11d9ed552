"""Import libraries for NVIDIA's Windows packages, with DLLs and lib.exe from zig (LLVM)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lief
import pytest

from sessions.fetch import main_toolkit
from sessions.shared.errors import Problem

CODE = (
    "__declspec(dllexport) int {name}Create_v2(void) {{ return 7; }}\n"
    "int DllMainCRTStartup(void) {{ return 1; }}\n"
)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    places = {"ZIG_GLOBAL_CACHE_DIR": "zig-global", "ZIG_LOCAL_CACHE_DIR": "zig-local"}
    caches = {name: str(tmp_path / place) for name, place in places.items()}
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **caches}


@pytest.fixture
def root(tmp_path: Path, env: dict[str, str]) -> Path:
    """A toolkit as the packages contain it: DLLs without import libraries."""
    root = tmp_path / "José's cu13"
    (root / "bin" / "x86_64").mkdir(parents=True)
    (root / "lib" / "x64").mkdir(parents=True)
    for name in ("cublas", "cublasLt"):
        source = tmp_path / f"{name}.c"
        source.write_text(CODE.format(name=name))
        zig(env, "cc", *TARGET, "-shared", source, "-o", root / f"bin/x86_64/{name}64_13.dll")
    for stray in (root / "bin" / "x86_64").glob("*.lib"):
        stray.unlink()  # zig's own import library
    return root


# Without a C library, which zig would have to compile first.
TARGET = ("-target", "x86_64-windows-gnu", "-nostdlib", "-O1")


def zig(env: dict[str, str], *words: object) -> None:
    command = [sys.executable, "-m", "ziglang", *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def librarian(tmp_path: Path, does: str) -> str:
    program = tmp_path / "lib.exe"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    return str(program)


def test_a_library_linked_with_the_import_library_needs_nvidias_dll(
    tmp_path: Path, env: dict[str, str], root: Path
) -> None:
    lib = librarian(tmp_path, f'exec "{sys.executable}" -m ziglang lib "$@"')
    main_toolkit.import_libraries(root, lib, env)
    main = tmp_path / "main.c"
    main.write_text(
        "int cublasCreate_v2(void); int cublasLtCreate_v2(void);\n"
        "int DllMainCRTStartup(void) { return cublasCreate_v2() + cublasLtCreate_v2(); }\n"
    )
    libraries = [root / "lib" / "x64" / name for name in ("cublas.lib", "cublasLt.lib")]
    zig(env, "cc", *TARGET, "-shared", main, *libraries, "-o", tmp_path / "main.dll")
    binary = lief.PE.parse(str(tmp_path / "main.dll"))
    assert binary is not None
    assert {str(entry.name) for entry in binary.imports} == {"cublas64_13.dll", "cublasLt64_13.dll"}


@pytest.mark.parametrize(
    ("does", "text"),
    [("echo LNK1104: cannot open; exit 1", "LNK1104"), ("echo nothing was written", "nothing")],
)
def test_a_lib_exe_that_leaves_no_library_is_an_error(
    tmp_path: Path, env: dict[str, str], root: Path, does: str, text: str
) -> None:
    with pytest.raises(Problem, match="could not be made") as caught:
        main_toolkit.import_libraries(root, librarian(tmp_path, does), env)
    assert text in str(caught.value)


def test_a_dll_without_exports_is_an_error(tmp_path: Path, env: dict[str, str]) -> None:
    source = tmp_path / "empty.c"
    source.write_text("int DllMainCRTStartup(void) { return 1; }\n")
    dll = tmp_path / "cublas64_13.dll"
    zig(env, "cc", *TARGET, "-shared", source, "-o", dll)
    with pytest.raises(Problem, match="exports no function"):
        main_toolkit.exports(dll)
    dll.write_bytes(b"MZ truncated")
    with pytest.raises(Problem, match="exports no function"):
        main_toolkit.exports(dll)
