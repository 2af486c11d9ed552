"""The locked sdists of upstream, as they were downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backports import tarfile  # Python's own has safe unpacking from 3.11.4 on; Debian 12 is before

from sessions.fetch import build_tools
from sessions.shared import console, disk, knowledge, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.knowledge import Sdist


def archive(ctx: Context, sdist: Sdist) -> Path:
    """The sdist by the user's own pip, kept in the cache. pip checks the hash, and so do we."""
    ctx.use_cached("downloads")
    with ctx.cache_lock(sdist.file):
        return _archive(ctx, sdist)


def _archive(ctx: Context, sdist: Sdist) -> Path:
    kept = ctx.cache / "downloads" / sdist.file
    if kept.exists() and records.file_sha256(kept) == sdist.sha256:
        return kept
    disk.room({kept.parent: knowledge.disk_mib("download")}, "The download of the source")
    with ctx.scratch() as part:
        pin = part / "requirements.txt"
        text = f"llama-cpp-python=={sdist.version} --hash=sha256:{sdist.sha256}\n"
        records.write_text(pin, text)
        console.say(f"Getting the source of llama-cpp-python {sdist.version} (once).")
        # The build tools' venv has scikit-build-core, so pip needs no network to read metadata.
        words = ["download", "--no-deps", "--no-build-isolation", "--no-binary=:all:"]
        words += ["--require-hashes", "-d", str(part), "-r", str(pin)]
        venvs.pip(
            ctx, build_tools.tools(ctx), words, f"the source of llama-cpp-python {sdist.version}"
        )
        kept.parent.mkdir(exist_ok=True)
        disk.put(part / sdist.file, kept)
    found = records.file_sha256(kept)
    if found != sdist.sha256:
        kept.unlink()
        raise Problem(
            "The downloaded source is not the one that was locked; it was not used.",
            id="source-hash-mismatch",
            evidence=f"sha256 {found}, locked {sdist.sha256}",
            remedy="try again; if it happens again, see which package index pip uses: pip "
            "config list",
        )
    return kept


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the files that are ``wanted`` by their path in the source ("name/" is a folder).

    Upstream's deepest paths are among those that no build reads, and Windows has a greatest length.
    """

    def member(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
        _, _, relative = member.name.partition("/")
        if not relative or not wanted(relative + "/" * member.isdir()):
            return None
        return tarfile.data_filter(member.replace(name=relative, deep=False), place)

    with tarfile.open(archive) as tar:
        try:
            tar.extractall(folder, filter=member)
        except tarfile.FilterError as error:
            raise Problem(
                "The source archive contains something that must not be unpacked; it was not used.",
                id="source-archive-unsafe",
                evidence=str(error),
                remedy=f"delete {archive} and try again",
            ) from error
