"""The guards of ``conftest``: no unit test runs a program by accident, and none is skipped."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sessions.shared import machine, programs, venvs
from tests import fakes

pytest_plugins = ["pytester"]
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


SKIPS = """
import pytest

def test_passes(): pass
@pytest.mark.skipif(True, reason="by its mark")
def test_mark(): pass
def test_call(): pytest.skip("by its call")
@pytest.fixture
def gone(): pytest.skip("by its fixture")
def test_fixture(gone): pass
@pytest.mark.xfail(reason="a known fault")
def test_known(): assert False
"""


@pytest.mark.parametrize("on_linux", [True, False])
def test_a_skipped_unit_test_fails_on_linux(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, on_linux: bool
) -> None:
    pytester.makeconftest("from tests.conftest import *")
    pytester.makepyfile(
        test_some=SKIPS, test_whole="import pytest; pytest.importorskip('not_installed')"
    )
    monkeypatch.setattr("tests.conftest.UNIT", pytester.path)
    monkeypatch.setattr("tests.conftest.ON_LINUX", on_linux)
    run = pytester.runpytest_inprocess("--continue-on-collection-errors", "-p", "no:cacheprovider")
    outcomes = {"passed": 1, "xfailed": 1}
    if on_linux:
        run.assert_outcomes(**outcomes, failed=1, errors=3)
        run.stdout.fnmatch_lines(["*is skipped on Linux: *by its call*"])
    else:
        run.assert_outcomes(**outcomes, skipped=4)
