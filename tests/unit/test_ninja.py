"""Reading a build's output."""

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


@pytest.mark.parametrize(
    ("line", "step", "file"),
    [
        (f"[12/170] {CXX}", Step(12, 170, CXX), "llama-vocab.cpp"),
        (f"[3/170] {CUDA}", Step(3, 170, CUDA), "fattn-mma-f16.cu"),
        (
            "[170/170] Linking CXX shared library bin/libllama.so",
            Step(170, 170, "Linking CXX shared library bin/libllama.so"),
            "libllama.so",
        ),
        (
            r"[7/9] Building C object src\CMakeFiles\ggml.dir/ggml.c.obj",
            Step(7, 9, r"Building C object src\CMakeFiles\ggml.dir/ggml.c.obj"),
            "ggml.c",
        ),
        (
            r"[8/9] Linking CXX shared library bin\ggml-base.dll",
            Step(8, 9, r"Linking CXX shared library bin\ggml-base.dll"),
            "ggml-base.dll",
        ),
        (
            "[1/170] Generating build details from Git",
            Step(1, 170, "Generating build details from Git"),
            "",
        ),
    ],
    ids=["c++", "cuda", "link", "windows", "windows-link", "custom"],
)
def test_a_step_says_how_far_the_build_is_and_what_it_makes(
    line: str, step: Step, file: str
) -> None:
    parsed = progress.parse_step(line)
    assert parsed == step
    assert parsed.file == file


def test_the_cause_of_an_error_of_cmakes_is_shown_whole() -> None:
    """A log of CMake 4.4 with CUDA 13.1 and the headers of glibc 2.42."""
    text = (COLD.parent / "glibc-2.42.log").read_text(encoding="utf-8")
    first, cause, *_ = build_errors.first_error(text.splitlines()).splitlines()
    assert first.startswith("CMake Error at ")
    assert cause.startswith("    /usr/include/x86_64-linux-gnu/bits/mathcalls.h(207): error: ")
    assert cause.endswith("/include/crt/math_functions.h)")


def test_a_message_of_cmakes_that_quotes_no_program_is_shown_with_what_follows() -> None:
    lines = ["CMake Error at CMakeLists.txt:3 (message):", "  no such thing", "", "Call Stack:"]
    lines += ["  x.cpp:1: error: of a later step"]
    assert build_errors.first_error(lines).splitlines() == lines


def test_a_long_error_is_whole_and_what_follows_it_is_not() -> None:
    error, command = f"x.cu(1): error: {'x' * 2000}", "y" * 2000
    assert build_errors.first_error([error, command]).splitlines() == [error, "y" * 400]


@pytest.mark.parametrize(
    "line",
    ["", "-- Configuring done (0.5s)", "  [1/2] indented", "[1/2]no space", "[a/b] c", "[ 50%] x"],
)
def test_any_other_line_is_no_step(line: str) -> None:
    assert progress.parse_step(line) is None


def test_cuda_files_are_known_by_their_suffix() -> None:
    names = ("/src/a.cu", "C:\\src\\b.cu", "/src/c.cpp", "/src/d.cuh.c", "/src/cu")
    commands = json.dumps([{"file": name} for name in names])
    assert cmake_tree.cuda_files(commands) == ["a.cu", "b.cu"]


def test_architectures_are_those_that_nvcc_is_told() -> None:
    # Recorded: CMake 4.4.4 and nvcc 13.1, CUDA_ARCHITECTURES as the folders are called.
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
def test_architectures_are_read_however_they_are_written(flags: str, names: set[str]) -> None:
    for entry in ({"command": f"nvcc {flags} -c a.cu"}, {"arguments": ["nvcc", *flags.split()]}):
        commands = json.dumps([{"file": "/s/a.cu", **entry}, {"file": "b.cpp", "command": flags}])
        assert cmake_tree.architectures(commands) == {"/s/a.cu": names}


CUDA_FILES = [f"{n}.cu" for n in range(5)]


def done(cxx: int, cuda: int, total: int) -> list[Step]:
    """The steps of a build so far, the quick ones first."""
    whats = [f"Building CXX object a/{n}.cpp.o" for n in range(cxx)]
    whats += [f"Building CUDA object a/{n}.cu.o" for n in range(cuda)]
    return [Step(n, total, what) for n, what in enumerate(whats, 1)]


