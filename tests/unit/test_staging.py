"""The staged source: the files that a build reads, our additions, and no file written in vain."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from sessions.build import import_hooks, staging
from sessions.fetch import source_filter
from sessions.shared import disk
from tests import fakes

OVERLAY = {
    name: (fakes.ROOT / "sessions" / "build" / "overlay" / name).read_text(encoding="utf-8")
    for name in (*import_hooks.HOOKS, import_hooks.DOCTOR)
}
REQUIRES = ("cuda-pathfinder>=1.3", "nvidia-cuda-runtime>=13.1.80,<14")
# As upstream has them.
INIT = 'from .llama_cpp import *\nfrom .llama import *\n\n__version__ = "0.3.16"\n'
PROJECT = """\
[project]
name = "llama_cpp_python"
dynamic = ["version"]
dependencies = [
    "typing-extensions>=4.5.0",
    "jinja2>=2.11.3",
]
requires-python = ">=3.8"  # kept

[project.optional-dependencies]
server = ["uvicorn>=0.22.0"]
"""
READ = {
    "CMakeLists.txt": "project(llama_cpp)\n",
    "pyproject.toml": PROJECT,
    "README.md": "# readme\n",
    "llama_cpp/__init__.py": INIT,
    "llama_cpp/server/app.py": "",
    "vendor/llama.cpp/CMakeLists.txt": "",
    "vendor/llama.cpp/src/llama.cpp": "int a;\n",
    "vendor/llama.cpp/tools/mtmd/clip.cpp": "",
    "vendor/llama.cpp/tools/mtmd/models/a.cpp": "",
}
NOT_READ = [
    ".git/HEAD",
    "llama_cpp/lib/libllama.so",
    "llama_cpp/__pycache__/llama.cpython-311.pyc",
    "build/CMakeCache.txt",
    "dist/old.whl",
    "docs/package-index.md",
    "tests/test_llama.py",
    "vendor/llama.cpp/.github/x.yml",
    "vendor/llama.cpp/docs/a.md",
    "vendor/llama.cpp/examples/a.cpp",
    "vendor/llama.cpp/models/a.gguf",
    "vendor/llama.cpp/tests/a.cpp",
    "vendor/llama.cpp/tools/server/server.cpp",
    "vendor/llama.cpp/tools/CMakeLists.txt",
    "vendor/llama.cpp/.git",  # a submodule's is a file
    "CACHEDIR.TAG",
    ".blackwheel.json",
]


def put(root: Path, relative: str, text: str) -> Path:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for relative, text in READ.items():
        put(root, relative, text)
    for relative in NOT_READ:
        put(root, relative, "not read")
    return root


def files_in(folder: Path) -> list[str]:
    return sorted(name for name, _ in disk.files(folder, lambda _: True) if name != disk.TAG)


def make_old(folder: Path) -> None:
    """Give every file an old time, so that a later write can be seen."""
    for _, path in disk.files(folder, lambda _: True):
        os.utime(path, (1, 1))


def written(folder: Path) -> list[str]:
    return [n for n, path in disk.files(folder, lambda _: True) if path.stat().st_mtime > 1]


@pytest.mark.parametrize("relative", READ)
def test_build_reads(relative: str) -> None:
    folders = [relative[: n + 1] for n, sign in enumerate(relative) if sign == "/"]
    assert [name for name in (*folders, relative) if not source_filter.build_reads(name)] == []


@pytest.mark.parametrize("relative", NOT_READ)
def test_build_reads_no_other_file(relative: str) -> None:
    folders = [relative[: n + 1] for n, sign in enumerate(relative) if sign == "/"]
    assert not all(source_filter.build_reads(name) for name in (*folders, relative))


def test_stage_copies_what_is_read_and_later_only_what_changed(
    source: Path, tmp_path: Path
) -> None:
    stage, added = tmp_path / "stage", {"llama_cpp/new.py": "x = 1\n"}
    before = disk.signature(source, lambda _: True)
    assert staging.stage(source, stage, added) == len(READ) + 1
    assert disk.signature(source, lambda _: True) == before
    assert files_in(stage) == sorted([*READ, *added])
    assert {name: (stage / name).read_text(encoding="utf-8") for name in READ} == READ
    assert disk.is_marked(stage)
    make_old(stage)
    assert (staging.stage(source, stage, added), written(stage)) == (0, [])
    put(source, "vendor/llama.cpp/src/llama.cpp", "int b;\n")
    put(source, "README.md", READ["README.md"])  # written again, with the same bytes
    assert staging.stage(source, stage, added) == 1
    assert written(stage) == ["vendor/llama.cpp/src/llama.cpp"]
    assert (stage / "vendor/llama.cpp/src/llama.cpp").read_text() == "int b;\n"


def test_stage_deletes_files_that_the_source_no_longer_has(source: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    staging.stage(source, stage, {"llama_cpp/old.py": ""})
    (source / "README.md").unlink()
    put(stage, "llama_cpp/lib/libllama.so", "left by a build")
    assert staging.stage(source, stage, {}) == 0
    assert files_in(stage) == sorted(set(READ) - {"README.md"})


def test_an_addition_replaces_the_file_of_the_source(source: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    staging.stage(source, stage, {"llama_cpp/__init__.py": "# ours\n"})
    assert (stage / "llama_cpp/__init__.py").read_text() == "# ours\n"
    assert (source / "llama_cpp/__init__.py").read_text() == INIT


def additions(source: Path, cuda: str | None = "13.1", platform: str = "linux") -> dict[str, str]:
    requires = REQUIRES if cuda else ()
    return staging.additions(
        source,
        OVERLAY,
        "{}\n",
        platform=platform,
        cuda=cuda,
        archs=("120-real",),
        requires=requires,
    )


OF_ALL = [
    "blackwheel.cdx.json",
    "llama_cpp/__init__.py",
    "llama_cpp/_backends.py",
    "llama_cpp/_doctor.py",
]
OF_CUDA = ["llama_cpp/_cuda_runtime.py", "llama_cpp/_gpu_check.py", "pyproject.toml"]


@pytest.mark.parametrize("platform", ["linux", "windows"])
@pytest.mark.parametrize("cuda", [None, "13.1"])
def test_additions_of_each_kind_of_target(source: Path, cuda: str | None, platform: str) -> None:
    added = additions(source, cuda, platform)
    dlls = ["llama_cpp/_bundled_dlls.py"] if platform == "windows" else []
    assert sorted(added) == sorted([*OF_ALL, *(OF_CUDA if cuda else []), *dlls])
    init = added["llama_cpp/__init__.py"]
    hooks = [import_hooks.HOOKS[name] for name in import_hooks.called(init)]
    assert init == "".join(hooks) + INIT
    expected = {
        import_hooks.HOOK: cuda,
        import_hooks.DLLS_HOOK: dlls,
        import_hooks.BACKENDS_HOOK: True,
        import_hooks.GPUS_HOOK: cuda,
    }
    assert hooks == [hook for hook, needed in expected.items() if needed]


def test_each_hook_calls_a_function_of_its_module() -> None:
    for name, hook in import_hooks.HOOKS.items():
        words = hook.split()
        assert words[1] == f".{name.removesuffix('.py')}"
        assert f"def {words[3]}()" in OVERLAY[name]


def test_unpatched_removes_the_code_of_delvewheel() -> None:
    patch = "# start delvewheel patch\ndef _p():\n    import os\n\n\n_p()\n# end delvewheel patch"
    ours = OVERLAY[import_hooks.DLLS]
    assert ours.count("\n# delvewheel: patch\n") == 1
    assert import_hooks.unpatched(ours.replace("# delvewheel: patch", patch)) == ours
    assert import_hooks.unpatched(ours) == ours


def test_the_values_of_the_target_are_filled_in(source: Path) -> None:
    text = additions(source)["llama_cpp/_cuda_runtime.py"]
    assert 'CUDA = "13.1"' in text
    checks = additions(source)["llama_cpp/_gpu_check.py"]
    assert 'MINIMUM_DRIVER = "580"' in checks
    assert 'BUILT_FOR = "120-real"' in checks
    assert re.findall(r"@[A-Z_]+@", text + checks) == []


@pytest.mark.parametrize("name", ["__init__.py", *import_hooks.HOOKS])
def test_added_modules_can_be_compiled(name: str, source: Path) -> None:
    text = additions(source, platform="windows")[f"llama_cpp/{name}"]
    compile(text, name, "exec", dont_inherit=True)


def test_requirements_are_added_after_upstreams(source: Path) -> None:
    text = additions(source)["pyproject.toml"]
    project = tomllib.loads(text)["project"]
    assert project["dependencies"] == ["typing-extensions>=4.5.0", "jinja2>=2.11.3", *REQUIRES]
    before = tomllib.loads(PROJECT)["project"]
    assert {**project, "dependencies": before["dependencies"]} == before
    assert 'requires-python = ">=3.8"  # kept' in text


@pytest.mark.usefixtures("links")
def test_stage_ignores_links_to_folders(source: Path, tmp_path: Path) -> None:
    (source / "venv" / "lib").mkdir(parents=True)
    (source / "venv" / "lib64").symlink_to("lib")
    assert staging.stage(source, tmp_path / "stage", {}) == len(READ)


def test_stage_replaces_a_file_by_a_folder(source: Path, tmp_path: Path) -> None:
    staging.stage(source, tmp_path / "stage", {})
    (source / "README.md").unlink()
    put(source, "README.md/text", "now a folder")
    staging.stage(source, tmp_path / "stage", {})
    assert (tmp_path / "stage" / "README.md" / "text").exists()
