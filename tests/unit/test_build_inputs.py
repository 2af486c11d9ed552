"""The inputs of a build: the digest of our files, and when a CMake tree is deleted."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from pathlib import Path

import pytest

from sessions.build import build_inputs, main_wheel
from sessions.fetch import main_toolkit, toolkit_identity
from sessions.shared import code_digest, disk, records
from tests import fakes

PLAIN = """
def f(a):
    return [a, "text"]
"""


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""What it is."""\n' + PLAIN, True),
        ("# comment\n" + PLAIN, True),
        ('def f(a):\n    """Doc."""\n\n    return [a,  # why\n            "text"]\n', True),
        (PLAIN.replace("\n", "\r\n"), True),
        (PLAIN.replace("text", "txet"), False),
        (PLAIN.replace("a, ", ""), False),
        (PLAIN + "x = 1\n", False),
        ("", False),
        (PLAIN * 2, False),
    ],
)
def test_the_digest_of_python_depends_on_its_code_only(
    text: str, same: bool, tmp_path: Path
) -> None:
    assert (coded(tmp_path, text) == coded(tmp_path, PLAIN)) is same


def coded(folder: Path, text: str, name: str = "a.py") -> str:
    (folder / name).write_bytes(text.encode())
    return code_digest.code(folder / name)


def test_the_digest_of_toml_depends_on_its_values_only(tmp_path: Path) -> None:
    one = coded(tmp_path, "a = 1\n", "a.toml")
    assert coded(tmp_path, "# why\n\na  =  1  # so\n", "a.toml") == one
    assert coded(tmp_path, "a = 2\n", "a.toml") != one


@pytest.mark.parametrize(
    ("folder", "name", "one", "other"),
    [
        ("overlay", "a.py", PLAIN, f"# comment\n{PLAIN}"),
        ("", "a.c", "#define N 1\nint n = N;\n", "#define N 2\nint n = N;\n"),
    ],
    ids=["overlay", "c"],
)
def test_the_digest_of_what_is_shipped_or_of_c_depends_on_every_byte(
    folder: str, name: str, one: str, other: str, tmp_path: Path
) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    assert coded(tmp_path / folder, one, name) != coded(tmp_path / folder, other, name)


class Wordless(ast.NodeTransformer):
    """Removes docstrings and errors."""

    def visit_Raise(self, node: ast.Raise) -> ast.Pass:
        return ast.Pass()

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if isinstance(node.value, ast.Constant) else node


def test_the_layout_number_is_raised_when_the_code_that_completes_a_toolkit_changes() -> None:
    """The number is part of the name of a toolkit in the cache. Change the digest here with it."""
    made_by = (
        main_toolkit.assemble,
        main_toolkit.import_libraries,
        main_toolkit.module_definition,
        main_toolkit.driver_functions,
        main_toolkit._driver_stub,
    )
    trees = [ast.parse(textwrap.dedent(inspect.getsource(function))) for function in made_by]
    text = "".join(ast.unparse(Wordless().visit(tree)) for tree in trees)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (toolkit_identity.LAYOUT, digest) == ({"linux": 1, "windows": 2}, "1c21916ff8a37879")


@pytest.mark.parametrize(
    ("then", "stays"),
    [("settings", True), ("other settings", False), (None, False)],
)
def test_a_tree_with_other_settings_is_deleted_before_the_build(
    then: str | None, stays: bool, tmp_path: Path
) -> None:
    # CMake reads CMAKE_CXX_FLAGS_INIT only once.
    ctx = fakes.context(tmp_path, session="wheel")
    env = fakes.build_env(inputs={"settings": "settings", "a": "b"})
    disk.mark(ctx.build / "tree")
    (ctx.build / "tree" / "CMakeCache.txt").touch()
    if then:
        records.write(ctx.build / "inputs.json", "inputs", {"settings": then})
    main_wheel._prepare_tree(ctx, env, fakes.chain())
    assert (ctx.build / "tree" / "CMakeCache.txt").exists() is stays
    noted = records.need(ctx.build / "inputs.json", "inputs", dict[str, str])
    assert noted.items() >= env.inputs.items()
    now = build_inputs.tree(ctx.spec, fakes.chain(), ctx.root, ctx.cache)
    assert build_inputs.differences(noted, now) == []


@pytest.mark.parametrize(
    ("builder", "wanted", "expected"),
    [("3.11.2", "3.11", "3.11.2"), ("3.13.0", "3.11", "3.13.0 for 3.11"), ("", "3.11", "none")],
)
def test_the_inputs_name_the_builder_and_the_wheels_python(
    builder: str, wanted: str, expected: str
) -> None:
    spec = fakes.spec(python=wanted)
    assert build_inputs.machine(spec, None, builder, "")["python"] == expected
