"""The CUDA loader of a wheel in the Windows Python, with replaced libraries of NVIDIA."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.build import import_hooks, staging
from sessions.verify.metadata import PACKAGE
from tests.fakes import ROOT
from tests.integration.wheels import Draft
from tests.windows.crossbuild import compiled
from tests.windows.lab import Lab, Ran

MINIMAL = {"PATH": r"C:\windows\system32"}  # the least that a program can have
VERSIONS = {  # of cuda-pathfinder: the oldest that a wheel accepts, and a new one
    "1.0.0": "672cc49ce16cb10cb39a9fbcfbcac2cf4a3a22561adee9faeea48f20ce19401f",
    "1.9.0": "622df7440f7702f36b7a02a1699aa0b084fe04034d9939188fee9b16d0c36366",
}
DRIVER = "windows/system32/nvcuda.dll"
TOOLKIT = "Program Files/NVIDIA GPU Computing Toolkit/CUDA"
STAND_INS = {
    "cudart64_13.dll": "int cudaGetDeviceCount(void) { return 0; }",
    "cublasLt64_13.dll": "int cublasLtCreate(void) { return 0; }",
    # As NVIDIA's, it needs the one above.
    "cublas64_13.dll": "int cublasLtCreate(void); int cublasCreate_v2(void) "
    "{ return cublasLtCreate(); }",
}
# A driver with one GPU of compute capability 12.0.
GPU = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "GPU"); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 12 : 0;
    return 0;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { memset(uuid, 1, 16); return 0; }
"""
# ggml's CUDA module with no device: what ggml asks of a backend (ggml-backend-impl.h).
CUDA_MODULE = "ggml-cuda.dll"
MODULE = """
#include <stddef.h>
int cudaGetDeviceCount(void), cublasCreate_v2(void);
const char *ggml_status_to_string(int);  /* of ggml-base */
static const char *name(void *backend) { return "CUDA"; }
static size_t count(void *backend) {
    return cudaGetDeviceCount() + cublasCreate_v2() + !ggml_status_to_string(0);
}
static void *nothing(void) { return 0; }
static struct { int api_version; void *functions[4], *context; } backend = {
    1, {name, count, nothing, nothing}, 0
};
__declspec(dllexport) void *ggml_backend_init(void) { return &backend; }
"""
OLDER = {name.replace("_13", "_12"): "int nothing(void) { return 0; }" for name in STAND_INS}


def compile_all(folder: Path, libraries: Mapping[str, str]) -> None:
    """Compile libraries in place of NVIDIA's, each after those that it needs."""
    for name, code in libraries.items():
        lt = folder / "cublasLt64_13.dll"
        compiled(folder / name, code, *([lt] if name == "cublas64_13.dll" else []))


