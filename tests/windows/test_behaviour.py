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

# What Wine 8 does not do as Windows does, by Microsoft's documentation; strict: it says if it does.
OTHER_IN_WINE = {"a_folder_with_an_open_file_is_not_renamed": "Wine renames it"}
SHOWN = [
    pytest.param(name, marks=pytest.mark.xfail(reason=OTHER_IN_WINE[name]))
    if name in OTHER_IN_WINE
    else name
    for name in NAMES
]


@pytest.mark.parametrize("name", SHOWN)
def test_windows(lab: Lab, folder: Path, name: str) -> None:
    lab.run(lab.python, PROGRAM, name, folder).well()
