"""Reads the statistics of a compiler cache for one build. Pure functions.

The counts are numbers of compilations; ``hits`` and ``misses`` are always present. With a shared
store there are also ``remote_hits`` (part of hits), ``remote_errors`` and ``remote_timeouts``; with
build servers, ``distributed`` and ``dist_errors`` (compiled on this machine in the end).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any


def ccache(statslog: str) -> dict[str, int]:
    """The counts from ccache's log of one build (``CCACHE_STATSLOG``)."""
    lines = Counter(statslog.splitlines())
    counts = {
        "hits": lines["direct_cache_hit"] + lines["preprocessed_cache_hit"],
        "misses": lines["cache_miss"],
    }
    if any(line.startswith("remote_storage_") for line in lines):
        for name in ("hit", "error", "timeout"):
            counts[f"remote_{name}s"] = lines[f"remote_storage_{name}"]
    return counts


def sccache(stats: str) -> dict[str, int]:
    """The counts from ``sccache --show-stats --stats-format=json``.

    sccache counts the steps of nvcc (cicc, ptxas, cudafe++) separately; they are left out.
    """
    answer: dict[str, Any] = json.loads(stats)
    found = answer["stats"]

    def compilations(name: str) -> int:
        kinds = found[name]["counts"]
        return sum(number for kind, number in kinds.items() if kind in ("C/C++", "CUDA"))

    counts = {"hits": compilations("cache_hits"), "misses": compilations("cache_misses")}
    if not answer["cache_location"].startswith("Local disk"):
        counts["remote_hits"] = counts["hits"]
        counts["remote_errors"] = found["cache_read_errors"] + found["cache_write_errors"]
        counts["remote_timeouts"] = found["cache_timeouts"]
    if found["dist_compiles"] or found["dist_errors"]:
        counts["distributed"] = sum(found["dist_compiles"].values())
        counts["dist_errors"] = found["dist_errors"]
    return counts


def no_servers(status: str) -> str:
    """Why the configured build servers are not used; "" if they are, or none is configured.

    ``status`` is the output of ``sccache --dist-status``. Without a scheduler, sccache compiles on
    this machine.
    """
    if '"NotConnected"' in status:
        return f"no build server is used, everything is compiled here: {status.strip()}"
    if '"num_servers":0' in status:
        return "no build server is used: the scheduler has none"
    return ""


def summary(counts: Mapping[str, int]) -> str:
    """The counts as the end of the line that ends a build; "" without a cache."""
    if not counts:
        return ""
    text = f", {counts['hits']} of {counts['hits'] + counts['misses']} from the cache"
    if "remote_hits" in counts:
        text += f", {counts['remote_hits']} of them from the shared one"
    if "distributed" in counts:
        text += f", {counts['distributed']} compiled on build servers"
    return text


def failures(counts: Mapping[str, int]) -> str:
    """The errors of the shared store and of the build servers, as text; "" if there were none.

    Both caches continue after an error without a message, only slower.
    """
    failed, late = counts.get("remote_errors", 0), counts.get("remote_timeouts", 0)
    parts = []
    if failed or late:
        parts.append(f"the shared compiler cache failed {failed} times and was late {late} times")
    if counts.get("dist_errors"):
        parts.append(f"build servers refused or failed {counts['dist_errors']} times")
    return "; ".join(parts)
