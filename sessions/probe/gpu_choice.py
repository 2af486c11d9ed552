"""Which GPU a wheel is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sessions.payload import gpu
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.remedies import command


def capabilities(spec: BuildSpec) -> list[str]:
    """Compute capabilities of the target's GPUs: "120a-real" -> "12.0"."""
    numbers = {knowledge.parse_arch(arch)[0] for arch in spec.archs}
    return [f"{number // 10}.{number % 10}" for number in sorted(numbers)]


def wants_card(ctx: Context) -> bool:
    """Whether a run with these options needs a GPU of the target's kind."""
    here = ctx.options.report is None and ctx.options.device != "cpu"
    return here and bool(ctx.spec.archs)


def card_for(
    ctx: Context, nvml: dict[str, Any], wanted: Sequence[str] | None = None
) -> dict[str, Any]:
    """The GPU to test the target's wheel on. Raises Problem where there is none.

    ``wanted`` are the compute capabilities that will do; else all that the target has.
    """
    wanted = capabilities(ctx.spec) if wanted is None else wanted
    assert ctx.spec.cuda is not None
    driver = knowledge.toolkit(ctx.spec.cuda).driver
    visible = ctx.env.get("CUDA_VISIBLE_DEVICES")
    asked = ctx.options.device
    device, what, remedy = gpu.choose(nvml, wanted, driver, asked, visible, _elsewhere(ctx))
    if device is None:
        if not {"ops", "bench"} & ctx.asked:
            # The probe asks for the GPU before the build, and --device cpu builds nothing.
            way = (
                "add --device cpu to this command"
                if ctx.options.wheel
                else f"{command('wheel', ctx.spec)}, then: "
                f"{command('smoke', ctx.spec, '--device', 'cpu')}"
            )
            remedy += f"; to run it on the CPU only: {way}"
        raise Problem(what, id="gpu-not-usable", remedy=remedy)
    second = gpu.second(nvml, wanted, device, asked, visible)
    return {**device, "visible": gpu.selector(device), "second": second}


def _elsewhere(ctx: Context) -> str:
    """How to run what was asked for on another machine, and to bring its report back."""
    session, option = "smoke", ""
    if "ops" in ctx.asked and "smoke" not in ctx.asked:
        session, option = "ops", " with --ops"
    way = (
        f"test the wheel on a machine with the GPU: {command('bundle', ctx.spec)} writes one file "
        f"to run there{option}, and {command(session, ctx.spec, '--report', 'FILE')} imports its "
        "report"
    )
    if "bench" in ctx.asked:
        way += "; add --bench to measure it there; " + (
            f"{command('bench', ctx.spec, '--report', 'FILE')} imports that report"
        )
    return way
