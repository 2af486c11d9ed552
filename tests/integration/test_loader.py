"""What our modules in a wheel do on a machine: real libraries, made by gcc, in real processes.

The driver is a stub whose version and GPUs are set by the environment.
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

import pytest

from sessions.build import staging
from tests.integration.conftest import REPOSITORY

OVERLAY = {
    p.name: p.read_text(encoding="utf-8") for p in REPOSITORY.glob("sessions/build/overlay/*.py")
}
PATHFINDERS = ("1.0.0", "1.9.1")  # the oldest that a wheel admits, and a new one
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
# What stands for upstream's bindings and its libraries.
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
# ggml: what its modules say of themselves is added up. STUB_ASCII: as in MSVC's builds, its own way
# to load one reads a path in a code page that lacks letters.
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

# A system whose own search finds no library but those in its usual folders.
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
    """The three libraries of a CUDA major; cudart says which."""
    # As NVIDIA's, their functions have the library's name as their version.
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
    chosen: str | None = None  # the CPU's module
    modules: int = 0  # that ggml has registered
    offload: int = 0

    def warnings(self) -> list[str]:
        return re.findall(r"RuntimeWarning: (llama_cpp: .*)$", self.stderr, re.MULTILINE)

    def found_by(self) -> set[str]:
        assert self.loaded is not None, self.stderr
        return {how for _, how in self.loaded.values()}


@dataclass(frozen=True)
class Machine:
    """A folder with an installed wheel, and one with the driver."""

    root: Path

    @property
    def site(self) -> Path:
        return self.root / "site"

    def run(
        self,
        before: str = "",
        *,
        prefix: tuple[str, ...] = (),
        path: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        places = [self.root / "driver", *([path] if path else [])]
        base = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.site),
            "LD_LIBRARY_PATH": ":".join(map(str, places)),
            "STUB_GPUS": RTX_5090,
            "STUB_CPU": "x64 haswell",
            "STUB_LOG": str(self.root / "log"),
        }
        done = subprocess.run(
            [*prefix, sys.executable, "-S", "-c", SAY.format(before=before)],
            env={**base, **(env or {})},
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return Ran(done.returncode, done.stderr)
        answers, loaded, pathfinder, libraries, said = map(json.loads, done.stdout.splitlines())
        return Ran(0, done.stderr, tuple(answers), loaded, pathfinder, tuple(libraries), *said)


def install(root: Path, *, cuda: str | None, archs: tuple[str, ...]) -> Machine:
    """Our additions around stand-ins for upstream's bindings and library."""
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
    """A machine with an rtx50 wheel; NVIDIA's libraries are in kit/, which nothing finds."""
    return install(tmp_path / "Jörg [x64]", cuda="13.1", archs=("120-real",))


def beside(machine: Machine) -> Path:
    """The runtime where pip puts it."""
    folder = machine.site / "nvidia" / "cu13" / "lib"
    folder.parent.mkdir(parents=True)
    return (machine.root / "kit").rename(folder)


# ---- Where the runtime is ----------------------------------------------------------------------


def test_in_one_folder_with_the_package_it_is_found_and_pathfinder_is_not_asked(
    machine: Machine,
) -> None:
    """As ``pip install --target DIR`` leaves it: no site-packages, no metadata is looked at."""
    folder = beside(machine)
    ran = machine.run()
    assert ran.answers == (1313, 1313), ran.stderr
    assert ran.found_by() == {"beside the package"}
    assert not ran.pathfinder
    assert {Path(lib).parent for lib in ran.libraries if "/libcu" in lib} >= {folder}
    assert ran.warnings() == []


def test_in_another_folder_of_sys_path_it_is_found(machine: Machine, tmp_path: Path) -> None:
    beside(machine)
    (machine.site / "nvidia").rename(tmp_path / "nvidia")
    ran = machine.run(f"sys.path.append({str(tmp_path)!r})")
    assert ran.answers == (1313, 1313), ran.stderr
    assert ran.found_by() == {"on sys.path"}


