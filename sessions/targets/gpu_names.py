"""The target for a GPU, by compute capability or by name; suggestions for an unknown target."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec

_NEAR = 0.7  # difflib's ratio; "gpu" must not suggest cpu


def target_for(targets: Mapping[str, BuildSpec], capability: str) -> str | None:
    """The target for a GPU, among those with plain machine code and no warning; else None."""
    plain = {
        name: target.archs
        for name, target in targets.items()
        if target.cuda
        and not target.warning
        and all(knowledge.parse_arch(arch)[1:] == ("", "real") for arch in target.archs)
    }
    own = [name for name, archs in plain.items() if machine_code(capability) in archs]
    able = [name for name, archs in plain.items() if knowledge.has_code(archs, capability)]
    return next(iter([*own, *able]), None)


def machine_code(capability: str) -> str:
    """The architecture of a compute capability: "12.0" -> "120-real"."""
    return f"{capability.replace('.', '')}-real"


def suggest(name: str, targets: Mapping[str, BuildSpec]) -> tuple[list[str], str]:
    """A suggestion for an unknown target: options and a sentence, both empty if none is similar.

    The name may be that of a GPU: "RTX 4090", "4090" or "rtx40" suggests the target ada.
    """
    row = _gpus(name)
    if row and row.get("arm"):
        return [], f"{name} has an Arm processor, and the wheels are for x86-64"
    if row:
        capability = row["capability"]
        target = target_for(targets, capability)
        words = ["--target", target] if target else ["--arch", machine_code(capability)]
        choice = target or f"{words[0]} {words[1]}"
        return words, f"{name} has compute capability {capability}: did you mean {choice}?"
    similar = difflib.get_close_matches(name.lower(), list(targets), 1, _NEAR)
    return (["--target", similar[0]], f"did you mean {similar[0]}?") if similar else ([], "")


def _gpus(name: str) -> Mapping[str, Any] | None:
    """The row of gpus.toml for the name of a GPU, with or without "RTX", or of a family."""
    word = _plain(name)
    for row in knowledge.load("gpus.toml")["family"]:
        if {word, f"rtx{word}"} & {_plain(each) for each in (*row["names"], row["family"])}:
            return dict(row)
    return None


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|\(.*|[^a-z0-9]", "", name.lower())
