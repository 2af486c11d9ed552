"""Choosing from what was found, and judging the choice."""

from __future__ import annotations

from typing import Any

import pytest

from sessions.probe import machine_checks, selection
from sessions.probe.model import Compiler, Driver, Toolchain
from sessions.shared import knowledge, programs
from sessions.shared.build_spec import BuildSpec, HostRange
from sessions.shared.checks import Check
from sessions.targets import targets_file
from tests import fakes

TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
ACCEPTS = knowledge.toolkit("13.1").accepts


@pytest.mark.parametrize(
    ("cores", "free", "asked", "jobs"),
    [
        (8, 30000, None, 8),
        (64, 4500, None, 4),
        (64, 1023, None, 1),
        (1, 30000, None, 1),
        (8, 30000, 32, 32),
        (8, 500, 3, 3),
    ],
    ids=["cores", "memory", "hardly-any-memory", "one-core", "asked-more", "asked-in-spite"],
)
def test_jobs_follow_cores_and_memory_unless_asked_for(
    cores: int, free: int, asked: int | None, jobs: int
) -> None:
    assert selection.job_count(fakes.host(cores=cores, memory_free_mib=free), asked) == jobs


def test_the_python_of_the_right_version_and_width_is_chosen() -> None:
    right = fakes.python(path="/right")
    others = [
        fakes.python(path="/new", version="3.12.1"),
        fakes.python(path="/old", version="3.1.1"),
        fakes.python(path="/narrow", bits=32),
    ]
    for may in (False, True):
        assert selection.choose_python([*others, right], "3.11", others=may) == right
    assert selection.choose_python(others, "3.11", others=False) is None
    chosen = selection.choose_python(others, "3.11", others=True)
    assert chosen == others[0]  # 3.1 has no build tools


def test_a_python_that_can_make_a_venv_goes_before_one_that_cannot() -> None:
    bare, whole = fakes.python(path="/bare", can_venv=False), fakes.python(path="/whole")
    assert selection.choose_python([bare, whole], "3.11", others=False) == whole
    assert selection.choose_python([bare], "3.11", others=True) == bare
    other = fakes.python(path="/other", version="3.13.0")
    assert selection.choose_python([bare, other], "3.11", others=True) == other
    assert selection.choose_python([bare, other], "3.11", others=False) == bare


def test_an_installed_toolkit_is_chosen_only_when_asked_for() -> None:
    old, same = fakes.installed(), fakes.installed(root="/opt/cuda-13.1", version="13.1.115")
    assert selection.choose_toolkit([old, same], fakes.spec()) is None
    assert selection.choose_toolkit([old, same], fakes.spec(toolkit="system")) == same
    assert selection.choose_toolkit([old], fakes.spec(toolkit="system")) is None
    assert selection.choose_toolkit([old, same], fakes.cpu_spec(toolkit="system")) is None


def test_a_named_toolkit_is_chosen_whatever_its_version() -> None:
    named = fakes.installed(root="/mine", found_via="--toolkit")
    same = fakes.installed(root="/opt/cuda-13.1", version="13.1.115")
    assert selection.choose_toolkit([same, named], fakes.spec(toolkit="/mine")) == named
    assert selection.choose_toolkit([same], fakes.spec(toolkit="/mine")) is None


def test_the_first_compiler_that_fits_is_chosen() -> None:
    new, fits, also = (
        fakes.compiler(version="16.1.0", cxx="/a"),
        fakes.compiler(version="14.2.0", cxx="/b"),
        fakes.compiler(version="12.2.0", cxx="/c"),
    )
    chosen, why = selection.choose_compiler([new, fits, also], ACCEPTS, None)
    assert chosen == fits
    assert why == "gnu 14.2.0 (/b): the first that fits of g++, g++-N, clang++"


def test_too_old_a_compiler_is_passed_over() -> None:
    old, fits = fakes.compiler(version="8.5.0"), fakes.compiler(version="9.1.0")
    assert selection.choose_compiler([old, fits], ACCEPTS, None)[0] == fits


def test_too_new_a_compiler_is_taken_where_there_is_no_other_and_said_so() -> None:
    chosen, why = selection.choose_compiler(
        [fakes.compiler(version="8.5.0"), fakes.compiler(version="16.1.0")], ACCEPTS, None
    )
    assert chosen is not None
    assert chosen.version == "16.1.0"
    assert "CUDA accepts gnu any to 15" in why
    assert "told to allow it" in why


