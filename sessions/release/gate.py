"""The checks that decide whether a wheel may be released, each with its fix. Pure.

A check fails if a record that it needs is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from sessions.build.record_types import Wheel
from sessions.release import other_pythons
from sessions.release.evidence import (
    Evidence,
    OpsRun,
    Run,
    failed_runs,
    ops_runs_of_wheel,
    required_places,
    runs_of_wheel,
    untested_places,
)
from sessions.release.other_pythons import Repacked
from sessions.run import check_ops_report, check_smoke_report
from sessions.shared import knowledge
from sessions.shared.check_result import Check
from sessions.shared.command_text import command
from sessions.shared.errors import Problem
from sessions.verify import checks_digest

UNSUPPORTED = "-allow-unsupported-compiler"


@dataclass(frozen=True)
class Checkout:
    """The git state of blackwheel's own checkout. ``problem`` says why it is unknown."""

    commit: str  # "" if unknown
    changes: tuple[str, ...]  # the lines of git status --porcelain
    problem: str = ""
    author: str = ""  # of the commit
    date: str = ""  # of the commit, YYYY-MM-DD
    origin: str = ""  # the address to clone from


@dataclass(frozen=True)
class Situation:
    """What is checked in addition to the records."""

    checkout: Checkout
    beside: Wheel | None  # wheels/<target>/wheel.json
    changed: tuple[str, ...]  # files in dist/ that changed after they were written
    chain: int  # the exit code of the sessions that ran for this target before release
    allow_untested: bool
    pythons: Repacked = field(default_factory=Repacked)
    differs: tuple[str, ...] | None = None  # from a second build in this run; None without one


def unreadable(problem: Problem, situation: Situation) -> tuple[Check, ...]:
    """The checks that are possible if a record is missing or damaged."""
    missing = Check("records", "fail", f"records: {problem.what}", problem.evidence, problem.remedy)
    return (missing, _checkout(situation.checkout))


