"""The command line after ``--`` and the caller's environment, each read in this one place."""

from __future__ import annotations

import argparse
import difflib
import functools
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sessions.payload import pipconfig
from sessions.shared import graph
from sessions.shared.errors import USAGE, Problem
from sessions.shared.option_list import BY_FIELD, IDLE, NEEDS, OPTIONS, Option, takers, takes
from sessions.shared.target import CacheName


@dataclass(frozen=True)
class Options:
    """Every option of every session; None is "as the target has it"."""

    target: str | None
    targets: str | None
    version: str | None
    cuda: str | None
    arch: str | None
    python: str | None
    pythons: str | None
    toolkit: str | None
    glibc: str | None
    source: str | None
    cmake: tuple[str, ...]
    wheel: str | None
    device: str | None
    model: str | None
    families: str
    baseline: tuple[str, ...]
    cpu_module: tuple[str, ...]
    rounds: int
    report: str | None
    reports: str | None
    sign: str | None
    signers: str | None
    compiler: str | None
    cache: CacheName
    jobs: int | None
    offline: bool
    fresh: bool
    prerelease: bool
    force: bool
    all: bool
    wheels: bool
    caches: bool
    dry_run: bool
    lang: str
    allow_untested_gpu: bool
    reproduce: bool
    sigstore: bool
    record: str | None
    add: str | None
    to: str | None
    help: bool
    dists: tuple[str, ...] = ()  # the folders that index is made of


class _Parser(argparse.ArgumentParser):
    sessions = graph.DEFAULT  # whose help a remedy names

    def error(self, message: str) -> NoReturn:
        raise Problem(
            f"The options after -- are wrong: {message}",
            id="options-wrong",
            remedy=f"see all options: nox -s {self.sessions} -- --help",
            code=USAGE,
        )


class _Once(argparse.Action):
    """A value that is given once: of two, one would be ignored."""

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
    """The one parser of the project. What was not given is not in its namespace."""
    made = _Parser(
        prog="nox -s SESSION --",
        add_help=False,
        allow_abbrev=False,
        usage="%(prog)s [options]",
        argument_default=argparse.SUPPRESS,
    )
    made.add_argument("dists", nargs="*", metavar="DIST")
    for option in OPTIONS:
        flags = [option.flag, *(["-h"] if option.name == "help" else [])]
        if not (option.metavar or option.choices):
            made.add_argument(*flags, action="store_true", help=option.help)
        elif option.choices:
            made.add_argument(*flags, action=_Once, choices=option.choices, help=option.help)
        else:
            made.add_argument(
                *flags,
                action="append" if option.many else _Once,
                type=option.kind,
                metavar=option.metavar,
                help=option.help,
            )
    return made


def parse(words: Sequence[str], asked: Collection[str] | None = None) -> Options:
    """Options from the words after ``--``. Raises Problem for a wrong one.

    With ``asked``, the sessions that were asked for by name, an option that none of them takes is
    wrong, and so is one that has no effect beside another.
    """
    reader = parser()
    reader.sessions = " ".join(asked or [graph.DEFAULT])
    found, stray = reader.parse_known_args(list(words))
    if stray:
        raise _unknown(stray, reader.sessions)
    given = vars(found)
    dists = tuple(given.pop("dists", ()))
    if dists and (asked is None or set(asked) != {graph.OF_FOLDERS}):
        raise _unknown(dists, reader.sessions)
    if asked is not None and "help" not in given:
        _refuse(given, asked)
    values = {o.field: given.get(o.field, _default(o)) for o in OPTIONS}
    many = {o.field: tuple(values[o.field] or ()) for o in OPTIONS if o.many}
    return Options(**{**values, **many}, dists=dists)


def _default(option: Option) -> object:
    switch = not (option.metavar or option.choices)
    return False if switch else option.default


