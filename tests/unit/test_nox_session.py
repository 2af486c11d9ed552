"""How a stage's errors reach nox, and what the user sees of them."""

from __future__ import annotations

import dataclasses
import errno
import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from nox.virtualenv import uv_version

from sessions.command_line import child_nox, nox_session
from sessions.shared import added_releases, disk, errors, knowledge
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.shared.knowledge import Sdist
from tests import fakes


class Aborted(Exception):
    """What nox raises when a session gives up."""


def session(*words: str, asked: tuple[str, ...] = ("wheel",)) -> Any:
    """The session wheel as nox runs it for a command line."""

    def error(text: str) -> NoReturn:
        raise Aborted(text)

    sys.argv = ["noxfile.py", "-s", *asked, "--", *words]  # put back by the fixture below
    return SimpleNamespace(
        posargs=list(words), name="wheel", error=error, invoked_from=str(Path.cwd())
    )


def refused(made: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The exit code and what is said of a session that may not begin, as one text."""
    with pytest.raises(Aborted):
        nox_session.stage(made, raising(AssertionError("never reached")))
    return f"{nox_session.exit_code(1)}\n{capsys.readouterr().err}"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    targets = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
    (tmp_path / "targets.toml").write_text(targets, encoding="utf-8")
    monkeypatch.setattr(nox_session, "ROOT", tmp_path)
    monkeypatch.setattr(nox_session, "_failed", [])
    monkeypatch.setattr(sys, "argv", ["noxfile.py"])
    monkeypatch.delenv("NOXSESSION", raising=False)
    monkeypatch.setattr(
        "sessions.command_line.nox_session.programs.ended_by_signals", lambda _: None
    )
    monkeypatch.setattr(nox_session, "_has_python", lambda version: True)
    monkeypatch.setenv("BLACKWHEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def raising(error: BaseException) -> Callable[[Context], None]:
    def work(_: Context) -> None:
        raise error

    return work


Said = pytest.CaptureFixture[str]


def test_a_problem_is_told_whole_and_leaves_no_traceback(project: Path, capsys: Said) -> None:
    problem = Problem("The moon is down.", id="moon", evidence="no light", remedy="wait for it")
    with pytest.raises(Aborted) as told:
        nox_session.stage(session(), raising(problem))
    # nox adds a dot or a time to what it is given, so that is not part of the remedy.
    assert str(told.value) == "the reason is above (exit code 3)"
    assert capsys.readouterr().err == f"error: {problem}\n"
    assert list((project / "build").glob("bug-*.log")) == []


def test_a_problem_cannot_command_the_terminal(capsys: Said) -> None:
    problem = Problem("No wheel \x1b[2J.", id="t", remedy="look at it")
    with pytest.raises(Aborted):
        nox_session.stage(session(), raising(problem))
    assert "\x1b" not in (said := capsys.readouterr().err)
    assert "No wheel \\x1b[2J." in said


@pytest.mark.parametrize("code", [errors.CHECK_FAILED, errors.USAGE, errors.ENVIRONMENT])
def test_the_exit_code_is_that_of_the_problem(code: int) -> None:
    with pytest.raises(Aborted):
        nox_session.stage(session(), raising(Problem("No.", id="t", remedy="yes", code=code)))
    assert nox_session.exit_code(1) == code


@pytest.mark.parametrize("code", [0, 1, 2, 130, 143, None])
def test_where_no_session_of_ours_failed_the_code_is_that_of_nox(code: int | None) -> None:
    assert nox_session.exit_code(code) == code


def test_an_interrupt_after_a_failure_is_an_interrupt() -> None:
    with pytest.raises(Aborted):
        nox_session.stage(session(), raising(KeyError("lost")))
    assert nox_session.exit_code(130) == 130


def test_a_full_disk_is_no_bug(capsys: Said) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/somewhere")
    with pytest.raises(Aborted):
        nox_session.stage(session(), raising(full))
    assert nox_session.exit_code(1) == errors.ENVIRONMENT
    assert "The disk is full" in capsys.readouterr().err


def test_a_bug_leaves_its_traceback_in_a_log_and_says_where(project: Path, capsys: Said) -> None:
    with pytest.raises(Aborted):
        nox_session.stage(session(), raising(KeyError("lost")))
    assert nox_session.exit_code(1) == errors.BUG
    path = project / "build" / "bug-wheel.log"
    assert str(path) in capsys.readouterr().err
    log = path.read_text(encoding="utf-8")
    assert log.startswith("Traceback")
    assert "raise error" in log


@pytest.mark.parametrize(
    "words",
    [
        ("--tarpet", "rtx50"),
        ("--target", ""),
        ("--target", "rtx5090"),
        ("--to", "https://host/"),
        ("--toolkit", "nosuch"),
        ("--targets", "ada"),
        ("--pythons", "3.12"),
        ("--wheel", "x.whl"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_made(
    project: Path, capsys: Said, words: tuple[str, ...]
) -> None:
    assert refused(session(*words), capsys).startswith("2\nerror: ")
    assert not (project / "build").exists()
    assert not (project / "cache").exists()


@pytest.mark.parametrize("name", ["bench", "bundle"])
def test_a_target_as_its_own_baseline_is_refused_before_anything_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = ["--target=rtx50", "--arch=120-virtual", "--baseline=ptx"]
    monkeypatch.setattr("sys.argv", ["noxfile.py", "-s", name, "--", *words])
    assert nox_session._prepare() == USAGE
    assert "itself contains only PTX" in capsys.readouterr().err
    assert not (project / "build").exists()


@pytest.mark.usefixtures("links")
def test_a_build_folder_that_is_a_link_has_its_real_path(project: Path) -> None:
    """As CMake has it: else the one of the flags would not be the one in the libraries."""
    (project / "other disk").mkdir()
    (project / "build").symlink_to(project / "other disk")
    found: list[Context] = []
    nox_session.stage(session("--target=cpu"), found.append)
    assert found[0].build == project / "other disk" / "cpu"
    assert found[0].lock_of("cpu") == project / "build" / "cpu.lock"


def test_help_prints_the_options_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    nox_session.stage(session("--help"), raising(AssertionError("never reached")))
    assert "--toolkit" in capsys.readouterr().out


def test_fresh_counts_for_the_sessions_that_were_asked_for() -> None:
    seen: list[bool] = []
    work = seen.append
    nox_session.stage(session("--fresh"), lambda ctx: work(ctx.fresh))
    nox_session.stage(session("--fresh", asked=("verify",)), lambda ctx: work(ctx.fresh))
    assert seen == [True, False]


@pytest.mark.parametrize("words", [(), ("--wheel", "some.whl")], ids=["target", "wheel"])
def test_the_folders_of_a_run_are_marked_as_ours(
    project: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "some.whl").touch()
    nox_session.stage(asking("verify", "--target", "hopper", *words), lambda _: None)
    for folder in ("build", "build/hopper", "cache"):
        assert (project / folder / "CACHEDIR.TAG").is_file()


def asking(name: str, *words: str, asked: tuple[str, ...] = ()) -> Any:
    made = session(*words, asked=asked or (name,))
    made.name = name
    return made


def test_release_is_given_each_target_once_and_takes_none_for_itself(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the sessions that it runs for a target would wait for it for ever.
    locked: list[str] = []
    monkeypatch.setattr(Context, "target_lock", lambda _, target: locked.append(target))
    seen: list[Context] = []
    words = ("--target", "rtx50,hopper,rtx50", "--cuda", "13.4")
    nox_session.stage(asking("release", *words), seen.append)
    (ctx,) = seen
    assert [spec.target for spec in ctx.specs] == ["rtx50+cuda13.4", "hopper+cuda13.4"]
    assert ctx.spec == ctx.specs[0]
    assert locked == []
    nox_session.stage(asking("verify", "--target", "hopper"), seen.append)
    assert locked == ["hopper"]
    assert seen[1].specs == ()


def test_release_takes_the_first_target_where_none_is_named() -> None:
    seen: list[Context] = []
    nox_session.stage(asking("release"), seen.append)
    assert [spec.target for spec in seen[0].specs] == ["rtx50"]


def test_a_comma_too_many_names_no_target() -> None:
    seen: list[Context] = []
    nox_session.stage(asking("release", "--target", "hopper,"), seen.append)
    assert [spec.target for spec in seen[0].specs] == ["hopper"]


def test_other_sessions_take_one_target(capsys: Said) -> None:
    said = refused(asking("verify", "--target", "rtx50,hopper"), capsys)
    assert said.startswith("2\nerror: There is no target 'rtx50,hopper'")


def test_matrix_is_given_every_wheel_and_takes_no_target_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locked: list[str] = []
    monkeypatch.setattr(Context, "target_lock", lambda _, target: locked.append(target))
    seen: list[Context] = []
    nox_session.stage(asking("matrix", "--targets", "cpu,ada", "--pythons", "3.12"), seen.append)
    assert [s.target for s in seen[0].specs] == ["cpu", "cpu+py3.12", "ada", "ada+py3.12"]
    assert locked == []


@pytest.mark.parametrize(
    "words", [(), ("--targets", "cpu,nothing"), ("--targets", "cpu", "--pythons", ",")]
)
def test_a_wrong_matrix_is_told_before_anything_is_made(
    project: Path, capsys: Said, words: tuple[str, ...]
) -> None:
    assert refused(asking("matrix", *words), capsys).startswith("2\nerror: ")
    assert not (project / "build").exists()


@pytest.mark.parametrize("name", ["release", "publish"])
def test_a_dry_run_makes_no_folder(project: Path, name: str) -> None:
    before = sorted(project.iterdir())
    seen: list[Context] = []
    nox_session.stage(asking(name, "--dry-run"), seen.append)
    assert seen[0].options.dry_run
    assert sorted(project.iterdir()) == before


# ---- --target auto -------------------------------------------------------------------------------

Machine = Callable[..., None]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Sets which GPUs are here, by compute capability; the driver may be asked once."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def here(*capabilities: str) -> None:
        answers = iter([fakes.nvml(*(fakes.nvml_gpu(compute_capability=c) for c in capabilities))])
        monkeypatch.setattr(nox_session, "_nvml", functools.cache(lambda: next(answers)))
        nox_session._say_once.cache_clear()

    return here


def test_each_session_of_a_command_has_the_target_of_the_gpu_and_one_says_it(
    gpus: Machine, capsys: Said
) -> None:
    gpus("8.9")
    seen: list[Context] = []
    for name in ("probe", "verify"):
        nox_session.stage(asking(name, "--target", "auto"), seen.append)
    assert [(ctx.spec.target, ctx.options.target) for ctx in seen] == [("ada", "ada")] * 2
    assert seen[0].targets["ada"] == seen[0].spec
    said = capsys.readouterr().out
    assert said == "target auto: ada, for NVIDIA GeForce RTX 5090 (8.9)\n"


def test_only_auto_asks_for_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nox_session, "_nvml", lambda: pytest.fail("asked"))
    seen: list[Context] = []
    nox_session.stage(asking("verify"), seen.append)
    assert seen[0].spec.target == "rtx50"


def test_what_a_session_hands_on_is_what_auto_chose(gpus: Machine) -> None:
    gpus("12.0", "8.6")
    seen: list[Context] = []
    nox_session.stage(asking("release", "--target", "auto"), seen.append)
    (ctx,) = seen
    assert [spec.target for spec in ctx.specs] == ["rtx50+arch120-real-86-real"]
    assert child_nox.words(ctx.options) == ["--arch=120-real;86-real"]


def test_auto_may_be_one_of_several_targets(gpus: Machine, capsys: Said) -> None:
    gpus("8.9")
    seen: list[Context] = []
    nox_session.stage(asking("release", "--target", "auto,cpu,ada"), seen.append)
    assert [spec.target for spec in seen[0].specs] == ["ada", "cpu"]
    gpus("12.0", "8.6")
    said = refused(asking("release", "--target", "auto,cpu"), capsys)
    assert said.startswith("2\nerror: This machine has GPUs of several architectures")


def test_a_gpu_without_a_target_ends_the_command_first(
    gpus: Machine, nox: Nox, project: Path, capsys: Said
) -> None:
    gpus("6.1")
    assert command(project, "-s", "wheel", "--", "--target", "auto") == errors.ENVIRONMENT
    assert "CUDA 13 cannot build for it" in capsys.readouterr().err
    assert nox.started == []


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Sets what pip says of the package index; the commands that it was asked."""
    monkeypatch.setattr(knowledge, "OFFERED", set())
    monkeypatch.setattr(knowledge, "_KEPT", {})

    def says(text: str, code: int = 0) -> list[list[str]]:
        asked: list[list[str]] = []

        def capture(command: list[str], **_: Any) -> Any:
            asked.append(command)
            return SimpleNamespace(stdout=text if "index" in command else "", returncode=code)

        monkeypatch.setattr("sessions.command_line.nox_session.programs.capture", capture)
        nox_session._ask_index.cache_clear()
        nox_session._say_once.cache_clear()
        return asked

    return says


LOCKED = knowledge.newest_sdist()


@pytest.mark.parametrize(
    ("text", "code", "newest", "said"),
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
    text: str, code: int, newest: str, said: str, index: Any, capsys: Said
) -> None:
    asked = index(text, code)
    seen: list[Context] = []
    for name in ("probe", "verify"):
        nox_session.stage(asking(name, "--version", "latest"), seen.append)
    assert [ctx.spec.version for ctx in seen] == [newest] * 2
    assert capsys.readouterr().out == f"version latest: {newest}{said}\n"
    assert len(asked) == 2  # pip's settings, and the index
    handed = "latest" if newest not in knowledge.sdists() else newest
    assert child_nox.words(seen[0].options) == [f"--version={handed}"]


def test_offline_the_latest_version_is_the_newest_that_is_locked(index: Any) -> None:
    asked = index("llama_cpp_python (9.9.9)\n")
    seen: list[Context] = []
    nox_session.stage(asking("wheel", "--version", "latest", "--offline"), seen.append)
    assert (seen[0].spec.version, asked) == (LOCKED, [])


def test_only_latest_takes_a_release_without_a_lock(index: Any, capsys: Said) -> None:
    index("llama_cpp_python (9.9.9)\n")
    assert "is not locked" in refused(asking("wheel", "--version", "9.9.9"), capsys)


def test_what_the_cache_has_locked_is_locked(index: Any, project: Path, capsys: Said) -> None:
    index("")
    kept = Sdist("9.9.9", "x.tar.gz", "0" * 64, 1, "py3")
    disk.claim(project / "cache")
    added_releases.write(project / "cache", kept)
    knowledge._KEPT.clear()
    seen: list[Context] = []
    nox_session.stage(asking("wheel", "--version", "9.9.9"), seen.append)
    assert seen[0].spec.version == "9.9.9"
    assert knowledge.sdists()["9.9.9"] == kept
    assert not knowledge.is_in_repository("9.9.9")


def test_a_lock_of_this_repository_is_over_that_of_the_cache(index: Any, project: Path) -> None:
    index("")
    here = knowledge.sdists()["0.3.16"]
    added_releases.write(project / "cache", dataclasses.replace(here, sha256="0" * 64))
    added_releases.load(project / "cache")
    assert knowledge.sdists()["0.3.16"] == here


def test_a_damaged_lock_of_the_cache_counts_as_missing(index: Any, project: Path) -> None:
    index("")
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
    ids=["none-of-the-target", "one-of-the-target", "asked-for", "for-every-python"],
)
def test_a_wheel_is_for_a_python_that_is_here(
    words: tuple[str, ...],
    has: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
) -> None:
    monkeypatch.setattr(nox_session, "_here", lambda: "3.13")
    monkeypatch.setattr(nox_session, "_has_python", lambda version: has and version == "3.11")
    nox_session._say_once.cache_clear()
    seen: list[Context] = []
    for name in ("probe", "wheel"):
        nox_session.stage(asking(name, *words, asked=("wheel",)), seen.append)
    assert [ctx.spec.python for ctx in seen] == [expected] * 2
    said = "Python 3.11 is not here, so the wheel is for Python 3.13, which runs this\n"
    assert capsys.readouterr().out == (said if expected == "3.13" else "")


