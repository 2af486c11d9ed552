"""The machine as questions and answers, so that a probe can be recorded and replayed.

A ``Machine`` answers ``machine(question, *words)`` with JSON. The real one asks
the operating system; a recording is its questions and answers in one file; the
replay refuses a question that was not asked when it was recorded.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from sessions.core import records, run
from sessions.core.errors import Problem
from sessions.payload import card

Machine = Callable[..., Any]
MIB = 1024 * 1024
TIMEOUT = 10.0  # seconds for any one tool to say its version


def real(env: Mapping[str, str], root: Path) -> Machine:
    """This machine, seen with the caller's environment; free disk is that of ``root``."""

    def ask(question: str, *words: str) -> Any:
        match question:
            case "host":
                return _host(root)
            case "env":
                return env.get(words[0])
            case "which":
                return _which(words[0], env.get("PATH", ""))
            case "glob":
                return sorted(glob.glob(words[0]))
            case "real":
                return str(Path(words[0]).resolve())
            case "grep":
                text = _read(Path(words[1]))
                found = (line for line in (text or "").splitlines() if re.search(words[0], line))
                return None if text is None else list(found)
            case "run":
                clean = {**env, "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"}
                done = run.capture(words, env=clean, timeout=TIMEOUT)
                return {"returncode": done.returncode, "output": done.output}
            case "nvml":
                return card.read()
        raise ValueError(f"no such question: {question}")

    return ask


def recording(machine: Machine, tape: dict[str, Any]) -> Machine:
    """The same machine, every answer noted in ``tape``."""

    def ask(question: str, *words: str) -> Any:
        answer = machine(question, *words)
        tape[json.dumps([question, *words])] = answer
        return answer

    return ask


def save(tape: Mapping[str, Any], folder: Path) -> Path:
    """Write a tape as ``folder/machine.json``."""
    path = folder / "machine.json"
    text = json.dumps(dict(sorted(tape.items())), indent=1, ensure_ascii=False)
    records.write_text(path, text + "\n")
    return path


def replay(path: Path) -> Machine:
    """A recorded machine. Raises Problem for a question it was never asked."""
    tape = json.loads(path.read_text(encoding="utf-8"))

    def ask(question: str, *words: str) -> Any:
        key = json.dumps([question, *words])
        if key not in tape:
            raise Problem(
                "The recorded machine was never asked this.",
                evidence=f"{key} is not in {path}",
                remedy="record the machine again: nox -s probe -- --record DIR",
            )
        return tape[key]

    return ask


def _host(root: Path) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {
        "system": platform.system().lower(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": cores or 1,
        "memory_mib": memory.total // MIB,
        "memory_free_mib": memory.available // MIB,
        "disk_free_mib": shutil.disk_usage(root).free // MIB,
    }


def _cpu_name() -> str:
    info = _read(Path("/proc/cpuinfo")) or ""
    for line in info.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _which(name: str, path: str) -> list[str]:
    """Every program of that name on PATH, in its order."""
    suffixes = (".exe", ".bat", ".cmd") if sys.platform == "win32" else ("",)
    found = []
    for folder in path.split(os.pathsep):
        for suffix in suffixes:
            program = Path(folder) / (name + suffix)
            if folder and program.is_file() and os.access(program, os.X_OK):
                found.append(str(program))
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
