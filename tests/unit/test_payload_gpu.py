"""The choice of the GPU that tests a wheel, its errors, and the reading of NVML."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from sessions.payload import gpu
from tests import fakes

DRIVER = 580
H200 = fakes.nvml_gpu(name="NVIDIA H200", compute_capability="9.0")


def chosen(
    nvml: dict[str, Any], asked: str | None = None, capabilities: tuple[str, ...] = ("12.0",)
) -> tuple[dict[str, Any] | None, str, str]:
    return gpu.choose(nvml, capabilities, DRIVER, asked)


RTX, RTX_1 = fakes.nvml_gpu(), fakes.nvml_gpu(index=1)
FULL = fakes.nvml_gpu(memory_free_mib=gpu.MEMORY_MIB - 1)
FREE = fakes.nvml_gpu(index=1, memory_free_mib=gpu.MEMORY_MIB)


@pytest.mark.parametrize(
    ("nvml", "asked", "capabilities", "expected"),
    [
        (fakes.nvml(), None, ("12.0",), RTX),
        (fakes.nvml(H200, RTX_1), None, ("12.0",), RTX_1),
        (fakes.nvml(FULL, FREE), None, ("12.0",), FREE),
        (fakes.nvml(RTX, RTX_1), None, ("12.0",), RTX),
        (fakes.nvml(RTX, RTX_1), "1", ("12.0",), RTX_1),
        (fakes.nvml(H200), None, ("9.0", "12.0"), H200),
        (fakes.nvml(release="580.0"), None, ("12.0",), RTX),
    ],
    ids=["one", "capability", "memory", "first", "named", "two-capabilities", "oldest-driver"],
)
def test_the_chosen_gpu(
    nvml: dict[str, Any],
    asked: str | None,
    capabilities: tuple[str, ...],
    expected: dict[str, Any],
) -> None:
    assert chosen(nvml, asked, capabilities) == (expected, "", "")


@pytest.mark.parametrize(
    ("nvml", "asked", "what", "remedy"),
    [
        (
            {"error": "NVML Shared Library Not Found"},
            None,
            "No NVIDIA driver answers here (NVML Shared Library Not Found).",
            "run this file on a machine with such a GPU",
        ),
        (
            {"release": "580.159.04", "cuda": "13.0", "devices": []},
            None,
            "The NVIDIA driver finds no GPU here.",
            "run this file on a machine with such a GPU",
        ),
        (
            fakes.nvml(release="570.86.15"),
            None,
            "The NVIDIA driver 570.86.15 is too old: this wheel needs 580 or newer.",
            "https://www.nvidia.com/drivers",
        ),
        (
            fakes.nvml(),
            "3",
            "There is no GPU 3.",
            "name one of these with --device: 0 (NVIDIA GeForce RTX 5090)",
        ),
        (
            fakes.nvml(H200),
            None,
            "No GPU here runs this wheel: it is for compute capability 12.0; NVIDIA H200 has 9.0.",
            "run this file on a machine with such a GPU",
        ),
        (
            fakes.nvml(H200, fakes.nvml_gpu(index=1)),
            "0",
            "No GPU here runs this wheel: it is for compute capability 12.0; NVIDIA H200 has 9.0.",
            "build for this GPU",
        ),
        (
            fakes.nvml(
                fakes.nvml_gpu(memory_free_mib=900), fakes.nvml_gpu(index=1, memory_free_mib=1000)
            ),
            None,
            "The GPU has too little free memory: 1000 MiB, and 1024 MiB are needed.",
            "nvidia-smi",
        ),
    ],
    ids=["no-driver", "no-gpu", "old-driver", "missing", "capability", "named", "memory"],
)
def test_without_a_usable_gpu_there_is_an_error_and_a_fix(
    nvml: dict[str, Any], asked: str | None, what: str, remedy: str
) -> None:
    device, error, fix = chosen(nvml, asked)
    assert (device, error) == (None, what)
    assert remedy in fix


def test_the_caller_gives_the_remedy() -> None:
    _, _, remedy = gpu.choose({"error": "gone"}, ["12.0"], 580, None, None, "there it is")
    assert remedy == "there it is"


FIRST = fakes.nvml_gpu(uuid="GPU-aaaa1111-0000")
SECOND = fakes.nvml_gpu(index=1, uuid="GPU-bbbb2222-0000", mig=["MIG-cccc3333-0000", "MIG-dddd"])
BOTH = fakes.nvml(FIRST, SECOND)


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        ("0", 0),
        ("1", 1),
        ("1,0", 1),
        (" 1 , 0", 1),
        ("GPU-bbbb2222-0000", 1),
        ("GPU-bbbb", 1),
        ("MIG-cccc3333-0000", 1),
        ("MIG-dddd", 1),
        ("MIG-GPU-bbbb2222-0000/3/0", 1),
        ("1,-1", 1),
        ("1,7,0", 1),
    ],
)
def test_the_first_visible_gpu_is_chosen(visible: str, index: int) -> None:
    device, what, _ = gpu.choose(BOTH, ("12.0",), DRIVER, None, visible)
    assert (device and device["index"], what) == (index, "")
    assert device
    assert gpu.selector(device) == visible.split(",")[0].strip()
    assert gpu.selector(FIRST) == "0"  # without CUDA_VISIBLE_DEVICES


@pytest.mark.parametrize(
    ("second", "visible", "asked", "name"),
    [
        (SECOND, None, None, "1"),
        (SECOND, "0,1", None, "1"),
        (SECOND, "GPU-aaaa,GPU-bbbb", None, "GPU-bbbb"),
        (SECOND, "0", None, None),
        (SECOND, None, "0", None),
        ({**SECOND, "compute_capability": "9.0"}, None, None, None),
        ({**SECOND, "memory_free_mib": gpu.MEMORY_MIB - 1}, None, None, None),
        ({**SECOND, "memory_free_mib": None}, None, None, "1"),
        (SECOND, "0,MIG-cccc3333", None, None),
        (SECOND, "MIG-cccc3333,0", None, None),
        (None, None, None, None),
    ],
    ids=[
        "it-is-there", "visible", "by-its-uuid", "hidden", "one-was-named", "of-another-kind",
        "no-memory-left", "memory-unknown", "a-mig-instance", "beside-a-mig-instance", "no-gpu",
    ],
)  # fmt: skip
def test_the_second_gpu(
    second: dict[str, Any] | None, visible: str | None, asked: str | None, name: str | None
) -> None:
    nvml = fakes.nvml(FIRST, *([second] if second else []))
    first, _, _ = gpu.choose(nvml, ["12.0"], DRIVER, asked, visible)
    assert first is not None
    assert gpu.second(nvml, ["12.0"], first, asked, visible) == name


@pytest.mark.parametrize("visible", ["", "-1", "7", "-1,0", "GPU-", "GPU-eeee", "MIG-eeee", "none"])
def test_if_every_gpu_is_hidden_the_error_says_so(visible: str) -> None:
    device, what, remedy = gpu.choose(BOTH, ("12.0",), DRIVER, None, visible)
    assert device is None
    assert f"CUDA_VISIBLE_DEVICES={visible!r}" in what
    assert "unset" in remedy


def test_a_hidden_gpu_cannot_be_chosen() -> None:
    device, what, remedy = gpu.choose(BOTH, ("12.0",), DRIVER, "0", "1")
    assert device is None
    assert "CUDA_VISIBLE_DEVICES=1" in what
    assert "--device: 1 (" in remedy
    assert gpu.choose(BOTH, ("12.0",), DRIVER, "1", "0,1")[0] == {**SECOND, "visible": "1"}


# ---- NVML itself --------------------------------------------------------------------------------


class Refusal(Exception):
    """Replaces pynvml.NVMLError."""


def refuse(*_: object) -> NoReturn:
    raise Refusal("Not Supported")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replaces pynvml, with one GPU."""
    fake = SimpleNamespace(
        NVMLError=Refusal,
        ended=0,
        nvmlInit=lambda: None,
        nvmlSystemGetCudaDriverVersion_v2=lambda: 13010,
        nvmlSystemGetDriverVersion=lambda: "590.44.01",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetCudaComputeCapability=lambda _: (12, 0),
        nvmlDeviceGetUUID=refuse,
        nvmlDeviceGetName=lambda _: "NVIDIA GeForce RTX 5090",
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(
            total=32607 * gpu.MIB, free=32000 * gpu.MIB
        ),
    )

    def shutdown() -> None:
        fake.ended += 1

    fake.nvmlShutdown = shutdown
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_the_driver_and_the_gpus_are_read(library: SimpleNamespace) -> None:
    assert gpu.read() == fakes.nvml(release="590.44.01", cuda="13.1")
    assert library.ended == 1


