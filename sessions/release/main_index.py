"""One package index of several ``dist/``: of Linux and of Windows, of today and of last month."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sessions.release import dist_contents
from sessions.release.index import builder
from sessions.shared import console, disk
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem

SITE = "site"


def main(ctx: Context) -> None:
    """Write ``site/`` with every release of the folders that the command names."""
    folders = [Path(text) for text in ctx.options.dists]
    site = ctx.root / SITE
    part, old = site.with_name(f".{SITE}.part"), site.with_name(f".{SITE}.old")
    with disk.lock(ctx.root / "build" / f"{SITE}.lock", console.say):
        if disk.is_marked(old) and not site.exists():  # a run ended between the two renames
            disk.put(old, site)
        for folder in folders:
            _checked(folder)
        if site.exists() and not disk.is_marked(site):
            raise Problem(
                f"{SITE}/ was not made by blackwheel, so nothing is put there.",
                id="site-not-ours",
                evidence=str(site),
                remedy=f"move it away: {site}",
            )
        for leftover in (part, old):
            if leftover.exists():
                disk.remove(leftover)
        disk.mark(part)
        count = gather(folders, part)
        builder.write(part)
        dist_contents.write(part)
        if site.exists():
            disk.put(site, old)
        disk.put(part, site)
        if old.exists():
            disk.remove(old)
    console.say(f"  {site / 'index.html'}")
    console.done(f"index: {count} releases of {len(folders)} folders, in {site}")


def _checked(folder: Path) -> None:
    """Refuse a folder that is not as ``release`` or ``index`` wrote it."""
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
    """Copy every release; return how many there are. The same one may be in several folders.

    Each file is compared with the digest that its release's record has, where it came from and,
    by ``builder.write``, where it arrived.
    """
    places: dict[str, tuple[Path, str]] = {}
    for folder in folders:
        for placed in builder.placed_in(folder):
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
