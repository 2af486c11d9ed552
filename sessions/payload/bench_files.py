"""Installs the wheels of a benchmark and the packages that they require, from files only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from pathlib import Path
from typing import NoReturn

import installing
import spawn


def stop(what: str) -> NoReturn:
    """Print a message and exit with 2; a benchmark needs all of its values."""
    print(what, file=sys.stderr)
    sys.exit(2)


def run(command: list[str], what: str) -> None:
    """Run a command. Exits if it fails."""
    done = subprocess.run(
        command,
        env=installing.without_files(),
        stdin=subprocess.DEVNULL,  # under Wine, Python may not start with the caller's stdin
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        creationflags=spawn.NO_WINDOW,
        check=False,
    )
    if done.returncode:
        stop(f"{what}: {(done.stdout + done.stderr)[-800:].strip()}")


def pip(venv: Path, files: Iterable[Path], label: str) -> None:
    """Install these files and nothing else, without any setting of the user."""
    words = ["-m", "pip", "--isolated", "--disable-pip-version-check", "install", "-q"]
    words += ["--no-index", "--no-deps", *map(str, files)]
    run([installing.python_of(venv), "-I", *words], f"pip could not install {label}")


def size(folder: Path) -> int:
    """Bytes of all files below a folder, without links."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            total += 0 if path.is_symlink() else path.stat().st_size
    return total


def canonical(name: str) -> str:
    """The normalized name of a project (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needs(wheel: Path) -> list[tuple[str, bool]]:
    """The requirements of a wheel without extras: (name, whether it has no marker)."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(member))
    found = []
    for line in metadata.get_all("Requires-Dist") or []:
        requirement, _, marker = str(line).partition(";")
        name = re.match(r"\s*([A-Za-z0-9._-]+)", requirement)
        if name and "extra" not in marker:
            found.append((canonical(name[1]), not marker.strip()))
    return found


def required(wheel: Path, packages: Path, *, linked: bool) -> list[Path]:
    """The files of all direct and indirect requirements of a wheel, from one folder.

    With ``linked``, NVIDIA's CUDA runtime is left out, because the venv is linked to it. Exits if a
    requirement without a marker is missing.
    """
    found: dict[str, Path] = {}
    waiting = [wheel]
    while waiting:
        for name, everywhere in needs(waiting.pop()):
            if name in found or (linked and name.startswith("nvidia-")):
                continue
            if there := package(packages, name):
                found[name] = there
                waiting.append(there)
            elif everywhere:
                stop(f"{wheel.name} requires {name}, which is not in {packages}.")
    return list(found.values())


def within(packages: Path, names: Iterable[str]) -> Iterable[Path]:
    """The files of some packages. Exits if one is missing."""
    for name in names:
        there = package(packages, name)
        if there is None:
            stop(f"{name} is not in {packages}.")
        yield there


def package(packages: Path, name: str) -> Path | None:
    """The file of a project, or None. Exits if there are two, because either might be meant."""
    files = sorted(packages.glob("*.whl"))
    found = [file for file in files if canonical(file.name.split("-")[0]) == name]
    if len(found) > 1:
        stop(f"{packages} contains {found[0].name} and {found[1].name}: delete one.")
    return found[0] if found else None
