"""All facts of a wheel: the archive and its papers here, each library in a process of its own."""

from __future__ import annotations

import concurrent.futures
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from sessions.core import records, run
from sessions.core.staging import DLLS, DLLS_HOOK, HOOK, LOADER, unpatched
from sessions.wheelfile import archive, bill, papers
from sessions.wheelfile.model import Library, WheelFacts

TIMEOUT = 600  # seconds for one library; that of rtx50's ggml-cuda takes 6
ROOT = Path(__file__).resolve().parents[2]
# The module library as a program, in isolated mode: no file of the folder it runs in is a module.
READER = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module('sessions.wheelfile.library', run_name='__main__', alter_sys=True)"
)


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
    found: dict[str, Library] = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {
            pool.submit(_library, contents, member, scratch, env): member
            for member in largest_first
        }
        total = sum(contents.members[member] for member in largest_first)
        for done in concurrent.futures.as_completed(waiting):
            found[waiting[done]] = done.result()
            progress(sum(contents.members[member] for member in found), total, waiting[done])
    return tuple(found[member] for member in contents.libraries)


def _library(
    contents: archive.Contents, member: str, scratch: Path, env: Mapping[str, str]
) -> Library:
    copy = contents.libraries[member]
    words = ["-I", "-c", READER, str(ROOT), str(copy), member, str(scratch / f"{copy.stem}.d")]
    done = run.capture([sys.executable, *words], env=env, timeout=TIMEOUT)
    try:
        found: Library = records.from_json(Library, json.loads(done.stdout.splitlines()[-1]))
        return found
    except (ValueError, IndexError, KeyError, TypeError):
        last = done.output.strip().splitlines()[-1:] or ["it said nothing"]
        why = f"its reader ended with {done.returncode}: {last[0][:200]}"
    digest, size = contents.digests.get(member, ""), contents.members[member]
    return Library(
        member, digest, size, "", "", (), (), (), {}, False, (), 0, {}, {}, None, why
    )  # fmt: skip
