"""The session verify: reads the facts of a wheel and checks them, without running its code."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from sessions.build import import_hooks
from sessions.build.record_types import Wheel
from sessions.shared import child_environment, console, disk, machine, records
from sessions.shared.check_result import CheckGroup
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem
from sessions.verify import checks_digest, reader, wheel_rules
from sessions.verify.check_input import Case
from sessions.verify.record_types import VerifyReport
from sessions.verify.run_checks import check_wheel

OVERLAY = Path(__file__).parents[1] / "build" / "overlay"
LARGEST = 2 << 30  # bytes; upstream's largest wheel has 784 MB
RECORD = 4 << 20  # bytes; the record of an rtx50 wheel has less than 100 KB


def main(ctx: Context) -> None:
    """Check the target's wheel, or the one in --wheel; write facts.json and verify.json."""
    start = time.monotonic()
    path, record = _chosen(ctx)
    digest = records.file_sha256(path)
    folder = ctx.given(path, digest) if ctx.options.wheel else ctx.build
    rules = checks_digest.fingerprint(ctx.spec, record)
    earlier = records.read(folder / "verify.json", "verify", VerifyReport)
    if earlier and not ctx.fresh and (earlier.sha256, earlier.fingerprint) == (digest, rules):
        console.done(f"verify: up to date, {_summary(earlier.groups)} for {path.name}")
        return
    console.say(f"Reading {path.name} ({path.stat().st_size / 1e6:.1f} MB)")
    with (
        ctx.scratch() as scratch,
        console.Meter("reading libraries", unit="MiB") as meter,
    ):
        facts = reader.read(
            path,
            scratch,
            child_environment.system_environment(ctx.env),
            machine.cores(),
            lambda n, total, name: meter.update(
                n >> 20, total >> 20, _left(n, total, start), name.rsplit("/", 1)[-1]
            ),
        )
    disk.mark(folder)
    records.write(folder / "facts.json", "facts", facts)
    ours = ctx.options.wheel is None
    upstream = wheel_rules.upstream(facts.metadata_version)
    case = Case(facts, ctx.spec, record, ours, _loader(ctx), _preload(), upstream)
    bugs: dict[str, str] = {}
    groups = check_wheel(case, bugs)
    log = _logged(folder / "verify-errors.log", {**facts.tracebacks, **bugs})
    checks = [check for group in groups for check in group.checks]
    failed = [check.id for check in checks if check.status == "fail"]
    seconds = round(time.monotonic() - start, 1)
    report = VerifyReport(path.name, digest, ctx.spec.target, rules, seconds, groups)
    records.write(folder / "verify.json", "verify", report, ok=not failed)
    for group in groups:
        console.say(f"{group.name}")
        console.checks(group.checks)
    if log:
        console.say(f"What could not be read or checked, with tracebacks: {log}")
    if failed:
        raise Problem(
            f"{path.name} fails {len(failed)} of {len(checks)} checks for the target "
            f"{ctx.spec.target}: {', '.join(failed)}.",
            id="verify-failed",
            code=CHECK_FAILED,
            evidence=f"all facts are in {folder / 'facts.json'}",
            remedy="follow the fix that is shown under each failed check above",
        )
    console.done(f"verify: {_summary(groups)} for {path.name}, in {console.duration(seconds)}")


def _chosen(ctx: Context) -> tuple[Path, Wheel | None]:
    """The wheel, and the record of its build if there is one. Raises Problem without a wheel."""
    if ctx.options.wheel is None:
        wheel = ctx.need("wheel", Wheel)
        return ctx.wheels / wheel.file, wheel
    path = Path(ctx.options.wheel).expanduser()
    if not path.is_file():
        raise Problem(
            f"There is no wheel {path}.",
            id="wheel-missing",
            code=USAGE,
            remedy="name a file: nox -s verify -- --wheel wheels/rtx50/NAME.whl",
        )
    if path.stat().st_size > LARGEST:
        raise Problem(
            f"The wheel is too large to be read: the limit is {LARGEST >> 20} MiB.",
            id="verify-size",
            evidence=f"{path} has {path.stat().st_size >> 20} MiB",
            remedy="see whether the file is a wheel of llama-cpp-python; name one: --wheel PATH",
            code=USAGE,
        )
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Problem(
            "The file name of the wheel is not valid UTF-8.",
            id="verify-name",
            evidence=repr(path.name),
            remedy="give the file the name that it was published under",
            code=USAGE,
        ) from error
    return path, _beside(path)


def _beside(path: Path) -> Wheel | None:
    """The record beside a wheel, if it is an ordinary file of plausible size and for this wheel."""
    file = path.parent / "wheel.json"
    try:
        if not file.is_file() or file.stat().st_size > RECORD:
            return None
        record = records.read(file, "wheel", Wheel)
        return record if record and record.file == path.name else None
    except RecursionError:  # JSON with many nested brackets
        return None


def _logged(log: Path, tracebacks: Mapping[str, str]) -> Path | None:
    """Write the log of exceptions. Without one it deletes an older log and returns None."""
    if not tracebacks:
        log.unlink(missing_ok=True)
        return None
    text = "\n".join(f"{what}\n{lines}" for what, lines in tracebacks.items())
    records.write_text(log, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return log


def _left(done: int, total: int, start: float) -> float:
    """Estimated seconds left, if every byte takes the same time."""
    return (time.monotonic() - start) * (total - done) / max(done, 1)


def _loader(ctx: Context) -> str:
    texts = {path.name: path.read_text(encoding="utf-8") for path in OVERLAY.glob("*.py")}
    spec = ctx.spec
    ours = import_hooks.modules(texts, platform=spec.platform, cuda=spec.cuda, archs=spec.archs)
    return records.text_sha256(import_hooks.loader_text(ours).encode())


def _preload() -> str:
    text = (OVERLAY / import_hooks.DLLS).read_text(encoding="utf-8")
    return records.text_sha256(text.encode())


def _summary(groups: tuple[CheckGroup, ...]) -> str:
    statuses = [check.status for group in groups for check in group.checks]
    warned = f" (warnings: {statuses.count('warn')})" if "warn" in statuses else ""
    return f"{statuses.count('ok')} checks passed{warned}"
