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
from email.parser import BytesHeaderParser
from pathlib import Path
from urllib.parse import quote

from sessions.release.index import pages, variants
from sessions.release.index.pages import File
from sessions.release.model import Release
from sessions.shared import knowledge, records, spec
from sessions.shared.errors import CHECK_FAILED, Problem
from sessions.shared.target import BuildSpec

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


def releases(dist: Path) -> tuple[Release, ...]:
    """Every release in ``dist/``, by target; each file of it is the one its record says."""
    found = []
    for path in sorted(dist.glob("*/release.json")):
        release = records.read(path, "release", Release)
        if release is None or release.target != path.parent.name:
            raise Problem(
                "The record of a release cannot be read.",
                id="index-record-unreadable",
                code=CHECK_FAILED,
                evidence=str(path),
                remedy=f"nox -s release -- --target {path.parent.name.split('+')[0]}",
            )
        for name, sha256 in {release.file: release.sha256, **release.files}.items():
            file = path.parent / name
            if not file.is_file() or records.file_sha256(file) != sha256:
                raise Problem(
                    "A file in dist/ is not the one that was released.",
                    id="index-file-changed",
                    code=CHECK_FAILED,
                    evidence=f"{file}\nreleased: sha256 {sha256}",
                    remedy=command("release", release),
                )
        found.append(release)
    return tuple(found)


def command(session: str, release: Release, *more: str) -> str:
    """The command line that runs a session for the target of a release."""
    parts = release.target.split("+")[1:]

    def part(prefix: str) -> str:
        return next((p.removeprefix(prefix) for p in parts if p.startswith(prefix)), "")

    target = BuildSpec(
        target=release.target,
        summary="",
        version=release.version,
        cuda=release.cuda,
        archs=release.archs,
        python=part("py"),
        platform="",
        toolkit=part("toolkit-"),
        source=part("source-"),
    )
    return spec.command(session, target, *more)


def write(dist: Path) -> None:
    """Write the index of every release in ``dist/``, and delete what an earlier one left.

    Where nothing was released there is no index.
    """
    found = releases(dist)
    groups = _by_label(found)
    _clear(dist)
    if not groups:
        return
    everything: list[File] = []
    for name, group in groups.items():
        plain = [_file(dist, dist / r.target / r.file, r) for r in group]
        _write_simple(dist, f"{name}/{ALL}", plain)
        everything += plain if name == CPU else _variants(dist, name, group)
    everything += _variants_json(dist, groups)
    _write_simple(dist, ALL, everything, _note(groups) if _has_variants(groups) else "")
    records.write_text(dist / "index.html", _front(groups))


def _by_label(found: Iterable[Release]) -> dict[str, list[Release]]:
    """The releases of each sub-index, one per file name. Raises Problem where a name has two."""
    groups: dict[str, dict[str, Release]] = {}
    for release in found:
        name = label(release.cuda, release.archs)
        other = groups.setdefault(name, {}).setdefault(release.file, release)
        if other.sha256 != release.sha256:
            raise Problem(
                f"Two releases would have one name in one index, {name}, and no installer could "
                "tell them apart.",
                id="index-same-name",
                code=CHECK_FAILED,
                evidence=f"dist/{other.target}/{other.file}\ndist/{release.target}/{release.file}",
                remedy="keep one of them: delete the other's folder, then run the same command "
                "again",
            )
    return {name: list(group.values()) for name, group in sorted(groups.items())}


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


def _variants(dist: Path, name: str, group: Iterable[Release]) -> list[File]:
    """The variant wheels of one sub-index's releases, made into the index of all."""
    folder = dist / ALL / PROJECT
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for release in group:
        needs = variants.properties(release.cuda or "", release.archs)
        wheel = dist / release.target / release.file
        path = variants.make(wheel, folder, name.replace("-", "_"), needs)
        made.append(_file(dist, path, release))
    return made


def _variants_json(dist: Path, groups: Mapping[str, Iterable[Release]]) -> list[File]:
    """For each version with variant wheels, the file that says what each label stands for."""
    known: dict[str, dict[str, variants.Properties]] = {}
    for name, group in groups.items():
        for release in group:
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


def _front(groups: Mapping[str, Sequence[Release]]) -> str:
    """The page for people: every wheel, and the line that installs it."""
    lines = []
    for name, group in groups.items():
        lines.append(f"<h2>{html.escape(name)}</h2>\n<p>For {html.escape(_cards(group[0]))}.</p>")
        lines += [_offer(name, release) for release in group]
    if _has_variants(groups):
        lines.append(
            "<h2>Any of these GPUs (experimental)</h2>\n<p>uv can choose the wheel by the GPU:"
            f"</p>\n<pre>uv pip install --preview-features wheel-variants --index {_HERE}{ALL}/ "
            f"{PROJECT}</pre>"
        )
    lines.append(_SCRIPT)
    return pages.page(f"{PROJECT}: GPU wheels", lines)


# The address of the page that is read, put in by the browser; without it, as words.
_HERE = '<span class="here">ADDRESS-OF-THIS-FOLDER/</span>'
_SCRIPT = (
    "<script>for (const e of document.querySelectorAll('.here')) "
    "e.textContent = new URL('.', location.href).href</script>"
)


def _cards(release: Release) -> str:
    if release.cuda is None:
        return "any x86-64 machine with AVX2: it computes on the CPU only"
    numbers = sorted({knowledge.parse_arch(arch)[0] for arch in release.archs})
    names = knowledge.capability_names()
    names_of_gpus = ", ".join(
        f"{names[n]} (compute capability {n // 10}.{n % 10})" for n in numbers
    )
    return f"{names_of_gpus}, with CUDA {release.cuda}"


def _offer(name: str, release: Release) -> str:
    file = html.escape(f"{release.target}/{release.file}")
    documents = [
        f'<a href="{quote(f"{release.target}/{paper}")}">{html.escape(paper)}</a>'
        for paper in release.files
    ]
    state = "" if release.tested else " <strong>UNTESTED</strong> on such a GPU."
    return (
        f'<p><a href="{quote(release.target)}/{quote(release.file)}">{file}</a>, '
        f"{release.size / 1e6:.1f} MB.{state} {' '.join(documents)}</p>\n"
        f"<pre>pip install --only-binary {PROJECT} --extra-index-url "
        f"{_HERE}{html.escape(name)}/{ALL}/ {PROJECT}=={html.escape(release.version)}</pre>"
    )
