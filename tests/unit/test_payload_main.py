"""The program that runs every check in a process of its own, its processes played here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sessions.payload import __main__ as payload
from sessions.payload import child, feature_checks, report_file, smoke_checks, spawn
from sessions.run import smoke_input, smoke_results
from tests import fakes

Found = dict[str, Any]
Told = pytest.CaptureFixture[str]


@pytest.fixture
def told(tmp_path: Path) -> Found:
    """A job in a folder of its own."""
    return fakes.smoke_job(folder=str(tmp_path / "run"), jit_cache=str(tmp_path / "run" / "c"))


# ---- one child ----------------------------------------------------------------------------------


class Process:
    """Plays subprocess.Popen, and the process that it starts."""

    def __init__(self) -> None:
        self.output = b""
        self.errors = b""
        self.code = 0
        self.late = False
        self.ended = False
        self.command: list[str] = []
        self.given: Found = {}
        self.waited = 0.0

    def __call__(self, command: list[str], **given: Any) -> Process:
        self.command, self.given = command, given
        given["stdout"].write(self.output)
        given["stdout"].flush()
        given["stderr"].write(self.errors)
        return self

    def wait(self, timeout: float | None = None) -> int:
        self.waited = self.waited or timeout or 0
        if self.late and not self.ended:
            time.sleep(min(timeout or 0, 0.01))
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        return self.code

    def poll(self) -> int | None:
        return None if self.late and not self.ended else self.code

    def kill(self) -> None:
        self.ended = True


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, told: Found) -> Process:
    Path(told["folder"]).mkdir()
    played = Process()
    monkeypatch.setattr(subprocess, "Popen", played)
    return played


def test_what_a_child_said_is_laid_over_one_another(told: Found, process: Process) -> None:
    process.output = b'noise\n@{"a": 1, "b": 1}\nmore noise\n@{"b": 2}\n'
    found = payload.run_child(told, "device")
    assert found.pop("child_seconds") >= 0
    assert found == {"a": 1, "b": 2, "error": None}


def test_what_a_child_that_hangs_has_started_keeps_nobody_waiting(
    told: Found, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A debugger at a crash: it has the child's output open after the child was ended."""
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "print('@{\"a\": 1}', flush=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n"
        "time.sleep(30)\n"
    )
    monkeypatch.setattr(spawn, "PAYLOAD", program)
    Path(told["folder"]).mkdir()
    start = time.monotonic()
    found = payload.run_child({**told, "timeout": 4}, "device")
    assert time.monotonic() - start < 20
    assert (found["a"], found["error"]) == (1, "ended by the time limit: ")


def test_a_child_is_told_its_work_in_a_file(told: Found, process: Process) -> None:
    payload.run_child(told, "answers", type="Q4_K", first=3)
    # -I hides PYTHONFAULTHANDLER, so the option says it.
    assert process.command[:4] == [sys.executable, "-I", "-X", "faulthandler"]
    assert Path(process.command[-3]) == smoke_input.PAYLOAD
    assert process.command[-2] == "--child"
    given = json.loads(Path(process.command[-1]).read_text(encoding="utf-8"))
    assert given == {**told, "work": "answers", "type": "Q4_K", "first": 3}


def test_two_children_of_one_work_have_files_of_their_own(told: Found, process: Process) -> None:
    names = set()
    for type_, first in (("F16", 0), ("Q4_K", 0), ("Q4_K", 4)):
        payload.run_child(told, "answers", type=type_, first=first)
        names.add(process.command[-1])
    assert len(names) == 3