def test_no_guess_is_made_from_the_first_steps() -> None:
    assert progress.time_left(done(4, 0, 10), [], 60.0) is None
    assert progress.time_left([], [], 0.0) is None


def test_steps_of_one_kind_take_what_they_took() -> None:
    assert progress.time_left(done(5, 0, 10), [], 50.0) == pytest.approx(50.0)


def test_a_cuda_step_to_come_counts_as_several() -> None:
    # 10 s a step so far; 5 to go, all CUDA.
    left = progress.time_left(done(5, 0, 10), CUDA_FILES, 50.0)
    assert left == pytest.approx(10 * 5 * progress.weight("0.cu"))


def test_a_cuda_step_done_counts_as_several() -> None:
    elapsed = 10 * (5 + 5 * progress.weight("0.cu"))
    assert progress.time_left(done(5, 5, 15), CUDA_FILES, elapsed) == pytest.approx(50.0)


def test_nothing_is_left_at_the_end() -> None:
    assert progress.time_left(done(5, 5, 10), CUDA_FILES, 100.0) == 0.0


def test_a_build_that_goes_on_does_not_wait_for_steps_of_the_last_run() -> None:
    # The tree names 100 CUDA files, of which 95 were made before the interruption.
    left = progress.time_left(done(5, 0, 10), [f"{n}.cu" for n in range(100)], 50.0)
    assert left == pytest.approx(10 * 5 * progress.weight("0.cu"))


def test_more_cuda_steps_than_were_counted_do_no_harm() -> None:
    left = progress.time_left(done(0, 6, 10), CUDA_FILES[:2], 60.0)
    assert left is not None
    assert left >= 0


