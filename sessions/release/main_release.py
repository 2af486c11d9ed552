"""The ritual before publishing: test the wheels of some targets, judge them, write their documents.

A wheel that may not be released gets no place in ``dist/``, and every reason is said.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.build.model import Wheel
from sessions.command_line import child_nox
from sessions.probe import gpu_choice
from sessions.release import (
    dist_contents,
    dist_folder,
    gate,
    git_state,
    other_pythons,
    provenance,
    remote_reports,
    reproduce,
)
from sessions.release.documents import bench_charts, release_page, report_page, wheel_card
from sessions.release.evidence import Evidence, handed_on, needed, ran, read, unproven
from sessions.release.gate import Checkout, Situation
from sessions.release.model import Gate, PythonWheel, Release
from sessions.run import imported_report, ops_results, smoke_results
from sessions.run.model import OpsReport, SmokeReport
from sessions.shared import console, disk, programs, records
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem
from sessions.shared.remedies import command


def main(ctx: Context) -> None:
    """Judge each target, and make ``dist/`` of those that may be released."""
    if ctx.options.report and len(ctx.specs) > 1:
        raise Problem(
            "--report belongs to one target, and several were named.",
            id="release-one-report-per-target",
            code=USAGE,
            remedy="name one target: --report FILE --target NAME; or a folder of reports: "
            "--reports DIR",
        )
    _refuse_epoch(ctx)
    taken = remote_reports.read(Path(ctx.options.reports)) if ctx.options.reports else ()
    dist, mine = ctx.root / "dist", {spec.target for spec in ctx.specs}
    if ctx.options.dry_run:
        for spec in ctx.specs:
            one = dataclasses.replace(ctx, spec=spec)
            released = (dist / spec.target / dist_contents.RELEASE).is_file()
            console.say("\n".join(plan(one, proven=not _unproven(one), released=released)))
        console.say("--dry-run: nothing was built, tested or written")
        return
    with dist_folder.alone(ctx, dist):
        changed = dist_contents.changed(dist)
        targets = mine.union(dist_contents.released(dist))
        for target in sorted(targets - mine):  # before anything is built for it
            dist_folder.refuse_changed(dist / target, changed)
        before = git_state.read(ctx)
    each = [dataclasses.replace(ctx, spec=spec) for spec in ctx.specs]
    codes = [_prove(one, taken) for one in each]
    for line in remote_reports.unused(taken, [_sha256(one) for one in each]):
        console.warn(line)
    # All now and in one order: two runs that want each other's would wait for ever.
    for target in sorted(mine):
        ctx.target_lock(target)
    outcomes = [
        _one(one, code, before, dist_folder.about(one.spec.target, targets, changed))
        for one, code in zip(each, codes, strict=True)
    ]
    for made in outcomes:
        console.say(f"{made.gate.target}: {release_page.verdict(made.gate)}")
        console.checks(made.gate.checks)
    kept: tuple[str, ...] = ()
    if any(made.changed for made in outcomes):
        console.say(f"{dist} stays as it is")
    else:
        with dist_folder.alone(ctx, dist):
            kept = dist_folder.assemble(dist, outcomes)
            for one, made in zip(each, outcomes, strict=True):
                if made.release:
                    records.write(one.record("release"), "release", made.release)
                elif made.gate.target not in kept:
                    one.record("release").unlink(missing_ok=True)
        console.say(f"  {dist / dist_folder.PAGE}")
    for target in kept:
        console.warn(f"{target}: its earlier release stays in {dist / target}")
    refused = {m.gate.target: gate.failed(m.gate.checks) for m in outcomes}
    reasons = [f"{name}: {check.summary}" for name, found in refused.items() for check in found]
    if reasons:
        names = ", ".join(name for name, found in refused.items() if found)
        count = f"{len(reasons)} reason{'s' if len(reasons) > 1 else ''}"
        stays = [f"{name}: its last release stays in dist/{name}/" for name in kept]
        raise Problem(
            f"{release_page.NOT}: {names}, for {count}.",
            id="release-not-releasable",
            code=CHECK_FAILED,
            evidence="\n".join([*reasons, *stays]),
            remedy="follow the fix that is shown under each reason above",
        )
    for made in outcomes:
        console.done(f"release: {made.gate.target}, {release_page.verdict(made.gate)}, in {dist}")


def plan(ctx: Context, *, proven: bool, released: bool) -> list[str]:
    """What a release of one target would do, in its order.

    ``proven``: a report on the built wheel is recorded; ``released``: dist/ has the target.
    """
    asked = ctx.options
    steps = [f"build what is not up to date, and check it: {command('verify', ctx.spec)}"]
    if asked.report:
        steps = [f"build what is not up to date, check it, and take the report {asked.report}"]
    elif proven:
        steps.append("take the report of the smoke test that is recorded for this wheel")
    elif ctx.spec.archs:
        needed = ", ".join(gpu_choice.capabilities(ctx.spec))
        steps.append(f"test it and every operator, if a GPU of compute capability {needed} is here")
    else:
        steps.append("test it on the CPU, and every operator")
    steps.append("decide from the records whether it may be released")
    if asked.reproduce:
        steps.append("build it again from nothing in another folder, and compare")
    if asked.sigstore:
        steps.append("sign the provenance with sigstore, which opens a browser")
    verb = "replace" if released else "write"
    languages = "en, es" if asked.lang == "all" else asked.lang
    steps.append(f"{verb} dist/{ctx.spec.target}/: wheel and documents ({languages})")
    return [f"{ctx.spec.target}: a release would", *(f"  {step}" for step in steps)]


def _refuse_epoch(ctx: Context) -> None:
    """A time of the caller's in the environment changes the wheel's bytes in silence."""
    if epoch := ctx.env.get("SOURCE_DATE_EPOCH"):
        raise Problem(
            "SOURCE_DATE_EPOCH is set, so the bytes of the wheel would differ from a normal build.",
            id="release-source-date-epoch",
            code=USAGE,
            evidence=f"SOURCE_DATE_EPOCH={epoch}",
            remedy="unset SOURCE_DATE_EPOCH; the time of a build is that of the locked source",
        )


def _one(
    ctx: Context, code: int, before: Checkout, changed: tuple[str, ...]
) -> dist_folder.Outcome:
    """Judge one target, then write its documents. ``code`` is how its sessions ended.

    ``before`` is what git said before the first of them began.
    """
    disk.mark(ctx.build)
    target = f"{ctx.spec.target}/"
    broken = bool(changed) and not ctx.options.fresh
    # Even with --fresh: where nothing takes its place, what is there is left to be looked at.
    own = broken or any(line.startswith(target) for line in changed)
    if changed and ctx.options.fresh:
        what = "dist/ was changed after release wrote it; --fresh writes it again:"
        console.warn("\n".join([what, *changed]))
        changed = ()
    checkout = git_state.unchanged(ctx, before)
    situation = Situation(
        checkout=checkout,
        beside=records.read(ctx.wheels / "wheel.json", "wheel", Wheel),
        changed=changed,
        chain=code,
        allow_untested=ctx.options.allow_untested_gpu,
    )
    try:
        found = read(ctx.spec, ctx.build, ctx.wheels)
    except Problem as problem:
        checks = gate.unreadable(problem, situation)
        return dist_folder.Outcome(Gate(ctx.spec.target, "", "", (), checks), own)
    name = ctx.spec.base
    asked = dataclasses.replace(ctx.options, target=name)
    repacked = other_pythons.read(ctx.root, ctx.targets, asked, found.path)
    for older in repacked.older:
        console.warn(f"{name}: left out, because it was made from another build: {older}")
    situation = dataclasses.replace(situation, pythons=repacked)
    checks = gate.judge(found, situation)
    if ctx.options.reproduce:
        if {check.id for check in gate.failed(checks)} <= {"reproduce"}:
            differs = reproduce.again(ctx, found)
            checkout = git_state.unchanged(ctx, before)  # a second build takes as long as the first
            situation = dataclasses.replace(situation, differs=differs, checkout=checkout)
            checks = gate.judge(found, situation)
        else:
            console.say(f"{ctx.spec.target}: not built a second time: a check below fails")
    made = Gate(ctx.spec.target, found.wheel.file, found.sha256, unproven(found), checks)
    if gate.failed(checks):
        return dist_folder.Outcome(made, own)
    files = _papers(ctx, found, made, checkout, repacked.wheels)
    release = Release(
        target=ctx.spec.target,
        arguments=ctx.spec.arguments,
        file=found.wheel.file,
        sha256=found.sha256,
        size=found.wheel.size,
        version=found.wheel.version,
        cuda=ctx.spec.cuda,
        archs=ctx.spec.archs,
        tested=not made.untested,
        proven=None if made.untested else max(_started(found)),
        commit=checkout.commit,
        pythons=repacked.wheels,
        devices=tuple(_device_of(run.report) for run in ran(found) if run.place in needed(found)),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    return dist_folder.Outcome(made, False, release, found.path, files, repacked.paths)


def _device_of(report: SmokeReport) -> str:
    return f"{report.device} ({report.capability})" if report.capability else "the CPU"


def _sha256(ctx: Context) -> str:
    """The digest of a target's wheel as it was built; "" where there is none."""
    wheel = records.read(ctx.record("wheel"), "wheel", Wheel)
    return wheel.sha256 if wheel else ""


