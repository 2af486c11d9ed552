"""The real rtx50 wheel that ``nox -s wheel`` built. Build it first: these tests build nothing."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sessions.shared import knowledge
from tests.integration.conftest import REPOSITORY

WHEELS = REPOSITORY / "wheels" / "rtx50"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    path = WHEELS / "wheel.json"
    if not path.exists():
        pytest.fail("There is no rtx50 wheel. Build it first: nox -s wheel")
    wheel: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["wheel"]
    return wheel


@pytest.fixture(scope="module")
def unpacked(record: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rtx50")
    with zipfile.ZipFile(WHEELS / record["file"]) as archive:
        archive.extractall(folder)
    return folder


def libraries(unpacked: Path) -> list[Path]:
    """The libraries that were built; the compiler's OpenMP runtime is in the same folder."""
    found = sorted((unpacked / "llama_cpp" / "lib").iterdir())
    modules = [path.stem.split("-")[-1] for path in found if "-cpu-" in path.name]
    assert modules == ["alderlake", "haswell", "icelake", "sandybridge", "skylakex", "sse42", "x64"]
    names = {path.stem for path in found if "-cpu-" not in path.name}
    own = {"libggml", "libggml-base", "libggml-cuda", "libllama", "libmtmd"}
    assert names == own | {"libgomp.so"}
    return [path for path in found if "gomp" not in path.name]


def dynamic(library: Path) -> str:
    return subprocess.run(
        ["readelf", "-d", str(library)], check=True, capture_output=True, text=True
    ).stdout


def test_it_has_at_most_22_mb(record: dict[str, Any]) -> None:
    assert (WHEELS / record["file"]).stat().st_size == record["size"] <= 22_000_000


def test_it_requires_nvidias_runtime(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    for package in ("cuda-pathfinder", "nvidia-cuda-runtime<14", "nvidia-cublas<14"):
        assert f"Requires-Dist: {package}" in text


def test_the_libraries_search_only_their_own_folder(unpacked: Path) -> None:
    for library in libraries(unpacked):
        paths = [line for line in dynamic(library).splitlines() if "PATH" in line]
        assert all(line.endswith("[$ORIGIN]") for line in paths), library


def test_no_library_needs_a_module_of_ggml(unpacked: Path) -> None:
    """Needed libraries are loaded on every machine, but not every machine can run every module."""
    for library in libraries(unpacked):
        needed = [line for line in dynamic(library).splitlines() if "(NEEDED)" in line]
        assert needed, library
        assert not [line for line in needed if "ggml-cpu" in line or "ggml-cuda" in line], library
        cuda = [line for line in needed if "libcu" in line]
        assert bool(cuda) == (library.stem == "libggml-cuda"), library


def test_the_device_library_is_linked_with_cuda_13(unpacked: Path) -> None:
    needed = dynamic(unpacked / "llama_cpp" / "lib" / "libggml-cuda.so")
    for library in ("libcudart.so.13", "libcublas.so.13", "libcuda.so.1"):
        assert f"[{library}]" in needed


def test_no_folder_of_this_machine_is_in_the_libraries(unpacked: Path) -> None:
    for library in libraries(unpacked):
        data = library.read_bytes()
        for folder in (REPOSITORY, Path.home() / ".cache"):
            assert bytes(folder) not in data, library


def test_no_installed_toolkit_was_used_for_the_build() -> None:
    cache = REPOSITORY / "build" / "rtx50" / "tree" / "CMakeCache.txt"
    toolkit = json.loads((REPOSITORY / "build" / "rtx50" / "toolkit.json").read_text())["toolkit"]
    entries = dict(
        line.split("=", 1)
        for line in cache.read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith(("//", "#"))
    )
    for name in ("CUDA_CUDART:FILEPATH", "CUDA_cublas_LIBRARY:FILEPATH"):
        assert entries[name].startswith(toolkit["root"])
    assert not [value for value in entries.values() if "/usr/local/cuda" in value]


def test_import_works_or_names_what_is_missing(unpacked: Path, tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
        driver = True
    except OSError:
        driver = False
    packages = ["numpy", "diskcache", "jinja2", "typing_extensions"]
    words = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path / "site")]
    subprocess.run([*words, *packages], check=True)

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        code = "import llama_cpp; print(llama_cpp.llama_supports_gpu_offload())"
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{unpacked}:{tmp_path / 'site'}", **env},
            capture_output=True,
            text=True,
            check=False,
        )

    done = run()
    if driver:  # neither cuda-pathfinder nor the runtime is installed here
        assert done.returncode != 0
        assert "llama_cpp was built for CUDA 13.1 and cannot start without:" in done.stderr
        assert "cublas: pip install nvidia-cuda-runtime nvidia-cublas [" in done.stderr
        assert "pip install cuda-pathfinder" in done.stderr
        return
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    warnings = [line for line in done.stderr.splitlines() if "Warning: " in line]
    assert len(warnings) == 1, done.stderr
    assert "llama_cpp: there is no NVIDIA driver here (libcuda.so.1: " in warnings[0]
    required = run(BLACKWHEEL_REQUIRE_GPU="1")
    assert required.returncode != 0
    assert "ImportError: llama_cpp: there is no NVIDIA driver here (" in required.stderr


