"""Whether upstream's Python bindings agree with its C headers: every structure and function.

A checkout whose ``llama_cpp/`` and ``vendor/llama.cpp`` are of different releases builds, exports
every function, and reads structures at wrong offsets. Here the ctypes declarations are read
without being run, and written as C++ assertions, which the build's own compiler checks in a second.
"""

from __future__ import annotations

import ast
import ctypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessions.probe.model import Compiler

# Modules of llama_cpp/ that declare what is in the libraries, each after those that it uses.
MODULES = ("_ggml", "llama_cpp", "mtmd_cpp")
INCLUDES = ("include", "ggml/include", "tools/mtmd", "src")  # below vendor/llama.cpp
HEADERS = ("llama.h", "mtmd.h", "mtmd-helper.h", "llama-ext.h")
_CONSTANT = re.compile(r"(LLAMA|GGML|MTMD)_[A-Z0-9_]+")
# Of a C++ type the kind and the size: what decides how a value is passed.
_PRELUDE = """\
#include <cstddef>
#include <initializer_list>
#include <type_traits>
template <class T> constexpr int size_of() {
    if constexpr (std::is_void_v<T>) return 0; else return int(sizeof(T));
}
template <class T> constexpr int code() {
    if constexpr (std::is_void_v<T>) return 0;
    else if constexpr (std::is_pointer_v<T> || std::is_array_v<T>) return 1000;
    else if constexpr (std::is_floating_point_v<T>) return 2000 + size_of<T>();
    else if constexpr (std::is_class_v<T> || std::is_union_v<T>) return 100000 + size_of<T>();
    else return 3000 + size_of<T>();
}
template <class R, class... A>
constexpr bool same(R (*)(A...), int result, std::initializer_list<int> args) {
    if (code<R>() != result || args.size() != sizeof...(A)) return false;
    const int codes[] = {code<A>()..., 0};
    int i = 0;
    for (int a : args) if (a != codes[i++]) return false;
    return true;
}
"""


@dataclass(frozen=True)
class Declarations:
    """What the bindings declare. ``unread`` names functions whose types could not be told."""

    structures: Mapping[str, type[ctypes.Structure] | type[ctypes.Union]]
    functions: Mapping[str, tuple[tuple[int, ...], int]]  # argument codes, result code
    constants: Mapping[str, int]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """How many were compared, and what is wrong: name -> why. ``absent`` are in no header."""

    structures: int
    functions: int
    constants: int
    wrong: dict[str, str]
    absent: tuple[str, ...]
    unread: tuple[str, ...]


