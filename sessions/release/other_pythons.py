"""The same wheel for other Pythons: which of them may be released with the one that was tested.

``matrix`` repacks a wheel under the tag of another Python. A smoke test of the one counts for the
other where every byte of what runs is the same; what differs is metadata, which ``verify`` checked.
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
from sessions.build.model import Wheel
from sessions.release.model import PythonWheel
from sessions.shared import knowledge, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.options import Options
from sessions.targets import spec
from sessions.verify import checks_digest
from sessions.verify.report_model import VerifyReport

# What build/python_tag.py changes: the tag, the target's name in the SBOM, and their lines of
# RECORD.
_METADATA = re.compile(r"[^/]+\.dist-info/(WHEEL|RECORD|sboms/[^/]+)")


@dataclass(frozen=True)
class Repacked:
    """What there is for other Pythons: wheels that may be released, what is wrong with others."""

    wheels: tuple[PythonWheel, ...] = ()
    paths: tuple[Path, ...] = ()  # of these wheels
    faults: tuple[str, ...] = ()  # each keeps the target from being released
    older: tuple[str, ...] = ()  # file names of wheels that were made of another build


def read(root: Path, targets: Mapping[str, BuildSpec], options: Options, of: Path) -> Repacked:
    """The wheels in ``wheels/`` that are the wheel ``of`` for other Pythons."""
    if not options.target or options.target not in targets:
        return Repacked()
    found = Repacked()
    mine = spec.choose(dict(targets), options)
    for python in knowledge.pythons():
        if python == mine.python or python_tag.serves(of.name, python):
            continue
        other = spec.choose(dict(targets), dataclasses.replace(options, python=python))
        if (root / "wheels" / other.target).is_dir():
            found = _joined(found, _one(root, other, of))
    return found


def _joined(one: Repacked, two: Repacked) -> Repacked:
    return Repacked(
        one.wheels + two.wheels,
        one.paths + two.paths,
        one.faults + two.faults,
        one.older + two.older,
    )


def _one(root: Path, other: BuildSpec, of: Path) -> Repacked:
    """The wheel of one other Python."""
    folder = root / "wheels" / other.target
    record = records.read(folder / "wheel.json", "wheel", Wheel)
    path = folder / (record.file if record else "none")
    if record is None or not path.is_file() or records.file_sha256(path) != record.sha256:
        return Repacked(faults=(f"{other.python}: {folder.name} was changed after it was made",))
    if differs := differences(of, path):
        return Repacked(older=(f"{path.name} ({differs[0]})",))
    name = re.sub("[^A-Za-z0-9._+-]", "_", path.stem)[:100]  # as Context.given has it
    checked = root / "build" / other.target / "given" / f"{name}-{record.sha256[:8]}"
    for report_path in (checked / "verify.json", root / "build" / other.target / "verify.json"):
        report = records.read(report_path, "verify", VerifyReport)
        if report and _holds(report, record, other):
            wheel = PythonWheel(other.python, path.name, record.sha256, record.size)
            return Repacked((wheel,), (path,))
    return Repacked(faults=(f"{other.python}: {path.name} was not checked by today's rules",))


def _holds(report: VerifyReport, record: Wheel, other: BuildSpec) -> bool:
    checks = [check for group in report.groups for check in group.checks]
    return (
        report.sha256 == record.sha256
        and report.fingerprint == checks_digest.fingerprint(other, record)
        and bool(checks)
        and all(check.status != "fail" for check in checks)
    )


def differences(one: Path, other: Path) -> list[str]:
    """The members in which two wheels differ, but for the metadata that names a Python."""
    first, second = _members(one), _members(other)
    return sorted(n for n in {*first, *second} if first.get(n) != second.get(n))


def _members(wheel: Path) -> dict[str, str]:
    """Each member's SHA-256. Raises no error for a file that is no zip: it has no members."""
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
    """The Pythons, as a list in words."""
    return ", ".join(wheel.python for wheel in wheels)