@pytest.mark.parametrize("scope", ["RTLD_LOCAL", "RTLD_GLOBAL"])
def test_another_cuda_major_in_the_process_is_not_taken(machine: Machine, scope: str) -> None:
    """As after ``import torch`` of a build for CUDA 12, which loads its libraries globally."""
    beside(machine)
    old = runtime(machine.root / "cu12", 12)
    load = "import ctypes; " + "; ".join(
        f"ctypes.CDLL({str(old / file)!r}, mode=ctypes.{scope})"
        for file in ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12")
    )
    ran = machine.run(load)
    assert ran.answers == (1313, 1313), ran.stderr
    assert str(old / "libcudart.so.12") in ran.libraries


def test_a_runtime_of_this_major_that_is_in_the_process_is_not_loaded_twice(
    machine: Machine, tmp_path: Path
) -> None:
    beside(machine)
    other = runtime(tmp_path / "torch", 13)
    load = "import ctypes; " + "; ".join(
        f"ctypes.CDLL({str(other / f'lib{name}.so.13')!r})"
        for name in ("cudart", "cublasLt", "cublas")
    )
    ran = machine.run(load)
    assert ran.answers == (1313, 1313), ran.stderr
    assert ran.found_by() == {"in the process already"}
    assert [lib for lib in ran.libraries if "libcudart" in lib] == [str(other / "libcudart.so.13")]


@pytest.fixture(scope="session", params=PATHFINDERS)
def pathfinder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pathfinder")
    words = ["install", "-q", "--no-deps", "--target", str(folder)]
    name = f"cuda-pathfinder=={request.param}"
    subprocess.run([sys.executable, "-m", "pip", *words, name], check=True)
    return folder


def test_a_toolkit_is_found_by_each_pathfinder_that_the_wheel_admits(
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
    assert ran.answers == (1313, 1313), ran.stderr
    assert ran.pathfinder


@pytest.mark.parametrize("variable", ["CONDA_PREFIX", "CUDA_PATH"])
def test_beside_another_major_that_pathfinder_returns_the_environment_is_looked_at(
    machine: Machine, pathfinder: Path, variable: str
) -> None:
    (machine.root / ("lib" if variable == "CONDA_PREFIX" else "lib64")).symlink_to("kit")
    old = runtime(machine.root / "cu12", 12)
    load = f"sys.path.append({str(pathfinder)!r}); import ctypes; " + "; ".join(
        f"ctypes.CDLL({str(old / file)!r}, mode=ctypes.RTLD_GLOBAL)"
        for file in ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12")
    )
    ran = machine.run(load, prefix=BARE, env={variable: str(machine.root)})
    assert ran.answers == (1313, 1313), ran.stderr


def test_the_search_path_of_the_system_comes_last(machine: Machine) -> None:
    ran = machine.run(path=machine.root / "kit")
    assert ran.answers == (1313, 1313), ran.stderr
    assert ran.found_by() == {"system search"}


def test_with_only_another_major_the_import_fails_and_names_what_was_found(
    machine: Machine,
) -> None:
    runtime(machine.site / "nvidia" / "cu12" / "lib", 12)
    ran = machine.run(prefix=BARE)
    assert ran.code == 1
    assert "ImportError: llama_cpp was built for CUDA 13.1 and cannot start without:" in ran.stderr
    for name in ("cudart", "cublasLt", "cublas"):
        assert f"  - {name}: pip install nvidia-cuda-runtime nvidia-cublas [" in ran.stderr


# ---- The driver and the GPUs -------------------------------------------------------------------


def test_an_import_starts_no_driver(machine: Machine) -> None:
    beside(machine)
    ran = machine.run("import llama_cpp; from pathlib import Path; "
                      "assert not Path('log').exists(), 'cuInit on import'")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert (machine.root / "log").read_text() == "cuInit\n"  # once, with the first model


def documented() -> dict[str, str]:
    """What docs/support.md says that a wheel says: what is found -> the text."""
    page = (REPOSITORY / "docs" / "support.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([^|]+) \| `(llama_cpp: [^|]+)` \|$", page, re.MULTILINE))


