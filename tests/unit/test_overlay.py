"""``_cuda_runtime.py``, with fakes of ctypes and cuda-pathfinder. test_loader.py uses real ones."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.fakes import ROOT

OVERLAY = ROOT / "sessions" / "build" / "overlay"
PATH = OVERLAY / "_cuda_runtime.py"
SOURCE = PATH.read_text(encoding="utf-8")


class NotFound(RuntimeError):
    """The error of cuda-pathfinder."""


@dataclass(frozen=True)
class Found:
    abs_path: str
    found_via: str


@dataclass
class Machine:
    """What the fakes contain, and the order in which they were asked."""

    driver: bool = True
    libraries: tuple[str, ...] = ("cudart", "cublasLt", "cublas")
    error: type[Exception] = NotFound
    files: tuple[str, ...] = ()  # that load by their path
    in_process: tuple[str, ...] = ()
    windows: bool = False
    major: int = 13  # of what cuda-pathfinder returns
    keeps: tuple[str, ...] = ()  # variables of the environment

    def __post_init__(self) -> None:
        self.asked: list[str] = []

    def cdll(self, name: str, mode: int = 0) -> object:
        if mode == os.RTLD_NOLOAD:
            if name in self.in_process:
                return object()
            raise OSError(f"{name}: cannot open shared object file")
        self.asked.append(name)
        driver = self.driver and name in ("libcuda.so.1", "nvcuda.dll")
        if not driver and name not in self.files:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return object()

    def windll(self, _: str) -> object:
        kernel = ModuleType("kernel32")

        def handle(name: object) -> int:
            return int(getattr(name, "value", "") in self.in_process)

        kernel.__dict__["GetModuleHandleW"] = handle
        return kernel

    def load(self, name: str) -> Found:
        self.asked.append(name)
        if name not in self.libraries:
            raise self.error(f'Failure finding "lib{name}.so":\n   No such file:\n   listed\n')
        if self.windows:
            return Found(rf"C:\CUDA\bin\x64\{name}64_13.dll", "CUDA_PATH")
        return Found(f"/usr/local/cuda/lib64/lib{name}.so.{self.major}", "system-search")


Load = Callable[[Machine], ModuleType]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """The module as it is shipped, on Linux unless the test sets another system."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.RTLD_NOLOAD", 4, raising=False)

    def make(machine: Machine) -> ModuleType:
        pathfinder = ModuleType("cuda.pathfinder")
        pathfinder.__dict__.update(
            DynamicLibNotFoundError=NotFound, load_nvidia_dynamic_lib=machine.load
        )
        monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
        monkeypatch.setattr("ctypes.CDLL", machine.cdll)
        monkeypatch.setattr("ctypes.WinDLL", machine.windll, raising=False)
        for variable in ("CONDA_PREFIX", "CUDA_PATH", "CUDA_HOME"):
            if variable not in machine.keeps:
                monkeypatch.delenv(variable, raising=False)
        module = ModuleType("_cuda_runtime")
        module.__dict__["__file__"] = str(tmp_path / "site" / "llama_cpp" / PATH.name)
        text = SOURCE.replace("@CUDA@", "13.1").replace("@MINIMUM_DRIVER@", "580")
        exec(compile(text, str(PATH), "exec"), module.__dict__)
        return module

    return make


def missing(module: ModuleType) -> list[str]:
    """The lines of the ImportError."""
    with pytest.raises(ImportError) as caught:
        module.load()
    return str(caught.value).splitlines()


def test_with_everything_present_each_library_is_loaded_after_those_it_needs(loader: Load) -> None:
    machine = Machine()
    module = loader(machine)
    assert (module.loaded, machine.asked) == ({}, [])  # importing it loads nothing
    module.load()
    assert machine.asked == ["libcuda.so.1", "cudart", "cublasLt", "cublas"]
    lib = "/usr/local/cuda/lib64"
    assert module.loaded == {
        "cudart": (f"{lib}/libcudart.so.13", "system-search"),
        "cublasLt": (f"{lib}/libcublasLt.so.13", "system-search"),
        "cublas": (f"{lib}/libcublas.so.13", "system-search"),
    }


