"""Phases as nox sessions: contexts, errors and exit codes; the checks before nox starts."""

from __future__ import annotations

import dataclasses
import errno
import functools
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from nox.virtualenv import uv_version

from sessions.command_line import child_nox, nox_session
from sessions.shared import added_releases, disk, errors, knowledge, programs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.knowledge import Sdist
from tests import fakes


class Aborted(Exception):
    """Stands for the exception that nox raises if a session fails."""


def session(name: str, *words: str, asked: tuple[str, ...] = ()) -> Any:
    """A session as nox runs it for a command line; ``asked`` are the sessions after -s."""

    def error(text: str) -> NoReturn:
        raise Aborted(text)

    sys.argv = ["noxfile.py", "-s", *(asked or [name]), "--", *words]  # restored by `project`
    return SimpleNamespace(
        posargs=list(words), name=name, error=error, invoked_from=str(Path.cwd())
    )


def run(name: str, *words: str, asked: tuple[str, ...] = ()) -> Context:
    """Run a session that does nothing; its context."""
    seen: list[Context] = []
    nox_session.run_phase(session(name, *words, asked=asked), seen.append)
    (ctx,) = seen
    return ctx


def targets(ctx: Context) -> list[str]:
    """The targets of a session that takes several."""
    return [spec.target for spec in ctx.specs]


def failing(error: BaseException) -> str:
    """Run a phase that raises; the message of nox."""

    def work(_: Context) -> None:
        raise error

    with pytest.raises(Aborted) as caught:
        nox_session.run_phase(session("wheel"), work)
    return str(caught.value)


def refused(capsys: pytest.CaptureFixture[str], name: str, *words: str) -> str:
    """Run a session that must not begin; its exit code and message."""
    with pytest.raises(Aborted):
        nox_session.run_phase(session(name, *words), lambda _: pytest.fail("the session began"))
    return f"{nox_session.exit_code(1)}\n{capsys.readouterr().err}"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(fakes.ROOT / "targets.toml", tmp_path)
    monkeypatch.setattr(nox_session, "ROOT", tmp_path)
    monkeypatch.setattr(nox_session, "_failed", [])
    monkeypatch.setattr(sys, "argv", ["noxfile.py"])
    monkeypatch.delenv("NOXSESSION", raising=False)
    monkeypatch.setattr(programs, "ended_by_signals", lambda _: None)
    monkeypatch.setattr(nox_session, "_has_python", lambda version: True)
    monkeypatch.setenv("BLACKWHEEL_CACHE", str(tmp_path / "cache"))
    nox_session._say_once.cache_clear()
    return tmp_path


Capture = pytest.CaptureFixture[str]


def test_a_problem_is_printed_once_and_leaves_no_traceback(project: Path, capsys: Capture) -> None:
    evidence = "no light \x1b[2J"  # which must not command the terminal
    problem = Problem("The moon is down.", id="moon", evidence=evidence, remedy="wait for it")
    # nox adds a dot or a time to its message, which is not a part of the remedy.
    assert failing(problem) == "the reason is above (exit code 3)"
    expected = f"error: {problem}\n".replace("\x1b", "\\x1b")
    assert capsys.readouterr().err == expected
    assert list((project / "build").glob("bug-*.log")) == []


NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "/somewhere")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        *(
            (Problem("No.", id="t", remedy="yes", code=code), code, "error: No.")
            for code in (errors.CHECK_FAILED, errors.USAGE, errors.ENVIRONMENT)
        ),
        (NO_SPACE, errors.ENVIRONMENT, "The disk is full"),
        (KeyError("lost"), errors.BUG, "bug-wheel.log"),
        (OSError(errno.ENOENT, "No such file", "/some/file"), errors.BUG, "bug-wheel.log"),
    ],
)
def test_the_exit_code_is_that_of_the_error(
    error: BaseException, code: int, message: str, capsys: Capture
) -> None:
    failing(error)
    assert nox_session.exit_code(1) == code
    assert message in capsys.readouterr().err
    assert nox_session.exit_code(130) == 130  # interrupted later


@pytest.mark.parametrize("code", [0, 1, 2, 130, 143, None])
def test_without_an_error_of_ours_the_exit_code_is_that_of_nox(code: int | None) -> None:
    assert nox_session.exit_code(code) == code


def test_a_bug_leaves_its_traceback_in_a_log(project: Path, capsys: Capture) -> None:
    failing(KeyError("lost"))
    path = project / "build" / "bug-wheel.log"
    assert str(path) in capsys.readouterr().err
    log = path.read_text(encoding="utf-8")
    assert log.startswith("Traceback")
    assert "raise error" in log


