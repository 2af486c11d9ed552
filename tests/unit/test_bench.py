"""The stage: what it collects and tells the payload, which reports it takes, what it leaves."""

from __future__ import annotations

import dataclasses
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
from sessions.run import bench_results, main_bench, own_report, smoke_input
from sessions.run.model import BenchReport
from sessions.shared import disk, machine, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.programs import Finished
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel().file
CARD = "NVIDIA GeForce RTX 5090"
Told = pytest.CaptureFixture[str]


benching = functools.partial(fakes.on_gpu, "bench")
build = fakes.built


def report_text(digest: str, **changes: Any) -> str:
    wheels = [fakes.bench_wheel(sha256=digest), fakes.bench_wheel("seed", sha256="1" * 64)]
    return report_file.text(
        fakes.bench_report(*wheels, sha256=digest, **changes), report_file.BENCH
    )


def imported_file(root: Path, digest: str, **changes: Any) -> str:
    path = root / "bench-report.json"
    path.write_text(report_text(digest, **changes), encoding="utf-8")
    return str(path)


# ---- a report of another machine ----------------------------------------------------------------


def test_a_report_is_taken_shown_and_recorded(tmp_path: Path, capsys: Told) -> None:
    digest = build(benching(tmp_path))
    ctx = benching(tmp_path, "--report", imported_file(tmp_path, digest), machine=fakes.no_machine)
    main_bench.main(ctx)
    found = records.read(ctx.record("bench"), "bench", BenchReport)
    assert found is not None
    assert (found.origin, found.device) == ("bench-report.json", CARD)
    assert (ctx.build / "bench-report.json").read_text(encoding="utf-8") == report_text(digest)
    told = capsys.readouterr().out
    assert "rtx50 against seed" in told
    assert "The GPU: 2500 to 2500 MHz, 41 to 41 °C" in told
    assert f"bench: 2 wheels in 8 rounds on {CARD}, in 1 min 2 s" in told


def test_a_gpu_that_was_slowed_down_and_ptx_that_was_compiled_are_told(
    tmp_path: Path, capsys: Told
) -> None:
    digest = build(benching(tmp_path))
    condition = {**fakes.bench_report()["conditions"][0], "slowed": ["power cap"]}
    wheels = [fakes.bench_wheel(sha256=digest), fakes.bench_wheel("ptx", jit_files=7)]
    path = imported_file(tmp_path, digest, conditions=[condition])
    report = fakes.bench_report(*wheels, sha256=digest, conditions=[condition])
    Path(path).write_text(report_file.text(report, report_file.BENCH), encoding="utf-8")
    main_bench.main(benching(tmp_path, "--report", path))
    told = capsys.readouterr().out
    assert "the GPU was slowed down: power cap" in told
    assert "ptx: the driver compiled its code at the first token" in told
    assert "rtx50: the driver" not in told


def test_a_report_of_another_wheel_is_refused_and_nothing_recorded(tmp_path: Path) -> None:
    ctx = benching(tmp_path)
    build(ctx)
    with raises("bench-report-other-wheel") as caught:
        main_bench.main(benching(tmp_path, "--report", imported_file(tmp_path, "9" * 64)))
    assert caught.value.remedy == own_report.again("bench", ctx.spec, None)
    assert not ctx.record("bench").exists()


def test_a_report_that_is_not_there_is_named_with_what_takes_one(tmp_path: Path) -> None:
    build(benching(tmp_path))
    with raises("report-unreadable") as caught:
        main_bench.main(benching(tmp_path, "--report", str(tmp_path / "gone.json")))
    assert "nox -s bench -- --report FILE" in caught.value.remedy


def test_a_signature_that_is_asked_for_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = build(benching(tmp_path))
    asked: list[tuple[str, str]] = []

    def signed(_: Context, report: Path, data: bytes, signers: Path) -> str:
        assert data == report.read_bytes()
        asked.append((report.name, signers.name))
        return ""

    monkeypatch.setattr("sessions.run.imported_report.signed", signed)
    words = ["--report", imported_file(tmp_path, digest), "--signers", str(tmp_path / "keys")]
    main_bench.main(benching(tmp_path, *words))
    assert asked == [("bench-report.json", "keys")]


def test_of_a_wheel_that_was_given_the_record_lies_apart(tmp_path: Path) -> None:
    other = tmp_path / "other" / NAME
    other.parent.mkdir()
    other.write_bytes(b"a wheel")
    digest = records.file_sha256(other)
    path = imported_file(tmp_path, digest)
    ctx = benching(tmp_path, "--wheel", str(other), "--report", path)
    main_bench.main(ctx)
    assert not (ctx.build / "bench.json").exists()
    assert (ctx.given(other, digest) / "bench.json").exists()


