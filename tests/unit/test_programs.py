"""What a program is given to read, where it is played; how it ends; how a command is told."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from sessions.shared.programs import Finished, capture, inherit, stream, typed

POPEN = subprocess.Popen


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-c", code, *words]


ECHO = "import sys; sys.stdout.buffer.write(repr(sys.stdin.buffer.read()).encode())"


def test_a_program_reads_nothing_unless_it_is_given_a_file() -> None:
    # Else one that asks a question would wait for somebody to answer.
    assert capture(python(ECHO), env=os.environ).stdout == "b''"


def test_a_program_reads_the_file_it_is_given_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(b"one\r\ntwo\xff")
    done = capture(python(ECHO), env=os.environ, stdin=tmp_path / "report")
    assert done.stdout == repr(b"one\r\ntwo\xff")


def test_a_file_that_is_not_there_is_a_failure_and_no_exception(tmp_path: Path) -> None:
    done = capture(["ssh-keygen"], env={}, stdin=tmp_path / "gone")
    assert done.returncode == 127
    assert "No such file" in done.stderr


def test_a_warning_is_not_part_of_an_answer_but_of_the_evidence() -> None:
    code = "import sys; print('warning', file=sys.stderr); print('answer')"
    done = capture(python(code), env=os.environ)
    assert (done.stdout, done.stderr) == ("answer\n", "warning\n")
    assert done.output == "answer\nwarning\n"
    assert Finished((), 0, "answer", 0.0, "warning").output == "answer\nwarning"


def test_output_of_any_size_and_of_any_bytes_is_read() -> None:
    code = "import sys; [s.buffer.write(b'a\\xff\\r\\n' * 99999) for s in (sys.stderr, sys.stdout)]"
    done = capture(python(code), env=os.environ)
    assert done.stdout == done.stderr == "a\ufffd\n" * 99999


# Starts a child that holds both pipes open, says its number, and ends or waits.
SERVER = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(60)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(float(sys.argv[1]))\n"
)


def ended(pid: int) -> bool:
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 5)
    return not alive


def test_after_the_time_limit_nothing_is_left_and_nothing_waited_for() -> None:
    start = time.monotonic()
    done = capture(python(SERVER, "60"), env=os.environ, timeout=2)
    assert done.returncode == 124
    assert time.monotonic() - start < 20
    assert ended(int(done.stdout))


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_server_that_a_program_leaves_behind_is_not_waited_for(timeout: float | None) -> None:
    start = time.monotonic()
    done = capture(python(SERVER, "0"), env=os.environ, timeout=timeout)
    assert done.returncode == 0
    assert time.monotonic() - start < 20
    psutil.Process(int(done.stdout)).kill()  # it runs: it was left running


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_a_group_that_has_ended_already_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ctrl-C between the end of the program and the reading of its last line.
    def gone(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "killpg", gone)

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(python("print(1)"), env=os.environ, log=io.StringIO(), on_line=interrupted)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be pytest's capture: Wine hands on the numbers of its handles only."""
    names = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    given: Any = functools.partial(subprocess.Popen, **names)
    monkeypatch.setattr("sessions.shared.programs.subprocess.Popen", given)


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
