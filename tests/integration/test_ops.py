"""The operator test finds a changed line in its reference, in the operator that uses it.

It runs without a GPU: the CPU code of the wheel in ``wheels/cpu`` is compared with ggml's CPU code
in plain C, and an error in either of them is found in the same way.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.payload import ops_checks
from sessions.run import check_ops_report, ops_build, smoke_input
from tests import fakes
from tests.integration import installed

OPERATORS = ("ADD", "GEGLU", "GELU", "MUL_MAT", "SILU")
CPU = "vendor/llama.cpp/ggml/src/ggml-cpu"
# MUL_MAT has 1210 cases; only these types are tested, because the others take minutes.
TYPES = ("q4_0", "q8_0", "f16")
# File, original line, changed line, and the operators that must be wrong.
PLANTED = {
    "Q4_0 offset 7 for 8": (
        "quants.c",
        "const int v0 = (x[ib].qs[j] & 0x0F) - 8;",
        "const int v0 = (x[ib].qs[j] & 0x0F) - 7;",
        {"MUL_MAT(type_a=q4_0,"},
    ),
    "Q8_0 drops the last block": (
        "quants.c",
        "for (; ib < nb; ++ib) {",
        "for (; ib < nb - 1; ++ib) {",
        {"MUL_MAT(type_a=q8_0,"},
    ),
    "Q8_0 times 1.03": (
        "quants.c",
        "sumf += sumi*(GGML_CPU_FP16_TO_FP32(x[ib].d)*GGML_CPU_FP16_TO_FP32(y[ib].d));",
        "sumf += 1.03f*sumi*(GGML_CPU_FP16_TO_FP32(x[ib].d)*GGML_CPU_FP16_TO_FP32(y[ib].d));",
        {"MUL_MAT(type_a=q8_0,"},
    ),
    "GELU is ReLU": (
        "vec.h",
        "return 0.5f*x*(1.0f + tanhf(SQRT_2_OVER_PI*x*(1.0f + GELU_COEF_A*x*x)));",
        "return x > 0.0f ? x : 0.0f;",
        {"GELU(", "GEGLU("},
    ),
}

# Runs in the wheel's venv, with the payload's functions, on the cases of these operators.
DRIVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import ops
job = json.load(open(sys.argv[2]))
listing = ops.listed(job)
only, types = job["only"], job["types"]
listing["cases"] = [
    row for row in listing["cases"]
    if row[0] in only and (row[0] != "MUL_MAT" or any(
        row[1].startswith(f"MUL_MAT(type_a={t},type_b=f32") for t in types))
]
for name in only:
    job["expected"]["cases"][name] = sum(r[2] for r in listing["cases"] if r[0] == name)
slices = ops.plan(job, listing["cases"])
print("@" + json.dumps(ops.summary(listing, [(s, ops.slice_of(job, s)) for s in slices])))
"""


@dataclass(frozen=True)
class Lab:
    """The test and the objects of the reference, a venv with the wheel, and the source."""

    folder: Path
    source: Path
    objects: tuple[Path, ...]
    python: Path
    libraries: Path  # of the wheel in the venv, with the test


def includes(source: Path) -> list[Path]:
    ggml = source / ops_build.GGML
    return [ggml / "include", ggml / "src", ggml / "src" / "ggml-cpu"]


def compile_all(paths: list[Path], source: Path, folder: Path, *, header: bool) -> list[Path]:
    folder.mkdir()
    made, running = [], []
    for path in paths:
        made.append(folder / (path.relative_to(source).as_posix().replace("/", "_") + ".o"))
        words = ops_build.compile_command(
            fakes.compiler(), path, made[-1], includes(source), header=header
        )
        running.append(subprocess.Popen(words))
    assert [process.wait() for process in running] == [0] * len(running)
    return made


