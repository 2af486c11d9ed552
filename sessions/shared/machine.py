"""The machine as questions and answers, so that a probe can be recorded and replayed.

A ``Machine`` answers ``machine(question, *words)`` with JSON. The real one asks
the operating system; a recording is its questions and answers in one file; the
replay refuses a question that was not asked when it was recorded.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from sessions.payload import cgroups, gpu
from sessions.shared import child_environment, knowledge, programs, records
from sessions.shared.errors import Problem
from sessions.shared.host import Host

Machine = Callable[..., Any]
MIB = 1024 * 1024
TIMEOUT = 30.0  # seconds for any one tool to say its version, of which a scanner may take most
VCVARS_TIMEOUT = 120.0  # vcvars64.bat may ask a slow disk for every Windows SDK
# What would have a compiler or a Python be another one than the build's, which gets none of it.
_NOT_FOR_TOOLS = (
    "LD_", "PYTHON", "GCC_", "COMPILER_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH", "NVCC_", "CL", "_CL_", "BASH_ENV", "CCACHE_", "CMAKE_",
)  # fmt: skip
_MARK = "blackwheel-environment: "


def real(env: Mapping[str, str], root: Path, cache: Path) -> Machine:
    """This machine, seen with the caller's environment; free disk is that of ``root``."""

    def ask(question: str, *words: str) -> Any:
        match question:
            case "host":
                return {**_host(root), "root": str(root), "cache": str(cache)}
            case "env":
                return env.get(words[0])
            case "which":
                return _which(words[0], env.get("PATH", ""))
            case "interpreter":  # that runs this, even where no PATH leads to it
                return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
            case "glob":
                return sorted(glob.glob(words[0]))
            case "real":
                return str(Path(words[0]).resolve())
            case "sha256":
                path = Path(words[0])
                return records.file_sha256(path) if path.is_file() else None
            case "toolkit":
                return _listing(
                    Path(words[0]), knowledge.load("compilers.toml")["toolkit"]["files"]
                )
            case "grep":
                text = _read(Path(words[1]))
                found = (line for line in (text or "").splitlines() if re.search(words[0], line))
                return None if text is None else list(found)
            case "run":
                clean = {n: v for n, v in env.items() if not n.startswith(_NOT_FOR_TOOLS)}
                clean |= {"LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"}
                done = programs.capture(words, env=clean, timeout=TIMEOUT)
                return {
                    "returncode": done.returncode,
                    "output": done.stdout,
                    "errors": done.stderr,
                }
            case "vcvars":
                return _vcvars(words[0], words[1], env)
            case "nvml":
                return gpu.read()
        raise ValueError(f"no such question: {question}")

    return ask


def has_python(ask: Machine, version: str) -> bool:
    """Whether a Python of that version ("3.11") that can make a venv is on PATH."""
    words = [f"-{version}"] if sys.platform == "win32" else []
    name = "py" if sys.platform == "win32" else f"python{version}"
    words += ["-I", "-c", "import ensurepip, venv"]
    return any(ask("run", path, *words)["returncode"] == 0 for path in ask("which", name))


def cores() -> int:
    """Processors that this process may use at once, here and now."""
    return cgroups.cores(cgroups.limits(cgroups.read()))


def physical_cores() -> int:
    """Physical cores that this process may use at once, here and now."""
    return cgroups.physical(cgroups.limits(cgroups.read()))


def host(answer: dict[str, Any]) -> tuple[Host, cgroups.Limits]:
    """The machine, as far as its cgroups let this process have it."""
    limits = cgroups.limits(answer.get("cgroups", {}))
    whole = Host(**{name: value for name, value in answer.items() if name != "cgroups"})
    memory = [n for n in (whole.memory_mib, limits.memory_mib) if n is not None]
    free = [n for n in (whole.memory_free_mib, limits.free_mib) if n is not None]
    cores = cgroups.bounded(whole.cores, limits)
    bounded = dataclasses.replace(
        whole, cores=cores, memory_mib=min(memory), memory_free_mib=min(free)
    )
    return bounded, limits if bounded != whole else cgroups.NONE


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
                "The recording of this machine lacks an answer that this version of blackwheel "
                "needs.",
                id="recording-incomplete",
                evidence=f"{key} is not in {path}",
                remedy="record the machine again: nox -s probe -- --record DIR",
            )
        return tape[key]

    return ask


def _host(root: Path) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    limits = cgroups.read()
    return {
        "system": platform.system().lower(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": cgroups.cores(cgroups.NONE),
        "memory_mib": memory.total // MIB,
        "memory_free_mib": memory.available // MIB,
        "disk_free_mib": shutil.disk_usage(root).free // MIB,
        **({"cgroups": limits} if limits else {}),
        "glibc": platform.libc_ver()[1] if platform.libc_ver()[0] == "glibc" else "",
    }


def _vcvars(script: str, toolset: str, env: Mapping[str, str]) -> dict[str, Any]:
    """What of the environment ``script`` sets for a toolset, and what it says.

    It starts from a clean environment: one that is set already, by a developer prompt say, changes
    what the script does, and with a long PATH it fails.
    """
    system = env.get("SYSTEMROOT", r"C:\Windows")
    path = (rf"{system}\System32", system, rf"{system}\System32\Wbem")
    clean = {
        **child_environment.system_environment(env),
        "PATH": ";".join((*path, rf"{system}\System32\WindowsPowerShell\v1.0")),
        "VSCMD_SKIP_SENDTELEMETRY": "1",
    }
    # Not by "set": its output is in the console's code page, and a value may hold a line break.
    tell = f"import json, os; print({_MARK!r} + json.dumps(dict(os.environ)))"
    line = (
        f'cmd.exe /d /s /c ""{script}" -vcvars_ver={toolset} & '
        f'"{sys.executable}" -I -X utf8 -c "{tell}""'
    )
    done = programs.capture(line, env=clean, timeout=VCVARS_TIMEOUT)
    said, _, told = done.stdout.partition(_MARK)
    found = json.loads(told) if told else {}
    keep = knowledge.load("windows.toml")["vcvars"]["keep"]
    return {
        "variables": {n.upper(): v for n, v in found.items() if n.upper() in keep},
        "output": f"{said}\n{done.stderr}".strip()[-2000:],
    }


def _listing(root: Path, patterns: Iterable[str]) -> str:
    """A digest of names, sizes and times of the files below ``root`` that the patterns name."""
    found = {}
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        if path.is_file():
            status = path.stat()  # in whole seconds: as an archive has them
            name = path.relative_to(root).as_posix()
            found[name] = [status.st_size, int(status.st_mtime)]
    return records.fingerprint(found)


def _cpu_name() -> str:
    info = _read(Path("/proc/cpuinfo")) or ""
    for line in info.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _which(name: str, path: str) -> list[str]:
    """Every program of that name on PATH, in its order.

    Its folder is without links (/usr/bin for /bin): a compiler cache compares paths as texts.
    """
    suffixes = (".exe", ".bat", ".cmd") if sys.platform == "win32" else ("",)
    found = []
    for folder in path.split(os.pathsep):
        for suffix in suffixes:
            program = Path(folder) / (name + suffix)
            # access first: of a folder that this user may not enter, is_file would raise.
            if folder and os.access(program, os.X_OK) and program.is_file():
                found.append(str(program.parent.resolve() / program.name))
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