# ---- a run here ---------------------------------------------------------------------------------


def modular(folder: Path) -> bytes:
    """A wheel with two modules for the CPU, and a library that is none."""
    path = folder / "modular.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("libggml-cpu-x64.so", "libggml-cpu-haswell.so", "libggml-base.so"):
            archive.writestr(f"llama_cpp/lib/{name}", b"ELF")
    return path.read_bytes()


class Payload:
    """Plays pip and the payload that writes a report."""

    def __init__(self) -> None:
        self.downloads: list[list[str]] = []
        self.command: list[str] = []
        self.env: Mapping[str, str] = {}
        self.job: dict[str, Any] = {}
        self.code = 0
        self.writes = True

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
            text = report_text(
                self.job["identity"]["sha256"], device=self.job["identity"]["device"]
            )
            Path(command[-1]).write_text(text, encoding="utf-8")
        return Finished((), self.code, "", 0.0)


@pytest.fixture
def payload(monkeypatch: pytest.MonkeyPatch) -> Payload:
    played = Payload()
    monkeypatch.setattr(venvs, "pip", played.pip)
    monkeypatch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    monkeypatch.setattr("sessions.shared.programs.stream", played.stream)
    return played


def test_the_payload_is_told_of_the_wheels_and_of_the_gpu(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "seed" / NAME
    other.parent.mkdir()
    other.write_bytes(b"by another procedure")
    ctx = benching(tmp_path, "--baseline", str(other), "--rounds", "12", "--device", "0")
    digest = build(ctx)
    main_bench.main(ctx)
    told = payload.job
    assert [(w["label"], Path(w["path"])) for w in told["wheels"]] == [
        ("rtx50", ctx.wheels / NAME),
        ("seed", other),
    ]
    assert told["wheels"][0]["sha256"] == digest
    assert (told["layers"], told["index"], told["rounds"]) == (999, 0, 12)
    assert (told["runtime"], told["link"], told["python"]) == (
        "packages",
        None,
        "/usr/bin/python3.11",
    )
    assert told["identity"] == {
        "file": NAME,
        "sha256": digest,
        "target": "rtx50",
        "device": CARD,
        "capability": "12.0",
        "driver": "580.159.04",
    }
    # This Python: NVML's bindings are in its packages.
    assert payload.command[:4] == [sys.executable, "-I", str(smoke_input.PAYLOAD), "--bench"]
    assert disk.is_marked(ctx.build / "bench" / "run")


def test_what_the_wheels_require_is_there_as_files_before_anything_is_timed(
    tmp_path: Path, payload: Payload
) -> None:
    other = tmp_path / "seed" / NAME
    other.parent.mkdir()
    other.write_bytes(b"by another procedure")
    ctx = benching(tmp_path, "--baseline", str(other))
    build(ctx)
    main_bench.main(ctx)
    this, another, runtime, model = payload.downloads
    folder = str(ctx.build / "bench" / "wheels")
    for words in payload.downloads:
        assert words[:4] == ["download", "--only-binary=:all:", "-d", folder]
    assert this[-1] == str(ctx.wheels / NAME)
    assert another[-1] == str(other)
    assert runtime[-2:] == ["nvidia-cuda-runtime>=13,<14", "nvidia-cublas>=13,<14"]
    assert "--require-hashes" in model
    assert payload.job["packages"] == folder


def test_on_the_cpu_no_runtime_is_fetched_and_no_gpu_asked_for(
    tmp_path: Path, payload: Payload, capsys: Told
) -> None:
    ctx = benching(tmp_path, machine=fakes.no_machine, spec=fakes.cpu_spec())
    digest = build(ctx)
    payload.writes = False

    def stream(command: Sequence[str], **_: Any) -> Finished:
        payload.job = json.loads(Path(command[-2]).read_text(encoding="utf-8"))
        report = fakes.bench_report(
            fakes.bench_wheel("cpu", sha256=digest), sha256=digest, target="cpu", device="cpu"
        )
        Path(command[-1]).write_text(report_file.text(report, report_file.BENCH), encoding="utf-8")
        return Finished((), 0, "", 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sessions.shared.programs.stream", stream)
        main_bench.main(ctx)
    assert (payload.job["layers"], payload.job["runtime"]) == (0, "none")
    assert not any("nvidia" in word for words in payload.downloads for word in words)
    assert (payload.job["threads"], payload.job["cpu_threads"]) == (1, machine.physical_cores())
    told = capsys.readouterr().out
    assert "not on a GPU" not in told  # there is nothing else to measure
    assert "cpu: on the CPU it used the module haswell" in told


def test_the_cpu_path_of_a_wheel_for_gpus_is_recorded_apart(
    tmp_path: Path, payload: Payload, capsys: Told
) -> None:
    ctx = benching(tmp_path)
    build(ctx)
    main_bench.main(ctx)
    on_gpu = ctx.record("bench").read_bytes()
    main_bench.main(benching(tmp_path, "--device", "cpu", machine=fakes.no_machine))
    assert payload.job["layers"] == 0
    assert "the wheel is measured on the CPU, not on a GPU" in capsys.readouterr().out
    assert ctx.record("bench").read_bytes() == on_gpu
    report = records.read(ctx.build / "bench-cpu.json", "bench", BenchReport)
    assert report is not None
    assert report.device == "cpu"
    assert (ctx.build / "bench-report-cpu.json").exists()


def test_each_module_for_the_cpu_that_is_named_is_measured_in_turn(
    tmp_path: Path, payload: Payload
) -> None:
    words = ["--cpu-module", "haswell", "--cpu-module", "x64"]
    ctx = benching(tmp_path, "--device", "cpu", *words)
    digest = build(ctx, modular(tmp_path))
    main_bench.main(ctx)
    wheels = payload.job["wheels"]
    assert [wheel["label"] for wheel in wheels] == ["rtx50", "rtx50 (haswell)", "rtx50 (x64)"]
    assert [wheel.get("cpu") for wheel in wheels] == [None, "haswell", "x64"]
    assert {wheel["sha256"] for wheel in wheels} == {digest}


def test_a_module_that_the_wheel_does_not_have_is_refused_before_anything_is_fetched(
    tmp_path: Path, payload: Payload
) -> None:
    ctx = benching(tmp_path, "--device", "cpu", "--cpu-module", "z80")
    build(ctx, modular(tmp_path))
    with raises("cpu-module-unknown") as caught:
        main_bench.main(ctx)
    assert "it has haswell, x64" in caught.value.what
    assert payload.downloads == []


def test_without_the_gpu_it_stops_before_anything_is_fetched(
    tmp_path: Path, payload: Payload
) -> None:
    ctx = benching(tmp_path, machine=lambda *_: {"error": "NVML Shared Library Not Found"})
    build(ctx)
    with raises("gpu-not-usable") as caught:
        main_bench.main(ctx)
    assert "add --bench to measure it there" in caught.value.remedy
    assert payload.downloads == []
    assert not ctx.record("bench").exists()


def test_too_few_rounds_are_measured_with_a_warning(
    tmp_path: Path, payload: Payload, capsys: Told
) -> None:
    ctx = benching(tmp_path, "--rounds", "3")
    build(ctx)
    main_bench.main(ctx)
    assert "fewer than 8 rounds" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, payload: Payload) -> None:
    ctx = benching(tmp_path, "--model", str(tmp_path / "gone.gguf"))
    build(ctx)
    with raises("model-missing"):
        main_bench.main(ctx)
    assert payload.downloads == []


@pytest.mark.parametrize(("code", "writes"), [(2, False), (2, True), (0, False)])
def test_measurements_that_end_badly_are_a_problem_with_what_was_said(
    code: int, writes: bool, tmp_path: Path, payload: Payload
) -> None:
    payload.code, payload.writes = code, writes
    ctx = benching(tmp_path)
    build(ctx)
    with raises("bench-failed") as caught:
        main_bench.main(ctx)
    assert caught.value.evidence == "it broke"
    assert not ctx.record("bench").exists()


def test_a_folder_of_somebody_else_is_not_deleted(tmp_path: Path, payload: Payload) -> None:
    ctx = benching(tmp_path)
    build(ctx)
    (ctx.build / "bench").mkdir()
    with raises("folder-without-mark"):
        main_bench.main(ctx)


def test_no_variable_of_the_caller_reaches_what_is_measured(
    tmp_path: Path, payload: Payload
) -> None:
    env = {"HOME": "/home/user", "LD_LIBRARY_PATH": "/x", "CUDA_PATH": "/y", "CUDA_CACHE_PATH": "z"}
    ctx = benching(tmp_path, env=env)
    build(ctx)
    main_bench.main(ctx)
    assert payload.env == {"HOME": "/home/user", "BLACKWHEEL_BUILD": str(ctx.build)}


@pytest.mark.parametrize("given", [False, True], ids=["built-here", "given"])
def test_a_payload_that_a_killed_run_left_behind_is_ended_first(
    given: bool, tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, str]] = []

    def end(name: str, value: str) -> None:
        assert payload.command == []
        ended.append((name, value))

    monkeypatch.setattr("sessions.shared.programs.end_leftovers", end)
    ctx = benching(tmp_path, "--device", "cpu")
    digest, folder = build(ctx), ctx.build
    if given:
        ctx = benching(tmp_path, "--device", "cpu", "--wheel", str(ctx.wheels / NAME))
        records.write(ctx.record("probe"), "probe", fakes.chain())
        folder = ctx.given(ctx.wheels / NAME, digest)
    main_bench.main(ctx)
    assert ended == [("BLACKWHEEL_BUILD", str(folder))]
    assert payload.env["BLACKWHEEL_BUILD"] == str(folder)


