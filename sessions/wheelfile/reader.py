"""All facts of a wheel: the archive and its papers here, each library in a process with limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sessions.core import records
from sessions.core.staging import DLLS, DLLS_HOOK, HOOK, LOADER, unpatched
from sessions.wheelfile import archive, bill, limited, papers
from sessions.wheelfile.model import Library, WheelFacts

# Of the reader of one library: bytes, and bytes for each of the file; seconds, and bytes a second.
MEMORY, MEMORY_FACTOR = 768 << 20, 16  # rtx50's ggml-cuda, 24 MB, takes 240 MB
TIME, SPEED = 60, 1 << 20
SECONDS = 600  # for all libraries of a wheel


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
    contents = archive.read(wheel, scratch)
    texts = contents.texts
    paper = papers.read(wheel.name, texts)
    loader = texts.get(f"{papers.PACKAGE}/{LOADER}")
    preload = texts.get(f"{papers.PACKAGE}/{DLLS}")
    init = _text(texts.get(f"{papers.PACKAGE}/__init__.py", b""))
    return WheelFacts(
        file=wheel.name,
        sha256=records.file_sha256(wheel),
        size=wheel.stat().st_size,
        members=contents.members,
        times=contents.times,
        archive_problems=contents.problems,
        record_problems=tuple(papers.record_problems(texts, contents.members, contents.digests)),
        name=paper.name,
        version=paper.version,
        tags=paper.tags,
        metadata_name=paper.metadata_name,
        metadata_version=paper.metadata_version,
        requires_python=paper.requires_python,
        requires=paper.requires,
        wheel_tags=paper.wheel_tags,
        purelib=paper.purelib,
        generator=paper.generator,
        papers_problems=paper.problems,
        bindings=papers.bindings(texts),
        unparsed=papers.unparsed(contents.members, texts),
        loader=records.text_sha256(loader) if loader is not None else None,
        loader_called=init.startswith(HOOK),
        preload=records.text_sha256(unpatched(_text(preload)).encode()) if preload else None,
        preload_called=init.removeprefix(HOOK).startswith(DLLS_HOOK),
        bills=tuple(bill.read(texts)),
        libraries=_libraries(contents, scratch, env, jobs, progress),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def _libraries(
    contents: archive.Contents,
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


def _task(contents: archive.Contents, member: str, scratch: Path) -> limited.Task[Library]:
    copy = contents.libraries[member]
    size = contents.members[member]
    limits = limited.Limits(MEMORY + MEMORY_FACTOR * size, TIME + size / SPEED)
    words = (str(copy), member, str(scratch / f"{copy.stem}.d"))
    return limited.Task("sessions.wheelfile.library:read", Library, words, limits)


def unread(member: str, sha256: str, size: int, error: str) -> Library:
    """A library of which nothing is known but that."""
    return Library(
        member=member,
        sha256=sha256,
        size=size,
        format="",
        machine="",
        imports=(),
        soname="",
        search_paths=(),
        inherited_paths=(),
        exports=(),
        symbol_versions={},
        executable_stack=False,
        build_paths=(),
        instructions=0,
        cpu_features={},
        first_use={},
        guarded=(),
        device=None,
        faults=(),
        error=error,
    )
