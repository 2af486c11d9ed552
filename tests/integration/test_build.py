"""Real builds of the small upstream: the wheel, its record, caches, and errors in the source."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sessions.build import ninja_log
from sessions.build.record_types import Timeline
from sessions.shared import errors, records
from tests.integration.conftest import (
    LIBRARIES,
    MINI,
    SOURCES,
    Checkout,
    snapshot,
    which,
    write_program,
)


def test_the_wheel_contains_each_library_once_and_nothing_else(built: Checkout) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/")]
    shipped = sorted(n for n in members if not n.startswith("llama_cpp_python-0.0.1.dist-info/"))
    libraries = [f"llama_cpp/lib/{name}" for name in (*LIBRARIES, "libgomp.so.1")]
    names = ("__init__.py", "_backends.py", "_doctor.py", "llama_cpp.py", "py.typed")
    modules = [f"llama_cpp/{name}" for name in names]
    assert shipped == sorted([*modules, *libraries])
    assert len(built.compiled()) == SOURCES  # the tools are not even compiled


def test_libraries_search_only_their_own_folder(built: Checkout, tmp_path: Path) -> None:
    readelf = which("readelf", built.project.env["PATH"])
    for name, data in built.libraries().items():
        (tmp_path / name).write_bytes(data)
        words = [readelf, "-d", str(tmp_path / name)]
        output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        paths = re.findall(r"\((?:RPATH|RUNPATH)\)\s.*\[(.*)\]", output)
        assert paths == ["$ORIGIN"], f"{name}: {output}"
        needed = re.findall(r"\(NEEDED\)\s.*\[(.*)\]", output)
        assert not set(needed) & set(LIBRARIES), f"{name} needs one by its name: {output}"
        assert f"[$ORIGIN/{name}]" in output  # its SONAME, by which others come to need it


def copies(libraries: Mapping[str, bytes], folder: Path) -> int:
    """The value of GGML_SCHED_MAX_COPIES with which libggml-base was compiled."""
    path = folder / "libggml-base.so"
    path.write_bytes(libraries[path.name])
    code = f"import ctypes; print(ctypes.CDLL({str(path)!r}).ggml_sched_copies())"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return int(output.stdout)


def test_a_cmake_option_reaches_the_compiler_and_the_sbom(
    built: Checkout, mini: Checkout, tmp_path: Path
) -> None:
    assert copies(built.libraries(), tmp_path) == 4
    option = "GGML_SCHED_MAX_COPIES=7"
    ran = mini.start("--cmake", option).end(timeout=600).well()
    label = f"{mini.label}+cmake-{option.replace('=', '-')}"
    (wheel,) = (mini.project.root / "wheels" / label).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        libraries = {
            name.rpartition("/")[2]: archive.read(name) for name in names if "/lib/" in name
        }
        bill = next(archive.read(name) for name in names if name.endswith(".cdx.json"))
    assert copies(libraries, tmp_path) == 7
    assert b"GGML_SCHED_MAX_COPIES" in bill
    assert label in ran.output


def test_an_option_that_no_cmake_file_has_is_refused_before_anything_is_compiled(
    mini: Checkout,
) -> None:
    ran = mini.nox("--cmake", "GGML_SCHED_COPIES=7")
    assert ran.code == errors.USAGE, ran.output
    assert "GGML_SCHED_COPIES" in ran.output
    assert not list((mini.project.root / "build").glob("*/tree"))


@pytest.mark.parametrize("how", ["none", "LD_LIBRARY_PATH", "RTLD_LOCAL", "RTLD_GLOBAL"])
def test_the_wheel_works_beside_other_libraries_of_the_same_names(
    built: Checkout, tmp_path: Path, how: str
) -> None:
    """Those of a llama.cpp in LD_LIBRARY_PATH, or of a package that was imported before."""
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path / "site")
    other = tmp_path / "other"
    other.mkdir()
    (other / "other.c").write_text("int other(void) { return 0; }\n")
    before = []
    for name in LIBRARIES:
        words = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(other / name)]
        subprocess.run([*words, str(other / "other.c")], check=True)
        before.append(f"ctypes.CDLL({str(other / name)!r}, mode=ctypes.{how})")
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    if not how.startswith("RTLD"):
        before = []
    if how == "LD_LIBRARY_PATH":
        env[how] = str(other)
    code = "\n".join(["import ctypes", *before, "import llama_cpp; print(llama_cpp.answer())"])
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, check=False, capture_output=True, text=True
    )
    assert done.stdout == "42\n", done.stderr


def test_libraries_name_no_folder_of_the_build_machine(built: Checkout) -> None:
    for name, data in built.libraries().items():
        assert str(built.project.root.parent).encode() not in data, name
    assert b"src/vendor/llama.cpp/tools/mtmd/mtmd.cpp" in built.libraries()["libmtmd.so"]


def test_a_stale_library_in_the_checkout_is_neither_shipped_nor_deleted(built: Checkout) -> None:
    stale = "llama_cpp/lib/libllama.so"
    text = (MINI / stale).read_bytes()
    assert (built.path / stale).read_bytes() == text
    assert built.member(stale) != text
    assert built.member(stale).startswith(b"\x7fELF")


def test_the_record_describes_the_wheel(built: Checkout) -> None:
    record = built.record  # its sha256 is compared with the file's
    assert record["size"] == built.wheel.stat().st_size
    assert record["target"] == built.label
    assert record["version"] == "0.0.1"
    assert record["steps"] == SOURCES + len(LIBRARIES)
    assert record["source_edited"] is True  # not a locked release


def test_the_timeline_is_recorded(built: Checkout) -> None:
    line = steps(built)
    assert len(line.steps) == SOURCES + len(LIBRARIES)
    assert line.earlier == 0
    assert line.cache == built.record["cache"]
    assert all(0 <= step.start <= step.end for step in line.steps)
    kinds = [step.kind for step in line.steps]
    assert (kinds.count("c") + kinds.count("c++"), kinds.count("link")) == (SOURCES, len(LIBRARIES))
    # A file is compiled, then each library linked that needs the one before.
    assert [name.rsplit("/", 1)[-1] for name in line.critical][-2:] == [
        "libllama.so",
        "libmtmd.so",
    ]
    timing = built.record["timing"]
    used = built.record["cpu_seconds"] / built.record["wall_seconds"] / line.jobs
    assert timing.pop("cpu_efficiency") == pytest.approx(used, abs=1e-3)
    assert timing == ninja_log.summary(line)
    assert 0 < timing["efficiency"] <= 1
    assert timing["seconds"] <= built.record["wall_seconds"]


def steps(checkout: Checkout) -> Timeline:
    return records.need(checkout.build / "steps.json", "steps", Timeline)


def test_a_second_run_is_up_to_date_and_fast(built: Checkout) -> None:
    before = snapshot(built.wheels)
    log = (built.build / "wheel.log").stat().st_mtime_ns
    used = []
    for _ in range(3):
        start = cpu_seconds_of_children()
        assert "wheel: up to date" in built.nox().well().output
        used.append(round(cpu_seconds_of_children() - start, 1))
    assert snapshot(built.wheels) == before
    assert (built.build / "wheel.log").stat().st_mtime_ns == log
    # Other processes on the machine make a run longer, but do not change its CPU time.
    print(f"up to date in {used} CPU seconds")
    assert min(used) < 3, used


def cpu_seconds_of_children() -> float:
    """The CPU time of all ended programs that this process has started."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_edited_source_compiles_only_that_file(mini: Checkout) -> None:
    mini.nox().well()
    assert b"greeting of the first edition" in mini.libraries()["libmtmd.so"]
    before = mini.record
    mini.edit("vendor/llama.cpp/tools/mtmd/clip.cpp", "first edition", "second edition")
    mini.nox().well()
    assert mini.compiled() == ["clip.cpp"]
    assert mini.record["steps"] == 2  # compile, link
    assert [step.kind for step in steps(mini).steps] == ["c++", "link"]
    assert steps(mini).earlier == SOURCES + len(LIBRARIES) - 2
    assert b"greeting of the second edition" in mini.libraries()["libmtmd.so"]
    assert mini.record["fingerprint"] != before["fingerprint"]


