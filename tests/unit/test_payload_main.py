"""The program that runs every check in its own process; the processes are replaced here."""

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
from sessions.run import check_smoke_report, smoke_input
from tests import fakes

Job = dict[str, Any]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job in its own folder."""
    return fakes.smoke_job(folder=str(tmp_path / "run"), jit_cache=str(tmp_path / "run" / "c"))


# ---- one child -----------------------------------------------------------------------------------


class Process:
    """Replaces subprocess.Popen and the process."""

    def __init__(self) -> None:
        self.output = b""
        self.errors = b""
        self.code = 0
        self.hangs = False
        self.killed = False
        self.command: list[str] = []
        self.given: Job = {}
        self.waited = 0.0

    def __call__(self, command: list[str], **given: Any) -> Process:
        self.command, self.given = command, given
        given["stdout"].write(self.output)
        given["stdout"].flush()
        given["stderr"].write(self.errors)
        return self

    def wait(self, timeout: float | None = None) -> int:
        self.waited = self.waited or timeout or 0
        if self.hangs and not self.killed:
            time.sleep(min(timeout or 0, 0.01))
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        return self.code

    def poll(self) -> int | None:
        return None if self.hangs and not self.killed else self.code

    def kill(self) -> None:
        self.killed = True

    def job(self) -> Job:
        """The job that the process was given."""
        job: Job = json.loads(Path(self.command[-1]).read_text(encoding="utf-8"))
        return job


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, job: Job) -> Process:
    Path(job["folder"]).mkdir()
    fake = Process()
    monkeypatch.setattr(subprocess, "Popen", fake)
    return fake


@pytest.mark.parametrize(
    ("lines", "work", "expected"),
    [
        ([{"a": 1, "b": 1}, {"b": 2}], ("device", {}), {"a": 1, "b": 2}),
        ([], ("answers", {"type": "F16"}), {"results": []}),
        (
            [{"result": {"nmse": 1}}, {"case": 1}, {"result": {"nmse": 2}}],
            ("answers", {"type": "F16", "first": 0}),
            {"case": 1, "results": [{"nmse": 1}, {"nmse": 2}]},
        ),
        (
            [{"offloaded": [3, 3]}, {"question": "a"}, {"question": "c"}],
            ("real", {}),
            {
                "offloaded": [3, 3],
                "question": "c",
                "answers": [{"question": "a"}, {"question": "c"}],
            },
        ),
    ],
    ids=["values", "no-results", "results", "real"],
)
def test_the_lines_of_a_child_are_merged(
    lines: list[Job], work: tuple[str, Job], expected: Job, job: Job, process: Process
) -> None:
    process.output = b"noise\n" + "".join(f"@{json.dumps(line)}\n" for line in lines).encode()
    found = payload.run_child(job, work[0], **work[1])
    assert found.pop("child_seconds") >= 0
    assert found == {**expected, "error": None}


def test_a_program_that_a_child_started_is_not_waited_for(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For example a debugger after a crash: it keeps the child's output open."""
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "print('@{\"a\": 1}', flush=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n"
        "time.sleep(30)\n"
    )
    monkeypatch.setattr(spawn, "PAYLOAD", program)
    Path(job["folder"]).mkdir()
    start = time.monotonic()
    found = payload.run_child({**job, "timeout": 4}, "device")
    assert time.monotonic() - start < 20
    assert (found["a"], found["error"]) == (1, "ended by the time limit: ")


def test_each_child_reads_its_job_from_its_own_file(job: Job, process: Process) -> None:
    paths = set()
    for type_, first in (("F16", 0), ("Q4_K", 0), ("Q4_K", 4)):
        payload.run_child(job, "answers", type=type_, first=first)
        paths.add(process.command[-1])
        assert process.job() == {**job, "work": "answers", "type": type_, "first": first}
    assert len(paths) == 3
    # The option is needed because -I ignores PYTHONFAULTHANDLER.
    assert process.command[:4] == [sys.executable, "-I", "-X", "faulthandler"]
    assert Path(process.command[-3]) == smoke_input.PAYLOAD
    assert process.command[-2] == "--child"


