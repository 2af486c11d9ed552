"""From the caller's nox, or none, to the project's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sessions.core import bootstrap, run


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["-s", "wheel"], ["-s", "wheel"]),
        (["-f", "there/noxfile.py", "-s", "wheel"], ["-s", "wheel"]),
        (["--noxfile", "there/noxfile.py"], []),
        (["--noxfile=there/noxfile.py", "-l"], ["-l"]),
        (["-s", "wheel", "--", "-f", "x"], ["-s", "wheel", "--", "-f", "x"]),
        (["-f"], []),
    ],
)
def test_the_noxfile_is_named_once(given: list[str], kept: list[str]) -> None:
    assert bootstrap.arguments(given) == kept


def test_every_requirement_of_the_sessions_is_hashed() -> None:
    text = bootstrap.LOCK.read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z][\w.-]*==", text, re.MULTILINE)
    assert len(pins) >= 7
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= len(pins)


def test_a_python_without_venv_is_told_what_to_install_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: list[str], **_: object) -> run.Finished:
        return run.Finished(tuple(command), 1, "No module named ensurepip", 0.1)

    monkeypatch.setattr(run, "capture", fails)
    with pytest.raises(SystemExit) as error:
        bootstrap.enter(tmp_path)
    assert "No module named ensurepip" in str(error.value)
    assert f"apt install python3.{sys.version_info.minor}-venv" in str(error.value)
    assert list((tmp_path / ".nox").iterdir()) == []


def test_the_projects_own_venv_goes_straight_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(command: list[str], **_: object) -> run.Finished:
        python = Path(command[-1]) / "bin" / "python"
        if command[1:3] == ["-m", "venv"]:
            python.parent.mkdir(parents=True)
            python.touch()
            made.append(Path(command[-1]))
        return run.Finished(tuple(command), 0, "", 0.1)

    started: list[list[str]] = []
    monkeypatch.setattr(run, "capture", make)
    monkeypatch.setattr(sys, "platform", "linux")  # Windows has no exec, and goes another way
    monkeypatch.setattr("sessions.core.bootstrap.os.execv", lambda _, words: started.append(words))
    monkeypatch.setattr(sys, "argv", ["nox", "-s", "wheel"])
    monkeypatch.setenv("NOX_SCRIPT_MODE", "")
    bootstrap.enter(tmp_path)
    (venv,) = (tmp_path / ".nox").iterdir()
    assert started == [
        [str(venv / "bin/python"), "-m", "nox", "-f", str(tmp_path / "noxfile.py"), "-s", "wheel"]
    ]
    monkeypatch.setattr(sys, "prefix", str(venv))
    bootstrap.enter(tmp_path)
    assert len(started) == len(made) == 1
