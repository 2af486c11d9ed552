"""The loader that ships in a CUDA wheel, with a machine of fakes under it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.fakes import ROOT

PATH = ROOT / "sessions" / "overlay" / "_cuda_runtime.py"
SOURCE = PATH.read_text(encoding="utf-8")


class NotFound(RuntimeError):
    """As cuda-pathfinder raises it."""


@dataclass(frozen=True)
class Found:
    abs_path: str
    found_via: str


@dataclass
class Machine:
    """What the fakes have, and the order in which they were asked."""

    driver: bool = True
    libraries: tuple[str, ...] = ("cudart", "cublasLt", "cublas")
    error: type[Exception] = NotFound

    def __post_init__(self) -> None:
        self.asked: list[str] = []

    def cdll(self, name: str) -> object:
        self.asked.append(name)
        if not self.driver:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return object()

    def load(self, name: str) -> Found:
        self.asked.append(name)
        if name not in self.libraries:
            raise self.error(f'Failure finding "lib{name}.so":\n   No such file:\n   listed\n')
        return Found(f"/site-packages/nvidia/cu13/lib/lib{name}.so.13", "site-packages")


Load = Callable[[Machine], ModuleType]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Load:
    """The module as it ships, on a machine."""

    def make(machine: Machine) -> ModuleType:
        pathfinder = ModuleType("cuda.pathfinder")
        pathfinder.__dict__.update(
            DynamicLibNotFoundError=NotFound, load_nvidia_dynamic_lib=machine.load
        )
        monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
        monkeypatch.setattr("ctypes.CDLL", machine.cdll)
        module = ModuleType("_cuda_runtime")
        text = SOURCE.replace("@CUDA@", "13.1").replace("@MINIMUM_DRIVER@", "580")
        exec(compile(text, str(PATH), "exec"), module.__dict__)
        return module

    return make


def missing(module: ModuleType) -> list[str]:
    """The lines of the one error."""
    with pytest.raises(ImportError) as caught:
        module.load()
    return str(caught.value).splitlines()


def test_with_everything_there_it_says_what_was_loaded_and_from_where(loader: Load) -> None:
    module = loader(Machine())
    module.load()
    lib = "/site-packages/nvidia/cu13/lib"
    assert module.loaded == {
        "cudart": (f"{lib}/libcudart.so.13", "site-packages"),
        "cublasLt": (f"{lib}/libcublasLt.so.13", "site-packages"),
        "cublas": (f"{lib}/libcublas.so.13", "site-packages"),
    }


def test_each_library_comes_after_those_it_needs(loader: Load) -> None:
    machine = Machine()
    loader(machine).load()
    assert machine.asked[1:] == ["cudart", "cublasLt", "cublas"]


@pytest.mark.parametrize(("system", "name"), [("linux", "libcuda.so.1"), ("win32", "nvcuda.dll")])
def test_the_driver_is_looked_for_by_the_name_it_has(
    system: str, name: str, loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    machine = Machine()
    loader(machine).load()
    assert machine.asked[0] == name


@pytest.mark.parametrize("there", [(), ("bin",), ("lib",), ("bin", "lib")], ids="-".join)
def test_on_windows_a_toolkit_that_is_gone_is_named_before_upstream_trips_over_it(
    there: tuple[str, ...], loader: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    loader(Machine()).load()
    monkeypatch.setattr("sys.platform", "win32")
    gone = [name for name in ("bin", "lib") if name not in there]
    if not gone:
        loader(Machine()).load()
        return
    (_, *told) = missing(loader(Machine()))
    expected = "CUDA_PATH names a toolkit that is not whole; clear that variable"
    assert len(told) == len(gone)
    for name, line in zip(gone, told, strict=True):
        assert line.startswith(f"  - {tmp_path / name}: {expected}")


def test_without_anything_one_error_names_each_thing_and_how_to_get_it(
    loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    lines = missing(loader(Machine(driver=False, libraries=())))
    assert lines[0] == "llama_cpp was built for CUDA 13.1 and cannot start without:"
    assert lines[1].startswith(
        "  - the NVIDIA driver (libcuda.so.1): install a driver of release 580 or newer from "
        "https://www.nvidia.com/drivers ["
    )
    install = "pip install nvidia-cuda-runtime nvidia-cublas ["
    assert [line.partition("[")[0] + "[" for line in lines[2:]] == [
        f"  - cudart: {install}",
        f"  - cublasLt: {install}",
        f"  - cublas: {install}",
    ]


def test_a_missing_driver_alone_is_the_only_complaint(loader: Load) -> None:
    module = loader(Machine(driver=False))
    lines = missing(module)
    assert len(lines) == 2
    assert "the NVIDIA driver" in lines[1]
    assert set(module.loaded) == {"cudart", "cublasLt", "cublas"}


def test_one_missing_library_is_the_only_complaint(loader: Load) -> None:
    module = loader(Machine(libraries=("cudart",)))
    lines = missing(module)
    assert [line.split(":")[0] for line in lines[1:]] == ["  - cublasLt", "  - cublas"]
    assert list(module.loaded) == ["cudart"]


def test_the_reason_of_the_pathfinder_is_told_in_one_line(loader: Load) -> None:
    (_, line) = missing(loader(Machine(libraries=("cudart", "cublasLt"))))
    assert line.endswith('[Failure finding "libcublas.so": No such file: listed]')


@pytest.mark.parametrize("error", [NotFound, RuntimeError, OSError])
def test_a_library_that_is_there_but_does_not_load_is_told_too(
    error: type[Exception], loader: Load
) -> None:
    lines = missing(loader(Machine(libraries=("cudart", "cublasLt"), error=error)))
    assert lines[1].startswith("  - cublas: pip install")


def test_an_error_that_nobody_foresaw_is_not_hidden(loader: Load) -> None:
    with pytest.raises(ZeroDivisionError):
        loader(Machine(libraries=(), error=ZeroDivisionError)).load()


def test_without_the_pathfinder_it_says_how_to_get_it(
    loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loader(Machine(driver=False))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    lines = missing(module)
    assert len(lines) == 3
    assert "the NVIDIA driver" in lines[1]
    assert lines[2].startswith("  - cuda-pathfinder: pip install cuda-pathfinder [")


def test_to_import_it_loads_nothing(loader: Load) -> None:
    machine = Machine()
    assert loader(machine).loaded == {}
    assert machine.asked == []


def test_it_is_python_3_8_as_upstream_supports() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))


def test_what_python_3_8_does_not_know_would_be_seen() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1: pass\n", feature_version=(3, 8))


def test_both_blanks_are_there_to_be_filled_in() -> None:
    assert SOURCE.count("@CUDA@") == 1
    assert SOURCE.count("@MINIMUM_DRIVER@") == 1


@pytest.mark.parametrize(
    ("path", "major", "fits"),
    [
        ("/venv/nvidia/cu13/lib/libcudart.so.13", "13", True),
        ("/usr/local/cuda/lib64/libcudart.so.13.0.96", "13", True),
        ("/venv/nvidia/cuda_runtime/lib/libcudart.so.12", "13", False),
        (r"C:\venv\nvidia\cu13\bin\x86_64\cublas64_13.dll", "13", True),
        (r"C:\CUDA\v12.8\bin\cublas64_12.dll", "13", False),
    ],
)
def test_a_library_says_its_cuda_major(loader: Load, path: str, major: str, *, fits: bool) -> None:
    assert loader(Machine()).of_major(path, major) is fits


def test_a_runtime_of_another_cuda_major_is_missing_not_loaded_in_silence(loader: Load) -> None:
    module = loader(Machine())
    module.CUDA = "14.0"  # type: ignore[attr-defined]
    with pytest.raises(ImportError) as error:
        module.load()
    assert "cudart of CUDA 14: pip install nvidia-cuda-runtime" in str(error.value)
    assert "libcublas.so.13" in str(error.value)
