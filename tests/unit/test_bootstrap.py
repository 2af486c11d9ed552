"""From the caller's nox, or none, to the project's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.core import bootstrap, run
from sessions.core.run import capture
from tests import fakes


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


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-f", "there/noxfile.py", "-s", "verify"], True),
        (["--noxfile=there/noxfile.py"], True),
        (["-s", "verify"], False),  # nox found the noxfile where the user stands
        (["-s", "verify", "--", "-f", "x"], False),
    ],
)
def test_where_the_user_stands_is_known_after_nox_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], found: bool
) -> None:
    root, stands = tmp_path / "there", tmp_path / "here"
    root.mkdir()
    stands.mkdir()
    monkeypatch.chdir(root)
    here = bootstrap.invoked_from(root, words, str(stands))
    assert here == (stands if found else None)
    assert bootstrap.invoked_from(root, words, str(tmp_path / "gone")) is None
    assert bootstrap.invoked_from(root, words, "") is None
    monkeypatch.chdir(stands)  # python there/noxfile.py: nobody has gone anywhere
    assert bootstrap.invoked_from(root, words, str(tmp_path)) is None


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


@pytest.mark.parametrize(("length", "fits"), [(103, True), (104, False)])
def test_on_windows_a_folder_that_is_too_deep_is_told_of_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, fits: bool
) -> None:
    # The same limit as the probe's: test_windows_machines.py.
    said = bootstrap.too_deep("C:\\" + "r" * (length - 3))
    assert (said is None) is fits
    deep = tmp_path / ("d" * 100)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match="is the greatest length") as error:
        bootstrap.enter(deep)
    assert r"C:\bw" in str(error.value)
    assert not deep.exists()


def test_the_bootstrap_needs_nothing_but_the_standard_library() -> None:
    # In a Python of its own, which has no packages.
    code = "import sys; sys.path.insert(0, sys.argv[1]); import sessions.core.bootstrap"
    words = [sys.executable, "-I", "-S", "-c", code, str(Path(bootstrap.__file__).parents[2])]
    done = capture(words, env=os.environ)
    assert done.returncode == 0, done.output


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
    assert started == [[str(venv / "bin/python"), str(tmp_path / "noxfile.py"), "-s", "wheel"]]
    monkeypatch.setattr(sys, "prefix", str(venv))
    bootstrap.enter(tmp_path)
    assert len(started) == len(made) == 1


def test_what_killed_first_runs_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    killed, living, venv = (
        tmp_path / name
        for name in ("blackwheel-0123.aaaa", "blackwheel-0123.bbbb", "blackwheel-0123")
    )
    for folder in (killed, living, venv):
        (folder / "bin").mkdir(parents=True)
    code = "import sys; from pathlib import Path; from sessions.core import bootstrap as b; "
    code += "b._hold(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(living)],
        cwd=fakes.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"ready"
        bootstrap._sweep(tmp_path)
        assert sorted(tmp_path.iterdir()) == [venv, living]
        other.communicate()
    bootstrap._sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [venv]