@pytest.mark.parametrize(
    "line",
    [
        "wheel --tarpet rtx50",
        "wheel --target=",
        "wheel --target rtx5090",
        "wheel --to https://host/",
        "wheel --toolkit nosuch",
        "wheel --targets ada",
        "wheel --pythons 3.12",
        "wheel --wheel x.whl",
        "matrix",
        "matrix --targets cpu,nothing",
        "matrix --targets cpu --pythons ,",
    ],
)
def test_a_wrong_option_is_reported_before_a_folder_is_created(
    project: Path, capsys: Capture, line: str
) -> None:
    assert refused(capsys, *line.split()).startswith("2\nerror: ")
    assert not (project / "build").exists()
    assert not (project / "cache").exists()


@pytest.mark.usefixtures("links")
def test_a_build_folder_that_is_a_link_has_its_real_path(project: Path) -> None:
    """As CMake does: otherwise the flags and the libraries would have different paths."""
    (project / "other disk").mkdir()
    (project / "build").symlink_to(project / "other disk")
    ctx = run("wheel", "--target=cpu")
    assert ctx.build == project / "other disk" / "cpu"
    assert ctx.lock_of("cpu") == project / "build" / "cpu.lock"


def test_help_prints_the_options_and_does_nothing(capsys: Capture) -> None:
    nox_session.run_phase(session("wheel", "--help"), lambda _: pytest.fail("the session began"))
    assert "--toolkit" in capsys.readouterr().out


def test_fresh_affects_only_the_sessions_after_s() -> None:
    assert run("wheel", "--fresh").fresh
    assert not run("wheel", "--fresh", asked=("verify",)).fresh


@pytest.mark.parametrize("words", [(), ("--wheel", "some.whl")], ids=["target", "wheel"])
def test_the_folders_of_a_run_are_marked(
    project: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "some.whl").touch()
    run("verify", "--target", "hopper", *words)
    for folder in ("build", "build/hopper", "cache"):
        assert (project / folder / "CACHEDIR.TAG").is_file()


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets that are locked."""
    found: list[str] = []
    monkeypatch.setattr(Context, "target_lock", lambda _, target: found.append(target))
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("release", ["rtx50"]),
        ("release --target hopper,", ["hopper"]),
        ("release --target rtx50,hopper,rtx50 --cuda 13.4", ["rtx50+cuda13.4", "hopper+cuda13.4"]),
        ("matrix --targets cpu,ada --pythons 3.12", ["cpu", "cpu+py3.12", "ada", "ada+py3.12"]),
    ],
)
def test_release_and_matrix_get_each_target_once_and_lock_none(
    locked: list[str], line: str, expected: list[str]
) -> None:
    # The sessions that they start for a target would wait for the lock forever.
    ctx = run(*line.split())
    assert targets(ctx) == expected
    assert ctx.spec == ctx.specs[0]
    assert locked == []


def test_other_sessions_take_and_lock_one_target(locked: list[str], capsys: Capture) -> None:
    assert run("verify", "--target", "hopper").specs == ()
    assert locked == ["hopper"]
    message = refused(capsys, "verify", "--target", "rtx50,hopper")
    assert message.startswith("2\nerror: There is no target 'rtx50,hopper'")


@pytest.mark.parametrize("name", ["release", "publish"])
def test_a_dry_run_makes_no_folder(project: Path, name: str) -> None:
    before = sorted(project.iterdir())
    assert run(name, "--dry-run").options.dry_run
    assert sorted(project.iterdir()) == before


# ---- --target auto -------------------------------------------------------------------------------

Machine = Callable[..., None]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Sets the compute capabilities of the GPUs. The driver may be asked once."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def here(*capabilities: str) -> None:
        answers = iter([fakes.nvml(*(fakes.nvml_gpu(compute_capability=c) for c in capabilities))])
        monkeypatch.setattr(nox_session, "_nvml", functools.cache(lambda: next(answers)))
        nox_session._say_once.cache_clear()

    return here


def test_auto_gives_all_sessions_the_same_target_and_prints_it_once(
    gpus: Machine, capsys: Capture
) -> None:
    gpus("8.9")
    seen = [run(name, "--target", "auto") for name in ("probe", "verify")]
    assert [(ctx.spec.target, ctx.options.target) for ctx in seen] == [("ada", "ada")] * 2
    assert seen[0].targets["ada"] == seen[0].spec
    output = capsys.readouterr().out
    assert output == "target auto: ada, for NVIDIA GeForce RTX 5090 (8.9)\n"


def test_without_auto_the_driver_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nox_session, "_nvml", lambda: pytest.fail("asked"))
    assert run("verify").spec.target == "rtx50"


def test_a_child_gets_what_auto_has_chosen(gpus: Machine) -> None:
    gpus("12.0", "8.6")
    ctx = run("release", "--target", "auto")
    assert targets(ctx) == ["rtx50+arch120-real-86-real"]
    assert child_nox.words(ctx.options) == ["--arch=120-real;86-real"]


def test_auto_may_be_one_of_several_targets(gpus: Machine, capsys: Capture) -> None:
    gpus("8.9")
    assert targets(run("release", "--target", "auto,cpu,ada")) == ["ada", "cpu"]
    gpus("12.0", "8.6")
    message = refused(capsys, "release", "--target", "auto,cpu")
    assert message.startswith("2\nerror: This machine has GPUs of several architectures")


def test_a_gpu_without_a_target_ends_the_command_before_nox_starts(
    gpus: Machine, nox: Nox, project: Path, capsys: Capture
) -> None:
    gpus("6.1")
    assert command(project, "-s", "wheel", "--", "--target", "auto") == errors.ENVIRONMENT
    assert "CUDA 13 cannot build for it" in capsys.readouterr().err
    assert nox.started == []


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Sets the answer of ``pip index versions``; returns the list of pip's command lines."""
    monkeypatch.setattr(knowledge, "OFFERED", set())
    monkeypatch.setattr(knowledge, "_KEPT", {})

    def answers(text: str = "", code: int = 0) -> list[list[str]]:
        commands: list[list[str]] = []

        def capture(command: list[str], **_: Any) -> Any:
            commands.append(command)
            return SimpleNamespace(stdout=text if "index" in command else "", returncode=code)

        monkeypatch.setattr(programs, "capture", capture)
        nox_session._ask_index.cache_clear()
        return commands

    return answers