def test_a_run_that_compiles_nothing_keeps_the_timeline(mini: Checkout) -> None:
    mini.nox().well()
    before = steps(mini)
    mini.edit("llama_cpp/__init__.py", "A miniature", "A small copy")
    mini.nox().well()
    assert (mini.record["steps"], mini.record["timing"]) == (0, {})
    assert steps(mini) == before


def test_a_compile_error_is_shown_and_the_old_wheel_is_kept(mini: Checkout) -> None:
    mini.nox().well()
    before = snapshot(mini.wheels)
    mini.edit("vendor/llama.cpp/src/llama-model.cpp", "size()", "size_of_it()")
    run = mini.nox().badly(
        "The build failed; the first error is below.", str(mini.build / "wheel.log")
    )
    assert re.search(r"llama-model\.cpp:6:\d+: error: .*size_of_it", run.output), run.output
    assert snapshot(mini.wheels) == before
    # The next run does not take the old wheel for the new one.
    mini.nox().badly("size_of_it")
    mini.edit("vendor/llama.cpp/src/llama-model.cpp", "size_of_it()", "size()")
    mini.nox().well()


def test_a_compile_error_in_the_first_build_leaves_no_wheel(mini: Checkout) -> None:
    mini.edit("vendor/llama.cpp/ggml/src/ggml-alloc.c", "int ggml_alloc", "nit ggml_alloc")
    mini.nox().badly("ggml-alloc.c:3:1: error: unknown type name")
    assert not mini.wheels.exists() or not list(mini.wheels.iterdir())