SAID = documented()
FOUND = {
    "no driver": {"LD_LIBRARY_PATH": ""},
    "a stub in place of the driver": {"STUB_ERROR": "34"},
    "a driver that is too old": {"STUB_CUDA": "12080"},
    "hidden GPUs": {"CUDA_VISIBLE_DEVICES": "-1"},
    "a driver and no GPU": {"STUB_GPUS": ""},
    "a GPU that the wheel has no code for": {"STUB_GPUS": RTX_3090},
}
BESIDE = "such a GPU beside one that fits"


def test_each_text_of_the_documentation_has_its_test() -> None:
    assert set(SAID) == {*FOUND, BESIDE}


@pytest.mark.parametrize("found", FOUND)
def test_without_a_gpu_that_can_be_used_it_runs_on_the_cpu_and_says_why_once(
    machine: Machine, found: str
) -> None:
    beside(machine)
    ran = machine.run(env=FOUND[found], prefix=BARE)
    assert ran.answers == (0, 0), ran.stderr
    assert ran.warnings() == [SAID[found]]
    assert (ran.offload, ran.modules, ran.chosen) == (0, 1, "haswell")


@pytest.mark.parametrize("found", FOUND)
def test_where_a_gpu_is_required_the_import_fails_with_the_same_words(
    machine: Machine, found: str
) -> None:
    beside(machine)
    ran = machine.run(env={**FOUND[found], "BLACKWHEEL_REQUIRE_GPU": "1"}, prefix=BARE)
    assert ran.code == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("ImportError: ")]
    assert line == f"ImportError: {SAID[found]} (BLACKWHEEL_REQUIRE_GPU is set)"


def test_where_a_gpu_is_required_and_is_there_nothing_is_said(machine: Machine) -> None:
    beside(machine)
    ran = machine.run(env={"BLACKWHEEL_REQUIRE_GPU": "1"})
    assert (ran.answers, ran.warnings(), ran.modules) == ((1313, 1313), [], 2), ran.stderr


def test_of_two_gpus_one_of_which_can_be_used_the_other_is_named(machine: Machine) -> None:
    beside(machine)
    ran = machine.run(env={"STUB_GPUS": f"{RTX_3090};{RTX_5090}"})
    assert ran.answers == (1313, 1313), ran.stderr
    assert ran.warnings() == [SAID[BESIDE]]
    assert (ran.offload, ran.modules) == (1, 2)


def test_without_a_driver_nothing_of_cuda_is_needed(machine: Machine) -> None:
    """As on a laptop, or where a container image is built: pip install --no-deps will do."""
    ran = machine.run(env={"LD_LIBRARY_PATH": ""}, prefix=BARE)
    assert ran.answers == (0, 0), ran.stderr
    assert not [path for path in ran.libraries if "/libcu" in path or "ggml-cuda" in path]


def test_two_threads_with_the_first_model_both_get_the_gpu(machine: Machine) -> None:
    beside(machine)
    ran = machine.run(
        "import llama_cpp, threading; said = []\n"
        "one = lambda: said.append(llama_cpp.llama_model_default_params())\n"
        "many = [threading.Thread(target=one) for _ in range(16)]\n"
        "[t.start() for t in many]; [t.join() for t in many]; assert said == [1313] * 16, said"
    )
    assert ran.answers == (1313, 1313), ran.stderr
    assert ran.modules == 2


