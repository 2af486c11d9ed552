"""``matrix`` end to end on a small locked upstream: caches, repacking, failures, interruptions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions.verify import diff
from tests.integration.conftest import (
    ODD,
    REPOSITORY,
    SOURCES,
    Checkout,
    Project,
    Ran,
    SlowCompiler,
    copy_project,
    kill_tree,
    processes_of,
    sha256,
    snapshot,
)
from tests.integration.test_release import BINDINGS, Locked, fresh, lock
from tests.integration.wheels import _KERNEL


def table(root: Path, name: str, base: str = "cpu") -> None:
    """Add a target like another one to the project's targets.toml."""
    path = root / "targets.toml"
    text = path.read_text(encoding="utf-8")
    own = text.split(f"\n[{base}]\n", 1)[1].split("\n[", 1)[0]
    path.write_text(f"{text}\n[{name}]\n{own}", encoding="utf-8")


def rows(project: Project) -> list[dict[str, Any]]:
    record = json.loads((project.root / "build" / "matrix.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = record["matrix"]["rows"]
    assert record["ok"] is all(row["outcome"] != "failed" for row in found)
    for row in found:
        if row["outcome"] != "failed":
            path = project.root / "wheels" / row["folder"] / row["file"]
            data = path.read_bytes()
            assert (row["sha256"], row["size"]) == (sha256(data), len(data))
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
    return found


def outcomes(project: Project) -> list[tuple[str, str, str]]:
    return [(row["target"], row["python"], row["outcome"]) for row in rows(project)]


def run(project: Project, targets: str, pythons: str, *more: str) -> Ran:
    started = project.start("matrix", "--targets", targets, "--pythons", pythons, *more)
    return started.end(timeout=600)


def compiled(project: Project, target: str) -> int:
    """The number of compilations in the last build, with cached ones."""
    log = (project.root / "build" / target / "wheel.log").read_text(encoding="utf-8")
    return log.count("] Building C")


def another_python() -> Path:
    """The path of another Python than 3.11 that can build."""
    folders = [*map(Path, os.environ["PATH"].split(":"))]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"), reverse=True)
    for minor in (12, 13, 10, 14, 9):
        for folder in folders:
            program = folder / f"python3.{minor}"
            words = [str(program), "-c", "import venv, ensurepip"]
            if program.exists() and not subprocess.run(words, capture_output=True).returncode:
                return program
    pytest.fail("these tests need another Python than 3.11, with its venv module: install 3.12")


@pytest.fixture(scope="module")
def matrix(built: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Locked:
    """Two targets for three Pythons; only one Python is installed. Tests must not change it."""
    locked = fresh(built, tmp_path_factory.mktemp("matrix"))
    table(locked.root, "cpu-again")
    ran = run(locked.project, "cpu,cpu-again", "3.10,3.11,3.12").well()
    assert "matrix: 6 wheels in" in ran.output
    return locked


def test_every_wheel_takes_over_as_much_as_possible(matrix: Locked) -> None:
    assert outcomes(matrix.project) == [
        ("cpu", "3.11", "built"),
        ("cpu", "3.10", "repacked"),
        ("cpu", "3.12", "repacked"),
        ("cpu-again", "3.11", "built"),
        ("cpu-again", "3.10", "repacked"),
        ("cpu-again", "3.12", "repacked"),
    ]
    found = rows(matrix.project)
    # A second target: every object from the cache, and the unpacked source of the first.
    assert compiled(matrix.project, "cpu-again") == SOURCES
    assert found[3]["cache"] == {"hits": SOURCES, "misses": 0}
    assert found[3]["shared"] == ["source 0.3.16", f"{SOURCES} objects"]
    for row in (found[1], found[2], found[4], found[5]):
        assert row["shared"] == ["the wheel of 3.11"]
        assert row["cache"] == {}
    # A second Python: no staged source, no configuration, no compilation.
    for label in ("cpu+py3.10", "cpu+py3.12", "cpu-again+py3.12"):
        there = {path.name for path in (matrix.root / "build" / label).iterdir()}
        assert there == {"CACHEDIR.TAG", "given", "matrix.log", "repack.json"}


def test_every_wheel_passes_verify_and_names_its_target(matrix: Locked) -> None:
    for label, number in (("cpu", 311), ("cpu+py3.10", 310), ("cpu-again+py3.12", 312)):
        tags = f"cp{number}-cp{number}"
        (path,) = (matrix.root / "wheels" / label).glob(f"llama_cpp_python-0.3.16-{tags}-*.whl")
        ran = matrix.project.nox(
            "verify", "--target", label.split("+")[0], "--python", f"3.{number - 300}",
            "--wheel", str(path),
        ).well()  # fmt: skip
        assert "19 checks passed" in ran.output
        assert "warnings" not in ran.output
        with zipfile.ZipFile(path) as archive:
            (bill,) = [n for n in archive.namelist() if "/sboms/b" in n]
            text = archive.read(bill).decode()
        assert f'"{label}"' in text


def test_a_repacked_wheel_equals_the_wheel_that_this_python_builds(
    matrix: Locked, built: Checkout, tmp_path: Path
) -> None:
    program = another_python()
    version = program.name.removeprefix("python")
    locked = fresh(built, tmp_path)
    run(locked.project, "cpu", version).well()
    (repacked,) = (locked.root / "wheels" / f"cpu+py{version}").glob("*.whl")
    kept = Path(shutil.copy(repacked, tmp_path))
    path = f"{locked.project.env['PATH']}:{program.parent}"
    words = ("--target", "cpu", "--python", version)
    # This creates the venv of the build tools for that Python.
    started = locked.project.start("wheel", *words, env={"PATH": path})
    started.end(timeout=900).well()
    record = json.loads((repacked.parent / "wheel.json").read_text())["wheel"]
    assert record["steps"] > 0, "not built"
    assert diff.differences(kept, repacked) == ()
    # The matrix uses the wheel that was built.
    before = snapshot(repacked.parent)
    run(locked.project, "cpu", version).well()
    assert snapshot(repacked.parent) == before


def test_a_second_run_is_up_to_date(matrix: Locked) -> None:
    before = snapshot(matrix.root / "wheels")
    first = rows(matrix.project)
    ran = run(matrix.project, "cpu,cpu-again", "3.10,3.11,3.12").well()
    assert {row["outcome"] for row in rows(matrix.project)} == {"up to date"}
    assert [row["sha256"] for row in rows(matrix.project)] == [row["sha256"] for row in first]
    assert snapshot(matrix.root / "wheels") == before
    print(f"6 wheels up to date in {ran.seconds:.1f} s")


def py3(source: Path) -> None:
    """Make the wheel one for any Python 3, like 0.3.36."""
    path = source / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("wheel.packages", 'wheel.py-api = "py3"\nwheel.packages'))


def test_a_py3_wheel_is_for_every_python(built: Checkout, project: Project) -> None:
    checkout = project.checkout("py3")
    py3(checkout.path)
    bindings(checkout.path)
    ran = run(project, "cpu", "3.9,3.11,3.14", "--source", str(checkout.path)).well()
    assert outcomes(project) == [
        ("cpu", "3.11", "built"),
        ("cpu", "3.9", "same"),
        ("cpu", "3.14", "same"),
    ]
    found = rows(project)
    assert len({row["file"] for row in found}) == 1
    assert "-py3-none-" in found[0]["file"]
    assert [(row["wall_seconds"], row["cpu_seconds"]) for row in found[1:]] == [(0, 0), (0, 0)]
    assert sorted(p.name for p in (project.root / "wheels").iterdir() if p.is_dir()) == [
        "cpu+source-py3"
    ]
    assert ran.output.count("✓ verify: ") == 1


def bindings(source: Path) -> None:
    """Let the package load its libraries, which verify requires."""
    init = source / "llama_cpp" / "__init__.py"
    text = init.read_text(encoding="utf-8").replace("0.0.1", "0.3.16")
    init.write_text(f"{text}\n\nfrom .llama_cpp import *\n", encoding="utf-8")
    (source / "llama_cpp" / "llama_cpp.py").write_text(BINDINGS, encoding="utf-8")


def test_after_a_failure_the_others_are_made(built: Checkout, tmp_path: Path) -> None:
    locked = fresh(built, tmp_path)
    table(locked.root, "cpu-small")
    path = locked.root / "targets.toml"
    text = path.read_text(encoding="utf-8")
    head, word, rest = text.rpartition("budget_mb = ")
    path.write_text(f"{head}{word}0 # {rest}", encoding="utf-8")  # refused by verify
    ran = run(locked.project, "cpu-small,cpu", "3.11,3.12")
    ran.badly(
        "Not all wheels were made: 2 of 4 failed.",
        "fails 1 of 19 checks for the target cpu-small: size",
        "size: larger than the target allows",
        "-s verify -- --target=cpu-small",
    )
    assert ran.code == 1
    assert outcomes(locked.project) == [
        ("cpu-small", "3.11", "failed"),
        ("cpu-small", "3.12", "failed"),
        ("cpu", "3.11", "built"),
        ("cpu", "3.12", "repacked"),
    ]
    # The command in its row shows only that failure.
    locked.project.nox("verify", "--target=cpu-small").badly("size: larger")
    path.write_text(text, encoding="utf-8")
    run(locked.project, "cpu-small,cpu", "3.11,3.12").well()
    assert [outcome for _, _, outcome in outcomes(locked.project)] == [
        "up to date", "repacked", "up to date", "up to date",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["term", "kill"])
def test_an_interrupted_matrix_continues(
    built: Checkout, tmp_path: Path, slow_compiler: SlowCompiler, how: str
) -> None:
    locked = fresh(built, tmp_path)
    table(locked.root, "cpu-slow")
    words = ("cpu,cpu-slow", "3.11,3.12")
    run(locked.project, "cpu", "3.11,3.12", *slow_compiler.options).well()
    done = snapshot(locked.root / "wheels")
    slow_compiler.slow(300)
    given = ("--targets", words[0], "--pythons", words[1], *slow_compiler.options)
    running = locked.project.start("matrix", *given)
    slow_compiler.wait_until_half_way(running, locked.root / "build" / "cpu-slow" / "tree")
    if how == "term":
        os.killpg(running.process.pid, signal.SIGTERM)
        ended = running.end(timeout=30)
        assert "Traceback" not in ended.output, ended.output
    else:
        kill_tree(running.process.pid)
        ended = running.end()
    assert ended.code != 0
    assert processes_of(tmp_path) == []
    assert not (locked.root / "build" / "matrix.json").exists()
    assert snapshot(locked.root / "wheels") == done
    slow_compiler.quick()
    run(locked.project, *words, *slow_compiler.options).well()
    assert outcomes(locked.project) == [
        ("cpu", "3.11", "up to date"),
        ("cpu", "3.12", "up to date"),
        ("cpu-slow", "3.11", "built"),
        ("cpu-slow", "3.12", "repacked"),
    ]
    assert 0 < compiled(locked.project, "cpu-slow") < SOURCES
    assert {n: t for n, t in snapshot(locked.root / "wheels").items() if n in done} == done


CUDA = """
if(GGML_CUDA)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    add_library(ggml-cuda ${CMAKE_CURRENT_SOURCE_DIR}/src/ggml-cuda/ggml-cuda.cu)
    target_link_libraries(ggml-cuda PRIVATE ggml-base CUDA::cudart CUDA::cublas CUDA::cuda_driver)
endif()
"""


def with_cuda(source: Path) -> None:
    """Add one file for the GPU."""
    ggml = source / "vendor" / "llama.cpp" / "ggml"
    with (ggml / "CMakeLists.txt").open("a", encoding="utf-8") as stream:
        stream.write(CUDA)
    (ggml / "src" / "ggml-cuda").mkdir()
    (ggml / "src" / "ggml-cuda" / "ggml-cuda.cu").write_text(_KERNEL, encoding="utf-8")


def lock_cuda(built: Checkout, root: Path, change: Callable[[Path], None] = with_cuda) -> Project:
    """A project whose only release is the small upstream with GPU files; it has a toolkit."""
    copy_project(root)
    lock(root, Path(built.project.env["BLACKWHEEL_CACHE"]), change)
    (root / ".nox").symlink_to(built.project.root / ".nox")
    link_toolkit(built)
    return built.project.at(root)


def link_toolkit(built: Checkout) -> None:
    """Put the toolkit of the rtx50 wheel into the cache of the test session."""
    record = REPOSITORY / "build" / "rtx50" / "toolkit.json"
    if not record.is_file():
        pytest.fail("There is no toolkit of the rtx50 wheel. Build it first: nox -s wheel")
    root = Path(json.loads(record.read_text(encoding="utf-8"))["toolkit"]["root"])
    folder = Path(built.project.env["BLACKWHEEL_CACHE"]) / root.parents[1].name
    if not folder.exists():
        # Hard links or copies: no symbolic link that leads out of the folder.
        shutil.copytree(root.parents[1], folder, symlinks=True, copy_function=link)


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_a_second_architecture_compiles_only_device_code(built: Checkout, tmp_path: Path) -> None:
    locked = Locked(lock_cuda(built, tmp_path / ODD))
    run(locked.project, "rtx50,hopper", "3.11,3.12").well()
    assert outcomes(locked.project) == [
        ("rtx50", "3.11", "built"),
        ("rtx50", "3.12", "repacked"),
        ("hopper", "3.11", "built"),
        ("hopper", "3.12", "repacked"),
    ]
    found = rows(locked.project)
    assert found[2]["cache"] == {"hits": SOURCES, "misses": 1}
    assert found[2]["shared"] == ["source 0.3.16", "CUDA 13.1", f"{SOURCES} objects"]
    for name, arch in (("rtx50", "sm_120"), ("hopper", "sm_90")):
        facts = json.loads((locked.root / "build" / name / "facts.json").read_text())["facts"]
        sass = [lib["device"]["sass"] for lib in facts["libraries"] if lib["device"]]
        assert sass == [{arch: 1}]


MERGED = """
if(GGML_CUDA)
    file(GLOB more ${CMAKE_CURRENT_SOURCE_DIR}/*.cu)
    target_sources(ggml-cuda PRIVATE ${more})
endif()
"""


def with_more_cuda(source: Path) -> None:
    """Add three more GPU files with a kernel and a function each; two kernels have one name."""
    with_cuda(source)
    ggml = source / "vendor" / "llama.cpp" / "ggml"
    with (ggml / "CMakeLists.txt").open("a", encoding="utf-8") as stream:
        stream.write(MERGED)
    for name, own in (("one", "a"), ("two", "b"), ("three", "a")):
        (ggml / f"{name}.cu").write_text(
            f"static __global__ void {own}(int *p) {{ *p = 1; }}\n"
            f'extern "C" void told_{name}(int *p) {{ {own}<<<1, 1>>>(p); }}\n',
            encoding="utf-8",
        )


def test_a_unity_build_group_is_compiled_as_one_file(built: Checkout, tmp_path: Path) -> None:
    root = tmp_path / ODD
    locked = lock_cuda(built, root, with_more_cuda)
    sources = root / "sessions" / "data" / "knowledge" / "sdists.toml"
    text = sources.read_text(encoding="utf-8")
    row = re.compile(r"^merged = \[\n(    .*\n)+\]$", re.MULTILINE)
    assert row.search(text)
    # "four" does not exist, like a file of an edited source.
    sources.write_text(row.sub('merged = [["one", "two", "four"]]', text), encoding="utf-8")
    locked.nox("verify", "--target", "rtx50").well()
    steps = json.loads((root / "build" / "rtx50" / "steps.json").read_text())["steps"]["steps"]
    compiled = {Path(step["output"]).name for step in steps if step["kind"] == "cuda"}
    assert compiled == {"ggml-cuda.cu.o", "one-and-more.cu.o", "three.cu.o"}
    facts = json.loads((root / "build" / "rtx50" / "facts.json").read_text())["facts"]
    (library,) = [lib for lib in facts["libraries"] if lib["device"]]
    assert library["device"]["sass"] == {"sm_120": 3}
    (wheel,) = (root / "wheels" / "rtx50").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        binary = archive.read("llama_cpp/lib/libggml-cuda.so")
    for name in ("one", "two", "three"):
        assert f"told_{name}".encode() in binary
    # Whoever writes the list sees that two files do not fit into one group.
    sources.write_text(row.sub('merged = [["one", "two", "three"]]', text), encoding="utf-8")
    locked.nox("wheel", "--target", "rtx50").badly("has already been defined")
