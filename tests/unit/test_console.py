"""The console: control characters are escaped; tables, progress, and commands in messages."""

from __future__ import annotations

import pytest

from sessions.shared import bootstrap, console
from sessions.shared.check_result import Check
from sessions.shared.errors import Problem
from tests import fakes
from tests.unit.test_verify_checks import checks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain × text…", "plain × text…"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb\x07\x9b\t", "a\\rb\\x07\\x9b\\t"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("\udc80", "\\udc80"),
        ("José 日本", "José 日本"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert console.visible(text) == shown


@pytest.mark.parametrize("command", ["python3 noxfile.py", "nox -f a/noxfile.py", "p -m nox", None])
def test_a_command_is_printed_as_the_user_called_nox(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str | None
) -> None:
    monkeypatch.delenv(bootstrap.COMMAND, raising=False)
    if command:
        monkeypatch.setenv(bootstrap.COMMAND, command)
    remedy = "nox -s wheel -- --target ada; nox -l; equinox -s, nox 2026"
    console.say(remedy)
    console.checks([Check("a", "fail", "what", "", remedy)])
    console.problem(Problem("what", id="a-b", remedy=remedy))
    console.say(console.as_called(remedy))  # a child process has already converted it
    found = capsys.readouterr()
    typed = command or "nox"
    expected = f"{typed} -s wheel -- --target ada; {typed} -l; equinox -s, nox 2026\n"
    assert (found.out + found.err).count(expected) == 4


def test_no_output_function_passes_control_characters_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "\x1b[2Jllama.py"
    for check in (Check("a", "fail", evil, evil, evil), Check("b", "ok", evil)):
        console.checks([check])
    for say in (console.say, console.warn, console.done):
        say(evil)
    console.table("title", ["column"], [[evil]])
    assert "\x1b[2J" not in capsys.readouterr().out


def test_a_name_in_a_wheel_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    found = fakes.wheel_facts(record_problems=("\x1b[2Jllama.py: not listed",))
    console.checks([checks(fakes.case(found))["record"]])
    assert "\\x1b[2Jllama.py: not listed" in capsys.readouterr().out


def test_in_a_pipe_cells_and_titles_of_tables_are_not_wrapped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, title = "/a" * 60 + "/bin/python3.11", "a title that is wider than its table"
    console.table(title, ["what", "path"], [["Python", path]])
    console.table(title, ["a"], [["b"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(title) == 2
    assert f"Python  {path}" in lines


@pytest.mark.parametrize("name", ["[/red]", "[bold]a", "\x1b[2J"])
def test_titles_and_names_are_not_parsed_as_markup(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console.table(name, ["a column wider than the title"], [["cell"]])
    shown = name.replace("\x1b", "\\x1b")
    assert shown in capsys.readouterr().out
    with console.Meter("reading") as meter:
        meter.update(1, 2, 1.0, name)
        console._console.print(meter._bar.make_tasks_table(meter._bar.tasks))
    assert shown in capsys.readouterr().out


def test_in_a_pipe_a_long_build_prints_a_line_per_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("sessions.shared.console.time.monotonic", lambda: now[0])
    meter = console.Meter("building")
    for now[0], done in ((10.0, 1), (59.0, 2), (61.0, 3), (100.0, 4), (122.0, 5)):
        meter.update(done, 1000, None, "x.cu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" of")[0] for line in lines] == ["building: 3", "building: 5"]