def test_too_new_a_compiler_is_fine_for_the_cpu() -> None:
    new = fakes.compiler(version="16.1.0")
    chosen, why = selection.choose_compiler([new], None, None)
    assert chosen == new
    assert why.endswith("the first that fits of g++, g++-N, clang++")


def test_with_old_compilers_alone_none_is_chosen_and_each_reason_is_given() -> None:
    old = [fakes.compiler(version="8.5.0"), fakes.clang("9.0.1")]
    assert selection.choose_compiler(old, ACCEPTS, None) == (
        None,
        "gnu 8.5.0 (/usr/bin/g++): too old: upstream needs gnu 9; "
        "clang 9.0.1 (/usr/bin/clang++): too old: upstream needs clang 10",
    )


def test_without_a_compiler_none_is_chosen() -> None:
    assert selection.choose_compiler([], ACCEPTS, None) == (None, "none found")


def test_the_named_compiler_is_chosen_before_one_that_fits_better() -> None:
    named = fakes.compiler(version="8.5.0", cxx="/mine", found_via="--compiler")
    chosen, why = selection.choose_compiler([fakes.compiler(), named], ACCEPTS, "/mine")
    assert chosen == named
    assert why == "gnu 8.5.0 (/mine): named by --compiler"


def test_a_named_compiler_that_does_not_run_is_not_replaced_by_another() -> None:
    chosen, why = selection.choose_compiler([fakes.compiler()], ACCEPTS, "/mine")
    assert chosen is None
    assert why == "--compiler /mine is not a C++ compiler that runs"


@pytest.mark.parametrize(
    ("compiler", "fits"),
    [
        (fakes.compiler(version="8.5.0"), False),
        (fakes.compiler(version="9.1.0"), True),
        (fakes.compiler(version="15.2.0"), True),
        (fakes.compiler(version="16.1.0"), False),
        (fakes.clang("9.0.1"), False),
        (fakes.clang("10.0.0"), True),
        (fakes.clang("21.1.0"), True),
        (fakes.clang("22.1.0"), False),
    ],
    ids=lambda value: f"{value.family}-{value.version}" if isinstance(value, Compiler) else None,
)
def test_the_range_of_13_1_has_both_ends_in_it(compiler: Compiler, fits: bool) -> None:
    assert (selection.refusal(compiler, ACCEPTS) is None) is fits


@pytest.mark.parametrize(
    ("line", "newest"),
    [("13.0", 1949), ("13.1", 1949), ("13.2", 1959), ("13.3", 1959), ("13.4", 1959)],
)
def test_visual_studio_2026_needs_cuda_13_2_or_newer(line: str, newest: int) -> None:
    accepts = knowledge.toolkit(line).accepts

    def fits(number: int) -> bool:
        return selection.refusal(fakes.msvc(str(number)), accepts) is None

    assert [fits(n) for n in (1919, 1920, newest, newest + 1)] == [False, True, True, False]
    assert fits(1950) is (line not in ("13.0", "13.1"))


def test_a_refused_visual_studio_is_told_the_range() -> None:
    assert selection.refusal(fakes.msvc("1950"), ACCEPTS) == "CUDA accepts msvc 1920 to 1949"


def judged(
    spec: BuildSpec | None = None, flags: dict[str, str] | None = None, **changes: Any
) -> dict[str, Check]:
    """The checks of a good machine with these changes, by id."""
    checks = machine_checks.checks(fakes.chain(**changes), spec or fakes.spec(), flags or {})
    return {check.id: check for check in checks}


@pytest.mark.parametrize(
    ("glibc", "cuda", "toolkit", "status"),
    [
        ("2.41", "13.1", "pypi", None),
        ("", "13.1", "pypi", None),  # Windows
        ("2.42", "13.1", "pypi", "ok"),
        ("2.43", "13.0", "system", "fail"),
        ("3.0", "13.1", "system", "fail"),
        ("2.42", "13.4", "system", None),
    ],
)
def test_headers_that_do_not_compile_with_this_glibc_are_corrected_or_refused(
    glibc: str, cuda: str, toolkit: str, status: str | None
) -> None:
    installed = fakes.installed(version=f"{cuda}.1")
    checks = judged(
        fakes.spec(cuda=cuda, toolkit=toolkit),
        host=fakes.host(glibc=glibc),
        toolkits=(installed,),
        toolkit=installed if toolkit == "system" else None,
    )
    assert ("glibc" in checks) == (status is not None)
    if status:
        assert checks["glibc"].status == status
    if status == "fail":
        assert "--cuda 13.4" in checks["glibc"].remedy


