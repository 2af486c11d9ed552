"""From any Python 3.11, with or without nox, to a nox that has what the sessions import.

Standard library alone. The noxfile calls ``enter`` before it imports anything
else: the project runs in a venv of its own under ``.nox``, made from a lock, however
nox was installed. Nox's script mode would do the like, at a second for every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sessions.core import disk, facts, run

LOCK = Path(__file__).parent.parent / "facts" / "runtime.txt"


def enter(root: Path) -> None:
    """Return if this process runs in the project's venv; else go on in it and never return."""
    lock = LOCK.read_bytes()
    base = getattr(sys, "_base_executable", sys.executable)
    python_is = f"{sys.version} {Path(base).resolve()}"
    digest = hashlib.sha256(lock + python_is.encode()).hexdigest()
    venv = root / ".nox" / f"blackwheel-{digest[:12]}"
    if Path(sys.prefix).resolve() == venv.resolve():
        return
    if sys.platform == "win32" and (problem := too_deep(str(root))):
        sys.exit(problem)
    python = _python(venv)
    if not python.exists():
        try:
            _make(venv)
        except OSError as error:
            sys.exit(
                f"blackwheel: {venv} cannot be made: {error}\nTo mend it: free some disk space, "
                "make this folder writable for you, or work in a folder of your own."
            )
    if folder := invoked_from(root, sys.argv[1:], os.environ.get("PWD", "")):
        os.chdir(folder)
    words = [str(root / "noxfile.py"), *arguments(sys.argv[1:])]
    os.environ["NOX_SCRIPT_MODE"] = "none"
    sys.stdout.flush()
    if sys.platform == "win32":
        # Windows has no exec: the shell would not wait for the program that takes over.
        sys.exit(run.inherit([str(python), *words]))
    os.execv(python, [str(python), *words])


def too_deep(root: str) -> str | None:
    """Why nothing can be made in this folder on Windows; None where it can.

    ``probe`` judges all of the folders, but already needs the venv.
    """
    known = facts.load("windows.toml")["paths"]
    longest = len(root) + 1 + known["checkout"]
    if longest <= known["limit"]:
        return None
    return (
        f"blackwheel: {root} is too deep for Windows' programs: it is {len(root)} characters long, "
        f"a path below it would be {longest}, and {known['limit']} is the greatest length.\n"
        "To mend it: move this folder to a short path, for example C:\\bw"
    )


def arguments(words: Sequence[str]) -> list[str]:
    """The command line without ``-f``: nox has already gone to the noxfile's folder."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*kept, word, *rest]
        if word in ("-f", "--noxfile"):
            next(rest, None)
        elif not word.startswith("--noxfile="):
            kept.append(word)
    return kept


def invoked_from(root: Path, words: Sequence[str], pwd: str) -> Path | None:
    """The folder where the user stands, if nox went from there to the noxfile's folder.

    It does so only for a noxfile that ``-f`` names. ``pwd`` is the shell's PWD.
    """
    before = words[: words.index("--")] if "--" in words else words
    named = any(w in ("-f", "--noxfile") or w.startswith("--noxfile=") for w in before)
    here = Path.cwd().resolve() == root.resolve()
    return Path(pwd) if named and here and pwd and Path(pwd).is_dir() else None


def _python(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _sweep(folder: Path) -> None:
    """Delete what first runs left that were killed; one that lives has its own part."""
    for part in folder.glob("blackwheel-*.*"):
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # where no folder is renamed while a program in it runs
                part = part.rename(part.with_name(f"{part.name}.gone"))
            else:
                _hold(part)
            shutil.rmtree(part)


def _hold(part: Path) -> None:
    """Lock a folder until this process ends or becomes another. Raises OSError if one has it."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(os.open(part, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _make(venv: Path) -> None:
    """Make the venv beside and rename it: two first runs at once do not meet half of it."""
    print("blackwheel: installing what the sessions need into .nox (once)", flush=True)
    venv.parent.mkdir(exist_ok=True)
    _sweep(venv.parent)
    part = Path(tempfile.mkdtemp(prefix=f"{venv.name}.", dir=venv.parent))
    with contextlib.suppress(OSError):  # a file system without locks
        _hold(part)
    env = dict(os.environ)
    steps = (
        ([sys.executable, "-m", "venv", str(part)], "make a venv"),
        (
            [
                *(str(_python(part)), "-m", "pip", "install", "--no-deps", "--require-hashes"),
                *("-r", str(LOCK), "--quiet", "--disable-pip-version-check"),
            ],
            "install the sessions' requirements",
        ),
    )
    try:
        for command, what in steps:
            done = run.capture(command, env=env)
            if done.returncode:
                short = ".".join(map(str, sys.version_info[:2]))
                sys.exit(
                    f"blackwheel: {sys.executable} could not {what}:\n{done.output.rstrip()}\n"
                    f"To mend it: install Python {short} with its venv module (Debian, Ubuntu: "
                    f"apt install python{short}-venv), and check the network and pip's settings "
                    "(pip config list)."
                )
        try:
            disk.put(part, venv)
        except OSError:
            if not _python(venv).exists():  # else another first run was quicker
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
