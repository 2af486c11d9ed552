"""Runs upstream's test of every architecture with the wheel: 133 models of random weights.

Each is computed on a device and on the CPU alone, and is saved and read again. 0.3.16 does not have
this test. Its file is unchanged; it needs some functions of upstream's ``common``, which no wheel
has, so these are compiled too.

    python -m tests.integration.test_llama_archs WHEEL-FOLDER DEVICE

runs it on another device, for example CUDA0, with the libraries of an installed wheel.
"""

from __future__ import annotations

import concurrent.futures
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import installed

RELEASE = "0.3.36"
UPSTREAM = "vendor/llama.cpp"
SOURCES = ("tests/test-llama-archs.cpp", "common/common.cpp", "common/log.cpp", "common/json.cpp")
FOLDERS = ("common/", "include/", "src/", "ggml/include/", "ggml/src/ggml", "vendor/")
ENTRY = """
#include <random>
extern "C" __attribute__((visibility("default"))) int blackwheel_archs(int, char **);
#define main blackwheel_archs
"""
# common.cpp refers to this function, but the test does not call it.
REST = "struct common_sampler; void common_sampler_free(common_sampler *) { __builtin_trap(); }\n"
PROGRAM = """
import ctypes, os, sys, time
import llama_cpp
llama_cpp.llama_backend_init()
words = [b"test", *(word.encode() for word in sys.argv[2:])]
test = ctypes.CDLL(sys.argv[1]).blackwheel_archs
code = test(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))
time.sleep(5)  # another thread writes upstream's log
ctypes.CDLL(None).fflush(None)
print("ended", code, flush=True)
os._exit(0)
"""
ROW = re.compile(
    r"^\| *(\S+)\|(?:[^|]*)\| *(\w+)\| *(\w+)(?: \(toggle\))? *\(?[^|]*\| *(\w+)\|$", re.M
)
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def library(folder: Path, libraries: Path) -> Path:
    """Link the test to the libraries of an installed wheel and put it beside them."""
    installed.unpack(
        RELEASE,
        folder,
        lambda name: name.removeprefix(f"{UPSTREAM}/").startswith((*SOURCES, *FOLDERS)),
    )
    upstream = folder / UPSTREAM
    (folder / "entry.h").write_text(ENTRY, encoding="utf-8")
    (folder / "rest.cpp").write_text(REST, encoding="utf-8")
    parts = ("include", "ggml/include", "src", "common", "vendor")
    flags = ["-O0", "-fPIC", "-ffunction-sections", "-fvisibility=hidden", "-std=c++17", "-w"]
    flags += [f"-I{upstream / part}" for part in parts]

    def compiled(path: Path) -> Path:
        entry = ["-include", str(folder / "entry.h")] if path.name.startswith("test-") else []
        target = folder / f"{path.name}.o"
        subprocess.run(["g++", "-c", *flags, *entry, "-o", str(target), str(path)], check=True)
        return target

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        paths = [folder / "rest.cpp", *(upstream / name for name in SOURCES)]
        objects = [str(path) for path in pool.map(compiled, paths)]
    target = libraries / "blackwheel-archs.so"
    names = ["-lllama", "-lggml", "-lggml-base", "-lpthread"]
    link = ["-Wl,--gc-sections", "-Wl,-z,defs", "-Wl,-Bsymbolic", f"-Wl,-rpath-link,{libraries}"]
    words = ["g++", "-shared", "-s", "-o", str(target), *objects, f"-L{libraries}", *names, *link]
    subprocess.run(words, check=True)
    return target


def answers(python: str, test: Path, device: str) -> tuple[str, list[tuple[str, ...]]]:
    """The test's output, and its rows: architecture, dense or not, result, saved and read."""
    words = [python, "-I", "-c", PROGRAM, str(test), "-s", "1", "-b", device]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    text = COLOR.sub("", done.stdout)
    return text + done.stderr[-2000:], ROW.findall(text)


@pytest.mark.slow
def test_every_architecture_is_computed_saved_and_read(tmp_path: Path) -> None:
    _, wheel = installed.wheel(f"cpu+v{RELEASE}")
    python = installed.venv(tmp_path / "venv", wheel)
    libraries = installed.libraries(python)
    text, rows = answers(str(python), library(tmp_path / "source", libraries), "CPU")
    computed = [row for row in rows if row[2] != "SKIP"]
    assert len(computed) == 133, text[-3000:]
    assert {row[2:] for row in computed} <= {("OK", "OK"), ("OK", "SKIP")}
    assert "Summary: all 133 test(s) passed" in text
    assert "ended 0" in text


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        made = library(Path(scratch), Path(sys.argv[1]) / "lib")
        print(answers(sys.executable, made, sys.argv[2])[0])