def test_a_machine_with_everything_has_no_complaint() -> None:
    checks = judged()
    assert [check.id for check in checks.values() if check.status != "ok"] == []
    assert set(checks) == {
        "platform",
        "memory",
        "disk",
        "python",
        "compiler",
        "toolkit",
        "architecture",
        "gpu",
        "driver",
    }


@pytest.mark.parametrize("digest", ["none", None])
def test_a_compiler_without_a_cpp_runtime_to_link_in_is_refused(digest: str | None) -> None:
    linked = {"libstdc++.a": digest} if digest else {}
    chain = fakes.chain(compiler=fakes.compiler(linked=linked))
    (found,) = machine_checks.linked_runtime(chain, fakes.cpu_spec(glibc="2.28"))
    assert (found.id, found.status) == ("libstdc++", "fail")
    assert "dnf install libstdc++-static" in found.remedy
    assert "--glibc host" in found.remedy


def test_a_cpp_runtime_to_link_in_is_asked_for_only_where_it_is_linked_in() -> None:
    there = fakes.chain(compiler=fakes.compiler(linked={"libstdc++.a": "a" * 16}))
    (found,) = machine_checks.linked_runtime(there, fakes.cpu_spec(glibc="2.28"))
    assert found.status == "ok"
    none = fakes.chain(compiler=fakes.compiler(linked={}))
    assert machine_checks.linked_runtime(none, fakes.cpu_spec(glibc="host")) == ()
    assert machine_checks.linked_runtime(none, fakes.spec(platform="windows", glibc="2.28")) == ()
    nothing = fakes.chain(compiler=None)
    assert machine_checks.linked_runtime(nothing, fakes.cpu_spec(glibc="2.28")) == ()


def test_a_cpu_target_is_not_judged_by_its_gpus() -> None:
    assert set(judged(fakes.cpu_spec(), driver=None, gpus=())) == {
        "platform",
        "memory",
        "disk",
        "python",
        "compiler",
    }


