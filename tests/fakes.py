"""Values for tests: a machine that builds rtx50, its records, its wheel and its reports."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from sessions.build.cmake_settings import Places
from sessions.build.record_types import BuildEnv, Wheel
from sessions.command_line import parse_options
from sessions.fetch.record_types import Source, Toolkit
from sessions.matrix.record_types import MatrixRow
from sessions.payload import bench_metrics, ops_checks, report_file
from sessions.probe.record_types import (
    Compiler,
    Driver,
    Gpu,
    InstalledToolkit,
    Python,
    Tool,
    Toolchain,
)
from sessions.release.evidence import Evidence, OpsRun, Run
from sessions.run import check_bench_report, check_ops_report, check_smoke_report, families
from sessions.run.record_types import SmokeReport
from sessions.shared import knowledge, records
from sessions.shared.build_spec import BuildSpec, HostRange
from sessions.shared.check_result import Check, CheckGroup
from sessions.shared.context import Context
from sessions.shared.host import Host
from sessions.shared.options import Options
from sessions.verify import checks_digest
from sessions.verify.check_input import Case, required
from sessions.verify.record_types import VerifyReport
from sessions.verify.wheel_facts import Bill, Binding, DeviceCode, Library, Material, WheelFacts
from sessions.verify.wheel_rules import Upstream

ROOT = Path(__file__).resolve().parent.parent
KIT = r"C:\Program Files (x86)\Windows Kits\10"
ACCEPTS = HostRange(gnu_max=15, clang_min=3, clang_max=21, msvc_min=1920, msvc_max=1949)


def spec(**changes: Any) -> BuildSpec:
    """The target rtx50 with --glibc host, so that its wheel contains an OpenMP runtime."""
    base = BuildSpec(
        base=changes.get("target", "rtx50"),
        target="rtx50",
        summary="GeForce RTX 50 and RTX PRO Blackwell",
        version="0.3.16",
        cuda="13.1",
        archs=("120-real",),
        python="3.11",
        platform="linux",
        glibc="host",
    )
    return dataclasses.replace(base, **changes)


def cpu_spec(**changes: Any) -> BuildSpec:
    """The target cpu."""
    return spec(**{"target": "cpu", "cuda": None, "archs": (), **changes})


def parsed(*words: str, **changes: Any) -> Options:
    """The options of a command line."""
    return dataclasses.replace(parse_options.parse(words), **changes)


def compiler(**changes: Any) -> Compiler:
    """A gcc that every known CUDA release accepts."""
    base = Compiler(
        family="gnu",
        version="12.2.0",
        cxx="/usr/bin/g++",
        cc="/usr/bin/gcc",
        found_via="g++ on PATH",
    )
    return dataclasses.replace(base, **changes)


def clang(version: str = "19.1.7", **changes: Any) -> Compiler:
    """A clang."""
    named = {"family": "clang", "cxx": "/usr/bin/clang++", "cc": "/usr/bin/clang"}
    return compiler(**{**named, "version": version, "found_via": "clang++ on PATH", **changes})


def msvc(version: str = "1944", **changes: Any) -> Compiler:
    """Visual Studio's compiler, by ``_MSC_VER``: 1944 is VS 2022, 1950 is VS 2026."""
    year = "2022" if int(version) < 1950 else "18"
    vc = rf"C:\Program Files\Microsoft Visual Studio\{year}\BuildTools\VC"
    toolset = f"14.{version[2:]}.35207"
    bin_ = rf"{vc}\Tools\MSVC\{toolset}\bin\Hostx64\x64"
    named = {
        "family": "msvc",
        "version": f"19.{version[2:]}.35207",
        "cxx": rf"{bin_}\cl.exe",
        "cc": rf"{bin_}\cl.exe",
        "found_via": f"Visual Studio Build Tools {year}",
        "vcvars": rf"{vc}\Auxiliary\Build\vcvars64.bat",
        "toolset": toolset,
        "variables": {
            "PATH": rf"{bin_};C:\Windows\System32;C:\Windows",
            "INCLUDE": rf"{vc}\Tools\MSVC\{toolset}\include;{KIT}\Include\10.0.26100.0\ucrt",
            "LIB": rf"{vc}\Tools\MSVC\{toolset}\lib\x64;{KIT}\Lib\10.0.26100.0\ucrt\x64",
            "VCTOOLSVERSION": toolset,
            "VCTOOLSREDISTDIR": rf"{vc}\Redist\MSVC\{toolset}" + "\\",
            "VSCMD_ARG_TGT_ARCH": "x64",
            "WINDOWSSDKVERSION": "10.0.26100.0\\",
        },
    }
    return compiler(**{**named, **changes})


def toolkit(**changes: Any) -> Toolkit:
    """CUDA 13.1 from NVIDIA's packages."""
    base = Toolkit(
        origin="pypi",
        root="/home/user/.cache/blackwheel/cuda-13.1-0123456789ab/nvidia/cu13",
        version="13.1",
        fingerprint="a" * 64,
        components={"nvidia-cuda-runtime": "13.1.80", "nvidia-cublas": "13.2.2.2"},
        accepts=knowledge.toolkit("13.1").accepts,
    )
    return dataclasses.replace(base, **changes)


def installed(**changes: Any) -> InstalledToolkit:
    """An installed CUDA 13.0, which is not the version of the target."""
    base = InstalledToolkit(
        root="/usr/local/cuda-13.0", version="13.0.88", found_via="CUDA_PATH", accepts=ACCEPTS
    )
    return dataclasses.replace(base, **changes)


def source(**changes: Any) -> Source:
    """The locked source of 0.3.16, unpacked and not edited."""
    base = Source(
        version="0.3.16",
        path="/home/user/blackwheel/llama-cpp-python-src/0.3.16",
        sdist_sha256="5" * 64,
        digest="d" * 64,
        edited=(),
        epoch=1667997441,
    )
    return dataclasses.replace(base, **changes)


