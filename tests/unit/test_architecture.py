"""Imports point one way. The linter says so too; this says it of every file, by what it parses."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.fakes import ROOT

SESSIONS = ROOT / "sessions"
STAGES = sorted(SESSIONS.glob("*.py"))
CORE = sorted((SESSIONS / "core").glob("*.py"))
WHEELFILE = sorted((SESSIONS / "wheelfile").glob("*.py"))
PACKAGES = {"verify": "wheelfile"}  # what a stage has beside its own file
OVERLAY = sorted((SESSIONS / "overlay").glob("*.py"))
ALL = [ROOT / "noxfile.py", *sorted(SESSIONS.rglob("*.py"))]
STAGE_NAMES = {f"sessions.{path.stem}" for path in STAGES if path.stem != "__init__"}


def imported(text: str) -> set[str]:
    """Every module that a text imports, at any depth of it; of ``from a import b``, "a.b" too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} | {f"{base}.{alias.name}".replace("..", ".") for alias in node.names}
    return found


def of(path: Path) -> set[str]:
    return imported(path.read_text(encoding="utf-8"))


def within(modules: set[str], package: str) -> set[str]:
    return {name for name in modules if name == package or name.startswith(f"{package}.")}


def where(package: str) -> list[str]:
    """The files that import a package."""
    return [path.relative_to(ROOT).as_posix() for path in ALL if within(of(path), package)]


def test_imports_are_seen_however_they_are_written() -> None:
    text = (
        "import a.b as c\n"
        "from d import e, f as g\n"
        "def h():\n"
        "    if True:\n"
        "        from . import i\n"
        "        import subprocess, nox.sessions\n"
    )
    assert imported(text) == {
        "a.b",
        "d",
        "d.e",
        "d.f",
        ".",
        ".i",
        "subprocess",
        "nox.sessions",
    }


def test_the_stages_are_found() -> None:
    # Else nothing below would test anything.
    assert {"sessions.probe", "sessions.configure", "sessions.wheel"} <= STAGE_NAMES
    assert {"run.py", "context.py", "options.py"} <= {path.name for path in CORE}
    assert [path.name for path in OVERLAY] == ["_cuda_runtime.py"]


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_of_ours_a_stage_imports_the_core_and_its_own_package(path: Path) -> None:
    ours = within(of(path), "sessions") - within(of(path), "sessions.core")
    own = PACKAGES.get(path.stem)
    assert ours - (within(of(path), f"sessions.{own}") if own else set()) == set()


@pytest.mark.parametrize("path", WHEELFILE, ids=lambda path: path.stem)
def test_of_ours_the_reading_of_wheels_imports_the_core_and_itself(path: Path) -> None:
    ours = within(of(path), "sessions") - within(of(path), "sessions.core")
    assert ours - within(of(path), "sessions.wheelfile") == set()


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_of_ours_the_core_imports_itself_alone(path: Path) -> None:
    ours = within(of(path), "sessions") - within(of(path), "sessions.core")
    assert ours == set()


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_import_is_relative(path: Path) -> None:
    # "from . import wheel" in a stage would pass for none of ours above.
    assert [name for name in of(path) if name.startswith(".")] == []


@pytest.mark.parametrize("path", OVERLAY, ids=lambda path: path.stem)
def test_what_ships_in_the_wheel_imports_nothing_of_ours(path: Path) -> None:
    assert {name.split(".")[0] for name in of(path)} == {"ctypes", "sys", "cuda"}


def test_the_noxfile_imports_each_stage() -> None:
    assert within(of(ROOT / "noxfile.py"), "sessions") >= STAGE_NAMES


def test_only_run_runs_programs() -> None:
    assert where("subprocess") == ["sessions/core/run.py"]


def test_only_context_and_the_noxfile_know_nox() -> None:
    assert where("nox") == ["noxfile.py", "sessions/core/context.py"]


def reads_environment(text: str) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb", "getenv")
        and ast.unparse(node.value) == "os"
        for node in ast.walk(ast.parse(text))
    )


def test_only_options_reads_the_environment() -> None:
    # bootstrap runs before anything else can be imported, and hands its own environment on.
    found = [
        path.relative_to(SESSIONS).as_posix()
        for path in ALL
        if reads_environment(path.read_text(encoding="utf-8"))
    ]
    assert found == ["core/bootstrap.py", "core/options.py"]


@pytest.mark.parametrize("text", ["os.environ['X']", "os.getenv('X')", "x = dict(os.environ)"])
def test_a_read_of_the_environment_would_be_seen(text: str) -> None:
    assert reads_environment(f"import os\n{text}\n")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_program_is_run_past_run(path: Path) -> None:
    calls = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    refused = {"os.system", "os.popen", "os.spawnv", "os.execvp", "os.posix_spawn"}
    assert calls & refused == set()
