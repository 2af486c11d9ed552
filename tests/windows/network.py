"""The user's own pip settings for the pip of the Windows Python."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.windows.lab import Lab

_TAKEN = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "default-timeout")


def settings(lab: Lab) -> dict[str, str]:
    """The index, proxy and certificates of this machine's pip, as environment variables."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    found = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        said = str(ast.literal_eval(value))
        if option == "cert":
            found["PIP_CERT"] = lab.windows(Path(said))
        elif option in _TAKEN:
            # Folders of this machine are no index for a program that reads file:// as Windows does.
            kept = " ".join(word for word in said.split() if not word.startswith("file:"))
            found["PIP_" + option.upper().replace("-", "_")] = kept
    return {name: value for name, value in found.items() if value}
