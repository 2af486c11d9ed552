"""Measures the effect of shared caches and build servers on one machine, for docs/scaling.md.

    python -m lab.measure shared --cold --work DIR --cache DIR --out FILE
    python -m lab.measure shared --warm CCACHE_DIR --work DIR --cache DIR --out FILE
    python -m lab.measure dist --servers N --work DIR --cache DIR --out FILE
    python -m lab.model DIR/cold-steps.json [--physical 2]

``--cache`` is a BLACKWHEEL_CACHE with toolkit and build tools; its compiler caches are not used.
``--cold`` first builds without a cache, which takes long, and fills A's ccache; without it
``--warm`` is A's ccache. ``dist`` needs root and the programs of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import cluster
from sessions.shared import programs

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Builder:
    """A checkout of the project, and the environment variables of its runs."""

    root: Path
    target: str
    env: Mapping[str, str]

    def nox(self, session: str, *options: str, env: Mapping[str, str] | None = None) -> float:
        """Run a session and return its seconds. Raises RuntimeError if it fails."""
        words = [sys.executable, "noxfile.py", "-s", session, "--", "--target", self.target]
        start = time.monotonic()
        done = subprocess.run(
            [*words, *options],
            cwd=self.root,
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{session} failed:\n{done.stdout[-4000:]}")
        for line in done.stdout.splitlines():
            if line.startswith(("✓ wheel", "warning: ")):
                print(f"  {line}", flush=True)
        return round(time.monotonic() - start, 1)

    def wheel(self, *options: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Build the wheel, and return the seconds and the relevant values of its record."""
        seconds = self.nox("wheel", *options, env=env)
        path = self.root / "wheels" / self.target / "wheel.json"
        record = json.loads(path.read_text())["wheel"]
        keys = ("wall_seconds", "cpu_seconds", "cache", "timing", "sha256", "libraries")
        return {"session_seconds": seconds, **{key: record[key] for key in keys}}

    def record(self, stage: str) -> Path:
        return self.root / "build" / self.target / f"{stage}.json"


