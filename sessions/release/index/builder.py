"""Writes the static package index in ``dist/`` from the releases in it.

``dist/cu131-sm120/simple/`` is the index for pip for one CUDA version and GPU architecture. There
is one index per architecture because the file name of a wheel does not contain it: the wheels of
rtx50 and hopper have the same name. ``dist/simple/`` has all wheels: GPU wheels as variant wheels,
whose names contain the architecture, and only CPU wheels as plain wheels. So no installer takes a
wheel for another GPU by accident.

Pages are HTML (PEP 503) and JSON (PEP 691 and 700), with the METADATA of each wheel beside it
(PEP 658). Links are relative, so the folder can be copied anywhere. The same releases give the same
bytes.
"""

from __future__ import annotations

import hashlib
import html
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path

from sessions.release.index import choose_page, pages, variants
from sessions.release.index.pages import File
from sessions.release.record_types import PythonWheel, Release
from sessions.shared import knowledge, programs, records
from sessions.shared.errors import CHECK_FAILED, Problem

PROJECT = "llama-cpp-python"
ALL = "simple"
CPU = "cpu"


def label(cuda: str | None, archs: Sequence[str]) -> str:
    """The name of the index for a build: "cu131-sm120", or "cu131-sm100-ptx100" with PTX."""
    if cuda is None:
        return CPU
    parts = [f"cu{cuda.replace('.', '')}"]
    for arch in archs:
        number, letter, kind = knowledge.parse_arch(arch)
        parts += [f"sm{number}{letter}"] if kind in ("", "real") else []
        parts += [f"ptx{number}{letter}"] if kind in ("", "virtual") else []
    return "-".join(parts)


@dataclass(frozen=True)
class ReleaseFolder:
    """A release and the name of its folder: its target, or in ``site/`` what ``folder`` returns."""

    folder: str
    release: Release


def folder(release: Release) -> str:
    """The name of a release's folder in ``site/``, which has the releases of several ``dist/``."""
    return f"{release.target}-{release.version}-{release.system}"


def releases(dist: Path) -> tuple[Release, ...]:
    """Every release in ``dist/``, by target. Raises Problem as ``releases_with_folders`` does."""
    return tuple(placed.release for placed in releases_with_folders(dist))


def releases_with_folders(dist: Path) -> tuple[ReleaseFolder, ...]:
    """Every release in ``dist/`` with its folder.

    Raises Problem if a record cannot be read, or a file differs from its digest in the record.
    """
    found = []
    for path in sorted(dist.glob("*/release.json")):
        release, name = records.read(path, "release", Release), path.parent.name
        if release is None or name not in (release.target, folder(release)):
            raise Problem(
                "The record of a release cannot be read.",
                id="index-record-unreadable",
                code=CHECK_FAILED,
                evidence=str(path),
                remedy=f"release {name} again with nox -s release",
            )
        digests = {wheel.file: wheel.sha256 for wheel in release.wheels}
        for file_name, sha256 in {**digests, **release.files}.items():
            file = path.parent / file_name
            if not file.is_file() or records.file_sha256(file) != sha256:
                raise Problem(
                    "A file in dist/ is not the one that was released.",
                    id="index-file-changed",
                    code=CHECK_FAILED,
                    evidence=f"{file}\nreleased: sha256 {sha256}",
                    remedy=command("release", release),
                )
        found.append(ReleaseFolder(name, release))
    return tuple(found)


def command(session: str, release: Release, *more: str) -> str:
    """The command line that runs a session for the target of a release."""
    return programs.typed(["nox", "-s", session, "--", *release.arguments, *more])


def write(dist: Path) -> None:
    """Write the index of all releases in ``dist/``, and delete the previous one.

    Without a release there is no index.
    """
    groups = _by_label(releases_with_folders(dist))
    _clear(dist)
    if not groups:
        return
    everything: list[File] = []
    for name, group in groups.items():
        plain = [_file(dist, dist / p.folder / w.file, p.release) for p, w in _wheels(group)]
        _write_simple(dist, f"{name}/{ALL}", plain)
        everything += plain if name == CPU else _variants(dist, name, group)
    everything += _variants_json(dist, groups)
    _write_simple(dist, ALL, everything, _note(groups) if set(groups) != {CPU} else "")
    offers = [
        choose_page.Offer(name, placed.folder, placed.release, placed.release.system)
        for name, group in groups.items()
        for placed in group
    ]
    records.write_text(dist / "index.html", choose_page.render(PROJECT, offers))


