"""From the caller's nox, or none, to the project's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.shared import bootstrap, programs
from sessions.shared.errors import ENVIRONMENT
from sessions.shared.programs import capture
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
        ("PYENV/python3.13 noxfile.py", 1, "python3.13 noxfile.py"),  # started by its shim
        ("python3 -m nox -f a/noxfile.py -s wheel", 5, "python3 -m nox -f a/noxfile.py"),
    ],
)
def test_what_the_user_typed_is_known(
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


def test_in_a_venv_its_python_is_called_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/a/venv")
    line = ["/a/venv/bin/python", "noxfile.py", "-l"]
    assert bootstrap.called(line, line[1:]) == "/a/venv/bin/python noxfile.py"


def test_every_requirement_of_the_sessions_is_hashed() -> None:
    text = bootstrap.LOCK.read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z][\w.-]*==", text, re.MULTILINE)
    assert len(pins) >= 7
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= len(pins)


def test_a_python_without_venv_is_told_what_to_install_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(command: list[str], **_: object) -> programs.Finished:
        return programs.Finished(tuple(command), 1, "No module named ensurepip", 0.1)

    monkeypatch.setattr(programs, "capture", fails)
    with pytest.raises(SystemExit) as error:
        bootstrap.enter(tmp_path)
    assert error.value.code == ENVIRONMENT
    told = capsys.readouterr().err
    assert "No module named ensurepip" in told
    assert f"apt install python3.{sys.version_info.minor}-venv" in told
    assert list((tmp_path / ".nox").iterdir()) == []


@pytest.mark.parametrize(("length", "fits"), [(103, True), (104, False)])
def test_on_windows_a_folder_that_is_too_deep_is_told_of_before_anything_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    length: int,
    fits: bool,
) -> None:
    # The same limit as the probe's: test_windows_machines.py.
    said = bootstrap.too_deep("C:\\" + "r" * (length - 3))
    assert (said is None) is fits
    deep = tmp_path / ("d" * 100)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as error:
        bootstrap.enter(deep)
    assert error.value.code == ENVIRONMENT
    assert r"C:\bw" in capsys.readouterr().err
    assert not deep.exists()


def test_the_bootstrap_needs_nothing_but_the_standard_library() -> None:
    # In a Python of its own, which has no packages.
    code = "import sys; sys.path.insert(0, sys.argv[1]); import sessions.shared.bootstrap"
    words = [sys.executable, "-I", "-S", "-c", code, str(Path(bootstrap.__file__).parents[2])]
    done = capture(words, env=os.environ)
    assert done.returncode == 0, done.output


SITE = f"lib/python3.{sys.version_info[1]}/site-packages"  # ``tools`` plays Linux


def fill(venv: Path) -> None:
    """What pip would leave: nox, and its list of files."""
    info = venv / SITE / "nox-2026.1.dist-info"
    info.mkdir(parents=True)
    (venv / SITE / "nox.py").write_text("nox")
    (info / "RECORD").write_text("nox.py,sha256=x,3\nnox-2026.1.dist-info/RECORD,,\n")


class Tools:
    """Python and pip as the bootstrap calls them: each call with its environment."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, str]]] = []
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
    if sys.platform == "win32":  # it has no limits and no locks of folders
        monkeypatch.setattr(bootstrap, "low_limit", lambda: None)
        monkeypatch.setattr(bootstrap, "_hold", lambda _: None)
    monkeypatch.setattr(sys, "platform", "linux")  # Windows has no exec, and goes another way
    monkeypatch.setattr(sys, "argv", ["nox", "-s", "wheel"])
    return found


