"""The output of a build: its progress, its first error, and the configured CMake tree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sessions.build import build_errors, cmake_tree, progress
from sessions.build.progress import Step
from tests import fakes

COLD = Path(__file__).parents[1] / "data" / "ninja" / "cold.ninja_log"
CU = "vendor/llama.cpp/ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir"
CXX = "Building CXX object vendor/llama.cpp/src/CMakeFiles/llama.dir/llama-vocab.cpp.o"
CUDA = f"Building CUDA object {CU}/template-instances/fattn-mma-f16.cu.o"


LINK = "Linking CXX shared library bin"
GIT = "Generating build details from Git"


@pytest.mark.parametrize(
    ("line", "step", "file"),
    [
        (f"[12/170] {CXX}", Step(12, 170, CXX), "llama-vocab.cpp"),
        (f"[3/170] {CUDA}", Step(3, 170, CUDA), "fattn-mma-f16.cu"),
        (f"[8/9] {LINK}/libllama.so", Step(8, 9, f"{LINK}/libllama.so"), "libllama.so"),
        (rf"[8/9] {LINK}\ggml-base.dll", Step(8, 9, rf"{LINK}\ggml-base.dll"), "ggml-base.dll"),
        (r"[7/9] Building C object a\b.dir/c.c.obj", None, "c.c"),
        (f"[1/170] {GIT}", Step(1, 170, GIT), ""),
    ],
    ids=["c++", "cuda", "link", "windows-link", "windows", "custom"],
)
def test_parse_step(line: str, step: Step | None, file: str) -> None:
    parsed = progress.parse_step(line)
    assert parsed is not None
    assert parsed == (step or parsed)
    assert parsed.file == file


def test_first_error_is_the_cause_that_cmake_quotes() -> None:
    """The log of CMake 4.4 with CUDA 13.1 and the headers of glibc 2.42."""
    text = (COLD.parent / "glibc-2.42.log").read_text(encoding="utf-8")
    first, cause, *_ = build_errors.first_error(text.splitlines()).splitlines()
    assert first.startswith("CMake Error at ")
    assert cause.startswith("    /usr/include/x86_64-linux-gnu/bits/mathcalls.h(207): error: ")
    assert cause.endswith("/include/crt/math_functions.h)")


def test_first_error_of_cmake_without_a_quote_includes_the_next_lines() -> None:
    lines = ["CMake Error at CMakeLists.txt:3 (message):", "  no such thing", "", "Call Stack:"]
    lines += ["  x.cpp:1: error: of a later step"]
    assert build_errors.first_error(lines).splitlines() == lines


def test_a_long_error_is_shown_in_full_and_the_next_lines_are_cut() -> None:
    error, command = f"x.cu(1): error: {'x' * 2000}", "y" * 2000
    assert build_errors.first_error([error, command]).splitlines() == [error, "y" * 400]


@pytest.mark.parametrize(
    "line",
    ["", "-- Configuring done (0.5s)", "  [1/2] indented", "[1/2]no space", "[a/b] c", "[ 50%] x"],
)
def test_parse_step_returns_none_for_other_lines(line: str) -> None:
    assert progress.parse_step(line) is None


def test_cuda_files() -> None:
    names = ("/src/a.cu", "C:\\src\\b.cu", "/src/c.cpp", "/src/d.cuh.c", "/src/cu")
    commands = json.dumps([{"file": name} for name in names])
    assert cmake_tree.cuda_files(commands) == ["a.cu", "b.cu"]


def test_architectures_of_a_real_compile_commands_json() -> None:
    # Recorded with CMake 4.4.4 and nvcc 13.1; the folders are named like CUDA_ARCHITECTURES.
    path = fakes.ROOT / "tests" / "data" / "ninja" / "architectures.compile_commands.json"
    found = cmake_tree.architectures(path.read_text(encoding="utf-8"))
    assert {name.split(".dir")[0].split("t_")[1]: names for name, names in found.items()} == {
        "120-real": {"120-real"},
        "120": {"120-real", "120-virtual"},
        "120a-real": {"120a-real"},
        "120-virtual": {"120-virtual"},
        "90a-real_120f-virtual_86": {"90a-real", "120f-virtual", "86-real", "86-virtual"},
    }


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("-gencode arch=compute_90,code=sm_90", {"90-real"}),
        ("-gencode=arch=compute_90,code=sm_90 -arch=sm_80", {"90-real", "80-real", "80-virtual"}),
        ("--generate-code arch=compute_90,code=[sm_90,compute_90]", {"90-real", "90-virtual"}),
        ("--gpu-architecture=sm_90a", {"90a-real", "90a-virtual"}),
        ("-arch=native", {"native"}),
        ("-O3 -march=x86-64-v3 -Xcompiler=-march=haswell", set()),
    ],
)
def test_architectures_reads_every_form_of_the_option(flags: str, names: set[str]) -> None:
    for entry in ({"command": f"nvcc {flags} -c a.cu"}, {"arguments": ["nvcc", *flags.split()]}):
        commands = json.dumps([{"file": "/s/a.cu", **entry}, {"file": "b.cpp", "command": flags}])
        assert cmake_tree.architectures(commands) == {"/s/a.cu": names}


CUDA_FILES = [f"{n}.cu" for n in range(5)]


def done(cxx: int, cuda: int, total: int) -> list[Step]:
    """The finished steps of a build, the short ones first."""
    whats = [f"Building CXX object a/{n}.cpp.o" for n in range(cxx)]
    whats += [f"Building CUDA object a/{n}.cu.o" for n in range(cuda)]
    return [Step(n, total, what) for n, what in enumerate(whats, 1)]


CU_WEIGHT = progress.weight("0.cu")
HUNDRED = [f"{n}.cu" for n in range(100)]


@pytest.mark.parametrize(
    ("steps", "cuda", "elapsed", "expected"),
    [
        (done(4, 0, 10), [], 60.0, None),
        ([], [], 0.0, None),
        (done(5, 0, 10), [], 50.0, 50.0),
        (done(5, 0, 10), CUDA_FILES, 50.0, 10 * 5 * CU_WEIGHT),  # 10 s per step so far
        (done(5, 5, 15), CUDA_FILES, 10 * (5 + 5 * CU_WEIGHT), 50.0),
        (done(5, 5, 10), CUDA_FILES, 100.0, 0.0),
        # 95 of the 100 CUDA files were compiled before an interruption.
        (done(5, 0, 10), HUNDRED, 50.0, 10 * 5 * CU_WEIGHT),
        # More CUDA steps than CUDA files.
        (done(0, 6, 10), CUDA_FILES[:2], 60.0, 10 * 4 / CU_WEIGHT),
    ],
)
def test_time_left(
    steps: list[Step], cuda: list[str], elapsed: float, expected: float | None
) -> None:
    assert progress.time_left(steps, cuda, elapsed) == pytest.approx(expected)


def test_time_left_of_a_real_build_is_right_within_a_third() -> None:
    lines = [line.split("\t") for line in COLD.read_text(encoding="utf-8").splitlines()[1:]]
    ends = sorted((int(end), output) for _, end, _, output, _ in lines)
    whole = ends[-1][0]
    cuda = [re.sub(r".*/(.*)\.o", r"\1", output) for _, output in ends if output.endswith(".cu.o")]
    steps, compared = list[Step](), 0
    for end, output in ends:
        steps.append(Step(len(steps) + 1, len(ends), f"Building object {output}"))
        if whole / 10 < end < whole - 60_000:
            estimate = progress.time_left(steps, cuda, end)
            assert estimate == pytest.approx(whole - end, rel=1 / 3), output
            compared += 1
    assert compared > len(ends) / 3


STEPS = [f"[{n}/170] {CXX}" for n in range(1, 20)]
NOISE = [
    "fatal: not a git repository: /b/src/vendor/llama.cpp/../../.git/modules/vendor/llama.cpp",
    "-- Performing Test HAS_WERROR",
    "-- Performing Test HAS_WERROR - Failed",
    "CMake Warning (author) at CMakeLists.txt:13 (install):",
    "  Target llama has PUBLIC_HEADER files but no PUBLIC_HEADER DESTINATION.",
    "CMake Warning at common/CMakeLists.txt:29 (message):",
    "  Git index not found in git repository.",
    "../src/ggml-cpu/repack.cpp:1032:19: warning: writing 32 bytes into a region of size 0",
    "gcc -Werror=implicit-int -Werror=implicit-function-declaration -c ggml.c",
    "ptxas warning : Stack size for entry function cannot be determined",
    f"[20/170] Building CXX object {CU}/error-handling.cpp.o",
    "ggml/src/ggml-cuda/fattn.cu(12): warning #177-D: variable was declared but never referenced",
]
LOGS = {
    "gcc": (
        [
            f"FAILED: [code=1] {CU}/ggml.cpp.o ",
            "/usr/bin/g++ -DGGML_BUILD -o ggml.cpp.o -c ggml.cpp",
            "../src/ggml.cpp: In function 'int main()':",
        ],
        [
            "../src/ggml.cpp:7:5: error: 'foo' was not declared in this scope",
            "    7 |     foo();",
            "      |     ^~~",
            "ninja: build stopped: subcommand failed.",
            "*** CMake build failed",
        ],
    ),
    "missing header": (
        [],
        ["../src/a.cpp:1:10: fatal error: nope.h: No such file or directory", "    1 | #include"],
    ),
    "nvcc": (
        [],
        [
            '/b/src/ggml-cuda/fattn.cu(33): error: identifier "foo" is undefined',
            "    foo();",
            '1 error detected in the compilation of "/b/src/ggml-cuda/fattn.cu".',
        ],
    ),
    "nvcc refuses the compiler": (
        ["In file included from <command-line>:"],
        ["/t/include/crt/host_config.h:137:2: error: #error -- unsupported GNU version!"],
    ),
    "nvcc architecture": ([], ["nvcc fatal   : Unsupported gpu architecture 'compute_130'"]),
    "cicc killed": ([], ["nvcc error   : 'cicc' died due to signal 9 (Kill signal)"]),
    "ptxas": (
        [],
        [
            "ptxas fatal   : Unresolved extern function 'foo'",
            "ninja: build stopped: subcommand failed.",
        ],
    ),
    "ptxas error": (
        [],
        [
            "ptxas error   : Entry function 'k' uses too much shared data",
            "ptxas fatal   : Ptx assembly aborted due to errors",
        ],
    ),
    "linker": (
        ["/usr/bin/ld: a.o: in function `main':"],
        [
            "a.cpp:(.text+0x5): undefined reference to `foo()'",
            "collect2: error: ld returned 1 exit status",
        ],
    ),
    "missing library": ([], ["/usr/bin/ld: cannot find -lcublas: No such file or directory"]),
    "cmake": (
        [],
        [
            "CMake Error at /t/share/cmake/Modules/FindPackageHandleStandardArgs.cmake:227 "
            "(message):",
            "  Could NOT find CUDAToolkit (missing: CUDA_CUDART)",
            "-- Configuring incomplete, errors occurred!",
        ],
    ),
    "msvc": ([], [r"C:\b\src\ggml.c(12): error C2065: 'foo': undeclared identifier"]),
    "msvc linker": ([], ["LINK : fatal error LNK1104: cannot open file 'cublas.lib'"]),
    "disk": (
        ["/tmp/cc1.s: Assembler messages:"],
        ["/tmp/cc1.s: Fatal error: can't write 96 bytes: 'No space left on device'"],
    ),
    "memory": (
        [],
        ["g++: fatal error: Killed signal terminated program cc1plus", "compilation terminated."],
    ),
    "backend": (
        [],
        ["Traceback (most recent call last):", '  File "x.py", line 1, in <module>'],
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_first_error(name: str) -> None:
    before, expected = LOGS[name]
    shown = build_errors.first_error([*STEPS, *NOISE, *before, *expected])
    assert shown.splitlines() == expected


def test_first_error_is_empty_for_warnings() -> None:
    assert build_errors.first_error([*NOISE, *STEPS]) == ""
    assert build_errors.first_error([]) == ""


def test_first_error_includes_a_few_lines_after_it() -> None:
    lines = ["a.cpp:1:1: error: one", *(f"note {n}" for n in range(50))]
    assert build_errors.first_error(lines, context=3).splitlines() == lines[:4]
    assert len(build_errors.first_error(["a.cpp:1:1: error: " + "x" * 5000])) == 4000


def test_first_error_ignores_source_lines_in_warnings() -> None:
    lines = [
        "../src/mtmd.cpp:12:5: warning: format '%d' expects argument of type 'int' [-Wformat=]",
        '   12 |     fprintf(stderr, "%s: error: cannot load %d\\n", __func__, path);',
        "      |                      ^~~~~~~~~~~~~~~~~~~~~~~~~~",
    ]
    assert build_errors.first_error(lines) == ""


def problem(name: str, jobs: int = 8) -> str:
    log = [line for lines in LOGS[name] for line in lines]
    return str(build_errors.failure(build_errors.first_error(log), "/b/wheel.log", jobs))


def test_failure_for_a_full_disk() -> None:
    text = problem("disk")
    assert text.startswith("The disk is full: the build stopped.")
    assert "No space left on device" in text
    assert "free some space" in text


@pytest.mark.parametrize(("jobs", "fewer"), [(8, 4), (3, 1), (1, 1)])
def test_failure_for_a_killed_compiler_names_fewer_jobs(jobs: int, fewer: int) -> None:
    text = problem("memory", jobs)
    assert text.startswith(f"The build ran out of memory; compile steps at once: {jobs}.")
    assert f"--jobs {fewer}:" in text


@pytest.mark.parametrize(
    "line",
    [
        "cc1plus: out of memory allocating 65536 bytes after a total of 1000 bytes",
        "virtual memory exhausted: Cannot allocate memory",
        "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
    ],
)
def test_failure_for_a_compiler_without_memory(line: str) -> None:
    assert "ran out of memory" in build_errors.failure(line, "/b/wheel.log", 8).what


def test_failure_shows_the_error_and_names_the_log() -> None:
    text = problem("nvcc")
    assert text.startswith("The build failed; the first error is below.")
    assert 'identifier "foo" is undefined' in text
    assert "the whole log is /b/wheel.log" in text
    nothing = build_errors.failure("", "/b/wheel.log", 8)
    assert nothing.evidence == "no line of the log looks like an error"


ROOT = "/home/user/.cache/blackwheel/cuda-13.1-0123/nvidia/cu13"
OWN = f"""\
# This is the CMakeCache file.
//Path to a program.
CMAKE_CUDA_COMPILER:STRING={ROOT}/bin/nvcc
CMAKE_CUDA_COMPILER_LAUNCHER:STRING=/home/user/.cache/blackwheel/tools/bin/ccache
CMAKE_CUDA_HOST_COMPILER:FILEPATH=/usr/bin/g++
CUDAToolkit_BIN_DIR:PATH={ROOT}/bin
CUDAToolkit_CUPTI_INCLUDE_DIR:PATH=CUDAToolkit_CUPTI_INCLUDE_DIR-NOTFOUND
CUDAToolkit_rt_LIBRARY:FILEPATH=/usr/lib/x86_64-linux-gnu/librt.a
CUDA_CUDART:FILEPATH={ROOT}/lib/libcudart.so
CUDA_cublas_LIBRARY:FILEPATH={ROOT}/lib/libcublas.so
CUDA_cuda_driver_LIBRARY:FILEPATH={ROOT}/lib64/stubs/libcuda.so
CUDA_cufft_LIBRARY:FILEPATH=CUDA_cufft_LIBRARY-NOTFOUND
CMAKE_CXX_COMPILER:FILEPATH=/usr/bin/g++
"""


@pytest.mark.parametrize(
    ("entry", "foreign"),
    [
        ("CUDA_cublas_LIBRARY:FILEPATH=/usr/local/cuda-13.0/lib64/libcublas.so", True),
        ("CUDAToolkit_NVCC_EXECUTABLE:FILEPATH=/usr/local/cuda/bin/nvcc", True),
        ("CUDAToolkit_BIN_DIR:PATH=/usr/local/cuda-13.0/bin", True),
        (f"CUDA_CUDART:FILEPATH={ROOT}.1/lib64/libcudart.so", True),  # a folder beside it
        ("CUDA_cublas_LIBRARY:FILEPATH=CUDA_cublas_LIBRARY-NOTFOUND", True),
        ("CUDA_cuda_driver_LIBRARY:FILEPATH=/usr/lib/libcuda.so", False),  # the driver's
        ("CUDA_cufft_LIBRARY:FILEPATH=/usr/lib/libcufft.so", False),  # not linked
        ("", False),
    ],
)
def test_foreign_cuda_finds_parts_of_another_toolkit(entry: str, foreign: bool) -> None:
    name, _, value = entry.partition("=")
    expected = [f"{name.partition(':')[0]}={value}"] if foreign else []
    assert cmake_tree.foreign_cuda(f"{OWN}{entry}\n", ROOT) == expected


def test_foreign_cuda_compares_windows_paths_in_cmakes_notation() -> None:
    root = r"C:\Users\José Pérez\cuda\nvidia\cu13"
    cache = (
        "CUDA_CUDART:FILEPATH=c:/Users/josé pérez/cuda/nvidia/cu13/lib/x64/cudart.lib\n"
        "CUDA_cublas_LIBRARY:FILEPATH=C:/Program Files/NVIDIA GPU Computing Toolkit/cublas.lib\n"
    )
    assert cmake_tree.foreign_cuda(cache, root) == [
        "CUDA_cublas_LIBRARY=C:/Program Files/NVIDIA GPU Computing Toolkit/cublas.lib"
    ]
