"""Runs the payload, and shows the progress that it reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sessions.shared import console, programs
from sessions.shared.programs import Finished


def run(
    command: Sequence[str],
    log: Path,
    folder: Path,
    env: Mapping[str, str],
    doing: str,
    unit: str = "steps",
) -> Finished:
    """Run it in ``folder``, its output into ``log``. A line that begins with @{ is progress."""
    with log.open("w", encoding="utf-8") as stream, console.Meter(doing, unit=unit) as meter:

        def follow(line: str) -> None:
            if line.startswith("@{"):
                report: dict[str, Any] = json.loads(line[1:])
                meter.update(report["done"], report["total"], report["left"], report["now"])

        return programs.stream(list(command), env=env, log=stream, on_line=follow, cwd=folder)
