"""The staged source of a build: what it reads of the upstream source, and our additions.

Upstream's build writes into its source tree, and two targets may be built from
one source at once: so each target builds its own copy and the source stays as
it was unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomlkit

from sessions.core import disk, facts

PRISTINE = ".blackwheel.json"  # in an unpacked sdist: the digests of its files as they came
LOADER = "_cuda_runtime.py"
HOOK = f"from .{LOADER.removesuffix('.py')} import load as _load_cuda; _load_cuda()\n"


def build_reads(relative: str) -> bool:
    """Whether a build reads this file, or anything in this folder ("name/") of a source."""
    keeps = facts.staging_keeps()
    if any(relative.startswith(keep) or keep.startswith(relative) for keep in keeps):
        return True
    if relative in (disk.TAG, PRISTINE):
        return False
    parts = relative.split("/")
    if "__pycache__" in parts:
        return False
    # With the "/" of a folder: a submodule's .git is a file.
    whole = relative if relative.endswith("/") else f"{relative}/"
    return not any(whole.startswith(folder) for folder in facts.staging_excludes())


def stage(source: Path, folder: Path, additions: Mapping[str, str]) -> int:
    """Make ``folder`` hold what a build reads of ``source``, with ``additions`` laid over it.

    Only files whose bytes differ are written, with the time of now: ninja
    rebuilds just those. Returns how many were.
    """
    disk.mark(folder)
    wanted = {
        relative: path
        for relative, path in disk.files(source, build_reads)
        if relative not in additions and path.is_file()  # no links to folders, none to nowhere
    }
    _prune(folder, {*wanted, *additions, disk.TAG})
    written = sum(_put(folder / name, path.read_bytes()) for name, path in wanted.items())
    return written + sum(_put(folder / name, text.encode()) for name, text in additions.items())


def _prune(folder: Path, wanted: set[str]) -> None:
    for relative, path in disk.files(folder, lambda _: True):
        if relative not in wanted:
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
    source: Path, loader: str, *, cuda: str | None, driver: int, requires: tuple[str, ...]
) -> dict[str, str]:
    """The files of the source that the wheel has otherwise: relative path -> text.

    A CUDA wheel gets the loader of NVIDIA's runtime, called before anything of
    the package, and the packages that bring that runtime as dependencies.
    """
    if cuda is None:
        return {}
    init = (source / "llama_cpp" / "__init__.py").read_text(encoding="utf-8")
    project = tomlkit.parse((source / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = project["project"]["dependencies"]
    for requirement in requires:
        dependencies.append(requirement)
    return {
        "llama_cpp/__init__.py": HOOK + init,
        f"llama_cpp/{LOADER}": filled(loader, cuda, driver),
        "pyproject.toml": tomlkit.dumps(project),
    }


def filled(loader: str, cuda: str, driver: int) -> str:
    """The loader's text with the CUDA release and the oldest driver of one target."""
    return loader.replace("@CUDA@", cuda).replace("@MINIMUM_DRIVER@", str(driver))
