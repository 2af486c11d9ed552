"""A miniature of llama_cpp."""

import ctypes
from pathlib import Path

__version__ = "0.0.1"


def answer() -> int:
    """What the library says; it needs every other library of the wheel."""
    lib = ctypes.CDLL(str(Path(__file__).parent / "lib" / "libmtmd.so"))
    return int(lib.mtmd_answer())
