"""The program of a bundle: where it refuses, what it installs, and what it says at the end."""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from sessions.payload import (
    bundle_launch,
    bundle_refusals,
    cgroups,
    gpu,
    installing,
    report_file,
    run_folder,
    smoke_checks,
)
from tests import fakes

Told = pytest.CaptureFixture[str]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PLATFORM = sysconfig.get_platform().replace("-", "_")


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest that fits this Python and system."""
    told = {k: v for k, v in fakes.smoke_job().items() if k not in ("folder", "layers", "venv")}
    base: dict[str, Any] = {
        "target": "rtx50",
        "arguments": "--target rtx50",
        "pythons": [HERE],
        "platforms": [PLATFORM],
        "driver": 580,
        "bad_drivers": {},
        "runtime": ["nvidia-cuda-runtime<14,>=13.1.80", "nvidia-cublas<14,>=13.2.2.2"],
        "capabilities": ["12.0"],
        "job": told,
    }
    return {**base, **changes}


def options(**changes: Any) -> argparse.Namespace:
    """The options of a command line without any."""
    base = {"device": None, "report": "r.json", "model": None, "offline": False, "sign": None}
    base |= {"target": None, "reports": None, "bench": False, "ops": False}
    return argparse.Namespace(**{**base, **changes})


def stopped(work: Callable[[], object], capsys: Told) -> str:
    """What is told of a run that could not be made."""
    with pytest.raises(SystemExit) as caught:
        work()
    assert caught.value.code == 2
    return capsys.readouterr().err


# ---- where it refuses ---------------------------------------------------------------------------


def test_the_python_and_the_system_of_the_wheel_are_taken() -> None:
    bundle_refusals.fits(manifest())
    bundle_refusals.fits(manifest(platforms=["plan9_mips", PLATFORM]))


@pytest.mark.parametrize(
    ("platform", "python"), [("linux_x86_64", "python3.99"), ("win_amd64", "py -3.99")]
)
def test_another_python_is_refused_with_the_command_to_type(
    platform: str, python: str, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/downloads/smoke-rtx50.pyz"])
    told = manifest(pythons=["3.99"], platforms=[platform])
    said = stopped(lambda: bundle_refusals.fits(told), capsys)
    assert f"The wheel is for Python 3.99; this is {HERE}." in said
    assert f"Fix: {python} smoke-rtx50.pyz" in said


def test_another_system_is_refused(capsys: Told) -> None:
    said = stopped(lambda: bundle_refusals.fits(manifest(platforms=["plan9_mips"])), capsys)
    assert "The wheel is for plan9_mips; this is" in said
    assert "Fix: build the wheel and the bundle for this system" in said


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Lets NVML show what a test names."""
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def show(nvml: dict[str, Any]) -> None:
        beside = SimpleNamespace(
            read=lambda: nvml,
            choose=gpu.choose,
            ELSEWHERE=gpu.ELSEWHERE,
            selector=gpu.selector,
            driver_warning=gpu.driver_warning,
            second=gpu.second,
        )
        monkeypatch.setitem(sys.modules, "gpu", beside)

    return show


def test_without_a_gpu_it_ends_with_what_mends_it(
    shown: Callable[[dict[str, Any]], None], tmp_path: Path, capsys: Told
) -> None:
    shown({"error": "NVML Shared Library Not Found"})
    said = stopped(lambda: bundle_launch._gpu(tmp_path, manifest(), options()), capsys)
    assert "No NVIDIA driver answers here (NVML Shared Library Not Found)." in said
    assert "Fix: run this file on a machine with such a GPU, or with --device cpu" in said


def test_the_operator_test_is_not_offered_on_the_cpu_which_it_refuses(
    shown: Callable[[dict[str, Any]], None], tmp_path: Path, capsys: Told
) -> None:
    shown({"error": "NVML Shared Library Not Found"})
    said = stopped(lambda: bundle_launch._gpu(tmp_path, manifest(), options(ops=True)), capsys)
    assert "Fix: run this file on a machine with such a GPU" in said
    assert "--device cpu" not in said


def test_another_gpu_is_refused(
    shown: Callable[[dict[str, Any]], None], tmp_path: Path, capsys: Told
) -> None:
    shown(fakes.nvml(fakes.nvml_gpu(name="NVIDIA H200", compute_capability="9.0")))
    said = stopped(lambda: bundle_launch._gpu(tmp_path, manifest(), options()), capsys)
    assert "it is for compute capability 12.0; NVIDIA H200 has 9.0" in said


