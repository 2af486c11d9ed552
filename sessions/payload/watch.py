"""A card's clocks, temperature and memory while something runs on it, through NVML."""

from __future__ import annotations

import statistics
import threading
from types import TracebackType
from typing import Any

MIB = 1024 * 1024
EVERY = 0.02  # seconds between two looks
# NVML's reasons for a clock below what was asked for; idle and the user's own setting are none.
SLOWED = {
    0x04: "power cap",
    0x08: "hardware",
    0x20: "thermal, by software",
    0x40: "thermal, by hardware",
    0x80: "power brake",
}


class Watch:
    """Looks at one card until it is closed: a with statement. Without a card it sees nothing."""

    def __init__(self, index: int | None) -> None:
        self._index = index
        self._looks: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._before = 0.0

    def __enter__(self) -> Watch:
        if self._index is not None:
            import pynvml

            pynvml.nvmlInit()
            self._card = pynvml.nvmlDeviceGetHandleByIndex(self._index)
            self._before = self._used()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._index is None:
            return
        import pynvml

        self._stop.set()
        self._thread.join()
        pynvml.nvmlShutdown()

    def seen(self) -> dict[str, Any]:
        """The summary: clocks in MHz (medians), temperature in °C and memory in MiB (highest).

        ``vram_mib`` is what the card's used memory grew by. None is what the card would not say.
        """
        if not self._looks:
            return {}

        def all_of(name: str) -> list[float]:
            return [look[name] for look in self._looks if look[name] is not None]

        reasons = 0
        for look in self._looks:
            reasons |= look["reasons"] or 0
        clocks = {n: all_of(n) for n in ("sm_mhz", "memory_mhz")}
        return {
            **{name: statistics.median(found) if found else None for name, found in clocks.items()},
            "celsius": max(all_of("celsius"), default=None),
            "watts": max(all_of("watts"), default=None),
            "slowed": [name for bit, name in SLOWED.items() if reasons & bit],
            "before_mib": self._before,
            "vram_mib": max(all_of("used")) - self._before,
            "looks": len(self._looks),
        }

    def _used(self) -> float:
        import pynvml

        used: float = pynvml.nvmlDeviceGetMemoryInfo(self._card).used / MIB
        return used

    def _look(self) -> None:
        import pynvml

        def ask(name: str, *words: int) -> Any:
            try:
                return getattr(pynvml, name)(self._card, *words)
            except pynvml.NVMLError:
                return None

        while True:
            milliwatts = ask("nvmlDeviceGetPowerUsage")
            self._looks.append(
                {
                    "used": self._used(),
                    "sm_mhz": ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
                    "memory_mhz": ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
                    "celsius": ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
                    "watts": None if milliwatts is None else milliwatts / 1000,
                    "reasons": ask("nvmlDeviceGetCurrentClocksThrottleReasons"),
                }
            )
            if self._stop.wait(EVERY):
                return