def test_a_release_that_is_only_read_keeps_its_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nox_session, "_here", lambda: "3.13")
    monkeypatch.setattr(nox_session, "_has_python", lambda version: False)
    seen: list[Context] = []
    nox_session.stage(asking("publish"), seen.append)
    assert seen[0].spec.target == "rtx50"


# ---- The whole command ---------------------------------------------------------------------------


class Nox:
    """Stands in for nox: what it was started with, and how it ends."""

    def __init__(self, ends: int = 0) -> None:
        self.ends = ends
        self.started: list[list[str]] = []

    def __call__(self) -> NoReturn:
        self.started.append(sys.argv)
        raise SystemExit(self.ends)


@pytest.fixture
def nox(monkeypatch: pytest.MonkeyPatch, project: Path) -> Nox:
    stand_in = Nox()
    monkeypatch.setattr("sessions.command_line.nox_session.nox.main", stand_in)
    monkeypatch.setattr(logging.getLogger("nox"), "filters", [])
    monkeypatch.chdir(project)
    return stand_in


def command(project: Path, *words: str) -> int | str | None:
    """Run the command line; its exit code."""
    sys.argv = ["noxfile.py", *words]
    with pytest.raises(SystemExit) as end:
        nox_session.main(project)
    return end.value.code


def test_a_right_command_is_handed_to_nox_with_this_noxfile(nox: Nox, project: Path) -> None:
    words = ["-s", "verify", "--", "--target", "cpu"]
    assert command(project, *words) == 0
    noxfile = str(project / "noxfile.py")
    assert nox.started == [[noxfile, "-f", noxfile, *words]]


