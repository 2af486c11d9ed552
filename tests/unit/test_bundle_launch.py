"""The program of a bundle: what it refuses, installs and prints, and its exit code."""

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

Output = pytest.CaptureFixture[str]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PLATFORM = sysconfig.get_platform().replace("-", "_")
GPU_1 = {**fakes.nvml_gpu(index=1), "visible": "GPU-1", "second": "GPU-3", "release": "580.159.04"}


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest for this Python and this system."""
    job = {k: v for k, v in fakes.smoke_job().items() if k not in ("folder", "layers", "venv")}
    base: dict[str, Any] = {
        "target": "rtx50",
        "arguments": "--target rtx50",
        "pythons": [HERE],
        "platforms": [PLATFORM],
        "driver": 580,
        "bad_drivers": {},
        "runtime": ["nvidia-cuda-runtime<14,>=13.1.80", "nvidia-cublas<14,>=13.2.2.2"],
        "capabilities": ["12.0"],
        "job": job,
    }
    return {**base, **changes}


FILE: str = manifest()["job"]["identity"]["file"]


def options(**changes: Any) -> argparse.Namespace:
    """The options of an empty command line."""
    base = {"device": None, "report": "r.json", "model": None, "offline": False, "sign": None}
    base |= {"target": None, "reports": None, "bench": False, "ops": False}
    return argparse.Namespace(**{**base, **changes})


def refusal(work: Callable[[], object], capsys: Output) -> str:
    """What is printed when ``work`` exits with 2."""
    with pytest.raises(SystemExit) as caught:
        work()
    assert caught.value.code == 2
    return capsys.readouterr().err


def refuse(*_: object, **__: object) -> NoReturn:
    """Replaces a function that must not be called."""
    raise AssertionError("this was called")


# ---- the Python, the system and the GPU ----------------------------------------------------------


def test_this_python_and_this_system_are_accepted() -> None:
    bundle_refusals.fits(manifest())
    bundle_refusals.fits(manifest(platforms=["plan9_mips", PLATFORM]))


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        (
            {"pythons": ["3.99"], "platforms": ["linux_x86_64"]},
            f"The wheel is for Python 3.99; this is {HERE}.",
            "python3.99 smoke-rtx50.pyz",
        ),
        (
            {"pythons": ["3.99"], "platforms": ["win_amd64"]},
            f"The wheel is for Python 3.99; this is {HERE}.",
            "py -3.99 smoke-rtx50.pyz",
        ),
        (
            {"platforms": ["plan9_mips"]},
            "The wheel is for plan9_mips; this is",
            "build the wheel and the bundle for this system",
        ),
    ],
)
def test_another_python_or_system_is_refused(
    changes: dict[str, Any], what: str, fix: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/downloads/smoke-rtx50.pyz"])
    printed = refusal(lambda: bundle_refusals.fits(manifest(**changes)), capsys)
    assert what in printed
    assert f"Fix: {fix}" in printed


Nvml = Callable[[dict[str, Any]], None]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """Sets the GPUs that NVML returns."""
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def show(found: dict[str, Any]) -> None:
        module = SimpleNamespace(**{**vars(gpu), "read": lambda: found})
        monkeypatch.setitem(sys.modules, "gpu", module)

    return show


def choose_gpu(folder: Path, **changes: Any) -> Callable[[], Any]:
    """A call that chooses the GPU with these options."""
    return lambda: bundle_launch._gpu(folder, manifest(), options(**changes))


NO_NVML = {"error": "NVML Shared Library Not Found"}
H200 = fakes.nvml_gpu(name="NVIDIA H200", compute_capability="9.0")


@pytest.mark.parametrize(
    ("found", "ops", "expected"),
    [
        (NO_NVML, False, "No NVIDIA driver answers here (NVML Shared Library Not Found)."),
        (NO_NVML, False, "Fix: run this file on a machine with such a GPU, or with --device cpu"),
        (NO_NVML, True, "Fix: run this file on a machine with such a GPU\n"),
        (fakes.nvml(H200), False, "for compute capability 12.0; NVIDIA H200 has 9.0"),
    ],
)
def test_without_a_suitable_gpu_the_program_exits(
    found: dict[str, Any], ops: bool, expected: str, nvml: Nvml, tmp_path: Path, capsys: Output
) -> None:
    nvml(found)
    assert expected in refusal(choose_gpu(tmp_path, ops=ops), capsys)


def test_the_gpu_is_chosen_with_its_driver(nvml: Nvml, tmp_path: Path) -> None:
    nvml(fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1)))
    found = bundle_launch._gpu(tmp_path, manifest(), options(device="1"))
    expected = {"visible": "1", "second": None, "release": "580.159.04"}
    assert found == {**fakes.nvml_gpu(index=1), **expected}
    # Nothing is installed yet, so the modules of the unpacked bundle are imported.
    assert sys.path[:2] == [str(tmp_path / "bundle" / name) for name in ("payload", "nvml")]


def test_a_gpu_that_a_scheduler_hides_is_not_used(
    nvml: Nvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    nvml(fakes.nvml(fakes.nvml_gpu(), fakes.nvml_gpu(index=1)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = bundle_launch._gpu(tmp_path, manifest(), options()) or {}
    assert (found["index"], found["visible"]) == (1, "1")
    assert "CUDA_VISIBLE_DEVICES=1" in refusal(choose_gpu(tmp_path, device="0"), capsys)


@pytest.mark.parametrize(("known", "times"), [({"580.159.04": "it aborts"}, 1), ({}, 0)])
def test_a_driver_that_is_known_to_fail_gives_a_warning(
    known: dict[str, str], times: int, nvml: Nvml, tmp_path: Path, capsys: Output
) -> None:
    nvml(fakes.nvml(fakes.nvml_gpu()))
    bundle_launch._gpu(tmp_path, manifest(bad_drivers=known), options())
    assert capsys.readouterr().err.count("580.159.04 is reported to fail: it aborts") == times


@pytest.mark.parametrize(
    ("changes", "device"), [({}, "cpu"), ({"capabilities": []}, None)], ids=["option", "cpu-wheel"]
)
def test_on_the_cpu_nvml_is_not_read(
    changes: dict[str, Any], device: str | None, nvml: Nvml, tmp_path: Path
) -> None:
    nvml({"error": "gone"})
    assert bundle_launch._gpu(tmp_path, manifest(**changes), options(device=device)) is None


# ---- installing ----------------------------------------------------------------------------------


class Programs:
    """Replaces subprocess.run."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.codes: list[int] = []

    def __call__(self, command: Sequence[str], **given: Any) -> Any:
        if list(command[-2:]) == ["config", "list"]:
            return subprocess.CompletedProcess(list(command), 0, "global.target='/x'\n", "")
        if "pip" in command:
            assert {"PIP_TARGET", "PIP_USER"} & given["env"].keys() == set()
            assert given["env"]["PIP_CONFIG_FILE"] == os.devnull
        assert {"-m", "-I"} & set(command) != {"-m"}  # the current folder is not on sys.path
        self.commands.append(list(command))
        code = self.codes.pop(0) if self.codes else 0
        return subprocess.CompletedProcess(list(command), code, "an output", "an output")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    fake = Programs()
    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setenv("PIP_USER", "1")
    return fake