def test_the_gpu_is_taken_with_its_driver(
    shown: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    shown(fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1)))
    found = bundle_launch._gpu(tmp_path, manifest(), options(device="1"))
    expected = {"visible": "1", "second": None, "release": "580.159.04"}
    assert found == {**fakes.nvml_gpu(index=1), **expected}
    beside = [str(tmp_path / "bundle" / name) for name in ("payload", "nvml")]
    assert sys.path[:2] == beside  # nothing is installed yet


def test_a_gpu_that_a_scheduler_hides_is_not_taken(
    shown: Callable[[dict[str, Any]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Told,
) -> None:
    shown(fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = bundle_launch._gpu(tmp_path, manifest(), options())
    assert found
    assert (found["index"], found["visible"]) == (1, "1")
    said = stopped(lambda: bundle_launch._gpu(tmp_path, manifest(), options(device="0")), capsys)
    assert "CUDA_VISIBLE_DEVICES=1" in said


@pytest.mark.parametrize(("known", "times"), [({"580.159.04": "it aborts"}, 1), ({}, 0)])
def test_a_driver_that_is_reported_to_fail_is_told(
    shown: Callable[[dict[str, Any]], None],
    tmp_path: Path,
    capsys: Told,
    known: dict[str, str],
    times: int,
) -> None:
    shown(fakes.nvml(fakes.nvml_gpu()))
    bundle_launch._gpu(tmp_path, manifest(bad_drivers=known), options())
    assert capsys.readouterr().err.count("580.159.04 is reported to fail: it aborts") == times


@pytest.mark.parametrize(
    ("changes", "asked"),
    [({}, "cpu"), ({"capabilities": []}, None)],
    ids=["asked-for", "a-wheel-for-the-cpu"],
)
def test_on_the_cpu_no_gpu_is_looked_for(
    changes: dict[str, Any],
    asked: str | None,
    shown: Callable[[dict[str, Any]], None],
    tmp_path: Path,
) -> None:
    shown({"error": "gone"})
    assert bundle_launch._gpu(tmp_path, manifest(**changes), options(device=asked)) is None


# ---- what it installs ---------------------------------------------------------------------------


class Programs:
    """Plays subprocess.run."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.codes: list[int] = []

    def __call__(self, command: Sequence[str], **given: Any) -> Any:
        if list(command[-2:]) == ["config", "list"]:
            return subprocess.CompletedProcess(list(command), 0, "global.target='/x'\n", "")
        if "pip" in command:
            assert {"PIP_TARGET", "PIP_USER"} & given["env"].keys() == set()
            assert given["env"]["PIP_CONFIG_FILE"] == os.devnull
        assert {"-m", "-I"} & set(command) != {"-m"}  # no file of this folder is a module
        self.commands.append(list(command))
        code = self.codes.pop(0) if self.codes else 0
        text: Any = "what it says" if given.get("text") else b"what it says"
        return subprocess.CompletedProcess(list(command), code, text, text)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    played = Programs()
    monkeypatch.setattr(subprocess, "run", played)
    monkeypatch.setenv("PIP_USER", "1")
    return played


def test_the_bundles_wheels_are_installed_and_nothing_else(
    programs: Programs, tmp_path: Path
) -> None:
    wheels = tmp_path / "bundle" / "wheels"
    wheels.mkdir(parents=True)
    for name in ("b.whl", "a.whl", "notes.txt"):
        (wheels / name).write_bytes(b"")
    python = installing.install(tmp_path)
    assert Path(python).is_relative_to(tmp_path / "venv")
    made, installed = programs.commands
    assert made == [sys.executable, "-I", "-m", "venv", str(tmp_path / "venv")]
    assert installed[0] == python
    assert installed[-4:-2] == ["--no-index", "--no-deps"]
    assert [Path(word).name for word in installed[-2:]] == ["a.whl", "b.whl"]


@pytest.mark.parametrize(
    ("codes", "what"),
    [
        ([1], "Python could not make a venv."),
        ([0, 1], "pip could not install the bundle's wheels."),
    ],
    ids=["venv", "pip"],
)
def test_an_installation_that_fails_ends_it_with_what_was_said(
    codes: list[int], what: str, programs: Programs, tmp_path: Path, capsys: Told
) -> None:
    programs.codes = codes
    said = stopped(lambda: installing.install(tmp_path), capsys)
    assert what in said
    assert "correct the error that is shown above" in said


# ---- NVIDIA's runtime ---------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A venv as Python makes it here."""
    inside = "Lib" if sys.platform == "win32" else f"lib/python{HERE}"
    (tmp_path / "venv" / inside / "site-packages").mkdir(parents=True)
    return tmp_path / "venv"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NVIDIA's packages in the Python that runs this."""
    folder = tmp_path / "python" / "nvidia" / "cu13"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "libcudart.so.13").write_bytes(b"runtime")
    spec = importlib.machinery.ModuleSpec("nvidia.cu13", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: spec if name == "nvidia.cu13" else real(name)
    )
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "13.1.80")
    return folder


def no_packages(name: str) -> NoReturn:
    raise importlib.metadata.PackageNotFoundError(name)


def linked(venv: Path) -> list[Path]:
    return list(venv.glob("**/site-packages/nvidia/cu13"))


def test_the_runtime_comes_from_pip_where_there_is_a_network(
    programs: Programs, venv: Path, packages: Path
) -> None:
    assert installing.runtime(venv, manifest(), options()) == []
    (command,) = programs.commands
    assert command[-2:] == manifest()["runtime"]
    assert Path(command[0]).is_relative_to(venv)
    assert linked(venv) == []


def test_where_pip_fails_it_comes_from_the_packages_of_the_running_python(
    programs: Programs, venv: Path, packages: Path
) -> None:
    programs.codes = [1]
    assert installing.runtime(venv, manifest(), options()) == [str(packages)]
    (place,) = linked(venv)
    assert (place / "lib" / "libcudart.so.13").read_bytes() == b"runtime"


def test_offline_pip_is_not_asked(programs: Programs, venv: Path, packages: Path) -> None:
    assert installing.runtime(venv, manifest(), options(offline=True)) == [str(packages)]
    assert programs.commands == []


def test_where_links_are_not_allowed_the_packages_are_copied(
    programs: Programs, venv: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    installing.runtime(venv, manifest(), options(offline=True))
    (place,) = linked(venv)
    assert not place.is_symlink()
    assert (place / "lib" / "libcudart.so.13").read_bytes() == b"runtime"


def test_without_packages_an_installed_toolkit_is_left(
    programs: Programs, venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", no_packages)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/usr/local/cuda-13.1")]))
    monkeypatch.setenv("CUDA_PATH", "/opt/cuda")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    programs.codes = [1]
    places = installing.runtime(venv, manifest(), options())
    assert places == ["/opt/cuda", str(Path("/usr/local/cuda-13.1"))]
    assert "an installed toolkit must have them" in capsys.readouterr().out


