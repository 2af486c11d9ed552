"""Runs the payload in a process and shows its progress."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sessions.run import check_smoke_report
from sessions.shared import console, programs, venvs
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, REPORT, Problem
from sessions.shared.programs import Finished

STATE = "state.json"  # the results so far, in the folder "run" (payload/bench.py, payload/ops.py)


def can_continue(ctx: Context, path: Path, text: str) -> bool:
    """Whether a run was stopped whose job file ``path`` has this text; not with --fresh."""
    same = path.exists() and path.read_text(encoding="utf-8") == text
    kept = same and (path.parent / "run" / STATE).exists() and not ctx.fresh
    if kept:
        console.say(
            "Continuing where the last run was stopped; to start again from nothing: --fresh"
        )
    return kept


def report(
    venv: Path, session: str, work: Path, env: Mapping[str, str], unit: str, *flags: str
) -> str:
    """Run the payload in the wheel's venv and in ``work``/run; return the text of its report.

    It reads ``work``/job.json. Its output goes to ``work``/SESSION.log. Raises Problem if it ends
    without a report.
    """
    answer, log = work / "report.json", work / f"{session}.log"
    answer.unlink(missing_ok=True)  # ops keeps the folder of an earlier run
    words = [str(check_smoke_report.PAYLOAD), *flags, str(work / "job.json"), str(answer)]
    command = [str(venvs.program(venv, "python")), "-I", *words]
    done = run(command, log, work / "run", env, "testing", unit)
    if done.returncode or not answer.exists():
        raise Problem(
            f"The test ended with exit code {done.returncode} and without a report.",
            id=f"{session}-no-report",
            code=CHECK_FAILED,
            evidence=venvs.tail(log.read_text(encoding="utf-8")),
            remedy=f"{REPORT}, with {log}",
        )
    return answer.read_text(encoding="utf-8")


def run(
    command: Sequence[str],
    log: Path,
    folder: Path,
    env: Mapping[str, str],
    doing: str,
    unit: str = "steps",
) -> Finished:
    """Run a command in ``folder``; its output goes to ``log``, and lines with @{ are progress."""
    with log.open("w", encoding="utf-8") as stream, console.Meter(doing, unit=unit) as meter:

        def follow(line: str) -> None:
            if line.startswith("@{"):
                report: dict[str, Any] = json.loads(line[1:])
                meter.update(report["done"], report["total"], report["left"], report["now"])

        return programs.stream(list(command), env=env, log=stream, on_line=follow, cwd=folder)
