"""Cache servers on loopback, and build servers in network namespaces, as in docs/scaling.md.

Each is a context manager: it yields the environment variables for a build, and stops its servers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sessions.shared import programs

CLIENT = "10.77.0.1"  # the address of the builder and the scheduler for the build servers
BRIDGE = "bw-scaling"

NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/part;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/store;
        client_max_body_size 1g;
        create_full_put_path on;
        dav_methods PUT DELETE;
    }}
}}
{user}
"""

SCHEDULER = """
public_addr = "{address}:10600"

[client_auth]
type = "token"
token = "{client}"

[server_auth]
type = "jwt_hs256"
secret_key = "{secret}"
"""

SERVER = """
cache_dir = "{folder}/toolchains"
public_addr = "{address}:10501"
scheduler_url = "http://{scheduler}:10600"

[builder]
type = "overlay"
build_dir = "{folder}/build"
bwrap_path = "{bwrap}"

[scheduler_auth]
type = "jwt_token"
token = "{token}"
"""

BUILDER = """
[dist]
scheduler_url = "http://{scheduler}:10600"
cache_dir = "{folder}/toolchains-sent"

[dist.auth]
type = "token"
token = "{client}"
"""


def program(name: str) -> str:
    """The path of a program. Raises RuntimeError if it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        raise RuntimeError(
            f"there is no {name}: apt install redis-server nginx bubblewrap iproute2 util-linux"
        )
    return found


def sccache_dist(configured: Path) -> str:
    """The path of sccache-dist among the build tools in a checkout's ``configure.json``."""
    path = json.loads(configured.read_text())["configure"]["variables"]["PATH"]
    found = shutil.which("sccache-dist", path=path)
    if found is None:
        raise RuntimeError(f"there is no sccache-dist in {path}")
    return found