def test_an_error_of_cmake_is_shown(mini: Checkout) -> None:
    mini.edit("CMakeLists.txt", "add_subdirectory(vendor/llama.cpp)", "add_subdirectory(gone)")
    mini.nox().badly("CMake Error at CMakeLists.txt", "gone")


def test_a_changed_openmp_runtime_is_shipped(mini: Checkout, tmp_path: Path) -> None:
    """As an update of libgomp1 by the distribution: the release of the compiler is the same."""
    real = {name: which(name, mini.project.env["PATH"]) for name in ("g++", "gcc")}
    words = [real["gcc"], "-print-file-name=libgomp.so.1"]
    path = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    runtime = tmp_path / "libgomp.so.1"
    runtime.write_bytes(Path(path).read_bytes())
    for name, program in real.items():
        text = f'#!/bin/sh\ncase "$*" in *libgomp.so.1*) echo "{runtime}" ;; '
        write_program(tmp_path / name, text + f'*) exec {program} "$@" ;; esac\n')
    options = ("--compiler", str(tmp_path / "g++"), "--glibc", "host")
    mini.nox(*options).well()
    assert "wheel: up to date" in mini.nox(*options).well().output
    (wheel,) = mini.wheels.parent.glob("*glibchost*/*.whl")
    before = zipfile.ZipFile(wheel).read("llama_cpp/lib/libgomp.so.1")
    runtime.write_bytes(runtime.read_bytes() + b"a later revision")
    run = mini.nox(*options).well()
    assert "wheel: up to date" not in run.output
    assert re.search(r"linked libgomp\.so\.1: \w+ then, \w+ now", run.output), run.output
    assert zipfile.ZipFile(wheel).read("llama_cpp/lib/libgomp.so.1") != before


