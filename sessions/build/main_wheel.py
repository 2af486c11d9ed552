"""Compile, finish and put into ``wheels/``."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sessions.fetch import build_tools
from sessions.build import (
    bindings,
    compiler_cache,
    inputs,
    ninja_output,
    old_glibc,
    output,
    repair,
    retag,
    sbom,
    staging,
)
from sessions.shared import console, disk, knowledge, locks, options, venvs, records, programs
from sessions.probe import gpu_choice, ms_runtime
from sessions.shared.command_line import command as command_of
from sessions.build import ninja_log as timelines
from sessions.shared.nox_session import Context
from sessions.shared.errors import CHECK_FAILED, REPORT, USAGE, Problem
from sessions.build.model import BuildEnv, Wheel
from sessions.shared.target import BuildSpec
from sessions.fetch.model import Source, Toolkit
from sessions.probe.model import Toolchain

LIBRARIES = ("ggml", "ggml-base", "ggml-cpu-x64", "llama", "mtmd")
_CONFIGURED = "-- Build files have been written to"  # CMake's last line


def main(ctx: Context) -> None:
    """Leave a finished wheel in ``wheels/<target>/`` and its record."""
    build = records.need(ctx.record("configure"), "configure", BuildEnv)
    chain = records.need(ctx.record("probe"), "probe", Toolchain)
    source = records.need(ctx.record("source"), "source", Source)
    if ctx.spec.warning:
        console.warn(ctx.spec.warning)
    done = records.read(ctx.record("wheel"), "wheel", Wheel)
    if done and not ctx.fresh and output.is_current(done, build.fingerprint, ctx.wheels):
        console.done(f"wheel: up to date, {ctx.wheels / done.file}")
        _say_next(ctx, chain, ctx.wheels / done.file)
        return
    mib = knowledge.disk_mib
    disk.room({ctx.build: mib("build"), ctx.wheels: mib("wheel")}, "A build")
    if ctx.spec.cache != "none":
        ctx.use_cached(ctx.spec.cache)
    start, cpu = time.monotonic(), programs.cpu_seconds()
    ctx.wheels.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made fails now
    assert chain.compiler is not None  # the probe fails without one
    toolkit = records.need(ctx.record("toolkit"), "toolkit", Toolkit) if ctx.spec.cuda else None
    needs = build.requires
    _compare_bindings(ctx, Path(source.path), chain)
    bill = sbom.text(ctx.spec, source, chain.compiler, toolkit, needs, build.variables)
    _stage(ctx, build, source, bill)
    _tree(ctx, build, chain)
    if ctx.spec.old_glibc:
        old_glibc.make(chain.compiler, ctx.build / old_glibc.FOLDER, build.variables)
    steps, counts = _compile(ctx, build, chain, source.version)
    timing = _timing(ctx, chain.jobs, counts) if steps else {}
    raw = _only_wheel(ctx.build / "dist", ctx.spec)
    repaired = for_python(_repair(ctx, build, raw), ctx.spec)
    libraries = _judge(ctx, build, repaired)
    before = records.read(ctx.wheels / "wheel.json", "wheel", Wheel)
    path = output.publish(repaired, ctx.wheels)
    if before and before.file != path.name:
        (ctx.wheels / before.file).unlink(missing_ok=True)  # its record is about to go
    wall = round(time.monotonic() - start, 1)
    used = round(programs.cpu_seconds() - cpu, 1) if sys.platform != "win32" else None
    if timing and used is not None:
        timing["cpu_efficiency"] = round(used / (chain.jobs * max(wall, 0.1)), 4)
    wheel = Wheel(
        file=path.name,
        sha256=records.file_sha256(path),
        size=path.stat().st_size,
        fingerprint=build.fingerprint,
        target=ctx.spec.target,
        version=source.version,
        archs=ctx.spec.archs,
        cuda=ctx.spec.cuda,
        compiler=f"{chain.compiler.family} {chain.compiler.version}",
        source_digest=source.digest,
        source_edited=bool(source.edited) or source.sdist_sha256 is None,
        steps=steps,
        wall_seconds=wall,
        cpu_seconds=used,
        cache=counts,
        timing=timing,
        libraries=libraries,
        requires=build.requires,
        sbom=records.text_sha256(bill.encode()),
    )
    records.write(ctx.record("wheel"), "wheel", wheel)
    records.write(ctx.wheels / "wheel.json", "wheel", wheel)
    console.say(f"  {path}")
    trouble = compiler_cache.trouble(counts)
    if trouble:
        console.warn(f"{trouble}: the wheel is sound, but took longer than it need")
    console.done(
        f"wheel: {wheel.size / 1e6:.1f} MB in {console.duration(wheel.wall_seconds)} "
        f"({steps} steps{compiler_cache.said(counts)}), sha256 {wheel.sha256}"
    )
    _say_next(ctx, chain, path)


def _say_next(ctx: Context, chain: Toolchain, path: Path) -> None:
    """What the user types next, where the wheel is all that was asked for."""
    if ctx.asked == {"wheel"}:
        for line in next_lines(ctx.spec, path, [gpu.compute_capability for gpu in chain.gpus]):
            console.say(line)


def next_lines(spec: BuildSpec, path: Path, capabilities: Sequence[str]) -> list[str]:
    """How to install a wheel and how to test it; ``capabilities`` are those of the GPUs here."""
    wanted = gpu_choice.capabilities(spec)
    runtime = f" (pip also downloads NVIDIA's CUDA runtime, {knowledge.runtime_mb()} MB)"
    if wanted and set(wanted).isdisjoint(capabilities):
        test = ["No GPU here is of its architecture. To write one file that tests it on another machine:"]
        test.append(f"  {command_of('bundle', spec)}")
    else:
        test = ["To test it here:", f"  {command_of('smoke', spec)}"]
    install = programs.typed(["pip", "install", str(path)])
    layers = ", n_gpu_layers=-1" if wanted else ""
    code = f"from llama_cpp import Llama; print(Llama('model.gguf'{layers})('Hello')['choices'][0])"
    tried = ["To try a model of yours:", f'  python -c "{code}"']
    return [f"To install it{runtime if wanted else ''}:", f"  {install}", *tried, *test]


def _compare_bindings(ctx: Context, source: Path, chain: Toolchain) -> None:
    """Refuse a source whose Python declares other structures or functions than its headers."""
    texts, headers = bindings.read(source)
    if "llama_cpp" not in texts or not headers:
        console.warn("bindings: llama_cpp/llama_cpp.py or llama.h is not there, nothing compared")
        return
    assert chain.compiler is not None
    declared = bindings.declarations(texts)
    text, about = bindings.assertions(declared, headers)
    path = ctx.build / "bindings.cpp"
    records.write_text(path, text)
    env = options.system_environment(ctx.env) | chain.compiler.variables
    done = programs.capture(bindings.command(chain.compiler, source, path), env=env, timeout=300)
    found = bindings.compared(declared, text, about, done.output, done.returncode)
    if found is None:
        raise Problem(
            "The Python bindings could not be compared with the C headers.",
            id="bindings-not-compared",
            evidence=venvs.tail(done.output),
            remedy="correct what the compiler says, or choose another one with --compiler PATH; "
            "the command was: "
            + programs.typed(bindings.command(chain.compiler, source, path)),
        )
    records.write(ctx.record("bindings"), "bindings", found)
    rows = knowledge.load("bindings.toml")["known"]
    known = [row["name"] for row in rows if ctx.spec.source or not row.get("fork")]
    wrong = bindings.unexpected(found, known)
    if wrong:
        raise Problem(
            "Declarations in llama_cpp/ differ from the headers of vendor/llama.cpp "
            f"({len(wrong)} of them): the wheel would read memory at wrong places.",
            id="bindings-disagree",
            code=CHECK_FAILED,
            evidence="\n".join(f"{name}: {why}" for name, why in list(wrong.items())[:8]),
            remedy="check out the submodule that belongs to this release: "
            f"git -C {source} submodule update --init --recursive",
        )
    if found.unread:
        console.warn(f"bindings: not understood, so not compared: {', '.join(found.unread)}")
    console.say(
        f"Bindings: {found.structures} structures and {found.functions} functions agree with the "
        f"headers; known differences: {len(found.wrong)}"
    )


def _tree(ctx: Context, build: BuildEnv, chain: Toolchain) -> None:
    """Note what the CMake tree is made from. One of other settings goes.

    CMake takes some of them (CMAKE_CXX_FLAGS_INIT) when it first configures, and never again.
    ``clean`` has deleted a tree of another machine's inputs.
    """
    tree, record = ctx.build / "tree", ctx.build / "inputs.json"
    then = records.read(record, "inputs", dict[str, str])
    if disk.is_marked(tree) and (then or {}).get("settings") != build.inputs.get("settings"):
        console.say("The settings of the build have changed: it begins from nothing.")
        disk.remove(tree)
    now = build.inputs | inputs.tree(ctx.spec, chain, ctx.root, ctx.cache)
    records.write(record, "inputs", now)
    disk.mark(tree)


def _stage(ctx: Context, build: BuildEnv, source: Source, bill: str) -> None:
    overlay = Path(__file__).parent / "overlay"
    added = staging.additions(
        Path(source.path),
        {path.name: path.read_text(encoding="utf-8") for path in overlay.glob("*.py")},
        bill,
        platform=ctx.spec.platform,
        cuda=ctx.spec.cuda,
        archs=ctx.spec.archs,
        requires=build.requires,
    )
    with ctx.source_lock(source.version):
        staging.stage(Path(source.path), ctx.build / "src", added)


def _compile(
    ctx: Context, build: BuildEnv, chain: Toolchain, version: str
) -> tuple[int, dict[str, int]]:
    """Run the build. Returns the number of ninja's steps and the cache's hits and misses."""
    tree, dist, log_path = ctx.build / "tree", ctx.build / "dist", ctx.build / "wheel.log"
    shutil.rmtree(dist, ignore_errors=True)
    statslog = ctx.build / "ccache.log"
    statslog.unlink(missing_ok=True)
    python = str(venvs.program(build_tools.tools(ctx), "python"))
    command = [python, "-I", "-m", "build", "--wheel", "--no-isolation"]
    command += ["--outdir", str(dist)]
    command += [f"-C{name}={value}" for name, value in build.settings.items()]
    env = {
        **build.variables,
        **options.cache_environment(ctx.env, ctx.spec.cache),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(chain.jobs),
        programs.BUILD_MARK: str(ctx.build),
    }
    if ctx.spec.cache == "ccache":
        env["CCACHE_STATSLOG"] = str(statslog)
    toolkit = records.need(ctx.record("toolkit"), "toolkit", Toolkit) if ctx.spec.cuda else None
    steps: list[ninja_output.Step] = []
    cuda: list[str] = []
    start = time.monotonic()
    title = f"llama-cpp-python {version} for {', '.join(ctx.spec.archs) or 'the CPU'}"
    console.say(f"Building {title} with {chain.jobs} jobs; the log is {log_path}")
    with (
        log_path.open("w", encoding="utf-8", buffering=1) as log,
        console.Meter("building") as meter,
    ):

        def follow(line: str) -> None:
            if line.startswith(_CONFIGURED):  # by CMake; nothing is compiled yet
                check_tree(tree, ctx.spec, toolkit)
            step = ninja_output.parse_step(line)
            if step is None:
                return
            if not steps:
                cuda.extend(ninja_output.cuda_files(_text(tree / "compile_commands.json")))
            steps.append(step)
            left = ninja_output.time_left(steps, cuda, time.monotonic() - start)
            meter.update(step.done, step.total, left, step.file)

        source = str(ctx.build / "src")
        with _sccache(ctx, env) as stats:
            done = programs.stream([*command, source], env=env, log=log, on_line=follow, cwd=ctx.build)
    if done.returncode:
        with log_path.open(encoding="utf-8", errors="replace") as lines:
            error = ninja_output.first_error(lines) or done.output
        raise ninja_output.failure(error, str(log_path), chain.jobs)
    check_tree(tree, ctx.spec, toolkit)
    return len(steps), _cache_counts(ctx, statslog, stats)


def _cache_counts(ctx: Context, statslog: Path, stats: Sequence[str]) -> dict[str, int]:
    """What the compiler cache did; empty where it does not say."""
    try:
        if ctx.spec.cache == "sccache":
            return compiler_cache.sccache(stats[0]) if stats else {}
        return compiler_cache.ccache(statslog.read_text(encoding="utf-8")) if statslog.exists() else {}
    except Exception as error:  # a decoration: no build fails for want of it
        _warn_untold("what the compiler cache did", error)
        return {}


def _warn_untold(what: str, error: object) -> None:
    reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    console.warn(f"the wheel is sound, but {what} is not known: {' '.join(reason.split())[:200]}")


@contextlib.contextmanager
def _sccache(ctx: Context, env: dict[str, str]) -> Iterator[list[str]]:
    """A server of sccache for this build only, and what it counted once it has ended.

    One that runs already has the environment of whoever began it: another store, or none.
    """
    stats: list[str] = []
    if ctx.spec.cache != "sccache":
        yield stats
        return
    program = str(venvs.program(build_tools.tools(ctx), "sccache"))
    env.pop("SCCACHE_SERVER_UDS", None)
    env["SCCACHE_SERVER_PORT"] = str(programs.free_port())
    started = programs.capture([program, "--start-server"], env=env)
    if started.returncode:
        raise Problem(
            "sccache does not start.",
            id="sccache-not-starting",
            evidence=venvs.tail(started.output),
            remedy="correct its settings (SCCACHE_*, AWS_*) or its store; or build without it: "
            + command_of("wheel", ctx.spec, "--cache", "none"),
        )
    trouble = compiler_cache.no_servers(programs.capture([program, "--dist-status"], env=env).stdout)
    if trouble:
        console.warn(trouble)
    try:
        yield stats
        asked = programs.capture([program, "--show-stats", "--stats-format=json"], env=env)
        if asked.returncode:
            _warn_untold("what the compiler cache did", asked.output or "sccache ended")
        else:
            stats.append(asked.stdout)
    finally:
        programs.capture([program, "--stop-server"], env=env, timeout=60)


def _timing(ctx: Context, jobs: int, cache: dict[str, int]) -> dict[str, float]:
    """Leave what ran when in ``steps.json``, and return its sum; empty where it is not known."""
    log, graph = (ctx.build / "tree" / name for name in (".ninja_log", "build.ninja"))
    record = ctx.record("steps")
    try:
        record.unlink(missing_ok=True)  # else an earlier build's would pass for this one's
        timeline = timelines.read(
            log.read_text(encoding="utf-8"),
            graph.read_text(encoding="utf-8"),
            jobs=jobs,
            cache=cache,
        )
        summary = timelines.summary(timeline)
        records.write(record, "steps", timeline)
    except Exception as error:  # a decoration: no build fails for want of it
        _warn_untold("what ran when", error)
        return {}
    return summary


def _text(path: Path) -> str:
    """A file of CMake's, which writes the bytes of a path as they are."""
    return path.read_text(encoding="utf-8", errors="replace")


