"""The checks of a run's results: each passes for a sound wheel, and fails for its defects."""

from __future__ import annotations

from typing import Any

import pytest

from sessions.payload import child, smoke_checks
from tests import fakes

SITE = "/work/venv/lib/python3.11/site-packages"
CRASH = "ended by -6: CUDA error: an illegal memory access was encountered"
SILENT = "it ended without an error, but did not return all results"
ON_A_GPU = ["device", "native-sass", "libraries", "full-offload", "memory"]
ANYWHERE = ["known-answers", "greedy-tokens", "repeatable", "types", "cpu-modules"]
INTERFACE = ["grammar", "embeddings", "state", "vocabulary"]
QUESTIONS = [("The capital of France is", "Paris"), ("The chemical symbol of water is", "H2O")]
REAL = {
    "error": None,
    "answers": [{"question": q, "fact": fact, "answer": f" {fact}."} for q, fact in QUESTIONS],
}
FREE = 30_000_000_000  # bytes of GPU memory after the first load


def checked(found: dict[str, Any], **changes: Any) -> dict[str, dict[str, Any]]:
    """The checks by id."""
    checks = smoke_checks.evaluate(fakes.smoke_job(**changes), found)
    return {check["id"]: check for check in checks}


def failed(found: dict[str, Any], **changes: Any) -> dict[str, str]:
    """The evidence of the checks that fail, by id."""
    checks = checked(found, **changes)
    return {id_: check["evidence"] for id_, check in checks.items() if check["status"] == "fail"}


def test_a_sound_wheel_passes_every_check_with_these_summaries() -> None:
    checks = checked(fakes.smoke_found(real=REAL))
    assert list(checks) == [*ON_A_GPU, *ANYWHERE, *INTERFACE, "real-model"]
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert {id_: check["summary"].removeprefix(f"{id_}: ") for id_, check in checks.items()} == {
        "device": "llama_cpp 0.3.16 runs on NVIDIA GeForce RTX 5090 (12.0)",
        "native-sass": "ran with CUDA_DISABLE_PTX_JIT=1; the driver compiled nothing",
        "libraries": "7 from the wheel, the driver and the runtime (site-packages)",
        "full-offload": "3/3 layers, buffers on CUDA0, device memory grew by 19 MiB",
        "memory": "20 loads and unloads, 0 MiB of GPU memory lost",
        "known-answers": "32 cases of 2 types within their bounds "
        "(worst: 10% of its bound, F16, batch 512, plain attention, KV f16)",
        "greedy-tokens": "160 of 160 are those of the reference (F32, F16, BF16)",
        "repeatable": "the same evaluation gave the same bits",
        "types": "2 quantizations tested",
        "cpu-modules": "right results from haswell, x64; haswell is loaded "
        "here; not tested, this CPU cannot run them: skylakex",
        "grammar": "a chat answered 'yes', as the grammar allows",
        "embeddings": "NMSE 1e-09 against the reference",
        "state": "3 greedy tokens are those of the reference, also after saving and loading",
        "vocabulary": "text to tokens and back",
        "real-model": "2 of 2 facts answered",
    }


def test_on_the_cpu_there_are_no_checks_of_a_gpu() -> None:
    changes = {"device/devices": [], "device/offload": False, "offload": {"error": CRASH}}
    checks = checked(fakes.smoke_planted(changes), layers=0)
    assert list(checks) == ["device", *ANYWHERE, *INTERFACE]
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert checks["device"]["summary"] == "device: llama_cpp 0.3.16 runs on the CPU"
    # With ``plant``, a test leaves all layers on the CPU of a machine with a GPU.
    assert list(checked(fakes.smoke_found(), layers=0, plant=True))[:5] == ON_A_GPU


def test_if_the_wheel_is_not_imported_there_is_one_check() -> None:
    found = {"device": {"error": "ended by 1: ImportError: libcudart.so.13"}}
    assert list(checked(found)) == ["device"]
    assert failed(found) == {"device": "ended by 1: ImportError: libcudart.so.13"}


