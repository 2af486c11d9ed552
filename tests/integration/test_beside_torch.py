"""The wheel's requirements, resolved together with each PyTorch of the last year."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.build import cmake_settings
from sessions.targets import targets_file
from tests.integration.conftest import REPOSITORY

TORCH = ("2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")
BY_PIP = "2.14.1"  # pip's resolver takes a minute, so only one release; uv resolves all
# The requirements of earlier wheels: the releases with which they were linked.
LINKED = ("nvidia-cuda-runtime>=13.1.80,<14", "nvidia-cublas>=13.2.2.2,<14")


def requires() -> tuple[str, ...]:
    text = (REPOSITORY / "targets.toml").read_text(encoding="utf-8")
    return cmake_settings._requires(targets_file.load(text, "linux")["rtx50"])


def by_uv(folder: Path, *needs: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("uv") is None:
        pytest.fail("There is no uv: nox -s integration installs it")
    requirements = folder / "wanted.in"
    requirements.write_text("\n".join(needs))
    words = ["-m", "uv", "pip", "compile", "--python-version", "3.11", "--no-header"]
    words += ["--python-platform", "x86_64-manylinux_2_35", "--no-annotate", str(requirements)]
    return subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("release", TORCH)
def test_uv_resolves_the_wheel_beside_torch(release: str, tmp_path: Path) -> None:
    done = by_uv(tmp_path, f"torch=={release}", *requires())
    assert done.returncode == 0, done.stderr
    assert f"torch=={release}\n" in done.stdout


def test_the_requirements_of_earlier_wheels_cannot_be_resolved_beside_torch(tmp_path: Path) -> None:
    """So the tests above can fail."""
    done = by_uv(tmp_path, "torch==2.14.1", *LINKED)
    assert done.returncode == 1
    assert "No solution found" in done.stderr


def test_pip_resolves_the_wheel_beside_torch(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ["-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    words += ["-q", "--report", str(report), f"torch=={BY_PIP}", *requires()]
    # The configuration of this machine must not limit the releases of torch.
    env = {**os.environ, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [sys.executable, *words], env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {item["metadata"]["name"] for item in json.loads(report.read_text())["install"]}
    assert {"torch", "nvidia-cuda-runtime", "nvidia-cublas", "cuda-pathfinder"} <= found
