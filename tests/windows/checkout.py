"""This project on drive C of the lab, and its sessions in the Windows Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from sessions.shared import records
from tests.fakes import ROOT
from tests.windows import network
from tests.windows.lab import Lab, Ran

KEPT = {".nox", "build", "llama-cpp-python-src", "wheels"}
HOME = r"C:\users\José Pérez"


def copy(lab: Lab) -> Path:
    """Lay out the checkout below a home with a space and letters that are not ASCII.

    Not below "Users": Wine made "users", and this file system has both.
    """
    folder = lab.drive / "users" / "José Pérez" / "black wheel"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name not in KEPT:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def environment(lab: Lab) -> dict[str, str]:
    """What a user's cmd has set."""
    return {
        "PATH": r"C:\Python311;C:\windows\system32",
        "USERPROFILE": HOME,
        "LOCALAPPDATA": HOME + r"\AppData\Local",
        "BLACKWHEEL_CACHE": HOME + r"\AppData\Local\bw",
        "TEMP": r"C:\windows\temp",
        "TMP": r"C:\windows\temp",
        **network.settings(lab),
    }


def nox(lab: Lab, project: Path, *words: str, env: dict[str, str] | None = None) -> Ran:
    """Run the project as a user types it."""
    caller = {**environment(lab), **(env or {})}
    return lab.run(
        lab.python, project / "noxfile.py", *words, env=caller, cwd=project, timeout=1800
    )


def record(project: Path, target: str, stage: str, type_: type[Any]) -> Any:
    """What a session left."""
    return records.need(project / "build" / target / f"{stage}.json", stage, type_)