@pytest.mark.parametrize(
    ("words", "goes_on"), [((), True), (("--rounds", "9"), False), (("--fresh",), False)], ids=str
)
def test_stopped_half_way_it_goes_on_unless_something_else_is_asked_for(
    tmp_path: Path, payload: Payload, words: tuple[str, ...], goes_on: bool, capsys: Told
) -> None:
    ctx = benching(tmp_path, "--device", "cpu")
    build(ctx)
    payload.code, payload.writes = 1, False
    with raises("bench-failed"):
        main_bench.main(ctx)
    (ctx.build / "bench" / "run" / main_bench.STATE).write_text("{}", encoding="utf-8")
    payload.code, payload.writes = 0, True
    payload.downloads.clear()
    again = benching(tmp_path, "--device", "cpu", *words)
    main_bench.main(dataclasses.replace(again, asked=frozenset({"bench"})))
    assert bool(payload.downloads) != goes_on
    assert ("Continuing where" in capsys.readouterr().out) == goes_on
    # What was recorded is not gone on with.
    assert not (ctx.build / "bench" / "run" / main_bench.STATE).exists()


@pytest.mark.parametrize("changed", ["model", "code", "nothing"])
def test_a_series_is_of_one_model_and_one_program(
    changed: str,
    tmp_path: Path,
    payload: Payload,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Told,
) -> None:
    model = tmp_path / "real.gguf"
    model.write_bytes(b"GGUF")
    ctx = benching(tmp_path, "--device", "cpu", "--model", str(model))
    build(ctx)
    payload.code, payload.writes = 1, False
    with raises("bench-failed"):
        main_bench.main(ctx)
    (ctx.build / "bench" / "run" / main_bench.STATE).write_text("{}", encoding="utf-8")
    if changed == "model":
        model.write_bytes(b"gguf")
    elif changed == "code":
        monkeypatch.setattr(bench_results, "code", lambda: "c" * 64)
    payload.code, payload.writes = 0, True
    main_bench.main(ctx)
    assert ("Continuing where" in capsys.readouterr().out) == (changed == "nothing")


