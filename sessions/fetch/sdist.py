"""Downloads the locked sdists of upstream into the cache, and unpacks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backports import tarfile  # Python 3.11.2 of Debian 12 has no extraction filters

from sessions.fetch import build_tools
from sessions.shared import console, disk, knowledge, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.knowledge import Sdist


def archive(ctx: Context, sdist: Sdist) -> Path:
    """The path of the sdist in the cache; pip downloads it if needed.

    Raises Problem if its SHA-256 is not the locked one.
    """
    ctx.use_cached("downloads")
    with ctx.cache_lock(sdist.file):
        return _archive(ctx, sdist)


def _archive(ctx: Context, sdist: Sdist) -> Path:
    path = ctx.cache / "downloads" / sdist.file
    if path.exists() and records.file_sha256(path) == sdist.sha256:
        return path
    disk.room({path.parent: knowledge.disk_mib("download")}, "The download of the source")
    with ctx.scratch() as scratch:
        pin = scratch / "requirements.txt"
        text = f"llama-cpp-python=={sdist.version} --hash=sha256:{sdist.sha256}\n"
        records.write_text(pin, text)
        console.say(f"Getting the source of llama-cpp-python {sdist.version} (once).")
        # The venv contains scikit-build-core, so pip can read the metadata without an index.
        args = ["download", "--no-deps", "--no-build-isolation", "--no-binary=:all:"]
        args += ["--require-hashes", "-d", str(scratch), "-r", str(pin)]
        venvs.pip(
            ctx, build_tools.tools(ctx), args, f"the source of llama-cpp-python {sdist.version}"
        )
        path.parent.mkdir(exist_ok=True)
        disk.put(scratch / sdist.file, path)
    found = records.file_sha256(path)
    if found != sdist.sha256:
        path.unlink()
        raise Problem(
            "The downloaded source is not the one that was locked; it was not used.",
            id="source-hash-mismatch",
            evidence=f"sha256 {found}, locked {sdist.sha256}",
            remedy="try again; if it happens again, see which package index pip uses: pip "
            "config list",
        )
    return path


def unpack(archive: Path, folder: Path, is_wanted: Callable[[str], bool]) -> None:
    """Unpack the files for whose path in the source ``is_wanted`` is true ("name/" is a folder).

    The other files are left out also because upstream's longest paths exceed the limit of Windows.
    Raises Problem if the archive contains a path or link that leads outside.
    """

    def member(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo | None:
        _, _, relative = member.name.partition("/")
        if not relative or not is_wanted(relative + "/" * member.isdir()):
            return None
        return tarfile.data_filter(member.replace(name=relative, deep=False), destination)

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