def check_tree(tree: Path, spec: BuildSpec, toolkit: Toolkit | None) -> None:
    """Refuse a configured CMake tree that would build another wheel than the target asks for.

    Upstream's CMake may take another toolkit's libraries, and it replaces architectures:
    0.3.36 takes 120a where it is told 120. Raises Problem.
    """
    if toolkit:
        cache = _text(tree / "CMakeCache.txt")
        foreign = ninja_output.foreign_cuda(cache, toolkit.root)
        if foreign:
            raise Problem(
                "CMake found parts of another CUDA toolkit than the one the target asks for.",
                id="build-foreign-cuda",
                evidence="\n".join(foreign),
                remedy=f"everything must be in {toolkit.root}; make that toolkit again: "
                + command_of("toolkit", spec, "--fresh"),
            )
    commands = _text(tree / "compile_commands.json")
    wanted = frozenset(name for arch in spec.archs for name in knowledge.compiled_to(arch))
    files = ninja_output.architectures(commands)
    compiled = set(files.values())
    if compiled == ({wanted} if spec.archs else set()):
        return
    lines = [] if files else ["no CUDA file is compiled"]
    for names in sorted(compiled, key=sorted):
        named = [re.split(r"[/\\]", file)[-1] for file in files if files[file] == names]
        what = ";".join(knowledge.shortest(names)) or "none that it names"
        lines.append(f"{what}: {len(named)} of {len(files)} CUDA files, {named[0]} the first")
    only = knowledge.shortest(compiled.pop()) if len(compiled) == 1 else ()
    asked = ";".join(spec.archs) or "the CPU only"
    raise Problem(
        f"Upstream's CMake would compile for other GPU architectures than you asked for: {asked}.",
        id="build-other-architectures",
        code=USAGE,
        evidence="\n".join(lines),
        remedy=f"ask for what it compiles: add {programs.typed(['--arch', ';'.join(only)])}"
        if only and spec.archs
        else "choose another release with --version",
    )


