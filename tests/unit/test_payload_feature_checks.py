"""The checks of features: each passes for a sound wheel, and fails for its defects."""

from __future__ import annotations

from typing import Any

import pytest

from sessions.payload import feature_checks
from tests import fakes

ALWAYS = ["vision", "text-embeddings", "lora", "threads"]
TWO = {"second": "GPU-2"}
GPU = {"CUDA0 model": 1.0, "CUDA0 KV": 1.0}


def evaluated(found: dict[str, Any], **changes: Any) -> dict[str, dict[str, Any]]:
    """The checks by id."""
    checks = feature_checks.evaluate(fakes.smoke_job(**changes), found)
    return {check["id"]: check for check in checks}


def failed(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The evidence of the checks that fail, by id."""
    return {id_: check["evidence"] for id_, check in checks.items() if check["status"] == "fail"}


def test_the_checks_depend_on_the_gpus_of_the_machine() -> None:
    checks = evaluated(fakes.smoke_found(), **TWO)
    assert list(checks) == [*ALWAYS, "partial-offload", "two-gpus"]
    assert failed(checks) == {}
    assert checks["threads"]["summary"] == (
        "threads: 1 result within bounds (worst: 0% of its bound, Q4_K, batch 32)"
    )
    one = evaluated(fakes.smoke_found())
    assert list(one) == [*ALWAYS, "partial-offload"]
    assert "a model on two GPUs was not tested" in one["partial-offload"]["summary"]
    assert list(evaluated(fakes.smoke_found(), layers=0)) == ALWAYS
    assert evaluated({"device": {"error": "ended by 1: ImportError"}}) == {}


# Place of a changed value, the value, and a part of the evidence; the first part of the place is
# the check that fails.
DEFECTS: list[tuple[str, Any, str]] = [
    ("vision/results/0/nmse", 2e-4, "picture, F32: NMSE 2.00e-04"),
    ("vision/results/3/nmse", float("nan"), "F16: NMSE nan"),
    ("vision/results", [], "text and picture, F16: no result"),
    ("vision/error", "ended by -11: a crash", "ended by -11: a crash"),
    ("text-embeddings/results/5/nmse", 1e-3, "cls, flash attention"),
    ("lora/results/1/nmse", 1e-2, "scale 1.0, batch 32: NMSE"),
    ("lora/unchanged", False, "gives other bits"),
    ("lora/unchanged", None, "gives other bits"),
    ("threads/same", 15, "15 of 16 evaluations"),
    ("threads/evaluations", 12, "16 of 12 evaluations"),
    ("threads/results", [], "Q4_K, batch 32: no result"),
    ("partial-offload/results/7/nmse", 1e-2, "Q4_K, 1 of 3 layers"),
    ("partial-offload/places", {}, "0 of 4 models"),
    (
        "partial-offload/places/F16, 1 of 3 layers/0",
        [3, 3],
        "F16, 1 of 3 layers: llama.cpp reports [3, 3] layers",
    ),
    (
        "partial-offload/places/F16, 1 of 3 layers/1",
        GPU,
        "F16, 1 of 3 layers: no buffer CPU KV",
    ),
    (
        "partial-offload/places/Q4_K, 2 of 3 layers/1",
        {"CUDA0 model": 1.0, "CPU KV": 1.0},
        "Q4_K, 2 of 3 layers: no buffer CUDA0 KV",
    ),
    ("two-gpus/results/0/nmse", 1e-2, "F16, split 1:1, batch 1: NMSE"),
    ("two-gpus/places/Q4_K, split 1:1/1", GPU, "Q4_K, split 1:1: no buffer CUDA1 model"),
    (
        "two-gpus/places/F16, split 1:3/1",
        {**GPU, "CUDA1 model": 2.0},
        "F16, split 1:3: no buffer CUDA1 KV",
    ),
    ("two-gpus/places", {}, "0 of 4 models"),
]


@pytest.mark.parametrize(("place", "value", "evidence"), DEFECTS)
def test_a_defect_fails_its_own_check_and_no_other(place: str, value: Any, evidence: str) -> None:
    found = failed(evaluated(fakes.smoke_planted({place: value}), **TWO))
    assert list(found) == [place.partition("/")[0]]
    assert evidence in found[place.partition("/")[0]]


def test_a_bound_is_four_times_the_worst_result() -> None:
    assert feature_checks.bound("threads", "Q4_K, batch 32", on_gpu=False) == 4 * 2.9e-4
    case = "F16, 1 of 3 layers, batch 1"
    assert feature_checks.bound("partial-offload", case, on_gpu=True) == 1.4e-6
    for name, cases in feature_checks.KNOWN["worst"].items():
        places = {"gpu"} if name in ("partial-offload", "two-gpus") else {"cpu", "gpu"}
        assert {case: set(row) for case, row in cases.items()} == dict.fromkeys(cases, places)


def test_the_report_has_each_answer_with_its_bound() -> None:
    answers = feature_checks.answers(fakes.smoke_job(), fakes.smoke_found())
    expected = fakes.smoke_features()
    assert [(a["check"], a["case"]) for a in answers] == [(a["check"], a["case"]) for a in expected]
    bounds = {a["case"]: a["bound"] for a in answers if a["check"] == "lora"}
    assert bounds["scale 1.0, batch 1"] == 2e-6
    assert bounds["scale 1.0, batch 512"] == 1.2e-5
    assert feature_checks.answers(fakes.smoke_job(), {"device": {"error": "a crash"}}) == []


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
def test_the_tokenizer_check_compares_upstreams_texts(
    part: dict[str, Any], evidence: str | None
) -> None:
    found = fakes.smoke_found(tokenizers=part)
    checks = evaluated(found, vectors="/work/vectors")
    assert failed(checks) == ({"tokenizers": evidence} if evidence else {})
    if not evidence:
        summary = checks["tokenizers"]["summary"]
        assert "47 texts gave the expected tokens, in 1 of" in summary
    assert "tokenizers" not in evaluated(found, vectors=None)
