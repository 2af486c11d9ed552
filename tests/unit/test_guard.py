"""The guards in ``conftest``: a unit test cannot run programs and is not skipped on Linux."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions.shared import machine, programs, venvs
from tests import fakes

pytest_plugins = ["pytester"]
CALLS: dict[str, Callable[[Path], object]] = {
    "capture": lambda _: programs.capture(["true"], env={}),
    "stream": lambda _: programs.stream(["true"], env={}, log=io.StringIO(), on_line=print),
    "pip": lambda path: venvs.pip(fakes.context(path), path, ["download", "x"], "x"),
    "machine": lambda path: machine.real({}, path, path)("run", "nvcc", "--version"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_program_is_not_run(call: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a unit test may not run programs"):
        call(tmp_path)


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
