"""The session source: the pinned upstream source, downloaded and unpacked; or a checkout."""

from __future__ import annotations

import re
from pathlib import Path

from sessions.fetch import sdist as sdists
from sessions.fetch import sdist_lock
from sessions.fetch.record_types import Pristine, Source
from sessions.fetch.source_filter import PRISTINE, build_reads
from sessions.shared import console, disk, knowledge, records
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.shared.knowledge import Sdist


def main(ctx: Context) -> None:
    """Write the record of the source that the target is built from."""
    if ctx.spec.source:
        source = checkout(Path(ctx.spec.source).expanduser().resolve())
        state = "your checkout"
    else:
        known = knowledge.sdists().get(ctx.spec.version)
        sdist = known or sdist_lock.lock(ctx, ctx.spec.version)
        source, fresh = _locked(ctx, sdist)
        state = "unpacked" if fresh else "up to date"
    if source.edited and source.sdist_sha256:
        console.warn(
            f"the source was edited ({len(source.edited)} files, {source.edited[0]} first) and is "
            "built as it is; nox -s source -- --fresh restores it"
        )
    records.write(ctx.record("source"), "source", source)
    console.done(f"source: llama-cpp-python {source.version} ({state}), {source.path}")


def _locked(ctx: Context, sdist: Sdist) -> tuple[Source, bool]:
    folder = ctx.root / "llama-cpp-python-src" / sdist.version
    ctx.use_source(sdist.version)
    with ctx.source_lock(sdist.version):
        pristine = _pristine(folder, sdist)
        fresh = pristine is None or ctx.fresh
        if fresh:
            archive = sdists.archive(ctx, sdist)
            disk.room({folder: knowledge.disk_mib("source")}, "The unpacked source")
            unpack(archive, folder, sdist)
            pristine = _pristine(folder, sdist)
        assert pristine is not None
        digests = _digests(ctx, folder)
    edited = sorted(n for n in {*pristine, *digests} if pristine.get(n) != digests.get(n))
    return (
        Source(
            version=sdist.version,
            path=str(folder),
            sdist_sha256=sdist.sha256,
            digest=records.fingerprint(digests),
            edited=tuple(edited),
            epoch=sdist.epoch,
        ),
        fresh,
    )


def _pristine(folder: Path, sdist: Sdist) -> dict[str, str] | None:
    """The digests of the files if this sdist was unpacked with today's filter; else None."""
    unpacked = records.read(folder / PRISTINE, "pristine", Pristine)
    if unpacked is None or not disk.is_marked(folder):
        return None
    same = (unpacked.sdist, unpacked.filter) == (sdist.sha256, _filter())
    return unpacked.files if same else None


def _filter() -> str:
    """A digest of the lists that decide which files of an archive are unpacked."""
    return records.fingerprint([knowledge.staging_excludes(), knowledge.staging_keeps()])


def _digests(ctx: Context, folder: Path) -> dict[str, str]:
    """The digests of the files that a build reads; kept until a file's size or time changes."""
    path = ctx.record("source-digests")
    signature = disk.signature(folder, build_reads)
    digests = records.read(path, signature, dict[str, str])
    if digests is None:
        digests = disk.tree_digest(folder, build_reads)
        records.write(path, signature, digests)
    return digests


def unpack(archive: Path, folder: Path, sdist: Sdist) -> None:
    """Replace ``folder`` by the unpacked files that a build reads, and note their digests in it."""
    part = folder.with_name(f".{folder.name}.part")
    for old in (part, folder):
        if old.exists():
            disk.remove(old)
    disk.mark(part)
    sdists.unpack(archive, part, build_reads)
    unpacked = Pristine(sdist.sha256, _filter(), disk.tree_digest(part, build_reads))
    records.write(part / PRISTINE, "pristine", unpacked)
    disk.put(part, folder)


def checkout(path: Path) -> Source:
    """The source in a user's checkout. Raises Problem if it is not one, or llama.cpp is missing."""
    version = _version(path)
    if version is None:
        raise Problem(
            "This folder is not the source of llama-cpp-python.",
            id="source-not-upstream",
            code=USAGE,
            evidence=f"{path} has no llama_cpp/__init__.py with a __version__",
            remedy="name the top folder of a checkout: --source PATH",
        )
    if not (path / "vendor" / "llama.cpp" / "CMakeLists.txt").exists():
        raise Problem(
            "This checkout lacks llama.cpp.",
            id="source-without-llama-cpp",
            code=USAGE,
            evidence=f"{path / 'vendor' / 'llama.cpp'} is empty",
            remedy=f"git -C {path} submodule update --init --recursive",
        )
    digests = disk.tree_digest(path, build_reads)
    newest = max(p.stat().st_mtime for _, p in disk.files(path, build_reads) if p.exists())
    return Source(
        version=version,
        path=str(path),
        sdist_sha256=None,
        digest=records.fingerprint(digests),
        edited=(),
        epoch=int(newest),
    )


def _version(path: Path) -> str | None:
    """``__version__`` of the package below ``path``; None if there is none."""
    init = path / "llama_cpp" / "__init__.py"
    text = init.read_text(encoding="utf-8", errors="replace") if init.is_file() else ""
    found = re.search(r"^\s*__version__\s*=\s*(.*?)\s*$", text, re.MULTILINE)
    return found[1].strip("\"'") if found else None
