"""The checks of what a CUDA target needs: toolkit, headers, GPU and driver. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sessions.payload import gpu
from sessions.probe.record_types import Toolchain
from sessions.probe.selection import minor_version
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check
from sessions.targets.auto_target import fit

# What to do about an error of NVML, by a part of its message.
_NVML_REMEDIES = {
    "mismatch": "restart the machine: its driver was updated while the old one was loaded",
    "permission": "let this user open /dev/nvidia* (in a container: --gpus all)",
    "not loaded": "load the driver (modprobe nvidia), or start the container with --gpus all",
    "lost": "restart the machine: the driver lost a GPU (dmesg has the details)",
}


def checks(
    chain: Toolchain, spec: BuildSpec, nvml: str, targets: Mapping[str, BuildSpec]
) -> Iterator[Check]:
    """The checks for a target with a CUDA version. The arguments are machine_checks.checks's."""
    assert spec.cuda is not None
    yield _check_toolkit(chain, spec, spec.cuda)
    for header in knowledge.headers(spec.cuda, chain.host.glibc):
        yield _check_header(header, chain, spec)
    names = knowledge.capability_names()
    gpus = "; ".join(names[knowledge.parse_arch(arch)[0]] for arch in spec.archs)
    ptx = _ptx(spec)
    more = f"; PTX for newer GPUs ({', '.join(ptx)})" if ptx else ""
    yield Check("architecture", "ok", f"architecture: {', '.join(spec.archs)}, {gpus}{more}")
    yield from _check_gpus(chain, spec, nvml, targets)


def _ptx(spec: BuildSpec) -> list[str]:
    return [arch for arch in spec.archs if knowledge.parse_arch(arch)[2] != "real"]


def _check_toolkit(chain: Toolchain, spec: BuildSpec, cuda: str) -> Check:
    all_of_them = ", ".join(f"{t.version} in {t.root}" for t in chain.toolkits)
    if spec.toolkit == "pypi" and not knowledge.is_locked(cuda):
        installed = any(minor_version(t.version) == cuda for t in chain.toolkits)
        return Check(
            "toolkit",
            "fail",
            f"toolkit: CUDA {cuda} has no lock file here",
            remedy="use the one that is installed: --toolkit system"
            if installed
            else f"use --cuda 13.1 or --cuda 13.4, or: nox -s lock -- --add cuda=={cuda}",
        )
    if spec.toolkit == "pypi":
        unused = f" (not used: {all_of_them})" if all_of_them else ""
        return Check("toolkit", "ok", f"toolkit: CUDA {cuda} from NVIDIA's packages{unused}")
    if chain.toolkit is None or minor_version(chain.toolkit.version) != cuda:
        found = chain.toolkit.version if chain.toolkit else "none"
        return Check(
            "toolkit",
            "fail",
            f"toolkit: CUDA {cuda} is not installed where --toolkit {spec.toolkit} looks",
            evidence=f"found there: {found}; on this machine: {all_of_them or 'none'}",
            remedy="use --toolkit pypi, which downloads it and installs nothing on the system",
        )
    return Check("toolkit", "ok", f"toolkit: CUDA {chain.toolkit.version}, {chain.toolkit.root}")


def _check_header(header: knowledge.Header, chain: Toolchain, spec: BuildSpec) -> Check:
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


def _check_gpus(
    chain: Toolchain, spec: BuildSpec, nvml: str, targets: Mapping[str, BuildSpec]
) -> Iterator[Check]:
    if nvml and nvml != gpu.NO_DRIVER:
        how = (remedy for part, remedy in _NVML_REMEDIES.items() if part in nvml.lower())
        yield Check(
            "gpu",
            "warn",
            f"GPU: NVIDIA's driver does not answer: {nvml}",
            evidence="NVML, its management library, is installed here and failed",
            remedy=next(how, "see what nvidia-smi says; a build needs no GPU"),
        )
    elif chain.driver is None:  # as on most machines that build: nothing to fix
        summary = "GPU: none here; the wheel can be tested on a machine with one (nox -s bundle)"
        yield Check("gpu", "ok", summary)
    elif not chain.gpus:
        yield Check(
            "gpu",
            "warn",
            "GPU: NVIDIA's driver finds none",
            remedy="see what nvidia-smi says; a container needs access to the GPU; a build needs "
            "no GPU",
        )
    else:
        yield from _check_each_gpu(chain, spec, targets)
        yield from _check_driver(chain, spec)


def _check_each_gpu(
    chain: Toolchain, spec: BuildSpec, targets: Mapping[str, BuildSpec]
) -> Iterator[Check]:
    """Whether the wheel has code for each GPU; if not, the command that builds for all of them."""
    whole = fit(targets, [g.compute_capability for g in chain.gpus]) if targets else None
    for_all = whole.command("wheel") if whole else ""
    fitting = [g for g in chain.gpus if knowledge.has_code(spec.archs, g.compute_capability)]
    for device in chain.gpus:
        summary = f"GPU {device.index}: {device.name}, {device.compute_capability}"
        if device in fitting:
            yield Check("gpu", "ok", summary)
        elif fitting:
            yield Check(
                "gpu",
                "warn",
                f"{summary}: this wheel has no code for this GPU",
                evidence="llama.cpp divides a model among all GPUs unless it is told "
                "otherwise, and aborts if a part is on this GPU",
                remedy="hide it from llama.cpp: CUDA_DEVICE_ORDER=PCI_BUS_ID "
                f"CUDA_VISIBLE_DEVICES={','.join(str(g.index) for g in fitting)}"
                + (f"; or build for all GPUs: {for_all}" if for_all else ""),
            )
    if not fitting:
        yield Check(
            "gpu",
            "warn",
            "GPU: this machine has none of the target's architecture",
            evidence=", ".join(f"{g.name} ({g.compute_capability})" for g in chain.gpus),
            remedy=f"to test a wheel here, build for this machine's GPUs: {for_all}"
            if for_all
            else "no CUDA version that blackwheel knows can build for this machine's GPUs"
            if targets
            else "to test a wheel here, choose the target of this GPU",
        )


def _check_driver(chain: Toolchain, spec: BuildSpec) -> Iterator[Check]:
    """Whether the driver loads the wheel's PTX, is new enough, and is not known to be faulty."""
    assert chain.driver is not None
    assert spec.cuda is not None
    release, ptx = chain.driver.release, _ptx(spec)
    oldest = knowledge.toolkit(spec.cuda).driver
    if ptx and _numbers(chain.driver.cuda) < _numbers(spec.cuda):
        yield Check(
            "ptx",
            "warn",
            f"PTX: the driver supports CUDA {chain.driver.cuda} and cannot load PTX of {spec.cuda}",
            evidence=f"{', '.join(ptx)} adds PTX, which needs a driver of the toolkit's version",
            remedy="build machine code only (for example --arch 120-real), or update the driver",
        )
    if int(release.split(".")[0]) < oldest:
        yield Check(
            "driver",
            "warn",
            f"driver: {release} is too old to run this wheel",
            evidence=f"CUDA {spec.cuda} needs {oldest} or newer",
            remedy="install a newer driver from nvidia.com/drivers",
        )
    elif fault := knowledge.bad_drivers(spec.archs).get(release):
        yield Check(
            "driver",
            "warn",
            f"driver: {release} is reported to fail",
            evidence=fault,
            remedy="install another release: https://www.nvidia.com/drivers",
        )
    else:
        yield Check("driver", "ok", f"driver: {release}, CUDA {chain.driver.cuda}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