LOCKED = knowledge.newest_sdist()


@pytest.mark.parametrize(
    ("text", "code", "newest", "message"),
    [
        (f"llama_cpp_python ({LOCKED})\nAvailable", 0, LOCKED, ", the newest of the package index"),
        ("llama-cpp-python (9.9.10)\n", 0, "9.9.10", ", the newest of the package index"),
        ("llama_cpp_python (0.3.16)\n", 0, LOCKED, ", the newest of the locked releases"),
        ("", 1, LOCKED, ", the newest of the locked releases, because pip could not ask the "
         "package index"),
        ("llama_cpp_python (9.9.9rc1)\n", 0, LOCKED, ", the newest of the locked releases, because "
         "pip could not ask the package index"),
    ],
    ids=["locked", "newer", "older", "no-index", "not-a-release"],
)  # fmt: skip
def test_the_latest_version_is_that_of_the_index_and_is_asked_once(
    text: str, code: int, newest: str, message: str, index: Any, capsys: Capture
) -> None:
    asked = index(text, code)
    seen = [run(name, "--version", "latest") for name in ("probe", "verify")]
    assert [ctx.spec.version for ctx in seen] == [newest] * 2
    assert capsys.readouterr().out == f"version latest: {newest}{message}\n"
    assert len(asked) == 2  # pip's settings, and the index
    passed = "latest" if newest not in knowledge.sdists() else newest
    assert child_nox.words(seen[0].options) == [f"--version={passed}"]


def test_offline_the_latest_version_is_the_newest_that_is_locked(index: Any) -> None:
    commands = index("llama_cpp_python (9.9.9)\n")
    assert run("wheel", "--version", "latest", "--offline").spec.version == LOCKED
    assert commands == []


def test_only_latest_takes_a_release_without_a_lock(index: Any, capsys: Capture) -> None:
    index("llama_cpp_python (9.9.9)\n")
    assert "is not locked" in refused(capsys, "wheel", "--version", "9.9.9")


def test_locks_in_the_cache_add_releases_but_do_not_override_ours(
    index: Any, project: Path
) -> None:
    index()
    disk.claim(project / "cache")
    new = Sdist("9.9.9", "x.tar.gz", "0" * 64, 1, "py3")
    ours = knowledge.sdists()["0.3.16"]
    for sdist in (new, dataclasses.replace(ours, sha256="0" * 64)):
        added_releases.write(project / "cache", sdist)
    knowledge._KEPT.clear()
    assert run("wheel", "--version", "9.9.9").spec.version == "9.9.9"
    assert knowledge.sdists()["9.9.9"] == new
    assert knowledge.sdists()["0.3.16"] == ours
    assert not knowledge.is_in_repository("9.9.9")