@pytest.mark.parametrize(("system", "name"), [("linux", "libcuda.so.1"), ("win32", "nvcuda.dll")])
def test_the_driver_has_another_name_on_each_system(
    system: str, name: str, loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    machine = Machine(windows=system == "win32")
    loader(machine).load()
    assert machine.asked[0] == name


@pytest.mark.parametrize("there", [(), ("bin",), ("lib",), ("bin", "lib")], ids="-".join)
def test_on_windows_missing_folders_of_cuda_path_are_named(
    there: tuple[str, ...], loader: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    loader(Machine(keeps=("CUDA_PATH",))).load()  # on Linux
    monkeypatch.setattr("sys.platform", "win32")
    module = loader(Machine(windows=True, keeps=("CUDA_PATH",)))
    absent = [name for name in ("bin", "lib") if name not in there]
    lines = missing(module)[1:] if absent else module.load() or []
    expected = "CUDA_PATH names a toolkit without this folder; clear that variable"
    assert [line.partition(", or")[0] for line in lines] == [
        f"  - {tmp_path / name}: {expected}" for name in absent
    ]


ALL = ("cudart", "cublasLt", "cublas")


@pytest.mark.parametrize("error", [NotFound, RuntimeError, OSError])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_error_names_each_missing_library_and_how_to_get_it(
    count: int, error: type[Exception], loader: Load
) -> None:
    module = loader(Machine(libraries=ALL[:count], error=error))
    first, *lines = missing(module)
    assert first == "llama_cpp was built for CUDA 13.1 and cannot start without:"
    install = "pip install nvidia-cuda-runtime nvidia-cublas ["
    assert [line.partition("[")[0] + "[" for line in lines] == [
        f"  - {name}: {install}" for name in ALL[count:]
    ]
    assert list(module.loaded) == list(ALL[:count])
    assert lines[-1].endswith('Failure finding "libcublas.so": No such file: listed]')


def test_without_a_driver_nothing_is_loaded(loader: Load) -> None:
    module = loader(Machine(driver=False, libraries=()))
    module.load()
    assert module.loaded == {}


def test_an_unexpected_error_is_not_hidden(loader: Load) -> None:
    with pytest.raises(ZeroDivisionError):
        loader(Machine(libraries=(), error=ZeroDivisionError)).load()


def test_without_cuda_pathfinder_the_error_names_it(
    loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loader(Machine())
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    lines = missing(module)
    assert len(lines) == 4
    for line in lines[1:]:
        assert "pip install nvidia-cuda-runtime nvidia-cublas [" in line
        assert "pip install cuda-pathfinder: " in line


WINDOWS = ("nvidia", "cu13", "bin", "x86_64")
LINUX = ("nvidia", "cu13", "lib")


@pytest.mark.parametrize(
    ("system", "parts", "file"),
    [("linux", LINUX, "lib{}.so.13"), ("win32", WINDOWS, "{}64_13.dll")],
)
def test_beside_the_package_comes_before_everything_else(
    system: str, parts: tuple[str, ...], file: str, loader: Load,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.platform", system)
    folder = (tmp_path / "site").joinpath(*parts)
    folder.mkdir(parents=True)
    paths = [folder / file.format(name) for name in ("cudart", "cublasLt", "cublas")]
    for path in paths:
        path.touch()
    machine = Machine(files=tuple(map(str, paths)), libraries=(), windows=system == "win32")
    module = loader(machine)
    module.load()
    assert machine.asked[1:] == [str(path) for path in paths]
    assert {how for _, how in module.loaded.values()} == {"beside the package"}


@pytest.mark.parametrize(("system", "file"), [("linux", "lib{}.so.13"), ("win32", "{}64_13.dll")])
def test_libraries_that_are_already_loaded_are_used(
    system: str, file: str, loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    names = tuple(file.format(name) for name in ("cudart", "cublasLt", "cublas"))
    machine = Machine(in_process=names, libraries=())
    module = loader(machine)
    module.load()
    assert len(machine.asked) == 1  # the driver
    assert [path for path, _ in module.loaded.values()] == list(names)


@pytest.mark.parametrize(
    ("system", "variable", "parts", "file"),
    [
        ("linux", "CONDA_PREFIX", ("lib",), "lib{}.so.13"),
        ("linux", "CUDA_HOME", ("lib64",), "lib{}.so.13"),
        ("win32", "CONDA_PREFIX", ("Library", "bin", "x64"), "{}64_13.dll"),
        ("win32", "CUDA_PATH", ("bin", "x64"), "{}64_13.dll"),
    ],
)
def test_if_pathfinder_returns_another_major_the_environment_is_searched(
    system: str, variable: str, parts: tuple[str, ...], file: str, loader: Load,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path.joinpath(*parts)
    folder.mkdir(parents=True)
    for name in ("bin", "lib"):
        (tmp_path / name).mkdir(exist_ok=True)
    paths = [folder / file.format(name) for name in ("cudart", "cublasLt", "cublas")]
    for path in paths:
        path.touch()
    machine = Machine(files=tuple(map(str, paths)), major=12, keeps=(variable,))
    module = loader(machine)
    module.load()
    assert [path for path, _ in module.loaded.values()] == [str(path) for path in paths]


OURS = sorted(OVERLAY.glob("*.py"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_it_is_python_3_8_as_upstream_supports(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_newer_syntax_than_python_3_8_is_found() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1: pass\n", feature_version=(3, 8))


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
def test_of_major(loader: Load, path: str, major: str, *, fits: bool) -> None:
    assert loader(Machine()).of_major(path, major) is fits


def test_a_runtime_of_another_cuda_major_is_an_error(loader: Load) -> None:
    (_, *lines) = missing(loader(Machine(major=12)))
    assert [line.split(":")[0] for line in lines] == ["  - cudart", "  - cublasLt", "  - cublas"]
    assert "found /usr/local/cuda/lib64/libcudart.so.12" in lines[0]