def _started(found: Evidence) -> list[str]:
    """When the runs that a release stands on began, ISO 8601."""
    return [run.report.started for run in ran(found) if run.place in needed(found)]


def _prove(ctx: Context, taken: Sequence[remote_reports.Report]) -> int:
    """Run the sessions that test the wheel; smoke on each GPU it can be, and is not yet."""
    words = child_nox.words(ctx.options)
    name = ctx.spec.base
    if ctx.options.report:
        more = ["--report", ctx.options.report]
        more += ["--signers", ctx.options.signers] if ctx.options.signers is not None else []
        session = "ops" if imported_report.is_of_ops(Path(ctx.options.report)) else "smoke"
        return child_nox.follow(ctx.root, [session], name, [*words, *more])
    code = child_nox.follow(ctx.root, ["verify"], name, words)
    for report in remote_reports.of(taken, _sha256(ctx)) if not code else ():
        more = ["--report", str(report.path)]
        more += ["--signers", ctx.options.signers] if ctx.options.signers is not None else []
        code = code or child_nox.follow(ctx.root, [report.session], name, [*words, *more])
    capabilities = gpu_choice.capabilities(ctx.spec)
    for session, place in _unproven(ctx):
        if code:
            break
        device = "cpu" if place == "cpu" else _device(ctx, session, place)
        if device is None:
            continue
        # Of one kind, the session finds the GPU itself.
        more = [f"--device={device}"] if len(capabilities) != 1 and place != "cpu" else []
        code = child_nox.follow(ctx.root, [session], name, [*words, *more])
    return code


