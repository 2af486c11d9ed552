"""Tests each wheel of a bundle that fits this machine, one after the other.

The bundle's program tests each with ``--target`` in its own process, so that a failure does not
stop the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gpu

FOLDER = "smoke-reports"


class Test(NamedTuple):
    """One run of a target's wheel on a device."""

    target: str
    device: str  # as --device takes it
    place: str  # compute capability, or "cpu"
    kind: str = "smoke"  # or "ops", upstream's test of every operator


def main(
    manifests: Sequence[dict[str, Any]],
    options: argparse.Namespace,
    bundle: str,
    visible: str | None,
) -> int:
    """The exit code: 0 if every check passed, 1 if one failed, 2 if a wheel could not be tested.

    ``visible`` is CUDA_VISIBLE_DEVICES.
    """
    sys.path.insert(0, f"{bundle}/nvml")  # pynvml, read from the zip file
    nvml = gpu.read()
    tests, skipped = plan(manifests, nvml, options.device, visible)
    for line in skipped:
        print(f"not tested here: {line}")
    if not tests:
        print("No wheel of this bundle fits this machine.", file=sys.stderr)
        return 2
    folder = Path(options.reports or FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    codes: list[int] = []
    for test in tests:
        print(f"== {test.target}, {test.kind}, {len(codes) + 1} of {len(tests)}", flush=True)
        codes.append(subprocess.run(command(test, options, bundle, folder), check=False).returncode)
    for test, code in zip(tests, codes):
        print("ok  " if code == 0 else "FAIL", test.kind, test.target, f"on {test.place}")
    print(f"import the reports: nox -s release -- --targets all --reports {folder.name}")
    return 1 if 1 in codes else max(codes)


def plan(
    manifests: Sequence[dict[str, Any]],
    nvml: dict[str, Any],
    wanted: str | None,
    visible: str | None,
) -> tuple[list[Test], list[str]]:
    """The tests of this machine, and for each other wheel why it is not tested."""
    tests: list[Test] = []
    skipped: list[str] = []
    for manifest in manifests:
        target = manifest["target"]
        kinds = ["smoke", *(["ops"] if manifest.get("ops") else [])]
        if not manifest["capabilities"]:
            tests += [Test(target, "cpu", "cpu", kind) for kind in kinds]
            continue
        if wanted == "cpu":
            skipped.append(f"{target}: it needs a GPU")
            continue
        for capability in manifest["capabilities"]:
            device, what, _ = gpu.choose(nvml, [capability], manifest["driver"], wanted, visible)
            if device is None:
                skipped.append(f"{target}: {what}")
            else:
                tests += [Test(target, str(device["index"]), capability, kind) for kind in kinds]
    return tests, skipped


def command(test: Test, options: argparse.Namespace, bundle: str, folder: Path) -> list[str]:
    """The command line that tests one wheel."""
    report = folder / f"{test.kind}-report-{test.target}-{test.place}.json"
    words = ["--target", test.target, "--device", test.device, "--report", str(report)]
    words += ["--ops"] if test.kind == "ops" else []
    return [sys.executable, "-I", bundle, *words, *_passed(test, options)]


def _passed(test: Test, options: argparse.Namespace) -> Iterator[str]:
    for name in ("model", "sign"):
        if getattr(options, name) and (name, test.kind) != ("model", "ops"):
            yield f"--{name}"
            yield getattr(options, name)
    if options.offline:
        yield "--offline"
