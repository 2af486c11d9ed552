"""The ritual before publishing: prove the wheels of some targets, judge them, write their papers.

A wheel that may not be released gets no place in ``dist/``, and every reason is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sessions.core import chain, console, disk, job, options, pyenv, records, run
from sessions.core.context import Context
from sessions.core.errors import CHECK_FAILED, USAGE, Problem
from sessions.core.model import Gate, Release, SmokeReport, Wheel
from sessions.core.spec import command
from sessions.papers import card, gate, index, page, provenance, report, speed
from sessions.papers.evidence import Evidence, Reproduced, handed_on, read, state, unproven
from sessions.papers.gate import Checkout, Situation
from sessions.wheelfile import compare

RECORD = "release.json"
PAGE = "RELEASE.md"
CONTENTS = "contents.json"  # sha256 of all else in dist/; in there, so that it comes with the rest


@dataclass(frozen=True)
class Outcome:
    """One target's verdict; where it may be released, its record and the files beside its wheel."""

    gate: Gate
    changed: bool  # whether dist/ is not as it was written
    release: Release | None = None
    wheel: Path | None = None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def main(ctx: Context) -> None:
    """Judge each target, and make ``dist/`` of those that may be released."""
    if ctx.options.report and len(ctx.specs) > 1:
        raise Problem(
            "A report is of one target.",
            id="release-one-report-per-target",
            code=USAGE,
            remedy="--report FILE --target NAME",
        )
    dist = ctx.root / "dist"
    if ctx.options.dry_run:
        for spec in ctx.specs:
            one = dataclasses.replace(ctx, spec=spec)
            released = (dist / spec.target / RECORD).is_file()
            console.say("\n".join(plan(one, proven=_proven(one), released=released)))
        console.say("--dry-run: nothing was built, tested or written")
        return
    with _alone(ctx, dist):
        changed = _changed(dist)
        targets = {spec.target for spec in ctx.specs} | {place.name for place in _released(dist)}
        checkout = _checkout(ctx)
    each = [dataclasses.replace(ctx, spec=spec) for spec in ctx.specs]
    codes = [_prove(one) for one in each]
    # All now and in one order: two runs that want each other's would wait for ever.
    for target in sorted(spec.target for spec in ctx.specs):
        ctx.target_lock(target)
    outcomes = [
        _one(one, code, checkout, _about(one.spec.target, targets, changed))
        for one, code in zip(each, codes, strict=True)
    ]
    for made in outcomes:
        console.say(f"{made.gate.target}: {page.verdict(made.gate)}")
        console.checks(made.gate.checks)
    if any(made.changed for made in outcomes):
        console.say(f"{dist} stays as it is")
    else:
        with _alone(ctx, dist):
            _assemble(dist, outcomes)
            for one, made in zip(each, outcomes, strict=True):
                if made.release:
                    records.write(one.record("release"), "release", made.release)
                else:
                    one.record("release").unlink(missing_ok=True)
        console.say(f"  {dist / PAGE}")
    refused = {m.gate.target: gate.failed(m.gate.checks) for m in outcomes}
    reasons = [f"{name}: {check.summary}" for name, found in refused.items() for check in found]
    if reasons:
        names = ", ".join(name for name, found in refused.items() if found)
        count = f"{len(reasons)} reason{'s' if len(reasons) > 1 else ''}"
        raise Problem(
            f"{page.NOT}: {names}, for {count}.",
            id="release-not-releasable",
            code=CHECK_FAILED,
            evidence="\n".join(reasons),
            remedy="above, under each",
        )
    for made in outcomes:
        console.done(f"release: {made.gate.target}, {page.verdict(made.gate)}, in {dist}")


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
        needed = ", ".join(job.capabilities(ctx.spec))
        steps.append(f"test it, if a GPU of compute capability {needed} is here")
    else:
        steps.append("test it on the CPU")
    steps.append("decide from the records whether it may be released")
    if asked.reproduce:
        steps.append("build it again from nothing in another folder, and compare")
    if asked.sigstore:
        steps.append("sign the provenance with sigstore, which opens a browser")
    verb = "replace" if released else "write"
    languages = "en, es" if asked.lang == "all" else asked.lang
    steps.append(f"{verb} dist/{ctx.spec.target}/: wheel and documents ({languages})")
    return [f"{ctx.spec.target}: a release would", *(f"  {step}" for step in steps)]


