"""What is seen of a GPU while something runs on it, NVML played here."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from sessions.payload import gpu_watch


class NVMLError(Exception):
    """What NVML answers to a question it does not know."""


class Nvml:
    """Plays pynvml: a GPU whose memory fills."""

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
    played = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", played)
    monkeypatch.setattr(gpu_watch, "EVERY", 0.001)
    return played


def test_a_gpu_is_looked_at_until_the_end(nvml: Nvml) -> None:
    with gpu_watch.watching(2) as looks:
        while len(looks) < 5:
            time.sleep(0.001)
    seen = gpu_watch.summary(looks)
    assert (nvml.open, nvml.indices) == (0, [2])
    assert seen["looks"] == len(looks) >= 5
    assert seen["vram_mib"] == len(looks) - 1  # since the first look
    assert seen["before_mib"] == 501
    assert (seen["sm_mhz"], seen["sm_mhz_highest"], seen["memory_mhz_highest"]) == (
        1980,
        1980,
        3201,
    )
    assert (seen["celsius"], seen["watts"]) == (41, 123.456)
    assert seen["slowed"] == ["power cap"]  # that it idled for a while is none
    then = len(looks)
    time.sleep(0.01)
    assert len(looks) == then


def test_nvml_is_closed_after_an_error_too(nvml: Nvml) -> None:
    with pytest.raises(RuntimeError), gpu_watch.watching(0):
        raise RuntimeError
    assert nvml.open == 0


def test_what_a_gpu_would_not_say_is_none(nvml: Nvml) -> None:
    nvml.mute = {
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    }
    with gpu_watch.watching(0) as looks:
        pass
    seen = gpu_watch.summary(looks)
    assert {name for name, value in seen.items() if value is None} == {
        "sm_mhz",
        "sm_mhz_highest",
        "memory_mhz_highest",
        "celsius",
        "watts",
        "before_mib",
        "vram_mib",
    }
    assert seen["slowed"] == []


def test_without_a_gpu_nothing_is_seen() -> None:
    with gpu_watch.watching(None) as looks:
        pass
    assert gpu_watch.summary(looks) == {}


def test_of_clocks_the_median_is_taken_and_of_the_rest_the_highest() -> None:
    def look(sm: int, celsius: int, used: float) -> gpu_watch.Look:
        return {
            "used_mib": used,
            "sm_mhz": sm,
            "memory_mhz": 1,
            "celsius": celsius,
            "watts": None,
            "reasons": None,
        }

    seen = gpu_watch.summary([look(345, 30, 10.0), look(1980, 50, 700.0), look(1900, 45, 600.0)])
    assert (seen["sm_mhz"], seen["sm_mhz_highest"]) == (1900, 1980)
    assert (seen["celsius"], seen["vram_mib"]) == (50, 690)
