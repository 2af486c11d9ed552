"""The sessions in the Windows Python, as far as they work without MSVC.

Real are noxfile, bootstrap, pip, venv, cmd.exe with a vcvars64.bat, CMake, ninja, ccache and
NVIDIA's nvcc for Windows. vswhere, vcvars64.bat, cl.exe and lib.exe are replaced
(``visualstudio.py``).
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sessions.build.record_types import BuildEnv
from sessions.fetch.record_types import Toolkit
from sessions.probe.record_types import Toolchain
from sessions.shared import knowledge
from sessions.verify import gpu_code
from tests.windows import checkout, visualstudio
from tests.windows.checkout import nox, record
from tests.windows.lab import Lab
from tests.windows.visualstudio import Installed

BOTH: tuple[dict[str, Any], ...] = ({"year": "2022"}, {"year": "2026"})


@pytest.fixture(scope="module", autouse=True)
def _restore_the_default(lab: Lab) -> Iterator[None]:
    yield
    install_only(lab, BOTH)


def install_only(lab: Lab, studios: tuple[dict[str, Any], ...]) -> list[Installed]:
    """Install these Visual Studios and remove all others."""
    visualstudio.clear(lab)
    return [visualstudio.install(lab, **studio) for studio in studios]


# ---- Visual Studio -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What is installed, and the toolset of the last of it that is chosen; None if the probe fails.

    ``text`` is in the output, or is why another compiler is not used.
    """

    studios: tuple[dict[str, Any], ...]
    toolset: str | None
    text: str = ""
    words: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


PREVIEW = ({"year": "2022"}, {"year": "2026", "prerelease": True})
MACHINES = {
    "2019": Machine(({"year": "2019"},), "14.29.30133"),
    "2022": Machine(BOTH[::-1], "14.44.35207"),
    "2026 for 13.3": Machine(BOTH, "14.50.35717", words=("--cuda", "13.3")),
    "2026 for 13.1": Machine(BOTH[1:], "14.50.35717", "so CUDA is told to allow it"),
    "an older toolset in 2026": Machine(
        ({"year": "2026", "toolsets": ("14.50.35717", "14.44.35207")},), "14.44.35207"
    ),
    "Build Tools": Machine(({"year": "2022", "product": "BuildTools"},), "14.44.35207"),
    "a preview": Machine(PREVIEW[::-1], "14.44.35207", "a preview", ("--cuda", "13.3")),
    "a preview that is allowed": Machine(
        PREVIEW, "14.50.35717", words=("--cuda", "13.3", "--prerelease")
    ),
    "half installed": Machine(
        ({"year": "2022", "complete": False},), None, "its installation is not complete"
    ),
    "half installed, and an older one": Machine(
        ({"year": "2022", "complete": False}, {"year": "2019"}), "14.29.30133", "not complete"
    ),
    "parentheses and letters": Machine(
        ({"year": "2022", "folder": r"Größe (x86)\VS & ñ"},), "14.44.35207"
    ),
    "without C++": Machine(
        ({"year": "2022", "toolsets": ()},), None, "Desktop development with C++"
    ),
    "without a Windows SDK": Machine(({"year": "2022", "sdk": None},), None, "no Windows SDK"),
    "none": Machine((), None, "winget install"),
    "vswhere on PATH": Machine(
        ({"year": "2022"},),
        "14.44.35207",
        env={"PATH": r"C:\Python311;C:\windows\system32;C:\vswhere"},
    ),
}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=list(MACHINES))
def test_the_probe_chooses_the_newest_compiler_that_fits(
    lab: Lab, project: Path, machine: Machine
) -> None:
    studios = install_only(lab, machine.studios)
    elsewhere = lab.drive / "vswhere"
    shutil.rmtree(elsewhere, ignore_errors=True)
    if machine.env:
        (lab.drive / visualstudio.INSTALLER).rename(elsewhere)
    ran = nox(lab, project, "-s", "probe", "--", *machine.words, env=machine.env)
    assert "Traceback" not in ran.output
    if machine.toolset is None:
        assert ran.returncode != 0
        assert machine.text in ran.output
        return
    ran.well()
    target = "rtx50+cuda13.3" if "13.3" in machine.words else "rtx50"
    chain = record(project, target, "probe", Toolchain)
    everything = {t for s in machine.studios for t in s.get("toolsets", toolsets(s["year"]))}
    assert {c.toolset for c in chain.compilers} == everything
    assert machine.text in "\n".join([ran.output, *(c.unfit for c in chain.compilers)])
    used = chain.compiler
    assert (used.toolset, used.vcvars) == (machine.toolset, studios[-1].vcvars)
    assert used.variables["VCTOOLSVERSION"] == machine.toolset
    assert set(used.variables) <= set(knowledge.load("windows.toml")["vcvars"]["keep"])
    assert not [check for check in chain.checks if check.status == "fail"]


