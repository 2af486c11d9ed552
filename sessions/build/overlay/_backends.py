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

WINDOWS = sys.platform == "win32"
PREFIX, SUFFIX = ("", ".dll") if WINDOWS else ("lib", ".so")
# In which encoding C++ reads a path. MSVC's is the system's code page, which lacks many letters.
PATHS = ("mbcs", "replace") if WINDOWS else ("utf-8", "surrogateescape")
# Upstream's variable for libraries from elsewhere, which then bring their own modules.
ELSEWHERE = "LLAMA_CPP_LIB_PATH"
VARIANT = "BLACKWHEEL_CPU"  # the name of the one that is to be used, for example haswell
OTHERS = "GGML_BACKEND_PATH"  # ggml's own variable for one more module
AGAIN = "pip install --force-reinstall --no-deps llama-cpp-python"
# Upstream's kinds of x86-64 CPU by what ggml_backend_score returns where a CPU can run the module
# (cpu-feats.cpp; the instruction sets of each: ggml/src/CMakeLists.txt), the greatest first.
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
SEARCH = "ggml_backend_load_all_from_path"  # of bindings that have ggml search for modules

chosen = None  # the name of the CPU module that this process uses, for whoever wants to know


def load():
    """Load the CPU module that suits this CPU best, unless the bindings have loaded one.

    Raises ImportError where there is none, or where the one that was asked for cannot run here.
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
    # ggml itself says why it does not take one: it is for another release, for example.
    if other and not ggml.ggml_backend_load(other.encode(*PATHS)):
        raise ImportError(
            "ggml cannot load the module that {0}={1} names.\nFix: clear {0}, or name a module "
            "of this release".format(OTHERS, other)
        )
    search_elsewhere_only()


def not_by_name():
    """Have bindings not ask the system for a libllama of its own first, as those of forks do.

    They load the wheel's libraries by path, then.
    """
    try:
        loading = importlib.import_module(__package__ + "._ctypes_extensions")
    except ImportError:  # of an older release
        return
    if hasattr(loading, "find_library"):
        loading.find_library = lambda name: None


def search_elsewhere_only():
    """Have bindings not search the wheel's own folder with the first model, as those of forks do.

    Its modules are loaded once, here; the one for CUDA by _gpu_check, where a GPU can run it.
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
    """Where the libraries are."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.environ.get(ELSEWHERE) or os.path.join(here, "lib")


def module(name):
    """The path of ggml's module of that name: cpu-haswell, cuda."""
    return os.path.join(folder(), "{}ggml-{}{}".format(PREFIX, name, SUFFIX))


def library():
    """libggml, which the bindings have loaded with libllama; None where it is not a file here."""
    path = os.path.join(folder(), "{}ggml{}".format(PREFIX, SUFFIX))
    if not os.path.isfile(path):
        return None
    ggml = ctypes.CDLL(path)
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    return ggml


def register(path):
    """Load one module of the wheel and put its devices among those that llama.cpp uses.

    Not by ggml_backend_load: on Windows it finds nothing below a folder whose name has letters that
    are not in the system's code page, and it tells stderr of each module. Raises ImportError where
    that fails.
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
    """The name of the CPU module that suits this CPU best; empty where none can run.

    To load one takes half a millisecond: the first that can run is taken, the others stay closed.
    """
    names = variants()
    if set(names) <= set(BEST_FIRST):
        names = sorted(names, key=BEST_FIRST.index)
        return next((name for name in names if score(name)), "")
    found = scores()
    name = max(found, key=found.get)
    return name if found[name] else ""


def scores():
    """How well each CPU module of the wheel suits this CPU: its name -> 0 where it cannot run."""
    return {name: score(name) for name in variants()}


def score(name):
    """What a module says of this CPU; 0 where it cannot be loaded. It does not stay loaded."""
    try:
        opened = ctypes.CDLL(module("cpu-" + name))
    except OSError:
        return 0
    try:
        return opened.ggml_backend_score()
    finally:
        (_ctypes.FreeLibrary if WINDOWS else _ctypes.dlclose)(opened._handle)
