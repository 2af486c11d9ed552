"""What people see. Everything for programs is in the records."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sessions.shared import bootstrap
from sessions.shared.checks import Check
from sessions.shared.errors import Problem

_MARKS = {"ok": ("✓", "+", "green"), "warn": ("!", "!", "yellow"), "fail": ("✗", "x", "red")}
_WIDE = 1000  # characters in a line that nobody sees on a terminal
_QUIET = 60.0  # seconds without a line about a build that goes on
_console = Console(highlight=False, soft_wrap=True)


def _unicode() -> bool:
    return (_console.encoding or "").lower().replace("-", "") == "utf8"


def _line(text: str) -> Text:
    text = as_called(visible(text))
    return Text(text if _unicode() else text.encode("ascii", "replace").decode())


def visible(text: str) -> str:
    """A text that can only be read: whatever would command a terminal is written as its number."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def as_called(text: str) -> str:
    """A text whose commands (nox -s, nox -l) are written as the user called this program."""
    return re.sub(r"(?<![\w-])(?<!-m )nox(?= -[sl]\b)", lambda _: bootstrap.command(), text)


def say(text: str) -> None:
    """One line of what is happening."""
    _console.print(_line(text))


def warn(text: str) -> None:
    """Something the user should know and need not fix."""
    _console.print(Text("warning: ", style="yellow") + _line(text))


def problem(problem: Problem) -> None:
    """Why a session or the command failed, whole and as it is: its remedy can be pasted."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    errors.print(Text("error: ", style="red") + _line(str(problem)))


def done(text: str) -> None:
    """The end of a stage."""
    mark, plain, style = _MARKS["ok"]
    _console.print(Text((mark if _unicode() else plain) + " ", style=style) + _line(text))


def checks(items: Iterable[Check]) -> None:
    """One line a check; evidence and remedy under those that are not ok."""
    for check in items:
        mark, plain, style = _MARKS[check.status]
        _console.print(
            Text((mark if _unicode() else plain) + " ", style=style) + _line(check.summary)
        )
        if check.status != "ok":
            for line in [*check.evidence.splitlines(), f"fix: {check.remedy}"]:
                _console.print(Text("    ") + _line(line))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people; its cells are folded to fit a terminal, and in a file or pipe never."""
    view = Table(box=None, pad_edge=False, safe_box=True)
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*(_line(cell) for cell in row))
    if title:
        say(title)
    Console(highlight=False, width=None if _console.is_terminal else _WIDE).print(view)


def duration(seconds: float) -> str:
    """Seconds as "7 s", "3 min 20 s" or "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Meter:
    """A progress bar on a terminal; elsewhere a line at each tenth, and at each minute."""

    def __init__(self, title: str, unit: str = "steps") -> None:
        self._unit = unit
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}  {task.fields[now]}", markup=False),
            console=_console,
            transient=True,
            disable=not _console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, left="", now="")
        self._tenth = 0
        self._said = time.monotonic()
        self._title = title

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, done: int, total: int, left: float | None, now: str) -> None:
        """``left`` is an estimate in seconds, None where there is none yet."""
        text = f"about {duration(left)} left" if left is not None else ""
        self._bar.update(self._task, completed=done, total=total, left=text, now=visible(now))
        tenth = 10 * done // max(total, 1)
        late = time.monotonic() - self._said > _QUIET
        if self._bar.disable and (tenth > self._tenth or late):
            self._tenth, self._said = tenth, time.monotonic()
            say(f"{self._title}: {done} of {total} {self._unit}, {text or 'estimating'}; {now}")
