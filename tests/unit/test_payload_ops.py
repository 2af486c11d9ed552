"""The processes of the operator test: their cases, their results, crashes and continuing."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from sessions.payload import ops, spawn

Job = dict[str, Any]


def job_of(folder: Path, cases: dict[str, int], **changes: Any) -> Job:
    base: Job = {
        "identity": {"file": "w.whl", "device": "cpu"},
        "folder": str(folder),
        "library": "/lib/blackwheel-ops.so",
        "reference": None,
        "visible": "-1",
        "cores": 1,
        "memory_mib": None,
        "version": "0.3.16",
        "backend": "SCALAR",
        "only": [],
        "expected": {
            "cases": cases,
            "unsupported": {},
            "tested": True,
            "sample": {"operators": [], "share": 8},
            "narrow": ["GELU"] if "GELU" in cases else [],
            "limit": 20,
            "known": [],
            "library": "ggml-cpu",
            "backend": "SCALAR",
        },
    }
    return {**base, **changes}


def piece(operator: str, *cases: tuple[str, int]) -> Job:
    """A slice of named cases."""
    names = {"key": f"{operator}-0", "operator": operator, "cases": list(cases)}
    return {**names, "by_name": False, "narrowed": False}


OUTPUT = """Testing 2 devices

Backend 2/2: SCALAR
  ADD(type=f32,ne=[1,2]): \x1b[1;32mOK\x1b[0m
[MUL_MAT] NMSE = 0.040000000 > 0.000500000   MUL_MAT(type_a=q4_0,m=16): \x1b[1;31mFAIL\x1b[0m
  CONV_2D(ne=[1]): not supported [CUDA0]\x20
  10839/10839 tests passed
"""


def test_the_results_are_read_from_the_output() -> None:
    assert ops.rows_of(OUTPUT) == [
        ("ADD(type=f32,ne=[1,2])", "right", ""),
        (
            "MUL_MAT(type_a=q4_0,m=16)",
            "wrong",
            "[MUL_MAT] NMSE = 0.040000000 > 0.000500000",
        ),
        ("CONV_2D(ne=[1])", "unsupported", ""),
    ]


def test_each_case_is_in_one_slice_and_activations_in_a_second_one(tmp_path: Path) -> None:
    cases: list[list[Any]] = [["MUL_MAT", f"MUL_MAT(m={n})", 1] for n in range(230)]
    cases += [["GELU", "GELU(v=0)", 2], ["ADD", "ADD(nf=1)", 1]]
    job = job_of(tmp_path, {"MUL_MAT": 230, "GELU": 2, "ADD": 3, "FUSED": 400})
    slices = ops.plan(job, cases)
    named = [case for s in slices if not s["narrowed"] for case, _ in s["cases"]]
    assert sorted(named) == sorted(case for _, case, _ in cases)
    # The longest slices are first.
    assert [(s["operator"], len(s["cases"])) for s in slices][:4] == [
        ("FUSED", 0), ("MUL_MAT", 100), ("MUL_MAT", 100), ("MUL_MAT", 30),
    ]  # fmt: skip
    assert [s["key"] for s in slices if s["narrowed"]] == ["GELU-0-narrowed"]
    # Cases that `support` does not list are selected by the operator's name.
    assert {s["operator"] for s in slices if s["by_name"]} == {"ADD", "FUSED"}


def test_one_eighth_of_the_cases_of_a_sampled_operator_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f'"SCALAR","{name}","n={n}"' for name in ("CONV_2D", "ADD") for n in range(800)]
    text = "\n".join(['"backend_name","op_name","op_params"', *rows])
    monkeypatch.setattr(ops, "call", lambda *_: (text, {}, None))
    job = job_of(tmp_path, {})
    assert len(ops.listed(job)["cases"]) == 1600
    job["expected"]["sample"] = {"operators": ["CONV_2D"], "share": 8}
    found = ops.listed(job)["cases"]
    of = [operator for operator, *_ in found]
    assert of.count("ADD") == 800
    assert 80 < of.count("CONV_2D") < 120
    assert found == ops.listed(job)["cases"]  # the same cases each time


def test_after_a_crash_the_other_cases_are_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def ask(_: Job, __: Job, ___: str, cases: list[str], seed: int) -> Any:
        calls.append(list(cases))
        if "ADD(2)" in cases:
            return [("ADD(1)", "right", "")], {}, "ended by -6: GGML_ASSERT"
        return [(case, "right", "") for case in cases], {"libraries": ["x"]}, None

    monkeypatch.setattr(ops, "ask", ask)
    rows = [(f"ADD({n})", 1) for n in (1, 2, 3)]
    found = ops.slice_of(job_of(tmp_path, {"ADD": 3}), piece("ADD", *rows))
    assert calls == [["ADD(1)", "ADD(2)", "ADD(3)"], ["ADD(3)"]]
    assert found["problems"] == ["at ADD(2), after ADD(1): ended by -6: GGML_ASSERT"]
    assert found["counts"] == {"right": 2}


def test_a_wrong_case_near_its_bound_is_repeated_with_other_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = "NMSE = 1.5 > 1.0", "NMSE = 9.0 > 1.0"
    seeds = []

    def ask(_: Job, __: Job, ___: str, cases: list[str], seed: int) -> Any:
        seeds.append((seed, list(cases)))
        if seed == 1:
            return [("A(1)", "wrong", near), ("A(2)", "wrong", far)], {}, None
        rows = [("A(1)", "wrong" if seed == 2 else "right", near if seed == 2 else "")]
        return rows, {}, None

    monkeypatch.setattr(ops, "ask", ask)
    rows = [("A(1)", 1), ("A(2)", 1)]
    found = ops.slice_of(job_of(tmp_path, {"A": 2}), piece("A", *rows))
    assert [seed for seed, _ in seeds] == [1, 2, 3, 4]
    assert {tuple(cases) for seed, cases in seeds if seed > 1} == {("A(1)",)}
    assert [w["tries"] for w in found["wrong"]] == [[near, near, "", ""], [far]]


def test_a_stopped_run_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    cases = [["A", "A(1)", 1], ["B", "B(1)", 1], ["B", "B(2)", 1]]
    listing = {"cases": cases, "error": None, "libraries": []}
    monkeypatch.setattr(ops, "listed", lambda job: listing)

    def one(job: Job, piece: Job) -> Job:
        calls.append(piece["key"])
        if piece["key"] == "A-0" and len(calls) == 2:
            raise KeyboardInterrupt
        answered = dict(piece["cases"])
        counts = {"right": len(answered)}
        return {"counts": counts, "answered": answered, "wrong": [], "problems": [],
                "libraries": ["llama_cpp/lib/libggml-cpu.so"], "seconds": 1.0}  # fmt: skip

    monkeypatch.setattr(ops, "slice_of", one)
    job = job_of(tmp_path, {"A": 1, "B": 2})
    with pytest.raises(KeyboardInterrupt):
        ops.run(job)
    report = ops.run(job)
    assert calls == ["B-0", "A-0", "A-0"]
    assert report["stops"] == 1
    assert [check["id"] for check in report["checks"] if check["status"] != "ok"] == []
    other = {**job, "identity": {"file": "another.whl", "device": "cpu"}}
    assert ops.run(other)["stops"] == 0
    assert calls[3:] == ["B-0", "A-0"]


def test_a_case_without_a_result_is_a_problem() -> None:
    listing = {"cases": [["A", "A(1)", 1], ["A", "A(2)", 2]], "error": None, "libraries": []}
    answer = {"counts": {"right": 2}, "answered": {"A(1)": 1, "A(2)": 1}, "wrong": [],
              "problems": [], "libraries": [], "seconds": 1.0}  # fmt: skip
    found = ops.summary(listing, [(piece("A", ("A(1)", 1), ("A(2)", 2)), answer)])
    assert found["problems"] == ["A-0: 1 cases not answered, A(2) first"]
    assert found["operators"]["A"]["listed"] == 3


@pytest.mark.parametrize(
    ("backend", "cores", "memory", "processes"),
    [
        ("SCALAR", 2, None, 2),
        ("CUDA0", 16, 80_000, 10),
        ("CUDA0", 16, 8_000, 5),
        ("CUDA0", 1, 80_000, 1),
        ("CUDA0", 8, None, 2),
    ],
)
def test_the_number_of_simultaneous_processes(
    tmp_path: Path, backend: str, cores: int, memory: int | None, processes: int
) -> None:
    changes = {"backend": backend, "cores": cores, "memory_mib": memory}
    assert ops.at_once(job_of(tmp_path, {}, **changes)) == processes


def test_a_silent_child_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    program.write_text("import time\nprint('  A(1): OK', flush=True)\ntime.sleep(60)\n")
    monkeypatch.setattr(spawn, "PAYLOAD", program)
    job = job_of(tmp_path, {"A": 2}, still=2.0)
    found = ops.slice_of(job, piece("A", ("A(1)", 1), ("A(2)", 1)))
    (problem,) = found["problems"]
    assert problem.startswith("at A(2), after A(1): ended by the limit of 2 s without an answer")


def test_the_process_gets_the_seed_the_limit_and_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    names = ("BLACKWHEEL_SEED", "BLACKWHEEL_LIMIT", "CUDA_DISABLE_PTX_JIT", "GGML_BACKEND_PATH")
    program.write_text(
        "import json, os\n"
        f"print('@' + json.dumps({{'ended': 0, **{{n: os.environ.get(n) for n in {names}}}}}))\n"
    )
    monkeypatch.setattr(spawn, "PAYLOAD", program)
    job = job_of(tmp_path, {"A": 1}, reference="/lib/scalar.so")
    _, lines, error = ops.call(job, "one", ["test"], 3, 20)
    assert error is None
    # If it were set now, the wheel's loader would register the reference too, and each case would
    # run twice.
    assert [lines[name] for name in names] == ["3", "20", "1", None]
    child = json.loads((tmp_path / "one.json").read_text())
    assert (child["words"], child["reference"]) == (["test"], "/lib/scalar.so")


def test_a_process_loads_the_wheels_backends_before_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wheel with backends as modules loads CUDA only when the devices are listed."""
    order: list[Any] = []
    wheel = types.ModuleType("llama_cpp")
    wheel.__file__ = str(tmp_path / "llama_cpp" / "__init__.py")
    vars(wheel)["llama_backend_init"] = lambda: order.append(os.environ.get("GGML_BACKEND_PATH"))
    helpers = types.ModuleType("llama")
    vars(helpers)["loaded_libraries"] = lambda: [str(tmp_path / "llama_cpp/lib/libggml-cuda.so")]
    monkeypatch.setitem(sys.modules, "llama_cpp", wheel)
    monkeypatch.setitem(sys.modules, "llama", helpers)
    monkeypatch.setenv("GGML_BACKEND_PATH", "")  # so that monkeypatch restores it
    monkeypatch.delenv("GGML_BACKEND_PATH")

    def test(count: int, _: Any) -> int:
        order.append((count, os.environ["GGML_BACKEND_PATH"]))
        return 0

    library = types.SimpleNamespace(blackwheel_test=test)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(os, "_exit", lambda code: order.append(code))
    ops.child({"library": "t.so", "reference": "/lib/scalar.so", "words": ["test"]})
    assert order == [None, (2, "/lib/scalar.so"), 0]
    printed = json.loads(capsys.readouterr().out.strip()[1:])
    assert printed == {"ended": 0, "libraries": ["llama_cpp/lib/libggml-cuda.so"]}
