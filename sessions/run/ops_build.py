"""Compiles upstream's operator test from the release's sdist and links it to a wheel's libraries.

Upstream's file is unchanged; the compiler reads ``ops_entry.h`` before it. The objects are compiled
once per release and compiler, for all targets. Linking takes a second and fails if the libraries of
the tested wheel lack a function.
"""

from __future__ import annotations

import concurrent.futures
import email
import re
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.version import Version

from sessions.fetch import sdist as sdists
from sessions.probe.record_types import Compiler, Toolchain
from sessions.shared import (
    child_environment,
    console,
    disk,
    knowledge,
    machine,
    programs,
    records,
    venvs,
)
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, REPORT, USAGE, Problem

HEADER = Path(__file__).with_name("ops_entry.h")
GGML = "vendor/llama.cpp/ggml"
TEST = "vendor/llama.cpp/tests/test-backend-ops.cpp"
SCALAR = "SCALAR"  # the name of the reference backend's device; upstream's is CPU
_READY = "ready.json"
# For ggml-cpu as a separate backend in plain C: CMake's settings for GGML_BACKEND_DL, without the
# sources for instruction sets. Source: ggml/src/ggml-cpu/CMakeLists.txt.
_DEFINES = ("GGML_CPU_GENERIC", "GGML_BACKEND_DL", "GGML_BACKEND_BUILD", "GGML_BACKEND_SHARED",
            "GGML_SHARED", "NDEBUG", "_GNU_SOURCE", "_CRT_SECURE_NO_WARNINGS")  # fmt: skip
_FOLDERS = ("", "amx", "tiled")  # the folders of those sources in ggml-cpu


@dataclass(frozen=True)
class Built:
    """The test as a library; for a CPU wheel, also the scalar reference."""

    test: Path
    reference: Path | None


def release(wheel: Path) -> str:
    """The upstream release in a wheel's METADATA, without a local version ("+cu131").

    Raises Problem if its operators are not known.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        text = archive.read(names[0]).decode("utf-8", "replace") if names else ""
    version = Version(email.message_from_string(text)["Version"] or "0").public
    return known(version)


def known(version: str) -> str:
    """The version, if its table of operators is known. Raises Problem."""
    if version not in knowledge.ops():
        raise Problem(
            f"blackwheel does not know the operators of llama-cpp-python {version}.",
            id="ops-release-unknown",
            code=USAGE,
            evidence=f"known: {', '.join(knowledge.ops())}",
            remedy="test a wheel of one of these releases: --version V; maintainers: add the "
            "release to sessions/data/knowledge/ops_expected.toml",
        )
    return version


def built(ctx: Context, wheel: Path, work: Path, *, reference: bool) -> Built:
    """Compile what is not in the cache, and link it to the wheel's libraries, in ``work``."""
    chain = ctx.need("probe", Toolchain)
    if chain.compiler is None:
        raise Problem(
            "There is no C++ compiler to compile the operator test with.",
            id="ops-no-compiler",
            remedy="install the compiler that nox -s probe names",
        )
    version = release(wheel)
    objects = _objects(ctx, chain.compiler, version, "test")
    libraries = work / "libraries"
    _extract(wheel, libraries)
    linker = _Linker(chain.compiler, _environment(ctx, chain.compiler), libraries)
    suffix = ".dll" if sys.platform == "win32" else ".so"
    test = work / f"blackwheel-ops{suffix}"
    _link(linker, objects, test, ("ggml", "ggml-base"))
    if not reference:
        return Built(test, None)
    scalar = work / f"blackwheel-scalar{suffix}"
    _link(linker, _objects(ctx, chain.compiler, version, "scalar"), scalar, ("ggml-base",))
    return Built(test, scalar)


def _environment(ctx: Context, compiler: Compiler) -> dict[str, str]:
    path = {} if compiler.family == "msvc" else {"PATH": "/usr/bin:/bin"}
    return {**child_environment.system_environment(ctx.env), **path, **compiler.variables}


# ---- objects ----


