"""Find and load the CUDA runtime before the libraries of this package need it.

Added to llama-cpp-python by blackwheel. The libraries in ``llama_cpp/lib`` are linked with
cudart and cuBLAS, which a driver does not bring. NVIDIA's ``cuda-pathfinder`` finds them wherever
they are: NVIDIA's packages from PyPI (which this wheel depends on), conda, or an installed
toolkit; on Linux and on Windows.
"""

import ctypes
import os
import sys
from pathlib import Path

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
LIBRARIES = ("cudart", "cublasLt", "cublas")
PACKAGES = "nvidia-cuda-runtime nvidia-cublas"

# name -> (absolute path, how cuda-pathfinder found it), for whoever wants to know
loaded = {}


def load():
    """Load driver and runtime into the process.

    Raises ImportError that names everything that is missing, and how to get it.
    """
    missing = []
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        missing.append(
            "the NVIDIA driver ({}): install a driver of release {} or newer from "
            "https://www.nvidia.com/drivers [{}]".format(DRIVER, MINIMUM_DRIVER, error)
        )
    try:
        from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib
    except ImportError as error:
        missing.append("cuda-pathfinder: pip install cuda-pathfinder [{}]".format(error))
    else:
        for name in LIBRARIES:
            try:
                found = load_nvidia_dynamic_lib(name)
            except (DynamicLibNotFoundError, RuntimeError, OSError) as error:
                reason = " ".join(str(error).split())[:300]
                missing.append("{}: pip install {} [{}]".format(name, PACKAGES, reason))
            else:
                loaded[name] = (found.abs_path, found.found_via)
                if not of_major(found.abs_path, CUDA.split(".")[0]):
                    missing.append(
                        "{} of CUDA {}: pip install {} [found {}]".format(
                            name, CUDA.split(".")[0], PACKAGES, found.abs_path
                        )
                    )
    if sys.platform == "win32" and os.environ.get("CUDA_PATH"):
        # Upstream adds both to the folders that are searched, and one that is not there ends it.
        for name in ("bin", "lib"):
            folder = Path(os.environ["CUDA_PATH"], name)
            if not folder.is_dir():
                missing.append(
                    "{}: CUDA_PATH names a toolkit that is not whole; clear that variable, or "
                    "have it name one that is".format(folder)
                )
    if missing:
        lines = ["llama_cpp was built for CUDA {} and cannot start without:".format(CUDA)]
        raise ImportError("\n  - ".join(lines + missing))


def of_major(path, major):
    """Whether a library's file name says that CUDA major: libcudart.so.13, cublas64_13.dll."""
    name = path.replace("\\", "/").split("/")[-1]
    return ".so.{}".format(major) in name or "64_{}.".format(major) in name


# Filled in when the wheel is built.
CUDA = "@CUDA@"
MINIMUM_DRIVER = "@MINIMUM_DRIVER@"
