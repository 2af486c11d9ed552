"""What a CUDA toolkit is made from, as a digest."""

from __future__ import annotations

from sessions.probe.model import InstalledToolkit
from sessions.shared import knowledge, records
from sessions.shared.build_spec import BuildSpec

# What main_toolkit.py adds to NVIDIA's files, by platform. Raise one whenever that changes:
# a test compares.
LAYOUT = {"linux": 1, "windows": 2}


def toolkit_identity(spec: BuildSpec, installed: InstalledToolkit | None, glibc: str = "") -> str:
    """A digest of the toolkit that a target is built with; "" where it needs none or none is there.

    Only where a header is corrected for this ``glibc`` does one from packages differ by machine.
    Raises Problem where it is to be made from packages that are not locked.
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
