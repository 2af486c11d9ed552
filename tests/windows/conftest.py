"""What the tests in a Windows Python have: the lab, and a folder on its drive C."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions.core.errors import Problem
from tests.windows.lab import Lab, opened


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    try:
        with opened() as lab:
            yield lab
    except Problem as problem:
        pytest.exit(str(problem), returncode=1)


@pytest.fixture
def folder(lab: Lab) -> Iterator[Path]:
    """An empty folder on drive C, of this test alone."""
    path = lab.drive / "test"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    yield path
    shutil.rmtree(path)
