"""Tests every operator of ggml with upstream's test, linked to the wheel's libraries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sessions.probe import gpu_for_tests
from sessions.run import (
    check_ops_report,
    check_smoke_report,
    fresh_venv,
    ops_build,
    payload_process,
    report_matches_wheel,
    signed_report,
    smoke_input,
)
from sessions.run.record_types import OpsReport
from sessions.shared import child_environment, console, disk, machine, programs, records, wheel_name
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, Problem

LIBRARIES = "blackwheel-*"  # the test and the reference, beside the wheel's libraries in the venv


def main(ctx: Context) -> None:
    """Run the test or import a bundle's report; show the report and write the record."""
    path, _ = smoke_input.chosen(ctx)
    digest = records.file_sha256(path)
    folder = ctx.given(path, digest) if ctx.options.wheel else ctx.build
    text, origin, signature = signed_report.taken(
        ctx, "ops", folder, lambda: _run(ctx, path, digest, folder)
    )
    again = report_matches_wheel.again("ops", ctx.spec, ctx.options.wheel)
    report = check_ops_report.opened(text, ctx.spec.target, digest, origin, path.name, again)
    disk.mark(folder)
    place = check_smoke_report.place(report.capability)
    signed_report.keep(check_ops_report.report_path(folder, place), text, signature)
    _show(report, check_ops_report.record(folder, place))
    if ctx.options.report is None:  # last, so that a run that fails before this can be continued
        (folder / "ops" / "run" / payload_process.STATE).unlink(missing_ok=True)


def _run(ctx: Context, wheel: Path, digest: str, folder: Path) -> str:
    """Run the payload in a venv that has the wheel. Returns the report's text."""
    programs.end_leftovers(programs.BUILD_MARK, str(folder))  # of a nox process that was killed
    device = smoke_input.device(ctx)
    part = check_ops_report.for_job(ctx.spec, ops_build.release(wheel))
    work = folder / "ops"
    job = smoke_input.job(
        ctx.spec, file=wheel.name, sha256=digest, version=wheel_name.version(wheel)
    )
    identity = smoke_input.identity(job, device)
    prepared = json.dumps([part, digest, identity], indent=1)
    if not payload_process.can_continue(ctx, work / "prepared.json", prepared):
        _prepare(ctx, wheel, work)
        disk.mark(work / "run")
        records.write_text(work / "prepared.json", prepared)
    venv = work / "venv"
    libraries = {path.stem: str(path) for path in venv.glob(f"**/llama_cpp/lib/{LIBRARIES}")}
    given = {
        **part,
        "identity": identity,
        "folder": str(work / "run"),
        "library": libraries["blackwheel-ops"],
        "reference": libraries.get("blackwheel-scalar"),
        "visible": smoke_input.placement(device)["visible"],
        "memory_mib": device["memory_free_mib"] if device else None,
        "cores": machine.cores(),
    }
    records.write_text(work / "job.json", json.dumps(given, indent=1))
    env = {**child_environment.system_environment(ctx.env), programs.BUILD_MARK: str(folder)}
    return payload_process.report(venv, "ops", work, env, "cases", "--ops")


def _prepare(ctx: Context, wheel: Path, work: Path) -> None:
    """Make a venv that has the wheel, and put the test beside the wheel's libraries.

    They must be in one folder, because the libraries find one another by ``$ORIGIN``.
    """
    if work.exists():
        disk.remove(work)
    disk.mark(work)
    cuda = gpu_for_tests.needs_gpu(ctx)
    built = ops_build.built(ctx, wheel, work / "test", reference=not cuda)
    venv = fresh_venv.install(ctx, wheel, work)
    (folder,) = venv.glob("**/site-packages/llama_cpp/lib")
    for path in (built.test, built.reference):
        if path:
            shutil.copyfile(path, folder / path.name)


def _show(report: OpsReport, path: Path) -> None:
    """Show the report and write its record. Raises Problem if a check fails."""
    where = "on the CPU" if report.device == "cpu" else f"on {report.device} ({report.capability})"
    groups: dict[str, list[float]] = {}
    for name, row in report.operators.items():
        found = groups.setdefault(name, [0, 0, 0, 0.0])
        for number, field in enumerate(("right", "wrong", "unsupported", "seconds")):
            found[number] += row[field]
    largest = sorted(groups.items(), key=lambda item: (-item[1][1], -sum(item[1][:3])))[:12]
    rows = [
        (name, *(f"{value:.0f}" for value in values[:3]), f"{values[3]:.1f}")
        for name, values in largest
    ]
    columns = ("operator", "right", "wrong", "not supported", "seconds")
    console.table(f"Operators {where}: those with wrong answers, then the largest", columns, rows)
    checks = check_ops_report.checks(report)
    console.checks(checks)
    failed = [check.id for check in checks if check.status != "ok"]
    records.write(path, "ops", report, ok=not failed)
    console.say(f"  {path}")
    if failed:
        raise Problem(
            f"Checks of the operator test fail {where}: {', '.join(failed)}.",
            id="ops-failed",
            code=CHECK_FAILED,
            evidence=f"every operator is in {path}",
            remedy="follow the fix that is shown under each failed check above",
        )
    total = check_ops_report.totals(report)
    console.done(
        f"ops: {total['cases']} cases of {len(report.operators)} operators {where}: "
        f"{total['right']} right, {total['wrong']} known upstream faults, "
        f"{total['unsupported']} not supported, in {console.duration(report.seconds)}"
    )
