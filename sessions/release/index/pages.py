"""Renders pages of a package index: HTML (PEP 503) and JSON (PEP 691, 700). Pure."""

from __future__ import annotations

import html
import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from packaging.version import Version

_API = "1.1"  # the version of the API with the sizes and times of PEP 700


_STYLE = (
    ":root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif } "
    "body { max-width: 60rem; margin: auto; padding: 1rem; overflow-wrap: anywhere } "
    "pre { white-space: pre-wrap }"
)


@dataclass(frozen=True)
class File:
    """One file of an index; only a wheel has the last three values."""

    path: str  # relative to the folder that contains all indexes, with "/"
    version: str
    sha256: str
    size: int
    uploaded: str | None = None  # ISO 8601, UTC
    metadata_sha256: str | None = None
    requires_python: str | None = None
    tested: bool = True

    @property
    def name(self) -> str:
        """The file name."""
        return posixpath.basename(self.path)


def root(project: str) -> tuple[str, str]:
    """HTML and JSON of the list of projects, which has one project."""
    listing = {"meta": {"api-version": _API}, "projects": [{"name": project}]}
    return page("Index", [f'<a href="{project}/">{project}</a>']), _json(listing)


def listing(project: str, files: Sequence[File], folder: str, note: str = "") -> tuple[str, str]:
    """HTML and JSON of a project's files, for pages in ``folder``; ``note`` is HTML for people."""
    ordered = sorted(files, key=lambda file: file.name)
    anchors = [f"{_anchor(file, folder)}<br>" for file in ordered]
    value = {
        "meta": {"api-version": _API},
        "name": project,
        "versions": sorted({file.version for file in ordered}, key=Version),
        "files": [_entry(file, folder) for file in ordered],
    }
    return page(f"Links for {project}", [*([note] if note else []), *anchors]), _json(value)


def page(title: str, body: Sequence[str]) -> str:
    """A page of HTML for installers and people."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f'<meta name="pypi:repository-version" content="{_API}">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{html.escape(title)}</h1>",
            *body,
            "</body>",
            "</html>\n",
        ]
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"


def _href(file: File, folder: str) -> str:
    return quote(posixpath.relpath(file.path, folder))


def _anchor(file: File, folder: str) -> str:
    attributes = {"href": f"{_href(file, folder)}#sha256={file.sha256}"}
    if file.requires_python:
        attributes["data-requires-python"] = file.requires_python
    if file.metadata_sha256:  # under both names, because the second one is older (PEP 714)
        attributes["data-core-metadata"] = f"sha256={file.metadata_sha256}"
        attributes["data-dist-info-metadata"] = f"sha256={file.metadata_sha256}"
    words = " ".join(f'{key}="{html.escape(value)}"' for key, value in attributes.items())
    state = "" if file.tested else " <strong>UNTESTED</strong> on such a GPU"
    return f"<a {words}>{html.escape(file.name)}</a>{state}"


def _entry(file: File, folder: str) -> dict[str, object]:
    entry: dict[str, object] = {
        "filename": file.name,
        "url": _href(file, folder),
        "hashes": {"sha256": file.sha256},
        "size": file.size,
    }
    if file.requires_python:
        entry["requires-python"] = file.requires_python
    if file.metadata_sha256:
        entry["core-metadata"] = {"sha256": file.metadata_sha256}
        entry["dist-info-metadata"] = {"sha256": file.metadata_sha256}
    if file.uploaded:
        entry["upload-time"] = file.uploaded
    if not file.tested:
        entry["_untested"] = True  # PEP 691 reserves names with "_" for the index server
    return entry
