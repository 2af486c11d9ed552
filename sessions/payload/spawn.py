"""Starting one child process: a crash or a hang in it is a finding, not the end of the run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import child

PAYLOAD = Path(__file__).parent


def spawn(
    python: str, told: Path, environment: Mapping[str, str], timeout: float
) -> tuple[list[dict[str, Any]], str | None]:
    """What a child said, line by line, and how it failed; None if it ended well.

    ``told`` is the job it reads; it works beside it. ``environment`` goes over this process's own.
    """
    try:
        done = subprocess.run(
            [python, "-I", str(PAYLOAD), "--child", str(told)],
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
            cwd=told.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            check=False,
        )
        code: int | str = done.returncode
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, output, errors = "the time limit", late.stdout or b"", late.stderr or b""
    error = None
    if code != 0:
        error = f"ended by {code}: {reason(errors.decode('utf-8', 'replace'))}"
    return list(child.lines(output.decode("utf-8", "replace"))), error


def reason(text: str) -> str:
    """What a process that failed said of it: the lines that name an error, else its last ones."""
    frame = re.compile(r"\[0x[0-9a-f]+\]$")  # of a C backtrace
    lines = [n.strip() for n in text.splitlines() if n.strip() and not frame.search(n.strip())]
    raised = [
        n for n, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Refused)\b", line)
    ]
    if raised:  # a traceback: its exception, whose text may go on for some lines
        return " ".join(" ".join(lines[raised[-1] :]).split())[:900]
    named = [
        n
        for n in lines
        if re.search(r"error|assert|abort|PTX|kernel image|compiled|Refused", n, re.I)
    ]
    return " ".join(" ".join((named or lines)[-4:]).split())[-500:]
