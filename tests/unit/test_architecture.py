"""The rules about imports. The linter has those about subprocess, os.environ and nox."""

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
ORDER = "payload shared targets command_line probe fetch build verify run matrix release lock"
PHASES = ORDER.split()
SESSION_FILES = sorted(SESSIONS.glob("*/main_*.py"))
OURS = [path for path in sorted(SESSIONS.rglob("*.py")) if path.parent != SESSIONS]
OVERLAY = sorted((SESSIONS / "build" / "overlay").glob("*.py"))
PAYLOAD = sorted((SESSIONS / "payload").glob("*.py"))
BESIDE = {path.stem for path in PAYLOAD} - {"__init__", "__main__"}
# The only modules of the payload that the phases import.
PAYLOAD_USED = "gpu cgroups pipconfig report_file bench_metrics family_checks ops_checks"
# All imports of our modules in a wheel.
OVERLAY_NEEDS = {
    "_backends": "_ctypes ctypes importlib os sys",
    "_bundled_dlls": "ctypes os pathlib",
    "_cuda_runtime": "ctypes os pathlib sys cuda",
    "_doctor": "importlib sys",
    "_gpu_check": "ctypes functools importlib os sys threading warnings",
}
# The imports of the payload's modules outside the standard library. A bundle installs packages only
# after it has imported some of them, and the modules that check results import no packages.
PAYLOAD_NEEDS = {
    "__init__": "",
    "__main__": "bench child family_checks feature_checks ops smoke_checks report_file spawn",
    "bench": "bench_files installing run_folder report_file spawn bench_metrics gpu_watch",
    "bench_files": "installing spawn",
    "bench_speed": "llama llama_cpp",
    "bundle_launch": "cgroups gpu installing run_folder bundle_refusals bundle_wheels spawn "
    "bench_metrics",
    "bundle_refusals": "",
    "bundle_start": "bundle_launch",
    "bundle_wheels": "gpu",
    "cgroups": "",
    "child": "family_answers features gguf llama llama_cpp numpy ops tiny_reference bench_speed "
    "tiny_llama",
    "family_answers": "family_file llama llama_cpp numpy tiny_llama",
    "family_checks": "",
    "family_file": "gguf numpy tiny_llama",
    "feature_checks": "family_checks smoke_checks",
    "features": "child llama llama_cpp numpy tiny_reference tiny_bert tiny_lora tiny_llama "
    "tiny_vision",
    "gpu": "pynvml",
    "gpu_watch": "pynvml",
    "installing": "pipconfig bundle_refusals spawn",
    "llama": "llama_cpp numpy",
    "ops": "llama llama_cpp ops_checks report_file spawn",
    "ops_checks": "",
    "pipconfig": "",
    "report_file": "",
    "run_folder": "bundle_refusals",
    "smoke_checks": "",
    "spawn": "",
    "bench_metrics": "",
    "tiny_bert": "tiny_encoder gguf numpy tiny_llama",
    "tiny_encoder": "gguf numpy tiny_llama",
    "tiny_llama": "gguf numpy",
    "tiny_lora": "gguf numpy tiny_llama",
    "tiny_reference": "numpy tiny_llama",
    "tiny_vision": "tiny_encoder gguf numpy tiny_llama",
}
ALL = [ROOT / "noxfile.py", *sorted(SESSIONS.rglob("*.py"))]
SESSION_MODULES = {f"sessions.{path.parent.name}.{path.stem}" for path in SESSION_FILES}


def imported(tree: ast.AST) -> set[str]:
    """Every module that a tree imports, at any depth; for ``from a import b``, also "a.b"."""
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


def test_every_form_of_import_is_found() -> None:
    text = (
        "import a.b as c\n"
        "from d import e, f as g\n"
        "def h():\n"
        "    if True:\n"
        "        from . import i\n"
        "        import subprocess, nox.sessions\n"
    )
    names = "a.b d d.e d.f . .i subprocess nox.sessions"
    assert imported(ast.parse(text)) == set(names.split())


