"""Reading a build's output: how far it is, and what went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sessions.shared.errors import Problem

_STEP = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
# Times of steps over that of a C or C++ file, by what is in the file's name: a cold build of 0.3.16
# for rtx50 on two cores (tests/data/ninja/cold.ninja_log): 25.6, 8.6, 4.1 and 1.8 s. The first
# part that a name has counts.
WEIGHTS = (("mmq-instance", 14.0), ("fattn-mma", 4.7), (".cu", 2.2), ("", 1.0))


@dataclass(frozen=True)
class Step:
    """One line of ninja's: step ``done`` of ``total``, and what it made."""

    done: int
    total: int
    what: str

    @property
    def file(self) -> str:
        """The file being made, without its folders and object suffix."""
        last = re.split(r"[/\\ ]", self.what)[-1]  # on Windows CMake writes either
        return re.sub(r"\.o(bj)?$", "", last) if "." in last else ""


def parse_step(line: str) -> Step | None:
    """A step of ninja's, or None for any other line."""
    match = _STEP.match(line)
    return Step(int(match[1]), int(match[2]), match[3]) if match else None


def cuda_files(compile_commands: str) -> list[str]:
    """Names of the CUDA files in ``compile_commands.json``; all are in the shipped ggml-cuda."""
    files = [str(entry["file"]) for entry in json.loads(compile_commands)]
    return [re.split(r"[/\\]", file)[-1] for file in files if file.endswith(".cu")]


_CODE = re.compile(r"arch=compute_(\d+[af]?),code=\[?([\w,]+)|-arch(?:itecture)?[= ]\"?(\w+)")


def architectures(compile_commands: str) -> dict[str, frozenset[str]]:
    """What each CUDA file of ``compile_commands.json`` is compiled to, each as CMake names it.

    "120-real" is machine code, "120-virtual" PTX; nvcc's own names (compute_120, sm_120) are in its
    manual under --gpu-architecture and --gpu-code. A word that is neither stands for itself.
    """
    found: dict[str, frozenset[str]] = {}
    for entry in json.loads(compile_commands):
        if not str(entry["file"]).endswith(".cu"):
            continue
        text = str(entry.get("command") or " ".join(entry.get("arguments", ())))
        names: set[str] = set()
        for compute, codes, alone in _CODE.findall(text):
            # With --gpu-architecture=sm_90 only, nvcc embeds the PTX too.
            parts = codes.split(",") if compute else [alone, alone.replace("sm_", "compute_")]
            names |= {_NAMES.sub(_cmake_name, part) for part in parts}
        found[str(entry.get("output") or entry["file"])] = frozenset(names)
    return found


_NAMES = re.compile(r"^(sm|compute)_(\d+[af]?)$")


def _cmake_name(match: re.Match[str]) -> str:
    return f"{match[2]}-{'real' if match[1] == 'sm' else 'virtual'}"


def weight(file: str) -> float:
    """How long a file's step takes, over one of C++."""
    return next(weight for part, weight in WEIGHTS if part in file)


def time_left(steps: Sequence[Step], cuda: Sequence[str], elapsed: float) -> float | None:
    """Seconds still to go, from the steps done in ``elapsed`` seconds.

    ``cuda`` names all CUDA files, of which some may have been compiled in an earlier run. None
    until there is something to go by.
    """
    if len(steps) < 5:
        return None
    done = {step.file for step in steps}
    heavy = [weight(file) for file in cuda if file not in done]
    left = steps[-1].total - steps[-1].done
    count = min(len(heavy), left)
    to_come = left - count + (count * sum(heavy) / len(heavy) if heavy else 0)
    return elapsed * to_come / sum(weight(step.file) for step in steps)


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
    Where CMake tells what a program that it tried said, the first error in that is the cause. A
    line with an error is cut at 4000 characters, others at 400.
    """
    kept: list[str] = []
    quoting = False  # inside a message of CMake's, which is indented
    for line in lines:
        if "No space left on device" in line:
            return line.rstrip()[:400]  # whatever else is wrong follows from this
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
    """The Problem that a failed build stands for."""
    if "No space left on device" in error:
        return Problem(
            "The disk is full: the build stopped.",
            id="build-disk-full",
            evidence=error,
            remedy="free some space, then run the same command again: it continues where it stopped",
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
