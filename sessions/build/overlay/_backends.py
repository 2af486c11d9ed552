"""Load ggml's module for this CPU, by its full path, before anything looks for one by name.

Added to llama-cpp-python by blackwheel. The wheel contains the code for the CPU several times, each
for other instruction sets (AVX2, AVX-512, AMX and so on). Each module reports how well it fits this
CPU (ggml_backend_score; 0: it cannot run), as in upstream's own search. That search would also look
in the folder of the program and in the current folder, where another llama.cpp may be.
"""

import _ctypes
import ctypes
import importlib
import os
import sys

WINDOWS = sys.platform == "win32"
PREFIX, SUFFIX = ("", ".dll") if WINDOWS else ("lib", ".so")
# The encoding in which C++ reads a path. MSVC's is the system's code page, which lacks many
# letters.
PATHS = ("mbcs", "replace") if WINDOWS else ("utf-8", "surrogateescape")
# Upstream's variable for libraries in another folder, which must have their own modules.
ELSEWHERE = "LLAMA_CPP_LIB_PATH"
VARIANT = "BLACKWHEEL_CPU"  # the name of the module to use, for example haswell
OTHERS = "GGML_BACKEND_PATH"  # ggml's own variable for one more module
AGAIN = "pip install --force-reinstall --no-deps llama-cpp-python"
# Upstream's kinds of x86-64 CPU, ordered by the value of ggml_backend_score on a CPU that can run
# all of them (cpu-feats.cpp; the instruction sets of each: ggml/src/CMakeLists.txt), the greatest
# first.
BEST_FIRST = [
    "sapphirerapids",
    "zen4",
    "cooperlake",
    "icelake",
    "cascadelake",
    "cannonlake",
    "skylakex",
    "alderlake",
    "haswell",
    "piledriver",
    "ivybridge",
    "sandybridge",
    "sse42",
    "x64",
]
SEARCH = "ggml_backend_load_all_from_path"  # in bindings that let ggml search for modules

chosen = None  # the name of the CPU module that this process uses


def load():
    """Load the CPU module that fits this CPU best, unless the bindings have loaded one.

    Raises ImportError if there is none, or if the module that the user named cannot run here.
    """
    global chosen
    not_by_name()
    importlib.import_module(__package__ + ".llama_cpp")
    ggml = library()
    if ggml is None or ggml.ggml_backend_reg_count():
        return
    wanted = os.environ.get(VARIANT)
    if wanted:
        name = wanted if wanted in variants() and score(wanted) else ""
    else:
        name = best()
    if not name:
        found = scores()
        can = [each for each in sorted(found) if found[each]]
        raise ImportError(
            "llama_cpp has no CPU module {}that this CPU can run. It can run: {}.\nFix: {}".format(
                "{!r} ".format(wanted) if wanted else "",
                ", ".join(can) or "none",
                "clear {}, or name one of these".format(VARIANT) if wanted else AGAIN,
            )
        )
    register(module("cpu-" + name))
    chosen = name
    other = os.environ.get(OTHERS)
    # ggml prints why it does not accept a module, for example because it is for another release.
    if other and not ggml.ggml_backend_load(other.encode(*PATHS)):
        raise ImportError(
            "ggml cannot load the module that {0}={1} names.\nFix: clear {0}, or name a module "
            "of this release".format(OTHERS, other)
        )
    search_elsewhere_only()


def not_by_name():
    """Prevent bindings from asking the system for its own libllama first, as those of forks do.

    They then load the wheel's libraries by path.
    """
    try:
        loading = importlib.import_module(__package__ + "._ctypes_extensions")
    except ImportError:  # an older release
        return
    if hasattr(loading, "find_library"):
        loading.find_library = lambda name: None


def search_elsewhere_only():
    """Prevent bindings from searching the wheel's folder before the first model, as forks do.

    Its modules are loaded only once, here; the CUDA module by _gpu_check, if a GPU can run it.
    """
    bindings = sys.modules.get(__package__ + "._ggml")
    search = getattr(bindings, SEARCH, None)
    if search is None:
        return

    def search_others(path):
        text = os.fsdecode(getattr(path, "value", path))
        return None if os.path.realpath(text) == os.path.realpath(folder()) else search(path)

    setattr(bindings, SEARCH, search_others)


def folder():
    """The folder of the libraries."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.environ.get(ELSEWHERE) or os.path.join(here, "lib")


def module(name):
    """The path of ggml's module of that name (cpu-haswell, cuda)."""
    return os.path.join(folder(), "{}ggml-{}{}".format(PREFIX, name, SUFFIX))


def library():
    """libggml, which the bindings have loaded with libllama; None if it is not in the folder."""
    path = os.path.join(folder(), "{}ggml{}".format(PREFIX, SUFFIX))
    if not os.path.isfile(path):
        return None
    ggml = ctypes.CDLL(path)
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    return ggml


def register(path):
    """Load one module of the wheel and register its devices with ggml.

    Not with ggml_backend_load: on Windows it finds nothing in a folder whose name has letters
    outside the system's code page, and it prints each module to stderr. Raises ImportError if that
    fails.
    """
    try:
        opened = ctypes.CDLL(path)
        opened.ggml_backend_init.restype = ctypes.c_void_p
    except (AttributeError, OSError) as error:
        raise ImportError("{} cannot be used: {}.\nFix: {}".format(path, error, AGAIN)) from error
    backend = opened.ggml_backend_init()
    if not backend:
        raise ImportError(
            "{} cannot be used: it loads, but does not start.\nFix: {}".format(path, AGAIN)
        )
    library().ggml_backend_register(backend)


def variants():
    """The names of the wheel's CPU modules."""
    start = "{}ggml-cpu-".format(PREFIX)
    return [
        name[len(start) : -len(SUFFIX)]
        for name in os.listdir(folder())
        if name.startswith(start) and name.endswith(SUFFIX)
    ]


def best():
    """The name of the CPU module that fits this CPU best; empty if none can run.

    Loading a module takes half a millisecond, so the others are not loaded.
    """
    names = variants()
    if set(names) <= set(BEST_FIRST):
        names = sorted(names, key=BEST_FIRST.index)
        return next((name for name in names if score(name)), "")
    found = scores()
    name = max(found, key=found.get)
    return name if found[name] else ""


def scores():
    """How well each CPU module of the wheel fits this CPU: its name -> 0 if it cannot run."""
    return {name: score(name) for name in variants()}


def score(name):
    """The score that a module reports; 0 if it cannot be loaded. It is unloaded again."""
    try:
        opened = ctypes.CDLL(module("cpu-" + name))
    except OSError:
        return 0
    try:
        return opened.ggml_backend_score()
    finally:
        (_ctypes.FreeLibrary if WINDOWS else _ctypes.dlclose)(opened._handle)
