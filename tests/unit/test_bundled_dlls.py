"""What loads the libraries of a Windows wheel, on a Windows of fakes."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sessions.build import import_hooks
from sessions.probe import ms_runtime
from tests.fakes import ROOT

SOURCE = (ROOT / "sessions" / "build" / "overlay" / import_hooks.DLLS).read_text(encoding="utf-8")
BUNDLED = ("msvcp140-0f.dll", "vcomp140-1e.dll")

Install = Callable[..., ModuleType]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was loaded, in its order."""
    found: list[str] = []

    def cdll(name: str) -> object:
        if not Path(name).exists():
            raise FileNotFoundError(f"Could not find module {name!r} (or one of its dependencies)")
        found.append(name)
        return object()

    monkeypatch.setattr("ctypes.CDLL", cdll)
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    return found


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """The module as it is in site-packages, below a folder with the signs of a pattern."""

    def make(*bundled: str, ours: bool = True) -> ModuleType:
        site = tmp_path / "Jörg [x64]"
        (site / "llama_cpp" / "lib").mkdir(parents=True)
        (site / ms_runtime.FOLDER).mkdir()
        for name in bundled:
            (site / ms_runtime.FOLDER / name).touch()
        if ours:
            (site / "llama_cpp" / "lib" / "llama.dll").touch()
        path = site / "llama_cpp" / import_hooks.DLLS
        module = ModuleType("llama_cpp._bundled_dlls")
        module.__dict__["__file__"] = str(path)
        exec(compile(SOURCE, str(path), "exec"), module.__dict__)
        return module

    return make


def test_what_the_wheel_brings_is_loaded_before_llama_by_full_paths(
    install: Install, asked: list[str], tmp_path: Path
) -> None:
    module = install(*BUNDLED)
    assert asked == []  # the import only loads nothing
    module.load()
    site = tmp_path / "Jörg [x64]"
    expected = [
        *(site / ms_runtime.FOLDER / name for name in BUNDLED),
        site / "llama_cpp/lib/llama.dll",
    ]
    assert asked == [str(path) for path in expected]


def test_a_wheel_that_brings_nothing_loads_its_own(install: Install, asked: list[str]) -> None:
    install().load()
    assert [Path(name).name for name in asked] == ["llama.dll"]


def test_where_the_user_names_other_libraries_those_of_the_wheel_are_left_alone(
    install: Install, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", r"C:\own")
    install(*BUNDLED).load()
    assert [Path(name).name for name in asked] == list(BUNDLED)


def test_a_library_that_cannot_be_loaded_is_named(install: Install, asked: list[str]) -> None:
    with pytest.raises(ImportError, match=r"llama\.dll cannot be loaded: Could not find module"):
        install(*BUNDLED, ours=False).load()


def test_it_is_python_3_8_as_upstream_supports() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))


def test_the_folder_is_the_one_that_delvewheel_makes() -> None:
    assert SOURCE.count(f'"{ms_runtime.FOLDER}"') == 1
