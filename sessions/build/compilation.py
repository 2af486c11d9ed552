"""Run the build: its progress, the compiler cache, and a check of what CMake has configured."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sessions.build import (
    build_errors,
    cmake_tree,
    compiler_cache,
    progress,
)
from sessions.build import ninja_log as timelines
from sessions.build.model import BuildEnv
from sessions.fetch import build_tools
from sessions.fetch.model import Toolkit
from sessions.probe.model import Toolchain
from sessions.shared import child_environment, console, programs, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.remedies import command as command_of

_CONFIGURED = "-- Build files have been written to"  # CMake's last line


def run(
    ctx: Context, build: BuildEnv, chain: Toolchain, version: str
) -> tuple[int, dict[str, int]]:
    """Run the build. Returns the number of ninja's steps and the cache's hits and misses."""
    tree, dist, log_path = ctx.build / "tree", ctx.build / "dist", ctx.build / "wheel.log"
    shutil.rmtree(dist, ignore_errors=True)
    statslog = ctx.build / "ccache.log"
    statslog.unlink(missing_ok=True)
    python = str(venvs.program(build_tools.tools(ctx), "python"))
    command = [python, "-I", "-m", "build", "--wheel", "--no-isolation"]
    command += ["--outdir", str(dist)]
    command += [f"-C{name}={value}" for name, value in build.settings.items()]
    env = {
        **build.variables,
        **child_environment.cache_environment(ctx.env, ctx.spec.cache),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(chain.jobs),
        programs.BUILD_MARK: str(ctx.build),
    }
    if ctx.spec.cache == "ccache":
        env["CCACHE_STATSLOG"] = str(statslog)
    toolkit = ctx.need("toolkit", Toolkit) if ctx.spec.cuda else None
    steps: list[progress.Step] = []
    cuda: list[str] = []
    start = time.monotonic()
    title = f"llama-cpp-python {version} for {', '.join(ctx.spec.archs) or 'the CPU'}"
    console.say(f"Building {title} with {chain.jobs} jobs; the log is {log_path}")
    with (
        log_path.open("w", encoding="utf-8", buffering=1) as log,
        console.Meter("building") as meter,
    ):

        def follow(line: str) -> None:
            if line.startswith(_CONFIGURED):  # by CMake; nothing is compiled yet
                cmake_tree.check(tree, ctx.spec, toolkit)
            step = progress.parse_step(line)
            if step is None:
                return
            if not steps:
                cuda.extend(cmake_tree.cuda_files(cmake_tree.text(tree / "compile_commands.json")))
            steps.append(step)
            left = progress.time_left(steps, cuda, time.monotonic() - start)
            meter.update(step.done, step.total, left, step.file)

        source = str(ctx.build / "src")
        with _sccache(ctx, env) as stats:
            done = programs.stream(
                [*command, source], env=env, log=log, on_line=follow, cwd=ctx.build
            )
    if done.returncode:
        with log_path.open(encoding="utf-8", errors="replace") as lines:
            error = build_errors.first_error(lines) or done.output
        raise build_errors.failure(error, str(log_path), chain.jobs)
    cmake_tree.check(tree, ctx.spec, toolkit)
    return len(steps), _cache_counts(ctx, statslog, stats)


def _cache_counts(ctx: Context, statslog: Path, stats: Sequence[str]) -> dict[str, int]:
    """What the compiler cache did; empty where it does not say."""
    try:
        if ctx.spec.cache == "sccache":
            return compiler_cache.sccache(stats[0]) if stats else {}
        return (
            compiler_cache.ccache(statslog.read_text(encoding="utf-8")) if statslog.exists() else {}
        )
    except Exception as error:  # only information: a build does not fail without it
        warn_untold("what the compiler cache did", error)
        return {}


def warn_untold(what: str, error: object) -> None:
    """Warn that something about the build, which does not matter to the wheel, is not known."""
    reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    console.warn(f"the wheel is right, but {what} is not known: {' '.join(reason.split())[:200]}")


@contextlib.contextmanager
def _sccache(ctx: Context, env: dict[str, str]) -> Iterator[list[str]]:
    """A server of sccache for this build only, and what it counted once it has ended.

    One that runs already has the environment of whoever began it: another store, or none.
    """
    stats: list[str] = []
    if ctx.spec.cache != "sccache":
        yield stats
        return
    program = str(venvs.program(build_tools.tools(ctx), "sccache"))
    env.pop("SCCACHE_SERVER_UDS", None)
    env["SCCACHE_SERVER_PORT"] = str(programs.free_port())
    started = programs.capture([program, "--start-server"], env=env)
    if started.returncode:
        raise Problem(
            "sccache does not start.",
            id="sccache-not-starting",
            evidence=venvs.tail(started.output),
            remedy="correct its settings (SCCACHE_*, AWS_*) or its store; or build without it: "
            + command_of("wheel", ctx.spec, "--cache", "none"),
        )
    trouble = compiler_cache.no_servers(
        programs.capture([program, "--dist-status"], env=env).stdout
    )
    if trouble:
        console.warn(trouble)
    try:
        yield stats
        asked = programs.capture([program, "--show-stats", "--stats-format=json"], env=env)
        if asked.returncode:
            warn_untold("what the compiler cache did", asked.output or "sccache ended")
        else:
            stats.append(asked.stdout)
    finally:
        programs.capture([program, "--stop-server"], env=env, timeout=60)


def timing(ctx: Context, jobs: int, cache: dict[str, int]) -> dict[str, float]:
    """Leave what ran when in ``steps.json``, and return its sum; empty where it is not known."""
    log, graph = (ctx.build / "tree" / name for name in (".ninja_log", "build.ninja"))
    record = ctx.record("steps")
    try:
        record.unlink(missing_ok=True)  # else an earlier build's would pass for this one's
        timeline = timelines.read(
            log.read_text(encoding="utf-8"),
            graph.read_text(encoding="utf-8"),
            jobs=jobs,
            cache=cache,
        )
        summary = timelines.summary(timeline)
        records.write(record, "steps", timeline)
    except Exception as error:  # only information: a build does not fail without it
        warn_untold("what ran when", error)
        return {}
    return summary
