"""The caller's environment, and which of its variables each kind of child process gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from sessions.payload import pipconfig
from sessions.shared.build_spec import CacheName
from sessions.shared.errors import UsageProblem


def environment() -> dict[str, str]:
    """The caller's environment; on Windows, which ignores case, with names in upper case.

    Raises Problem if SOURCE_DATE_EPOCH is not valid.
    """
    env = dict(os.environ)
    if sys.platform == "win32":
        env = {name.upper(): value for name, value in env.items()}
    source_date_epoch(env)
    return env


_EPOCHS = range(4354819200)  # to the end of 2107, the last year that a zip archive can contain


def source_date_epoch(env: Mapping[str, str]) -> int | None:
    """The caller's SOURCE_DATE_EPOCH in seconds; None if it is not set. Raises Problem.

    It replaces the time of the source, so the bytes of the wheel change. A release must not set it.
    Specification: reproducible-builds.org/specs/source-date-epoch.
    """
    text = env.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) in _EPOCHS):
        raise UsageProblem(
            f"SOURCE_DATE_EPOCH is {text!r}, which is not a valid time for a wheel.",
            id="source-date-epoch",
            evidence="it must be a number of seconds since 1970-01-01, up to the end of 2107",
            remedy="unset SOURCE_DATE_EPOCH (the build then takes the time of the source), or set "
            "it to such a number",
        )
    return int(text)


# Allow-lists: no other variable reaches a child process.
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
    """The variables that every program needs, without PATH."""
    return {name: env[name] for name in (*_SYSTEM, *_WINDOWS) if name in env}


def pip_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables for pip: where packages come from, proxies, certificates, and PATH.

    Not those that say where or how pip installs. ``venvs.pip`` filters pip's files in the same way.
    """
    network = {n: v for n, v in env.items() if n.upper() in _NETWORK}
    pip = {**pipconfig.passed(env), **{n: v for n, v in env.items() if n.startswith("XDG_")}}
    path = {"PATH": env["PATH"]} if "PATH" in env else {}
    return {**system_environment(env), **network, **pip, **path}


def twine_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables for twine: those for pip, and credentials or access to the user's keyring."""
    names = (
        "TWINE_USERNAME", "TWINE_PASSWORD", "TWINE_CERT", "TWINE_CLIENT_CERT",
        "PYTHON_KEYRING_BACKEND", "DBUS_SESSION_BUS_ADDRESS",
    )  # fmt: skip
    own = {name: env[name] for name in names if name in env}
    # COLUMNS: so that no line of an error is wrapped.
    return {**pip_environment(env), **own, "PYTHONUTF8": "1", "COLUMNS": "500"}


# Settings of ccache's stores. The project itself sets which compiler runs (CCACHE_COMPILER,
# CCACHE_PREFIX) and what counts as a hit (CCACHE_COMPILERCHECK, CCACHE_SLOPPINESS).
_CCACHE = (
    "CCACHE_DIR", "CCACHE_TEMPDIR", "CCACHE_MAXSIZE", "CCACHE_MAXFILES", "CCACHE_UMASK",
    "CCACHE_COMPRESS", "CCACHE_NOCOMPRESS", "CCACHE_COMPRESSLEVEL", "CCACHE_REMOTE_STORAGE",
    "CCACHE_REMOTE_ONLY", "CCACHE_LIBEXEC_DIRS", "CCACHE_RESHARE", "CCACHE_NAMESPACE",
    "CCACHE_READONLY", "CCACHE_READONLY_DIRECT", "CCACHE_RECACHE", "CCACHE_DISABLE",
    "CCACHE_LOGFILE", "CCACHE_DEBUG", "CCACHE_DEBUGDIR", "CCACHE_DEBUGLEVEL",
)  # fmt: skip


def cache_environment(env: Mapping[str, str], cache: CacheName) -> dict[str, str]:
    """The user's settings of the compiler cache.

    All settings of sccache (``SCCACHE_*``) concern its stores and servers. It needs the credentials
    of an S3 store (``AWS_*``) and the proxies. These may contain passwords: pass them to a process,
    and never write them to a record.
    """
    if cache == "ccache":
        return {name: env[name] for name in _CCACHE if name in env}
    if cache == "sccache":
        own = {n: v for n, v in env.items() if n.startswith(("SCCACHE_", "AWS_"))}
        return {**own, **{n: v for n, v in env.items() if n.upper() in _NETWORK}}
    return {}
