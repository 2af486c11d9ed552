"""Our modules in a wheel on real machines: libraries compiled by gcc, in real processes.

The driver is a stub. Environment variables set its version and its GPUs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.build import staging
from tests.integration.conftest import REPOSITORY

OVERLAY = {
    p.name: p.read_text(encoding="utf-8") for p in REPOSITORY.glob("sessions/build/overlay/*.py")
}
PATHFINDERS = ("1.0.0", "1.9.1")  # the oldest that a wheel accepts, and a new one
RTX_5090, RTX_3090 = "NVIDIA GeForce RTX 5090:12:0", "NVIDIA GeForce RTX 3090:8:6"
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int number(const char *name, int usual) {
    const char *value = getenv(name);
    return value ? atoi(value) : usual;
}
static const char *gpu(int index) {  /* "NAME:MAJOR:MINOR;..." */
    const char *at = getenv("STUB_GPUS");
    while (at && index-- > 0) { at = strchr(at, ';'); at = at ? at + 1 : NULL; }
    return at && *at ? at : NULL;
}
int cuDriverGetVersion(int *version) {
    *version = number("STUB_CUDA", 13010);
    return number("STUB_ERROR", 0);
}
int cuInit(unsigned flags) {
    const char *hidden = getenv("CUDA_VISIBLE_DEVICES");
    FILE *log = fopen(getenv("STUB_LOG"), "a");
    fputs("cuInit\n", log);
    fclose(log);
    return (hidden && atoi(hidden) < 0) || !gpu(0) ? 100 : 0;
}
int cuDeviceGetCount(int *count) { for (*count = 0; gpu(*count); ++*count); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "%.*s", (int)strcspn(gpu(device), ":"), gpu(device));
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *major = strchr(gpu(device), ':') + 1;
    *value = atoi(attribute == 75 ? major : strchr(major, ':') + 1);
    return attribute == 75 || attribute == 76 ? 0 : 1;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; ++i) uuid[i] = 16 * device + i;
    return 0;
}
"""
# In place of upstream's bindings and libraries.
BINDINGS = """
import ctypes
from pathlib import Path
_lib = ctypes.CDLL(str(Path(__file__).parent / "lib" / "libllama.so"))
llama_model_default_params = _lib.llama_model_default_params
llama_supports_gpu_offload = _lib.llama_supports_gpu_offload
"""
BASE = r"""
#include <stdio.h>
void ggml_say(const char *text) { fputs(text, stderr); }
"""
# In place of ggml: adds up the values of its modules. With STUB_ASCII its loader fails for paths
# with letters outside ASCII, as a build with MSVC does.
GGML = r"""
#include <dlfcn.h>
#include <stdlib.h>
void ggml_say(const char *);
static long count, sum;
unsigned long ggml_backend_reg_count(void) { return count; }
int ggml_sum(void) { return sum; }
void ggml_backend_register(void *backend) { ++count; sum += (*(int (**)(void))backend)(); }
void *ggml_backend_load(const char *path) {
    for (const char *at = path; getenv("STUB_ASCII") && *at; ++at) if (*at & 0x80) return 0;
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *(*init)(void) = module ? dlsym(module, "ggml_backend_init") : 0;
    if (!init || !init()) return 0;
    ggml_say("load_backend: loaded a backend\n");
    ggml_backend_register(init());
    return module;
}
"""
LLAMA = r"""
int ggml_sum(void);
int llama_model_default_params(void) { return ggml_sum(); }
int llama_supports_gpu_offload(void) { return ggml_sum() > 0; }
"""
CPU = r"""
#include <stdlib.h>
#include <string.h>
static int value(void) { return 0; }
static int (*backend)(void) = value;
void *ggml_backend_init(void) { return &backend; }
int ggml_backend_score(void) {  /* STUB_CPU: the modules that this CPU can run, the worst first */
    const char *can = getenv("STUB_CPU"), *at = can ? strstr(can, NAME) : 0;
    return at ? 1 + (int)(at - can) : 0;
}
"""
CUDA = r"""
int cudart_major(void), cublas_major(void), cuInit(unsigned);
int unused(void) { return cuInit(0); }
static int value(void) { return 100 * cudart_major() + cublas_major(); }
static int (*backend)(void) = value;
void *ggml_backend_init(void) { return &backend; }
"""
SAY = """
import json, sys, warnings
warnings.simplefilter("always")
{before}
import llama_cpp
print(json.dumps([llama_cpp.llama_model_default_params() for _ in range(2)]))
loaded = getattr(sys.modules.get("llama_cpp._cuda_runtime"), "loaded", None)
print(json.dumps(loaded))
print(json.dumps("cuda.pathfinder" in sys.modules))
maps = [line.rstrip() for line in open("/proc/self/maps") if ".so" in line]
print(json.dumps(sorted({{line.split(maxsplit=5)[5] for line in maps}})))
ours = llama_cpp._backends
count = ours.library().ggml_backend_reg_count()
print(json.dumps([ours.chosen, count, llama_cpp.llama_supports_gpu_offload()]))
"""

