"""What a compiler cache says of one build: hits, misses, and how a shared store did; pure.

Counts are of compilations. ``hits`` and ``misses`` are always there. Where a store beyond this
machine was asked, so are ``remote_hits`` (of the hits), ``remote_errors`` and ``remote_timeouts``;
where build servers were, ``distributed`` and ``dist_errors`` (compiled here in the end).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any


def ccache(statslog: str) -> dict[str, int]:
    """Counts from ccache's log of one build (``CCACHE_STATSLOG``)."""
    lines = Counter(statslog.splitlines())
    counts = {
        "hits": lines["direct_cache_hit"] + lines["preprocessed_cache_hit"],
        "misses": lines["cache_miss"],
    }
    if any(line.startswith("remote_storage_") for line in lines):
        for name in ("hit", "error", "timeout"):
            key = {"hit": "hits", "error": "errors", "timeout": "timeouts"}[name]
            counts[f"remote_{key}"] = lines[f"remote_storage_{name}"]
    return counts


def sccache(stats: str) -> dict[str, int]:
    """Counts from ``sccache --show-stats --stats-format=json``.

    nvcc's own parts (cicc, ptxas, cudafe++), which it counts one by one, are left out.
    """
    answer: dict[str, Any] = json.loads(stats)
    found = answer["stats"]

    def of_files(name: str) -> int:
        kinds = found[name]["counts"]
        return sum(number for kind, number in kinds.items() if kind in ("C/C++", "CUDA"))

    counts = {"hits": of_files("cache_hits"), "misses": of_files("cache_misses")}
    if not answer["cache_location"].startswith("Local disk"):
        counts["remote_hits"] = counts["hits"]
        counts["remote_errors"] = found["cache_read_errors"] + found["cache_write_errors"]
        counts["remote_timeouts"] = found["cache_timeouts"]
    if found["dist_compiles"] or found["dist_errors"]:
        counts["distributed"] = sum(found["dist_compiles"].values())
        counts["dist_errors"] = found["dist_errors"]
    return counts


def no_servers(status: str) -> str:
    """Why build servers that are configured cannot be used; "" where they can, or none are.

    ``status`` is what ``sccache --dist-status`` prints; without a scheduler it compiles here.
    """
    if '"NotConnected"' in status:
        return f"no build server is used, everything is compiled here: {status.strip()}"
    if '"num_servers":0' in status:
        return "no build server is used: the scheduler has none"
    return ""


def said(counts: Mapping[str, int]) -> str:
    """The counts for the line that ends a build; "" where there is no cache."""
    if not counts:
        return ""
    text = f", {counts['hits']} of {counts['hits'] + counts['misses']} from the cache"
    if "remote_hits" in counts:
        text += f", {counts['remote_hits']} of them from the shared one"
    if "distributed" in counts:
        text += f", {counts['distributed']} compiled on build servers"
    return text


def trouble(counts: Mapping[str, int]) -> str:
    """What of a shared store or of build servers did not do as it should; "" where all is well.

    Both caches go on without a word, only slower.
    """
    failed, late = counts.get("remote_errors", 0), counts.get("remote_timeouts", 0)
    parts = []
    if failed or late:
        parts.append(f"the shared compiler cache failed {failed} times and was late {late} times")
    if counts.get("dist_errors"):
        parts.append(f"build servers refused or failed {counts['dist_errors']} times")
    return "; ".join(parts)
