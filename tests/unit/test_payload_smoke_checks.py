"""The judgement of what the children found: each check, and the input in which it fails."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import pytest

from sessions.payload import child, smoke_checks
from tests import fakes

SITE = "/work/venv/lib/python3.11/site-packages"
CRASH = "ended by -6: CUDA error: an illegal memory access was encountered"
SILENT = "it ended without an error, but did not return all results"
ON_A_CARD = ["device", "native-sass", "libraries", "full-offload", "memory"]
ANYWHERE = ["known-answers", "greedy-tokens", "repeatable", "types", "cpu-modules"]
INTERFACE = ["grammar", "embeddings", "state", "vocabulary"]
REAL = {
    "error": None,
    "answers": [
        {"question": "The capital of France is", "fact": "Paris", "answer": " paris, a city"},
        {"question": "The chemical symbol of water is", "fact": "H2O", "answer": " H2O."},
    ],
}
Place = tuple[str | int, ...]
SOUND = pickle.dumps(fakes.smoke_found())  # a copy takes a tenth of the time of making it


def planted(*plants: tuple[Place, Any]) -> dict[str, Any]:
    """What is found of a sound wheel, with another value at each of these places."""
    found: Any = pickle.loads(SOUND)
    for place, value in plants:
        inner: Any = functools.reduce(lambda part, key: part[key], place[:-1], found)
        inner[place[-1]] = value
    return dict(found)


def judged(found: dict[str, Any], **changes: Any) -> dict[str, dict[str, Any]]:
    """The checks by their name."""
    return {
        check["id"]: check for check in smoke_checks.evaluate(fakes.smoke_job(**changes), found)
    }


def failed(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Evidence of the checks that fail, by name."""
    return {id_: check["evidence"] for id_, check in checks.items() if check["status"] == "fail"}


def test_a_sound_wheel_passes_every_check() -> None:
    checks = judged(fakes.smoke_found(real=REAL))
    assert list(checks) == [*ON_A_CARD, *ANYWHERE, *INTERFACE, "real-model"]
    assert failed(checks) == {}
    assert {check["status"] for check in checks.values()} == {"ok"}


def test_a_check_that_holds_says_what_it_rests_on() -> None:
    told = {id_: check["summary"] for id_, check in judged(fakes.smoke_found(real=REAL)).items()}
    assert told == {
        "device": "device: llama_cpp 0.3.16 runs on NVIDIA GeForce RTX 5090 (12.0)",
        "native-sass": "native-sass: ran with CUDA_DISABLE_PTX_JIT=1; the driver compiled nothing",
        "libraries": "libraries: 7 from the wheel, the driver and the runtime (site-packages)",
        "full-offload": "full-offload: 3/3 layers, buffers on CUDA0, device memory grew by 19 MiB",
        "memory": "memory: 20 loads and unloads, 0 MiB of GPU memory lost",
        "known-answers": "known-answers: 32 cases of 2 types within their bounds "
        "(worst: 10% of its bound, F16, batch 512, plain attention, KV f16)",
        "greedy-tokens": "greedy-tokens: 160 of 160 are those of the reference (F32, F16, BF16)",
        "repeatable": "repeatable: the same evaluation gave the same bits",
        "types": "types: 2 quantizations tested",
        "cpu-modules": "cpu-modules: right results from haswell, x64; haswell is loaded "
        "here; not tested, this CPU cannot run them: skylakex",
        "grammar": "grammar: a chat answered 'yes', as the grammar allows",
        "embeddings": "embeddings: NMSE 1e-09 against the reference",
        "state": "state: 3 greedy tokens are those of the reference, also after saving and loading",
        "vocabulary": "vocabulary: text to tokens and back",
        "real-model": "real-model: 2 of 2 facts answered",
    }


def test_without_a_gpu_nothing_is_said_of_one() -> None:
    found = planted(
        (("device", "devices"), []),
        (("device", "offload"), False),
        (("offload",), {"error": CRASH}),
    )
    checks = judged(found, layers=0)
    assert list(checks) == ["device", *ANYWHERE, *INTERFACE]
    assert failed(checks) == {}
    assert checks["device"]["summary"] == "device: llama_cpp 0.3.16 runs on the CPU"