def checkout(root: Path, target: str, cache: Path, source: Path = REPOSITORY) -> Builder:
    """A new copy of the project after the session ``configure``."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in ("noxfile.py", "pyproject.toml", "targets.toml"):
        shutil.copy2(source / name, root)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "sessions", root / "sessions", ignore=ignored)
    kept = ("HOME", "USER", "PATH", "TMPDIR", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    env = {n: v for n, v in os.environ.items() if n in kept or n.startswith("PIP_")}
    builder = Builder(root, target, {**env, "BLACKWHEEL_CACHE": str(cache)})
    builder.nox("configure")
    return builder


def shared(args: argparse.Namespace) -> dict[str, Any]:
    """Builder A with a warm ccache fills each kind of store; B without a cache builds from it."""
    found: dict[str, Any] = {}
    local = {"CCACHE_DIR": str(args.warm or args.work / "cold-ccache")}
    a = checkout(args.work / "a", args.target, args.cache)
    if args.cold:
        shutil.rmtree(local["CCACHE_DIR"], ignore_errors=True)
        print("A, from nothing")
        found["cold"] = a.wheel(env=local)
        if found["cold"]["cache"]["hits"]:
            raise RuntimeError(f"that was not cold: {found['cold']['cache']}")
        shutil.copy2(a.record("steps"), args.work / "cold-steps.json")
        a = checkout(args.work / "a", args.target, args.cache)
    print("A, its own ccache")
    found["first"] = a.wheel(env=local)
    for name, store in (("redis", cluster.redis), ("http", cluster.http)):
        with store(args.work / name) as remote:
            print(f"{name}: A fills it")
            a.nox("clean", "--all")
            fill = a.wheel(env={**local, **remote, "CCACHE_RESHARE": "true"})
            shutil.rmtree(args.work / "empty", ignore_errors=True)
            b = checkout(args.work / "b", args.target, args.cache)
            print(f"{name}: B takes it")
            take = b.wheel(env={**remote, "CCACHE_DIR": str(args.work / "empty")})
        found[name] = {"fill": fill, "take": take, "same": take["sha256"] == fill["sha256"]}
    return found


def dist(args: argparse.Namespace) -> dict[str, Any]:
    """A uses build servers and fills an S3 store; B without a cache builds from the store.

    B has the same path and the same scheduler, because they influence the keys of sccache 0.16.
    """
    root, jobs = args.work / "s", args.jobs or 2 * args.servers
    a = checkout(root, args.target, args.cache)
    tools = cluster.sccache_dist(a.record("configure"))
    found: dict[str, Any] = {"servers": args.servers, "jobs": jobs}
    shutil.rmtree(args.work / "s3", ignore_errors=True)
    options = ("--cache", "sccache")
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(
            cluster.build_servers(args.work / "dist", tools, args.servers)
        )
        store = {"SCCACHE_DIR": str(args.work / "sccache")}
        if args.s3:
            store = stack.enter_context(cluster.s3(args.work / "s3", args.nanio))
        else:
            shutil.rmtree(store["SCCACHE_DIR"], ignore_errors=True)
        print("packing the compilers")
        sccache = Path(tools).with_name("sccache")
        found["packing_seconds"] = pack(a, servers.env, sccache, args.work)
        print(f"A, {args.servers} build servers")
        if args.kill_after:
            found["killed"] = doomed = next(iter(servers.servers))
            killer = threading.Timer(args.kill_after, servers.kill, [doomed])
            killer.start()
        found["dist"] = a.wheel(*options, "--jobs", str(jobs), env={**servers.env, **store})
        if args.kill_after:
            if killer.is_alive():
                killer.cancel()
                raise RuntimeError(f"the build ended before {doomed} was killed")
            if not found["dist"]["cache"]["dist_errors"]:
                raise RuntimeError(f"{doomed} had nothing to lose: {found['dist']['cache']}")
        (args.out.with_suffix(".part")).write_text(json.dumps(found, indent=2) + "\n")
        shutil.copy2(a.record("steps"), args.work / "dist-steps.json")
        if not args.s3:
            return found
        b = checkout(root, args.target, args.cache)
        print("B takes it from S3")
        found["s3"] = b.wheel(*options, env={**servers.env, **store})
    found["same"] = found["dist"]["sha256"] == found["s3"]["sha256"]
    return found


def pack(builder: Builder, env: Mapping[str, str], sccache: Path, work: Path) -> float:
    """Compile small files on the servers, so that sccache packs the compilers before the build.

    Each server receives them with its first job; that time is part of the build.
    """
    configured = json.loads(builder.record("configure").read_text())["configure"]
    settings = configured["settings"]
    own = {**configured["variables"], **env, "SCCACHE_DIR": str(work / "packing")}
    own["SCCACHE_SERVER_PORT"] = str(programs.free_port())
    folder = work / "packing"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.monotonic()
    try:
        for language, suffix in (("C", "c"), ("CXX", "cpp"), ("CUDA", "cu")):
            compiler = settings.get(f"cmake.define.CMAKE_{language}_COMPILER")
            if compiler is None:
                continue
            (folder / f"a.{suffix}").write_text("int f() { return 1; }\n")
            words = [str(sccache), compiler, "-c", f"a.{suffix}", "-o", f"{suffix}.o"]
            if language == "CUDA":
                host = settings["cmake.define.CMAKE_CUDA_HOST_COMPILER"]
                words += ["-ccbin", host, "-arch=sm_90"]
            subprocess.run(words, cwd=folder, env=own, check=True)
        words = [str(sccache), "--show-stats", "--stats-format=json"]
        stats = subprocess.run(words, env=own, check=True, capture_output=True).stdout
        if not json.loads(stats)["stats"]["dist_compiles"]:
            raise RuntimeError(f"nothing was compiled on a build server: {stats.decode()}")
    finally:
        subprocess.run([str(sccache), "--stop-server"], env=own, check=False, capture_output=True)
    return round(time.monotonic() - start, 1)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    p.add_argument("what", choices=("shared", "dist"))
    p.add_argument("--target", default="cpu")
    p.add_argument("--servers", type=int, default=2)
    p.add_argument("--jobs", type=int)
    p.add_argument("--kill-after", type=float, metavar="SECONDS")
    p.add_argument("--no-s3", dest="s3", action="store_false", help="dist: A only, and no store")
    p.add_argument("--cold", action="store_true", help="shared: build from nothing first")
    p.add_argument("--nanio", default=sys.executable, help="a Python that has nanio")
    for name in ("--work", "--cache", "--warm", "--out"):
        p.add_argument(name, type=lambda text: Path(text).resolve(), required=name != "--warm")
    args = p.parse_args()
    if args.what == "shared" and args.cold == bool(args.warm):
        p.error("shared takes --cold, or --warm CCACHE_DIR")
    args.work.mkdir(parents=True, exist_ok=True)
    found = {"target": args.target, **(shared(args) if args.what == "shared" else dist(args))}
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