@pytest.mark.parametrize("kept", ["nvidia-cuda-runtime", "nvidia-cublas"])
def test_one_package_of_two_is_not_enough(
    kept: str, programs: Programs, venv: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        return "13.1.80" if name == kept else no_packages(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert str(packages) not in installing.runtime(venv, manifest(), options(offline=True))
    assert linked(venv) == []


# ---- the checks ---------------------------------------------------------------------------------


class Payload:
    """Plays subprocess.Popen with the payload in it."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.given: dict[str, Any] = {}
        self.stdout = ["noise\n", '@{"done": 1, "total": 9, "now": "offload", "left": null}\n']
        self.returncode = 0
        self.told: dict[str, Any] = {}

    def __call__(self, command: list[str], **given: Any) -> Payload:
        self.command, self.given = command, given
        self.told = json.loads(Path(command[-2]).read_text(encoding="utf-8"))
        Path(command[-1]).write_text(report_file.text(fakes.smoke_report()), encoding="utf-8")
        return self

    def __enter__(self) -> Payload:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def payload(monkeypatch: pytest.MonkeyPatch) -> Payload:
    played = Payload()
    monkeypatch.setattr(subprocess, "Popen", played)
    return played


def proven(folder: Path, device: dict[str, Any] | None, *places: str) -> str:
    job = bundle_launch._job(folder, manifest(), options(), device, list(places))
    return bundle_launch._payload(folder, "/venv/python", job)


def test_the_payload_is_told_of_the_gpu(payload: Payload, tmp_path: Path, capsys: Told) -> None:
    text = proven(
        tmp_path,
        {
            **fakes.nvml_gpu(index=2),
            "visible": "GPU-2",
            "second": "GPU-3",
            "release": "580.159.04",
        },
        "/rt",
    )
    assert report_file.read(text)["device"] == "NVIDIA GeForce RTX 5090"
    told = payload.told
    assert (told["layers"], told["index"], told["jobs"]) == (999, 2, 4)
    assert (told["visible"], told["second"]) == ("GPU-2", "GPU-3")
    assert told["runtime_places"] == ["/rt"]
    assert told["folder"] == str(tmp_path / "run")
    identity = told["identity"]
    assert identity["file"] == fakes.wheel().file
    assert (identity["device"], identity["capability"]) == ("NVIDIA GeForce RTX 5090", "12.0")
    assert identity["driver"] == "580.159.04"
    assert "1 of 9: offload" in capsys.readouterr().out


def test_on_the_cpu_the_payload_is_told_of_none(payload: Payload, tmp_path: Path) -> None:
    proven(tmp_path, None)
    assert payload.told["layers"] == 0
    assert payload.told["jobs"] >= 1
    identity = payload.told["identity"]
    assert (identity["device"], identity["capability"], identity["driver"]) == ("cpu", None, None)


def test_the_payload_gets_what_a_job_here_gets(payload: Payload, tmp_path: Path) -> None:
    # A check that asked for more would fail on the other machine only.
    proven(tmp_path, None)
    assert fakes.smoke_job().keys() <= payload.told.keys()


def test_nothing_of_the_callers_environment_helps_the_wheel(
    payload: Payload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "GGML_CUDA_X"):
        monkeypatch.setenv(name, "/x")
    proven(tmp_path, None)
    assert payload.given["env"]["HOME"] == "/x"
    assert {"LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "GGML_CUDA_X"}.isdisjoint(
        payload.given["env"]
    )
    assert payload.command[:2] == ["/venv/python", "-I"]


@pytest.mark.parametrize(("places", "seen"), [(["/opt/cuda"], "/opt/cuda"), ([], None)])
def test_the_variables_of_a_toolkit_are_handed_on_where_no_package_has_the_runtime(
    places: list[str],
    seen: str | None,
    payload: Payload,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_PATH", "/opt/cuda")
    proven(tmp_path, None, *places)
    assert payload.given["env"].get("CUDA_PATH") == seen


def test_checks_that_end_badly_end_it(payload: Payload, tmp_path: Path, capsys: Told) -> None:
    payload.returncode = 1
    assert "The checks ended with exit code 1." in stopped(lambda: proven(tmp_path, None), capsys)


# ---- all of it ----------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that was started in a folder of its own, its steps played."""
    path = tmp_path / "smoke-rtx50.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_launch, "_gpu", lambda *_: None)
    monkeypatch.setattr(installing, "install", lambda _: "/venv/python")
    monkeypatch.setattr(installing, "runtime", lambda *_: ["/rt"])
    return path


def ran(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, *words: str, checks: list[dict[str, Any]]
) -> int:
    """The exit code of a run whose checks find these checks."""
    text = report_file.text(fakes.smoke_report(checks=checks))
    monkeypatch.setattr(bundle_launch, "_payload", lambda *_: text)
    monkeypatch.setattr(sys, "argv", [str(bundle), *words])
    with pytest.raises(SystemExit) as caught:
        bundle_launch.main()
    return int(caught.value.code or 0)


GOOD = fakes.smoke_report()["checks"]
BAD = {
    "id": "state",
    "status": "fail",
    "summary": "state: it does not work",
    "evidence": "one\ntwo",
    "remedy": "report it",
}


def test_checks_that_hold_end_well_and_leave_their_report(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    assert ran(bundle, monkeypatch, checks=GOOD) == 0
    report = bundle.with_name("smoke-report.json")
    assert report_file.read(report.read_text(encoding="utf-8")) == fakes.smoke_report()
    said = capsys.readouterr().out
    assert "ok   known-answers: 16 cases" in said
    assert f"report: {report.resolve()}" in said
    assert "import it: nox -s smoke -- --target rtx50 --report smoke-report.json" in said


def test_to_import_a_report_the_options_of_the_wheel_are_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    words = "--target rtx50 --python 3.12"
    with zipfile.ZipFile(bundle, "w") as archive:
        told = manifest(target="rtx50+py3.12", arguments=words)
        archive.writestr("manifest.json", json.dumps(told))
    ran(bundle, monkeypatch, checks=GOOD)
    said = capsys.readouterr().out
    assert f"import it: nox -s smoke -- {words} --report smoke-report.json" in said


def test_a_check_that_fails_is_told_and_is_the_exit_code(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    assert ran(bundle, monkeypatch, "--report", "mine.json", checks=[*GOOD, BAD]) == 1
    said = capsys.readouterr().out.splitlines()
    at = said.index("FAIL state: it does not work")
    assert [line.strip() for line in said[at + 1 : at + 4]] == [
        "one",
        "two",
        "fix: report it",
    ]
    assert bundle.with_name("mine.json").exists()  # a failure is worth a report too


def test_a_wheel_without_a_runtime_gets_none(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest(runtime=[])))

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("NVIDIA's runtime was asked for")

    monkeypatch.setattr(installing, "runtime", refuse)
    assert ran(bundle, monkeypatch, checks=GOOD) == 0


def test_the_packages_for_this_python_are_put_to_the_others(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest(pythons=["3.99", HERE])))
        archive.writestr("wheels/gguf-1.whl", "for every one")
        archive.writestr("wheels/numpy-1-cp399.whl", "for the target's")
        archive.writestr(f"python{HERE}/numpy-1-this.whl", "for this one")
        archive.writestr("python3.99/numpy-1-other.whl", "for another")
    found: dict[str, str] = {}

    def install(folder: Path) -> str:
        for path in (folder / "bundle" / "wheels").iterdir():
            found[path.name] = path.read_text()
        return "/venv/python"

    monkeypatch.setattr(installing, "install", install)
    assert ran(bundle, monkeypatch, checks=GOOD) == 0
    assert found == {"gguf-1.whl": "for every one", "numpy-1-this.whl": "for this one"}


def test_of_several_targets_the_named_one_is_installed_under_this_pythons_tag(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = manifest()["job"]
    file = "llama_cpp_python-0.3.16-cp399-cp399-manylinux_2_35_x86_64.whl"
    one = {**job, "identity": {**job["identity"], "file": file, "target": "ada"}}
    told = {"targets": [manifest(), manifest(target="ada", job=one)]}
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", json.dumps(told))
        archive.writestr(f"targets/rtx50/{file}", "of rtx50")
        archive.writestr(f"targets/ada/{file}", "of ada")
        archive.writestr("wheels/", "")
    found: dict[str, str] = {}

    def install(folder: Path) -> str:
        found.update({p.name: p.read_text() for p in (folder / "bundle").rglob("*.whl")})
        return "/venv/python"

    monkeypatch.setattr(installing, "install", install)
    assert ran(bundle, monkeypatch, "--target", "ada", checks=GOOD) == 0
    tag = f"cp{HERE.replace('.', '')}"
    assert found == {file.replace("cp399-cp399", f"{tag}-{tag}"): "of ada"}


@pytest.mark.parametrize(
    ("told", "changes", "what"),
    [
        (manifest(), {"target": "rtx50"}, "--target and --reports are for a bundle of several"),
        (manifest(), {"reports": "d"}, "--target and --reports are for a bundle of several"),
        ({"targets": [manifest()]}, {"target": "x"}, "Fix: name one: --target rtx50"),
        ({"targets": [manifest()]}, {"report": "r"}, "Fix: name one: --target rtx50"),
        ({"targets": [manifest()]}, {"bench": True}, "Fix: name one: --target rtx50"),
    ],
)
def test_what_a_bundle_cannot_do_is_refused(
    told: dict[str, Any], changes: dict[str, Any], what: str, capsys: Told
) -> None:
    given = options(**{"report": None, **changes})
    assert what in stopped(lambda: bundle_launch._chosen(told, given), capsys)


def test_a_bundle_of_several_tests_all_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def each(*given: Any) -> int:
        asked.append(given)
        return 0

    beside = SimpleNamespace(main=each)
    monkeypatch.setitem(sys.modules, "bundle_wheels", beside)
    monkeypatch.setattr(sys, "argv", ["smoke.pyz"])
    with pytest.raises(SystemExit) as caught:
        bundle_launch._chosen({"targets": [manifest()]}, options(report=None))
    assert caught.value.code == 0
    assert asked[0][0] == [manifest()]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a-1-cp399-cp399-x.whl", False),
        ("a-1-py3-none-x.whl", True),
        ("a-1-cp399-abi3-x.whl", True),
    ],
)
def test_only_a_tag_of_one_python_is_changed(name: str, kept: bool) -> None:
    assert (installing.for_this_python(name) == name) is kept


def test_another_python_is_told_before_anything_is_unpacked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest(pythons=["3.99"])))

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("an older Python may not be able to run this")

    monkeypatch.setattr(run_folder, "folder", refuse)
    assert ran(bundle, monkeypatch, checks=GOOD) == 2