# A system that finds libraries only in its default folders.
_MOUNT = 'mount --bind /dev/null /etc/ld.so.cache && exec "$@"'
_ROOT = () if os.geteuid() == 0 else ("--map-root-user",)
BARE = ("unshare", "--mount", *_ROOT, "sh", "-c", _MOUNT, "sh")


def gcc(output: Path, code: str, *words: str | Path, soname: str = "") -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    source = output.with_name(f"{output.name}.c")
    source.write_text(code)
    named = f"-Wl,-soname,{soname or output.name}"
    command = ["gcc", "-shared", "-fPIC", "-w", named, "-o", output, source, *words]
    subprocess.run([str(word) for word in command], check=True)
    source.unlink()
    return output


def runtime(folder: Path, major: int) -> Path:
    """The three libraries of a CUDA major version; their functions return it."""
    # The functions have the library's name as their version, as NVIDIA's have.
    for name in ("cudart", "cublasLt", "cublas"):
        script = folder / f"{name}.map"
        folder.mkdir(parents=True, exist_ok=True)
        script.write_text(f"lib{name}.so.{major} {{ global: *; }};\n")
        code = f"int {name}_major(void) {{ return {major}; }}"
        needs = [folder / f"libcublasLt.so.{major}"] if name == "cublas" else []
        gcc(folder / f"lib{name}.so.{major}", code, f"-Wl,--version-script={script}", *needs)
        script.unlink()
    return folder


@dataclass(frozen=True)
class Ran:
    code: int
    stderr: str
    answers: tuple[int, ...] = ()
    loaded: Mapping[str, tuple[str, str]] | None = None
    pathfinder: bool = False
    libraries: tuple[str, ...] = ()
    chosen: str | None = None  # the CPU module
    modules: int = 0  # registered with ggml
    offload: int = 0

    def warnings(self) -> list[str]:
        return re.findall(r"RuntimeWarning: (llama_cpp: .*)$", self.stderr, re.MULTILINE)

    def found_by(self) -> set[str]:
        assert self.loaded is not None, self.stderr
        return {how for _, how in self.loaded.values()}

    def well(self, answer: int = 1313) -> Ran:
        """The same, after a check that the model got this answer, both times."""
        assert self.answers == (answer, answer), self.stderr
        return self


