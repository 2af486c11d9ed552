"""Runs the build: progress, compiler cache, check of the configured CMake tree, timeline."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sessions.build import build_errors, cmake_tree, compiler_cache, progress
from sessions.build import ninja_log as timelines
from sessions.build.record_types import BuildEnv
from sessions.fetch import build_tools
from sessions.fetch.record_types import Toolkit
from sessions.probe.record_types import Toolchain
from sessions.shared import child_environment, console, programs, records, venvs
from sessions.shared.command_text import command as command_of
from sessions.shared.context import Context
from sessions.shared.errors import Problem

_CONFIGURED = "-- Build files have been written to"  # CMake's last line


def run(
    ctx: Context, build: BuildEnv, chain: Toolchain, version: str
) -> tuple[int, dict[str, int]]:
    """Run the build. Returns the number of ninja's steps and the counts of the compiler cache."""
    tree, log = ctx.build / "tree", ctx.build / "wheel.log"
    statslog = ctx.build / "ccache.log"
    statslog.unlink(missing_ok=True)
    env = {
        **build.variables,
        **child_environment.cache_environment(ctx.env, ctx.spec.cache),
    }
    if ctx.spec.cache == "ccache":
        env["CCACHE_STATSLOG"] = str(statslog)
    toolkit = ctx.need("toolkit", Toolkit) if ctx.spec.cuda else None
    title = f"llama-cpp-python {version} for {', '.join(ctx.spec.archs) or 'the CPU'}"
    console.say(f"Building {title} with {chain.jobs} jobs; the log is {log}")

    def check_when_configured(line: str) -> None:
        if line.startswith(_CONFIGURED):  # nothing is compiled yet
            cmake_tree.check(tree, ctx.spec, toolkit)

    def cuda_files() -> list[str]:
        return cmake_tree.cuda_files(cmake_tree.text(tree / "compile_commands.json"))

    settings = [f"-C{name}={value}" for name, value in build.settings.items()]
    with _sccache(ctx, env) as stats:
        steps = build_wheel(
            ctx, ctx.build, settings, env, chain.jobs, "building", log, cuda_files,
            check_when_configured,
        )  # fmt: skip
    cmake_tree.check(tree, ctx.spec, toolkit)
    return steps, _cache_counts(ctx, statslog, stats)


def build_wheel(
    ctx: Context,
    folder: Path,
    settings: Sequence[str],
    env: Mapping[str, str],
    jobs: int,
    title: str,
    log_path: Path,
    cuda_files: Callable[[], Sequence[str]],
    on_line: Callable[[str], None] = lambda _: None,
) -> int:
    """Build the source in ``folder``/src into a wheel in ``folder``/dist, with ``python -m build``.

    The output is written to ``log_path`` and passed to ``on_line``. ``cuda_files`` is called when
    ninja has started, to estimate the time left. Returns the number of ninja's steps. Raises
    Problem with the first error of a build that fails.
    """
    dist = folder / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    python = str(venvs.program(build_tools.tools(ctx), "python"))
    command = [python, "-I", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist)]
    command += [*settings, str(folder / "src")]
    env = {**env, "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs), programs.BUILD_MARK: str(folder)}
    steps: list[progress.Step] = []
    cuda: list[str] = []
    start = time.monotonic()
    with (
        log_path.open("w", encoding="utf-8", buffering=1) as log,
        console.Meter(title) as meter,
    ):

        def follow(line: str) -> None:
            on_line(line)
            step = progress.parse_step(line)
            if step is None:
                return
            if not steps:
                cuda.extend(cuda_files())
            steps.append(step)
            left = progress.time_left(steps, cuda, time.monotonic() - start)
            meter.update(step.done, step.total, left, step.file)

        done = programs.stream(command, env=env, log=log, on_line=follow, cwd=folder)
    if done.returncode:
        with log_path.open(encoding="utf-8", errors="replace") as lines:
            error = build_errors.first_error(lines) or done.output
        raise build_errors.failure(error, str(log_path), jobs)
    return len(steps)


def _cache_counts(ctx: Context, statslog: Path, stats: Sequence[str]) -> dict[str, int]:
    """The counts of the compiler cache; empty if they cannot be read."""
    try:
        if ctx.spec.cache == "sccache":
            return compiler_cache.sccache(stats[0]) if stats else {}
        return (
            compiler_cache.ccache(statslog.read_text(encoding="utf-8")) if statslog.exists() else {}
        )
    except Exception as error:  # only information: the wheel is complete without it
        _warn_unknown("what the compiler cache did", error)
        return {}


def _warn_unknown(what: str, error: object) -> None:
    """Warn that information about the build, which does not change the wheel, is missing."""
    reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    console.warn(f"the wheel is right, but {what} is not known: {' '.join(reason.split())[:200]}")


@contextlib.contextmanager
def _sccache(ctx: Context, env: dict[str, str]) -> Iterator[list[str]]:
    """Run a server of sccache for this build only; then add its statistics to the yielded list.

    A server that already runs has the environment of the process that started it: another store, or
    none. Raises Problem if the server does not start.
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
    unused = compiler_cache.no_servers(programs.capture([program, "--dist-status"], env=env).stdout)
    if unused:
        console.warn(unused)
    try:
        yield stats
        shown = programs.capture([program, "--show-stats", "--stats-format=json"], env=env)
        if shown.returncode:
            _warn_unknown("what the compiler cache did", shown.output or "sccache ended")
        else:
            stats.append(shown.stdout)
    finally:
        programs.capture([program, "--stop-server"], env=env, timeout=60)


def timing(ctx: Context, jobs: int, cache: dict[str, int]) -> dict[str, float]:
    """Write the timeline to ``steps.json`` and return its summary; empty if it cannot be read."""
    log, graph = (ctx.build / "tree" / name for name in (".ninja_log", "build.ninja"))
    record = ctx.record("steps")
    try:
        record.unlink(missing_ok=True)  # it is that of an earlier build
        timeline = timelines.read(
            log.read_text(encoding="utf-8"),
            graph.read_text(encoding="utf-8"),
            jobs=jobs,
            cache=cache,
        )
        summary = timelines.summary(timeline)
        records.write(record, "steps", timeline)
    except Exception as error:  # only information: the wheel is complete without it
        _warn_unknown("what ran when", error)
        return {}
    return summary