def _only_wheel(folder: Path, spec: BuildSpec) -> Path:
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise Problem(
            f"The build ended without an error, but the number of wheels is {len(found)}, not 1.",
            id="build-output",
            evidence=str(folder),
            remedy=f"build it again from nothing: {command_of('wheel', spec, '--fresh')}",
        )
    return found[0]


def _repair(ctx: Context, build: BuildEnv, raw: Path) -> Path:
    """Give the wheel the platform tag, and on Windows the runtime, that its libraries need."""
    out = ctx.build / "repaired"
    shutil.rmtree(out, ignore_errors=True)
    python = str(venvs.program(build_tools.tools(ctx), "python"))
    with ctx.scratch() as scratch:
        env = {**build.variables, **locks.temporary(scratch)}
        if ctx.spec.platform == "windows":
            folders = {path.parent for path in ms_runtime.find(build.variables).values()}
            repair.windows(python, raw, out, sorted(folders), env, _again(ctx.spec))
        else:
            repair.linux(python, raw, out, env, _again(ctx.spec))
    return _only_wheel(out, ctx.spec)


def for_python(wheel: Path, spec: BuildSpec) -> Path:
    """The wheel for the target's Python: as it is, or under that tag where another one built it.

    Raises Problem where its libraries are of the Python that built them.
    """
    if retag.serves(wheel.name, spec.python):
        return wheel
    why = retag.refusal(wheel, spec.python)
    calls = [] if why else retag.calls(wheel)
    if why or calls:
        raise Problem(
            f"The wheel that was built does not work with Python {spec.python}.",
            id="wheel-of-other-python",
            code=USAGE,
            evidence=why or f"a library calls {calls[0]} of Python's C API",
            remedy=f"install Python {spec.python}, or build for the Python that you have: --python X.Y",
        )
    path = wheel.with_name(retag.name(wheel.name, spec.python))
    retag.retagged(wheel, path, spec.python, spec.target)
    return path


