"""Compares upstream's Python bindings with its C headers: every structure, function and constant.

If ``llama_cpp/`` and ``vendor/llama.cpp`` are from different releases, the build succeeds, but
Python reads structures at wrong offsets. This module parses the ctypes declarations without
executing them, and writes them as C++ assertions, which the build's compiler checks in a second.
"""

from __future__ import annotations

import ast
import ctypes
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessions.probe.record_types import Compiler

# The modules of llama_cpp/ with declarations, each after those that it imports.
MODULES = ("_ggml", "llama_cpp", "mtmd_cpp")
INCLUDES = ("include", "ggml/include", "tools/mtmd", "src")  # below vendor/llama.cpp
HEADERS = ("llama.h", "mtmd.h", "mtmd-helper.h", "llama-ext.h")
_CONSTANT = re.compile(r"(LLAMA|GGML|MTMD)_[A-Z0-9_]+")
# The code of a C++ type is its kind and size, which decide how a value is passed.
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
    """What the bindings declare. ``unread``: names whose declaration was not understood."""

    structures: Mapping[str, type[ctypes.Structure] | type[ctypes.Union]]
    functions: Mapping[str, tuple[tuple[int, ...], int]]  # argument codes, result code
    constants: Mapping[str, int]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The numbers of compared declarations, and the differences (name -> what is wrong).

    ``absent`` are the names that no header declares.
    """

    structures: int
    functions: int
    constants: int
    wrong: dict[str, str]
    absent: tuple[str, ...]
    unread: tuple[str, ...]


def declarations(sources: Mapping[str, str]) -> Declarations:
    """Parse the ctypes declarations of ``MODULES`` (module name -> text); execute nothing."""
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
                        structure = _structure(node, base, names)
                    except (_Unknown, TypeError):
                        unread.append(name)
                        continue
                    if structure is not None:
                        names[name] = structures[name] = structure
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


def assertions(declared: Declarations, headers: Iterable[str]) -> list[tuple[str, str]]:
    """The lines of a C++ file that asserts each declaration, each with the name it is about."""
    lines = [(f'#include "{name}"', "") for name in headers]
    lines += [(line, "") for line in _PRELUDE.splitlines()]
    checks: list[tuple[str, str]] = []
    for name, structure in declared.structures.items():
        checks.append((name, f"sizeof({name}) == {ctypes.sizeof(structure)}"))
        for field, *_ in structure._fields_:
            member = getattr(structure, field)
            checks.append((name, f"offsetof({name}, {field}) == {member.offset}"))
            checks.append((name, f"sizeof({name}::{field}) == {member.size}"))
    for name, (codes, result) in declared.functions.items():
        checks.append((name, f"same(&{name}, {result}, {{{', '.join(map(str, codes))}}})"))
    for name, value in declared.constants.items():
        checks.append((name, f"(long long)({name}) == {value}LL"))
    return [*lines, *((f'static_assert({check}, "{name}");', name) for name, check in checks)]


# How GCC, Clang and MSVC report a name that no header declares, or declares without members.
_UNDECLARED = re.compile(
    r"not declared|undeclared|does not name a type|incomplete type|undefined type|C2065|C3861|C2027"
)
_ERROR = re.compile(r"^.*?[:(](\d+)[:)].*?\b(?:fatal )?error\b[^:]*: (.*)$")


def compared(
    declared: Declarations, lines: Sequence[tuple[str, str]], output: str, returncode: int
) -> Comparison | None:
    """The comparison that a compiler made of ``assertions``; None if something else failed."""
    wrong: dict[str, str] = {}
    absent: list[str] = []
    for message in filter(None, map(_ERROR.match, output.splitlines())):
        number = int(message[1])
        line, name = lines[number - 1] if 0 < number <= len(lines) else ("", "")
        if not name:
            return None  # the error is in a header, or in the prelude
        if _UNDECLARED.search(message[0]) and "has no member" not in message[0]:
            absent.append(name)
            continue
        check = line.removeprefix("static_assert(").rpartition(', "')[0]
        wrong.setdefault(name, f"{check} is not so in C")
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
    """An expression that this module does not evaluate."""


def _statements(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    """The statements at module level, without the body of ``if TYPE_CHECKING``."""
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
    structure: Any = type(node.name, (kind,), {})
    for inner in node.body:
        match inner:
            case ast.Assign(targets=[ast.Name(id="_fields_")], value=value):
                structure._fields_ = _value(value, names)
    return structure


def _bound(decorators: list[ast.expr]) -> Iterable[tuple[str, ast.expr, ast.expr]]:
    """The arguments of each ``@ctypes_function("name", [argument types], result type)``.

    The decorator may have another name. Instead of a name it may get a list, in which the name is
    followed by mangled C++ names.
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
            module_names = names.get(module)
            if isinstance(module_names, dict) and name in module_names:
                return module_names[name]
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
    """The code of a ctypes type, as ``code`` of the C++ prelude computes it."""
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
    """The command that compiles the assertions without output. If it exits with 0, they hold."""
    folders = [str(source / "vendor" / "llama.cpp" / folder) for folder in INCLUDES]
    if compiler.family == "msvc":
        options = ["/nologo", "/Zs", "/EHsc", "/std:c++17", *(f"/I{name}" for name in folders)]
    else:
        options = ["-std=c++17", "-fsyntax-only", "-x", "c++", *(f"-I{name}" for name in folders)]
    return [compiler.cxx, *options, str(text)]


def read(source: Path) -> tuple[dict[str, str], list[str]]:
    """The texts of the bindings' modules, and the names of the headers to compare them with."""
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
    """The differences whose names are not in ``known``."""
    return {name: why for name, why in found.wrong.items() if name not in set(known)}