def test_what_a_killed_run_left_goes_with_the_next(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is beside the report, not in the system's temporary folder, where it would stay."""
    left = bundle.with_name("smoke-report.unfinished")
    (left / "venv").mkdir(parents=True)
    (left / "venv" / "600 MB").touch()
    (left / "lock").touch()
    used: list[Path] = []

    def install(folder: Path) -> str:
        assert not (folder / "venv").exists()
        used.append(folder)
        return "/venv/python"

    monkeypatch.setattr(installing, "install", install)
    assert ran(bundle, monkeypatch, checks=GOOD) == 0
    assert used == [left]
    assert sorted(path.name for path in bundle.parent.iterdir()) == [
        "smoke-report.json",
        bundle.name,
    ]


def test_two_runs_with_one_report_do_not_meet(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    report = bundle.with_name("smoke-report.json")
    with run_folder.folder(report, kept=False) as folder:
        (folder / "mine").touch()
        assert ran(bundle, monkeypatch, checks=GOOD) == 2
        assert (folder / "mine").exists()
        assert ran(bundle, monkeypatch, "--report", "other.json", checks=GOOD) == 0
    assert "Another run is using" in capsys.readouterr().err
    assert ran(bundle, monkeypatch, checks=GOOD) == 0


@pytest.mark.parametrize(("held", "waited"), [(0, 0), (3, 3), (99, 6)])
def test_what_a_scanner_of_windows_holds_for_a_moment_is_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, waited: int
) -> None:
    tried, pauses, replace = 0, list[float](), Path.replace
    (tmp_path / "report.json").write_text("old")

    def busy(part: Path, whole: Path) -> Path:
        nonlocal tried
        tried += 1
        if tried <= held:
            raise PermissionError(13, "The process cannot access the file", str(part))
        return replace(part, whole)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(Path, "replace", busy)
    with contextlib.suppress(PermissionError):
        run_folder.write(tmp_path / "report.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == ("new" if held < 7 else "old")
    assert len(pauses) == waited


def test_nothing_is_left_of_what_was_unpacked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Path] = []
    monkeypatch.setattr(installing, "install", used.append)
    ran(bundle, monkeypatch, checks=GOOD)
    assert len(used) == 1
    assert not used[0].exists()


def test_a_report_can_be_signed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    assert ran(bundle, monkeypatch, "--sign", "/k", checks=GOOD) == 0
    (command,) = programs.commands
    words = ["-Y", "sign", "-f", "/k", "-n", "blackwheel", "smoke-report.json"]
    assert command == ["ssh-keygen", *words]


def test_a_report_that_cannot_be_signed_ends_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs, capsys: Told
) -> None:
    programs.codes = [255]
    assert ran(bundle, monkeypatch, "--sign", "/k", checks=GOOD) == 2
    assert "ssh-keygen could not sign the report" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--sign", "/k")], ids=["unsigned", "signed"])
