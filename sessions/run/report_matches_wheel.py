"""Checks that a report is undamaged and about this wheel and this target; what all reports have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sessions.run.record_types import BenchReport, OpsReport, SmokeReport
from sessions.run.report_fields import Reader, line, number, optional
from sessions.shared.build_spec import BuildSpec
from sessions.shared.command_text import command, python
from sessions.shared.errors import CHECK_FAILED, Problem

Report = TypeVar("Report", SmokeReport, BenchReport, OpsReport)
_OPTIONS = {"smoke": (), "ops": ("--ops",), "bench": ("--bench",)}  # of a bundle's program
AGAIN = "run it again for this wheel"
FIELDS: dict[str, Reader] = {
    **dict.fromkeys(("file", "sha256", "target", "device", "python", "system", "started"), line),
    "capability": optional(line),
    "driver": optional(line),
    "seconds": number,
}


def again(session: str, spec: BuildSpec, wheel: str | None) -> str:
    """The commands that make a report of this wheel: the target's, or the one that is named."""
    if wheel is not None:
        here = command(session, spec, "--wheel", wheel)
        return f"{AGAIN}, here: {here}; or with the bundle that has it, on the other machine"
    there = python(spec, f"smoke-{spec.target}.pyz", *_OPTIONS[session])
    return (
        f"{AGAIN}, here: {command(session, spec)}; or for another machine: "
        f"{command('bundle', spec)}, and there: {there}"
    )


def opened(
    session: str,
    read: Callable[[], Report],
    sha256: str,
    *,
    target: str | None = None,
    file: str | None = None,
    remedy: str = AGAIN,
) -> Report:
    """The report that ``read`` returns. ``target`` and ``file`` are not compared if they are None.

    Raises Problem if ``read`` raises ValueError, or if the report is about another wheel or target.
    """
    try:
        found = read()
    except ValueError as error:
        raise Problem(
            "The report is damaged or was changed.",
            id=f"{session}-report-invalid",
            code=CHECK_FAILED,
            evidence=str(error),
            remedy=remedy,
        ) from error
    if found.sha256 != sha256 or file not in (None, found.file):
        raise Problem(
            "This report belongs to another wheel.",
            id=f"{session}-report-other-wheel",
            code=CHECK_FAILED,
            evidence=f"it names {found.file}, sha256 {found.sha256}\n"
            f"the wheel here {f'is {file} with' if file else 'has'} sha256 {sha256}",
            remedy=remedy,
        )
    if target not in (None, found.target):
        raise Problem(
            f"This report belongs to the target {found.target}, not {target}.",
            id=f"{session}-report-other-target",
            code=CHECK_FAILED,
            remedy=remedy,
        )
    return found