def _unknown(stray: Sequence[str], sessions: str) -> Problem:
    """What a word that no option knows may have been meant as."""
    word = next((w for w in stray if w.startswith("-")), stray[0])
    name = word.partition("=")[0]
    near = difflib.get_close_matches(name, [option.flag for option in OPTIONS], 1, 0.7)
    what = f"There is no option {name}." if word.startswith("-") else f"{word} is not an option."
    return Problem(
        what,
        id="option-unknown",
        evidence=f"did you mean {near[0]}?" if near else "",
        remedy=f"see all options: nox -s {sessions} -- --help",
        code=USAGE,
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
            raise Problem(
                f"{option.flag} has no effect on nox -s {names} with --wheel: nothing is built."
                if idle
                else f"{option.flag} is not an option of nox -s {names}.",
                id="option-without-effect" if idle else "option-of-other-session",
                evidence=f"sessions that take it: {', '.join(takers(option))}"
                + "".join(f"\nfor {names} there is {flag}" for flag in near),
                remedy=f"leave it out; all options: nox -s {names} -- --help",
                code=USAGE,
            )
    for field, idle_ones in IDLE.items():
        for other in idle_ones:
            if field in given and other in given:
                raise Problem(
                    f"{BY_FIELD[other].flag} has no effect together with {BY_FIELD[field].flag}.",
                    id="option-without-effect",
                    remedy=f"leave out {BY_FIELD[other].flag} or {BY_FIELD[field].flag}",
                    code=USAGE,
                )
    for field, needed in NEEDS.items():
        if field in given and not given.keys() & set(needed):
            flags = " or ".join(BY_FIELD[each].flag for each in needed)
            raise Problem(
                f"{BY_FIELD[field].flag} has no effect without {flags}.",
                id="option-without-effect",
                remedy=f"add {flags}, or leave out {BY_FIELD[field].flag}",
                code=USAGE,
            )


_KIN = {"target": ("targets",), "targets": ("target",), "pythons": ("python",)}


def environment() -> dict[str, str]:
    """The caller's environment, names in upper case on Windows as Windows compares them.

    Raises Problem where a variable that reaches the build has no meaning.
    """
    env = dict(os.environ)
    if sys.platform == "win32":
        env = {name.upper(): value for name, value in env.items()}
    source_date_epoch(env)
    return env


_EPOCHS = range(4354819200)  # to the end of 2107: a zip archive, which a wheel is, has none later


def source_date_epoch(env: Mapping[str, str]) -> int | None:
    """The caller's SOURCE_DATE_EPOCH in seconds; None where it is not set. Raises Problem.

    It takes the place of the source's own time, so other bytes come out: a release has none.
    Its meaning: reproducible-builds.org/specs/source-date-epoch.
    """
    text = env.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) in _EPOCHS):
        raise Problem(
            f"SOURCE_DATE_EPOCH is {text!r}, which is not a valid time for a wheel.",
            id="source-date-epoch",
            code=USAGE,
            evidence="it must be a number of seconds since 1970-01-01, up to the end of 2107",
            remedy="unset SOURCE_DATE_EPOCH (the build then takes the time of the source), or set "
            "it to such a number",
        )
    return int(text)


# What reaches a child, by what the child is for. Nothing else does.
_SYSTEM = (
    "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SOURCE_DATE_EPOCH",
)  # fmt: skip
_WINDOWS = (
    "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE",
    "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
    "PROGRAMFILES", "PROGRAMFILES(X86)", "PROGRAMW6432", "COMMONPROGRAMFILES", "ALLUSERSPROFILE",
)  # fmt: skip
_NETWORK = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC",
)  # fmt: skip


def system_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The part of the caller's environment that any program needs; no PATH."""
    return {name: env[name] for name in (*_SYSTEM, *_WINDOWS) if name in env}


def pip_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What pip gets of the user's: where packages come from, proxies, certificates, and PATH.

    Nothing that says where or how it installs; of its files, ``venvs.pip`` does the same.
    """
    network = {n: v for n, v in env.items() if n.upper() in _NETWORK}
    pip = {**pipconfig.passed(env), **{n: v for n, v in env.items() if n.startswith("XDG_")}}
    path = {"PATH": env["PATH"]} if "PATH" in env else {}
    return {**system_environment(env), **network, **pip, **path}


def twine_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What an upload needs beside the network: credentials, or the way to the user's keyring."""
    names = (
        "TWINE_USERNAME", "TWINE_PASSWORD", "TWINE_CERT", "TWINE_CLIENT_CERT",
        "PYTHON_KEYRING_BACKEND", "DBUS_SESSION_BUS_ADDRESS",
    )  # fmt: skip
    own = {name: env[name] for name in names if name in env}
    # Wide enough that no line of an error is broken.
    return {**pip_environment(env), **own, "PYTHONUTF8": "1", "COLUMNS": "500"}


# Of ccache's own settings, where its stores are and how they are used. Not which compiler runs
# (CCACHE_COMPILER, CCACHE_PREFIX), nor what counts as a hit (CCACHE_COMPILERCHECK,
# CCACHE_SLOPPINESS): these are ours.
_CCACHE = (
    "CCACHE_DIR", "CCACHE_TEMPDIR", "CCACHE_MAXSIZE", "CCACHE_MAXFILES", "CCACHE_UMASK",
    "CCACHE_COMPRESS", "CCACHE_NOCOMPRESS", "CCACHE_COMPRESSLEVEL", "CCACHE_REMOTE_STORAGE",
    "CCACHE_REMOTE_ONLY", "CCACHE_LIBEXEC_DIRS", "CCACHE_RESHARE", "CCACHE_NAMESPACE",
    "CCACHE_READONLY", "CCACHE_READONLY_DIRECT", "CCACHE_RECACHE", "CCACHE_DISABLE",
    "CCACHE_LOGFILE", "CCACHE_DEBUG", "CCACHE_DEBUGDIR", "CCACHE_DEBUGLEVEL",
)  # fmt: skip


def cache_environment(env: Mapping[str, str], cache: CacheName) -> dict[str, str]:
    """The compiler cache's own settings as the user has them.

    All of sccache's (``SCCACHE_*``) are of its stores and servers: the compiler is in its command.
    It takes the credentials of an S3 store as Amazon's own tools do (``AWS_*``), and a way to it
    through proxies. These may hold passwords: they are for a process, not for a record.
    """
    if cache == "ccache":
        return {name: env[name] for name in _CCACHE if name in env}
    if cache == "sccache":
        own = {n: v for n, v in env.items() if n.startswith(("SCCACHE_", "AWS_"))}
        return {**own, **{n: v for n, v in env.items() if n.upper() in _NETWORK}}
    return {}