@dataclass(frozen=True)
class Machine:
    """A folder with an installed wheel, and a folder with the driver."""

    root: Path

    @property
    def site(self) -> Path:
        return self.root / "site"

    def start(
        self,
        *words: str,
        prefix: tuple[str, ...] = (),
        path: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Start Python with these arguments."""
        folders = [self.root / "driver", *([path] if path else [])]
        base = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.site),
            "LD_LIBRARY_PATH": ":".join(map(str, folders)),
            "STUB_GPUS": RTX_5090,
            "STUB_CPU": "x64 haswell",
            "STUB_LOG": str(self.root / "log"),
        }
        return subprocess.run(
            [*prefix, sys.executable, "-S", *words],
            env={**base, **(env or {})},
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, before: str = "", **how: Any) -> Ran:
        """Import the package after the code ``before``, and evaluate a model twice."""
        done = self.start("-c", SAY.format(before=before), **how)
        if done.returncode:
            return Ran(done.returncode, done.stderr)
        answers, loaded, pathfinder, libraries, last = map(json.loads, done.stdout.splitlines())
        return Ran(0, done.stderr, tuple(answers), loaded, pathfinder, tuple(libraries), *last)

    def doctor(self, **env: str) -> subprocess.CompletedProcess[str]:
        return self.start("-W", "ignore", "-m", "llama_cpp._doctor", prefix=BARE, env=env)


def install(root: Path, *, cuda: str | None, archs: tuple[str, ...]) -> Machine:
    """Install our additions with stand-ins for upstream's bindings and libraries."""
    source = root / "source"
    (source / "llama_cpp").mkdir(parents=True)
    (source / "llama_cpp" / "__init__.py").write_text("from .llama_cpp import *\n")
    (source / "llama_cpp" / "llama_cpp.py").write_text(BINDINGS)
    (source / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    added = staging.additions(
        source, OVERLAY, "{}", platform="linux", cuda=cuda, archs=archs, requires=()
    )
    package = root / "site" / "llama_cpp"
    package.parent.mkdir()
    (source / "llama_cpp").rename(package)
    for name, text in added.items():
        if name.startswith("llama_cpp/"):
            (root / "site" / name).write_text(text)
    driver = gcc(root / "driver" / "libcuda.so.1", DRIVER)
    lib = package / "lib"
    base = gcc(lib / "libggml-base.so", BASE, soname="$ORIGIN/libggml-base.so")
    ggml = gcc(lib / "libggml.so", GGML, base, soname="$ORIGIN/libggml.so")
    gcc(lib / "libllama.so", LLAMA, ggml)
    for name in ("x64", "haswell", "skylakex"):
        gcc(lib / f"libggml-cpu-{name}.so", CPU, f'-DNAME="{name}"')
    if cuda:
        kit = runtime(root / "kit", 13)
        words = [kit / "libcudart.so.13", kit / "libcublas.so.13", driver]
        gcc(lib / "libggml-cuda.so", CUDA, *words, f"-Wl,-rpath-link,{kit}")
    return Machine(root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with an rtx50 wheel. NVIDIA's libraries are in kit/, where nothing finds them."""
    return install(tmp_path / "Jörg [x64]", cuda="13.1", archs=("120-real",))


def beside(machine: Machine) -> Path:
    """Move the runtime to the folder into which pip installs it."""
    folder = machine.site / "nvidia" / "cu13" / "lib"
    folder.parent.mkdir(parents=True)
    return (machine.root / "kit").rename(folder)


@pytest.fixture
def cpu_machine(tmp_path: Path) -> Machine:
    return install(tmp_path / "m", cuda=None, archs=())


def for_archs(root: Path, *archs: str) -> Machine:
    """A machine with a CUDA wheel for these architectures, and the runtime beside it."""
    machine = install(root / "m", cuda="13.1", archs=archs)
    beside(machine)
    return machine


def load_all(folder: Path, major: int, scope: str = "RTLD_LOCAL") -> str:
    """Code that loads a CUDA runtime, as ``import torch`` does."""
    files = [str(folder / f"lib{name}.so.{major}") for name in ("cudart", "cublasLt", "cublas")]
    return f"import ctypes\nfor f in {files!r}: ctypes.CDLL(f, mode=ctypes.{scope})"


# ---- Where the runtime is ----------------------------------------------------------------------


def test_nvidias_packages_beside_the_package_are_found_without_pathfinder(
    machine: Machine,
) -> None:
    """As ``pip install --target DIR`` leaves it: no site-packages, no metadata is looked at."""
    folder = beside(machine)
    ran = machine.run().well()
    assert ran.found_by() == {"beside the package"}
    assert not ran.pathfinder
    assert {Path(lib).parent for lib in ran.libraries if "/libcu" in lib} >= {folder}
    assert ran.warnings() == []


def test_nvidias_packages_in_another_folder_of_sys_path_are_found(
    machine: Machine, tmp_path: Path
) -> None:
    beside(machine)
    (machine.site / "nvidia").rename(tmp_path / "nvidia")
    ran = machine.run(f"sys.path.append({str(tmp_path)!r})").well()
    assert ran.found_by() == {"on sys.path"}


@pytest.mark.parametrize("scope", ["RTLD_LOCAL", "RTLD_GLOBAL"])
def test_another_cuda_major_in_the_process_is_not_taken(machine: Machine, scope: str) -> None:
    """As after ``import torch`` of a build for CUDA 12, which loads its libraries globally."""
    beside(machine)
    old = runtime(machine.root / "cu12", 12)
    ran = machine.run(load_all(old, 12, scope)).well()
    assert str(old / "libcudart.so.12") in ran.libraries


def test_a_runtime_of_this_major_in_the_process_is_not_loaded_twice(
    machine: Machine, tmp_path: Path
) -> None:
    beside(machine)
    other = runtime(tmp_path / "torch", 13)
    ran = machine.run(load_all(other, 13)).well()
    assert ran.found_by() == {"in the process already"}
    assert [lib for lib in ran.libraries if "libcudart" in lib] == [str(other / "libcudart.so.13")]


@pytest.fixture(scope="session", params=PATHFINDERS)
def pathfinder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pathfinder")
    words = ["install", "-q", "--no-deps", "--target", str(folder)]
    name = f"cuda-pathfinder=={request.param}"
    subprocess.run([sys.executable, "-m", "pip", *words, name], check=True)
    return folder


def test_each_accepted_release_of_pathfinder_finds_a_toolkit(
    machine: Machine, pathfinder: Path
) -> None:
    """The oldest release that METADATA admits does what our loader asks of it."""
    (machine.root / "lib64").symlink_to("kit")
    for name in ("cudart", "cublasLt", "cublas"):  # as a toolkit has them
        (machine.root / "kit" / f"lib{name}.so").symlink_to(f"lib{name}.so.13")
    home = str(machine.root)
    ran = machine.run(
        f"sys.path.append({str(pathfinder)!r})",
        env={"CUDA_HOME": home, "CUDA_PATH": home},
        prefix=BARE,
    )
    ran.well()
    assert ran.pathfinder


@pytest.mark.parametrize("variable", ["CONDA_PREFIX", "CUDA_PATH"])
def test_if_pathfinder_returns_another_major_the_environment_is_searched(
    machine: Machine, pathfinder: Path, variable: str
) -> None:
    (machine.root / ("lib" if variable == "CONDA_PREFIX" else "lib64")).symlink_to("kit")
    load = load_all(runtime(machine.root / "cu12", 12), 12, "RTLD_GLOBAL")
    path, env = f"sys.path.append({str(pathfinder)!r})\n", {variable: str(machine.root)}
    machine.run(path + load, prefix=BARE, env=env).well()


def test_the_search_path_of_the_system_comes_last(machine: Machine) -> None:
    ran = machine.run(path=machine.root / "kit").well()
    assert ran.found_by() == {"system search"}


def test_with_only_another_cuda_major_the_import_fails_and_names_it(
    machine: Machine,
) -> None:
    runtime(machine.site / "nvidia" / "cu12" / "lib", 12)
    ran = machine.run(prefix=BARE)
    assert ran.code == 1
    assert "ImportError: llama_cpp was built for CUDA 13.1 and cannot start without:" in ran.stderr
    for name in ("cudart", "cublasLt", "cublas"):
        assert f"  - {name}: pip install nvidia-cuda-runtime nvidia-cublas [" in ran.stderr


# ---- The driver and the GPUs -------------------------------------------------------------------


def test_the_import_does_not_start_the_driver(machine: Machine) -> None:
    beside(machine)
    ran = machine.run("import llama_cpp; from pathlib import Path; "
                      "assert not Path('log').exists(), 'cuInit on import'")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert (machine.root / "log").read_text() == "cuInit\n"  # once, with the first model


def documented_texts() -> dict[str, str]:
    """The texts of a wheel in docs/support.md: what is found -> the text."""
    page = (REPOSITORY / "docs" / "support.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([^|]+) \| `(llama_cpp: [^|]+)` \|$", page, re.MULTILINE))


TEXTS = documented_texts()
FOUND = {
    "no driver": {"LD_LIBRARY_PATH": ""},
    "a stub in place of the driver": {"STUB_ERROR": "34"},
    "a driver that is too old": {"STUB_CUDA": "12080"},
    "hidden GPUs": {"CUDA_VISIBLE_DEVICES": "-1"},
    "a driver and no GPU": {"STUB_GPUS": ""},
    "a GPU that the wheel has no code for": {"STUB_GPUS": RTX_3090},
}
BESIDE = "such a GPU beside one that fits"


def test_each_documented_text_is_tested() -> None:
    assert set(TEXTS) == {*FOUND, BESIDE}


@pytest.mark.parametrize("found", FOUND)
def test_without_a_usable_gpu_it_runs_on_the_cpu_and_warns_once(
    machine: Machine, found: str
) -> None:
    beside(machine)
    ran = machine.run(env=FOUND[found], prefix=BARE).well(0)
    assert ran.warnings() == [TEXTS[found]]
    assert (ran.offload, ran.modules, ran.chosen) == (0, 1, "haswell")
    # If a GPU is required, the import fails with the same text.
    ran = machine.run(env={**FOUND[found], "BLACKWHEEL_REQUIRE_GPU": "1"}, prefix=BARE)
    assert ran.code == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("ImportError: ")]
    assert line == f"ImportError: {TEXTS[found]} (BLACKWHEEL_REQUIRE_GPU is set)"


def test_a_required_gpu_that_is_present_causes_no_warning(machine: Machine) -> None:
    beside(machine)
    ran = machine.run(env={"BLACKWHEEL_REQUIRE_GPU": "1"})
    assert (ran.answers, ran.warnings(), ran.modules) == ((1313, 1313), [], 2), ran.stderr


def test_of_two_gpus_the_unusable_one_is_named(machine: Machine) -> None:
    beside(machine)
    ran = machine.run(env={"STUB_GPUS": f"{RTX_3090};{RTX_5090}"}).well()
    assert ran.warnings() == [TEXTS[BESIDE]]
    assert (ran.offload, ran.modules) == (1, 2)


def test_without_a_driver_nothing_of_cuda_is_needed(machine: Machine) -> None:
    """As on a laptop, or where a container image is built: pip install --no-deps will do."""
    ran = machine.run(env={"LD_LIBRARY_PATH": ""}, prefix=BARE)
    ran.well(0)
    assert not [path for path in ran.libraries if "/libcu" in path or "ggml-cuda" in path]


def test_threads_that_create_the_first_model_together_all_get_the_gpu(machine: Machine) -> None:
    beside(machine)
    ran = machine.run(
        "import llama_cpp, threading; said = []\n"
        "one = lambda: said.append(llama_cpp.llama_model_default_params())\n"
        "many = [threading.Thread(target=one) for _ in range(16)]\n"
        "[t.start() for t in many]; [t.join() for t in many]; assert said == [1313] * 16, said"
    )
    ran.well()
    assert ran.modules == 2


@pytest.mark.parametrize(
    "name",
    ["llama_model_default_params", "llama_cpp.llama_model_default_params", "low.{}"],
    ids=["star", "package", "module"],
)
def test_the_gpu_is_loaded_first_by_every_name_of_a_function(machine: Machine, name: str) -> None:
    """Upstream's own classes call llama_cpp.llama_cpp.X, and people from llama_cpp import *."""
    beside(machine)
    call = name.format("llama_model_default_params")
    ran = machine.run(
        "from llama_cpp import *\nimport llama_cpp, llama_cpp.llama_cpp as low\n"
        f"assert {call}() == 1313"
    )
    ran.well()


@pytest.mark.parametrize("gpus", [RTX_5090, RTX_3090], ids=["gpu", "other-gpu"])
def test_supports_gpu_offload_is_right_before_the_first_model(machine: Machine, gpus: str) -> None:
    beside(machine)
    wanted = int(gpus == RTX_5090)
    ran = machine.run(
        f"import llama_cpp; assert llama_cpp.llama_supports_gpu_offload() == {wanted}",
        env={"STUB_GPUS": gpus},
    )
    assert (ran.offload, ran.code) == (wanted, 0), ran.stderr


def test_processes_forked_after_the_import_use_the_gpu(machine: Machine) -> None:
    """As servers with several workers and multiprocessing do."""
    beside(machine)
    ran = machine.run(
        "import llama_cpp, os\n"
        "for _ in range(2):\n"
        "    child = os.fork()\n"
        "    if not child: os._exit(llama_cpp.llama_model_default_params() != 1313)\n"
        "    assert os.waitpid(child, 0)[1] == 0"
    )
    ran.well()
    # Once in each process, and none was forked from a process that had started the driver.
    assert (machine.root / "log").read_text() == "cuInit\n" * 3


def test_the_doctor_prints_what_was_found(machine: Machine) -> None:
    beside(machine)
    done = machine.doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert lines["CPU module"].strip() == "haswell"
    assert lines["  can run"].strip() == "haswell, x64"
    assert lines["  cannot run"].strip() == "skylakex"
    assert lines["CUDA"].strip() == "13.1, for 120-real"
    assert lines["Driver"].strip() == "CUDA 13.1"
    assert "RTX 5090, 12.0, GPU-00010203" in lines["GPU"]
    assert "beside the package" in lines["Runtime"]
    assert lines["Runs on"].strip() == "the GPU"


def test_the_doctor_prints_what_the_documentation_shows(machine: Machine) -> None:
    site = beside(machine).parents[2]
    page = (REPOSITORY / "docs" / "support.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```\n(Libraries: .*?)```", page, re.DOTALL)
    done = machine.doctor(STUB_GPUS=RTX_3090, STUB_CUDA="13000")
    printed = done.stdout.replace(str(site), "/home/me/venv/lib/python3.11/site-packages")
    # The modules are other ones than in a real wheel.
    assert [x for x in printed.splitlines() if " run:" not in x] == [
        x for x in shown.splitlines() if " run:" not in x
    ]


def test_the_doctor_fails_if_a_cuda_wheel_runs_on_the_cpu(machine: Machine) -> None:
    beside(machine)
    for env in ({"STUB_GPUS": RTX_3090}, {"STUB_CUDA": "12080"}, {"LD_LIBRARY_PATH": ""}):
        done = machine.doctor(**env)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Runs on:       the CPU" in done.stdout
        assert "Problem:       " in done.stdout
        assert "Fix:           " in done.stdout


def test_the_doctor_of_a_wheel_for_the_cpu_needs_no_gpu(cpu_machine: Machine) -> None:
    done = cpu_machine.doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this wheel is for the CPU" in done.stdout


GB10, H100, B300 = "GB10:12:1", "H100:9:0", "B300:10:3"
ARCHS = {
    "its-own": ("120-real", RTX_5090, True),
    "newer-minor": ("120-real", GB10, True),
    "ptx": ("80", H100, True),
    "feature-set": ("120a-real", RTX_5090, True),
    "family": ("100f-real", B300, True),
    "older-minor": ("89-real", RTX_3090, False),
    "newer-major": ("90-real", RTX_5090, False),
    "other-feature-set": ("120a-real", GB10, False),
    "older-than-ptx": ("90", RTX_3090, False),
}


@pytest.mark.parametrize(("arch", "gpu", "fits"), ARCHS.values(), ids=ARCHS)
def test_a_gpu_that_the_wheel_has_no_code_for_is_named(
    tmp_path: Path, arch: str, gpu: str, *, fits: bool
) -> None:
    warnings = for_archs(tmp_path, arch).run(env={"STUB_GPUS": gpu}).warnings()
    assert [gpu.split(":")[0] in text for text in warnings] == ([] if fits else [True])


def test_ptx_needs_a_driver_of_the_toolkits_own_version(tmp_path: Path) -> None:
    machine = for_archs(tmp_path, "90-virtual")
    (warning,) = machine.run(env={"STUB_CUDA": "13000"}).warnings()
    assert "supports CUDA 13.0, and this wheel needs CUDA 13.1" in warning
    assert machine.run(env={"STUB_CUDA": "13010", "STUB_GPUS": H100}).warnings() == []


# ---- The CPU -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("can", "chosen"),
    [("x64", "x64"), ("x64 haswell", "haswell"), ("x64 haswell skylakex", "skylakex")],
)
def test_only_the_module_that_fits_the_cpu_best_stays_loaded(
    cpu_machine: Machine, can: str, chosen: str
) -> None:
    ran = cpu_machine.run(env={"STUB_CPU": can})
    assert (ran.chosen, ran.modules) == (chosen, 1), ran.stderr
    assert "loaded a backend" not in ran.stderr
    loaded = [Path(path).name for path in ran.libraries if "ggml-cpu" in path]
    assert loaded == [f"libggml-cpu-{chosen}.so"]


