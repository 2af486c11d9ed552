"""Questions about the machine, whose answers can be recorded and replayed.

A ``Machine`` answers ``machine(question, *words)`` with JSON values: the real one asks the system,
and a replay reads a file of recorded answers.
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
TIMEOUT = 30.0  # seconds for a tool to print its version; a virus scanner may take most of it
VCVARS_TIMEOUT = 120.0  # vcvars64.bat may read every Windows SDK from a slow disk
# Prefixes of variables that change what a compiler or a Python does. The build gets none of them.
_NOT_FOR_TOOLS = (
    "LD_", "PYTHON", "GCC_", "COMPILER_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH", "NVCC_", "CL", "_CL_", "BASH_ENV", "CCACHE_", "CMAKE_",
)  # fmt: skip
_MARK = "blackwheel-environment: "


def real(env: Mapping[str, str], root: Path, cache: Path) -> Machine:
    """This machine, with the caller's environment; the free disk space is that of ``root``."""

    def ask(question: str, *words: str) -> Any:
        match question:
            case "host":
                return {**_host(root), "root": str(root), "cache": str(cache)}
            case "env":
                return env.get(words[0])
            case "which":
                return _which(words[0], env.get("PATH", ""))
            case "interpreter":  # of this process; it may not be on PATH
                return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
            case "glob":
                return sorted(glob.glob(words[0]))
            case "real":
                return str(Path(words[0]).resolve())
            case "sha256":
                path = Path(words[0])
                return records.file_sha256(path) if path.is_file() else None
            case "toolkit":
                files = knowledge.load("compiler_identity.toml")["toolkit"]["files"]
                return _listing(Path(words[0]), files)
            case "grep":
                text = _read(Path(words[1]))
                lines = text.splitlines() if text is not None else ()
                return None if text is None else [n for n in lines if re.search(words[0], n)]
            case "run":
                clean = {n: v for n, v in env.items() if not n.startswith(_NOT_FOR_TOOLS)}
                clean |= {"LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"}
                done = programs.capture(words, env=clean, timeout=TIMEOUT)
                streams = {"output": done.stdout, "errors": done.stderr}
                return {"returncode": done.returncode, **streams}
            case "vcvars":
                return _vcvars(words[0], words[1], env)
            case "nvml":
                return gpu.read()
        raise ValueError(f"no such question: {question}")

    return ask


def has_python(ask: Machine, version: str) -> bool:
    """Whether PATH has a Python of a version ("3.11") that can make a venv."""
    words = [f"-{version}"] if sys.platform == "win32" else []
    name = "py" if sys.platform == "win32" else f"python{version}"
    words += ["-I", "-c", "import ensurepip, venv"]
    return any(ask("run", path, *words)["returncode"] == 0 for path in ask("which", name))


def cores() -> int:
    """Number of processors that this process may use now."""
    return cgroups.cores(cgroups.limits(cgroups.read()))


def physical_cores() -> int:
    """Number of physical cores that this process may use now."""
    return cgroups.physical(cgroups.limits(cgroups.read()))


def host(answer: dict[str, Any]) -> tuple[Host, cgroups.Limits]:
    """The Host within the limits of the process's cgroups, and these limits."""
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
    """The same machine, which also writes every answer to ``tape``."""

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
    """A recorded machine. It raises Problem for a question that was not recorded."""
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
    """The variables that ``script`` sets for a toolset, and its output.

    It runs in a clean environment: the variables of a developer prompt change what the script does,
    and it fails with a long PATH.
    """
    system = env.get("SYSTEMROOT", r"C:\Windows")
    path = (rf"{system}\System32", system, rf"{system}\System32\Wbem")
    clean = {
        **child_environment.system_environment(env),
        "PATH": ";".join((*path, rf"{system}\System32\WindowsPowerShell\v1.0")),
        "VSCMD_SKIP_SENDTELEMETRY": "1",
    }
    # Not with "set": its output is in the console's code page, and a value may have a line break.
    tell = f"import json, os; print({_MARK!r} + json.dumps(dict(os.environ)))"
    line = (
        f'cmd.exe /d /s /c ""{script}" -vcvars_ver={toolset} & '
        f'"{sys.executable}" -I -X utf8 -c "{tell}""'
    )
    done = programs.capture(line, env=clean, timeout=VCVARS_TIMEOUT)
    output, _, variables = done.stdout.partition(_MARK)
    values = json.loads(variables) if variables else {}
    keep = knowledge.load("windows.toml")["vcvars"]["keep"]
    return {
        "variables": {n.upper(): v for n, v in values.items() if n.upper() in keep},
        "output": f"{output}\n{done.stderr}".strip()[-2000:],
    }


def _listing(root: Path, patterns: Iterable[str]) -> str:
    """A digest of names, sizes and times of the files below ``root`` that match the patterns."""
    entries = {}
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        if path.is_file():
            status = path.stat()  # times in whole seconds, as in archives
            name = path.relative_to(root).as_posix()
            entries[name] = [status.st_size, int(status.st_mtime)]
    return records.fingerprint(entries)


def _cpu_name() -> str:
    info = _read(Path("/proc/cpuinfo")) or ""
    name = re.search(r"^model name\s*:(.*)$", info, re.MULTILINE)
    return name[1].strip() if name else platform.processor()


def _which(name: str, path: str) -> list[str]:
    """Every program of that name, in the order of PATH.

    Links of folders are resolved (/bin is /usr/bin), because compiler caches compare paths as text.
    """
    suffixes = (".exe", ".bat", ".cmd") if sys.platform == "win32" else ("",)
    paths = []
    for folder in path.split(os.pathsep):
        for suffix in suffixes:
            program = Path(folder) / (name + suffix)
            # access first: is_file raises in a folder that the user may not enter.
            if folder and os.access(program, os.X_OK) and program.is_file():
                paths.append(str(program.parent.resolve() / program.name))
    return paths


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