def test_layers_left_off_a_gpu_on_purpose_are_judged_as_on_a_gpu() -> None:
    assert list(judged(fakes.smoke_found(), layers=0, plant=True))[:5] == ON_A_CARD


def test_a_wheel_that_does_not_import_is_one_finding() -> None:
    # Nothing else was tried, so nothing else may be asked for.
    checks = judged({"device": {"error": "ended by 1: ImportError: libcudart.so.13"}})
    assert failed(checks) == {"device": "ended by 1: ImportError: libcudart.so.13"}
    assert list(checks) == ["device"]


# One line a defect: what is planted, and each check that fails for it with what it then says.
DEFECTS: list[tuple[str, list[tuple[Place, Any]], dict[str, str]]] = [
    (
        "a-wheel-for-the-cpu",
        [(("device", "offload"), False)],
        {"device": "it supports no GPU"},
    ),
    (
        "no-device",
        [(("device", "devices"), [])],
        {"device": "CUDA finds no device", "native-sass": "no GPU was used"},
    ),
    (
        "a-GPU-of-another-capability",
        [(("device", "devices"), [["NVIDIA H200", "9.0"]])],
        {"device": "NVIDIA H200 has compute capability 9.0; the wheel is for 12.0"},
    ),
    (
        "one-GPU-of-two-of-another-capability",
        [(("device", "devices"), [["NVIDIA GeForce RTX 5090", "12.0"], ["NVIDIA L4", "8.9"]])],
        {"device": "NVIDIA L4 has compute capability 8.9"},
    ),
    (
        "another-version",
        [(("device", "version"), "0.3.15")],
        {"device": "llama_cpp is 0.3.15, and the wheel is 0.3.16"},
    ),
    (
        "nothing-said-of-the-device",
        [(("device",), {"error": None})],
        {"device": SILENT},
    ),
    (
        "nothing-said-of-the-offload",
        [(("offload",), {"error": None})],
        {"full-offload": SILENT, "memory": SILENT},
    ),
    (
        "files-in-the-compile-cache",
        [(("jit_files",), 2)],
        {"native-sass": "2 files in the driver's compile cache"},
    ),
    (
        "compiled-by-the-driver",
        [(("times", "error"), "ended by -6: CUDA error: PTX JIT compiler is disabled")],
        {"native-sass": "times: ended by -6: CUDA error: PTX JIT"},
    ),
    (
        "no-machine-code",
        [(("offload", "error"), "ended by -6: CUDA error: no kernel image is available")],
        {
            "native-sass": "offload: ended by -6: CUDA error: no kernel image",
            "full-offload": "no kernel image",
            "memory": "no kernel image",
        },
    ),
    (
        "no-machine-code-for-the-interface",
        [(("api", "error"), "ended by -6: invalid device kernel image")],
        {"native-sass": "api: ended by", **dict.fromkeys(INTERFACE, "device kernel")},
    ),
    (
        "a-library-of-another-wheel",
        [(("device", "libraries", 3), "/usr/lib/python3/dist-packages/llama_cpp/lib/libllama.so")],
        {"libraries": "/usr/lib/python3/dist-packages/llama_cpp/lib/libllama.so: it does not"},
    ),
    (
        "a-runtime-from-outside",
        [(("device", "libraries", 6), "/usr/local/cuda/lib64/libcudart.so.13")],
        {"libraries": "/usr/local/cuda/lib64/libcudart.so.13: not where this wheel's runtime"},
    ),
    (
        "a-runtime-beside-the-venv",  # a name that merely begins alike
        [(("device", "libraries", 6), "/work/venv-2/lib/libcudart.so.13")],
        {"libraries": "/work/venv-2/lib/libcudart.so.13: not where"},
    ),
    (
        "two-copies-of-a-library",
        [
            (
                ("device", "libraries", 0),
                "/work/venv/lib/python3.11/site-packages/other/libcudart.so.13.1.80",
            )
        ],
        {"libraries": "2 copies: "},
    ),
    (
        "cublas-not-loaded",
        [(("device", "libraries"), [f"{SITE}/x/libcudart.so.13"])],
        {"libraries": "cublas: not loaded"},
    ),
    (
        "cudart-not-loaded",
        [(("device", "libraries"), [f"{SITE}/x/libcublas.so.13"])],
        {"libraries": "cudart: not loaded"},
    ),
    (
        "no-layer-on-the-GPU",
        [(("offload", "offloaded"), [0, 3])],
        {"full-offload": "0 of 3 layers are on the device"},
    ),
    (
        "two-layers-of-three-on-the-GPU",
        [(("offload", "offloaded"), [2, 3])],
        {"full-offload": "2 of 3 layers"},
    ),
    (
        "nothing-said-of-layers",
        [(("offload", "offloaded"), None)],
        {"full-offload": "0 of unknown layers"},
    ),
    (
        "no-model-on-the-GPU",
        [(("offload", "buffers"), {"CPU model": 11.0, "CUDA0 KV": 2.0})],
        {"full-offload": "no model buffer on the device"},
    ),
    (
        "no-cache-on-the-GPU",
        [(("offload", "buffers"), {"CUDA0 model": 11.0, "CPU KV": 2.0})],
        {"full-offload": "no KV buffer on the device"},
    ),
    (
        "a-buffer-that-is-merely-pinned",
        [(("offload", "buffers"), {"CUDA_Host model": 11.0, "CUDA0 KV": 2.0})],
        {"full-offload": "no model buffer on the device"},
    ),
    (
        "memory-that-did-not-grow",
        [(("offload", "grew"), 5_499_999)],
        {"full-offload": "device memory grew by 5499999 bytes for 11000000 of weights"},
    ),
    (
        "memory-that-leaks",
        [(("offload", "free_after_last"), 30_000_000_000 - 33 * 2**20)],
        {"memory": "33 MiB less are free after 20 loads"},
    ),
    (
        "not-a-number",
        [(("answers", "F16", "results", 3, "nmse"), float("nan"))],
        {"known-answers": "F16, batch 1, flash attention, KV q4_0: NMSE nan"},
    ),
    (
        "not-finite-however-small-the-error",
        [(("answers", "F16", "results", 0, "finite"), False)],
        {"known-answers": "F16, batch 1, plain attention, KV f16: NMSE 1.00e-05"},
    ),
    (
        "over-the-bound",
        [(("answers", "Q4_K", "results", 12, "nmse"), 0.0051)],
        {"known-answers": "Q4_K, batch 512, plain attention, KV f16: NMSE 5.10e-03, allowed 5e-03"},
    ),
    (
        "a-case-that-crashed",
        [
            (
                ("answers", "Q4_K", "results", 0),
                {"type": "Q4_K", "batch": 4, "flash": True, "kv": "f16", "error": CRASH},
            )
        ],
        {"known-answers": f"Q4_K, batch 4, flash attention, KV f16: {CRASH}"},
    ),
    (
        "a-model-that-does-not-load",
        [(("answers", "Q4_K", "results"), [{"type": "Q4_K", "error": CRASH}])],
        {"known-answers": f"Q4_K: {CRASH}"},
    ),
    (
        "nothing-computed",
        [(("answers",), {})],
        {
            "known-answers": "no case was computed",
            "greedy-tokens": "no token was compared",
            "repeatable": "nothing was computed twice",
            "types": "F16: not tested",
        },
    ),
    (
        "another-token",
        [(("answers", "F16", "results", 4, "equal"), 19)],
        {"greedy-tokens": "F16, batch 4, plain attention, KV f16: 19 of 20"},
    ),
    (
        "no-token-compared",
        [(("answers", "F16"), {"results": []})],
        {
            "known-answers": "F16: 0 of 16 cases were computed",
            "greedy-tokens": "no token was compared",
            "types": "F16: not tested",
        },
    ),
    (
        "other-bits-the-second-time",
        [(("answers", "Q4_K", "results", 5, "repeats"), False)],
        {"repeatable": "Q4_K, batch 4, flash attention, KV f16"},
    ),
    (
        "a-needed-type-unknown",
        [(("answers", "Q4_K"), {"unknown": "Q4_K", "results": []})],
        {"types": "Q4_K: not known to the wheel"},
    ),
    (
        "a-needed-type-not-tried",
        [(("answers", "Q4_K"), {"results": []})],
        {"known-answers": "Q4_K: 0 of 16 cases were computed", "types": "Q4_K: not tested"},
    ),
    (
        "weights-that-stay-on-the-cpu",
        [(("answers", "Q4_K", "buffers"), {"CPU_Mapped model": 4.0, "CUDA0 KV": 2.0})],
        {"types": "Q4_K: its weights stay on the CPU"},
    ),
    (
        "a-module-that-computes-wrong",
        [(("modules", "x64", 1, "results", 1, "nmse"), 0.5)],
        {"cpu-modules": "x64, Q4_K, batch 32: NMSE 5.00e-01, allowed"},
    ),
    (
        "a-module-that-crashed",
        [(("modules", "x64", 0, "error"), CRASH)],
        {"cpu-modules": f"x64, F16: {CRASH}"},
    ),
    (
        "a-module-that-refused",
        [(("modules", "x64", 0, "results", 0), {"type": "F16", "error": "no context"})],
        {"cpu-modules": "x64, F16: no context"},
    ),
    (
        "a-module-that-computed-nothing",
        [(("modules", "x64", 0, "results"), [])],
        {"cpu-modules": "x64, F16: no case was computed"},
    ),
    (
        "another-module-than-the-one-asked-for",
        [(("modules", "x64", 0, "chosen"), "haswell")],
        {"cpu-modules": "x64, F16: haswell was used"},
    ),
    (
        "modules-that-were-not-tried",
        [(("modules",), {})],
        {"cpu-modules": "haswell: not tested\nx64: not tested"},
    ),
    (
        "no-module-for-this-cpu",
        [(("device", "modules"), {}), (("modules",), {})],
        {"cpu-modules": "no module can run on this CPU"},
    ),
    (
        "a-module-that-another-is-better-than",
        [(("device", "chosen"), "x64")],
        {"cpu-modules": "x64 is loaded, although another one suits better"},
    ),
    ("the-interface-crashed", [(("api", "error"), CRASH)], dict.fromkeys(INTERFACE, CRASH)),
    ("another-answer", [(("api", "chat"), "maybe")], {"grammar": "'maybe'"}),
    ("no-answer", [(("api", "chat"), None)], {"grammar": "None"}),
    (
        "other-embeddings",
        [(("api", "embedding"), 2e-4)],
        {"embeddings": "NMSE 2.00e-04"},
    ),
    (
        "embeddings-not-a-number",
        [(("api", "embedding"), float("nan"))],
        {"embeddings": "NMSE nan"},
    ),
    (
        "other-tokens-after-the-load",
        [(("api", "other"), [300, 301, 303])],
        {"state": "[300, 301, 302], after loading [300, 301, 303], reference [300, 301, 302]"},
    ),
    (
        "other-tokens-than-the-oracle",
        [(("api", "wanted"), [7])],
        {"state": "reference [7]"},
    ),
    (
        "no-tokens-at-all",
        [(("api", "one"), []), (("api", "other"), []), (("api", "wanted"), [])],
        {"state": "[], after loading []"},
    ),
    ("another-text", [(("api", "back"), "Hola")], {"vocabulary": "'Hola, señor' became 'Hola'"}),
    (
        "no-text",
        [(("api", "text"), ""), (("api", "back"), "")],
        {"vocabulary": "'' became ''"},
    ),
    (
        "nothing-said-of-the-interface",
        [(("api",), {"error": None})],
        {
            "grammar": SILENT,
            "embeddings": SILENT,
            "state": SILENT,
            "vocabulary": SILENT,
        },
    ),
    (
        "a-wrong-answer-of-a-real-model",
        [(("real",), {"answers": [{"question": "2 + 2 =", "fact": "4", "answer": " 5"}]})],
        {"real-model": "2 + 2 = … ' 5'; expected: 4"},
    ),
    (
        "nothing-asked",
        [(("real",), {"answers": []})],
        {"real-model": "0 of 1 questions were answered"},
    ),
    (
        "a-real-model-that-does-not-load",
        [(("real",), {"error": CRASH, "answers": []})],
        {"real-model": CRASH},
    ),
]


