"""Choosing from what the probe found, and judging the choice for a target. All pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sessions.payload import cgroups, gpu
from sessions.probe.model import Compiler, InstalledToolkit, Python, Toolchain
from sessions.shared import knowledge
from sessions.shared.checks import Check
from sessions.shared.host import Host
from sessions.shared.spec import fit
from sessions.shared.target import BuildSpec, HostRange

# What one compile step may take at most, with room. Measured, resident: 814 MB for cicc on
# argsort.cu, 612 MB for llama-model.cpp (0.3.36 for 12.0a); 652 and 350 MB in 0.3.16 for 12.0.
STEP_MIB = 1024
DISK_MIB = 6144  # with room; measured: toolkit 826, tools 217, source and download 240, tree 140


def job_count(host: Host, asked: int | None) -> int:
    """Compile steps at once: as asked, else one per core, but no more than fit in memory."""
    if asked:
        return asked
    return max(1, min(host.cores, host.memory_free_mib // STEP_MIB))


def choose_python(pythons: Sequence[Python], version: str, *, others: bool) -> Python | None:
    """The first 64-bit interpreter of that version; one that can make a venv before others.

    With ``others``, another version that has the build tools does too: the libraries of a wheel
    know no Python, so what it builds gets the tag of ``version``.
    """
    wide = [p for p in pythons if p.bits == 64]
    fitting = [p for p in wide if line(p.version) == version]
    able = [p for p in wide if p.can_venv and line(p.version) in knowledge.builders()]
    candidates = [*(p for p in fitting if p.can_venv), *(able if others else ()), *fitting]
    return candidates[0] if candidates else None


def line(version: str) -> str:
    """The minor version of a release: "3.12.1" -> "3.12"."""
    return ".".join(version.split(".")[:2])


def choose_toolkit(
    toolkits: Sequence[InstalledToolkit], spec: BuildSpec
) -> InstalledToolkit | None:
    """The installed toolkit the target asks for; None where it takes NVIDIA's packages."""
    if spec.cuda is None or spec.toolkit == "pypi":
        return None
    if spec.toolkit != "system":
        return next((t for t in toolkits if t.found_via == "--toolkit"), None)
    line = spec.cuda.split(".")
    return next((t for t in toolkits if t.version.split(".")[:2] == line), None)


def number(compiler: Compiler) -> int:
    """The number that CUDA's host_config.h judges a compiler by.

    The major version of gcc and clang; ``_MSC_VER`` of cl.exe, which is 1944 for 19.44.
    """
    major, minor = [*compiler.version.split("."), "0"][:2]
    return int(major) * 100 + int(minor) if compiler.family == "msvc" else int(major)


def refusal(compiler: Compiler, accepts: HostRange | None) -> str | None:
    """Why a compiler does not fit, None where it does. ``accepts`` is None for a CPU build."""
    if unusable(compiler):
        return unusable(compiler)
    return outside(compiler, accepts) if accepts else None


def unusable(compiler: Compiler) -> str | None:
    """Why no build can have this compiler, None where one can."""
    minimum = knowledge.host_minimum()[compiler.family]
    if compiler.unfit:
        return compiler.unfit
    if number(compiler) < minimum:
        return f"too old: upstream needs {compiler.family} {minimum}"
    return None


def outside(compiler: Compiler, accepts: HostRange) -> str | None:
    """Why a toolkit refuses this compiler, None where it accepts it."""
    match compiler.family:
        case "msvc":
            low, high = accepts.msvc_min, accepts.msvc_max
        case "clang":
            low, high = accepts.clang_min, accepts.clang_max
        case _:
            low, high = 0, accepts.gnu_max
    if low <= number(compiler) <= high:
        return None
    return f"CUDA accepts {compiler.family} {low or 'any'} to {high}"


