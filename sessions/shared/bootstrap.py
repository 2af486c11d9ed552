"""Continues in the project's own venv under ``.nox``, which it creates from a lock file.

The noxfile calls ``enter`` before any other import, in any Python 3.11 or newer, with or without
nox. Standard library only.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from sessions.payload import pipconfig
from sessions.shared import disk, knowledge, programs
from sessions.shared.errors import ENVIRONMENT

LOCK = Path(__file__).parent.parent / "data" / "locks" / "runtime.txt"
# Do not import modules from the current folder or from the user's packages.
FLAGS = ("-P", "-s")
_INSTALLED = "installed.txt"  # in the venv: the names of its *.dist-info folders
# The variable with the words that the user typed before -s, for this process and its children.
COMMAND = "BLACKWHEEL_COMMAND"
_HARMLESS = frozenset(
    {"PYTHONUTF8", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHON_KEYRING_BACKEND"}
)


def enter(root: Path) -> None:
    """Return if this process runs in the project's venv; otherwise continue there, never return."""
    _open_streams()
    if sys.platform != "win32" and (problem := low_limit()):
        _refuse(problem)
    lock = LOCK.read_bytes()
    base = getattr(sys, "_base_executable", sys.executable)
    python_is = f"{sys.version} {Path(base).resolve()}"
    digest = hashlib.sha256(lock + python_is.encode()).hexdigest()
    venv = root / ".nox" / f"blackwheel-{digest[:12]}"
    env = environment(os.environ)
    if Path(sys.prefix).resolve() == venv.resolve() and isolated(env):
        return
    if sys.platform == "win32" and (problem := too_deep(str(root))):
        _refuse(problem)
    python = _python(venv)
    try:
        if why := damage(venv):
            if venv.exists():
                print(f"blackwheel: {venv} is made again: {why}", flush=True)
            _make(venv, env)
    except OSError as error:
        _refuse(
            f"blackwheel: {venv} cannot be made: {error}\nFix: free some disk space, "
            "make this folder writable for you, or work in a folder of your own."
        )
    if folder := invoked_from(root, sys.argv[1:], os.environ.get("PWD", "")):
        os.chdir(folder)
    words = [*FLAGS, str(root / "noxfile.py"), *arguments(sys.argv[1:])]
    env[COMMAND] = called(sys.orig_argv, sys.argv)
    if sys.platform == "win32":
        # Windows has no exec: the shell would not wait for the program that takes over.
        sys.exit(programs.inherit([str(python), *words], env=env))
    os.execve(python, [str(python), *words], env)


def _refuse(text: str) -> NoReturn:
    """Print a text and exit with code ENVIRONMENT."""
    print(text, file=sys.stderr, flush=True)
    raise SystemExit(ENVIRONMENT)


# Limit -> its option of ulimit, its meaning, the least that a build needs, and the value to set if
# the system allows it (-1: no limit).
_LIMITS = {
    "RLIMIT_NOFILE": ("n", "open files", 64, 1024),
    "RLIMIT_STACK": ("s", "stack", 1 << 20, 8 << 20),
    "RLIMIT_FSIZE": ("f", "size of a file", 1 << 30, -1),
    "RLIMIT_AS": ("v", "memory of a process", 2 << 30, -1),
}


def low_limit() -> str | None:
    """Raise this process's limits; return a message if a build needs more than the system allows.

    A compiler or Python that meets a limit ends without a message about it.
    """
    import resource

    for name, (option, what, least, enough) in _LIMITS.items():
        kind = getattr(resource, name)
        soft, hard = resource.getrlimit(kind)
        new = hard if enough < 0 or -1 < hard < enough else max(soft, enough)
        if soft not in (-1, new):
            resource.setrlimit(kind, (new, hard))
        if -1 < hard < least:
            return (
                f"blackwheel: the limit on {what} is too low here: {hard}; a build needs {least}.\n"
                f"Fix: raise it (ulimit -{option}), where it was set: this shell, its "
                "profile, /etc/security/limits.conf or the container's options."
            )
    return None


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without the variables of Python and nox.

    They say where modules are (PYTHONPATH, PYTHONHOME, PYTHONUSERBASE) or are options of nox
    (NOXSESSION, NOX_DEFAULT_VENV_BACKEND).
    """
    foreign = ("PYTHON", "NOX")
    kept = {n: v for n, v in env.items() if n in _HARMLESS or not n.upper().startswith(foreign)}
    return {**kept, "NOX_SCRIPT_MODE": "none"}


def isolated(env: Mapping[str, str]) -> bool:
    """Whether ``enter`` started this process, with the environment ``env``."""
    return bool(sys.flags.safe_path) and env == dict(os.environ)


def _open_streams() -> None:
    """Open stdin, stdout and stderr if they are closed, or the next open file would become one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def damage(venv: Path) -> str:
    """What is missing in our venv; "" if it is complete. Compares names and sizes: about 20 ms."""
    if not _python(venv).exists():
        return "it has no Python that is still there"
    try:
        installed = (venv / _INSTALLED).read_text(encoding="utf-8").splitlines()
        for name in installed:
            record = _packages(venv) / name / "RECORD"
            for path, _, size in csv.reader(record.read_text(encoding="utf-8").splitlines()):
                if size and (_packages(venv) / path).stat().st_size != int(size):
                    return f"{path} is not the file that was installed"
    except (OSError, ValueError) as error:
        return str(error)
    return "" if any(name.startswith("nox-") for name in installed) else "it has no nox"