def test_only_the_wheels_of_the_bundle_are_installed(programs: Programs, tmp_path: Path) -> None:
    wheels = tmp_path / "bundle" / "wheels"
    wheels.mkdir(parents=True)
    for name in ("b.whl", "a.whl", "notes.txt"):
        (wheels / name).write_bytes(b"")
    python = installing.install(tmp_path)
    assert Path(python).is_relative_to(tmp_path / "venv")
    venv, pip = programs.commands
    assert venv == [sys.executable, "-I", "-m", "venv", str(tmp_path / "venv")]
    assert pip[0] == python
    assert pip[-4:-2] == ["--no-index", "--no-deps"]
    assert [Path(word).name for word in pip[-2:]] == ["a.whl", "b.whl"]


@pytest.mark.parametrize(
    ("codes", "what"),
    [
        ([1], "Python could not make a venv.\nan output"),
        ([0, 1], "pip could not install the bundle's wheels.\nan output"),
    ],
)
def test_a_failed_installation_ends_the_program(
    codes: list[int], what: str, programs: Programs, tmp_path: Path, capsys: Output
) -> None:
    programs.codes = codes
    printed = refusal(lambda: installing.install(tmp_path), capsys)
    assert what in printed
    assert "correct the error that is shown above" in printed


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("a-1-cp399-cp399-x.whl", True),
        ("a-1-py3-none-x.whl", False),
        ("a-1-cp399-abi3-x.whl", False),
    ],
)
def test_only_the_tag_of_another_python_is_changed(name: str, changed: bool) -> None:
    assert (installing.for_this_python(name) != name) is changed


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """The folders of a venv on this system."""
    inside = "Lib" if sys.platform == "win32" else f"lib/python{HERE}"
    (tmp_path / "venv" / inside / "site-packages").mkdir(parents=True)
    return tmp_path / "venv"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NVIDIA's packages in this Python."""
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


