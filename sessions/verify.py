"""Prove what is inside a wheel: facts of the file first, then judgement. Nothing of it is run."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from sessions.core import console, disk, facts, inputs, machine, options, records, staging
from sessions.core.context import Context
from sessions.core.errors import CHECK_FAILED, USAGE, Problem
from sessions.core.model import CheckGroup, VerifyReport, Wheel
from sessions.wheelfile import reader
from sessions.wheelfile.case import Case
from sessions.wheelfile.judge import judge

HERE = Path(__file__).parent


def main(ctx: Context) -> None:
    """Judge the target's wheel, or the one that --wheel names; leave facts and verdict."""
    start = time.monotonic()
    path, record = _chosen(ctx)
    digest = records.file_sha256(path)
    folder = ctx.given(path, digest) if ctx.options.wheel else ctx.build
    fingerprint = inputs.verdict(ctx.spec, record)
    done = records.read(folder / "verify.json", "verify", VerifyReport)
    if done and not ctx.fresh and (done.sha256, done.fingerprint) == (digest, fingerprint):
        console.done(f"verify: up to date, {_held(done.groups)} for {path.name}")
        return
    console.say(f"Reading {path.name} ({path.stat().st_size / 1e6:.1f} MB)")
    with (
        tempfile.TemporaryDirectory(prefix="blackwheel-") as scratch,
        console.Meter("reading libraries", unit="MiB") as meter,
    ):
        found = reader.read(
            path,
            Path(scratch),
            options.system_environment(ctx.env),
            machine.cores(),
            lambda n, total, name: meter.update(
                n >> 20, total >> 20, _left(n, total, start), name.rsplit("/", 1)[-1]
            ),
        )
    disk.mark(folder)
    records.write(folder / "facts.json", "facts", found)
    ours = ctx.options.wheel is None
    case = Case(found, ctx.spec, record, ours, _loader(ctx), _preload())
    groups = judge(case)
    checks = [check for group in groups for check in group.checks]
    failed = [check.id for check in checks if check.status == "fail"]
    seconds = round(time.monotonic() - start, 1)
    report = VerifyReport(path.name, digest, ctx.spec.target, fingerprint, seconds, groups)
    records.write(folder / "verify.json", "verify", report, ok=not failed)
    for group in groups:
        console.say(f"{group.name}")
        console.checks(group.checks)
    if failed:
        raise Problem(
            f"{len(failed)} of {len(checks)} checks of {path.name} fail for the target "
            f"{ctx.spec.target}: {', '.join(failed)}.",
            id="verify-failed",
            code=CHECK_FAILED,
            evidence=f"all that was found is in {folder / 'facts.json'}",
            remedy="above, under each; for a wheel of your own: nox -s wheel -- --fresh "
            f"--target {ctx.spec.target}",
        )
    console.done(f"verify: {_held(groups)} for {path.name}, in {console.duration(seconds)}")


def _chosen(ctx: Context) -> tuple[Path, Wheel | None]:
    """The wheel and the record of its build."""
    if ctx.options.wheel is None:
        wheel = records.need(ctx.record("wheel"), "wheel", Wheel)
        return ctx.wheels / wheel.file, wheel
    path = Path(ctx.options.wheel).expanduser()
    if not path.is_file():
        raise Problem(
            f"There is no wheel {path}.",
            id="wheel-missing",
            code=USAGE,
            remedy="name a file: nox -s verify -- --wheel wheels/rtx50/NAME.whl",
        )
    beside = records.read(path.parent / "wheel.json", "wheel", Wheel)
    record = beside if beside and beside.file == path.name else None
    return path, record


def _left(done: int, total: int, start: float) -> float:
    """Seconds, supposing that every byte takes the same time."""
    return (time.monotonic() - start) * (total - done) / max(done, 1)


def _loader(ctx: Context) -> str | None:
    if ctx.spec.cuda is None:
        return None
    text = (HERE / "overlay" / staging.LOADER).read_text(encoding="utf-8")
    filled = staging.filled(text, ctx.spec.cuda, facts.toolkit(ctx.spec.cuda).driver)
    return records.text_sha256(filled.encode())


def _preload() -> str:
    text = (HERE / "overlay" / staging.DLLS).read_text(encoding="utf-8")
    return records.text_sha256(text.encode())


def _held(groups: tuple[CheckGroup, ...]) -> str:
    statuses = [check.status for group in groups for check in group.checks]
    warned = f" (warnings: {statuses.count('warn')})" if "warn" in statuses else ""
    return f"{statuses.count('ok')} checks hold{warned}"