def _one(ctx: Context, code: int, checkout: Checkout, changed: tuple[str, ...]) -> Outcome:
    """Judge one target, then write its papers. ``code`` is how its sessions ended."""
    disk.mark(ctx.build)
    if changed and ctx.options.fresh:
        what = "dist/ is not as it was written; --fresh writes it anew:"
        console.warn("\n".join([what, *changed]))
        changed = ()
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
        return Outcome(Gate(ctx.spec.target, "", "", (), checks), bool(changed))
    checks = gate.judge(found, situation)
    if ctx.options.reproduce:
        if {check.id for check in gate.failed(checks)} <= {"reproduce"}:
            checks = gate.judge(found, dataclasses.replace(situation, differs=_again(ctx, found)))
        else:
            console.say(f"{ctx.spec.target}: not built a second time: see below what is to mend")
    made = Gate(ctx.spec.target, found.wheel.file, found.sha256, unproven(found), checks)
    if gate.failed(checks):
        return Outcome(made, bool(changed))
    files = _papers(ctx, found, made, checkout.commit)
    release = Release(
        target=ctx.spec.target,
        file=found.wheel.file,
        sha256=found.sha256,
        size=found.wheel.size,
        version=found.wheel.version,
        cuda=ctx.spec.cuda,
        archs=ctx.spec.archs,
        tested=not made.untested,
        proven=found.smoke.started if found.smoke and not made.untested else None,
        commit=checkout.commit,
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    return Outcome(made, False, release, found.path, files)


def _prove(ctx: Context) -> int:
    """Run the sessions that prove the wheel; smoke where it can be, and is not yet."""
    words = chain.words(ctx.options)
    name = (ctx.spec.target).split("+")[0]
    if ctx.options.report:
        more = ["--report", ctx.options.report]
        more += ["--signers", ctx.options.signers] if ctx.options.signers else []
        return chain.follow(ctx.root, ["smoke"], name, [*words, *more])
    code = chain.follow(ctx.root, ["verify"], name, words)
    if code or _proven(ctx) or not _can_smoke(ctx):
        return code
    device = [] if ctx.spec.archs else ["--device=cpu"]
    return chain.follow(ctx.root, ["smoke"], name, [*words, *device])


def _proven(ctx: Context) -> bool:
    """Whether a report on this very wheel is there, good or bad."""
    wheel = records.read(ctx.record("wheel"), "wheel", Wheel)
    found = records.read(ctx.record("smoke"), "smoke", SmokeReport)
    if found is None or wheel is None or found.sha256 != wheel.sha256:
        return False
    return found.device != "cpu" or not ctx.spec.archs


def _can_smoke(ctx: Context) -> bool:
    if not ctx.spec.archs:
        return True
    try:
        job.card_for(ctx, ctx.machine("nvml"))
    except Problem as problem:
        console.say(f"smoke: not run here. {problem.what}")
        return False
    return True


def _papers(ctx: Context, found: Evidence, passed: Gate, commit: str) -> dict[str, bytes]:
    """Every file beside the wheel, by name. The same records give the same bytes."""
    languages = ["en", "es"] if ctx.options.lang == "all" else [ctx.options.lang]
    texts = {card.LANGUAGES[name]: card.render(found, commit, name) for name in languages}
    charts = speed.charts(found.bench) if found.bench else []
    texts["report.html"] = report.render(found, commit, charts)
    texts["provenance.intoto.json"] = provenance.text(found, commit)
    texts |= handed_on(found)
    texts["gate.json"] = records.text("gate", passed)
    files = {name: text.encode() for name, text in texts.items()}
    with zipfile.ZipFile(found.path) as archive:
        files["sbom.cdx.json"] = archive.read(found.facts.bills[0].member)
    files |= _signature(ctx, found, commit)
    return {**files, "SHA256SUMS": _sums(found, files).encode()}


def _sums(found: Evidence, files: Mapping[str, bytes]) -> str:
    """The list that ``sha256sum --check`` reads; a line that begins with # is none of its."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    digests[found.wheel.file] = found.sha256
    missing = unproven(found)
    head = [f"# UNTESTED on {', '.join(missing)}"] if missing else []
    return "\n".join([*head, *(f"{digests[name]}  {name}" for name in sorted(digests))]) + "\n"


def _signature(ctx: Context, found: Evidence, commit: str) -> dict[str, bytes]:
    """The provenance signed by sigstore, if it was asked for, now or for the same one before."""
    predicate = json.dumps(provenance.statement(found, commit)["predicate"], indent=1) + "\n"
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
    part = bundle.with_name("sigstore.part")
    part.unlink(missing_ok=True)
    code = run.inherit([program, "attest", *kind, "--bundle", str(part), str(wheel)])
    if code or not part.is_file():
        raise Problem(
            f"sigstore ended with {code} and no signature; nothing was written to dist/.",
            id="sigstore-failed",
            evidence="what it said is above",
            remedy="sign in as it asks, or release without --sigstore",
        )
    part.replace(bundle)


def _checkout(ctx: Context) -> Checkout:
    """What git says of this project's own files."""
    env = options.pip_environment(ctx.env)

    def git(*words: str) -> run.Finished:
        return run.capture(["git", "-C", str(ctx.root), *words], env=env)

    top, head = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=normal")  # whatever is configured
    for asked in (top, head, status):
        if asked.returncode:
            return Checkout("", (), f"git: {pyenv.tail(asked.output, 2)}")
    if ctx.root.resolve() not in [Path(line).resolve() for line in top.stdout.splitlines()]:
        return Checkout("", (), f"{ctx.root} is no git checkout of its own")
    commit = re.search(r"^[0-9a-f]{40}$", head.stdout, re.MULTILINE)
    if commit is None:
        return Checkout("", (), f"git names no commit: {pyenv.tail(head.output, 2)}")
    return Checkout(commit[0], tuple(status.stdout.splitlines()))


def _again(ctx: Context, first: Evidence) -> tuple[str, ...]:
    """Build the wheel a second time, from nothing and in another folder; how the two differ.

    What came out is recorded. That no second one could be built says nothing of the wheel.
    """
    folder = ctx.build / "again"
    if folder.exists():
        disk.remove(folder)
    disk.mark(folder)
    copy = folder / "checkout"
    env = options.pip_environment(ctx.env)
    listed = run.capture(["git", "-C", str(ctx.root), "ls-files", "-z"], env=env)
    if listed.returncode:
        return (f"not built again: git ls-files: {pyenv.tail(listed.output, 2)}",)
    for name in filter(None, listed.stdout.split("\0")):
        if not (ctx.root / name).is_file():
            return (f"not built again: git ls-files names {name!r}, which is no file here",)
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ctx.root / name, copy / name)
    if sys.platform != "win32" and (ctx.root / ".nox").exists():
        (copy / ".nox").symlink_to(ctx.root / ".nox")  # else the sessions' venv is made anew
    # Toolkit, tools and source are pinned by hash: only what was compiled must not come back.
    asked = ctx.options
    again = dataclasses.replace(
        asked,
        cache="none",
        source=_absolute(asked.source),
        toolkit=_absolute(asked.toolkit),
        compiler=_absolute(asked.compiler),
    )
    env = {**ctx.env, "BLACKWHEEL_CACHE": str(ctx.cache)}
    console.say(f"Building {ctx.spec.target} a second time, from nothing, in {copy}")
    name = ctx.spec.target.split("+")[0]
    code = chain.follow(copy, ["wheel"], name, chain.words(again), env=env)
    made = copy / "wheels" / ctx.spec.target
    second = records.read(made / "wheel.json", "wheel", Wheel)
    if code or second is None:
        return (f"the second build ended with {code} and no wheel; what it said is above",)
    one, other = first.path, made / second.file
    found = compare.differences(one, other)
    if found and (program := shutil.which("diffoscope", path=ctx.env.get("PATH"))):
        told = folder / "diffoscope.txt"
        run.capture([program, "--text", str(told), str(one), str(other)], env=env)
        found = (*found, f"diffoscope says more: {told}")
    records.write(ctx.record("reproduce"), "reproduce", Reproduced(first.sha256, found))
    if not found:
        disk.remove(folder)
    return found


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().resolve()) if path and Path(path).exists() else path


