"""The command line after ``--`` and the caller's environment, each read in this one place."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, get_args

from sessions.core.errors import USAGE, Problem
from sessions.core.model import CacheName
from sessions.payload import pipconfig


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
    source: str | None
    wheel: str | None
    device: str | None
    model: str | None
    baseline: tuple[str, ...]
    rounds: int
    report: str | None
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(
            f"The options after -- are wrong: {message}",
            id="options-invalid",
            code=USAGE,
            remedy="see all of them: nox -s probe -- --help",
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _device(text: str) -> str:
    if text != "cpu" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither the number of a card nor cpu")
    return text


def parser() -> argparse.ArgumentParser:
    """The one parser of the project."""
    p = _Parser(
        prog="nox -s SESSION --", add_help=False, allow_abbrev=False, usage="%(prog)s [options]"
    )
    add = p.add_argument
    add("--target", metavar="NAME", help="a table of targets.toml (default: its first)")
    add("--targets", metavar="A,B", help="matrix: tables of targets.toml")
    add("--version", metavar="V", help="llama-cpp-python release, of those locked")
    add("--cuda", metavar="X.Y", help="CUDA release line, of those locked")
    add("--arch", metavar="A[;B]", help='CUDA architectures, for example "120-real"')
    add("--python", metavar="X.Y", help="Python the wheel is for")
    add("--pythons", metavar="X.Y,X.Z", help="matrix: Pythons that wheels are for")
    add("--toolkit", metavar="pypi|system|PATH", help="where the CUDA toolkit comes from")
    add("--source", metavar="PATH", help="your own checkout of llama-cpp-python")
    add("--wheel", metavar="PATH", help="verify, smoke, bench: any wheel, not the one built here")
    add("--device", metavar="N|cpu", type=_device, help="smoke, bench: which card; or the CPU")
    add("--model", metavar="PATH", help="smoke, bench: a real GGUF model to ask, or measure, too")
    add(
        "--baseline",
        metavar="WHEEL|seed|upstream|ptx",
        action="append",
        help="bench, bundle: measure in turn with it; a name is built. May be given several times",
    )
    add(
        "--rounds",
        metavar="N",
        type=_positive,
        default=10,
        help="bench: how often each wheel is measured (default: 10; 8 for a verdict)",
    )
    add("--report", metavar="PATH", help="smoke, bench: take the report that a bundle wrote")
    add("--sign", metavar="KEY", help="bundle: sign it with this SSH key")
    add("--signers", metavar="PATH", help="--report: SSH keys whose signature is asked for")
    add("--compiler", metavar="PATH", help="C++ compiler to use instead of the probe's choice")
    add(
        "--cache",
        choices=get_args(CacheName),
        default="ccache",
        help="compiler cache (default: ccache)",
    )
    add("--jobs", metavar="N", type=_positive, help="compile steps at once (default: by the probe)")
    add("--offline", action="store_true", help="use only what is already on this machine")
    add("--fresh", action="store_true", help="do the session's work again even if up to date")
    add("--prerelease", action="store_true", help="a preview of Visual Studio will do too")
    add("--force", action="store_true", help="go on with a combination known to be bad")
    add("--all", action="store_true", help="clean: all that was built, unpacked and recorded here")
    add("--wheels", action="store_true", help="clean: finished wheels too")
    add("--caches", action="store_true", help="clean: toolkits, downloads and compiler cache too")
    add("--dry-run", action="store_true", help="clean: list only")
    add(
        "--lang",
        choices=("en", "es", "all"),
        default="all",
        help="release: language of the wheel's card (default: all)",
    )
    add("--allow-untested-gpu", action="store_true", help="release: without a run on the card")
    add("--reproduce", action="store_true", help="release: build again from nothing, and compare")
    add("--sigstore", action="store_true", help="release: sign the provenance (opens a browser)")
    add("--record", metavar="DIR", help="probe: save every answer of this machine for replay")
    add("--add", metavar="NAME==V", help="lock: llama-cpp-python==0.3.36 or cuda==13.4")
    add("--to", metavar="URL", help="publish: upload to this package server, or name in ~/.pypirc")
    add("--help", action="store_true", help="print this and do nothing")
    return p


def parse(words: Sequence[str]) -> Options:
    """Options from the words after ``--``. Raises Problem for a wrong one."""
    found = vars(parser().parse_args(list(words)))
    return Options(**{**found, "baseline": tuple(found["baseline"] or ())})


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
            f"SOURCE_DATE_EPOCH is {text!r}, which is not a time that a wheel can have.",
            id="source-date-epoch",
            code=USAGE,
            evidence="it is a number of seconds since 1970-01-01, to the end of 2107",
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

    Nothing that says where or how it installs; of its files, ``pyenv.pip`` does the same.
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