# Name of a defect: (changed values by their place, failed checks with a part of their evidence).
DEFECTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "cpu-wheel": ({"device/offload": False}, {"device": "it supports no GPU"}),
    "no-device": (
        {"device/devices": []},
        {"device": "CUDA finds no device", "native-sass": "no GPU was used"},
    ),
    "other-capability": (
        {"device/devices": [["NVIDIA H200", "9.0"]]},
        {"device": "NVIDIA H200 has compute capability 9.0; the wheel is for 12.0"},
    ),
    "one-gpu-of-another-capability": (
        {"device/devices": [["NVIDIA GeForce RTX 5090", "12.0"], ["NVIDIA L4", "8.9"]]},
        {"device": "NVIDIA L4 has compute capability 8.9"},
    ),
    "other-version": (
        {"device/version": "0.3.15"},
        {"device": "llama_cpp is 0.3.15, and the wheel is 0.3.16"},
    ),
    "device-silent": ({"device": {"error": None}}, {"device": SILENT}),
    "offload-silent": (
        {"offload": {"error": None}},
        {"full-offload": SILENT, "memory": SILENT},
    ),
    "compile-cache": ({"jit_files": 2}, {"native-sass": "2 files in the driver's compile cache"}),
    "jit-disabled": (
        {"times/error": "ended by -6: CUDA error: PTX JIT compiler is disabled"},
        {"native-sass": "times: ended by -6: CUDA error: PTX JIT"},
    ),
    "no-kernel-image": (
        {"offload/error": "ended by -6: CUDA error: no kernel image is available"},
        {
            "native-sass": "offload: ended by -6: CUDA error: no kernel image",
            **dict.fromkeys(("full-offload", "memory"), "no kernel image"),
        },
    ),
    "no-kernel-image-for-the-interface": (
        {"api/error": "ended by -6: invalid device kernel image"},
        {"native-sass": "api: ended by", **dict.fromkeys(INTERFACE, "device kernel")},
    ),
    "offload-crashed": (
        {"offload/error": CRASH},
        dict.fromkeys(("full-offload", "memory"), CRASH),
    ),
    "library-of-another-wheel": (
        {"device/libraries/3": "/usr/lib/python3/dist-packages/llama_cpp/lib/libllama.so"},
        {"libraries": "/usr/lib/python3/dist-packages/llama_cpp/lib/libllama.so: it does not"},
    ),
    "runtime-of-a-toolkit": (
        {"device/libraries/6": "/usr/local/cuda/lib64/libcudart.so.13"},
        {"libraries": "/usr/local/cuda/lib64/libcudart.so.13: not where this wheel's runtime"},
    ),
    "runtime-of-a-venv-with-a-similar-name": (
        {"device/libraries/6": "/work/venv-2/lib/libcudart.so.13"},
        {"libraries": "/work/venv-2/lib/libcudart.so.13: not where"},
    ),
    "library-twice": (
        {"device/libraries/0": f"{SITE}/other/libcudart.so.13.1.80"},
        {"libraries": "2 copies: "},
    ),
    "no-cublas": (
        {"device/libraries": [f"{SITE}/x/libcudart.so.13"]},
        {"libraries": "cublas: not loaded"},
    ),
    "no-cudart": (
        {"device/libraries": [f"{SITE}/x/libcublas.so.13"]},
        {"libraries": "cudart: not loaded"},
    ),
    "no-layer-on-the-gpu": (
        {"offload/offloaded": [0, 3]},
        {"full-offload": "0 of 3 layers are on the device"},
    ),
    "two-layers-on-the-gpu": ({"offload/offloaded": [2, 3]}, {"full-offload": "2 of 3 layers"}),
    "layers-unknown": ({"offload/offloaded": None}, {"full-offload": "0 of unknown layers"}),
    "model-on-the-cpu": (
        {"offload/buffers": {"CPU model": 11.0, "CUDA0 KV": 2.0}},
        {"full-offload": "no model buffer on the device"},
    ),
    "cache-on-the-cpu": (
        {"offload/buffers": {"CUDA0 model": 11.0, "CPU KV": 2.0}},
        {"full-offload": "no KV buffer on the device"},
    ),
    "pinned-buffer": (
        {"offload/buffers": {"CUDA_Host model": 11.0, "CUDA0 KV": 2.0}},
        {"full-offload": "no model buffer on the device"},
    ),
    "memory-did-not-grow": (
        {"offload/grew": 5_499_999},
        {"full-offload": "device memory grew by 5499999 bytes for 11000000 of weights"},
    ),
    "leak": (
        {"offload/free_after_last": FREE - 33 * 2**20},
        {"memory": "33 MiB less are free after 20 loads"},
    ),
    "nan": (
        {"answers/F16/results/3/nmse": float("nan")},
        {"known-answers": "F16, batch 1, flash attention, KV q4_0: NMSE nan"},
    ),
    "not-finite": (
        {"answers/F16/results/0/finite": False},
        {"known-answers": "F16, batch 1, plain attention, KV f16: NMSE 1.00e-05"},
    ),
    "over-the-bound": (
        {"answers/Q4_K/results/12/nmse": 0.0051},
        {"known-answers": "Q4_K, batch 512, plain attention, KV f16: NMSE 5.10e-03, allowed 5e-03"},
    ),
    "slightly-over-the-bound": (
        {"answers/F16/results/0/nmse": 1.001e-4},
        {"known-answers": "F16, batch 1, plain attention, KV f16: NMSE 1.00e-04"},
    ),
    "case-crashed": (
        {"answers/Q4_K/results/0": {**child.CASES[5], "type": "Q4_K", "error": CRASH}},
        {"known-answers": f"Q4_K, batch 4, flash attention, KV f16: {CRASH}"},
    ),
    "model-does-not-load": (
        {"answers/Q4_K/results": [{"type": "Q4_K", "error": CRASH}]},
        {"known-answers": f"Q4_K: {CRASH}"},
    ),
    **{
        f"{count}-cases": (
            {"answers/Q4_K/results": fakes.smoke_answers("Q4_K")["results"][:count]},
            {"known-answers": f"Q4_K: {count} of 16 cases were computed"},
        )
        for count in (1, 4, 15)
    },
    "no-cases": (
        {"answers": {}},
        {
            "known-answers": "no case was computed",
            "greedy-tokens": "no token was compared",
            "repeatable": "nothing was computed twice",
            "types": "F16: not tested",
        },
    ),
    "other-token": (
        {"answers/F16/results/4/equal": 19},
        {"greedy-tokens": "F16, batch 4, plain attention, KV f16: 19 of 20"},
    ),
    "no-token-compared": (
        {"answers/F16": {"results": []}},
        {
            "known-answers": "F16: 0 of 16 cases were computed",
            "greedy-tokens": "no token was compared",
            "types": "F16: not tested",
        },
    ),
    "other-bits": (
        {"answers/Q4_K/results/5/repeats": False},
        {"repeatable": "Q4_K, batch 4, flash attention, KV f16"},
    ),
    "type-unknown": (
        {"answers/Q4_K": {"unknown": "Q4_K", "results": []}},
        {"types": "Q4_K: not known to the wheel"},
    ),
    "type-not-tested": (
        {"answers/Q4_K": {"results": []}},
        {"known-answers": "Q4_K: 0 of 16 cases were computed", "types": "Q4_K: not tested"},
    ),
    "weights-on-the-cpu": (
        {"answers/Q4_K/buffers": {"CPU_Mapped model": 4.0, "CUDA0 KV": 2.0}},
        {"types": "Q4_K: its weights stay on the CPU"},
    ),
    "module-wrong": (
        {"modules/x64/1/results/1/nmse": 0.5},
        {"cpu-modules": "x64, Q4_K, batch 32: NMSE 5.00e-01, allowed"},
    ),
    "module-crashed": ({"modules/x64/0/error": CRASH}, {"cpu-modules": f"x64, F16: {CRASH}"}),
    "module-refused": (
        {"modules/x64/0/results/0": {"type": "F16", "error": "no context"}},
        {"cpu-modules": "x64, F16: no context"},
    ),
    "module-without-cases": (
        {"modules/x64/0/results": []},
        {"cpu-modules": "x64, F16: no case was computed"},
    ),
    "other-module": (
        {"modules/x64/0/chosen": "haswell"},
        {"cpu-modules": "x64, F16: haswell was used"},
    ),
    "modules-not-tested": (
        {"modules": {}},
        {"cpu-modules": "haswell: not tested\nx64: not tested"},
    ),
    "no-module-for-this-cpu": (
        {"device/modules": {}, "modules": {}},
        {"cpu-modules": "no module can run on this CPU"},
    ),
    "slower-module-loaded": (
        {"device/chosen": "x64"},
        {"cpu-modules": "x64 is loaded, although another one suits better"},
    ),
    "interface-crashed": ({"api/error": CRASH}, dict.fromkeys(INTERFACE, CRASH)),
    "interface-silent": ({"api": {"error": None}}, dict.fromkeys(INTERFACE, SILENT)),
    "other-answer": ({"api/chat": "maybe"}, {"grammar": "'maybe'"}),
    "no-answer": ({"api/chat": None}, {"grammar": "None"}),
    "other-embeddings": ({"api/embedding": 2e-4}, {"embeddings": "NMSE 2.00e-04"}),
    "embeddings-nan": ({"api/embedding": float("nan")}, {"embeddings": "NMSE nan"}),
    "other-tokens-after-loading": (
        {"api/other": [300, 301, 303]},
        {"state": "[300, 301, 302], after loading [300, 301, 303], reference [300, 301, 302]"},
    ),
    "other-tokens-than-the-reference": ({"api/wanted": [7]}, {"state": "reference [7]"}),
    "no-tokens": (
        {"api/one": [], "api/other": [], "api/wanted": []},
        {"state": "[], after loading []"},
    ),
    "other-text": ({"api/back": "Hola"}, {"vocabulary": "'Hola, señor' became 'Hola'"}),
    "no-text": ({"api/text": "", "api/back": ""}, {"vocabulary": "'' became ''"}),
    "real-model-wrong": (
        {"real": {"answers": [{"question": "2 + 2 =", "fact": "4", "answer": " 5"}]}},
        {"real-model": "2 + 2 = … ' 5'; expected: 4"},
    ),
    "real-model-not-asked": (
        {"real": {"answers": []}},
        {"real-model": "0 of 1 questions were answered"},
    ),
    "real-model-crashed": ({"real": {"error": CRASH, "answers": []}}, {"real-model": CRASH}),
}


