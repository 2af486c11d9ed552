"""Reads the CPU and memory limits of this process from Linux cgroups, v1 and v2.

With ``docker run --cpus 2 --memory 8g`` all processors and all memory of the machine are visible,
but a process that uses more memory is killed. Sources: cgroups(7); the kernel's
admin-guide/cgroup-v2.rst (cpu.max, memory.max, memory.current), cgroup-v1/memory.rst and
scheduler/sched-bwc.rst. Standard library only, because it also runs from a bundle.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MIB = 1024 * 1024
_V2 = ("cpu.max", "memory.max", "memory.current", "memory.stat")
_CPU = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")


@dataclass(frozen=True)
class Limits:
    """The narrowest limits of all cgroups of a process; None if there is no limit."""

    cpus: float | None  # time of so many processors
    memory_mib: int | None
    free_mib: int | None  # the part that is not in use; a cache that the kernel can drop is free


NONE = Limits(None, None, None)


def read() -> dict[str, str]:
    """The text of every file that limits this process, by path."""
    texts = [_text(f"/proc/self/{name}") for name in ("cgroup", "mountinfo")]
    found = {path: _text(path) for path in places(texts[0] or "", texts[1] or "")}
    return {path: _short(path, text) for path, text in found.items() if text is not None}


def places(cgroup: str, mounts: str) -> list[str]:
    """Files that may limit a process, from its ``/proc/PID/cgroup`` and ``mountinfo``.

    The files of the parent cgroups are included, because their limits apply too. A container sees
    its own cgroup as the root of a mount, or by its path on the machine.
    """
    own = dict(re.findall(r"^\d+:([^:\n]*):(/[^\n]*)$", cgroup, re.MULTILINE))
    found: dict[str, None] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or not kind[0].startswith("cgroup"):
            continue
        root, mount = PurePosixPath(fields[3]), PurePosixPath(fields[4])
        hierarchies = [""] if kind[0] == "cgroup2" else [n for n in own if n]
        for name in hierarchies:
            if kind[0] == "cgroup" and not set(name.split(",")) <= set(kind[2].split(",")):
                continue
            inside = PurePosixPath(own.get(name, "/"))
            below = inside.relative_to(root) if inside.is_relative_to(root) else PurePosixPath()
            for folder in (mount / below, *(mount / below).parents):
                if folder.is_relative_to(mount):
                    found.update(dict.fromkeys(str(folder / file) for file in _files(name)))
    return list(found)


def _files(hierarchy: str) -> tuple[str, ...]:
    names = hierarchy.split(",")
    if names == [""]:
        return _V2
    return (*(_CPU if "cpu" in names else ()), *(_MEMORY if "memory" in names else ()))


def limits(files: Mapping[str, str]) -> Limits:
    """The narrowest limits in the files of ``read``."""
    cpus, memory, free = [], [], []
    for folder in sorted({str(PurePosixPath(path).parent) for path in files}):
        here = {name: files.get(f"{folder}/{name}", "") for name in (*_V2, *_CPU, *_MEMORY)}
        quota, period = [*here["cpu.max"].split(), "", ""][:2]
        quota, period = quota or here[_CPU[0]].strip(), period or here[_CPU[1]].strip()
        if quota.isdecimal() and period.isdecimal() and int(period):
            cpus.append(int(quota) / int(period))
        limit = (here["memory.max"] or here[_MEMORY[0]]).strip()
        used = (here["memory.current"] or here[_MEMORY[1]]).strip()
        if limit.isdecimal() and int(limit) < 1 << 60:  # in v1, a number near 2**63 is no limit
            memory.append(int(limit) // MIB)
            if used.isdecimal():
                stat = re.findall(r"^(?:total_)?inactive_file (\d+)$", here["memory.stat"], re.M)
                taken = int(used) - max(map(int, stat), default=0)
                free.append(max(0, int(limit) - taken) // MIB)
    least = [min(found, default=None) for found in (memory, free)]
    return Limits(min(cpus, default=None), *least)


def cores(limited: Limits) -> int:
    """The processors that this process may use, at least 1; a part of one counts as one."""
    everywhere = os.cpu_count() or 1
    if sys.platform == "linux":
        everywhere = len(os.sched_getaffinity(0))
    return bounded(everywhere, limited)


def physical(limited: Limits) -> int:
    """The physical cores that this process may use, at least 1.

    If the system does not list them, half of the processors.
    """
    if sys.platform != "linux":
        return max(1, cores(limited) // 2)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    siblings = {cpu: _text(topology.format(cpu)) for cpu in os.sched_getaffinity(0)}
    return bounded(distinct(siblings), limited)


def distinct(siblings: Mapping[int, str | None]) -> int:
    """The number of cores of some processors, from the kernel's lists; None is a separate core."""
    return len({str(cpu) if listed is None else listed.strip() for cpu, listed in siblings.items()})


def bounded(processors: int, limited: Limits) -> int:
    """The number of processors, but not more than the limit, rounded up; at least 1."""
    if limited.cpus is None:
        return max(1, processors)
    return max(1, min(processors, int(-(-limited.cpus // 1))))


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _short(path: str, text: str) -> str:
    """The text of a file; only the needed lines of memory.stat, which is long."""
    if not path.endswith("memory.stat"):
        return text
    kept = [line for line in text.splitlines() if re.match(r"(total_)?inactive_file ", line)]
    return "\n".join(kept)