def test_a_damaged_lock_in_the_cache_is_ignored(index: Any, project: Path) -> None:
    index()
    added_releases.write(project / "cache", Sdist("9.9.9", "x.tar.gz", "0" * 64, 1, "py3"))
    path = added_releases.path(project / "cache", "9.9.9")
    path.write_text(path.read_text().replace("0" * 64, "1" * 64))
    knowledge._KEPT.clear()
    added_releases.load(project / "cache")
    assert "9.9.9" not in knowledge.sdists()


# ---- The Python that a wheel is for --------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "has", "expected"),
    [
        ((), False, "3.13"),
        ((), True, "3.11"),
        (("--python", "3.11"), False, "3.11"),
        (("--version", "0.3.36"), False, "3.11"),
    ],
    ids=["not-installed", "installed", "requested", "for-every-python"],
)
def test_a_wheel_is_for_a_python_that_is_here(
    words: tuple[str, ...],
    has: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setattr(nox_session, "_here", lambda: "3.13")
    monkeypatch.setattr(nox_session, "_has_python", lambda version: has and version == "3.11")
    seen = [run(name, *words, asked=("wheel",)) for name in ("probe", "wheel")]
    assert [ctx.spec.python for ctx in seen] == [expected] * 2
    message = "Python 3.11 is not here, so the wheel is for Python 3.13, which runs this\n"
    assert capsys.readouterr().out == (message if expected == "3.13" else "")


def test_publish_builds_nothing_and_needs_no_python_of_the_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nox_session, "_here", lambda: "3.13")
    monkeypatch.setattr(nox_session, "_has_python", lambda version: False)
    assert run("publish").spec.target == "rtx50"


# ---- The whole command ---------------------------------------------------------------------------


class Nox:
    """Replaces nox: the command lines that it got, and its exit code."""

    def __init__(self, ends: int = 0) -> None:
        self.ends = ends
        self.started: list[list[str]] = []

    def __call__(self) -> NoReturn:
        self.started.append(sys.argv)
        raise SystemExit(self.ends)


@pytest.fixture
def nox(monkeypatch: pytest.MonkeyPatch, project: Path) -> Nox:
    stand_in = Nox()
    monkeypatch.setattr("nox.main", stand_in)
    monkeypatch.setattr(logging.getLogger("nox"), "filters", [])
    monkeypatch.chdir(project)
    return stand_in


def command(project: Path, *words: str) -> int | str | None:
    """Run the command line; its exit code."""
    sys.argv = ["noxfile.py", *words]
    with pytest.raises(SystemExit) as end:
        nox_session.main(project)
    return end.value.code


def test_a_valid_command_is_passed_to_nox_with_our_noxfile(nox: Nox, project: Path) -> None:
    words = ["-s", "verify", "--", "--target", "cpu"]
    assert command(project, *words) == 0
    noxfile = str(project / "noxfile.py")
    assert nox.started == [[noxfile, "-f", noxfile, *words]]


@pytest.mark.parametrize(
    ("session", "expected"),
    [("verify", ["interrupted"]), ("tests", ["Running session", "interrupted"])],
)
def test_only_warnings_of_nox_are_printed_except_for_sessions_of_pytest(
    nox: Nox, project: Path, caplog: pytest.LogCaptureFixture, session: str, expected: list[str]
) -> None:
    assert command(project, "-s", session) == 0
    caplog.clear()
    with caplog.at_level(logging.INFO, "nox"):
        assert uv_version("/nowhere/uv").major == 0  # nox logs that uv is missing
        logging.getLogger("nox").info("Running session")
        logging.getLogger("nox").warning("interrupted")
    assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.parametrize(
    ("line", "quiet"),
    [
        ("-s verify", True),
        ("", True),
        ("-s verify smoke -- -v", True),
        ("-v -s verify", False),
        ("--verbose", False),
        ("-s tests", False),
        ("-s verify tests", False),
        ("-l", False),
    ],
)
def test_messages_of_nox_about_our_sessions_need_the_option_v(line: str, quiet: bool) -> None:
    assert nox_session.is_quiet(line.split()) is quiet