def compile_command(
    compiler: Compiler, source: Path, target: Path, includes: Sequence[Path], *, header: bool
) -> list[str]:
    """The command that compiles the test with our header, or a source of the reference."""
    c = source.suffix == ".c"
    defines = () if header else _DEFINES
    if compiler.family == "msvc":
        return [
            *(compiler.cc if c else compiler.cxx, "/nologo", "/c", "/O1", "/utf-8", "/MD"),
            *(["/std:c11"] if c else ["/std:c++17", "/EHsc"]),
            *(f"/D{name}" for name in defines),
            *(f"/I{folder}" for folder in includes),
            *([f"/FI{HEADER}"] if header else []),
            *(f"/Fo{target}", str(source)),
        ]
    return [
        *(compiler.cc if c else compiler.cxx, "-c", "-O1", "-fPIC", "-fvisibility=hidden"),
        "-std=c11" if c else "-std=c++17",
        *(f"-D{name}" for name in defines),
        *(f"-I{folder}" for folder in includes),
        *(["-include", str(HEADER)] if header else []),
        *("-o", str(target), str(source)),
    ]


def _objects(ctx: Context, compiler: Compiler, version: str, kind: str) -> list[Path]:
    """The object files of the test or of the reference, from the cache or compiled."""
    sdist = knowledge.sdists()[version]
    made_by = [sdist.sha256, kind, HEADER.read_text("utf-8"), list(_DEFINES), compiler.version]
    identity = records.fingerprint([*made_by, compiler.cxx, compiler.identity])
    name = f"ops-{kind}-{version}-{identity[:12]}"
    folder = ctx.cache / name
    ctx.use_cached(name)
    with ctx.cache_lock(name):
        if not (folder / _READY).exists():
            if folder.exists():
                disk.remove(folder)
            with ctx.scratch() as scratch:
                source, part = scratch / "source", scratch / "part"
                disk.mark(part)
                sdists.unpack(sdists.archive(ctx, sdist), source, _wanted)
                if kind == "scalar":
                    rename_device(source)
                _compile(ctx, compiler, source, kind, part)
                records.write_text(part / _READY, "{}\n")
                disk.put(part, folder)
    return sorted(folder.glob("*.o"))


def _wanted(relative: str) -> bool:
    return (
        relative == TEST
        or any(
            relative.startswith(folder) or folder.startswith(relative)
            for folder in (f"{GGML}/include/", f"{GGML}/src/")
            if not relative.startswith((f"{GGML}/src/ggml-cuda/", f"{GGML}/src/ggml-vulkan/"))
        )
        or TEST.startswith(relative)
    )


def rename_device(source: Path) -> None:
    """Rename the reference's device to SCALAR: the test would run both of two named CPU."""
    path = source / GGML / "src" / "ggml-cpu" / "ggml-cpu.cpp"
    text, count = re.subn(r'return "CPU";', f'return "{SCALAR}";', path.read_text("utf-8"))
    if not count:
        raise Problem(
            "Upstream's code has the name of the CPU device in another place than expected.",
            id="ops-device-name",
            evidence=str(path),
            remedy=f"{REPORT}; maintainers: correct rename_device in sessions/run/ops_build.py",
        )
    path.write_text(text, encoding="utf-8")


def sources(source: Path, kind: str) -> list[Path]:
    """The files to compile: upstream's test, or those of ggml-cpu for no instruction set."""
    if kind == "test":
        return [source / TEST]
    cpu = source / GGML / "src" / "ggml-cpu"
    found = [path for folder in _FOLDERS for path in sorted((cpu / folder).glob("*.c*"))]
    return [path for path in found if path.suffix in (".c", ".cpp")]


def _compile(ctx: Context, compiler: Compiler, source: Path, kind: str, folder: Path) -> None:
    what = "Compiling upstream's operator test" if kind == "test" else "Compiling the reference"
    console.say(f"{what} (once per release and compiler)")
    src = source / GGML / "src"
    includes = [source / GGML / "include", src, src / "ggml-cpu"]
    env = _environment(ctx, compiler)

    def one(path: Path) -> programs.Finished:
        name = path.relative_to(source).as_posix().replace("/", "_")
        target = folder / f"{PurePosixPath(name).name[-80:]}.o"
        words = compile_command(compiler, path, target, includes, header=kind == "test")
        return programs.capture(words, env=env)

    with concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool:
        for done in pool.map(one, sources(source, kind)):
            if done.returncode:
                raise Problem(
                    f"{done.command[-1]} could not be compiled.",
                    id="ops-compile-failed",
                    evidence=venvs.tail(done.output),
                    remedy="nox -s probe shows the compiler in use; choose another with --compiler",
                )


