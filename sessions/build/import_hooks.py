"""Our modules in a wheel, and which ``__init__.py`` calls before upstream's code, in order."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sessions.shared import knowledge

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
