"""The documents say what the code does."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib

import pytest

from sessions.core import options
from tests import fakes

README = (fakes.ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (fakes.ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TARGETS = tomllib.loads((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"))


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the README."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), section.splitlines())
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def sessions() -> set[str]:
    tree = ast.parse((fakes.ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_of_targets_is_that_of_targets_toml() -> None:
    said = {row[0].strip("`"): (row[2], row[3].strip("`")) for row in rows("Targets")}
    assert said == {
        name: (table["version"], ";".join(table["archs"]) or "none")
        for name, table in TARGETS.items()
    }


def test_the_table_of_sessions_is_that_of_the_noxfile() -> None:
    said = {name for row in rows("Sessions") for name in re.findall(r"`([a-z]+)`", row[0])}
    assert said == sessions()


def test_every_option_the_documents_name_is_one() -> None:
    known = set(options.parser()._option_string_actions)
    foreign = {"--no-annotate", "--no-header", "--python-version", "--universal"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README + ARCHITECTURE))
    assert named - foreign <= known


@pytest.mark.parametrize(
    "name", sorted(p.name for p in (fakes.ROOT / "sessions").glob("[a-z]*.py"))
)
def test_every_stage_is_in_the_architecture(name: str) -> None:
    assert name in ARCHITECTURE


def test_every_core_module_is_in_the_architecture() -> None:
    core = {p.name for p in (fakes.ROOT / "sessions" / "core").glob("[a-z]*.py")}
    assert core <= set(re.findall(r"\b[a-z]+\.py\b", ARCHITECTURE))


def test_the_documents_have_no_gaps_left() -> None:
    assert re.findall(r"@[A-Z0-9]+@", README + ARCHITECTURE) == []
