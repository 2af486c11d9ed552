"""The NVIDIA driver and its GPUs, as NVML reports them, and whether they can run a wheel.

Imports nothing of ours and nothing but pynvml, so that it also runs from a bundle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

MIB = 1024 * 1024
NO_DRIVER = "NVML Shared Library Not Found"  # NVML's own text where no driver is installed
MEMORY_MIB = 1024  # free on the GPU: CUDA itself takes about 600 MiB, the checks about 100


def read() -> dict[str, Any]:
    """Driver and devices; an ``error`` in place of them where NVML will not start."""
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
    """What CUDA_VISIBLE_DEVICES may call a GPU but its number, where NVML says it."""
    import pynvml

    found: dict[str, Any] = {}
    with contextlib.suppress(pynvml.NVMLError):
        found["uuid"] = pynvml.nvmlDeviceGetUUID(device)
        parts = []
        for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(device)):
            with contextlib.suppress(pynvml.NVMLError):  # there are fewer
                part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, number)
                parts.append(pynvml.nvmlDeviceGetUUID(part))
        found.update({"mig": parts} if parts else {})
    return found


def selector(device: dict[str, Any]) -> str:
    """CUDA_VISIBLE_DEVICES of a process that is to see this GPU and no other (PCI_BUS_ID order)."""
    return str(device.get("visible", device["index"]))


def within(devices: Sequence[dict[str, Any]], visible: str) -> list[dict[str, Any]]:
    """Those of the GPUs that CUDA_VISIBLE_DEVICES leaves visible, each with its word for it.

    A number is read as nvidia-smi counts and schedulers write it, in PCI order; a UUID may be
    shortened (CUDA C++ Programming Guide, "CUDA Environment Variables"). What follows a word that
    names no GPU does not count, as in CUDA.
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
    """What to say of a driver release that is among those ``known`` to fail; "" of any other."""
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
    """The GPU to test a wheel on: (device, "", ""), or (None, what is wrong, what fixes it).

    ``capabilities`` are those of the wheel's machine code, ``driver`` the oldest driver release
    that runs it, ``asked`` the index the user named, ``visible`` CUDA_VISIBLE_DEVICES where it is
    set: GPUs that a scheduler or the user has hidden are not used. ``elsewhere`` is what to do
    where no GPU here will do; else what somebody does who runs a bundle.
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
    """What CUDA_VISIBLE_DEVICES calls another GPU that runs the wheel too; None if there is none.

    Nor where the user named the one to use. CUDA shows one MIG instance to a process, never two.
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
