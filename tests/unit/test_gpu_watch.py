"""Reading a GPU's state while something runs on it, with a replaced NVML."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from sessions.payload import gpu_watch


class NVMLError(Exception):
    """Replaces pynvml.NVMLError."""


class Nvml:
    """Replaces pynvml: the used memory of its GPU grows."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self) -> None:
        self.open = 0
        self.used = 500 * gpu_watch.MIB
        self.mute: set[str] = set()
        self.indices: list[int] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def answer(_: object, *words: int) -> Any:
            if name in self.mute:
                raise NVMLError(name)
            match name:
                case "nvmlDeviceGetMemoryInfo":
                    self.used += gpu_watch.MIB
                    return SimpleNamespace(used=self.used)
                case "nvmlDeviceGetClockInfo":
                    return {1: 1980, 2: 3201}[words[0]]
                case "nvmlDeviceGetTemperature":
                    return 41
                case "nvmlDeviceGetPowerUsage":
                    return 123_456
                case "nvmlDeviceGetCurrentClocksThrottleReasons":
                    return 0x05
            raise AssertionError(name)

        return answer

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        self.indices.append(index)
        return object()


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    fake = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(gpu_watch, "EVERY", 0.001)
    return fake


def test_the_gpu_is_read_until_the_end(nvml: Nvml) -> None:
    with gpu_watch.watching(2) as looks:
        while len(looks) < 5:
            time.sleep(0.001)
    seen = gpu_watch.summary(looks)
    assert (nvml.open, nvml.indices) == (0, [2])
    assert seen["looks"] == len(looks) >= 5
    assert seen["vram_mib"] == len(looks) - 1  # since the first look
    assert seen["before_mib"] == 501
    expected: dict[str, Any] = {"sm_mhz": 1980, "sm_mhz_highest": 1980, "memory_mhz_highest": 3201}
    expected |= {"celsius": 41, "watts": 123.456}
    assert {name: seen[name] for name in expected} == expected
    assert seen["slowed"] == ["power cap"]  # idling is not a reason
    then = len(looks)
    time.sleep(0.01)
    assert len(looks) == then


def test_nvml_is_closed_after_an_error(nvml: Nvml) -> None:
    with pytest.raises(RuntimeError), gpu_watch.watching(0):
        raise RuntimeError
    assert nvml.open == 0


def test_values_that_nvml_does_not_return_are_none(nvml: Nvml) -> None:
    names = ("MemoryInfo", "ClockInfo", "Temperature", "PowerUsage")
    nvml.mute = {f"nvmlDeviceGet{name}" for name in (*names, "CurrentClocksThrottleReasons")}
    with gpu_watch.watching(0) as looks:
        pass
    seen = gpu_watch.summary(looks)
    empty = {"slowed": [], "looks": 1}
    assert {**seen, "looks": 1} == {**dict.fromkeys(seen), **empty}


def test_without_a_gpu_the_summary_is_empty() -> None:
    with gpu_watch.watching(None) as looks:
        pass
    assert gpu_watch.summary(looks) == {}


def test_the_summary_has_median_clocks_and_highest_other_values() -> None:
    def look(sm: int, celsius: int, used: float) -> gpu_watch.Look:
        found = {"used_mib": used, "sm_mhz": sm, "memory_mhz": 1, "celsius": celsius}
        return {**found, "watts": None, "reasons": None}

    seen = gpu_watch.summary([look(345, 30, 10.0), look(1980, 50, 700.0), look(1900, 45, 600.0)])
    assert (seen["sm_mhz"], seen["sm_mhz_highest"]) == (1900, 1980)
    assert (seen["celsius"], seen["vram_mib"]) == (50, 690)
