"""Parses the whole command line: the sessions after ``-s``, and the words after ``--``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sessions.command_line import session_order
from sessions.command_line.option_list import OPTIONS
from sessions.shared import programs
from sessions.shared.errors import UsageProblem

# Names of options that nox has too.
_BOTH = frozenset({"--version", "--python", "--pythons", "--report"})
# Options with which nox only lists or explains.
_LISTS = frozenset({"--version", "-l", "--list", "--list-sessions", "--usage", "--json"})
_HELP = frozenset({"-h", "--help"})


@dataclass(frozen=True)
class Request:
    """The sessions and words of a command line."""

    sessions: tuple[str, ...]  # in the order of the command line; the default one if none is named
    words: tuple[str, ...]  # after --
    runs: bool = True  # False if nox only lists or explains
    help: bool = False  # --help without a session

    @property
    def phases(self) -> tuple[str, ...]:
        """The sessions that take our options."""
        return tuple(name for name in self.sessions if name in session_order.REQUIRES)


def read(words: Sequence[str], env: Mapping[str, str]) -> Request:
    """Parse a command line, without the program. Raises Problem if nox would misread it.

    ``env`` is the caller's environment: NOXSESSION names the sessions if ``words`` names none.
    """
    at = words.index("--") if "--" in words else len(words)
    before, after = list(words[:at]), tuple(words[at + 1 :])
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-s", "-e", "--session", "--sessions", dest="sessions", nargs="*")
    parser.add_argument("-k", "--keywords", "-t", "--tags", dest="other", nargs="*")
    parsed, rest = parser.parse_known_args(before)
    named = parsed.sessions or [n for n in env.get("NOXSESSION", "").split(",") if n]
    names = tuple(dict.fromkeys(named)) or (session_order.DEFAULT,)
    helps = bool(_HELP & set(rest))
    if helps and not parsed.sessions:
        return Request((), (), help=True)
    if _LISTS & set(rest) and not parsed.sessions:
        return Request(names, after, runs=False)
    _check_order(names, rest, after, named=bool(named))
    if parsed.other is not None:
        if after:
            raise UsageProblem(
                "Options work only with sessions that -s names, not with -k or -t.",
                id="sessions-not-named",
                remedy="name the sessions: nox -s NAME -- OPTIONS",
            )
        return Request((), ())
    for name in names:
        if name not in session_order.SESSIONS:
            near = difflib.get_close_matches(name.lower(), session_order.SESSIONS, 1)
            raise UsageProblem(
                f"There is no session {name}.",
                id="session-unknown",
                evidence=f"did you mean {near[0]}?"
                if near
                else f"sessions: {', '.join(session_order.SESSIONS)}",
                remedy="see what each does: nox -l",
            )
    parallel = any(re.match("-j|--parallel", word) for word in rest)
    if parallel and set(names) & set(session_order.REQUIRES):
        raise UsageProblem(
            "Sessions depend on one another, so nox cannot run them in parallel (-j).",
            id="sessions-in-parallel",
            remedy="leave -j out; for parallel compilation add -- --jobs N",
        )
    if names == (session_order.LINT,) and after:
        raise UsageProblem(
            "The session lint takes no options.",
            id="lint-takes-none",
            evidence=" ".join(after),
            remedy="nox -s lint",
        )
    if helps:
        after = (*after, "--help")
    return Request(names, after, runs=not _LISTS & set(rest))


def _check_order(
    names: Sequence[str], rest: Sequence[str], after: Sequence[str], *, named: bool
) -> None:
    """Raise Problem for a session without -s, or for our option before ``--``."""
    ours = {option.flag for option in OPTIONS if option.name != "help"}
    phases = [name for name in names if name in session_order.REQUIRES]
    for at, word in enumerate(rest):
        if not named and word in session_order.SESSIONS:
            fixed = ["nox", "-s", word, *rest[at + 1 :], *(["--", *after] if after else [])]
            raise UsageProblem(
                f"{word} is the name of a session: write -s before it.",
                id="session-without-s",
                remedy=programs.typed(fixed),
            )
        flag = word.partition("=")[0]
        if flag in ours and (flag not in _BOTH or (named and phases)):
            fixed = ["nox", "-s", *names, *rest[:at], "--", *rest[at:], *after]
            raise UsageProblem(
                f"{flag} is an option of the session: write it after a separate --.",
                id="option-before-dashes",
                remedy=programs.typed(fixed),
            )
