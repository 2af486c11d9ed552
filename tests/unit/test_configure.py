"""The session configure: golden files, and settings as scikit-build-core reads them.

A golden file contains everything that the compiler gets for one target on one system. After an
intended change, write the files again and read the difference in git before you commit it:

    BLACKWHEEL_REGOLD=1 python -m pytest tests/unit/test_configure.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from scikit_build_core.settings.skbuild_read_settings import SettingsReader

from sessions.build import cmake_settings, main_configure, old_glibc
from sessions.build.cmake_settings import Places
from sessions.build.record_types import BuildEnv
from sessions.fetch.record_types import Source, Toolkit
from sessions.probe.record_types import Compiler
from sessions.shared import knowledge, records
from sessions.shared.build_spec import BuildSpec
from sessions.targets import targets_file
from sessions.targets.choose_target import choose
from tests import fakes

GOLDEN = fakes.ROOT / "tests" / "data" / "golden"
REGOLD = os.environ.get("BLACKWHEEL_REGOLD") == "1"
PLATFORMS = ("linux", "windows")
VERSIONS = ("0.3.16", "0.3.36")
TARGETS = tuple(
    targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
)
CASES = [(p, v, t) for p in PLATFORMS for v in VERSIONS for t in TARGETS]
CALLER = {
    "linux": {"HOME": "/home/user", "LANG": "en_GB.UTF-8"},
    "windows": {
        "SYSTEMROOT": r"C:\Windows",
        "TEMP": r"C:\Users\José Pérez\AppData\Local\Temp",
        "USERPROFILE": r"C:\Users\José Pérez",
    },
}
# The pyproject.toml of both releases: its minimum-version decides which names are known.
UPSTREAM = """\
[build-system]
requires = ["scikit-build-core[pyproject]>=0.9.2"]
build-backend = "scikit_build_core.build"

[project]
name = "llama_cpp_python"
dynamic = ["version"]

[tool.scikit-build]
wheel.packages = ["llama_cpp"]
{py_api}
cmake.verbose = true
cmake.minimum-version = "3.21"
minimum-version = "0.5.1"
sdist.include = [".git", "vendor/llama.cpp/*"]

