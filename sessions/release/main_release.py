"""The session ``release``: tests the wheels of some targets, checks them, and writes ``dist/``.

A wheel that fails a check is not put into ``dist/``; the output names every reason.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.build.record_types import Wheel
from sessions.command_line import child_nox
from sessions.probe import gpu_for_tests
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
from sessions.release.evidence import (
    Evidence,
    read,
    released_records,
    required_places,
    runs_of_wheel,
    untested_places,
)
from sessions.release.gate import Checkout, Situation
from sessions.release.record_types import Gate, PythonWheel, Release
from sessions.run import check_ops_report, check_smoke_report, signed_report
from sessions.run.record_types import OpsReport, SmokeReport
from sessions.shared import console, disk, programs, records
from sessions.shared.command_text import command
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem


def main(ctx: Context) -> None:
    """Check each target, and write ``dist/`` with those that may be released."""
    if ctx.options.report and len(ctx.specs) > 1:
        raise Problem(
            "--report belongs to one target, and several were named.",
            id="release-one-report-per-target",
            code=USAGE,
            remedy="name one target: --report FILE --target NAME; or a folder of reports: "
            "--reports DIR",
        )
    _refuse_epoch(ctx)
    reports = remote_reports.read(Path(ctx.options.reports)) if ctx.options.reports else ()
    dist, mine = ctx.root / "dist", {spec.target for spec in ctx.specs}
    if ctx.options.dry_run:
        for spec in ctx.specs:
            one = dataclasses.replace(ctx, spec=spec)
            released = (dist / spec.target / dist_contents.RELEASE).is_file()
            console.say("\n".join(plan(one, tested=not _missing_runs(one), released=released)))
        console.say("--dry-run: nothing was built, tested or written")
        return
    with dist_folder.locked(ctx, dist):
        changed = dist_contents.changed(dist)
        targets = mine.union(dist_contents.released(dist))
        for target in sorted(targets - mine):  # before anything is built
            dist_folder.refuse_changed(dist / target, changed)
        before = git_state.read(ctx)
    each = [dataclasses.replace(ctx, spec=spec) for spec in ctx.specs]
    codes = [_test(one, reports) for one in each]
    for line in remote_reports.unused(reports, [_sha256(one) for one in each]):
        console.warn(line)
    # All locks are taken in the same order, so that two runs cannot wait for each other.
    for target in sorted(mine):
        ctx.target_lock(target)
    outcomes = [
        _release_target(one, code, before, dist_folder.about(one.spec.target, targets, changed))
        for one, code in zip(each, codes, strict=True)
    ]
    for outcome in outcomes:
        console.say(f"{outcome.gate.target}: {release_page.verdict(outcome.gate)}")
        console.checks(outcome.gate.checks)
    kept: tuple[str, ...] = ()
    if any(outcome.changed for outcome in outcomes):
        console.say(f"{dist} stays as it is")
    else:
        with dist_folder.locked(ctx, dist):
            kept = dist_folder.assemble(dist, outcomes)
            for one, outcome in zip(each, outcomes, strict=True):
                if outcome.release:
                    records.write(one.record("release"), "release", outcome.release)
                elif outcome.gate.target not in kept:
                    one.record("release").unlink(missing_ok=True)
        console.say(f"  {dist / dist_folder.PAGE}")
    for target in kept:
        console.warn(f"{target}: its earlier release stays in {dist / target}")
    failed = {outcome.gate.target: gate.failed(outcome.gate.checks) for outcome in outcomes}
    reasons = [f"{name}: {check.summary}" for name, checks in failed.items() for check in checks]
    if reasons:
        names = ", ".join(name for name, checks in failed.items() if checks)
        count = f"{len(reasons)} reason{'s' if len(reasons) > 1 else ''}"
        stays = [f"{name}: its last release stays in dist/{name}/" for name in kept]
        raise Problem(
            f"{release_page.NOT}: {names}, for {count}.",
            id="release-not-releasable",
            code=CHECK_FAILED,
            evidence="\n".join([*reasons, *stays]),
            remedy="follow the fix that is shown under each reason above",
        )
    for outcome in outcomes:
        verdict = release_page.verdict(outcome.gate)
        console.done(f"release: {outcome.gate.target}, {verdict}, in {dist}")


def plan(ctx: Context, *, tested: bool, released: bool) -> list[str]:
    """The steps that a release of one target would take.

    ``tested``: the reports on the built wheel are recorded; ``released``: dist/ has the target.
    """
    options = ctx.options
    steps = [f"build what is not up to date, and check it: {command('verify', ctx.spec)}"]
    if options.report:
        steps = [f"build what is not up to date, check it, and take the report {options.report}"]
    elif tested:
        steps.append("take the report of the smoke test that is recorded for this wheel")
    elif ctx.spec.archs:
        gpus = ", ".join(gpu_for_tests.capabilities(ctx.spec))
        steps.append(f"test it and every operator, if a GPU of compute capability {gpus} is here")
    else:
        steps.append("test it on the CPU, and every operator")
    steps.append("decide from the records whether it may be released")
    if options.reproduce:
        steps.append("build it again from nothing in another folder, and compare")
    if options.sigstore:
        steps.append("sign the provenance with sigstore, which opens a browser")
    verb = "replace" if released else "write"
    languages = "en, es" if options.lang == "all" else options.lang
    steps.append(f"{verb} dist/{ctx.spec.target}/: wheel and documents ({languages})")
    return [f"{ctx.spec.target}: a release would", *(f"  {step}" for step in steps)]


def _refuse_epoch(ctx: Context) -> None:
    """Refuse the caller's SOURCE_DATE_EPOCH, which would change the bytes of the wheel."""
    if epoch := ctx.env.get("SOURCE_DATE_EPOCH"):
        raise Problem(
            "SOURCE_DATE_EPOCH is set, so the bytes of the wheel would differ from a normal build.",
            id="release-source-date-epoch",
            code=USAGE,
            evidence=f"SOURCE_DATE_EPOCH={epoch}",
            remedy="unset SOURCE_DATE_EPOCH; the time of a build is that of the locked source",
        )


