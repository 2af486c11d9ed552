"""The environment and the CMake settings of a build: flags of compilers and linkers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from sessions.build import build_inputs, old_glibc
from sessions.build.record_types import BuildEnv
from sessions.fetch.record_types import Source, Toolkit
from sessions.probe import ms_runtime, selection
from sessions.probe.record_types import Compiler
from sessions.shared import child_environment, knowledge, records
from sessions.shared.build_spec import BuildSpec

OVERLAY = Path(__file__).parent / "overlay"

# The other modules of this folder that decide what is in a wheel.
_FINISHING = (
    "main_wheel", "compilation", "wheel_contents", "staging", "import_hooks", "sbom",
    "platform_tag", "python_tag",
)  # fmt: skip
_LINK = "/Brepro /DEBUG /OPT:REF /OPT:ICF /PDBALTPATH:%_PDB%"


@dataclass(frozen=True)
class Places:
    """The folders of a build: the staged source, the CMake tree, the caches, the tools' venv."""

    stage: str
    tree: str
    cache: str
    tools: str


def configure(
    spec: BuildSpec,
    compiler: Compiler,
    toolkit: Toolkit | None,
    source: Source,
    places: Places,
    env: Mapping[str, str],
    *,
    python: str = "",
) -> BuildEnv:
    """The environment and all settings of a build. ``python`` is the version of the builder.

    ``env`` contains the system variables of the caller that a compiler may get: no PATH and no
    flags. The user's settings of the compiler cache are added when the build runs: they do not
    change the wheel, and may contain a password.
    """
    defines = {
        **_libraries(spec.version, compiler),
        **_host(spec, compiler, places),
        **(_cuda(spec, compiler, toolkit, places) if toolkit else {"GGML_CUDA": "OFF"}),
        **_cache(spec, places),
        **dict(spec.cmake),
    }
    settings = {
        "build-dir": _slashes(places.tree),
        "build.targets": "blackwheel",
        "cmake.verbose": "false",
        "cmake.build-type": "Release",
        "cmake.args": "-GNinja",
        "install.components": "blackwheel",
        "install.strip": "true",
        "wheel.reproducible": "true",
        **{f"cmake.define.{name}": value for name, value in defines.items()},
    }
    identity = _identity(compiler, toolkit)
    epoch = child_environment.source_date_epoch(env)
    variables = {
        **env,
        **{name: value for name, value in compiler.variables.items() if name != "PATH"},
        **_cache_variables(spec, places, identity),
        "PATH": _path(spec, compiler, toolkit, places),
        "SOURCE_DATE_EPOCH": str(source.epoch if epoch is None else epoch),
        # English messages of cl.exe, from which ninja learns which headers a file includes.
        **({"VSLANG": "1033"} if spec.platform == "windows" else {}),
        # Else upstream's CMake would take the commit of this project for that of llama.cpp.
        "GIT_CEILING_DIRECTORIES": places.stage,
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHONNOUSERSITE": "1",
        "PIP_NO_INDEX": "1",
    }
    requires = _requires(spec)
    # Everything else that changes the wheel: our additions, and the code that completes a wheel.
    ours = [
        *sorted(p for p in OVERLAY.iterdir() if p.is_file()),
        *(Path(__file__).with_name(f"{name}.py") for name in _FINISHING),
        Path(str(ms_runtime.__file__)),
        knowledge.KNOWLEDGE / "third_party_code.toml",
    ]
    made_from = build_inputs.everything(
        build_inputs.machine(
            spec, compiler, python or spec.python, toolkit.fingerprint if toolkit else ""
        ),
        source,
        neutral(settings, places, toolkit),
        requires,
        variables["SOURCE_DATE_EPOCH"],
        ours,
        knowledge.toolkit(spec.cuda).driver if spec.cuda else None,
    )
    return BuildEnv(
        variables=variables,
        settings=settings,
        requires=requires,
        fingerprint=records.fingerprint(made_from),
        inputs=made_from,
    )


def neutral(settings: Mapping[str, str], places: Places, toolkit: Toolkit | None) -> dict[str, str]:
    """The settings without this machine's folders and the compiler cache, which change no byte."""
    folders = [(places.stage, "STAGE"), (places.tree, "TREE"), (places.tools, "TOOLS")]
    folders += [(str(OVERLAY), "OVERLAY"), (toolkit.root if toolkit else "", "TOOLKIT")]
    spellings = [
        (spelling, name) for path, name in folders for spelling in (path, _slashes(path)) if path
    ]
    found = {}
    for name, value in settings.items():
        if name == "build-dir" or name.endswith("_COMPILER_LAUNCHER"):
            continue
        for spelling, placeholder in sorted(spellings, key=lambda pair: -len(pair[0])):
            value = value.replace(spelling, placeholder)
        found[name] = value
    return found


