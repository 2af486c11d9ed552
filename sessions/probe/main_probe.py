"""The session probe: what is on this machine, and whether the target can be built with it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from sessions.probe import gpu_for_tests, identity, machine_checks, visual_studio
from sessions.probe.find_compilers import find_compilers
from sessions.probe.record_types import (
    Driver,
    Gpu,
    InstalledToolkit,
    Python,
    Tool,
    Toolchain,
)
from sessions.probe.selection import (
    choose_compiler,
    choose_python,
    choose_toolkit,
    job_count,
    minor_version,
)
from sessions.shared import console, knowledge, machine, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.machine import Machine

_TOOLS = ("cmake", "ninja", "git", "ccache", "sccache")
_PYTHON_FACTS = (
    "import json, os, struct, sys, importlib.util as u; print(json.dumps({"
    "'path': os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable),"
    "'version': '.'.join(map(str, sys.version_info[:3])), 'bits': struct.calcsize('P') * 8,"
    "'in_venv': sys.prefix != sys.base_prefix,"
    "'can_venv': bool(u.find_spec('venv') and u.find_spec('ensurepip'))}))"
)


def main(ctx: Context) -> None:
    """Print what was found and checked, and write the record. Raises Problem if a check fails."""
    answers: dict[str, Any] = {}
    ask = machine.recording(ctx.machine, answers) if ctx.options.record else ctx.machine
    external = Path(ctx.options.wheel).name if ctx.options.wheel else ""
    ignored, jobs = machine_checks.unused(ctx.env), ctx.options.jobs
    chain = probe(ask, ctx.spec, jobs, external, ignored, ctx.targets, runs=ctx.runs_wheel)
    if not external:
        chain = identity.of(ask, chain)
        checks = (*chain.checks, *machine_checks.linked_runtime(chain, ctx.spec))
        chain = dataclasses.replace(chain, checks=checks)
    if ctx.options.record:
        folder = Path(ctx.options.record)
        console.done(f"probe: recorded in {machine.save(answers, folder)}")
    only_probe = "probe" in ctx.asked
    if only_probe:
        show(chain)
    console.checks(check for check in chain.checks if only_probe or check.status != "ok")
    # A machine that only tests an existing wheel needs no compiler.
    needed = {"python", "paths"} if external else {check.id for check in chain.checks}
    if any(check.status == "fail" and check.id in needed for check in chain.checks):
        ctx.record("probe").unlink(missing_ok=True)
        raise Problem(
            f"The target {ctx.spec.target} cannot be built here: see each ✗ above.",
            id="probe-target-not-buildable",
            remedy="follow the fix under each ✗, then run the same command again",
        )
    if {"smoke", "ops", "bench"} & ctx.asked and gpu_for_tests.needs_gpu(ctx):
        gpu_for_tests.gpu_for(ctx, ask("nvml"))  # fail before a build of 20 minutes, not after it
    records.write(ctx.record("probe"), "probe", chain)
    if external:
        assert chain.python is not None  # else a check has failed
        version = minor_version(chain.python.version)
        console.done(f"probe: Python {version} is here; nothing is to be built")
    else:
        console.done(f"probe: {ctx.spec.target} can be built here with {chain.jobs} jobs")


def probe(
    ask: Machine,
    spec: BuildSpec,
    jobs: int | None,
    external: str = "",
    ignored: Mapping[str, str] | None = None,
    targets: Mapping[str, BuildSpec] | None = None,
    *,
    runs: bool = False,
) -> Toolchain:
    """What is on the machine behind ``ask``, what was chosen of it for the target, and the checks.

    ``external`` is the file name of a wheel that is only tested, or "". ``ignored`` are variables
    of the caller's environment that a build does not use. ``targets`` are those of targets.toml.
    ``runs``: the wheel runs here, so the Python must be one that it is for.
    """
    host, limits = machine.host(ask("host"))
    with ThreadPoolExecutor(max_workers=8) as pool:
        pythons = pool.submit(find_pythons, ask, spec.python, host.system)
        compilers = pool.submit(find_compilers, ask, host.system, spec)
        toolkits = pool.submit(find_toolkits, ask, host.system, spec.toolkit)
        tools = pool.submit(find_tools, ask, host.system)
        nvml = pool.submit(ask, "nvml")
    driver, gpus = read_nvml(nvml.result())
    toolkit = choose_toolkit(toolkits.result(), spec)
    accepts = (toolkit and toolkit.accepts) or (spec.cuda and knowledge.toolkit(spec.cuda).accepts)
    compiler, why = choose_compiler(compilers.result(), accepts or None, spec.compiler)
    setup_problem = ""
    if compiler and compiler.family == "msvc":
        variables, setup_problem = visual_studio.environment(ask, compiler)
        compiler = dataclasses.replace(compiler, variables=variables)
    others = any_python(spec, external, runs)
    chain = Toolchain(
        host=host,
        pythons=pythons.result(),
        compilers=compilers.result(),
        toolkits=toolkits.result(),
        tools=tools.result(),
        driver=driver,
        gpus=gpus,
        python=choose_python(pythons.result(), spec.python, others=others),
        compiler=compiler,
        compiler_why=why,
        setup_problem=setup_problem,
        toolkit=toolkit,
        jobs=job_count(host, jobs),
        checks=(),
    )
    env = {name: ask("env", name) for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS")}
    temporary = [ask("env", name) or "" for name in ("TEMP", "TMP") if host.system == "windows"]
    flags = {**{name: value for name, value in env.items() if value}, **(ignored or {})}
    error = nvml.result().get("error", "")
    checks = machine_checks.checks(chain, spec, flags, temporary, external, limits, error, targets)
    return dataclasses.replace(chain, checks=checks)


def any_python(spec: BuildSpec, external: str, runs: bool) -> bool:
    """Whether a Python of another version may build the wheel, or run a py3-none wheel."""
    if external:
        return "-py3-none-" in external
    return not runs or (spec.source is None and knowledge.knows_no_python(spec.version))


def find_pythons(ask: Machine, version: str, system: str) -> tuple[Python, ...]:
    """Every Python on PATH, each once; also the running one if none has the target's version."""
    if system == "windows":  # py, the launcher, knows every Python that is installed
        words = [("py", f"-{version}"), ("python",)]
    else:
        words = [(f"python{version}",), ("python3",), ("python",)]
    tries = [
        ([path, *rest], f"{' '.join((name, *rest))} on PATH")
        for name, *rest in words
        for path in ask("which", name)
    ]
    found = _asked(ask, tries)
    if not any(minor_version(python.version) == version for _, python in found):
        interpreter = ask("interpreter")
        running = [([interpreter], "runs blackwheel")] if interpreter else []
        found = _asked(ask, [*tries, *running])
    # Pythons found only through a venv come last: how nox was started must not change the choice.
    return tuple(python for _, python in sorted(found, key=lambda pair: pair[0]))


