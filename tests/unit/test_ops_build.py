"""Compiling and linking the operator test on both systems, and the wheels that it refuses."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from sessions.run import ops_build
from tests import fakes
from tests.problems import raises

SOURCE = Path("/s/vendor/llama.cpp/tests/test-backend-ops.cpp")
OBJECTS = [Path("/o/a.o")]


def wheel(folder: Path, version: str = "0.3.16", *libraries: str) -> Path:
    path = folder / f"llama_cpp_python-{version}-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        text = f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {version}\n"
        archive.writestr(f"llama_cpp_python-{version}.dist-info/METADATA", text)
        for name in libraries:
            archive.writestr(f"llama_cpp/lib/{name}", name)
    return path


@pytest.mark.parametrize("version", ["0.3.16", "0.3.16+cu131"])
def test_the_release_is_in_the_metadata(version: str, tmp_path: Path) -> None:
    assert ops_build.release(wheel(tmp_path, version)) == "0.3.16"


@pytest.mark.parametrize("version", ["0.3.15", "9.9.9"])
def test_an_unknown_release_is_refused(version: str, tmp_path: Path) -> None:
    with raises("ops-release-unknown"):
        ops_build.release(wheel(tmp_path, version))


def test_upstreams_file_is_compiled_with_our_header() -> None:
    words = ops_build.compile_command(
        fakes.compiler(), SOURCE, Path("/o/t.o"), [Path("/i")], header=True
    )
    assert words[0] == "/usr/bin/g++"
    assert words[words.index("-include") + 1] == str(ops_build.HEADER)
    assert words[-1] == str(SOURCE)
    assert not [word for word in words if word.startswith("-D")]


def test_the_reference_is_compiled_without_instruction_sets() -> None:
    source = Path("/s/ggml-cpu/quants.c")
    words = ops_build.compile_command(
        fakes.compiler(), source, Path("/o/q.o"), [Path("/i")], header=False
    )
    assert words[0] == "/usr/bin/gcc"
    assert {"-DGGML_CPU_GENERIC", "-DGGML_BACKEND_DL"} <= set(words)
    assert not [word for word in words if word.startswith(("-m", "-fopenmp"))]
    assert "-include" not in words


def test_the_commands_of_msvc() -> None:
    words = ops_build.compile_command(
        fakes.msvc(), SOURCE, Path("/o/t.o"), [Path("/i")], header=True
    )
    assert words[0].endswith("cl.exe")
    assert {f"/FI{ops_build.HEADER}", "/std:c++17", "/I/i", "/Fo/o/t.o"} <= set(words)
    linked = ops_build.link_command(
        fakes.msvc(), OBJECTS, Path("/w/ops.dll"), Path("/w/lib"), ("ggml", "ggml-base")
    )
    assert "/LD" in linked
    assert linked[linked.index("/link") :] == [
        "/link", "/LIBPATH:/w/lib", "ggml.lib", "ggml-base.lib",
    ]  # fmt: skip


def test_the_import_libraries_of_msvc() -> None:
    compiler = fakes.compiler(family="msvc", cxx="/vc/bin/cl.exe")
    assert ops_build.import_library(compiler, Path("/w/lib/ggml-base.def")) == [
        "/vc/bin/lib.exe", "/NOLOGO", "/MACHINE:X64", "/DEF:/w/lib/ggml-base.def",
        "/OUT:/w/lib/ggml-base.lib",
    ]  # fmt: skip


def test_a_missing_function_is_a_link_error() -> None:
    words = ops_build.link_command(
        fakes.compiler(), OBJECTS, Path("/w/ops.so"), Path("/w/lib"), ("ggml", "ggml-base")
    )
    assert {"-shared", "-Wl,-z,defs", "-L/w/lib", "-lggml", "-lggml-base"} <= set(words)


@pytest.mark.parametrize(
    ("output", "id_", "named"),
    [
        ("a.o: undefined reference to `ggml_roll'\n", "ops-functions-missing", "ggml_roll"),
        (
            "t.obj : error LNK2019: unresolved external symbol __imp_ggml_roll referenced in f",
            "ops-functions-missing",
            "ggml_roll",
        ),
        ("ld: cannot find -lggml", "ops-link-failed", "cannot find"),
    ],
)
def test_the_problem_follows_from_the_linkers_output(output: str, id_: str, named: str) -> None:
    problem = ops_build.not_linked("ops.so", output)
    assert problem.id == id_
    assert named in (problem.evidence or "")


@pytest.mark.parametrize(
    ("libraries", "missing"),
    [(["libggml.so"], "ggml-base"), (["ggml-base.dll"], "ggml"), (["libllama.so"], "ggml")],
)
def test_a_wheel_without_shared_libraries_of_ggml_is_refused(
    libraries: list[str], missing: str, tmp_path: Path
) -> None:
    with raises("ops-no-ggml") as caught:
        ops_build._extract(wheel(tmp_path, "0.3.16", *libraries), tmp_path / "lib")
    assert missing in caught.value.what


def test_only_the_libraries_of_ggml_are_extracted(tmp_path: Path) -> None:
    names = ["libggml.so", "libggml-base.so", "libggml-cuda.so", "libllama.so", "../x.so"]
    ops_build._extract(wheel(tmp_path, "0.3.16", *names), tmp_path / "lib")
    found = {path.name for path in (tmp_path / "lib").iterdir()}
    assert found == {"libggml.so", "libggml-base.so", "libggml-cuda.so"}


def test_the_device_of_the_reference_is_renamed(tmp_path: Path) -> None:
    path = tmp_path / ops_build.GGML / "src" / "ggml-cpu" / "ggml-cpu.cpp"
    path.parent.mkdir(parents=True)
    path.write_text('name() { return "CPU"; }')
    ops_build.rename_device(tmp_path)
    assert path.read_text() == 'name() { return "SCALAR"; }'
    with raises("ops-device-name"):
        ops_build.rename_device(tmp_path)
