"""The digest of everything that decides the results of ``verify``: code, data, target, record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sessions.build.record_types import Wheel
from sessions.shared import code_digest, records
from sessions.shared.build_spec import BuildSpec

# The modules that read and check a wheel. Their imports, and the data files they name, count too.
_CHECKING = ("verify/reader.py", "verify/run_checks.py")
# The session also prints and writes records, so its imports do not count.
_SESSION = "verify/main_verify.py"
# Fields of a target, and of the record of a wheel, that no check of verify reads.
WORDS = (
    "base", "overrides", "summary", "warning", "product", "toolkit", "cache", "compiler",
    "prerelease",
)  # fmt: skip
VOLATILE = ("steps", "wall_seconds", "cpu_seconds", "cache", "timing")


def fingerprint(spec: BuildSpec, record: Wheel | None) -> str:
    """Fingerprint of everything with which ``verify`` checks a wheel."""
    rules = {
        path.relative_to(code_digest.SESSIONS).as_posix(): code_digest.code(path)
        for path in files()
    }
    compared: list[dict[str, Any]] = []
    for value, unread in ((spec, WORDS), (record, VOLATILE)):
        whole = dataclasses.asdict(value) if value else {}
        compared.append({name: item for name, item in whole.items() if name not in unread})
    return records.fingerprint([compared, rules])


def files() -> list[Path]:
    """The files that decide the results: modules, data, and what we add to each wheel."""
    sessions = code_digest.SESSIONS
    modules = {
        sessions / _SESSION,
        *code_digest.imported(sessions / name for name in _CHECKING),
    }
    parsed = (code_digest._module(code_digest._text(path)) for path in modules)
    data = [sessions / "data" / "knowledge" / name for module in parsed for name in module.tables]
    overlay = (sessions / "build" / "overlay").glob("*.py")
    decoders = sessions / "data" / "locks" / "runtime.txt"  # versions of what decodes libraries
    return sorted({*modules, *filter(Path.is_file, data), *overlay, decoders})
