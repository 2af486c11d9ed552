"""The wheels that were built in this checkout, venvs that have one, and the release's sdist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions.shared import knowledge
from tests.integration.conftest import REPOSITORY

CACHE = Path(os.environ.get("BLACKWHEEL_CACHE", Path.home() / ".cache" / "blackwheel"))
# Build folders of the cpu target in each release; that of the default release must exist.
CPU_WHEELS = sorted(path.parent.name for path in (REPOSITORY / "wheels").glob("cpu*/wheel.json"))


def record(path: Path, kind: str) -> dict[str, Any]:
    """A record of this checkout. Fails if it is missing."""
    if not path.exists():
        target, _, version = path.parent.name.partition("+v")
        words = f"--target {target}" + (f" --version {version}" if version else "")
        pytest.fail(f"There is no {path}. Build it first: nox -s wheel -- {words}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))[kind]
    return found


def wheel(label: str) -> tuple[str, Path]:
    """The version and the path of a built wheel. Fails if it is missing."""
    folder = REPOSITORY / "wheels" / label
    found = record(folder / "wheel.json", "wheel")
    return found["version"], folder / found["file"]


def venv(folder: Path, *requirements: str | Path, base: str = sys.executable) -> Path:
    """Make a venv and install these requirements. Returns its Python."""
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install(python, *map(str, requirements))
    return python


def install(python: Path, *words: str) -> None:
    """Run ``pip install`` in a venv."""
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *words], check=True)


def install_payload(python: Path) -> None:
    """Install the packages that the payload imports."""
    install(python, "--no-deps", "--require-hashes", "-r", str(knowledge.payload_lock()))


def libraries(python: Path) -> Path:
    """The folder of the wheel's libraries in a venv."""
    (found,) = python.parents[1].glob("lib/python*/site-packages/llama_cpp/lib")
    return found


def unpack(version: str, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the wanted files of a release's sdist; their names begin in its top folder."""
    archive = CACHE / "downloads" / knowledge.sdists()[version].file
    if not archive.is_file():
        pytest.fail(f"There is no {archive}: nox -s source downloads it")
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            member.name = member.name.partition("/")[2]
            if member.isfile() and wanted(member.name):
                tar.extract(member, folder, filter="data")
