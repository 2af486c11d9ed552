"""The finished wheel: what it must hold, whether it is current, and how it gets into its folder."""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions import wheel
from sessions.core import records, redist
from sessions.core.context import Context
from sessions.core.errors import Problem
from sessions.core.model import Host
from tests import fakes

INFO = "llama_cpp_python-0.3.16.dist-info"
CPU = [
    "llama_cpp/__init__.py",
    "llama_cpp/server/app.py",
    "llama_cpp/lib/libggml.so",
    "llama_cpp/lib/libggml-base.so",
    "llama_cpp/lib/libggml-cpu.so",
    "llama_cpp/lib/libllama.so",
    "llama_cpp/lib/libmtmd.so",
    "llama_cpp/lib/libgomp.so.1",
    f"{INFO}/METADATA",
    f"{INFO}/licenses/LICENSE.md",
    f"{INFO}/RECORD",
]
CUDA = [*CPU, "llama_cpp/_cuda_runtime.py", "llama_cpp/lib/libggml-cuda.so"]
NAME = fakes.wheel().file


# What delvewheel brings into a wheel for Windows, and how it names that.
BROUGHT = ("msvcp140.dll", "vcomp140.dll")
BUNDLED = [f"llama_cpp_python.libs/{n}-{'0f' * 16}.dll" for n in ("msvcp140", "vcomp140")]


def problems(members: list[str], *, cuda: bool = True, brought: Sequence[str] = ()) -> list[str]:
    return wheel.contents_problems(members, cuda=cuda, brought=brought)


def test_a_good_cuda_wheel_has_no_problem() -> None:
    assert problems(CUDA) == []


def test_a_good_cpu_wheel_has_no_problem() -> None:
    assert problems(CPU, cuda=False) == []


def windows() -> list[str]:
    ours = [
        name.replace("/lib/lib", "/lib/").removesuffix(".so") + ".dll"
        if name.endswith(".so")
        else name
        for name in CUDA
        if "gomp" not in name
    ]
    return [*ours, "llama_cpp/_bundled_dlls.py", *BUNDLED, f"{INFO}/DELVEWHEEL"]


def test_a_windows_wheel_has_libraries_of_other_names_and_microsofts_runtime() -> None:
    assert "llama_cpp/lib/ggml-cuda.dll" in windows()
    assert problems(windows(), brought=BROUGHT) == []


def test_of_a_wheel_for_any_python_delvewheel_leaves_a_list_too() -> None:
    order = "llama_cpp_python.libs/.load-order-llama_cpp_python-0.3.36"
    assert problems([*windows(), order], brought=BROUGHT) == []


@pytest.mark.parametrize("library", BUNDLED)
def test_a_windows_wheel_without_microsofts_runtime_is_refused(library: str) -> None:
    less = [name for name in windows() if name != library]
    name = redist.original(library)
    assert problems(less, brought=BROUGHT) == [f"0 copies of {name} instead of one"]


@pytest.mark.parametrize("name", ["cublas64_13.dll", "vcruntime140.dll", "libgomp-1.dll"])
def test_a_windows_wheel_that_brings_more_is_refused(name: str) -> None:
    stem = name.removesuffix(".dll")
    more = [*windows(), f"llama_cpp_python.libs/{stem}-{'1e' * 16}.dll"]
    assert problems(more, brought=BROUGHT) == [f"not asked for: {name}"]


def test_a_windows_wheel_whose_libraries_nothing_loads_is_refused() -> None:
    less = [name for name in windows() if "_bundled_dlls" not in name]
    assert problems(less, brought=BROUGHT) == ["missing: llama_cpp/_bundled_dlls.py"]


def test_on_linux_delvewheels_folder_is_a_stray() -> None:
    assert problems([*CUDA, BUNDLED[0]]) == [f"stray: {BUNDLED[0]}"]


@pytest.mark.parametrize(
    "stray",
    [
        "lib/libllama.a",
        "include/llama.h",
        "bin/llama-mtmd-cli",
        "llama_cpp_python.libs/libgomp-a34b3233.so.1",
        "llama_cpp.py",
    ],
)
def test_what_lies_outside_the_package_is_a_stray(stray: str) -> None:
    assert problems([*CUDA, stray]) == [f"stray: {stray}"]


def test_a_library_that_is_there_twice_is_counted() -> None:
    assert problems([*CUDA, "llama_cpp/lib64/libllama.so"]) == ["2 copies of llama instead of one"]


@pytest.mark.parametrize("library", ["ggml", "ggml-base", "ggml-cpu", "llama", "mtmd"])
def test_a_missing_library_is_named(library: str) -> None:
    less = [name for name in CPU if name != f"llama_cpp/lib/lib{library}.so"]
    assert problems(less, cuda=False) == [f"0 copies of {library} instead of one"]


def test_a_cuda_wheel_without_its_cuda_is_refused() -> None:
    assert problems(CPU) == [
        "0 copies of ggml-cuda instead of one",
        "missing: llama_cpp/_cuda_runtime.py",
    ]


def test_every_problem_is_found_and_not_the_first_alone() -> None:
    assert problems(["x.so"], cuda=False) == [
        "stray: x.so",
        *(f"0 copies of {name} instead of one" for name in wheel.LIBRARIES),
    ]


def test_an_empty_wheel_is_refused() -> None:
    assert len(problems([], cuda=False)) == len(wheel.LIBRARIES)


def test_a_versioned_name_is_another_copy_of_its_library() -> None:
    # What upstream's install leaves, and a zip holds thrice.
    assert problems([*CUDA, "llama_cpp/lib/libllama.so.0"]) == ["2 copies of llama instead of one"]


def test_a_cpu_wheel_with_the_cuda_library_of_another_build_is_refused() -> None:
    assert problems([*CPU, "llama_cpp/lib/libggml-cuda.so"], cuda=False) != []


def with_records(root: Path, *words: str, host: Host | None = None) -> Context:
    ctx = fakes.context(root, *words)
    records.write(ctx.record("configure"), "configure", fakes.build_env())
    records.write(ctx.record("probe"), "probe", fakes.chain(host=host or fakes.host()))
    records.write(ctx.record("source"), "source", fakes.source())
    return ctx


def test_a_current_wheel_is_not_built_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = with_records(tmp_path)
    ctx.wheels.mkdir(parents=True)
    (ctx.wheels / NAME).write_bytes(b"wheel")
    sha256 = records.file_sha256(ctx.wheels / NAME)
    records.write(ctx.record("wheel"), "wheel", fakes.wheel(sha256=sha256))
    wheel.main(ctx)
    assert f"up to date, {ctx.wheels / NAME}" in capsys.readouterr().out


def test_a_disk_that_cannot_hold_a_build_is_said_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the probe saw counts for nothing: since then 1.3 GB may have been downloaded."""
    ctx = with_records(tmp_path, host=fakes.host(disk_free_mib=100000))
    asked: list[Path] = []

    def usage(folder: Path) -> Any:
        asked.append(folder)
        return types.SimpleNamespace(free=500 << 20)

    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(Problem) as caught:
        wheel.main(ctx)
    assert (caught.value.id, asked) == ("disk-too-small", [ctx.build])
    assert not (ctx.build / "src").exists()
