"""Load the libraries of this wheel by their full paths, before anything looks for them by name.

Added to llama-cpp-python by blackwheel, for Windows. Upstream loads llama.dll with winmode=0.
Windows then looks for the libraries that llama.dll needs in the current folder and on PATH, and not
in the folders of os.add_dll_directory: it would not find Microsoft's runtime in
llama_cpp_python.libs, and it would take a ggml.dll in the current folder instead of this wheel's.
It does not look for a library that is already loaded.
"""

import ctypes
import os
from pathlib import Path

PACKAGE = Path(__file__).absolute().parent
BUNDLED = PACKAGE.parent / "llama_cpp_python.libs"

# delvewheel: patch


def load():
    """Load the DLLs that are bundled in the wheel, then llama.dll and all that it needs.

    Raises ImportError with the name of a library that cannot be loaded.
    """
    libraries = sorted(BUNDLED.glob("*.dll"))
    if "LLAMA_CPP_LIB_PATH" not in os.environ:  # upstream's variable for another folder
        libraries.append(PACKAGE / "lib" / "llama.dll")
    for path in libraries:
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            raise ImportError("{} cannot be loaded: {}".format(path, error)) from error