def test_with_an_unknown_kind_of_cpu_each_module_is_asked(cpu_machine: Machine) -> None:
    gcc(cpu_machine.site / "llama_cpp" / "lib" / "libggml-cpu-zen9.so", CPU, '-DNAME="zen9"')
    assert cpu_machine.run(env={"STUB_CPU": "x64 zen9 haswell"}).chosen == "haswell"
    assert cpu_machine.run(env={"STUB_CPU": "x64 haswell zen9"}).chosen == "zen9"
    assert cpu_machine.run(env={"STUB_CPU": ""}).code == 1


def test_modules_worse_than_the_chosen_one_are_not_opened(cpu_machine: Machine) -> None:
    says = 'static __attribute__((constructor)) void on(void) { fputs("opened " NAME, stderr); }'
    for name in ("x64", "haswell", "skylakex"):
        lib = cpu_machine.site / "llama_cpp" / "lib" / f"libggml-cpu-{name}.so"
        gcc(lib, f"#include <stdio.h>\n{CPU}{says}", f'-DNAME="{name}"')
    ran = cpu_machine.run()  # haswell is the best that this CPU can run
    assert ran.chosen == "haswell"
    assert "opened skylakex" in ran.stderr
    assert "opened x64" not in ran.stderr


def test_a_module_can_be_chosen_by_name(cpu_machine: Machine) -> None:
    assert cpu_machine.run(env={"BLACKWHEEL_CPU": "x64"}).chosen == "x64"
    for name in ("skylakex", "nehalem", "../x64"):  # cannot run here; is not there
        ran = cpu_machine.run(env={"BLACKWHEEL_CPU": name})
        assert ran.code == 1
        assert f"no CPU module {name!r} that this CPU can run" in ran.stderr
        assert "It can run: haswell, x64." in ran.stderr


