"""A child nox: the options that it gets, and its command line."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from sessions.command_line import child_nox, parse_options
from sessions.shared import programs
from tests import fakes


def test_only_options_that_decide_the_build_are_passed_on() -> None:
    line = (
        "--target rtx50 --version 0.3.36 --cuda 13.4 --arch 120a-real;90-real --python 3.12 "
        "--toolkit system --source /a --compiler /b --cache none --jobs 3 --offline --force "
        "--prerelease --fresh --report r --lang es --reproduce"
    )
    expected = (
        "--version=0.3.36 --cuda=13.4 --arch=120a-real;90-real --python=3.12 --toolkit=system "
        "--source=/a --compiler=/b --cache=none --jobs=3 --offline --prerelease --force"
    )
    words = child_nox.words(fakes.parsed(*line.split()))
    assert words == expected.split()
    assert child_nox.words(parse_options.parse(words)) == words
    assert child_nox.words(fakes.parsed("--cache", "ccache", "--target", "ada")) == []


def test_a_session_gets_only_options_that_it_takes() -> None:
    line = "--python 3.12 --cache none --jobs 3 --offline --force"
    asked = fakes.parsed(*line.split())
    assert child_nox.words(asked, given=True) == ["--python=3.12", "--force"]
    assert child_nox.words(asked, "probe") == ["--python=3.12", "--jobs=3", "--force"]
    for given, session in ((True, "verify"), (False, "verify"), (False, "probe")):
        words = child_nox.words(asked, session, given=given) + ["--wheel=x.whl"] * given
        parse_options.parse(words, [session])  # raises for an option that is not taken


def test_it_runs_with_this_python_and_the_projects_noxfile(monkeypatch: pytest.MonkeyPatch) -> None:
    inherit = Mock(return_value=7)
    monkeypatch.setattr(programs, "inherit", inherit)
    code = child_nox.follow(Path("/work"), ["verify"], "rtx50", ["--jobs=2"], env={"A": "1"})
    assert code == 7
    noxfile = str(Path("/work") / "noxfile.py")
    words = ["-s", "verify", "--", "--target=rtx50", "--jobs=2"]
    flags = ["-P", "-s", "-X", "utf8"]
    inherit.assert_called_once_with([sys.executable, *flags, noxfile, *words], env={"A": "1"})
