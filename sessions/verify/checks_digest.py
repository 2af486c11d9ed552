"""What a wheel was checked by, as a digest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sessions.build.model import Wheel
from sessions.shared import code_digest, records
from sessions.shared.build_spec import BuildSpec

# Who reads a wheel and who judges it. What they import, and the data that any of it names, counts
# too; of the session itself, which also prints and keeps records, its own file only.
_JUDGES = ("verify/reader.py", "verify/run_checks.py")


_SESSION = "verify/main_verify.py"


# What of a target and of a wheel's record no check of verify reads.
WORDS = (
    "base", "overrides", "summary", "warning", "product", "toolkit", "cache", "compiler",
    "prerelease",
)  # fmt: skip


VOLATILE = ("steps", "wall_seconds", "cpu_seconds", "cache", "timing")


def verdict(spec: BuildSpec, record: Wheel | None) -> str:
    """Fingerprint of all that ``verify`` judges a wheel by."""
    rules = {
        path.relative_to(code_digest.SESSIONS).as_posix(): code_digest.code(path)
        for path in judging()
    }
    judged: list[dict[str, Any]] = []
    for value, unread in ((spec, WORDS), (record, VOLATILE)):
        whole = dataclasses.asdict(value) if value else {}
        judged.append({name: item for name, item in whole.items() if name not in unread})
    return records.fingerprint([judged, rules])


def judging() -> list[Path]:
    """The files by which a wheel is judged: modules, data, and what is added to each wheel."""
    modules = {
        code_digest.SESSIONS / _SESSION,
        *code_digest.imported(code_digest.SESSIONS / name for name in _JUDGES),
    }
    parsed = (code_digest._module(code_digest._text(path)) for path in modules)
    knowledge = code_digest.SESSIONS / "data" / "knowledge"
    data = [knowledge / name for module in parsed for name in module.tables]
    overlay = (code_digest.SESSIONS / "build" / "overlay").glob("*.py")
    readers = (
        code_digest.SESSIONS / "data" / "locks" / "runtime.txt"
    )  # the versions of what decodes libraries
    return sorted({*modules, *filter(Path.is_file, data), *overlay, readers})
