"""The real chain on a miniature upstream: real nox, pip, cmake, ninja, gcc and auditwheel.

Every test has a copy of the project of its own, in a folder with a space and a letter beyond
ASCII. The venvs of nox and of the build tools, and the compiler cache, are made once a session.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MINI = REPOSITORY / "tests" / "data" / "mini-upstream"
ODD = "black wheel ñ"
MODULES = ("libggml-cpu-haswell.so", "libggml-cpu-x64.so")
LIBRARIES = ("libggml-base.so", *MODULES, "libggml.so", "libllama.so", "libmtmd.so")
SOURCES = 15  # files of the miniature that a build compiles

# Of the caller's environment, only what reaching a package index may need.
_KEPT = ("HOME", "USER", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_KEPT_PREFIXES = ("PIP_", "XDG_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Ran:
    """A run of nox that has ended; ``output`` is stdout and stderr as one text."""

    code: int
    output: str
    seconds: float

    def well(self) -> Ran:
        assert self.code == 0, self.output
        return self

    def badly(self, *words: str) -> Ran:
        """Failed as a tool should: a message with a remedy, no traceback, no "bug of ours"."""
        assert self.code != 0, f"should have failed:\n{self.output}"
        assert "Traceback" not in self.output, self.output
        assert "A bug of blackwheel" not in self.output, self.output
        assert "Fix: " in self.output, self.output
        for word in words:
            assert word in self.output, f"{word!r} is not in:\n{self.output}"
        return self


@dataclass
class Running:
    """A run of nox that goes on; its output goes to a file, so that no pipe can block it."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self, timeout: float = 120) -> Ran:
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            kill_tree(self.process.pid)
            pytest.fail(f"nox did not end within {timeout} s:\n{self.output}")
        return Ran(code, self.output, time.monotonic() - self.started)