def test_without_a_module_for_this_cpu_the_import_says_so(cpu_machine: Machine) -> None:
    ran = cpu_machine.run(env={"STUB_CPU": ""})
    assert ran.code == 1
    assert "ImportError: llama_cpp has no CPU module that this CPU can run" in ran.stderr


def test_modules_in_the_current_folder_and_in_the_search_path_are_not_taken(
    cpu_machine: Machine, tmp_path: Path
) -> None:
    for place in (cpu_machine.root, tmp_path / "other"):
        gcc(place / "libggml-cpu-haswell.so", CPU.replace("return 0", "return 7"), '-DNAME="x64"')
    ran = cpu_machine.run(path=tmp_path / "other")
    ran.well(0)
    lib = str(cpu_machine.site / "llama_cpp" / "lib")
    assert [str(Path(p).parent) for p in ran.libraries if "ggml-cpu" in p] == [lib]


def test_modules_are_loaded_from_a_folder_with_any_letters(machine: Machine) -> None:
    beside(machine)
    assert not str(machine.site).isascii()
    ran = machine.run(env={"STUB_ASCII": "1"})
    assert (ran.answers, ran.modules) == ((1313, 1313), 2), ran.stderr
    assert "load_backend" not in ran.stderr


def test_ggml_backend_path_loads_one_more_module(cpu_machine: Machine, tmp_path: Path) -> None:
    more = gcc(tmp_path / "mine.so", CPU.replace("return 0", "return 7"), '-DNAME="x64"')
    ran = cpu_machine.run(env={"GGML_BACKEND_PATH": str(more)})
    assert (ran.answers, ran.modules) == ((7, 7), 2), ran.stderr
    ran = cpu_machine.run(env={"GGML_BACKEND_PATH": str(tmp_path / "none.so")})
    assert ran.code == 1
    assert "cannot load the module that GGML_BACKEND_PATH=" in ran.stderr
    assert "Fix: clear GGML_BACKEND_PATH, or name a module of this release" in ran.stderr


