"""Finds the first error in the log of a build, and what it means."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sessions.shared.errors import Problem

_QUOTED = re.compile(r"^\s*\d* \|")  # a source line that gcc shows under a message


_ERRORS = (
    re.compile(r"(?:^|[\s:])(?:fatal )?error(?: [A-Z]*\d+)?\s*:", re.IGNORECASE),
    re.compile(r"^CMake Error"),
    re.compile(r"undefined reference to|cannot find -l|collect2:|ld returned"),
    re.compile(r"^(?:ptxas|nvcc|nvlink) fatal|died due to signal"),
    re.compile(r"^ERROR (?!Backend)|^Traceback|No space left on device|Killed"),
)


def first_error(lines: Iterable[str], *, context: int = 8) -> str:
    """The first error in a build log and the lines after it; "" if there is none.

    Later errors are mostly consequences. If CMake quotes the output of a program that it tried, the
    first error in that output is the cause. A line with an error is cut at 4000 characters, others
    at 400.
    """
    kept: list[str] = []
    quoting = False  # inside a message of CMake, which is indented
    for line in lines:
        if "No space left on device" in line:
            return line.rstrip()[:400]  # the cause of all other errors
        error = any(pattern.search(line) for pattern in _ERRORS) and not _QUOTED.match(line)
        if quoting and error:
            kept, quoting = kept[:1], False
        elif not kept and error:
            quoting = line.startswith("CMake Error")
        elif line.strip() and not line.startswith(" "):
            quoting = False
        if (kept or error) and len(kept) <= context:
            kept.append(line.rstrip()[: 4000 if error else 400])
    return "\n".join(kept)


def failure(error: str, log: str, jobs: int) -> Problem:
    """The Problem for a failed build: disk full, out of memory, or the error itself."""
    if "No space left on device" in error:
        return Problem(
            "The disk is full: the build stopped.",
            id="build-disk-full",
            evidence=error,
            remedy="free some space, then run the same command again: it continues where it "
            "stopped",
        )
    if re.search(
        r"\bKilled\b|Kill signal|out of memory|cannot allocate memory", error, re.IGNORECASE
    ):
        return Problem(
            f"The build ran out of memory; compile steps at once: {jobs}.",
            id="build-out-of-memory",
            evidence=error,
            remedy=f"run the same command with --jobs {max(1, jobs // 2)}: it continues where "
            "it stopped",
        )
    return Problem(
        "The build failed; the first error is below.",
        id="build-failed",
        evidence=error or "no line of the log looks like an error",
        remedy=f"correct that error, then run the same command again; the whole log is {log}",
    )
