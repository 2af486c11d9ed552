"""Which GPU a wheel is tested on, and what is said where none fits."""

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


def test_the_gpu_of_the_wheel_is_chosen() -> None:
    assert chosen(fakes.nvml()) == (fakes.nvml_gpu(), "", "")


def test_of_two_gpus_the_one_that_fits_is_chosen() -> None:
    fitting = fakes.nvml_gpu(index=1)
    assert chosen(fakes.nvml(H200, fitting)) == (fitting, "", "")


def test_of_two_that_fit_the_one_with_memory_left_is_chosen() -> None:
    free = fakes.nvml_gpu(index=1, memory_free_mib=gpu.MEMORY_MIB)
    full = fakes.nvml_gpu(memory_free_mib=gpu.MEMORY_MIB - 1)
    assert chosen(fakes.nvml(full, free)) == (free, "", "")


def test_of_two_that_fit_the_first_is_chosen_unless_one_is_named() -> None:
    both = fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1))
    assert chosen(both)[0] == fakes.nvml_gpu()
    assert chosen(both, "1")[0] == fakes.nvml_gpu(index=1)


def test_a_wheel_for_two_kinds_runs_on_either() -> None:
    assert chosen(fakes.nvml(H200), capabilities=("9.0", "12.0"))[0] == H200


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
    ids=[
        "no-driver",
        "no-device",
        "old-driver",
        "named-GPU-missing",
        "other-capability",
        "named-GPU-of-another-capability",
        "no-memory",
    ],
)
def test_no_gpu_comes_with_what_is_wrong_and_what_mends_it(
    nvml: dict[str, Any], asked: str | None, what: str, remedy: str
) -> None:
    device, said, fix = chosen(nvml, asked)
    assert (device, said) == (None, what)
    assert remedy in fix


def test_the_way_to_another_machine_is_the_callers() -> None:
    _, _, remedy = gpu.choose({"error": "gone"}, ["12.0"], 580, None, None, "there it is")
    assert remedy == "there it is"


def test_the_oldest_driver_that_runs_the_wheel_is_new_enough() -> None:
    assert chosen(fakes.nvml(release="580.0"))[0] == fakes.nvml_gpu()


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
def test_of_what_a_scheduler_leaves_visible_the_first_is_chosen(visible: str, index: int) -> None:
    device, what, _ = gpu.choose(BOTH, ("12.0",), DRIVER, None, visible)
    assert (device and device["index"], what) == (index, "")
    assert device
    assert gpu.selector(device) == visible.split(",")[0].strip()


def test_what_is_not_hidden_is_named_by_its_number() -> None:
    assert gpu.selector(FIRST) == "0"


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
    ],
    ids=[
        "it-is-there", "visible", "by-its-uuid", "hidden", "one-was-named", "of-another-kind",
        "no-memory-left", "memory-unknown", "a-mig-instance", "beside-a-mig-instance",
    ],
)  # fmt: skip
def test_a_second_gpu_is_one_that_can_be_used_with_the_first(
    second: dict[str, Any], visible: str | None, asked: str | None, name: str | None
) -> None:
    nvml = fakes.nvml(FIRST, second)
    first, _, _ = gpu.choose(nvml, ["12.0"], DRIVER, asked, visible)
    assert first is not None
    assert gpu.second(nvml, ["12.0"], first, asked, visible) == name


def test_of_one_gpu_there_is_no_second() -> None:
    assert gpu.second(fakes.nvml(FIRST), ["12.0"], FIRST, None) is None


@pytest.mark.parametrize("visible", ["", "-1", "7", "-1,0", "GPU-", "GPU-eeee", "MIG-eeee", "none"])
def test_that_every_gpu_is_hidden_is_what_is_said(visible: str) -> None:
    device, what, remedy = gpu.choose(BOTH, ("12.0",), DRIVER, None, visible)
    assert device is None
    assert f"CUDA_VISIBLE_DEVICES={visible!r}" in what
    assert "unset" in remedy


def test_a_gpu_that_is_hidden_cannot_be_named() -> None:
    device, what, remedy = gpu.choose(BOTH, ("12.0",), DRIVER, "0", "1")
    assert device is None
    assert "CUDA_VISIBLE_DEVICES=1" in what
    assert "--device: 1 (" in remedy
    assert gpu.choose(BOTH, ("12.0",), DRIVER, "1", "0,1")[0] == {**SECOND, "visible": "1"}


# ---- NVML itself --------------------------------------------------------------------------------


class Refusal(Exception):
    """What pynvml raises."""


def refuse(*_: object) -> NoReturn:
    raise Refusal("Not Supported")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Plays pynvml, with one GPU."""
    played = SimpleNamespace(
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
        played.ended += 1

    played.nvmlShutdown = shutdown
    monkeypatch.setitem(sys.modules, "pynvml", played)
    return played


def test_driver_and_gpus_are_read(library: SimpleNamespace) -> None:
    assert gpu.read() == fakes.nvml(release="590.44.01", cuda="13.1")
    assert library.ended == 1


def test_a_gpu_has_its_uuid_and_those_of_its_parts(library: SimpleNamespace) -> None:
    library.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}" if handle == 0 else handle
    library.nvmlDeviceGetMaxMigDeviceCount = lambda _: 7
    library.nvmlDeviceGetMigDeviceHandleByIndex = lambda _, n: f"MIG-{n}" if n < 2 else refuse()
    (device,) = gpu.read()["devices"]
    assert (device["uuid"], device["mig"]) == ("GPU-0", ["MIG-0", "MIG-1"])


def test_a_gpu_that_shares_the_systems_memory_is_a_gpu_all_the_same(
    library: SimpleNamespace,
) -> None:
    library.nvmlDeviceGetMemoryInfo = refuse
    found = gpu.read()
    shared = fakes.nvml_gpu(memory_mib=0, memory_free_mib=None)
    assert found["devices"] == [shared]
    assert chosen(found) == (shared, "", "")


def test_a_driver_that_does_not_start_is_an_error_in_place_of_them(
    library: SimpleNamespace,
) -> None:
    library.nvmlInit = refuse
    assert gpu.read() == {"error": "Not Supported"}
    assert library.ended == 0  # what never started is not ended


def test_a_driver_that_fails_later_is_an_error_too_and_is_ended(library: SimpleNamespace) -> None:
    library.nvmlDeviceGetCount = refuse
    assert gpu.read() == {"error": "Not Supported"}
    assert library.ended == 1