def test_of_a_cold_build_the_rest_is_told_within_a_third_from_the_first_tenth_on() -> None:
    lines = [line.split("\t") for line in COLD.read_text(encoding="utf-8").splitlines()[1:]]
    ends = sorted((int(end), output) for _, end, _, output, _ in lines)
    whole = ends[-1][0]
    cuda = [re.sub(r".*/(.*)\.o", r"\1", output) for _, output in ends if output.endswith(".cu.o")]
    steps, judged = list[Step](), 0
    for end, output in ends:
        steps.append(Step(len(steps) + 1, len(ends), f"Building object {output}"))
        if whole / 10 < end < whole - 60_000:
            told = progress.time_left(steps, cuda, end)
            assert told == pytest.approx(whole - end, rel=1 / 3), output
            judged += 1
    assert judged > len(ends) / 3


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
            "../src/ggml.cpp:7:5: error: 'foo' was not declared in this scope",
            "    7 |     foo();",
            "      |     ^~~",
            "ninja: build stopped: subcommand failed.",
            "*** CMake build failed",
        ],
        "../src/ggml.cpp:7:5: error: 'foo' was not declared in this scope",
    ),
    "missing header": (
        ["../src/a.cpp:1:10: fatal error: nope.h: No such file or directory", "    1 | #include"],
        "../src/a.cpp:1:10: fatal error: nope.h: No such file or directory",
    ),
    "nvcc": (
        [
            '/b/src/ggml-cuda/fattn.cu(33): error: identifier "foo" is undefined',
            "    foo();",
            '1 error detected in the compilation of "/b/src/ggml-cuda/fattn.cu".',
        ],
        '/b/src/ggml-cuda/fattn.cu(33): error: identifier "foo" is undefined',
    ),
    "nvcc refuses the compiler": (
        [
            "In file included from <command-line>:",
            "/t/include/crt/host_config.h:137:2: error: #error -- unsupported GNU version!",
        ],
        "/t/include/crt/host_config.h:137:2: error: #error -- unsupported GNU version!",
    ),
    "nvcc architecture": (
        ["nvcc fatal   : Unsupported gpu architecture 'compute_130'"],
        "nvcc fatal   : Unsupported gpu architecture 'compute_130'",
    ),
    "ptxas": (
        [
            "ptxas fatal   : Unresolved extern function 'foo'",
            "ninja: build stopped: subcommand failed.",
        ],
        "ptxas fatal   : Unresolved extern function 'foo'",
    ),
    "ptxas error": (
        [
            "ptxas error   : Entry function 'k' uses too much shared data",
            "ptxas fatal   : Ptx assembly aborted due to errors",
        ],
        "ptxas error   : Entry function 'k' uses too much shared data",
    ),
    "linker": (
        [
            "/usr/bin/ld: a.o: in function `main':",
            "a.cpp:(.text+0x5): undefined reference to `foo()'",
            "collect2: error: ld returned 1 exit status",
        ],
        "a.cpp:(.text+0x5): undefined reference to `foo()'",
    ),
    "missing library": (
        ["/usr/bin/ld: cannot find -lcublas: No such file or directory"],
        "/usr/bin/ld: cannot find -lcublas: No such file or directory",
    ),
    "cmake": (
        [
            "CMake Error at /t/share/cmake/Modules/FindPackageHandleStandardArgs.cmake:227 "
            "(message):",
            "  Could NOT find CUDAToolkit (missing: CUDA_CUDART)",
            "-- Configuring incomplete, errors occurred!",
        ],
        "CMake Error at /t/share/cmake/Modules/FindPackageHandleStandardArgs.cmake:227 (message):",
    ),
    "msvc": (
        [r"C:\b\src\ggml.c(12): error C2065: 'foo': undeclared identifier"],
        r"C:\b\src\ggml.c(12): error C2065: 'foo': undeclared identifier",
    ),
    "msvc linker": (
        ["LINK : fatal error LNK1104: cannot open file 'cublas.lib'"],
        "LINK : fatal error LNK1104: cannot open file 'cublas.lib'",
    ),
    "disk": (
        [
            "/tmp/cc1.s: Assembler messages:",
            "/tmp/cc1.s: Fatal error: can't write 96 bytes to section .text of a.o: "
            "'No space left on device'",
        ],
        "/tmp/cc1.s: Fatal error: can't write 96 bytes to section .text of a.o: "
        "'No space left on device'",
    ),
    "memory": (
        ["g++: fatal error: Killed signal terminated program cc1plus", "compilation terminated."],
        "g++: fatal error: Killed signal terminated program cc1plus",
    ),
    "backend": (
        ["Traceback (most recent call last):", '  File "x.py", line 1, in <module>'],
        "Traceback (most recent call last):",
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_the_first_real_error_of_a_log_is_found(name: str) -> None:
    lines, first = LOGS[name]
    shown = build_errors.first_error([*STEPS, *NOISE, *lines]).splitlines()
    assert shown[0] == first
    assert shown == lines[lines.index(first) :]


def test_a_log_of_warnings_holds_no_error() -> None:
    assert build_errors.first_error([*NOISE, *STEPS]) == ""
    assert build_errors.first_error([]) == ""


def test_an_error_comes_with_a_few_lines_after_it_and_no_more() -> None:
    lines = ["a.cpp:1:1: error: one", *(f"note {n}" for n in range(50))]
    assert (
        build_errors.first_error(lines, context=3)
        == "a.cpp:1:1: error: one\nnote 0\nnote 1\nnote 2"
    )


def test_an_endless_line_is_cut() -> None:
    assert len(build_errors.first_error(["a.cpp:1:1: error: " + "x" * 5000])) == 4000


def test_a_message_of_the_source_that_a_warning_quotes_is_no_error() -> None:
    lines = [
        "../src/mtmd.cpp:12:5: warning: format '%d' expects argument of type 'int' [-Wformat=]",
        '   12 |     fprintf(stderr, "%s: error: cannot load %d\\n", __func__, path);',
        "      |                      ^~~~~~~~~~~~~~~~~~~~~~~~~~",
    ]
    assert build_errors.first_error(lines) == ""


def problem(name: str, jobs: int = 8) -> str:
    return str(build_errors.failure(build_errors.first_error(LOGS[name][0]), "/b/wheel.log", jobs))


def test_a_full_disk_is_called_that() -> None:
    text = problem("disk")
    assert text.startswith("The disk is full: the build stopped.")
    assert "No space left on device" in text
    assert "free some space" in text


@pytest.mark.parametrize(("jobs", "fewer"), [(8, 4), (3, 1), (1, 1)])
def test_a_killed_compiler_asks_for_fewer_jobs(jobs: int, fewer: int) -> None:
    text = problem("memory", jobs)
    assert text.startswith(f"The build ran out of memory; compile steps at once: {jobs}.")
    assert f"--jobs {fewer}:" in text


@pytest.mark.parametrize(
    "line",
    [
        "cc1plus: out of memory allocating 65536 bytes after a total of 1000 bytes",
        "virtual memory exhausted: Cannot allocate memory",
    ],
)
def test_a_compiler_that_gets_no_memory_asks_for_fewer_jobs(line: str) -> None:
    assert "ran out of memory" in build_errors.failure(line, "/b/wheel.log", 8).what


def test_a_cicc_that_was_killed_asks_for_fewer_jobs() -> None:
    line = "nvcc error   : 'cicc' died due to signal 9 (Kill signal)"
    assert build_errors.first_error([line]) == line
    assert "ran out of memory" in build_errors.failure(line, "/b/wheel.log", 8).what


def test_any_other_failure_shows_the_error_and_names_the_log() -> None:
    text = problem("nvcc")
    assert text.startswith("The build failed; the first error is below.")
    assert 'identifier "foo" is undefined' in text
    assert "the whole log is /b/wheel.log" in text


def test_a_failure_without_an_error_says_so() -> None:
    assert (
        build_errors.failure("", "/b/wheel.log", 8).evidence
        == "no line of the log looks like an error"
    )


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


def test_a_tree_of_one_toolkit_names_no_other() -> None:
    assert cmake_tree.foreign_cuda(OWN, ROOT) == []


@pytest.mark.parametrize(
    "leak",
    [
        "CUDA_cublas_LIBRARY:FILEPATH=/usr/local/cuda-13.0/lib64/libcublas.so",
        "CUDAToolkit_NVCC_EXECUTABLE:FILEPATH=/usr/local/cuda/bin/nvcc",
        "CUDAToolkit_BIN_DIR:PATH=/usr/local/cuda-13.0/bin",
    ],
)
def test_a_library_of_another_toolkit_is_found(leak: str) -> None:
    name, _, value = leak.partition("=")
    assert cmake_tree.foreign_cuda(OWN + leak + "\n", ROOT) == [f"{name.partition(':')[0]}={value}"]


def test_a_windows_root_is_compared_in_cmakes_spelling() -> None:
    root = r"C:\Users\José Pérez\cuda\nvidia\cu13"
    cache = (
        "CUDA_CUDART:FILEPATH=c:/Users/josé pérez/cuda/nvidia/cu13/lib/x64/cudart.lib\n"
        "CUDA_cublas_LIBRARY:FILEPATH=C:/Program Files/NVIDIA GPU Computing Toolkit/cublas.lib\n"
    )
    assert cmake_tree.foreign_cuda(cache, root) == [
        "CUDA_cublas_LIBRARY=C:/Program Files/NVIDIA GPU Computing Toolkit/cublas.lib"
    ]


def test_a_neighbour_whose_name_begins_the_same_is_another_toolkit() -> None:
    leak = "CUDA_CUDART:FILEPATH=/usr/local/cuda-13.0/lib64/libcudart.so\n"
    assert len(cmake_tree.foreign_cuda(leak, "/usr/local/cuda-13")) == 1


def test_the_library_of_an_installed_driver_is_no_other_toolkit() -> None:
    driver = "CUDA_cuda_driver_LIBRARY:FILEPATH=/usr/lib/x86_64-linux-gnu/libcuda.so\n"
    assert cmake_tree.foreign_cuda(driver, ROOT) == []


def test_a_library_that_nothing_links_may_be_found_anywhere() -> None:
    other = "CUDA_cufft_LIBRARY:FILEPATH=/usr/lib/x86_64-linux-gnu/libcufft.so\n"
    assert cmake_tree.foreign_cuda(other, ROOT) == []


def test_a_library_that_is_linked_and_was_not_found_is_a_finding() -> None:
    gone = "CUDA_cublas_LIBRARY:FILEPATH=CUDA_cublas_LIBRARY-NOTFOUND\n"
    assert len(cmake_tree.foreign_cuda(gone, ROOT)) == 1
