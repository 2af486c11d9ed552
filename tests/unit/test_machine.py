"""The real machine: programs on PATH, their environment, Pythons and compilers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from sessions.probe import find_compilers, main_probe
from sessions.shared import machine
from sessions.shared.programs import capture
from tests import fakes

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="programs are shell scripts")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This machine with a PATH of one folder."""
    monkeypatch.setattr("sessions.shared.programs.capture", capture)
    (tmp_path / "bin").mkdir()

    def ask(**env: str) -> machine.Machine:
        return machine.real({"PATH": str(tmp_path / "bin"), **env}, tmp_path, tmp_path)

    return ask


@POSIX
def test_a_python_that_warns_on_stderr_is_found(tmp_path: Path, asking: Any) -> None:
    python = shlex.quote(sys.executable)
    shim = f'echo "pyenv: cannot rehash: no write permission" >&2; exec {python} "$@"'
    program(tmp_path / "bin" / "python3", shim)
    found = main_probe.find_pythons(asking(), f"3.{sys.version_info.minor}", "linux")
    assert [python.found_via for python in found] == ["python3 on PATH"]


@POSIX
def test_a_compiler_that_warns_on_stderr_is_found(tmp_path: Path, asking: Any) -> None:
    says = "echo 'cannot set locale' >&2; echo 'g++ (Debian 12.2.0-14) 12.2.0'; "
    says += "echo 'Copyright (C) 2022 Free Software Foundation, Inc.'"
    for name in ("g++", "gcc"):
        program(tmp_path / "bin" / name, says)
    (found,) = find_compilers.find_compilers(asking(), "linux", fakes.spec())
    assert (found.family, found.version) == ("gnu", "12.2.0")


@POSIX
def test_variables_that_change_a_compiler_or_python_do_not_reach_a_tool(
    tmp_path: Path, asking: Any
) -> None:
    tool = program(tmp_path / "bin" / "tool", "/usr/bin/env")
    names = "LD_PRELOAD LD_LIBRARY_PATH PYTHONPATH PYTHONHOME GCC_EXEC_PREFIX CPATH LIBRARY_PATH"
    foreign = f"{names} COMPILER_PATH CCACHE_PREFIX BASH_ENV".split()
    given = dict.fromkeys((*foreign, "PYENV_VERSION"), "x")
    lines = asking(**given)("run", str(tool))["output"].splitlines()
    seen = {line.partition("=")[0] for line in lines}
    assert set(foreign) & seen == set()
    assert {"PATH", "PYENV_VERSION", "LC_ALL"} <= seen


@POSIX
@pytest.mark.parametrize("named", ["LINK/g++", "REAL/g++-12", "g++-12", "LINK/g++-12"])
def test_a_compiler_has_one_path_for_all_its_names(tmp_path: Path, asking: Any, named: str) -> None:
    folder, link = tmp_path / "bin", tmp_path / "link"
    link.symlink_to(folder)
    says = "echo 'g++ (Debian 12.2.0-14) 12.2.0'; echo Free Software Foundation"
    program(folder / "g++-12", says)
    for name in ("g++", "gcc", "gcc-12", "clang++", "clang"):
        (folder / name).symlink_to("g++-12")
    ask = asking(PATH=f"{link}:{folder}")
    assert ask("which", "g++") == [str(folder / "g++")] * 2
    named = named.replace("LINK", str(link)).replace("REAL", str(folder))
    for spec in (fakes.spec(), fakes.spec(compiler=named)):
        first = find_compilers.find_compilers(ask, "linux", spec)[0]
        assert (first.cxx, first.cc) == (str(folder / "g++"), str(folder / "gcc"))
    assert first.found_via == "--compiler"
    # A link to the same file is another program, as with the links of a compiler cache.
    clang = find_compilers.find_compilers(
        ask, "linux", fakes.spec(compiler=str(folder / "clang++"))
    )
    assert clang[0].cxx == str(folder / "clang++")


def test_the_number_of_processors_is_positive() -> None:
    assert machine.cores() >= 1


def test_a_folder_on_path_that_the_user_may_not_enter_is_skipped(
    asking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    ask = asking()
    monkeypatch.setattr(Path, "is_file", refuse)
    assert ask("which", "python3") == []


@pytest.mark.parametrize(
    ("codes", "expected"), [([], False), ([127], False), ([127, 0], True), ([1], False)]
)
def test_a_python_must_run_and_be_able_to_make_a_venv(codes: list[int], expected: bool) -> None:
    paths = {f"/{n}/python": code for n, code in enumerate(codes)}  # 127: a shim of pyenv

    def ask(question: str, *words: str) -> Any:
        return list(paths) if question == "which" else {"returncode": paths[words[0]]}

    assert machine.has_python(ask, "3.12") is expected


def test_the_interpreter_of_this_process_is_found(asking: Any) -> None:
    assert Path(asking()("interpreter")).is_file()
