"""Checks options of llama.cpp's CMake files: ``cmake`` of a target, ``--cmake NAME=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sessions.shared import knowledge, records
from sessions.shared.errors import UsageProblem

_LONGEST = 40  # characters in the part of a target's name, which is also a folder name
_FILES = ("CMakeLists.txt", "*.cmake")


def refusal(name: str, value: str) -> str | None:
    """Why an option with this value is refused; None if it is accepted."""
    rules = knowledge.load("cmake.toml")
    for text, rule in ((name, rules["names"]), (value, rules["values"])):
        if not re.fullmatch(rule["pattern"], text, re.ASCII):
            return str(rule["why"])
    return next((str(row["why"]) for row in rules["refused"] if _is(row, name, value)), None)


def growth(options: Mapping[str, str]) -> int:
    """The factor by which these options make a wheel larger."""
    rows = knowledge.load("cmake.toml")["larger"]
    factors = [r["factor"] for r in rows for n, v in options.items() if _is(r, n, v)]
    return int(max(factors, default=1))


def _is(row: Mapping[str, Any], name: str, value: str) -> bool:
    pattern = row.get("value", ".*")
    return bool(re.fullmatch(row["name"], name) and re.fullmatch(pattern, value.upper()))


def merged(table: Mapping[str, str], words: Iterable[str]) -> dict[str, str]:
    """The options of a table of targets.toml, overridden by those of the command line.

    Raises Problem for an option that is refused.
    """
    own = dict(word.split("=", 1) for word in words)
    for name, value in own.items():
        if why := refusal(name, value):
            raise UsageProblem(
                f"--cmake {name}={value} is refused.",
                id="cmake-option-refused",
                evidence=why,
                remedy="leave it out",
            )
    return dict(sorted({**table, **own}.items()))


def label(options: Mapping[str, str]) -> str:
    """The part of a target's name that stands for these options."""
    text = "cmake-" + "-".join(f"{name}-{value}" for name, value in options.items())
    return text if len(text) <= _LONGEST else f"cmake-{records.fingerprint(dict(options))[:8]}"


def unknown(options: Iterable[str], source: Path) -> list[str]:
    """The options that no CMake file of a source declares or uses: CMake would ignore them."""
    left = set(options)
    for path in (path for pattern in _FILES for path in sorted(source.rglob(pattern))):
        if not left:
            break
        text = path.read_text(encoding="utf-8", errors="replace")
        declared = re.findall(r"\b(?:option|set)\s*\(\s*([A-Z][A-Z0-9_]*)", text)
        used = re.findall(r"\bif\s*\(\s*(?:NOT\s+)?([A-Z][A-Z0-9_]*)", text)
        left -= {*declared, *used}
    return sorted(left)