@contextlib.contextmanager
def running(
    words: list[str],
    log: Path,
    port: int,
    *,
    host: str = "127.0.0.1",
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the with statement; enters it when the server listens.

    The server also ends with this process, because it would otherwise answer the next run. Raises
    RuntimeError if it does not listen.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [program("setpriv"), "--pdeathsig", "KILL", *words],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
    listens = False
    try:
        for _ in range(300):
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
                listens = process.poll() is None  # otherwise another process listens
                break
            time.sleep(0.1)
        if not listens:
            output = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{words[0]} does not listen at {host}:{port}: {output}")
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[dict[str, str]]:
    """A Redis server with a password, as ccache's remote storage."""
    folder.mkdir(parents=True, exist_ok=True)
    port, password = programs.free_port(), secrets.token_hex(8)
    words = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    words += ["--requirepass", password, "--dir", str(folder)]
    with running(words, folder / "redis.log", port):
        yield {"CCACHE_REMOTE_STORAGE": f"redis://{password}@127.0.0.1:{port}"}


@contextlib.contextmanager
def http(folder: Path) -> Iterator[dict[str, str]]:
    """An nginx server with WebDAV, as ccache's remote storage."""
    (folder / "store").mkdir(parents=True, exist_ok=True)
    port = programs.free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(NGINX.format(folder=folder, port=port, user=user))
    words = [program("nginx"), "-c", str(config), "-e", str(folder / "error.log")]
    with running(words, folder / "nginx.log", port):
        yield {"CCACHE_REMOTE_STORAGE": f"http://127.0.0.1:{port}/ccache"}


@contextlib.contextmanager
def s3(folder: Path, python: str = sys.executable) -> Iterator[dict[str, str]]:
    """nanio (PyPI), an S3 server that stores plain files, for sccache."""
    (folder / "store" / "blackwheel").mkdir(parents=True, exist_ok=True)
    port, key, secret = programs.free_port(), "builder", secrets.token_hex(16)
    words = [python, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--data-dir", str(folder / "store"), "--no-access-log"]
    env = {"NANIO_ACCESS_KEY": key, "NANIO_SECRET_KEY": secret}
    with running(words, folder / "nanio.log", port, env=env):
        yield {
            "SCCACHE_BUCKET": "blackwheel",
            "SCCACHE_ENDPOINT": f"http://127.0.0.1:{port}",
            "SCCACHE_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
        }


@dataclass
class Cluster:
    """Build servers: the environment to use them, and their processes by address."""

    folder: Path
    env: dict[str, str]
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def kill(self, address: str) -> None:
        """Kill a build server and its compilers, like a loss of power."""
        _kill(f"{BRIDGE}-{address.rpartition('.')[2]}")
        self.servers.pop(address).wait()

    def given(self, address: str) -> int:
        """The number of compilations that a server has received, from its log."""
        text = (self.folder / address / "log").read_text(errors="replace")
        return text.count("Performing build in ")


@contextlib.contextmanager
def build_servers(folder: Path, sccache_dist: str, count: int) -> Iterator[Cluster]:
    """A scheduler, and ``count`` build servers with one CPU core in a network namespace each."""
    folder.mkdir(parents=True, exist_ok=True)
    client = secrets.token_hex(16)
    secret = _output(sccache_dist, "auth", "generate-jwt-hs256-key")
    config = folder / "builder.toml"
    config.write_text(BUILDER.format(scheduler=CLIENT, folder=folder, client=client))
    scheduler = folder / "scheduler.toml"
    scheduler.write_text(SCHEDULER.format(address=CLIENT, client=client, secret=secret))
    cluster = Cluster(folder, {"SCCACHE_CONF": str(config)})
    daemon = {"SCCACHE_NO_DAEMON": "1", "SCCACHE_LOG": "info,sccache_dist=debug"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(network(count))
        words = [sccache_dist, "scheduler", "--config", str(scheduler)]
        stack.enter_context(
            running(words, folder / "scheduler.log", 10600, host=CLIENT, env=daemon)
        )
        for number in range(count):
            address = f"10.77.0.{11 + number}"
            home = folder / address
            home.mkdir(exist_ok=True)
            token = _output(
                *(sccache_dist, "auth", "generate-jwt-hs256-server-token"),
                *(f"--secret-key={secret}", "--server", f"{address}:10501"),
            )
            text = SERVER.format(
                folder=home, address=address, scheduler=CLIENT, bwrap=program("bwrap"), token=token
            )
            (home / "server.toml").write_text(text)
            core = sorted(os.sched_getaffinity(0))[number % len(os.sched_getaffinity(0))]
            words = ["ip", "netns", "exec", f"{BRIDGE}-{11 + number}", "taskset", "-c", str(core)]
            words += [sccache_dist, "server", "--config", str(home / "server.toml")]
            cluster.servers[address] = stack.enter_context(
                running(words, home / "log", 10501, host=address, env=daemon)
            )
        _wait_for(cluster, count)
        yield cluster


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def _wait_for(cluster: Cluster, count: int) -> None:
    """Wait until the scheduler knows all servers. Raises RuntimeError after 20 seconds."""
    url = f"http://{CLIENT}:10600/api/v1/scheduler/status"
    answer = b""
    for _ in range(100):
        with contextlib.suppress(urllib.error.URLError):
            with urllib.request.urlopen(url, timeout=5) as response:
                answer = response.read()
            # In bincode the number of servers comes first, in 8 bytes.
            if answer[:1] == bytes([count]):
                return
        time.sleep(0.2)
    raise RuntimeError(f"the scheduler does not know {count} servers: {answer!r}")


@contextlib.contextmanager
def network(count: int) -> Iterator[None]:
    """A bridge with namespaces at 10.77.0.11 and following; needs root. One run at a time.

    Leftovers of a run that was killed are removed first.
    """
    names = [f"{BRIDGE}-{11 + number}" for number in range(count)]
    with (Path(tempfile.gettempdir()) / f"{BRIDGE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove()
        try:
            _join(names)
            yield
        finally:
            _remove()


def _join(names: list[str]) -> None:
    _ip("link add", BRIDGE, "type bridge")
    _ip(f"addr add {CLIENT}/24 dev", BRIDGE)
    _ip("link set", BRIDGE, "up")
    for name in names:
        number = name.rpartition("-")[2]
        _ip("netns add", name)
        _ip(f"link add bw{number} type veth peer name eth0 netns", name)
        _ip(f"link set bw{number} up master", BRIDGE)
        _ip("-n", name, f"addr add 10.77.0.{number}/24 dev eth0")
        _ip("-n", name, "link set eth0 up")
        _ip("-n", name, "link set lo up")


def _remove() -> None:
    """Remove our namespaces with their processes, and the bridge."""
    for line in _output(program("ip"), "netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(f"{BRIDGE}-"):
            _kill(name)
            _ip("netns del", name)
    for link in _output(program("ip"), "-o", "link").splitlines():
        name = link.split()[1].rstrip(":").split("@")[0]
        if re.fullmatch(rf"{BRIDGE}|bw\d+", name):
            # The end of a veth pair disappears with its namespace, but not immediately.
            subprocess.run([program("ip"), "link", "del", name], check=False, capture_output=True)


def _kill(namespace: str) -> None:
    for pid in _output(program("ip"), "netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)


def _ip(*words: str) -> None:
    subprocess.run([program("ip"), *" ".join(words).split()], check=True)
