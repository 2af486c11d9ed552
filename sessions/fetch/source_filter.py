"""Which files of an upstream source a build reads."""

from __future__ import annotations

from sessions.shared import disk, knowledge

PRISTINE = ".blackwheel.json"  # in an unpacked sdist: the digests of its files as they came


def build_reads(relative: str) -> bool:
    """Whether a build reads this file, or anything in this folder ("name/") of a source."""
    keeps = knowledge.staging_keeps()
    if any(relative.startswith(keep) or keep.startswith(relative) for keep in keeps):
        return True
    if relative in (disk.TAG, PRISTINE):
        return False
    parts = relative.split("/")
    if "__pycache__" in parts:
        return False
    # With the "/" of a folder: a submodule's .git is a file.
    whole = relative if relative.endswith("/") else f"{relative}/"
    return not any(whole.startswith(folder) for folder in knowledge.staging_excludes())
