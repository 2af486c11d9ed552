"""The checks of what a CUDA target needs: toolkit, headers, GPU and driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sessions.payload import gpu
from sessions.probe.model import Toolchain
from sessions.probe.selection import line
from sessions.shared import knowledge
from sessions.shared.checks import Check
from sessions.shared.gpu_targets import fit
from sessions.shared.target import BuildSpec


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
            remedy="--toolkit pypi gets it without installing anything",
        )
    else:
        yield Check("toolkit", "ok", f"toolkit: CUDA {chain.toolkit.version}, {chain.toolkit.root}")
    for header in knowledge.headers(spec.cuda, chain.host.glibc):
        yield _judge_header(header, chain, spec)
    yield Check("architecture", "ok", f"architecture: {', '.join(spec.archs)}, {_cards(spec)}")
    yield from _judge_gpu(chain, spec, known.driver, nvml, targets)


_NVML = {
    "mismatch": "restart the machine: its driver was updated while the old one was loaded",
    "permission": "let this user open /dev/nvidia* (in a container: --gpus all)",
    "not loaded": "load the driver (modprobe nvidia), or start the container with --gpus all",
    "lost": "restart the machine: a GPU has fallen off the bus (dmesg tells of it)",
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
        remedy=f"--toolkit pypi, where the header is corrected, or --cuda {header.fixed}",
    )


def _line(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _cards(spec: BuildSpec) -> str:
    names = knowledge.capability_names()
    return "; ".join(names[knowledge.parse_arch(arch)[0]] for arch in spec.archs)


def _for_these(command: str, targets: Mapping[str, BuildSpec]) -> str:
    if command:
        return f"to try a wheel here, build for what is here: {command}"
    if targets:
        return "no CUDA version that is known here can build for what is here"
    return "choose the target of this GPU to try a wheel here"


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
                "nothing for a build; to test the wheel here, see what nvidia-smi says",
            ),
        )
        return
    if chain.driver is None or not chain.gpus:
        yield Check(
            "gpu",
            "warn",
            "GPU: none here, so the wheel can be built but not tried",
            remedy="nothing for a build; to try the wheel, take it to a machine with the GPU",
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
                f"{told}: this wheel has no code for it",
                evidence="a model of which a part is put on it aborts; without a setting, "
                "llama.cpp divides a model among all GPUs",
                remedy="hide it from llama.cpp: CUDA_DEVICE_ORDER=PCI_BUS_ID "
                f"CUDA_VISIBLE_DEVICES={','.join(str(g.index) for g in fitting)}"
                + (f"; or build for all GPUs: {every}" if every else ""),
            )
    if not fitting:
        yield Check(
            "gpu",
            "warn",
            "GPU: none of the target's architecture here",
            evidence=", ".join(f"{g.name} ({g.compute_capability})" for g in chain.gpus),
            remedy="nothing for a build; " + _for_these(every, targets),
        )
    ptx = [arch for arch in spec.archs if knowledge.parse_arch(arch)[2] != "real"]
    if ptx and _line(chain.driver.cuda) < _line(spec.cuda or "0"):
        yield Check(
            "ptx",
            "warn",
            f"PTX: the driver is of CUDA {chain.driver.cuda} and cannot load that of {spec.cuda}",
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