def test_a_state_without_its_job_is_none(tmp_path: Path, payload: Payload, capsys: Told) -> None:
    ctx = benching(tmp_path, "--device", "cpu")
    build(ctx)
    disk.mark(ctx.build / "bench")
    disk.mark(ctx.build / "bench" / "run")
    (ctx.build / "bench" / "run" / main_bench.STATE).write_text("{}", encoding="utf-8")
    main_bench.main(ctx)
    assert "Continuing where" not in capsys.readouterr().out


def test_what_was_measured_is_kept_until_it_is_recorded(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    ctx = benching(tmp_path, "--device", "cpu")
    build(ctx)
    stream = payload.stream

    def measure(command: Sequence[str], **given: Any) -> Finished:
        (given["cwd"] / main_bench.STATE).write_text("{}", encoding="utf-8")
        return stream(command, **given)

    monkeypatch.setattr("sessions.shared.programs.stream", measure)
    with monkeypatch.context() as patch:
        patch.setattr(records, "write", full)
        with pytest.raises(OSError, match="No space"):
            main_bench.main(ctx)
    assert (ctx.build / "bench" / "run" / main_bench.STATE).exists()


def test_baselines_are_built_before_the_folder_is_made(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Context) -> list[Path]:
        raise Problem("It cannot be built.", id="build", remedy="build another")

    monkeypatch.setattr(baselines, "wheels", refuse)
    ctx = benching(tmp_path)
    build(ctx)
    with raises("build"):
        main_bench.main(ctx)
    assert not (ctx.build / "bench").exists()


def test_without_a_wheel_the_session_that_builds_it_is_named(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_bench.main(benching(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"


def test_the_stage_takes_a_wheel_by_name(tmp_path: Path) -> None:
    ctx = benching(tmp_path, "--wheel", str(tmp_path / "gone.whl"))
    with raises("wheel-missing") as caught:
        main_bench.main(dataclasses.replace(ctx))
    assert "nox -s bench -- --wheel" in caught.value.remedy
