"""Locks the sdist of a release of llama-cpp-python, in the cache or for this repository."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import tomlkit

from sessions.fetch import build_tools
from sessions.shared import added_releases, console, disk, knowledge, records, venvs
from sessions.shared.context import Context
from sessions.shared.knowledge import Sdist


def lock(ctx: Context, version: str) -> Sdist:
    """Download the sdist of a release that this repository does not lock, and lock it in the cache.

    From then on only a file with this hash is built.
    """
    with ctx.scratch() as folder:
        sdist = download(ctx, build_tools.tools(ctx), version, folder)
        found = row(sdist)
        downloads = ctx.cache / "downloads"
        downloads.mkdir(exist_ok=True)
        disk.put(sdist, downloads / sdist.name)  # where the session source looks first
    console.warn(
        f"llama-cpp-python {version} is not locked in this repository: its sdist of SHA-256 "
        f"{found['sha256']} is now locked in {added_releases.path(ctx.cache, version)}"
    )
    kept = knowledge.sdist_of(version, found)
    added_releases.write(ctx.cache, kept)
    return kept


def download(ctx: Context, tools: Path, version: str, folder: Path) -> Path:
    """Download the sdist of a release with the pip in ``tools`` and the user's settings of pip."""
    name = f"llama-cpp-python=={version}"
    args = ["download", "--no-deps", "--no-build-isolation", "--no-binary=llama-cpp-python"]
    venvs.pip(ctx, tools, [*args, "-d", str(folder), name], f"the sdist {name}")
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def row(sdist: Path) -> dict[str, Any]:
    """The row that locks an sdist: file, SHA-256, time of its creation, ``wheel.py-api`` if set."""
    with tarfile.open(sdist) as archive:
        info = next(m for m in archive if re.fullmatch(r"[^/]+/PKG-INFO", m.name))
        settings = archive.extractfile(f"{info.name.split('/')[0]}/pyproject.toml")
        assert settings is not None
        project = tomlkit.parse(settings.read().decode()).unwrap()
    wheel = project["tool"]["scikit-build"]
    py_api = wheel.get("wheel", {}).get("py-api")
    found = {"file": sdist.name, "sha256": records.file_sha256(sdist), "epoch": int(info.mtime)}
    return {**found, "py_api": py_api} if py_api else found