def choose_compiler(
    compilers: Sequence[Compiler], accepts: HostRange | None, named: str | None
) -> tuple[Compiler | None, str]:
    """The compiler of a build and why it.

    The named one; else the first that fits; else the first that could be used at all,
    which CUDA then has to be told to take. They come in the order of preference.
    """
    if named:
        for compiler in compilers:
            if compiler.found_via == "--compiler":
                return compiler, f"{_name(compiler)}: named by --compiler"
        return None, f"--compiler {named} is not a C++ compiler that runs"
    if not compilers:
        return None, "none found"
    for compiler in compilers:
        if refusal(compiler, accepts) is None:
            if compiler.family == "msvc":
                return compiler, f"{_name(compiler)}: the newest that fits"
            return compiler, f"{_name(compiler)}: the first that fits of g++, g++-N, clang++"
    for compiler in compilers:
        if unusable(compiler) is None:
            why = refusal(compiler, accepts)
            return compiler, f"{_name(compiler)}: none fits ({why}), so CUDA is told to allow it"
    return None, "; ".join(f"{_name(c)}: {refusal(c, accepts)}" for c in compilers)


def _name(compiler: Compiler) -> str:
    return f"{compiler.family} {compiler.version} ({compiler.cxx})"


def judge(
    chain: Toolchain,
    spec: BuildSpec,
    flags: Mapping[str, str],
    temporary: Sequence[str] = (),
    given: str = "",
    limits: cgroups.Limits | None = None,
    nvml: str = "",
    targets: Mapping[str, BuildSpec] | None = None,
) -> tuple[Check, ...]:
    """Every judgement of the machine for the target; "fail" means that it cannot be built.

    ``flags`` are the caller's CC, CFLAGS, CMAKE_ARGS … that are set: none reaches the build.
    ``temporary`` is where Windows' programs put temporary files: TEMP and TMP. ``given`` is the
    name of a wheel that is to be tried, not built. ``limits`` are those of a container that
    narrow the host, ``nvml`` is why NVIDIA's driver does not answer.
    ``targets`` are those of targets.toml, one of which may be for the GPUs that are here.
    """
    return (
        *_judge_host(chain.host),
        *(_judge_limits(chain.host, limits) if limits else ()),
        *(_judge_paths(chain.host, spec, given) if chain.host.system == "windows" else ()),
        *(_judge_temporary(temporary) if spec.cuda else ()),
        *_judge_python(chain, spec),
        *_judge_compiler(chain, spec, flags),
        *(_judge_cuda(chain, spec, nvml, targets or {}) if spec.cuda else ()),
    )


def _judge_host(host: Host) -> Iterator[Check]:
    name = f"{host.system} {host.machine}"
    if (host.system, host.machine) in (("linux", "x86_64"), ("windows", "AMD64")):
        yield Check("platform", "ok", f"platform: {name}")
    else:
        yield Check(
            "platform",
            "fail",
            f"platform: {name} is not supported",
            remedy="build on Linux x86-64 or Windows x64",
        )
    if host.memory_free_mib < STEP_MIB:
        yield Check(
            "memory",
            "warn",
            f"memory: {host.memory_free_mib} MiB free",
            evidence=f"a compile step may take {STEP_MIB} MiB",
            remedy="close other programs before the build, or compile fewer files at once: "
            "--jobs N",
        )
    else:
        yield Check("memory", "ok", f"memory: {host.memory_free_mib} MiB free")
    if host.disk_free_mib < DISK_MIB:
        yield Check(
            "disk",
            "warn",
            f"disk: {host.disk_free_mib} MiB free",
            evidence=f"a first build takes about {DISK_MIB} MiB, toolkit and caches included",
            remedy="free some space before the build, for example nox -s clean -- --caches",
        )
    else:
        yield Check("disk", "ok", f"disk: {host.disk_free_mib} MiB free")


def _judge_limits(host: Host, limits: cgroups.Limits) -> Iterator[Check]:
    if limits.cpus is not None or limits.memory_mib is not None:
        cpus = f"{limits.cpus:g} CPUs" if limits.cpus is not None else "no limit of CPUs"
        memory = f"{host.memory_mib} MiB memory" if limits.memory_mib is not None else ""
        yield Check(
            "limits", "ok", f"limits of this container: {', '.join(filter(None, (cpus, memory)))}"
        )


