"""The probe on Windows machines. All are composed from documentation: tests/machines.py."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sessions.probe import machine_checks, main_probe, visual_studio
from sessions.probe.model import Compiler, Toolchain
from sessions.shared import knowledge, machine
from sessions.shared.checks import Check
from tests import fakes, machines
from tests.machines import BUILD_TOOLS_2022, COMMUNITY_2022, COMMUNITY_2026, Studio, Windows
from tests.problems import raises

FOLDER = fakes.ROOT / "tests" / "data" / "machines"
VS2022, VS2026 = "19.44.35207", "19.50.35717"


def replayed(name: str, **changes: Any) -> Toolchain:
    ask = machine.replay(FOLDER / name / "machine.json")
    return main_probe.probe(ask, fakes.spec(platform="windows", **changes), None)


def composed(windows: Windows, **changes: Any) -> Toolchain:
    return main_probe.probe(
        machines.machine(windows), fakes.spec(platform="windows", **changes), None
    )


def check(chain: Toolchain, name: str) -> Check:
    (found,) = [c for c in chain.checks if c.id == name]
    return found


def chosen(chain: Toolchain) -> Compiler:
    assert chain.compiler is not None
    return chain.compiler


@pytest.mark.parametrize("name", machines.MACHINES)
def test_the_kept_recordings_are_what_the_probe_asks_of_the_composed_machines(name: str) -> None:
    tape: dict[str, Any] = dict(machines.COMPOSED)
    ask = machine.recording(machines.machine(machines.MACHINES[name]), tape)
    for cuda in ("13.1", "13.4"):
        main_probe.probe(ask, fakes.spec(platform="windows", cuda=cuda), None)
    main_probe.probe(ask, fakes.spec(platform="windows", toolkit="system"), None)
    if os.environ.get("BLACKWHEEL_REGOLD"):
        machine.save(tape, FOLDER / name)
    kept = json.loads((FOLDER / name / "machine.json").read_text(encoding="utf-8"))
    assert tape == kept


def test_each_kept_machine_says_whether_it_was_run_or_composed() -> None:
    tables = (FOLDER / "README.md").read_text(encoding="utf-8").split("Composed")
    assert len(tables) == 2
    told: dict[str, str] = {}
    for kind, text in zip(("recorded", "composed"), tables, strict=True):
        told |= {line.split("`")[1]: kind for line in text.splitlines() if line.startswith("| `")}
    kept = {}
    for path in FOLDER.glob("*/machine.json"):
        tape = json.loads(path.read_text(encoding="utf-8"))
        kept[path.parent.name] = "composed" if "COMPOSED" in tape else "recorded"
    assert told == kept
    assert {name for name, kind in kept.items() if kind == "composed"} == set(machines.MACHINES)


@pytest.mark.parametrize(
    ("name", "cuda", "version", "status"),
    [
        ("windows11-vs2022", "13.1", VS2022, "ok"),
        ("windows11-vs2022", "13.4", VS2022, "ok"),
        ("windows11-build-tools", "13.1", VS2022, "ok"),
        ("windows11-vs2022-vs2026", "13.1", VS2022, "ok"),
        ("windows11-vs2022-vs2026", "13.4", VS2026, "ok"),
        ("windows11-vs2026", "13.1", VS2026, "warn"),
        ("windows11-vs2026", "13.4", VS2026, "ok"),
        ("windows11-cuda12.8-13.0-13.1-rtx5090", "13.1", VS2022, "ok"),
    ],
)
def test_the_newest_compiler_is_used_that_the_cuda_in_use_accepts(
    name: str, cuda: str, version: str, status: str
) -> None:
    chain = replayed(name, cuda=cuda)
    assert (chosen(chain).version, check(chain, "compiler").status) == (version, status)
    assert chosen(chain).variables["VCTOOLSVERSION"] == "14" + version.removeprefix("19")
    assert chain.python is not None
    assert chain.python.found_via == "py -3.11 on PATH"


def test_vs_2026_alone_with_13_1_is_allowed_aloud_with_what_it_risks() -> None:
    said = check(replayed("windows11-vs2026"), "compiler")
    assert "CUDA is told to allow it" in said.summary
    assert "CUDA accepts msvc 1920 to 1949" in said.evidence
    assert "have crashed" in said.evidence
    assert "nox -s smoke" in said.evidence
    assert "--cuda 13.4" in said.remedy
    assert "MSVC v143" in said.remedy


def test_an_older_toolset_beside_the_new_one_in_vs_2026_serves_13_1() -> None:
    both = dataclasses.replace(COMMUNITY_2026, toolsets=("14.44.35207", "14.50.35717"))
    compiler = chosen(composed(Windows((both,))))
    assert (compiler.version, compiler.toolset) == (VS2022, "14.44.35207")
    assert compiler.vcvars == rf"{COMMUNITY_2026.folder}\VC\Auxiliary\Build\vcvars64.bat"
    assert compiler.found_via == "Visual Studio Community 2026"


def test_no_visual_studio_is_an_error_that_says_how_to_get_the_build_tools() -> None:
    chain = replayed("windows11-none")
    said = check(chain, "compiler")
    assert (said.status, chain.compiler) == ("fail", None)
    assert "no Visual Studio 2019 or later" in said.evidence
    assert "winget install" in said.remedy


def test_a_missing_python_is_got_as_windows_does() -> None:
    chain = fakes.chain(host=fakes.host(system="windows"), python=None, compiler=fakes.msvc())
    found = machine_checks.checks(chain, fakes.spec(platform="windows"), {})
    (said,) = [c for c in found if c.id == "python"]
    assert said.status == "fail"
    assert "winget install Python.Python.3.11" in said.remedy
    assert "apt" not in said.remedy


def test_a_half_installed_visual_studio_is_shown_and_not_used() -> None:
    chain = replayed("windows11-half-installed")
    said = check(chain, "compiler")
    assert (said.status, chain.compiler) == ("fail", None)
    assert "its installation is not complete" in said.summary
    assert "vswhere, its installation is not complete" in said.evidence


def test_visual_studio_without_its_cpp_tools_is_named() -> None:
    chain = composed(Windows((dataclasses.replace(COMMUNITY_2022, toolsets=()),)))
    said = check(chain, "compiler")
    assert said.status == "fail"
    assert "Visual Studio Community 2022 17.14.36811.4" in said.evidence
    assert "Desktop development with C++" in said.remedy


def test_a_preview_is_used_only_when_allowed() -> None:
    preview = dataclasses.replace(COMMUNITY_2026, preview=True)
    windows = Windows((preview, BUILD_TOOLS_2022))
    assert chosen(composed(windows, cuda="13.4")).version == VS2022
    assert chosen(composed(windows, cuda="13.4", prerelease=True)).version == VS2026


def test_vswhere_is_found_on_path_where_it_is_not_in_its_documented_place() -> None:
    usual, other = machines.machine(Windows((COMMUNITY_2022,))), r"C:\tools\vswhere.exe"

    def ask(question: str, *words: str) -> Any:
        if (question, *words) == ("which", "vswhere"):
            return [other]
        if question == "run" and words[0] == machines.VSWHERE:
            return {"returncode": 127, "output": "cannot find the file"}
        return usual(question, *(word.replace(other, machines.VSWHERE) for word in words))

    assert chosen(main_probe.probe(ask, fakes.spec(platform="windows"), None)).version == VS2022


def test_visual_studio_2019_serves_every_cuda_13() -> None:
    folder = r"C:\Program Files (x86)\Microsoft Visual Studio\2019\Professional"
    old = Studio("Visual Studio Professional 2019", folder, "16.11.36107.9", ("14.29.30133",))
    for cuda in ("13.1", "13.4"):
        chain = composed(Windows((old,)), cuda=cuda)
        assert (chosen(chain).version, check(chain, "compiler").status) == ("19.29.30133", "ok")


def test_visual_studio_2017_is_not_looked_at() -> None:
    old = Studio("Visual Studio Community 2017", r"C:\VS2017", "15.9.28307.2092", ("14.16.27023",))
    chain = composed(Windows((old,)))
    assert chain.compilers == ()
    assert check(chain, "compiler").status == "fail"


def test_a_named_compiler_is_used_with_its_own_visual_studio() -> None:
    windows = Windows((COMMUNITY_2026, COMMUNITY_2022))
    path = rf"{COMMUNITY_2022.folder}\VC\Tools\MSVC\14.38.33130\bin\Hostx64\x64\cl.exe"
    compiler = chosen(composed(windows, compiler=path))
    assert (compiler.version, compiler.found_via) == ("19.38.33130", "--compiler")
    assert compiler.variables["VCTOOLSVERSION"] == "14.38.33130"


def test_a_named_compiler_that_is_none_is_an_error() -> None:
    said = check(composed(Windows((COMMUNITY_2022,)), compiler=r"C:\no\cl.exe"), "compiler")
    assert said.status == "fail"
    assert r"--compiler C:\no\cl.exe is not a C++ compiler that runs" in said.summary


def test_a_visual_studio_without_a_windows_sdk_is_an_error() -> None:
    chain = composed(Windows((dataclasses.replace(BUILD_TOOLS_2022, sdk=False),)))
    said = check(chain, "compiler")
    assert said.status == "fail"
    assert "found no Windows SDK" in said.evidence
    assert "Visual Studio Installer" in said.remedy


def test_a_vcvars_that_fails_is_an_error_with_what_it_said() -> None:
    recorded = machines.machine(Windows((BUILD_TOOLS_2022,)))

    def ask(question: str, *words: str) -> Any:
        if question == "vcvars":
            return {"variables": {}, "output": "The input line is too long."}
        return recorded(question, *words)

    said = check(main_probe.probe(ask, fakes.spec(platform="windows"), None), "compiler")
    assert said.status == "fail"
    assert "The input line is too long." in said.evidence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"VSCMD_ARG_TGT_ARCH": "x86"}, "for x86 instead of x64"),
        ({"VSCMD_ARG_TGT_ARCH": ""}, "for nothing instead of x64"),
        ({"VCTOOLSVERSION": "14.38.33130"}, "chose 14.38.33130 instead of 14.44.35207"),
        ({"VCTOOLSVERSION": ""}, "chose no toolset"),
        ({"WINDOWSSDKVERSION": "\\"}, "no Windows SDK"),
        ({"INCLUDE": r"C:\include"}, "no INCLUDE with the C runtime"),
        ({"LIB": ""}, "no LIB with the C runtime"),
        ({"PATH": r"C:\Windows\System32"}, "did not put"),
    ],
)
def test_an_environment_of_another_compiler_is_refused(changes: dict[str, str], said: str) -> None:
    compiler = fakes.msvc()
    assert visual_studio.problem_of(compiler.variables, compiler) == ""
    assert said in visual_studio.problem_of({**compiler.variables, **changes}, compiler)


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("Microsoft (R) C/C++ Optimizing Compiler Version 19.44.35207 for x64", VS2022),
        ("Microsoft (R) C/C++-Optimierungscompiler Version 19.50.35717 für x64", VS2026),
        ("Compilateur d'optimisation Microsoft (R) C/C++ version 19.44.35207 pour x64", VS2022),
        ("Microsoft (R) C/C++ Optimizing Compiler Version 19.44.35207 for x86", None),
        ("cl : Command line warning D9035", None),
        ("", None),
    ],
)
def test_cl_tells_its_version_in_every_language(banner: str, version: str | None) -> None:
    assert visual_studio.parse_cl(banner + "\nCopyright (C) Microsoft Corporation.") == version


def test_a_vswhere_that_prints_no_json_finds_nothing() -> None:
    assert visual_studio.parse_vswhere("Visual Studio Locator version 3.1.7\nError 0x57") == []


def test_the_installed_toolkit_of_the_target_is_chosen_among_three() -> None:
    chain = replayed("windows11-cuda12.8-13.0-13.1-rtx5090", toolkit="system")
    assert [t.version for t in chain.toolkits] == ["13.1.115", "13.0.88", "12.8.93"]
    assert chain.toolkit is not None
    assert chain.toolkit.version == "13.1.115"
    assert chain.toolkit.accepts == knowledge.toolkit("13.1").accepts
    assert check(chain, "gpu").summary == "GPU 0: NVIDIA GeForce RTX 5090, 12.0"
    assert "fail" not in {c.status for c in chain.checks}


def test_a_toolkit_that_lies_elsewhere_is_found_by_the_variable_of_its_release() -> None:
    usual = machines.machine(Windows((COMMUNITY_2022,), ("13.1",)))
    folder = r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v13.1"

    def ask(question: str, *words: str) -> Any:
        if question == "glob" and "NVIDIA" in words[0]:
            return []
        answer = usual(question, *(word.replace(r"D:\CUDA", folder) for word in words))
        if question == "env":  # a newer one is installed too, and CUDA_PATH names that
            return {"CUDA_PATH_V13_1": r"D:\CUDA"}.get(words[0])
        return r"D:\CUDA" if question == "real" and words[0] == r"D:\CUDA" else answer

    spec = fakes.spec(platform="windows", toolkit="system")
    (found,) = main_probe.probe(ask, spec, None).toolkits
    assert (found.root, found.found_via) == (r"D:\CUDA", "CUDA_PATH_V13_1")


def test_with_nvidias_packages_the_installed_ones_are_named_as_not_used() -> None:
    said = check(replayed("windows11-cuda12.8-13.0-13.1-rtx5090"), "toolkit")
    assert "not used" in said.summary
    assert r"CUDA\v12.8" in said.summary


@pytest.mark.parametrize(
    ("length", "cache", "status"), [(103, 96, "ok"), (103, 97, "fail"), (104, 96, "fail")]
)
def test_a_path_that_would_be_too_long_is_known_before_anything_starts(
    length: int, cache: int, status: str
) -> None:
    host = fakes.host(system="windows", root="C:\\" + "r" * (length - 3), cache="c" * cache)
    chain = fakes.chain(host=host, compiler=fakes.msvc())
    found = machine_checks.checks(chain, fakes.spec(platform="windows", target="a"), {})
    (said,) = [c for c in found if c.id == "paths"]
    assert said.status == status
    if status == "fail":
        assert "is the greatest length" in said.evidence
        assert said.remedy


def test_letters_that_a_compiler_may_not_read_are_warned_of() -> None:
    host = fakes.host(system="windows", root=r"C:\Users\José\bw", cache=r"C:\bw-cache")
    found = machine_checks.checks(
        fakes.chain(host=host, compiler=fakes.msvc()), fakes.spec(platform="windows"), {}
    )
    (said,) = [c for c in found if c.id == "paths"]
    assert said.status == "warn"
    assert "BLACKWHEEL_CACHE" in said.remedy
    assert "code page were tested" in said.evidence


@pytest.mark.parametrize(
    ("changes", "found"), [({}, ["temporary"]), ({"cuda": None, "archs": ()}, [])]
)
def test_a_folder_for_temporary_files_that_nvcc_cannot_use_is_known_before(
    changes: dict[str, Any], found: list[str]
) -> None:
    folder = r"C:\Users\José Pérez\AppData\Local\Temp"
    windows = Windows((COMMUNITY_2022,), env={"TEMP": folder, "TMP": folder})
    failing = [c for c in composed(windows, **changes).checks if c.status == "fail"]
    assert [c.id for c in failing] == found
    for said in failing:
        assert folder in said.evidence
        assert "set TEMP and TMP" in said.remedy


def test_a_long_target_name_counts_too() -> None:
    host = fakes.host(system="windows", root="C:\\" + "r" * 100, cache="c")
    named = fakes.spec(platform="windows", target="rtx50+arch120-real-121-real")
    found = machine_checks.checks(fakes.chain(host=host, compiler=fakes.msvc()), named, {})
    assert [c.status for c in found if c.id == "paths"] == ["fail"]


@pytest.mark.parametrize(("length", "status"), [(55, "ok"), (56, "fail")])
def test_a_wheel_that_is_given_is_tested_in_a_deeper_folder(length: int, status: str) -> None:
    host = fakes.host(system="windows", root="C:\\" + "r" * (length - 3), cache="c")
    chain, wheel = fakes.chain(host=host), "llama_cpp_python-0.3.16-cp311-cp311-win_amd64.whl"
    found = machine_checks.checks(chain, fakes.spec(platform="windows"), {}, external=wheel)
    assert [c.status for c in found if c.id == "paths"] == [status]


def test_a_recording_holds_nothing_of_vcvars_but_what_a_build_needs(tmp_path: Path) -> None:
    kept = json.loads((FOLDER / "windows11-vs2022" / "machine.json").read_text(encoding="utf-8"))
    (answer,) = [a for question, a in kept.items() if question.startswith('["vcvars"')]
    assert set(answer["variables"]) <= set(knowledge.load("windows.toml")["vcvars"]["keep"])


def test_a_question_that_was_never_asked_is_refused() -> None:
    with raises("recording-incomplete"):
        replayed("windows11-vs2022", compiler=r"C:\other\cl.exe")