def _libraries(version: str, compiler: Compiler) -> dict[str, str]:
    """The settings of what is built: the shipped libraries. CMake ignores unknown names."""
    wrong = knowledge.left_out(version, compiler.family, compiler.version)
    return {
        "CMAKE_PROJECT_llama_cpp_INCLUDE": _slashes(str(OVERLAY / "wheel.cmake")),
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "GGML_NATIVE": "OFF",
        # Each backend is a module that is loaded at run time: CUDA's if there is a driver, and the
        # one that suits the CPU.
        "GGML_BACKEND_DL": "ON",
        "GGML_CPU_ALL_VARIANTS": "ON",
        **({"BLACKWHEEL_LEFT_OUT": ";".join(wrong)} if wrong else {}),
        "GGML_CCACHE": "OFF",
        "LLAMA_CURL": "OFF",
        "LLAMA_OPENSSL": "OFF",
        "LLAMA_BUILD_TOOLS": "OFF",
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_BUILD_SERVER": "OFF",
    }


def _host(spec: BuildSpec, compiler: Compiler, places: Places) -> dict[str, str]:
    flags = " ".join(_path_flags(spec, places))
    return {
        "CMAKE_C_COMPILER": _slashes(compiler.cc),
        "CMAKE_CXX_COMPILER": _slashes(compiler.cxx),
        # PDB files stay in the CMake tree; the library contains only their names.
        **(
            {f"CMAKE_{kind}_LINKER_FLAGS_INIT": _LINK for kind in ("SHARED", "MODULE")}
            if compiler.family == "msvc"
            else {}
        ),
        # _INIT adds to CMake's own flags, of which MSVC needs some (/EHsc).
        "CMAKE_C_FLAGS_INIT": flags,
        "CMAKE_CXX_FLAGS_INIT": flags,
        # The wheel cannot contain clang's OpenMP runtime.
        **({"GGML_OPENMP": "OFF"} if compiler.family == "clang" else {}),
        **(_old_glibc() if spec.old_glibc else {}),
    }


def _old_glibc() -> dict[str, str]:
    """Options of the linker only, for shared libraries and for modules."""
    flags = old_glibc.linker_flags()
    return {
        "CMAKE_SHARED_LINKER_FLAGS_INIT": flags,
        "CMAKE_MODULE_LINKER_FLAGS_INIT": flags,
        # ninja does not notice that the stubs change; this setting makes the tree stale.
        "BLACKWHEEL_GLIBC": old_glibc.identity(),
    }


def _path_flags(spec: BuildSpec, places: Places) -> list[str]:
    """The flags that keep the build machine's folders out of the libraries (``__FILE__``).

    ccache makes paths relative to the tree before the compiler gets them, so both spellings are
    mapped, and the result is the same with and without a cache.
    """
    if spec.platform == "windows":
        # The backslash before a quote is doubled: cl.exe would take the pair for a quote.
        return ["/Brepro", "/Z7", f'/d1trimfile:"{places.stage}\\\\"']
    return [f'"-ffile-prefix-map={places.stage}=src"', "-ffile-prefix-map=../src=src"]


def _cuda(spec: BuildSpec, compiler: Compiler, toolkit: Toolkit, places: Places) -> dict[str, str]:
    flags = []
    if selection.outside(compiler, toolkit.accepts):
        flags.append("-allow-unsupported-compiler")
    if spec.platform == "windows":
        # CCCL of CUDA 13.2 and later needs MSVC's standard preprocessor.
        host = ["/Zc:preprocessor", "/Brepro", f'/d1trimfile:\\"{places.stage}\\"\\\\']
        # nvcc copies these into the command line of cl.exe, so the folder is quoted once more. Its
        # last backslash is after the quote: nvcc would take a backslash and a quote for an escape.
        flags.append(f'"-Xcompiler={",".join(host)}"')
    root = _slashes(toolkit.root)
    # CMake would prefer the library of an installed driver to the stub.
    stub = spec.platform == "linux" and toolkit.origin == "pypi"
    nvcc = "nvcc.exe" if spec.platform == "windows" else "nvcc"
    # It is not known which files of a checkout can be compiled together.
    merged = () if spec.source else knowledge.sdists()[spec.version].merged
    return {
        "GGML_CUDA": "ON",
        "GGML_CUDA_NCCL": "OFF",
        "CMAKE_CUDA_ARCHITECTURES": ";".join(spec.archs),
        "CMAKE_CUDA_COMPILER": f"{root}/bin/{nvcc}",
        "CMAKE_CUDA_HOST_COMPILER": _slashes(compiler.cxx),
        "CUDAToolkit_ROOT": root,
        **({"CUDA_cuda_driver_LIBRARY": f"{root}/lib64/stubs/libcuda.so"} if stub else {}),
        # CMake also uses these flags to identify the compiler (CMakeDetermineCompilerId.cmake).
        **({"CMAKE_CUDA_FLAGS_INIT": " ".join(flags)} if flags else {}),
        **({"BLACKWHEEL_MERGED": ";".join(map(" ".join, merged))} if merged else {}),
    }