def _unproven(ctx: Context) -> list[tuple[str, str]]:
    """Which session is yet to run where: no good report of it on this very wheel is there."""
    wheel = records.read(ctx.record("wheel"), "wheel", Wheel)
    sha256 = wheel.sha256 if wheel else ""
    found = []
    for place in gpu_choice.capabilities(ctx.spec) or ["cpu"]:
        smoke = records.read(smoke_results.record(ctx.build, place), "smoke", SmokeReport)
        ops = records.read(ops_results.record(ctx.build, place), "ops", OpsReport)
        for session, report in (("smoke", smoke), ("ops", ops)):
            if not report or report.sha256 != sha256:
                found.append((session, place))
    return sorted(found, key=lambda pair: pair[0] != "smoke")


def _device(ctx: Context, session: str, capability: str) -> str | None:
    """The index of a GPU here that has this compute capability and is free to be used."""
    try:
        return str(gpu_choice.gpu_for(ctx, ctx.machine("nvml"), [capability])["index"])
    except Problem as problem:
        console.say(f"{ctx.spec.target}: {session} was not run here. {problem.what}")
        return None


def _papers(
    ctx: Context, found: Evidence, passed: Gate, checkout: Checkout, more: Sequence[PythonWheel]
) -> dict[str, bytes]:
    """Every file beside the wheel, by name. The same records give the same bytes."""
    languages = ["en", "es"] if ctx.options.lang == "all" else [ctx.options.lang]
    commit = checkout.commit
    texts = {
        wheel_card.LANGUAGES[name]: wheel_card.render(found, checkout, name, more)
        for name in languages
    }
    charts = bench_charts.charts(found.bench) if found.bench else []
    texts["report.html"] = report_page.render(found, commit, charts)
    texts["provenance.intoto.json"] = statement = provenance.text(found, commit)
    texts |= handed_on(found)
    texts["gate.json"] = records.text("gate", passed)
    files = {name: text.encode() for name, text in texts.items()}
    with zipfile.ZipFile(found.path) as archive:
        files["sbom.cdx.json"] = archive.read(found.facts.bills[0].member)
    files |= _signature(ctx, found, statement)
    return {**files, "SHA256SUMS": _sums(found, files, more).encode()}


def _sums(found: Evidence, files: Mapping[str, bytes], more: Sequence[PythonWheel]) -> str:
    """The list that ``sha256sum --check`` reads; a line that begins with # is none of its."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    digests |= {wheel.file: wheel.sha256 for wheel in more}
    digests[found.wheel.file] = found.sha256
    missing = unproven(found)
    head = [f"# UNTESTED on {', '.join(missing)}"] if missing else []
    return "\n".join([*head, *(f"{digests[name]}  {name}" for name in sorted(digests))]) + "\n"


def _signature(ctx: Context, found: Evidence, statement: str) -> dict[str, bytes]:
    """The provenance signed by sigstore, if it was asked for, now or for the same one before."""
    predicate = json.dumps(json.loads(statement)["predicate"], indent=1) + "\n"
    digest = records.fingerprint([found.sha256, predicate])
    kept = ctx.build / f"provenance-{digest[:16]}.sigstore.json"
    if ctx.options.sigstore and not kept.exists():
        told = kept.with_name("predicate.json")
        records.write_text(told, predicate)
        _sign(ctx, found.path, told, kept)
    return {f"{found.wheel.file}.sigstore.json": kept.read_bytes()} if kept.exists() else {}


def _sign(ctx: Context, wheel: Path, predicate: Path, bundle: Path) -> None:
    program = shutil.which("sigstore", path=ctx.env.get("PATH"))
    if program is None:
        raise Problem(
            "sigstore is not on PATH.", id="sigstore-missing", remedy="pipx install sigstore"
        )
    kind = ["--predicate", str(predicate), "--predicate-type", provenance.PREDICATE]
    with disk.whole(bundle) as part:
        code = programs.inherit([program, "attest", *kind, "--bundle", str(part), str(wheel)])
        if code or not part.is_file():
            raise Problem(
                f"sigstore ended with exit code {code} and without a signature; dist/ was not "
                "changed.",
                id="sigstore-failed",
                evidence="its output is above",
                remedy="sign in as sigstore asks, or release without --sigstore",
            )