[tool.scikit-build.metadata.version]
provider = "scikit_build_core.metadata.regex"
input = "llama_cpp/__init__.py"
"""
PY_API = {"0.3.16": "", "0.3.36": 'wheel.py-api = "py3"'}


def build(
    spec: BuildSpec | None = None,
    *,
    compiler: Compiler | None = None,
    toolkit: Toolkit | None = None,
    source: Source | None = None,
    places: Places | None = None,
    env: Mapping[str, str] | None = None,
) -> BuildEnv:
    """``configure`` of rtx50 on Linux, with these arguments instead of the defaults."""
    spec = spec or fakes.spec()
    return cmake_settings.configure(
        spec,
        compiler or fakes.compiler(),
        (toolkit or fakes.toolkit()) if spec.cuda else None,
        source or fakes.source(),
        places or fakes.places(),
        env or {},
    )


def on_windows(spec: BuildSpec | None = None, msvc: str = "1944") -> BuildEnv:
    """``configure`` of rtx50 on Windows."""
    return build(
        spec or fakes.spec(platform="windows"),
        compiler=fakes.msvc(msvc),
        toolkit=fakes.windows_toolkit(),
        places=fakes.windows_places(),
        env=CALLER["windows"],
    )


def case(platform: str, version: str, target: str) -> BuildEnv:
    """One golden case. 0.3.36 on Windows is built by a compiler that CUDA 13.1 does not accept."""
    tables = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), platform)
    chosen = choose(tables, fakes.parsed("--target", target, "--version", version))
    windows = platform == "windows"
    return build(
        chosen,
        compiler=fakes.msvc("1944" if version == "0.3.16" else "1950")
        if windows
        else fakes.compiler(),
        toolkit=fakes.windows_toolkit() if windows else fakes.toolkit(),
        source=fakes.source(version=version, epoch=knowledge.sdists()[version].epoch),
        places=fakes.windows_places(target) if windows else fakes.places(target),
        env=CALLER[platform],
    )


def rendered(env: BuildEnv) -> str:
    """The text of a golden file: no fingerprint, and no path of this machine."""
    whole = records.to_json(env)
    del whole["fingerprint"], whole["inputs"]
    text = json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=True)
    text = text.replace(old_glibc.identity(), "<digest>")
    return text.replace(str(cmake_settings.OVERLAY).replace("\\", "/"), "<overlay>") + "\n"


def golden(platform: str, version: str, target: str) -> Path:
    return GOLDEN / f"{platform}-{version}-{target}.json"


@pytest.mark.parametrize(("platform", "version", "target"), CASES)
def test_configure_returns_what_the_golden_file_contains(
    platform: str, version: str, target: str
) -> None:
    text = rendered(case(platform, version, target))
    path = golden(platform, version, target)
    if REGOLD:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    assert path.exists(), "no golden file: see the top of this module"
    assert text == path.read_text(encoding="utf-8")


def test_there_is_no_golden_file_of_a_removed_target() -> None:
    there = {path.name for path in GOLDEN.iterdir()}
    assert there == {golden(*words).name for words in CASES}


def defines(env: BuildEnv) -> dict[str, str]:
    prefix = "cmake.define."
    return {n.removeprefix(prefix): v for n, v in env.settings.items() if n.startswith(prefix)}


def read_back(settings: Mapping[str, str], version: str, folder: Path) -> SettingsReader:
    """The settings that scikit-build-core reads after ``python -m build -Ckey=value``."""
    words = [f"{name}={value}" for name, value in settings.items()]
    given: dict[str, str | list[str] | bool] = {}
    for word in words:  # as build.__main__ splits them
        name, _, value = word.partition("=")
        given[name] = value
    project = folder / "pyproject.toml"
    project.write_text(UPSTREAM.format(py_api=PY_API[version]), encoding="utf-8")
    # An empty env would be replaced by the environment of this process.
    return SettingsReader.from_file(project, given, state="wheel", env={"UNSET": ""})


@pytest.mark.parametrize(("platform", "version", "target"), CASES)
def test_scikit_build_core_reads_every_define_unchanged(
    platform: str, version: str, target: str, tmp_path: Path
) -> None:
    env = case(platform, version, target)
    reader = read_back(env.settings, version, tmp_path)
    reader.validate_may_exit()
    settings = reader.settings
    assert {name: str(value) for name, value in settings.cmake.define.items()} == defines(env)
    assert settings.build_dir == env.settings["build-dir"]
    assert settings.build.targets == ["blackwheel"]
    assert settings.install.components == ["blackwheel"]
    assert settings.install.strip is True
    assert settings.cmake.args == ["-GNinja"]
    assert settings.cmake.build_type == "Release"
    assert settings.build.verbose is False


@pytest.mark.parametrize(
    "value",
    [
        "100;120",
        "two words",
        r"C:\Users\José Pérez\black wheel",
        r'/d1trimfile:"C:\black wheel\src\\"',
        '"-ffile-prefix-map=/a b=src" -x=y',
        "ends in a backslash\\",
        "Ω≠ß",
        "",
        "FALSE",
    ],
)
def test_scikit_build_core_keeps_any_text_of_a_define(value: str, tmp_path: Path) -> None:
    reader = read_back({"cmake.define.SOME_NAME": value}, "0.3.16", tmp_path)
    assert dict(reader.settings.cmake.define) == {"SOME_NAME": value}


def test_scikit_build_core_refuses_an_unknown_setting(tmp_path: Path) -> None:
    # Else the two tests above would not check the names.
    reader = read_back({"install.component": "blackwheel"}, "0.3.16", tmp_path)
    with pytest.raises(SystemExit):
        reader.validate_may_exit()


def test_files_are_compiled_together_only_for_a_locked_release(tmp_path: Path) -> None:
    merged = knowledge.sdists()["0.3.16"].merged
    groups = defines(build(fakes.spec()))["BLACKWHEEL_MERGED"].split(";")
    assert [tuple(group.split(" ")) for group in groups] == list(merged)
    names = [name for group in merged for name in group]
    assert len(names) == len(set(names)) > len(groups)
    checkout = build(fakes.spec(source=str(tmp_path), version="0.3.16"))
    assert "BLACKWHEEL_MERGED" not in defines(checkout)
    assert "BLACKWHEEL_MERGED" not in defines(build(fakes.spec(version="0.3.36")))


@pytest.mark.parametrize(
    ("compiler", "line", "allowed"),
    [
        (fakes.msvc("1944"), "13.1", False),
        (fakes.msvc("1949"), "13.1", False),
        (fakes.msvc("1950"), "13.1", True),
        (fakes.msvc("1950"), "13.4", False),
        (fakes.compiler(version="15.2.0"), "13.1", False),
        (fakes.compiler(version="16.1.0"), "13.1", True),
        (fakes.compiler(version="16.1.0"), "13.4", False),
        (fakes.clang("21.1.0"), "13.1", False),
        (fakes.clang("22.1.0"), "13.1", True),
    ],
    ids=lambda value: f"{value.family}-{value.version}" if isinstance(value, Compiler) else None,
)
def test_nvcc_gets_allow_unsupported_compiler_only_if_it_would_refuse_it(
    compiler: Compiler, line: str, allowed: bool
) -> None:
    windows = compiler.family == "msvc"
    accepts = knowledge.toolkit(line).accepts
    env = build(
        fakes.spec(cuda=line, platform="windows" if windows else "linux"),
        compiler=compiler,
        toolkit=(fakes.windows_toolkit if windows else fakes.toolkit)(accepts=accepts),
        places=fakes.windows_places() if windows else fakes.places(),
    )
    flags = env.settings.get("cmake.define.CMAKE_CUDA_FLAGS_INIT", "").split()
    assert ("-allow-unsupported-compiler" in flags) is allowed


@pytest.mark.parametrize("origin", ["pypi", "system"])
def test_the_wheel_requires_the_oldest_runtime_that_has_what_it_needs(origin: str) -> None:
    """Not the one it was linked with: torch 2.11 to 2.14 pin 13.0.96, 13.1.0.3 and 13.1.1.3."""
    components = {"nvidia-cuda-runtime": "13.1.80", "nvidia-cublas": "13.2.2.2"}
    kit = fakes.toolkit(origin=origin, components=components if origin == "pypi" else {})
    requires = {Requirement(text).name: Requirement(text) for text in build(toolkit=kit).requires}
    assert list(requires) == ["cuda-pathfinder", "nvidia-cublas", "nvidia-cuda-runtime"]
    runtime, cublas = requires["nvidia-cuda-runtime"].specifier, requires["nvidia-cublas"].specifier
    assert list(runtime.filter(["12.9", "13.0.96", "13.1.80", "14.0"])) == ["13.0.96", "13.1.80"]
    assert list(cublas.filter(["12.9", "13.1.0.3", "13.1.1.3", "14.0"])) == ["13.1.0.3", "13.1.1.3"]


def caller(tmp_path: Path) -> dict[str, str]:
    """The environment of a caller, with many variables that change what a compiler does."""
    leaks = (
        "AR CC CFLAGS CL CMAKE_ARGS CMAKE_CUDA_COMPILER CMAKE_GENERATOR CMAKE_PREFIX_PATH "
        "CONDA_PREFIX CPATH CPLUS_INCLUDE_PATH CUDACXX CUDAFLAGS CUDAHOSTCXX CUDA_HOME CUDA_PATH "
        "CUDAARCHS CUDAToolkit_ROOT CXX CXXFLAGS C_INCLUDE_PATH FORCE_CMAKE INCLUDE "
        "LD_LIBRARY_PATH LD_PRELOAD LDFLAGS LIB LIBRARY_PATH MAKEFLAGS NINJAFLAGS "
        "NVCC_APPEND_FLAGS NVCC_CCBIN NVCC_PREPEND_FLAGS PATH PKG_CONFIG_PATH PYTHONHOME "
        "PYTHONPATH SCCACHE_DIR SKBUILD_CMAKE_ARGS SKBUILD_CMAKE_DEFINE VIRTUAL_ENV"
    )
    env = {name: f"/leak/of/{name}" for name in leaks.split()}
    return {**env, "HOME": str(tmp_path), "TMPDIR": "/scratch", "CCACHE_DIR": "/shared/ccache"}


def run_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], **spec: Any
) -> BuildEnv:
    """The record that the session writes."""
    monkeypatch.setattr("sessions.fetch.build_tools.tools", lambda _: Path(fakes.places().tools))
    ctx = fakes.context(tmp_path, session="configure", env=env, spec=fakes.spec(**spec))
    records.write(ctx.record("probe"), "probe", fakes.chain())
    records.write(ctx.record("source"), "source", fakes.source())
    records.write(ctx.record("toolkit"), "toolkit", fakes.toolkit())
    main_configure.main(ctx)
    return records.need(ctx.record("configure"), "configure", BuildEnv)


def test_of_the_callers_environment_only_source_date_epoch_has_an_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = run_main(tmp_path, monkeypatch, caller(tmp_path))
    assert [n for n, v in {**env.variables, **env.settings}.items() if "/leak/" in v] == []
    assert env.variables["TMPDIR"] == "/scratch"
    bare = run_main(tmp_path, monkeypatch, {"HOME": str(tmp_path)})
    assert env.fingerprint == bare.fingerprint
    dated = run_main(tmp_path, monkeypatch, {"SOURCE_DATE_EPOCH": "1700000000"})
    assert dated.variables["SOURCE_DATE_EPOCH"] == "1700000000"


@pytest.mark.parametrize("cache", ["ccache", "sccache"])
def test_the_users_settings_of_a_cache_are_in_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    # A store's address may contain a password. test_shared_cache.py: the build gets it.
    secret = {
        "CCACHE_REMOTE_STORAGE": "redis://:hunter2@cache.example",
        "SCCACHE_REDIS_PASSWORD": "hunter2",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }
    run_main(tmp_path, monkeypatch, secret, cache=cache)
    written = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert written
    assert [text for text in written if "hunter2" in text] == []


@pytest.mark.parametrize("cache", ["ccache", "sccache", "none"])
def test_the_cache_launches_every_compiler_and_gets_only_its_own_variables(cache: str) -> None:
    env = build(fakes.spec(cache=cache))
    launchers = {name: value for name, value in defines(env).items() if "LAUNCHER" in name}
    named = {name.partition("_")[0].lower() for name in env.variables if "CCACHE_" in name}
    if cache == "none":
        assert (launchers, named) == ({}, set())
    else:
        names = [f"CMAKE_{language}_COMPILER_LAUNCHER" for language in ("C", "CXX", "CUDA")]
        assert launchers == dict.fromkeys(names, f"{fakes.places().tools}/bin/{cache}")
        assert named == {cache}


SAME = (
    pytest.param({}, id="nothing"),
    pytest.param({"spec": fakes.spec(summary="other words", warning="mind")}, id="words"),
    pytest.param({"env": {"HOME": "/elsewhere", "TZ": "UTC"}}, id="home"),
    pytest.param({"env": {"CCACHE_DIR": "/shared"}}, id="ccache"),
    pytest.param({"spec": fakes.spec(cache="none")}, id="no-cache"),
    pytest.param({"spec": fakes.spec(cache="sccache")}, id="another-cache"),
    pytest.param({"spec": fakes.spec(compiler="/usr/bin/g++")}, id="named-compiler"),
    pytest.param({"spec": fakes.spec(budget_mb=1, device_features=("X",))}, id="verify's"),
    pytest.param(
        {
            "places": fakes.places(cache="/other", tools="/other/tools-py3.11"),
            "toolkit": fakes.toolkit(root="/other/cuda-13.1-0123456789ab/nvidia/cu13"),
        },
        id="cache-moved",
    ),
    pytest.param({"places": fakes.places(stage="/b/rtx50/src", tree="/b/rtx50/tree")}, id="moved"),
)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"source": fakes.source(digest="e" * 64)}, id="source"),
        pytest.param({"spec": fakes.spec(archs=("121-real",))}, id="arch"),
        pytest.param({"spec": fakes.spec(archs=("120",))}, id="ptx"),
        pytest.param({"spec": fakes.spec(python="3.12")}, id="python"),
        pytest.param({"spec": fakes.cpu_spec()}, id="cpu"),
        pytest.param({"compiler": fakes.compiler(version="13.1.0")}, id="compiler-version"),
        pytest.param({"compiler": fakes.compiler(cxx="/opt/gcc/bin/g++")}, id="compiler-path"),
        pytest.param({"toolkit": fakes.toolkit(fingerprint="b" * 64)}, id="toolkit"),
        pytest.param({"env": {"SOURCE_DATE_EPOCH": "1"}}, id="epoch"),
        pytest.param({"spec": fakes.spec(target="rtx50+mine")}, id="label-in-the-sbom"),
        *(
            pytest.param({"compiler": fakes.compiler(**{kind: {name: "b"}})}, id=name)
            for kind, name in (
                ("identity", "release"),
                ("identity", "cc1plus"),
                ("identity", "as"),
                ("linked", "linker"),
                ("linked", "C library"),
                ("linked", "libgomp.so.1"),
            )
        ),
    ],
)
def test_what_changes_the_wheel_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert build(**change).fingerprint != build().fingerprint


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_change_the_wheel_does_not_change_the_fingerprint(
    change: dict[str, Any],
) -> None:
    assert build(**change).fingerprint == build().fingerprint
    assert len(build().fingerprint) == 64


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"identity": {"release": "g++ (Debian 12.2.0-14+deb12u2) 12.2.0"}}, False),
        ({"identity": {"cc1plus": "b"}}, False),
        ({"linked": {"libgomp.so.1": "b"}}, True),
    ],
)
def test_the_compiler_cache_compares_the_revision_of_the_compiler(
    changes: dict[str, Any], same: bool
) -> None:
    # What is linked does not change object files.
    name = "CCACHE_COMPILERCHECK"
    other = build(compiler=fakes.compiler(**changes)).variables[name]
    assert (other == build().variables[name]) is same


def test_the_glibc_changes_only_the_link() -> None:
    """Else objects in a compiler cache could not be used for both."""
    old, host = build(fakes.spec(glibc="2.28")), build(fakes.spec(glibc="host"))
    changed = {n for n in {**old.settings, **host.settings}
               if old.settings.get(n) != host.settings.get(n)}  # fmt: skip
    assert {name.removeprefix("cmake.define.") for name in changed} == {
        "CMAKE_SHARED_LINKER_FLAGS_INIT",
        "CMAKE_MODULE_LINKER_FLAGS_INIT",
        "BLACKWHEEL_GLIBC",
    }
    assert old.variables == host.variables
    assert old.fingerprint != host.fingerprint
    assert defines(old)["CMAKE_SHARED_LINKER_FLAGS_INIT"] == old_glibc.linker_flags()


def test_neutral_removes_every_folder_of_the_machine() -> None:
    for env, places, kit in (
        (build(), fakes.places(), fakes.toolkit()),
        (on_windows(), fakes.windows_places(), fakes.windows_toolkit()),
    ):
        counted = cmake_settings.neutral(env.settings, places, kit)
        text = json.dumps(counted).replace("\\\\", "/").replace("\\", "/")
        assert "black wheel" not in text
        assert ".cache" not in text
        assert "AppData" not in text
        assert str(cmake_settings.OVERLAY) not in text
        assert counted["cmake.define.CMAKE_CUDA_COMPILER"].startswith("TOOLKIT/bin/nvcc")


def test_changed_files_of_ours_change_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cmake_settings, "OVERLAY", tmp_path)
    (tmp_path / "wheel.cmake").write_text("# one\nset(A B)\n")
    before = build()
    (tmp_path / "wheel.cmake").write_text("\n  # two\nset(A B)\n")
    assert build().fingerprint == before.fingerprint
    (tmp_path / "wheel.cmake").write_text("# one\nset(A C)\n")
    after = build()
    assert before.settings == after.settings
    assert before.fingerprint != after.fingerprint
    lock = tmp_path / "tools.txt"
    lock.write_text("ninja==2\n")
    monkeypatch.setattr(knowledge, "tools_lock", lambda: lock)
    assert build().fingerprint != after.fingerprint