def _cache(spec: BuildSpec, places: Places) -> dict[str, str]:
    if spec.cache == "none":
        return {}
    launcher = _slashes(str(_program(spec, places.tools, spec.cache)))
    languages = ("C", "CXX", "CUDA") if spec.cuda else ("C", "CXX")
    return {f"CMAKE_{language}_COMPILER_LAUNCHER": launcher for language in languages}


def _cache_variables(spec: BuildSpec, places: Places, identity: str) -> dict[str, str]:
    """The default settings of the cache; the session wheel adds the user's."""
    build = str(_pure(spec, places.tree).parent)
    match spec.cache:
        case "ccache":
            return {
                "CCACHE_DIR": str(_pure(spec, places.cache) / "ccache"),
                # An empty configuration: that of the machine or the store could change what is a
                # hit (sloppiness) and what runs (prefix_command).
                "CCACHE_CONFIGPATH": "NUL" if spec.platform == "windows" else "/dev/null",
                "CCACHE_MAXSIZE": "10G",
                "CCACHE_BASEDIR": build,
                "CCACHE_NOHASHDIR": "1",
                # The compiler lists the included files, so ccache needs no run of the preprocessor,
                # which takes 5 % of the time of a short file (docs/performance.md).
                **({"CCACHE_DEPEND": "1"} if spec.platform == "linux" else {}),
                # A hash of nvcc is not enough, because it only calls cicc and ptxas.
                "CCACHE_COMPILERCHECK": f"string:{identity}",
            }
        case "sccache":
            return {"SCCACHE_DIR": str(_pure(spec, places.cache) / "sccache")}
        case _:
            return {}


def _identity(compiler: Compiler, toolkit: Toolkit | None) -> str:
    """A digest of what decides an object file: compiler and toolkit."""
    kit = toolkit.fingerprint if toolkit else None
    return records.fingerprint([compiler.family, compiler.version, compiler.identity, kit])[:32]


def _path(spec: BuildSpec, compiler: Compiler, toolkit: Toolkit | None, places: Places) -> str:
    """PATH of the build: the tools, the toolkit, the compiler and the system, nothing else."""
    folders = [str(_program(spec, places.tools, "python").parent)]
    if toolkit:
        folders.append(str(_pure(spec, toolkit.root) / "bin"))
    if spec.platform == "windows":
        folders += compiler.variables["PATH"].split(";")  # the compiler's, the SDK's, the system's
        return ";".join(dict.fromkeys(folders))
    folders += [str(_pure(spec, compiler.cxx).parent), "/usr/bin", "/bin"]
    return ":".join(dict.fromkeys(folders))


def _requires(spec: BuildSpec) -> tuple[str, ...]:
    """NVIDIA's packages, from the oldest usable release: PyTorch pins releases older than ours."""
    if spec.cuda is None:
        return ()
    major = spec.cuda.split(".")[0]
    pathfinder = knowledge.load("cuda.toml")["pathfinder"]["oldest"]
    floors = knowledge.floors(major).values()
    return (
        f"cuda-pathfinder>={pathfinder}",
        *(f"{floor.package}>={floor.version},<{int(major) + 1}" for floor in floors),
    )


def _pure(spec: BuildSpec, path: str) -> PurePath:
    return PureWindowsPath(path) if spec.platform == "windows" else PurePosixPath(path)


def _program(spec: BuildSpec, venv: str, name: str) -> PurePath:
    if spec.platform == "windows":
        return PureWindowsPath(venv, "Scripts", f"{name}.exe")
    return PurePosixPath(venv, "bin", name)


def _slashes(path: str) -> str:
    """The path with slashes: CMake takes a backslash for an escape."""
    return path.replace("\\", "/")