def _judge(ctx: Context, build: BuildEnv, wheel: Path) -> dict[str, str]:
    """Refuse a wheel that is not what it should be. Returns its libraries' sha256 by name."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
    brought = ms_runtime.files() if ctx.spec.platform == "windows" else ()
    wrong = contents_problems(
        sizes,
        cuda=ctx.spec.cuda is not None,
        brought=brought,
        left_out=build.settings.get("cmake.define.BLACKWHEEL_LEFT_OUT", "").split(";"),
    )
    if wrong:
        raise Problem(
            "The finished wheel does not contain what it should.",
            id="wheel-contents",
            code=CHECK_FAILED,
            evidence="\n".join(wrong),
            remedy=_again(ctx.spec),
        )
    tools = build_tools.tools(ctx)
    # W004 takes libggml-base.so for a Python module with a name that cannot be imported; W009 and
    # W010 do not know the folder of delvewheel.
    ignored = "W004,W009,W010" if brought else "W004"
    for name, words in (("twine", ["check"]), ("check-wheel-contents", ["--ignore", ignored])):
        program = str(venvs.program(tools, name))
        done = programs.capture([program, *words, str(wheel)], env=build.variables)
        if done.returncode:
            raise Problem(
                f"{name} refuses the wheel.",
                id="wheel-check-refused",
                code=CHECK_FAILED,
                evidence=venvs.tail(done.output),
                remedy=_again(ctx.spec),
            )
    with zipfile.ZipFile(wheel) as archive:
        libraries = [n for n in sizes if "/lib/" in n or (is_brought(n) and n.endswith(".dll"))]
        return {Path(n).name: hashlib.sha256(archive.read(n)).hexdigest() for n in libraries}


def _again(spec: BuildSpec) -> str:
    """The remedy where a build went wrong and nobody knows why."""
    return f"{command_of('wheel', spec, '--fresh')}; if it happens again, {REPORT}"


def contents_problems(
    members: Sequence[str] | dict[str, int],
    *,
    cuda: bool,
    brought: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> list[str]:
    """What is wrong with a wheel's list of members: strays, doubles, and what is missing.

    ``brought`` are the libraries that delvewheel has to bring into a wheel for Windows;
    ``left_out`` are the modules for the CPU that would compute wrongly.
    """
    wrong = [
        f"stray: {name}"
        for name in members
        if not name.startswith("llama_cpp/")
        and not name.split("/")[0].endswith(".dist-info")
        and not (brought and is_brought(name))
    ]
    bundled = [ms_runtime.original(n) for n in members if brought and is_brought(n) and ".dll" in n]
    for library in brought:
        if bundled.count(library) != 1:
            wrong.append(f"{bundled.count(library)} copies of {library} instead of one")
    wrong += [f"not asked for: {name}" for name in bundled if name not in brought]
    library_name = re.compile(r"llama_cpp/.*?(?:lib)?([^/]+?)\.(?:so|dll)(?:\.|$)")
    found = [library_name.match(name) for name in members]
    libraries = [match[1] for match in found if match]
    wanted = [*LIBRARIES, *(["ggml-cuda"] if cuda else [])]
    for library in wanted:
        if libraries.count(library) != 1:
            wrong.append(f"{libraries.count(library)} copies of {library} instead of one")
    wrong += [
        f"not asked for: {name}"
        for name in libraries
        if name not in (*wanted, "gomp")
        and (not name.startswith("ggml-cpu-") or name.removeprefix("ggml-cpu-") in left_out)
    ]
    added = staging.added(cuda=cuda, windows=bool(brought))
    wrong += [f"missing: llama_cpp/{n}" for n in added if f"llama_cpp/{n}" not in members]
    return wrong


def is_brought(member: str) -> bool:
    """Whether a member is where delvewheel puts what it copies in."""
    return member.startswith(f"{ms_runtime.FOLDER}/")
