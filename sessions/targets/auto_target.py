"""--target auto: the target that builds for the GPUs of this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sessions.payload import gpu
from sessions.shared import knowledge, programs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.errors import Problem, UsageProblem
from sessions.shared.options import Options
from sessions.targets import gpu_names
from sessions.targets.choose_target import first

AUTO = "auto"  # as --target: the target for the GPUs of this machine


@dataclass(frozen=True)
class Fit:
    """The options that build one wheel for several kinds of GPU."""

    target: str
    arch: str | None  # None: that of the target
    cuda: str | None  # None: that of the target

    @property
    def words(self) -> list[str]:
        """The words of a command line."""
        named = (("--target", self.target), ("--arch", self.arch), ("--cuda", self.cuda))
        return [word for option, value in named if value for word in (option, value)]

    def command(self, session: str) -> str:
        """The command line that runs a session with these options."""
        return programs.typed(["nox", "-s", session, "--", *self.words])


def fit(
    targets: Mapping[str, BuildSpec], capabilities: Iterable[str], cuda: str | None = None
) -> Fit | None:
    """The options that build for these compute capabilities ("8.9"); None if no CUDA can.

    The order of the targets decides, so the slots of the GPUs do not change the wheel. ``cuda`` is
    the minor version that the user requested.
    """
    kinds = sorted(set(capabilities), key=_number, reverse=True)
    serving = {kind: gpu_names.target_for(targets, kind) for kind in kinds}
    names = [name for name in targets if name in serving.values()]
    target = names[0] if names else first(targets)
    archs = [arch for name in names for arch in targets[name].archs]
    archs += [gpu_names.machine_code(kind) for kind in kinds if not serving[kind]]
    own = targets[target].cuda
    known = knowledge.toolkits()
    others = [n for n, row in known.items() if not row.bad and knowledge.is_locked(n)]
    versions = [cuda] if cuda else [own, *others]
    numbers = {_number(arch.partition("-")[0]) for arch in archs}
    able = [n for n in versions if n and numbers <= set(knowledge.toolkit(n).archs)]
    if not able:
        return None
    return Fit(
        target=target,
        arch=None if tuple(archs) == targets[target].archs else ";".join(archs),
        cuda=None if able[0] == own else able[0],
    )


def _number(capability: str) -> int:
    return int(capability.replace(".", ""))


def auto(
    targets: Mapping[str, BuildSpec],
    options: Options,
    nvml: Mapping[str, Any],
    visible: str | None = None,
) -> tuple[Options, str]:
    """The options with a target instead of ``auto``, and a line about the choice and its reason.

    ``nvml`` is the answer of NVML, ``visible`` is CUDA_VISIBLE_DEVICES if it is set: GPUs that it
    hides do not count. Raises Problem for a GPU without a target.
    """
    if options.arch is not None:
        raise UsageProblem(
            "--arch and --target auto both choose the GPU architecture; only one can be given.",
            id="auto-with-arch",
            remedy="leave out --arch, or --target auto",
        )
    devices: list[dict[str, Any]] = list(nvml.get("devices", ()))
    why = f"NVIDIA's driver does not answer here ({nvml['error']})" if "error" in nvml else ""
    if nvml.get("error") == gpu.NO_DRIVER:
        why = "no NVIDIA driver is installed here"
    if not why and not devices:
        why = "there is no NVIDIA GPU here"
    if not why and visible is not None:
        devices = gpu.within(devices, visible)
        why = "" if devices else f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
    if why:
        name = first(targets)
        return dataclasses.replace(options, target=name), f"target auto: {name}, because {why}"
    gpus = {f"{d['name']} ({d['compute_capability']})": d["compute_capability"] for d in devices}
    lacking = [name for name, kind in gpus.items() if not gpu_names.target_for(targets, kind)]
    if lacking:
        raise _without_target(targets, options, gpus, lacking)
    choice = fit(targets, gpus.values(), options.cuda)
    if choice is None:  # --cuda names an unsuitable version; choose_target.choose reports that
        choice = fit(targets, gpus.values())
        assert choice is not None
    name = choice.target + (f" with --arch {choice.arch}" if choice.arch else "")
    chosen = dataclasses.replace(
        options, target=choice.target, arch=choice.arch, cuda=options.cuda or choice.cuda
    )
    return chosen, f"target auto: {name}, for {' and '.join(gpus)}"


def _without_target(
    targets: Mapping[str, BuildSpec],
    options: Options,
    gpus: Mapping[str, str],
    lacking: Sequence[str],
) -> Problem:
    names = ", ".join(lacking)
    able = fit(targets, gpus.values(), options.cuda) or fit(targets, gpus.values())
    if able:
        evidence = "the CUDA version can build for it without a target of its own"
        remedy = able.command("wheel")
    else:
        known = knowledge.toolkits()
        majors = " and ".join(sorted({line.partition(".")[0] for line in known}))
        has = sorted({number for row in known.values() for number in row.archs})
        capabilities = ", ".join(f"{number // 10}.{number % 10}" for number in has)
        evidence = f"CUDA {majors} cannot build for it: it builds for compute capability "
        evidence += capabilities
        rest = [kind for name, kind in gpus.items() if name not in lacking]
        others = fit(targets, rest) if rest else None
        cpu = next((name for name, target in targets.items() if target.cuda is None), None)
        remedy = (
            "for an older GPU, build llama-cpp-python from source with CUDA 12, not with blackwheel"
        )
        if others:
            remedy = f"build for the other GPUs: {others.command('wheel')}"
        elif cpu:
            typed = programs.typed(["nox", "-s", "wheel", "--", "--target", cpu])
            remedy += f"; for the CPU: {typed}"
    return Problem(
        f"There is no target for {names}.",
        id="gpu-without-target",
        evidence=evidence,
        remedy=remedy,
    )