def no_package(name: str) -> NoReturn:
    raise importlib.metadata.PackageNotFoundError(name)


def linked(venv: Path) -> list[Path]:
    """The folders in which the venv has NVIDIA's CUDA runtime."""
    return list(venv.glob("**/site-packages/nvidia/cu13"))


def test_pip_installs_the_cuda_runtime(programs: Programs, venv: Path, packages: Path) -> None:
    assert installing.runtime(venv, manifest(), options()) == []
    (command,) = programs.commands
    assert command[-2:] == manifest()["runtime"]
    assert Path(command[0]).is_relative_to(venv)
    assert linked(venv) == []


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("offline", [True, False])
def test_without_pip_the_cuda_runtime_of_this_python_is_used(
    offline: bool,
    links: bool,
    programs: Programs,
    venv: Path,
    packages: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is linked, or copied if links are not allowed, as for most users of Windows."""

    def no_link(*_: object, **__: object) -> NoReturn:
        raise OSError("A required privilege is not held by the client")

    if not links:
        monkeypatch.setattr(Path, "symlink_to", no_link)
    programs.codes = [1]
    assert installing.runtime(venv, manifest(), options(offline=offline)) == [str(packages)]
    assert len(programs.commands) == (0 if offline else 1)
    (place,) = linked(venv)
    assert (place / "lib" / "libcudart.so.13").read_bytes() == b"runtime"
    assert place.is_symlink() or not links or sys.platform == "win32"


def test_without_packages_a_toolkit_is_used(
    programs: Programs, venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", no_package)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/usr/local/cuda-13.1")]))
    monkeypatch.setenv("CUDA_PATH", "/opt/cuda")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    programs.codes = [1]
    places = installing.runtime(venv, manifest(), options())
    assert places == ["/opt/cuda", str(Path("/usr/local/cuda-13.1"))]
    assert "an installed toolkit must have them" in capsys.readouterr().out


@pytest.mark.parametrize("kept", installing.RUNTIME)
def test_one_of_the_two_packages_is_not_enough(
    kept: str, programs: Programs, venv: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "13" if name == kept else no_package(name)
    )
    assert str(packages) not in installing.runtime(venv, manifest(), options(offline=True))
    assert linked(venv) == []


# ---- running the payload -------------------------------------------------------------------------


class Payload:
    """Replaces subprocess.Popen and writes a report, as the payload does."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.given: dict[str, Any] = {}
        self.stdout = ["noise\n", '@{"done": 1, "total": 9, "now": "offload", "left": null}\n']
        self.returncode = 0
        self.job: dict[str, Any] = {}

    def __call__(self, command: list[str], **given: Any) -> Payload:
        self.command, self.given = command, given
        self.job = json.loads(Path(command[-2]).read_text(encoding="utf-8"))
        Path(command[-1]).write_text(report_file.text(fakes.smoke_report()), encoding="utf-8")
        return self

    def __enter__(self) -> Payload:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def payload(monkeypatch: pytest.MonkeyPatch) -> Payload:
    fake = Payload()
    monkeypatch.setattr(subprocess, "Popen", fake)
    return fake


def report_of(folder: Path, device: dict[str, Any] | None, *places: str) -> str:
    """The text of the report of a run."""
    job = bundle_launch._job(folder, manifest(), options(), device, list(places))
    return bundle_launch._payload(folder, "/venv/python", job)


def test_the_job_names_the_gpu(payload: Payload, tmp_path: Path, capsys: Output) -> None:
    text = report_of(tmp_path, GPU_1, "/rt")
    assert report_file.read(text)["device"] == "NVIDIA GeForce RTX 5090"
    expected = {"layers": 999, "index": 1, "jobs": 4, "visible": "GPU-1", "second": "GPU-3"}
    expected |= {"runtime_places": ["/rt"], "folder": str(tmp_path / "run")}
    assert {name: payload.job[name] for name in expected} == expected
    identity = {"device": "NVIDIA GeForce RTX 5090", "capability": "12.0", "driver": "580.159.04"}
    assert payload.job["identity"] == {**manifest()["job"]["identity"], **identity}
    assert "1 of 9: offload" in capsys.readouterr().out


def test_on_the_cpu_the_job_names_no_gpu(payload: Payload, tmp_path: Path) -> None:
    report_of(tmp_path, None)
    assert (payload.job["layers"], payload.job["visible"]) == (0, "-1")
    assert payload.job["jobs"] >= 1
    identity = {"device": "cpu", "capability": None, "driver": None}
    assert payload.job["identity"] == {**manifest()["job"]["identity"], **identity}
    # A check that needs more than a job here has would fail on the other machine only.
    assert fakes.smoke_job().keys() <= payload.job.keys()


def test_the_job_of_the_operator_test_has_its_libraries_in_the_venv(
    venv: Path, tmp_path: Path
) -> None:
    libraries = installing.site_packages(venv) / "llama_cpp" / "lib"
    libraries.mkdir(parents=True)
    (tmp_path / "bundle" / "ops").mkdir(parents=True)
    (tmp_path / "bundle" / "ops" / "ops-rtx50.so").write_bytes(b"the test")
    given = manifest(ops={"library": "ops-rtx50.so", "reference": None, "version": "0.3.16"})
    job = bundle_launch._job(tmp_path, given, options(ops=True), GPU_1, ["/rt"])
    assert (libraries / "ops-rtx50.so").read_bytes() == b"the test"
    expected = {"library": str(libraries / "ops-rtx50.so"), "reference": None, "visible": "GPU-1"}
    expected |= {"version": "0.3.16", "memory_mib": GPU_1["memory_free_mib"]}
    assert {name: job[name] for name in expected} == expected
    assert job["cores"] >= 1
    assert job["identity"]["device"] == "NVIDIA GeForce RTX 5090"


@pytest.mark.parametrize(("places", "cuda_path"), [(["/opt/cuda"], "/x"), ([], None)])
def test_the_payload_gets_few_variables_of_the_caller(
    places: list[str],
    cuda_path: str | None,
    payload: Payload,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variables of a toolkit are needed only if no package has the CUDA runtime."""
    removed = ("LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "GGML_CUDA_X")
    for name in ("HOME", "CUDA_PATH", *removed):
        monkeypatch.setenv(name, "/x")
    report_of(tmp_path, None, *places)
    env = payload.given["env"]
    assert (env["HOME"], env.get("CUDA_PATH")) == ("/x", cuda_path)
    assert not set(removed) & set(env)
    assert payload.command[:2] == ["/venv/python", "-I"]


def test_a_payload_that_fails_ends_the_program(
    payload: Payload, tmp_path: Path, capsys: Output
) -> None:
    payload.returncode = 1
    assert "The checks ended with exit code 1." in refusal(
        lambda: report_of(tmp_path, None), capsys
    )


# ---- the whole program ---------------------------------------------------------------------------


def pack(bundle: Path, given: dict[str, Any], **members: str | bytes) -> None:
    """Write a bundle with this manifest and these members."""
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", json.dumps(given))
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in its own folder; its steps do nothing."""
    path = tmp_path / "smoke-rtx50.pyz"
    pack(path, manifest())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_launch, "_gpu", lambda *_: None)
    monkeypatch.setattr(installing, "install", lambda _: "/venv/python")
    monkeypatch.setattr(installing, "runtime", lambda *_: ["/rt"])
    return path


GOOD = fakes.smoke_report()["checks"]
BAD = {
    "id": "state",
    "status": "fail",
    "summary": "state: it does not work",
    "evidence": "one\ntwo",
    "remedy": "report it",
}
Run = Callable[..., int]


@pytest.fixture
def start(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Starts the program with a command line; returns its exit code."""

    def started(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(bundle), *words])
        with pytest.raises(SystemExit) as caught:
            bundle_launch.main()
        return int(caught.value.code or 0)

    return started


@pytest.fixture
def run(start: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Starts the program with a payload whose report has these checks; returns its exit code."""

    def started(*words: str, checks: Sequence[dict[str, Any]] = GOOD) -> int:
        text = report_file.text(fakes.smoke_report(checks=checks))
        monkeypatch.setattr(bundle_launch, "_payload", lambda *_: text)
        return start(*words)

    return started


def test_the_report_is_written_and_the_import_command_is_printed(
    bundle: Path, run: Run, capsys: Output
) -> None:
    words = "--target rtx50 --python 3.12"
    pack(bundle, manifest(target="rtx50+py3.12", arguments=words))
    assert run() == 0
    report = bundle.with_name("smoke-report.json")
    assert report_file.read(report.read_text(encoding="utf-8")) == fakes.smoke_report()
    output = capsys.readouterr().out
    assert "ok   known-answers: 16 cases" in output
    assert f"report: {report.resolve()}" in output
    assert f"import it: nox -s smoke -- {words} --report smoke-report.json" in output


def test_a_failed_check_is_printed_and_is_exit_code_1(
    bundle: Path, run: Run, capsys: Output
) -> None:
    assert run("--report", "mine.json", checks=[*GOOD, BAD]) == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = lines.index("FAIL state: it does not work")
    assert lines[at + 1 : at + 4] == ["one", "two", "fix: report it"]
    assert bundle.with_name("mine.json").exists()


def test_every_status_of_a_check_has_a_mark() -> None:
    checks = smoke_checks.evaluate(fakes.smoke_job(), fakes.smoke_found())
    checks += smoke_checks.evaluate(fakes.smoke_job(), {"device": {"error": "a crash"}})
    assert {check["status"] for check in checks} == set(bundle_launch.MARKS)


def test_a_wheel_without_cuda_gets_no_cuda_runtime(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(bundle, manifest(runtime=[]))
    monkeypatch.setattr(installing, "runtime", refuse)
    assert run() == 0


Installed = dict[str, str]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """The wheels in the bundle's folder when they are installed: file name -> content."""
    found: Installed = {}

    def install(folder: Path) -> str:
        found.update({p.name: p.read_text() for p in (folder / "bundle" / "wheels").glob("*.whl")})
        return "/venv/python"

    monkeypatch.setattr(installing, "install", install)
    return found


def test_the_packages_for_this_python_replace_the_others(
    bundle: Path, run: Run, installed: Installed
) -> None:
    members = {
        "wheels/gguf-1.whl": "for every Python",
        "wheels/numpy-1-cp399.whl": "for 3.99",
        f"python{HERE}/numpy-1-this.whl": "for this Python",
        "python3.98/numpy-1-other.whl": "for 3.98",
    }
    pack(bundle, manifest(pythons=["3.99", HERE]), **members)
    assert run() == 0
    assert installed == {"gguf-1.whl": "for every Python", "numpy-1-this.whl": "for this Python"}


def test_the_wheel_of_the_chosen_target_is_installed_with_this_pythons_tag(
    bundle: Path, run: Run, installed: Installed
) -> None:
    job = manifest()["job"]
    file = "llama_cpp_python-0.3.16-cp399-cp399-manylinux_2_35_x86_64.whl"
    ada = {**job, "identity": {**job["identity"], "file": file, "target": "ada"}}
    members = {f"targets/rtx50/{file}": "of rtx50", f"targets/ada/{file}": "of ada", "wheels/": ""}
    pack(bundle, {"targets": [manifest(), manifest(target="ada", job=ada)]}, **members)
    assert run("--target", "ada") == 0
    tag = f"cp{HERE.replace('.', '')}"
    assert installed == {file.replace("cp399-cp399", f"{tag}-{tag}"): "of ada"}


@pytest.mark.parametrize(
    ("given", "changes", "what"),
    [
        (manifest(), {"target": "rtx50"}, "--target and --reports are for a bundle of several"),
        (manifest(), {"reports": "d"}, "--target and --reports are for a bundle of several"),
        ({"targets": [manifest()]}, {"target": "x"}, "Fix: name one: --target rtx50"),
        ({"targets": [manifest()]}, {"report": "r"}, "Fix: name one: --target rtx50"),
        ({"targets": [manifest()]}, {"bench": True}, "Fix: name one: --target rtx50"),
    ],
)
def test_options_for_the_other_kind_of_bundle_are_refused(
    given: dict[str, Any], changes: dict[str, Any], what: str, capsys: Output
) -> None:
    args = options(**{"report": None, **changes})
    assert what in refusal(lambda: bundle_launch._chosen(given, args), capsys)


def test_a_bundle_of_several_targets_tests_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    module = SimpleNamespace(main=lambda *given: calls.append(given))
    monkeypatch.setitem(sys.modules, "bundle_wheels", module)
    monkeypatch.setattr(sys, "argv", ["smoke.pyz"])
    with pytest.raises(SystemExit) as caught:
        bundle_launch._chosen({"targets": [manifest()]}, options(report=None))
    assert not caught.value.code
    assert calls[0][0] == [manifest()]


def test_another_python_is_refused_before_anything_is_unpacked(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older Python may not be able to run the rest of the program."""
    pack(bundle, manifest(pythons=["3.99"]))
    monkeypatch.setattr(run_folder, "folder", refuse)
    assert run() == 2


def test_the_files_of_a_killed_run_are_deleted_by_the_next(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder is beside the report: in the temporary folder, files would remain."""
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
    assert run() == 0
    assert used == [left]
    assert {path.name for path in bundle.parent.iterdir()} == {"smoke-report.json", bundle.name}


def test_two_runs_with_one_report_are_refused(bundle: Path, run: Run, capsys: Output) -> None:
    report = bundle.with_name("smoke-report.json")
    with run_folder.folder(report, kept=False) as folder:
        (folder / "mine").touch()
        assert run() == 2
        assert (folder / "mine").exists()
        assert run("--report", "other.json") == 0
    assert "Another run is using" in capsys.readouterr().err
    assert run() == 0


@pytest.mark.parametrize(("held", "waited"), [(0, 0), (3, 3), (99, 6)])
def test_on_windows_writing_waits_for_a_virus_scanner(
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


@pytest.mark.parametrize("code", [0, 255, None], ids=["signed", "key-unknown", "no-ssh-keygen"])
def test_a_report_is_signed_after_an_older_signature_is_deleted(
    code: int | None,
    bundle: Path,
    run: Run,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    """ssh-keygen asks before it overwrites a signature."""

    def missing(*_: object, **__: object) -> NoReturn:
        raise FileNotFoundError("ssh-keygen")

    signature = bundle.with_name("smoke-report.json.sig")
    signature.write_text("of another report", encoding="utf-8")
    if code is None:
        monkeypatch.setattr(subprocess, "run", missing)
    programs.codes = [code or 0]
    assert run("--sign", "/k") == (0 if code == 0 else 2)
    assert not signature.exists()
    assert bundle.with_name("smoke-report.json").exists()
    if code is not None:
        words = ["-Y", "sign", "-f", "/k", "-n", "blackwheel", "smoke-report.json"]
        assert programs.commands == [["ssh-keygen", *words]]
    errors = capsys.readouterr().err
    assert ("ssh-keygen could not sign the report" in errors) is (code != 0)
    assert ("install OpenSSH's client" in errors) is (code != 0)


def test_an_older_signature_of_an_unsigned_report_is_deleted(bundle: Path, run: Run) -> None:
    signature = bundle.with_name("smoke-report.json.sig")
    signature.write_text("of another report", encoding="utf-8")
    run()
    assert not signature.exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (
            ["--report", "no/such/folder.json"],
            f"The folder of {Path('no/such/folder.json')} does not exist.",
        ),
        (["--bench", "--model", "gone.gguf"], "There is no model gone.gguf."),
        (["--bench", "--baseline", "gone.whl"], "There is no wheel"),
        (["--baseline", "x.whl"], "--rounds"),
        (["--cpu-module", "x64"], "--rounds"),
        (["--rounds", "3"], "--rounds"),
        (["--bench", "--rounds", "0"], "--rounds"),
    ],
)
def test_options_are_checked_before_the_bundle_is_read(
    words: list[str], what: str, bundle: Path, start: Run, capsys: Output
) -> None:
    bundle.unlink()
    assert start(*words) == 2
    assert what in capsys.readouterr().err


def test_the_help_has_every_option(start: Run, capsys: Output) -> None:
    assert start("--help") == 0
    output = capsys.readouterr().out
    for option in ("--device", "--report", "--model", "--offline", "--sign"):
        assert option in output


# ---- a benchmark ---------------------------------------------------------------------------------


Bench = Callable[..., dict[str, Any]]


@pytest.fixture
def bench(bundle: Path, start: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """Runs a benchmark; returns the payload's job."""
    pack(bundle, manifest(), **{f"wheels/{FILE}": b"this wheel"})
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / FILE).write_bytes(b"another")
    received: dict[str, Any] = {}

    def payload(folder: Path, python: str, job: dict[str, Any], *first: str) -> str:
        assert Path(job["wheels"][0]["path"]).read_bytes() == b"this wheel"
        received.update(job, python_used=python, first=first)
        return report_file.text(fakes.bench_report(), report_file.BENCH)

    monkeypatch.setattr(bundle_launch, "_payload", payload)

    def benchmark(*words: str, device: dict[str, Any] | None = None) -> dict[str, Any]:
        monkeypatch.setattr(bundle_launch, "_gpu", lambda *_: device)
        assert start("--bench", *words) == 0
        return received

    return benchmark


def test_a_benchmark_on_the_cpu(
    bench: Bench, programs: Programs, tmp_path: Path, capsys: Output
) -> None:
    job = bench("--baseline", f"seed/{FILE}", "--rounds", "12", "--device", "cpu")
    assert [wheel["label"] for wheel in job["wheels"]] == ["rtx50", "seed"]
    assert job["wheels"][1]["path"] == str(tmp_path / "seed" / FILE)
    assert (job["rounds"], job["layers"], job["identity"]["device"]) == (12, 0, "cpu")
    assert job["threads"] == 1 <= job["cpu_threads"]
    assert (job["python_used"], job["first"]) == (sys.executable, ("--bench",))
    assert job["runtime"] == "packages"  # downloaded by pip
    (command,) = programs.commands
    assert command[:5] == [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check"]
    assert command[-2:] == manifest()["runtime"]
    output = capsys.readouterr().out
    assert "rtx50 against seed" in output
    assert "  generation" in output
    assert "import it: nox -s bench -- --target rtx50 --report bench-report.json" in output
    text = (tmp_path / "bench-report.json").read_text(encoding="utf-8")
    assert report_file.read(text, report_file.BENCH) == fakes.bench_report()


def test_a_benchmark_on_a_gpu(bench: Bench, programs: Programs) -> None:
    job = bench(device=GPU_1)
    expected = {"layers": 999, "index": 1, "threads": 1, "visible": "GPU-1"}
    assert {name: job[name] for name in expected} == expected
    assert job["cpu_threads"] == cgroups.physical(cgroups.limits(cgroups.read()))
    assert job["identity"]["device"] == "NVIDIA GeForce RTX 5090"
    assert job["identity"]["driver"] == "580.159.04"
    assert job["nvml"].endswith("nvml")


def test_an_unknown_cpu_module_is_refused(bundle: Path, start: Run, capsys: Output) -> None:
    with zipfile.ZipFile(bundle.with_name("empty.whl"), "w"):
        pass
    wheel = bundle.with_name("empty.whl").read_bytes()
    pack(bundle, manifest(), **{f"wheels/{FILE}": wheel})
    assert start("--bench", "--offline", "--cpu-module", "z80") == 2
    assert "has no module z80 for the CPU; it has none" in capsys.readouterr().err


def test_offline_a_benchmark_links_the_cuda_runtime_of_this_python(
    bench: Bench, programs: Programs, packages: Path
) -> None:
    job = bench("--offline")
    assert programs.commands == []
    assert (job["runtime"], job["link"]) == ("linked", str(packages))
    assert job["runtime_places"] == [str(packages)]


def test_without_packages_a_benchmark_uses_a_toolkit(
    bench: Bench, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "_packages", lambda: None)
    monkeypatch.setattr(installing, "_toolkits", lambda: ["/opt/cuda"])
    programs.codes = [1]
    job = bench()
    assert (job["runtime"], job["link"]) == ("toolkit", None)
    assert job["runtime_places"] == ["/opt/cuda"]


class Measuring(Payload):
    """A payload that writes a benchmark's state and report."""

    def __init__(self) -> None:
        super().__init__()
        self.continued: list[bool] = []

    def __call__(self, command: list[str], **given: Any) -> Payload:
        super().__call__(command, **given)
        text = report_file.text(fakes.bench_report(), report_file.BENCH)
        Path(command[-1]).write_text(text, encoding="utf-8")
        state = Path(given["cwd"]) / run_folder.STATE
        self.continued.append(state.exists())
        state.write_text("{}", encoding="utf-8")
        return self


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> Measuring:
    fake = Measuring()
    monkeypatch.setattr(subprocess, "Popen", fake)
    return fake


@pytest.mark.parametrize(
    ("words", "wheel", "continued"),
    [
        ((), b"this wheel", True),
        (("--rounds", "9"), b"this wheel", False),
        ((), b"another one", False),
        (("--report", "other.json"), b"this wheel", False),
    ],
    ids=["same", "other-rounds", "other-wheel", "other-report"],
)
def test_a_stopped_benchmark_is_continued_only_by_the_same_command(
    words: tuple[str, ...],
    wheel: bytes,
    continued: bool,
    bundle: Path,
    start: Run,
    measuring: Measuring,
    capsys: Output,
) -> None:
    pack(bundle, manifest(), **{f"wheels/{FILE}": b"this wheel"})
    measuring.returncode = 1
    assert start("--bench") == 2
    measuring.returncode = 0
    pack(bundle, manifest(), **{f"wheels/{FILE}": wheel})
    assert start("--bench", *words) == 0
    assert measuring.continued == [False, continued]
    assert ("Continuing where" in capsys.readouterr().out) == continued
    if "--report" not in words:
        assert {path.name for path in bundle.parent.iterdir()} == {"bench-report.json", bundle.name}


def test_a_refused_benchmark_leaves_no_files(bundle: Path, start: Run) -> None:
    pack(bundle, manifest(pythons=["3.99"]))
    assert start("--bench") == 2
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_if_the_report_cannot_be_written_the_measurements_are_kept(
    bundle: Path, start: Run, measuring: Measuring
) -> None:
    pack(bundle, manifest(), **{f"wheels/{FILE}": b"this wheel"})
    (bundle.parent / "bench-report.json").mkdir()
    with pytest.raises(OSError, match="bench-report"):
        start("--bench")
    (bundle.parent / "bench-report.json").rmdir()
    assert start("--bench") == 0
    assert measuring.continued == [False, True]
