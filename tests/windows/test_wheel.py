"""A real wheel for Windows: repaired with delvewheel, then checked in the Windows Python.

It is the cpu target of the real source, cross-built (``crossbuild.py``). verify, smoke and bundle
run in the Windows Python, in a folder whose path has a space and letters beyond ASCII.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions.build import import_hooks, platform_tag
from sessions.build.record_types import BuildEnv, Wheel
from sessions.command_line import parse_options
from sessions.fetch import build_tools
from sessions.probe import ms_runtime
from sessions.run import check_smoke_report
from sessions.run.record_types import SmokeReport
from sessions.shared import knowledge, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.verify import main_verify, wheel_rules
from sessions.verify.metadata import PACKAGE
from sessions.verify.record_types import VerifyReport
from tests.integration.wheels import Draft, checked
from tests.windows import checkout
from tests.windows.crossbuild import compiled
from tests.windows.lab import Lab, Ran

ALONE = {"PATH": r"C:\windows\system32"}  # the least that a program needs


# ---- The file ----------------------------------------------------------------------------------


def test_it_contains_microsofts_runtime_under_unique_names(sound: Draft) -> None:
    vendored = [name for name in sound.members if name.startswith(f"{ms_runtime.FOLDER}/")]
    assert sorted(map(ms_runtime.original, vendored)) == ["msvcp140.dll", "vcomp140.dll"]
    assert all(ms_runtime.original(name) not in name for name in vendored)
    libraries = {name for name in sound.members if name.startswith(f"{PACKAGE}/lib/")}
    names = {"ggml-base", "ggml", "llama", "mtmd"}
    modules = {name for name in libraries if "/ggml-cpu-" in name}
    assert {f"{PACKAGE}/lib/ggml-cpu-{name}.dll" for name in ("x64", "haswell")} <= modules
    libraries -= modules
    assert libraries == {f"{PACKAGE}/lib/{name}.dll" for name in names}


def test_repairing_the_same_build_gives_the_same_bytes(
    built: Context, wheel: Path, tmp_path: Path
) -> None:
    (raw,) = (built.build / "dist").glob("*.whl")
    settings = records.need(built.record("configure"), "configure", BuildEnv)
    folders = sorted({path.parent for path in ms_runtime.find(settings.variables).values()})
    python = str(venvs.program(build_tools.tools(built), "python"))
    platform_tag.windows(python, raw, tmp_path, folders, settings.variables)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_a_library_that_visual_studio_does_not_redistribute_is_refused(
    built: Context, tmp_path: Path
) -> None:
    (raw,) = (built.build / "dist").glob("*.whl")
    settings = records.need(built.record("configure"), "configure", BuildEnv)
    crt = ms_runtime.find(settings.variables)["msvcp140.dll"].parent
    python = str(venvs.program(build_tools.tools(built), "python"))
    with pytest.raises(Problem, match="delvewheel refuses") as caught:
        platform_tag.windows(python, raw, tmp_path, [crt], settings.variables)
    assert "Unable to find library: vcomp140.dll" in caught.value.evidence


def test_every_check_of_verify_passes(built: Context) -> None:
    verifying = dataclasses.replace(built, session="verify", asked=frozenset({"verify"}))
    (built.build / "verify.json").unlink(missing_ok=True)
    main_verify.main(verifying)
    report = records.need(built.record("verify"), "verify", VerifyReport)
    checks = [check for group in report.groups for check in group.checks]
    assert {check.status for check in checks} == {"ok"}


def test_on_linux_a_windows_wheel_is_checked_with_the_rules_for_windows(
    built: Context, wheel: Path, tmp_path: Path
) -> None:
    given = tmp_path / wheel.name  # without a record beside it
    shutil.copy(wheel, given)
    linux = dataclasses.replace(
        built,
        session="verify",
        root=tmp_path,
        spec=dataclasses.replace(built.spec, platform="linux"),
        options=parse_options.parse(["--target", "cpu", "--wheel", str(given)]),
    )
    main_verify.main(linux)
    (left,) = linux.build.glob("given/*/verify.json")
    report = records.need(left, "verify", VerifyReport)
    checks = {check.id: check for group in report.groups for check in group.checks}
    assert {n for n, c in checks.items() if c.status != "ok"} == {"reproducible", "freshness"}
    assert {c.status for c in checks.values()} == {"ok", "warn"}
    assert checks["libraries"].summary == "libraries: 13 × PE for x86-64"


def as_built(built: Context, wheel: Draft) -> None:
    """The wheel from the build, before delvewheel."""
    (raw,) = (built.build / "dist").glob("*.whl")
    with zipfile.ZipFile(raw) as archive:
        wheel.members = {n: archive.read(n) for n in archive.namelist() if "RECORD" not in n}


def loaded_by_delvewheel(_: Context, wheel: Draft) -> None:
    """With os.add_dll_directory only, which has no effect on how upstream loads a library."""
    name = f"{PACKAGE}/__init__.py"
    wheel.members[name] = wheel.members[name].removeprefix(import_hooks.DLLS_HOOK.encode())
    del wheel.members[f"{PACKAGE}/{import_hooks.DLLS}"]


def without_openmp(_: Context, wheel: Draft) -> None:
    (name,) = (n for n in wheel.members if "vcomp140" in n)
    del wheel.members[name]


def with_another_runtime(_: Context, wheel: Draft) -> None:
    one, other = sorted(n for n in wheel.members if n.startswith(f"{ms_runtime.FOLDER}/"))
    wheel.members[one] = wheel.members[other]


TAMPERED: dict[str, tuple[Callable[[Context, Draft], None], set[str], str]] = {
    "as built": (as_built, {"imports", "sbom"}, "msvcp140.dll: nothing provides it"),
    "loaded by delvewheel": (loaded_by_delvewheel, {"imports"}, "nothing loads it from"),
    "without OpenMP": (without_openmp, {"imports", "sbom"}, "nothing provides it (needed"),
    "with another runtime": (with_another_runtime, {"sbom"}, "not the file that is named"),
}


@pytest.mark.parametrize(("plant", "expected", "word"), TAMPERED.values(), ids=list(TAMPERED))
def test_a_wheel_that_would_not_start_on_windows_fails(
    built: Context,
    sound: Draft,
    tmp_path: Path,
    plant: Callable[[Context, Draft], None],
    expected: set[str],
    word: str,
) -> None:
    bad = sound.copy()
    plant(built, bad)
    path = bad.pack(tmp_path / "wheel", recorded=False)
    checks = checked(path, built.spec, tmp_path / "scratch", wheel_rules.upstream("0.3.16"))
    assert {c.id for c in checks.values() if c.status == "fail"} == expected
    assert word in "\n".join(check.evidence for check in checks.values())


# ---- In the Windows Python ---------------------------------------------------------------------


def whole_report(project: Path) -> SmokeReport:
    """The report of ``nox -s smoke`` in the Windows Python."""
    return records.need(project / "build" / "cpu" / "smoke-cpu.json", "smoke", SmokeReport)


def test_verify_and_smoke_pass_in_the_windows_python(project: Path, proven: Ran) -> None:
    assert re.search(r"verify: (up to date, )?19 checks passed", proven.output)
    report = whole_report(project)
    assert {check.status for check in report.checks} == {"ok"}
    assert len(report.cases) == 400
    (modules,) = (check.summary for check in report.checks if check.id == "cpu-modules")
    assert "right results from" in modules
    assert "haswell" in modules
    assert "x64" in modules
    assert report.system.startswith("Windows")


def test_no_path_is_longer_than_the_probe_allows_for(lab: Lab, project: Path, smoked: Path) -> None:
    known = knowledge.load("windows.toml")["paths"]
    cache = lab.drive / "users" / "José Pérez" / "AppData" / "Local" / "bw"
    for top, name in ((smoked.parent, "smoke"), (cache, "cache"), (project, "checkout")):
        parts = [path for path in top.iterdir() if path.name in ("smoke", ".nox") or top == cache]
        depths = [len(str(path.relative_to(top))) for part in parts for path in part.rglob("*")]
        assert known[name] - 15 <= max(depths) <= known[name], name


def test_delvewheel_in_the_windows_python_writes_the_same_wheel(
    lab: Lab, project: Path, proven: Ran, built: Context, wheel: Path, folder: Path
) -> None:
    (raw,) = (built.build / "dist").glob("*.whl")
    shutil.copy(raw, folder)
    code = """if True:
        import sys
        from pathlib import Path
        sys.path.insert(0, ".")
        from sessions.build import platform_tag
        from sessions.build.record_types import BuildEnv
        from sessions.probe import ms_runtime
        from sessions.shared import records
        build = records.need(Path("build/cpu/configure.json"), "configure", BuildEnv)
        folders = {path.parent for path in ms_runtime.find(build.variables).values()}
        python, raw, out = sys.argv[1:]
        platform_tag.windows(python, Path(raw), Path(out), sorted(folders), build.variables)
    """
    settings = checkout.record(project, "cpu", "configure", BuildEnv)
    tools = settings.variables["PATH"].split(";")[0] + r"\python.exe"
    pythons = project.glob(
        ".nox/blackwheel-*/Scripts/python.exe"
    )  # of the present lock and older ones
    nox = max(pythons, key=lambda python: python.stat().st_mtime)
    out = folder / "repaired"
    env = checkout.environment(lab)
    lab.run(nox, "-c", code, tools, folder / raw.name, out, env=env, cwd=project).well()
    assert (out / wheel.name).read_bytes() == wheel.read_bytes()


LOADED = """if True:
    import json, sys
    {before}
    import llama_cpp
    sys.path.insert(0, sys.argv[1])
    import llama
    print(json.dumps([list(llama._modules()), llama_cpp.llama_supports_mmap()]))
