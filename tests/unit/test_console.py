"""What people see cannot be more than text, wherever it came from."""

from __future__ import annotations

import pytest

from sessions.shared import bootstrap, console
from sessions.shared.checks import Check
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
def test_what_would_command_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert console.visible(text) == shown


@pytest.mark.parametrize("command", ["python3 noxfile.py", "nox -f a/noxfile.py", "p -m nox", None])
def test_a_command_is_written_as_the_user_called_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str | None
) -> None:
    monkeypatch.delenv(bootstrap.COMMAND, raising=False)
    if command:
        monkeypatch.setenv(bootstrap.COMMAND, command)
    remedy = "nox -s wheel -- --target ada; nox -l; equinox -s, nox 2026"
    console.say(remedy)
    console.checks([Check("a", "fail", "what", "", remedy)])
    console.problem(Problem("what", id="a-b", remedy=remedy))
    console.say(console.as_called(remedy))  # of a child, which has written it so already
    found = capsys.readouterr()
    typed = command or "nox"
    wanted = f"{typed} -s wheel -- --target ada; {typed} -l; equinox -s, nox 2026\n"
    assert (found.out + found.err).count(wanted) == 4


def test_no_text_of_a_check_reaches_the_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2Jllama.py"
    for check in (Check("a", "fail", evil, evil, evil), Check("b", "ok", evil)):
        console.checks([check])
    for say in (console.say, console.warn, console.done):
        say(evil)
    console.table("title", ["column"], [[evil]])
    assert "\x1b[2J" not in capsys.readouterr().out


def test_a_name_in_a_wheel_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = fakes.wheel_facts(record_problems=("\x1b[2Jllama.py: not listed",))
    console.checks([checks(fakes.case(found))["record"]])
    assert "\\x1b[2Jllama.py: not listed" in capsys.readouterr().out


def test_a_table_that_goes_to_a_pipe_breaks_no_cell_and_no_title(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, title = "/a" * 60 + "/bin/python3.11", "a title that is wider than its table"
    console.table(title, ["what", "path"], [["Python", path]])
    console.table(title, ["a"], [["b"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(title) == 2
    assert f"Python  {path}" in lines


@pytest.mark.parametrize("name", ["[/red]", "[bold]a", "\x1b[2J"])
def test_the_title_of_a_table_is_text_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.table(name, ["a column wider than the title"], [["cell"]])
    assert name.replace("\x1b", "\\x1b") in capsys.readouterr().out


@pytest.mark.parametrize("name", ["[/red]", "[bold]a", "\x1b[2J"])
def test_a_name_is_no_markup_of_the_progress_bar(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.Meter("reading") as meter:
        meter.update(1, 2, 1.0, name)
        console._console.print(meter._bar.make_tasks_table(meter._bar.tasks))
    assert name.replace("\x1b", "\\x1b") in capsys.readouterr().out


def test_a_pipe_hears_of_a_long_build_each_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("sessions.shared.console.time.monotonic", lambda: now[0])
    meter = console.Meter("building")
    for now[0], done in ((10.0, 1), (59.0, 2), (61.0, 3), (100.0, 4), (122.0, 5)):
        meter.update(done, 1000, None, "x.cu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" of")[0] for line in lines] == ["building: 3", "building: 5"]