# ---- dist/ ----


@contextlib.contextmanager
def _alone(ctx: Context, dist: Path) -> Iterator[None]:
    """Have dist/ for this process alone, whole, and with nothing beside it that git would see."""
    with disk.lock(ctx.root / "build" / "dist.lock", console.say):
        _restore(dist)
        for leftover in _beside(dist):
            if leftover.exists():
                disk.remove(leftover)
        if dist.exists() and not disk.is_marked(dist):
            raise Problem(
                "dist/ was not made by blackwheel, so nothing is put there.",
                id="dist-not-ours",
                evidence=str(dist),
                remedy=f"move it away: {dist}",
            )
        yield


def _beside(dist: Path) -> tuple[Path, Path]:
    """Where the next dist/ is made, and where the last one waits for it."""
    return dist.with_name(".dist.part"), dist.with_name(".dist.old")


def _restore(dist: Path) -> None:
    """Put the last dist/ back where a run ended before it put the next one there."""
    _, old = _beside(dist)
    if disk.is_marked(old) and not dist.exists():
        old.rename(dist)


def _changed(dist: Path) -> tuple[str, ...]:
    """How dist/ differs from what was written. Whoever releases a target may delete its folder."""
    if not dist.exists():
        return ()
    there = disk.tree_digest(dist, lambda name: name != CONTENTS)
    written = records.read(dist / CONTENTS, "contents", dict[str, str])
    if written is None:
        return (f"{CONTENTS}: {state(dist / CONTENTS)}", *gate.changed({}, there))
    tops = {name.split("/")[0] for name in written}
    gone = {t for t in tops if f"{t}/{RECORD}" in written and not (dist / t).exists()}
    kept = {name: digest for name, digest in written.items() if name.split("/")[0] not in gone}
    return gate.changed(kept, there)


