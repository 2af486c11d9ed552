"""The session bench: its downloads and its job, imported reports, records, and continuing."""

from __future__ import annotations

import functools
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions.build import baselines
from sessions.fetch import build_tools
from sessions.payload import report_file
from sessions.run import (
    check_bench_report,
    main_bench,
    payload_process,
    report_matches_wheel,
    smoke_input,
)
from sessions.run.record_types import BenchReport
from sessions.shared import disk, machine, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.programs import Finished
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel().file
GPU = "NVIDIA GeForce RTX 5090"
Output = pytest.CaptureFixture[str]


context = functools.partial(fakes.on_gpu, "bench")


def report_text(digest: str, **changes: Any) -> str:
    """The text of a report about a wheel with this digest."""
    wheels = [fakes.bench_wheel(sha256=digest), fakes.bench_wheel("seed", sha256="1" * 64)]
    report = fakes.bench_report(*wheels, **{"sha256": digest, **changes})
    return report_file.text(report, report_file.BENCH)


def write_report(root: Path, text: str) -> str:
    """Write a report of another machine; returns its path."""
    path = root / "bench-report.json"
    path.write_text(text, encoding="utf-8")
    return str(path)


def running(root: Path, *words: str, **changes: Any) -> Context:
    """The context of a run with a built wheel."""
    ctx = context(root, *words, **changes)
    fakes.built(ctx)
    return ctx


# ---- importing a report --------------------------------------------------------------------------


def test_a_report_is_shown_and_recorded(tmp_path: Path, capsys: Output) -> None:
    digest = fakes.built(context(tmp_path))
    report = write_report(tmp_path, report_text(digest))
    ctx = context(tmp_path, "--report", report, machine=fakes.no_machine)
    main_bench.main(ctx)
    found = records.read(ctx.record("bench"), "bench", BenchReport)
    assert found is not None
    assert (found.origin, found.device) == ("bench-report.json", GPU)
    assert (ctx.build / "bench-report.json").read_text(encoding="utf-8") == report_text(digest)
    output = capsys.readouterr().out
    assert "rtx50 against seed" in output
    assert "The GPU: 2500 to 2500 MHz, 41 to 41 °C" in output
    assert f"bench: 2 wheels in 8 rounds on {GPU}, in 1 min 2 s" in output


def test_a_slowed_gpu_and_compiled_ptx_are_shown(tmp_path: Path, capsys: Output) -> None:
    digest = fakes.built(context(tmp_path))
    condition = {**fakes.bench_report()["conditions"][0], "slowed": ["power cap"]}
    wheels = [fakes.bench_wheel(sha256=digest), fakes.bench_wheel("ptx", jit_files=7)]
    report = fakes.bench_report(*wheels, sha256=digest, conditions=[condition])
    path = write_report(tmp_path, report_file.text(report, report_file.BENCH))
    main_bench.main(context(tmp_path, "--report", path))
    output = capsys.readouterr().out
    assert "the GPU was slowed down: power cap" in output
    assert "ptx: the driver compiled its code at the first token" in output
    assert "rtx50: the driver" not in output


def test_a_report_about_another_wheel_is_refused(tmp_path: Path) -> None:
    ctx = running(tmp_path, "--report", write_report(tmp_path, report_text("9" * 64)))
    with raises("bench-report-other-wheel") as caught:
        main_bench.main(ctx)
    assert caught.value.remedy == report_matches_wheel.again("bench", ctx.spec, None)
    assert not ctx.record("bench").exists()


def test_the_signature_of_a_report_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = fakes.built(context(tmp_path))
    calls: list[tuple[str, str]] = []

    def signed(_: Context, report: Path, data: bytes, signers: Path) -> str:
        assert data == report.read_bytes()
        calls.append((report.name, signers.name))
        return ""

    monkeypatch.setattr("sessions.run.signed_report.signed", signed)
    report = write_report(tmp_path, report_text(digest))
    main_bench.main(context(tmp_path, "--report", report, "--signers", str(tmp_path / "keys")))
    assert calls == [("bench-report.json", "keys")]


