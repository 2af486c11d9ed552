"""A static package index below ``dist/``, made whole from the releases in it; no clock is read.

``dist/cu131-sm120/simple/`` is what pip is given for one CUDA version and architecture. In it, two
wheels of one name cannot be: a wheel's name says nothing of the GPU, so rtx50's and hopper's are
called the same. ``dist/simple/`` holds all: each GPU wheel as a variant wheel, which says its GPU,
and as plain wheels those for the CPU only. So nothing installs another GPU's wheel unasked.

Pages are HTML (PEP 503) with the same as JSON beside (PEP 691 and 700); METADATA is beside each
wheel (PEP 658). Links are relative: the folder works wherever it is copied to.
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
from sessions.release.model import PythonWheel, Release
from sessions.shared import knowledge, programs, records
from sessions.shared.errors import CHECK_FAILED, Problem

PROJECT = "llama-cpp-python"
ALL = "simple"
CPU = "cpu"


def label(cuda: str | None, archs: Sequence[str]) -> str:
    """The sub-index of a build: "cu131-sm120"; PTX is named too: "cu131-sm100-ptx100"."""
    if cuda is None:
        return CPU
    parts = [f"cu{cuda.replace('.', '')}"]
    for arch in archs:
        number, letter, kind = knowledge.parse_arch(arch)
        parts += [f"sm{number}{letter}"] if kind in ("", "real") else []
        parts += [f"ptx{number}{letter}"] if kind in ("", "virtual") else []
    return "-".join(parts)


@dataclass(frozen=True)
class Placed:
    """A release and the name of its folder.

    That is its target's name; in an index of several ``dist/`` what ``folder`` returns.
    """

    folder: str
    release: Release


def folder(release: Release) -> str:
    """The name of a release's folder in an index of several ``dist/``."""
    return f"{release.target}-{release.version}-{release.system}"


def releases(dist: Path) -> tuple[Release, ...]:
    """Every release in ``dist/``, by target; each file of it is the one its record names."""
    return tuple(placed.release for placed in placed_in(dist))


def placed_in(dist: Path) -> tuple[Placed, ...]:
    """The same, with the folder of each."""
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
        found.append(Placed(name, release))
    return tuple(found)


def command(session: str, release: Release, *more: str) -> str:
    """The command line that runs a session for the target of a release."""
    return programs.typed(["nox", "-s", session, "--", *release.arguments, *more])


def write(dist: Path) -> None:
    """Write the index of every release in ``dist/``, and delete what an earlier one left.

    Where nothing was released there is no index.
    """
    groups = _by_label(placed_in(dist))
    _clear(dist)
    if not groups:
        return
    everything: list[File] = []
    for name, group in groups.items():
        plain = [_file(dist, dist / p.folder / w.file, p.release) for p, w in _wheels(group)]
        _write_simple(dist, f"{name}/{ALL}", plain)
        everything += plain if name == CPU else _variants(dist, name, group)
    everything += _variants_json(dist, groups)
    _write_simple(dist, ALL, everything, _note(groups) if _has_variants(groups) else "")
    offers = [
        choose_page.Offer(name, placed.folder, placed.release, placed.release.system)
        for name, group in groups.items()
        for placed in group
    ]
    records.write_text(dist / "index.html", choose_page.render(PROJECT, offers))


def _wheels(group: Iterable[Placed]) -> list[tuple[Placed, PythonWheel]]:
    """Each wheel of some releases; one that two releases share is there once."""
    found = {wheel.file: (placed, wheel) for placed in group for wheel in placed.release.wheels}
    return list(found.values())


def _by_label(found: Iterable[Placed]) -> dict[str, list[Placed]]:
    """The releases of each sub-index. Raises Problem where two files there have one name."""
    groups: dict[str, dict[str, Placed]] = {}
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
    """A wheel as an index has it; its METADATA is put beside it."""
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


def _variants(dist: Path, name: str, group: Iterable[Placed]) -> list[File]:
    """The variant wheels of one sub-index's releases, made into the index of all."""
    into = dist / ALL / PROJECT
    into.mkdir(parents=True, exist_ok=True)
    made = []
    for placed, wheel in _wheels(group):
        release = placed.release
        needs = variants.properties(release.cuda or "", release.archs)
        plain = dist / placed.folder / wheel.file
        path = variants.make(plain, into, name.replace("-", "_"), needs)
        made.append(_file(dist, path, release))
    return made


def _variants_json(dist: Path, groups: Mapping[str, Iterable[Placed]]) -> list[File]:
    """For each version with variant wheels, the file that says what each label stands for."""
    known: dict[str, dict[str, variants.Properties]] = {}
    for name, group in groups.items():
        for release in (placed.release for placed in group):
            if release.cuda is not None:
                owner_version = "-".join(release.file.split("-")[:2])
                needs = variants.properties(release.cuda, release.archs)
                known.setdefault(owner_version, {})[name.replace("-", "_")] = needs
    made = []
    for owner_version, labels in sorted(known.items()):
        path = dist / ALL / PROJECT / f"{owner_version}-variants.json"
        path.write_bytes(variants.metadata(labels))
        relative, version = path.relative_to(dist).as_posix(), owner_version.split("-")[1]
        made.append(File(relative, version, records.file_sha256(path), path.stat().st_size))
    return made


def _write_simple(dist: Path, folder: str, files: Sequence[File], note: str = "") -> None:
    """An index of this one project: its list of projects, and the project's list of files."""
    for place, (page, data) in {
        folder: pages.root(PROJECT),
        f"{folder}/{PROJECT}": pages.listing(PROJECT, files, f"{folder}/{PROJECT}", note),
    }.items():
        records.write_text(dist / place / "index.html", page)
        records.write_text(dist / place / "index.json", data)


def _has_variants(groups: Iterable[str]) -> bool:
    return any(name != CPU for name in groups)


def _note(groups: Iterable[str]) -> str:
    names_of_gpus = ", ".join(f"../../{name}/{ALL}/" for name in groups)
    return (
        "<p>This index is for installers that choose a wheel by the GPU (wheel variants: uv with "
        "<code>--preview-features wheel-variants</code>). pip does not: give it the index of your "
        f"GPU: {html.escape(names_of_gpus)}</p>"
    )