def _judge_python(chain: Toolchain, spec: BuildSpec) -> Iterator[Check]:
    python = chain.python
    how = (
        f"winget install Python.Python.{spec.python}"
        if chain.host.system == "windows"
        else f"uv python install {spec.python}, or where Debian or Ubuntu has the package: "
        f"apt install python{spec.python}-venv"
    )
    if python is None:
        yield Check(
            "python",
            "fail",
            f"Python {spec.python}: none found (64-bit, on PATH)",
            remedy=f"install Python {spec.python} ({how})" + _instead(chain, spec),
        )
    elif not python.can_venv:
        yield Check(
            "python",
            "fail",
            f"Python {spec.python}: {python.path} has no venv module",
            remedy=f"install its venv module ({how})",
        )
    elif line(python.version) != spec.python:
        text = f"Python: {python.version} builds the wheel for Python {spec.python}"
        yield Check("python", "ok", f"{text}, {python.path}")
    else:
        yield Check("python", "ok", f"Python: {python.version}, {python.path}")


def _instead(chain: Toolchain, spec: BuildSpec) -> str:
    """The options that ask for a wheel for a Python that is here; empty where none is."""
    here = dict.fromkeys(line(p.version) for p in chain.pythons if p.bits == 64 and p.can_venv)
    known = [version for version in here if version in knowledge.builders()]
    return (
        f", or build a wheel for a Python that is installed: --python {known[0]}" if known else ""
    )


def _judge_compiler(chain: Toolchain, spec: BuildSpec, flags: Mapping[str, str]) -> Iterator[Check]:
    why = chain.compiler_why
    accepts = (chain.toolkit and chain.toolkit.accepts) or (
        knowledge.toolkit(spec.cuda).accepts if spec.cuda else None
    )
    windows = chain.host.system == "windows"
    if chain.compiler is None:
        yield Check(
            "compiler",
            "fail",
            f"C++ compiler: {why}",
            evidence=_studios(chain) if windows else "",
            remedy="name another one with --compiler, or leave --compiler out"
            if spec.compiler
            else _INSTALL_STUDIO
            if windows
            else "install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)",
        )
    elif reason := unusable(chain.compiler):
        yield Check(
            "compiler",
            "fail",
            f"C++ compiler: {why}",
            evidence=reason,
            remedy="name another one with --compiler, or leave --compiler out",
        )
    elif windows and not chain.compiler.variables:
        yield Check(
            "compiler",
            "fail",
            f"C++ compiler: {why}, but its environment could not be set",
            evidence=chain.setup_problem,
            remedy="Visual Studio Installer, Modify: add MSVC C++ x64/x86 build tools and a "
            "Windows SDK, or Repair; or name another compiler with --compiler PATH (of a cl.exe)",
        )
    elif accepts and (reason := outside(chain.compiler, accepts)):
        yield Check(
            "compiler",
            "warn",
            f"C++ compiler: {why}",
            evidence=f"{reason}. Wheels that were built this way have crashed "
            "(abetlen/llama-cpp-python#1543): release one only after nox -s smoke passed on "
            "the GPU",
            remedy="use a newer toolkit (--cuda 13.4), or "
            + (
                "add an older toolset in the Visual Studio Installer, Modify, Individual "
                "components: MSVC v143 - VS 2022 C++ x64/x86 build tools"
                if windows
                else "install a compiler in that range"
            ),
        )
    else:
        yield Check("compiler", "ok", f"C++ compiler: {why}")
    of_build = unused(flags)
    of_compiler = {name: value for name, value in flags.items() if name not in of_build}
    for id, found, instead in (
        ("compiler-environment", of_compiler, "--compiler PATH chooses a compiler"),
        (
            "build-environment",
            of_build,
            "a table of targets.toml says what is built, --version, --cuda, --arch and --toolkit "
            "change it, and --fresh builds it again",
        ),
    ):
        if found:
            yield Check(
                id,
                "warn",
                f"{', '.join(found)} of your shell {'is' if len(found) == 1 else 'are'} not used",
                evidence="\n".join(f"{name}={value}" for name, value in found.items()),
                remedy=f"unset {'it' if len(found) == 1 else 'them'}; to choose yourself: "
                f"{instead}",
            )