def test_a_given_wheel_has_its_own_record(tmp_path: Path) -> None:
    other = baseline(tmp_path)
    digest = records.file_sha256(other)
    report = write_report(tmp_path, report_text(digest))
    ctx = context(tmp_path, "--wheel", str(other), "--report", report)
    main_bench.main(ctx)
    assert not (ctx.build / "bench.json").exists()
    assert (ctx.given(other, digest) / "bench.json").exists()


# ---- a run here ---------------------------------------------------------------------------------


def baseline(root: Path) -> Path:
    """Another wheel, in the folder ``seed``."""
    path = root / "seed" / NAME
    path.parent.mkdir()
    path.write_bytes(b"by another procedure")
    return path


def modular(folder: Path) -> bytes:
    """A wheel with two CPU modules and another library."""
    path = folder / "modular.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("libggml-cpu-x64.so", "libggml-cpu-haswell.so", "libggml-base.so"):
            archive.writestr(f"llama_cpp/lib/{name}", b"ELF")
    return path.read_bytes()


class Payload:
    """Replaces pip and the payload that writes a report."""

    def __init__(self) -> None:
        self.downloads: list[list[str]] = []
        self.command: list[str] = []
        self.env: Mapping[str, str] = {}
        self.job: dict[str, Any] = {}
        self.code = 0
        self.writes = True
        self.changes: dict[str, Any] = {}

    def pip(self, ctx: Context, venv: Path, words: Sequence[str], what: str) -> str:
        self.downloads.append(list(words))
        return ""

    def stream(self, command: Sequence[str], *, env: Mapping[str, str], **how: Any) -> Finished:
        self.command, self.env = list(command), env
        self.job = json.loads(Path(command[-2]).read_text(encoding="utf-8"))
        for line in ('@{"done": 1, "total": 9, "now": "warm, rtx50", "left": 3.5}', "it broke"):
            how["log"].write(line + "\n")
            how["on_line"](line)
        if self.writes:
            identity = self.job["identity"]
            text = report_text(identity["sha256"], device=identity["device"], **self.changes)
            Path(command[-1]).write_text(text, encoding="utf-8")
        return Finished((), self.code, "", 0.0)


@pytest.fixture
def payload(monkeypatch: pytest.MonkeyPatch) -> Payload:
    fake = Payload()
    monkeypatch.setattr(venvs, "pip", fake.pip)
    monkeypatch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    monkeypatch.setattr("sessions.shared.programs.stream", fake.stream)
    return fake


def test_the_job_and_the_downloads_of_a_run(tmp_path: Path, payload: Payload) -> None:
    """All requirements are downloaded first, so no network is measured."""
    other = baseline(tmp_path)
    env = {"HOME": "/home/user", "LD_LIBRARY_PATH": "/x", "CUDA_PATH": "/y", "CUDA_CACHE_PATH": "z"}
    ctx = running(tmp_path, "--baseline", str(other), "--rounds", "12", "--device", "0", env=env)
    digest = records.file_sha256(ctx.wheels / NAME)
    main_bench.main(ctx)
    job, folder = payload.job, str(ctx.build / "bench" / "wheels")
    assert [(w["label"], Path(w["path"])) for w in job["wheels"]] == [
        ("rtx50", ctx.wheels / NAME),
        ("seed", other),
    ]
    assert job["wheels"][0]["sha256"] == digest
    expected = {"layers": 999, "index": 0, "rounds": 12, "runtime": "packages", "link": None}
    expected |= {"python": "/usr/bin/python3.11", "packages": folder}
    assert {name: job[name] for name in expected} == expected
    assert job["identity"] == {
        "file": NAME,
        "sha256": digest,
        "target": "rtx50",
        "device": GPU,
        "capability": "12.0",
        "driver": "580.159.04",
    }
    # This Python has NVML's bindings.
    assert payload.command[:4] == [sys.executable, "-I", str(smoke_input.PAYLOAD), "--bench"]
    assert payload.env == {"HOME": "/home/user", "BLACKWHEEL_BUILD": str(ctx.build)}
    assert disk.is_marked(ctx.build / "bench" / "run")
    this, another, runtime, model = payload.downloads
    for words in payload.downloads:
        assert words[:4] == ["download", "--only-binary=:all:", "-d", folder]
    assert this[-1] == str(ctx.wheels / NAME)
    assert another[-1] == str(other)
    assert runtime[-2:] == ["nvidia-cuda-runtime>=13,<14", "nvidia-cublas>=13,<14"]
    assert "--require-hashes" in model


