"""What the project takes Windows to do otherwise than Linux (``behaviour.py``)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.windows.lab import Lab

PROGRAM = Path(__file__).with_name("behaviour.py")
NAMES = [
    node.name
    for node in ast.parse(PROGRAM.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
]


@pytest.mark.parametrize("name", NAMES)
def test_windows(lab: Lab, folder: Path, name: str) -> None:
    lab.run(lab.python, PROGRAM, name, folder).well()
