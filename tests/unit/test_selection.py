"""Choosing Python, compiler and toolkit, and the checks of the choice."""

from __future__ import annotations

from typing import Any

import pytest

from sessions.probe import machine_checks, selection
from sessions.probe.record_types import Compiler, Driver
from sessions.shared import knowledge, programs
from sessions.shared.build_spec import BuildSpec, HostRange
from sessions.shared.check_result import Check
from sessions.targets import targets_file
from tests import fakes

TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
ACCEPTS = knowledge.toolkit("13.1").accepts


@pytest.mark.parametrize(
    ("cores", "free", "requested", "jobs"),
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
def test_job_count(cores: int, free: int, requested: int | None, jobs: int) -> None:
    assert selection.job_count(fakes.host(cores=cores, memory_free_mib=free), requested) == jobs


def test_choose_python_by_version_and_width() -> None:
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


def test_choose_python_prefers_one_that_can_create_a_venv() -> None:
    bare, whole = fakes.python(path="/bare", can_venv=False), fakes.python(path="/whole")
    assert selection.choose_python([bare, whole], "3.11", others=False) == whole
    assert selection.choose_python([bare], "3.11", others=True) == bare
    other = fakes.python(path="/other", version="3.13.0")
    assert selection.choose_python([bare, other], "3.11", others=True) == other
    assert selection.choose_python([bare, other], "3.11", others=False) == bare


def test_choose_toolkit() -> None:
    old, same = fakes.installed(), fakes.installed(root="/opt/cuda-13.1", version="13.1.115")
    named = fakes.installed(root="/mine", found_via="--toolkit")
    choose, system, mine = selection.choose_toolkit, fakes.spec(toolkit="system"), "/mine"
    assert choose([old, same], fakes.spec()) is None
    assert choose([old, same], system) == same
    assert choose([old], system) is None
    assert choose([old, same], fakes.cpu_spec(toolkit="system")) is None
    assert choose([same, named], fakes.spec(toolkit=mine)) == named  # of any version
    assert choose([same], fakes.spec(toolkit=mine)) is None


OLD = fakes.compiler(version="8.5.0", cxx="/old")
GOOD = fakes.compiler(version="14.2.0", cxx="/good")
NEW = fakes.compiler(version="16.1.0", cxx="/new")
NAMED = fakes.compiler(version="8.5.0", cxx="/mine", found_via="--compiler")
FITS = "the first that fits of g++, g++-N, clang++"


@pytest.mark.parametrize(
    ("compilers", "named", "chosen", "why"),
    [
        ([OLD, NEW, GOOD, fakes.compiler()], None, GOOD, f"gnu 14.2.0 (/good): {FITS}"),
        (
            [OLD, NEW],
            None,
            NEW,
            "gnu 16.1.0 (/new): none fits (CUDA accepts gnu any to 15), "
            "so CUDA is told to allow it",
        ),
        (
            [OLD, fakes.clang("9.0.1")],
            None,
            None,
            "gnu 8.5.0 (/old): too old: upstream needs gnu 9; "
            "clang 9.0.1 (/usr/bin/clang++): too old: upstream needs clang 10",
        ),
        ([], None, None, "none found"),
        ([GOOD, NAMED], "/mine", NAMED, "gnu 8.5.0 (/mine): named by --compiler"),
        ([GOOD], "/mine", None, "--compiler /mine is not a C++ compiler that runs"),
    ],
    ids=["first-that-fits", "too-new", "too-old", "none", "named", "named-but-missing"],
)
def test_choose_compiler(
    compilers: list[Compiler], named: str | None, chosen: Compiler | None, why: str
) -> None:
    assert selection.choose_compiler(compilers, ACCEPTS, named) == (chosen, why)


def test_choose_compiler_accepts_a_newer_one_for_a_cpu_build() -> None:
    assert selection.choose_compiler([NEW], None, None) == (NEW, f"gnu 16.1.0 (/new): {FITS}")


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
def test_refusal_accepts_both_ends_of_the_range(compiler: Compiler, fits: bool) -> None:
    assert (selection.refusal(compiler, ACCEPTS) is None) is fits


@pytest.mark.parametrize(
    ("cuda", "newest"),
    [("13.0", 1949), ("13.1", 1949), ("13.2", 1959), ("13.3", 1959), ("13.4", 1959)],
)
def test_visual_studio_2026_needs_cuda_13_2_or_newer(cuda: str, newest: int) -> None:
    accepts = knowledge.toolkit(cuda).accepts
    for number in (1920, 1950, newest, newest + 1):
        refused = f"CUDA accepts msvc 1920 to {newest}" if number > newest else None
        assert selection.refusal(fakes.msvc(str(number)), accepts) == refused
    assert selection.refusal(fakes.msvc("1919"), accepts) == "too old: upstream needs msvc 1920"


def checks_of(
    spec: BuildSpec | None = None, flags: dict[str, str] | None = None, **changes: Any
) -> dict[str, Check]:
    """The checks of a good machine with these changes, by their ids."""
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
    checks = checks_of(
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


OF_ANY = {"platform", "memory", "disk", "python", "compiler"}


@pytest.mark.parametrize(
    ("spec", "changes", "ids"),
    [
        (fakes.spec(), {}, {*OF_ANY, "toolkit", "architecture", "gpu", "driver"}),
        (fakes.cpu_spec(), {"driver": None, "gpus": ()}, OF_ANY),
    ],
    ids=["cuda", "cpu"],
)
def test_a_machine_with_everything_passes_every_check(
    spec: BuildSpec, changes: dict[str, Any], ids: set[str]
) -> None:
    checks = checks_of(spec, **changes)
    assert {check.status for check in checks.values()} == {"ok"}
    assert set(checks) == ids


@pytest.mark.parametrize("digest", ["none", None])
def test_a_compiler_without_a_static_cpp_runtime_is_refused(digest: str | None) -> None:
    linked = {"libstdc++.a": digest} if digest else {}
    chain = fakes.chain(compiler=fakes.compiler(linked=linked))
    (found,) = machine_checks.linked_runtime(chain, fakes.cpu_spec(glibc="2.28"))
    assert (found.id, found.status) == ("libstdc++", "fail")
    assert "dnf install libstdc++-static" in found.remedy
    assert "--glibc host" in found.remedy


def test_the_static_cpp_runtime_is_needed_only_for_an_older_glibc() -> None:
    there = fakes.chain(compiler=fakes.compiler(linked={"libstdc++.a": "a" * 16}))
    (found,) = machine_checks.linked_runtime(there, fakes.cpu_spec(glibc="2.28"))
    assert found.status == "ok"
    none = fakes.chain(compiler=fakes.compiler(linked={}))
    assert machine_checks.linked_runtime(none, fakes.cpu_spec(glibc="host")) == ()
    assert machine_checks.linked_runtime(none, fakes.spec(platform="windows", glibc="2.28")) == ()
    nothing = fakes.chain(compiler=None)
    assert machine_checks.linked_runtime(nothing, fakes.cpu_spec(glibc="2.28")) == ()


SYSTEM = fakes.spec(toolkit="system")
WINDOWS = {"system": "windows", "machine": "AMD64"}
STRICT = {"spec": SYSTEM, "toolkit": fakes.installed(accepts=HostRange(11, 3, 21, 1920, 1949))}
OLD_DRIVER = Driver("535.183.01", "12.2")
PYTHONS = (fakes.python(bits=32), fakes.python(version="3.12.1"))


COMPLAINTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "arm": ("platform", "fail", "", {"host": fakes.host(machine="aarch64")}),
    "mac": ("platform", "fail", "", {"host": fakes.host(system="darwin")}),
    "memory": ("memory", "warn", "", {"host": fakes.host(memory_free_mib=900)}),
    "disk": ("disk", "warn", "", {"host": fakes.host(disk_free_mib=3000)}),
    "no-python": ("python", "fail", "--python 3.12", {"python": None, "pythons": PYTHONS}),
    "no-venv": ("python", "fail", "", {"python": fakes.python(can_venv=False)}),
    "no-compiler": ("compiler", "fail", "", {"compiler": None, "compiler_why": "none"}),
    "old-compiler": ("compiler", "fail", "", {"compiler": OLD}),
    "new-compiler": ("compiler", "warn", "", {"compiler": NEW}),
    "windows": ("compiler", "fail", "", {"host": fakes.host(**WINDOWS)}),
    "flags": (
        "compiler-environment",
        "warn",
        "CC, CFLAGS of your shell are not used|CC=gcc-9\nCFLAGS=-O0|",
        {"flags": {"CC": "gcc-9", "CFLAGS": "-O0", "CMAKE_ARGS": "-DX=1"}},
    ),
    "cmake-args": (
        "build-environment",
        "warn",
        "|CMAKE_ARGS=-DX=1|unset it; to choose yourself: a table of targets.toml",
        {"flags": {"CC": "gcc-9", "CMAKE_ARGS": "-DX=1"}},
    ),
    "no-toolkit": (
        "toolkit",
        "fail",
        "13.0.88 in /usr/local/cuda-13.0|use --toolkit pypi",
        {"spec": SYSTEM, "toolkit": None},
    ),
    "other-toolkit": ("toolkit", "fail", "", {"spec": SYSTEM, "toolkit": fakes.installed()}),
    "strict-toolkit": ("compiler", "warn", "|CUDA accepts gnu any to 11.", STRICT),
    "no-GPU": ("gpu", "warn", "", {"gpus": ()}),
    "other-GPU": ("gpu", "warn", "", {"gpus": (fakes.gpu(compute_capability="9.0"),)}),
    "old-driver": ("driver", "warn", "CUDA 13.1 needs 580 or newer", {"driver": OLD_DRIVER}),
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_each_problem_has_a_check_with_a_remedy(name: str) -> None:
    id_, status, text, changes = COMPLAINTS[name]
    check = checks_of(**changes)[id_]
    assert check.status == status
    assert check.summary
    assert check.remedy
    assert text in f"{check.summary}|{check.evidence}|{check.remedy}"


@pytest.mark.parametrize(
    ("arch", "ptx"), [("120", True), ("120-virtual", True), ("120-real", False)]
)
def test_an_architecture_that_adds_ptx_is_named(arch: str, ptx: bool) -> None:
    summary = checks_of(fakes.spec(archs=(arch,)), {})["architecture"].summary
    assert (f"PTX for newer GPUs ({arch})" in summary) is ptx


def test_a_machine_that_only_builds_needs_no_gpu() -> None:
    check = checks_of(None, {}, driver=None, gpus=())["gpu"]
    assert check.status == "ok"
    assert "nox -s bundle" in check.summary


def test_an_installed_toolkit_that_is_not_used_is_named() -> None:
    assert checks_of()["toolkit"].summary == (
        "toolkit: CUDA 13.1 from NVIDIA's packages (not used: 13.0.88 in /usr/local/cuda-13.0)"
    )


@pytest.mark.parametrize(
    "name",
    [
        "CMAKE_ARGS", "FORCE_CMAKE", "GGML_CUDA", "GGML_NATIVE", "SKBUILD_CMAKE_ARGS", "CUDAARCHS",
        "CMAKE_CUDA_ARCHITECTURES", "CMAKE_BUILD_PARALLEL_LEVEL", "CUDACXX", "NVCC_APPEND_FLAGS",
    ],
)  # fmt: skip
def test_unused_returns_variables_that_other_builds_read(name: str) -> None:
    assert machine_checks.unused({name: "1", "PATH": "/bin"}) == {name: "1"}
    assert machine_checks.unused({name: ""}) == {}


@pytest.mark.parametrize("name", ["PATH", "CUDA_PATH", "CUDA_HOME", "CC", "LLAMA_CACHE", "CMAKE"])
def test_unused_returns_no_other_variable(name: str) -> None:
    assert machine_checks.unused({name: "1"}) == {}


def test_each_gpu_is_named_and_one_without_code_of_this_wheel_is_a_warning() -> None:
    gpus = (fakes.gpu(), fakes.gpu(index=1, compute_capability="8.9"), fakes.gpu(index=2))
    checks = machine_checks.checks(fakes.chain(gpus=gpus), fakes.spec(), {})
    assert [c.summary for c in checks if c.id == "gpu"] == [
        "GPU 0: NVIDIA GeForce RTX 5090, 12.0",
        "GPU 1: NVIDIA GeForce RTX 5090, 8.9: this wheel has no code for this GPU",
        "GPU 2: NVIDIA GeForce RTX 5090, 12.0",
    ]
    assert [c.status for c in checks if c.id == "gpu"] == ["ok", "warn", "ok"]
    (warning,) = [c for c in checks if c.id == "gpu" and c.status == "warn"]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,2" in warning.remedy
    assert "nox" not in warning.remedy
    checks = machine_checks.checks(fakes.chain(gpus=gpus), fakes.spec(), {}, targets=TARGETS)
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
    check = checks_of(fakes.spec(archs=archs), driver=Driver(release, "13.1"))["driver"]
    assert check.status == status
    assert ("llama.cpp issues 23385 and 22499" in check.evidence) is (status == "warn")


@pytest.mark.parametrize("installed", [True, False])
def test_an_installed_toolkit_is_offered_if_its_version_has_no_lock_file(installed: bool) -> None:
    kits = (fakes.installed(root="/usr/local/cuda-13.0", version="13.0.88"),) if installed else ()
    chain = fakes.chain(toolkits=kits)
    checks = machine_checks.checks(chain, fakes.spec(cuda="13.0"), {})
    remedy = next(check.remedy for check in checks if check.id == "toolkit")
    assert ("--toolkit system" in remedy) is installed
    assert ("nox -s lock" in remedy) is not installed