@pytest.mark.parametrize(
    "name",
    ["llama_model_default_params", "llama_cpp.llama_model_default_params", "low.{}"],
    ids=["star", "package", "module"],
)
def test_by_whatever_name_a_function_is_called_the_gpu_is_there_first(
    machine: Machine, name: str
) -> None:
    """Upstream's own classes call llama_cpp.llama_cpp.X, and people from llama_cpp import *."""
    beside(machine)
    call = name.format("llama_model_default_params")
    ran = machine.run(
        "from llama_cpp import *\nimport llama_cpp, llama_cpp.llama_cpp as low\n"
        f"assert {call}() == 1313"
    )
    assert ran.answers == (1313, 1313), ran.stderr


@pytest.mark.parametrize("gpus", [RTX_5090, RTX_3090], ids=["gpu", "other-gpu"])
def test_whether_there_is_a_gpu_is_answered_before_the_first_model(
    machine: Machine, gpus: str
) -> None:
    beside(machine)
    wanted = int(gpus == RTX_5090)
    ran = machine.run(
        f"import llama_cpp; assert llama_cpp.llama_supports_gpu_offload() == {wanted}",
        env={"STUB_GPUS": gpus},
    )
    assert (ran.offload, ran.code) == (wanted, 0), ran.stderr


def test_a_process_that_forks_after_the_import_uses_the_gpu_in_each(machine: Machine) -> None:
    """As servers with several workers and multiprocessing do."""
    beside(machine)
    ran = machine.run(
        "import llama_cpp, os\n"
        "for _ in range(2):\n"
        "    child = os.fork()\n"
        "    if not child: os._exit(llama_cpp.llama_model_default_params() != 1313)\n"
        "    assert os.waitpid(child, 0)[1] == 0"
    )
    assert ran.answers == (1313, 1313), ran.stderr
    # Once in each process that asked, so in none that its parent had started the driver in.
    assert (machine.root / "log").read_text() == "cuInit\n" * 3