def _packages(venv: Path) -> Path:
    if sys.platform == "win32":
        return venv / "Lib" / "site-packages"
    return venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def too_deep(root: str) -> str | None:
    """A message if the path of the checkout is too long for a build on Windows; else None.

    ``probe`` checks all folders, but needs the venv.
    """
    known = knowledge.load("windows.toml")["paths"]
    longest = len(root) + 1 + known["checkout"]
    if longest <= known["limit"]:
        return None
    return (
        f"blackwheel: {root} is too deep for Windows' programs: it is {len(root)} characters long, "
        f"a path below it would be {longest}, and {known['limit']} is the greatest length.\n"
        "Fix: move this folder to a short path, for example C:\\bw"
    )


def arguments(words: Sequence[str]) -> list[str]:
    """The command line without ``-f``: nox has already changed to the noxfile's folder."""
    return _without_noxfile(words)[0]


def _without_noxfile(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words without ``-f FILE`` before ``--``, and the words of that option."""
    kept: list[str] = []
    named: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*kept, word, *rest], named
        if word in ("-f", "--noxfile"):
            named += [word, *itertools.islice(rest, 1)]
        else:
            (named if word.startswith("--noxfile=") else kept).append(word)
    return kept, named


def invoked_from(root: Path, words: Sequence[str], pwd: str) -> Path | None:
    """The user's folder, if nox changed from it to the noxfile's folder; else None.

    nox does so only with ``-f``. ``pwd`` is the shell's PWD.
    """
    _, named = _without_noxfile(words)
    here = Path.cwd().resolve() == root.resolve()
    return Path(pwd) if named and here and pwd and Path(pwd).is_dir() else None


def command() -> str:
    """How the user started this program, for messages: "python3 noxfile.py"."""
    return os.environ.get(COMMAND, "nox")


def called(line: Sequence[str], words: Sequence[str]) -> str:
    """The words that the user typed before nox's options: "python3 noxfile.py", "nox -f FILE".

    ``line`` is sys.orig_argv, ``words`` is sys.argv.
    """
    start = list(line[: len(line) - len(words) + 1])
    if Path(words[0]).stem == "nox":  # a script; the system puts the path of its Python first
        start = [_short(words[0])]
    elif Path(start[0]).is_absolute() and sys.prefix == sys.base_prefix:
        short = _short(start[0])
        if sys.platform == "win32" and short == start[0]:  # started by py
            start[:1] = ["py", f"-{sys.version_info.major}.{sys.version_info.minor}"]
        else:
            start[0] = short
    if Path(words[0]).name != "noxfile.py":
        start += _without_noxfile(words)[1]
    return programs.typed(start)


def _short(program: str) -> str:
    """The name of a program if PATH leads to it, directly or by a shim of pyenv; else its path."""
    name = Path(program).stem if sys.platform == "win32" else Path(program).name
    typed = shutil.which(name)
    if not typed or not Path(program).exists():
        return program
    same = Path(typed).parent.name == "shims" or Path(typed).samefile(program)
    return name if same else program


def _python(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _sweep(folder: Path) -> None:
    """Delete the incomplete venvs of killed runs. A running process has its own locked."""
    for part in folder.glob("blackwheel-*.*"):
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # the rename fails while a program in the folder runs
                part = part.rename(part.with_name(f"{part.name}.gone"))
            else:
                _hold(part)
            shutil.rmtree(part)


def _hold(part: Path) -> None:
    """Lock a folder until this process ends. Raises OSError if another process has the lock."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(os.open(part, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _make(venv: Path, env: Mapping[str, str]) -> None:
    """Create the venv under a temporary name and rename it, because two runs may do so at once."""
    print("blackwheel: installing what the sessions need into .nox (once)", flush=True)
    venv.parent.mkdir(exist_ok=True)
    _sweep(venv.parent)
    part = Path(tempfile.mkdtemp(prefix=f"{venv.name}.", dir=venv.parent))
    with contextlib.suppress(OSError):  # a file system without locks
        _hold(part)
    python = str(_python(part))
    try:
        _run([sys.executable, "-I", "-m", "venv", str(part)], env, "make a venv")
        listed = _run([python, *pipconfig.LIST], env, "read pip's settings")
        command = [python, "-I", "-m", "pip", "install", "--no-deps", "--require-hashes"]
        command += ["-r", str(LOCK), "--quiet", "--disable-pip-version-check"]
        settings = pipconfig.environment(env, listed, "install")
        _run(command, settings, "install the sessions' requirements")
        infos = sorted(path.name for path in _packages(part).glob("*.dist-info"))
        (part / _INSTALLED).write_text("".join(f"{n}\n" for n in infos), encoding="utf-8")
        if why := damage(part):
            _refuse(
                f"blackwheel: pip says that it installed the sessions' requirements, but {why}\n"
                f"Fix: check pip's settings: {sys.executable} -m pip config list"
            )
        if venv.exists() and damage(venv):
            disk.put(venv, part / "before")
        try:
            disk.put(part, venv)
        except OSError:
            if damage(venv):  # otherwise another run was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(venv / "before", ignore_errors=True)


def _run(command: Sequence[str], env: Mapping[str, str], what: str) -> str:
    done = programs.capture(command, env={**env, "PYTHONUTF8": "1"})
    if done.returncode:
        short = ".".join(map(str, sys.version_info[:2]))
        _refuse(
            f"blackwheel: {sys.executable} could not {what}:\n{done.output.rstrip()}\n"
            f"Fix: install Python {short} with its venv module (Debian, Ubuntu: "
            f"apt install python{short}-venv), and check the network and pip's settings "
            "(pip config list)."
        )
    return done.stdout