def places(target: str = "rtx50", **changes: Any) -> Places:
    """Folders on Linux, with a space in the path of the project."""
    base = Places(
        stage=f"/home/user/black wheel/build/{target}/src",
        tree=f"/home/user/black wheel/build/{target}/tree",
        cache="/home/user/.cache/blackwheel",
        tools="/home/user/.cache/blackwheel/tools-py3.11-0123456789ab",
    )
    return dataclasses.replace(base, **changes)


def windows_places(target: str = "rtx50") -> Places:
    """Folders on Windows of a user whose name is not ASCII."""
    build = rf"C:\Users\José Pérez\black wheel\build\{target}"
    cache = r"C:\Users\José Pérez\AppData\Local\blackwheel\Cache"
    return Places(
        stage=rf"{build}\src",
        tree=rf"{build}\tree",
        cache=cache,
        tools=rf"{cache}\tools-py3.11-0123456789ab",
    )


def windows_toolkit(**changes: Any) -> Toolkit:
    """CUDA 13.1 from NVIDIA's packages, on Windows."""
    root = windows_places().cache + r"\cuda-13.1-0123456789ab\nvidia\cu13"
    return toolkit(**{"root": root, **changes})


def host(**changes: Any) -> Host:
    """A machine with enough space for every build."""
    base = Host(
        system="linux",
        release="6.1.0",
        machine="x86_64",
        cpu="AMD EPYC 9654",
        cores=8,
        memory_mib=32768,
        memory_free_mib=30000,
        disk_free_mib=100000,
    )
    return dataclasses.replace(base, **changes)


def python(**changes: Any) -> Python:
    """A complete Python 3.11."""
    base = Python(
        path="/usr/bin/python3.11",
        version="3.11.2",
        found_via="python3.11 on PATH: /usr/bin/python3.11",
        can_venv=True,
        bits=64,
    )
    return dataclasses.replace(base, **changes)


def gpu(**changes: Any) -> Gpu:
    """A GeForce RTX 5090."""
    base = Gpu(index=0, name="NVIDIA GeForce RTX 5090", compute_capability="12.0", memory_mib=32607)
    return dataclasses.replace(base, **changes)


def chain(**changes: Any) -> Toolchain:
    """The record of the probe on a machine that has everything."""
    base = Toolchain(
        host=host(),
        pythons=(python(),),
        compilers=(compiler(),),
        toolkits=(installed(),),
        tools=(Tool("git", "/usr/bin/git", "2.39.5", "PATH"),),
        driver=Driver(release="580.159.04", cuda="13.0"),
        gpus=(gpu(),),
        python=python(),
        compiler=compiler(),
        compiler_why="gnu 12.2.0 (/usr/bin/g++): the first that fits of g++, g++-N, clang++",
        setup_problem="",
        toolkit=None,
        jobs=8,
        checks=(Check("platform", "ok", "platform: linux x86_64"),),
    )
    return dataclasses.replace(base, **changes)


def build_env(**changes: Any) -> BuildEnv:
    """A small build environment."""
    base = BuildEnv(
        variables={"PATH": "/usr/bin:/bin"},
        settings={"build-dir": "/b", "cmake.define.GGML_CUDA": "ON"},
        requires=("cuda-pathfinder>=1.3",),
        fingerprint="f" * 64,
    )
    return dataclasses.replace(base, **changes)


def wheel(**changes: Any) -> Wheel:
    """The record of a built wheel."""
    base = Wheel(
        file="llama_cpp_python-0.3.16-cp311-cp311-manylinux_2_35_x86_64.whl",
        sha256="0" * 64,
        size=18_000_000,
        fingerprint="f" * 64,
        target="rtx50",
        version="0.3.16",
        archs=("120-real",),
        cuda="13.1",
        compiler="gnu 12.2.0",
        source_digest="d" * 64,
        source_edited=False,
        steps=170,
        wall_seconds=900.5,
        cpu_seconds=1700.1,
        cache={"hits": 0, "misses": 165},
        timing={"seconds": 880.1, "busy_seconds": 1750.2, "efficiency": 0.9943},
        libraries={"libllama.so": "1" * 64},
        requires=("cuda-pathfinder>=1.3",),
        sbom="b" * 64,
    )
    return dataclasses.replace(base, **changes)


def matrix_row(**changes: Any) -> MatrixRow:
    """A wheel that a matrix repacked."""
    base = MatrixRow(
        target="cpu",
        python="3.12",
        outcome="repacked",
        folder="cpu+py3.12",
        file="llama_cpp_python-0.3.16-cp312-cp312-manylinux_2_34_x86_64.whl",
        sha256="0" * 64,
        size=1_983_484,
        wall_seconds=10.2,
        cpu_seconds=9.4,
        cache={},
        shared=("the wheel of 3.11",),
    )
    return dataclasses.replace(base, **changes)


INFO = "llama_cpp_python-0.3.16.dist-info"
LOADER = "c" * 64  # digest of _cuda_runtime.py
PRELOAD = "d" * 64  # digest of _bundled_dlls.py
BASELINE = {"CET_IBT": 2, "INTEL386": 60_000, "SSE2": 9_000, "X64": 30_958}


def claiming(**changes: Any) -> BuildSpec:
    """The target rtx50 with the size limit and the instructions that ``verify`` checks."""
    return spec(**{"budget_mb": 30, "device_features": ("HMMA", "IMMA"), **changes})


def device(**changes: Any) -> DeviceCode:
    """The GPU code of rtx50's ggml-cuda."""
    base = DeviceCode(
        containers=98,
        sass={"sm_120": 98},
        ptx={},
        instructions=4_485_528,
        tensor={"HMMA.16816.F32": 23_424, "IMMA.16832.S8.S8": 36_288},
        kernels={"mul_mat_q": 35_538_304, "cub": 91_904},
        hidden=(),
        error=None,
    )
    return dataclasses.replace(base, **changes)