"""
# Without our module that loads the libraries: only upstream's code loads them.
UPSTREAM = """import os, types
    name = "llama_cpp._bundled_dlls"
    sys.modules[name] = types.SimpleNamespace(load=lambda: None)
"""


def import_it(
    lab: Lab, project: Path, smoked: Path, before: str = "", **more: Any
) -> tuple[Ran, list[str]]:
    """Import the wheel in the venv of the smoke run. Returns the libraries that were loaded."""
    python = smoked / "venv" / "Scripts" / "python.exe"
    code = LOADED.format(before=before)
    payload = project / "sessions" / "payload"
    ran = lab.run(python, "-I", "-c", code, payload, **{"env": ALONE, **more})
    if ran.returncode:
        return ran, []
    modules, works = json.loads(ran.output.splitlines()[-1])
    assert works
    return ran, [name.lower() for name in modules]


def loaded_from(modules: list[str], name: str) -> str:
    (path,) = (m for m in modules if re.search(rf"\\{name}[^\\]*$", m))
    return path.rpartition("\\")[0]


def test_import_loads_only_the_wheels_own_libraries(lab: Lab, project: Path, smoked: Path) -> None:
    ran, modules = import_it(lab, project, smoked)
    ran.well()
    site = lab.windows(smoked / "venv" / "Lib" / "site-packages").lower()
    for name in ("llama.dll", "ggml.dll", "ggml-base.dll"):
        assert loaded_from(modules, re.escape(name)) == rf"{site}\llama_cpp\lib"
    # Compared by full names, because NumPy has another msvcp140-….dll.
    vendored = [*(smoked / "venv" / "Lib" / "site-packages" / ms_runtime.FOLDER).glob("*.dll")]
    originals = sorted(ms_runtime.original(path.name) for path in vendored)
    assert originals == ["msvcp140.dll", "vcomp140.dll"]
    for path in vendored:
        assert loaded_from(modules, re.escape(path.name)) == rf"{site}\{ms_runtime.FOLDER}"


@pytest.mark.parametrize("more", ["", "os.add_dll_directory(sys.prefix + FOLDER)"])
def test_without_our_loader_the_import_fails(
    lab: Lab, project: Path, smoked: Path, more: str
) -> None:
    more = more.replace("FOLDER", repr(rf"\Lib\site-packages\{ms_runtime.FOLDER}"))
    ran, _ = import_it(lab, project, smoked, UPSTREAM + f"    {more}")
    assert ran.returncode == 1
    assert "Failed to load shared library" in ran.output


def test_one_cpu_module_is_loaded_and_the_user_may_choose_it(
    lab: Lab, project: Path, smoked: Path
) -> None:
    lib = smoked / "venv" / "Lib" / "site-packages" / PACKAGE / "lib"
    ran, modules = import_it(lab, project, smoked)
    ran.well()
    (best,) = (path for path in modules if r"\ggml-cpu-" in path)
    assert best.startswith(lab.windows(lib).lower())
    assert not best.endswith("-x64.dll")  # every present machine can run a better one
    _, modules = import_it(lab, project, smoked, env={**ALONE, "BLACKWHEEL_CPU": "x64"})
    named = [path for path in modules if r"\ggml-cpu-" in path]
    assert named == [lab.windows(lib / "ggml-cpu-x64.dll").lower()]
    ran, _ = import_it(lab, project, smoked, env={**ALONE, "BLACKWHEEL_CPU": "z80"})
    assert ran.returncode == 1
    assert "ImportError: llama_cpp has no CPU module 'z80' that this CPU can run" in ran.output


@pytest.fixture
def decoys(folder: Path, wheel: Path) -> Path:
    """A folder with broken libraries that have the names of those in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(n).name for n in archive.namelist() if n.startswith(f"{PACKAGE}/lib/")]
    assert {"ggml.dll", "ggml-base.dll", "llama.dll", "ggml-cpu-x64.dll"} <= set(names)
    for name in names:
        compiled(folder / name, "int nothing(void) { return 0; }")
    return folder