def test_a_cpu_wheel_needs_neither_a_gpu_nor_the_cuda_runtime(
    tmp_path: Path, payload: Payload, capsys: Output
) -> None:
    ctx = running(tmp_path, machine=fakes.no_machine, spec=fakes.cpu_spec())
    payload.changes = {"target": "cpu"}
    main_bench.main(ctx)
    assert (payload.job["layers"], payload.job["runtime"]) == (0, "none")
    assert not any("nvidia" in word for words in payload.downloads for word in words)
    assert (payload.job["threads"], payload.job["cpu_threads"]) == (1, machine.physical_cores())
    output = capsys.readouterr().out
    assert "not on a GPU" not in output
    assert "rtx50: on the CPU it used the module haswell" in output


def test_a_gpu_wheel_on_the_cpu_has_another_record(
    tmp_path: Path, payload: Payload, capsys: Output
) -> None:
    ctx = running(tmp_path)
    main_bench.main(ctx)
    on_gpu = ctx.record("bench").read_bytes()
    main_bench.main(context(tmp_path, "--device", "cpu", machine=fakes.no_machine))
    assert payload.job["layers"] == 0
    assert "the wheel is measured on the CPU, not on a GPU" in capsys.readouterr().out
    assert ctx.record("bench").read_bytes() == on_gpu
    report = records.read(ctx.build / "bench-cpu.json", "bench", BenchReport)
    assert report is not None
    assert report.device == "cpu"
    assert (ctx.build / "bench-report-cpu.json").exists()


def test_each_requested_cpu_module_is_measured(tmp_path: Path, payload: Payload) -> None:
    words = ["--cpu-module", "haswell", "--cpu-module", "x64"]
    ctx = context(tmp_path, "--device", "cpu", *words)
    digest = fakes.built(ctx, modular(tmp_path))
    main_bench.main(ctx)
    wheels = payload.job["wheels"]
    assert [wheel["label"] for wheel in wheels] == ["rtx50", "rtx50 (haswell)", "rtx50 (x64)"]
    assert [wheel.get("cpu") for wheel in wheels] == [None, "haswell", "x64"]
    assert {wheel["sha256"] for wheel in wheels} == {digest}


NO_NVML = {"error": "NVML Shared Library Not Found"}


@pytest.mark.parametrize(
    ("words", "nvml", "id_", "part"),
    [
        (("--cpu-module", "z80"), fakes.nvml(), "cpu-module-unknown", "it has haswell, x64"),
        ((), NO_NVML, "gpu-not-usable", "add --bench to measure it there"),
        (("--model", "gone.gguf"), fakes.nvml(), "model-missing", "gone.gguf"),
        (("--report", "gone.json"), {}, "report-unreadable", "nox -s bench -- --report FILE"),
        (("--wheel", "gone.whl"), {}, "wheel-missing", "nox -s bench -- --wheel"),
    ],
    ids=["module", "gpu", "model", "report", "wheel"],
)
def test_what_is_missing_is_refused_before_anything_is_downloaded(
    words: tuple[str, ...],
    nvml: dict[str, Any],
    id_: str,
    part: str,
    tmp_path: Path,
    payload: Payload,
) -> None:
    ctx = context(tmp_path, *words, machine=lambda *_: nvml)
    fakes.built(ctx, modular(tmp_path))
    with raises(id_) as caught:
        main_bench.main(ctx)
    assert part in f"{caught.value.what} {caught.value.remedy}"
    assert payload.downloads == []
    assert not ctx.record("bench").exists()


def test_few_rounds_give_a_warning(tmp_path: Path, payload: Payload, capsys: Output) -> None:
    main_bench.main(running(tmp_path, "--rounds", "3"))
    assert "fewer than 8 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "writes"), [(2, False), (2, True), (0, False)])
def test_a_payload_that_fails_is_a_problem_with_its_output(
    code: int, writes: bool, tmp_path: Path, payload: Payload
) -> None:
    payload.code, payload.writes = code, writes
    ctx = running(tmp_path)
    with raises("bench-failed") as caught:
        main_bench.main(ctx)
    assert caught.value.evidence == "it broke"
    assert not ctx.record("bench").exists()