def toolsets(year: visualstudio.Year) -> tuple[str, ...]:
    return visualstudio.RELEASES[year].toolsets


def test_a_developer_prompt_has_no_effect(lab: Lab, project: Path) -> None:
    install_only(lab, BOTH)
    nox(lab, project, "-s", "probe").well()
    before = record(project, "rtx50", "probe", Toolchain).compiler
    active = {
        "VSCMD_ARG_TGT_ARCH": "x86",
        "VSCMD_VER": "17.14.13",
        "VCTOOLSVERSION": "14.38.33130",
        "VSINSTALLDIR": r"C:\elsewhere" + "\\",
        "INCLUDE": r"C:\elsewhere\include",
        "LIB": r"C:\elsewhere\lib",
        "PATH": r"C:\Python311;C:\windows\system32;"
        + ";".join(f"C:\\long\\{n}" for n in range(900)),
    }
    nox(lab, project, "-s", "probe", env=active).well()
    assert record(project, "rtx50", "probe", Toolchain).compiler == before


# ---- nvcc --------------------------------------------------------------------------------------

# Without CUDA's headers, which the stand-in for cl.exe does not include.
KERNEL = "__declspec(__global__) void scale(float *x, float a) { *x *= a; }\n"
# The results that CMake would get by compiling with cl.exe are set; the rest is as in a build.
UPSTREAM = """\
cmake_minimum_required(VERSION 3.21)
project(llama_cpp LANGUAGES NONE)
set(CMAKE_CUDA_COMPILER_ID_RUN 1)
set(CMAKE_CUDA_COMPILER_ID NVIDIA)
set(CMAKE_CUDA_COMPILER_VERSION 13.1.115)
set(CMAKE_CUDA_COMPILER_FORCED 1)
set(CMAKE_CUDA_COMPILER_PRODUCED_OUTPUT
    "#$ LIBRARIES= none\\n#$ INCLUDES= -Inone\\nlink.exe CompilerIdCUDA.exe\\n")
set(CMAKE_CUDA_SIMULATE_ID MSVC)
set(CMAKE_CUDA_SIMULATE_VERSION 19.44.35207)
enable_language(CUDA)
add_library(ggml-cuda SHARED "${CMAKE_SOURCE_DIR}/ggml/kernel.cu")
target_include_directories(ggml-cuda PRIVATE include)
# The folder must be ASCII: nvcc keeps no files in other folders.
target_compile_options(ggml-cuda PRIVATE --keep "--keep-dir=@KEPT@")
"""
SOURCE = "ggml/kernel.cu"
OBJECT = f"CMakeFiles/ggml-cuda.dir/{SOURCE}.obj"
START = """if True:
    import json, pathlib, subprocess, sys
    told = json.loads(pathlib.Path("told.json").read_text("utf-8"))
    for words in told["commands"]:
        done = subprocess.run(words, env=told["env"], capture_output=True)
        sys.stdout.buffer.write(done.stdout + done.stderr)
        if done.returncode:
            sys.exit(done.returncode)
"""


