"""The session ``index``: writes ``site/``, one package index from several ``dist/`` folders."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sessions.release import dist_contents, dist_folder
from sessions.release.index import builder
from sessions.shared import console, disk, locks
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem

SITE = "site"


def main(ctx: Context) -> None:
    """Write ``site/`` with every release of the folders that the command names."""
    folders = [Path(text) for text in ctx.options.dists]
    site = ctx.root / SITE
    with locks.lock(ctx.root / "build" / f"{SITE}.lock", console.say):
        part = dist_folder.recover(site)  # first: site/ itself may be one of the folders
        for folder in folders:
            _check(folder)
        if site.exists() and not disk.is_marked(site):
            raise Problem(
                f"{SITE}/ was not made by blackwheel, so nothing is put there.",
                id="site-not-ours",
                evidence=str(site),
                remedy=f"move it away: {site}",
            )
        disk.mark(part)
        count = gather(folders, part)
        builder.write(part)
        dist_contents.write(part)
        dist_folder.replace(site)
    console.say(f"  {site / 'index.html'}")
    console.done(f"index: {count} releases of {len(folders)} folders, in {site}")


def _check(folder: Path) -> None:
    """Raise Problem for a folder that ``release`` or ``index`` did not write, or that changed."""
    if not (folder / dist_contents.NAME).is_file():
        raise Problem(
            f"{folder} is not a dist/ of blackwheel: it has no {dist_contents.NAME}.",
            id="index-not-a-dist",
            code=USAGE,
            remedy="nox -s index -- DIST DIST: name folders that nox -s release wrote",
        )
    if lines := dist_contents.changed(folder):
        raise Problem(
            f"{folder} was changed after release wrote it, so it is not used.",
            id="index-dist-changed",
            code=CHECK_FAILED,
            evidence="\n".join(lines[:8]),
            remedy="copy it again from where it was released, or release again",
        )


def gather(folders: Sequence[Path], into: Path) -> int:
    """Copy every release, and return their number. Several folders may have the same release.

    Each file is compared with the digest in the record of its release, before it is copied and,
    by ``builder.write``, afterwards. Raises Problem if two folders have different wheels of one
    release.
    """
    places: dict[str, tuple[Path, str]] = {}
    for folder in folders:
        for placed in builder.releases_with_folders(folder):
            release, name = placed.release, builder.folder(placed.release)
            source = folder / placed.folder
            other, sha256 = places.setdefault(name, (source, release.sha256))
            if sha256 != release.sha256:
                raise Problem(
                    f"Two folders have different wheels of {name}.",
                    id="index-same-name",
                    code=CHECK_FAILED,
                    evidence=f"{other}\n{source}",
                    remedy="leave out one of the folders, or delete one of these two",
                )
    for name, (source, _) in places.items():
        shutil.copytree(source, into / name)
    return len(places)
