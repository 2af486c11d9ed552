"""The real rtx50 wheel with our stub driver and NVIDIA's own runtime, beside other libraries.

Build it first: these tests build nothing. Tests without a real wheel are in test_loader.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.fetch.record_types import Toolkit
from sessions.shared import records
from tests.integration.conftest import REPOSITORY
from tests.integration.installed import record
from tests.integration.test_loader import DRIVER, RTX_3090, Machine, gcc, load_all, runtime

WHEELS = REPOSITORY / "wheels" / "rtx50"
SAY = """
import json, sys
{before}
import llama_cpp
llama_cpp.llama_backend_init()
ours, cuda = llama_cpp._backends, llama_cpp._cuda_runtime
maps = [line.split(maxsplit=5)[5].rstrip() for line in open("/proc/self/maps") if ".so" in line]
print(json.dumps(dict(
    chosen=ours.chosen, modules=ours.library().ggml_backend_reg_count(), runtime=cuda.loaded,
    maps=sorted(set(maps)), offload=llama_cpp.llama_supports_gpu_offload(),
)))
"""
QEMU = "qemu-x86_64"


@dataclass(frozen=True)
class Installed(Machine):
    """The real wheel as ``pip install --target`` leaves it, and a folder with our driver."""

    def load(self, before: str = "", **how: Any) -> tuple[dict[str, Any], str]:
        """Import the package and call a function. Returns what was loaded, and stderr."""
        done = self.start("-c", SAY.format(before=before), options=(), **how)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found, done.stderr

    @property
    def lib(self) -> Path:
        return self.site / "llama_cpp" / "lib"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    found = Installed(tmp_path_factory.mktemp("machine"))
    site, driver = found.site, found.root / "driver"
    name = record(WHEELS / "wheel.json", "wheel")["file"]
    with zipfile.ZipFile(WHEELS / name) as archive:
        archive.extractall(site)
    kit = records.read(REPOSITORY / "build" / "rtx50" / "toolkit.json", "toolkit", Toolkit)
    assert kit is not None, "There is no toolkit of the rtx50 wheel: nox -s toolkit"
    (site / "nvidia" / "cu13").mkdir(parents=True)
    (site / "nvidia" / "cu13" / "lib").symlink_to(Path(kit.root) / "lib")
    (site / "diskcache.py").touch()  # which llama_cpp imports and these tests do not use
    module = site / "llama_cpp" / "lib" / "libggml-cuda.so"
    symbols = subprocess.run(
        ["readelf", "-W", "--dyn-syms", str(module)], check=True, capture_output=True, text=True
    )
    functions = set(re.findall(r" UND (cu[A-Z]\w+)$", symbols.stdout, re.MULTILINE))
    ours = set(re.findall(r"^int (cu\w+)\(", DRIVER, re.MULTILINE))
    rest = "".join(f"int {name}(void) {{ return 100; }}\n" for name in functions - ours)
    gcc(driver / "libcuda.so.1", DRIVER + rest)
    return found


def cuda_of(found: dict[str, Any]) -> list[str]:
    return [path for path in found["maps"] if "libggml-cuda" in path]


def test_with_a_gpu_the_cuda_module_is_loaded_once(
    installed: Installed,
) -> None:
    found, stderr = installed.load()
    assert {how for _, how in found["runtime"].values()} == {"beside the package"}
    assert (found["modules"], cuda_of(found)) == (2, [str(installed.lib / "libggml-cuda.so")])
    assert "RuntimeWarning" not in stderr


@pytest.mark.parametrize("scope", ["RTLD_LOCAL", "RTLD_GLOBAL"])
def test_another_cuda_major_in_the_process_is_not_used(
    installed: Installed, tmp_path: Path, scope: str
) -> None:
    old = runtime(tmp_path / "cu12", 12)
    found, _ = installed.load(load_all(old, 12, scope))
    assert {how for _, how in found["runtime"].values()} == {"beside the package"}
    assert found["modules"] == 2
    assert str(old / "libcudart.so.12") in found["maps"]


@pytest.mark.parametrize("scope", ["RTLD_LOCAL", "RTLD_GLOBAL"])
def test_another_libggml_in_the_process_and_in_the_search_path_is_not_used(
    installed: Installed, tmp_path: Path, scope: str
) -> None:
    names = ("libggml-base.so", "libggml.so", "libllama.so", "libggml-cpu-haswell.so")
    for name in names:
        gcc(tmp_path / name, "int nothing_of_use(void) { return 0; }")
    loads = (f"ctypes.CDLL({str(tmp_path / name)!r}, mode=ctypes.{scope})" for name in names)
    found, _ = installed.load(
        f"import ctypes; {'; '.join(loads)}",
        path=tmp_path,
    )
    assert found["modules"] == 2
    wheels_own = {Path(path).name for path in found["maps"] if Path(path).parent == installed.lib}
    assert {"libggml-base.so", "libggml.so", "libllama.so", "libggml-cuda.so"} <= wheels_own


CPU_ONLY = {
    "old-driver": ({"STUB_CUDA": "12080"}, "supports CUDA 12.8"),
    "stub": ({"STUB_ERROR": "34"}, "is a stub"),
    "hidden": ({"CUDA_VISIBLE_DEVICES": "-1"}, "hides every GPU"),
    "other-gpu": ({"STUB_GPUS": RTX_3090}, "no GPU here can run this wheel"),
    "no-driver": ({"LD_LIBRARY_PATH": ""}, "no NVIDIA driver"),
}


@pytest.mark.parametrize(("env", "words"), CPU_ONLY.values(), ids=CPU_ONLY)
def test_without_a_usable_gpu_one_warning_says_why(
    installed: Installed, env: dict[str, str], words: str
) -> None:
    found, stderr = installed.load(env=env)
    (warning,) = [line for line in stderr.splitlines() if "RuntimeWarning: llama_cpp:" in line]
    assert words in warning
    assert "Fix: " in warning
    assert (found["modules"], cuda_of(found), found["offload"]) == (1, [], False)
    if env.keys() & {"LD_LIBRARY_PATH", "STUB_CUDA", "STUB_ERROR"}:
        return
    assert found["runtime"]  # it is there for a GPU that is shown later


@pytest.mark.parametrize(("cpu", "chosen"), [("Nehalem", "sse42"), ("SandyBridge", "sandybridge")])
def test_a_cpu_without_avx2_gets_its_module(installed: Installed, cpu: str, chosen: str) -> None:
    if shutil.which(QEMU) is None:
        pytest.fail(f"There is no {QEMU} (Debian, Ubuntu: apt install qemu-user)")
    found, stderr = installed.load(prefix=(QEMU, "-cpu", cpu), env={"LD_LIBRARY_PATH": ""})
    assert found["chosen"] == chosen
    assert "no NVIDIA driver" in stderr
