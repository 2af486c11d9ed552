"""Checks what CMake has configured: the GPU architectures and the CUDA toolkit."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sessions.fetch.record_types import Toolkit
from sessions.shared import knowledge, programs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.command_text import command as command_of
from sessions.shared.errors import USAGE, Problem


def cuda_files(compile_commands: str) -> list[str]:
    """The names of the CUDA files in ``compile_commands.json``; all belong to ggml-cuda."""
    files = [str(entry["file"]) for entry in json.loads(compile_commands)]
    return [re.split(r"[/\\]", file)[-1] for file in files if file.endswith(".cu")]


_CODE = re.compile(r"arch=compute_(\d+[af]?),code=\[?([\w,]+)|-arch(?:itecture)?[= ]\"?(\w+)")


def architectures(compile_commands: str) -> dict[str, frozenset[str]]:
    """What each CUDA file of ``compile_commands.json`` is compiled to, in CMake's notation.

    "120-real" is machine code, "120-virtual" PTX. nvcc's names (compute_120, sm_120) are in its
    manual under --gpu-architecture and --gpu-code. Any other word is kept.
    """
    found: dict[str, frozenset[str]] = {}
    for entry in json.loads(compile_commands):
        if not str(entry["file"]).endswith(".cu"):
            continue
        text = str(entry.get("command") or " ".join(entry.get("arguments", ())))
        names: set[str] = set()
        for compute, codes, only in _CODE.findall(text):
            # With --gpu-architecture=sm_90 only, nvcc embeds the PTX too.
            parts = codes.split(",") if compute else [only, only.replace("sm_", "compute_")]
            for part in parts:
                part = re.sub(r"^sm_(\d+[af]?)$", r"\1-real", part)
                names.add(re.sub(r"^compute_(\d+[af]?)$", r"\1-virtual", part))
        found[str(entry.get("output") or entry["file"])] = frozenset(names)
    return found


# The parts of a toolkit that the shipped libraries use. FindCUDAToolkit also finds others (cufft,
# npp, NVML …), perhaps elsewhere: no library contains them.
_USED = (
    "CMAKE_CUDA_COMPILER", "CUDAToolkit_BIN_DIR", "CUDAToolkit_NVCC_EXECUTABLE", "CUDA_CUDART",
    "CUDA_cudart_LIBRARY", "CUDA_cublas_LIBRARY", "CUDA_cublasLt_LIBRARY",
)  # fmt: skip


def foreign_cuda(cmake_cache: str, root: str) -> list[str]:
    """The entries of a CMakeCache that use a part of a CUDA toolkit outside ``root``."""
    entries = re.findall(r"^([^#/\s:][^:]*):\w+=(.*)$", cmake_cache, re.MULTILINE)
    windows = re.match(r"[A-Za-z]:", root) is not None

    def folder(path: str) -> str:
        return f"{path}/".replace("\\", "/").lower() if windows else f"{path}/"

    return [
        f"{name}={value}"
        for name, value in entries
        if name in _USED and not folder(value).startswith(folder(root))
    ]


def text(path: Path) -> str:
    """The text of a file of CMake, which copies paths that are not UTF-8."""
    return path.read_text(encoding="utf-8", errors="replace")


def check(tree: Path, spec: BuildSpec, toolkit: Toolkit | None) -> None:
    """Check that a configured CMake tree builds what the target asks for. Raises Problem.

    Upstream's CMake may find libraries of another toolkit, and it replaces architectures: 0.3.36
    compiles for 120a if 120 is requested.
    """
    if toolkit:
        cache = text(tree / "CMakeCache.txt")
        foreign = foreign_cuda(cache, toolkit.root)
        if foreign:
            raise Problem(
                "CMake found parts of another CUDA toolkit than the one the target asks for.",
                id="build-foreign-cuda",
                evidence="\n".join(foreign),
                remedy=f"everything must be in {toolkit.root}; make that toolkit again: "
                + command_of("toolkit", spec, "--fresh"),
            )
    commands = text(tree / "compile_commands.json")
    expected = frozenset(name for arch in spec.archs for name in knowledge.compiled_to(arch))
    files = architectures(commands)
    compiled = set(files.values())
    if compiled == ({expected} if spec.archs else set()):
        return
    lines = [] if files else ["no CUDA file is compiled"]
    for names in sorted(compiled, key=sorted):
        named = [re.split(r"[/\\]", file)[-1] for file in files if files[file] == names]
        what = ";".join(knowledge.shortest(names)) or "none that it names"
        lines.append(f"{what}: {len(named)} of {len(files)} CUDA files, {named[0]} the first")
    only = knowledge.shortest(compiled.pop()) if len(compiled) == 1 else ()
    asked = ";".join(spec.archs) or "the CPU only"
    raise Problem(
        f"Upstream's CMake would compile for other GPU architectures than you asked for: {asked}.",
        id="build-other-architectures",
        code=USAGE,
        evidence="\n".join(lines),
        remedy=f"ask for what it compiles: add {programs.typed(['--arch', ';'.join(only)])}"
        if only and spec.archs
        else "choose another release with --version",
    )