@pytest.mark.parametrize(
    ("plants", "expected"), [row[1:] for row in DEFECTS], ids=[row[0] for row in DEFECTS]
)
def test_a_defect_fails_the_checks_that_are_meant_for_it_and_no_other(
    plants: list[tuple[Place, Any]], expected: dict[str, str]
) -> None:
    checks = judged(planted(*plants))
    found = failed(checks)
    assert found.keys() == expected.keys()
    for check in checks.values():
        assert check["summary"].startswith(check["id"] + ": ")
        assert bool(check["remedy"]) == bool(check["evidence"]) == (check["status"] == "fail")
    assert {id_: part for id_, part in expected.items() if part not in found[id_]} == {}


@pytest.mark.parametrize("count", [1, 4, 15])
def test_a_type_of_which_cases_are_missing_is_noticed(count: int) -> None:
    cases = fakes.smoke_answers("Q4_K")["results"][:count]
    checks = judged(planted((("answers", "Q4_K", "results"), cases)))
    assert failed(checks) == {"known-answers": f"Q4_K: {count} of 16 cases were computed"}


def test_on_the_cpu_too_a_child_must_say_what_it_found() -> None:
    found = planted((("device",), {"error": None}))
    assert failed(judged(found, layers=0)) == {"device": SILENT}


