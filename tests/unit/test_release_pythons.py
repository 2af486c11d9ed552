"""Wheels for other Pythons and imported reports: which of them belong to a release."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from sessions.build import python_tag
from sessions.build.record_types import Wheel
from sessions.payload import report_file
from sessions.release import other_pythons, remote_reports
from sessions.shared import records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check, CheckGroup
from sessions.targets import choose_target, targets_file
from sessions.verify import checks_digest
from sessions.verify.record_types import VerifyReport
from tests import fakes
from tests.problems import raises

TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
NAME = fakes.wheel().file
LIBRARY = "llama_cpp/lib/libllama.so"


def pack(path: Path, python: str, *, library: str = "code") -> Path:
    """A wheel that names a Python in the same members as a real one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(LIBRARY, library)
        archive.writestr(f"{fakes.INFO}/METADATA", "Name: llama_cpp_python\n")
        for member in ("WHEEL", "RECORD", "sboms/blackwheel.cdx.json"):
            archive.writestr(f"{fakes.INFO}/{member}", f"of {python}")
    return path


def other(root: Path, python: str = "3.12", *, library: str = "code", ok: bool = True) -> Path:
    """What ``matrix`` leaves for one more Python: the wheel, its record, and ``verify.json``."""
    of = choose_target.choose(TARGETS, fakes.parsed("--target", "rtx50", "--python", python))
    folder = root / "wheels" / of.target
    path = pack(folder / python_tag.name(NAME, python), python, library=library)
    wheel = fakes.wheel(
        file=path.name, sha256=records.file_sha256(path), size=path.stat().st_size, target=of.target
    )
    records.write(folder / "wheel.json", "wheel", wheel)
    checked(root, of, wheel, ok=ok)
    return path


def checked(root: Path, of: BuildSpec, wheel: Wheel, *, ok: bool) -> None:
    status: Literal["ok", "fail"] = "ok" if ok else "fail"
    groups = (CheckGroup("The file", (Check("record", status, "record: …"),)),)
    rules = checks_digest.fingerprint(of, wheel)
    report = VerifyReport(wheel.file, wheel.sha256, of.target, rules, 1.0, groups)
    name = f"{Path(wheel.file).stem}-{wheel.sha256[:8]}"
    path = root / "build" / of.target / "given" / name / "verify.json"
    records.write(path, "verify", report, ok=ok)


def read(root: Path, *words: str) -> other_pythons.Repacked:
    base = pack(root / "wheels" / "rtx50" / NAME, "3.11")
    return other_pythons.read(root, TARGETS, fakes.parsed("--target", "rtx50", *words), base)


def test_wheels_with_the_same_libraries_are_released(tmp_path: Path) -> None:
    paths = (other(tmp_path, "3.10"), other(tmp_path, "3.13"))
    found = read(tmp_path)
    assert [wheel.python for wheel in found.wheels] == ["3.10", "3.13"]
    assert [wheel.sha256 for wheel in found.wheels] == list(map(records.file_sha256, paths))
    assert (found.paths, found.faults, found.older) == (paths, (), ())


def test_a_wheel_of_another_build_is_left_out_and_named(tmp_path: Path) -> None:
    assert read(tmp_path) == other_pythons.Repacked()
    path = other(tmp_path, library="older code")
    found = read(tmp_path)
    assert found.wheels == ()
    assert found.older == (f"{path.name} ({LIBRARY})",)


@pytest.mark.parametrize("change", ["bytes", "record", "gone", "unchecked", "failed", "rules"])
def test_a_changed_or_unchecked_wheel_stops_the_release(change: str, tmp_path: Path) -> None:
    path = other(tmp_path, ok=change != "failed")
    verify = next((tmp_path / "build").rglob("verify.json"))
    if change == "bytes":
        path.write_bytes(path.read_bytes() + b"x")
    elif change == "record":
        (path.parent / "wheel.json").write_text("{}")
    elif change == "gone":
        path.unlink()
    elif change == "unchecked":
        verify.unlink()
    elif change == "rules":
        report = records.need(verify, "verify", VerifyReport)
        older = dataclasses.replace(report, fingerprint="0" * 64)
        records.write(verify, "verify", older)
    found = read(tmp_path)
    assert (found.wheels, found.older) == ((), ())
    assert len(found.faults) == 1
    assert found.faults[0].startswith("3.12: ")


def test_only_metadata_that_names_a_python_may_differ(tmp_path: Path) -> None:
    one, two = pack(tmp_path / "a.whl", "3.11"), pack(tmp_path / "b.whl", "3.12")
    assert other_pythons.differences(one, two) == []
    with zipfile.ZipFile(two, "a") as archive:
        archive.writestr("llama_cpp/more.py", "")
    assert other_pythons.differences(one, two) == ["llama_cpp/more.py"]
    two.write_bytes(b"no zip")
    assert other_pythons.differences(one, two) != []


# ---- reports in a folder ------------------------------------------------------------------------


def report(folder: Path, name: str, **changes: object) -> Path:
    path = folder / name
    folder.mkdir(exist_ok=True)
    path.write_text(report_file.text({**fakes.smoke_report(), **changes}), encoding="utf-8")
    return path


def test_reports_are_found_by_their_wheel(tmp_path: Path) -> None:
    one = report(tmp_path, "b.json", sha256="1" * 64, target="ada")
    two = report(tmp_path, "a.json", sha256="2" * 64, target="cpu")
    operators, measured = tmp_path / "d.json", tmp_path / "c.json"
    for path, kind in ((operators, report_file.OPS), (measured, report_file.BENCH)):
        named = {"sha256": "1" * 64, "target": "ada"}
        path.write_text(report_file.text(named, kind), encoding="utf-8")
    found = remote_reports.read(tmp_path)
    assert [(r.path, r.session) for r in remote_reports.of(found, "1" * 64)] == [
        (one, "smoke"),
        (operators, "ops"),
        (measured, "bench"),
    ]
    assert [r.path for r in remote_reports.of(found, "2" * 64)] == [two]
    assert remote_reports.of(found, "3" * 64) == []
    assert remote_reports.unused(found, ["1" * 64]) == [
        f"a.json belongs to another wheel of cpu, sha256 {'2' * 12}…"
    ]


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with raises("reports-none"):
        remote_reports.read(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"kind": "x"}', "[" * 9999])
def test_a_file_that_is_not_a_report_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with raises("reports-not-a-report"):
        remote_reports.read(tmp_path)


def test_a_report_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = report(tmp_path, "a.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["report"]["sha256"] = "5" * 64
    path.write_text(json.dumps(content))
    with raises("reports-not-a-report") as caught:
        remote_reports.read(tmp_path)
    assert "digest" in caught.value.evidence
