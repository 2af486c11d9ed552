"""Evaluation of what features.py found: each answer that there must be, within its bound. Pure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import smoke_checks

Job = dict[str, Any]
KNOWN: Job = json.loads(Path(__file__).with_name("features.json").read_text(encoding="utf-8"))
EVALUATIONS = 16  # of four threads
REMEDY = "do not use this wheel on this machine; " + smoke_checks.REPORT


def names(job: Job) -> list[str]:
    """The checks of this machine, in their order."""
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
    """A check for each feature; none where the wheel does not start."""
    if found["device"]["error"]:
        return []
    return [
        _tokenizers(found[name]) if name == "tokenizers" else _check(job, name, found[name])
        for name in names(job)
    ]


def _check(job: Job, name: str, part: Job) -> Job:
    wanted = KNOWN["worst"][name]
    there = {result["case"]: result["nmse"] for result in part["results"]}
    problems = [part["error"]] if part.get("error") else []
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
    """Each text of each vocabulary of upstream's became the tokens that upstream has for it."""
    done = part.get("tokenized", [])
    texts = sum(one["texts"] for one in done)
    problems = [part["error"]] if part.get("error") else []
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
    return (
        []
        if part.get("unchanged")
        else ["after the adapter was removed, the model gives other bits"]
    )


def _partial(part: Job) -> list[str]:
    """The layers that were asked for are on the GPU, and the others are not."""
    problems = _all_placed(part)
    for way, (offloaded, buffers) in part.get("places", {}).items():
        layers = int(way.split(", ")[1][0])
        if offloaded != [layers, 3]:
            problems.append(f"{way}: llama.cpp reports {offloaded} layers on the GPU")
        # Of one layer of two the cache is on the GPU; of both, and the output stays on the CPU.
        wanted = ["CUDA0 model", "CPU KV" if layers == 1 else "CUDA0 KV"]
        problems += [f"{way}: no buffer {name}" for name in wanted if name not in buffers]
    return problems


def _two(part: Job) -> list[str]:
    """Both GPUs have a part of the weights, and with 1:3 of the cache too."""
    problems = _all_placed(part)
    for way, (_, buffers) in part.get("places", {}).items():
        wanted = ["CUDA0 model", "CUDA1 model", *(["CUDA0 KV", "CUDA1 KV"] if "1:3" in way else [])]
        problems += [f"{way}: no buffer {name}" for name in wanted if name not in buffers]
    return problems


def _all_placed(part: Job) -> list[str]:
    count = len(part.get("places", {}))
    return [] if count == 4 else [f"only {count} of 4 models reported where their layers are"]


def _on_gpu(job: Job) -> bool:
    return bool(job["layers"]) or bool(job.get("plant"))


_ELSE = {"threads": _threads, "lora": _lora, "partial-offload": _partial, "two-gpus": _two}