def test_cuda_files_in_a_cpu_build_are_refused_before_the_compilation(
    mini: Checkout,
) -> None:
    stray = "add_library(stray STATIC stray.cu)\nset_source_files_properties(stray.cu PROPERTIES "
    stray += "LANGUAGE CXX)\nset_target_properties(stray PROPERTIES LINKER_LANGUAGE CXX)\n"
    mini.edit("CMakeLists.txt", "if(LLAMA_BUILD)\n", f"{stray}if(LLAMA_BUILD)\n")
    (mini.path / "stray.cu").write_text("int stray;\n")
    mini.nox().badly("other GPU architectures", "stray.cu")
    assert mini.compiled() == []
    assert not mini.wheels.exists() or not list(mini.wheels.iterdir())


NONSENSE = {
    "CC": "/nonsense/cc",
    "CXX": "/nonsense/c++",
    "CUDACXX": "/nonsense/nvcc",
    "CFLAGS": "-fnonsense",
    "CXXFLAGS": "-fnonsense",
    "CPPFLAGS": "-fnonsense",
    "LDFLAGS": "-Wl,--nonsense",
    "CPATH": "/nonsense",
    "LIBRARY_PATH": "/nonsense",
    "CMAKE_ARGS": "-DLLAMA_BUILD=OFF",
    "CMAKE_GENERATOR": "Nonsense Makefiles",
    "CMAKE_BUILD_TYPE": "Debug",
    "CMAKE_PREFIX_PATH": "/nonsense",
    "CMAKE_TOOLCHAIN_FILE": "/nonsense.cmake",
    "SKBUILD_CMAKE_ARGS": "-DLLAMA_BUILD=OFF",
    "SKBUILD_CMAKE_BUILD_TYPE": "Debug",
    "SKBUILD_CMAKE_DEFINE": "LLAMA_BUILD=OFF",
    "SKBUILD_BUILD_DIR": "/nonsense",
    "SKBUILD_WHEEL_PACKAGES": "nonsense",
    "NINJA_STATUS": "nonsense ",
    "MAKEFLAGS": "--nonsense",
    "CUDA_PATH": "/nonsense",
    "GGML_CUDA": "1",
    "FORCE_CMAKE": "1",
}


def test_the_callers_environment_does_not_reach_the_build(mini: Checkout) -> None:
    mini.nox("--cache", "none").well()
    clean, libraries = mini.record, mini.libraries()
    run = mini.nox("--cache", "none", "--fresh", env=NONSENSE).well()
    assert len(mini.compiled()) == SOURCES, "not built again"
    assert mini.record["fingerprint"] == clean["fingerprint"]
    assert mini.record["sha256"] == clean["sha256"]
    assert mini.libraries() == libraries
    assert "CFLAGS" in run.output  # the user is told that it has no effect


def test_libraries_do_not_depend_on_the_cache_and_the_folder(
    built: Checkout, mini: Checkout
) -> None:
    mini.nox().well()
    assert mini.record["cache"]["hits"] == SOURCES  # from the first build, in another folder
    cached = mini.libraries()
    # The cache changes no byte, so a wheel that was built with it is up to date.
    assert "wheel: up to date" in mini.nox("--cache", "none").well().output
    mini.nox("--cache", "none", "--fresh").well()
    assert mini.record["cache"] == {}
    assert len(mini.compiled()) == SOURCES
    for name, data in mini.libraries().items():
        assert data == cached[name], name
        assert data == built.libraries()[name], name


@pytest.mark.parametrize("which", ["all targets", "this target"])
def test_a_build_folder_on_another_disk_gives_the_same_bytes(
    built: Checkout, mini: Checkout, tmp_path: Path, which: str
) -> None:
    """CMake uses the real paths of folders, so the options that remove them must, too."""
    elsewhere = tmp_path / "another disk ñ"
    link = mini.build.parent if which == "all targets" else mini.build
    link.parent.mkdir(exist_ok=True)
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    mini.nox("--cache", "none").well()
    assert mini.libraries() == built.libraries()
    assert mini.record["sha256"] == built.record["sha256"]
    assert link.is_symlink()
    assert any(path.is_dir() for path in (elsewhere / "src", elsewhere / mini.label / "src"))
