"""Tests that a wheel computes the right results on the GPU, in a fresh venv."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

from sessions.run import (
    check_smoke_report,
    families,
    fresh_venv,
    payload_process,
    report_matches_wheel,
    signed_report,
    smoke_input,
)
from sessions.run.record_types import SmokeReport
from sessions.shared import (
    child_environment,
    console,
    disk,
    knowledge,
    machine,
    records,
    wheel_name,
)
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, Problem

# A file name of upstream's own tests of tokenizers, at the end of a path in its sdist.
VOCABULARY = re.compile(r"/models/(ggml-vocab-[\w.-]+)$")


def main(ctx: Context) -> None:
    """Run every check or import a bundle's report; show the report and write the record."""
    path, wheel = smoke_input.chosen(ctx)
    digest = records.file_sha256(path)
    folder = ctx.given(path, digest) if ctx.options.wheel else ctx.build
    text, origin, signature = signed_report.taken(
        ctx, "smoke", folder, lambda: _run(ctx, path, digest, folder)
    )
    target, file = (wheel.target, wheel.file) if wheel else (None, None)
    again = report_matches_wheel.again("smoke", ctx.spec, ctx.options.wheel)
    report = check_smoke_report.opened(text, target, digest, origin, file, again)
    disk.mark(folder)
    kept = check_smoke_report.report_path(folder, check_smoke_report.place(report.capability))
    signed_report.keep(kept, text, signature)
    _show(ctx, report, folder)


def _run(ctx: Context, wheel: Path, digest: str, folder: Path) -> str:
    """Install the wheel into a fresh venv and run the payload there. Returns the report's text."""
    model = smoke_input.model(ctx)
    device = smoke_input.device(ctx)
    if device is None and ctx.spec.archs:
        console.warn("the wheel runs on the CPU, and its GPU code is not tested")
    work = folder / "smoke"
    if work.exists():
        disk.remove(work)
    disk.mark(work)
    venv = fresh_venv.install(ctx, wheel, work)
    job = smoke_input.job(
        ctx.spec,
        file=wheel.name,
        sha256=digest,
        version=wheel_name.version(wheel),
        chosen=ctx.options.families,
    )
    job |= {
        **smoke_input.placement(device),
        "folder": str(work / "run"),
        "second": device["second"] if device else None,
        "families_folder": str(families.FAMILIES),
        "jobs": 4 if device else machine.cores(),
        "venv": str(venv),
        "model": str(model) if model else None,
        "vectors": _vectors(ctx, job["version"], work / "vectors"),
        "identity": smoke_input.identity(job, device),
    }
    disk.mark(work / "run")
    records.write_text(work / "job.json", json.dumps(job, indent=1))
    env = child_environment.system_environment(ctx.env)
    return payload_process.report(venv, "smoke", work, env, "checks")


def _vectors(ctx: Context, version: str, folder: Path) -> str | None:
    """The folder of upstream's vocabularies, texts and their tokens, from the release's sdist.

    For --source, it is the checkout's own folder. If the sdist was not downloaded, returns None and
    prints so. Returns None on Windows too: there upstream's C++ cannot convert a vocabulary with
    characters beyond U+FFFF (std::wstring_convert with 16 bits; seen with MinGW's build and
    DeepSeek's vocabulary).
    """
    if ctx.spec.platform == "windows":
        console.say("upstream's tokenizer texts are not tested on Windows: some do not load there")
        return None
    if ctx.spec.source:
        own = Path(ctx.spec.source).expanduser().resolve() / "vendor" / "llama.cpp" / "models"
        if any(own.glob("ggml-vocab-*.inp")):
            return str(own)
    sdist = knowledge.sdists().get(version.split("+")[0])
    archive = ctx.cache / "downloads" / sdist.file if sdist else None
    if sdist is None or archive is None or not archive.exists():
        console.say("upstream's tokenizer texts are not tested: its source was not downloaded here")
        return None
    if records.file_sha256(archive) != sdist.sha256:
        console.warn(f"upstream's tokenizer texts are not tested: {archive} is not the locked file")
        return None
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            name = VOCABULARY.search(member.name)
            data = tar.extractfile(member) if name and member.isfile() else None
            if name and data:
                (folder / name[1]).write_bytes(data.read())
    return str(folder)


def _show(ctx: Context, report: SmokeReport, folder: Path) -> None:
    """Show the report and write its record. Raises Problem if a check fails."""
    where = "on the CPU" if report.device == "cpu" else f"on {report.device} ({report.capability})"
    worst: dict[str, dict[str, Any]] = {}
    for case in report.cases:
        if "nmse" in case:
            before = worst.get(case["type"])
            if before is None or check_smoke_report.share(case) > check_smoke_report.share(before):
                worst[case["type"]] = case
    rows = [
        (name, f"{case['nmse']:.1e}", f"{case['bound']:.0e}", f"{case['batch']}", case["kv"])
        for name, case in worst.items()
    ]
    columns = ("type", "worst NMSE", "bound", "at batch", "KV cache")
    console.table(f"Known answers {where}: the case closest to its bound", columns, rows)
    console.checks(report.checks)
    figures = ", ".join(f"{name.replace('_', ' ')} {v:.3g}" for name, v in report.times.items())
    console.say(f"times: {figures}")
    failed = check_smoke_report.failed(report)
    # For a GPU target, a run on the CPU is not enough for a release.
    enough = report.device != "cpu" or not ctx.spec.archs
    path = check_smoke_report.record(folder, check_smoke_report.place(report.capability))
    records.write(path, "smoke", report, ok=enough and not failed)
    if failed:
        raise Problem(
            f"Checks fail or are missing {where}: {', '.join(failed)}.",
            id="smoke-failed",
            code=CHECK_FAILED,
            evidence="\n".join([*check_smoke_report.gaps(report)[:8], f"every case is in {path}"]),
            remedy="follow the fix that is shown under each failed check above",
        )
    console.done(
        f"smoke: {len(report.checks)} checks with {len(report.cases)} cases passed {where}, "
        f"in {console.duration(report.seconds)}"
    )
