"""From what the earlier stages found to what the compiler is told. Pure, but for ``main``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from sessions.build import build_inputs, old_glibc
from sessions.build.model import BuildEnv
from sessions.fetch import build_tools
from sessions.fetch.model import Source, Toolkit
from sessions.probe import ms_runtime, selection
from sessions.probe.model import Compiler, Toolchain
from sessions.shared import child_environment, console, knowledge, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.targets import cmake_options

OVERLAY = Path(__file__).parent / "overlay"

# The modules besides this one, of this folder, that decide what is in a wheel.
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


def main(ctx: Context) -> None:
    """Leave the record of the build's environment and settings."""
    chain = ctx.need("probe", Toolchain)
    source = ctx.need("source", Source)
    toolkit = ctx.need("toolkit", Toolkit) if ctx.spec.cuda else None
    assert chain.compiler is not None  # the probe fails without one
    _known(ctx.spec, Path(source.path))
    env = child_environment.system_environment(ctx.env)
    tools = build_tools.tools(ctx)
    places = Places(
        stage=str(ctx.build / "src"),
        tree=str(ctx.build / "tree"),
        cache=str(ctx.cache),
        tools=str(tools),
    )
    python = chain.python.version if chain.python else ""
    build = configure(ctx.spec, chain.compiler, toolkit, source, places, env, python=python)
    records.write(ctx.record("configure"), "configure", build)
    console.done(f"configure: {', '.join(ctx.spec.archs) or 'CPU'}, {chain.compiler_why}")