def test_libraries_in_the_current_folder_or_on_path_are_not_loaded(
    lab: Lab, project: Path, smoked: Path, decoys: Path
) -> None:
    lib = lab.windows(smoked / "venv" / "Lib" / "site-packages" / PACKAGE / "lib").lower()
    on_path = {"PATH": f"{lab.windows(decoys)};{ALONE['PATH']}"}
    for env, cwd in ((ALONE, decoys), (on_path, None)):
        ran, modules = import_it(lab, project, smoked, env=env, cwd=cwd)
        ran.well()
        for name in (r"ggml\.dll", r"ggml-base\.dll", r"llama\.dll", "ggml-cpu-"):
            assert loaded_from(modules, name) == lib
    # Upstream's code alone would load them.
    runtime = smoked / "venv" / "Lib" / "site-packages" / ms_runtime.FOLDER
    env = {"PATH": ALONE["PATH"] + ";" + lab.windows(runtime)}
    import_it(lab, project, smoked, UPSTREAM, env=env)[0].well()
    ran, _ = import_it(lab, project, smoked, UPSTREAM, env=env, cwd=decoys)
    assert ran.returncode == 1
    # Windows does not load a library that needs a missing function; Wine fails at the call.
    assert "unimplemented function ggml-base.dll." in ran.output


