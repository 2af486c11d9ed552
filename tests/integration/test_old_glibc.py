"""The link for glibc 2.28 with the real compiler: the result, and what is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.build import old_glibc, openmp
from sessions.shared import knowledge
from tests import fakes
from tests.problems import raises

# Needs more than glibc 2.28: stat (2.33), std::random_device (arc4random, 2.36), threads in libc
# (2.34), and the compiler's C++ runtime.
CODE = r"""
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <random>
#include <regex>
#include <stdexcept>
#include <sys/stat.h>
#include <thread>
extern "C" int answer(int (*called)(int)) {
    struct stat status;
    if (stat("/", &status) || !S_ISDIR(status.st_mode)) return 1;
    std::mutex mutex;
    std::condition_variable ready;
    int found = 0;
    std::thread thread([&] {
        std::lock_guard<std::mutex> lock(mutex);
        found = std::regex_match(std::to_string(std::random_device{}()), std::regex("[0-9]+"));
        ready.notify_one();
    });
    {
        std::unique_lock<std::mutex> lock(mutex);
        ready.wait(lock, [&] { return found; });
    }
    thread.join();
    try {
        return called(found);
    } catch (const std::runtime_error & error) {
        return std::string(error.what()) == "thrown elsewhere" ? 42 : 2;
    }
}
"""
THROWS = r"""
#include <stdexcept>
extern "C" int thrower(int) { throw std::runtime_error("thrown elsewhere"); }
"""
NEWER = r"""
#include <unistd.h>
extern "C" void closes(void) { closefrom(3); }
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which ninja links; the stubs are beside it."""
    folder = tmp_path_factory.mktemp("old glibc")
    env = {"PATH": "/usr/bin:/bin"}
    old_glibc.make(fakes.compiler(), folder / old_glibc.FOLDER, env)
    (folder / "tree").mkdir()
    return folder / "tree"


def linked(tree: Path, name: str, code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    (tree / f"{name}.cpp").write_text(code)
    words = ["g++", "-O2", "-fPIC", f"{name}.cpp", "-shared", *flags, "-o", f"lib{name}.so"]
    return subprocess.run(words, cwd=tree, check=False, capture_output=True, text=True)


def for_old(tree: Path, name: str, code: str) -> Path:
    done = linked(tree, name, code, *old_glibc.linker_flags().split())
    assert done.returncode == 0, done.stderr
    return tree / f"lib{name}.so"


def output_of(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_a_library_needs_no_newer_glibc_and_no_cpp_runtime(tree: Path) -> None:
    library = for_old(tree, "needs", CODE)
    versions = set(re.findall(r"GLIBC_(\d+)\.(\d+)", output_of("readelf", "-V", library)))
    assert ("2", "14") in versions  # memcpy's: there is something to read
    assert max(int(minor) for _, minor in versions) <= 28
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output_of("readelf", "-d", library)))
    assert needed <= {*knowledge.glibc(), "libgcc_s.so.1"}
    assert {"libpthread.so.0", "libc.so.6"} <= needed  # where 2.28 has threads
    exported = output_of("nm", "-D", "--defined-only", library)
    assert re.findall(r" \w (\w+)", exported) == ["answer"]


def test_the_same_code_linked_as_usual_needs_more(tree: Path) -> None:
    """So the test above can fail."""
    assert linked(tree, "always", CODE).returncode == 0
    needed = output_of("readelf", "-d", tree / "libalways.so")
    assert "libstdc++.so.6" in needed
    assert re.search(r"GLIBC_2\.(29|3\d|4\d)", output_of("readelf", "-V", tree / "libalways.so"))


def test_a_function_that_glibc_2_28_lacks_is_a_link_error(tree: Path) -> None:
    assert linked(tree, "links", NEWER).returncode == 0
    done = linked(tree, "newer", NEWER, *old_glibc.linker_flags().split())
    assert done.returncode != 0
    assert "undefined reference to `closefrom'" in done.stderr
    assert not (tree / "libnewer.so").exists()


TEAM = r"""
#include <omp.h>
extern "C" int team(int threads) {
    int sum = 0;
    #pragma omp parallel num_threads(threads) reduction(+:sum)
    {
        sum += omp_get_thread_num();
        #pragma omp barrier
    }
    return sum;
}
"""


def test_the_openmp_runtime_needs_no_newer_glibc_and_computes(tree: Path) -> None:
    runtime = tree.parent / old_glibc.FOLDER / openmp.FILE
    versions = set(re.findall(r"Name: GLIBC_(\d+)\.(\d+)", output_of("readelf", "-V", runtime)))
    assert ("2", "14") in versions
    assert max(int(minor) for _, minor in versions) <= 28
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output_of("readelf", "-d", runtime)))
    assert needed == {"libc.so.6", "libpthread.so.0", "libdl.so.2"}
    flags = [*old_glibc.linker_flags().split(), "-fopenmp", f"-Wl,-rpath,{runtime.parent}"]
    done = linked(tree, "team", TEAM, *flags)
    assert done.returncode == 0, done.stderr
    code = """
import ctypes, sys
print(*map(ctypes.CDLL(sys.argv[1]).team, (1, 2, 4, 9)))
print(*{line.split(None, 5)[-1].strip() for line in open("/proc/self/maps") if "gomp" in line})
"""
    printed = output_of(sys.executable, "-c", code, tree / "libteam.so").splitlines()
    assert printed == ["0 1 6 36", str(runtime)]


def test_an_openmp_runtime_with_newer_functions_is_refused(tree: Path) -> None:
    assert linked(tree, "newest", NEWER).returncode == 0
    with raises("openmp-newer-glibc") as refused:
        openmp.portable(tree / "libnewest.so", knowledge.glibc())
    assert "closefrom" in refused.value.evidence


RUN = """
import ctypes, sys
first, second, thrower = sys.argv[1:]
ctypes.CDLL(first, mode=ctypes.RTLD_GLOBAL)
answer = ctypes.CDLL(second).answer
called = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
answer.argtypes = [ctypes.c_void_p]
address = ctypes.cast(ctypes.CDLL(thrower).thrower, ctypes.c_void_p)
print(answer(address))
"""


def test_a_library_works_beside_another_cpp_runtime_and_catches_its_exceptions(
    tree: Path,
) -> None:
    """The first library uses the compiler's libstdc++.so; its template instances are global."""
    always = tree / "libalways.so"
    assert linked(tree, "always", CODE).returncode == 0
    mine = for_old(tree, "needs", CODE)
    for throws in (for_old(tree, "old", THROWS), tree / "libnew.so"):
        if not throws.exists():
            assert linked(tree, "new", THROWS).returncode == 0
        for first, second in ((always, mine), (mine, always)):
            words = [sys.executable, "-c", RUN, str(first), str(second), str(throws)]
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            assert done.stdout == "42\n", (throws.name, second.name, done.returncode, done.stderr)


def test_the_link_gives_the_same_bytes_in_another_folder(tree: Path, tmp_path: Path) -> None:
    first = for_old(tree, "same", CODE).read_bytes()
    (tmp_path / "tree").mkdir()
    shutil.copytree(tree.parent / old_glibc.FOLDER, tmp_path / old_glibc.FOLDER)
    assert for_old(tmp_path / "tree", "same", CODE).read_bytes() == first
