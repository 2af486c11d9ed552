"""Load the libraries of this wheel by their full paths, before anything looks for them by name.

Added to llama-cpp-python by blackwheel, for Windows. Upstream loads llama.dll with winmode=0. What
llama.dll needs, Windows then looks for in the current folder and on PATH, and not in the folders
of os.add_dll_directory: Microsoft's runtime in llama_cpp_python.libs would not be found, and a
ggml.dll in the current folder would be taken for this wheel's. What is loaded already is not
looked for.
"""

import ctypes
import os
from pathlib import Path

PACKAGE = Path(__file__).absolute().parent
BUNDLED = PACKAGE.parent / "llama_cpp_python.libs"

# delvewheel: patch


def load():
    """Load what the wheel brings along, then llama.dll and all that it needs.

    Raises ImportError that names the library that cannot be loaded.
    """
    libraries = sorted(BUNDLED.glob("*.dll"))
    if "LLAMA_CPP_LIB_PATH" not in os.environ:  # upstream's way to take libraries from elsewhere
        libraries.append(PACKAGE / "lib" / "llama.dll")
    for path in libraries:
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            raise ImportError("{} cannot be loaded: {}".format(path, error)) from error
