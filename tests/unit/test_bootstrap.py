"""The bootstrap: the project's own venv, its environment, and the limits of the process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.shared import bootstrap, programs
from sessions.shared.errors import ENVIRONMENT
from sessions.shared.programs import capture
from tests import fakes


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("-s wheel", "-s wheel"),
        ("-f there/noxfile.py -s wheel", "-s wheel"),
        ("--noxfile there/noxfile.py", ""),
        ("--noxfile=there/noxfile.py -l", "-l"),
        ("-s wheel -- -f x", "-s wheel -- -f x"),
        ("-f", ""),
    ],
)
def test_the_option_f_is_removed_and_gives_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, kept: str
) -> None:
    words = line.split()
    assert bootstrap.arguments(words) == kept.split()
    root, user = tmp_path / "there", tmp_path / "here"
    root.mkdir()
    user.mkdir()
    monkeypatch.chdir(root)  # by nox
    # Without -f, nox has found the noxfile in the folder of the user.
    assert bootstrap.invoked_from(root, words, str(user)) == (None if line == kept else user)
    assert bootstrap.invoked_from(root, words, str(tmp_path / "gone")) is None
    assert bootstrap.invoked_from(root, words, "") is None
    monkeypatch.chdir(user)  # python there/noxfile.py does not change the folder
    assert bootstrap.invoked_from(root, words, str(tmp_path)) is None


def _program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return str(path)


@pytest.mark.parametrize(
    ("line", "words", "called"),
    [
        ("python3 noxfile.py -s wheel", 3, "python3 noxfile.py"),
        ("python3 -X dev ../noxfile.py -l", 2, "python3 -X dev ../noxfile.py"),
        ("PATH/python3.12 noxfile.py", 1, "python3.12 noxfile.py"),
        ("PATH/nox -s wheel -- -f x", 6, "nox"),
        ("OTHER/nox -s wheel", 3, "OTHER/nox"),
        ("OTHER/python3.12 noxfile.py -- a", 3, "OTHER/python3.12 noxfile.py"),
        ("PYENV/python3.13 noxfile.py", 1, "python3.13 noxfile.py"),  # started by a shim
        ("python3 -m nox -f a/noxfile.py -s wheel", 5, "python3 -m nox -f a/noxfile.py"),
    ],
)
def test_the_words_that_the_user_typed_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: int, called: str
) -> None:
    _program(tmp_path / "shims" / "python3.13")
    places = {"PATH": tmp_path / "bin", "OTHER": tmp_path / "other", "PYENV": tmp_path / "3.13"}
    for place in places.values():
        for name in ("nox", "python3.12", "python3.13"):
            _program(place / name)
    (tmp_path / "bin" / "python3.13").unlink()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{tmp_path / 'shims'}")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    for name, place in places.items():
        line, called = line.replace(name, str(place)), called.replace(name, str(place))
    full = line.split()
    argv = full[-words:]
    if "-m" in full:
        argv[0] = "/lib/nox/__main__.py"
    elif argv[0].endswith("/nox"):
        full = ["/usr/bin/python3", *full]
    assert bootstrap.called(full, argv) == called


def test_the_python_of_a_venv_keeps_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/a/venv")
    line = ["/a/venv/bin/python", "noxfile.py", "-l"]
    assert bootstrap.called(line, line[1:]) == "/a/venv/bin/python noxfile.py"


def test_every_requirement_of_the_sessions_is_hashed() -> None:
    text = bootstrap.LOCK.read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z][\w.-]*==", text, re.MULTILINE)
    assert len(pins) >= 7
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= len(pins)


def test_a_python_without_venv_is_an_error_that_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(command: list[str], **_: object) -> programs.Finished:
        return programs.Finished(tuple(command), 1, "No module named ensurepip", 0.1)

    monkeypatch.setattr(programs, "capture", fails)
    with pytest.raises(SystemExit) as error:
        bootstrap.enter(tmp_path)
    assert error.value.code == ENVIRONMENT
    message = capsys.readouterr().err
    assert "No module named ensurepip" in message
    assert f"apt install python3.{sys.version_info.minor}-venv" in message
    assert list((tmp_path / ".nox").iterdir()) == []


@pytest.mark.parametrize(("length", "fits"), [(103, True), (104, False)])
def test_on_windows_a_too_long_path_is_an_error_before_a_folder_is_created(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    length: int,
    fits: bool,
) -> None:
    # The probe has the same limit: test_windows_machines.py.
    assert (bootstrap.too_deep("C:\\" + "r" * (length - 3)) is None) is fits
    deep = tmp_path / ("d" * 100)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as error:
        bootstrap.enter(deep)
    assert error.value.code == ENVIRONMENT
    assert r"C:\bw" in capsys.readouterr().err
    assert not deep.exists()


def bare(code: str, *words: str) -> str:
    """Run code in a Python without packages that can import the sessions; its stdout."""
    start = "import sys; sys.path.append(sys.argv.pop(1))\n"
    python = [sys.executable, "-I", "-S", "-c", start + code, str(fakes.ROOT)]
    done = capture([*python, *words], env=os.environ)
    assert done.returncode == 0, done.output
    return done.stdout.strip()


def test_the_bootstrap_needs_only_the_standard_library() -> None:
    bare("import sessions.shared.bootstrap")


SITE = f"lib/python3.{sys.version_info[1]}/site-packages"  # ``tools`` simulates Linux


def fill(venv: Path) -> None:
    """Write what pip installs: nox, and the list of its files."""
    info = venv / SITE / "nox-2026.1.dist-info"
    info.mkdir(parents=True)
    (venv / SITE / "nox.py").write_text("nox")
    (info / "RECORD").write_text("nox.py,sha256=x,3\nnox-2026.1.dist-info/RECORD,,\n")


class Tools:
    """Replaces Python and pip; records each command line with its environment."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.started: list[tuple[list[str], dict[str, str]]] = []  # by execve
        self.listed = ""
        self.installs = True

    def __call__(self, command: list[str], env: dict[str, str], **_: object) -> programs.Finished:
        self.calls.append((command, env))
        words = command[1:]
        if words[:3] == ["-I", "-m", "venv"]:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        if "install" in words and self.installs:
            fill(Path(command[0]).parents[1])
        return programs.Finished(tuple(command), 0, self.listed if "list" in words else "", 0.1)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Tools:
    found = Tools()
    monkeypatch.setattr(programs, "capture", found)
    if sys.platform == "win32":  # Windows has no limits and no locks of folders
        monkeypatch.setattr(bootstrap, "low_limit", lambda: None)
        monkeypatch.setattr(bootstrap, "_hold", lambda _: None)
    monkeypatch.setattr(sys, "platform", "linux")  # Windows has no exec
    monkeypatch.setattr(sys, "argv", ["nox", "-s", "wheel"])
    monkeypatch.setattr(os, "execve", lambda _, words, env: found.started.append((words, env)))
    return found


