"""Installs a bundle's wheel and NVIDIA's CUDA runtime into a venv."""

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
import spawn

RUNTIME = ("nvidia-cuda-runtime", "nvidia-cublas")


def for_this_python(name: str) -> str:
    """A wheel's file name, with the tags of this Python in place of its own.

    pip refuses other tags. The wheel itself does not depend on Python: ctypes loads its libraries.
    """
    tag = f"cp{bundle_refusals.HERE.replace('.', '')}"
    return re.sub(r"-(cp3\d+)-\1-", f"-{tag}-{tag}-", name)


def install(folder: Path) -> str:
    """Make a venv with the bundle's wheels. Returns its Python."""
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
    """An environment for pip with the user's settings of package sources, and no other settings."""
    import pipconfig

    utf8 = {**os.environ, "PYTHONUTF8": "1"}
    done = _output([python, *pipconfig.LIST], utf8, encoding="utf-8")
    env: dict[str, str] = pipconfig.environment(os.environ, done.stdout, command)
    return env


def without_files() -> dict[str, str]:
    """The environment in which pip reads no configuration file (--isolated reads the system's)."""
    return {**os.environ, "PIP_CONFIG_FILE": os.devnull}


def _output(
    command: list[str], env: dict[str, str] | None = None, encoding: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        encoding=encoding,  # None: the system's, in which pip prints
        errors="replace",
        creationflags=spawn.NO_WINDOW,
        check=False,
    )


def _run(command: list[str], what: str, env: dict[str, str] | None = None) -> None:
    done = _output(command, env)
    if done.returncode:
        bundle_refusals.stop(
            f"{what}\n{(done.stdout + done.stderr)[-800:]}",
            "correct the error that is shown above, then run the same command again",
        )


def _by_pip(command: list[str], manifest: dict[str, Any], options: argparse.Namespace) -> bool:
    """Get NVIDIA's CUDA runtime by pip, but not with --offline. Returns whether it succeeded."""
    if options.offline:
        return False
    print("Getting NVIDIA's CUDA runtime with pip ...", flush=True)
    subcommand = "download" if "download" in command else "install"
    words = [*command, "--retries", "1", "--timeout", "10", *manifest["runtime"]]
    return _output(words, _pip_environment(command[0], subcommand)).returncode == 0


def runtime(venv: Path, manifest: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """Provide NVIDIA's CUDA runtime: by pip, from this Python's packages, or from a toolkit.

    Returns the folders outside the venv from which it may be loaded.
    """
    found = _find_runtime(_pip(venv), manifest, options)
    if found["link"]:
        link(venv, Path(found["link"]))
    places: list[str] = found["runtime_places"]
    return places


def _find_runtime(
    command: list[str], manifest: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Find NVIDIA's CUDA runtime: by pip, in site-packages, or in an installed toolkit."""
    if _by_pip(command, manifest, options):
        return {"runtime": "packages", "link": None, "runtime_places": []}
    source = _packages()
    if source is None:
        return {"runtime": "toolkit", "link": None, "runtime_places": _toolkits()}
    return {"runtime": "linked", "link": str(source), "runtime_places": [str(source)]}


def _packages() -> Path | None:
    """The folder of NVIDIA's CUDA runtime in this Python's packages; None if it is not there."""
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
    """The folders where an installed CUDA toolkit may be."""
    print("NVIDIA's runtime packages are not here, so an installed toolkit must have them.")
    named = [os.environ[n] for n in ("CUDA_PATH", "CUDA_HOME") if n in os.environ]
    return [*named, *map(str, Path("/usr/local").glob("cuda*"))]


def link(venv: Path, source: Path) -> None:
    """Link a venv to NVIDIA's CUDA runtime in another Python's packages."""
    target = site_packages(venv) / "nvidia" / "cu13"
    target.parent.mkdir(exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # on Windows, symlinks need a privilege
        shutil.copytree(source, target)


def site_packages(venv: Path) -> Path:
    """The folder of a venv's packages."""
    return next(venv.glob("Lib/site-packages"), None) or next(venv.glob("lib/*/site-packages"))


def runtime_files(
    packages: Path, manifest: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """The fields of a benchmark job for the CUDA runtime, which pip downloads."""
    if not manifest["runtime"]:
        return {"runtime": "none", "link": None, "runtime_places": []}
    command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    return _find_runtime([*command, "-d", str(packages)], manifest, options)