def doctor(machine: Machine, **env: str) -> subprocess.CompletedProcess[str]:
    base = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(machine.site),
        "LD_LIBRARY_PATH": str(machine.root / "driver"),
        "STUB_GPUS": RTX_5090,
        "STUB_CPU": "x64 haswell",
        "STUB_LOG": str(machine.root / "log"),
    }
    return subprocess.run(
        [*BARE, sys.executable, "-S", "-W", "ignore", "-m", "llama_cpp._doctor"],
        env={**base, **env},
        cwd=machine.root,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_doctor_says_what_was_found(machine: Machine) -> None:
    beside(machine)
    done = doctor(machine)
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


def test_the_doctor_says_what_the_documentation_shows(machine: Machine) -> None:
    site = beside(machine).parents[2]
    page = (REPOSITORY / "docs" / "support.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```\n(Libraries: .*?)```", page, re.DOTALL)
    done = doctor(machine, STUB_GPUS=RTX_3090, STUB_CUDA="13000")
    printed = done.stdout.replace(str(site), "/home/me/venv/lib/python3.11/site-packages")
    # Here are other modules than in a real wheel.
    assert [x for x in printed.splitlines() if " run:" not in x] == [
        x for x in shown.splitlines() if " run:" not in x
    ]


def test_the_doctor_fails_where_a_cuda_wheel_runs_on_the_cpu(machine: Machine) -> None:
    beside(machine)
    for env in ({"STUB_GPUS": RTX_3090}, {"STUB_CUDA": "12080"}, {"LD_LIBRARY_PATH": ""}):
        done = doctor(machine, **env)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Runs on:       the CPU" in done.stdout
        assert "Problem:       " in done.stdout
        assert "Fix:           " in done.stdout


def test_the_doctor_of_a_wheel_for_the_cpu_misses_no_gpu(tmp_path: Path) -> None:
    done = doctor(install(tmp_path / "m", cuda=None, archs=()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this wheel is for the CPU" in done.stdout


FITS = {
    "its-own": ("120-real", RTX_5090),
    "newer-minor": ("120-real", "GB10:12:1"),
    "ptx": ("80", "H100:9:0"),
    "feature-set": ("120a-real", RTX_5090),
    "family": ("100f-real", "B300:10:3"),
}


@pytest.mark.parametrize(("arch", "gpu"), FITS.values(), ids=FITS)
def test_a_gpu_that_the_wheel_has_code_for_is_no_warning(
    tmp_path: Path, arch: str, gpu: str
) -> None:
    machine = install(tmp_path / "m", cuda="13.1", archs=(arch,))
    beside(machine)
    assert machine.run(env={"STUB_GPUS": gpu}).warnings() == []


UNFIT = {
    "older-minor": ("89-real", "RTX 3090:8:6"),
    "newer-major": ("90-real", RTX_5090),
    "feature-set": ("120a-real", "GB10:12:1"),
    "older-than-ptx": ("90", "RTX 3090:8:6"),
}


@pytest.mark.parametrize(("arch", "gpu"), UNFIT.values(), ids=UNFIT)
def test_a_gpu_that_the_wheel_has_no_code_for_is_named(tmp_path: Path, arch: str, gpu: str) -> None:
    machine = install(tmp_path / "m", cuda="13.1", archs=(arch,))
    beside(machine)
    (warning,) = machine.run(env={"STUB_GPUS": gpu}).warnings()
    assert gpu.split(":")[0] in warning


def test_ptx_needs_a_driver_of_the_toolkits_own_version(tmp_path: Path) -> None:
    machine = install(tmp_path / "m", cuda="13.1", archs=("90-virtual",))
    beside(machine)
    (warning,) = machine.run(env={"STUB_CUDA": "13000"}).warnings()
    assert "supports CUDA 13.0, and this wheel needs CUDA 13.1" in warning
    assert machine.run(env={"STUB_CUDA": "13010", "STUB_GPUS": "H100:9:0"}).warnings() == []


# ---- The CPU -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("can", "chosen"),
    [("x64", "x64"), ("x64 haswell", "haswell"), ("x64 haswell skylakex", "skylakex")],
)
def test_the_module_that_suits_the_cpu_best_is_loaded_and_no_other_stays(
    tmp_path: Path, can: str, chosen: str
) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    ran = machine.run(env={"STUB_CPU": can})
    assert (ran.chosen, ran.modules) == (chosen, 1), ran.stderr
    assert "loaded a backend" not in ran.stderr
    loaded = [Path(path).name for path in ran.libraries if "ggml-cpu" in path]
    assert loaded == [f"libggml-cpu-{chosen}.so"]


def test_where_a_release_has_a_kind_of_cpu_that_is_not_known_each_module_is_asked(
    tmp_path: Path,
) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    gcc(machine.site / "llama_cpp" / "lib" / "libggml-cpu-zen9.so", CPU, '-DNAME="zen9"')
    assert machine.run(env={"STUB_CPU": "x64 zen9 haswell"}).chosen == "haswell"
    assert machine.run(env={"STUB_CPU": "x64 haswell zen9"}).chosen == "zen9"
    assert machine.run(env={"STUB_CPU": ""}).code == 1


def test_no_module_is_opened_that_is_worse_than_the_one_that_is_taken(tmp_path: Path) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    says = 'static __attribute__((constructor)) void on(void) { fputs("opened " NAME, stderr); }'
    for name in ("x64", "haswell", "skylakex"):
        lib = machine.site / "llama_cpp" / "lib" / f"libggml-cpu-{name}.so"
        gcc(lib, f"#include <stdio.h>\n{CPU}{says}", f'-DNAME="{name}"')
    ran = machine.run()  # haswell is the best that this CPU can run
    assert ran.chosen == "haswell"
    assert "opened skylakex" in ran.stderr
    assert "opened x64" not in ran.stderr


def test_a_module_can_be_asked_for_by_its_name(tmp_path: Path) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    assert machine.run(env={"BLACKWHEEL_CPU": "x64"}).chosen == "x64"
    for name in ("skylakex", "nehalem", "../x64"):  # cannot run here; is not there
        ran = machine.run(env={"BLACKWHEEL_CPU": name})
        assert ran.code == 1
        assert f"no CPU module {name!r} that this CPU can run" in ran.stderr
        assert "It can run: haswell, x64." in ran.stderr


def test_without_a_module_for_this_cpu_the_import_says_so(tmp_path: Path) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    ran = machine.run(env={"STUB_CPU": ""})
    assert ran.code == 1
    assert "ImportError: llama_cpp has no CPU module that this CPU can run" in ran.stderr


def test_modules_in_the_current_folder_and_in_the_search_path_are_not_taken(tmp_path: Path) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    for place in (machine.root, tmp_path / "other"):
        gcc(place / "libggml-cpu-haswell.so", CPU.replace("return 0", "return 7"), '-DNAME="x64"')
    ran = machine.run(path=tmp_path / "other")
    assert ran.answers == (0, 0), ran.stderr
    lib = str(machine.site / "llama_cpp" / "lib")
    assert [str(Path(p).parent) for p in ran.libraries if "ggml-cpu" in p] == [lib]


def test_modules_are_loaded_from_a_folder_whose_name_ggml_cannot_read(machine: Machine) -> None:
    beside(machine)
    assert not str(machine.site).isascii()
    ran = machine.run(env={"STUB_ASCII": "1"})
    assert (ran.answers, ran.modules) == ((1313, 1313), 2), ran.stderr
    assert "load_backend" not in ran.stderr


def test_one_more_module_that_the_user_names_is_loaded_too(tmp_path: Path) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    more = gcc(tmp_path / "mine.so", CPU.replace("return 0", "return 7"), '-DNAME="x64"')
    ran = machine.run(env={"GGML_BACKEND_PATH": str(more)})
    assert (ran.answers, ran.modules) == ((7, 7), 2), ran.stderr
    ran = machine.run(env={"GGML_BACKEND_PATH": str(tmp_path / "none.so")})
    assert ran.code == 1
    assert "cannot load the module that GGML_BACKEND_PATH=" in ran.stderr
    assert "Fix: clear GGML_BACKEND_PATH, or name a module of this release" in ran.stderr


def test_a_module_that_is_damaged_is_named_with_what_to_do(tmp_path: Path) -> None:
    machine = install(tmp_path / "m", cuda=None, archs=())
    (broken,) = machine.site.glob("llama_cpp/lib/libggml-cpu-x64.so")
    broken.write_bytes(b"not a library")
    ran = machine.run(env={"BLACKWHEEL_CPU": "x64"})
    assert ran.code == 1
    assert "Fix: " in ran.stderr


# As of JamePeng's fork: with the first model ggml searches the folder of the libraries.
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
def test_bindings_that_search_with_the_first_model_load_nothing_twice_and_no_unfit_gpus_module(
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
    # A folder of the user's own is searched as the bindings do it.
    other = machine.root / "other"
    gcc(other / "libggml-cpu-haswell.so", CPU.replace("return 0", "return 7"), '-DNAME="x64"')
    more = f"llama_cpp.ggml_backend_load_all_from_path(ctypes.c_char_p({str(other)!r}.encode()))"
    ran = machine.run(FIRST_MODEL + more, env={"STUB_GPUS": gpu})
    assert ran.answers == (answer + 7, answer + 7), ran.stderr
    assert f"searched {other}" in ran.stderr


# As of JamePeng's fork: a library is looked for in the system by its name, then in the wheel.
BY_NAME = """
import ctypes
from ctypes.util import find_library
def load_shared_library(name, folder):
    return ctypes.CDLL(find_library(name) or str(folder / f"lib{name}.so"))
"""


def test_bindings_that_look_in_the_system_by_name_get_the_wheels_libraries(
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
    ran = machine.run(found, path=other.parent)
    assert ran.answers == (1313, 1313), ran.stderr
    assert str(other) not in ran.libraries


def test_where_the_bindings_load_modules_themselves_none_is_loaded_twice(machine: Machine) -> None:
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
