"""A miniature of the bindings."""

import ctypes
from pathlib import Path

_lib = ctypes.CDLL(str(Path(__file__).parent / "lib" / "libllama.so"))
