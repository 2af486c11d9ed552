"""The records of two wheels: one was tested on a GPU, the other was not run."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sessions.build import ninja_log
from sessions.build.record_types import Timeline, Wheel
from sessions.release.documents.report_page import Bar, Chart
from sessions.release.evidence import Evidence, Run
from sessions.run.record_types import SmokeReport
from sessions.shared import records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check, CheckGroup
from sessions.targets import targets_file
from sessions.verify.record_types import VerifyReport
from sessions.verify.wheel_facts import DeviceCode, Library, WheelFacts
from tests import fakes

DATA = fakes.ROOT / "tests" / "data"
H200 = (DATA / "smoke" / "h200-hopper.json").read_text(encoding="utf-8")
COMMIT = "5e5b536a0b1c2d3e4f5061728394a5b6c7d8e9f0"
CHARTS = (
    Chart(
        "Generation",
        "ratio to upstream's",
        (Bar("this wheel", 1.02, 1.01, 1.03), Bar("PTX only", 0.98, 0.96, 1.0), Bar("seed", 0.6)),
        "A B A B, fresh processes; medians.",
        1.0,
    ),
)


@functools.cache
def cold() -> Timeline:
    """The timeline of a build of 98 CUDA steps on two cores, from ninja's log."""
    log = (DATA / "ninja" / "cold.ninja_log").read_text(encoding="utf-8")
    graph = (DATA / "ninja" / "cold.build.ninja").read_text(encoding="utf-8")
    return ninja_log.read(log, graph, jobs=2, cache={"hits": 0, "misses": 152})


@functools.cache
def facts() -> WheelFacts:
    """The facts of a real rtx50 wheel."""
    found = records.read(DATA / "wheelfile" / "rtx50.json", "facts", WheelFacts)
    assert found is not None
    return found


@functools.cache
def h200() -> SmokeReport:
    """The report of a run on an H200."""
    report = {**json.loads(H200)["report"], "origin": "h200-hopper.json"}
    # The report is older than these fields.
    report["features"] = fakes.smoke_features()
    report["families"] = fakes.smoke_families(report["file"], report["device"] != "cpu")
    known = {check["id"] for check in report["checks"]}
    report["checks"] += [check for check in fakes.smoke_checks() if check["id"] not in known]
    del report["system_info"]  # the record does not contain it
    record: SmokeReport = records.from_json(SmokeReport, report)
    return record


def groups() -> tuple[CheckGroup, ...]:
    """Some checks of verify."""
    file = (
        Check("archive", "ok", "archive: 37 members, 19.4 MB"),
        Check("record", "ok", "record: 36 hashes agree"),
        Check("reproducible", "warn", "reproducible: it could not be made again", "why", "how"),
    )
    ptx = (Check("ptx", "ok", "ptx: none"),)
    return CheckGroup("The file", file), CheckGroup("Device code", ptx)


def untested(**changes: Any) -> Evidence:
    """The records of an rtx50 wheel that was built and verified, but not run."""
    found = facts()
    wheel = fakes.wheel(
        file=found.file,
        sha256=found.sha256,
        size=found.size,
        steps=158,
        cache={"hits": 0, "misses": 152},
        timing=ninja_log.summary(cold()),
    )
    return dataclasses.replace(_base(wheel, found), **changes)


def proven(**changes: Any) -> Evidence:
    """The records of a hopper wheel, with the report of a run on an H200."""
    report = h200()
    found = dataclasses.replace(facts(), file=report.file, sha256=report.sha256)
    wheel = dataclasses.replace(
        untested().wheel, target="hopper", archs=("90-real",), sha256=report.sha256
    )
    base = dataclasses.replace(_base(wheel, found), spec=_spec("hopper"), runs=(Run(report, H200),))
    return dataclasses.replace(base, **changes)


def _base(wheel: Wheel, found: WheelFacts) -> Evidence:
    settings = {"build-dir": "/home/user/blackwheel/build/rtx50/tree", "cmake.args": "-GNinja"}
    variables = {"PATH": "/home/user/.cache/blackwheel/tools/bin:/usr/bin", "LC_ALL": "C"}
    return Evidence(
        spec=_spec("rtx50"),
        path=Path("wheels/rtx50") / wheel.file,
        sha256=wheel.sha256,
        toolchain=fakes.chain(),
        source=fakes.source(),
        toolkit=fakes.toolkit(),
        build=fakes.build_env(settings=settings, variables=variables),
        wheel=wheel,
        facts=found,
        verify=VerifyReport(wheel.file, wheel.sha256, "rtx50", "f" * 64, 12.0, groups()),
        runs=(),
        timeline=cold(),
    )


@functools.cache
def _spec(target: str) -> BuildSpec:
    text = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
    return targets_file.load(text, "linux")[target]


def changed(found: Evidence, **parts: Mapping[str, Any]) -> Evidence:
    """The evidence with other values in some parts: ``changed(found, wheel={"steps": 0})``."""
    new = {name: dataclasses.replace(getattr(found, name), **v) for name, v in parts.items()}
    return dataclasses.replace(found, **new)


def libraries_with(code: DeviceCode | None) -> tuple[Library, ...]:
    """The libraries of an rtx50 wheel with other GPU code, or without any."""
    return tuple(
        dataclasses.replace(lib, device=code) if lib.device else lib for lib in fakes.libraries()
    )
