"""Chooses the GPU that a wheel is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sessions.payload import gpu
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.command_text import command
from sessions.shared.context import Context
from sessions.shared.errors import Problem


def capabilities(spec: BuildSpec) -> list[str]:
    """The compute capabilities of the target's GPUs: "120a-real" -> "12.0"."""
    numbers = {knowledge.parse_arch(arch)[0] for arch in spec.archs}
    return [f"{number // 10}.{number % 10}" for number in sorted(numbers)]


def needs_gpu(ctx: Context) -> bool:
    """Whether a run with these options needs one of the target's GPUs."""
    here = ctx.options.report is None and ctx.options.device != "cpu"
    return here and bool(ctx.spec.archs)


def gpu_for(ctx: Context, nvml: dict[str, Any], of: Sequence[str] | None = None) -> dict[str, Any]:
    """The GPU to test the target's wheel on. Raises Problem if there is none.

    ``of`` are the compute capabilities to choose from; by default all of the target's.
    """
    accepted = capabilities(ctx.spec) if of is None else of
    assert ctx.spec.cuda is not None
    driver = knowledge.toolkit(ctx.spec.cuda).driver
    visible = ctx.env.get("CUDA_VISIBLE_DEVICES")
    device_option = ctx.options.device
    device, what, remedy = gpu.choose(
        nvml, accepted, driver, device_option, visible, _elsewhere(ctx)
    )
    if device is None:
        if not {"ops", "bench"} & ctx.asked:
            # The probe checks this before the build, and --device cpu builds nothing.
            how = (
                "add --device cpu to this command"
                if ctx.options.wheel
                else f"{command('wheel', ctx.spec)}, then: "
                f"{command('smoke', ctx.spec, '--device', 'cpu')}"
            )
            remedy += f"; to run it on the CPU only: {how}"
        raise Problem(what, id="gpu-not-usable", remedy=remedy)
    second = gpu.second(nvml, accepted, device, device_option, visible)
    return {**device, "visible": gpu.selector(device), "second": second}


def _elsewhere(ctx: Context) -> str:
    """The remedy: run the sessions that were requested on another machine, import the report."""
    session, option = "smoke", ""
    if "ops" in ctx.asked and "smoke" not in ctx.asked:
        session, option = "ops", " with --ops"
    how_to = (
        f"test the wheel on a machine with the GPU: {command('bundle', ctx.spec)} writes one file "
        f"to run there{option}, and {command(session, ctx.spec, '--report', 'FILE')} imports its "
        "report"
    )
    if "bench" in ctx.asked:
        how_to += "; add --bench to measure it there; " + (
            f"{command('bench', ctx.spec, '--report', 'FILE')} imports that report"
        )
    return how_to
