"""Upstream's ctypes declarations: parsed, written as C++ assertions, compared with the headers."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sessions.build import bindings, main_wheel
from sessions.probe.record_types import Compiler
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


def test_declarations_are_parsed_and_not_executed() -> None:
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


def test_declarations_use_those_of_imported_modules() -> None:
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


LINES = bindings.assertions(bindings.declarations({"llama_cpp": PYTHON}), ["llama.h"])
GNU = "/b/bindings.cpp:{}:15: error: {}"
REFUSED = "static assertion failed"
NOT_DECLARED = "'{}' was not declared in this scope"


def errors(*messages: tuple[str, str], form: str = GNU) -> str:
    """The output of a compiler with an error for the first assertion about each name."""
    names = [name for _, name in LINES]
    return "\n".join(form.format(names.index(name) + 1, text) for name, text in messages)


@pytest.mark.parametrize(
    ("output", "code", "wrong", "absent"),
    [
        ("", 0, {}, ()),
        (errors(("pair", REFUSED)), 1, {"pair": "sizeof(pair) == 16 is not so in C"}, ()),
        (errors(("llama_free", NOT_DECLARED.format("llama_free"))), 1, {}, ("llama_free",)),
        (
            errors(("late", "static_assert failed: 'late'"), form="C:\\b.cpp({}): error C2338: {}"),
            2,
            {"late": "sizeof(late) == 16 is not so in C"},
            (),
        ),
        *(
            (errors(("pair", text)), 1, {}, ("pair",))
            for text in (
                "invalid use of incomplete type 'struct ggml_object'",
                "invalid application of 'sizeof' to incomplete type 'ggml_object'",
                "C2027: use of undefined type 'ggml_object'",
            )
        ),
    ],
)
def test_compared_names_what_the_compiler_refused(
    output: str, code: int, wrong: dict[str, str], absent: tuple[str, ...]
) -> None:
    result = bindings.compared(declared(), LINES, output, code)
    assert result is not None
    assert (result.wrong, result.absent) == (wrong, absent)
    assert (result.structures, result.functions, result.constants) == (2, 3, 3)
    assert bindings.unexpected(result, wrong) == {}
    assert bindings.unexpected(result, ["another"]) == wrong


@pytest.mark.parametrize(
    "output", ["/b/bindings.cpp:1:10: fatal error: llama.h: No such file or directory", "killed"]
)
def test_compared_returns_none_if_nothing_was_compiled(output: str) -> None:
    assert bindings.compared(declared(), LINES, output, 1) is None


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        (fakes.compiler(), ["-fsyntax-only", "-I{}"]),
        (fakes.msvc(), ["/Zs", "/I{}"]),
    ],
    ids=["gnu", "msvc"],
)
def test_command_only_checks_and_names_the_folders_of_headers(
    compiler: Compiler, options: list[str]
) -> None:
    folder = fakes.ROOT / "vendor" / "llama.cpp" / "ggml/include"
    args = bindings.command(compiler, fakes.ROOT, fakes.ROOT / "a.cpp")
    assert (args[0], args[-1]) == (compiler.cxx, str(fakes.ROOT / "a.cpp"))
    assert {option.format(folder) for option in options} <= set(args)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ("[('a', ctypes.c_uint8 * ctypes.sizeof(ctypes.c_void_p))]", 8),
        ("[('a', ctypes.c_uint8 * (2 * ctypes.sizeof(pair)))]", 32),
        ("[('a', ctypes.c_int32 * (64 // ctypes.sizeof(ctypes.c_int32)))]", 64),
    ],
)
def test_a_size_may_be_an_expression_with_sizeof(fields: str, size: int) -> None:
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
def test_a_structure_that_cannot_be_parsed_is_reported(text: str) -> None:
    # JamePeng's fork contains such structures.
    found = declared(llama_cpp=f"{PYTHON}\n{text}")
    assert "more" in found.unread
    assert "more" not in found.structures


@pytest.mark.parametrize(("checkout", "refused"), [(True, False), (False, True)])
def test_differences_of_forks_are_accepted_in_a_checkout_only(
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
        output = GNU.format(number, REFUSED)
        return SimpleNamespace(output=output, returncode=1)

    monkeypatch.setattr("sessions.build.main_wheel.programs.capture", capture)
    with raises("bindings-disagree") if refused else contextlib.nullcontext():
        main_wheel._compare_bindings(ctx, tmp_path, fakes.chain())
