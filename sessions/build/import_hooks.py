"""Our modules in a wheel, and the lines of ``__init__.py`` that call them before upstream's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sessions.shared import knowledge

BACKENDS = "_backends.py"
LOADER = "_cuda_runtime.py"  # in CUDA wheels
GPUS = "_gpu_check.py"  # in CUDA wheels
DLLS = "_bundled_dlls.py"  # in Windows wheels
DOCTOR = "_doctor.py"  # users run it
# The lines of __init__.py that call them, in this order.
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
    """The modules that are added to a target's wheel (name -> text), with values filled in."""
    values = {"@CUDA@": cuda or "", "@ARCHS@": " ".join(archs)}
    if cuda:
        values["@MINIMUM_DRIVER@"] = str(knowledge.toolkit(cuda).driver)
    texts = {name: overlay[name] for name in added(cuda=bool(cuda), windows=platform == "windows")}
    for placeholder, value in values.items():
        texts = {name: text.replace(placeholder, value) for name, text in texts.items()}
    return texts


def added(*, cuda: bool, windows: bool) -> list[str]:
    """The names of our modules in a wheel."""
    return [*OF_ALL, *(OF_CUDA if cuda else ()), *([DLLS] if windows else [])]


def loader_text(texts: Mapping[str, str]) -> str:
    """The text that decides how a wheel is imported: all our modules but ``DLLS``.

    delvewheel edits ``DLLS``.
    """
    return "".join(texts[name] for name in (*OF_ALL, *OF_CUDA) if name in texts)


def called(init: str) -> list[str]:
    """The names of our modules that an ``__init__.py`` calls before anything else."""
    names = {hook: name for name, hook in HOOKS.items()}
    found = []
    for line in init.splitlines(keepends=True):
        if line not in names:
            break
        found.append(names[line])
    return found


def unpatched(text: str) -> str:
    """The text of ``DLLS`` without the code that delvewheel inserted."""
    patch = r"^# start delvewheel patch\n.*^# end delvewheel patch$"
    return re.sub(patch, "# delvewheel: patch", text, flags=re.MULTILINE | re.DOTALL)
