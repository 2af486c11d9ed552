"""The whole command line, which is checked before nox reads it."""

from __future__ import annotations

import ast

import pytest

from sessions.command_line import nox_arguments, session_order
from sessions.shared import errors
from sessions.shared.errors import Problem
from tests import fakes


@pytest.mark.parametrize(
    ("line", "env", "sessions", "words"),
    [
        ("", {}, ["wheel"], []),
        ("-s verify smoke -- --target cpu", {}, ["verify", "smoke"], ["--target", "cpu"]),
        ("-s=verify -- --a -- --b", {}, ["verify"], ["--a", "--", "--b"]),
        ("-sverify", {}, ["verify"], []),
        ("--sessions verify verify -x", {}, ["verify"], []),
        ("-e clean -- -s", {}, ["clean"], ["-s"]),
        ("", {"NOXSESSION": "clean,probe"}, ["clean", "probe"], []),
        ("-s wheel", {"NOXSESSION": "clean"}, ["wheel"], []),
        ("-s tests -- -k word", {}, ["tests"], ["-k", "word"]),
        ("-k wheel", {}, [], []),
        ("-s tests --report nox.json", {}, ["tests"], []),
        ("-j 2 -s tests lint", {}, ["tests", "lint"], []),
        ("--python 3.11", {}, ["wheel"], []),  # without -s it is an option of nox
    ],
)
def test_sessions_and_words_are_parsed_as_nox_does(
    line: str, env: dict[str, str], sessions: list[str], words: list[str]
) -> None:
    found = nox_arguments.read(line.split(), env)
    assert (found.sessions, found.words) == (tuple(sessions), tuple(words))
    assert found.runs


@pytest.mark.parametrize("line", ["-l", "--list", "--version", "-l -s wheel"])
def test_an_option_with_which_nox_lists_something_runs_nothing(line: str) -> None:
    assert not nox_arguments.read(line.split(), {}).runs


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_ours_before_and_after_the_dashes(word: str) -> None:
    assert nox_arguments.read([word], {}).help
    found = nox_arguments.read(["-s", "smoke", word, "--", "--device", "0"], {})
    assert (found.sessions, found.words) == (("smoke",), ("--device", "0", "--help"))
    assert found.runs
    assert not found.help


@pytest.mark.parametrize(
    ("line", "id", "message"),
    [
        ("-s wheel --target cpu", "option-before-dashes", "nox -s wheel -- --target cpu"),
        ("--target=cpu", "option-before-dashes", "nox -s wheel -- --target=cpu"),
        ("-r -s wheel --report nox.json -- -h", "option-before-dashes", "-- --report nox.json -h"),
        ("-s wheel --jobs 3 -- --fresh", "option-before-dashes", "-- --jobs 3 --fresh"),
        ("-s smoke --report r.json", "option-before-dashes", "nox -s smoke -- --report r.json"),
        ("-s wheel --version 0.3.36", "option-before-dashes", "-- --version 0.3.36"),
        ("-s wheel --python 3.12", "option-before-dashes", "-- --python 3.12"),
        ("-x -s wheel --cuda 13.4", "option-before-dashes", "nox -s wheel -x -- --cuda 13.4"),
        ("smoke", "session-without-s", "nox -s smoke"),
        ("smoke -- --device 1", "session-without-s", "nox -s smoke -- --device 1"),
        ("-s whell", "session-unknown", "did you mean wheel?"),
        ("-s WHEEL", "session-unknown", "did you mean wheel?"),
        ("-s verify xyzzy", "session-unknown", "bundle"),
        ("-k wheel -- --target cpu", "sessions-not-named", "nox -s NAME"),
        ("-s lint -- --fix", "lint-takes-none", "--fix"),
        ("-j 4 -s wheel", "sessions-in-parallel", "-- --jobs N"),
        ("-j4 -s verify -- --target cpu", "sessions-in-parallel", "-- --jobs N"),
    ],
)
def test_a_command_that_nox_would_misread_is_refused(line: str, id: str, message: str) -> None:
    with pytest.raises(Problem) as caught:
        nox_arguments.read(line.split(), {})
    assert (caught.value.id, caught.value.code) == (id, errors.USAGE)
    assert message in f"{caught.value.evidence}\n{caught.value.remedy}"


def test_the_noxfile_takes_the_order_of_sessions_from_the_table() -> None:
    tree = ast.parse((fakes.ROOT / "noxfile.py").read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            (decorator,) = node.decorator_list
            text = ast.unparse(decorator)
            found[node.name] = f"requires=first('{node.name}')" in text
    chains = {name for name, from_table in found.items() if from_table}
    assert set(found) == set(session_order.SESSIONS)
    assert chains >= {name for name, first in session_order.REQUIRES.items() if first}
    assert chains <= set(session_order.REQUIRES)
    assert set(found) - chains <= {*session_order.PYTEST, session_order.LINT, "probe", "clean"}


def test_an_external_wheel_is_not_built_first() -> None:
    assert "wheel" in session_order.closure(["smoke"])
    assert session_order.closure(["smoke"], given=True) == ("probe", "smoke")
    assert session_order.closure(["verify"], given=True) == ("verify",)
    assert session_order.closure(["bundle"])[:3] == ("probe", "clean", "source")