def test_libraries_in_a_folder_of_the_user_are_loaded(
    lab: Lab, project: Path, smoked: Path, folder: Path
) -> None:
    lib = smoked / "venv" / "Lib" / "site-packages" / PACKAGE / "lib"
    shutil.copytree(lib, folder / "own lib")
    env = {**ALONE, "LLAMA_CPP_LIB_PATH": lab.windows(folder / "own lib")}
    ran, modules = import_it(lab, project, smoked, env=env)
    ran.well()
    for name in (r"llama\.dll", r"ggml\.dll", r"ggml-base\.dll"):
        assert loaded_from(modules, name) == lab.windows(folder / "own lib").lower()


# ---- Crashes -----------------------------------------------------------------------------------

PLANTED = """

def _crash(job):
    import faulthandler
    say(model=job["type"])
    if job["type"] == "Q8_0":
        time.sleep(3600)
    say(case=3)
    faulthandler._read_null()


def _null(job):
    import ctypes
    ctypes.string_at(0)


WORK.update(answers=_crash, api=_null)
"""


def test_a_crash_and_a_hang_are_failed_checks(
    lab: Lab, project: Path, smoked: Path, folder: Path
) -> None:
    shutil.copytree(project / "sessions" / "payload", folder / "payload")
    with (folder / "payload" / "child.py").open("a", encoding="utf-8") as text:
        text.write(PLANTED)
    # A short limit only for the type that hangs, so that a busy machine ends no other.
    main = folder / "payload" / "__main__.py"
    limit = 'job.get("timeout", TIMEOUT)'
    assert limit in main.read_text(encoding="utf-8")
    mine = '5 if more.get("type") == "Q8_0" else TIMEOUT'
    main.write_text(main.read_text(encoding="utf-8").replace(limit, mine), encoding="utf-8")
    whole = json.loads((smoked / "job.json").read_text(encoding="utf-8"))
    types = ["F16", "Q8_0"]
    more = {"types": types, "needed": types, "folder": lab.windows(folder / "run")}
    (folder / "run").mkdir()
    (folder / "job.json").write_text(json.dumps({**whole, **more}), encoding="utf-8")
    python = smoked / "venv" / "Scripts" / "python.exe"
    payload, job, report = (folder / n for n in ("payload", "job.json", "report.json"))
    lab.run(python, "-I", payload, job, report, env=checkout.environment(lab)).well()
    checks = json.loads(report.read_text(encoding="utf-8"))["report"]["checks"]
    found = {check["id"]: check for check in checks}
    assert found["device"]["status"] == "ok"
    answers = found["known-answers"]["evidence"]
    assert "F16, batch 1, flash attention, KV q4_0: ended by 0xc0000005: " in answers
    assert "Windows fatal exception: access violation" in answers
    assert "Q8_0: ended by the time limit" in answers
    assert "access violation" in found["grammar"]["evidence"]
    assert {found[id_]["status"] for id_ in ("known-answers", "grammar", "state")} == {"fail"}


