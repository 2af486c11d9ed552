"""Programs: input, output, time limits, what is left after their end, and quoting."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from sessions.shared.programs import Finished, capture, inherit, stream, typed

POPEN = subprocess.Popen


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-c", code, *words]


ECHO = "import sys; sys.stdout.buffer.write(repr(sys.stdin.buffer.read()).encode())"


def test_a_program_reads_the_given_file_or_nothing(tmp_path: Path) -> None:
    assert capture(python(ECHO), env=os.environ).stdout == "b''"
    (tmp_path / "report").write_bytes(b"one\r\ntwo\xff")
    done = capture(python(ECHO), env=os.environ, stdin=tmp_path / "report")
    assert done.stdout == repr(b"one\r\ntwo\xff")


def test_a_missing_input_file_is_a_failure_and_not_an_exception(tmp_path: Path) -> None:
    done = capture(["ssh-keygen"], env={}, stdin=tmp_path / "gone")
    assert done.returncode == 127
    assert "No such file" in done.stderr


def test_stdout_and_stderr_are_separate_and_output_has_both() -> None:
    code = "import sys; print('warning', file=sys.stderr); print('answer')"
    done = capture(python(code), env=os.environ)
    assert (done.stdout, done.stderr) == ("answer\n", "warning\n")
    assert done.output == "answer\nwarning\n"
    assert Finished((), 0, "answer", 0.0, "warning").output == "answer\nwarning"


def test_output_of_any_size_and_encoding_is_read() -> None:
    code = "import sys; [s.buffer.write(b'a\\xff\\r\\n' * 99999) for s in (sys.stderr, sys.stdout)]"
    done = capture(python(code), env=os.environ)
    assert done.stdout == done.stderr == "a\ufffd\n" * 99999


# Starts a child that keeps both pipes open, prints its id, and ends or waits.
SERVER = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(60)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(float(sys.argv[1]))\n"
)


def has_ended(pid: int) -> bool:
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 5)
    return not alive


@pytest.mark.parametrize(("wait", "timeout", "code"), [(60, 2, 124), (0, None, 0), (0, 30, 0)])
def test_a_child_of_a_program_is_killed_after_the_time_limit_and_else_not_waited_for(
    wait: int, timeout: float | None, code: int
) -> None:
    start = time.monotonic()
    done = capture(python(SERVER, str(wait)), env=os.environ, timeout=timeout)
    assert done.returncode == code
    assert time.monotonic() - start < 20
    if not code:
        psutil.Process(int(done.stdout)).kill()  # it is still running
    assert has_ended(int(done.stdout))


# Starts a child that ignores SIGTERM and prints its id.
STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print(os.getpid(), flush=True); time.sleep(60)"
)
STARTS_STUBBORN = (
    "import subprocess, sys, time\n"
    f"subprocess.Popen([sys.executable, '-I', '-c', {STUBBORN!r}])\n"
    "time.sleep(60)\n"
)


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
@pytest.mark.parametrize("group", ["running", "ended"])
def test_an_interrupt_ends_a_program_and_its_children(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if group == "ended":  # Ctrl-C after the end of the program, before its last line is read
        monkeypatch.setattr(os, "killpg", Mock(side_effect=ProcessLookupError))
    interrupted, log = Mock(side_effect=KeyboardInterrupt), io.StringIO()
    code = STARTS_STUBBORN if group == "running" else "print(1)"
    with pytest.raises(KeyboardInterrupt):
        stream(python(code), env=os.environ, log=log, on_line=interrupted)
    assert group == "ended" or has_ended(int(log.getvalue()))


# Like a build: the program ends at once; what it started, as ninja, ends a compiler that is in
# another process group, and then deletes the unfinished file.
COMPILER = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
NINJA = (
    "import pathlib, signal, subprocess, sys, time\n"
    f"compiler = subprocess.Popen([sys.executable, '-c', {COMPILER!r}], start_new_session=True)\n"
    "def end(*_):\n"
    "    time.sleep(0.3)\n"
    "    compiler.terminate()\n"
    "    compiler.wait()\n"
    "    pathlib.Path(sys.argv[1]).unlink()\n"
    "    sys.exit(1)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "signal.pause()\n"
)
BUILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {NINJA!r}, sys.argv[1]])"


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_an_interrupted_build_has_time_to_end_its_compilers_and_delete_unfinished_files(
    tmp_path: Path,
) -> None:
    unfinished, log = tmp_path / "a.o", io.StringIO()
    unfinished.touch()
    interrupted = Mock(side_effect=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        stream(python(BUILD, str(unfinished)), env=os.environ, log=log, on_line=interrupted)
    assert has_ended(int(log.getvalue()))
    assert not unfinished.exists()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace pytest's captured streams, which Wine cannot pass to a child process."""
    names = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    given: Any = functools.partial(subprocess.Popen, **names)
    monkeypatch.setattr("sessions.shared.programs.subprocess.Popen", given)


@pytest.mark.usefixtures("terminal")
def test_a_program_with_this_terminal_gets_the_given_environment() -> None:
    code = "import os, sys; sys.exit(int(os.environ['CODE']))"
    assert inherit([sys.executable, "-c", code], env={**os.environ, "CODE": "7"}) == 7


@pytest.mark.usefixtures("terminal")
def test_an_interrupt_ends_a_program_with_this_terminal_and_gives_it_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    pathlib.Path(sys.argv[1]).write_text('ended')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1]).write_text('ready')\n"
        "time.sleep(60)\n"
    )
    state = tmp_path / "state"
    real = POPEN.wait
    waits: list[float | None] = []

    def wait(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        waits.append(timeout)
        if len(waits) == 1:
            while not state.exists():  # it cannot handle the signal yet
                assert self.poll() is None
                time.sleep(0.05)
            raise KeyboardInterrupt
        return real(self, timeout)

    monkeypatch.setattr(POPEN, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        inherit([sys.executable, "-c", code, str(state)])
    assert waits == [None, 20]
    if sys.platform != "win32":  # which kills a program without a signal
        assert state.read_text() == "ended"


def test_a_command_to_type_is_quoted_for_the_shell_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for platform, quote in (("linux", "'"), ("win32", '"')):
        monkeypatch.setattr(sys, "platform", platform)
        word = r"--wheel=C:\a b\x.whl"
        assert typed(["nox", word]) == f"nox {quote}{word}{quote}"
        assert typed(["nox", "--target=cpu"]) == "nox --target=cpu"


@pytest.mark.parametrize("word", ["--arch=120-real;90-real", "--targets=ada,cpu", "a b", "x&y", ""])
def test_words_that_powershell_or_cmd_would_split_are_quoted(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert typed(["nox", word]) == f'nox "{word}"'
