"""May a wheel be released: every check, each with the command that fixes it. Pure.

A check that lacks what it needs fails: nothing passes by absence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sessions.build.model import Wheel
from sessions.release import other_pythons
from sessions.release.evidence import (
    Evidence,
    OpsRun,
    Run,
    needed,
    ops_ran,
    ran,
    refuted,
    unproven,
)
from sessions.release.other_pythons import Repacked
from sessions.run import ops_results, smoke_results
from sessions.shared import knowledge
from sessions.shared.checks import Check
from sessions.shared.errors import Problem
from sessions.shared.remedies import command
from sessions.verify import checks_digest

UNSUPPORTED = "-allow-unsupported-compiler"


@dataclass(frozen=True)
class Checkout:
    """The git state of this project's own files. ``problem``: why it is not known."""

    commit: str  # "" where it is not known
    changes: tuple[str, ...]  # as git status --porcelain has them
    problem: str = ""
    author: str = ""  # of the commit
    date: str = ""  # of the commit, YYYY-MM-DD
    origin: str = ""  # the address to clone from


@dataclass(frozen=True)
class Situation:
    """What is judged beside the records."""

    checkout: Checkout
    beside: Wheel | None  # the record that is beside the wheel
    changed: tuple[str, ...]  # documents that are not as they were written
    chain: int  # how the target's sessions ended
    allow_untested: bool
    pythons: Repacked = field(default_factory=Repacked)
    differs: tuple[str, ...] | None = None  # from the wheel of a second build; None: not now


def unreadable(problem: Problem, situation: Situation) -> tuple[Check, ...]:
    """The checks where not all records are there: the others cannot be made."""
    missing = Check("records", "fail", f"records: {problem.what}", problem.evidence, problem.remedy)
    return (missing, _checkout(situation.checkout))


def judge(found: Evidence, situation: Situation) -> tuple[Check, ...]:
    """Every check. The wheel may be released if none of them fails."""
    spec = found.spec
    made = [
        Check("records", "ok", "records: none is missing, and none was changed"),
        _check(
            "wheel",
            _wheel(found, situation.beside),
            ok=f"the file is the one that was built, sha256 {found.sha256}",
            fail="the file is not the one that was built",
            remedy=command("wheel", spec, "--fresh"),
        ),
        _check(
            "build",
            _build(found),
            ok="up to date with its inputs",
            fail="older than its inputs: the target, the source or a tool has changed since",
            remedy=command("wheel", spec),
        ),
        _check(
            "source",
            _source(found),
            ok=f"llama-cpp-python {found.source.version}, pinned by hash and not edited",
            fail="not the pinned upstream source",
            remedy=f"{command('source', spec, '--fresh')} restores it; a wheel of --source is not "
            "released",
        ),
        _toolkit(found),
        _check(
            "verify",
            _verify(found),
            ok=f"{sum(len(g.checks) for g in found.verify.groups)} checks of this file",
            fail="verify has not passed for this file",
            remedy=command("verify", spec),
        ),
        _smoke(found, situation.allow_untested),
        _ops(found, situation.allow_untested),
        _checkout(situation.checkout),
        _check(
            "documents",
            situation.changed,
            ok=f"dist/{spec.target}/ and the index contain what release wrote and nothing else",
            fail="dist/ was changed after release wrote it",
            remedy=f"find out what changed it; to write it again: "
            f"{command('release', spec, '--fresh')}",
        ),
    ]
    if situation.pythons.wheels or situation.pythons.faults:
        names = other_pythons.names(situation.pythons.wheels)
        made.append(
            _check(
                "pythons",
                situation.pythons.faults,
                ok=f"the same libraries byte for byte, each wheel's own metadata verified: {names}",
                fail="a wheel for another Python is wrong or was not checked",
                remedy=f"nox -s matrix -- --targets {spec.base} --pythons all",
            )
        )
    differs = situation.differs
    if differs is None and found.again:
        differs = found.again.differs
    if differs is not None:
        again = _check(
            "reproduce",
            differs,
            ok="a second build, from nothing and in another folder, gave the same bytes",
            fail="a second build gave another wheel",
            remedy="see docs/release.md, section Two builds that differ",
        )
        made.append(again)
    if situation.chain and not failed(made):  # else the reason is already among them
        made.append(
            Check(
                "chain",
                "fail",
                f"chain: a session before this one ended with {situation.chain}",
                "its output is above",
                command("verify", spec),
            )
        )
    return tuple(made)