def _asked(
    ask: Machine, commands: Iterable[tuple[list[str], str]]
) -> Iterable[tuple[bool, Python]]:
    """The interpreters that these commands start, each once, and whether a venv led to it."""
    found: dict[str, tuple[bool, Python]] = {}
    for command, via in commands:
        answer = ask("run", *command, "-I", "-c", _PYTHON_FACTS)
        try:
            facts = json.loads(answer["output"]) if answer["returncode"] == 0 else None
        except ValueError:
            facts = None
        if facts and facts["path"] not in found:
            in_venv = facts.pop("in_venv")
            found[facts["path"]] = (in_venv, Python(found_via=via, **facts))
    return found.values()


def find_toolkits(ask: Machine, system: str, named: str) -> tuple[InstalledToolkit, ...]:
    """Every installed CUDA toolkit, in the order: --toolkit, variables, PATH, the usual folders."""
    kind: type[PurePath] = PureWindowsPath if system == "windows" else PurePosixPath
    roots: list[tuple[str, str]] = []
    if named not in ("pypi", "system"):
        roots.append((named, "--toolkit"))
    # On Windows NVIDIA's installer also sets one variable per minor version.
    each = [f"CUDA_PATH_V{version.replace('.', '_')}" for version in knowledge.toolkits()]
    for variable in ("CUDA_PATH", "CUDA_HOME", *(each if system == "windows" else ())):
        if value := ask("env", variable):
            roots.append((value, variable))
    for nvcc in ask("which", "nvcc"):
        roots.append((str(kind(ask("real", nvcc)).parent.parent), f"nvcc on PATH: {nvcc}"))
    if system == "windows":
        patterns = [r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v*"]
    else:
        patterns = ["/usr/local/cuda*", "/opt/cuda*"]
    for pattern in patterns:
        roots += [(path, pattern) for path in ask("glob", pattern)]
    found: dict[str, InstalledToolkit] = {}
    for root, via in roots:
        real = ask("real", root)
        if real not in found and (toolkit := ask_toolkit(ask, kind(real), via)):
            found[real] = toolkit
    return tuple(found.values())


def ask_toolkit(ask: Machine, root: PurePath, via: str) -> InstalledToolkit | None:
    """The toolkit in the folder ``root``; None if it has no nvcc that runs."""
    suffix = ".exe" if isinstance(root, PureWindowsPath) else ""
    answer = ask("run", str(root / "bin" / f"nvcc{suffix}"), "--version")
    release = re.search(r"release [\d.]+, V(\d+\.\d+\.\d+)", answer["output"])
    header = ask("grep", r"^#if ", str(root / "include" / "crt" / "host_config.h"))
    # An nvcc without headers is only a wrapper that calls another nvcc.
    if answer["returncode"] != 0 or not release or header is None:
        return None
    return InstalledToolkit(
        root=str(root),
        version=release[1],
        found_via=via,
        accepts=knowledge.parse_host_config("\n".join(header)),
    )


def find_tools(ask: Machine, system: str) -> tuple[Tool, ...]:
    """Other programs that a build may use. A build has its own cmake, ninja and ccache."""
    found = [*visual_studio.tools(ask)] if system == "windows" else []
    for name in _TOOLS:
        for path in {ask("real", path): path for path in reversed(ask("which", name))}.values():
            output = ask("run", path, "--version")["output"]
            version = re.search(r"\d+(?:\.\d+)+", output.partition("\n")[0])
            found.append(Tool(name, path, version[0] if version else None, "PATH"))
    return tuple(found)


def read_nvml(answer: dict[str, Any]) -> tuple[Driver | None, tuple[Gpu, ...]]:
    """The driver and its devices from the answer of NVML; (None, ()) if NVML failed."""
    if "error" in answer:
        return None, ()
    driver = Driver(release=answer["release"], cuda=answer["cuda"])
    names = [field.name for field in dataclasses.fields(Gpu)]
    return driver, tuple(Gpu(**{n: device[n] for n in names}) for device in answer["devices"])


def show(chain: Toolchain) -> None:
    """Print the machine as tables."""
    host = chain.host
    console.say(
        f"{host.system} {host.release} {host.machine}, {host.cpu}, {host.cores} cores, "
        f"{host.memory_mib} MiB memory ({host.memory_free_mib} free), "
        f"{host.disk_free_mib} MiB disk free"
    )
    console.table("", ("what", "version", "path", "found"), _rows(chain))


def _rows(chain: Toolchain) -> Iterable[tuple[str, str, str, str]]:
    for python in chain.pythons:
        used = " (used)" if python == chain.python else ""
        yield f"Python{used}", python.version, python.path, python.found_via
    for compiler in chain.compilers:
        used = " (used)" if chain.compiler and compiler.cxx == chain.compiler.cxx else ""
        used = f" ({compiler.unfit})" if compiler.unfit else used
        yield f"{compiler.family}{used}", compiler.version, compiler.cxx, compiler.found_via
    for toolkit in chain.toolkits:
        used = " (used)" if chain.toolkit and toolkit.root == chain.toolkit.root else ""
        yield f"CUDA{used}", toolkit.version, toolkit.root, toolkit.found_via
    for tool in chain.tools:
        yield tool.name, tool.version or "does not say", tool.path, tool.found_via
    if chain.driver:
        yield "driver", chain.driver.release, f"supports CUDA {chain.driver.cuda}", "NVML"
    for gpu in chain.gpus:
        name = f"{gpu.name}, {gpu.memory_mib} MiB"
        yield f"GPU {gpu.index}", gpu.compute_capability, name, "NVML"