def declarations(sources: Mapping[str, str]) -> Declarations:
    """Read the ctypes declarations of ``MODULES``: module name -> Python text. Runs none of it."""
    structures: dict[str, Any] = {}
    functions: dict[str, tuple[tuple[int, ...], int]] = {}
    constants: dict[str, int] = {}
    unread: list[str] = []
    modules: dict[str, dict[str, Any]] = {}
    for module in MODULES:
        if module not in sources:
            continue
        names: dict[str, Any] = {}
        modules[module] = names
        for node in _statements(ast.parse(sources[module]).body):
            _imported(node, names, modules)
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    _define(names, name, value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    _define(names, name, value)
                case ast.Assign(
                    targets=[ast.Attribute(value=ast.Name(id=name), attr="_fields_")], value=value
                ) if name in structures:
                    try:
                        structures[name]._fields_ = _value(value, names)
                    except (_Unknown, TypeError):
                        unread.append(name)
                case ast.ClassDef(name=name, bases=[base, *_]):
                    try:
                        made = _structure(node, base, names)
                    except (_Unknown, TypeError):
                        unread.append(name)
                        continue
                    if made is not None:
                        names[name] = structures[name] = made
                case ast.FunctionDef(decorator_list=decorators):
                    for symbol, args, result in _bound(decorators):
                        try:
                            codes = tuple(_code(t) for t in _value(args, names))
                            functions[symbol] = (codes, _code(_value(result, names)))
                        except _Unknown:
                            unread.append(symbol)
        constants |= {
            name: value
            for name, value in names.items()
            if type(value) is int and _CONSTANT.fullmatch(name)
        }
    laid_out = {n: s for n, s in structures.items() if getattr(s, "_fields_", None)}
    return Declarations(laid_out, functions, constants, tuple(dict.fromkeys(unread)))


def assertions(declared: Declarations, headers: Iterable[str]) -> tuple[str, list[str]]:
    """C++ text that asserts each declaration, and of each of its lines the name it is about."""
    lines = [f'#include "{name}"' for name in headers]
    about = ["" for _ in lines]
    for line in _PRELUDE.splitlines():
        lines.append(line)
        about.append("")
    for name, made in declared.structures.items():
        checks = [f"sizeof({name}) == {ctypes.sizeof(made)}"]
        for field, *_ in made._fields_:
            at = getattr(made, field)
            checks.append(f"offsetof({name}, {field}) == {at.offset}")
            checks.append(f"sizeof({name}::{field}) == {at.size}")
        lines += [f'static_assert({check}, "{name}");' for check in checks]
        about += [name] * len(checks)
    for name, (codes, result) in declared.functions.items():
        args = ", ".join(map(str, codes))
        lines.append(f'static_assert(same(&{name}, {result}, {{{args}}}), "{name}");')
        about.append(name)
    for name, value in declared.constants.items():
        lines.append(f'static_assert((long long)({name}) == {value}LL, "{name}");')
        about.append(name)
    return "\n".join(lines) + "\n", about


# GCC, Clang and MSVC of a name that no header declares, or declares without its members.
_UNDECLARED = re.compile(
    r"not declared|undeclared|does not name a type|incomplete type|undefined type|C2065|C3861|C2027"
)
_ERROR = re.compile(r"^.*?[:(](\d+)[:)].*?\b(?:fatal )?error\b[^:]*: (.*)$")


def compared(
    declared: Declarations, text: str, about: list[str], output: str, returncode: int
) -> Comparison | None:
    """What a compiler said of the assertions; None where it could not compile them at all."""
    rows = text.splitlines()
    wrong: dict[str, str] = {}
    absent: list[str] = []
    for line in output.splitlines():
        found = _ERROR.match(line)
        if not found:
            continue
        number = int(found[1])
        name = about[number - 1] if 0 < number <= len(about) else ""
        if not name:
            return None  # a header, or the text before the assertions
        if _UNDECLARED.search(line) and "has no member" not in line:
            absent.append(name)
            continue
        said = rows[number - 1].removeprefix("static_assert(").rpartition(', "')[0]
        wrong.setdefault(name, f"{said} is not so in C")
    if returncode and not wrong and not absent:
        return None
    return Comparison(
        structures=len(declared.structures),
        functions=len(declared.functions),
        constants=len(declared.constants),
        wrong={name: why for name, why in wrong.items() if name not in absent},
        absent=tuple(dict.fromkeys(absent)),
        unread=declared.unread,
    )


class _Unknown(Exception):
    """An expression that is none of a declaration."""


def _statements(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    """Statements at module level, those of ``else`` for ``if TYPE_CHECKING`` included."""
    for node in body:
        if isinstance(node, ast.If):
            typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            yield from _statements([*([] if typing else node.body), *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements(node.body)
        else:
            yield node


def _imported(node: ast.stmt, names: dict[str, Any], modules: dict[str, dict[str, Any]]) -> None:
    if isinstance(node, ast.ImportFrom) and node.module == "ctypes":
        known = [alias for alias in node.names if hasattr(ctypes, alias.name)]
        names.update({alias.asname or alias.name: getattr(ctypes, alias.name) for alias in known})
    elif isinstance(node, ast.ImportFrom):
        source = modules.get((node.module or "").split(".")[-1], {})
        for alias in node.names:
            if alias.name in source:
                names[alias.asname or alias.name] = source[alias.name]
            elif alias.name in modules:
                names[alias.asname or alias.name] = modules[alias.name]
    elif isinstance(node, ast.Import):
        for alias in node.names:
            last = alias.name.split(".")[-1]
            if last in modules and alias.asname:
                names[alias.asname] = modules[last]


def _define(names: dict[str, Any], name: str, value: ast.expr) -> None:
    try:
        names[name] = _value(value, names)
    except _Unknown:
        names.pop(name, None)


def _structure(node: ast.stmt, base: ast.expr, names: dict[str, Any]) -> Any:
    assert isinstance(node, ast.ClassDef)
    try:
        kind = _value(base, names)
    except _Unknown:
        return None
    if not (isinstance(kind, type) and issubclass(kind, (ctypes.Structure, ctypes.Union))):
        return None
    made: Any = type(node.name, (kind,), {})
    for inner in node.body:
        match inner:
            case ast.Assign(targets=[ast.Name(id="_fields_")], value=value):
                made._fields_ = _value(value, names)
    return made


def _bound(decorators: list[ast.expr]) -> Iterable[tuple[str, ast.expr, ast.expr]]:
    """``@ctypes_function("name", [argument types], result type)``, by whatever name.

    Instead of the name there may be a list: the name, and what compilers make of it in C++.
    """
    for decorator in decorators:
        match decorator:
            case ast.Call(
                args=[
                    ast.Constant(value=str() as name)
                    | ast.List(elts=[ast.Constant(value=str() as name), *_]),
                    ast.List() as args,
                    result,
                    *_,
                ]
            ):
                yield name, args, result


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Attribute(value=ast.Name(id="ctypes"), attr=name) if hasattr(ctypes, name):
            return getattr(ctypes, name)
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            held = names.get(module)
            if isinstance(held, dict) and name in held:
                return held[name]
        case ast.List(elts=elements):
            return [_value(element, names) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(element, names) for element in elements)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _value(operand, names)
            if isinstance(value, int):
                return -value
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _value(left, names), _value(right, names))
        case ast.Call(func=func, args=args, keywords=[]):
            called = _value(func, names)
            if called in (ctypes.POINTER, ctypes.CFUNCTYPE, ctypes.sizeof):
                return called(*[_value(arg, names) for arg in args])
    raise _Unknown(ast.dump(node)[:80])


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    number = type(left) is int and type(right) is int
    match op:
        case ast.Mult() if number or (isinstance(left, type) and type(right) is int):
            return left * right
        case ast.BitOr() if number:
            return left | right
        case ast.LShift() if number and 0 <= right < 64:
            return left << right
        case ast.FloorDiv() if number and right:
            return left // right
        case ast.Add() if number:
            return left + right
        case ast.Sub() if number:
            return left - right
    raise _Unknown(ast.dump(op))


def _code(kind: Any) -> int:
    """The C++ prelude's code of a ctypes type."""
    if kind is None:
        return 0
    if not isinstance(kind, type):
        raise _Unknown(repr(kind))
    pointers = (ctypes._Pointer, ctypes.c_void_p, ctypes.c_char_p, ctypes.Array)
    if issubclass(kind, pointers) or hasattr(kind, "_flags_"):  # a CFUNCTYPE has flags
        return 1000
    if issubclass(kind, (ctypes.Structure, ctypes.Union)):
        return 100000 + ctypes.sizeof(kind)
    if issubclass(kind, ctypes._SimpleCData):
        floating = issubclass(kind, (ctypes.c_float, ctypes.c_double))
        return (2000 if floating else 3000) + ctypes.sizeof(kind)
    raise _Unknown(kind.__name__)


def command(compiler: Compiler, source: Path, text: Path) -> list[str]:
    """What compiles the assertions and makes nothing: they hold where it ends with 0."""
    include = [str(source / "vendor" / "llama.cpp" / folder) for folder in INCLUDES]
    if compiler.family == "msvc":
        return [
            *(compiler.cxx, "/nologo", "/Zs", "/EHsc", "/std:c++17"),
            *(f"/I{folder}" for folder in include),
            str(text),
        ]
    return [
        *(compiler.cxx, "-std=c++17", "-fsyntax-only", "-x", "c++"),
        *(f"-I{folder}" for folder in include),
        str(text),
    ]


def read(source: Path) -> tuple[dict[str, str], list[str]]:
    """The Python texts of the bindings, and the headers that are there to compare them with."""
    package = source / "llama_cpp"
    texts = {
        name: path.read_text(encoding="utf-8")
        for name in MODULES
        if (path := package / f"{name}.py").is_file()
    }
    folders = [source / "vendor" / "llama.cpp" / folder for folder in INCLUDES]
    headers = [name for name in HEADERS if any((f / name).is_file() for f in folders)]
    return texts, headers


def unexpected(found: Comparison, known: Iterable[str]) -> dict[str, str]:
    """What is wrong and not known to be: name -> why."""
    return {name: why for name, why in found.wrong.items() if name not in set(known)}
