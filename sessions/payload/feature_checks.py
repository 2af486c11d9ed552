"""Checks the results of features.py and of model families: complete and within bounds. Pure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import family_checks
import smoke_checks

Job = dict[str, Any]
KNOWN: Job = json.loads(Path(__file__).with_name("features.json").read_text(encoding="utf-8"))
EVALUATIONS = 16  # by four threads
REMEDY = "do not use this wheel on this machine; " + smoke_checks.REPORT


def names(job: Job) -> list[str]:
    """The checks that this machine can run, in their order."""
    missing = {"partial-offload": not _on_gpu(job), "two-gpus": not job.get("second")}
    found = [name for name in KNOWN["worst"] if not missing.get(name)]
    return [*found, *(["tokenizers"] if job.get("vectors") else [])]


def bound(name: str, case: str, on_gpu: bool) -> float:
    """The largest NMSE that an answer may have."""
    worst = KNOWN["worst"][name][case]["gpu" if on_gpu else "cpu"]
    return float(f"{KNOWN['factor'] * worst:.3g}")


def answers(job: Job, found: Job) -> list[Job]:
    """Every answer with its bound, for the report."""
    return [
        {"check": name, **result, "bound": bound(name, result["case"], _on_gpu(job))}
        for name in names(job)
        for result in found.get(name, {}).get("results", ())
    ]


def evaluate(job: Job, found: Job) -> list[Job]:
    """A check for each feature; none if the wheel does not start."""
    if found["device"]["error"]:
        return []
    return [
        _tokenizers(found[name]) if name == "tokenizers" else _check(job, name, found[name])
        for name in names(job)
    ]


def families(job: Job, found: Job) -> Job:
    """The check of model families: every row of the plan is present and within its bound."""
    plan, rows = family_checks.planned(job), family_checks.rows_of(found)
    problems = family_checks.problems(plan, rows, on_gpu=job["layers"] != 0)
    if not rows:
        problems.append("no family was computed")
    made: Job = smoke_checks.check(
        "families",
        problems,
        family_checks.summary(plan, rows),
        f"wrong or missing: {len(problems)} of {len(plan)} cases of model families",
        "do not use this wheel for these models; " + smoke_checks.REPORT,
    )
    return made


def _check(job: Job, name: str, part: Job) -> Job:
    wanted = KNOWN["worst"][name]
    there = {result["case"]: result["nmse"] for result in part["results"]}
    problems = smoke_checks.crash(part)
    problems += [f"{case}: no result" for case in wanted if case not in there]
    shares = {}
    for case, nmse in there.items():
        limit = bound(name, case, _on_gpu(job))
        shares[case] = nmse / limit
        if not nmse <= limit:
            problems.append(f"{case}: NMSE {nmse:.2e}, allowed {limit:.1e}")
    problems += _ELSE[name](part) if name in _ELSE and not part.get("error") else []
    closest = max(shares, key=lambda case: shares[case], default="")
    ok = f"{len(there)} {'result' if len(there) == 1 else 'results'} within bounds"
    ok += f" (worst: {shares.get(closest, 0):.0%} of its bound, {closest})"
    if name == "partial-offload" and not job.get("second"):
        ok += "; only one GPU is used, so a model on two GPUs was not tested"
    made: Job = smoke_checks.check(
        name, problems, ok, f"wrong or missing results: {len(problems)}", REMEDY
    )
    return made


def _tokenizers(part: Job) -> Job:
    """The check that each text gave upstream's tokens, with each of upstream's vocabularies."""
    done = part.get("tokenized", [])
    texts = sum(one["texts"] for one in done)
    problems = smoke_checks.crash(part)
    problems += [f"{one['file']}: {wrong}" for one in done for wrong in one["wrong"]]
    if not texts:
        problems.append("no text was tested")
    ok = f"{texts} texts gave the expected tokens, in {len(done)} of upstream's vocabularies"
    made: Job = smoke_checks.check("tokenizers", problems, ok, "tokens differ", REMEDY)
    return made


def _threads(part: Job) -> list[str]:
    same = part.get("same")
    if (part.get("evaluations"), same) == (EVALUATIONS, EVALUATIONS):
        return []
    return [f"{same} of {part.get('evaluations')} evaluations by four threads have the same bits"]


def _lora(part: Job) -> list[str]:
    unchanged = part.get("unchanged")
    return [] if unchanged else ["after the adapter was removed, the model gives other bits"]


def _partial(part: Job) -> list[str]:
    """The requested layers are on the GPU, and the others are not."""
    problems = []
    for way, (offloaded, _) in part.get("places", {}).items():
        layers = int(way.split(", ")[1][0])
        if offloaded != [layers, 3]:
            problems.append(f"{way}: llama.cpp reports {offloaded} layers on the GPU")
    # With one of the two layers on the GPU, a part of the cache is on the CPU.
    kv = {"1 of 3": ["CPU KV"], "2 of 3": ["CUDA0 KV"]}
    return problems + _missing_buffers(part, ["CUDA0 model"], kv)


def _two(part: Job) -> list[str]:
    """Both GPUs have a part of the weights; with 1:3 they also have a part of the cache."""
    return _missing_buffers(part, ["CUDA0 model", "CUDA1 model"], {"1:3": ["CUDA0 KV", "CUDA1 KV"]})


def _missing_buffers(part: Job, always: list[str], more: dict[str, list[str]]) -> list[str]:
    """The buffers that are missing; ``more``: a part of a case's name -> its other buffers."""
    places = part.get("places", {})
    count = len(places)
    problems = [] if count == 4 else [f"only {count} of 4 models reported where their layers are"]
    for way, (_, buffers) in places.items():
        wanted = [*always, *(name for key in more if key in way for name in more[key])]
        problems += [f"{way}: no buffer {name}" for name in wanted if name not in buffers]
    return problems


def _on_gpu(job: Job) -> bool:
    return bool(job["layers"]) or bool(job.get("plant"))


_ELSE = {"threads": _threads, "lora": _lora, "partial-offload": _partial, "two-gpus": _two}
