"""Decides which files of an upstream source a build reads."""

from __future__ import annotations

from sessions.shared import disk, knowledge

PRISTINE = ".blackwheel.json"  # in an unpacked sdist: the digests of its files


def build_reads(relative: str) -> bool:
    """Whether a build reads this file of a source, or anything in this folder ("name/")."""
    keeps = knowledge.staging_keeps()
    if any(relative.startswith(keep) or keep.startswith(relative) for keep in keeps):
        return True
    if relative in (disk.TAG, PRISTINE):
        return False
    parts = relative.split("/")
    if "__pycache__" in parts:
        return False
    # A name in the list ends with "/", but a submodule's .git is a file.
    whole = relative if relative.endswith("/") else f"{relative}/"
    return not any(whole.startswith(folder) for folder in knowledge.staging_excludes())
