"""The matrix of release.yml as JSON: a row for every target of targets.toml on every system.

``python3 matrix.py TARGETS RUNNERS``: which targets, in words (none: all), and which self-hosted
runners with a card there are, as "linux-sm120 windows-sm120".
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
# Debian's security fixes; what of it reaches a wheel, verify reads.
#
# Windows: the compiler of Visual Studio 2022 is one that CUDA 13.1 accepts, so its wheels are
# released. Those of 2026 have the same names; they are built and proven to see that it works.
# Its label: actions/runner-images#14016. windows-latest is that image too, so none is named so.
#
# "cpu" is where a wheel without GPU code is proven: not where it was built.
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
    """A row a job. Its "card" is the labels of where it is proven, as JSON; "" for nowhere."""
    cards = {name: _capability(table["archs"]) for name, table in targets.items()}
    known = {f"{system}-{card}" for system in ("linux", "windows") for card in cards.values()}
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
            "card": _card(about, cards[target], runners),
        }
        for target in asked or targets
        for system, about in SYSTEMS.items()
    ]


def _capability(archs: list[str]) -> str:
    """The label of a card: "120a-real" -> "sm120"."""
    return "sm" + re.findall(r"^\d+", archs[0])[0] if archs else "cpu"


def _card(about: dict[str, Any], card: str, runners: list[str]) -> str:
    if card == "cpu":
        return json.dumps([about["cpu"]])
    there = f"{about['labels'][0].lower()}-{card}" in runners
    return json.dumps(["self-hosted", *about["labels"], "gpu", card]) if there else ""


if __name__ == "__main__":
    text = (Path(__file__).resolve().parents[1] / "targets.toml").read_text(encoding="utf-8")
    asked, runners = (word.split() for word in sys.argv[1:])
    print(json.dumps(rows(tomllib.loads(text), asked, runners)))
