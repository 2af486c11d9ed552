"""The format of a report file, which contains its own digest. Standard library only.

The digest finds damage. Against forgery, sign bundle and report with an SSH key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

KIND = "smoke-report"
BENCH = "bench-report"
OPS = "ops-report"
SCHEMA = 1


def text(report: dict[str, Any], kind: str = KIND) -> str:
    """The text of a report file."""
    record = {"schema": SCHEMA, "kind": kind, "report": report, "sha256": digest(report)}
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def digest(report: dict[str, Any]) -> str:
    """SHA-256 of the report's canonical JSON."""
    text = json.dumps(report, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read(text: str, kind: str = KIND) -> dict[str, Any]:
    """The report in a file's text. Raises ValueError if it is not a report of this kind.

    It also refuses what two readers could read differently: the same name twice in an object, a
    lone surrogate, and values that are nested too deeply for this Python.
    """
    try:
        record = json.loads(text, object_pairs_hook=_once)
        report, found, expected = record["report"], record["kind"], record["sha256"]
        actual = digest(report)
        json.dumps(report, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("not a report: its values are nested too deeply") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a report: {error}") from error
    if (found, record.get("schema")) != (kind, SCHEMA) or not isinstance(report, dict):
        raise ValueError(f"not a report: no {kind} of schema {SCHEMA}")
    if actual != expected:
        raise ValueError("its digest is not that of its content: it was changed or damaged")
    return report


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError if a name occurs twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice!r} occurs twice")
    return found
