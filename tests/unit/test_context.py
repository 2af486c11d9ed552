"""How a stage's errors reach nox, and what the user sees of them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from sessions.core import context
from sessions.core.context import Context
from sessions.core.errors import Problem
from tests import fakes


class Aborted(Exception):
    """What nox raises when a session gives up."""


def session(*words: str, asked: tuple[str, ...] = ("wheel",)) -> Any:
    def error(text: str) -> NoReturn:
        raise Aborted(text)

    runner = SimpleNamespace(global_config=SimpleNamespace(sessions=asked))
    return SimpleNamespace(posargs=list(words), name="wheel", error=error, _runner=runner)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    targets = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
    (tmp_path / "targets.toml").write_text(targets, encoding="utf-8")
    monkeypatch.setattr(context, "ROOT", tmp_path)
    monkeypatch.setattr("sessions.core.context.signal.signal", lambda *_: None)
    monkeypatch.setenv("BLACKWHEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def raising(error: BaseException) -> Callable[[Context], None]:
    def work(_: Context) -> None:
        raise error

    return work


def test_a_problem_is_told_whole_and_leaves_no_traceback(project: Path) -> None:
    problem = Problem(
        "The moon is down.", id="moon", evidence="no light", remedy="wait for the sun"
    )
    with pytest.raises(Aborted) as told:
        context.stage(session(), raising(problem))
    assert str(told.value) == "The moon is down.\n    no light\nTo mend it: wait for the sun"
    assert list((project / "build").glob("bug-*.log")) == []


def test_a_problem_cannot_command_the_terminal() -> None:
    problem = Problem("No wheel \x1b[2J.", id="wheel", remedy="look at it")
    with pytest.raises(Aborted) as told:
        context.stage(session(), raising(problem))
    assert str(told.value) == "No wheel \\x1b[2J.\nTo mend it: look at it"


def test_a_full_disk_is_no_bug() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/somewhere")
    with pytest.raises(Aborted, match="The disk is full"):
        context.stage(session(), raising(full))


def test_a_bug_leaves_its_traceback_in_a_log_and_says_where(project: Path) -> None:
    with pytest.raises(Aborted, match="A bug of blackwheel: KeyError: 'lost'"):
        context.stage(session(), raising(KeyError("lost")))
    log = (project / "build" / "bug-wheel.log").read_text(encoding="utf-8")
    assert log.startswith("Traceback")
    assert "raise error" in log


def test_a_wrong_option_is_told_before_anything_is_made(project: Path) -> None:
    with pytest.raises(Aborted, match="--tarpet"):
        context.stage(session("--tarpet", "rtx50"), raising(AssertionError("never reached")))
    assert not (project / "build").exists()


@pytest.mark.parametrize("name", ["bench", "bundle"])
def test_a_target_as_its_own_baseline_is_refused_before_anything_is_made(
    project: Path, name: str
) -> None:
    asked = session("--target=rtx50", "--arch=120-virtual", "--baseline=ptx", asked=(name,))
    with pytest.raises(Aborted, match="that target itself"):
        context.stage(asked, raising(AssertionError("it ran")))
    assert not (project / "build").exists()


@pytest.mark.usefixtures("links")
def test_a_build_folder_that_is_a_link_has_its_real_path(project: Path) -> None:
    """As CMake has it: else the one of the flags would not be the one in the libraries."""
    (project / "other disk").mkdir()
    (project / "build").symlink_to(project / "other disk")
    found: list[Context] = []
    context.stage(session("--target=cpu"), found.append)
    assert found[0].build == project / "other disk" / "cpu"
    assert found[0].lock_of("cpu") == project / "build" / "cpu.lock"


def test_help_prints_the_options_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    context.stage(session("--help"), raising(AssertionError("never reached")))
    assert "--toolkit" in capsys.readouterr().out


def test_fresh_counts_for_the_sessions_that_were_asked_for() -> None:
    seen: list[bool] = []
    work = seen.append
    context.stage(session("--fresh"), lambda ctx: work(ctx.fresh))
    context.stage(session("--fresh", asked=("release",)), lambda ctx: work(ctx.fresh))
    assert seen == [True, False]


@pytest.mark.parametrize("words", [(), ("--wheel", "some.whl")], ids=["target", "wheel"])
def test_the_folders_of_a_run_are_marked_as_ours(project: Path, words: tuple[str, ...]) -> None:
    asked = session("--target", "hopper", *words)
    asked.name = "verify"
    context.stage(asked, lambda _: None)
    for folder in ("build", "build/hopper", "cache"):
        assert (project / folder / "CACHEDIR.TAG").is_file()


def asking(name: str, *words: str) -> Any:
    made = session(*words, asked=(name,))
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
    context.stage(asking("release", *words), seen.append)
    (ctx,) = seen
    assert [spec.target for spec in ctx.specs] == ["rtx50+cuda13.4", "hopper+cuda13.4"]
    assert ctx.spec == ctx.specs[0]
    assert locked == []
    context.stage(asking("verify", "--target", "hopper"), seen.append)
    assert locked == ["hopper"]
    assert seen[1].specs == ()


def test_release_takes_the_first_target_where_none_is_named() -> None:
    seen: list[Context] = []
    context.stage(asking("release"), seen.append)
    assert [spec.target for spec in seen[0].specs] == ["rtx50"]


def test_a_comma_too_many_names_no_target() -> None:
    seen: list[Context] = []
    context.stage(asking("release", "--target", "hopper,"), seen.append)
    assert [spec.target for spec in seen[0].specs] == ["hopper"]


def test_other_sessions_take_one_target() -> None:
    with pytest.raises(Aborted, match="There is no target 'rtx50,hopper'"):
        context.stage(asking("verify", "--target", "rtx50,hopper"), lambda _: None)


def test_matrix_is_given_every_wheel_and_takes_no_target_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    locked: list[str] = []
    monkeypatch.setattr(Context, "target_lock", lambda _, target: locked.append(target))
    seen: list[Context] = []
    context.stage(asking("matrix", "--targets", "cpu,ada", "--pythons", "3.12"), seen.append)
    assert [s.target for s in seen[0].specs] == ["cpu", "cpu+py3.12", "ada", "ada+py3.12"]
    assert locked == []


@pytest.mark.parametrize(
    "words", [(), ("--targets", "cpu,nothing"), ("--targets", "cpu", "--pythons", "")]
)
def test_a_wrong_matrix_is_told_before_anything_is_made(
    project: Path, words: tuple[str, ...]
) -> None:
    with pytest.raises(Aborted, match="To mend it"):
        context.stage(asking("matrix", *words), raising(AssertionError("never reached")))
    assert not (project / "build").exists()


@pytest.mark.parametrize("words", [("--targets", "ada"), ("--pythons", "3.12"), ("--targets", "")])
def test_no_other_session_takes_the_lists_of_a_matrix(words: tuple[str, ...]) -> None:
    # It would build something else than was meant.
    for name in ("wheel", "release"):
        with pytest.raises(Aborted, match=f"mean nothing to the session {name}"):
            context.stage(asking(name, *words), raising(AssertionError("never reached")))
