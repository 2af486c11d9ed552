"""What the tests in a Windows Python have: the lab, the checkout in it, and a real wheel."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions.build.record_types import BuildEnv, Wheel
from sessions.shared import records
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from tests.integration.wheels import Draft
from tests.windows import checkout, crossbuild
from tests.windows.lab import Lab, Ran, opened


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    try:
        with opened() as lab:
            yield lab
    except Problem as problem:
        pytest.exit(str(problem), returncode=1)


@pytest.fixture(scope="session")
def project(lab: Lab) -> Path:
    """The checkout on drive C."""
    return checkout.copy(lab)


@pytest.fixture
def folder(lab: Lab) -> Iterator[Path]:
    """An empty folder on drive C, of this test only."""
    path = lab.drive / "test"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def built(lab: Lab) -> Context:
    """Where the wheel is, and the records of its build."""
    return crossbuild.build(lab)


@pytest.fixture(scope="session")
def record(built: Context) -> Wheel:
    return records.need(built.record("wheel"), "wheel", Wheel)


@pytest.fixture(scope="session")
def wheel(built: Context, record: Wheel) -> Path:
    return built.wheels / record.file


@pytest.fixture(scope="session")
def sound(wheel: Path) -> Draft:
    """The wheel, taken apart."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/RECORD")]
        return Draft({name: archive.read(name) for name in names}, wheel.name)


@pytest.fixture(scope="session")
def proven(lab: Lab, project: Path, built: Context, record: Wheel) -> Ran:
    """The chain of sessions in the Windows Python, the wheel taken for what it built there."""
    checkout.nox(lab, project, "-s", "configure", "--", "--target", "cpu").well()
    settings = checkout.record(project, "cpu", "configure", BuildEnv)
    ours = dataclasses.replace(record, fingerprint=settings.fingerprint)
    folder = project / "wheels" / "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(built.wheels / record.file, folder)
    for path in (folder / "wheel.json", project / "build" / "cpu" / "wheel.json"):
        records.write(path, "wheel", ours)
    return checkout.nox(lab, project, "-s", "smoke", "bundle", "--", "--target", "cpu").well()


@pytest.fixture(scope="session")
def smoked(project: Path, proven: Ran) -> Path:
    """The folder of the smoke run: venv, job, report."""
    return project / "build" / "cpu" / "smoke"
