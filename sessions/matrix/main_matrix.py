"""The wheels of several targets for several Pythons, each made of as little new work as can be.

Of a target one wheel is built. It serves every Python where its tag says so; else the others get it
under their own tags, for what it holds is loaded by ctypes and is of no Python.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from sessions.build import python_tag, wheels_folder
from sessions.build.model import Wheel
from sessions.command_line import child_nox
from sessions.fetch.model import Source, Toolkit
from sessions.matrix.model import Matrix, MatrixRow
from sessions.shared import code_digest, console, disk, programs, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, Problem, numbered
from sessions.targets.spec import ALL
from sessions.verify import checks_digest

COLUMNS = ("target", "Python", "outcome", "MB", "wall", "CPU", "from cache", "shared")


def main(ctx: Context) -> None:
    """Make every wheel, go on where one fails, and end with a table and ``build/matrix.json``."""
    record = ctx.root / "build" / "matrix.json"
    record.unlink(missing_ok=True)  # else a run that is killed would leave an older one's
    began, start = datetime.datetime.now(datetime.UTC), time.monotonic()
    _find_pythons(ctx)
    rows: list[MatrixRow] = []
    for specs in groups(ctx.specs):
        built = build(ctx, specs[0], rows)
        rows.append(built)
        for spec in specs[1:]:
            if ctx.options.pythons == ALL and not _allowed(ctx, spec, built):
                continue
            console.say(f"{spec.base} for Python {spec.python}")
            rows.append(_served(ctx, spec, built))
    seconds = round(time.monotonic() - start, 1)
    failed = [row for row in rows if row.outcome == "failed"]
    made = Matrix(began.isoformat(timespec="seconds"), seconds, tuple(rows))
    records.write(record, "matrix", made, ok=not failed)
    console.table("", COLUMNS, map(cells, rows))
    # In a table of many columns the long names would be broken into pieces.
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
    """The specs by target, in their order."""
    found: dict[str, list[BuildSpec]] = {}
    for spec in specs:
        found.setdefault(spec.base, []).append(spec)
    return list(found.values())


def cells(row: MatrixRow) -> tuple[str, ...]:
    """A row of the table for people."""
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
    """What a build found there, already fetched or made for a build of the same matrix.

    Objects are from the compiler cache, whoever put them there.
    """
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
    """The wheel of a target by a chain of its own, which says "up to date" where it is."""
    at = dataclasses.replace(ctx, spec=spec)
    start, cpu = time.monotonic(), programs.cpu_seconds()
    before = records.read(at.record("wheel"), "wheel", Wheel)
    log = at.build / "matrix.log"
    disk.mark(at.build)
    fresh = ["--fresh"] if ctx.options.fresh else []
    words = [*child_nox.words(ctx.options), *fresh]
    code = child_nox.heard(ctx.root, ["wheel", "verify"], spec.base, words, env=ctx.env, log=log)
    wheel = records.read(at.record("wheel"), "wheel", Wheel)
    if code or wheel is None:
        said = log.read_text(encoding="utf-8")
        return failed(spec, child_nox.reason(said), command(ctx, spec))
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
    """The wheel of another Python: the one that was built, or that under another tag."""
    if built.outcome == "failed":
        text = f"the wheel of Python {built.python}, of which this one is made, failed"
        return failed(spec, text, built.remedy)
    wheel = ctx.root / "wheels" / built.folder / built.file
    if wanted := python_tag.refusal(wheel, spec.python):
        why = f"the wheel of {built.python} cannot serve Python {spec.python}: {wanted}"
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
    with disk.lock(ctx.lock_of(spec.target), console.say):
        made, new = repack(at, wheel, built)
    path = at.wheels / made.file
    if new:
        asked = dataclasses.replace(ctx.options, python=spec.python)
        words = [*child_nox.words(asked, given=True), f"--wheel={path}"]
        log = at.build / "matrix.log"
        code = child_nox.heard(ctx.root, ["verify"], spec.base, words, env=ctx.env, log=log)
        if code:
            told = child_nox.reason(log.read_text(encoding="utf-8"))
            return failed(spec, told, command(ctx, spec, f"--wheel={path}"))
        records.write(at.build / "repack.json", "repack", made)
    used = programs.cpu_seconds() + time.process_time() - cpu
    return MatrixRow(
        target=spec.base,
        python=spec.python,
        outcome="repacked" if new else "up to date",
        folder=spec.target,
        file=made.file,
        sha256=made.sha256,
        size=made.size,
        wall_seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(used, 1) if sys.platform != "win32" else None,
        cache={},
        shared=(f"the wheel of {built.python}",) if new else (),
    )


def repack(ctx: Context, wheel: Path, built: MatrixRow) -> tuple[Wheel, bool]:
    """Put the wheel under the tag of ``ctx.spec`` into its folder; whether there was need to."""
    path = ctx.root / "build" / built.folder / "wheel.json"
    base = records.need(path, "wheel", Wheel, f"nox -s wheel -- --target {ctx.spec.base}")
    if not base.sha256 == built.sha256 == records.file_sha256(wheel):
        raise Problem(
            f"{wheel} was changed after it was tested, by another run or by hand.",
            id="matrix-wheel-changed",
            code=CHECK_FAILED,
            remedy="run the same command again",
        )
    fingerprint = _fingerprint(ctx.spec, built, base)
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
            (ctx.wheels / before.file).unlink(missing_ok=True)  # its record is about to go
    made = dataclasses.replace(
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
    # The record of a build that made these very bytes says more.
    if before is None or before.sha256 != digest:
        records.write(ctx.wheels / "wheel.json", "wheel", made)
    return made, True


def failed(spec: BuildSpec, reason: str, remedy: str) -> MatrixRow:
    """The row of a wheel that there is not."""
    return MatrixRow(
        spec.base, spec.python, "failed", "", "", "", 0, 0.0, None, {}, (), reason, remedy
    )


def command(ctx: Context, spec: BuildSpec, *more: str) -> str:
    """The command line that makes and tests this one wheel, with the options of this run."""
    other = "--python" in spec.overrides  # than the target's own
    asked = dataclasses.replace(ctx.options, python=spec.python if other else None)
    given = any(word.startswith("--wheel=") for word in more)
    words = child_nox.words(asked, given=given)
    return programs.typed(["nox", "-s", "verify", "--", f"--target={spec.base}", *words, *more])


def _find_pythons(ctx: Context) -> None:
    """Nothing is built before it is known that every Python that builds is here."""
    builders = {specs[0].python: specs[0] for specs in reversed(groups(ctx.specs))}
    for spec in builders.values():
        folder = dataclasses.replace(ctx, spec=spec).build
        disk.mark(folder)
        log, words = folder / "matrix.log", child_nox.words(ctx.options, "probe")
        if child_nox.heard(ctx.root, ["probe"], spec.base, words, env=ctx.env, log=log):
            raise Problem(
                f"Nothing was built. {child_nox.reason(log.read_text(encoding='utf-8'))}",
                id="matrix-nothing-built",
                evidence=f"the output of the session probe is above, and in {log}",
                remedy=f"follow the fix that probe shows above; if only Python {spec.python} "
                "is missing, build with one that is installed: --python X.Y",
            )


def _served(ctx: Context, spec: BuildSpec, built: MatrixRow) -> MatrixRow:
    """``serve``; what stands in the way of this one wheel is told in its row."""
    try:
        return serve(ctx, spec, built)
    except Problem as problem:
        return failed(spec, problem.what, problem.remedy)
    except OSError as error:
        known = disk.problem_of(error)
        if known is None:
            raise
        return failed(spec, f"{known.what} {known.evidence}", known.remedy)


def _allowed(ctx: Context, spec: BuildSpec, built: MatrixRow) -> bool:
    """Whether "all" includes this Python: not one that the wheel itself excludes."""
    wheel = ctx.root / "wheels" / built.folder / built.file
    why = python_tag.refusal(wheel, spec.python) if built.outcome != "failed" else None
    if why:
        console.say(f"{spec.base}: not for Python {spec.python}: {why}")
    return why is None


def _fingerprint(spec: BuildSpec, built: MatrixRow, record: Wheel) -> str:
    """Of everything that decides a repacked wheel, and whether it holds what verify asks."""
    ours = code_digest.code(Path(python_tag.__file__))
    return records.fingerprint([built.sha256, ours, checks_digest.fingerprint(spec, record)])


def _inputs(ctx: Context, label: str) -> tuple[Source | None, Toolkit | None]:
    folder = ctx.root / "build" / label
    return (
        records.read(folder / "source.json", "source", Source),
        records.read(folder / "toolkit.json", "toolkit", Toolkit),
    )
