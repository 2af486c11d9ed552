"""Expects errors by their ids."""

from __future__ import annotations

import pytest

from sessions.shared.errors import Problem


def raises(id_: str) -> pytest.RaisesExc[Problem]:
    """Expect the Problem with this id: ``with raises("target-unknown") as caught``."""
    return pytest.raises(Problem, check=lambda problem: problem.id == id_)
