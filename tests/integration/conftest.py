"""The whole pipeline on a small upstream, with real nox, pip, cmake, ninja, gcc and auditwheel.

Every test has its own copy of the project, in a folder whose name has a space and a non-ASCII
letter. The venvs of nox and of the build tools, and the compiler cache, exist once per session.
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
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MINI = REPOSITORY / "tests" / "data" / "mini-upstream"
ODD = "black wheel ñ"
MODULES = ("libggml-cpu-haswell.so", "libggml-cpu-x64.so")
LIBRARIES = ("libggml-base.so", *MODULES, "libggml.so", "libllama.so", "libmtmd.so")
SOURCES = 15  # number of files that a build of the small upstream compiles

# The variables of the caller that are needed to reach a package index.
_KEPT = ("HOME", "USER", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_KEPT_PREFIXES = ("PIP_", "XDG_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Ran:
    """A run of nox that has ended; ``output`` is stdout and stderr."""

    code: int
    output: str
    seconds: float

    def well(self) -> Ran:
        """It succeeded."""
        assert self.code == 0, self.output
        return self

    def badly(self, *words: str) -> Ran:
        """It failed with a message that has a remedy and these words, not with a traceback."""
        assert self.code != 0, f"should have failed:\n{self.output}"
        for word in ("Traceback", "A bug of blackwheel"):
            assert word not in self.output, self.output
        for word in ("Fix: ", *words):
            assert word in self.output, f"{word!r} is not in:\n{self.output}"
        return self


@dataclass
class Running:
    """A run of nox that has not ended. Its output goes to a file, because a pipe could block it."""

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
        """Start ``nox -s SESSION -- OPTIONS`` in its own process group."""
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
                # A shell without job control starts its children with SIGINT ignored.
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
        """A user's checkout of the small upstream. Another name gives another target."""
        path = self.root.parent / name
        shutil.copytree(MINI, path)
        return Checkout(path, self)


@dataclass(frozen=True)
class Checkout:
    """A user's source, and the folders of its target."""

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
        """The only wheel of the target. The folder also contains its record, and nothing else."""
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
        """The source files that the last build compiled, according to its log."""
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
    """A g++ and gcc that run the real ones, and can pause at llama-vocab.cpp."""

    folder: Path

    @property
    def options(self) -> tuple[str, ...]:
        # Without a compiler cache, so that every file reaches the compiler.
        return ("--compiler", str(self.folder / "g++"), "--cache", "none", "--jobs", "2")

    def slow(self, seconds: int) -> None:
        (self.folder / "seconds").write_text(str(seconds))

    def quick(self) -> None:
        (self.folder / "seconds").unlink()

    def wait_until_half_way(self, running: Running, tree: Path) -> psutil.Process:
        """Wait until some other files have been compiled; return the process that pauses."""
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
    """Relative path -> digest and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (sha256(path.read_bytes()), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that contain the path of the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder) in " ".join(words):
            found.append(" ".join(words))
    return found


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants with SIGKILL, and wait for the descendants.

    Each is suspended before its children are listed, because ninja would start another one.
    """
    family = [psutil.Process(pid)]
    for process in family:  # the loop appends to it
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
    """The path of a program that these tests need."""
    found = shutil.which(name, path=path)
    if found is None:
        pytest.fail(f"the integration tests need {name}: install it and put it on PATH ({path})")
    return found


def copy_project(root: Path, compiled: Path = REPOSITORY) -> None:
    """Copy the files of the project that git tracks, as a fresh clone.

    ``compiled`` is a copy that has run: its bytecode is copied too, which saves time.
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
    """A clean environment: this Python, the system's programs, a cache of the session."""
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
    """The small upstream, built once from nothing. Tests must not change it."""
    root = tmp_path_factory.mktemp("built") / ODD
    copy_project(root)
    checkout = Project(root, environment).checkout()
    before = snapshot(checkout.path)
    # This creates the venvs of nox and of the tools: minutes with a slow network.
    checkout.start().end(timeout=600).well()
    assert snapshot(checkout.path) == before, "the user's checkout was changed"
    return checkout


@pytest.fixture
def project(built: Checkout, tmp_path: Path) -> Project:
    """A fresh copy for one test, with the session's venv of nox."""
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
    """A cache for one test, because the session's cache may contain what the test downloads."""
    return tmp_path / "empty cäche"


@pytest.fixture
def tools_alone(project: Project, empty_cache: Path) -> Path:
    """A cache with the session's build tools and nothing else."""
    session = Path(project.env["BLACKWHEEL_CACHE"])
    empty_cache.mkdir()
    for path in (session / "CACHEDIR.TAG", *session.glob("tools-*")):
        (empty_cache / path.name).symlink_to(path)
    return empty_cache


Serve = Callable[..., Mapping[str, str]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a package index with one file; returns the environment that points pip to it.

    The index announces ``size`` bytes. If that is more than ``data`` it then closes the connection,
    or with ``stalls`` keeps it open.
    """
    ended = threading.Event()
    servers: list[ThreadingHTTPServer] = []

    def start(name: str, data: bytes, *, size: int = 0, stalls: bool = False) -> Mapping[str, str]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                file = self.path.endswith(name)
                body = data if file else f'<a href="{name}">{name}</a>'.encode()
                self.send_response(200)
                kind = "application/octet-stream" if file else "text/html"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str((file and size) or len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)
                    if file and stalls:
                        ended.wait()

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pip = {"NO_INDEX": "1", "NO_CACHE_DIR": "1", "RETRIES": "0"}
        pip["FIND_LINKS"] = f"http://127.0.0.1:{server.server_port}/"
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
        return direct | {f"PIP_{option}": value for option, value in pip.items()}

    yield start
    ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


Mounted = Callable[..., tuple[str, ...]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Mounted:
    """Makes a prefix for a command, with which ``folder`` is a small disk during the command.

    ``listing`` gets the names of the files that are on the disk at the end.
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
            f"a full disk is simulated with a small tmpfs, which this machine refuses: "
            f"{tried.stderr.strip()}. Run these tests as root, or in a container with "
            "--privileged, or allow user namespaces (sysctl user.max_user_namespaces=10000; "
            "Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
        )

    def prefix(folder: Path, size: str, listing: Path) -> tuple[str, ...]:
        folder.mkdir(parents=True, exist_ok=True)
        return (*unshare, "sh", str(script), str(folder), size, str(listing))

    return prefix