@pytest.mark.parametrize(("changes", "expected"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_fails_its_own_checks_and_no_other(
    changes: dict[str, Any], expected: dict[str, str]
) -> None:
    checks = checked(fakes.smoke_planted(changes))
    for check in checks.values():
        assert check["summary"].startswith(check["id"] + ": ")
        assert bool(check["remedy"]) == bool(check["evidence"]) == (check["status"] == "fail")
    evidence = {id_: check["evidence"] for id_, check in checks.items() if check["evidence"]}
    assert evidence.keys() == expected.keys()
    assert {id_: part for id_, part in expected.items() if part not in evidence[id_]} == {}


def test_every_check_has_a_defect_in_which_it_fails() -> None:
    caught = {id_ for _, expected in DEFECTS.values() for id_ in expected}
    assert caught == set(checked(fakes.smoke_found(real=REAL)))


def test_on_the_cpu_a_silent_child_fails_too() -> None:
    found = fakes.smoke_planted({"device": {"error": None}})
    assert failed(found, layers=0) == {"device": SILENT}


def test_a_real_model_must_answer_every_question() -> None:
    questions = [*fakes.smoke_job()["questions"], ["2 + 2 =", "4"], ["3 + 3 =", "6"]]
    found = failed(fakes.smoke_found(real=REAL), questions=questions)
    assert found == {"real-model": f"2 of {len(questions)} questions were answered"}


@pytest.mark.parametrize(("count", "lines"), [(8, 8), (11, 9)])
def test_eight_lines_of_evidence_are_shown(count: int, lines: int) -> None:
    found = {f"answers/F16/results/{n}/nmse": 1.0 for n in range(count)}
    shown = failed(fakes.smoke_planted(found))["known-answers"].splitlines()
    assert len(shown) == lines
    assert shown[7].startswith("F16, batch 4, flash attention, KV q4_0")
    assert shown[8:] == ["… and 3 more"][: lines - 8]


# ---- what is not a defect ------------------------------------------------------------------------

MOVED = [f"/opt/python/nvidia/cu13/lib/lib{n}.so.13" for n in ("cublas", "cublasLt", "cudart")]
FINE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "type-of-a-later-release": ({"answers/NVFP4": {"unknown": "NVFP4", "results": []}}, {}),
    "type-without-a-cuda-kernel": (
        {"answers/TQ1_0": {**fakes.smoke_answers("TQ1_0"), "buffers": {"CPU model": 4.0}}},
        {},
    ),
    "weights-on-the-cpu-of-a-cpu-run": (
        {"answers/Q4_K/buffers": {"CPU model": 14.0}},
        {"layers": 0},
    ),
    "local-version": ({}, {"version": "0.3.16+cu131"}),
    "chosen-runtime": (
        {"device/libraries": MOVED},
        {"runtime_places": ["/opt/python/nvidia/cu13"]},
    ),
    "runtime-below-the-chosen-folder": (
        {"device/libraries": MOVED},
        {"runtime_places": ["/opt/python"]},
    ),
    "memory-freed-by-others": ({"offload/free_after_last": FREE + 10**10}, {}),
    "memory-within-the-bound": (
        {"offload/free_after_last": FREE - smoke_checks.LEAK_MIB * 2**20},
        {},
    ),
    "tokens-of-an-inexact-type": ({"answers/Q4_K/results/0/equal": 0}, {}),
    "tokens-of-a-quantized-cache": ({"answers/F16/results/2/equal": 0}, {}),
    "exactly-at-the-bound": ({"answers/F16/results/0/nmse": 1e-4}, {}),
}


@pytest.mark.parametrize(("changes", "job"), FINE.values(), ids=FINE)
def test_this_is_not_a_defect(changes: dict[str, Any], job: dict[str, Any]) -> None:
    assert failed(fakes.smoke_planted(changes), **job) == {}


def test_types_that_are_not_on_the_gpu_or_not_known_are_in_the_summary() -> None:
    found = fakes.smoke_planted(
        {
            key: value
            for name in FINE
            if name.startswith("type-")
            for key, value in FINE[name][0].items()
        }
    )
    summary = checked(found)["types"]["summary"]
    assert "this release does not know NVFP4" in summary
    assert "TQ1_0 on the CPU" in summary


def test_a_runtime_outside_of_the_chosen_folder_fails() -> None:
    found = fakes.smoke_planted({"device/libraries": MOVED})
    assert "libraries" in failed(found, runtime_places=["/opt/python/nvidia/cu12"])


def test_freed_memory_is_not_shown_as_lost() -> None:
    found = fakes.smoke_planted({"offload/free_after_last": FREE + 10**10})
    assert checked(found)["memory"]["summary"].endswith(", 0 MiB of GPU memory lost")


def test_the_token_embedding_is_always_on_the_cpu() -> None:
    assert not smoke_checks.on_host({"buffers": {"CPU_Mapped model": 1.0, "CUDA0 model": 13.0}})
    assert smoke_checks.on_host({"buffers": {"CPU_Mapped model": 1.0, "CPU_REPACK model": 1.0}})


# ---- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "kv", "native", "expected"),
    [
        ("F16", "f16", False, 1e-4),
        ("F16", "q4_0", False, 1e-4 + 0.025),
        ("MXFP4", "f16", False, 5e-4),
        ("MXFP4", "f16", True, 0.1),
        ("F16", "q8_0", True, 1e-4 + 2e-4),
    ],
)
def test_a_bound_depends_on_the_type_the_cache_and_the_kernels(
    type_: str, kv: str, native: bool, expected: float
) -> None:
    found = smoke_checks.bound({"native_fp4": native}, {"type": type_, "kv": kv})
    assert found == pytest.approx(expected)


def test_every_case_of_a_child_has_a_bound() -> None:
    for name in smoke_checks.BOUNDS["type"]:
        for case in child.CASES:
            assert 0 < smoke_checks.bound({}, {**case, "type": name}) < 0.2


def test_the_cases_of_a_report_have_bounds_unless_they_have_an_error() -> None:
    error = {"type": "Q4_K", "error": CRASH}
    cases = smoke_checks.cases(
        fakes.smoke_job(), fakes.smoke_planted({"answers/Q4_K/results": [error]})
    )
    assert {case["bound"] for case in cases[:16]} == {1e-4, 1e-4 + 2e-4, 1e-4 + 0.025}
    assert cases[16:] == [error]
    assert smoke_checks.cases(fakes.smoke_job(), {"device": {"error": CRASH}}) == []
