"""A chain of sessions: what it is told, and that it is run with this process's terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sessions.command_line import child_nox, parse_options
from sessions.shared import programs
from tests import fakes


def test_what_decides_the_build_is_handed_on_and_nothing_else() -> None:
    line = (
        "--target rtx50 --version 0.3.36 --cuda 13.4 --arch 120a-real;90-real --python 3.12 "
        "--toolkit system --source /a --compiler /b --cache none --jobs 3 --offline --force "
        "--prerelease --fresh --report r --lang es --reproduce"
    )
    asked = fakes.parsed(*line.split())
    words = child_nox.words(asked)
    assert words == [
        "--version=0.3.36",
        "--cuda=13.4",
        "--arch=120a-real;90-real",
        "--python=3.12",
        "--toolkit=system",
        "--source=/a",
        "--compiler=/b",
        "--cache=none",
        "--jobs=3",
        "--offline",
        "--prerelease",
        "--force",
    ]
    again = parse_options.parse(words)
    assert child_nox.words(again) == words


def test_what_was_not_asked_for_stays_the_targets_choice() -> None:
    assert child_nox.words(fakes.parsed()) == []
    assert child_nox.words(fakes.parsed("--cache", "ccache", "--target", "ada")) == []


def test_a_session_is_handed_only_what_it_takes() -> None:
    asked = fakes.parsed(
        *["--python", "3.12", "--cache", "none", "--jobs", "3", "--offline", "--force"]
    )
    assert child_nox.words(asked, given=True) == ["--python=3.12", "--force"]
    assert child_nox.words(asked, "probe") == ["--python=3.12", "--jobs=3", "--force"]
    for given, session in ((True, "verify"), (False, "verify"), (False, "probe")):
        words = child_nox.words(asked, session, given=given) + ["--wheel=x.whl"] * given
        parse_options.parse(words, [session])  # or it would refuse them


def test_it_is_run_by_this_python_with_that_projects_noxfile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[Any] = []

    def inherit(command: list[str], *, env: Any = None) -> int:
        ran.append((command, env))
        return 7

    monkeypatch.setattr(programs, "inherit", inherit)
    code = child_nox.follow(Path("/work"), ["verify"], "rtx50", ["--jobs=2"], env={"A": "1"})
    assert code == 7
    noxfile = str(Path("/work") / "noxfile.py")
    words = ["-s", "verify", "--", "--target=rtx50", "--jobs=2"]
    flags = ["-P", "-s", "-X", "utf8"]
    assert ran == [([sys.executable, *flags, noxfile, *words], {"A": "1"})]