def test_the_uuids_of_a_gpu_and_its_mig_instances_are_read(library: SimpleNamespace) -> None:
    library.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}" if handle == 0 else handle
    library.nvmlDeviceGetMaxMigDeviceCount = lambda _: 7
    library.nvmlDeviceGetMigDeviceHandleByIndex = lambda _, n: f"MIG-{n}" if n < 2 else refuse()
    (device,) = gpu.read()["devices"]
    assert (device["uuid"], device["mig"]) == ("GPU-0", ["MIG-0", "MIG-1"])


def test_a_gpu_without_its_own_memory_can_be_used(
    library: SimpleNamespace,
) -> None:
    library.nvmlDeviceGetMemoryInfo = refuse
    found = gpu.read()
    shared = fakes.nvml_gpu(memory_mib=0, memory_free_mib=None)
    assert found["devices"] == [shared]
    assert chosen(found) == (shared, "", "")


@pytest.mark.parametrize(("call", "ended"), [("nvmlInit", 0), ("nvmlDeviceGetCount", 1)])
def test_a_driver_that_fails_is_an_error(call: str, ended: int, library: SimpleNamespace) -> None:
    """NVML is shut down only if it was started."""
    setattr(library, call, refuse)
    assert gpu.read() == {"error": "Not Supported"}
    assert library.ended == ended
