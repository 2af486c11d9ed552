"""The CUDA loader of a wheel in the Windows Python, with replaced libraries of NVIDIA."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

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


@pytest.fixture
def driver(lab: Lab) -> Iterator[Path]:
    path = lab.drive / DRIVER
    version = "int cuDriverGetVersion(int *version) { *version = 13010; return 0; }"
    compiled(path, f"int cuInit(unsigned flags) {{ return 100; }} {version}")
    yield path
    path.unlink()


@pytest.fixture
def places(lab: Lab, cuda_venv: Path) -> Iterator[dict[str, Path]]:
    """The folders in which NVIDIA's libraries may be; empty."""
    toolkit = lab.drive / TOOLKIT
    nvidia = cuda_venv / "Lib" / "site-packages" / "nvidia"
    for name in ("bin", "lib"):  # in a toolkit of CUDA 13 they are there, with nvcc and lib\x64
        for version in ("v12.8", "v13.1"):
            (toolkit / version / name).mkdir(parents=True)
    yield {
        "pip": nvidia / "cu13" / "bin" / "x86_64",
        "bin-x64": toolkit / "v13.1" / "bin" / "x64",
        "bin": toolkit / "v13.1" / "bin",
        "older": toolkit / "v12.8" / "bin",
    }
    shutil.rmtree(toolkit, ignore_errors=True)
    shutil.rmtree(nvidia, ignore_errors=True)


CUDA_LOADED = """if True:
    import json, sys
    import llama_cpp
    from llama_cpp import _cuda_runtime
    sys.path.insert(0, sys.argv[1])
    import llama
    print(json.dumps([list(llama._modules()), _cuda_runtime.loaded]))
"""


def import_cuda(
    lab: Lab, project: Path, venv: Path, env: dict[str, str]
) -> tuple[Ran, list[str], dict[str, str]]:
    """Import the CUDA wheel. Returns the loaded modules, and how each library was found."""
    python = venv / "Scripts" / "python.exe"
    payload = project / "sessions" / "payload"
    ran = lab.run(python, "-c", CUDA_LOADED, payload, env={**MINIMAL, **env})
    if ran.returncode:
        return ran, [], {}
    modules, found = json.loads(ran.output.splitlines()[-1])
    return ran, [m.lower() for m in modules], {name: via for name, (_, via) in found.items()}


@pytest.mark.parametrize(
    ("place", "via"), [("pip", "beside"), ("bin-x64", "CUDA"), ("bin", "CUDA")]
)
def test_the_cuda_runtime_is_found_in_each_folder(
    lab: Lab,
    project: Path,
    cuda_venv: Path,
    driver: Path,
    places: dict[str, Path],
    place: str,
    via: str,
) -> None:
    compile_all(places[place], STAND_INS)
    root = lab.windows(places["bin"].parent)
    env = {} if place == "pip" else {"CUDA_PATH": root}
    ran, modules, found = import_cuda(lab, project, cuda_venv, env)
    ran.well()
    for name in STAND_INS:
        expected = f"{lab.windows(places[place])}\\{name}".lower()
        assert [m for m in modules if re.search(r"\\(cudart|cublas)", m) and name.lower() in m] == [
            expected
        ]
    # The oldest cuda-pathfinder does not say where it found a library.
    assert all(how.startswith((via, "cuda-pathfinder")) for how in found.values()), found
    assert set(found) == {"cudart", "cublasLt", "cublas"}


def test_nvidias_packages_come_before_a_toolkit_on_path(
    lab: Lab, project: Path, cuda_venv: Path, driver: Path, places: dict[str, Path]
) -> None:
    for place in ("pip", "bin-x64"):
        compile_all(places[place], STAND_INS)
    compile_all(places["older"], OLDER)
    on_path = ";".join(lab.windows(places[place]) for place in ("older", "bin-x64"))
    env = {
        "PATH": f"{MINIMAL['PATH']};{on_path}",
        "CUDA_PATH": lab.windows(places["bin"].parent),
    }
    ran, modules, _ = import_cuda(lab, project, cuda_venv, env)
    ran.well()
    loaded = [m for m in modules if re.search(r"\\(cudart|cublas)", m)]
    assert {m.rpartition("\\")[0] for m in loaded} == {lab.windows(places["pip"]).lower()}


def test_without_the_runtime_the_import_names_what_is_missing(
    lab: Lab, project: Path, cuda_venv: Path, driver: Path
) -> None:
    ran, _, _ = import_cuda(lab, project, cuda_venv, {})
    assert ran.returncode == 1
    lines = ran.output.split("ImportError: ")[-1].splitlines()
    assert lines[0] == "llama_cpp was built for CUDA 13.1 and cannot start without:"
    named = [line.strip(" -").split(":")[0] for line in lines[1:]]
    assert named == ["cudart", "cublasLt", "cublas"]
    assert "pip install nvidia-cuda-runtime nvidia-cublas" in ran.output


