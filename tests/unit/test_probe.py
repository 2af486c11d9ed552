"""The probe on recorded machines, and its parsers with the output of real programs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from sessions.probe import find_compilers, main_probe
from sessions.probe.record_types import Toolchain
from sessions.shared import machine, records
from sessions.shared.check_result import Check
from sessions.shared.context import Context
from sessions.shared.machine import Machine
from sessions.targets import targets_file
from tests import fakes, machines
from tests.machines import Windows
from tests.problems import raises

FILE = "machine.json"
MACHINES = fakes.ROOT / "tests" / "data" / "machines"


def recording(name: str) -> Machine:
    return machine.replay(MACHINES / name / FILE)


def replayed(name: str, **changes: Any) -> Toolchain:
    return main_probe.probe(recording(name), fakes.spec(**changes), None)


def statuses(chain: Toolchain) -> dict[str, str]:
    return {check.id: check.status for check in chain.checks}


def check(chain: Toolchain, id_: str) -> Check:
    (found,) = [check for check in chain.checks if check.id == id_]
    return found


def with_answers(name: str, answers: dict[tuple[str, ...], Any]) -> Machine:
    """A recorded machine with other answers to some questions."""
    recorded = recording(name)

    def ask(question: str, *words: str) -> Any:
        key = (question, *words)
        return answers[key] if key in answers else recorded(question, *words)

    return ask


def test_debian_with_another_toolkit_installed_builds_with_nvidias_packages() -> None:
    chain = replayed("debian12-cuda13.0")
    assert chain.python is not None
    assert (chain.python.path, chain.python.version) == ("/usr/bin/python3.11", "3.11.2")
    compiler = chain.compiler
    assert compiler is not None
    assert (compiler.family, compiler.version, compiler.cc) == ("gnu", "12.2.0", "/usr/bin/gcc")
    assert ([t.version for t in chain.toolkits], chain.toolkit) == (["13.0.88"], None)
    assert {tool.name for tool in chain.tools} == {"cmake", "ninja", "git"}
    assert check(chain, "gpu").status == "ok"
    assert not {"fail", "limits"} & {*statuses(chain).values(), *statuses(chain)}
    assert "not used: 13.0.88 in /usr/local/cuda-13.0" in check(chain, "toolkit").summary


def test_limits_of_a_container_reduce_the_jobs() -> None:
    chain = replayed("debian12-container")
    assert (chain.host.cores, chain.host.memory_mib, chain.jobs) == (1, 3000, 1)
    assert 2900 < chain.host.memory_free_mib < 3000
    limits = check(chain, "limits")
    assert (limits.status, "1 CPUs, 3000 MiB" in limits.summary) == ("ok", True)


@pytest.mark.parametrize(
    ("cpus", "memory", "jobs"), [(6, 64, 6), (64, 8, 8), (64, 2, 2), (1, 64, 1), (64, 0.5, 1)]
)
def test_the_lowest_limit_of_a_container_decides_the_jobs(
    cpus: int, memory: float, jobs: int
) -> None:
    recorded = recording("debian12-container")("host")
    folder = "/sys/fs/cgroup"
    files = {
        f"{folder}/cpu.max": f"{cpus}00000 100000\n",
        f"{folder}/memory.max": f"{int(memory * 2**30)}\n",
        f"{folder}/memory.current": "0\n",
    }
    large = {"cores": 128, "memory_mib": 2**19, "memory_free_mib": 2**19, "cgroups": files}
    ask = with_answers("debian12-container", {("host",): {**recorded, **large}})
    assert main_probe.probe(ask, fakes.spec(), None).jobs == jobs
    assert main_probe.probe(ask, fakes.spec(), 99).jobs == 99  # as requested


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("Driver/library version mismatch", "restart"),
        ("Insufficient Permissions", "/dev/nvidia"),
        ("Driver Not Loaded", "modprobe"),
        ("GPU is lost", "dmesg"),
        ("Unknown Error", "nvidia-smi"),
    ],
)
def test_an_error_of_nvml_is_a_warning_with_its_remedy(error: str, remedy: str) -> None:
    ask = with_answers("debian12-cuda13.0", {("nvml",): {"error": error}})
    chain = main_probe.probe(ask, fakes.spec(), None)
    gpu = check(chain, "gpu")
    assert (chain.driver, chain.gpus, gpu.status) == (None, (), "warn")
    assert error in gpu.summary
    assert remedy in gpu.remedy


@pytest.mark.parametrize(("cuda", "status"), [("13.0", "ok"), ("13.1", "fail")])
def test_the_installed_toolkit_is_used_on_request_if_its_version_fits(
    cuda: str, status: str
) -> None:
    chain = replayed("debian12-cuda13.0", toolkit="system", cuda=cuda)
    assert check(chain, "toolkit").status == status
    if status == "ok":
        assert chain.toolkit is not None
        assert chain.toolkit.root == "/usr/local/cuda-13.0"
        assert chain.toolkit.accepts is not None
        assert (chain.toolkit.accepts.gnu_max, chain.toolkit.accepts.msvc_max) == (15, 1949)


def test_an_nvcc_that_only_calls_another_nvcc_is_not_a_toolkit() -> None:
    ask = recording("debian12-cuda13.0")
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


def test_the_hopper_target_fits_the_h200() -> None:
    chain = replayed("ubuntu24-h200", target="hopper", archs=("90-real",))
    assert [(gpu.name, gpu.compute_capability) for gpu in chain.gpus] == [("NVIDIA H200", "9.0")]
    assert chain.driver is not None
    assert chain.driver.release.startswith("580.")
    assert (statuses(chain)["gpu"], statuses(chain)["driver"]) == ("ok", "ok")


def test_the_target_of_this_machines_gpu_is_named() -> None:
    text = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
    targets = targets_file.load(text, "linux")
    chain = main_probe.probe(recording("ubuntu24-h200"), fakes.spec(), None, targets=targets)
    gpu = check(chain, "gpu")
    assert (gpu.status, "9.0" in gpu.evidence) == ("warn", True)
    assert gpu.remedy.endswith("nox -s wheel -- --target hopper")


def test_a_recording_replays_the_same_answers_and_refuses_other_questions(tmp_path: Path) -> None:
    tape: dict[str, Any] = {}
    first = main_probe.probe(machine.recording(recording("bare"), tape), fakes.spec(), None)
    again = machine.replay(machine.save(tape, tmp_path / "copy"))
    assert main_probe.probe(again, fakes.spec(), None) == first
    with raises("recording-incomplete"):
        again("which", "rustc")


def test_variables_of_the_callers_environment_that_have_no_effect_are_named() -> None:
    ask = with_answers("debian12-cuda13.0", {("env", "CFLAGS"): "-march=native"})
    chain = main_probe.probe(ask, fakes.spec(), None, "", {"CMAKE_ARGS": "-DGGML_CUDA=on"})
    for id_, evidence in (
        ("compiler-environment", "CFLAGS=-march=native"),
        ("build-environment", "CMAKE_ARGS=-DGGML_CUDA=on"),
    ):
        assert (check(chain, id_).status, check(chain, id_).evidence) == ("warn", evidence)


def test_a_python_without_a_valid_answer_is_skipped() -> None:
    keys = [
        ("run", f"{d}/python3.11", "-I", "-c", main_probe._PYTHON_FACTS)
        for d in ("/usr/bin", "/bin")
    ]
    for answer in ({"returncode": 0, "output": "Fatal Python error"}, {"returncode": 127}):
        ask = with_answers("debian12-cuda13.0", {key: {"output": "", **answer} for key in keys})
        pythons = main_probe.find_pythons(ask, "3.11", "linux")
        assert "python3.11 on PATH" not in [python.found_via for python in pythons]


def test_a_python_found_only_through_a_venv_comes_last() -> None:
    def ask(question: str, *words: str) -> Any:
        if question == "which":
            return {"python3.11": ["/venv/bin/python3.11", "/usr/bin/python3.11"]}.get(words[0], [])
        facts = {
            "path": "/opt/managed/python3.11" if words[0].startswith("/venv") else words[0],
            "version": "3.11.9",
            "bits": 64,
            "in_venv": words[0].startswith("/venv"),
            "can_venv": True,
        }
        return {"returncode": 0, "output": json.dumps(facts)}

    found = [python.path for python in main_probe.find_pythons(ask, "3.11", "linux")]
    assert found == ["/usr/bin/python3.11", "/opt/managed/python3.11"]


def only_python(version: str, *, on_path: bool = True) -> Machine:
    """The Debian machine with one Python, not 3.11; without ``on_path`` it is not on PATH."""
    facts = {"path": "/opt/py", "version": version, "bits": 64, "in_venv": False, "can_venv": True}
    run = ("run", "/opt/py", "-I", "-c", main_probe._PYTHON_FACTS)
    gone: dict[tuple[str, ...], Any] = {("which", f"python{n}"): [] for n in ("3.11", "3", "")}
    return with_answers(
        "debian12-cuda13.0",
        {
            **gone,
            ("which", "python3"): ["/opt/py"] if on_path else [],
            ("interpreter",): "/opt/py",
            run: {"returncode": 0, "output": json.dumps(facts), "errors": ""},
        },
    )


@pytest.mark.parametrize("on_path", [True, False], ids=["PATH", "runs-this"])
@pytest.mark.parametrize("version", ["3.12.1", "3.13.0", "3.14.2"])
def test_a_python_of_another_version_can_build_the_wheel(version: str, on_path: bool) -> None:
    chain = main_probe.probe(only_python(version, on_path=on_path), fakes.spec(), None)
    assert chain.python is not None
    assert (chain.python.version, chain.python.path) == (version, "/opt/py")
    assert statuses(chain)["python"] == "ok"


@pytest.mark.parametrize(
    ("release", "external", "runs", "status"),
    [
        ("0.3.16", "", True, "fail"),
        ("0.3.36", "", True, "ok"),
        ("0.3.16", "x-0.3.16-cp311-cp311-linux_x86_64.whl", False, "fail"),
        ("0.3.16", "x-0.3.36-py3-none-linux_x86_64.whl", False, "ok"),
    ],
    ids=["of-3.11", "of-every", "external-of-3.11", "external-of-every"],
)
def test_a_wheel_runs_only_in_a_python_that_it_is_for(
    release: str, external: str, runs: bool, status: str
) -> None:
    ask = only_python("3.13.0")
    chain = main_probe.probe(ask, fakes.spec(version=release), None, external, runs=runs)
    python = check(chain, "python")
    assert python.status == status
    assert ("--python 3.13" in python.remedy) is (status == "fail")


FSF = "Copyright (C) 2022 Free Software Foundation"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"g++ (Debian 12.2.0-14+deb12u1) 12.2.0\n{FSF}", ("gnu", "12.2.0")),
        (f"g++-13 (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0\n{FSF}", ("gnu", "13.3.0")),
        ("Ubuntu clang version 18.1.3 (1ubuntu1)\nTarget: x86_64", ("clang", "18.1.3")),
        ("Apple clang version 15.0.0", ("clang", "15.0.0")),
        ("icpx 2024", None),
        ("", None),
    ],
)
def test_parse_compiler(text: str, expected: tuple[str, str] | None) -> None:
    assert find_compilers.parse_compiler(text) == expected


def test_the_record_of_a_gpu_contains_only_values_that_do_not_change() -> None:
    driver, (gpu,) = main_probe.read_nvml(fakes.nvml(fakes.nvml_gpu(memory_free_mib=17)))
    assert driver is not None
    assert (driver.release, gpu) == ("580.159.04", fakes.gpu())


# ---- The session --------------------------------------------------------------------------------


def probing(
    root: Path, *words: str, nvml: dict[str, Any], session: str = "smoke", **changes: Any
) -> Context:
    """The context of the probe in ``nox -s smoke -- …``, on a machine that can build."""
    named: dict[str, Any] = {
        "session": "probe",
        "asked": frozenset({session}),
        "machine": with_answers("debian12-cuda13.0", {("nvml",): nvml}),
    }
    return fakes.context(root, *words, **{**named, **changes})


def probed(ctx: Context) -> Toolchain:
    """The record that the session writes."""
    main_probe.main(ctx)
    return records.need(ctx.record("probe"), "probe", Toolchain)


NO_DRIVER = {"error": "NVML Shared Library Not Found"}


def test_smoke_fails_before_the_build_without_a_gpu_that_fits(tmp_path: Path) -> None:
    other = fakes.nvml_gpu(name="NVIDIA H200", compute_capability="9.0")
    for nvml in (NO_DRIVER, fakes.nvml(other)):
        ctx = probing(tmp_path, nvml=nvml)
        with raises("gpu-not-usable") as caught:
            main_probe.main(ctx)
        for text in ("nox -s bundle", "--report FILE", "--device cpu"):
            assert text in caught.value.remedy
        assert not ctx.record("probe").exists()  # so no later phase starts
    assert probed(probing(tmp_path, nvml=fakes.nvml())).gpus == (fakes.gpu(),)


def test_the_record_contains_the_identity_of_the_compiler(tmp_path: Path) -> None:
    ctx = probing(tmp_path, "--record", str(tmp_path / "tape"), nvml=fakes.nvml())
    compiler = probed(ctx).compiler
    assert compiler is not None
    assert compiler.identity["release"] == "g++ (Debian 12.2.0-14+deb12u1) 12.2.0"
    assert "libgomp.so.1" in compiler.linked
    # The recording contains the questions for it.
    again = probing(tmp_path / "again", nvml={}, machine=machine.replay(tmp_path / "tape" / FILE))
    assert probed(again).compiler == compiler


def test_the_record_contains_the_identity_of_an_installed_toolkit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = fakes.spec(cuda="13.0", toolkit="system")
    toolkit = probed(probing(tmp_path, nvml=fakes.nvml(), spec=spec, session="probe")).toolkit
    assert toolkit is not None
    assert len(toolkit.files) == 16
    assert "CUDA (used)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ((), {"session": "wheel"}),
        (("--device", "cpu"), {}),
        (("--report", "smoke-report.json"), {}),
        ((), {"spec": fakes.cpu_spec()}),
    ],
    ids=["not-asked-for", "on-the-cpu", "a-report", "the-cpu-target"],
)
def test_a_run_that_needs_no_gpu_does_not_fail_without_one(
    words: tuple[str, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    assert probed(probing(tmp_path, *words, nvml=NO_DRIVER, **changes)).driver is None


def bare_of(*programs: str) -> Machine:
    """The Debian machine with a GPU, without compilers and without these programs."""
    names = (*find_compilers._GNU, *find_compilers._CLANG, *programs)
    gone: dict[tuple[str, ...], Any] = {("which", name): [] for name in names}
    gone[("interpreter",)] = None
    return with_answers("debian12-cuda13.0", {**gone, ("nvml",): fakes.nvml()})


def test_a_build_without_a_compiler_fails(tmp_path: Path) -> None:
    with raises("probe-target-not-buildable"):
        main_probe.main(probing(tmp_path, nvml={}, machine=bare_of()))


def test_an_imported_report_needs_no_python_of_the_target(tmp_path: Path) -> None:
    words = ("--report", "smoke-report.json")  # the wheel ran on another machine
    ctx = probing(tmp_path, *words, nvml={}, machine=only_python("3.13.0"))
    assert statuses(probed(ctx))["python"] == "ok"


def test_an_external_wheel_fails_if_its_paths_would_be_too_long(tmp_path: Path) -> None:
    deep = Windows(gpu="NVIDIA GeForce RTX 5090", root="C:\\" + "r" * 90)  # no Visual Studio either
    spec = fakes.spec(platform="windows")
    for name, fits in (("x.whl", True), (f"{'x' * 60}.whl", False)):
        ctx = probing(tmp_path, "--wheel", name, nvml={}, machine=machines.machine(deep), spec=spec)
        with contextlib.nullcontext() if fits else raises("probe-target-not-buildable"):
            main_probe.main(ctx)


def test_an_external_wheel_needs_a_python_and_does_not_change_the_record_of_the_target(
    tmp_path: Path,
) -> None:
    # With --wheel no lock is taken, so a build of the target may be using its record.
    own = probing(tmp_path, nvml={}).record("probe")
    records.write(own, "probe", fakes.chain())
    before = own.read_bytes()
    ctx = probing(tmp_path, "--wheel", "x.whl", nvml={}, machine=bare_of())
    assert statuses(probed(ctx))["compiler"] == "fail"
    bare = bare_of("python3.11", "python3", "python")
    ctx = probing(tmp_path, "--wheel", "x.whl", nvml={}, machine=bare)
    with raises("probe-target-not-buildable"):
        main_probe.main(ctx)
    assert own.read_bytes() == before
    assert not ctx.record("probe").exists()
