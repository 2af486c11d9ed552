"""What a program is given to read, where it is played; how it ends; how a command is told."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sessions.core.run import capture, inherit, typed

POPEN = subprocess.Popen


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


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be pytest's capture: Wine hands on the numbers of its handles alone."""
    names = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    given: Any = functools.partial(subprocess.Popen, **names)
    monkeypatch.setattr("sessions.core.run.subprocess.Popen", given)


@pytest.mark.usefixtures("terminal")
def test_a_program_with_this_terminal_gets_the_environment_it_is_given() -> None:
    code = "import os, sys; sys.exit(int(os.environ['CODE']))"
    assert inherit([sys.executable, "-c", code], env={**os.environ, "CODE": "7"}) == 7


@pytest.mark.usefixtures("terminal")
def test_a_program_with_this_terminal_is_ended_with_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gets the time to end what it started."""
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    pathlib.Path(sys.argv[1]).write_text('ended')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1]).write_text('ready')\n"
        "time.sleep(60)\n"
    )
    told = tmp_path / "told"
    real = POPEN.wait
    waits: list[float | None] = []

    def wait(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        waits.append(timeout)
        if len(waits) == 1:
            while not told.exists():  # till then it could not be told to end
                assert self.poll() is None
                time.sleep(0.05)
            raise KeyboardInterrupt
        return real(self, timeout)

    monkeypatch.setattr(POPEN, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        inherit([sys.executable, "-c", code, str(told)])
    assert waits == [None, 20]
    if sys.platform != "win32":  # which ends a program without a word
        assert told.read_text() == "ended"


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", r"nox '--wheel=C:\a b\x.whl'"), ("win32", r'nox "--wheel=C:\a b\x.whl"')],
)
def test_a_command_to_type_is_quoted_as_the_systems_own_shell_reads_it(
    platform: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert typed(["nox", r"--wheel=C:\a b\x.whl"]) == expected
    assert typed(["nox", "--target=cpu"]) == "nox --target=cpu"


@pytest.mark.parametrize("word", ["--arch=120-real;90-real", "--targets=ada,cpu", "a b", "x&y", ""])
def test_what_powershell_or_cmd_would_split_is_in_quotes(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert typed(["nox", word]) == f'nox "{word}"'