def failed(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The reasons why a wheel is not released."""
    return tuple(check for check in checks if check.status == "fail")


def _check(id_: str, problems: Iterable[str], *, ok: str, fail: str, remedy: str) -> Check:
    lines = list(problems)
    if not lines:
        return Check(id_, "ok", f"{id_}: {ok}")
    return Check(id_, "fail", f"{id_}: {fail}", "\n".join(lines), remedy)


def _wheel(found: Evidence, beside: Wheel | None) -> Iterator[str]:
    if found.sha256 != found.wheel.sha256:
        yield f"its sha256 is {found.sha256}, and that of the built wheel is {found.wheel.sha256}"
    if beside != found.wheel:
        yield f"wheels/{found.spec.target}/wheel.json is not the record of its build"
    if found.wheel.target != found.spec.target:
        yield f"it was built for the target {found.wheel.target}"


def _build(found: Evidence) -> Iterator[str]:
    wheel, spec = found.wheel, found.spec
    if wheel.fingerprint != found.build.fingerprint:
        yield "its settings, tools, toolkit or source have changed since"
    if wheel.source_digest != found.source.digest:
        yield "the source has changed since"
    for what, was, now in (
        ("version", wheel.version, spec.version),
        ("CUDA", wheel.cuda, spec.cuda),
        ("architectures", wheel.archs, spec.archs),
    ):
        if was != now and not (what == "version" and spec.source):
            yield f"{what}: {was}, and the target has {now}"


def _source(found: Evidence) -> Iterator[str]:
    locked = knowledge.sdists().get(found.spec.version)
    if found.spec.source is not None:
        yield f"it was built from a checkout: {found.spec.source}"
    elif locked is None or found.source.sdist_sha256 != locked.sha256:
        yield f"sdist {found.source.sdist_sha256}, which is not the locked one"
    if found.source.edited:
        yield f"edited: {', '.join(found.source.edited)}"
    if found.wheel.source_edited and found.spec.source is None:
        yield "the wheel was built from an edited source"


def _toolkit(found: Evidence) -> Check:
    bad = knowledge.toolkit(found.spec.cuda).bad if found.spec.cuda else None
    lines = [f"CUDA {found.spec.cuda}: {bad}"] if bad else []
    if found.spec.cuda and found.toolkit is None:
        lines.append("the record of the CUDA toolkit is missing")
    return _check(
        "toolkit",
        lines,
        ok=f"CUDA {found.spec.cuda}" if found.spec.cuda else "none needed",
        fail="built with a CUDA release that is known to be bad",
        remedy="choose another release, for example --cuda 13.1",
    )


def _verify(found: Evidence) -> Iterator[str]:
    report = found.verify
    if found.facts.sha256 != found.sha256 or report.sha256 != found.sha256:
        yield f"facts.json and verify.json belong to another file, sha256 {report.sha256}"
    if report.fingerprint != checks_digest.fingerprint(found.spec, found.wheel):
        yield "it was checked with other rules, or for another target"
    checks = [check for group in report.groups for check in group.checks]
    yield from (f"{c.summary}" for c in checks if c.status == "fail")
    if not checks:
        yield "no check was made"


def _smoke(found: Evidence, allow_untested: bool) -> Check:
    """Proven on a device of each kind the wheel is for, by reports on this very file."""
    missing, bad, spec = unproven(found), refuted(found), found.spec
    if not missing and not bad:
        held = "; ".join(_held(run) for run in ran(found) if run.place in needed(found))
        return Check("smoke", "ok", f"smoke: {held}")
    lines = list(_why_unproven(found, missing))
    # What was tried and failed is not untested; nor may a compiler go by that CUDA refuses.
    what = "checks failed" if bad else "not run"
    devices = ", ".join(map(_on, [run.place for run in bad] or missing))
    if needed(found) == ("cpu",):
        remedy = command("smoke", spec)
        return Check("smoke", "fail", f"smoke: {what} on the CPU", "\n".join(lines), remedy)
    unsupported = any(UNSUPPORTED in value for value in found.build.settings.values())
    if unsupported:
        lines.append(f"built with {UNSUPPORTED}: such a wheel may crash, so it must be run")
    remedy = (
        f"if the GPU is in this machine: {command('smoke', spec)}; otherwise here "
        f"{command('bundle', spec)}, run the file that it writes on the machine with the GPU, "
        f"and here {command('release', spec, '--report', 'FILE')}"
    )
    if len(missing) > 1:
        remedy += "; one report for each compute capability"
    if bad or unsupported:
        return Check("smoke", "fail", f"smoke: {what} on {devices}", "\n".join(lines), remedy)
    if allow_untested:
        return Check("smoke", "warn", f"smoke: UNTESTED on {devices}", "\n".join(lines), remedy)
    remedy += "; to release it anyway, marked UNTESTED: add --allow-untested-gpu"
    return Check("smoke", "fail", f"smoke: {what} on {devices}", "\n".join(lines), remedy)


def _ops(found: Evidence, allow_untested: bool) -> Check:
    """Every operator tested on a device of each kind that the wheel is for, with this very file."""
    spec, runs = found.spec, {run.place: run for run in ops_ran(found)}
    bad = [run for run in runs.values() if ops_results.failed(run.report)]
    missing = [place for place in needed(found) if place not in runs]
    if not missing and not bad:
        held = "; ".join(_answered(runs[place]) for place in needed(found))
        return Check("ops", "ok", f"ops: {held}")
    lines = [
        f"on {_on(run.place)}, checks that fail: {', '.join(ops_results.failed(run.report))}"
        for run in bad
    ]
    lines += [f"not tested on {_on(place)}" for place in missing]
    lines += [
        f"a report belongs to another wheel, sha256 {run.report.sha256}"
        for run in found.ops
        if run.report.sha256 != found.sha256
    ]
    devices = ", ".join(map(_on, [run.place for run in bad] or missing))
    remedy = command("ops", spec)
    if needed(found) != ("cpu",):
        remedy = (
            f"if the GPU is in this machine: {remedy}; otherwise here {command('bundle', spec)}, "
            "run the file that it writes on the machine with the GPU, with --ops, and here "
            f"{command('ops', spec, '--report', 'FILE')}"
        )
    if bad:
        return Check("ops", "fail", f"ops: operators fail on {devices}", "\n".join(lines), remedy)
    if allow_untested and needed(found) != ("cpu",):
        return Check("ops", "warn", f"ops: UNTESTED on {devices}", "\n".join(lines), remedy)
    text = f"ops: upstream's operator test was not run on {devices}"
    return Check("ops", "fail", text, "\n".join(lines), remedy)


def _answered(run: OpsRun) -> str:
    total = ops_results.totals(run.report)
    return (
        f"{total['right']} of {total['cases']} cases are right on {_on(run.place)}, "
        f"{total['unsupported']} not supported, {total['wrong']} known upstream faults"
    )


def _held(run: Run) -> str:
    report = run.report
    device = "" if report.device == "cpu" else f"{report.device}, "
    came = "" if report.origin == "here" else f", by {report.origin}"
    return (
        f"{len(report.checks)} checks with {len(report.cases)} cases passed on "
        f"{device}{_on(run.place)}{came}"
    )


def _on(device: str) -> str:
    return "the CPU" if device == "cpu" else f"a GPU of compute capability {device}"


def _why_unproven(found: Evidence, missing: Iterable[str]) -> Iterator[str]:
    for run in found.runs:
        report = run.report
        if run not in ran(found):
            yield f"the report of {report.device} belongs to another wheel, sha256 {report.sha256}"
            continue
        yield f"it was run on {report.device}" + (
            f" ({report.capability})" if report.capability else ""
        )
        if bad := run.failed:
            yield f"checks that fail or are missing: {', '.join(bad)}"
        yield from smoke_results.gaps(report)
    yield from (f"it was not run on {_on(place)}" for place in missing if not _there(found, place))


def _there(found: Evidence, place: str) -> bool:
    return any(run.place == place for run in ran(found))


def _checkout(checkout: Checkout) -> Check:
    problems = [checkout.problem] if checkout.problem else list(checkout.changes)
    if not problems and not checkout.commit:
        problems = ["git reports no commit"]
    return _check(
        "checkout",
        problems,
        ok=f"blackwheel {checkout.commit}, clean",
        fail="the version of blackwheel is unknown: this is not a git checkout of its own"
        if checkout.problem
        else "blackwheel has uncommitted changes",
        remedy="release from a clean clone, or commit what git status shows",
    )


def changed(files: Mapping[str, str], there: Mapping[str, str]) -> tuple[str, ...]:
    """How a folder differs from what was written; both are names and sha256."""
    lines = [f"{name}: missing" for name in sorted(files.keys() - there.keys())]
    lines += [f"{name}: not written by release" for name in sorted(there.keys() - files.keys())]
    both = sorted(files.keys() & there.keys())
    lines += [
        f"{name}: changed since it was written" for name in both if files[name] != there[name]
    ]
    return tuple(lines)