def test_a_real_model_that_answered_only_some_questions_is_noticed() -> None:
    questions = [*fakes.smoke_job()["questions"], ["2 + 2 =", "4"], ["3 + 3 =", "6"]]
    checks = judged(fakes.smoke_found(real=REAL), questions=questions)
    assert failed(checks) == {"real-model": f"2 of {len(questions)} questions were answered"}


def test_every_check_has_a_defect_in_which_it_fails() -> None:
    caught = {id_ for _, _, expected in DEFECTS for id_ in expected}
    assert caught == set(judged(fakes.smoke_found(real=REAL)))


def test_what_a_child_said_of_its_crash_is_the_evidence_of_all_it_was_to_prove() -> None:
    found = failed(judged(planted((("offload", "error"), CRASH), (("device", "error"), None))))
    assert found == {"full-offload": CRASH, "memory": CRASH}


def test_evidence_is_cut_at_eight_lines_and_says_how_many_more() -> None:
    worse = [(("answers", "F16", "results", n, "nmse"), 1.0) for n in range(11)]
    found = planted(*worse)
    lines = failed(judged(found))["known-answers"].splitlines()
    assert len(lines) == 9
    assert lines[-1] == "… and 3 more"
    assert lines[7].startswith("F16, batch 4, flash attention, KV q4_0")
    exactly = planted(*worse[:8])
    assert len(failed(judged(exactly))["known-answers"].splitlines()) == 8


