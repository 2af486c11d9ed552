"""The guard of ``conftest``: no unit test runs a program by accident."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sessions.shared import machine, programs, venvs
from tests import fakes

REFUSAL = "a unit test may not run programs"


def test_capture_is_refused() -> None:
    with pytest.raises(AssertionError, match=REFUSAL):
        programs.capture(["true"], env={})


def test_stream_is_refused() -> None:
    with pytest.raises(AssertionError, match=REFUSAL):
        programs.stream(["true"], env={}, log=io.StringIO(), on_line=print)


def test_a_stage_that_would_run_pip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=REFUSAL):
        venvs.pip(fakes.context(tmp_path), tmp_path, ["download", "x"], "x")


def test_the_real_machine_cannot_be_asked_to_run(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=REFUSAL):
        machine.real({}, tmp_path, tmp_path)("run", "nvcc", "--version")


def test_a_test_may_put_its_own_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = programs.Finished(("true",), 0, "said", 0.0)
    monkeypatch.setattr(programs, "capture", lambda *_, **__: finished)
    assert programs.capture(["true"], env={}).output == "said"
