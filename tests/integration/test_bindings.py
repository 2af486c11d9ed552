"""Upstream's ctypes declarations against its headers, by a real compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sessions.build import bindings
from sessions.shared import knowledge
from tests import fakes
from tests.integration.conftest import REPOSITORY

HEADER = """
#include <stdbool.h>
typedef int llama_token;
struct pair { llama_token first; float second[3]; };
enum kind { LLAMA_ONE = 1, LLAMA_TWO = 2 };
#ifdef __cplusplus
extern "C" {
#endif
float llama_make(void * p, struct pair by_value, bool flag);
#ifdef __cplusplus
}
#endif
"""
PYTHON = """
import ctypes
LLAMA_ONE = 1
class pair(ctypes.Structure):
    _fields_ = [("first", ctypes.c_int32), ("second", ctypes.c_float * 3)]
@ctypes_function("llama_make", [ctypes.c_void_p, pair, ctypes.c_bool], ctypes.c_float)
def llama_make(): ...
"""


def compare(source: Path, work: Path) -> bindings.Comparison:
    cxx = shutil.which("g++")
    assert cxx, "g++ is needed: apt install g++"
    texts, headers = bindings.read(source)
    declared = bindings.declarations(texts)
    lines = bindings.assertions(declared, headers)
    path = work / "bindings.cpp"
    path.write_text("".join(f"{line}\n" for line, _ in lines), encoding="utf-8")
    words = bindings.command(fakes.compiler(cxx=cxx), source, path)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = bindings.compared(declared, lines, done.stdout + done.stderr, done.returncode)
    assert found is not None, done.stderr
    return found


def checkout(tmp_path: Path, python: str) -> Path:
    for name, text in (
        ("llama_cpp/llama_cpp.py", python),
        ("vendor/llama.cpp/include/llama.h", HEADER),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_bindings_that_agree(tmp_path: Path) -> None:
    found = compare(checkout(tmp_path, PYTHON), tmp_path)
    assert (found.structures, found.functions, found.constants) == (1, 1, 1)
    assert found.wrong == {}
    assert found.absent == ()


@pytest.mark.parametrize(
    ("then", "now", "wrong"),
    [
        ("c_float * 3", "c_float * 4", {"pair", "llama_make"}),
        ('("first", ctypes.c_int32)', '("first", ctypes.c_int64)', {"pair", "llama_make"}),
        ('"second"', '"other"', {"pair"}),
        ("pair, ctypes.c_bool]", "pair]", {"llama_make"}),
        ("], ctypes.c_float)", "], ctypes.c_double)", {"llama_make"}),
        ("[ctypes.c_void_p, pair", "[ctypes.c_int, pair", {"llama_make"}),
        ("LLAMA_ONE = 1", "LLAMA_ONE = 2", {"LLAMA_ONE"}),
    ],
)
def test_bindings_that_differ(tmp_path: Path, then: str, now: str, wrong: set[str]) -> None:
    assert PYTHON.count(then) == 1
    found = compare(checkout(tmp_path, PYTHON.replace(then, now)), tmp_path)
    assert set(found.wrong) == wrong


def test_bindings_of_what_no_header_has(tmp_path: Path) -> None:
    found = compare(checkout(tmp_path, PYTHON.replace("llama_make", "llama_gone")), tmp_path)
    assert found.absent == ("llama_gone",)
    assert found.wrong == {}


@pytest.mark.slow
def test_bindings_of_a_locked_release_differ_as_is_known(tmp_path: Path) -> None:
    source = REPOSITORY / "llama-cpp-python-src" / "0.3.16"
    if not source.is_dir():
        pytest.fail(f"There is no {source}. Unpack it first: nox -s source")
    found = compare(source, tmp_path)
    rows = knowledge.load("bindings.toml")["known"]
    known = {row["name"] for row in rows if not row.get("fork")}
    assert found.structures >= 17
    assert found.functions >= 236
    assert found.unread == ()
    assert set(found.wrong) == known
