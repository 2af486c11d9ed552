"""What a program is given to read; the program itself is played."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sessions.core.run import capture


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the programs of a test read, one entry each."""
    found: list[bytes] = []

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        found.append(given["stdin"].read())
        return subprocess.CompletedProcess(command, 0, "said")

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_a_program_reads_nothing_unless_it_is_given_a_file(read: list[bytes]) -> None:
    # Else one that asks a question would wait for somebody to answer.
    assert capture(["x"], env={}).output == "said"
    assert read == [b""]


def test_a_program_reads_the_file_it_is_given_to_the_byte(
    tmp_path: Path, read: list[bytes]
) -> None:
    (tmp_path / "report").write_bytes(b"one\r\ntwo\xff")
    capture(["x"], env={}, stdin=tmp_path / "report")
    assert read == [b"one\r\ntwo\xff"]


def test_a_file_that_is_not_there_is_a_failure_and_no_exception(
    tmp_path: Path, read: list[bytes]
) -> None:
    done = capture(["ssh-keygen"], env={}, stdin=tmp_path / "gone")
    assert done.returncode == 127
    assert "No such file" in done.output
    assert read == []
