"""A bundle of several targets: the tests that a machine runs, and their commands."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sessions.payload import bundle_wheels, gpu
from tests import fakes

RTX50 = {"target": "rtx50", "capabilities": ["12.0"], "driver": 580}
HOPPER = {"target": "hopper", "capabilities": ["9.0"], "driver": 580}
BOTH = {"target": "both", "capabilities": ["9.0", "12.0"], "driver": 580}
CPU = {"target": "cpu", "capabilities": [], "driver": 0}
H200 = {"name": "NVIDIA H200", "compute_capability": "9.0"}


def options(**changes: Any) -> argparse.Namespace:
    base = {"device": None, "reports": None, "model": None, "offline": False, "sign": None}
    return argparse.Namespace(**{**base, **changes})


@pytest.mark.parametrize(
    ("manifests", "gpus", "tested", "skipped"),
    [
        ([RTX50, HOPPER, CPU], [{}], [("rtx50", "0", "12.0"), ("cpu", "cpu", "cpu")], ["hopper"]),
        ([RTX50, HOPPER], [H200], [("hopper", "0", "9.0")], ["rtx50"]),
        (
            [RTX50, HOPPER],
            [{}, {**H200, "index": 1}],
            [("rtx50", "0", "12.0"), ("hopper", "1", "9.0")],
            [],
        ),
        ([BOTH], [{}, {**H200, "index": 1}], [("both", "1", "9.0"), ("both", "0", "12.0")], []),
    ],
    ids=["rtx50", "h200", "two-gpus", "one-wheel-for-two"],
)
def test_each_wheel_is_tested_on_a_suitable_gpu(
    manifests: list[dict[str, Any]],
    gpus: list[dict[str, Any]],
    tested: list[tuple[str, str, str]],
    skipped: list[str],
) -> None:
    nvml = fakes.nvml(*(fakes.nvml_gpu(**one) for one in gpus))
    tests, others = bundle_wheels.plan(manifests, nvml, None, None)
    assert [test[:3] for test in tests] == tested
    assert [line.split(":")[0] for line in others] == skipped


def test_without_a_gpu_only_the_cpu_wheel_is_tested() -> None:
    tests, skipped = bundle_wheels.plan([RTX50, CPU], {"error": "no driver"}, None, None)
    assert tests == [("cpu", "cpu", "cpu", "smoke")]
    assert len(skipped) == 1
    assert "no driver" in skipped[0]


def test_device_cpu_tests_no_gpu_wheel() -> None:
    nvml = fakes.nvml(fakes.nvml_gpu())
    assert bundle_wheels.plan([RTX50, CPU], nvml, "cpu", None) == (
        [("cpu", "cpu", "cpu", "smoke")],
        ["rtx50: it needs a GPU"],
    )


def test_a_hidden_gpu_is_not_used() -> None:
    nvml = fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(**H200, index=1))
    tests, _ = bundle_wheels.plan([RTX50, HOPPER], nvml, None, "1")
    assert [test.target for test in tests] == ["hopper"]


def replace_programs(
    monkeypatch: pytest.MonkeyPatch, codes: dict[str, int], nvml: dict[str, Any]
) -> list[list[str]]:
    ran: list[list[str]] = []

    def run(command: Sequence[str], *, check: bool) -> Any:
        ran.append(list(command))
        return SimpleNamespace(returncode=codes.get(command[4], 0))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(gpu, "read", lambda: nvml)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return ran


@pytest.mark.parametrize(
    ("codes", "code"),
    [({}, 0), ({"rtx50": 1}, 1), ({"rtx50": 2}, 2), ({"rtx50": 2, "cpu": 1}, 1)],
)
def test_a_failure_does_not_stop_the_others_and_is_the_exit_code(
    codes: dict[str, int], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = replace_programs(monkeypatch, codes, fakes.nvml(fakes.nvml_gpu()))
    assert (
        bundle_wheels.main([RTX50, CPU], options(offline=True, sign="k"), "smoke.pyz", None) == code
    )
    assert [command[4] for command in ran] == ["rtx50", "cpu"]
    assert ran[0] == [
        sys.executable, "-I", "smoke.pyz", "--target", "rtx50", "--device", "0", "--report",
        str(Path("smoke-reports", "smoke-report-rtx50-12.0.json")), "--sign", "k", "--offline",
    ]  # fmt: skip
    assert (tmp_path / "smoke-reports").is_dir()


def test_if_no_wheel_fits_the_exit_code_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert replace_programs(monkeypatch, {}, {"error": "none"}) == []
    assert bundle_wheels.main([RTX50], options(), "smoke.pyz", None) == 2
    assert "No wheel of this bundle fits this machine." in capsys.readouterr().err


def test_the_operator_test_follows_each_smoke_test(tmp_path: Path) -> None:
    nvml = fakes.nvml(fakes.nvml_gpu())
    manifests = [{**RTX50, "ops": {"library": "x"}}, {**CPU, "ops": None}]
    tests, _ = bundle_wheels.plan(manifests, nvml, None, None)
    assert [(test.target, test.kind) for test in tests] == [
        ("rtx50", "smoke"), ("rtx50", "ops"), ("cpu", "smoke"),
    ]  # fmt: skip
    smoke, ops = (
        bundle_wheels.command(test, options(model="m.gguf"), "s.pyz", tmp_path)
        for test in tests[:2]
    )
    assert smoke[-2:] == ["--model", "m.gguf"]
    assert ops[-1] == "--ops"  # --ops has no --model
    assert str(tmp_path / "ops-report-rtx50-12.0.json") in ops