def test_the_modules_of_the_other_tests_are_found() -> None:
    expected = {"probe.main_probe", "build.main_wheel", "run.main_smoke", "run.main_bundle"}
    assert {f"sessions.{name}" for name in expected} <= SESSION_MODULES
    assert {path.stem for path in OVERLAY} == set(OVERLAY_NEEDS)


def phase(name: str) -> str:
    """The phase of a module: "sessions.build.build_inputs" -> "build"."""
    return name.split(".")[1] if name.count(".") else ""


def test_the_folders_are_the_phases() -> None:
    # A folder that git removed may still contain bytecode.
    files = [path for path in SESSIONS.rglob("*.*") if path.suffix != ".pyc" and path.is_file()]
    folders = {path.relative_to(SESSIONS).parts[0] for path in files} - {"__init__.py"}
    assert folders == {*PHASES, "data"}


def test_a_phase_imports_no_later_phase() -> None:
    for path in OURS:
        own = path.relative_to(SESSIONS).parts[0]
        later = PHASES[PHASES.index(own) + 1 :]
        assert [n for n in within(of(path), "sessions") if phase(n) in later] == [], path


def test_no_module_imports_a_session() -> None:
    assert [path for path in OURS if within(of(path), "sessions") & SESSION_MODULES] == []


def test_the_phases_use_few_modules_of_the_payload() -> None:
    used = {
        name.split(".")[2]
        for path in ALL
        if path.parent.name != "payload"
        for name in within(of(path), "sessions.payload")
        if name.count(".") >= 2
    }
    assert used == set(PAYLOAD_USED.split())


@pytest.mark.parametrize("path", PAYLOAD, ids=lambda path: path.stem)
def test_the_payload_imports_none_of_the_other_folders(path: Path) -> None:
    assert within(of(path), "sessions") == set()
    foreign = {name.split(".")[0] for name in of(path)} - sys.stdlib_module_names
    assert foreign == set(PAYLOAD_NEEDS[path.stem].split())


@pytest.mark.parametrize("path", [*PAYLOAD, *OVERLAY], ids=lambda path: path.name)
def test_payload_and_overlay_are_valid_python_3_9(path: Path) -> None:
    """The syntax, and no ``zip(strict=…)``, which is new in Python 3.10."""
    parsed = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    calls = [node for node in ast.walk(parsed) if isinstance(node, ast.Call)]
    strict = [call.lineno for call in calls for word in call.keywords if word.arg == "strict"]
    assert strict == []


def test_no_module_of_the_payload_hides_one_of_the_standard_library() -> None:
    assert BESIDE & sys.stdlib_module_names == set()


def test_the_parent_can_import_child_without_packages() -> None:
    body = tree(SESSIONS / "payload" / "child.py").body
    top = ast.Module([node for node in body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert {name.split(".")[0] for name in imported(top)} <= sys.stdlib_module_names


def test_no_import_is_relative() -> None:
    # The tests above would not recognize "from . import wheel".
    assert [(path, name) for path in ALL for name in of(path) if name.startswith(".")] == []


@pytest.mark.parametrize("path", OVERLAY, ids=lambda path: path.stem)
def test_the_modules_in_a_wheel_import_none_of_the_sessions(path: Path) -> None:
    assert {name.split(".")[0] for name in of(path)} == set(OVERLAY_NEEDS[path.stem].split())


def test_the_noxfile_imports_each_session() -> None:
    assert within(of(ROOT / "noxfile.py"), "sessions") >= SESSION_MODULES


def test_the_noxfile_loads_no_slow_packages() -> None:
    words = f"import sys, {', '.join(sorted(SESSION_MODULES))}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"sessions.build.main_wheel", "sessions.shared.context"} <= set(loaded)
    assert {"lief", "iced_x86", "numpy"} & set(loaded) == set()


def test_the_linter_excludes_none_of_our_folders() -> None:
    # Its default excludes every folder named build.
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    excluded = set(settings["tool"]["ruff"]["exclude"])
    assert excluded.isdisjoint({part for path in ALL for part in path.relative_to(ROOT).parts})