def evaluate(found: Evidence, situation: Situation) -> tuple[Check, ...]:
    """All checks. The wheel may be released if none fails."""
    spec = found.spec
    checks = [
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
            ok=f"{len(found.checks)} checks of this file",
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
        checks.append(
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
        checks.append(
            _check(
                "reproduce",
                differs,
                ok="a second build, from nothing and in another folder, gave the same bytes",
                fail="a second build gave another wheel",
                remedy="see docs/release.md, section Two builds that differ",
            )
        )
    if situation.chain and not failed(checks):  # otherwise a check above has the reason
        checks.append(
            _check(
                "chain",
                ["its output is above"],
                ok="",
                fail=f"a session before this one ended with {situation.chain}",
                remedy=command("verify", spec),
            )
        )
    return tuple(checks)


def failed(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that fail."""
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
    yield from (check.summary for check in found.checks if check.status == "fail")
    if not found.checks:
        yield "no check was made"


def _smoke(found: Evidence, allow_untested: bool) -> Check:
    """``smoke`` passed with this file on a GPU of each architecture of the wheel, or on the CPU."""
    missing, bad, spec = untested_places(found), failed_runs(found), found.spec
    places = required_places(found)
    if not missing and not bad:
        passed = [_passed(run) for run in runs_of_wheel(found) if run.place in places]
        return Check("smoke", "ok", f"smoke: {'; '.join(passed)}")
    lines = list(_why_untested(found, missing))
    on_gpu, remedy = places != ("cpu",), command("smoke", spec)
    unsupported = any(UNSUPPORTED in value for value in found.build.settings.values())
    # --allow-untested-gpu excuses neither a failed run nor a compiler that CUDA refuses.
    optional = on_gpu and not bad and not unsupported
    if on_gpu:
        if unsupported:
            lines.append(f"built with {UNSUPPORTED}: such a wheel may crash, so it must be run")
        remedy = (
            f"if the GPU is in this machine: {remedy}; otherwise here "
            f"{command('bundle', spec)}, run the file that it writes on the machine with the GPU, "
            f"and here {command('release', spec, '--report', 'FILE')}"
        )
        if len(missing) > 1:
            remedy += "; one report for each compute capability"
        if optional and not allow_untested:
            remedy += "; to release it anyway, marked UNTESTED: add --allow-untested-gpu"
    return _not_passed(
        "smoke",
        "checks failed" if bad else "not run",
        [run.place for run in bad] or missing,
        lines,
        remedy,
        untested=optional and allow_untested,
    )


def _ops(found: Evidence, allow_untested: bool) -> Check:
    """Every operator was tested with exactly this file on a device of each kind it is for."""
    spec, runs = found.spec, {run.place: run for run in ops_runs_of_wheel(found)}
    places = required_places(found)
    failures = {place: check_ops_report.failed(run.report) for place, run in runs.items()}
    bad = {place: ids for place, ids in failures.items() if ids}
    missing = [place for place in places if place not in runs]
    if not missing and not bad:
        return Check("ops", "ok", f"ops: {'; '.join(_totals(runs[place]) for place in places)}")
    lines = [f"on {_on(place)}, checks that fail: {', '.join(ids)}" for place, ids in bad.items()]
    lines += [f"not tested on {_on(place)}" for place in missing]
    lines += [
        f"a report belongs to another wheel, sha256 {run.report.sha256}"
        for run in found.ops
        if run.report.sha256 != found.sha256
    ]
    on_gpu, remedy = places != ("cpu",), command("ops", spec)
    if on_gpu:
        remedy = (
            f"if the GPU is in this machine: {remedy}; otherwise here {command('bundle', spec)}, "
            "run the file that it writes on the machine with the GPU, with --ops, and here "
            f"{command('ops', spec, '--report', 'FILE')}"
        )
    return _not_passed(
        "ops",
        "operators fail" if bad else "upstream's operator test was not run",
        list(bad) or missing,
        lines,
        remedy,
        untested=on_gpu and not bad and allow_untested,
    )


def _not_passed(
    id_: str, what: str, places: Iterable[str], lines: list[str], remedy: str, *, untested: bool
) -> Check:
    """A test that failed or was not run on some devices; a warning if it may be ``untested``."""
    summary = f"{'UNTESTED' if untested else what} on {', '.join(map(_on, places))}"
    status: Literal["warn", "fail"] = "warn" if untested else "fail"
    return Check(id_, status, f"{id_}: {summary}", "\n".join(lines), remedy)


def _totals(run: OpsRun) -> str:
    total = check_ops_report.totals(run.report)
    return (
        f"{total['right']} of {total['cases']} cases are right on {_on(run.place)}, "
        f"{total['unsupported']} not supported, {total['wrong']} known upstream faults"
    )


def _passed(run: Run) -> str:
    report = run.report
    device = "" if report.device == "cpu" else f"{report.device}, "
    origin = "" if report.origin == "here" else f", by {report.origin}"
    return (
        f"{len(report.checks)} checks with {len(report.cases)} cases passed on "
        f"{device}{_on(run.place)}{origin}"
    )


def _on(device: str) -> str:
    return "the CPU" if device == "cpu" else f"a GPU of compute capability {device}"


def _why_untested(found: Evidence, missing: Iterable[str]) -> Iterator[str]:
    runs = runs_of_wheel(found)
    for run in found.runs:
        report = run.report
        if run not in runs:
            yield f"the report of {report.device} belongs to another wheel, sha256 {report.sha256}"
            continue
        where = f" ({report.capability})" if report.capability else ""
        yield f"it was run on {report.device}{where}"
        if run.failed:
            yield f"checks that fail or are missing: {', '.join(run.failed)}"
        yield from check_smoke_report.gaps(report)
    places = {run.place for run in runs}
    yield from (f"it was not run on {_on(place)}" for place in missing if place not in places)


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
