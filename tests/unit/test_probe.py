"""The probe on recorded machines, and its parsers on what tools print."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from sessions.probe import main_probe
from sessions.probe.model import Toolchain
from sessions.shared import machine, records
from sessions.shared.context import Context
from sessions.shared.machine import Machine
from sessions.targets import targets_file
from tests import fakes, machines
from tests.machines import Windows
from tests.problems import raises

FILE = "machine.json"
MACHINES = fakes.ROOT / "tests" / "data" / "machines"


def replayed(name: str, **changes: Any) -> Toolchain:
    ask = machine.replay(MACHINES / name / "machine.json")
    return main_probe.probe(ask, fakes.spec(**changes), None)


def statuses(chain: Toolchain) -> dict[str, str]:
    return {check.id: check.status for check in chain.checks}


def with_answers(name: str, answers: dict[tuple[str, ...], Any]) -> Machine:
    """A recorded machine that answers some questions otherwise."""
    recorded = machine.replay(MACHINES / name / "machine.json")

    def ask(question: str, *words: str) -> Any:
        key = (question, *words)
        return answers[key] if key in answers else recorded(question, *words)

    return ask


def test_debian_with_a_wrong_toolkit_installed_builds_with_nvidias_packages() -> None:
    chain = replayed("debian12-cuda13.0")
    assert chain.python is not None
    assert (chain.python.path, chain.python.version) == ("/usr/bin/python3.11", "3.11.2")
    assert chain.compiler is not None
    assert (chain.compiler.family, chain.compiler.version) == ("gnu", "12.2.0")
    assert chain.compiler.cc == "/usr/bin/gcc"
    assert [t.version for t in chain.toolkits] == ["13.0.88"]
    assert chain.toolkit is None
    assert {tool.name for tool in chain.tools} == {"cmake", "ninja", "git"}
    assert statuses(chain)["gpu"] == "ok"
    assert "fail" not in statuses(chain).values()
    toolkit = next(check for check in chain.checks if check.id == "toolkit")
    assert "not used: 13.0.88 in /usr/local/cuda-13.0" in toolkit.summary


def test_in_a_container_its_limits_bound_the_jobs() -> None:
    chain = replayed("debian12-container")
    assert (chain.host.cores, chain.host.memory_mib) == (1, 3000)
    assert 2900 < chain.host.memory_free_mib < 3000
    assert chain.jobs == 1
    limits = next(check for check in chain.checks if check.id == "limits")
    assert limits.status == "ok"
    assert "1 CPUs, 3000 MiB" in limits.summary


@pytest.mark.parametrize(
    ("cpus", "memory", "jobs"), [(6, 64, 6), (64, 8, 8), (64, 2, 2), (1, 64, 1), (64, 0.5, 1)]
)
def test_of_the_limits_of_a_container_the_narrowest_bounds_the_jobs(
    cpus: int, memory: float, jobs: int
) -> None:
    recorded = machine.replay(MACHINES / "debian12-container" / "machine.json")("host")
    folder = "/sys/fs/cgroup"
    files = {
        f"{folder}/cpu.max": f"{cpus}00000 100000\n",
        f"{folder}/memory.max": f"{int(memory * 2**30)}\n",
        f"{folder}/memory.current": "0\n",
    }
    large = {"cores": 128, "memory_mib": 2**19, "memory_free_mib": 2**19, "cgroups": files}
    ask = with_answers("debian12-container", {("host",): {**recorded, **large}})
    assert main_probe.probe(ask, fakes.spec(), None).jobs == jobs
    assert main_probe.probe(ask, fakes.spec(), 99).jobs == 99  # as asked


def test_a_machine_without_limits_is_told_of_none() -> None:
    assert "limits" not in statuses(replayed("debian12-cuda13.0"))


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("Driver/library version mismatch", "restart"),
        ("Insufficient Permissions", "/dev/nvidia"),
        ("Driver Not Loaded", "modprobe"),
        ("GPU is lost", "dmesg"),
        ("Unknown Error", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_answer_is_a_finding_with_its_reason(said: str, word: str) -> None:
    ask = with_answers("debian12-cuda13.0", {("nvml",): {"error": said}})
    (gpu,) = [c for c in main_probe.probe(ask, fakes.spec(), None).checks if c.id == "gpu"]
    assert gpu.status == "warn"
    assert said in gpu.summary
    assert "none on this machine" not in gpu.summary
    assert word in gpu.remedy


def test_the_installed_toolkit_is_used_when_asked_for() -> None:
    chain = replayed("debian12-cuda13.0", toolkit="system", cuda="13.0")
    assert chain.toolkit is not None
    assert chain.toolkit.root == "/usr/local/cuda-13.0"
    assert chain.toolkit.accepts is not None
    assert (chain.toolkit.accepts.gnu_max, chain.toolkit.accepts.msvc_max) == (15, 1949)


def test_an_installed_toolkit_of_another_release_is_fatal_when_asked_for() -> None:
    chain = replayed("debian12-cuda13.0", toolkit="system", cuda="13.1")
    assert statuses(chain)["toolkit"] == "fail"


def test_an_nvcc_that_only_calls_another_is_no_toolkit() -> None:
    ask = machine.replay(MACHINES / "debian12-cuda13.0" / "machine.json")
    assert ask("which", "nvcc") == ["/usr/local/bin/nvcc"]  # a wrapper script
    found = main_probe.find_toolkits(ask, "linux", "pypi")
    assert [toolkit.root for toolkit in found] == ["/usr/local/cuda-13.0"]


def test_a_machine_with_nothing_fails_with_a_remedy_for_each() -> None:
    chain = replayed("bare")
    found = (chain.pythons, chain.compilers, chain.toolkits, chain.tools, chain.gpus)
    assert found == ((), (), (), (), ())
    failed = {check.id: check.remedy for check in chain.checks if check.status == "fail"}
    assert failed.keys() == {"python", "compiler"}
    assert "apt install python3.11-venv" in failed["python"]
    assert "apt install g++" in failed["compiler"]


def test_the_h200_box_has_the_gpu_of_the_hopper_target() -> None:
    chain = replayed("ubuntu24-h200", target="hopper", archs=("90-real",))
    assert [(gpu.name, gpu.compute_capability) for gpu in chain.gpus] == [("NVIDIA H200", "9.0")]
    assert chain.driver is not None
    assert chain.driver.release.startswith("580.")
    assert (statuses(chain)["gpu"], statuses(chain)["driver"]) == ("ok", "ok")


def test_another_targets_gpu_is_said_not_to_fit() -> None:
    chain = replayed("ubuntu24-h200", archs=("120-real",))
    gpu = next(check for check in chain.checks if check.id == "gpu")
    assert gpu.status == "warn"
    assert "9.0" in gpu.evidence


def test_the_target_of_the_gpu_that_is_here_is_named() -> None:
    text = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
    ask = machine.replay(MACHINES / "ubuntu24-h200" / FILE)
    chain = main_probe.probe(ask, fakes.spec(), None, targets=targets_file.load(text, "linux"))
    gpu = next(check for check in chain.checks if check.id == "gpu")
    assert gpu.remedy.endswith("nox -s wheel -- --target hopper")


def test_an_old_driver_is_said_not_to_run_the_wheel() -> None:
    nvml = machine.replay(MACHINES / "ubuntu24-h200" / "machine.json")("nvml")
    ask = with_answers("ubuntu24-h200", {("nvml",): {**nvml, "release": "570.86"}})
    chain = main_probe.probe(ask, fakes.spec(archs=("90-real",)), None)
    assert statuses(chain)["driver"] == "warn"


def test_a_replay_refuses_a_question_it_was_never_asked() -> None:
    ask = machine.replay(MACHINES / "bare" / "machine.json")
    with raises("recording-incomplete"):
        ask("which", "rustc")


def test_a_recording_replays_to_the_same_answers(tmp_path: Path) -> None:
    tape: dict[str, Any] = {}
    ask = machine.recording(machine.replay(MACHINES / "bare" / "machine.json"), tape)
    first = main_probe.probe(ask, fakes.spec(), None)
    again = machine.replay(machine.save(tape, tmp_path / "copy"))
    assert main_probe.probe(again, fakes.spec(), None) == first


def test_flags_of_the_shell_are_said_not_to_be_used() -> None:
    ask = with_answers("debian12-cuda13.0", {("env", "CFLAGS"): "-march=native"})
    chain = main_probe.probe(ask, fakes.spec(), None)
    check = next(check for check in chain.checks if check.id == "compiler-environment")
    assert (check.status, check.evidence) == ("warn", "CFLAGS=-march=native")


def test_variables_of_other_builds_are_said_not_to_be_used() -> None:
    ask = machine.replay(MACHINES / "debian12-cuda13.0" / "machine.json")
    chain = main_probe.probe(ask, fakes.spec(), None, "", {"CMAKE_ARGS": "-DGGML_CUDA=on"})
    check = next(check for check in chain.checks if check.id == "build-environment")
    assert (check.status, check.evidence) == ("warn", "CMAKE_ARGS=-DGGML_CUDA=on")


def test_a_python_that_says_nothing_sensible_is_passed_over() -> None:
    keys = [
        ("run", f"{d}/python3.11", "-I", "-c", main_probe._PYTHON_FACTS)
        for d in ("/usr/bin", "/bin")
    ]
    for answer in ({"returncode": 0, "output": "Fatal Python error"}, {"returncode": 127}):
        ask = with_answers("debian12-cuda13.0", {key: {"output": "", **answer} for key in keys})
        pythons = main_probe.find_pythons(ask, "3.11", "linux")
        assert "python3.11 on PATH" not in [python.found_via for python in pythons]


def test_a_python_that_only_a_venv_leads_to_comes_last() -> None:
    def ask(question: str, *words: str) -> Any:
        if question == "which":
            return {"python3.11": ["/venv/bin/python3.11", "/usr/bin/python3.11"]}.get(words[0], [])
        said = {
            "path": "/opt/managed/python3.11" if words[0].startswith("/venv") else words[0],
            "version": "3.11.9",
            "bits": 64,
            "in_venv": words[0].startswith("/venv"),
            "can_venv": True,
        }
        return {"returncode": 0, "output": json.dumps(said)}

    found = [python.path for python in main_probe.find_pythons(ask, "3.11", "linux")]
    assert found == ["/usr/bin/python3.11", "/opt/managed/python3.11"]


def only_python(version: str, *, on_path: bool = True) -> Machine:
    """The Debian machine with one Python, not 3.11; without ``on_path`` nothing leads to it."""
    said = {"path": "/opt/py", "version": version, "bits": 64, "in_venv": False, "can_venv": True}
    run = ("run", "/opt/py", "-I", "-c", main_probe._PYTHON_FACTS)
    gone: dict[tuple[str, ...], Any] = {("which", f"python{n}"): [] for n in ("3.11", "3", "")}
    return with_answers(
        "debian12-cuda13.0",
        {
            **gone,
            ("which", "python3"): ["/opt/py"] if on_path else [],
            ("interpreter",): "/opt/py",
            run: {"returncode": 0, "output": json.dumps(said), "errors": ""},
        },
    )


@pytest.mark.parametrize("on_path", [True, False], ids=["PATH", "runs-this"])
@pytest.mark.parametrize("version", ["3.12.1", "3.13.0", "3.14.2"])
def test_another_python_builds_the_wheel_of_the_targets(version: str, on_path: bool) -> None:
    chain = main_probe.probe(only_python(version, on_path=on_path), fakes.spec(), None)
    assert chain.python is not None
    assert (chain.python.version, chain.python.path) == (version, "/opt/py")
    assert statuses(chain)["python"] == "ok"


@pytest.mark.parametrize(
    ("release", "given", "runs", "status"),
    [
        ("0.3.16", "", True, "fail"),
        ("0.3.36", "", True, "ok"),
        ("0.3.16", "x-0.3.16-cp311-cp311-linux_x86_64.whl", False, "fail"),
        ("0.3.16", "x-0.3.36-py3-none-linux_x86_64.whl", False, "ok"),
    ],
    ids=["of-3.11", "of-every", "given-of-3.11", "given-of-every"],
)
def test_a_wheel_is_run_by_a_python_that_it_is_for(
    release: str, given: str, runs: bool, status: str
) -> None:
    ask = only_python("3.13.0")
    chain = main_probe.probe(ask, fakes.spec(version=release), None, given, runs=runs)
    check = next(check for check in chain.checks if check.id == "python")
    assert check.status == status
    assert ("--python 3.13" in check.remedy) is (status == "fail")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "g++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation",
            ("gnu", "12.2.0"),
        ),
        (
            "g++-13 (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0\nCopyright (C) Free Software Foundation",
            ("gnu", "13.3.0"),
        ),
        (
            "Ubuntu clang version 18.1.3 (1ubuntu1)\nTarget: x86_64-pc-linux-gnu",
            ("clang", "18.1.3"),
        ),
        ("Apple clang version 15.0.0", ("clang", "15.0.0")),
        ("icpx 2024", None),
        ("", None),
    ],
)
def test_compilers_are_read_from_what_they_print(
    text: str, expected: tuple[str, str] | None
) -> None:
    assert main_probe.parse_compiler(text) == expected


def test_nvml_that_does_not_start_is_no_driver_and_no_gpu() -> None:
    assert main_probe.read_nvml({"error": "NVML Shared Library Not Found"}) == (None, ())


def test_of_a_gpu_the_record_keeps_what_does_not_change_from_hour_to_hour() -> None:
    driver, (gpu,) = main_probe.read_nvml(fakes.nvml(fakes.nvml_gpu(memory_free_mib=17)))
    assert driver is not None
    assert (driver.release, gpu) == ("580.159.04", fakes.gpu())


# ---- what smoke will need -----------------------------------------------------------------------


def probing(
    root: Path, *words: str, nvml: dict[str, Any], asked: str = "smoke", **changes: Any
) -> Context:
    """The surroundings of the probe in ``nox -s smoke -- …``, on a machine that can build."""
    named: dict[str, Any] = {
        "session": "probe",
        "asked": frozenset({asked}),
        "machine": with_answers("debian12-cuda13.0", {("nvml",): nvml}),
    }
    return fakes.context(root, *words, **{**named, **changes})


NO_DRIVER = {"error": "NVML Shared Library Not Found"}


def test_smoke_without_a_driver_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    ctx = probing(tmp_path, nvml=NO_DRIVER)
    with raises("gpu-not-usable") as caught:
        main_probe.main(ctx)
    assert "nox -s bundle" in caught.value.remedy
    assert "--report FILE" in caught.value.remedy
    assert "--device cpu" in caught.value.remedy
    assert not ctx.record("probe").exists()  # so no stage after it begins


def test_smoke_with_a_gpu_of_another_kind_is_refused(tmp_path: Path) -> None:
    nvml = fakes.nvml(fakes.nvml_gpu(name="NVIDIA H200", compute_capability="9.0"))
    with raises("gpu-not-usable"):
        main_probe.main(probing(tmp_path, nvml=nvml))


def test_smoke_with_its_gpu_goes_on(tmp_path: Path) -> None:
    ctx = probing(tmp_path, nvml=fakes.nvml())
    main_probe.main(ctx)
    chain = records.read(ctx.record("probe"), "probe", Toolchain)
    assert chain is not None
    assert chain.gpus == (fakes.gpu(),)


def test_main_leaves_which_revision_of_the_compiler_it_is(tmp_path: Path) -> None:
    ctx = probing(tmp_path, "--record", str(tmp_path / "tape"), nvml=fakes.nvml())
    main_probe.main(ctx)
    chain = records.need(ctx.record("probe"), "probe", Toolchain)
    assert chain.compiler is not None
    assert chain.compiler.identity["release"] == "g++ (Debian 12.2.0-14+deb12u1) 12.2.0"
    assert "libgomp.so.1" in chain.compiler.linked
    # What was asked for it is in the recording, so that a replay can be asked too.
    again = probing(tmp_path / "again", nvml={}, machine=machine.replay(tmp_path / "tape" / FILE))
    main_probe.main(again)
    assert records.need(again.record("probe"), "probe", Toolchain).compiler == chain.compiler


def test_main_leaves_what_the_files_of_an_installed_toolkit_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = fakes.spec(cuda="13.0", toolkit="system")
    ctx = probing(tmp_path, nvml=fakes.nvml(), spec=spec, asked="probe")
    main_probe.main(ctx)
    chain = records.need(ctx.record("probe"), "probe", Toolchain)
    assert chain.toolkit is not None
    assert len(chain.toolkit.files) == 16
    assert "CUDA (used)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ((), {"asked": "wheel"}),
        (("--device", "cpu"), {}),
        (("--report", "smoke-report.json"), {}),
        ((), {"spec": fakes.cpu_spec()}),
    ],
    ids=["not-asked-for", "on-the-cpu", "a-report", "the-cpu-target"],
)
def test_what_needs_no_gpu_is_not_refused_for_want_of_one(
    words: tuple[str, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    ctx = probing(tmp_path, *words, nvml=NO_DRIVER, **changes)
    main_probe.main(ctx)
    assert ctx.record("probe").exists()


def bare_of(*programs: str) -> Machine:
    """The Debian machine without the programs of these names, and with a GPU."""
    names = (*main_probe._GNU, *main_probe._CLANG, *programs)
    gone: dict[tuple[str, ...], Any] = {("which", name): [] for name in names}
    gone[("interpreter",)] = None
    return with_answers("debian12-cuda13.0", {**gone, ("nvml",): fakes.nvml()})


def test_a_wheel_that_is_given_is_tried_without_a_compiler(tmp_path: Path) -> None:
    ctx = probing(tmp_path, "--wheel", "x.whl", nvml={}, machine=bare_of())
    main_probe.main(ctx)
    chain = records.read(ctx.record("probe"), "probe", Toolchain)
    assert chain is not None
    assert statuses(chain)["compiler"] == "fail"


def test_a_wheel_that_is_built_first_needs_the_compiler(tmp_path: Path) -> None:
    with raises("probe-target-not-buildable"):
        main_probe.main(probing(tmp_path, nvml={}, machine=bare_of()))


def test_a_wheel_that_is_given_needs_the_targets_python(tmp_path: Path) -> None:
    no_python = bare_of("python3.11", "python3", "python")
    ctx = probing(tmp_path, "--wheel", "x.whl", nvml={}, machine=no_python)
    with raises("probe-target-not-buildable"):
        main_probe.main(ctx)


def test_a_report_that_is_taken_back_needs_no_python_of_the_targets(tmp_path: Path) -> None:
    words = ("--report", "smoke-report.json")  # the wheel ran on another machine
    ctx = probing(tmp_path, *words, nvml={}, machine=only_python("3.13.0"))
    main_probe.main(ctx)
    chain = records.read(ctx.record("probe"), "probe", Toolchain)
    assert chain is not None
    assert statuses(chain)["python"] == "ok"


def test_a_wheel_that_is_given_is_refused_where_its_venv_would_lie_too_deep(tmp_path: Path) -> None:
    deep = Windows(gpu="NVIDIA GeForce RTX 5090", root="C:\\" + "r" * 90)  # no Visual Studio either
    spec = fakes.spec(platform="windows")
    for name, fits in (("x.whl", True), (f"{'x' * 60}.whl", False)):
        ctx = probing(tmp_path, "--wheel", name, nvml={}, machine=machines.machine(deep), spec=spec)
        with contextlib.nullcontext() if fits else raises("probe-target-not-buildable"):
            main_probe.main(ctx)


@pytest.mark.parametrize("gone", [(), ("python3.11", "python3", "python")], ids=["ok", "refused"])
def test_a_wheel_that_is_given_leaves_the_targets_own_record_as_it_is(
    gone: tuple[str, ...], tmp_path: Path
) -> None:
    # With --wheel no lock is taken, so a build of the target may be at work with its record.
    own = probing(tmp_path, nvml={}).record("probe")
    records.write(own, "probe", fakes.chain())
    before = own.read_bytes()
    ctx = probing(tmp_path, "--wheel", "x.whl", nvml={}, machine=bare_of(*gone))
    with raises("probe-target-not-buildable") if gone else contextlib.nullcontext():
        main_probe.main(ctx)
    assert own.read_bytes() == before
    assert ctx.record("probe").exists() is not bool(gone)
