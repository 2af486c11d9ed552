"""Upstream's ctypes declarations against its headers."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sessions.build import bindings, main_wheel
from sessions.shared import knowledge
from tests import fakes
from tests.problems import raises

PYTHON = '''
import ctypes
from typing import TYPE_CHECKING, NewType
import os

_lib = os.system("touch /tmp/never")
LLAMA_MAX = 3
LLAMA_FLAG = 1 << 4
LLAMA_NEGATIVE = -LLAMA_MAX
llama_token = ctypes.c_int32
llama_p = NewType("llama_p", int)
llama_p_ctypes = ctypes.c_void_p
callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
if TYPE_CHECKING:
    llama_token = Undefined[0]

class opaque(ctypes.Structure):
    ...

class pair(ctypes.Structure):
    """Two."""
    if TYPE_CHECKING:
        first: int
    _fields_ = [("first", llama_token), ("second", ctypes.c_float * LLAMA_MAX)]

class late(ctypes.Structure):
    pass

late._fields_ = [("back", ctypes.POINTER(pair)), ("call", callback)]

@ctypes_function("llama_make", [llama_p_ctypes, pair, ctypes.POINTER(late)], ctypes.c_float)
def llama_make(): ...

@ctypes_function("llama_free", [llama_p_ctypes], None)
def llama_free(): ...

@ctypes_function(["llama_ext", "?llama_ext@@YAHXZ", "_Z9llama_extv"], [], ctypes.c_int, more=False)
def llama_ext(): ...

@ctypes_function("llama_odd", [something.nobody.knows], None)
def llama_odd(): ...

@property
def not_one(): ...
'''


def declared(**texts: str) -> bindings.Declarations:
    return bindings.declarations(texts or {"llama_cpp": PYTHON})


def test_declarations_are_read_and_nothing_is_run() -> None:
    found = declared()
    assert set(found.structures) == {"pair", "late"}  # an opaque one has no layout
    assert ctypes.sizeof(found.structures["pair"]) == 16
    assert found.functions == {
        "llama_make": ((1000, 100016, 1000), 2004),
        "llama_free": ((1000,), 0),
        "llama_ext": ((), 3004),
    }
    assert found.constants == {"LLAMA_MAX": 3, "LLAMA_FLAG": 16, "LLAMA_NEGATIVE": -3}
    assert found.unread == ("llama_odd",)


def test_declarations_of_a_module_use_those_of_the_ones_before() -> None:
    later = (
        "from ctypes import c_void_p, Structure, c_int as number\n"
        "import llama_cpp.llama_cpp as base\n"
        "from llama_cpp.llama_cpp import llama_token\n"
        "class mtmd(Structure):\n"
        "    _fields_ = [('a', llama_token), ('b', number), ('c', base.pair)]\n"
        "@ctypes_function('mtmd_do', [base.pair, c_void_p], mtmd)\ndef mtmd_do(): ...\n"
    )
    found = declared(llama_cpp=PYTHON, mtmd_cpp=later)
    assert ctypes.sizeof(found.structures["mtmd"]) == 24
    assert found.functions["mtmd_do"] == ((100016, 1000), 100024)


@pytest.mark.parametrize(
    "expression",
    [
        "10 ** 10 ** 10",
        "1 << 10 ** 9",
        "1 // 0",
        "open('x')",
        "ctypes.CDLL('x')",
        "pair.__class__",
        "'a' * 9",
    ],
)
def test_declarations_evaluate_no_other_expression(expression: str) -> None:
    assert declared(llama_cpp=f"import ctypes\nLLAMA_X = {expression}\n").constants == {}


def said(*lines: tuple[int, str]) -> str:
    return "\n".join(f"/b/bindings.cpp:{number}:15: error: {text}" for number, text in lines)


def place(about: list[str], name: str) -> int:
    return about.index(name) + 1


def test_comparison_names_what_a_compiler_refused() -> None:
    found = declared()
    text, about = bindings.assertions(found, ["llama.h"])
    assert len(text.splitlines()) == len(about)
    output = said(
        (place(about, "pair"), "static assertion failed: pair"),
        (place(about, "llama_free"), "'llama_free' was not declared in this scope"),
    )
    result = bindings.compared(found, text, about, output, 1)
    assert result is not None
    assert result.wrong == {"pair": "sizeof(pair) == 16 is not so in C"}
    assert result.absent == ("llama_free",)
    assert (result.structures, result.functions, result.constants) == (2, 3, 3)
    assert bindings.unexpected(result, ["pair"]) == {}
    assert set(bindings.unexpected(result, ["late"])) == {"pair"}


def test_comparison_reads_msvc_too() -> None:
    found = declared()
    text, about = bindings.assertions(found, ["llama.h"])
    number = place(about, "late")
    output = f"C:\\b\\bindings.cpp({number}): error C2338: static_assert failed: 'late'"
    result = bindings.compared(found, text, about, output, 2)
    assert result is not None
    assert set(result.wrong) == {"late"}


@pytest.mark.parametrize(
    "output", ["/b/bindings.cpp:1:10: fatal error: llama.h: No such file or directory", "killed"]
)
def test_comparison_is_none_where_nothing_was_compared(output: str) -> None:
    found = declared()
    text, about = bindings.assertions(found, ["llama.h"])
    assert bindings.compared(found, text, about, output, 1) is None


def test_comparison_of_what_agrees() -> None:
    found = declared()
    text, about = bindings.assertions(found, ["llama.h"])
    result = bindings.compared(found, text, about, "", 0)
    assert result is not None
    assert result.wrong == {}


def test_command_names_the_headers_for_each_compiler() -> None:
    gnu = fakes.compiler()
    words = bindings.command(gnu, fakes.ROOT, fakes.ROOT / "a.cpp")
    assert words[0] == gnu.cxx
    assert "-fsyntax-only" in words
    assert any(Path(word).parts[-2:] == ("ggml", "include") for word in words)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ("[('a', ctypes.c_uint8 * ctypes.sizeof(ctypes.c_void_p))]", 8),
        ("[('a', ctypes.c_uint8 * (2 * ctypes.sizeof(pair)))]", 32),
        ("[('a', ctypes.c_int32 * (64 // ctypes.sizeof(ctypes.c_int32)))]", 64),
    ],
)
def test_a_field_may_be_as_large_as_another_type(fields: str, size: int) -> None:
    text = f"{PYTHON}\nclass more(ctypes.Structure):\n    _fields_ = {fields}\n"
    assert ctypes.sizeof(declared(llama_cpp=text).structures["more"]) == size


@pytest.mark.parametrize(
    "text",
    [
        "class more(ctypes.Structure):\n    _fields_ = [('a', nobody.knows)]\n",
        "class more(ctypes.Structure):\n    pass\nmore._fields_ = [('a', nobody.knows)]\n",
        "class more(ctypes.Structure):\n    _fields_ = [('a', 3)]\n",
    ],
)
def test_a_structure_that_is_not_understood_is_named(text: str) -> None:
    # JamePeng's fork has such; the first of them ended the session as a bug.
    found = declared(llama_cpp=f"{PYTHON}\n{text}")
    assert "more" in found.unread
    assert "more" not in found.structures


@pytest.mark.parametrize(
    "message",
    [
        "invalid use of incomplete type 'struct ggml_object'",
        "invalid application of 'sizeof' to incomplete type 'ggml_object'",
        "C2027: use of undefined type 'ggml_object'",
    ],
)
def test_a_structure_without_members_in_the_headers_is_not_compared(message: str) -> None:
    found = declared()
    text, about = bindings.assertions(found, ["llama.h"])
    result = bindings.compared(found, text, about, said((place(about, "pair"), message)), 1)
    assert result is not None
    assert (result.wrong, result.absent) == ({}, ("pair",))


@pytest.mark.parametrize(("checkout", "refused"), [(True, False), (False, True)])
def test_what_only_a_fork_declares_wrong_is_refused_of_a_release(
    checkout: bool, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in knowledge.load("bindings.toml")["known"] if row.get("fork")]
    assert {"mtmd_decoder_pos", "llama_load_session_file"} <= {row["name"] for row in rows}
    spec = fakes.cpu_spec(source=str(tmp_path) if checkout else None)
    ctx = fakes.context(tmp_path, spec=spec)
    text = "import ctypes\nclass mtmd_decoder_pos(ctypes.Structure):\n    _fields_ = [('t', "
    for name, content in (
        ("llama_cpp/llama_cpp.py", f"{text}ctypes.c_uint32)]\n"),
        ("vendor/llama.cpp/include/llama.h", ""),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    def capture(command: list[str], **_: Any) -> Any:
        lines = Path(command[-1]).read_text().splitlines()
        number = next(n for n, line in enumerate(lines, 1) if "sizeof(mtmd_decoder_pos)" in line)
        output = said((number, "static assertion failed"))
        return SimpleNamespace(output=output, returncode=1)

    monkeypatch.setattr("sessions.build.main_wheel.programs.capture", capture)
    with raises("bindings-disagree") if refused else contextlib.nullcontext():
        main_wheel._compare_bindings(ctx, tmp_path, fakes.chain())
