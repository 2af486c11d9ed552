"""Finds the wheels for other Pythons that may be released with the tested wheel.

``matrix`` repacks a wheel under the tag of another Python. The smoke test of the first wheel is
valid for the second one if only metadata differs and ``verify`` has checked that metadata.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sessions.build import python_tag
from sessions.build.record_types import Wheel
from sessions.release.record_types import PythonWheel
from sessions.shared import knowledge, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.options import Options
from sessions.targets import choose_target
from sessions.verify import checks_digest
from sessions.verify.record_types import VerifyReport

# build/python_tag.py changes the tag, the target's name in the SBOM, and their lines in RECORD.
_METADATA = re.compile(r"[^/]+\.dist-info/(WHEEL|RECORD|sboms/[^/]+)")


@dataclass(frozen=True)
class Repacked:
    """The wheels for other Pythons that may be released, and the problems of the others."""

    wheels: tuple[PythonWheel, ...] = ()
    paths: tuple[Path, ...] = ()  # of these wheels
    faults: tuple[str, ...] = ()  # with any of these the target is not released
    older: tuple[str, ...] = ()  # names of wheels that belong to another build


def read(root: Path, targets: Mapping[str, BuildSpec], options: Options, of: Path) -> Repacked:
    """The wheels in ``wheels/`` that were repacked from the wheel ``of`` for other Pythons."""
    if not options.target or options.target not in targets:
        return Repacked()
    mine = choose_target.choose(dict(targets), options)
    found = []
    for python in knowledge.pythons():
        if python == mine.python or python_tag.serves(of.name, python):
            continue
        other = choose_target.choose(dict(targets), dataclasses.replace(options, python=python))
        if (root / "wheels" / other.target).is_dir():
            found.append(_one(root, other, of))
    return Repacked(
        tuple(wheel for each in found for wheel in each.wheels),
        tuple(path for each in found for path in each.paths),
        tuple(fault for each in found for fault in each.faults),
        tuple(name for each in found for name in each.older),
    )


def _one(root: Path, other: BuildSpec, of: Path) -> Repacked:
    """The wheel for one other Python."""
    folder = root / "wheels" / other.target
    record = records.read(folder / "wheel.json", "wheel", Wheel)
    path = folder / (record.file if record else "none")
    if record is None or not path.is_file() or records.file_sha256(path) != record.sha256:
        return Repacked(faults=(f"{other.python}: {folder.name} was changed after it was made",))
    if differs := differences(of, path):
        return Repacked(older=(f"{path.name} ({differs[0]})",))
    name = re.sub("[^A-Za-z0-9._+-]", "_", path.stem)[:100]  # the same as in Context.given
    checked = root / "build" / other.target / "given" / f"{name}-{record.sha256[:8]}"
    for report_path in (checked / "verify.json", root / "build" / other.target / "verify.json"):
        report = records.read(report_path, "verify", VerifyReport)
        if report and _passed(report, record, other):
            wheel = PythonWheel(other.python, path.name, record.sha256, record.size)
            return Repacked((wheel,), (path,))
    return Repacked(faults=(f"{other.python}: {path.name} was not checked by today's rules",))


def _passed(report: VerifyReport, record: Wheel, other: BuildSpec) -> bool:
    checks = [check for group in report.groups for check in group.checks]
    return (
        report.sha256 == record.sha256
        and report.fingerprint == checks_digest.fingerprint(other, record)
        and bool(checks)
        and all(check.status != "fail" for check in checks)
    )


def differences(one: Path, other: Path) -> list[str]:
    """The members in which two wheels differ, without the metadata that names a Python."""
    first, second = _members(one), _members(other)
    return sorted(n for n in {*first, *second} if first.get(n) != second.get(n))


def _members(wheel: Path) -> dict[str, str]:
    """The SHA-256 of each member. A file that is not a zip archive differs from every other."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return {
                name: hashlib.sha256(archive.read(name)).hexdigest()
                for name in archive.namelist()
                if not _METADATA.fullmatch(name)
            }
    except (OSError, ValueError, zipfile.BadZipFile):
        return {str(wheel): ""}


def names(wheels: Iterable[PythonWheel]) -> str:
    """The Python versions: "3.10, 3.12"."""
    return ", ".join(wheel.python for wheel in wheels)