def linked_runtime(chain: Toolchain, spec: BuildSpec) -> tuple[Check, ...]:
    """Whether the compiler has the C++ runtime that a wheel for an older glibc is linked with.

    ``identity.of`` has looked for it.
    """
    if not spec.old_glibc or chain.compiler is None:
        return ()
    if chain.compiler.linked.get("libstdc++.a", "none") != "none":
        summary = f"libstdc++.a: linked into the wheel, which is for glibc {spec.glibc} and newer"
        return (Check("libstdc++", "ok", summary),)
    return (
        Check(
            "libstdc++",
            "fail",
            f"libstdc++.a: the compiler has none, and a wheel for glibc {spec.glibc} needs it",
            evidence=f"{chain.compiler.cc} -print-file-name=libstdc++.a names no file",
            remedy="install it (Fedora, RHEL: dnf install libstdc++-static; Debian, Ubuntu: apt "
            "install g++), or build for systems no older than this one: --glibc host",
        ),
    )


def unused(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that other builds of llama-cpp-python read, and this one does not; those set.

    CMake's, scikit-build-core's, nvcc's and those of ggml's options (CMakeLists.txt of each).
    """
    names = ("FORCE_CMAKE", "CUDAARCHS", "CUDACXX", "CUDAHOSTCXX", "CUDAFLAGS")
    prefixes = ("CMAKE_", "GGML_", "SKBUILD_", "NVCC_")
    return {n: v for n, v in sorted(env.items()) if v and (n in names or n.startswith(prefixes))}


_INSTALL_STUDIO = (
    "install the Build Tools for Visual Studio with C++ (winget install "
    "Microsoft.VisualStudio.2022.BuildTools --override "
    '"--add Microsoft.VisualStudio.Workload.VCTools --includeRecommended --passive"), '
    "or add the workload Desktop development with C++ to the one you have"
)


def _studios(chain: Toolchain) -> str:
    found = [tool for tool in chain.tools if tool.found_via.startswith("vswhere")]
    rows = [f"{t.name} {t.version} ({t.found_via}), {t.path}" for t in found]
    return "\n".join(rows) or "no Visual Studio 2019 or later is installed (vswhere)"


def _judge_paths(host: Host, spec: BuildSpec, given: str) -> Iterator[Check]:
    known = knowledge.load("windows.toml")["paths"]
    target = len(spec.target) + known["target"]
    if given:
        folder = f"build/{spec.target}/given/{given.removesuffix('.whl')[:100]}-01234567/"
        target = max(target, len(folder) + known["smoke"])
    for folder, below, name in (
        (host.root, max(known["checkout"], target), "this folder"),
        (host.cache, known["cache"], "the cache folder"),
    ):
        longest = len(folder) + 1 + below
        if longest > known["limit"]:
            yield Check(
                "paths",
                "fail",
                f"paths: {name} is too deep for Windows' compilers",
                evidence=f"{folder} is {len(folder)} characters long; a path below it would be "
                f"{longest}, and {known['limit']} is the greatest length",
                remedy="move it to a short path, for example C:\\bw"
                if folder == host.root
                else "set BLACKWHEEL_CACHE=C:\\bw-cache",
            )
            return
    if not (host.root + host.cache).isascii():
        yield Check(
            "paths",
            "warn",
            "paths: letters outside ASCII, which not every compiler on Windows can read",
            evidence=f"{host.root}\n{host.cache}\n"
            "only letters of the system code page were tested (Wine, fake compilers)",
            remedy="if the build cannot open a file, move this folder to C:\\bw and set "
            "BLACKWHEEL_CACHE=C:\\bw-cache",
        )
        return
    yield Check("paths", "ok", "paths: short enough for Windows, ASCII only")


def _judge_temporary(folders: Sequence[str]) -> Iterator[Check]:
    spaced = [folder for folder in folders if " " in folder]
    if spaced:  # seldom: where Windows' short names are on, it has C:\Users\JOSPRE~1\… there
        yield Check(
            "temporary",
            "fail",
            "temporary files: their folder has a space in its path",
            evidence=f"{spaced[0]}: nvcc names its files there to cl.exe without quotes",
            remedy="make a folder without one, for example C:\\bw-temp, and set TEMP and TMP to it",
        )


def _judge_cuda(
    chain: Toolchain, spec: BuildSpec, nvml: str, targets: Mapping[str, BuildSpec]
) -> Iterator[Check]:
    assert spec.cuda is not None
    known = knowledge.toolkit(spec.cuda)
    if spec.toolkit == "pypi" and not knowledge.is_locked(spec.cuda):
        here = any(line(t.version) == spec.cuda for t in chain.toolkits)
        yield Check(
            "toolkit",
            "fail",
            f"toolkit: CUDA {spec.cuda} has no lock file here",
            remedy="use the one that is installed: --toolkit system"
            if here
            else f"use --cuda 13.1 or --cuda 13.4, or: nox -s lock -- --add cuda=={spec.cuda}",
        )
    elif spec.toolkit == "pypi":
        ignored = [f"{t.version} in {t.root}" for t in chain.toolkits]
        also = f" (not used: {', '.join(ignored)})" if ignored else ""
        yield Check("toolkit", "ok", f"toolkit: CUDA {spec.cuda} from NVIDIA's packages{also}")
    elif chain.toolkit is None or chain.toolkit.version.split(".")[:2] != spec.cuda.split("."):
        found = chain.toolkit.version if chain.toolkit else "none"
        yield Check(
            "toolkit",
            "fail",
            f"toolkit: CUDA {spec.cuda} is not installed where --toolkit {spec.toolkit} looks",
            evidence=f"found there: {found}; on this machine: "
            + (", ".join(f"{t.version} in {t.root}" for t in chain.toolkits) or "none"),
            remedy="use --toolkit pypi, which downloads it and installs nothing on the system",
        )
    else:
        yield Check("toolkit", "ok", f"toolkit: CUDA {chain.toolkit.version}, {chain.toolkit.root}")
    for header in knowledge.headers(spec.cuda, chain.host.glibc):
        yield _judge_header(header, chain, spec)
    ptx = [arch for arch in spec.archs if knowledge.parse_arch(arch)[2] != "real"]
    more = f"; PTX for newer GPUs ({', '.join(ptx)})" if ptx else ""
    told = f"architecture: {', '.join(spec.archs)}, {_cards(spec)}{more}"
    yield Check("architecture", "ok", told)
    yield from _judge_gpu(chain, spec, known.driver, nvml, targets)


_NVML = {
    "mismatch": "restart the machine: its driver was updated while the old one was loaded",
    "permission": "let this user open /dev/nvidia* (in a container: --gpus all)",
    "not loaded": "load the driver (modprobe nvidia), or start the container with --gpus all",
    "lost": "restart the machine: the driver lost a GPU (dmesg has the details)",
}


def _judge_header(header: knowledge.Header, chain: Toolchain, spec: BuildSpec) -> Check:
    glibc = f"glibc {chain.host.glibc}"
    if spec.toolkit == "pypi":
        summary = f"{glibc}: a header of CUDA {spec.cuda} is corrected for it"
        return Check("glibc", "ok", summary, evidence=header.what)
    return Check(
        "glibc",
        "fail",
        f"{glibc}: the headers of the installed CUDA {spec.cuda} do not compile with it",
        evidence=header.what,
        remedy=f"use --toolkit pypi, where the header is corrected, or --cuda {header.fixed}",
    )


def _line(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _cards(spec: BuildSpec) -> str:
    names = knowledge.capability_names()
    return "; ".join(names[knowledge.parse_arch(arch)[0]] for arch in spec.archs)


def _for_these(command: str, targets: Mapping[str, BuildSpec]) -> str:
    if command:
        return f"to test a wheel here, build for this machine's GPUs: {command}"
    if targets:
        return "no CUDA version that blackwheel knows can build for this machine's GPUs"
    return "to test a wheel here, choose the target of this GPU"


def _judge_gpu(
    chain: Toolchain, spec: BuildSpec, oldest: int, nvml: str, targets: Mapping[str, BuildSpec]
) -> Iterator[Check]:
    if nvml and nvml != gpu.NO_DRIVER:
        yield Check(
            "gpu",
            "warn",
            f"GPU: NVIDIA's driver does not answer: {nvml}",
            evidence="NVML, its management library, is installed here and failed",
            remedy=next(
                (how for word, how in _NVML.items() if word in nvml.lower()),
                "see what nvidia-smi says; a build does not need it",
            ),
        )
        return
    if chain.driver is None:  # as on most machines that build: nothing to fix
        told = "GPU: none here; the wheel can be tested on a machine with one (nox -s bundle)"
        yield Check("gpu", "ok", told)
        return
    if not chain.gpus:
        yield Check(
            "gpu",
            "warn",
            "GPU: NVIDIA's driver finds none",
            remedy="see what nvidia-smi says; a container has to be given the GPU; a build does "
            "not need it",
        )
        return
    kinds = [device.compute_capability for device in chain.gpus]
    whole = fit(targets, kinds) if targets else None
    every = whole.command("wheel") if whole else ""
    fitting = [g for g in chain.gpus if knowledge.has_code(spec.archs, g.compute_capability)]
    for device in chain.gpus:
        told = f"GPU {device.index}: {device.name}, {device.compute_capability}"
        if device in fitting:
            yield Check("gpu", "ok", told)
        elif fitting:
            yield Check(
                "gpu",
                "warn",
                f"{told}: this wheel has no code for this GPU",
                evidence="llama.cpp divides a model among all GPUs unless it is told "
                "otherwise, and aborts if a part is on this GPU",
                remedy="hide it from llama.cpp: CUDA_DEVICE_ORDER=PCI_BUS_ID "
                f"CUDA_VISIBLE_DEVICES={','.join(str(g.index) for g in fitting)}"
                + (f"; or build for all GPUs: {every}" if every else ""),
            )
    if not fitting:
        yield Check(
            "gpu",
            "warn",
            "GPU: this machine has none of the target's architecture",
            evidence=", ".join(f"{g.name} ({g.compute_capability})" for g in chain.gpus),
            remedy=_for_these(every, targets),
        )
    ptx = [arch for arch in spec.archs if knowledge.parse_arch(arch)[2] != "real"]
    if ptx and _line(chain.driver.cuda) < _line(spec.cuda or "0"):
        yield Check(
            "ptx",
            "warn",
            f"PTX: the driver supports CUDA {chain.driver.cuda} and cannot load PTX of {spec.cuda}",
            evidence=f"{', '.join(ptx)} adds PTX, which needs a driver of the toolkit's version",
            remedy="build machine code only (for example --arch 120-real), or update the driver",
        )
    if int(chain.driver.release.split(".")[0]) < oldest:
        yield Check(
            "driver",
            "warn",
            f"driver: {chain.driver.release} is too old to run this wheel",
            evidence=f"CUDA {spec.cuda} needs {oldest} or newer",
            remedy="install a newer driver from nvidia.com/drivers",
        )
    elif trouble := knowledge.bad_drivers(spec.archs).get(chain.driver.release):
        yield Check(
            "driver",
            "warn",
            f"driver: {chain.driver.release} is reported to fail",
            evidence=trouble,
            remedy="install another release: https://www.nvidia.com/drivers",
        )
    else:
        yield Check("driver", "ok", f"driver: {chain.driver.release}, CUDA {chain.driver.cuda}")