def library(member: str = "llama_cpp/lib/libllama.so", **changes: Any) -> Library:
    """A valid ELF library for the CPU. Its digest depends on its name."""
    base = Library(
        member=member,
        sha256=records.text_sha256(member.rsplit("/", 1)[-1].encode()),
        size=2_000_000,
        format="elf",
        machine="x86_64",
        imports=("libc.so.6", "libstdc++.so.6"),
        soname="",
        search_paths=("$ORIGIN",),
        inherited_paths=(),
        exports=(),
        symbol_versions={"CXXABI": "1.3.13", "GCC": "3.4", "GLIBC": "2.34", "GLIBCXX": "3.4.29"},
        executable_stack=False,
        build_paths=(),
        instructions=100_000,
        cpu_features=BASELINE,
        first_use={},
        guarded=(),
        device=None,
        faults=(),
        error=None,
    )
    return dataclasses.replace(base, **changes)


MODULE = ("ggml_backend_init", "ggml_backend_score")
RUNTIME = {"libcublas.so.13": ("cublasCreate_v2",), "libcudart.so.13": ("cudaMalloc",)}


def libraries() -> tuple[Library, ...]:
    """The libraries of an rtx50 wheel for Linux."""
    lib = "llama_cpp/lib"
    cuda = ("libcublas.so.13", "libcuda.so.1", "libcudart.so.13")
    variants = {"x64": {}, "haswell": {"AVX2": 40}}
    system = ("libc.so.6", "libgcc_s.so.1", "libm.so.6", "libstdc++.so.6")
    newer = {"GLIBC": "2.27", "GLIBCXX": "3.4.30"}
    return (
        library(f"{lib}/libggml-base.so", imports=system),
        *(
            library(
                f"{lib}/libggml-cpu-{name}.so",
                imports=("$ORIGIN/libggml-base.so", "libgomp.so.1", *system),
                exports=MODULE,
                cpu_features={**BASELINE, **features},
            )
            for name, features in variants.items()
        ),
        library(
            f"{lib}/libggml-cuda.so",
            imports=(*cuda, "$ORIGIN/libggml-base.so", *system),
            symbol_versions=newer,
            size=25_000_000,
            device=device(),
            runtime=RUNTIME,
        ),
        library(f"{lib}/libggml.so", imports=("$ORIGIN/libggml-base.so", *system)),
        library(f"{lib}/libgomp.so.1", imports=("libc.so.6",), search_paths=()),
        library(
            f"{lib}/libllama.so",
            imports=(
                "ld-linux-x86-64.so.2",
                "$ORIGIN/libggml-base.so",
                "$ORIGIN/libggml.so",
                *system,
            ),
            exports=("llama_decode", "llama_free", "llama_new_context"),
        ),
        library(
            f"{lib}/libmtmd.so",
            imports=("$ORIGIN/libggml.so", "$ORIGIN/libllama.so", *system),
            exports=("mtmd_free", "mtmd_init"),
        ),
    )


def material(name: str, **changes: Any) -> Material:
    """A component of an SBOM: a part of upstream, compiled in."""
    base = Material(name, "", ("compiled in",), "", "", "")
    return dataclasses.replace(base, **changes)


def bill(found: WheelFacts, **changes: Any) -> Bill:
    """The SBOM that is correct for an rtx50 wheel."""
    names = {canonicalize_name(re.split(r"[^\w.-]", text)[0]) for text in found.requires}
    nvidia = [name for name in names if name.startswith(("nvidia-", "cuda-"))]
    all_needs = required(Case(found, claiming(), None, True, "", ""), *sorted(nvidia))
    needs = {canonicalize_name(need.name): need for need in all_needs}.values()
    files = {lib.member.rsplit("/", 1)[-1]: lib.sha256 for lib in found.libraries}
    base = Bill(
        member=f"{INFO}/sboms/blackwheel.cdx.json",
        sha256="b" * 64,
        name=found.name,
        version=found.metadata_version.split("+")[0],
        sdist_sha256=SDIST,
        materials=(
            material("llama.cpp", version="4227c9be4268ac844921b90f31595f81236bd317"),
            material("ggml"),
            *(
                material(file, roles=("a file of it",), file=file, sha256=digest)
                for file, digest in files.items()
                if not re.match(r"(lib)?(ggml|llama|mtmd)[.-]", file)
            ),
            *(
                material(canonicalize_name(need.name), roles=("required",), requirement=str(need))
                for need in needs
            ),
            material("gcc", version="12.2.0", roles=("built with",)),
        ),
        problems=(),
    )
    return dataclasses.replace(base, **changes)


SDIST = "5d" * 32
OURS = ("llama_cpp/_cuda_runtime.py", "llama_cpp/_bundled_dlls.py")


def digest(name: str) -> str:
    """The digest of a file in upstream's package."""
    return records.text_sha256(name.encode())


def upstream(**changes: Any) -> Upstream:
    """The facts about the wheel's release: its files, without our _cuda_runtime.py."""
    modules = ("__init__", "llama_cpp", "llava_cpp", "mtmd_cpp", "server/app")
    base = Upstream(
        version="0.3.16",
        sdist_sha256=SDIST,
        files={f"llama_cpp/{name}.py": digest(name) for name in modules},
        parts={"llama.cpp": "4227c9be4268ac844921b90f31595f81236bd317", "ggml": ""},
        requires=frozenset({"numpy>=1.20.0", 'PyYAML>=5.1; extra == "server"'}),
    )
    return dataclasses.replace(base, **changes)