SYSTEM = fakes.spec(toolkit="system")
OLD = fakes.compiler(version="8.5.0")
NEW = fakes.compiler(version="16.1.0")
WINDOWS = {"system": "windows", "machine": "AMD64"}
COMPLAINTS: dict[str, tuple[str, str, BuildSpec | None, dict[str, str], dict[str, Any]]] = {
    "arm": ("platform", "fail", None, {}, {"host": fakes.host(machine="aarch64")}),
    "mac": ("platform", "fail", None, {}, {"host": fakes.host(system="darwin")}),
    "memory": ("memory", "warn", None, {}, {"host": fakes.host(memory_free_mib=900)}),
    "disk": ("disk", "warn", None, {}, {"host": fakes.host(disk_free_mib=3000)}),
    "no-python": ("python", "fail", None, {}, {"python": None}),
    "no-venv": ("python", "fail", None, {}, {"python": fakes.python(can_venv=False)}),
    "no-compiler": ("compiler", "fail", None, {}, {"compiler": None, "compiler_why": "none"}),
    "old-compiler": ("compiler", "fail", None, {}, {"compiler": OLD}),
    "new-compiler": ("compiler", "warn", None, {}, {"compiler": NEW}),
    "windows": ("compiler", "fail", None, {}, {"host": fakes.host(**WINDOWS)}),
    "flags": ("compiler-environment", "warn", None, {"CFLAGS": "-O0"}, {}),
    "cmake-args": ("build-environment", "warn", None, {"CMAKE_ARGS": "-DX=1"}, {}),
    "no-toolkit": ("toolkit", "fail", SYSTEM, {}, {"toolkit": None}),
    "other-toolkit": ("toolkit", "fail", SYSTEM, {}, {"toolkit": fakes.installed()}),
    "no-GPU": ("gpu", "warn", None, {}, {"gpus": ()}),
    "other-GPU": ("gpu", "warn", None, {}, {"gpus": (fakes.gpu(compute_capability="9.0"),)}),
    "old-driver": ("driver", "warn", None, {}, {"driver": Driver("535.183.01", "12.2")}),
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_what_is_wrong_is_found_and_its_remedy_named(name: str) -> None:
    id_, status, spec, flags, changes = COMPLAINTS[name]
    check = judged(spec, flags, **changes)[id_]
    assert check.status == status
    assert check.summary
    assert check.remedy


@pytest.mark.parametrize(
    ("arch", "ptx"), [("120", True), ("120-virtual", True), ("120-real", False)]
)
def test_an_architecture_that_adds_ptx_is_said_to(arch: str, ptx: bool) -> None:
    summary = judged(fakes.spec(archs=(arch,)), {})["architecture"].summary
    assert (f"PTX for newer GPUs ({arch})" in summary) is ptx


def test_a_machine_that_only_builds_needs_no_gpu_and_is_told_of_the_bundle() -> None:
    check = judged(None, {}, driver=None, gpus=())["gpu"]
    assert check.status == "ok"
    assert "nox -s bundle" in check.summary


def test_every_complaint_of_a_machine_with_nothing_has_a_remedy() -> None:
    nothing = Toolchain(
        host=fakes.host(machine="riscv64", memory_free_mib=10, disk_free_mib=10),
        pythons=(),
        compilers=(),
        toolkits=(),
        tools=(),
        driver=None,
        gpus=(),
        python=None,
        compiler=None,
        compiler_why="none found",
        setup_problem="",
        toolkit=None,
        jobs=1,
        checks=(),
    )
    checks = machine_checks.checks(nothing, SYSTEM, {"CC": "tcc", "CFLAGS": "-w"})
    bad = [check for check in checks if check.status != "ok"]
    assert [check.id for check in bad] == [
        "platform",
        "memory",
        "disk",
        "python",
        "compiler",
        "compiler-environment",
        "toolkit",
    ]
    assert [check.id for check in bad if not check.remedy] == []


def test_a_toolkit_that_is_not_used_is_mentioned() -> None:
    assert judged()["toolkit"].summary == (
        "toolkit: CUDA 13.1 from NVIDIA's packages (not used: 13.0.88 in /usr/local/cuda-13.0)"
    )


def test_a_missing_system_toolkit_names_those_that_are_there() -> None:
    check = judged(SYSTEM)["toolkit"]
    assert "13.0.88 in /usr/local/cuda-13.0" in check.evidence
    assert (
        check.remedy == "use --toolkit pypi, which downloads it and installs nothing on the system"
    )


def test_a_system_toolkit_judges_the_compiler_by_its_own_header() -> None:
    strict = fakes.installed(
        version="13.1.115", accepts=HostRange(11, 3, 21, 1920, 1949), found_via="/opt"
    )
    check = judged(SYSTEM, toolkit=strict)["compiler"]
    assert check.status == "warn"
    assert check.evidence.startswith("CUDA accepts gnu any to 11.")


def test_flags_of_the_shell_are_shown_and_not_used() -> None:
    check = judged(flags={"CC": "gcc-9", "CFLAGS": "-O0"})["compiler-environment"]
    assert check.summary == "CC, CFLAGS of your shell are not used"
    assert check.evidence == "CC=gcc-9\nCFLAGS=-O0"


def test_variables_of_other_builds_are_shown_with_what_to_use_instead() -> None:
    checks = judged(flags={"CC": "gcc-9", "CMAKE_ARGS": "-DGGML_CUDA=on", "FORCE_CMAKE": "1"})
    assert checks["compiler-environment"].evidence == "CC=gcc-9"
    found = checks["build-environment"]
    assert found.evidence == "CMAKE_ARGS=-DGGML_CUDA=on\nFORCE_CMAKE=1"
    for word in ("targets.toml", "--arch", "--cuda", "--fresh"):
        assert word in found.remedy


@pytest.mark.parametrize(
    "name",
    [
        "CMAKE_ARGS", "FORCE_CMAKE", "GGML_CUDA", "GGML_NATIVE", "SKBUILD_CMAKE_ARGS", "CUDAARCHS",
        "CMAKE_CUDA_ARCHITECTURES", "CMAKE_BUILD_PARALLEL_LEVEL", "CUDACXX", "NVCC_APPEND_FLAGS",
    ],
)  # fmt: skip
def test_a_variable_that_another_build_reads_is_named(name: str) -> None:
    assert machine_checks.unused({name: "1", "PATH": "/bin"}) == {name: "1"}
    assert machine_checks.unused({name: ""}) == {}


@pytest.mark.parametrize("name", ["PATH", "CUDA_PATH", "CUDA_HOME", "CC", "LLAMA_CACHE", "CMAKE"])
def test_a_variable_that_is_used_or_no_builds_is_not_named(name: str) -> None:
    assert machine_checks.unused({name: "1"}) == {}


def test_each_gpu_is_named_and_one_without_code_of_this_wheel_is_a_warning() -> None:
    cards = (fakes.gpu(), fakes.gpu(index=1, compute_capability="8.9"), fakes.gpu(index=2))
    checks = machine_checks.checks(fakes.chain(gpus=cards), fakes.spec(), {})
    assert [c.summary for c in checks if c.id == "gpu"] == [
        "GPU 0: NVIDIA GeForce RTX 5090, 12.0",
        "GPU 1: NVIDIA GeForce RTX 5090, 8.9: this wheel has no code for this GPU",
        "GPU 2: NVIDIA GeForce RTX 5090, 12.0",
    ]
    assert [c.status for c in checks if c.id == "gpu"] == ["ok", "warn", "ok"]
    (warning,) = [c for c in checks if c.id == "gpu" and c.status == "warn"]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,2" in warning.remedy
    assert "nox" not in warning.remedy
    checks = machine_checks.checks(fakes.chain(gpus=cards), fakes.spec(), {}, targets=TARGETS)
    (warning,) = [c for c in checks if c.id == "gpu" and c.status == "warn"]
    both = programs.typed(["--target", "rtx50", "--arch", "120-real;89-real"])
    assert f"CUDA_VISIBLE_DEVICES=0,2; or build for all GPUs: nox -s wheel -- {both}" in (
        warning.remedy
    )


@pytest.mark.parametrize(
    ("capability", "remedy"),
    [
        ("8.9", "nox -s wheel -- --target ada"),
        ("8.6", "nox -s wheel -- --target ampere"),
        ("9.0", "nox -s wheel -- --target hopper"),
        ("7.5", "nox -s wheel -- --target rtx50 --arch 75-real"),
        ("6.1", "no CUDA version that blackwheel knows can build for this machine's GPUs"),
    ],
)
def test_the_target_of_another_gpu_is_named(capability: str, remedy: str) -> None:
    chain = fakes.chain(gpus=(fakes.gpu(compute_capability=capability),))
    checks = machine_checks.checks(chain, fakes.spec(), {}, targets=TARGETS)
    (gpu,) = [c for c in checks if c.id == "gpu"]
    assert (gpu.status, gpu.remedy.endswith(remedy)) == ("warn", True)


@pytest.mark.parametrize(
    ("archs", "status"), [(("120-real",), "warn"), (("90-real",), "ok")], ids=["rtx50", "hopper"]
)
@pytest.mark.parametrize("release", ["590.48.01", "591.86"])
def test_a_driver_that_is_reported_to_fail_is_a_warning(
    release: str, archs: tuple[str, ...], status: str
) -> None:
    check = judged(fakes.spec(archs=archs), driver=Driver(release, "13.1"))["driver"]
    assert check.status == status
    assert ("llama.cpp issues 23385 and 22499" in check.evidence) is (status == "warn")


def test_too_old_a_driver_is_told_the_oldest_that_will_do() -> None:
    check = judged(driver=Driver("535.183.01", "12.2"))["driver"]
    assert check.evidence == "CUDA 13.1 needs 580 or newer"


@pytest.mark.parametrize("installed", [True, False])
def test_a_release_without_a_lock_that_is_installed_is_offered_as_it_is(installed: bool) -> None:
    kits = (fakes.installed(root="/usr/local/cuda-13.0", version="13.0.88"),) if installed else ()
    chain = fakes.chain(toolkits=kits)
    checks = machine_checks.checks(chain, fakes.spec(cuda="13.0"), {})
    remedy = next(check.remedy for check in checks if check.id == "toolkit")
    assert ("--toolkit system" in remedy) is installed
    assert ("nox -s lock" in remedy) is not installed