def test_nvidias_windows_compiler_compiles_with_our_settings(
    lab: Lab, project: Path, folder: Path, tmp_path: Path
) -> None:
    studio = install_only(lab, BOTH)[0]
    work = project / "build" / "rtx50"
    for name in ("src", "tree"):
        shutil.rmtree(work / name, ignore_errors=True)
    nox(lab, project, "-s", "configure").well()
    build = record(project, "rtx50", "configure", BuildEnv)
    toolkit = record(project, "rtx50", "toolkit", Toolkit)
    assert toolkit.components["nvidia-cuda-nvcc"].startswith("13.1.")
    libraries = lab.drive / toolkit.root[3:].replace("\\", "/") / "lib" / "x64"
    for name in ("cuda.lib", "cudart.lib"):
        assert (libraries / name).read_bytes()[:8] == b"!<arch>\n"
    # NVIDIA's package lacks cublas.lib; the replaced lib.exe copies its input.
    assert "  cublasGemmEx\n" in (libraries / "cublas.lib").read_text(encoding="ascii")

    (work / "src" / SOURCE).parent.mkdir(parents=True)
    (work / "src" / SOURCE).write_text(KERNEL, encoding="utf-8")
    lists = UPSTREAM.replace("@KEPT@", lab.windows(folder).replace("\\", "/"))
    (work / "src" / "CMakeLists.txt").write_text(lists, encoding="utf-8")
    called = studio.cl("14.44.35207").with_name("cl.log")
    called.unlink(missing_ok=True)
    run(lab, work, build)

    code = gpu_code.read((folder / "kernel.fatbin").read_bytes(), tmp_path)
    assert code is not None
    assert (set(code.sass), code.ptx) == ({"sm_120"}, {})
    # The names contain the CRC of the path that wheel.cmake sets, in every folder.
    named = (folder / "kernel.module_id").read_text(encoding="ascii")
    assert named.startswith(f"_{zlib.crc32(SOURCE.encode()):08x}_")
    calls = [line.split("\t") for line in called.read_text(encoding="utf-8").splitlines()]
    compiling = [words for words in calls if len(words) > 2]  # else nvcc asks for its version
    assert {"-E", "-c"} <= {word for words in compiling for word in words}
    source = checkout.HOME + r"\black wheel\build\rtx50\src" + "\\"
    for words in compiling:
        assert {"/Zc:preprocessor", "/Brepro", f"/d1trimfile:{source}"} <= set(words)
    # The path that __FILE__ begins with, on host and device.
    read = {words[-1] for words in compiling if "-E" in words}
    assert read == {source + SOURCE.replace("/", "\\")}


def run(lab: Lab, work: Path, build: BuildEnv) -> None:
    """Compile ``OBJECT`` with the build's CMake, ninja and settings."""
    prefix = "cmake.define."
    defines = {n[len(prefix) :]: v for n, v in build.settings.items() if n.startswith(prefix)}
    tools = build.variables["PATH"].split(";")[0]
    commands = [
        [
            *(rf"{tools}\cmake.exe", "-S", "src", "-B", "tree", build.settings["cmake.args"]),
            *(f"-D{name}={value}" for name, value in defines.items()),
            *("-DCMAKE_BUILD_TYPE=Release", "-DSKBUILD_PLATLIB_DIR=x", "-DSKBUILD_METADATA_DIR=x"),
        ],
        [rf"{tools}\ninja.exe", "-C", "tree", OBJECT],
    ]
    # With ccache, but without its objects: nvcc must run.
    job = {"commands": commands, "env": {**build.variables, "CCACHE_RECACHE": "1"}}
    (work / "told.json").write_text(json.dumps(job), encoding="utf-8")
    lab.run(lab.python, "-c", START, cwd=work).well()
    for name in ("src", "tree"):
        shutil.rmtree(work / name)