def _released(dist: Path) -> list[Path]:
    """The folder of each target in dist/."""
    return sorted(path.parent for path in dist.glob(f"*/{RECORD}"))


def _about(target: str, targets: Iterable[str], changed: Iterable[str]) -> tuple[str, ...]:
    """The changes that are of this target or of the pages of all, and of no other target."""
    others = tuple(f"{name}/" for name in targets if name != target)
    return tuple(line for line in changed if not line.startswith(others))


def _assemble(dist: Path, outcomes: Iterable[Outcome]) -> None:
    """Make dist/ anew beside and rename it: what was released now, and what was before."""
    part, old = _beside(dist)
    disk.mark(part)
    made = {outcome.gate.target: outcome for outcome in outcomes}
    gates = {name: outcome.gate for name, outcome in made.items()}
    gates |= _keep(dist, part, [p for p in _released(dist) if p.name not in made])
    for name, outcome in made.items():
        if outcome.release and outcome.wheel:
            place = part / name
            place.mkdir()
            shutil.copyfile(outcome.wheel, place / outcome.release.file)
            for file, data in outcome.files.items():
                (place / file).write_bytes(data)
            records.write(place / RECORD, "release", outcome.release)
    index.write(part)
    records.write_text(part / PAGE, page.render([gates[name] for name in sorted(gates)]))
    records.write(part / CONTENTS, "contents", disk.tree_digest(part, lambda _: True))
    if dist.exists():
        dist.rename(old)
    try:
        part.rename(dist)
    finally:
        _restore(dist)
    if old.exists():
        old.rename(part)  # what is half deleted must never be taken for the last dist/
        disk.remove(part)


def _keep(dist: Path, part: Path, folders: Iterable[Path]) -> dict[str, Gate]:
    """Take over what was released before, if it is as it was written."""
    changed, passed = _changed(dist), {}
    for folder in folders:
        lines = [line for line in changed if line.startswith(f"{folder.name}/")]
        release = records.read(folder / RECORD, "release", Release)
        found = records.read(folder / "gate.json", "gate", Gate)
        if lines or release is None or found is None:
            raise Problem(
                f"dist/{folder.name}/ is not as it was released.",
                id="dist-changed",
                code=CHECK_FAILED,
                evidence="\n".join(lines or ["its records cannot be read"]),
                remedy=f"nox -s release -- --target {folder.name.split('+')[0]} --fresh writes it "
                f"anew (several in one run: --target A,B); or delete {folder}",
            )
        (part / folder.name).mkdir()
        for name in (release.file, *release.files, RECORD):  # and nothing else that lies there
            shutil.copyfile(folder / name, part / folder.name / name)
        passed[folder.name] = found
    return passed