# ---- The bundle --------------------------------------------------------------------------------


SHORT = {"F16", "Q4_K"}


@pytest.fixture
def short(project: Path, proven: Ran, folder: Path) -> Path:
    """The bundle with two types instead of all, otherwise as ``bundle`` wrote it."""
    whole = project / "wheels" / "cpu" / "smoke-cpu.pyz"
    path = folder / "smoke-cpu.pyz"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "manifest.json":
                manifest = json.loads(data)
                manifest["job"] |= {"types": sorted(SHORT), "needed": sorted(SHORT)}
                data = json.dumps(manifest).encode()
            new.writestr(info, data)
    return path


def test_the_bundle_needs_only_python(
    lab: Lab, project: Path, wheel: Path, record: Wheel, short: Path
) -> None:
    env = {**checkout.environment(lab), "PIP_NO_INDEX": "1"}
    temporary = lab.drive / "windows" / "temp"
    before = set(temporary.iterdir())
    cwd = short.parent / "Größe 日本"
    cwd.mkdir()
    ran = lab.run(lab.python, short, env=env, cwd=cwd, timeout=1800).well()
    text = (cwd / "smoke-report.json").read_text(encoding="utf-8")
    report = check_smoke_report.opened(text, record.target, records.file_sha256(wheel), "there")
    # Its only problem is that the other types are missing.
    left_out = {gap.partition(":")[0] for gap in check_smoke_report.gaps(report)}
    assert left_out == {case["type"] for case in whole_report(project).cases} - SHORT
    assert check_smoke_report.failed(report) == ["known-answers"]
    assert len(report.cases) == 32
    assert all(map(check_smoke_report.holds, report.cases))
    assert "ok   known-answers: 32 cases" in ran.output
    assert set(temporary.iterdir()) == before
