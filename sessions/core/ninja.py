"""Reading a build's output: how far it is, and what went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sessions.core.errors import Problem

_STEP = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
# Time of a CUDA step over that of another. Cold builds of 0.3.16 under other load gave 5.7: rtx50
# took 2408 CPU seconds more than cpu over its 98 CUDA steps, cpu 256 over its 59.
CUDA_WEIGHT = 6.4


@dataclass(frozen=True)
class Step:
    """One line of ninja's: step ``done`` of ``total``, and what it made."""

    done: int
    total: int
    what: str

    @property
    def cuda(self) -> bool:
        """Whether nvcc made it."""
        return "CUDA object" in self.what

    @property
    def file(self) -> str:
        """The file being made, without its folders and object suffix."""
        last = re.split(r"[/\\ ]", self.what)[-1]  # on Windows CMake writes either
        return re.sub(r"\.o(bj)?$", "", last) if "." in last else ""


def parse_step(line: str) -> Step | None:
    """A step of ninja's, or None for any other line."""
    match = _STEP.match(line)
    return Step(int(match[1]), int(match[2]), match[3]) if match else None


def cuda_steps(compile_commands: str) -> int:
    """How many CUDA files ``compile_commands.json`` names; all are in the shipped ggml-cuda."""
    return sum(entry["file"].endswith(".cu") for entry in json.loads(compile_commands))


def time_left(steps: Sequence[Step], cuda_total: int, elapsed: float) -> float | None:
    """Seconds still to go, from the steps done in ``elapsed`` seconds.

    A CUDA step counts as several others. None until there is something to go by.
    """
    if len(steps) < 5:
        return None
    last = steps[-1]
    cuda_done = sum(step.cuda for step in steps)
    left = last.total - last.done
    cuda_left = min(max(cuda_total - cuda_done, 0), left)
    unit = elapsed / (len(steps) + (CUDA_WEIGHT - 1) * cuda_done)
    return unit * (left + (CUDA_WEIGHT - 1) * cuda_left)


_QUOTED = re.compile(r"^\s*\d* \|")  # a source line that gcc shows under a message
_ERRORS = (
    re.compile(r"(?:^|[\s:])(?:fatal )?error(?: [A-Z]*\d+)?\s*:", re.IGNORECASE),
    re.compile(r"^CMake Error"),
    re.compile(r"undefined reference to|cannot find -l|collect2:|ld returned"),
    re.compile(r"^(?:ptxas|nvcc|nvlink) fatal|died due to signal"),
    re.compile(r"^ERROR (?!Backend)|^Traceback|No space left on device|Killed"),
)


def first_error(lines: Iterable[str], *, context: int = 8) -> str:
    """The first real error of a build log and the lines after it; "" where there is none.

    What follows a first error mostly follows from it; the last lines of a log hold none of either.
    """
    kept: list[str] = []
    for line in lines:
        if "No space left on device" in line:
            return line.rstrip()[:400]  # whatever else is wrong follows from this
        error = any(pattern.search(line) for pattern in _ERRORS) and not _QUOTED.match(line)
        if (kept or error) and len(kept) <= context:
            kept.append(line.rstrip()[:400])
    return "\n".join(kept)


def failure(error: str, log: str, jobs: int) -> Problem:
    """The Problem that a failed build stands for."""
    if "No space left on device" in error:
        return Problem(
            "The disk is full: the build stopped.",
            evidence=error,
            remedy="free some space, then run the same command again: it goes on where it stopped",
        )
    if re.search(
        r"\bKilled\b|Kill signal|out of memory|cannot allocate memory", error, re.IGNORECASE
    ):
        return Problem(
            f"The build ran out of memory with {jobs} compile steps at once.",
            evidence=error,
            remedy=f"run the same command with --jobs {max(1, jobs // 2)}: it goes on where it "
            "stopped",
        )
    return Problem(
        "The build failed. The first error:",
        evidence=error or "no line of the log looks like an error",
        remedy=f"mend it and run the same command again; the whole log is {log}",
    )


# What of a toolkit the shipped libraries are compiled with and linked to. FindCUDAToolkit looks for
# much else besides (cufft, npp, NVML …) and may find that elsewhere: it goes into no library.
_USED = (
    "CMAKE_CUDA_COMPILER", "CUDAToolkit_BIN_DIR", "CUDAToolkit_NVCC_EXECUTABLE", "CUDA_CUDART",
    "CUDA_cudart_LIBRARY", "CUDA_cublas_LIBRARY", "CUDA_cublasLt_LIBRARY",
)  # fmt: skip


def foreign_cuda(cmake_cache: str, root: str) -> list[str]:
    """Entries of a CMakeCache that take a part from outside ``root``: another toolkit leaked in."""
    entries = re.findall(r"^([^#/\s:][^:]*):\w+=(.*)$", cmake_cache, re.MULTILINE)
    windows = re.match(r"[A-Za-z]:", root) is not None

    def folder(path: str) -> str:
        return f"{path}/".replace("\\", "/").lower() if windows else f"{path}/"

    return [
        f"{name}={value}"
        for name, value in entries
        if name in _USED and not folder(value).startswith(folder(root))
    ]