def test_of_nox_only_warnings_are_printed(
    nox: Nox, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert command(project, "-s", "verify") == 0
    caplog.clear()
    with caplog.at_level(logging.INFO, "nox"):
        assert uv_version("/nowhere/uv").major == 0  # nox says it here
        logging.getLogger("nox").info("Running session verify")
        logging.getLogger("nox").warning("Session verify interrupted.")
    assert [record.getMessage() for record in caplog.records] == ["Session verify interrupted."]


def test_of_pytests_sessions_nox_says_all_but_that_uv_is_absent(
    nox: Nox, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert command(project, "-s", "tests") == 0
    caplog.clear()
    with caplog.at_level(logging.INFO, "nox"):
        assert uv_version("/nowhere/uv").major == 0
        logging.getLogger("nox").info("Running session tests")
    assert [record.getMessage() for record in caplog.records] == ["Running session tests"]


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
def test_what_nox_says_of_our_sessions_is_left_out_but_with_v(line: str, quiet: bool) -> None:
    assert nox_session.is_quiet(line.split()) is quiet


def test_the_command_ends_with_the_code_of_the_session_that_failed(
    nox: Nox, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nox.ends = 1
    monkeypatch.setattr(nox_session, "_failed", [errors.ENVIRONMENT])
    assert command(project, "-s", "probe") == errors.ENVIRONMENT


@pytest.mark.parametrize(
    ("line", "said"),
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
    ],
)
def test_what_can_be_refused_is_refused_first(
    nox: Nox, project: Path, capsys: Said, line: str, said: str
) -> None:
    before = sorted(project.iterdir())
    assert command(project, *line.split()) == errors.USAGE
    assert nox.started == []
    assert said in capsys.readouterr().err
    assert sorted(project.iterdir()) == before


def test_help_is_printed_once_and_nothing_runs(nox: Nox, project: Path, capsys: Said) -> None:
    for word in ("--help", "-h"):
        assert command(project, "-s", "smoke", "bench", "--", word) == 0
        said = capsys.readouterr().out
        assert said.count("--device N|cpu") == 1
        assert "\n  hopper " in said
    assert nox.started == []


def test_the_help_of_no_session_is_ours_and_names_targets(
    nox: Nox, project: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wheel() -> None:
        """Build the wheel."""

    monkeypatch.setattr("nox.registry.get", lambda: {"wheel": wheel})
    assert command(project, "--help") == 0
    said = capsys.readouterr().out
    assert "\n  wheel  Build the wheel.\n" in said
    assert "\n  hopper " in said
    assert nox.started == []


def test_the_cpu_of_a_cuda_target_is_said_first_where_a_wheel_is_there(
    nox: Nox, project: Path, capsys: Said
) -> None:
    place = project / "wheels" / "ada"
    place.mkdir(parents=True)
    (place / "wheel.json").touch()
    assert command(project, "-s", "smoke", "--", "--target=ada", "--device=cpu") == 0
    assert "its GPU code is not tested" in capsys.readouterr().out
    # Of a CPU target it tests all there is.
    assert command(project, "-s", "smoke", "--", "--target=cpu", "--device=cpu") == 0
    assert capsys.readouterr().out == ""
    assert len(nox.started) == 2


def test_a_bug_before_nox_is_told_as_one(
    nox: Nox, project: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: object) -> NoReturn:
        raise KeyError("lost")

    monkeypatch.setattr("sessions.command_line.parse_options.parse", parse)
    assert command(project, "-s", "wheel", "--", "--jobs", "2") == errors.BUG
    assert "bug-start.log" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["-l", "-s tests -- -k x", "-s lint"])
def test_what_has_no_options_of_ours_goes_straight_to_nox(
    nox: Nox, project: Path, line: str
) -> None:
    assert command(project, *line.split()) == 0
    assert len(nox.started) == 1


def test_a_relative_path_is_from_where_the_user_stands(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = project / "elsewhere"
    here.mkdir()
    (here / "some.whl").touch()
    monkeypatch.chdir(project)  # where nox goes
    made = asking("verify", "--wheel", "some.whl")
    made.invoked_from = str(here)
    seen: list[Context] = []
    nox_session.stage(made, seen.append)
    assert seen[0].options.wheel == str(here / "some.whl")