def test_a_damaged_module_is_an_error_with_a_fix(cpu_machine: Machine) -> None:
    (broken,) = cpu_machine.site.glob("llama_cpp/lib/libggml-cpu-x64.so")
    broken.write_bytes(b"not a library")
    ran = cpu_machine.run(env={"BLACKWHEEL_CPU": "x64"})
    assert ran.code == 1
    assert "Fix: " in ran.stderr


# As in JamePeng's fork: before the first model, ggml searches the folder of the libraries.
SEARCHING = """
import ctypes
from pathlib import Path
_lib = ctypes.CDLL(str(Path(__file__).parent / "lib" / "libggml.so"))
def ggml_backend_load_all_from_path(path):
    print("searched", path.value.decode(), file=__import__("sys").stderr)
    _lib.ggml_backend_load.restype = ctypes.c_void_p
    for name in ("cuda", "cpu-haswell"):
        _lib.ggml_backend_load(path.value + f"/libggml-{name}.so".encode())
"""
FIRST_MODEL = """
import ctypes, llama_cpp
from pathlib import Path
llama_cpp.llama_model_default_params()
lib = Path(llama_cpp.llama_cpp.__file__).resolve().parent / "lib"
llama_cpp.ggml_backend_load_all_from_path(ctypes.c_char_p(str(lib).encode("utf-8")))
"""


