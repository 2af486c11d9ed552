"""A report that shows whether it was changed: its own digest goes with it. Standard library alone.

The digest finds damage. Against forgery, bundle and report are signed with an SSH key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

KIND = "smoke-report"
BENCH = "bench-report"
SCHEMA = 1


def seal(report: dict[str, Any], kind: str = KIND) -> str:
    """The text of a report file."""
    record = {"schema": SCHEMA, "kind": kind, "report": report, "sha256": digest(report)}
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def digest(report: dict[str, Any]) -> str:
    """SHA-256 of the report's canonical JSON."""
    text = json.dumps(report, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def opened(text: str, kind: str = KIND) -> dict[str, Any]:
    """The report in a file's text. Raises ValueError that says why it is none."""
    try:
        record = json.loads(text)
        report, found, said = record["report"], record["kind"], record["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a report: {error}") from error
    if (found, record.get("schema")) != (kind, SCHEMA) or not isinstance(report, dict):
        raise ValueError(f"not a report: no {kind} of schema {SCHEMA}")
    if digest(report) != said:
        raise ValueError("its digest is not that of its content: it was changed or damaged")
    return report
