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

from sessions.build import sbom
from sessions.fetch import source_filter
from sessions.shared import disk, knowledge

BACKENDS = "_backends.py"
LOADER = "_cuda_runtime.py"  # of a CUDA wheel, like the check of the GPUs
GPUS = "_gpu_check.py"
DLLS = "_bundled_dlls.py"  # of a Windows wheel
DOCTOR = "_doctor.py"  # run by a user, called by nothing
# What calls them in __init__.py, in this order, before anything of the package.
HOOK = "from ._cuda_runtime import load as _load_cuda; _load_cuda()\n"
DLLS_HOOK = "from ._bundled_dlls import load as _load_dlls; _load_dlls()\n"
BACKENDS_HOOK = "from ._backends import load as _load_backends; _load_backends()\n"
GPUS_HOOK = "from ._gpu_check import watch as _watch_gpus; _watch_gpus()\n"
HOOKS = {LOADER: HOOK, DLLS: DLLS_HOOK, BACKENDS: BACKENDS_HOOK, GPUS: GPUS_HOOK}
OF_ALL = (BACKENDS, DOCTOR)
OF_CUDA = (LOADER, GPUS)


def stage(source: Path, folder: Path, additions: Mapping[str, str]) -> int:
    """Make ``folder`` hold what a build reads of ``source``, with ``additions`` laid over it.

    Only files whose bytes differ are written, with the time of now: ninja
    rebuilds just those. Returns how many were.
    """
    disk.mark(folder)
    wanted = {
        relative: path
        for relative, path in disk.files(source, source_filter.build_reads)
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
    archs: tuple[str, ...],
    requires: tuple[str, ...],
) -> dict[str, str]:
    """The files of the source that the wheel has otherwise: relative path -> text.

    ``overlay`` has the texts of our modules. Every wheel gets its bill of materials and those of
    them that ``modules`` names, which are called before anything of the package. A CUDA wheel gets
    the packages that bring NVIDIA's runtime as dependencies.
    """
    files = {sbom.FILE: bill}
    if cuda:
        project = tomlkit.parse((source / "pyproject.toml").read_text(encoding="utf-8"))
        project["project"]["dependencies"].extend(requires)
        files["pyproject.toml"] = tomlkit.dumps(project)
    ours = modules(overlay, platform=platform, cuda=cuda, archs=archs)
    files |= {f"llama_cpp/{name}": text for name, text in ours.items()}
    init = (source / "llama_cpp" / "__init__.py").read_text(encoding="utf-8")
    files["llama_cpp/__init__.py"] = (
        "".join(hook for name, hook in HOOKS.items() if name in ours) + init
    )
    return files


def modules(
    overlay: Mapping[str, str], *, platform: str, cuda: str | None, archs: tuple[str, ...]
) -> dict[str, str]:
    """The modules that we add to a target's wheel, filled in for it.

    The loader of ggml's CPU module goes into every wheel, the loader of the CUDA runtime and the
    check of the GPUs into a CUDA wheel, and what loads the libraries of a Windows wheel into that.
    """
    wanted = added(cuda=cuda is not None, windows=platform == "windows")
    blanks: dict[str, str] = {}
    if cuda:
        driver = knowledge.toolkit(cuda).driver
        blanks |= {"@CUDA@": cuda, "@MINIMUM_DRIVER@": str(driver), "@ARCHS@": " ".join(archs)}
    texts = {name: overlay[name] for name in wanted}
    for blank, value in blanks.items():
        texts = {name: text.replace(blank, value) for name, text in texts.items()}
    return texts


def added(*, cuda: bool, windows: bool) -> list[str]:
    """The names of our modules in a wheel."""
    return [*OF_ALL, *(OF_CUDA if cuda else ()), *([DLLS] if windows else [])]


def loader_text(texts: Mapping[str, str]) -> str:
    """What a wheel's import is judged by: all of our modules but ``DLLS``, which may be edited."""
    return "".join(texts[name] for name in (*OF_ALL, *OF_CUDA) if name in texts)


def called(init: str) -> list[str]:
    """Which of our modules an ``__init__.py`` calls before anything else."""
    names = {hook: name for name, hook in HOOKS.items()}
    found = []
    for line in init.splitlines(keepends=True):
        if line not in names:
            break
        found.append(names[line])
    return found


def unpatched(text: str) -> str:
    """The text of ``DLLS`` as it was before delvewheel wrote into it where it is told to."""
    patch = r"^# start delvewheel patch\n.*^# end delvewheel patch$"
    return re.sub(patch, "# delvewheel: patch", text, flags=re.MULTILINE | re.DOTALL)
