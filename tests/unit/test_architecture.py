"""Imports point one way. The linter says so too; this says it of every file, by what it parses."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from tests.fakes import ROOT

SESSIONS = ROOT / "sessions"
# The order of the phases: each may import those before it, never those after it.
PHASES = (
    "payload",
    "shared",
    "targets",
    "command_line",
    "probe",
    "fetch",
    "build",
    "verify",
    "run",
    "matrix",
    "release",
    "lock",
)
STAGES = sorted(SESSIONS.glob("*/main_*.py"))
OURS = [path for path in sorted(SESSIONS.rglob("*.py")) if path.parent != SESSIONS]
OVERLAY = sorted((SESSIONS / "build" / "overlay").glob("*.py"))
PAYLOAD = sorted((SESSIONS / "payload").glob("*.py"))
BESIDE = {path.stem for path in PAYLOAD} - {"__init__", "__main__"}
# Of what runs where the wheel is, the phases use only these.
PAYLOAD_USED = {"gpu", "cgroups", "pipconfig", "report_file", "stats"} | {
    "family_checks",
    "ops_checks",
}
# All that is imported in a wheel for our sake.
OVERLAY_NEEDS = {
    "_backends": {"_ctypes", "ctypes", "importlib", "os", "sys"},
    "_bundled_dlls": {"ctypes", "os", "pathlib"},
    "_cuda_runtime": {"ctypes", "os", "pathlib", "sys", "cuda"},
    "_doctor": {"importlib", "sys"},
    "_gpu_check": {"ctypes", "functools", "importlib", "os", "sys", "threading", "warnings"},
}
# What each of the payload's modules imports but the standard library. What a bundle needs before
# it has installed anything, and what judges, needs nothing at all.
PAYLOAD_NEEDS: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {
        "bench",
        "child",
        "family_checks",
        "feature_checks",
        "ops",
        "smoke_checks",
        "report_file",
        "spawn",
    },
    "bench": {
        "bench_files",
        "installing",
        "run_folder",
        "report_file",
        "spawn",
        "stats",
        "gpu_watch",
    },
    "bench_files": {"installing", "spawn"},
    "gpu": {"pynvml"},
    "cgroups": set(),
    "child": {
        "family_answers",
        "features",
        "gguf",
        "llama",
        "llama_cpp",
        "numpy",
        "ops",
        "tiny_reference",
        "bench_speed",
        "tiny_llama",
    },
    "tiny_encoder": {"gguf", "numpy", "tiny_llama"},
    "feature_checks": {"family_checks", "smoke_checks"},
    "features": {
        "child",
        "llama",
        "llama_cpp",
        "numpy",
        "tiny_reference",
        "tiny_bert",
        "tiny_lora",
        "tiny_llama",
        "tiny_vision",
    },
    "installing": {"pipconfig", "bundle_refusals", "spawn"},
    "bundle_launch": {
        "cgroups",
        "gpu",
        "installing",
        "run_folder",
        "bundle_refusals",
        "bundle_wheels",
        "spawn",
        "stats",
    },
    "llama": {"llama_cpp", "numpy"},
    "ops": {"llama", "llama_cpp", "ops_checks", "report_file", "spawn"},
    "run_folder": {"bundle_refusals"},
    "ops_checks": set(),
    "tiny_reference": {"numpy", "tiny_llama"},
    "pipconfig": set(),
    "smoke_checks": set(),
    "family_answers": {"family_file", "llama", "llama_cpp", "numpy", "tiny_llama"},
    "family_checks": set(),
    "family_file": {"gguf", "numpy", "tiny_llama"},
    "bundle_refusals": set(),
    "report_file": set(),
    "bundle_wheels": {"gpu"},
    "spawn": set(),
    "bench_speed": {"llama", "llama_cpp"},
    "bundle_start": {"bundle_launch"},
    "stats": set(),
    "tiny_bert": {"tiny_encoder", "gguf", "numpy", "tiny_llama"},
    "tiny_lora": {"gguf", "numpy", "tiny_llama"},
    "tiny_llama": {"gguf", "numpy"},
    "tiny_vision": {"tiny_encoder", "gguf", "numpy", "tiny_llama"},
    "gpu_watch": {"pynvml"},
}
ALL = [ROOT / "noxfile.py", *sorted(SESSIONS.rglob("*.py"))]
STAGE_NAMES = {f"sessions.{path.parent.name}.{path.stem}" for path in STAGES}


def imported(tree: ast.AST) -> set[str]:
    """Every module that a text imports, at any depth; for ``from a import b``, "a.b" too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} | {f"{base}.{alias.name}".replace("..", ".") for alias in node.names}
    return found


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def of(path: Path) -> frozenset[str]:
    """Every module that a file imports."""
    return frozenset(imported(tree(path)))