def test_the_command_ends_with_the_code_of_the_session_that_failed(
    nox: Nox, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nox.ends = 1
    monkeypatch.setattr(nox_session, "_failed", [errors.ENVIRONMENT])
    assert command(project, "-s", "probe") == errors.ENVIRONMENT


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-s wheel --target cpu", "nox -s wheel -- --target cpu"),
        ("-s whell", "did you mean wheel?"),
        ("-s wheel -- --target RTX50", "did you mean rtx50?"),
        ("-s wheel -- --target rtx5090", "did you mean rtx50?"),
        ("-s wheel -- --targt cpu", "did you mean --target?"),
        ("-s verify release -- --target ada,hopper", "There is no target 'ada,hopper'"),
        ("-s smoke -- --report nosuch.json", "nosuch.json does not exist"),
        ("-s smoke -- --model nosuch.gguf", "nosuch.gguf does not exist"),
        ("-s bench -- --baseline nosuch.whl", "nosuch.whl does not exist"),
        ("-s bench -- --wheel targets.toml", "name of a wheel"),
        ("-s smoke -- --target rtx50 --device cpu", "nox -s wheel -- --target rtx50"),
        ("-s bench -- --device cpu --arch 90-real", "--arch 90-real"),
        ("-s publish -- --to https://host/ --dry-run --jobs 2", "--jobs"),
        ("-s wheel -- --target cpu --toolkit system", "--toolkit"),
        ("-s lock -- --add cuda==13.4 --dry-run", "--dry-run"),
        *(
            (f"-s {name} -- --arch=120-virtual --baseline=ptx", "itself contains only PTX")
            for name in ("bench", "bundle")
        ),
    ],
)
def test_a_wrong_command_is_refused_before_nox_starts(
    nox: Nox, project: Path, capsys: Capture, line: str, message: str
) -> None:
    before = sorted(project.iterdir())
    assert command(project, *line.split()) == errors.USAGE
    assert nox.started == []
    assert message in capsys.readouterr().err
    assert sorted(project.iterdir()) == before


def test_help_is_printed_once_and_nothing_runs(nox: Nox, project: Path, capsys: Capture) -> None:
    for word in ("--help", "-h"):
        assert command(project, "-s", "smoke", "bench", "--", word) == 0
        output = capsys.readouterr().out
        assert output.count("--device N|cpu") == 1
        assert "\n  hopper " in output
    assert nox.started == []


def test_help_without_a_session_is_ours_and_names_targets(
    nox: Nox, project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wheel() -> None:
        """Build the wheel."""

    monkeypatch.setattr("nox.registry.get", lambda: {"wheel": wheel})
    assert command(project, "--help") == 0
    output = capsys.readouterr().out
    assert "\n  wheel  Build the wheel.\n" in output
    assert "\n  hopper " in output
    assert nox.started == []


def test_device_cpu_with_a_built_cuda_wheel_is_a_warning(
    nox: Nox, project: Path, capsys: Capture
) -> None:
    place = project / "wheels" / "ada"
    place.mkdir(parents=True)
    (place / "wheel.json").touch()
    assert command(project, "-s", "smoke", "--", "--target=ada", "--device=cpu") == 0
    assert "its GPU code is not tested" in capsys.readouterr().out
    # With the target cpu everything is tested, so there is no warning.
    assert command(project, "-s", "smoke", "--", "--target=cpu", "--device=cpu") == 0
    assert capsys.readouterr().out == ""
    assert len(nox.started) == 2


def test_a_bug_before_nox_starts_is_reported_as_a_bug(
    nox: Nox, project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: object) -> NoReturn:
        raise KeyError("lost")

    monkeypatch.setattr("sessions.command_line.parse_options.parse", parse)
    assert command(project, "-s", "wheel", "--", "--jobs", "2") == errors.BUG
    assert "bug-start.log" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["-l", "-s tests -- -k x", "-s lint"])
def test_a_command_without_our_sessions_goes_to_nox(nox: Nox, project: Path, line: str) -> None:
    assert command(project, *line.split()) == 0
    assert len(nox.started) == 1


def test_a_relative_path_begins_in_the_folder_of_the_user(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = project / "elsewhere"
    here.mkdir()
    (here / "some.whl").touch()
    monkeypatch.chdir(project)  # where nox goes
    verify = session("verify", "--wheel", "some.whl")
    verify.invoked_from = str(here)
    seen: list[Context] = []
    nox_session.run_phase(verify, seen.append)
    assert seen[0].options.wheel == str(here / "some.whl")
