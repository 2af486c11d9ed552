"""All facts of a wheel: its documents in a process with limits, each library in another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sessions.shared import records
from sessions.verify import limited, zip_archive
from sessions.verify.limited import Ended, Limits, Task
from sessions.verify.members import Documents
from sessions.verify.model import Library, WheelFacts

# Of the reader of one library: bytes, and bytes for each of the file; seconds, and bytes a second.
MEMORY, MEMORY_FACTOR = 768 << 20, 16  # rtx50's ggml-cuda, 24 MB, takes 240 MB
TIME, SPEED = 60, 1 << 20
SECONDS = 600  # for all libraries of a wheel
# Of the reader of all else. The rtx50 wheel takes 2 s; the most that is unpacked is 100 times that.
DOCUMENTS = Limits(memory=1 << 30, seconds=300)


def read(
    wheel: Path,
    scratch: Path,
    env: Mapping[str, str],
    jobs: int,
    progress: Callable[[int, int, str], None],
) -> WheelFacts:
    """Read a wheel. What cannot be read becomes a fact too. ``scratch`` takes what is unpacked.

    ``progress`` is told how many of how many bytes of libraries are read, and the last one's name.
    """
    args = (str(wheel.absolute()), str(scratch))
    task = Task("sessions.verify.members:read", Documents, args, DOCUMENTS)
    found = limited.call(task, scratch=scratch, env=env)
    if isinstance(found, Ended):
        return _plain(_unread(wheel, found.why))
    facts = found.facts
    contents = zip_archive.Contents(
        facts.members,
        found.digests,
        {},
        {member: Path(copy) for member, copy in found.copies.items()},
        facts.times,
        facts.archive_problems,
    )
    libraries = _libraries(contents, scratch, env, jobs, progress)
    return _plain(dataclasses.replace(facts, libraries=libraries))


def _unread(wheel: Path, why: str) -> WheelFacts:
    """The facts of a wheel of which nothing could be read."""
    return WheelFacts(
        file=wheel.name, sha256=records.file_sha256(wheel), size=wheel.stat().st_size, members={},
        times=(), archive_problems=(f"it could not be read: {why}",), record_problems=(), name="",
        version="", tags=(), metadata_name="", metadata_version="", requires_python="",
        requires=(), wheel_tags=(), purelib=True, generator="", metadata_problems=(),
        package_files={}, bindings=(), unparsed=(), loader=None, loader_called=False,
        preload=None, preload_called=False, bills=(), libraries=(), tracebacks={},
    )  # fmt: skip


def _plain(facts: WheelFacts) -> WheelFacts:
    """The facts without half characters (lone surrogates), which no record can hold."""

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
    contents: zip_archive.Contents,
    scratch: Path,
    env: Mapping[str, str],
    jobs: int,
    progress: Callable[[int, int, str], None],
) -> tuple[Library, ...]:
    largest_first = sorted(contents.libraries, key=lambda name: -contents.members[name])
    tasks = [_task(contents, member, scratch) for member in largest_first]
    found: dict[str, Library] = {}
    total = sum(contents.members[member] for member in largest_first)
    results = limited.call_all(tasks, scratch=scratch, env=env, jobs=jobs, seconds=SECONDS)
    for index, result in results:
        member = largest_first[index]
        if isinstance(result, limited.Ended):
            why = f"its reader gave no answer: {result.why}"
            result = unread(member, contents.digests.get(member, ""), contents.members[member], why)
        found[member] = result
        progress(sum(contents.members[member] for member in found), total, member)
    return tuple(found[member] for member in contents.libraries)


def _task(contents: zip_archive.Contents, member: str, scratch: Path) -> limited.Task[Library]:
    copy = contents.libraries[member]
    size = contents.members[member]
    limits = limited.Limits(MEMORY + MEMORY_FACTOR * size, TIME + size / SPEED)
    words = (str(copy), member, str(scratch / f"{copy.stem}.d"))
    return limited.Task("sessions.verify.library:read", Library, words, limits)


def unread(member: str, sha256: str, size: int, error: str) -> Library:
    """A library of which nothing is known but that."""
    return Library(
        member=member, sha256=sha256, size=size, format="", machine="", imports=(), soname="",
        search_paths=(), inherited_paths=(), exports=(), symbol_versions={},
        executable_stack=False, build_paths=(), instructions=0, cpu_features={}, first_use={},
        guarded=(), device=None, faults=(), error=error,
    )  # fmt: skip