def within(modules: AbstractSet[str], package: str) -> set[str]:
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
    assert imported(ast.parse(text)) == {
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
    assert {
        "sessions.probe.main_probe",
        "sessions.build.main_wheel",
        "sessions.run.main_smoke",
        "sessions.run.main_bundle",
    } <= STAGE_NAMES
    assert {path.stem for path in OVERLAY} == set(OVERLAY_NEEDS)


def phase(name: str) -> str:
    """Of a module's name: "sessions.build.build_inputs" -> "build"."""
    return name.split(".")[1] if name.count(".") else ""


def _left() -> set[str]:
    """Folders that git removed, with what Python compiled in them."""
    return {
        folder.name
        for folder in SESSIONS.iterdir()
        if folder.is_dir() and not [p for p in folder.rglob("*.*") if p.suffix != ".pyc"]
    }


def test_the_folders_are_the_phases() -> None:
    folders = {path.name for path in SESSIONS.iterdir() if path.is_dir()}
    assert folders - _left() == {*PHASES, "data"}


def test_a_phase_imports_no_later_phase() -> None:
    for path in OURS:
        own = path.relative_to(SESSIONS).parts[0]
        later = PHASES[PHASES.index(own) + 1 :]
        assert [n for n in within(of(path), "sessions") if phase(n) in later] == [], path


def test_no_module_imports_a_session() -> None:
    # What two sessions need is a module of its own.
    assert [path for path in OURS if within(of(path), "sessions") & STAGE_NAMES] == []


def test_the_phases_use_six_modules_of_the_payload() -> None:
    used = {
        name.split(".")[2]
        for path in ALL
        if path.parent.name != "payload"
        for name in within(of(path), "sessions.payload")
        if name.count(".") >= 2
    }
    assert used == PAYLOAD_USED


@pytest.mark.parametrize("path", PAYLOAD, ids=lambda path: path.stem)
def test_what_runs_where_the_wheel_is_imports_nothing_of_ours(path: Path) -> None:
    assert within(of(path), "sessions") == set()
    foreign = {name.split(".")[0] for name in of(path)} - sys.stdlib_module_names
    assert foreign == PAYLOAD_NEEDS[path.stem]


@pytest.mark.parametrize("path", [*PAYLOAD, *OVERLAY], ids=lambda path: path.name)
def test_what_runs_where_the_wheel_is_runs_with_python_3_9(path: Path) -> None:
    """Its syntax; and without ``zip(strict=…)``, which came with Python 3.10."""
    parsed = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    calls = [node for node in ast.walk(parsed) if isinstance(node, ast.Call)]
    strict = [call.lineno for call in calls for word in call.keywords if word.arg == "strict"]
    assert strict == []


def test_no_module_of_the_payload_hides_one_of_the_standard_library() -> None:
    # They are in the folder of the program, which is searched first.
    assert BESIDE & sys.stdlib_module_names == set()


def test_a_child_that_does_not_start_can_still_say_so() -> None:
    # The parent imports child.py too, and it is in the standard library only.
    body = tree(SESSIONS / "payload" / "child.py").body
    top = ast.Module([node for node in body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert {name.split(".")[0] for name in imported(top)} <= sys.stdlib_module_names


def test_no_import_is_relative() -> None:
    # "from . import wheel" in a stage would pass for none of ours above.
    assert [(path, name) for path in ALL for name in of(path) if name.startswith(".")] == []


@pytest.mark.parametrize("path", OVERLAY, ids=lambda path: path.stem)
def test_what_ships_in_the_wheel_imports_nothing_of_ours(path: Path) -> None:
    assert {name.split(".")[0] for name in of(path)} == OVERLAY_NEEDS[path.stem]


def test_the_noxfile_imports_each_stage() -> None:
    assert within(of(ROOT / "noxfile.py"), "sessions") >= STAGE_NAMES


def test_loading_the_graph_loads_nothing_that_takes_long() -> None:
    # Every run of nox does so, one that finds all up to date too.
    words = f"import sys, {', '.join(sorted(STAGE_NAMES))}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"sessions.build.main_wheel", "sessions.shared.context"} <= set(loaded)
    assert {"lief", "iced_x86", "numpy"} & set(loaded) == set()


def test_only_run_runs_programs() -> None:
    # And what runs without the project, where the wheel is.
    assert where("subprocess") == [
        "sessions/payload/bench_files.py",
        "sessions/payload/bundle_launch.py",
        "sessions/payload/bundle_wheels.py",
        "sessions/payload/installing.py",
        "sessions/payload/spawn.py",
        "sessions/shared/programs.py",
    ]


def test_only_context_and_the_noxfile_know_nox() -> None:
    assert where("nox") == ["noxfile.py", "sessions/command_line/nox_session.py"]


def reads_environment(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb", "getenv")
        and ast.unparse(node.value) == "os"
        for node in ast.walk(tree)
    )


def test_only_options_reads_the_environment() -> None:
    # bootstrap runs before anything else can be imported, and hands its own environment on.
    found = [path.relative_to(SESSIONS).as_posix() for path in ALL if reads_environment(tree(path))]
    ours = ("_backends.py", "_bundled_dlls.py", "_cuda_runtime.py", "_gpu_check.py")
    overlay = [f"build/overlay/{name}" for name in ours]
    payload = [f"payload/{name}.py" for name in ("bundle_launch", "installing", "ops", "spawn")]
    assert found == [*overlay, *payload, "shared/bootstrap.py", "shared/child_environment.py"]


@pytest.mark.parametrize("text", ["os.environ['X']", "os.getenv('X')", "x = dict(os.environ)"])
def test_a_read_of_the_environment_would_be_seen(text: str) -> None:
    assert reads_environment(ast.parse(f"import os\n{text}\n"))


def test_no_program_is_run_past_run() -> None:
    calls = {
        f"{node.value.id}.{node.attr}"
        for path in ALL
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert "os.environ" in calls  # else none is seen
    refused = {"os.system", "os.popen", "os.spawnv", "os.execvp", "os.posix_spawn"}
    assert calls & refused == set()


def test_the_linter_sees_every_folder_of_ours() -> None:
    # Its default passes over each folder of the name build, sessions/build among them.
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    excluded = set(settings["tool"]["ruff"]["exclude"])
    assert excluded.isdisjoint({part for path in ALL for part in path.relative_to(ROOT).parts})