def test_the_environment_of_a_child(
    job: Job, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("BLACKWHEEL_TEST", "kept")
    monkeypatch.setenv("SYSTEMROOT", str(Path("C:/Windows")))
    monkeypatch.setattr("sys.platform", "win32")
    payload.run_child({**job, "index": 3, "visible": "GPU-3"}, "device")
    expected = {
        "CUDA_VISIBLE_DEVICES": "GPU-3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of NVML
        "CUDA_DISABLE_PTX_JIT": "1",
        "CUDA_CACHE_PATH": job["jit_cache"],
        "BLACKWHEEL_TEST": "kept",
        "PATH": str(Path("C:/Windows/System32")),
    }
    assert {name: process.given["env"][name] for name in expected} == expected
    assert process.given["stdin"] == subprocess.DEVNULL
    assert process.waited == pytest.approx(payload.TIMEOUT, abs=5)


@pytest.mark.parametrize(
    ("changes", "work", "visible"),
    [
        ({}, "device", "0"),
        ({"layers": 0}, "device", "-1"),
        ({"layers": 0, "plant": True}, "device", "0"),
        ({"visible": "GPU-1", "second": "GPU-2"}, "partial-offload", "GPU-1"),
        ({"visible": "GPU-1", "second": "GPU-2"}, "two-gpus", "GPU-1,GPU-2"),
    ],
)
def test_the_gpus_that_a_child_sees(
    changes: Job, work: str, visible: str, job: Job, process: Process
) -> None:
    payload.run_child({**job, **changes}, "feature", type=work)
    assert process.given["env"]["CUDA_VISIBLE_DEVICES"] == visible


FAULT = b"""Windows fatal exception: access violation

Current thread 0x000000a8 (most recent call first):
  File "C:\\w\\payload\\llama.py", line 118 in evaluate

Extension modules: numpy._core._multiarray_umath, numpy.linalg._umath_linalg (total: 2)
"""
KERNEL = b"first\n" * 99 + b"CUDA error:\n   no kernel image is available \xff\n"


@pytest.mark.parametrize(
    ("code", "errors", "expected"),
    [
        (-6, KERNEL, "ended by -6: CUDA error: no kernel image is available \ufffd"),
        (3221225477, FAULT, "ended by 0xc0000005: Windows fatal exception: access violation"),
    ],
)
def test_a_crash_is_an_error_and_earlier_lines_are_kept(
    code: int, errors: bytes, expected: str, job: Job, process: Process
) -> None:
    process.code, process.errors = code, errors
    process.output = b'@{"a": 1}\n@{"b": '
    found = payload.run_child(job, "offload")
    assert (found["error"], found["a"], "b" in found) == (expected, 1, False)


@pytest.mark.parametrize("output", [b"", b'@{"case": 7}\n'], ids=["silent", "one-line"])
def test_a_child_that_hangs_is_killed(output: bytes, job: Job, process: Process) -> None:
    process.hangs, process.output = True, output
    found = payload.run_child({**job, "timeout": 1.0}, "answers", type="F16", first=0)
    assert found["error"].startswith("ended by the time limit:")
    assert found.get("case") == (7 if output else None)
    assert 0 < process.waited <= 1.0


TRACEBACK = """Traceback (most recent call last):
  File "/v/llama_cpp/_cuda_runtime.py", line 54, in load
    raise ImportError("\\n  - ".join(lines + missing))
ImportError: llama_cpp was built for CUDA 13.1 and cannot start without:
  - the NVIDIA driver (libcuda.so.1): install a driver of release 580 or newer
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one\n\n  two\nthree\nfour\nfive\n", "two three four five"),
        ("CUDA error: out of memory\nframe 1\nframe 2\n3\n4\n", "CUDA error: out of memory"),
        ("GGML_ASSERT(x) failed\nframe\n", "GGML_ASSERT(x) failed"),
        ("x" * 10_000 + " the end", "x" * 492 + " the end"),
        (
            TRACEBACK,
            "ImportError: llama_cpp was built for CUDA 13.1 and cannot start without: "
            "- the NVIDIA driver (libcuda.so.1): install a driver of release 580 or newer",
        ),
    ],
    ids=["silent", "no-error", "error", "assertion", "one-long-line", "traceback"],
)
def test_the_reason_of_a_failure_is_short(text: str, expected: str) -> None:
    assert spawn.reason(text) == expected


# ---- all cases of one type -----------------------------------------------------------------------

CRASH = "ended by -11: "


def done(*numbers: int) -> list[Job]:
    """Results of the cases with these numbers."""
    return [{"type": "F16", **child.CASES[n], "nmse": 0.0} for n in numbers]


def error(number: int) -> Job:
    return {"type": "F16", **child.CASES[number], "error": CRASH}


def part(first: int, results: list[Job], case: int | None = None, **more: Any) -> Job:
    """What one process returns that begins with the case ``first``; with ``case`` it crashes."""
    crashed = {} if case is None else {"case": case, "error": CRASH}
    found = {"first": first, "child_seconds": 1.0, "error": None, "results": results}
    return {**found, **crashed, **more}


EVERY = range(len(child.CASES))
ANSWERS: dict[str, tuple[list[Job], list[Job]]] = {
    "one-process": ([part(0, done(*EVERY))], done(*EVERY)),
    "continues-after-a-crash": (
        [part(0, done(0, 1), 2), part(3, done(*EVERY[3:]))],
        [*done(0, 1), error(2), *done(*EVERY[3:])],
    ),
    "crash-in-the-last-case": (
        [part(0, done(*EVERY[:15]), 15)],
        [*done(*EVERY[:15]), error(15)],
    ),
    "model-does-not-load": ([part(0, [], error=CRASH)], [{"type": "F16", "error": CRASH}]),
    "three-crashes": (
        [part(n, [], n) for n in range(3)],
        [*map(error, range(3)), {"type": "F16", "error": "given up after three crashes"}],
    ),
    "unknown-type": ([part(0, [], unknown="F16")], []),
}


@pytest.mark.parametrize(("parts", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_the_cases_of_a_type_are_computed_in_spite_of_crashes(
    parts: list[Job], expected: list[Job], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [dict(one) for one in parts]

    def run_child(_: Job, work: str, *, type: str, first: int) -> Job:
        assert (work, type) == ("answers", "F16")
        found = waiting.pop(0)
        assert first == found.pop("first")
        return found

    monkeypatch.setattr(payload, "run_child", run_child)
    found = payload.answers(job, "F16")
    assert found["results"] == expected
    assert found.get("unknown") == parts[0].get("unknown")
    assert waiting == []


# ---- the whole run -------------------------------------------------------------------------------


def sound(changes: Job) -> Callable[..., Job]:
    """Replaces run_child: every child returns the results of a sound wheel, with these changes."""
    known = {**fakes.smoke_found(real={"error": None, "answers": []}), **changes}

    def run_child(job: Job, work: str, **more: Any) -> Job:
        if "cpu" in more:
            return fakes.smoke_module(more["type"], more["cpu"])
        if work == "answers":
            return dict(fakes.smoke_answers(more["type"]))
        if work == "family":
            return family(job, more)
        return dict(known[more["type"] if work == "feature" else work])

    return run_child


def family(job: Job, more: Job) -> Job:
    """The results of a sound wheel for one family in one type."""
    gone = ("family", "type", "host_mib", "gpu_mib")
    buffers = {"CPU model": 5.0, "CUDA0 model": 10.0}
    results = [
        {name: value for name, value in fakes.family_row(row).items() if name not in gone}
        | {"buffers": buffers}
        for row in job["family_plans"]["gpu" if job["layers"] else "cpu"]
        if (row["family"], row["type"]) == (more["first"], more["type"])
    ]
    return {"results": results, "operations": [], "sha256": more["sha256"], "error": None}


@pytest.fixture
def run(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """Runs a job with a wheel whose results have these changes; returns the report."""

    def started(settings: Job | None = None, **changes: Job) -> Job:
        monkeypatch.setattr(payload, "run_child", sound(changes))
        report: Job = payload.run({**job, **(settings or {})})
        return report

    return started


def failed(report: Job) -> dict[str, str]:
    """The evidence of the checks that fail, by id."""
    return {c["id"]: c["evidence"] for c in report["checks"] if c["status"] == "fail"}


def opened(report: Job) -> Any:
    return check_smoke_report.opened(report_file.text(report), "rtx50", "0" * 64, "here")


def test_the_report_of_a_sound_wheel(run: Callable[..., Job], job: Job) -> None:
    report = run()
    assert {check["status"] for check in report["checks"]} == {"ok"}
    first = smoke_checks.evaluate(job, fakes.smoke_found())
    more = feature_checks.evaluate(job, fakes.smoke_found())
    assert report["checks"][:-1] == [*first, *more]
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
    assert set(report) == set(fakes.smoke_report())
    found = opened(report)
    assert (found.device, found.capability) == ("NVIDIA GeForce RTX 5090", "12.0")


def test_a_feature_that_crashes_fails_its_check(run: Callable[..., Job]) -> None:
    found = failed(run(lora={"error": CRASH, "results": []}))
    assert list(found) == ["lora"]
    assert CRASH in found["lora"]


def test_if_the_wheel_is_not_imported_the_report_has_one_check(run: Callable[..., Job]) -> None:
    report = run(device={"error": "ended by 1: ImportError"})
    assert [(check["id"], check["status"]) for check in report["checks"]] == [("device", "fail")]
    assert (opened(report).cases, opened(report).times) == ((), {})


def test_each_cpu_module_that_can_run_here_is_tested_on_the_cpu(job: Job, process: Process) -> None:
    process.output = b'@{"chosen": "x64"}\n'
    found = payload.modules({**job, "jobs": 1}, {"x64": 1, "haswell": 64, "skylakex": 0})
    assert list(found) == ["haswell", "x64"]
    assert [part["type"] for part in found["x64"]] == ["F16", "Q4_0", "Q8_0", "Q4_K"]
    given = process.job()
    assert (given["cpu"], given["layers"], given["type"]) == ("x64", 0, "Q4_K")
    cases = [child.CASES[number] for number in given["only"]]
    assert [(case["batch"], case["kv"]) for case in cases] == [(1, "f16"), (32, "f16")]
    assert process.given["env"]["BLACKWHEEL_CPU"] == "x64"
    assert process.given["env"]["CUDA_VISIBLE_DEVICES"] == "-1"


def test_files_in_the_drivers_compile_cache_fail_a_check(run: Callable[..., Job], job: Job) -> None:
    left = Path(job["folder"]) / "jit-cache" / "0" / "1"
    left.mkdir(parents=True)
    (left / "kernel").write_bytes(b"compiled")
    assert failed(run()) == {"native-sass": "1 files in the driver's compile cache"}


@pytest.mark.parametrize(("model", "asked"), [(None, False), ("/m.gguf", True)])
def test_a_real_model_is_tested_if_it_is_given(
    model: str | None, asked: bool, run: Callable[..., Job]
) -> None:
    ids = {check["id"] for check in run({"model": model})["checks"]}
    assert ("real-model" in ids) is asked


def test_each_step_prints_a_line_of_progress(
    run: Callable[..., Job], job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    lines = list(spawn.lines(capsys.readouterr().out))
    pairs = len(payload.family_pairs(job))
    assert [line["done"] for line in lines] == [0, 1, 2, 3, *range(5, 12 + pairs), 11 + pairs]
    assert {line["total"] for line in lines} == {12 + pairs}
    assert [line["now"] for line in lines[:4]] == ["device", "offload", "api", "times"]
    assert [line["left"] is None for line in lines] == [True] * 4 + [False] * (8 + pairs)


# ---- the command line ----------------------------------------------------------------------------


def test_the_program_reads_a_job_and_writes_a_report(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    words = ["payload", str(tmp_path / "job.json"), str(tmp_path / "report.json")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(payload, "run_child", sound({}))
    payload.main()
    report = report_file.read((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["file"] == fakes.wheel().file


def test_with_child_the_program_does_the_work_of_a_child(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Job] = []
    (tmp_path / "job.json").write_text(json.dumps({**job, "work": "device"}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["payload", "--child", str(tmp_path / "job.json")])
    monkeypatch.setitem(child.WORK, "device", calls.append)
    payload.main()
    assert calls == [{**job, "work": "device"}]


@pytest.mark.parametrize("name", ["bench", "ops"])
def test_with_another_option_the_program_runs_another_module(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Path, Path]] = []
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(main=lambda *a: calls.append(a)))
    monkeypatch.setattr(sys, "argv", ["payload", f"--{name}", "job.json", "report.json"])
    payload.main()
    assert calls == [(Path("job.json"), Path("report.json"))]


def test_every_work_of_a_child_is_known() -> None:
    checks = {"device", "offload", "api", "times", "real", "answers", "feature", "family", "ops"}
    assert set(child.WORK) == checks | {"model", "speed"}