@pytest.mark.parametrize(("gpu", "answer", "modules"), [(RTX_5090, 1313, 2), (RTX_3090, 0, 1)])
def test_bindings_that_search_for_modules_load_none_twice_and_none_that_no_gpu_fits(
    machine: Machine, gpu: str, answer: int, modules: int
) -> None:
    beside(machine)
    package = machine.site / "llama_cpp"
    (package / "_ggml.py").write_text(SEARCHING)
    (package / "llama_cpp.py").write_text(f"from . import _ggml\n{BINDINGS}")
    with (package / "__init__.py").open("a") as init:
        init.write("from ._ggml import ggml_backend_load_all_from_path\n")
    ran = machine.run(FIRST_MODEL, env={"STUB_GPUS": gpu})
    assert (ran.answers, ran.modules, ran.chosen) == ((answer, answer), modules, "haswell")
    assert "searched" not in ran.stderr
    # Another folder is searched by the bindings.
    other = machine.root / "other"
    gcc(other / "libggml-cpu-haswell.so", CPU.replace("return 0", "return 7"), '-DNAME="x64"')
    more = f"llama_cpp.ggml_backend_load_all_from_path(ctypes.c_char_p({str(other)!r}.encode()))"
    ran = machine.run(FIRST_MODEL + more, env={"STUB_GPUS": gpu})
    assert ran.answers == (answer + 7, answer + 7), ran.stderr
    assert f"searched {other}" in ran.stderr


