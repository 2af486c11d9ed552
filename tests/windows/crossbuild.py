"""Builds a real win_amd64 wheel of the cpu target with mingw-w64 on Linux.

Source, staging, ``wheel.cmake``, settings, delvewheel, checks and records are the product's own.
Different from Windows are the compiler, and the C++ and OpenMP runtimes, which are MinGW's and
linked statically. So that the libraries need Microsoft's too, as with MSVC, each of them calls a
function of msvcp140.dll and one of vcomp140.dll when it is loaded (``RUNTIME``).

The wheel is kept; after a change, the compiler cache has most objects.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import lief

from sessions.build import cmake_settings, main_wheel
from sessions.build.cmake_settings import Places
from sessions.build.record_types import BuildEnv, Wheel
from sessions.command_line import parse_options
from sessions.fetch import build_tools, main_source
from sessions.fetch.record_types import Source
from sessions.probe import main_probe
from sessions.probe.record_types import Compiler, Toolchain
from sessions.shared import child_environment, disk, machine, records
from sessions.shared.context import Context
from sessions.targets import choose_target, targets_file
from tests import fakes
from tests.windows import making, visualstudio
from tests.windows.lab import Lab
from tests.windows.making import CC, CXX, DLLTOOL

RUNTIME = """\
#include <cstdlib>
#include <random>
#include <string>
extern "C" __declspec(dllimport) long long _Query_perf_frequency();  // msvcp140.dll
extern "C" __declspec(dllimport) int omp_get_max_threads();          // vcomp140.dll
static volatile long long said;
__attribute__((constructor)) static void start() {
    said = _Query_perf_frequency() + omp_get_max_threads();
}
// libstdc++'s version uses RDRAND if the processor has it, which a wheel must not need.
void std::random_device::_M_init(const std::string &) {}
void std::random_device::_M_init(const char *, std::size_t) {}
unsigned std::random_device::_M_getval() { return std::rand(); }
void std::random_device::_M_fini() {}
"""
NEEDED = {"msvcp140.dll": "_Query_perf_frequency", "vcomp140.dll": "omp_get_max_threads"}
TOOLCHAIN = """\
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-static -Wl,--exclude-libs,ALL @NEEDED@")
set(CMAKE_MODULE_LINKER_FLAGS_INIT "-static -Wl,--exclude-libs,ALL")  # ggml's modules
"""
# Translates MSVC's options, with which wheel compiles the comparison of the bindings.
CL = """\
#!/bin/sh
for word; do
    shift
    case $word in
    /nologo | /EHsc) ;;
    /Zs) set -- "$@" -fsyntax-only -x c++ ;;
    /std:*) set -- "$@" "-std=${word#/std:}" ;;
    /I*) set -- "$@" "-I${word#/I}" ;;
    *) set -- "$@" "$word" ;;
    esac
done
exec @CXX@ "$@"
"""


def build(lab: Lab) -> Context:
    """Create the wheel and all its records as a build on Windows does. Returns its context."""
    root = lab.folder.parent / "windows-wheel"
    disk.mark(root)
    linux = _context(root, lab.folder.parent, "linux")
    main_probe.main(linux)
    main_source.main(linux)
    chain = records.need(linux.record("probe"), "probe", Toolchain)
    unpacked = records.need(linux.record("source"), "source", Source)
    redist = _redist(lab)
    compiler = compiler_of_mingw()
    windows = _context(root, lab.folder.parent, "windows")
    # The record names MSVC, so that the wheel must contain Microsoft's runtime.
    stand_in = dataclasses.replace(compiler, family="msvc", cxx=str(_cl(root, compiler)))
    records.write(windows.record("probe"), "probe", dataclasses.replace(chain, compiler=stand_in))
    settings = _settings(linux, compiler, unpacked, redist)
    records.write(windows.record("configure"), "configure", settings)
    before = records.read(windows.record("wheel"), "wheel", Wheel)
    tree = windows.build / "tree"
    if tree.exists() and (before is None or before.fingerprint != settings.fingerprint):
        disk.remove(tree)  # ninja does not see ``RUNTIME`` change
    main_wheel.main(windows)
    return windows


def _context(root: Path, cache: Path, platform: str) -> Context:
    """The context of the cpu target; both platforms use the same folders."""
    env = child_environment.environment()
    targets = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), platform)
    chosen = choose_target.choose(targets, parse_options.parse(["--target", "cpu"]))
    return fakes.context(
        root, env=env, spec=chosen, machine=machine.real(env, root, cache), cache=cache
    )


def compiler_of_mingw() -> Compiler:
    paths = {name: shutil.which(name) or name for name in (CC, CXX)}
    version = subprocess.run([paths[CXX], "-dumpfullversion"], capture_output=True, text=True)
    return Compiler("gnu", version.stdout.strip(), paths[CXX], paths[CC], "mingw-w64")


def _redist(lab: Lab) -> Path:
    """The folder of Microsoft's runtime for redistribution."""
    installed = visualstudio.install(lab, "2022")
    return installed.root / "VC/Redist/MSVC" / visualstudio.RELEASES["2022"].redist


