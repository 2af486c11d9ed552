"""The texts of errors and checks are those of a snapshot. Other tests use only their ids.

Change the texts in ``sessions/``, then ``BLACKWHEEL_REGOLD=1 nox -s tests -- -k words``.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests import fakes

SNAPSHOT = fakes.ROOT / "tests" / "data" / "words.en.json"
SESSIONS = sorted((fakes.ROOT / "sessions").rglob("*.py"))
PROBLEMS = ("Problem", "UsageProblem")
MAKERS = (*PROBLEMS, "Check", "check", "_check")
FIELDS = ("what", "summary", "ok", "fail", "remedy")


def template(node: ast.expr) -> str:
    """The text of an expression: "There is no target {name}."."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(template, values))
        case ast.FormattedValue(value=value):
            return "{" + ast.unparse(value) + "}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
    return "{" + ast.unparse(node) + "}"


def called(node: ast.Call) -> str:
    """The name of the called function if it is a plain name, else ""."""
    return node.func.id if isinstance(node.func, ast.Name) else ""


def made(tree: ast.AST) -> Iterator[tuple[str, dict[str, str]]]:
    """The id and the texts of each error and check in a module."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and called(node) in MAKERS):
            continue
        words = {k.arg: template(k.value) for k in node.keywords if k.arg in FIELDS}
        named = {k.arg: k.value for k in node.keywords}
        name = named.get("id", node.args[0] if node.args else None)
        if "id" in named and node.args:
            words["what"] = template(node.args[0])
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and words:
            yield name.value, words


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def words() -> dict[str, dict[str, list[dict[str, str]]]]:
    """File -> id -> the texts of each place with this id."""
    found: dict[str, dict[str, list[dict[str, str]]]] = {}
    for path in SESSIONS:
        for name, texts in made(tree(path)):
            place = path.relative_to(fakes.ROOT / "sessions").as_posix()
            found.setdefault(place, {}).setdefault(name, []).append(texts)
    return {place: dict(sorted(ids.items())) for place, ids in found.items()}


def test_words_are_those_of_the_snapshot() -> None:
    today = words()
    if os.environ.get("BLACKWHEEL_REGOLD"):
        text = json.dumps(today, indent=1, ensure_ascii=False) + "\n"
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == today


def test_words_of_each_problem_have_an_id_and_a_remedy() -> None:
    nodes = [node for path in SESSIONS for node in ast.walk(tree(path))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and called(node) in PROBLEMS]
    assert len(calls) > 100
    for call in calls:
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        assert {"id", "remedy"} <= set(named), ast.unparse(call)[:80]
        name = named["id"]
        if isinstance(name, ast.Constant):  # otherwise it is an argument
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", str(name.value))


def test_words_are_found_in_all_forms_of_strings() -> None:
    tree = ast.parse('raise Problem(f"No {a.b}" " here", id="x", remedy="buy" + more)')
    assert list(made(tree)) == [("x", {"what": "No {a.b} here", "remedy": "buy{more}"})]