def test_an_older_signature_of_a_report_makes_way(
    words: tuple[str, ...], bundle: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    # ssh-keygen would ask whether it may overwrite.
    signature = bundle.with_name("smoke-report.json.sig")
    signature.write_text("of another report", encoding="utf-8")
    ran(bundle, monkeypatch, *words, checks=GOOD)
    assert not signature.exists()  # the program that would write one is played


def test_without_ssh_keygen_the_report_is_written_and_the_end_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    def gone(*_: object, **__: object) -> NoReturn:
        raise FileNotFoundError("ssh-keygen")

    monkeypatch.setattr(subprocess, "run", gone)
    assert ran(bundle, monkeypatch, "--sign", "/k", checks=GOOD) == 2
    assert "install OpenSSH's client" in capsys.readouterr().err
    assert bundle.with_name("smoke-report.json").exists()


def test_a_report_that_has_nowhere_to_go_is_said_before_anything_is_unpacked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    bundle.unlink()
    assert ran(bundle, monkeypatch, "--report", "no/such/folder.json", checks=GOOD) == 2
    where = Path("no/such/folder.json")
    assert f"The folder of {where} does not exist." in capsys.readouterr().err


def test_its_own_options_are_explained(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    assert ran(bundle, monkeypatch, "--help", checks=GOOD) == 0
    said = capsys.readouterr().out
    for option in ("--device", "--report", "--model", "--offline", "--sign"):
        assert option in said


def test_every_status_of_a_check_has_a_mark() -> None:
    judged = smoke_checks.evaluate(fakes.smoke_job(), fakes.smoke_found())
    judged += smoke_checks.evaluate(fakes.smoke_job(), {"device": {"error": "a crash"}})
    assert {check["status"] for check in judged} == set(bundle_launch.MARKS)


# ---- a benchmark --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--baseline", "x.whl"],
        ["--cpu-module", "x64"],
        ["--rounds", "3"],
        ["--bench", "--rounds", "0"],
    ],
    ids=["baseline", "module", "rounds", "no-rounds"],
)
def test_what_only_a_benchmark_takes_is_refused_without_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke.pyz", *words])
    assert "--rounds" in stopped(bundle_launch._options, capsys)


