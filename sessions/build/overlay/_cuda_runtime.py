"""Find and load the CUDA runtime before ggml's CUDA module needs it.

Added to llama-cpp-python by blackwheel. ggml's CUDA module in ``llama_cpp/lib`` is linked with
cudart and cuBLAS, which are not part of a driver. NVIDIA's packages from PyPI (this wheel requires
them) have them beside this package or elsewhere on sys.path; NVIDIA's ``cuda-pathfinder`` finds
those of conda and of an installed toolkit. Only libraries of this wheel's CUDA major version are
used: the process may also contain those of another, for example PyTorch's.
"""

import ctypes
import os
import sys
from pathlib import Path

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
LIBRARIES = ("cudart", "cublasLt", "cublas")  # each after those that it needs
PACKAGES = "nvidia-cuda-runtime nvidia-cublas"

# name -> (path, how it was found)
loaded = {}


def load():
    """Load the driver and the runtime. Without a driver nothing is loaded, as nothing needs it.

    Raises ImportError with everything that is missing, and how to get it.
    """
    missing, wanted = [], LIBRARIES
    try:
        ctypes.CDLL(DRIVER)
    except OSError:  # _gpu_check warns
        wanted = ()
    for name in wanted:
        try:
            loaded[name] = find(name)
        except OSError as error:
            reason = " ".join(str(error).split())[:400]
            missing.append("{}: pip install {} [{}]".format(name, PACKAGES, reason))
    if sys.platform == "win32" and os.environ.get("CUDA_PATH"):
        # Upstream adds both folders to the search path, and fails if one does not exist.
        for name in ("bin", "lib"):
            folder = Path(os.environ["CUDA_PATH"], name)
            if not folder.is_dir():
                missing.append(
                    "{}: CUDA_PATH names a toolkit without this folder; clear that variable, or "
                    "set it to a complete toolkit".format(folder)
                )
    if missing:
        lines = ["llama_cpp was built for CUDA {} and cannot start without:".format(CUDA)]
        raise ImportError("\n  - ".join(lines + missing))


def find(name):
    """Load one library of this wheel's CUDA major version. Returns its path and how it was found.

    Raises OSError if there is none, or it cannot be loaded.
    """
    file = file_name(name)
    if is_loaded(file):
        return file, "in the process already"
    for how, folder in wheel_folders():
        if (folder / file).is_file():
            ctypes.CDLL(str(folder / file))
            return str(folder / file), how
    found, reason = ask_pathfinder(name)
    if found and of_major(found.abs_path or "", MAJOR):  # releases before 1.3 may not know it
        return found.abs_path, getattr(found, "found_via", "cuda-pathfinder")
    # If the process contains one of another major version, cuda-pathfinder looks no further.
    for how, folder in toolkit_folders():
        if (folder / file).is_file():
            ctypes.CDLL(str(folder / file))
            return str(folder / file), how
    try:
        ctypes.CDLL(file)
    except OSError as error:
        reason = reason or "found {}".format(found.abs_path or "one of another CUDA major")
        raise OSError("{}; {}".format(error, reason)) from error
    return file, "system search"


def ask_pathfinder(name):
    """(what cuda-pathfinder found and loaded, ""), or (None, why it found nothing).

    It is only used if NVIDIA's packages are not found: importing it takes about 30 ms.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError as error:
        return None, "pip install cuda-pathfinder: {}".format(error)
    try:
        return load_nvidia_dynamic_lib(name), ""
    except (RuntimeError, OSError) as error:  # its own errors are RuntimeErrors
        return None, str(error)


def wheel_folders():
    """(how, folder) for each folder in which NVIDIA's packages may have put their libraries."""
    parts = ("bin", "x86_64") if sys.platform == "win32" else ("lib",)
    beside = Path(__file__).absolute().parent.parent
    places = [("beside the package", beside)]
    places += [("on sys.path", Path(entry)) for entry in sys.path if entry]
    return [(how, root.joinpath("nvidia", "cu" + MAJOR, *parts)) for how, root in places]


def toolkit_folders():
    """(variable, folder) of the libraries of conda and of a toolkit, named by the environment."""
    windows = sys.platform == "win32"
    conda = ("Library/bin/x64", "Library/bin") if windows else ("lib",)
    toolkit = ("bin/x64", "bin") if windows else ("lib64", "lib")
    places = (("CONDA_PREFIX", conda), ("CUDA_PATH", toolkit), ("CUDA_HOME", toolkit))
    return [
        (variable, Path(os.environ[variable], part))
        for variable, parts in places
        if os.environ.get(variable)
        for part in parts
    ]


def is_loaded(file):
    """Whether the process has loaded a library of that name; the wheel would use that one."""
    if sys.platform == "win32":
        handle = ctypes.WinDLL("kernel32").GetModuleHandleW
        handle.restype = ctypes.c_void_p
        return bool(handle(ctypes.c_wchar_p(file)))
    try:
        ctypes.CDLL(file, mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


def file_name(name):
    """The file name of a library of this CUDA major version: libcudart.so.13, cublas64_13.dll."""
    if sys.platform == "win32":
        return "{}64_{}.dll".format(name, MAJOR)
    return "lib{}.so.{}".format(name, MAJOR)


def of_major(path, major):
    """Whether a library's file name contains that CUDA major version: libcudart.so.13."""
    name = path.replace("\\", "/").split("/")[-1]
    return ".so.{}".format(major) in name or "64_{}.".format(major) in name


# Filled in when the wheel is built.
CUDA = "@CUDA@"

MAJOR = CUDA.partition(".")[0]
