"""The checks of what a CUDA target needs: toolkit, headers, GPU and driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sessions.payload import gpu
from sessions.probe.model import Toolchain
from sessions.probe.selection import line
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.checks import Check
from sessions.targets.auto_target import fit


def checks(
    chain: Toolchain, spec: BuildSpec, nvml: str, targets: Mapping[str, BuildSpec]
) -> Iterator[Check]:
    """Toolkit, headers, architecture, GPU and driver; only for a target with a CUDA version."""
    assert spec.cuda is not None
    known = knowledge.toolkit(spec.cuda)
    if spec.toolkit == "pypi" and not knowledge.is_locked(spec.cuda):
        here = any(line(t.version) == spec.cuda for t in chain.toolkits)
        yield Check(
            "toolkit",
            "fail",
            f"toolkit: CUDA {spec.cuda} has no lock file here",
            remedy="use the one that is installed: --toolkit system"
            if here
            else f"use --cuda 13.1 or --cuda 13.4, or: nox -s lock -- --add cuda=={spec.cuda}",
        )
    elif spec.toolkit == "pypi":
        ignored = [f"{t.version} in {t.root}" for t in chain.toolkits]
        also = f" (not used: {', '.join(ignored)})" if ignored else ""
        yield Check("toolkit", "ok", f"toolkit: CUDA {spec.cuda} from NVIDIA's packages{also}")
    elif chain.toolkit is None or chain.toolkit.version.split(".")[:2] != spec.cuda.split("."):
        found = chain.toolkit.version if chain.toolkit else "none"
        yield Check(
            "toolkit",
            "fail",
            f"toolkit: CUDA {spec.cuda} is not installed where --toolkit {spec.toolkit} looks",
            evidence=f"found there: {found}; on this machine: "
            + (", ".join(f"{t.version} in {t.root}" for t in chain.toolkits) or "none"),
            remedy="use --toolkit pypi, which downloads it and installs nothing on the system",
        )
    else:
        yield Check("toolkit", "ok", f"toolkit: CUDA {chain.toolkit.version}, {chain.toolkit.root}")
    for header in knowledge.headers(spec.cuda, chain.host.glibc):
        yield _judge_header(header, chain, spec)
    ptx = [arch for arch in spec.archs if knowledge.parse_arch(arch)[2] != "real"]
    more = f"; PTX for newer GPUs ({', '.join(ptx)})" if ptx else ""
    told = f"architecture: {', '.join(spec.archs)}, {_cards(spec)}{more}"
    yield Check("architecture", "ok", told)
    yield from _judge_gpu(chain, spec, known.driver, nvml, targets)


_NVML = {
    "mismatch": "restart the machine: its driver was updated while the old one was loaded",
    "permission": "let this user open /dev/nvidia* (in a container: --gpus all)",
    "not loaded": "load the driver (modprobe nvidia), or start the container with --gpus all",
    "lost": "restart the machine: the driver lost a GPU (dmesg has the details)",
}


def _judge_header(header: knowledge.Header, chain: Toolchain, spec: BuildSpec) -> Check:
    glibc = f"glibc {chain.host.glibc}"
    if spec.toolkit == "pypi":
        summary = f"{glibc}: a header of CUDA {spec.cuda} is corrected for it"
        return Check("glibc", "ok", summary, evidence=header.what)
    return Check(
        "glibc",
        "fail",
        f"{glibc}: the headers of the installed CUDA {spec.cuda} do not compile with it",
        evidence=header.what,
        remedy=f"use --toolkit pypi, where the header is corrected, or --cuda {header.fixed}",
    )


def _line(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _cards(spec: BuildSpec) -> str:
    names = knowledge.capability_names()
    return "; ".join(names[knowledge.parse_arch(arch)[0]] for arch in spec.archs)


def _for_these(command: str, targets: Mapping[str, BuildSpec]) -> str:
    if command:
        return f"to test a wheel here, build for this machine's GPUs: {command}"
    if targets:
        return "no CUDA version that blackwheel knows can build for this machine's GPUs"
    return "to test a wheel here, choose the target of this GPU"


def _judge_gpu(
    chain: Toolchain, spec: BuildSpec, oldest: int, nvml: str, targets: Mapping[str, BuildSpec]
) -> Iterator[Check]:
    if nvml and nvml != gpu.NO_DRIVER:
        yield Check(
            "gpu",
            "warn",
            f"GPU: NVIDIA's driver does not answer: {nvml}",
            evidence="NVML, its management library, is installed here and failed",
            remedy=next(
                (how for word, how in _NVML.items() if word in nvml.lower()),
                "see what nvidia-smi says; a build needs no GPU",
            ),
        )
        return
    if chain.driver is None:  # as on most machines that build: nothing to fix
        told = "GPU: none here; the wheel can be tested on a machine with one (nox -s bundle)"
        yield Check("gpu", "ok", told)
        return
    if not chain.gpus:
        yield Check(
            "gpu",
            "warn",
            "GPU: NVIDIA's driver finds none",
            remedy="see what nvidia-smi says; a container needs access to the GPU; a build needs "
            "no GPU",
        )
        return
    kinds = [device.compute_capability for device in chain.gpus]
    whole = fit(targets, kinds) if targets else None
    every = whole.command("wheel") if whole else ""
    fitting = [g for g in chain.gpus if knowledge.has_code(spec.archs, g.compute_capability)]
    for device in chain.gpus:
        told = f"GPU {device.index}: {device.name}, {device.compute_capability}"
        if device in fitting:
            yield Check("gpu", "ok", told)
        elif fitting:
            yield Check(
                "gpu",
                "warn",
                f"{told}: this wheel has no code for this GPU",
                evidence="llama.cpp divides a model among all GPUs unless it is told "
                "otherwise, and aborts if a part is on this GPU",
                remedy="hide it from llama.cpp: CUDA_DEVICE_ORDER=PCI_BUS_ID "
                f"CUDA_VISIBLE_DEVICES={','.join(str(g.index) for g in fitting)}"
                + (f"; or build for all GPUs: {every}" if every else ""),
            )
    if not fitting:
        yield Check(
            "gpu",
            "warn",
            "GPU: this machine has none of the target's architecture",
            evidence=", ".join(f"{g.name} ({g.compute_capability})" for g in chain.gpus),
            remedy=_for_these(every, targets),
        )
    ptx = [arch for arch in spec.archs if knowledge.parse_arch(arch)[2] != "real"]
    if ptx and _line(chain.driver.cuda) < _line(spec.cuda or "0"):
        yield Check(
            "ptx",
            "warn",
            f"PTX: the driver supports CUDA {chain.driver.cuda} and cannot load PTX of {spec.cuda}",
            evidence=f"{', '.join(ptx)} adds PTX, which needs a driver of the toolkit's version",
            remedy="build machine code only (for example --arch 120-real), or update the driver",
        )
    if int(chain.driver.release.split(".")[0]) < oldest:
        yield Check(
            "driver",
            "warn",
            f"driver: {chain.driver.release} is too old to run this wheel",
            evidence=f"CUDA {spec.cuda} needs {oldest} or newer",
            remedy="install a newer driver from nvidia.com/drivers",
        )
    elif trouble := knowledge.bad_drivers(spec.archs).get(chain.driver.release):
        yield Check(
            "driver",
            "warn",
            f"driver: {chain.driver.release} is reported to fail",
            evidence=trouble,
            remedy="install another release: https://www.nvidia.com/drivers",
        )
    else:
        yield Check("driver", "ok", f"driver: {chain.driver.release}, CUDA {chain.driver.cuda}")