def test_a_baseline_that_is_not_there_is_refused_before_anything_is_unpacked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    monkeypatch.setattr(sys, "argv", [str(bundle), "--bench", "--baseline", "gone.whl"])
    said = stopped(bundle_launch.main, capsys)
    assert "There is no wheel" in said
    assert "gone.whl" in said


def pack(bundle: Path, wheel: bytes) -> str:
    """A bundle of a wheel. Returns the wheel's name."""
    named = manifest()
    file: str = named["job"]["identity"]["file"]
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", json.dumps(named))
        archive.writestr(f"wheels/{file}", wheel)
    return file


@pytest.fixture
def benching(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Runs a bundle's benchmark; returns what the payload was told."""
    file = pack(bundle, b"this wheel")
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / file).write_bytes(b"another")
    told: dict[str, Any] = {}

    def payload(folder: Path, python: str, job: dict[str, Any], *first: str) -> str:
        assert Path(job["wheels"][0]["path"]).read_bytes() == b"this wheel"
        told.update(job, python_used=python, first=first)
        return report_file.text(fakes.bench_report(), report_file.BENCH)

    monkeypatch.setattr(bundle_launch, "_payload", payload)

    def run(*words: str, device: dict[str, Any] | None = None) -> dict[str, Any]:
        monkeypatch.setattr(bundle_launch, "_gpu", lambda *_: device)
        monkeypatch.setattr(sys, "argv", [str(bundle), "--bench", *words])
        with pytest.raises(SystemExit) as caught:
            bundle_launch.main()
        assert not caught.value.code
        return told

    return run


