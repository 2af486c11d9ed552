"""The data in ``sessions/data/knowledge/wheel_policy.toml`` and ``upstream.toml``, typed."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from sessions.shared import knowledge


@dataclass(frozen=True)
class PlatformLibraries:
    """The libraries that a wheel may need and does not contain."""

    system: frozenset[str]
    prefixes: tuple[str, ...]
    driver: frozenset[str]
    shared: frozenset[str]  # may be in the wheel; one that is already loaded works too
    cuda: tuple[tuple[str, str], ...]  # (pattern with the CUDA major as group 1, package)

    def runtime(self, name: str) -> tuple[str, str] | None:
        """(package, CUDA major) for a library of NVIDIA's runtime, else None."""
        for pattern, package in self.cuda:
            if match := re.fullmatch(pattern, name):
                return package, match[1]
        return None


@dataclass(frozen=True)
class CpuRules:
    """The CPU level of every wheel, and ggml's CPU modules: name -> features it may use."""

    level: str
    features: frozenset[str]
    dispatch_export: str  # the function that every module exports
    prefix: str  # of the base name of a module, before the module's name
    baseline: str  # the module that every CPU can run
    variants: dict[str, frozenset[str]]

    def variant(self, stem: str) -> str | None:
        """The name of a module for the base name of its file; None for any other library."""
        return stem.removeprefix(self.prefix) if stem.startswith(self.prefix) else None


@dataclass(frozen=True)
class Upstream:
    """The known facts of a locked upstream release.

    ``files`` is the SHA-256 of each file of its package, with Unix line ends; ``parts`` the
    version of each third-party component that is compiled in; ``requires`` the requirements in
    its METADATA, as ``packaging`` writes them.
    """

    version: str
    sdist_sha256: str
    files: dict[str, str]
    parts: dict[str, str]
    requires: frozenset[str]


def upstream(version: str) -> Upstream | None:
    """The locked release with this version ("0.3.16", or with a local part), else None."""
    try:
        parsed = Version(version.split("+")[0])
    except ValueError:  # InvalidVersion, and a number with more digits than Python converts
        return None
    for name, row in knowledge.load("upstream.toml")["release"].items():
        if Version(name) == parsed and name in knowledge.sdists():
            requires = frozenset(str(Requirement(text)) for text in row["requires"])
            sdist = knowledge.sdists()[name].sha256
            return Upstream(name, sdist, row["files"], row["parts"], requires)
    return None


def platform_libraries(platform: str) -> PlatformLibraries:
    """The rules for "linux" or "windows" (names in lower case)."""
    data = knowledge.load("wheel_policy.toml")
    table: dict[str, Any] = data[platform]
    key = "dll" if platform == "windows" else "library"
    return PlatformLibraries(
        system=frozenset(table["system"]),
        prefixes=tuple(table.get("prefixes", ())),
        driver=frozenset(table["driver"]),
        shared=frozenset(table.get("shared", ())),
        cuda=tuple((row[key], row["package"]) for row in data["cuda"]),
    )


@functools.cache
def cpu() -> CpuRules:
    """The rules for host code."""
    data = knowledge.load("wheel_policy.toml")
    dispatch, level = data["dispatch"], frozenset(data["cpu"]["features"])
    options = {name: set(row) for name, row in dispatch["features"].items() if name != "source"}
    return CpuRules(
        level=data["cpu"]["level"],
        features=level,
        dispatch_export=dispatch["export"],
        prefix=dispatch["prefix"],
        baseline=dispatch["baseline"],
        variants={
            name: level.union(*(options[option] for option in row))
            for name, row in dispatch["variants"].items()
            if name != "source"
        },
    )


def guarded(data: bytes, features: Mapping[str, int], total: int) -> tuple[str, ...]:
    """The CPU features that a runtime in this library uses only if CPUID reports them.

    ``features`` counts the library's instructions by the CPU feature they need, of ``total``.
    """
    checked = {
        feature
        for row in knowledge.load("wheel_policy.toml")["guarded"]
        if row["sign"].encode() in data
        for feature in row["features"]
        if 0 < features.get(feature, 0) <= row.get("share", 1) * total
    }
    return tuple(sorted(checked)) if "CPUID" in features else ()


@functools.cache
def libraries(platform: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Base names of a wheel's own libraries, and patterns for runtimes that it may contain."""
    table: dict[str, Any] = knowledge.load("wheel_policy.toml")["libraries"]
    return frozenset(table["own"]), tuple(table[platform])


def manylinux(platform: str) -> dict[str, str] | None:
    """The newest symbol versions (GLIBC …) that a manylinux tag allows; None for other tags.

    A symbol version without a number has the value "0".
    """
    table: dict[str, Any] = knowledge.load("wheel_policy.toml")["manylinux"]
    match = re.fullmatch(r"(manylinux\d+)_x86_64|manylinux_2_(\d{1,3})_x86_64", platform)
    if not match or (match[1] and match[1] not in table["aliases"]):
        return None
    minor = table["aliases"][match[1]] if match[1] else int(match[2])
    rows = sorted(int(key) for key in table if key.isdecimal() and int(key) <= minor)
    if not rows:
        return None
    plain = {name: "0" for name, since in table["plain"].items() if since <= minor}
    return {"GLIBC": f"2.{minor}", **table[str(rows[-1])], **plain}
