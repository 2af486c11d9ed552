"""The session ``matrix``: builds the wheels of several targets for several Pythons.

One wheel per target is built. Other Pythons use the same wheel, or a copy with another tag: its
libraries are loaded by ctypes, so they do not depend on the version of Python.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from sessions.build import python_tag, wheels_folder
from sessions.build.record_types import Wheel
from sessions.command_line import child_nox
from sessions.fetch.record_types import Source, Toolkit
from sessions.matrix.record_types import Matrix, MatrixRow
from sessions.shared import code_digest, console, disk, locks, programs, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, Problem, numbered
from sessions.targets.choose_target import ALL
from sessions.verify import checks_digest

COLUMNS = ("target", "Python", "outcome", "MB", "wall", "CPU", "from cache", "shared")


def main(ctx: Context) -> None:
    """Make every wheel, continue after failures, and write a table and ``build/matrix.json``."""
    record = ctx.root / "build" / "matrix.json"
    record.unlink(missing_ok=True)  # a run that is killed must not leave the record of another one
    began, start = datetime.datetime.now(datetime.UTC), time.monotonic()
    _find_pythons(ctx)
    rows: list[MatrixRow] = []
    for specs in groups(ctx.specs):
        built = build(ctx, specs[0], rows)
        rows.append(built)
        for spec in specs[1:]:
            if ctx.options.pythons == ALL and not _is_allowed(ctx, spec, built):
                continue
            console.say(f"{spec.base} for Python {spec.python}")
            rows.append(_serve_or_fail(ctx, spec, built))
    seconds = round(time.monotonic() - start, 1)
    failed = [row for row in rows if row.outcome == "failed"]
    result = Matrix(began.isoformat(timespec="seconds"), seconds, tuple(rows))
    records.write(record, "matrix", result, ok=not failed)
    console.table("", COLUMNS, map(cells, rows))
    # In a table with many columns the long names would be wrapped.
    for path in dict.fromkeys(f"wheels/{r.folder}/{r.file}" for r in rows if r.file):
        console.say(f"  {ctx.root / path}")
    console.say(f"  {record}")
    if failed:
        raise Problem(
            f"Not all wheels were made: {len(failed)} of {len(rows)} failed.",
            id="matrix-incomplete",
            code=CHECK_FAILED,
            evidence="\n".join(f"{r.target}, Python {r.python}: {r.reason}" for r in failed),
            remedy=numbered([*(row.remedy for row in failed), "run the same command again"]),
        )
    console.done(f"matrix: {len(rows)} wheels in {console.duration(seconds)}")


def groups(specs: Iterable[BuildSpec]) -> list[list[BuildSpec]]:
    """The specs grouped by target, in their order."""
    found: dict[str, list[BuildSpec]] = {}
    for spec in specs:
        found.setdefault(spec.base, []).append(spec)
    return list(found.values())


def cells(row: MatrixRow) -> tuple[str, ...]:
    """A row of the printed table."""
    if row.outcome == "failed":
        return (row.target, row.python, row.outcome, "", "", "", "", "why: below")
    total = row.cache["hits"] + row.cache["misses"] if row.cache else 0
    return (
        row.target,
        row.python,
        row.outcome,
        f"{row.size / 1e6:.1f}",
        f"{row.wall_seconds:.1f} s",
        "" if row.cpu_seconds is None else f"{row.cpu_seconds:.1f} s",
        f"{row.cache['hits']} of {total}" if total else "",
        ", ".join(row.shared),
    )


def shared(
    now: tuple[Source | None, Toolkit | None, dict[str, int]],
    before: Iterable[tuple[Source | None, Toolkit | None]],
) -> tuple[str, ...]:
    """What a build took over: the source and the toolkit of an earlier row, and cached objects."""
    source, toolkit, cache = now
    earlier = list(before)
    found = []
    if source and any(other and other.path == source.path for other, _ in earlier):
        found.append(f"source {source.version}")
    if toolkit and any(other and other.root == toolkit.root for _, other in earlier):
        found.append(f"CUDA {toolkit.version}")
    if cache.get("hits"):
        found.append(f"{cache['hits']} objects")
    return tuple(found)


def build(ctx: Context, spec: BuildSpec, rows: Sequence[MatrixRow]) -> MatrixRow:
    """Build the wheel of a target with child sessions, if it is not up to date."""
    record = dataclasses.replace(ctx, spec=spec).record("wheel")
    start, cpu = time.monotonic(), programs.cpu_seconds()
    before = records.read(record, "wheel", Wheel)
    fresh = ["--fresh"] if ctx.options.fresh else []
    words = [*child_nox.words(ctx.options), *fresh]
    code, reason = _run(ctx, spec, ["wheel", "verify"], words)
    wheel = records.read(record, "wheel", Wheel)
    if code or wheel is None:
        return failed(spec, reason, command(ctx, spec))
    new = wheel != before
    cache = wheel.cache if new else {}
    earlier = [_inputs(ctx, row.folder) for row in rows if row.outcome in ("built", "up to date")]
    return MatrixRow(
        target=spec.base,
        python=spec.python,
        outcome="built" if new else "up to date",
        folder=spec.target,
        file=wheel.file,
        sha256=wheel.sha256,
        size=wheel.size,
        wall_seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(programs.cpu_seconds() - cpu, 1) if sys.platform != "win32" else None,
        cache=cache,
        shared=shared((*_inputs(ctx, spec.target), cache), earlier) if new else (),
    )


def serve(ctx: Context, spec: BuildSpec, built: MatrixRow) -> MatrixRow:
    """The wheel for another Python: the built wheel itself, or a copy with another tag."""
    if built.outcome == "failed":
        text = f"the wheel of Python {built.python}, of which this one is made, failed"
        return failed(spec, text, built.remedy)
    wheel = ctx.root / "wheels" / built.folder / built.file
    if refusal := python_tag.refusal(wheel, spec.python):
        why = f"the wheel of {built.python} cannot serve Python {spec.python}: {refusal}"
        return failed(spec, why, f"leave {spec.python} out of --pythons")
    if python_tag.serves(built.file, spec.python):
        return dataclasses.replace(
            built,
            python=spec.python,
            outcome="same",
            wall_seconds=0.0,
            cpu_seconds=0.0,
            cache={},
            shared=(f"the wheel of {built.python}",),
        )
    at = dataclasses.replace(ctx, spec=spec)
    start, cpu = time.monotonic(), programs.cpu_seconds() + time.process_time()
    with locks.lock(ctx.lock_of(spec.target), console.say):
        copy, new = repack(at, wheel, built)
    path = at.wheels / copy.file
    if new:
        options = dataclasses.replace(ctx.options, python=spec.python)
        words = [*child_nox.words(options, given=True), f"--wheel={path}"]
        code, reason = _run(ctx, spec, ["verify"], words)
        if code:
            return failed(spec, reason, command(ctx, spec, f"--wheel={path}"))
        records.write(at.build / "repack.json", "repack", copy)
    used = programs.cpu_seconds() + time.process_time() - cpu
    return MatrixRow(
        target=spec.base,
        python=spec.python,
        outcome="repacked" if new else "up to date",
        folder=spec.target,
        file=copy.file,
        sha256=copy.sha256,
        size=copy.size,
        wall_seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(used, 1) if sys.platform != "win32" else None,
        cache={},
        shared=(f"the wheel of {built.python}",) if new else (),
    )


def repack(ctx: Context, wheel: Path, built: MatrixRow) -> tuple[Wheel, bool]:
    """Copy the wheel with the tag of ``ctx.spec`` into its folder, if the copy is not up to date.

    Returns its record, and whether it was copied. Raises Problem if the wheel has changed or calls
    functions of Python.
    """
    path = ctx.root / "build" / built.folder / "wheel.json"
    base = records.need(path, "wheel", Wheel, f"nox -s wheel -- --target {ctx.spec.base}")
    if not base.sha256 == built.sha256 == records.file_sha256(wheel):
        raise Problem(
            f"{wheel} was changed after it was tested, by another run or by hand.",
            id="matrix-wheel-changed",
            code=CHECK_FAILED,
            remedy="run the same command again",
        )
    # Everything that decides the repacked wheel and the result of ``verify``.
    ours = code_digest.code(Path(python_tag.__file__))
    checks = checks_digest.fingerprint(ctx.spec, base)
    fingerprint = records.fingerprint([built.sha256, ours, checks])
    disk.mark(ctx.build)
    done = records.read(ctx.build / "repack.json", "repack", Wheel)
    if done and not ctx.fresh and wheels_folder.is_current(done, fingerprint, ctx.wheels):
        return done, False
    if calls := python_tag.calls(wheel):
        raise Problem(
            f"The libraries call {calls[0]} of Python, so each Python version needs its own build.",
            id="matrix-needs-a-build",
            remedy=command(ctx, ctx.spec),
        )
    start, cpu = time.monotonic(), time.process_time()
    path = ctx.wheels / python_tag.name(built.file, ctx.spec.python)
    with disk.whole(path) as part:
        bill = python_tag.retagged(wheel, part, ctx.spec.python, ctx.spec.target)
        digest, size = records.file_sha256(part), part.stat().st_size
        before = records.read(ctx.wheels / "wheel.json", "wheel", Wheel)
        if before and before.file != path.name:
            (ctx.wheels / before.file).unlink(missing_ok=True)  # its record is replaced below
    copy = dataclasses.replace(
        base,
        file=path.name,
        sha256=digest,
        size=size,
        fingerprint=fingerprint,
        target=ctx.spec.target,
        steps=0,
        wall_seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(time.process_time() - cpu, 1),
        cache={},
        timing={},
        sbom=bill,
    )
    # The record of a build that made the same bytes has more values.
    if before is None or before.sha256 != digest:
        records.write(ctx.wheels / "wheel.json", "wheel", copy)
    return copy, True


def failed(spec: BuildSpec, reason: str, remedy: str) -> MatrixRow:
    """The row of a wheel that could not be made."""
    return MatrixRow(
        spec.base, spec.python, "failed", "", "", "", 0, 0.0, None, {}, (), reason, remedy
    )


def command(ctx: Context, spec: BuildSpec, *more: str) -> str:
    """The command line that makes and checks only this wheel, with the options of this run."""
    python = spec.python if "--python" in spec.overrides else None  # None: the target's own
    options = dataclasses.replace(ctx.options, python=python)
    words = child_nox.words(options, given=any(word.startswith("--wheel=") for word in more))
    return programs.typed(["nox", "-s", "verify", "--", f"--target={spec.base}", *words, *more])


def _run(
    ctx: Context, spec: BuildSpec, sessions: Sequence[str], words: Sequence[str]
) -> tuple[int, str]:
    """Run child sessions for a target. Returns the exit code, and the reason if it is not 0."""
    log = _log(ctx, spec)
    disk.mark(log.parent)
    code = child_nox.heard(ctx.root, sessions, spec.base, words, env=ctx.env, log=log)
    return code, child_nox.reason(log.read_text(encoding="utf-8"))


def _log(ctx: Context, spec: BuildSpec) -> Path:
    return dataclasses.replace(ctx, spec=spec).build / "matrix.log"


def _find_pythons(ctx: Context) -> None:
    """Raise Problem, before anything is built, if a Python that builds a wheel is missing."""
    builders = {specs[0].python: specs[0] for specs in reversed(groups(ctx.specs))}
    for spec in builders.values():
        code, reason = _run(ctx, spec, ["probe"], child_nox.words(ctx.options, "probe"))
        if code:
            raise Problem(
                f"Nothing was built. {reason}",
                id="matrix-nothing-built",
                evidence=f"the output of the session probe is above, and in {_log(ctx, spec)}",
                remedy=f"follow the fix that probe shows above; if only Python {spec.python} "
                "is missing, build with one that is installed: --python X.Y",
            )


def _serve_or_fail(ctx: Context, spec: BuildSpec, built: MatrixRow) -> MatrixRow:
    """``serve``, with an error of this wheel as a failed row."""
    try:
        return serve(ctx, spec, built)
    except Problem as problem:
        return failed(spec, problem.what, problem.remedy)
    except OSError as error:
        known = disk.problem_of(error)
        if known is None:
            raise
        return failed(spec, f"{known.what} {known.evidence}", known.remedy)


def _is_allowed(ctx: Context, spec: BuildSpec, built: MatrixRow) -> bool:
    """Whether ``--pythons all`` includes this Python: the wheel may exclude it."""
    wheel = ctx.root / "wheels" / built.folder / built.file
    why = python_tag.refusal(wheel, spec.python) if built.outcome != "failed" else None
    if why:
        console.say(f"{spec.base}: not for Python {spec.python}: {why}")
    return why is None


def _inputs(ctx: Context, label: str) -> tuple[Source | None, Toolkit | None]:
    folder = ctx.root / "build" / label
    return (
        records.read(folder / "source.json", "source", Source),
        records.read(folder / "toolkit.json", "toolkit", Toolkit),
    )
