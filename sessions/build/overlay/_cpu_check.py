"""Say which instructions this CPU lacks, before a library of this package needs them.

Added to llama-cpp-python by blackwheel. Without this, an older CPU ends the process with an
illegal instruction and no message.
"""

import ctypes
import sys
from pathlib import Path

# Names as Linux has them in /proc/cpuinfo. Filled in when the wheel is built.
BUILT_FOR = "@CPU@"
NEEDS = BUILT_FOR.split()
# IsProcessorFeaturePresent knows these from build 19041 (Windows 10, version 2004); winnt.h.
WINDOWS = {"sse4_2": 38, "avx": 39, "avx2": 40}
WINDOWS_BUILD = 19041


def check():
    """Raise ImportError where the CPU lacks an instruction set that the libraries use."""
    missing = lacks()
    if missing:
        raise ImportError(
            "llama_cpp was built for CPUs with {}, and this CPU does not have: {}.\n"
            "Fix: in a virtual machine, let it have the host's CPU features; otherwise build for "
            "this CPU: pip install --force-reinstall --no-deps --no-binary llama-cpp-python "
            "llama-cpp-python".format(", ".join(NEEDS), ", ".join(missing))
        )


def lacks():
    """What of NEEDS the CPU does not have; nothing where the system does not tell."""
    if sys.platform == "win32":
        if sys.getwindowsversion().build < WINDOWS_BUILD:
            return []
        has = ctypes.WinDLL("kernel32").IsProcessorFeaturePresent
        return [name for name in NEEDS if name in WINDOWS and not has(WINDOWS[name])]
    flags = cpu_flags()
    return [name for name in NEEDS if name not in flags] if flags else []


def cpu_flags(path="/proc/cpuinfo"):
    """The flags of the first CPU. The rest is not read: it takes time for each core."""
    try:
        with Path(path).open("rb", buffering=4096) as file:
            for line in file:
                if line.startswith(b"flags"):
                    return line.decode("ascii", "replace").partition(":")[2].split()
    except OSError:
        pass
    return []
