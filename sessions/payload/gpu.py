"""Reads the NVIDIA driver and its GPUs with NVML, and chooses the GPU that runs a wheel.

Imports only pynvml and the standard library, because it also runs from a bundle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

MIB = 1024 * 1024
NO_DRIVER = "NVML Shared Library Not Found"  # NVML's own text where no driver is installed
MEMORY_MIB = 1024  # free on the GPU: CUDA itself takes about 600 MiB, the checks about 100


def read() -> dict[str, Any]:
    """The driver and its devices, or only an ``error`` if NVML fails."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"error": str(error)}
    try:
        number = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(device)
            try:
                memory = pynvml.nvmlDeviceGetMemoryInfo(device)
                total, free = memory.total // MIB, memory.free // MIB
            except pynvml.NVMLError:  # a GPU that shares the system's memory
                total, free = 0, None
            devices.append(
                {
                    "index": index,
                    "name": pynvml.nvmlDeviceGetName(device),
                    "compute_capability": f"{major}.{minor}",
                    "memory_mib": total,
                    "memory_free_mib": free,
                    **_names(device),
                }
            )
        return {
            "release": pynvml.nvmlSystemGetDriverVersion(),
            "cuda": f"{number // 1000}.{number % 1000 // 10}",
            "devices": devices,
        }
    except pynvml.NVMLError as error:
        return {"error": str(error)}
    finally:
        pynvml.nvmlShutdown()


def _names(device: Any) -> dict[str, Any]:
    """The UUIDs of a GPU and its MIG instances, with which CUDA_VISIBLE_DEVICES may name them."""
    import pynvml

    found: dict[str, Any] = {}
    with contextlib.suppress(pynvml.NVMLError):
        found["uuid"] = pynvml.nvmlDeviceGetUUID(device)
        parts = []
        for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(device)):
            with contextlib.suppress(pynvml.NVMLError):  # there may be fewer
                part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, number)
                parts.append(pynvml.nvmlDeviceGetUUID(part))
        found.update({"mig": parts} if parts else {})
    return found


def selector(device: dict[str, Any]) -> str:
    """The CUDA_VISIBLE_DEVICES with which a process sees only this GPU (PCI_BUS_ID order)."""
    return str(device.get("visible", device["index"]))


def within(devices: Sequence[dict[str, Any]], visible: str) -> list[dict[str, Any]]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible, each with its ``visible`` word.

    A number is an index in PCI order, as in nvidia-smi and schedulers; a UUID may be shortened
    (CUDA C++ Programming Guide, "CUDA Environment Variables"). As in CUDA, words after one that
    names no GPU are ignored.
    """
    found: list[dict[str, Any]] = []
    for word in (part.strip() for part in visible.split(",")):
        named = [device for device in devices if _is(device, word)]
        if len(named) != 1:
            break
        found.append({**named[0], "visible": word})
    return found


def _is(device: dict[str, Any], word: str) -> bool:
    if word.isdecimal():
        return bool(device["index"] == int(word))
    uuid = str(device.get("uuid", ""))
    if word.startswith("MIG-GPU-"):  # drivers before R470: MIG-GPU-UUID/instance/instance
        return word.removeprefix("MIG-").partition("/")[0] == uuid
    if word.startswith("MIG-"):
        return any(part.startswith(word) for part in device.get("mig", ()))
    return word.startswith("GPU-") and uuid.startswith(word)


def driver_warning(release: str, known: dict[str, str]) -> str:
    """The warning about a driver release that is ``known`` to fail; "" for other releases."""
    if release not in known:
        return ""
    return (
        f"the NVIDIA driver {release} is reported to fail: {known[release]}. If it fails here, "
        "install another release: https://www.nvidia.com/drivers"
    )


ELSEWHERE = "run this file on a machine with such a GPU"


def choose(
    nvml: dict[str, Any],
    capabilities: Sequence[str],
    driver: int,
    asked: str | None,
    visible: str | None = None,
    elsewhere: str = f"{ELSEWHERE}, or with --device cpu to test on the CPU only",
) -> tuple[dict[str, Any] | None, str, str]:
    """The GPU to test a wheel on: (device, "", ""), or (None, what is wrong, how to fix it).

    ``capabilities``: those of the wheel's machine code. ``driver``: the oldest driver release that
    runs it. ``asked``: the index that the user named. ``visible``: CUDA_VISIBLE_DEVICES if it is
    set; hidden GPUs are not used. ``elsewhere``: the remedy if no GPU here can run the wheel; the
    default is the one for a bundle.
    """
    wanted = " or ".join(capabilities)
    if "error" in nvml:
        return None, f"No NVIDIA driver answers here ({nvml['error']}).", elsewhere
    devices = nvml["devices"]
    if not devices:
        return None, "The NVIDIA driver finds no GPU here.", elsewhere
    if int(nvml["release"].split(".")[0]) < driver:
        return (
            None,
            f"The NVIDIA driver {nvml['release']} is too old: this wheel needs {driver} or newer.",
            "install a newer driver: https://www.nvidia.com/drivers",
        )
    hidden = ""
    if visible is not None:
        devices = within(devices, visible)
        hidden = f" that CUDA_VISIBLE_DEVICES={visible} leaves visible"
        if not devices:
            return (
                None,
                f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU of this machine.",
                "ask the scheduler for a GPU, or set the variable to one that nvidia-smi -L lists, "
                "or unset it",
            )
    if asked is not None:
        known = ", ".join(f"{d['index']} ({d['name']})" for d in devices)
        devices = [device for device in devices if str(device["index"]) == asked]
        if not devices:
            return (
                None,
                f"There is no GPU {asked}{hidden}.",
                f"name one of these with --device: {known}",
            )
    fitting = [d for d in devices if d["compute_capability"] in capabilities]
    if not fitting:
        here = ", ".join(f"{d['name']} has {d['compute_capability']}" for d in devices)
        return (
            None,
            f"No GPU here runs this wheel: it is for compute capability {wanted}; {here}.",
            "build for this GPU (nox -s probe names its target), or " + elsewhere,
        )
    unknown = [d for d in fitting if d["memory_free_mib"] is None]
    free = [d for d in fitting if (d["memory_free_mib"] or 0) >= MEMORY_MIB] + unknown
    if not free:
        most = max(d["memory_free_mib"] for d in fitting)
        return (
            None,
            f"The GPU has too little free memory: {most} MiB, and {MEMORY_MIB} MiB are needed.",
            "end the programs that use the GPU (nvidia-smi lists them), then run the same "
            "command again",
        )
    return free[0], "", ""


def second(
    nvml: dict[str, Any],
    capabilities: Sequence[str],
    first: dict[str, Any],
    asked: str | None,
    visible: str | None = None,
) -> str | None:
    """The CUDA_VISIBLE_DEVICES of another GPU that runs the wheel too, or None.

    It is None if the user named a GPU, and for MIG: CUDA never shows two instances to a process.
    """
    devices = nvml["devices"] if visible is None else within(nvml["devices"], visible)
    others = [
        selector(device)
        for device in devices
        if device["index"] != first["index"]
        and device["compute_capability"] in capabilities
        and (device["memory_free_mib"] is None or device["memory_free_mib"] >= MEMORY_MIB)
    ]
    names = [name for name in others if not name.startswith("MIG-")]
    usable = asked is None and not selector(first).startswith("MIG-")
    return names[0] if names and usable else None
