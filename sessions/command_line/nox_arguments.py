"""The whole command line: which sessions were asked for, and what stands after ``--``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sessions.command_line import session_order
from sessions.command_line.option_list import OPTIONS
from sessions.shared import programs
from sessions.shared.errors import USAGE, Problem

# nox has options of these names too.
_BOTH = frozenset({"--version", "--python", "--pythons", "--report"})
_TELLS = frozenset({"--version", "-l", "--list", "--list-sessions", "--usage", "--json"})
_HELP = frozenset({"-h", "--help"})


@dataclass(frozen=True)
class Request:
    """What a command asks for."""

    sessions: tuple[str, ...]  # by name, in its order; the default one where none is named
    words: tuple[str, ...]  # after --
    runs: bool = True  # False where nox only lists or explains
    help: bool = False  # the help of no session

    @property
    def stages(self) -> tuple[str, ...]:
        """The sessions that take options of ours."""
        return tuple(name for name in self.sessions if name in session_order.REQUIRES)


def read(words: Sequence[str], env: Mapping[str, str]) -> Request:
    """A command line without its program. Raises Problem for one that nox would not understand.

    ``env`` is the caller's environment: NOXSESSION names sessions where the words name none.
    """
    before, after = _split(words)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-s", "-e", "--session", "--sessions", dest="sessions", nargs="*")
    parser.add_argument("-k", "--keywords", "-t", "--tags", dest="other", nargs="*")
    found, rest = parser.parse_known_args(before)
    named = found.sessions or [n for n in env.get("NOXSESSION", "").split(",") if n]
    names = tuple(dict.fromkeys(named)) or (session_order.DEFAULT,)
    helps = bool(_HELP & set(rest))
    if helps and not found.sessions:
        return Request((), (), help=True)
    if _TELLS & set(rest) and not found.sessions:
        return Request(names, after, runs=False)
    _forgotten(names, rest, after, named=bool(named))
    if found.other is not None:
        if after:
            raise Problem(
                "Options work only with sessions that -s names, not with -k or -t.",
                id="sessions-not-named",
                remedy="name the sessions: nox -s NAME -- OPTIONS",
                code=USAGE,
            )
        return Request((), ())
    for name in names:
        if name not in session_order.SESSIONS:
            near = difflib.get_close_matches(name.lower(), session_order.SESSIONS, 1)
            raise Problem(
                f"There is no session {name}.",
                id="session-unknown",
                evidence=f"did you mean {near[0]}?"
                if near
                else f"sessions: {', '.join(session_order.SESSIONS)}",
                remedy="see what each does: nox -l",
                code=USAGE,
            )
    parallel = any(re.match("-j|--parallel", word) for word in rest)
    if parallel and set(names) & set(session_order.REQUIRES):
        raise Problem(
            "Sessions depend on one another, so nox cannot run them in parallel (-j).",
            id="sessions-in-parallel",
            remedy="leave -j out; for parallel compilation add -- --jobs N",
            code=USAGE,
        )
    if names == (session_order.LINT,) and after:
        raise Problem(
            "The session lint takes no options.",
            id="lint-takes-none",
            evidence=" ".join(after),
            remedy="nox -s lint",
            code=USAGE,
        )
    if helps:
        after = (*after, "--help")
    return Request(names, after, runs=not _TELLS & set(rest))


def _split(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """What stands before the first ``--``, and what stands after it."""
    found = list(words)
    if "--" not in found:
        return found, ()
    at = found.index("--")
    return found[:at], tuple(found[at + 1 :])


def _forgotten(
    names: Sequence[str], rest: Sequence[str], after: Sequence[str], *, named: bool
) -> None:
    """Refuse an option of ours that stands before ``--``, where it would be nox's."""
    ours = {option.flag for option in OPTIONS if option.name != "help"}
    stages = [name for name in names if name in session_order.REQUIRES]
    for at, word in enumerate(rest):
        if not named and word in session_order.SESSIONS:
            fixed = ["nox", "-s", word, *rest[at + 1 :], *(["--", *after] if after else [])]
            raise Problem(
                f"{word} is the name of a session: write -s before it.",
                id="session-without-s",
                remedy=programs.typed(fixed),
                code=USAGE,
            )
        flag = word.partition("=")[0]
        if flag in ours and (flag not in _BOTH or (named and stages)):
            fixed = ["nox", "-s", *names, *rest[:at], "--", *rest[at:], *after]
            raise Problem(
                f"{flag} is an option of the session: write it after a separate --.",
                id="option-before-dashes",
                remedy=programs.typed(fixed),
                code=USAGE,
            )