def _release_target(
    ctx: Context, code: int, before: Checkout, changed: tuple[str, ...]
) -> dist_folder.Outcome:
    """Check one target and render its documents.

    ``code`` is the exit code of its sessions, ``before`` the state of git before they began, and
    ``changed`` the files in dist/ that changed after they were written.
    """
    disk.mark(ctx.build)
    target = f"{ctx.spec.target}/"
    broken = bool(changed) and not ctx.options.fresh
    # Even with --fresh: a folder that is not replaced is left as it is, as evidence.
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
    options = dataclasses.replace(ctx.options, target=name)
    repacked = other_pythons.read(ctx.root, ctx.targets, options, found.path)
    for older in repacked.older:
        console.warn(f"{name}: left out, because it was made from another build: {older}")
    situation = dataclasses.replace(situation, pythons=repacked)
    checks = gate.evaluate(found, situation)
    if ctx.options.reproduce:
        if {check.id for check in gate.failed(checks)} <= {"reproduce"}:
            differs = reproduce.again(ctx, found)
            checkout = git_state.unchanged(ctx, before)  # again: a build takes long
            situation = dataclasses.replace(situation, differs=differs, checkout=checkout)
            checks = gate.evaluate(found, situation)
        else:
            console.say(f"{ctx.spec.target}: not built a second time: a check below fails")
    result = Gate(ctx.spec.target, found.wheel.file, found.sha256, untested_places(found), checks)
    if gate.failed(checks):
        return dist_folder.Outcome(result, own)
    files = _documents(ctx, found, result, checkout, repacked.wheels)
    places = required_places(found)
    reports = [run.report for run in runs_of_wheel(found) if run.place in places]
    release = Release(
        target=ctx.spec.target,
        arguments=ctx.spec.arguments,
        file=found.wheel.file,
        sha256=found.sha256,
        size=found.wheel.size,
        version=found.wheel.version,
        cuda=ctx.spec.cuda,
        archs=ctx.spec.archs,
        tested=not result.untested,
        proven=None if result.untested else max(report.started for report in reports),
        commit=checkout.commit,
        pythons=repacked.wheels,
        devices=tuple(
            f"{r.device} ({r.capability})" if r.capability else "the CPU" for r in reports
        ),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    return dist_folder.Outcome(result, False, release, found.path, files, repacked.paths)


def _sha256(ctx: Context) -> str:
    """The digest in the record of a target's wheel; "" without a record."""
    wheel = records.read(ctx.record("wheel"), "wheel", Wheel)
    return wheel.sha256 if wheel else ""


def _test(ctx: Context, reports: Sequence[remote_reports.Report]) -> int:
    """Run the sessions that test the wheel: on each GPU that is here and has no report yet."""
    name, options = ctx.spec.base, ctx.options

    def run(session: str, *more: str) -> int:
        return child_nox.follow(ctx.root, [session], name, [*child_nox.words(options), *more])

    def take(session: str, path: str) -> int:
        signers = ["--signers", options.signers] if options.signers is not None else []
        return run(session, "--report", path, *signers)

    if options.report:
        is_ops = signed_report.is_of_ops(Path(options.report))
        return take("ops" if is_ops else "smoke", options.report)
    code = run("verify")
    for report in remote_reports.of(reports, _sha256(ctx)) if not code else ():
        code = code or take(report.session, str(report.path))
    several = len(gpu_for_tests.capabilities(ctx.spec)) > 1  # else the session finds the GPU itself
    for session, place in _missing_runs(ctx) if not code else ():
        device = "cpu" if place == "cpu" else _device(ctx, session, place)
        if device is not None:
            code = code or run(session, *([f"--device={device}"] if several else []))
    return code


def _missing_runs(ctx: Context) -> list[tuple[str, str]]:
    """Session and device of each test that has no passed report on this wheel."""
    sha256, found = _sha256(ctx), []
    for place in gpu_for_tests.capabilities(ctx.spec) or ["cpu"]:
        smoke = records.read(check_smoke_report.record(ctx.build, place), "smoke", SmokeReport)
        ops = records.read(check_ops_report.record(ctx.build, place), "ops", OpsReport)
        for session, report in (("smoke", smoke), ("ops", ops)):
            if not report or report.sha256 != sha256:
                found.append((session, place))
    return sorted(found, key=lambda pair: pair[0] != "smoke")


def _device(ctx: Context, session: str, capability: str) -> str | None:
    """The index of a free GPU of this machine that has this compute capability, or None."""
    try:
        return str(gpu_for_tests.gpu_for(ctx, ctx.machine("nvml"), [capability])["index"])
    except Problem as problem:
        console.say(f"{ctx.spec.target}: {session} was not run here. {problem.what}")
        return None


def _documents(
    ctx: Context, found: Evidence, result: Gate, checkout: Checkout, more: Sequence[PythonWheel]
) -> dict[str, bytes]:
    """Every file that is released with the wheel, by name. The same records give the same bytes."""
    languages = ["en", "es"] if ctx.options.lang == "all" else [ctx.options.lang]
    commit = checkout.commit
    texts = {
        wheel_card.LANGUAGES[name]: wheel_card.render(found, checkout, name, more)
        for name in languages
    }
    charts = bench_charts.charts(found.bench) if found.bench else []
    texts["report.html"] = report_page.render(found, commit, charts)
    texts["provenance.intoto.json"] = statement = provenance.text(found, commit)
    texts |= released_records(found)
    texts["gate.json"] = records.text("gate", result)
    files = {name: text.encode() for name, text in texts.items()}
    with zipfile.ZipFile(found.path) as archive:
        files["sbom.cdx.json"] = archive.read(found.facts.bills[0].member)
    files |= _signature(ctx, found, statement)
    return {**files, "SHA256SUMS": _sums(found, files, more).encode()}


def _sums(found: Evidence, files: Mapping[str, bytes], more: Sequence[PythonWheel]) -> str:
    """The list that ``sha256sum --check`` reads, which ignores a line that begins with #."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    digests |= {wheel.file: wheel.sha256 for wheel in more}
    digests[found.wheel.file] = found.sha256
    missing = untested_places(found)
    head = [f"# UNTESTED on {', '.join(missing)}"] if missing else []
    return "\n".join([*head, *(f"{digests[name]}  {name}" for name in sorted(digests))]) + "\n"


def _signature(ctx: Context, found: Evidence, statement: str) -> dict[str, bytes]:
    """The sigstore bundle of the provenance, if it is requested now or exists for the same one."""
    predicate = json.dumps(json.loads(statement)["predicate"], indent=1) + "\n"
    digest = records.fingerprint([found.sha256, predicate])
    kept = ctx.build / f"provenance-{digest[:16]}.sigstore.json"
    if ctx.options.sigstore and not kept.exists():
        path = kept.with_name("predicate.json")
        records.write_text(path, predicate)
        _sign(ctx, found.path, path, kept)
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
