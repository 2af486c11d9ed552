"""``smoke`` without a GPU: it says so at once, and a CUDA wheel's Python side still runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import REPOSITORY

WHEELS = REPOSITORY / "wheels" / "rtx50"


def record(path: Path, kind: str) -> dict[str, Any]:
    if not path.exists():
        pytest.fail(f"There is no {path}. Build the rtx50 wheel first: nox -s wheel")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))[kind]
    return found


@pytest.mark.slow
def test_the_cuda_wheel_computes_right_on_the_cpu_with_a_driver_that_only_refuses(
    tmp_path: Path,
) -> None:
    """The toolkit's stub of the driver's library answers each call with an error."""
    wheel = record(WHEELS / "wheel.json", "wheel")
    build = REPOSITORY / "build" / "rtx50"
    toolkit = Path(record(build / "toolkit.json", "toolkit")["root"])
    python = record(build / "probe.json", "probe")["python"]["path"]
    venv = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
    pure = ["cuda-pathfinder", "numpy", "typing-extensions", "jinja2", "markupsafe", "diskcache"]
    subprocess.run([*pip, "--no-deps", str(WHEELS / wheel["file"]), *pure], check=True)
    lock = REPOSITORY / "sessions" / "data" / "locks" / "payload.txt"
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "nvidia").mkdir()
    (site / "nvidia" / "cu13").symlink_to(toolkit)
    stub = tmp_path / "stub"
    stub.mkdir()
    shutil.copy(toolkit / "lib64" / "stubs" / "libcuda.so", stub / "libcuda.so.1")
    (tmp_path / "run").mkdir()
    job = {
        "folder": str(tmp_path / "run"),
        "layers": 0,
        "threads": 1,
        "index": 0,
        "jobs": os.cpu_count(),
        "types": ["F16", "Q4_K", "IQ3_S"],
        "needed": ["F16", "Q4_K", "IQ3_S"],
        "version": wheel["version"],
        "capabilities": [],
        "venv": str(venv),
        "loads": 1,
        "identity": {"file": wheel["file"]},
    }
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    payload = REPOSITORY / "sessions" / "payload"
    words = ["-I", str(payload), str(tmp_path / "job.json"), str(tmp_path / "report.json")]
    env = {"LD_LIBRARY_PATH": str(stub), "HOME": str(tmp_path)}
    subprocess.run([str(venv / "bin" / "python"), *words], check=True, env=env)
    report = record(tmp_path / "report.json", "report")
    assert {check["id"]: check["status"] for check in report["checks"]} == dict.fromkeys(
        (
            "device",
            "known-answers",
            "greedy-tokens",
            "repeatable",
            "types",
            "grammar",
            "embeddings",
            "state",
            "vocabulary",
        ),
        "ok",
    )
    assert len(report["cases"]) == 48
    # Without that stub, the wheel says what is missing: the driver.
    subprocess.run([str(venv / "bin" / "python"), *words], check=True, env={"HOME": str(tmp_path)})
    (check,) = record(tmp_path / "report.json", "report")["checks"]
    assert (check["id"], check["status"]) == ("device", "fail")
    assert "the NVIDIA driver (libcuda.so.1)" in check["evidence"]