# ---- what is not a defect ------------------------------------------------------------------------


def test_a_type_that_an_older_release_does_not_know_is_said_and_no_defect() -> None:
    found = planted((("answers", "NVFP4"), {"unknown": "NVFP4", "results": []}))
    check = judged(found)["types"]
    assert check["status"] == "ok"
    assert "this release does not know NVFP4" in check["summary"]


def test_a_type_without_a_kernel_upstream_may_stay_on_the_cpu() -> None:
    stays = {**fakes.smoke_answers("TQ1_0"), "buffers": {"CPU_Mapped model": 4.0}}
    check = judged(planted((("answers", "TQ1_0"), stays)))["types"]
    assert check["status"] == "ok"
    assert "TQ1_0 on the CPU" in check["summary"]


def test_on_the_cpu_all_weights_are_there() -> None:
    found = planted((("answers", "Q4_K", "buffers"), {"CPU model": 14.0}))
    assert failed(judged(found, layers=0)) == {}


def test_a_token_embedding_is_always_on_the_cpu() -> None:
    assert not smoke_checks.on_host({"buffers": {"CPU_Mapped model": 1.0, "CUDA0 model": 13.0}})
    assert smoke_checks.on_host({"buffers": {"CPU_Mapped model": 1.0, "CPU_REPACK model": 1.0}})


