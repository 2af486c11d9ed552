"""The requirements of a wheel: GPU, driver, Python, system, packages. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sessions.release.evidence import Evidence
from sessions.shared import knowledge
from sessions.verify import wheel_rules


def view(found: Evidence) -> dict[str, Any]:
    """Every requirement by its name in the templates. Sizes in MB (10^6 bytes)."""
    cuda = found.spec.cuda
    named = {_name(need) for need in found.wheel.requires}
    runtime = [need for need in found.facts.requires if _name(need) in named]
    return {
        "cards": cards(found),
        "ptx": pieces(found, "ptx"),
        "driver": knowledge.toolkit(cuda).driver if cuda else None,
        "cpu": wheel_rules.cpu().level,
        "python": python(found.facts.tags, found.facts.requires_python),
        "platform": platform(found.facts.tags),
        "glibc": glibc(found.facts.tags),
        "runtime": runtime,
        "runtime_mb": knowledge.runtime_mb(),
        "disk_mb": knowledge.load("other_wheel_sizes.toml")["runtime"]["disk_mb"],
    }


def python(tags: Iterable[str], requires: str) -> dict[str, str]:
    """The Pythons of a wheel by its tags: "only" certain releases, or any "from" a version on."""
    names = sorted({tag.split("-")[0] for tag in tags})
    exact = [re.fullmatch(r"cp3(\d+)", name) for name in names]
    if all(exact):
        return {"only": ", ".join(f"3.{match[1]}" for match in exact if match), "from": ""}
    return {"only": "", "from": requires or ">=3"}


def platform(tags: Iterable[str]) -> str:
    """The system of a wheel, from its tags."""
    windows = any(tag.endswith("win_amd64") for tag in tags)
    return "Windows x64" if windows else "Linux x86-64"


def glibc(tags: Iterable[str]) -> str:
    """The oldest glibc that a manylinux wheel runs with: "2.35"; "" for other wheels."""
    found = [re.search(r"manylinux_2_(\d+)_", tag) for tag in tags]
    numbers = [int(match[1]) for match in found if match]
    return f"2.{min(numbers)}" if numbers else ""


def cards(found: Evidence) -> list[tuple[str, str]]:
    """Compute capability and name of each GPU architecture that has machine code."""
    names = knowledge.capability_names()
    numbers = sorted({int(re.sub(r"\D", "", arch)) for arch in pieces(found, "sass")})
    return [(f"{n // 10}.{n % 10}", names.get(n, "")) for n in numbers]


def pieces(found: Evidence, kind: str) -> dict[str, int]:
    """The sum over all libraries of a table in ``DeviceCode``: "sass", "ptx", "kernels", …."""
    counts: Counter[str] = Counter()
    for library in found.facts.libraries:
        counts.update(getattr(library.device, kind) if library.device else {})
    return dict(sorted(counts.items()))


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0]