@pytest.fixture
def venv(tools: Tools, tmp_path: Path) -> Path:
    """The venv after a first run."""
    bootstrap.enter(tmp_path)
    (folder,) = (tmp_path / ".nox").iterdir()
    return folder


def test_a_process_in_the_projects_venv_continues(
    tmp_path: Path, tools: Tools, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noxfile = str(tmp_path / "noxfile.py")
    assert tools.started[0][0] == [str(venv / "bin/python"), "-P", "-s", noxfile, "-s", "wheel"]
    assert tools.started[0][1][bootstrap.COMMAND] == bootstrap.called(sys.orig_argv, sys.argv)
    monkeypatch.setattr(os, "environ", tools.started[0][1])
    monkeypatch.setattr(bootstrap, "isolated", lambda env: env == os.environ)
    monkeypatch.setattr(sys, "prefix", str(venv))
    bootstrap.enter(tmp_path)
    assert len(tools.started) == 1
    assert len(tools.calls) == 3


FOREIGN = {
    "PYTHONPATH": "/broken",
    "PYTHONHOME": "/usr",
    "PYTHONUSERBASE": "/broken",
    "PYTHONSTARTUP": "/broken",
    "PYTHONWARNINGS": "error",
    "NOXSESSION": "lock",
    "NOX_DEFAULT_VENV_BACKEND": "uv",
}


def test_variables_of_python_and_nox_do_not_reach_the_projects_nox(
    tmp_path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**FOREIGN, "PYTHONUTF8": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    bootstrap.enter(tmp_path)
    for env in (tools.started[0][1], *(env for _, env in tools.calls)):
        assert FOREIGN.keys() & env.keys() == set()
        assert env["NO_COLOR"] == env["PYTHONUTF8"] == "1"


def test_a_process_in_the_venv_that_is_not_isolated_starts_again(
    tmp_path: Path, tools: Tools, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(venv))
    monkeypatch.setenv("PYTHONPATH", "/broken")
    bootstrap.enter(tmp_path)
    assert len(tools.started) == 2
    assert len(tools.calls) == 3  # nothing is installed again


@pytest.mark.parametrize("hurt", ["python", "RECORD", "nox.py", "cut", "installed.txt", "empty"])
def test_a_damaged_venv_is_created_again(
    tmp_path: Path, tools: Tools, venv: Path, hurt: str
) -> None:
    assert bootstrap.damage(venv) == ""
    if hurt == "cut":
        (venv / SITE / "nox.py").write_text("n")
    elif hurt == "empty":
        (venv / "installed.txt").write_text("")
    else:
        next(venv.rglob(hurt)).unlink()
    assert bootstrap.damage(venv)
    bootstrap.enter(tmp_path)
    assert len(tools.calls) == 6
    assert list((tmp_path / ".nox").iterdir()) == [venv]
    assert bootstrap.damage(venv) == ""
    assert not (venv / "before").exists()
    assert len(tools.started) == 2


def test_pip_that_installs_elsewhere_is_an_error_and_leaves_nothing(
    tmp_path: Path, tools: Tools
) -> None:
    tools.installs = False
    with pytest.raises(SystemExit) as error:
        bootstrap.enter(tmp_path)
    assert error.value.code == ENVIRONMENT
    assert tools.started == []
    assert list((tmp_path / ".nox").iterdir()) == []


def test_pip_gets_only_the_settings_of_package_indexes(
    tmp_path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_USER", "1")
    tools.listed = "global.index-url='https://a/simple'\ninstall.target='/elsewhere'\n"
    bootstrap.enter(tmp_path)
    ((words, env),) = [call for call in tools.calls if "install" in call[0]]
    assert words[1] == "-I"
    assert env["PIP_INDEX_URL"] == "https://a/simple"
    assert env["PIP_CONFIG_FILE"] == os.devnull
    assert {"PIP_USER", "PIP_TARGET"} & env.keys() == set()
    assert tools.started


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


@POSIX
def test_a_closed_stream_is_opened_for_child_processes_too() -> None:
    bare(
        "import os; os.close(1)\n"
        "from sessions.shared import bootstrap\n"
        "bootstrap._open_streams()\n"
        "assert os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev and os.get_inheritable(1)\n"
    )


@POSIX
@pytest.mark.parametrize("name", ["nox", "rich", "hashlib", "importlib", "tempfile", "psutil"])
def test_a_file_next_to_the_noxfile_does_not_hide_a_module(tmp_path: Path, name: str) -> None:
    shutil.copy(fakes.ROOT / "noxfile.py", tmp_path)
    (tmp_path / f"{name}.py").write_text("raise SystemExit('executed')")
    core = tmp_path / "sessions" / "shared"
    core.mkdir(parents=True)
    (tmp_path / "sessions" / "__init__.py").touch()
    (core / "__init__.py").touch()
    (core / "bootstrap.py").write_text(
        f"def enter(root):\n    import {name}, sys\n    print({name}.__file__)\n    sys.exit()\n"
    )
    words = [sys.executable, str(tmp_path / "noxfile.py")]
    done = capture(words, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, cwd=tmp_path)
    assert "executed" not in done.output
    assert str(tmp_path) not in done.stdout


LIMITS = {"n": "RLIMIT_NOFILE", "s": "RLIMIT_STACK", "f": "RLIMIT_FSIZE", "v": "RLIMIT_AS"}
ASK = (
    "import resource as r; k = getattr(r, sys.argv[1])\n"
    "r.setrlimit(k, (int(sys.argv[2]), int(sys.argv[3])))\n"
    "from sessions.shared import bootstrap\n"
    "print(bootstrap.low_limit(), r.getrlimit(k)[0])\n"
)


@POSIX
@pytest.mark.parametrize(
    ("option", "hard"), [("n", 40), ("s", 900_000), ("f", 10**6), ("v", 10**9)]
)
def test_the_message_names_a_limit_that_is_too_low(option: str, hard: int) -> None:
    message = bare(ASK, LIMITS[option], str(hard), str(hard))
    assert f"too low here: {hard}" in message
    assert f"ulimit -{option}" in message


@POSIX
@pytest.mark.parametrize(
    ("option", "soft", "hard", "then"),
    [
        ("n", 40, 900, 900),
        ("n", 40, 5000, 1024),
        ("n", 3000, 5000, 3000),
        ("s", 1 << 19, 1 << 26, 8 << 20),
        ("f", 1000, 1 << 40, 1 << 40),
        ("f", 1 << 20, 1 << 31, 1 << 31),
    ],
)
def test_a_limit_is_raised_as_far_as_the_system_allows(
    option: str, soft: int, hard: int, then: int
) -> None:
    assert bare(ASK, LIMITS[option], str(soft), str(hard)) == f"None {then}"


@POSIX
def test_incomplete_venvs_of_killed_runs_only_are_deleted(tmp_path: Path) -> None:
    killed, living, venv = (
        tmp_path / name
        for name in ("blackwheel-0123.aaaa", "blackwheel-0123.bbbb", "blackwheel-0123")
    )
    for folder in (killed, living, venv):
        (folder / "bin").mkdir(parents=True)
    code = "import sys; from pathlib import Path; from sessions.shared import bootstrap as b; "
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
