"""Our modules in a wheel, with a machine of fakes under them; a real one: test_loader.py.

The loader of the CUDA runtime.
"""

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
    """The module as it ships, on a machine: Linux, unless the test says another."""
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
    """The lines of the one error."""
    with pytest.raises(ImportError) as caught:
        module.load()
    return str(caught.value).splitlines()


def test_with_everything_there_it_says_what_was_loaded_and_from_where(loader: Load) -> None:
    module = loader(Machine())
    module.load()
    lib = "/usr/local/cuda/lib64"
    assert module.loaded == {
        "cudart": (f"{lib}/libcudart.so.13", "system-search"),
        "cublasLt": (f"{lib}/libcublasLt.so.13", "system-search"),
        "cublas": (f"{lib}/libcublas.so.13", "system-search"),
    }


def test_each_library_comes_after_those_it_needs(loader: Load) -> None:
    machine = Machine()
    loader(machine).load()
    assert machine.asked == ["libcuda.so.1", "cudart", "cublasLt", "cublas"]


@pytest.mark.parametrize(("system", "name"), [("linux", "libcuda.so.1"), ("win32", "nvcuda.dll")])
def test_the_driver_is_looked_for_by_the_name_it_has(
    system: str, name: str, loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    machine = Machine(windows=system == "win32")
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
    loader(Machine(keeps=("CUDA_PATH",))).load()
    monkeypatch.setattr("sys.platform", "win32")
    windows = Machine(windows=True, keeps=("CUDA_PATH",))
    gone = [name for name in ("bin", "lib") if name not in there]
    if not gone:
        loader(windows).load()
        return
    (_, *told) = missing(loader(windows))
    expected = "CUDA_PATH names a toolkit without this folder; clear that variable"
    assert len(told) == len(gone)
    for name, line in zip(gone, told, strict=True):
        assert line.startswith(f"  - {tmp_path / name}: {expected}")


def test_without_anything_one_error_names_each_thing_and_how_to_get_it(
    loader: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    lines = missing(loader(Machine(libraries=())))
    assert lines[0] == "llama_cpp was built for CUDA 13.1 and cannot start without:"
    install = "pip install nvidia-cuda-runtime nvidia-cublas ["
    assert [line.partition("[")[0] + "[" for line in lines[1:]] == [
        f"  - cudart: {install}",
        f"  - cublasLt: {install}",
        f"  - cublas: {install}",
    ]


def test_without_a_driver_nothing_is_loaded_and_nothing_is_missing(loader: Load) -> None:
    module = loader(Machine(driver=False, libraries=()))
    module.load()
    assert module.loaded == {}


def test_one_missing_library_is_the_only_complaint(loader: Load) -> None:
    module = loader(Machine(libraries=("cudart",)))
    lines = missing(module)
    assert [line.split(":")[0] for line in lines[1:]] == ["  - cublasLt", "  - cublas"]
    assert list(module.loaded) == ["cudart"]


def test_the_reason_of_the_pathfinder_is_told_in_one_line(loader: Load) -> None:
    (_, line) = missing(loader(Machine(libraries=("cudart", "cublasLt"))))
    assert line.endswith('Failure finding "libcublas.so": No such file: listed]')


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
    module = loader(Machine())
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    lines = missing(module)
    assert len(lines) == 4
    for line in lines[1:]:
        assert "pip install nvidia-cuda-runtime nvidia-cublas [" in line
        assert "pip install cuda-pathfinder: " in line


def test_to_import_it_loads_nothing(loader: Load) -> None:
    machine = Machine()
    assert loader(machine).loaded == {}
    assert machine.asked == []


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
def test_what_is_in_the_process_already_is_taken(
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
def test_where_pathfinder_returns_another_major_the_environment_is_looked_at(
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


def test_what_python_3_8_does_not_know_would_be_seen() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1: pass\n", feature_version=(3, 8))


def test_the_blank_is_there_to_be_filled_in() -> None:
    assert SOURCE.count("@CUDA@") == 1


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
    (_, *lines) = missing(loader(Machine(major=12)))
    assert [line.split(":")[0] for line in lines] == ["  - cudart", "  - cublasLt", "  - cublas"]
    assert "found /usr/local/cuda/lib64/libcudart.so.12" in lines[0]
