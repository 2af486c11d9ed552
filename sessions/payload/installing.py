"""Installs a bundle's wheel and NVIDIA's runtime into a venv."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundle_refusals

RUNTIME = ("nvidia-cuda-runtime", "nvidia-cublas")


# Windows opens a console for a console program whose parent has none.
NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW


def for_this_python(name: str) -> str:
    """A wheel's name with this Python's tag, where it has another's.

    pip refuses any other. What is in the wheel stays as it is: its libraries are loaded by ctypes
    and do not depend on Python.
    """
    tag = f"cp{bundle_refusals.HERE.replace('.', '')}"
    return re.sub(r"-(cp3\d+)-\1-", f"-{tag}-{tag}-", name)


def install(folder: Path) -> str:
    """A fresh venv with the wheel. Returns its Python."""
    venv = folder / "venv"
    _run([sys.executable, "-I", "-m", "venv", str(venv)], "Python could not make a venv.")
    wheels = sorted(map(str, (folder / "bundle" / "wheels").glob("*.whl")))
    command = [*_pip(venv), "--no-index", "--no-deps", *wheels]
    env = _pip_environment(python_of(venv), "install")
    _run(command, "pip could not install the bundle's wheels.", env)
    return python_of(venv)


def python_of(venv: Path) -> str:
    """The Python of a venv."""
    return str(venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


def _pip(venv: Path) -> list[str]:
    return [python_of(venv), "-I", "-m", "pip", "--disable-pip-version-check", "install", "-q"]


def _pip_environment(python: str, command: str) -> dict[str, str]:
    """An environment in which pip's settings say where packages come from, and nothing else."""
    import pipconfig

    asked = subprocess.run(
        [python, *pipconfig.LIST],
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        creationflags=NO_WINDOW,
        check=False,
    )
    env: dict[str, str] = pipconfig.environment(os.environ, asked.stdout, command)
    return env


def without_files() -> dict[str, str]:
    """This environment, in which pip reads no file; --isolated would leave the machine's own."""
    return {**os.environ, "PIP_CONFIG_FILE": os.devnull}


def _run(command: list[str], what: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        creationflags=NO_WINDOW,
        check=False,
    )
    if done.returncode:
        bundle_refusals.stop(
            f"{what}\n{(done.stdout + done.stderr)[-800:]}",
            "correct the error that is shown above, then run the same command again",
        )


def _well(command: list[str], env: dict[str, str]) -> bool:
    done = subprocess.run(
        command, env=env, capture_output=True, creationflags=NO_WINDOW, check=False
    )
    return done.returncode == 0


def runtime(venv: Path, manifest: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """NVIDIA's runtime for the venv: from pip, else from this Python's packages, else a toolkit.

    Returns the folders that it may then be loaded from, beside the venv.
    """
    if not options.offline:
        print("Getting NVIDIA's CUDA runtime with pip ...", flush=True)
        command = [*_pip(venv), "--retries", "1", "--timeout", "10", *manifest["runtime"]]
        if _well(command, _pip_environment(python_of(venv), "install")):
            return []
    source = _packages()
    if source is None:
        return _toolkits()
    link(venv, source)
    return [str(source)]


def _packages() -> Path | None:
    """The folder of NVIDIA's runtime in the packages of this Python."""
    try:
        for name in RUNTIME:
            importlib.metadata.version(name)
        found = importlib.util.find_spec("nvidia.cu13")
    except (importlib.metadata.PackageNotFoundError, ImportError):
        return None
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])


def _toolkits() -> list[str]:
    """Where an installed toolkit may be."""
    print("NVIDIA's runtime packages are not here, so an installed toolkit must have them.")
    named = [os.environ[n] for n in ("CUDA_PATH", "CUDA_HOME") if n in os.environ]
    return [*named, *map(str, Path("/usr/local").glob("cuda*"))]


def link(venv: Path, source: Path) -> None:
    """Have a venv see NVIDIA's runtime of another Python."""
    target = site_packages(venv) / "nvidia" / "cu13"
    target.parent.mkdir(exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows lets only some make links
        shutil.copytree(source, target)


def site_packages(venv: Path) -> Path:
    """Where a venv's packages are."""
    return next(venv.glob("Lib/site-packages"), None) or next(venv.glob("lib/*/site-packages"))


def runtime_files(
    packages: Path, manifest: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """NVIDIA's runtime for venvs that are yet to be made, from where ``runtime`` has it."""
    found: dict[str, Any] = {"runtime": "none", "link": None, "runtime_places": []}
    if not manifest["runtime"]:
        return found
    if not options.offline:
        print("Getting NVIDIA's CUDA runtime with pip ...", flush=True)
        words = ["download", "-q", "--retries", "1", "--timeout", "10", "-d", str(packages)]
        command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", *words]
        command += manifest["runtime"]
        if _well(command, _pip_environment(sys.executable, "download")):
            return {**found, "runtime": "packages"}
    source = _packages()
    if source is None:
        return {**found, "runtime": "toolkit", "runtime_places": _toolkits()}
    return {**found, "runtime": "linked", "link": str(source), "runtime_places": [str(source)]}
