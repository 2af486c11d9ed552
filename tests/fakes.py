"""Values of ``sessions.core.model`` for tests: a machine on which rtx50 builds, with overrides."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sessions.configure import Places
from sessions.core import facts, options
from sessions.core.context import Context
from sessions.core.model import (
    BuildEnv,
    BuildSpec,
    Check,
    Compiler,
    Driver,
    Gpu,
    Host,
    HostRange,
    InstalledToolkit,
    Python,
    Source,
    Tool,
    Toolchain,
    Toolkit,
    Wheel,
)
from sessions.core.options import Options

ROOT = Path(__file__).resolve().parent.parent
ACCEPTS = HostRange(gnu_max=15, clang_min=3, clang_max=21, msvc_min=1920, msvc_max=1949)


def spec(**changes: Any) -> BuildSpec:
    """The rtx50 target."""
    base = BuildSpec(
        target="rtx50",
        summary="GeForce RTX 50 and RTX PRO Blackwell",
        version="0.3.16",
        cuda="13.1",
        archs=("120-real",),
        python="3.11",
        platform="linux",
    )
    return dataclasses.replace(base, **changes)


def cpu_spec(**changes: Any) -> BuildSpec:
    """The cpu target."""
    return spec(**{"target": "cpu", "cuda": None, "archs": (), **changes})


def parsed(*words: str, **changes: Any) -> Options:
    """The options of a command line."""
    return dataclasses.replace(options.parse(words), **changes)


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
    """Visual Studio's compiler, by ``_MSC_VER``: 1944 is of VS 2022, 1950 of VS 2026."""
    year = "2022" if int(version) < 1950 else "18"
    cl = (
        rf"C:\Program Files\Microsoft Visual Studio\{year}\BuildTools\VC\Tools\MSVC"
        r"\14.44.35207\bin\Hostx64\x64\cl.exe"
    )
    named = {"family": "msvc", "cxx": cl, "cc": cl, "found_via": "vswhere"}
    return compiler(**{**named, "version": version, **changes})


def toolkit(**changes: Any) -> Toolkit:
    """CUDA 13.1 made from NVIDIA's packages."""
    base = Toolkit(
        origin="pypi",
        root="/home/user/.cache/blackwheel/cuda-13.1-0123456789ab/nvidia/cu13",
        version="13.1",
        fingerprint="a" * 64,
        components={"nvidia-cuda-runtime": "13.1.80", "nvidia-cublas": "13.2.2.2"},
        accepts=facts.toolkit("13.1").accepts,
    )
    return dataclasses.replace(base, **changes)


def installed(**changes: Any) -> InstalledToolkit:
    """An installed CUDA 13.0, as this project's own machine has it: not the target's."""
    base = InstalledToolkit(
        root="/usr/local/cuda-13.0", version="13.0.88", found_via="CUDA_PATH", accepts=ACCEPTS
    )
    return dataclasses.replace(base, **changes)


def source(**changes: Any) -> Source:
    """The locked source of 0.3.16, unpacked and untouched."""
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
    """Linux folders, the project's with a space in its path."""
    base = Places(
        stage=f"/home/user/black wheel/build/{target}/src",
        tree=f"/home/user/black wheel/build/{target}/tree",
        cache="/home/user/.cache/blackwheel",
        tools="/home/user/.cache/blackwheel/tools-py3.11-0123456789ab",
    )
    return dataclasses.replace(base, **changes)


def windows_places(target: str = "rtx50") -> Places:
    """Windows folders of a user whose name is not ASCII."""
    build = rf"C:\Users\José Pérez\black wheel\build\{target}"
    cache = r"C:\Users\José Pérez\AppData\Local\blackwheel\Cache"
    return Places(
        stage=rf"{build}\src",
        tree=rf"{build}\tree",
        cache=cache,
        tools=rf"{cache}\tools-py3.11-0123456789ab",
    )


def windows_toolkit(**changes: Any) -> Toolkit:
    """CUDA 13.1 made from NVIDIA's packages, on Windows."""
    root = windows_places().cache + r"\cuda-13.1-0123456789ab\nvidia\cu13"
    return toolkit(**{"root": root, **changes})


def host(**changes: Any) -> Host:
    """A machine with room for every build."""
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
    """What a probe finds on a machine with everything."""
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
        compiler_why="gnu 12.2.0 (/usr/bin/g++): the first on PATH that fits",
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
    """The record of a finished wheel."""
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
        libraries={"libllama.so": "1" * 64},
        requires=("cuda-pathfinder>=1.3",),
    )
    return dataclasses.replace(base, **changes)


def no_machine(question: str, *words: str) -> Any:
    """A machine that must not be asked."""
    raise AssertionError(f"asked the machine: {question} {words}")


def context(root: Path, *words: str, **changes: Any) -> Context:
    """The surroundings of a stage, with ``root`` for the project and all it makes.

    ``words`` are the command line after ``--``.
    """
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