def _known(spec: BuildSpec, source: Path) -> None:
    """Refuse an option that CMake would ignore. Raises Problem."""
    if unknown := cmake_options.unknown((name for name, _ in spec.cmake), source):
        raise Problem(
            f"llama.cpp of this release has no option {unknown[0]}.",
            id="cmake-option-unknown",
            code=USAGE,
            evidence=f"no CMake file in {source} names {', '.join(unknown)}",
            remedy="leave it out, or choose another release with --version",
        )


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
    """The whole environment and every setting of a build. ``python`` is the builder's version.

    ``env`` is what of the caller's environment may reach a compiler: system names, no PATH, no
    flags. The user's settings of the compiler cache are not in it: they decide nothing of the
    wheel, may hold a password, and come to the build when it runs.
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
        # cl.exe in English, if it has it: ninja learns of headers from what it says of them.
        **({"VSLANG": "1033"} if spec.platform == "windows" else {}),
        # No git of this project may name the commit of a build inside its folder.
        "GIT_CEILING_DIRECTORIES": places.stage,
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHONNOUSERSITE": "1",
        "PIP_NO_INDEX": "1",
    }
    requires = _requires(spec)
    # Whatever else goes into the wheel: our additions, and the code that adds and finishes.
    ours = [
        *sorted(p for p in OVERLAY.iterdir() if p.is_file()),
        *(Path(__file__).with_name(f"{name}.py") for name in _FINISHING),
        Path(str(ms_runtime.__file__)),
        knowledge.KNOWLEDGE / "parts.toml",
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
    """The settings that decide bytes of the wheel, without this machine's folders.

    The path of a folder goes into none (the builds of two folders are equal to the byte), nor does
    a compiler cache.
    """
    folders = [(places.stage, "STAGE"), (places.tree, "TREE"), (places.tools, "TOOLS")]
    folders += [(str(OVERLAY), "OVERLAY"), (toolkit.root if toolkit else "", "TOOLKIT")]
    spelt = [(form, name) for path, name in folders for form in (path, _slashes(path)) if path]
    found = {}
    for name, value in settings.items():
        if name == "build-dir" or name.endswith("_COMPILER_LAUNCHER"):
            continue
        for form, word in sorted(spelt, key=lambda pair: -len(pair[0])):
            value = value.replace(form, word)
        found[name] = value
    return found


def _libraries(version: str, compiler: Compiler) -> dict[str, str]:
    """What is built, the same for every target: the shipped libraries, nothing that looks around.

    A name that a release does not know is ignored by CMake.
    """
    wrong = knowledge.left_out(version, compiler.family, compiler.version)
    return {
        "CMAKE_PROJECT_llama_cpp_INCLUDE": _slashes(str(OVERLAY / "wheel.cmake")),
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "GGML_NATIVE": "OFF",
        # Each backend is a module of its own, loaded for the machine that it runs on: the GPU's
        # where there is a driver, the CPU's by what the CPU can do.
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
        # PDB files with all symbols beside the build; in the library only a name without a path.
        **(
            {f"CMAKE_{kind}_LINKER_FLAGS_INIT": _LINK for kind in ("SHARED", "MODULE")}
            if compiler.family == "msvc"
            else {}
        ),
        # _INIT adds to CMake's own flags, of which MSVC needs some (/EHsc).
        "CMAKE_C_FLAGS_INIT": flags,
        "CMAKE_CXX_FLAGS_INIT": flags,
        # clang's OpenMP runtime is not one that the wheel could bring along.
        **({"GGML_OPENMP": "OFF"} if compiler.family == "clang" else {}),
        **(_old_glibc() if spec.old_glibc else {}),
    }


def _old_glibc() -> dict[str, str]:
    """The link, and nothing of a compile. Backends may be shared libraries or modules."""
    flags = old_glibc.linker_flags()
    return {
        "CMAKE_SHARED_LINKER_FLAGS_INIT": flags,
        "CMAKE_MODULE_LINKER_FLAGS_INIT": flags,
        # ninja does not see these change, so a tree of others has to go.
        "BLACKWHEEL_GLIBC": old_glibc.identity(),
    }


def _path_flags(spec: BuildSpec, places: Places) -> list[str]:
    """Keep the build machine's folders out of the libraries (``__FILE__`` in messages).

    ccache makes paths relative to the tree before the compiler sees them, so
    both spellings are mapped: with and without a cache the result is the same.
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
        # CCCL of CUDA 13.2 and later wants the standard preprocessor of MSVC.
        host = ["/Zc:preprocessor", "/Brepro", f'/d1trimfile:\\"{places.stage}\\"\\\\']
        # nvcc puts these into cl.exe's command line as they are, so the folder has quotes of its
        # own; its last backslash stands behind them, as before one nvcc finds a stray quote.
        flags.append(f'"-Xcompiler={",".join(host)}"')
    root = _slashes(toolkit.root)
    # CMake prefers the library of an installed driver to the stub; a build must not hang on that.
    stub = spec.platform == "linux" and toolkit.origin == "pypi"
    nvcc = "nvcc.exe" if spec.platform == "windows" else "nvcc"
    # Of a checkout nobody knows whether its files go together.
    merged = () if spec.source else knowledge.sdists()[spec.version].merged
    return {
        "GGML_CUDA": "ON",
        "GGML_CUDA_NCCL": "OFF",
        "CMAKE_CUDA_ARCHITECTURES": ";".join(spec.archs),
        "CMAKE_CUDA_COMPILER": f"{root}/bin/{nvcc}",
        "CMAKE_CUDA_HOST_COMPILER": _slashes(compiler.cxx),
        "CUDAToolkit_ROOT": root,
        **({"CUDA_cuda_driver_LIBRARY": f"{root}/lib64/stubs/libcuda.so"} if stub else {}),
        # Seen by CMake's identification of the compiler too (CMakeDetermineCompilerId.cmake).
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
    """The cache's defaults; ``wheel`` puts the user's own settings over them."""
    build = str(_pure(spec, places.tree).parent)
    match spec.cache:
        case "ccache":
            return {
                "CCACHE_DIR": str(_pure(spec, places.cache) / "ccache"),
                # An empty file of configuration: else the machine's and the store's own would
                # decide what counts as a hit (sloppiness) and what runs (prefix_command).
                "CCACHE_CONFIGPATH": "NUL" if spec.platform == "windows" else "/dev/null",
                "CCACHE_MAXSIZE": "10G",
                "CCACHE_BASEDIR": build,
                "CCACHE_NOHASHDIR": "1",
                # What a file includes comes from the compile itself, not from one more run of the
                # preprocessor before it: a twentieth of a short file's time (docs/performance.md).
                **({"CCACHE_DEPEND": "1"} if spec.platform == "linux" else {}),
                # nvcc only calls cicc and ptxas: its own bytes say nothing of theirs.
                "CCACHE_COMPILERCHECK": f"string:{identity}",
            }
        case "sccache":
            return {"SCCACHE_DIR": str(_pure(spec, places.cache) / "sccache")}
        case _:
            return {}


def _identity(compiler: Compiler, toolkit: Toolkit | None) -> str:
    """What decides an object file: the compiler, to its last revision, and the whole toolkit."""
    kit = toolkit.fingerprint if toolkit else None
    return records.fingerprint([compiler.family, compiler.version, compiler.identity, kit])[:32]


def _path(spec: BuildSpec, compiler: Compiler, toolkit: Toolkit | None, places: Places) -> str:
    """PATH of the build: the tools, the toolkit in use, the compiler, the system. Nothing else."""
    folders = [str(_program(spec, places.tools, "python").parent)]
    if toolkit:
        folders.append(str(_pure(spec, toolkit.root) / "bin"))
    if spec.platform == "windows":
        folders += compiler.variables["PATH"].split(";")  # the compiler's, the SDK's, the system's
        return ";".join(dict.fromkeys(folders))
    folders += [str(_pure(spec, compiler.cxx).parent), "/usr/bin", "/bin"]
    return ":".join(dict.fromkeys(folders))


def _requires(spec: BuildSpec) -> tuple[str, ...]:
    """NVIDIA's runtime packages, from the oldest release that has all that the libraries need.

    Not from the one that the wheel was linked with: PyTorch pins older ones.
    """
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
    """CMake's spelling: it takes a backslash for an escape."""
    return path.replace("\\", "/")
