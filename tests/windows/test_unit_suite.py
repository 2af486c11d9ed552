"""The unit tests in the Windows Python, by the session that a user on Windows types."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.windows import checkout
from tests.windows.lab import Lab

# Why a unit test may be skipped on Windows: the beginnings of the reasons they give. A few are.
SKIPPED = {
    "an ELF file",
    "file descriptors are POSIX",
    "limits are POSIX",
    "locks of folders are POSIX",
    "no /dev/zero here",
    "no such limit or signal on Windows",
    "no symbolic links here",
    "other systems refuse such a name",
    "process groups are POSIX",
    "programs are shell scripts",
    "stand-ins for a toolkit of Linux",
    "the script is the same there",
    "Windows has no fifo",
    "Windows has no files of such a name",
}
FEW = 70


@pytest.fixture(scope="module")
def cases(lab: Lab, project: Path) -> list[ET.Element]:
    """What became of each test."""
    folder = lab.drive / "unit"
    shutil.rmtree(folder, ignore_errors=True)  # from here: in the lab it takes minutes
    folder.mkdir()
    results = folder / "results.xml"
    # One process: what is slow under Wine is its server, which workers would share.
    words = (
        "-n",
        "0",
        "--basetemp",
        lab.windows(folder / "tmp"),
        "--junitxml",
        lab.windows(results),
    )
    options = (*words, "--quiet", "--tb=short", "-p", "no:cacheprovider")
    checkout.nox(lab, project, "-s", "tests", "--", *options).well()
    return list(ET.parse(results).getroot().iter("testcase"))


def test_every_test_that_there_is_was_run(project: Path, cases: list[ET.Element]) -> None:
    words = [sys.executable, "-m", "pytest", "tests/unit", "--collect-only", "-qq"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True)
    there = [line.rpartition(": ") for line in done.stdout.splitlines() if ".py: " in line]
    assert len(cases) == sum(int(count) for _, _, count in there) > 2000


def test_none_failed_and_what_was_skipped_says_why(cases: list[ET.Element]) -> None:
    kinds = [{child.tag for child in case} - {"system-out", "system-err"} for case in cases]
    assert {kind for found in kinds for kind in found} <= {"skipped"}
    reasons = [str(found.get("message")) for case in cases for found in case.iter("skipped")]
    named = [next((n for n in SKIPPED if reason.startswith(n)), reason) for reason in reasons]
    assert set(named) <= SKIPPED
    assert len(named) <= FEW