def _settings(ctx: Context, compiler: Compiler, unpacked: Source, redist: Path) -> BuildEnv:
    """The settings of a build on Linux, and those that make it a build for Windows."""
    places = Places(
        stage=str(ctx.build / "src"),
        tree=str(ctx.build / "tree"),
        cache=str(ctx.cache),
        tools=str(build_tools.tools(ctx)),
    )
    env = child_environment.system_environment(ctx.env)
    spec_here = dataclasses.replace(ctx.spec, glibc="host")  # Windows has no glibc to link for
    settings_of_linux = cmake_settings.configure(spec_here, compiler, None, unpacked, places, env)
    more = {
        "CMAKE_TOOLCHAIN_FILE": str(_toolchain(ctx.root, compiler, redist)),
        "GGML_WIN_VER": "0x601",  # the headers of MinGW 10 lack what 0x602 takes
        "OpenMP_gomp_LIBRARY": _static(compiler, "libgomp.a"),
        "OpenMP_pthread_LIBRARY": _static(compiler, "libpthread.a"),
    }
    defines = {f"cmake.define.{name}": value for name, value in more.items()}
    settings = {**settings_of_linux.settings, **defines}
    variables = {
        **settings_of_linux.variables,
        "VCTOOLSREDISTDIR": f"{redist}{os.sep}",
        "_PYTHON_HOST_PLATFORM": "win-amd64",  # by which scikit-build-core tags the wheel
    }
    # The paths depend only on the cache folder.
    inputs = [settings_of_linux.fingerprint, settings, RUNTIME, TOOLCHAIN, compiler.version]
    identity = records.fingerprint([*inputs, making.REQUIREMENTS.read_text()])
    return dataclasses.replace(
        settings_of_linux, settings=settings, variables=variables, fingerprint=identity
    )


def _cl(root: Path, compiler: Compiler) -> Path:
    """A program with the options of cl.exe that calls the compiler."""
    folder = root / "mingw"
    folder.mkdir(exist_ok=True)
    file = folder / "cl"
    file.write_text(CL.replace("@CXX@", compiler.cxx))
    file.chmod(0o755)
    return file


def _toolchain(root: Path, compiler: Compiler, redist: Path) -> Path:
    """A toolchain file that links ``RUNTIME`` into every library."""
    folder = root / "mingw"
    folder.mkdir(exist_ok=True)
    (folder / "runtime.cpp").write_text(RUNTIME)
    _run(compiler.cxx, "-O2", "-c", folder / "runtime.cpp", "-o", folder / "runtime.o")
    linked = [folder / "runtime.o"]
    for name, function in NEEDED.items():
        (dll,) = redist.rglob(name)
        assert function in _exports(dll), f"{name} has no {function}"
        definition = folder / f"{name}.def"
        definition.write_text(f"LIBRARY {name}\nEXPORTS\n{function}\n")
        linked.append(definition.with_suffix(".a"))
        _run(DLLTOOL, "-d", definition, "-l", linked[-1])
    file = folder / "mingw.cmake"
    words = " ".join(f'\\"{path}\\"' for path in linked)
    file.write_text(TOOLCHAIN.replace("@NEEDED@", words))
    return file


def _exports(dll: Path) -> set[str]:
    binary = lief.PE.parse(str(dll))
    table = binary and binary.get_export()
    assert table, dll
    return {str(entry.name) for entry in table.entries}


def _static(compiler: Compiler, name: str) -> str:
    return _run(compiler.cc, f"-print-file-name={name}").strip()


def _run(*words: str | Path) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def compiled(path: Path, code: str, *needs: Path) -> None:
    """Compile a library for Windows from a few lines of C and the libraries that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text(code)
    _run(CC, "-shared", "-s", "-o", path, source, *needs)
    source.unlink()
