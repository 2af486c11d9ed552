"""Of the user's settings of pip, those of where packages come from; none of where or how they go.

A ``target`` or ``user`` in an environment or a pip.conf would install beside the venv that is
meant, and an empty value in the environment does not undo what a file sets. So pip itself lists
the settings of its files (``pip config list``), what may count of them is passed on in the
environment, and pip then reads no file. Imports nothing of ours: it also runs from a bundle.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping

# pip's long options (https://pip.pypa.io/en/stable/cli/pip/), as its files and PIP_* name them.
HONOURED = frozenset(
    {
        "index-url", "pypi-url", "extra-index-url", "no-index", "find-links", "trusted-host",
        "proxy", "cert", "client-cert", "keyring-provider", "timeout", "default-timeout",
        "retries", "resume-retries", "cache-dir", "no-cache-dir", "disable-pip-version-check",
        "use-feature", "use-deprecated",
    }
)  # fmt: skip
# Of the last two, what is about certificates.
_FEATURES = frozenset({"truststore", "legacy-certs"})
LIST = ("-I", "-m", "pip", "--disable-pip-version-check", "config", "list")


def passed(env: Mapping[str, str]) -> dict[str, str]:
    """The ``PIP_*`` of an environment that count, and which file pip is to read."""
    found = {_option(n[4:]): v for n, v in env.items() if n.upper().startswith("PIP_")}
    file = {"PIP_CONFIG_FILE": found["config-file"]} if "config-file" in found else {}
    return {**_variables(found), **file}


def environment(env: Mapping[str, str], listed: str, command: str) -> dict[str, str]:
    """An environment for ``pip COMMAND``, in which what pip's files and ``env`` say of it is all.

    ``listed`` is the output of ``pip config list``, asked in this very environment.
    """
    rows = list(_rows(listed))
    files = {name: v for part in ("global", command) for at, name, v in rows if at == part}
    other = {n: v for n, v in env.items() if not n.upper().startswith("PIP_")}
    named = {n: v for n, v in passed(env).items() if n != "PIP_CONFIG_FILE"}
    return {**other, **_variables(files), **named, "PIP_CONFIG_FILE": os.devnull}


def _option(name: str) -> str:
    return name.lower().replace("_", "-")


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in settings.items():
        if name in ("use-feature", "use-deprecated"):
            value = " ".join(word for word in value.split() if word in _FEATURES)
        if name in HONOURED and value:
            found[f"PIP_{name.upper().replace('-', '_')}"] = value
    return found


def _rows(listed: str) -> Iterator[tuple[str, str, str]]:
    """Section, option and value of each line: ``global.index-url='https://…'``."""
    for line in listed.splitlines():
        row = re.fullmatch(r"([a-z]+)\.([\w-]+)=('.*'|\".*\")", line)
        if row:
            yield row[1], _option(row[2]), ast.literal_eval(row[3])
