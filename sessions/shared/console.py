"""Output for people: lines, errors, checks, tables, progress. Programs read the records."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sessions.shared import bootstrap
from sessions.shared.check_result import Check, Status
from sessions.shared.errors import Problem

_MARKS = {"ok": ("✓", "+", "green"), "warn": ("!", "!", "yellow"), "fail": ("✗", "x", "red")}
_WIDE = 1000  # characters per line if the output is not a terminal
_QUIET = 60.0  # seconds between two lines about a build, if the output is not a terminal
_console = Console(highlight=False, soft_wrap=True)


def _unicode() -> bool:
    return (_console.encoding or "").lower().replace("-", "") == "utf8"


def _line(text: str) -> Text:
    text = as_called(visible(text))
    return Text(text if _unicode() else text.encode("ascii", "replace").decode())


def visible(text: str) -> str:
    """The text with control characters escaped, so that it cannot command a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def as_called(text: str) -> str:
    """The text with its commands (nox -s, nox -l) in the form in which the user started nox."""
    return re.sub(r"(?<![\w-])(?<!-m )nox(?= -[sl]\b)", lambda _: bootstrap.command(), text)


def say(text: str) -> None:
    """Print a line."""
    _console.print(_line(text))


def warn(text: str) -> None:
    """Print a warning that needs no action."""
    _console.print(Text("warning: ", style="yellow") + _line(text))


def problem(problem: Problem) -> None:
    """Print an error to stderr, without line breaks, so that its remedy can be pasted."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    errors.print(Text("error: ", style="red") + _line(str(problem)))


def done(text: str) -> None:
    """Print that a phase has ended successfully."""
    _marked("ok", text)


def _marked(status: Status, text: str) -> None:
    mark, plain, style = _MARKS[status]
    _console.print(Text((mark if _unicode() else plain) + " ", style=style) + _line(text))


def checks(items: Iterable[Check]) -> None:
    """Print one line per check, with evidence and remedy for those that are not ok."""
    for check in items:
        _marked(check.status, check.summary)
        if check.status != "ok":
            for line in [*check.evidence.splitlines(), f"fix: {check.remedy}"]:
                _console.print(Text("    ") + _line(line))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Its cells are wrapped on a terminal only, not in a file or pipe."""
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
    """A progress bar on a terminal; else a line per tenth of the work and per minute."""

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
        """Show the progress. ``left`` is an estimate in seconds, or None."""
        text = f"about {duration(left)} left" if left is not None else ""
        self._bar.update(self._task, completed=done, total=total, left=text, now=visible(now))
        tenth = 10 * done // max(total, 1)
        late = time.monotonic() - self._said > _QUIET
        if self._bar.disable and (tenth > self._tenth or late):
            self._tenth, self._said = tenth, time.monotonic()
            say(f"{self._title}: {done} of {total} {self._unit}, {text or 'estimating'}; {now}")
