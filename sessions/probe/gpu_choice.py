"""Which GPU a wheel is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sessions.payload import gpu
from sessions.shared import knowledge
from sessions.shared.command_line import command
from sessions.shared.errors import Problem
from sessions.shared.nox_session import Context
from sessions.shared.target import BuildSpec


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
    elsewhere = (
        f"test the wheel on a machine with the GPU: {command('bundle', ctx.spec)} writes one file "
        f"to run there, and {command('smoke', ctx.spec, '--report', 'FILE')} imports its report"
    )
    device, what, remedy = gpu.choose(nvml, wanted, driver, asked, visible, elsewhere)
    if device is None:
        # The probe asks for the GPU before the build, and --device cpu builds nothing.
        more = (
            f"to run it on the CPU only: {command('wheel', ctx.spec)}, then: "
            f"{command('smoke', ctx.spec, '--device', 'cpu')}"
        )
        if "bench" in ctx.asked:
            more = "add --bench to measure it there; " + (
                f"{command('bench', ctx.spec, '--report', 'FILE')} imports that report"
            )
        raise Problem(what, id="gpu-not-usable", remedy=f"{remedy}; {more}")
    second = gpu.second(nvml, wanted, device, asked, visible)
    return {**device, "visible": gpu.selector(device), "second": second}