# ---- linking ----


@dataclass(frozen=True)
class _Linker:
    compiler: Compiler
    env: dict[str, str]
    libraries: Path


def _extract(wheel: Path, folder: Path) -> None:
    """Copy the wheel's libraries of ggml into one folder."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            file = name.rsplit("/", 1)[-1]
            if re.fullmatch(r"llama_cpp/lib/(lib)?ggml[\w.-]*\.(so|dll)", name):
                (folder / file).write_bytes(archive.read(name))
    names = {path.stem.removeprefix("lib") for path in folder.iterdir()}
    if missing := {"ggml", "ggml-base"} - names:
        raise Problem(
            f"Shared libraries of ggml are missing in {wheel.name}: {', '.join(sorted(missing))}.",
            id="ops-no-ggml",
            code=CHECK_FAILED,
            remedy="test a wheel that has them in llama_cpp/lib, as upstream's own wheels do",
        )


def link_command(
    compiler: Compiler, objects: Sequence[Path], target: Path, libraries: Path, names: Sequence[str]
) -> list[str]:
    """The command that links a library to those of the wheel; it fails if they lack a function."""
    if compiler.family == "msvc":  # its linker always fails then
        return [
            *(compiler.cxx, "/nologo", "/LD", *map(str, objects), f"/Fe{target}"),
            *("/link", f"/LIBPATH:{libraries}", *(f"{name}.lib" for name in names)),
        ]
    return [
        *(compiler.cxx, "-shared", "-s", "-o", str(target), *map(str, objects)),
        *("-Wl,-z,defs", "-Wl,-Bsymbolic", f"-L{libraries}", *(f"-l{name}" for name in names)),
        *("-lpthread", f"-Wl,-rpath-link,{libraries}"),
    ]


def import_library(compiler: Compiler, definition: Path) -> list[str]:
    """The command that makes an import library; a wheel contains only the DLLs."""
    librarian = str(Path(compiler.cxx).with_name("lib.exe"))
    target = definition.with_suffix(".lib")
    return [librarian, "/NOLOGO", "/MACHINE:X64", f"/DEF:{definition}", f"/OUT:{target}"]


def _link(linker: _Linker, objects: Sequence[Path], target: Path, names: Sequence[str]) -> None:
    commands = []
    if linker.compiler.family == "msvc":
        for name in names:
            definition = linker.libraries / f"{name}.def"
            definition.write_text(_definition(linker.libraries / f"{name}.dll"), encoding="ascii")
            commands.append(import_library(linker.compiler, definition))
    commands.append(link_command(linker.compiler, objects, target, linker.libraries, names))
    for words in commands:
        done = programs.capture(words, env=linker.env, cwd=linker.libraries.parent)
        if done.returncode:
            raise not_linked(target.name, done.output)


def _definition(dll: Path) -> str:
    import lief  # takes 0.25 s, so only here

    from sessions.verify import symbols

    binary = lief.PE.parse(dll.read_bytes())
    exported = sorted(symbols.exports(binary)) if binary else []
    return "".join([f"LIBRARY {dll.name}\n", "EXPORTS\n", *(f"  {name}\n" for name in exported)])


def not_linked(name: str, output: str) -> Problem:
    """The Problem of a failed link: functions that the wheel's libraries lack, or another cause."""
    pattern = r"undefined reference to [`'](\w+)'|unresolved external symbol (?:__imp_)?(\w+)"
    missing = sorted({one or other for one, other in re.findall(pattern, output)})
    if missing:
        return Problem(
            f"The wheel's libraries lack functions of its release ({len(missing)} of them).",
            id="ops-functions-missing",
            code=CHECK_FAILED,
            evidence="\n".join(missing[:20]),
            remedy="build the wheel again, with --fresh: its libraries belong to another "
            "release than its METADATA names",
        )
    return Problem(
        f"{name} could not be linked to the wheel's libraries.",
        id="ops-link-failed",
        evidence=venvs.tail(output),
        remedy="nox -s probe shows the compiler in use; choose another with --compiler",
    )
