"""``_bundled_dlls.py``, which loads the libraries of a Windows wheel, with a fake of ctypes."""

from __future__ import annotations

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
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The libraries that were loaded, in order."""
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
    """The module in a site-packages folder whose name has the characters of a glob pattern."""

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


def test_bundled_dlls_are_loaded_before_llama_by_full_paths(
    install: Install, loaded: list[str], tmp_path: Path
) -> None:
    module = install(*BUNDLED)
    assert loaded == []  # importing the module loads nothing
    module.load()
    site = tmp_path / "Jörg [x64]"
    expected = [
        *(site / ms_runtime.FOLDER / name for name in BUNDLED),
        site / "llama_cpp/lib/llama.dll",
    ]
    assert loaded == [str(path) for path in expected]


def test_with_llama_cpp_lib_path_only_bundled_dlls_are_loaded(
    install: Install, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", r"C:\own")
    install(*BUNDLED).load()
    assert [Path(name).name for name in loaded] == list(BUNDLED)


def test_a_library_that_cannot_be_loaded_is_named(install: Install, loaded: list[str]) -> None:
    with pytest.raises(ImportError, match=r"llama\.dll cannot be loaded: Could not find module"):
        install(*BUNDLED, ours=False).load()


def test_the_folder_is_that_of_delvewheel() -> None:
    assert SOURCE.count(f'"{ms_runtime.FOLDER}"') == 1