def test_a_folder_without_our_mark_is_not_deleted(tmp_path: Path, payload: Payload) -> None:
    ctx = running(tmp_path)
    (ctx.build / "bench").mkdir()
    with raises("folder-without-mark"):
        main_bench.main(ctx)


@pytest.mark.parametrize("given", [False, True], ids=["built-here", "given"])
def test_processes_of_a_killed_run_are_ended_first(
    given: bool, tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, str]] = []

    def end(name: str, value: str) -> None:
        assert payload.command == []
        ended.append((name, value))

    monkeypatch.setattr("sessions.shared.programs.end_leftovers", end)
    ctx = context(tmp_path, "--device", "cpu")
    digest, folder = fakes.built(ctx), ctx.build
    if given:
        ctx = context(tmp_path, "--device", "cpu", "--wheel", str(ctx.wheels / NAME))
        records.write(ctx.record("probe"), "probe", fakes.chain())
        folder = ctx.given(ctx.wheels / NAME, digest)
    main_bench.main(ctx)
    assert ended == [("BLACKWHEEL_BUILD", str(folder))]
    assert payload.env["BLACKWHEEL_BUILD"] == str(folder)


def stop(ctx: Context, payload: Payload) -> None:
    """A run that is stopped after its first measurements; the next one succeeds."""
    payload.code, payload.writes = 1, False
    with raises("bench-failed"):
        main_bench.main(ctx)
    (ctx.build / "bench" / "run" / payload_process.STATE).write_text("{}", encoding="utf-8")
    payload.code, payload.writes = 0, True
    payload.downloads.clear()


@pytest.mark.parametrize(
    ("words", "changed", "continued"),
    [
        ((), "", True),
        (("--rounds", "9"), "", False),
        (("--fresh",), "", False),
        ((), "model", False),
        ((), "code", False),
    ],
)
def test_a_stopped_run_is_continued_only_by_the_same_job(
    words: tuple[str, ...],
    changed: str,
    continued: bool,
    tmp_path: Path,
    payload: Payload,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    model = tmp_path / "real.gguf"
    model.write_bytes(b"GGUF")
    common = ("--device", "cpu", "--model", str(model))
    ctx = running(tmp_path, *common)
    stop(ctx, payload)
    if changed == "model":
        model.write_bytes(b"gguf")
    elif changed == "code":
        monkeypatch.setattr(check_bench_report, "code", lambda: "c" * 64)
    main_bench.main(context(tmp_path, *common, *words, asked=frozenset({"bench"})))
    assert bool(payload.downloads) != continued
    assert ("Continuing where" in capsys.readouterr().out) == continued
    # A recorded run is not continued.
    assert not (ctx.build / "bench" / "run" / payload_process.STATE).exists()


def test_a_state_without_its_job_is_not_used(
    tmp_path: Path, payload: Payload, capsys: Output
) -> None:
    ctx = running(tmp_path, "--device", "cpu")
    disk.mark(ctx.build / "bench")
    disk.mark(ctx.build / "bench" / "run")
    (ctx.build / "bench" / "run" / payload_process.STATE).write_text("{}", encoding="utf-8")
    main_bench.main(ctx)
    assert "Continuing where" not in capsys.readouterr().out


def test_the_measurements_are_kept_until_they_are_recorded(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    ctx = running(tmp_path, "--device", "cpu")
    stream = payload.stream

    def measure(command: Sequence[str], **given: Any) -> Finished:
        (given["cwd"] / payload_process.STATE).write_text("{}", encoding="utf-8")
        return stream(command, **given)

    monkeypatch.setattr("sessions.shared.programs.stream", measure)
    with monkeypatch.context() as patch:
        patch.setattr(records, "write", full)
        with pytest.raises(OSError, match="No space"):
            main_bench.main(ctx)
    assert (ctx.build / "bench" / "run" / payload_process.STATE).exists()


def test_baselines_are_built_first(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Context) -> list[Path]:
        raise Problem("It cannot be built.", id="build", remedy="build another")

    monkeypatch.setattr(baselines, "wheels", refuse)
    ctx = running(tmp_path)
    with raises("build"):
        main_bench.main(ctx)
    assert not (ctx.build / "bench").exists()


def test_without_a_wheel_the_command_that_builds_it_is_the_remedy(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_bench.main(context(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"