def _wheels(group: Iterable[ReleaseFolder]) -> list[tuple[ReleaseFolder, PythonWheel]]:
    """Each wheel of some releases once, even if two releases have it."""
    found = {wheel.file: (placed, wheel) for placed in group for wheel in placed.release.wheels}
    return list(found.values())


def _by_label(found: Iterable[ReleaseFolder]) -> dict[str, list[ReleaseFolder]]:
    """The releases of each index. Raises Problem if two different files have the same name."""
    groups: dict[str, dict[str, ReleaseFolder]] = {}
    for placed in found:
        name = label(placed.release.cuda, placed.release.archs)
        group = groups.setdefault(name, {})
        for wheel in placed.release.wheels:
            other = group.get(wheel.file)
            if other and wheel.sha256 not in {w.sha256 for w in other.release.wheels}:
                raise Problem(
                    f"Two different wheels in the index {name} would have the same file name.",
                    id="index-same-name",
                    code=CHECK_FAILED,
                    evidence="\n".join(f"{p.folder}/{wheel.file}" for p in (other, placed)),
                    remedy="keep one of them: delete the other's folder, then run the same "
                    "command again",
                )
            group[wheel.file] = other or placed
    return {
        name: list({placed.folder: placed for placed in group.values()}.values())
        for name, group in sorted(groups.items())
    }


def _clear(dist: Path) -> None:
    for folder in (dist / ALL, *dist.glob(f"*/{ALL}")):
        if folder.is_dir():
            shutil.rmtree(folder)
    for old in dist.glob("*/*.whl.metadata"):
        old.unlink()
    (dist / "index.html").unlink(missing_ok=True)


def _file(dist: Path, path: Path, release: Release) -> File:
    """The entry of a wheel for an index. Writes its METADATA beside it."""
    owner, version = path.name.split("-")[:2]
    with zipfile.ZipFile(path) as archive:
        text = archive.read(f"{owner}-{version}.dist-info/METADATA")
    path.with_name(f"{path.name}.metadata").write_bytes(text)
    return File(
        path=path.relative_to(dist).as_posix(),
        version=version,
        sha256=records.file_sha256(path),
        size=path.stat().st_size,
        uploaded=release.proven,
        metadata_sha256=hashlib.sha256(text).hexdigest(),
        requires_python=BytesHeaderParser().parsebytes(text)["Requires-Python"],
        tested=release.tested,
    )


def _variants(dist: Path, name: str, group: Iterable[ReleaseFolder]) -> list[File]:
    """Write the variant wheels of one index's releases into the index of all."""
    into = dist / ALL / PROJECT
    into.mkdir(parents=True, exist_ok=True)
    files = []
    for placed, wheel in _wheels(group):
        release = placed.release
        needs = variants.properties(release.cuda or "", release.archs)
        plain = dist / placed.folder / wheel.file
        path = variants.make(plain, into, name.replace("-", "_"), needs)
        files.append(_file(dist, path, release))
    return files


def _variants_json(dist: Path, groups: Mapping[str, Iterable[ReleaseFolder]]) -> list[File]:
    """Write the file that explains the labels of the variant wheels, one per version."""
    known: dict[str, dict[str, variants.Properties]] = {}
    for name, group in groups.items():
        for release in (placed.release for placed in group):
            if release.cuda is not None:
                owner_version = "-".join(release.file.split("-")[:2])
                needs = variants.properties(release.cuda, release.archs)
                known.setdefault(owner_version, {})[name.replace("-", "_")] = needs
    files = []
    for owner_version, labels in sorted(known.items()):
        path = dist / ALL / PROJECT / f"{owner_version}-variants.json"
        path.write_bytes(variants.metadata(labels))
        relative, version = path.relative_to(dist).as_posix(), owner_version.split("-")[1]
        files.append(File(relative, version, records.file_sha256(path), path.stat().st_size))
    return files


def _write_simple(dist: Path, folder: str, files: Sequence[File], note: str = "") -> None:
    """Write an index with one project: the list of projects, and the list of its files."""
    for place, (page, data) in {
        folder: pages.root(PROJECT),
        f"{folder}/{PROJECT}": pages.listing(PROJECT, files, f"{folder}/{PROJECT}", note),
    }.items():
        records.write_text(dist / place / "index.html", page)
        records.write_text(dist / place / "index.json", data)


def _note(groups: Iterable[str]) -> str:
    names_of_gpus = ", ".join(f"../../{name}/{ALL}/" for name in groups)
    return (
        "<p>This index is for installers that choose a wheel by the GPU (wheel variants: uv with "
        "<code>--preview-features wheel-variants</code>). pip does not: give it the index of your "
        f"GPU: {html.escape(names_of_gpus)}</p>"
    )
