"""The digest that identifies a CUDA toolkit."""

from __future__ import annotations

from sessions.probe.record_types import InstalledToolkit
from sessions.shared import knowledge, records
from sessions.shared.build_spec import BuildSpec

# The version of what main_toolkit.py adds to NVIDIA's files, by platform. Raise it with each change
# (a test compares it with the code).
LAYOUT = {"linux": 1, "windows": 2}


def toolkit_identity(spec: BuildSpec, installed: InstalledToolkit | None, glibc: str = "") -> str:
    """A digest of the target's toolkit; "" if it needs none, or none is installed.

    Of a toolkit from packages, ``glibc`` changes it only if a header is corrected. Raises Problem
    if the packages are not locked.
    """
    if spec.cuda is None:
        return ""
    if spec.toolkit == "pypi":
        lock = knowledge.toolkit_lock(spec.cuda).read_text(encoding="utf-8")
        corrected = knowledge.headers(spec.cuda, glibc)
        return records.fingerprint(
            [lock, LAYOUT[spec.platform], *([corrected] if corrected else [])]
        )
    if installed is None:
        return ""
    return records.fingerprint([installed.root, installed.version, installed.files])