def wheel_facts(**changes: Any) -> WheelFacts:
    """The facts of a valid rtx50 wheel for Linux. Its members depend on its libraries.

    As in upstream, there is a module for llava, which has no library and which nothing imports.
    """
    tags = ("cp311-cp311-manylinux_2_35_x86_64",)
    inside: tuple[Library, ...] = changes.get("libraries", libraries())
    metadata = ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE.md")
    modules = ("__init__", "_cuda_runtime", "llama_cpp", "llava_cpp", "mtmd_cpp", "server/app")
    base = WheelFacts(
        file=f"llama_cpp_python-0.3.16-{tags[0]}.whl",
        sha256="0" * 64,
        size=19_400_000,
        members={
            **{f"llama_cpp/{name}.py": 1_000 for name in modules},
            **{found.member: found.size for found in inside},
            **{f"{INFO}/{name}": 1_000 for name in metadata},
        },
        times=("2022-11-09T12:37:20",),
        archive_problems=(),
        record_problems=(),
        name="llama-cpp-python",
        version="0.3.16",
        tags=tags,
        metadata_name="llama_cpp_python",
        metadata_version="0.3.16",
        requires_python=">=3.8",
        requires=(
            "numpy>=1.20.0",
            "cuda-pathfinder>=1.3",
            "nvidia-cuda-runtime<14,>=13.1.80",
            "nvidia-cublas<14,>=13.2.2.2",
            'PyYAML>=5.1; extra == "server"',
        ),
        wheel_tags=tags,
        purelib=False,
        generator="scikit-build-core 1.1.2",
        metadata_problems=(),
        package_files={f"llama_cpp/{name}.py": digest(name) for name in modules},
        bindings=(
            Binding("llama_cpp/llama_cpp.py", "llama", ("llama_decode", "llama_free"), True),
            Binding("llama_cpp/llava_cpp.py", "llava", ("llava_eval",), False),
            Binding("llama_cpp/mtmd_cpp.py", "mtmd", ("mtmd_init",), True),
        ),
        unparsed=(),
        loader=LOADER,
        loader_called=True,
        preload=None,
        preload_called=False,
        bills=(),
        libraries=inside,
        tracebacks={},
    )
    found = dataclasses.replace(base, **changes)
    return found if "bills" in changes else dataclasses.replace(found, bills=(bill(found),))


def cpu_facts(**changes: Any) -> WheelFacts:
    """The facts of a valid wheel of the target cpu."""
    inside = tuple(
        dataclasses.replace(found, imports=tuple(n for n in found.imports if "cuda" not in n))
        for found in libraries()
        if "cuda" not in found.member
    )
    base = {"size": 3_000_000, "requires": ("numpy>=1.20.0",)}
    base |= {"package_files": upstream().files}
    return wheel_facts(**{"libraries": inside, **base, **changes})


def windows_libraries() -> tuple[Library, ...]:
    """The libraries of an rtx50 wheel for Windows, without search paths and symbol versions."""
    ours = ("api-ms-win-crt-heap-l1-1-0.dll", "kernel32.dll", "vcruntime140.dll")
    runtime = {name: f"{name}-{'0f' * 16}.dll" for name in ("msvcp140", "vcomp140")}
    needs = {
        "ggml-base": (runtime["msvcp140"],),
        "ggml-cpu-x64": ("ggml-base.dll", runtime["vcomp140"]),
        "ggml-cpu-haswell": ("ggml-base.dll", runtime["vcomp140"]),
        "ggml-cuda": ("cublas64_13.dll", "cudart64_13.dll", "ggml-base.dll", "nvcuda.dll"),
        "ggml": ("ggml-base.dll",),
        "llama": ("ggml-base.dll", "ggml.dll", "vcruntime140_1.dll"),
        "mtmd": ("ggml.dll", "llama.dll"),
    }
    exports = {"llama": ("llama_decode", "llama_free"), "mtmd": ("mtmd_init",)}
    exports |= {"ggml-cpu-x64": MODULE, "ggml-cpu-haswell": MODULE}
    dlls = {"cublas64_13.dll": ("cublasCreate_v2",), "cudart64_13.dll": ("cudaMalloc",)}
    places = {f"llama_cpp/lib/{name}.dll": (name, others) for name, others in needs.items()}
    places |= {f"llama_cpp_python.libs/{file}": (name, ()) for name, file in runtime.items()}
    return tuple(
        library(
            member,
            format="pe",
            imports=(*ours, *others),
            search_paths=(),
            exports=exports.get(name, ()),
            symbol_versions={},
            device=device() if name == "ggml-cuda" else None,
            runtime=dlls if name == "ggml-cuda" else {},
        )
        for member, (name, others) in places.items()
    )


def windows_facts(**changes: Any) -> WheelFacts:
    """The facts of a valid rtx50 wheel for Windows."""
    tags = ("cp311-cp311-win_amd64",)
    file = f"llama_cpp_python-0.3.16-{tags[0]}.whl"
    base = {"libraries": windows_libraries(), "file": file, "tags": tags, "wheel_tags": tags}
    files = {**upstream().files, **dict.fromkeys(OURS, "0" * 64)}
    preloaded = {"preload": PRELOAD, "preload_called": True, "package_files": files}
    return wheel_facts(**{**base, **preloaded, **changes})


def recorded(found: WheelFacts, **changes: Any) -> Wheel:
    """The record of the build of the wheel with these facts."""
    libraries = {lib.member.rsplit("/", 1)[-1]: lib.sha256 for lib in found.libraries}
    same = {name: getattr(found, name) for name in ("file", "sha256", "size")}
    return wheel(**{**same, "libraries": libraries, **changes})


def case(found: WheelFacts | None = None, **changes: Any) -> Case:
    """The input of the checks: an rtx50 wheel that was built here, with the record of its build."""
    found = found or wheel_facts()
    base = Case(found, claiming(), recorded(found), True, LOADER, PRELOAD, upstream())
    return dataclasses.replace(base, **changes)


def no_machine(question: str, *words: str) -> Any:
    """A machine that refuses every question."""
    raise AssertionError(f"asked the machine: {question} {words}")


def context(root: Path, *words: str, **changes: Any) -> Context:
    """The context of a phase. ``words`` are the command line after ``--``."""
    base = Context(
        session="wheel",
        asked=frozenset({"wheel"}),
        options=parsed(*words),
        spec=spec(),
        env={},
        machine=no_machine,
        root=root,
        cache=root / "cache",
    )
    return dataclasses.replace(base, **changes)


