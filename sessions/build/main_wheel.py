"""The session wheel: compiles, completes the wheel, and puts it into ``wheels/``."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sessions.build import (
    bindings,
    build_inputs,
    compilation,
    compiler_cache,
    old_glibc,
    platform_tag,
    python_tag,
    sbom,
    staging,
    wheel_contents,
    wheels_folder,
)
from sessions.build.record_types import BuildEnv, Wheel
from sessions.fetch import build_tools
from sessions.fetch.record_types import Source, Toolkit
from sessions.probe import gpu_for_tests, ms_runtime
from sessions.probe.record_types import Toolchain
from sessions.shared import (
    child_environment,
    console,
    disk,
    in_use,
    knowledge,
    programs,
    records,
    venvs,
)
from sessions.shared.build_spec import BuildSpec
from sessions.shared.command_text import command as command_of
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem


def main(ctx: Context) -> None:
    """Write the wheel and its record to ``wheels/<target>/``."""
    build = ctx.need("configure", BuildEnv)
    chain = ctx.need("probe", Toolchain)
    source = ctx.need("source", Source)
    if ctx.spec.warning:
        console.warn(ctx.spec.warning)
    done = records.read(ctx.record("wheel"), "wheel", Wheel)
    if done and not ctx.fresh and wheels_folder.is_current(done, build.fingerprint, ctx.wheels):
        console.done(f"wheel: up to date, {ctx.wheels / done.file}")
        _print_next_steps(ctx, chain, ctx.wheels / done.file)
        return
    mib = knowledge.disk_mib
    disk.room({ctx.build: mib("build"), ctx.wheels: mib("wheel")}, "A build")
    if ctx.spec.cache != "none":
        ctx.use_cached(ctx.spec.cache)
    start, cpu = time.monotonic(), programs.cpu_seconds()
    ctx.wheels.mkdir(parents=True, exist_ok=True)  # fail now if it cannot be created
    assert chain.compiler is not None  # the probe fails without one
    toolkit = ctx.need("toolkit", Toolkit) if ctx.spec.cuda else None
    needs = build.requires
    _compare_bindings(ctx, Path(source.path), chain)
    sbom_text = sbom.text(ctx.spec, source, chain.compiler, toolkit, needs, build.variables)
    _stage(ctx, build, source, sbom_text)
    _prepare_tree(ctx, build, chain)
    if ctx.spec.old_glibc:
        old_glibc.make(chain.compiler, ctx.build / old_glibc.FOLDER, build.variables)
    steps, counts = compilation.run(ctx, build, chain, source.version)
    timing = compilation.timing(ctx, chain.jobs, counts) if steps else {}
    raw = _only_wheel(ctx.build / "dist", ctx.spec)
    repaired = for_python(_repair(ctx, build, raw), ctx.spec)
    libraries = wheel_contents.libraries(ctx, build, repaired)
    previous = records.read(ctx.wheels / "wheel.json", "wheel", Wheel)
    path = wheels_folder.publish(repaired, ctx.wheels)
    if previous and previous.file != path.name:
        (ctx.wheels / previous.file).unlink(missing_ok=True)  # its record is replaced below
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
        sbom=records.text_sha256(sbom_text.encode()),
    )
    records.write(ctx.record("wheel"), "wheel", wheel)
    records.write(ctx.wheels / "wheel.json", "wheel", wheel)
    console.say(f"  {path}")
    failures = compiler_cache.failures(counts)
    if failures:
        console.warn(f"{failures}: the wheel is right, but took longer than necessary")
    console.done(
        f"wheel: {wheel.size / 1e6:.1f} MB in {console.duration(wheel.wall_seconds)} "
        f"({steps} steps{compiler_cache.summary(counts)}), sha256 {wheel.sha256}"
    )
    _print_next_steps(ctx, chain, path)


def _print_next_steps(ctx: Context, chain: Toolchain, path: Path) -> None:
    """Print what to do next, if the user asked for nothing but the wheel."""
    if ctx.asked == {"wheel"}:
        for line in next_steps(ctx.spec, path, [gpu.compute_capability for gpu in chain.gpus]):
            console.say(line)


def next_steps(spec: BuildSpec, path: Path, capabilities: Sequence[str]) -> list[str]:
    """How to install, try and test a wheel. ``capabilities`` are those of the GPUs here."""
    needed = gpu_for_tests.capabilities(spec)
    runtime = f" (pip also downloads NVIDIA's CUDA runtime, {knowledge.runtime_mb()} MB)"
    layers = ", n_gpu_layers=-1" if needed else ""
    code = f"from llama_cpp import Llama; print(Llama('model.gguf'{layers})('Hello')['choices'][0])"
    title, session = "To test it here:", "smoke"
    if needed and set(needed).isdisjoint(capabilities):
        title = (
            "No GPU of this machine has its architecture. To write a file that tests it elsewhere:"
        )
        session = "bundle"
    return [
        f"To install it{runtime if needed else ''}:",
        f"  {programs.typed(['pip', 'install', str(path)])}",
        "To try a model of yours:",
        f'  python -c "{code}"',
        title,
        f"  {command_of(session, spec)}",
    ]


def _compare_bindings(ctx: Context, source: Path, chain: Toolchain) -> None:
    """Compare the source's Python bindings with its headers. Raises Problem if they differ."""
    texts, headers = bindings.read(source)
    if "llama_cpp" not in texts or not headers:
        console.warn("bindings: llama_cpp/llama_cpp.py or llama.h is missing: nothing compared")
        return
    assert chain.compiler is not None
    declared = bindings.declarations(texts)
    lines = bindings.assertions(declared, headers)
    path = ctx.build / "bindings.cpp"
    records.write_text(path, "".join(f"{line}\n" for line, _ in lines))
    env = child_environment.system_environment(ctx.env) | chain.compiler.variables
    done = programs.capture(bindings.command(chain.compiler, source, path), env=env, timeout=300)
    found = bindings.compared(declared, lines, done.output, done.returncode)
    if found is None:
        raise Problem(
            "The Python bindings could not be compared with the C headers.",
            id="bindings-not-compared",
            evidence=venvs.tail(done.output),
            remedy="correct the error of the compiler, or choose another one with --compiler PATH; "
            "the command was: " + programs.typed(bindings.command(chain.compiler, source, path)),
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


def _prepare_tree(ctx: Context, build: BuildEnv, chain: Toolchain) -> None:
    """Record the tree's inputs; delete it if settings changed, as CMake reads some only once."""
    tree, record = ctx.build / "tree", ctx.build / "inputs.json"
    then = records.read(record, "inputs", dict[str, str])
    if disk.is_marked(tree) and (then or {}).get("settings") != build.inputs.get("settings"):
        console.say("The settings of the build have changed: it starts from nothing.")
        disk.remove(tree)
    now = build.inputs | build_inputs.tree(ctx.spec, chain, ctx.root, ctx.cache)
    records.write(record, "inputs", now)
    disk.mark(tree)


def _stage(ctx: Context, build: BuildEnv, source: Source, sbom_text: str) -> None:
    overlay = Path(__file__).parent / "overlay"
    added = staging.additions(
        Path(source.path),
        {path.name: path.read_text(encoding="utf-8") for path in overlay.glob("*.py")},
        sbom_text,
        platform=ctx.spec.platform,
        cuda=ctx.spec.cuda,
        archs=ctx.spec.archs,
        requires=build.requires,
    )
    with ctx.source_lock(source.version):
        staging.stage(Path(source.path), ctx.build / "src", added)


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
    """Give the wheel its platform tag and, on Windows, Microsoft's runtime."""
    out = ctx.build / "repaired"
    shutil.rmtree(out, ignore_errors=True)
    remedy = wheel_contents.again(ctx.spec)
    python = str(venvs.program(build_tools.tools(ctx), "python"))
    with ctx.scratch() as scratch:
        env = {**build.variables, **in_use.temporary(scratch)}
        if ctx.spec.platform == "windows":
            folders = {path.parent for path in ms_runtime.find(build.variables).values()}
            platform_tag.windows(python, raw, out, sorted(folders), env, remedy)
        else:
            platform_tag.linux(python, raw, out, env, remedy)
    return _only_wheel(out, ctx.spec)


def for_python(wheel: Path, spec: BuildSpec) -> Path:
    """The wheel with the tag of the target's Python. Raises Problem if it needs another Python."""
    if python_tag.serves(wheel.name, spec.python):
        return wheel
    why = python_tag.refusal(wheel, spec.python)
    calls = [] if why else python_tag.calls(wheel)
    if why or calls:
        raise Problem(
            f"The wheel that was built does not work with Python {spec.python}.",
            id="wheel-of-other-python",
            code=USAGE,
            evidence=why or f"a library calls {calls[0]} of Python's C API",
            remedy=f"install Python {spec.python}, or build for the Python that you have: "
            "--python X.Y",
        )
    path = wheel.with_name(python_tag.name(wheel.name, spec.python))
    python_tag.retagged(wheel, path, spec.python, spec.target)
    return path
