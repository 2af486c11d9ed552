"""Benchmarks the wheel and other wheels alternately (A B B A …), each time in a fresh process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sessions.build import baselines
from sessions.fetch import build_tools
from sessions.probe.record_types import Toolchain
from sessions.run import (
    check_bench_report,
    payload_process,
    report_matches_wheel,
    signed_report,
    smoke_input,
)
from sessions.run.record_types import BenchReport
from sessions.shared import (
    child_environment,
    console,
    disk,
    knowledge,
    machine,
    programs,
    records,
    venvs,
    wheel_name,
)
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem


def main(ctx: Context) -> None:
    """Measure or import a bundle's report; show the report and write the record."""
    path, _ = smoke_input.chosen(ctx)
    digest = records.file_sha256(path)
    folder = ctx.given(path, digest) if ctx.options.wheel else ctx.build
    text, origin, _ = signed_report.taken(ctx, "bench", folder, lambda: _run(ctx, path, folder))
    again = report_matches_wheel.again("bench", ctx.spec, ctx.options.wheel)
    report = check_bench_report.opened(text, ctx.spec.target, digest, origin, again)
    disk.mark(folder)
    # The record of a GPU is kept, because a release shows it.
    apart = "-cpu" if report.device == "cpu" and ctx.spec.archs else ""
    record = folder / f"bench{apart}.json"
    records.write_text(folder / check_bench_report.REPORT_FILE.replace(".", f"{apart}."), text)
    records.write(record, "bench", report)
    if ctx.options.report is None:  # last, so that a run that fails before this can be continued
        (folder / "bench" / "run" / payload_process.STATE).unlink(missing_ok=True)
    _show(report, text)
    console.say(f"  {record}")
    console.done(
        f"bench: {len(report.wheels)} wheels in {report.rounds} rounds on {report.device}, "
        f"in {console.duration(report.seconds)}"
    )


def _run(ctx: Context, wheel: Path, folder: Path) -> str:
    """Run the payload. Returns the report's text."""
    programs.end_leftovers(programs.BUILD_MARK, str(folder))  # of a nox process that was killed
    model = smoke_input.model(ctx)
    device = smoke_input.device(ctx)
    if device is None and ctx.spec.archs:
        console.warn("the wheel is measured on the CPU, not on a GPU")
    if ctx.options.rounds < check_bench_report.LEAST:
        console.warn(
            f"fewer than {check_bench_report.LEAST} rounds: no difference of speed will be certain"
        )
    wheels = [wheel, *baselines.wheels(ctx)]
    try:
        entries = check_bench_report.wheels(ctx.spec.target, wheels, ctx.options.cpu_module)
    except ValueError as error:
        raise Problem(
            f"There is no such module: {error}.",
            id="cpu-module-unknown",
            code=USAGE,
            remedy="name one that it has: --cpu-module NAME",
        ) from error
    chain = ctx.need("probe", Toolchain)
    assert chain.python is not None
    work = folder / "bench"
    smoke_job = smoke_input.job(
        ctx.spec,
        file=wheel.name,
        sha256=records.file_sha256(wheel),
        version=wheel_name.version(wheel),
    )
    job = {
        **smoke_input.placement(device),
        "wheels": entries,
        "packages": str(work / "wheels"),
        "python": chain.python.path,
        "folder": str(work / "run"),
        "threads": 1,  # the tiny model is too small for more
        "cpu_threads": machine.physical_cores(),
        "rounds": ctx.options.rounds,
        "model": check_bench_report.model(model),
        "code": check_bench_report.code(),
        "runtime": "packages" if ctx.spec.cuda else "none",
        "link": None,
        "runtime_places": [],
        "identity": smoke_input.identity(smoke_job, device),
    }
    _prepare(ctx, wheels, work, json.dumps(job, indent=1))
    answer, log_path = work / "report.json", work / "bench.log"
    # This Python has NVML's bindings; the wheels run in the target's Python.
    args = ["-I", str(smoke_input.PAYLOAD), "--bench", str(work / "job.json"), str(answer)]
    env = {**child_environment.system_environment(ctx.env), programs.BUILD_MARK: str(folder)}
    done = payload_process.run([sys.executable, *args], log_path, work / "run", env, "measuring")
    if done.returncode or not answer.exists():
        output = log_path.read_text(encoding="utf-8").splitlines()
        raise Problem(
            "The wheels could not be measured.",
            id="bench-failed",
            evidence=venvs.tail("\n".join(line for line in output if not line.startswith("@{"))),
            remedy="see whether each wheel runs here: nox -s smoke -- --wheel PATH; "
            f"the log is {log_path}",
        )
    return answer.read_text(encoding="utf-8")


def _prepare(ctx: Context, wheels: Sequence[Path], work: Path, job_text: str) -> None:
    """Prepare the folder of a run, or keep the one of the same job if that run was stopped."""
    path = work / "job.json"
    if payload_process.can_continue(ctx, path, job_text):
        return
    if work.exists():
        path.unlink(missing_ok=True)  # first: a state is not used without its job
        disk.remove(work)
    disk.mark(work)
    _collect(ctx, wheels, work / "wheels")
    disk.mark(work / "run")
    records.write_text(path, job_text)


def _collect(ctx: Context, wheels: Sequence[Path], folder: Path) -> None:
    """Download the requirements of the wheels and of the tiny model, so no network is measured."""
    console.say("Collecting what the wheels require")
    tools = build_tools.tools(ctx)
    words = ["download", "--only-binary=:all:", "-d", str(folder)]
    for wheel in wheels:
        venvs.pip(ctx, tools, [*words, str(wheel)], f"what {wheel.name} requires")
    if ctx.spec.cuda:  # for wheels that do not require it; a file that is here already is used
        major = int(ctx.spec.cuda.split(".")[0])
        names = [f"nvidia-{name}>={major},<{major + 1}" for name in ("cuda-runtime", "cublas")]
        links = ["--find-links", str(folder)]
        venvs.pip(ctx, tools, [*words, *links, *names], "NVIDIA's CUDA runtime")
    lock = ["--no-deps", "--require-hashes", "-r", str(knowledge.payload_lock())]
    venvs.pip(ctx, tools, [*words, *lock], "what makes the tiny model (gguf)")


def _show(report: BenchReport, text: str) -> None:
    """Show the tables, and the clocks and temperature of the GPU."""
    for title, columns, rows in check_bench_report.tables(text):
        console.table(title, columns, rows)
    for wheel in report.wheels:
        if wheel.cpu_module:
            console.say(f"{wheel.label}: on the CPU it used the module {wheel.cpu_module}")
        if wheel.jit_files:
            console.say(f"{wheel.label}: the driver compiled its code at the first token")
    if report.stops:
        console.say(f"It was stopped and continued {report.stops} times")
    if not report.conditions:
        return
    clocks = [seen["sm_mhz_highest"] for seen in report.conditions if seen["sm_mhz_highest"]]
    heat = [seen["celsius"] for seen in report.conditions if seen["celsius"]]
    slowed = sorted({reason for seen in report.conditions for reason in seen["slowed"]})
    if clocks and heat:
        console.say(
            f"The GPU: {min(clocks):.0f} to {max(clocks):.0f} MHz, "
            f"{min(heat):.0f} to {max(heat):.0f} °C"
        )
    if slowed:
        console.warn(f"the GPU was slowed down: {', '.join(slowed)}")