def test_a_bundle_measures_its_wheel_in_turn_with_others(
    benching: Callable[..., dict[str, Any]], programs: Programs, tmp_path: Path, capsys: Told
) -> None:
    file = manifest()["job"]["identity"]["file"]
    told = benching("--baseline", f"seed/{file}", "--rounds", "12", "--device", "cpu")
    assert [wheel["label"] for wheel in told["wheels"]] == ["rtx50", "seed"]
    assert told["wheels"][1]["path"] == str(tmp_path / "seed" / file)
    assert (told["rounds"], told["layers"], told["identity"]["device"]) == (12, 0, "cpu")
    assert told["threads"] == 1 <= told["cpu_threads"]
    assert (told["python_used"], told["first"]) == (sys.executable, ("--bench",))
    assert told["runtime"] == "packages"  # pip had it
    (command,) = programs.commands
    assert command[:5] == [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check"]
    assert command[-2:] == manifest()["runtime"]
    said = capsys.readouterr().out
    assert "rtx50 against seed" in said
    assert "  generation" in said
    assert "import it: nox -s bench -- --target rtx50 --report bench-report.json" in said
    text = (tmp_path / "bench-report.json").read_text(encoding="utf-8")
    assert report_file.read(text, report_file.BENCH) == fakes.bench_report()


def test_a_module_of_another_wheel_is_refused_by_a_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    with zipfile.ZipFile(bundle.with_name("empty.whl"), "w"):
        pass
    pack(bundle, bundle.with_name("empty.whl").read_bytes())
    monkeypatch.setattr(bundle_launch, "_gpu", lambda *_: None)
    words = [str(bundle), "--bench", "--offline", "--cpu-module", "z80"]
    monkeypatch.setattr(sys, "argv", words)
    assert "has no module z80 for the CPU; it has none" in stopped(bundle_launch.main, capsys)


def test_on_a_gpu_every_layer_goes_there(
    benching: Callable[..., dict[str, Any]], programs: Programs
) -> None:
    told = benching(device={**fakes.nvml_gpu(index=1), "visible": "GPU-1", "release": "580.159.04"})
    assert (told["layers"], told["index"], told["threads"]) == (999, 1, 1)
    assert told["cpu_threads"] == cgroups.physical(cgroups.limits(cgroups.read()))
    assert told["visible"] == "GPU-1"
    assert told["identity"]["device"] == "NVIDIA GeForce RTX 5090"
    assert told["identity"]["driver"] == "580.159.04"
    assert told["nvml"].endswith("nvml")


def test_offline_the_runtime_of_the_running_python_is_linked(
    benching: Callable[..., dict[str, Any]], programs: Programs, packages: Path
) -> None:
    told = benching("--offline")
    assert programs.commands == []
    assert (told["runtime"], told["link"]) == ("linked", str(packages))
    assert told["runtime_places"] == [str(packages)]


def test_without_packages_a_benchmark_is_left_an_installed_toolkit(
    benching: Callable[..., dict[str, Any]],
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installing, "_packages", lambda: None)
    monkeypatch.setattr(installing, "_toolkits", lambda: ["/opt/cuda"])
    programs.codes = [1]
    told = benching()
    assert (told["runtime"], told["link"]) == ("toolkit", None)
    assert told["runtime_places"] == ["/opt/cuda"]


class Measuring(Payload):
    """Plays a benchmark that notes what it measured, and is stopped where its code says so."""

    def __init__(self) -> None:
        super().__init__()
        self.went_on: list[bool] = []

    def __call__(self, command: list[str], **given: Any) -> Payload:
        super().__call__(command, **given)
        Path(command[-1]).write_text(
            report_file.text(fakes.bench_report(), report_file.BENCH), encoding="utf-8"
        )
        state = Path(given["cwd"]) / run_folder.STATE
        self.went_on.append(state.exists())
        state.write_text("{}", encoding="utf-8")
        return self


def test_a_model_that_is_not_there_is_refused_before_anything_is_unpacked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    bundle.unlink()
    assert bench(bundle, monkeypatch, "--model", "gone.gguf") == 2
    assert "There is no model gone.gguf." in capsys.readouterr().err


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> Measuring:
    played = Measuring()
    monkeypatch.setattr(subprocess, "Popen", played)
    return played


def bench(bundle: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a bundle's benchmark."""
    monkeypatch.setattr(sys, "argv", [str(bundle), "--bench", *words])
    with pytest.raises(SystemExit) as caught:
        bundle_launch.main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("words", "wheel", "goes_on"),
    [
        ((), b"this wheel", True),
        (("--rounds", "9"), b"this wheel", False),
        ((), b"another one", False),
        (("--report", "other.json"), b"this wheel", False),
    ],
    ids=["the-same", "other-rounds", "another-wheel", "another-report"],
)
def test_a_benchmark_that_was_stopped_goes_on_where_the_same_is_asked_for(
    words: tuple[str, ...],
    wheel: bytes,
    goes_on: bool,
    bundle: Path,
    measuring: Measuring,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Told,
) -> None:
    pack(bundle, b"this wheel")
    measuring.returncode = 1
    assert bench(bundle, monkeypatch) == 2
    measuring.returncode = 0
    pack(bundle, wheel)
    assert bench(bundle, monkeypatch, *words) == 0
    assert measuring.went_on == [False, goes_on]
    assert ("Continuing where" in capsys.readouterr().out) == goes_on
    if "--report" not in words:
        left = sorted(path.name for path in bundle.parent.iterdir())
        assert left == ["bench-report.json", bundle.name]


def test_a_benchmark_that_measured_nothing_leaves_nothing(
    bundle: Path, measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest(pythons=["3.99"])))
    assert bench(bundle, monkeypatch) == 2
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_report_that_cannot_be_written_costs_no_measurement(
    bundle: Path, measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(bundle, b"this wheel")
    (bundle.parent / "bench-report.json").mkdir()
    monkeypatch.setattr(sys, "argv", [str(bundle), "--bench"])
    with pytest.raises(OSError, match="bench-report"):
        bundle_launch.main()
    (bundle.parent / "bench-report.json").rmdir()
    assert bench(bundle, monkeypatch) == 0
    assert measuring.went_on == [False, True]
