"""The evaluation of what the children found of a wheel's features: each check, and its defects."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest

from sessions.payload import feature_checks as payload
from tests import fakes

Place = tuple[str | int, ...]
ALWAYS = ["vision", "text-embeddings", "lora", "threads"]
TWO = {"second": "GPU-2"}


def evaluated(found: dict[str, Any], **changes: Any) -> dict[str, dict[str, Any]]:
    checks = payload.evaluate(fakes.smoke_job(**changes), found)
    return {check["id"]: check for check in checks}


def failed(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {id_: check["evidence"] for id_, check in checks.items() if check["status"] == "fail"}


def planted(place: Place, value: Any) -> dict[str, Any]:
    """What is found of a sound wheel, with another value at this place."""
    found: Any = copy.deepcopy(fakes.smoke_found())
    inner = functools.reduce(lambda part, key: part[key], place[:-1], found)
    inner[place[-1]] = value
    return dict(found)


def test_a_sound_wheel_passes_every_check() -> None:
    checks = evaluated(fakes.smoke_found(), **TWO)
    assert list(checks) == [*ALWAYS, "partial-offload", "two-gpus"]
    assert failed(checks) == {}
    assert checks["threads"]["summary"] == (
        "threads: 1 result within bounds (worst: 0% of its bound, Q4_K, batch 32)"
    )


def test_with_one_gpu_it_is_said_that_two_were_not_tested() -> None:
    checks = evaluated(fakes.smoke_found())
    assert list(checks) == [*ALWAYS, "partial-offload"]
    assert "a model on two GPUs was not tested" in checks["partial-offload"]["summary"]


def test_on_the_cpu_nothing_is_said_of_a_gpu() -> None:
    assert list(evaluated(fakes.smoke_found(), layers=0)) == ALWAYS


def test_a_wheel_that_does_not_start_has_no_checks_here() -> None:
    assert evaluated({"device": {"error": "ended by 1: ImportError"}}) == {}


DEFECTS: list[tuple[Place, Any, str, str]] = [
    (("vision", "results", 0, "nmse"), 2e-4, "vision", "picture, F32: NMSE 2.00e-04"),
    (("vision", "results", 3, "nmse"), float("nan"), "vision", "F16: NMSE nan"),
    (("vision", "results"), [], "vision", "text and picture, F16: no result"),
    (("vision", "error"), "ended by -11: a crash", "vision", "ended by -11: a crash"),
    (("text-embeddings", "results", 5, "nmse"), 1e-3, "text-embeddings", "cls, flash attention"),
    (("lora", "results", 1, "nmse"), 1e-2, "lora", "scale 1.0, batch 32: NMSE"),
    (("lora", "unchanged"), False, "lora", "gives other bits"),
    (("lora", "unchanged"), None, "lora", "gives other bits"),
    (("threads", "same"), 15, "threads", "15 of 16 evaluations"),
    (("threads", "evaluations"), 12, "threads", "16 of 12 evaluations"),
    (("threads", "results"), [], "threads", "Q4_K, batch 32: no result"),
    (("partial-offload", "results", 7, "nmse"), 1e-2, "partial-offload", "Q4_K, 1 of 3 layers"),
    (("partial-offload", "places"), {}, "partial-offload", "0 of 4 models"),
    (
        ("partial-offload", "places", "F16, 1 of 3 layers", 0),
        [3, 3],
        "partial-offload",
        "F16, 1 of 3 layers: llama.cpp reports [3, 3] layers",
    ),
    (
        ("partial-offload", "places", "F16, 1 of 3 layers", 1),
        {"CUDA0 model": 1.0, "CUDA0 KV": 1.0},
        "partial-offload",
        "F16, 1 of 3 layers: no buffer CPU KV",
    ),
    (
        ("partial-offload", "places", "Q4_K, 2 of 3 layers", 1),
        {"CUDA0 model": 1.0, "CPU KV": 1.0},
        "partial-offload",
        "Q4_K, 2 of 3 layers: no buffer CUDA0 KV",
    ),
    (("two-gpus", "results", 0, "nmse"), 1e-2, "two-gpus", "F16, split 1:1, batch 1: NMSE"),
    (
        ("two-gpus", "places", "Q4_K, split 1:1", 1),
        {"CUDA0 model": 2.0, "CUDA0 KV": 1.0},
        "two-gpus",
        "Q4_K, split 1:1: no buffer CUDA1 model",
    ),
    (
        ("two-gpus", "places", "F16, split 1:3", 1),
        {"CUDA0 model": 2.0, "CUDA1 model": 2.0, "CUDA0 KV": 1.0},
        "two-gpus",
        "F16, split 1:3: no buffer CUDA1 KV",
    ),
    (("two-gpus", "places"), {}, "two-gpus", "0 of 4 models"),
]


@pytest.mark.parametrize(("place", "value", "id_", "evidence"), DEFECTS)
def test_a_defect_is_found_by_its_check_only(
    place: Place, value: Any, id_: str, evidence: str
) -> None:
    found = failed(evaluated(planted(place, value), **TWO))
    assert list(found) == [id_]
    assert evidence in found[id_]


def test_a_bound_is_four_times_the_worst() -> None:
    assert payload.bound("threads", "Q4_K, batch 32", on_gpu=False) == 4 * 2.9e-4
    assert payload.bound("partial-offload", "F16, 1 of 3 layers, batch 1", on_gpu=True) == 1.4e-6
    for name, cases in payload.KNOWN["worst"].items():
        places = {"gpu"} if name in ("partial-offload", "two-gpus") else {"cpu", "gpu"}
        assert {case: set(row) for case, row in cases.items()} == dict.fromkeys(cases, places)


def test_the_report_has_each_answer_with_its_bound() -> None:
    answers = payload.answers(fakes.smoke_job(), fakes.smoke_found())
    expected = fakes.smoke_features()
    assert [(a["check"], a["case"]) for a in answers] == [(a["check"], a["case"]) for a in expected]
    bounds = {a["case"]: a["bound"] for a in answers if a["check"] == "lora"}
    assert bounds["scale 1.0, batch 1"] == 2e-6
    assert bounds["scale 1.0, batch 512"] == 1.2e-5
    assert payload.answers(fakes.smoke_job(), {"device": {"error": "a crash"}}) == []


TOKENIZED = [{"file": "ggml-vocab-gpt-2.gguf", "texts": 47, "wrong": []}]


@pytest.mark.parametrize(
    ("part", "evidence"),
    [
        ({"error": None, "tokenized": TOKENIZED}, None),
        ({"error": None, "tokenized": []}, "no text was tested"),
        ({"error": "ended by 1: a crash", "tokenized": TOKENIZED}, "ended by 1: a crash"),
        (
            {"error": None, "tokenized": [{**TOKENIZED[0], "wrong": ["'a' became [1], not 2"]}]},
            "ggml-vocab-gpt-2.gguf: 'a' became [1], not 2",
        ),
    ],
)
def test_upstreams_texts_become_its_tokens(part: dict[str, Any], evidence: str | None) -> None:
    found = fakes.smoke_found(tokenizers=part)
    checks = evaluated(found, vectors="/work/vectors")
    assert failed(checks) == ({"tokenizers": evidence} if evidence else {})
    assert (
        "47 texts gave the expected tokens, in 1 of" in checks["tokenizers"]["summary"] or evidence
    )
    assert "tokenizers" not in evaluated(found, vectors=None)
