"""Stages the source of a build: the files that a build reads, and our additions.

Upstream's build writes into its source tree, and two targets may be built from one source at the
same time. So each target builds its own copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomlkit

from sessions.build import import_hooks, sbom
from sessions.fetch import source_filter
from sessions.shared import disk


def stage(source: Path, folder: Path, additions: Mapping[str, str]) -> int:
    """Make ``folder`` the files that a build reads and ``additions``. Returns how many changed."""
    disk.mark(folder)
    files = {
        relative: path
        for relative, path in disk.files(source, source_filter.build_reads)
        if relative not in additions and path.is_file()  # no symlinks to folders, no broken ones
    }
    _prune(folder, {*files, *additions, disk.TAG})
    written = sum(_put(folder / name, path.read_bytes()) for name, path in files.items())
    return written + sum(_put(folder / name, text.encode()) for name, text in additions.items())


def _prune(folder: Path, files: set[str]) -> None:
    for relative, path in disk.files(folder, lambda _: True):
        if relative not in files:
            path.unlink()
    for child in sorted(folder.rglob("*/"), reverse=True):
        if not any(child.iterdir()):
            child.rmdir()


def _put(path: Path, data: bytes) -> bool:
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def additions(
    source: Path,
    overlay: Mapping[str, str],
    sbom_text: str,
    *,
    platform: str,
    cuda: str | None,
    archs: tuple[str, ...],
    requires: tuple[str, ...],
) -> dict[str, str]:
    """The files that are added to the source or replace its files: relative path -> text.

    ``overlay`` has the texts of our modules. Every wheel gets its SBOM, and the modules that
    ``import_hooks.modules`` returns. A CUDA wheel also requires the packages of NVIDIA's runtime.
    """
    files = {sbom.FILE: sbom_text}
    if cuda:
        project = tomlkit.parse((source / "pyproject.toml").read_text(encoding="utf-8"))
        project["project"]["dependencies"].extend(requires)
        files["pyproject.toml"] = tomlkit.dumps(project)
    ours = import_hooks.modules(overlay, platform=platform, cuda=cuda, archs=archs)
    files |= {f"llama_cpp/{name}": text for name, text in ours.items()}
    init = (source / "llama_cpp" / "__init__.py").read_text(encoding="utf-8")
    files["llama_cpp/__init__.py"] = (
        "".join(hook for name, hook in import_hooks.HOOKS.items() if name in ours) + init
    )
    return files