@pytest.fixture(scope="module")
def cuda_wheel(sound: Draft, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same wheel with the additions of a CUDA target."""
    overlay = ROOT / "sessions" / "build" / "overlay"
    texts = {p.name: p.read_text(encoding="utf-8") for p in overlay.glob("*.py")}
    source = tmp_path_factory.mktemp("source")
    (source / PACKAGE).mkdir()
    init = sound.members[f"{PACKAGE}/__init__.py"]
    for hook in import_hooks.HOOKS.values():
        init = init.removeprefix(hook.encode())
    (source / PACKAGE / "__init__.py").write_bytes(init)
    (source / "pyproject.toml").write_text('[project]\ndependencies = ["numpy"]\n')
    added = staging.additions(
        source, texts, "{}", platform="windows", cuda="13.1", archs=("120-real",), requires=()
    )
    with_cuda = sound.copy()
    with_cuda.members |= {n: t.encode() for n, t in added.items() if n.startswith(PACKAGE)}
    return with_cuda.pack(tmp_path_factory.mktemp("cuda"), recorded=False)


@pytest.fixture(scope="module", params=VERSIONS)
def cuda_venv(
    request: pytest.FixtureRequest, lab: Lab, smoked: Path, cuda_wheel: Path
) -> Iterator[Path]:
    """A venv with that wheel and one release of cuda-pathfinder, without CUDA."""
    venv = lab.drive / "CUDA wheel"
    for left in (venv, lab.drive / TOOLKIT):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    (lab.drive / DRIVER).unlink(missing_ok=True)
    lab.run(lab.python, "-m", "venv", "--without-pip", venv).well()
    site = venv / "Lib" / "site-packages"
    for wheel in (pathfinder(request.param, venv), cuda_wheel):  # pip's way: test_wheel.py
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    # The other requirements are where smoke installed them.
    others = lab.windows(smoked / "venv" / "Lib" / "site-packages")
    # Python 3.11 reads the file in the code page of the system.
    (site / "others.pth").write_text(f"{others}\n", encoding="cp1252")
    yield venv
    shutil.rmtree(venv)


def pathfinder(version: str, folder: Path) -> Path:
    """Download the wheel of cuda-pathfinder, which is the same for every system."""
    needs = folder / "requirements.txt"
    needs.write_text(f"cuda-pathfinder=={version} --hash=sha256:{VERSIONS[version]}\n")
    words = ("download", "--quiet", "--no-deps", "--require-hashes", "-r", needs, "-d", folder)
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("cuda_pathfinder-*.whl")
    return wheel


@dataclass(frozen=True)
class Machine:
    """A Windows with the wheel, and the folders in which NVIDIA's libraries may be."""

    lab: Lab
    project: Path
    venv: Path
    places: dict[str, Path]

    @property
    def lib(self) -> Path:
        return self.venv / "Lib" / "site-packages" / PACKAGE / "lib"

    def install_driver(self, code: str) -> None:
        compiled(self.lab.drive / DRIVER, code)

    def root(self, place: str) -> str:
        """The folder of a toolkit, for CUDA_PATH."""
        return self.lab.windows(self.places[place].parent)

    def run(self, code: str, env: Mapping[str, str]) -> tuple[Ran, Any]:
        """Run code with the least environment; its last line of output is JSON."""
        python, payload = self.venv / "Scripts" / "python.exe", self.project / "sessions/payload"
        ran = self.lab.run(python, "-c", code, payload, env={**MINIMAL, **env})
        return ran, None if ran.returncode else json.loads(ran.output.splitlines()[-1])

    def import_cuda(self, env: Mapping[str, str]) -> tuple[Ran, list[str], dict[str, str]]:
        """Import the wheel. Returns the loaded CUDA libraries, and how each was found."""
        ran, result = self.run(CUDA_LOADED, env)
        modules, found = result or ([], {})
        loaded = [m.lower() for m in modules if re.search(r"\\(cudart|cublas)", m.lower())]
        return ran, loaded, {name: via for name, (_, via) in found.items()}

    def first_call(self, env: Mapping[str, str]) -> tuple[Ran, list[str]]:
        """Import the wheel and ask for its devices. Returns the loaded modules of ggml."""
        ran, result = self.run(CALLED, env)
        count, loaded = result or (0, [])
        modules = [p.lower() for p in loaded if re.search(r"\\ggml-(cpu-|cuda)", p.lower())]
        assert len(modules) == count  # each of them is loaded once and is used
        return ran, modules


@pytest.fixture
def machine(lab: Lab, project: Path, cuda_venv: Path) -> Iterator[Machine]:
    """No folder contains NVIDIA's libraries; the driver finds no GPU."""
    toolkit = lab.drive / TOOLKIT
    nvidia = cuda_venv / "Lib" / "site-packages" / "nvidia"
    for name in ("bin", "lib"):  # in a toolkit of CUDA 13 they are there, with nvcc and lib\x64
        for version in ("v12.8", "v13.1"):
            (toolkit / version / name).mkdir(parents=True)
    places = {
        "pip": nvidia / "cu13" / "bin" / "x86_64",
        "bin-x64": toolkit / "v13.1" / "bin" / "x64",
        "bin": toolkit / "v13.1" / "bin",
        "older": toolkit / "v12.8" / "bin",
    }
    found = Machine(lab, project, cuda_venv, places)
    found.install_driver(NO_GPU + NEW)
    yield found
    (lab.drive / DRIVER).unlink(missing_ok=True)
    (found.lib / CUDA_MODULE).unlink(missing_ok=True)
    for folder in (toolkit, nvidia):
        shutil.rmtree(folder, ignore_errors=True)


CUDA_LOADED = """if True:
    import json, sys
    import llama_cpp
    from llama_cpp import _cuda_runtime
    sys.path.insert(0, sys.argv[1])
    import llama
    print(json.dumps([list(llama._modules()), _cuda_runtime.loaded]))
"""


@pytest.mark.parametrize(
    ("place", "via"), [("pip", "beside"), ("bin-x64", "CUDA"), ("bin", "CUDA")]
)
def test_the_cuda_runtime_is_found_in_each_folder(machine: Machine, place: str, via: str) -> None:
    compile_all(machine.places[place], STAND_INS)
    env = {} if place == "pip" else {"CUDA_PATH": machine.root("bin")}
    ran, loaded, found = machine.import_cuda(env)
    ran.well()
    folder = machine.lab.windows(machine.places[place])
    assert sorted(loaded) == sorted(f"{folder}\\{name}".lower() for name in STAND_INS)
    # The oldest cuda-pathfinder does not say where it found a library.
    assert all(how.startswith((via, "cuda-pathfinder")) for how in found.values()), found
    assert set(found) == {"cudart", "cublasLt", "cublas"}


def test_nvidias_packages_come_before_a_toolkit_on_path(machine: Machine) -> None:
    for place in ("pip", "bin-x64"):
        compile_all(machine.places[place], STAND_INS)
    compile_all(machine.places["older"], OLDER)
    folders = [machine.lab.windows(machine.places[place]) for place in ("older", "bin-x64")]
    path = ";".join([MINIMAL["PATH"], *folders])
    ran, loaded, _ = machine.import_cuda({"PATH": path, "CUDA_PATH": machine.root("bin")})
    ran.well()
    packages = machine.lab.windows(machine.places["pip"]).lower()
    assert {path.rpartition("\\")[0] for path in loaded} == {packages}


def test_without_the_runtime_the_import_names_what_is_missing(machine: Machine) -> None:
    ran, _, _ = machine.import_cuda({})
    assert ran.returncode == 1
    lines = ran.output.split("ImportError: ")[-1].splitlines()
    assert lines[0] == "llama_cpp was built for CUDA 13.1 and cannot start without:"
    named = [line.strip(" -").split(":")[0] for line in lines[1:]]
    assert named == ["cudart", "cublasLt", "cublas"]
    assert "pip install nvidia-cuda-runtime nvidia-cublas" in ran.output


def test_with_only_cuda_12_the_import_names_it(machine: Machine) -> None:
    compile_all(machine.places["older"], OLDER)
    ran, _, _ = machine.import_cuda({"CUDA_PATH": machine.root("older")})
    assert ran.returncode == 1
    assert "cudart: pip install nvidia-cuda-runtime nvidia-cublas [" in ran.output
    assert "found " in ran.output
    assert "cudart64_12.dll" in ran.output


def test_a_toolkit_that_was_removed_is_named(machine: Machine) -> None:
    compile_all(machine.places["pip"], STAND_INS)
    removed = machine.root("bin").replace("v13.1", "v11.8")
    ran, _, _ = machine.import_cuda({"CUDA_PATH": removed})
    assert ran.returncode == 1
    assert rf"{removed}\lib: CUDA_PATH names a toolkit without this folder" in ran.output


# ---- The checks of the driver and the GPUs -------------------------------------------------------

CALLED = """if True:
    import json, sys
    import llama_cpp
    llama_cpp.llama_model_default_params()
    count = llama_cpp._backends.library().ggml_backend_reg_count()
    sys.path.insert(0, sys.argv[1])
    import llama
    print(json.dumps([count, list(llama._modules())]))
"""
OLD = "int cuDriverGetVersion(int *version) { *version = 12080; return 0; }"
NEW = "int cuDriverGetVersion(int *version) { *version = 13010; return 0; }"
NO_GPU = "int cuInit(unsigned flags) { return 100; }"
DRIVERS: dict[str, tuple[str, str]] = {
    "none": ("", "there is no NVIDIA driver here"),
    "a stub": (NO_GPU, "nvcuda.dll is a stub and not an NVIDIA driver"),
    "too old": (
        NO_GPU + OLD,
        "the NVIDIA driver supports CUDA 12.8, and this wheel needs CUDA 13.0",
    ),
    "without a GPU": (NO_GPU + NEW, "the NVIDIA driver finds no GPU (cuInit: 100)"),
    "with another GPU": (NEW + GPU.replace("12", "9"), "no GPU here can run this wheel"),
}


@pytest.mark.parametrize(("code", "text"), DRIVERS.values(), ids=list(DRIVERS))
def test_without_a_usable_gpu_one_warning_names_the_cause(
    machine: Machine, code: str, text: str
) -> None:
    compile_all(machine.places["pip"], STAND_INS)
    (machine.lab.drive / DRIVER).unlink()
    if code:
        machine.install_driver(code)
    ran, modules = machine.first_call({})
    ran.well()
    assert f"RuntimeWarning: llama_cpp: {text}" in ran.output
    assert ran.output.count("RuntimeWarning") == 1
    lib = machine.lab.windows(machine.lib).lower()
    assert [path.rpartition("-")[0] for path in modules] == [rf"{lib}\ggml-cpu"]
    ran, _ = machine.first_call({"BLACKWHEEL_REQUIRE_GPU": "1"})
    assert ran.returncode == 1
    assert f"ImportError: llama_cpp: {text}" in ran.output


def test_with_a_gpu_its_module_is_loaded_by_its_full_path(machine: Machine, folder: Path) -> None:
    compile_all(machine.places["pip"], STAND_INS)
    runtime = [machine.places["pip"] / name for name in ("cudart64_13.dll", "cublas64_13.dll")]
    compiled(machine.lib / CUDA_MODULE, MODULE, *runtime, machine.lib / "ggml-base.dll")
    for name in (CUDA_MODULE, "ggml-base.dll"):  # which a search would find in PATH
        compiled(folder / name, "int nothing(void) { return 0; }")
    machine.install_driver(NEW + GPU)
    path = f"{MINIMAL['PATH']};{machine.lab.windows(folder)}"
    ran, modules = machine.first_call({"PATH": path, "BLACKWHEEL_REQUIRE_GPU": "1"})
    ran.well()
    assert "Warning" not in ran.output
    assert len(modules) == 2
    cuda = machine.lab.windows(machine.lib / CUDA_MODULE).lower()
    assert [path for path in modules if "ggml-cuda" in path] == [cuda]
