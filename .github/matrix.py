"""The matrix of release.yml as JSON: one row per target of targets.toml and system.

``python3 matrix.py TARGETS RUNNERS``: the targets, separated by spaces (none: all that are
products), and the self-hosted runners with a GPU: "linux-sm120 windows-sm120".
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

# Linux: Debian 12, whose GCC 12 and glibc 2.36 this project's own builds were made with, so the
# wheels are manylinux_2_35. ubuntu-24.04 itself has glibc 2.39, and a wheel made there would not
# run on Debian 12; ubuntu-22.04 ends in April 2027 (actions/runner-images#14254). The container has
# Python, git and GCC, and no CUDA, which comes from PyPI as everywhere. It is named by its tag, for
# Debian's security fixes; verify checks what reaches a wheel.
#
# Windows: the compiler of Visual Studio 2022 is supported by CUDA 13.1, so its wheels are
# released. Those of 2026 have the same names; they are built and tested to see that it works.
# Its label: actions/runner-images#14016. windows-latest is that image too, so none is named so.
#
# "cpu" is the runner that tests a wheel without GPU code: not the one that built it.
SYSTEMS: dict[str, dict[str, Any]] = {
    "linux": {
        "image": "ubuntu-24.04",
        "container": "python:3.11-bookworm",
        "release": True,
        "labels": ["Linux", "X64"],
        "cpu": "ubuntu-24.04",
    },
    "windows": {
        "image": "windows-2022",
        "container": "",
        "release": True,
        "labels": ["Windows", "X64"],
        "cpu": "windows-2025-vs2026",
    },
    "windows-vs2026": {
        "image": "windows-2025-vs2026",
        "container": "",
        "release": False,
        "labels": ["Windows", "X64"],
        "cpu": "windows-2022",
    },
}


def rows(targets: dict[str, Any], asked: list[str], runners: list[str]) -> list[dict[str, Any]]:
    """One row per job. "runner" is the labels of the runner that tests it, as JSON; "" for none."""
    gpus = {name: _capability(table["archs"]) for name, table in targets.items()}
    known = {f"{system}-{gpu}" for system in ("linux", "windows") for gpu in gpus.values()}
    wrong = [*(set(asked) - set(targets)), *(set(runners) - known)]
    if wrong:
        sys.exit(
            f"Unknown: {' '.join(sorted(wrong))}\ntargets: {' '.join(targets)}\n"
            f"runners: {' '.join(sorted(known - {'linux-cpu', 'windows-cpu'}))}"
        )
    return [
        {
            "target": target,
            "system": system,
            "image": about["image"],
            "container": about["container"],
            "release": about["release"],
            "runner": _runner(about, gpus[target], runners),
        }
        for target in asked or [n for n, table in targets.items() if table.get("product", True)]
        for system, about in SYSTEMS.items()
    ]


def _capability(archs: list[str]) -> str:
    """The label of a GPU architecture: "120a-real" -> "sm120"."""
    return "sm" + re.findall(r"^\d+", archs[0])[0] if archs else "cpu"


def _runner(about: dict[str, Any], gpu: str, runners: list[str]) -> str:
    if gpu == "cpu":
        return json.dumps([about["cpu"]])
    there = f"{about['labels'][0].lower()}-{gpu}" in runners
    return json.dumps(["self-hosted", *about["labels"], "gpu", gpu]) if there else ""


if __name__ == "__main__":
    text = (Path(__file__).resolve().parents[1] / "targets.toml").read_text(encoding="utf-8")
    asked, runners = (word.split() for word in sys.argv[1:])
    tables = tomllib.loads(text)
    tables.pop("defaults", None)  # what targets inherit
    print(json.dumps(rows(tables, asked, runners)))
