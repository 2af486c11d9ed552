"""Test that a wheel computes on the GPU, and computes right: in a fresh venv, as a user's."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

from sessions.probe import gpu_choice
from sessions.run import (
    families,
    fresh_venv,
    imported_report,
    own_report,
    payload_process,
    smoke_input,
    smoke_results,
)
from sessions.run.model import SmokeReport
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
    """Run every check, or take the report of a bundle that ran them; leave the record."""
    path, wheel = smoke_input.chosen(ctx)
    digest = records.file_sha256(path)
    folder = ctx.given(path, digest) if ctx.options.wheel else ctx.build
    signature = ""
    if ctx.options.report is not None:
        text, origin, signature = imported_report.taken(ctx, "smoke", ctx.options.report)
    else:
        disk.mark(folder)
        with disk.lock(folder / "smoke.lock", console.say):
            text, origin = _run(ctx, path, digest, folder), "here"
    target, file = (wheel.target, wheel.file) if wheel else (None, None)
    again = own_report.again("smoke", ctx.spec, ctx.options.wheel)
    report = smoke_results.opened(text, target, digest, origin, file, again)
    disk.mark(folder)
    kept = smoke_results.report_path(folder, smoke_results.place(report.capability))
    imported_report.keep(kept, text, signature)
    _judge(ctx, report, folder)


def _run(ctx: Context, wheel: Path, digest: str, folder: Path) -> str:
    """Install the wheel into a fresh venv and run the payload there. Returns the report's text."""
    model = smoke_input.model(ctx)
    device = gpu_choice.gpu_for(ctx, ctx.machine("nvml")) if gpu_choice.needs_gpu(ctx) else None
    nvml = ctx.machine("nvml") if device else {}
    if device is None and ctx.spec.archs:
        console.warn("the wheel runs on the CPU, and its GPU code is not tested")
    work = folder / "smoke"
    if work.exists():
        disk.remove(work)
    disk.mark(work)
    venv = fresh_venv.install(ctx, wheel, work)
    told = smoke_input.job(
        ctx.spec,
        file=wheel.name,
        sha256=digest,
        version=wheel_name.version(wheel),
        chosen=ctx.options.families,
    )
    told |= {
        "folder": str(work / "run"),
        "layers": 999 if device else 0,
        "index": device["index"] if device else 0,
        "visible": device["visible"] if device else "-1",
        "second": device["second"] if device else None,
        "families_folder": str(families.FAMILIES),
        "jobs": 4 if device else machine.cores(),
        "venv": str(venv),
        "model": str(model) if model else None,
        "vectors": _vectors(ctx, told["version"], work / "vectors"),
        "identity": smoke_input.identity(told, device, nvml),
    }
    disk.mark(work / "run")
    records.write_text(work / "job.json", json.dumps(told, indent=1))
    env = child_environment.system_environment(ctx.env)
    return payload_process.report(venv, "smoke", work, env, "checks")


def _vectors(ctx: Context, version: str, folder: Path) -> str | None:
    """Upstream's vocabularies and the tokens of its texts, from the sdist of the wheel's release.

    The folder that they are in, of a checkout its own; None, which is said, where that sdist was
    not downloaded. None on Windows too: there upstream's C++ cannot convert a vocabulary with
    characters beyond U+FFFF (std::wstring_convert with 16 bits; seen with MinGW's build, DeepSeek's
    vocabulary).
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


def _judge(ctx: Context, report: SmokeReport, folder: Path) -> None:
    """Show the report, leave it as a record, and fail if any check did."""
    where = "on the CPU" if report.device == "cpu" else f"on {report.device} ({report.capability})"
    worst: dict[str, dict[str, Any]] = {}
    for case in report.cases:
        if "nmse" in case:
            before = worst.get(case["type"])
            if before is None or smoke_results.share(case) > smoke_results.share(before):
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
    failed = smoke_results.failed(report)
    # Of a target with a GPU, a run on the CPU tests nothing that a release could build on.
    enough = report.device != "cpu" or not ctx.spec.archs
    path = smoke_results.record(folder, smoke_results.place(report.capability))
    records.write(path, "smoke", report, ok=enough and not failed)
    if failed:
        raise Problem(
            f"Checks fail or are missing {where}: {', '.join(failed)}.",
            id="smoke-failed",
            code=CHECK_FAILED,
            evidence="\n".join([*smoke_results.gaps(report)[:8], f"every case is in {path}"]),
            remedy="follow the fix that is shown under each failed check above",
        )
    console.done(
        f"smoke: {len(report.checks)} checks with {len(report.cases)} cases passed {where}, "
        f"in {console.duration(report.seconds)}"
    )
