"""The probe on Windows machines. All are composed from documentation (tests/machines.py)."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import pytest

from sessions.probe import machine_checks, main_probe, visual_studio
from sessions.probe.record_types import Compiler, Toolchain
from sessions.shared import knowledge, machine
from sessions.shared.check_result import Check
from tests import fakes, machines
from tests.machines import BUILD_TOOLS_2022, COMMUNITY_2022, COMMUNITY_2026, Studio, Windows

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
    (result,) = [c for c in chain.checks if c.id == name]
    return result


def checked(id_: str, *, external: str = "", target: str = "rtx50", **host: Any) -> Check:
    """A check of a Windows machine with Visual Studio, whose host has these values."""
    chain = fakes.chain(host=fakes.host(system="windows", **host), compiler=fakes.msvc())
    spec = fakes.spec(platform="windows", target=target)
    found = machine_checks.checks(chain, spec, {}, external=external)
    return check(dataclasses.replace(chain, checks=found), id_)


def chosen(chain: Toolchain) -> Compiler:
    assert chain.compiler is not None
    return chain.compiler


@pytest.mark.parametrize("name", machines.MACHINES)
def test_the_recordings_contain_what_the_probe_asks_of_the_composed_machines(name: str) -> None:
    tape: dict[str, Any] = dict(machines.COMPOSED)
    ask = machine.recording(machines.machine(machines.MACHINES[name]), tape)
    for cuda in ("13.1", "13.4"):
        main_probe.probe(ask, fakes.spec(platform="windows", cuda=cuda), None)
    main_probe.probe(ask, fakes.spec(platform="windows", toolkit="system"), None)
    if os.environ.get("BLACKWHEEL_REGOLD"):
        machine.save(tape, FOLDER / name)
    kept = json.loads((FOLDER / name / "machine.json").read_text(encoding="utf-8"))
    assert tape == kept


def test_each_recording_tells_whether_it_was_recorded_or_composed() -> None:
    tables = (FOLDER / "README.md").read_text(encoding="utf-8").split("Composed")
    assert len(tables) == 2
    listed: dict[str, str] = {}
    for kind, text in zip(("recorded", "composed"), tables, strict=True):
        listed |= {line.split("`")[1]: kind for line in text.splitlines() if line.startswith("| `")}
    kept = {}
    for path in FOLDER.glob("*/machine.json"):
        tape = json.loads(path.read_text(encoding="utf-8"))
        kept[path.parent.name] = "composed" if "COMPOSED" in tape else "recorded"
    assert listed == kept
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
def test_the_newest_compiler_that_the_cuda_version_accepts_is_chosen(
    name: str, cuda: str, version: str, status: str
) -> None:
    chain = replayed(name, cuda=cuda)
    assert (chosen(chain).version, check(chain, "compiler").status) == (version, status)
    assert chosen(chain).variables["VCTOOLSVERSION"] == "14" + version.removeprefix("19")
    assert chain.python is not None
    assert chain.python.found_via == "py -3.11 on PATH"


def test_vs_2026_with_cuda_13_1_is_a_warning_that_names_the_risk() -> None:
    found = check(replayed("windows11-vs2026"), "compiler")
    assert "CUDA is told to allow it" in found.summary
    assert "CUDA accepts msvc 1920 to 1949" in found.evidence
    assert "have crashed" in found.evidence
    assert "nox -s smoke" in found.evidence
    assert "--cuda 13.4" in found.remedy
    assert "MSVC v143" in found.remedy


def test_an_older_toolset_in_vs_2026_is_chosen_for_cuda_13_1() -> None:
    both = dataclasses.replace(COMMUNITY_2026, toolsets=("14.44.35207", "14.50.35717"))
    compiler = chosen(composed(Windows((both,))))
    assert (compiler.version, compiler.toolset) == (VS2022, "14.44.35207")
    assert compiler.vcvars == rf"{COMMUNITY_2026.folder}\VC\Auxiliary\Build\vcvars64.bat"
    assert compiler.found_via == "Visual Studio Community 2026"


NO_CPP = dataclasses.replace(COMMUNITY_2022, toolsets=())
VS2017 = Studio("Visual Studio Community 2017", r"C:\VS2017", "15.9.28307.2092", ("14.16.27023",))


HALF_INSTALLED = machines.MACHINES["windows11-half-installed"]
MISSING = r"C:\no\cl.exe"


@pytest.mark.parametrize(
    ("windows", "named", "compilers", "text"),
    [
        (Windows(), None, 0, "no Visual Studio 2019 or later"),
        (Windows(), None, 0, "winget install"),
        (Windows((VS2017,)), None, 0, "no Visual Studio 2019 or later"),
        (HALF_INSTALLED, None, 1, "cl.exe): its installation is not complete"),
        (HALF_INSTALLED, None, 1, "(vswhere, its installation is not complete)"),
        (Windows((NO_CPP,)), None, 0, "Visual Studio Community 2022 17.14.36811.4"),
        (Windows((NO_CPP,)), None, 0, "Desktop development with C++"),
        (Windows((COMMUNITY_2022,)), MISSING, 2, f"{MISSING} is not a C++ compiler that runs"),
    ],
)
def test_without_a_usable_visual_studio_the_check_says_why(
    windows: Windows, named: str | None, compilers: int, text: str
) -> None:
    chain = composed(windows, compiler=named)
    assert (chain.compiler, len(chain.compilers)) == (None, compilers)
    found = check(chain, "compiler")
    assert found.status == "fail"
    assert text in f"{found.summary}\n{found.evidence}\n{found.remedy}"


def test_the_remedy_for_a_missing_python_is_that_of_windows() -> None:
    chain = fakes.chain(host=fakes.host(system="windows"), python=None, compiler=fakes.msvc())
    checks = machine_checks.checks(chain, fakes.spec(platform="windows"), {})
    found = check(dataclasses.replace(chain, checks=checks), "python")
    assert found.status == "fail"
    assert "winget install Python.Python.3.11" in found.remedy
    assert "apt" not in found.remedy


def test_a_preview_is_used_only_with_prerelease() -> None:
    preview = dataclasses.replace(COMMUNITY_2026, preview=True)
    windows = Windows((preview, BUILD_TOOLS_2022))
    assert chosen(composed(windows, cuda="13.4")).version == VS2022
    assert chosen(composed(windows, cuda="13.4", prerelease=True)).version == VS2026


def test_vswhere_is_found_on_path_if_it_is_not_in_its_documented_folder() -> None:
    usual, other = machines.machine(Windows((COMMUNITY_2022,))), r"C:\tools\vswhere.exe"

    def ask(question: str, *words: str) -> Any:
        if (question, *words) == ("which", "vswhere"):
            return [other]
        if question == "run" and words[0] == machines.VSWHERE:
            return {"returncode": 127, "output": "cannot find the file"}
        return usual(question, *(word.replace(other, machines.VSWHERE) for word in words))

    assert chosen(main_probe.probe(ask, fakes.spec(platform="windows"), None)).version == VS2022


def test_visual_studio_2019_can_be_used_with_every_cuda_13() -> None:
    folder = r"C:\Program Files (x86)\Microsoft Visual Studio\2019\Professional"
    old = Studio("Visual Studio Professional 2019", folder, "16.11.36107.9", ("14.29.30133",))
    for cuda in ("13.1", "13.4"):
        chain = composed(Windows((old,)), cuda=cuda)
        assert (chosen(chain).version, check(chain, "compiler").status) == ("19.29.30133", "ok")


def test_a_named_compiler_is_used_with_its_own_visual_studio() -> None:
    windows = Windows((COMMUNITY_2026, COMMUNITY_2022))
    path = rf"{COMMUNITY_2022.folder}\VC\Tools\MSVC\14.38.33130\bin\Hostx64\x64\cl.exe"
    compiler = chosen(composed(windows, compiler=path))
    assert (compiler.version, compiler.found_via) == ("19.38.33130", "--compiler")
    assert compiler.variables["VCTOOLSVERSION"] == "14.38.33130"


TOO_LONG = "The input line is too long."


@pytest.mark.parametrize(
    ("sdk", "answer", "text"),
    [
        (False, None, "found no Windows SDK"),
        (True, {"variables": {}, "output": TOO_LONG}, TOO_LONG),
    ],
)
def test_an_environment_that_cannot_be_set_is_an_error(
    sdk: bool, answer: dict[str, Any] | None, text: str
) -> None:
    recorded = machines.machine(Windows((dataclasses.replace(BUILD_TOOLS_2022, sdk=sdk),)))

    def ask(question: str, *words: str) -> Any:
        return answer if answer and question == "vcvars" else recorded(question, *words)

    found = check(main_probe.probe(ask, fakes.spec(platform="windows"), None), "compiler")
    assert found.status == "fail"
    assert text in found.evidence
    assert "Visual Studio Installer" in found.remedy


@pytest.mark.parametrize(
    ("changes", "found"),
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
def test_problem_of_finds_the_environment_of_another_compiler(
    changes: dict[str, str], found: str
) -> None:
    compiler = fakes.msvc()
    assert visual_studio.problem_of(compiler.variables, compiler) == ""
    assert found in visual_studio.problem_of({**compiler.variables, **changes}, compiler)


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
def test_parse_cl_reads_banners_in_every_language(banner: str, version: str | None) -> None:
    assert visual_studio.parse_cl(banner + "\nCopyright (C) Microsoft Corporation.") == version


def test_a_vswhere_that_prints_no_json_finds_nothing() -> None:
    assert visual_studio.parse_vswhere("Visual Studio Locator version 3.1.7\nError 0x57") == []


def test_the_installed_toolkit_of_the_targets_version_is_chosen() -> None:
    chain = replayed("windows11-cuda12.8-13.0-13.1-rtx5090", toolkit="system")
    assert [t.version for t in chain.toolkits] == ["13.1.115", "13.0.88", "12.8.93"]
    assert chain.toolkit is not None
    assert chain.toolkit.version == "13.1.115"
    assert chain.toolkit.accepts == knowledge.toolkit("13.1").accepts
    assert check(chain, "gpu").summary == "GPU 0: NVIDIA GeForce RTX 5090, 12.0"
    assert "fail" not in {c.status for c in chain.checks}


def test_a_toolkit_in_another_folder_is_found_by_the_variable_of_its_version() -> None:
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


WHEEL = "llama_cpp_python-0.3.16-cp311-cp311-win_amd64.whl"


@pytest.mark.parametrize(
    ("root", "cache", "target", "external", "status"),
    [
        (103, 96, "a", "", "ok"),
        (103, 97, "a", "", "fail"),
        (104, 96, "a", "", "fail"),
        (103, 1, "rtx50+arch120-real-121-real", "", "fail"),
        (55, 1, "rtx50", WHEEL, "ok"),  # its folder is deeper
        (56, 1, "rtx50", WHEEL, "fail"),
    ],
)
def test_paths_that_would_be_too_long_fail(
    root: int, cache: int, target: str, external: str, status: str
) -> None:
    folders = {"root": "C:\\" + "r" * (root - 3), "cache": "c" * cache}
    found = checked("paths", external=external, target=target, **folders)
    assert found.status == status
    assert ("is the greatest length" in found.evidence) is (status == "fail")
    assert bool(found.remedy) is (status == "fail")


def test_letters_that_a_compiler_may_not_read_are_a_warning() -> None:
    found = checked("paths", root=r"C:\Users\José\bw", cache=r"C:\bw-cache")
    assert found.status == "warn"
    assert "BLACKWHEEL_CACHE" in found.remedy
    assert "code page were tested" in found.evidence


@pytest.mark.parametrize(("changes", "fails"), [({}, True), ({"cuda": None, "archs": ()}, False)])
def test_a_folder_for_temporary_files_with_a_space_fails_for_nvcc(
    changes: dict[str, Any], fails: bool
) -> None:
    folder = r"C:\Users\José Pérez\AppData\Local\Temp"
    chain = composed(Windows((COMMUNITY_2022,), env={"TEMP": folder, "TMP": folder}), **changes)
    assert [c.id for c in chain.checks if c.status == "fail"] == ["temporary"] * fails
    if fails:
        assert folder in check(chain, "temporary").evidence
        assert "set TEMP and TMP" in check(chain, "temporary").remedy