Started = list[tuple[list[str], dict[str, str]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found: Started = []
    place = "sessions.shared.bootstrap.os.execve"
    monkeypatch.setattr(place, lambda _, words, env: found.append((words, env)))
    return found


def test_the_projects_own_venv_goes_straight_on(
    tmp_path: Path, tools: Tools, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.enter(tmp_path)
    (venv,) = (tmp_path / ".nox").iterdir()
    noxfile = str(tmp_path / "noxfile.py")
    assert started[0][0] == [str(venv / "bin/python"), "-P", "-s", noxfile, "-s", "wheel"]
    assert started[0][1][bootstrap.COMMAND] == bootstrap.called(sys.orig_argv, sys.argv)
    monkeypatch.setattr(os, "environ", started[0][1])
    monkeypatch.setattr(bootstrap, "isolated", lambda env: env == os.environ)
    monkeypatch.setattr(sys, "prefix", str(venv))
    bootstrap.enter(tmp_path)
    assert len(started) == 1
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


def test_nothing_that_moves_pythons_modules_reaches_the_projects_nox(
    tmp_path: Path, tools: Tools, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**FOREIGN, "PYTHONUTF8": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    bootstrap.enter(tmp_path)
    for env in (started[0][1], *(env for _, env in tools.calls)):
        assert FOREIGN.keys() & env.keys() == set()
        assert env["NO_COLOR"] == env["PYTHONUTF8"] == "1"


def test_in_the_venv_but_not_isolated_it_starts_once_more(
    tmp_path: Path, tools: Tools, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.enter(tmp_path)
    (venv,) = (tmp_path / ".nox").iterdir()
    monkeypatch.setattr(sys, "prefix", str(venv))
    monkeypatch.setenv("PYTHONPATH", "/broken")
    bootstrap.enter(tmp_path)
    assert len(started) == 2
    assert len(tools.calls) == 3  # it is whole: nothing is installed


@pytest.mark.parametrize("hurt", ["python", "RECORD", "nox.py", "cut", "installed.txt", "empty"])
def test_a_venv_that_is_not_whole_is_made_anew(
    tmp_path: Path, tools: Tools, started: Started, hurt: str
) -> None:
    bootstrap.enter(tmp_path)
    (venv,) = (tmp_path / ".nox").iterdir()
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
    assert len(started) == 2


def test_pip_that_installs_elsewhere_leaves_nothing_and_is_told_of(
    tmp_path: Path, tools: Tools, started: Started
) -> None:
    tools.installs = False
    with pytest.raises(SystemExit) as error:
        bootstrap.enter(tmp_path)
    assert error.value.code == ENVIRONMENT
    assert started == []
    assert list((tmp_path / ".nox").iterdir()) == []


def test_pip_of_the_bootstrap_gets_the_settings_that_count(
    tmp_path: Path, tools: Tools, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_USER", "1")
    tools.listed = "global.index-url='https://a/simple'\ninstall.target='/elsewhere'\n"
    bootstrap.enter(tmp_path)
    ((words, env),) = [call for call in tools.calls if "install" in call[0]]
    assert words[1] == "-I"
    assert env["PIP_INDEX_URL"] == "https://a/simple"
    assert env["PIP_CONFIG_FILE"] == os.devnull
    assert {"PIP_USER", "PIP_TARGET"} & env.keys() == set()
    assert started


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors are POSIX")
def test_a_stream_that_is_closed_is_opened_for_who_comes_after() -> None:
    code = (
        "import os, sys; os.close(1); sys.path.append(sys.argv[1])\n"
        "from sessions.shared import bootstrap\n"
        "bootstrap._open_streams()\n"
        "assert os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev and os.get_inheritable(1)\n"
    )
    root = str(Path(bootstrap.__file__).parents[2])
    done = capture([sys.executable, "-I", "-S", "-c", code, root], env=os.environ)
    assert done.returncode == 0, done.output


@pytest.mark.skipif(sys.platform == "win32", reason="the script is the same there")
@pytest.mark.parametrize("name", ["nox", "rich", "hashlib", "importlib", "tempfile", "psutil"])
def test_a_file_beside_the_noxfile_takes_the_place_of_no_module(tmp_path: Path, name: str) -> None:
    root = Path(bootstrap.__file__).parents[2]
    (tmp_path / "noxfile.py").write_bytes((root / "noxfile.py").read_bytes())
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
    "import resource as r, sys; sys.path.append(sys.argv[1]); k = getattr(r, sys.argv[2])\n"
    "soft, hard = int(sys.argv[3]), int(sys.argv[4])\n"
    "r.setrlimit(k, (soft, hard))\n"
    "from sessions.shared import bootstrap\n"
    "print(bootstrap.low_limit(), r.getrlimit(k)[0])\n"
)


def narrowed(option: str, soft: int, hard: int) -> str:
    root = str(Path(bootstrap.__file__).parents[2])
    words = [sys.executable, "-I", "-S", "-c", ASK, root, LIMITS[option], str(soft), str(hard)]
    done = capture(words, env=os.environ)
    assert done.returncode == 0, done.output
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX")
@pytest.mark.parametrize(
    ("option", "hard"), [("n", 40), ("s", 900_000), ("f", 10**6), ("v", 10**9)]
)
def test_a_limit_that_is_too_low_is_the_reason_that_is_said(option: str, hard: int) -> None:
    said = narrowed(option, hard, hard)
    assert f"too low here: {hard}" in said
    assert f"ulimit -{option}" in said


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX")
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
def test_a_limit_that_this_process_may_raise_is_raised(
    option: str, soft: int, hard: int, then: int
) -> None:
    assert narrowed(option, soft, hard) == f"None {then}"


@pytest.mark.skipif(sys.platform == "win32", reason="locks of folders are POSIX")
def test_what_killed_first_runs_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
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
