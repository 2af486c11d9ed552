"""Parses the options: the words after ``--``, and refuses options that have no effect."""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from sessions.command_line import session_order
from sessions.command_line.option_list import BY_FIELD, IDLE, NEEDS, OPTIONS, Option, takers, takes
from sessions.shared.errors import Problem, UsageProblem
from sessions.shared.options import Options


class _Parser(argparse.ArgumentParser):
    sessions = session_order.DEFAULT  # whose --help a message names

    def error(self, message: str) -> NoReturn:
        raise UsageProblem(
            f"The options after -- are wrong: {message}",
            id="options-wrong",
            remedy=f"see all options: nox -s {self.sessions} -- --help",
        )


class _Once(argparse.Action):
    """Stores a value, and refuses a second one, which would replace the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if hasattr(namespace, self.dest):
            parser.error(f"argument {option_string}: given twice")
        setattr(namespace, self.dest, values)


@functools.cache
def parser() -> _Parser:
    """The parser of all options. The namespace contains only the options that were given."""
    result = _Parser(
        prog="nox -s SESSION --",
        add_help=False,
        allow_abbrev=False,
        usage="%(prog)s [options]",
        argument_default=argparse.SUPPRESS,
    )
    result.add_argument("dists", nargs="*", metavar="DIST")
    for option in OPTIONS:
        flags = [option.flag, *(["-h"] if option.name == "help" else [])]
        if _is_switch(option):
            result.add_argument(*flags, action="store_true", help=option.help)
        else:
            result.add_argument(
                *flags,
                action="append" if option.many else _Once,
                type=option.kind,
                choices=option.choices or None,
                metavar=option.metavar,
                help=option.help,
            )
    return result


def parse(words: Sequence[str], asked: Collection[str] | None = None) -> Options:
    """The options in the words after ``--``. Raises Problem for a wrong option.

    ``asked`` are the sessions after -s. If it is given, an option that none of them takes is also
    refused, and so is an option that has no effect together with another.
    """
    reader = parser()
    reader.sessions = " ".join(asked or [session_order.DEFAULT])
    namespace, stray = reader.parse_known_args(list(words))
    if stray:
        raise _unknown(stray, reader.sessions)
    given = vars(namespace)
    dists = tuple(given.pop("dists", ()))
    if dists and (asked is None or set(asked) != {session_order.OF_FOLDERS}):
        raise _unknown(dists, reader.sessions)
    if asked is not None and "help" not in given:
        _refuse(given, asked)
    defaults = {o.field: False if _is_switch(o) else o.default for o in OPTIONS}
    values = defaults | given
    many = {o.field: tuple(values[o.field] or ()) for o in OPTIONS if o.many}
    return Options(**{**values, **many}, dists=dists)


def _is_switch(option: Option) -> bool:
    return not (option.metavar or option.choices)


def _unknown(stray: Sequence[str], sessions: str) -> Problem:
    """The error for an unknown option, with the option of the most similar name."""
    word = next((w for w in stray if w.startswith("-")), stray[0])
    name = word.partition("=")[0]
    near = difflib.get_close_matches(name, [option.flag for option in OPTIONS], 1, 0.7)
    what = f"There is no option {name}." if word.startswith("-") else f"{word} is not an option."
    return UsageProblem(
        what,
        id="option-unknown",
        evidence=f"did you mean {near[0]}?" if near else "",
        remedy=f"see all options: nox -s {sessions} -- --help",
    )


def _refuse(given: Mapping[str, object], asked: Collection[str]) -> None:
    wheel = "wheel" in given
    for option in OPTIONS:
        if option.field in given and not takes(option, asked, given=wheel):
            others = [s for s in asked if s not in option.sessions]
            names = " ".join(others if option.reach == "all" else asked)
            idle = wheel and takes(option, asked)
            near = [o.flag for o in OPTIONS if o.field in _KIN.get(option.field, ())]
            near = [f for f in near if takes(BY_FIELD[f[2:]], asked, given=wheel)]
            raise UsageProblem(
                f"{option.flag} has no effect on nox -s {names} with --wheel: nothing is built."
                if idle
                else f"{option.flag} is not an option of nox -s {names}.",
                id="option-without-effect" if idle else "option-of-other-session",
                evidence=f"sessions that take it: {', '.join(takers(option))}"
                + "".join(f"\nfor {names} there is {flag}" for flag in near),
                remedy=f"leave it out; all options: nox -s {names} -- --help",
            )
    for field, idle_ones in IDLE.items():
        for other in idle_ones:
            if field in given and other in given:
                raise UsageProblem(
                    f"{BY_FIELD[other].flag} has no effect together with {BY_FIELD[field].flag}.",
                    id="option-without-effect",
                    remedy=f"leave out {BY_FIELD[other].flag} or {BY_FIELD[field].flag}",
                )
    for field, needed in NEEDS.items():
        if field in given and not given.keys() & set(needed):
            flags = " or ".join(BY_FIELD[each].flag for each in needed)
            raise UsageProblem(
                f"{BY_FIELD[field].flag} has no effect without {flags}.",
                id="option-without-effect",
                remedy=f"add {flags}, or leave out {BY_FIELD[field].flag}",
            )


_KIN = {"target": ("targets",), "targets": ("target",), "pythons": ("python",)}