def test_with_only_cuda_12_the_import_names_it(
    lab: Lab, project: Path, cuda_venv: Path, driver: Path, places: dict[str, Path]
) -> None:
    compile_all(places["older"], OLDER)
    root = lab.windows(places["older"].parent)
    ran, _, _ = import_cuda(lab, project, cuda_venv, {"CUDA_PATH": root})
    assert ran.returncode == 1
    assert "cudart: pip install nvidia-cuda-runtime nvidia-cublas [" in ran.output
    assert "found " in ran.output
    assert "cudart64_12.dll" in ran.output


def test_a_toolkit_that_was_removed_is_named(
    lab: Lab, project: Path, cuda_venv: Path, driver: Path, places: dict[str, Path]
) -> None:
    compile_all(places["pip"], STAND_INS)
    gone = lab.windows(places["bin"].parent.with_name("v11.8"))
    ran, _, _ = import_cuda(lab, project, cuda_venv, {"CUDA_PATH": gone})
    assert ran.returncode == 1
    assert rf"{gone}\lib: CUDA_PATH names a toolkit without this folder" in ran.output


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
NONE = "int cuInit(unsigned flags) { return 100; }"
DRIVERS: dict[str, tuple[str, str]] = {
    "none": ("", "there is no NVIDIA driver here"),
    "a stub": (NONE, "nvcuda.dll is a stub and not an NVIDIA driver"),
    "too old": (NONE + OLD, "the NVIDIA driver supports CUDA 12.8, and this wheel needs CUDA 13.0"),
    "without a GPU": (NONE + NEW, "the NVIDIA driver finds no GPU (cuInit: 100)"),
    "with another GPU": (NEW + GPU.replace("12", "9"), "no GPU here can run this wheel"),
}


def first_call(lab: Lab, project: Path, venv: Path, env: dict[str, str]) -> tuple[Ran, list[str]]:
    """Import the wheel and ask for its devices. Returns the run and the loaded modules of ggml."""
    python = venv / "Scripts" / "python.exe"
    ran = lab.run(python, "-c", CALLED, project / "sessions" / "payload", env={**MINIMAL, **env})
    if ran.returncode:
        return ran, []
    count, loaded = json.loads(ran.output.splitlines()[-1])
    modules = [path.lower() for path in loaded if re.search(r"\\ggml-(cpu-|cuda)", path)]
    assert len(modules) == count  # each of them is loaded once and is used
    return ran, modules


@pytest.mark.parametrize(("code", "text"), DRIVERS.values(), ids=list(DRIVERS))
def test_without_a_usable_gpu_one_warning_names_the_cause(
    lab: Lab, project: Path, cuda_venv: Path, places: dict[str, Path], code: str, text: str
) -> None:
    compile_all(places["pip"], STAND_INS)
    if code:
        compiled(lab.drive / DRIVER, code)
    try:
        ran, modules = first_call(lab, project, cuda_venv, {})
        ran.well()
        assert f"RuntimeWarning: llama_cpp: {text}" in ran.output
        assert ran.output.count("RuntimeWarning") == 1
        lib = lab.windows(cuda_venv / "Lib" / "site-packages" / PACKAGE / "lib").lower()
        assert [path.rpartition("-")[0] for path in modules] == [rf"{lib}\ggml-cpu"]
        ran, _ = first_call(lab, project, cuda_venv, {"BLACKWHEEL_REQUIRE_GPU": "1"})
        assert ran.returncode == 1
        assert f"ImportError: llama_cpp: {text}" in ran.output
    finally:
        (lab.drive / DRIVER).unlink(missing_ok=True)


def test_with_a_gpu_its_module_is_loaded_by_its_full_path(
    lab: Lab, project: Path, cuda_venv: Path, places: dict[str, Path], folder: Path
) -> None:
    compile_all(places["pip"], STAND_INS)
    lib = cuda_venv / "Lib" / "site-packages" / PACKAGE / "lib"
    runtime = [places["pip"] / name for name in ("cudart64_13.dll", "cublas64_13.dll")]
    compiled(lib / CUDA_MODULE, MODULE, *runtime, lib / "ggml-base.dll")
    for name in (CUDA_MODULE, "ggml-base.dll"):  # which a search would find in PATH
        compiled(folder / name, "int nothing(void) { return 0; }")
    compiled(lab.drive / DRIVER, NEW + GPU)
    try:
        env = {"PATH": f"{MINIMAL['PATH']};{lab.windows(folder)}", "BLACKWHEEL_REQUIRE_GPU": "1"}
        ran, modules = first_call(lab, project, cuda_venv, env)
        ran.well()
        assert "Warning" not in ran.output
        assert [path for path in modules if "ggml-cuda" in path] == [
            lab.windows(lib / CUDA_MODULE).lower()
        ]
        assert len(modules) == 2
    finally:
        (lab.drive / DRIVER).unlink()
        (lib / CUDA_MODULE).unlink()
