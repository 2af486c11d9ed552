"""Wheels to compare with in a benchmark, built by other procedures, each in its own folder."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sessions.build import build_inputs, compilation, wheels_folder
from sessions.build.record_types import BuildEnv, Wheel
from sessions.command_line import child_nox
from sessions.command_line.option_values import PTX, baselines
from sessions.fetch.record_types import Source, Toolkit
from sessions.probe.record_types import Compiler, Toolchain
from sessions.shared import code_digest, console, disk, knowledge, programs, records, wheel_name
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.targets import choose_target, targets_file

# The files that say how such a wheel is built.
_PROCEDURE = (Path(__file__), Path(compilation.__file__))


def wheels(ctx: Context) -> list[Path]:
    """The wheels that ``--baseline`` names; those that are procedures are built. Raises Problem."""
    return [_wheel(ctx, word) for word in ctx.options.baseline]


def _wheel(ctx: Context, word: str) -> Path:
    if word not in baselines():
        path = Path(word).expanduser().resolve()
        if path.suffix != ".whl" or not path.is_file():
            raise Problem(
                f"There is no wheel {path}.",
                id="baseline-wheel-missing",
                code=USAGE,
                remedy="name a wheel file, or one of: " + ", ".join(baselines()),
            )
        wheel_name.version(path)
        return path
    if ctx.options.wheel:
        raise Problem(
            f"With --wheel nothing is built, so the baseline {word} cannot be built.",
            id="baseline-not-built",
            code=USAGE,
            remedy="leave --wheel out, or name a wheel file: --baseline PATH",
        )
    return _ptx(ctx) if word == PTX else _foreign(ctx, word)


def _ptx(ctx: Context) -> Path:
    """The wheel of the target with PTX only, built by a nox process of its own."""
    targets = targets_file.load(
        (ctx.root / "targets.toml").read_text(encoding="utf-8"), ctx.spec.platform
    )
    label = choose_target.ptx(targets, ctx.options).target
    archs = ";".join(choose_target.virtual(ctx.spec))
    words = [w for w in child_nox.words(ctx.options) if not w.startswith("--arch=")]
    name = ctx.spec.base
    code = child_nox.follow(ctx.root, ["wheel"], name, [*words, f"--arch={archs}"])
    built = records.read(ctx.root / "build" / label / "wheel.json", "wheel", Wheel)
    if code or built is None:
        raise Problem(
            "The wheel with PTX only could not be built.",
            id="baseline-ptx-build-failed",
            evidence=f"it ended with {code}",
            remedy="correct the error that is shown above; to build only this wheel: "
            + programs.typed(["nox", "-s", "wheel", "--", "--target", name, "--arch", archs]),
        )
    return ctx.root / "wheels" / label / built.file


def numbers(target_spec: BuildSpec) -> list[str]:
    """The target's architectures without suffixes: "120a-real" -> "120"."""
    return [str(knowledge.parse_arch(arch)[0]) for arch in target_spec.archs]


def environment(
    target_spec: BuildSpec,
    row: Mapping[str, str],
    build: BuildEnv,
    compiler: Compiler,
    kit: Toolkit | None,
) -> dict[str, str]:
    """The environment of a procedure: its own variable, the toolkit, and this machine's compiler.

    Variables that only our build sets are removed: SOURCE_DATE_EPOCH would change what ggml
    compiles. ggml would use the ccache among our tools, so it is disabled: a second build would
    measure it.
    """
    ours = ("CCACHE_", "SCCACHE_", "SOURCE_DATE_EPOCH")
    env = {name: value for name, value in build.variables.items() if not name.startswith(ours)}
    env["CCACHE_DISABLE"] = "1"
    if target_spec.platform != "windows":  # Windows finds cl.exe on PATH
        env |= {"CC": compiler.cc, "CXX": compiler.cxx}
    if kit is None:
        return {**env, row["variable"]: row["cpu"]}
    nvcc = "nvcc.exe" if target_spec.platform == "windows" else "nvcc"
    folders = dict.fromkeys(("CUDA_PATH", "CUDAToolkit_ROOT"), kit.root)
    env |= {**folders, "CUDACXX": str(Path(kit.root) / "bin" / nvcc), "CUDAHOSTCXX": compiler.cxx}
    if target_spec.platform != "windows":  # upstream also links its programs with CUDA
        env["LDFLAGS"] = f"-Wl,-rpath-link,{kit.root}/lib"
    return {**env, row["variable"]: row["value"].replace("{arch}", ";".join(numbers(target_spec)))}


