"""Reads all facts of a wheel: its metadata in a process with limits, each library in another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sessions.shared import records
from sessions.verify import limited_process, wheel_facts
from sessions.verify.limited_process import Ended, Limits, Task
from sessions.verify.wheel_documents import Documents
from sessions.verify.wheel_facts import Library, WheelFacts

# Limits for the reader of one library: bytes, and bytes per byte of the file; seconds, and bytes
# per second.
MEMORY, MEMORY_FACTOR = 768 << 20, 16  # rtx50's ggml-cuda, 24 MB, takes 240 MB
TIME, SPEED = 60, 1 << 20
SECONDS = 600  # for all libraries of a wheel
# Limits for the reader of everything else. The rtx50 wheel takes 2 s; at most 100 times as much
# is unpacked.
DOCUMENTS = Limits(memory=1 << 30, seconds=300)


def read(
    wheel: Path,
    scratch: Path,
    env: Mapping[str, str],
    jobs: int,
    progress: Callable[[int, int, str], None],
) -> WheelFacts:
    """Read a wheel. What cannot be read becomes a fact too. Files are unpacked into ``scratch``.

    ``progress`` gets the bytes of libraries that were read, their total, and the last one's name.
    """
    args = (str(wheel.absolute()), str(scratch))
    task = Task("sessions.verify.wheel_documents:read", Documents, args, DOCUMENTS)
    found = limited_process.call(task, scratch=scratch, env=env)
    if isinstance(found, Ended):
        return _plain(_unread(wheel, found.why))
    libraries = _libraries(found, scratch, env, jobs, progress)
    return _plain(dataclasses.replace(found.facts, libraries=libraries))


def _unread(wheel: Path, why: str) -> WheelFacts:
    """The facts of a wheel that cannot be read."""
    return WheelFacts(
        file=wheel.name, sha256=records.file_sha256(wheel), size=wheel.stat().st_size, members={},
        times=(), archive_problems=(f"it could not be read: {why}",), record_problems=(), name="",
        version="", tags=(), metadata_name="", metadata_version="", requires_python="",
        requires=(), wheel_tags=(), purelib=True, generator="", metadata_problems=(),
        package_files={}, bindings=(), unparsed=(), loader=None, loader_called=False,
        preload=None, preload_called=False, bills=(), libraries=(), tracebacks={},
    )  # fmt: skip


def _plain(facts: WheelFacts) -> WheelFacts:
    """The facts without lone surrogates, which no record can contain."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {plain(key): plain(item) for key, item in value.items()}
        return value

    whole: WheelFacts = records.from_json(WheelFacts, plain(records.to_json(facts)))
    return whole


def _libraries(
    documents: Documents,
    scratch: Path,
    env: Mapping[str, str],
    jobs: int,
    progress: Callable[[int, int, str], None],
) -> tuple[Library, ...]:
    sizes = {member: documents.facts.members[member] for member in documents.copies}
    largest_first = sorted(sizes, key=lambda name: -sizes[name])
    tasks = []
    for member in largest_first:
        copy, size = Path(documents.copies[member]), sizes[member]
        limits = Limits(MEMORY + MEMORY_FACTOR * size, TIME + size / SPEED)
        args = (str(copy), member, str(scratch / f"{copy.stem}.d"))
        tasks.append(Task("sessions.verify.library:read", Library, args, limits))
    found: dict[str, Library] = {}
    results = limited_process.call_all(tasks, scratch=scratch, env=env, jobs=jobs, seconds=SECONDS)
    for index, result in results:
        member = largest_first[index]
        if isinstance(result, Ended):
            why = f"its reader gave no answer: {result.why}"
            result = wheel_facts.unread(member, documents.digests[member], sizes[member], why)
        found[member] = result
        progress(sum(sizes[member] for member in found), sum(sizes.values()), member)
    return tuple(found[member] for member in sizes)