@dataclass(frozen=True)
class Project:
    """A copy of the project, and a clean environment to run it in."""

    root: Path
    env: Mapping[str, str]

    def start(
        self,
        session: str,
        *options: str,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        python: str = sys.executable,
    ) -> Running:
        """``nox -s SESSION -- OPTIONS`` in a process group of its own."""
        number = len(list(self.root.parent.glob("nox-*.log")))
        log = self.root.parent / f"nox-{number}.log"
        command = [*prefix, python, str(self.root / "noxfile.py"), "-s", session]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*command, "--", *options],
                cwd=self.root,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A shell without job control starts its children with Ctrl-C ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        return Running(process, log)

    def nox(
        self,
        session: str,
        *options: str,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Ran:
        return self.start(session, *options, env=env, prefix=prefix).end()

    def at(self, root: Path) -> Project:
        return dataclasses.replace(self, root=root)

    def checkout(self, name: str = "mini") -> Checkout:
        """A user's own checkout of the miniature; a name of its own gives a target of its own."""
        path = self.root.parent / name
        shutil.copytree(MINI, path)
        return Checkout(path, self)


@dataclass(frozen=True)
class Checkout:
    """A user's source, and what the project makes of it."""

    path: Path
    project: Project

    @property
    def label(self) -> str:
        return f"cpu+source-{self.path.name}"

    @property
    def options(self) -> tuple[str, ...]:
        return ("--target", "cpu", "--source", str(self.path))

    @property
    def build(self) -> Path:
        return self.project.root / "build" / self.label

    @property
    def wheels(self) -> Path:
        return self.project.root / "wheels" / self.label

    @property
    def wheel(self) -> Path:
        """The one wheel of the target; everything else in the folder is its record."""
        (wheel,) = self.wheels.glob("*.whl")
        assert sorted(p.name for p in self.wheels.iterdir()) == [wheel.name, "wheel.json"]
        with zipfile.ZipFile(wheel) as archive:
            assert archive.testzip() is None
        return wheel

    @property
    def record(self) -> dict[str, Any]:
        text = (self.wheels / "wheel.json").read_text(encoding="utf-8")
        record: dict[str, Any] = json.loads(text)["wheel"]
        assert record["file"] == self.wheel.name
        assert record["sha256"] == sha256(self.wheel.read_bytes())
        return record

    def compiled(self) -> list[str]:
        """The source files that the last build compiled, from its log."""
        log = (self.build / "wheel.log").read_text(encoding="utf-8")
        return re.findall(r"^\[\d+/\d+\] Building CX*X? object \S*/(\S+)\.o$", log, re.MULTILINE)

    def member(self, name: str) -> bytes:
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.read(name)

    def libraries(self) -> dict[str, bytes]:
        return {name: self.member(f"llama_cpp/lib/{name}") for name in LIBRARIES}

    def nox(self, *options: str, env: Mapping[str, str] | None = None) -> Ran:
        return self.project.nox("wheel", *self.options, *options, env=env)

    def start(self, *options: str) -> Running:
        return self.project.start("wheel", *self.options, *options)

    def edit(self, relative: str, old: str, new: str) -> None:
        path = self.path / relative
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")


@dataclass(frozen=True)
class SlowCompiler:
    """A g++ and gcc that run the real ones, but stop for a while at llama-vocab.cpp if told to."""

    folder: Path

    @property
    def options(self) -> tuple[str, ...]:
        # Without a compiler cache: a file that it has would never reach the compiler.
        return ("--compiler", str(self.folder / "g++"), "--cache", "none", "--jobs", "2")

    def slow(self, seconds: int) -> None:
        (self.folder / "seconds").write_text(str(seconds))

    def quick(self) -> None:
        (self.folder / "seconds").unlink()

    def wait_until_half_way(self, running: Running, tree: Path) -> psutil.Process:
        """Return the compiler that stops, once some of the other files have been compiled."""
        pid = self.folder / "pid"
        for _ in range(600):
            if pid.exists() and pid.read_text().strip() and len(list(tree.rglob("*.o"))) > 4:
                return psutil.Process(int(pid.read_text()))
            assert running.process.poll() is None, running.output
            time.sleep(0.1)
        kill_tree(running.process.pid)
        pytest.fail(f"the slow compiler was never called:\n{running.output}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (sha256(path.read_bytes()), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def processes_of(folder: Path) -> list[str]:
    """Command lines of every living process that names the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder) in " ".join(words):
            found.append(" ".join(words))
    return found


def kill_tree(pid: int) -> None:
    """Kill -9 of everything at once: a process and all that it started, and those started.

    Each stands still before its children are listed, as ninja would begin another one meanwhile;
    and all but the first, whose end is its starter's to hear of, are gone in the end.
    """
    family = [psutil.Process(pid)]
    for process in family:  # which grows
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            for _ in range(200):
                if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                    break
                time.sleep(0.005)
            family += process.children()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family[1:], timeout=10)


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def which(name: str, path: str) -> str:
    """A program that these tests cannot do without."""
    found = shutil.which(name, path=path)
    if found is None:
        pytest.fail(f"the integration tests need {name}: install it and put it on PATH ({path})")
    return found


def copy_project(root: Path, compiled: Path = REPOSITORY) -> None:
    """What git has of the project, and no more: a fresh clone.

    ``compiled`` is a clone that was run: Python need not compile its modules for each test.
    """
    root.mkdir()
    for name in ("noxfile.py", "pyproject.toml", "targets.toml"):
        shutil.copy2(REPOSITORY / name, root)
    unwanted = shutil.ignore_patterns("__pycache__") if compiled == REPOSITORY else None
    shutil.copytree(compiled / "sessions", root / "sessions", ignore=unwanted)
    for folder in ("llama-cpp-python-src", "wheels"):
        readme = REPOSITORY / folder / "README.md"
        if readme.exists():
            (root / folder).mkdir()
            shutil.copy2(readme, root / folder)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A clean environment: this Python, the system, a cache of the session's own."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES) or name.upper() in _PROXIES
    }
    python = which("python3.11", f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}")
    gxx = which("g++", os.environ["PATH"])
    folders = [str(Path(program).parent) for program in (python, gxx)]
    env["PATH"] = ":".join(dict.fromkeys([*folders, "/usr/bin", "/bin"]))
    env["LANG"] = "C.UTF-8"
    env["BLACKWHEEL_CACHE"] = str(tmp_path_factory.mktemp("cache") / "cäche of the session")
    return env


@pytest.fixture(scope="session")
def built(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The miniature, built once from nothing. Not to be changed by a test."""
    root = tmp_path_factory.mktemp("built") / ODD
    copy_project(root)
    checkout = Project(root, environment).checkout()
    before = snapshot(checkout.path)
    # The venvs of nox and of the tools are made here: minutes, where the network is slow.
    checkout.start().end(timeout=600).well()
    assert snapshot(checkout.path) == before, "the user's checkout was changed"
    return checkout


@pytest.fixture
def project(built: Checkout, tmp_path: Path) -> Project:
    """A fresh clone for one test, with the session's venv of nox."""
    root = tmp_path / ODD
    copy_project(root, built.project.root)
    (root / ".nox").symlink_to(built.project.root / ".nox")
    return Project(root, built.project.env)


@pytest.fixture
def mini(project: Project) -> Checkout:
    return project.checkout()


@pytest.fixture
def slow_compiler(environment: dict[str, str], tmp_path: Path) -> Iterator[SlowCompiler]:
    folder = tmp_path / "slow compiler"
    for name in ("g++", "gcc"):
        real = which(name, environment["PATH"])
        write_program(
            folder / name,
            f"""#!/bin/sh
here=$(dirname "$0")
case "$*" in
*llama-vocab.cpp.o*)
    if [ -e "$here/seconds" ]; then
        echo $$ > "$here/pid"
        sleep "$(cat "$here/seconds")"
    fi ;;
esac
exec {real} "$@"
""",
        )
    yield SlowCompiler(folder)
    pid = folder / "pid"
    if pid.exists() and psutil.pid_exists(int(pid.read_text())):
        kill_tree(int(pid.read_text()))


@pytest.fixture
def empty_cache(tmp_path: Path) -> Path:
    """Of this test only: the session's may hold what is to be fetched here."""
    return tmp_path / "empty cäche"


@pytest.fixture
def tools_alone(project: Project, empty_cache: Path) -> Path:
    """A cache that has the session's build tools, and nothing that was fetched for a target."""
    session = Path(project.env["BLACKWHEEL_CACHE"])
    empty_cache.mkdir()
    for path in (session / "CACHEDIR.TAG", *session.glob("tools-*")):
        (empty_cache / path.name).symlink_to(path)
    return empty_cache


Mounted = Callable[..., tuple[str, ...]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Mounted:
    """Words to put before a command, for which ``folder`` then is a disk of its own, and small.

    The disk exists for that command only and goes with it; ``listing`` gets the names of the
    files that were on it in the end.
    """
    script = tmp_path / "small-disk.sh"
    script.write_text(
        """set -e
folder=$1 size=$2 listing=$3; shift 3
mount -t tmpfs -o "size=$size" small "$folder"
set +e
"$@"
code=$?
(cd "$folder" && find . -type f) > "$listing"
exit $code
"""
    )
    root = os.geteuid() == 0
    unshare = ["unshare", "--mount", *([] if root else ["--map-root-user"])]
    (tmp_path / "try").mkdir()
    words = ["sh", str(script), str(tmp_path / "try"), "64k", str(tmp_path / "listing"), "true"]
    tried = subprocess.run([*unshare, *words], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.fail(
            f"a full disk is played with a small tmpfs, which this machine refuses: "
            f"{tried.stderr.strip()}. Run these tests as root, or in a container with "
            "--privileged, or allow user namespaces (sysctl user.max_user_namespaces=10000; "
            "Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
        )

    def prefix(folder: Path, size: str, listing: Path) -> tuple[str, ...]:
        folder.mkdir(parents=True, exist_ok=True)
        return (*unshare, "sh", str(script), str(folder), size, str(listing))

    return prefix