def test_a_local_part_in_a_wheels_version_is_no_other_version() -> None:
    assert failed(judged(fakes.smoke_found(), version="0.3.16+cu131")) == {}


@pytest.mark.parametrize("place", ["/opt/python/nvidia/cu13", "/opt/python"])
def test_a_runtime_from_a_place_that_was_chosen_is_no_defect(place: str) -> None:
    moved = [f"/opt/python/nvidia/cu13/lib/lib{n}.so.13" for n in ("cublas", "cublasLt", "cudart")]
    found = planted((("device", "libraries"), moved))
    assert failed(judged(found, runtime_places=[place])) == {}
    assert "libraries" in failed(judged(found, runtime_places=["/opt/python/nvidia/cu12"]))


def test_memory_that_others_gave_back_meanwhile_is_no_leak() -> None:
    check = judged(planted((("offload", "free_after_last"), 40_000_000_000)))["memory"]
    assert (check["status"], check["summary"]) == (
        "ok",
        "memory: 20 loads and unloads, 0 MiB of GPU memory lost",
    )


@pytest.mark.parametrize("mib", [smoke_checks.LEAK_MIB, -1])
def test_a_leak_has_a_bound(mib: int) -> None:
    found = planted((("offload", "free_after_last"), 30_000_000_000 - mib * 2**20))
    assert failed(judged(found)) == {}


def test_tokens_of_types_that_lose_something_are_not_compared() -> None:
    assert failed(judged(planted((("answers", "Q4_K", "results", 0, "equal"), 0)))) == {}


def test_tokens_of_a_quantised_cache_are_not_compared() -> None:
    assert failed(judged(planted((("answers", "F16", "results", 2, "equal"), 0)))) == {}


# ---- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "native", "expected"),
    [
        ({"type": "F16", "kv": "f16"}, False, 1e-4),
        ({"type": "F16", "kv": "q4_0"}, False, 1e-4 + 0.025),
        ({"type": "MXFP4", "kv": "f16"}, False, 5e-4),
        ({"type": "MXFP4", "kv": "f16"}, True, 0.1),
        ({"type": "F16", "kv": "q8_0"}, True, 1e-4 + 2e-4),
    ],
    ids=["plain", "quantised-cache", "fp4", "native-fp4", "not-fp4"],
)
def test_a_bound_is_of_the_type_the_cache_and_the_kernels(
    case: dict[str, Any], native: bool, expected: float
) -> None:
    assert smoke_checks.bound({"native_fp4": native}, case) == pytest.approx(expected)


def test_a_case_at_its_bound_passes_and_one_above_does_not() -> None:
    at = planted((("answers", "F16", "results", 0, "nmse"), 1e-4))
    above = planted((("answers", "F16", "results", 0, "nmse"), 1.001e-4))
    assert failed(judged(at)) == {}
    assert failed(judged(above)).keys() == {"known-answers"}


def test_every_case_of_a_child_has_a_bound() -> None:
    for name in smoke_checks.BOUNDS["type"]:
        for case in child.CASES:
            assert 0 < smoke_checks.bound({}, {**case, "type": name}) < 0.2


def test_the_cases_of_a_report_have_their_bounds_and_the_errors_none() -> None:
    found = planted((("answers", "Q4_K", "results"), [{"type": "Q4_K", "error": CRASH}]))
    shown = smoke_checks.cases(fakes.smoke_job(), found)
    assert len(shown) == 17
    assert {case["bound"] for case in shown[:16]} == {1e-4, 1e-4 + 2e-4, 1e-4 + 0.025}
    assert shown[16] == {"type": "Q4_K", "error": CRASH}


def test_a_report_of_a_wheel_that_does_not_import_has_no_cases() -> None:
    assert smoke_checks.cases(fakes.smoke_job(), {"device": {"error": CRASH}}) == []
