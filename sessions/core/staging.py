"""The staged source of a build: what it reads of the upstream source, and our additions.

Upstream's build writes into its source tree, and two targets may be built from
one source at once: so each target builds its own copy and the source stays as
it was unpacked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import tomlkit

from sessions.core import disk, facts, sbom

PRISTINE = ".blackwheel.json"  # in an unpacked sdist: the digests of its files as they came
LOADER = "_cuda_runtime.py"
HOOK = f"from .{LOADER.removesuffix('.py')} import load as _load_cuda; _load_cuda()\n"
DLLS = "_bundled_dlls.py"  # of a Windows wheel
DLLS_HOOK = f"from .{DLLS.removesuffix('.py')} import load as _load_dlls; _load_dlls()\n"


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
    source: Path,
    overlay: Mapping[str, str],
    bill: str,
    *,
    platform: str,
    cuda: str | None,
    driver: int,
    requires: tuple[str, ...],
) -> dict[str, str]:
    """The files of the source that the wheel has otherwise: relative path -> text.

    ``overlay`` has the texts of ``LOADER`` and ``DLLS``. Every wheel gets its bill of materials.
    A CUDA wheel gets the loader of NVIDIA's runtime and the packages that bring that runtime as
    dependencies; a Windows wheel gets what loads its own libraries. Both are called before
    anything of the package.
    """
    files = {sbom.FILE: bill}
    hooks = ""
    if cuda:
        files[f"llama_cpp/{LOADER}"] = filled(overlay[LOADER], cuda, driver)
        project = tomlkit.parse((source / "pyproject.toml").read_text(encoding="utf-8"))
        project["project"]["dependencies"].extend(requires)
        files["pyproject.toml"] = tomlkit.dumps(project)
        hooks += HOOK
    if platform == "windows":
        files[f"llama_cpp/{DLLS}"] = overlay[DLLS]
        hooks += DLLS_HOOK
    if hooks:
        init = (source / "llama_cpp" / "__init__.py").read_text(encoding="utf-8")
        files["llama_cpp/__init__.py"] = hooks + init
    return files


def filled(loader: str, cuda: str, driver: int) -> str:
    """The loader's text with the CUDA release and the oldest driver of one target."""
    return loader.replace("@CUDA@", cuda).replace("@MINIMUM_DRIVER@", str(driver))


def unpatched(text: str) -> str:
    """The text of ``DLLS`` as it was before delvewheel wrote into it where it is told to."""
    patch = r"^# start delvewheel patch\n.*^# end delvewheel patch$"
    return re.sub(patch, "# delvewheel: patch", text, flags=re.MULTILINE | re.DOTALL)
