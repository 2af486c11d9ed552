"""The calls of bindings that differ between releases and forks."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests import fakes

CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
Adapter = ctypes.POINTER(ctypes.c_void_p)


def payload(monkeypatch: pytest.MonkeyPatch, **bindings: Any) -> Any:
    """The module llama with bindings that have these names."""
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(**bindings))
    path = fakes.ROOT / "sessions" / "payload" / "llama.py"
    spec = importlib.util.spec_from_file_location("payload_llama", path)
    assert spec
    assert spec.loader
    module: ModuleType = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "payload_llama", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["llama_log_callback", "ggml_log_callback"])
def test_the_log_callback_has_one_of_two_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = payload(monkeypatch, **{name: CALLBACK})
    module._on_log(2, b"loaded\n", None)
    assert module.LOG.lines == ["loaded\n"]


@pytest.mark.parametrize("code", [0, -1])
def test_an_adapter_is_set_by_one_of_two_functions(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    calls: list[tuple[Any, ...]] = []
    cell = ctypes.c_void_p(7)
    adapter = ctypes.cast(ctypes.pointer(cell), Adapter)

    def one(*words: Any) -> int:
        calls.append(words)
        return code

    def several(made: Any, adapters: Any, count: int, scales: Any) -> int:
        calls.append((made, adapters[0], scales[0]))
        assert (count, len(adapters), len(scales)) == (1, 1, 1)
        return code

    for functions in ({"llama_set_adapter_lora": one}, {"llama_set_adapters_lora": several}):
        module = payload(monkeypatch, llama_log_callback=CALLBACK, **functions)
        if code:
            with pytest.raises(module.Refused, match="the adapter is not taken"):
                module.set_adapter("context", adapter, 0.5)
        else:
            module.set_adapter("context", adapter, 0.5)
    assert [(made, given.contents.value, scale) for made, given, scale in calls] == [
        ("context", 7, 0.5)
    ] * 2
