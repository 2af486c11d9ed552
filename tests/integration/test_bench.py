"""The session bench with real venvs, pip and processes; in the wheels, llama.cpp is replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions.run import main_bundle
from tests.integration.conftest import REPOSITORY, Project, kill_tree, processes_of, sha256

RUN = "build/cpu/given/*/bench/run"
WHEEL = "llama_cpp_python-0.3.16-py3-none-any.whl"
# The parts of upstream's package that a benchmark uses.
PACKAGE = """\
import ctypes, time

time.sleep({imported})
__version__ = "0.3.16"
llama_token = ctypes.c_int32


class Params:
    _fields_ = [("flash_attn", int)]


def nothing(*_):
    return 0


def llama_decode(*_):
    time.sleep({decode})
    return {code}


def llama_log_callback(function):
    return function


llama_log_set = llama_backend_init = llama_model_free = llama_free = nothing
llama_get_memory = llama_memory_clear = llama_synchronize = llama_batch_get_one = nothing
llama_model_get_vocab = nothing
llama_model_default_params = llama_context_default_params = Params
llama_model_load_from_file = llama_init_from_model = lambda *_: object()
llama_vocab_n_tokens = lambda _: 512
"""


def stub(folder: Path, *, imported: float, decode: float, code: int = 0) -> Path:
    """A wheel whose import and decoding take these times in seconds."""
    folder.mkdir()
    info = "llama_cpp_python-0.3.16.dist-info"
    metadata = "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.16\n"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members = {
        "llama_cpp/__init__.py": PACKAGE.format(imported=imported, decode=decode, code=code),
        f"{info}/METADATA": f"{metadata}Requires-Dist: numpy\n",
        f"{info}/WHEEL": kind,
    }
    names = [*members, f"{info}/RECORD"]
    members[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in names)
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return folder / WHEEL


@pytest.mark.slow
def test_a_slower_wheel_is_found(project: Project, tmp_path: Path) -> None:
    this = stub(tmp_path / "this", imported=0.0, decode=0.001)
    slow = stub(tmp_path / "slow", imported=1.0, decode=0.004)
    words = ["--target", "cpu", "--wheel", str(this), "--baseline", str(slow), "--rounds", "8"]
    ran = project.start("bench", *words).end(timeout=900).well()
    assert "cpu against slow" in ran.output
    (path,) = (project.root / "build" / "cpu" / "given").glob("*/bench.json")
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["bench"]
    assert [wheel["label"] for wheel in report["wheels"]] == ["cpu", "slow"]
    found = {ratio["metric"]: ratio for ratio in report["ratios"]}
    for metric in ("import_seconds", "generation_per_second"):
        assert found[metric]["verdict"] == "better", found[metric]
        assert found[metric]["count"] == 8
    # 4 ms per token are less than 250 tokens per second.
    slept = sorted(report["wheels"][1]["values"]["generation_per_second"])
    assert 50 < slept[4] < 250
    assert found["wheel_bytes"]["verdict"] == "same"
    assert found["install_seconds"]["verdict"] == "unsure"
    written = path.with_name("bench-report.json")
    again = project.nox("bench", *words[:4], "--report", str(written)).well()
    assert "cpu against slow" in again.output
    written.write_text(written.read_text(encoding="utf-8").replace("0.3.16", "0.3.17", 1))
    project.nox("bench", *words[:4], "--report", str(written)).badly("changed or damaged")


def kill_nox(pid: int) -> None:
    """Kill -9 only nox, not the processes that it started."""
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_tree, kill_nox])
def test_a_killed_benchmark_is_continued(
    project: Project, tmp_path: Path, kill: Callable[[int], None]
) -> None:
    this = stub(tmp_path / "this", imported=0.0, decode=0.0)
    same = stub(tmp_path / "same", imported=0.0, decode=0.0)
    words = ["--target", "cpu", "--wheel", str(this), "--baseline", str(same), "--rounds", "8"]
    running = project.start("bench", *words)
    until = time.monotonic() + 300
    while not (kept := list(project.root.glob(f"{RUN}/state.json"))) or measured(kept[0]) < 12:
        assert time.monotonic() < until, running.end().output
        time.sleep(0.2)
    kill(running.process.pid)
    running.end()
    before = measured(kept[0])
    again = project.start("bench", *words)
    ran = again.end(timeout=600).well()
    assert "Continuing where the last run was stopped" in ran.output
    path = kept[0].parents[2] / "bench.json"
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["bench"]
    assert report["stops"] == 1
    assert min(map(int, re.findall(r"measuring: (\d+) of", ran.output))) >= before
    for wheel in report["wheels"]:
        assert len(wheel["values"]["import_seconds"]) == 8
    assert not kept[0].exists()


def interrupt(pid: int) -> None:
    """Ctrl-C in a terminal: SIGINT for the whole process group."""
    os.killpg(pid, signal.SIGINT)


def interrupt_program(pid: int) -> None:
    """SIGINT only for the program, not for the processes that it started."""
    os.kill(pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [kill_tree, interrupt, interrupt_program])
def test_a_stopped_bundle_is_continued(tmp_path: Path, stop: Callable[[int], None]) -> None:
    this = stub(tmp_path / "this", imported=0.0, decode=0.0)
    same = stub(tmp_path / "same", imported=0.0, decode=0.0)
    words = [sys.executable, str(bundle_of(this, tmp_path / "in")), "--bench"]
    words += ["--baseline", str(same), "--rounds", "2"]
    state = tmp_path / "bench-report.unfinished" / "run" / "state.json"
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            words,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as running,
    ):
        until = time.monotonic() + 300
        while not state.exists() or measured(state) < 8:
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        stop(running.pid)
    output = (tmp_path / "log").read_text()
    assert "Traceback" not in output, output
    if stop is not kill_tree:
        assert running.returncode == 130
        assert "Stopped. With --bench or --ops, the same command continues" in output
    assert processes_of(tmp_path) == []
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Continuing where the last run was stopped" in done.stdout
    report = json.loads((tmp_path / "bench-report.json").read_text(encoding="utf-8"))["report"]
    assert report["stops"] == 1
    for wheel in report["wheels"]:
        assert len(wheel["values"]["import_seconds"]) == 2
    assert not state.parents[1].exists()


def bundle_of(wheel: Path, folder: Path) -> Path:
    """A bundle of a CPU wheel, with the requirements of the wheel and of the tiny model."""
    (folder / "wheels").mkdir(parents=True)
    shutil.copy(wheel, folder / "wheels")
    words = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:"]
    words += ["-d", str(folder / "wheels")]
    subprocess.run([*words, "numpy"], check=True)
    lock = REPOSITORY / "sessions" / "data" / "locks" / "payload.txt"
    subprocess.run([*words, "--no-deps", "--require-hashes", "-r", str(lock)], check=True)
    named = {"file": wheel.name, "sha256": sha256(wheel.read_bytes()), "target": "cpu"}
    manifest = {
        "target": "cpu",
        "arguments": "--target cpu",
        "pythons": [f"{sys.version_info.major}.{sys.version_info.minor}"],
        "platforms": [sysconfig.get_platform().replace("-", "_")],
        "driver": 0,
        "bad_drivers": {},
        "runtime": [],
        "capabilities": [],
        "job": {"identity": named},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    path = folder.with_suffix(".pyz")
    main_bundle.pack(folder, path)
    return path


def measured(state: Path) -> int:
    """The number of steps that a run has done."""
    done: int = json.loads(state.read_text(encoding="utf-8"))["done"]
    return done


@pytest.mark.slow
def test_a_wheel_that_does_not_compute_ends_the_benchmark(project: Project, tmp_path: Path) -> None:
    this = stub(tmp_path / "this", imported=0.0, decode=0.0)
    bad = stub(tmp_path / "bad", imported=0.0, decode=0.0, code=1)
    words = ["--target", "cpu", "--wheel", str(this), "--baseline", str(bad), "--rounds", "1"]
    ran = project.start("bench", *words).end(timeout=600)
    ran.badly("could not be measured", "bad", "llama_decode returned 1")
    assert not list((project.root / "build").rglob("bench.json"))


@pytest.mark.parametrize(
    ("session", "words", "way"),
    [
        ("bench", (), "add --bench to measure it there"),
        ("bench", ("--baseline", "seed"), "add --bench to measure it there"),
        ("smoke", (), " -s bundle"),
    ],
)
def test_without_a_gpu_it_stops_before_anything_is_built(
    session: str, words: tuple[str, ...], way: str
) -> None:
    # A GPU that test machines hardly have; the remedy is the same with and without a driver.
    done = subprocess.run(
        [sys.executable, "noxfile.py", "-s", session, "--", "--target", "b200", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "No NVIDIA driver answers here" in output or "No GPU here runs this wheel" in output
    assert way in output
    assert "--device cpu" in output or session == "bench"
    assert "session clean" not in output
    assert not (REPOSITORY / "build" / "b200" / "tree").exists()