ORDER = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("_backends", sys.argv[1])
ours = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ours)
print(json.dumps([ours.scores(), ours.BEST_FIRST, ours.best()]))
"""


def test_cpu_modules_are_in_the_order_of_upstreams_scores(unpacked: Path) -> None:
    """Tested for the modules that this machine can run."""
    module = REPOSITORY / "sessions" / "build" / "overlay" / "_backends.py"
    done = subprocess.run(
        [sys.executable, "-c", ORDER, str(module)],
        env={"LLAMA_CPP_LIB_PATH": str(unpacked / "llama_cpp" / "lib")},
        check=True,
        capture_output=True,
        text=True,
    )
    scores, order, best = json.loads(done.stdout)
    can = sorted((name for name in scores if scores[name]), key=scores.get, reverse=True)
    assert set(scores) <= set(order)
    assert len(can) > 2
    assert can == [name for name in order if name in can]
    assert best == can[0]


def test_no_path_of_a_build_is_longer_than_the_limits_for_windows() -> None:
    """The lengths in ``windows.toml`` are those of this build, with .obj for object files."""
    known = knowledge.load("windows.toml")["paths"]
    tree = REPOSITORY / "build" / "rtx50" / "tree"
    objects = [str(path.relative_to(tree)) for path in tree.rglob("*.o")]
    assert len(objects) > 100
    assert max(map(len, objects)) + len("bj.d") + len("build//tree/") == known["target"]
    nox = [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / ".nox").rglob("*")]
    # lib/python3.11/site-packages is Lib/site-packages on Windows.
    blackwheel = [path for path in nox if path.startswith(".nox/blackwheel-")]
    assert 100 < max(map(len, blackwheel)) - len("python3.11/") <= known["checkout"]


def test_each_unity_build_group_was_compiled_as_one_file() -> None:
    tree = REPOSITORY / "build" / "rtx50" / "tree"
    commands = json.loads((tree / "compile_commands.json").read_text(encoding="utf-8"))
    files = [Path(entry["file"]) for entry in commands if entry["file"].endswith(".cu")]
    for group in knowledge.sdists()["0.3.16"].merged:
        (merged,) = [file for file in files if file.stem == f"{group[0]}-and-more"]
        included = merged.read_text(encoding="utf-8").split()[1::2]
        assert included == [f'"{name}.cu"' for name in group]
        assert not {file.stem for file in files} & {*group}


def test_without_the_gpu_only_the_gpu_tests_prevent_a_release() -> None:
    """The gate needs smoke and ops on a GPU with compute capability 12.0, and committed files."""
    done = subprocess.run(
        [sys.executable, "noxfile.py", "-s", "release", "--", "--target", "rtx50"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    if "✓ smoke" in output:
        pytest.fail("this machine has the GPU: nox -s release releases the wheel here")
    changed = ["git", "status", "--porcelain", "--untracked-files=all"]
    dirty = subprocess.run(changed, cwd=REPOSITORY, check=True, capture_output=True).stdout
    assert done.returncode != 0, output
    assert "rtx50: NOT RELEASABLE" in output
    failed = dict(re.findall(r"^✗ ([a-z-]+): (.*)$", output, re.MULTILINE))
    assert failed.pop("smoke", "") == "not run on a GPU of compute capability 12.0"
    untested = "upstream's operator test was not run on a GPU of compute capability 12.0"
    assert failed.pop("ops", "") == untested
    assert list(failed) == (["checkout"] if dirty else [])


def test_third_party_code_that_was_compiled_is_in_the_sbom(unpacked: Path) -> None:
    tree = REPOSITORY / "build" / "rtx50" / "tree"
    cache = (tree / "CMakeCache.txt").read_text(encoding="utf-8")
    (ninja,) = re.findall(r"^CMAKE_MAKE_PROGRAM:\w+=(.*)$", cache, re.MULTILINE)
    deps = subprocess.run(
        [ninja, "-C", str(tree), "-t", "deps"], check=True, capture_output=True, text=True
    )
    read = set(re.findall(r"src/(vendor/llama\.cpp/vendor/\S+)$", deps.stdout, re.MULTILINE))
    assert read, "ninja lists no compiled files"
    parts = {
        row["file"].rsplit("/", 1)[0]: row["name"]
        for row in knowledge.load("third_party_code.toml")["part"]
    }
    (bill,) = unpacked.glob("*.dist-info/sboms/blackwheel.cdx.json")
    named = {part["name"] for part in json.loads(bill.read_text(encoding="utf-8"))["components"]}
    own = ("vendor/llama.cpp/vendor/hash/hash.cpp", "vendor/llama.cpp/vendor/hash/hash.h")
    for file in read - set(own):  # llama.cpp's own files, which use hashes of others
        assert parts[file.rsplit("/", 1)[0]] in named, file
