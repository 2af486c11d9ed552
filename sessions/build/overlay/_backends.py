"""Load ggml's module for this CPU, by its full path, before anything looks for one by name.

Added to llama-cpp-python by blackwheel. The wheel has the code for the CPU several times, each for
other instruction sets (AVX2, AVX-512, AMX and so on). Each module says itself how well it fits this
CPU (ggml_backend_score: 0 where it cannot run), as in upstream's own search. That search would
also read the folder of the program and the current one, where another llama.cpp may be.
"""

import _ctypes
import ctypes
import importlib
import os
import sys
from pathlib import Path

WINDOWS = sys.platform == "win32"
PREFIX, SUFFIX = ("", ".dll") if WINDOWS else ("lib", ".so")
# Upstream's variable for libraries from elsewhere, which then bring their own modules.
ELSEWHERE = "LLAMA_CPP_LIB_PATH"
VARIANT = "BLACKWHEEL_CPU"  # the name of the one that is to be used, for example haswell
OTHERS = "GGML_BACKEND_PATH"  # ggml's own variable for one more module

chosen = None  # the name of the CPU module that this process uses, for whoever wants to know


def load():
    """Load the CPU module that suits this CPU best, unless the bindings have loaded one.

    Raises ImportError where there is none, or where the one that was asked for cannot run here.
    """
    global chosen
    importlib.import_module(__package__ + ".llama_cpp")
    ggml = library()
    if ggml is None or ggml.ggml_backend_reg_count():
        return
    found = scores()
    wanted = os.environ.get(VARIANT)
    name = wanted or max(found, key=found.get, default="")
    if not found.get(name):
        can = [each for each in sorted(found) if found[each]]
        raise ImportError(
            "llama_cpp has no CPU module {}that this CPU can run. It can run: {}.\nFix: {}".format(
                "{!r} ".format(name) if wanted else "",
                ", ".join(can) or "none",
                "clear {}, or name one of these".format(VARIANT)
                if wanted
                else "pip install --force-reinstall --no-deps llama-cpp-python",
            )
        )
    with_no_word(lambda: register(module("cpu-" + name)))
    chosen = name
    if os.environ.get(OTHERS):
        register(os.environ[OTHERS])


def folder():
    """Where the libraries are."""
    return Path(os.environ.get(ELSEWHERE) or Path(__file__).absolute().parent / "lib")


def module(name):
    """The path of ggml's module of that name: cpu-haswell, cuda."""
    return str(folder() / "{}ggml-{}{}".format(PREFIX, name, SUFFIX))


def library():
    """libggml, which the bindings have loaded with libllama; None where it is not a file here."""
    path = folder() / "{}ggml{}".format(PREFIX, SUFFIX)
    if not path.is_file():
        return None
    ggml = ctypes.CDLL(str(path))
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    return ggml


def register(path):
    """Load one module and put its devices among those that llama.cpp uses.

    Raises ImportError where that fails.
    """
    if not library().ggml_backend_load(path.encode()):
        try:
            ctypes.CDLL(path)
            why = "it loads, and refuses to start"
        except OSError as error:
            why = str(error)
        raise ImportError("{} cannot be used: {}".format(path, why))


def with_no_word(work):
    """Do something while ggml, which tells stderr of each module, says nothing.

    On import: the bindings have not yet told ggml where to write to.
    """
    base = ctypes.CDLL(module("base"))
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    base.ggml_log_set(silent, None)
    try:
        work()
    finally:
        base.ggml_log_set(None, None)  # as it was: to stderr


def scores():
    """How well each CPU module of the wheel suits this CPU: its name -> 0 where it cannot run."""
    start = "{}ggml-cpu-".format(PREFIX)
    names = [name for name in os.listdir(str(folder())) if name.startswith(start)]
    return {
        name[len(start) : -len(SUFFIX)]: score(str(folder() / name))
        for name in names
        if name.endswith(SUFFIX)
    }


def score(path):
    """What a module says of this CPU; 0 where it cannot be loaded. It does not stay loaded."""
    try:
        opened = ctypes.CDLL(path)
    except OSError:
        return 0
    try:
        return opened.ggml_backend_score()
    finally:
        (_ctypes.FreeLibrary if WINDOWS else _ctypes.dlclose)(opened._handle)
