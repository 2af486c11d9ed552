"""Reads a GPU's clocks, temperature and memory with NVML while something runs on it."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Iterator, Sequence
from typing import Any

Look = dict[str, Any]
MIB = 1024 * 1024
EVERY = 0.02  # seconds between two looks
# NVML's reasons for a reduced clock (nvmlClocksEventReason…), without idling and clocks that the
# owner has set.
SLOWED = {
    0x04: "power cap",
    0x08: "hardware",
    0x20: "heat, by software",
    0x40: "heat, by hardware",
    0x80: "power brake",
}


@contextlib.contextmanager
def watching(index: int | None) -> Iterator[list[Look]]:
    """Look at a GPU every 20 ms until the end; the list stays empty without a GPU."""
    looks: list[Look] = []
    if index is None:
        yield looks
        return
    import pynvml

    pynvml.nvmlInit()
    try:
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        looks.append(look(device))
        stop = threading.Event()

        def keep_looking() -> None:
            while not stop.wait(EVERY):
                looks.append(look(device))

        thread = threading.Thread(target=keep_looking, daemon=True)
        thread.start()
        try:
            yield looks
        finally:
            stop.set()
            thread.join()
    finally:
        pynvml.nvmlShutdown()


def look(device: object) -> Look:
    """The state of the GPU now; a value that NVML does not return is None."""
    import pynvml

    def ask(name: str, *words: int) -> Any:
        try:
            return getattr(pynvml, name)(device, *words)
        except pynvml.NVMLError:
            return None

    memory, milliwatts = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetPowerUsage")
    return {
        "used_mib": memory.used / MIB if memory else None,
        "sm_mhz": ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
        "memory_mhz": ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
        "celsius": ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        "watts": milliwatts / 1000 if milliwatts is not None else None,
        "reasons": ask("nvmlDeviceGetCurrentClocksThrottleReasons"),
    }


def summary(looks: Sequence[Look]) -> dict[str, Any]:
    """The summary of all looks: median and highest clocks, and the highest other values.

    ``vram_mib`` is the growth of the used memory since the first look.
    """
    if not looks:
        return {}
    seen = {name: [x[name] for x in looks if x[name] is not None] for name in looks[0]}
    highest = {name: max(found, default=None) for name, found in seen.items()}
    used = seen["used_mib"]
    reasons = 0
    for bits in seen["reasons"]:
        reasons |= bits
    return {
        "sm_mhz": statistics.median(seen["sm_mhz"]) if seen["sm_mhz"] else None,
        "sm_mhz_highest": highest["sm_mhz"],
        "memory_mhz_highest": highest["memory_mhz"],
        "celsius": highest["celsius"],
        "watts": highest["watts"],
        "slowed": [name for bit, name in SLOWED.items() if reasons & bit],
        "before_mib": used[0] if used else None,
        "vram_mib": max(used) - used[0] if used else None,
        "looks": len(looks),
    }