def on_gpu(session: str, root: Path, *words: str, **changes: Any) -> Context:
    """The context of ``nox -s SESSION -- WORDS`` on a machine with an RTX 5090."""

    def machine(question: str, *_: str) -> Any:
        assert question == "nvml"
        return nvml()

    named = {"session": session, "asked": frozenset({session}), "machine": machine}
    return context(root, *words, **{**named, **changes})


def built(ctx: Context, content: bytes = b"a wheel") -> str:
    """Write a wheel, its record and the record of the probe; return the wheel's digest."""
    path = ctx.wheels / wheel().file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    digest = records.file_sha256(path)
    records.write(ctx.record("wheel"), "wheel", wheel(sha256=digest))
    records.write(ctx.record("probe"), "probe", chain())
    return digest


def nvml_gpu(**changes: Any) -> dict[str, Any]:
    """NVML's answer about a GeForce RTX 5090."""
    base: dict[str, Any] = {
        "index": 0,
        "name": "NVIDIA GeForce RTX 5090",
        "compute_capability": "12.0",
        "memory_mib": 32607,
        "memory_free_mib": 32000,
    }
    return {**base, **changes}


def nvml(*devices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """NVML's answer on a machine with these GPUs; by default with one RTX 5090."""
    base = {"release": "580.159.04", "cuda": "13.0", "devices": list(devices or [nvml_gpu()])}
    return {**base, **changes}


def smoke_job(**changes: Any) -> dict[str, Any]:
    """The input of smoke's payload for the rtx50 wheel, a GPU and two GGML types."""
    base: dict[str, Any] = {
        "identity": {
            "file": wheel().file,
            "sha256": "0" * 64,
            "target": "rtx50",
            "device": "NVIDIA GeForce RTX 5090",
            "capability": "12.0",
            "driver": "580.159.04",
        },
        "version": "0.3.16",
        "capabilities": ["12.0"],
        "types": ["F16", "Q4_K"],
        "needed": ["F16", "Q4_K"],
        "questions": [["The capital of France is", "Paris"]],
        "native_fp4": False,
        "threads": 1,
        "loads": 20,
        "cases": 16,
        "folder": "/work/run",
        "layers": 999,
        "index": 0,
        "visible": "0",
        "second": None,
        "jobs": 4,
        "venv": "/work/venv",
        "model": None,
        **families.job(Version("0.3.16"), "default"),
        "families_folder": "/work/families",
    }
    return {**base, **changes}


def smoke_answers(type_: str) -> dict[str, Any]:
    """The results of the payload's child for a GGML type on a working GPU."""
    cases = [
        {
            "batch": batch,
            "flash": flash,
            "kv": kv,
            "type": type_,
            "nmse": 1e-5,
            "finite": True,
            "tokens": 20,
            "equal": 20,
            **({"repeats": True} if (flash, kv) == (True, "f16") else {}),
        }
        for batch in (1, 4, 32, 512)
        for flash, kv in ((False, "f16"), (True, "f16"), (True, "q8_0"), (True, "q4_0"))
    ]
    buffers = {"CPU_Mapped model": 1.0, "CUDA0 model": 13.2, "CUDA0 KV": 2.0}
    return {"error": None, "offloaded": [3, 3], "buffers": buffers, "results": cases}


def smoke_module(type_: str, name: str) -> dict[str, Any]:
    """The results of the payload's child for a GGML type with one of the CPU modules."""
    found = smoke_answers(type_)
    cases = [(1, True, "f16"), (32, True, "f16")]
    results = [c for c in found["results"] if (c["batch"], c["flash"], c["kv"]) in cases]
    return {**found, "type": type_, "chosen": name, "results": results}


def smoke_found(**changes: Any) -> dict[str, Any]:
    """The results of all children of the payload for a valid rtx50 wheel on its GPU."""
    site = "/work/venv/lib/python3.11/site-packages"
    runtime = f"{site}/nvidia/cu13/lib"
    base: dict[str, Any] = {
        "device": {
            "error": None,
            "version": "0.3.16",
            "package": f"{site}/llama_cpp",
            "offload": True,
            "modules": {"x64": 1, "haswell": 64, "skylakex": 0},
            "chosen": "haswell",
            "runtime": {
                "cudart": [f"{runtime}/libcudart.so.13", "site-packages"],
                "cublas": [f"{runtime}/libcublas.so.13", "site-packages"],
            },
            "libraries": [
                "/usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04",
                f"{site}/llama_cpp/lib/libggml-base.so",
                f"{site}/llama_cpp/lib/libggml-cuda.so",
                f"{site}/llama_cpp/lib/libllama.so",
                f"{runtime}/libcublas.so.13",
                f"{runtime}/libcublasLt.so.13",
                f"{runtime}/libcudart.so.13",
            ],
            "devices": [["NVIDIA GeForce RTX 5090", "12.0"]],
            "system": "CUDA : ARCHS = 1200",
            "import_seconds": 0.5,
        },
        "offload": {
            "error": None,
            "offloaded": [3, 3],
            "buffers": {"CPU_Mapped model": 1.0, "CUDA0 model": 10.0, "CUDA0 KV": 2.0},
            "grew": 20_000_000,
            "weights": 11_000_000,
            "free_after_first": 30_000_000_000,
            "free_after_last": 30_000_000_000,
            "loads": 20,
        },
        "api": {
            "error": None,
            "chat": "yes",
            "text": "Hola, señor",
            "back": "Hola, señor",
            "wanted": [300, 301, 302],
            "one": [300, 301, 302],
            "other": [300, 301, 302],
            "embedding": 1e-9,
        },
        "times": {
            "error": None,
            "child_seconds": 2.0,
            "load_seconds": 0.25,
            "first_token_seconds": 0.01,
            "prompt_per_second": 5000.0,
        },
        "answers": {name: smoke_answers(name) for name in ("F16", "Q4_K")},
        "families": {
            "all": {
                "rows": [
                    family_row(row)
                    for row in families.plan(Version("0.3.16"), "default", on_gpu=True)
                ],
                "operations": [],
            }
        },
        "modules": {
            name: [smoke_module(type_, name) for type_ in ("F16", "Q4_K")]
            for name in ("haswell", "x64")
        },
        "jit_files": 0,
        **smoke_feature_parts(),
    }
    return {**base, **changes}


@functools.cache
def _smoke_found() -> bytes:
    return pickle.dumps(smoke_found())  # copying it takes a tenth of the time of making it


def smoke_planted(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``smoke_found`` with other values at these places: "answers/F16/results/0/nmse"."""
    found: Any = pickle.loads(_smoke_found())
    for place, value in changes.items():
        *path, last = (int(part) if part.isdecimal() else part for part in place.split("/"))
        functools.reduce(lambda part, key: part[key], path, found)[last] = value
    return dict(found)


def smoke_feature_parts() -> dict[str, Any]:
    """The results of the children for the features, on a machine with two GPUs."""
    parts: dict[str, Any] = {
        name: {"error": None, "results": [{"case": case, "nmse": 1e-9} for case in cases]}
        for name, cases in check_smoke_report.known_features()["worst"].items()
    }
    both = {"CUDA0 model": 1.0, "CUDA1 model": 1.0, "CUDA0 KV": 1.0, "CUDA1 KV": 1.0}
    split = {"CUDA0 model": 1.0, "CPU KV": 1.0, "CUDA0 KV": 1.0}
    kinds = ("F16", "Q4_K")
    parts["threads"] |= {"evaluations": 16, "same": 16}
    parts["lora"] |= {"unchanged": True}
    parts["partial-offload"]["places"] = {
        f"{kind}, {n} of 3 layers": [[n, 3], split] for kind in kinds for n in (1, 2)
    }
    parts["two-gpus"]["places"] = {
        f"{kind}, split 1:{n}": [[3, 3], both] for kind in kinds for n in (1, 3)
    }
    return parts


def smoke_features(*, on_gpu: bool = True) -> list[dict[str, Any]]:
    """The results of the features in a report."""
    gone = ("two-gpus",) if on_gpu else ("partial-offload", "two-gpus")
    return [
        {"check": name, "case": case, "nmse": 1e-9, "bound": 2e-9}
        for name, cases in check_smoke_report.known_features()["worst"].items()
        if name not in gone
        for case in cases
    ]


# The checks that a report of a run on the CPU does not contain.
ON_A_GPU = ("native-sass", "libraries", "full-offload", "memory", "partial-offload")


def smoke_checks(*failing: str) -> list[dict[str, Any]]:
    """All checks of a report of a run on a GPU; ``failing`` are the ids of those that fail."""
    summaries = {"known-answers": "16 cases of 1 types within their bounds", "memory": "0 MiB lost"}
    ids = (
        "device native-sass libraries full-offload memory known-answers greedy-tokens repeatable "
        "types cpu-modules grammar embeddings state vocabulary vision text-embeddings lora threads "
        "partial-offload families"
    )
    return [
        {
            "id": id_,
            "status": "fail" if id_ in failing else "ok",
            "summary": f"{id_}: {summaries.get(id_, 'it holds')}",
            "evidence": "what was found" if id_ in failing else "",
            "remedy": "what fixes it" if id_ in failing else "",
        }
        for id_ in ids.split()
    ]


def smoke_cases(file: str = "", types: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The cases of these types; by default of all types of the release in a file name."""
    bounds = check_smoke_report.known_bounds()
    if not types:
        late = check_smoke_report.late(parse_wheel_filename(file)[1])
        types = [name for name in bounds["type"] if name not in late]
    return [
        {**case, "bound": bounds["type"][name] + bounds["kv"][case["kv"]]}
        for name in types
        for case in smoke_answers(name)["results"]
    ]


def smoke_families(file: str, on_gpu: bool) -> dict[str, Any]:
    """The model families in a report: all rows of the default set, within their bounds."""
    version = parse_wheel_filename(file)[1]
    return {
        "set": "default",
        "rows": [family_row(row) for row in families.plan(version, "default", on_gpu=on_gpu)],
        "operations": ["MUL_MAT_ID q4_K CUDA0"],
    }


def family_row(plan: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A row within its bound; a known error of upstream is also visible."""
    names = {name: plan[name] for name in ("family", "type", "batch", "flash", "split")}
    nmse = 0.02 if plan["known"] else plan["bound"] / 10
    found = {"nmse": nmse, "worst": 2 * nmse, "tokens": 48, "finite": True}
    return {**names, **found, "host_mib": 5.0, "gpu_mib": 10.0, **changes}


@functools.cache
def _smoke_parts(file: str, on_gpu: bool) -> bytes:
    """The largest parts of a report, pickled, because a copy is faster than a new calculation."""
    parts = smoke_cases(file), smoke_features(on_gpu=on_gpu), smoke_families(file, on_gpu)
    return pickle.dumps(parts)


def report_head() -> dict[str, Any]:
    """The fields that all reports have in common."""
    return {
        **smoke_job()["identity"],
        "python": "3.11.2",
        "system": "Linux 6.1.0 x86_64",
        "started": "2026-01-02T03:04:05Z",
        "seconds": 61.5,
    }


def smoke_report(**changes: Any) -> dict[str, Any]:
    """The report of a run of a valid rtx50 wheel, without its checksum."""
    file, on_gpu = str(changes.get("file")), changes.get("device") != "cpu"
    file = file if file.count("-") >= 4 else wheel().file
    cases, features, rows = pickle.loads(_smoke_parts(file, on_gpu))
    base: dict[str, Any] = {
        **report_head(),
        "checks": smoke_checks(),
        "cases": cases,
        "features": features,
        "families": rows,
        "times": {"import_seconds": 0.5, "prompt_per_second": 5000.0},
        "system_info": "CUDA : ARCHS = 1200",
    }
    return {**base, **changes}


def bench_wheel(label: str = "rtx50", rounds: int = 8, **changes: Any) -> dict[str, Any]:
    """A wheel in the report of a benchmark: each metric has the values 100, 101, …"""
    values = {
        metric: [100.0 + n for n in range(1 if unit == "B" else rounds)]
        for metric, (_, unit, _) in bench_metrics.METRICS.items()
        if not metric.startswith("real_")
    }
    base: dict[str, Any] = {
        "label": label,
        "file": wheel().file,
        "sha256": "0" * 64,
        "version": "0.3.16",
        "cpu_module": "haswell",
        "brings_runtime": True,
        "packages": ["numpy-2.4.6.whl"],
        "jit_files": 0,
        "values": values,
    }
    return {**base, **changes}


def bench_report(*wheels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The report of a benchmark on a GPU, without its checksum."""
    condition = {
        "wheel": "rtx50",
        "kind": "warm",
        "round": 1,
        "sm_mhz": 2400.0,
        "sm_mhz_highest": 2500,
        "memory_mhz_highest": 14000,
        "celsius": 41,
        "watts": 90.5,
        "slowed": [],
        "before_mib": 500.0,
        "vram_mib": 620.0,
        "looks": 99,
    }
    base: dict[str, Any] = {
        **report_head(),
        "rounds": 8,
        "stops": 0,
        "threads": 1,
        "cpu_threads": 8,
        "runtime": "packages",
        "model": None,
        "wheels": list(wheels or [bench_wheel(), bench_wheel("seed", sha256="1" * 64)]),
        "conditions": [condition],
    }
    return {**base, **changes}


def ops_report(version: str = "0.3.16", cuda: bool = True, **changes: Any) -> dict[str, Any]:
    """The report of the operator test of a valid wheel: the numbers of the table."""
    expected = check_ops_report.expected(version, cuda=cuda)

    def row(name: str, listed: int) -> dict[str, Any]:
        count, refused = expected["cases"][name], expected["unsupported"].get(name, 0)
        wrong = sum(k["count"] for k in expected["known"] if k["case"].startswith(f"{name}("))
        counts = {"right": count - refused - wrong, "wrong": wrong, "unsupported": refused}
        return {"listed": listed, **counts, "seconds": 1.5}

    known = [
        {"case": f"{known['case']}{n})", "narrowed": False, "tries": ["[CPY] NMSE = 3 > 1"]}
        for known in expected["known"]
        for n in range(known["count"])
    ]
    device = {} if cuda else {"device": "cpu", "capability": None, "driver": None}
    base: dict[str, Any] = {
        **report_head(),
        **device,
        "stops": 0,
        "version": version,
        "backend": expected["backend"],
        "operators": {name: row(name, count) for name, count in expected["cases"].items()},
        "narrowed": {name: row(name, 0) for name in expected["narrow"]},
        "wrong": known,
        "problems": [],
        "libraries": [f"llama_cpp/lib/lib{n}.so" for n in ("ggml-base", expected["library"])],
    }
    base |= changes
    return {**base, "checks": ops_checks.checks(base, expected), **changes}


def ops_run(found: WheelFacts, spec: BuildSpec, **changes: Any) -> OpsRun:
    """A run of the operator test on a wheel, read from its report."""
    named = {"file": found.file, "sha256": found.sha256, "target": spec.target}
    report = ops_report(spec.version, bool(spec.archs), **{**named, **changes})
    text = report_file.text(report, report_file.OPS)
    return OpsRun(check_ops_report.opened(text, report["target"], report["sha256"], "here"), text)


def report_text(found: WheelFacts, target: str = "rtx50", **changes: Any) -> str:
    """The text of a report in which all checks of a wheel are ok."""
    named = {"file": found.file, "sha256": found.sha256, "target": target}
    return report_file.text(smoke_report(**{**named, **changes}))


def measured(found: Evidence, *others: str, **changes: Any) -> Evidence:
    """The evidence with a benchmark against other wheels, read from its report."""
    name, digest = found.spec.target, found.sha256
    these = [bench_wheel(name, sha256=digest)]
    these += [bench_wheel(label, sha256="1" * 64) for label in others]
    report = bench_report(*these, **{"target": name, "sha256": digest, **changes})
    text = report_file.text(report, report_file.BENCH)
    opened = check_bench_report.opened(text, name, digest, "here")
    return dataclasses.replace(found, bench=opened, measured=text)


def evidence(found: WheelFacts | None = None, **changes: Any) -> Evidence:
    """All records of an rtx50 wheel that may be released: built here, tested on the GPU."""
    if found is None and "spec" not in changes:
        base = _usual()
    else:
        base = _evidence(found or wheel_facts(), changes.get("spec", claiming()))
    return dataclasses.replace(base, **changes)


@functools.cache
def _usual() -> Evidence:
    return _evidence(wheel_facts(), claiming())


# The groups of checks of verify, with the ids of their checks.
VERIFIED = {
    "The file": "archive record metadata layout python-files size sbom reproducible",
    "Device code": "gpu-code ptx gpu-features",
    "Host code": "libraries imports api cpu-baseline paths platform-tag",
    "Its build": "loader freshness",
}


def verified() -> tuple[CheckGroup, ...]:
    """The checks of verify, all ok."""
    summary = {"libraries": "7 × ELF x86_64"}

    def checks(ids: str) -> tuple[Check, ...]:
        return tuple(Check(n, "ok", f"{n}: {summary.get(n, 'it holds')}") for n in ids.split())

    return tuple(CheckGroup(name, checks(ids)) for name, ids in VERIFIED.items())


def configured(spec: BuildSpec, origin: Source) -> BuildEnv:
    """A build environment for a target, with the kinds of settings that documents show."""
    here, root = places(spec.target), toolkit().root
    defines = {"GGML_NATIVE": "OFF", "CMAKE_CXX_COMPILER": "/usr/bin/g++"}
    if spec.cuda:
        defines |= {"CMAKE_CUDA_ARCHITECTURES": ";".join(spec.archs), "CUDAToolkit_ROOT": root}
    defines["CMAKE_CXX_FLAGS_INIT"] = f'"-ffile-prefix-map={here.stage}=src"'
    defines["CMAKE_CXX_COMPILER_LAUNCHER"] = f"{here.tools}/bin/ccache"
    defines |= dict(spec.cmake)
    return build_env(
        variables={
            "LANG": "C.UTF-8",
            "CCACHE_DIR": f"{here.cache}/ccache",
            "PATH": f"{here.tools}/bin:{root}/bin:/usr/bin:/bin",
            "SOURCE_DATE_EPOCH": str(origin.epoch),
        },
        settings={"build-dir": here.tree, "cmake.args": "-GNinja"}
        | {f"cmake.define.{name}": value for name, value in defines.items()},
        requires=("cuda-pathfinder>=1.0.0", "nvidia-cublas>=13.0.0.19,<14") if spec.cuda else (),
        fingerprint=records.fingerprint(spec),
    )


def _evidence(found: WheelFacts, spec: BuildSpec) -> Evidence:
    sha256 = knowledge.sdists()[spec.version].sha256
    origin = source(sdist_sha256=sha256, version=spec.version)
    build = configured(spec, origin)
    same = {name: getattr(spec, name) for name in ("target", "version", "archs", "cuda")}
    record = recorded(found, fingerprint=build.fingerprint, requires=build.requires, **same)
    text = report_text(found, spec.target)
    verdict = checks_digest.fingerprint(spec, record)
    return Evidence(
        spec=spec,
        path=ROOT / "wheels" / spec.target / found.file,
        sha256=found.sha256,
        toolchain=chain(),
        source=origin,
        toolkit=toolkit() if spec.cuda else None,
        build=build,
        wheel=record,
        facts=found,
        verify=VerifyReport(found.file, found.sha256, spec.target, verdict, 7.5, verified()),
        runs=(Run(check_smoke_report.opened(text, record.target, found.sha256, "here"), text),),
        timeline=None,
        ops=(ops_run(found, spec),) if spec.version in knowledge.ops() else (),
    )


_texts: dict[tuple[str, int], tuple[object, str]] = {}


def write(path: Path, kind: str, value: object) -> None:
    """Write a record. The text of each value is cached, because many tests write the same values.

    The cache also keeps the value, so that no other object gets its id.
    """
    key = (kind, id(value))
    if key not in _texts:
        _texts[key] = (value, records.text(kind, value))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_texts[key][1].encode())


def lay(build: Path, found: Evidence) -> None:
    """Write the records and the reports of a target to its folder, as the sessions do."""
    values = {
        "probe": found.toolchain,
        "source": found.source,
        "toolkit": found.toolkit,
        "configure": found.build,
        "wheel": found.wheel,
        "facts": found.facts,
        "verify": found.verify,
        "steps": found.timeline,
    }
    for name, value in values.items():
        if value is not None:
            write(build / f"{name}.json", name, value)
    kept: list[tuple[str, Run | OpsRun]] = [("smoke", run) for run in found.runs]
    kept += [("ops", run) for run in found.ops]
    for session, run in kept:
        write(build / f"{session}-{run.place}.json", session, run.report)
        report = build / f"{session}-report-{run.place}.json"
        report.write_bytes(run.report_text.encode())
        if run.signature is not None:
            report.with_name(f"{report.name}.sig").write_bytes(run.signature.encode())


def report(found: Evidence) -> SmokeReport:
    """The only report."""
    (run,) = found.runs
    return run.report


def reported(found: Evidence, **changes: Any) -> Evidence:
    """The evidence with another record of its only run; the report file is unchanged."""
    (run,) = found.runs
    changed = dataclasses.replace(run, report=dataclasses.replace(run.report, **changes))
    return dataclasses.replace(found, runs=(changed,))


def rerun(found: Evidence, **changes: Any) -> Evidence:
    """The evidence with another run of its wheel, read from its report."""
    text = report_text(found.facts, found.spec.target, **changes)
    sha256 = changes.get("sha256", found.sha256)
    return dataclasses.replace(
        found, runs=(Run(check_smoke_report.opened(text, None, sha256, "here"), text),)
    )


def fp4_evidence(**changes: Any) -> Evidence:
    """All records of an rtx50-fp4 wheel, tested on the GPU."""
    return dataclasses.replace(_fp4(), **changes)


@functools.cache
def _fp4() -> Evidence:
    tags = ("py3-none-manylinux_2_35_x86_64",)
    tensor = {**device().tensor, "OMMA.SF.16864.F32.E2M1.E2M1.E8": 6_144}
    code = device(sass={"sm_120a": 98}, tensor=tensor)
    inside = tuple(
        dataclasses.replace(lib, device=code) if lib.device else lib for lib in libraries()
    )
    found = wheel_facts(
        file=f"llama_cpp_python-0.3.36-{tags[0]}.whl",
        version="0.3.36",
        metadata_version="0.3.36",
        tags=tags,
        wheel_tags=tags,
        libraries=inside,
    )
    wanted = claiming(
        target="rtx50-fp4",
        version="0.3.36",
        archs=("120a-real",),
        device_features=("HMMA", "IMMA", "OMMA.E2M1"),
    )
    return _evidence(found, wanted)


def cpu_evidence(**changes: Any) -> Evidence:
    """All records of a cpu wheel, tested on the CPU."""
    return dataclasses.replace(_cpu(), **changes)


@functools.cache
def _cpu() -> Evidence:
    found, wanted = cpu_facts(), cpu_spec(budget_mb=4)
    checks = [check for check in smoke_checks() if check["id"] not in ON_A_GPU]
    where = {"device": "cpu", "capability": None, "driver": None, "checks": checks}
    text = report_text(found, "cpu", **where)
    report = check_smoke_report.opened(text, None, found.sha256, "here")
    return dataclasses.replace(_evidence(found, wanted), runs=(Run(report, text),))
