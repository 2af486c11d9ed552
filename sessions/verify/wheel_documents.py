"""Reads everything in a wheel but its libraries. It runs in a process with limits."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sessions.build.import_hooks import DLLS, HOOKS, OF_ALL, OF_CUDA, called, loader_text, unpatched
from sessions.shared import disk, records
from sessions.verify import metadata, sbom_reader, zip_archive
from sessions.verify.wheel_facts import Bill, WheelFacts

TRACEBACK = 4000  # characters that are kept
INIT = f"{metadata.PACKAGE}/__init__.py"
T = TypeVar("T")


@dataclass(frozen=True)
class Documents:
    """The facts of a wheel without its libraries; the path of each library's copy."""

    facts: WheelFacts
    copies: dict[str, str]
    digests: dict[str, str]  # sha256 of each library


def read(file: str, scratch: str) -> Documents:
    """Read the wheel ``file``, copying its libraries into the folder ``scratch``.

    What a reader raises becomes a problem in the facts, with its traceback.
    Raises OSError for problems of this machine, such as a full disk.
    """
    wheel = Path(file)
    tracebacks: dict[str, str] = {}

    def reading(what: str, function: Callable[[], T], failed: Callable[[str], T]) -> T:
        try:
            return function()
        except Exception as error:
            if isinstance(error, OSError) and disk.problem_of(error):
                raise
            tracebacks[what] = traceback.format_exc()[-TRACEBACK:]
            return failed(f"it could not be read: {type(error).__name__}: {str(error)[:200]}")

    contents = reading(
        "archive",
        lambda: zip_archive.read(wheel, Path(scratch)),
        lambda why: zip_archive.Contents({}, {}, {}, {}, (), (why,)),
    )
    texts, members = contents.texts, contents.members
    documents = reading(
        "METADATA and WHEEL",
        lambda: metadata.read(wheel.name, texts, members),
        lambda why: metadata.Metadata(
            "", "", (), "", "", "", (), (), True, "", (f"METADATA: {why}",)
        ),
    )
    record = reading(
        "RECORD",
        lambda: tuple(metadata.record_problems(texts, members, contents.digests)),
        lambda why: (f"RECORD: {why}",),
    )
    bindings, unparsed = reading(
        "Python",
        lambda: (metadata.bindings(texts), metadata.unparsed(members, texts)),
        lambda why: ((), (f"{metadata.PACKAGE}/: {why}",)),
    )
    bills = reading(
        "SBOM",
        lambda: tuple(sbom_reader.read(texts, members)),
        lambda why: (Bill("sboms/", "", "", "", "", (), (why,)),),
    )
    added = {name: texts.get(f"{metadata.PACKAGE}/{name}") for name in (*OF_ALL, *OF_CUDA)}
    loader = {name: _text(text) for name, text in added.items() if text is not None}
    preload = texts.get(f"{metadata.PACKAGE}/{DLLS}")
    expected = [name for name in HOOKS if name in loader]
    calls = called(_text(texts.get(INIT, b"")))
    headers = {name: value for name, value in vars(documents).items() if name != "problems"}
    facts = WheelFacts(
        **headers,
        file=wheel.name,
        sha256=records.file_sha256(wheel),
        size=wheel.stat().st_size,
        members=members,
        times=contents.times,
        archive_problems=contents.problems,
        record_problems=record,
        metadata_problems=documents.problems,
        package_files=package_files(contents),
        bindings=bindings,
        unparsed=unparsed,
        loader=records.text_sha256(loader_text(loader).encode()) if loader else None,
        loader_called=bool(loader) and [name for name in calls if name != DLLS] == expected,
        preload=records.text_sha256(unpatched(_text(preload)).encode()) if preload else None,
        preload_called=DLLS in calls,
        bills=bills,
        libraries=(),
        tracebacks=tracebacks,
    )
    copies = {member: str(copy) for member, copy in contents.libraries.items()}
    return Documents(facts, copies, {member: contents.digests[member] for member in copies})


def package_files(contents: zip_archive.Contents) -> dict[str, str]:
    """The SHA-256 of each file of the package that is not a library, with Unix line ends.

    That of ``__init__.py`` is without our lines at its beginning; that of a damaged file is "".
    """
    found: dict[str, str] = {}
    for member in contents.members:
        if member.startswith(f"{metadata.PACKAGE}/") and member not in contents.libraries:
            text = contents.texts.get(member)
            if text is None:
                found[member] = contents.digests.get(member, "")
            else:
                found[member] = records.text_sha256(_plain(text) if member == INIT else text)
    return found


def _plain(init: bytes) -> bytes:
    """The text of ``__init__.py`` without our lines."""
    text = init.replace(b"\r\n", b"\n")
    for hook in HOOKS.values():
        text = text.removeprefix(hook.encode())
    return text


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n")
