"""Selects the user's pip settings that say where packages come from, for example index-url.

Other settings are dropped: ``target`` or ``user`` would install outside the intended venv. An empty
variable does not undo a setting of a pip.conf. So ``pip config list`` prints the settings of all
files, the allowed ones are passed on as environment variables, and pip then reads no file.
Standard library only, because it also runs from a bundle.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping

# Long options of pip (https://pip.pypa.io/en/stable/cli/pip/), as in its files and in PIP_*.
HONOURED = frozenset(
    {
        "index-url", "pypi-url", "extra-index-url", "no-index", "find-links", "trusted-host",
        "proxy", "cert", "client-cert", "keyring-provider", "timeout", "default-timeout",
        "retries", "resume-retries", "cache-dir", "no-cache-dir", "disable-pip-version-check",
        "use-feature", "use-deprecated",
    }
)  # fmt: skip
# The values of the last two that are about certificates.
_FEATURES = frozenset({"truststore", "legacy-certs"})
LIST = ("-I", "-m", "pip", "--disable-pip-version-check", "config", "list")


def passed(env: Mapping[str, str]) -> dict[str, str]:
    """The allowed ``PIP_*`` variables of an environment, with PIP_CONFIG_FILE."""
    found = {_option(n[4:]): v for n, v in env.items() if n.upper().startswith("PIP_")}
    file = {"PIP_CONFIG_FILE": found["config-file"]} if "config-file" in found else {}
    return {**_variables(found), **file}


def environment(env: Mapping[str, str], listed: str, command: str) -> dict[str, str]:
    """The environment for ``pip COMMAND``, with the allowed settings of pip's files and of ``env``.

    ``listed`` is the output of ``pip config list`` in the same environment.
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
    """Section, option and value of each line, for example ``global.index-url='https://…'``."""
    for line in listed.splitlines():
        row = re.fullmatch(r"([a-z]+)\.([\w-]+)=('.*'|\".*\")", line)
        if row:
            yield row[1], _option(row[2]), ast.literal_eval(row[3])