# As in JamePeng's fork: a library is searched in the system by its name, then in the wheel.
BY_NAME = """
import ctypes
from ctypes.util import find_library
def load_shared_library(name, folder):
    return ctypes.CDLL(find_library(name) or str(folder / f"lib{name}.so"))
"""


def test_bindings_that_ask_the_system_for_a_library_get_the_wheels(
    machine: Machine, tmp_path: Path
) -> None:
    beside(machine)
    package = machine.site / "llama_cpp"
    by_path = 'ctypes.CDLL(str(Path(__file__).parent / "lib" / "libllama.so"))'
    assert by_path in BINDINGS
    asking = BINDINGS.replace(
        by_path, 'load_shared_library("llama", Path(__file__).parent / "lib")'
    )
    (package / "llama_cpp.py").write_text(
        f"from llama_cpp._ctypes_extensions import load_shared_library\n{asking}"
    )
    (package / "_ctypes_extensions.py").write_text(BY_NAME)
    other = gcc(tmp_path / "other" / "libllama.so", LLAMA.replace("ggml_sum()", "-1"))
    found = "import ctypes.util; assert ctypes.util.find_library('llama') == 'libllama.so'"
    ran = machine.run(found, path=other.parent).well()
    assert str(other) not in ran.libraries


def test_modules_that_the_bindings_load_are_not_loaded_twice(machine: Machine) -> None:
    """As those of some forks do, on import."""
    beside(machine)
    bindings = machine.site / "llama_cpp" / "llama_cpp.py"
    bindings.write_text(
        BINDINGS
        + """
_ggml = ctypes.CDLL(str(Path(__file__).parent / "lib" / "libggml.so"))
_ggml.ggml_backend_load.restype = ctypes.c_void_p
for name in ("cuda", "cpu-x64"):
    path = Path(__file__).parent / "lib" / f"libggml-{name}.so"
    assert _ggml.ggml_backend_load(str(path).encode())
"""
    )
    ran = machine.run("from ctypes import CDLL")
    assert (ran.answers, ran.modules, ran.chosen) == ((1313, 1313), 2, None), ran.stderr
