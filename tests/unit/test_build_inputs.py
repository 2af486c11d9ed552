"""What a build is made from: what counts of a file of ours, and what a CMake tree goes for."""

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
from sessions.shared.context import Context
from tests import fakes

PLAIN = """
def f(a):
    return [a, "text"]
"""


@pytest.mark.parametrize(
    "text",
    [
        '"""What it is."""\n' + PLAIN,
        "# comment\n" + PLAIN,
        'def f(a):\n    """Doc."""\n\n    return [\n        a,  # why\n        "text",\n    ]\n',
        PLAIN.replace("\n", "\r\n"),
    ],
    ids=["docstring", "comment", "inner", "line-ends"],
)
def test_code_is_the_same_whatever_is_said_about_it(text: str, tmp_path: Path) -> None:
    assert coded(tmp_path, text) == coded(tmp_path, PLAIN)


@pytest.mark.parametrize(
    "text",
    [PLAIN.replace("text", "txet"), PLAIN.replace("a, ", ""), PLAIN + "x = 1\n", "", PLAIN * 2],
)
def test_code_is_another_where_it_does_otherwise(text: str, tmp_path: Path) -> None:
    assert coded(tmp_path, text) != coded(tmp_path, PLAIN)


def coded(folder: Path, text: str, name: str = "a.py") -> str:
    (folder / name).write_bytes(text.encode())
    return code_digest.code(folder / name)


def test_code_of_toml_is_its_values(tmp_path: Path) -> None:
    one = coded(tmp_path, "a = 1\n", "a.toml")
    assert coded(tmp_path, "# why\n\na  =  1  # so\n", "a.toml") == one
    assert coded(tmp_path, "a = 2\n", "a.toml") != one


def test_code_of_what_ships_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "overlay").mkdir()
    one = coded(tmp_path / "overlay", PLAIN)
    assert coded(tmp_path / "overlay", "# comment\n" + PLAIN) != one


class Wordless(ast.NodeTransformer):
    """Leaves out what is said to people: docstrings and errors."""

    def visit_Raise(self, node: ast.Raise) -> ast.Pass:
        return ast.Pass()

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if isinstance(node.value, ast.Constant) else node


def test_what_is_added_to_nvidias_packages_has_a_number_that_was_raised_for_it() -> None:
    """A toolkit in the cache is named by it: raise it with each change, and put the digest here."""
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
def test_a_tree_of_other_settings_goes_before_the_build(
    then: str | None, stays: bool, tmp_path: Path
) -> None:
    # CMake takes CMAKE_CXX_FLAGS_INIT only once.
    ctx, env = context(tmp_path), fakes.build_env(inputs={"settings": "settings", "a": "b"})
    disk.mark(ctx.build / "tree")
    (ctx.build / "tree" / "CMakeCache.txt").touch()
    if then:
        records.write(ctx.build / "inputs.json", "inputs", {"settings": then})
    main_wheel._prepare_tree(ctx, env, fakes.chain())
    assert (ctx.build / "tree" / "CMakeCache.txt").exists() is stays
    noted = records.read(ctx.build / "inputs.json", "inputs", dict[str, str])
    assert noted is not None
    assert noted.items() >= env.inputs.items()
    assert (
        build_inputs.differences(
            noted, build_inputs.tree(ctx.spec, fakes.chain(), ctx.root, ctx.cache)
        )
        == []
    )


def context(root: Path) -> Context:
    return fakes.context(root, session="wheel")


@pytest.mark.parametrize(
    ("builder", "wanted", "expected"),
    [("3.11.2", "3.11", "3.11.2"), ("3.13.0", "3.11", "3.13.0 for 3.11"), ("", "3.11", "none")],
)
def test_a_wheel_under_another_tag_has_another_fingerprint(
    builder: str, wanted: str, expected: str
) -> None:
    spec = fakes.spec(python=wanted)
    assert build_inputs.machine(spec, None, builder, "")["python"] == expected