def link(objects: list[Path], target: Path, libraries: Path, *names: str) -> None:
    words = ops_build.link_command(fakes.compiler(), objects, target, libraries, names)
    subprocess.run(words, check=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    version, wheel = installed.wheel("cpu")
    folder = tmp_path_factory.mktemp("ops")
    source = folder / "source"
    installed.unpack(version, source, ops_build._wanted)
    ops_build.rename_device(source)
    python = installed.venv(folder / "venv", wheel)
    libraries = installed.libraries(python)
    test = compile_all(ops_build.sources(source, "test"), source, folder / "test", header=True)
    link(test, libraries / "blackwheel-ops.so", libraries, "ggml", "ggml-base")
    scalar = ops_build.sources(source, "scalar")
    objects = compile_all(scalar, source, folder / "scalar", header=False)
    return Lab(folder, source, tuple(objects), python, libraries)


def planted(lab: Lab, name: str) -> Path:
    """The reference with one line changed."""
    file, before, after, _ = PLANTED[name]
    path = lab.source / CPU / file
    text = path.read_text(encoding="utf-8")
    # Other functions of quants.c have the same lines.
    kind = "q4_0_q8_0" if name.startswith("Q4_0") else "q8_0_q8_0"
    start = text.index(f"void ggml_vec_dot_{kind}_generic(") if file == "quants.c" else 0
    changed = text[:start] + text[start:].replace(before, after, 1)
    assert changed != text
    # GELU's table is filled in ggml-cpu.c, by the function of vec.h.
    compiled = lab.source / CPU / ("ggml-cpu.c" if file == "vec.h" else file)
    folder = lab.folder / name.replace(" ", "-").replace(".", "-")
    try:
        path.write_text(changed, encoding="utf-8")
        (made,) = compile_all([compiled], lab.source, folder, header=False)
    finally:
        path.write_text(text, encoding="utf-8")
    others = [one for one in lab.objects if one.name != made.name]
    assert len(others) == len(lab.objects) - 1
    target = folder / "blackwheel-scalar.so"
    link([*others, made], target, lab.libraries, "ggml-base")
    return target


def run(lab: Lab, reference: Path | None, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """The results of these operators with a reference."""
    beside = None
    if reference is not None:
        beside = lab.libraries / "blackwheel-scalar.so"
        shutil.copyfile(reference, beside)
    work = lab.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    job = {
        **check_ops_report.for_job(fakes.cpu_spec(), "0.3.16"),
        "only": list(OPERATORS),
        "types": list(TYPES),
        "identity": {"device": "cpu"},
        "folder": str(work),
        "library": str(lab.libraries / "blackwheel-ops.so"),
        "reference": str(beside) if beside else None,
        "visible": "-1",
        "memory_mib": None,
        "cores": 2,
    }
    path = work / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    done = subprocess.run(
        [*prefix, str(lab.python), "-I", "-c", DRIVER, str(smoke_input.PAYLOAD), str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={"HOME": str(lab.folder)},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1][1:])
    return found


def wrong(found: dict[str, Any]) -> set[str]:
    """The operators (for MUL_MAT with the type) that have a wrong case, not by chance."""
    cases = [c["case"] for c in found["wrong"] if not ops_checks.marginal(c["tries"])]
    return {
        case.partition(",")[0] + ","
        if case.startswith("MUL_MAT(")
        else case.partition("(")[0] + "("
        for case in cases
    }


@pytest.fixture(scope="module")
def sound(lab: Lab) -> Path:
    target = lab.folder / "blackwheel-scalar.so"
    link(list(lab.objects), target, lab.libraries, "ggml-base")
    return target


@pytest.mark.slow
def test_the_wheel_and_plain_c_agree(lab: Lab, sound: Path) -> None:
    found = run(lab, sound)
    assert (found["wrong"], found["problems"]) == ([], [])
    assert found["operators"]["GELU"]["right"] == 8
    assert found["narrowed"]["GELU"]["right"] == 8
    assert found["operators"]["MUL_MAT"]["right"] > 100
    # One of the wheel's CPU modules, and not the reference twice.
    names = [name.removeprefix("llama_cpp/lib/libggml") for name in found["libraries"]]
    assert len(names) == 3
    assert {".so", "-base.so"} < set(names)
    assert any(name.startswith("-cpu-") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_changed_line_is_found_in_its_operator_and_nowhere_else(lab: Lab, name: str) -> None:
    found = run(lab, planted(lab, name))
    assert wrong(found) == PLANTED[name][3]
    assert found["problems"] == []
    if name == "GELU is ReLU":  # with upstream's range, nearly all of them pass
        assert sum(case["narrowed"] for case in found["wrong"]) == 8 + 24


@pytest.mark.slow
def test_on_one_core_a_wrong_quantization_is_found_too(lab: Lab) -> None:
    """0.3.16 quantizes with half the cores. With one core it quantizes nothing, and zeros agree."""
    reference = lab.folder / "Q4_0-offset-7-for-8" / "blackwheel-scalar.so"
    if not reference.exists():
        reference = planted(lab, "Q4_0 offset 7 for 8")
    assert wrong(run(lab, reference, ("taskset", "-c", "0"))) == {"MUL_MAT(type_a=q4_0,"}


@pytest.mark.slow
def test_without_the_backend_no_case_is_right(lab: Lab) -> None:
    """Upstream's test itself prints OK and ends with 0."""
    found = run(lab, None)
    assert all(row["right"] == 0 for row in found["operators"].values())
    report = {**fakes.ops_report(cuda=False), **found}
    expected = check_ops_report.expected("0.3.16", cuda=False)
    failing = {c["id"] for c in ops_checks.checks(report, expected) if c["status"] != "ok"}
    assert {"complete", "narrowed"} <= failing
