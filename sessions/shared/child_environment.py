"""The caller's environment, and which of its variables each kind of child process gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from sessions.payload import pipconfig
from sessions.shared.build_spec import CacheName
from sessions.shared.errors import USAGE, Problem


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