def _foreign(ctx: Context, name: str) -> Path:
    """The wheel of another project's procedure, from the same source, with the same toolkit."""
    row = knowledge.load("baselines.toml")[name]
    if "{arch}" in row["value"] and len(ctx.spec.archs) > 1:
        raise Problem(
            f"The baseline {name} can be built for one GPU architecture only.",
            id="baseline-two-architectures",
            code=USAGE,
            remedy="choose a target of one architecture",
        )
    build = ctx.need("configure", BuildEnv)
    chain = ctx.need("probe", Toolchain)
    source = ctx.need("source", Source)
    kit = ctx.need("toolkit", Toolkit) if ctx.spec.cuda else None
    assert chain.compiler is not None  # the probe fails without one
    env = environment(ctx.spec, row, build, chain.compiler, kit)
    label = f"{ctx.spec.target}+{name}"
    folder, wheel_folder = ctx.root / "build" / label, ctx.root / "wheels" / label
    ctx.target_lock(label)
    programs.end_leftovers(programs.BUILD_MARK, str(folder))
    python = chain.python.version if chain.python else ""
    machine_inputs = build_inputs.machine(
        ctx.spec, chain.compiler, python, kit.fingerprint if kit else ""
    )
    procedure = [row["variable"], row["value"], row["cpu"], *map(code_digest.code, _PROCEDURE)]
    fingerprint = records.fingerprint([machine_inputs, source.digest, procedure])
    done = records.read(wheel_folder / "wheel.json", "wheel", Wheel)
    if done and wheels_folder.is_current(done, fingerprint, wheel_folder):
        return wheel_folder / done.file
    previous = records.read(folder / "inputs.json", "inputs", str)
    now = records.fingerprint(
        [fingerprint, build_inputs.places(chain, ctx.spec, ctx.root, ctx.cache)]
    )
    if folder.exists() and previous != now:
        disk.remove(folder)
    disk.room(
        {folder: knowledge.disk_mib("build"), wheel_folder: knowledge.disk_mib("wheel")},
        "The baseline",
    )
    disk.mark(folder)
    records.write(folder / "inputs.json", "inputs", now)
    shutil.rmtree(folder / "src", ignore_errors=True)
    with ctx.source_lock(source.version):
        shutil.copytree(source.path, folder / "src")
    start, cpu = time.monotonic(), programs.cpu_seconds()
    console.say(f"Building the baseline {name} ({row['source']})")
    # The tree is named so that an interrupted build can be continued.
    settings = [f"-Cbuild-dir={(folder / 'tree').as_posix()}", "-Ccmake.verbose=false"]
    cuda = (folder / "src").rglob("ggml-cuda/**/*.cu") if ctx.spec.cuda else ()
    log, title = folder / "build.log", "building the baseline"
    steps = compilation.build_wheel(
        ctx, folder, settings, env, chain.jobs, title, log, lambda: [path.name for path in cuda]
    )
    built = sorted((folder / "dist").glob("*.whl"))
    if len(built) != 1:
        raise Problem(
            f"The build of the baseline {name} left {len(built)} wheels, not 1.",
            id="baseline-build-output",
            remedy=f"read {folder / 'build.log'}, correct the error that it shows, and run the "
            "same command again",
        )
    path = wheels_folder.publish(built[0], wheel_folder)
    wheel = Wheel(
        file=path.name,
        sha256=records.file_sha256(path),
        size=path.stat().st_size,
        fingerprint=fingerprint,
        target=label,
        version=source.version,
        archs=ctx.spec.archs if "{arch}" in row["value"] else (),
        cuda=ctx.spec.cuda,
        compiler=f"{chain.compiler.family} {chain.compiler.version}",
        source_digest=source.digest,
        source_edited=bool(source.edited) or source.sdist_sha256 is None,
        steps=steps,
        wall_seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(programs.cpu_seconds() - cpu, 1) if sys.platform != "win32" else None,
        cache={},
        timing={},
        libraries={},
        requires=(),
        sbom="",
    )
    records.write(wheel_folder / "wheel.json", "wheel", wheel)
    console.say(f"  {path}, {wheel.size / 1e6:.1f} MB in {console.duration(wheel.wall_seconds)}")
    return path