def test_a_child_sees_the_one_gpu_and_no_compiler_of_the_driver(
    told: Found, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("BLACKWHEEL_TEST", "handed on")
    payload.run_child({**told, "index": 3, "visible": "GPU-3"}, "device")
    env = process.given["env"]
    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-3"
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # as NVML counts them
    assert env["CUDA_DISABLE_PTX_JIT"] == "1"
    assert env["CUDA_CACHE_PATH"] == told["jit_cache"]
    assert env["BLACKWHEEL_TEST"] == "handed on"
    assert process.given["stdin"] == subprocess.DEVNULL
    assert process.waited == pytest.approx(payload.TIMEOUT, abs=5)


@pytest.mark.parametrize(
    ("changes", "seen"),
    [({"layers": 0}, "-1"), ({"layers": 0, "plant": True}, "0"), ({}, "0")],
    ids=["cpu", "GPU-without-layers", "gpu"],
)
def test_on_the_cpu_a_child_sees_no_gpu(
    changes: Found, seen: str, told: Found, process: Process
) -> None:
    payload.run_child({**told, **changes}, "device")
    assert process.given["env"]["CUDA_VISIBLE_DEVICES"] == seen


def test_only_the_check_of_two_gpus_sees_two(told: Found, process: Process) -> None:
    told |= {"visible": "GPU-1", "second": "GPU-2"}
    for name, seen in (("partial-offload", "GPU-1"), ("two-gpus", "GPU-1,GPU-2")):
        payload.run_child(told, "feature", type=name)
        assert process.given["env"]["CUDA_VISIBLE_DEVICES"] == seen


def test_a_feature_that_crashes_is_a_finding_of_its_check(
    told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = proven(told, monkeypatch, lora={"error": CRASH, "results": []})
    failed = [check for check in report["checks"] if check["status"] == "fail"]
    assert [check["id"] for check in failed] == ["lora"]
    assert CRASH in failed[0]["evidence"]


def test_a_crash_is_a_finding_with_what_was_said_of_it(told: Found, process: Process) -> None:
    process.code = -6
    process.output = b'@{"a": 1}\n@{"b": '
    process.errors = b"first\n" * 99 + b"CUDA error:\n   no kernel image is available \xff\n"
    found = payload.run_child(told, "offload")
    assert found["error"] == "ended by -6: CUDA error: no kernel image is available \ufffd"
    assert (found["a"], "b" in found) == (1, False)


FAULT = b"""Windows fatal exception: access violation

Current thread 0x000000a8 (most recent call first):
  File "C:\\w\\payload\\llama.py", line 118 in evaluate
  File "C:\\w\\payload\\child.py", line 80 in run

Extension modules: numpy._core._multiarray_umath, numpy.linalg._umath_linalg (total: 2)
"""


def test_a_crash_on_windows_has_the_number_that_it_is_known_by(
    told: Found, process: Process
) -> None:
    process.code, process.errors = 3221225477, FAULT
    found = payload.run_child(told, "offload")
    assert found["error"] == "ended by 0xc0000005: Windows fatal exception: access violation"


def test_on_windows_a_child_has_no_folder_on_path_but_windows_own(
    told: Found, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", str(Path("C:/Windows")))
    payload.run_child(told, "device")
    assert process.given["env"]["PATH"] == str(Path("C:/Windows/System32"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one\n\n  two\nthree\nfour\nfive\n", "two three four five"),
        # What is said of an error is followed by where it was: registers, frames, modules.
        (
            "CUDA error: out of memory\nframe 1\nframe 2\nframe 3\nframe 4\n",
            "CUDA error: out of memory",
        ),
        ("GGML_ASSERT(x) failed\nframe\n", "GGML_ASSERT(x) failed"),
        ("x" * 10_000 + " the end", "x" * 492 + " the end"),
    ],
    ids=["silent", "no-error-named", "then-frames", "assertion", "one-long-line"],
)
def test_the_reason_of_a_crash_is_short_and_to_the_point(text: str, expected: str) -> None:
    assert spawn.reason(text) == expected


def test_the_reason_of_a_traceback_is_all_that_its_exception_says() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/v/llama_cpp/_cuda_runtime.py", line 54, in load\n'
        '    raise ImportError("\\n  - ".join(lines + missing))\n'
        "ImportError: llama_cpp was built for CUDA 13.1 and cannot start without:\n"
        "  - the NVIDIA driver (libcuda.so.1): install a driver of release 580 or newer\n"
    )
    assert spawn.reason(text) == (
        "ImportError: llama_cpp was built for CUDA 13.1 and cannot start without: "
        "- the NVIDIA driver (libcuda.so.1): install a driver of release 580 or newer"
    )


@pytest.mark.parametrize("output", [b"", b'@{"case": 7}\n'], ids=["silent", "said-something"])
def test_a_hang_is_a_finding(output: bytes, told: Found, process: Process) -> None:
    process.late, process.output = True, output
    found = payload.run_child({**told, "timeout": 1.0}, "answers", type="F16", first=0)
    assert found["error"].startswith("ended by the time limit:")
    assert found.get("case") == (7 if output else None)
    assert 0 < process.waited <= 1.0


def test_the_results_of_a_type_are_a_list(told: Found, process: Process) -> None:
    process.output = b'@{"result": {"nmse": 1}}\n@{"case": 1}\n@{"result": {"nmse": NaN}}\n'
    found = payload.run_child(told, "answers", type="F16", first=0)
    assert str(found["results"]) == "[{'nmse': 1}, {'nmse': nan}]"
    assert "result" not in found
    process.output = b""
    assert payload.run_child(told, "answers", type="F16", first=0)["results"] == []


def test_the_answers_of_a_real_model_are_a_list(told: Found, process: Process) -> None:
    lines = [{"offloaded": [3, 3]}, {"question": "a", "fact": "b"}, {"question": "c", "fact": "d"}]
    process.output = "".join(f"@{json.dumps(line)}\n" for line in lines).encode()
    found = payload.run_child(told, "real")
    assert [answer["question"] for answer in found["answers"]] == ["a", "c"]


# ---- all cases of one type ----------------------------------------------------------------------

CRASH = "ended by -11: "


def playing(*parts: Found) -> Callable[..., Found]:
    """Plays run_child: each call takes the next part, and must go on where the last one ended."""
    waiting = list(parts)

    def run_child(_: Found, work: str, *, type: str, first: int) -> Found:
        assert work == "answers"
        part = waiting.pop(0)
        assert first == part.pop("first")
        return {"child_seconds": 1.0, "error": None, **part}

    return run_child


def done(*numbers: int) -> list[Found]:
    return [{"type": "F16", **child.CASES[n], "nmse": 0.0} for n in numbers]


def answered(told: Found, monkeypatch: pytest.MonkeyPatch, *parts: Found) -> Found:
    monkeypatch.setattr(payload, "run_child", playing(*parts))
    found: Found = payload.answers(told, "F16")
    return found


def test_a_type_that_computes_takes_one_child(told: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    every = done(*range(len(child.CASES)))
    part = {"first": 0, "results": every, "buffers": {"CUDA0 model": 1.0}}
    found = answered(told, monkeypatch, part)
    assert found["results"] == every
    assert found["buffers"] == {"CUDA0 model": 1.0}


def test_after_a_crash_the_cases_after_it_are_tried(
    told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answered(
        told,
        monkeypatch,
        {"first": 0, "results": done(0, 1), "case": 2, "error": CRASH},
        {"first": 3, "results": done(*range(3, 16)), "case": 15},
    )
    assert len(found["results"]) == len(child.CASES)
    (crashed,) = [case for case in found["results"] if "error" in case]
    assert crashed == {"type": "F16", **child.CASES[2], "error": CRASH}


def test_a_crash_in_the_last_case_ends_it(told: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"first": 0, "results": done(*range(15)), "case": 15, "error": CRASH}
    assert len(answered(told, monkeypatch, part)["results"]) == 16


def test_a_model_that_does_not_load_is_one_finding(
    told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"first": 0, "results": [], "error": CRASH}
    found = answered(told, monkeypatch, part)
    assert found["results"] == [{"type": "F16", "error": CRASH}]


def test_after_three_crashes_a_type_is_given_up(
    told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [{"first": n, "results": [], "case": n, "error": CRASH} for n in range(3)]
    found = answered(told, monkeypatch, *parts)
    assert len(found["results"]) == 4
    assert found["results"][3] == {"type": "F16", "error": "given up after three crashes"}


def test_a_type_that_the_wheel_does_not_know_has_no_results(
    told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answered(told, monkeypatch, {"first": 0, "results": [], "unknown": "F16"})
    assert (found["unknown"], found["results"]) == ("F16", [])


# ---- all of it ----------------------------------------------------------------------------------


def sound(changes: Found) -> Callable[..., Found]:
    """Plays run_child: every child finds what it finds of a sound wheel, but for the changes."""
    known = {**fakes.smoke_found(real={"error": None, "answers": []}), **changes}

    def run_child(job: Found, work: str, **more: Any) -> Found:
        if "cpu" in more:
            return fakes.smoke_module(more["type"], more["cpu"])
        if work == "answers":
            return dict(fakes.smoke_answers(more["type"]))
        if work == "family":
            return family(job, more)
        return dict(known[more["type"] if work == "feature" else work])

    return run_child


def family(job: Found, more: Found) -> Found:
    """What the child finds of one family in one type: each way that is planned, as it should be."""
    gone = ("family", "type", "host_mib", "gpu_mib")
    results = [
        {name: value for name, value in fakes.family_row(row).items() if name not in gone}
        for row in job["family_plans"]["gpu" if job["layers"] else "cpu"]
        if (row["family"], row["type"]) == (more["first"], more["type"])
    ]
    buffers = {"CPU model": 5.0, "CUDA0 model": 10.0}
    results = [{**result, "buffers": buffers} for result in results]
    return {"results": results, "operations": [], "sha256": more["sha256"], "error": None}


def proven(told: Found, monkeypatch: pytest.MonkeyPatch, **changes: Found) -> dict[str, Any]:
    monkeypatch.setattr(payload, "run_child", sound(changes))
    report: dict[str, Any] = payload.run(told)
    return report


def test_a_sound_wheel_makes_a_sound_report(told: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    report = proven(told, monkeypatch)
    assert {check["status"] for check in report["checks"]} == {"ok"}
    first = smoke_checks.evaluate(told, fakes.smoke_found())
    assert report["checks"][: len(first)] == first
    more = feature_checks.evaluate(told, fakes.smoke_found())
    assert report["checks"][len(first) : -1] == more
    assert report["checks"][-1]["id"] == "families"
    assert [check["id"] for check in more][-1] == "partial-offload"
    assert len(report["features"]) == len(fakes.smoke_features())
    assert len(report["cases"]) == 32
    assert all("bound" in case for case in report["cases"])
    assert report["times"] == {
        "import_seconds": 0.5,
        "load_seconds": 0.25,
        "first_token_seconds": 0.01,
        "prompt_per_second": 5000.0,
    }


def test_each_module_that_the_cpu_can_run_is_tried_on_the_cpu(
    told: Found, process: Process
) -> None:
    process.output = b'@{"chosen": "x64"}\n'
    found = payload.modules({**told, "jobs": 1}, {"x64": 1, "haswell": 64, "skylakex": 0})
    assert list(found) == ["haswell", "x64"]
    assert [part["type"] for part in found["x64"]] == ["F16", "Q4_0", "Q8_0", "Q4_K"]
    given = json.loads(Path(process.command[-1]).read_text(encoding="utf-8"))
    assert (given["cpu"], given["layers"], given["type"]) == ("x64", 0, "Q4_K")
    tried = [child.CASES[number] for number in given["only"]]
    assert [(case["batch"], case["kv"]) for case in tried] == [(1, "f16"), (32, "f16")]
    assert process.given["env"]["BLACKWHEEL_CPU"] == "x64"
    assert process.given["env"]["CUDA_VISIBLE_DEVICES"] == "-1"


def test_a_report_is_one_that_is_taken(told: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    report = proven(told, monkeypatch)
    found = smoke_results.opened(report_file.text(report), "rtx50", "0" * 64, "here")
    assert (found.device, found.capability) == ("NVIDIA GeForce RTX 5090", "12.0")
    assert set(report) == set(fakes.smoke_report())


def test_a_report_of_a_wheel_that_does_not_import_is_taken_and_has_one_finding(
    told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = proven(told, monkeypatch, device={"error": "ended by 1: ImportError"})
    assert [(check["id"], check["status"]) for check in report["checks"]] == [("device", "fail")]
    found = smoke_results.opened(report_file.text(report), "rtx50", "0" * 64, "here")
    assert (found.cases, found.times) == ((), {})


def test_what_the_driver_left_in_its_cache_is_counted(
    told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Path(told["folder"]) / "jit-cache" / "0" / "1"
    left.mkdir(parents=True)
    (left / "kernel").write_bytes(b"compiled")
    report = proven(told, monkeypatch)
    failed = [check for check in report["checks"] if check["status"] == "fail"]
    assert [check["id"] for check in failed] == ["native-sass"]
    assert failed[0]["evidence"] == "1 files in the driver's compile cache"


@pytest.mark.parametrize(("model", "asked"), [(None, False), ("/m.gguf", True)])
def test_a_real_model_is_asked_if_there_is_one(
    model: str | None, asked: bool, told: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = proven({**told, "model": model}, monkeypatch)
    assert ("real-model" in {check["id"] for check in report["checks"]}) is asked


def test_progress_is_told_line_by_line_to_the_end(
    told: Found, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    proven(told, monkeypatch)
    lines = list(spawn.lines(capsys.readouterr().out))
    pairs = len(payload.family_pairs(told))
    assert [line["done"] for line in lines] == [0, 1, 2, 3, *range(5, 12 + pairs), 11 + pairs]
    assert {line["total"] for line in lines} == {12 + pairs}
    assert [line["now"] for line in lines[:4]] == ["device", "offload", "api", "times"]
    assert [line["left"] is None for line in lines] == [True] * 4 + [False] * (8 + pairs)


def test_the_program_reads_a_job_and_writes_a_sealed_report(
    told: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(told), encoding="utf-8")
    words = ["payload", str(tmp_path / "job.json"), str(tmp_path / "report.json")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(payload, "run_child", sound({}))
    payload.main()
    report = report_file.read((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["file"] == fakes.wheel().file


def test_the_program_does_a_childs_work(
    told: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Found] = []
    (tmp_path / "job.json").write_text(json.dumps({**told, "work": "device"}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["payload", "--child", str(tmp_path / "job.json")])
    monkeypatch.setitem(child.WORK, "device", done.append)
    payload.main()
    assert done == [{**told, "work": "device"}]


def test_with_bench_before_its_files_it_measures_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[Path, Path]] = []
    monkeypatch.setitem(sys.modules, "bench", SimpleNamespace(main=lambda *a: measured.append(a)))
    monkeypatch.setattr(sys, "argv", ["payload", "--bench", "job.json", "report.json"])
    payload.main()
    assert measured == [(Path("job.json"), Path("report.json"))]


def test_every_work_that_is_given_out_is_known() -> None:
    proofs = {"device", "offload", "api", "times", "real", "answers", "feature", "family", "ops"}
    assert set(child.WORK) == proofs | {"model", "speed"}
