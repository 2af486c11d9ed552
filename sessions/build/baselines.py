"""Wheels to measure against, built by other people's procedures; each in a folder of its own."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sessions.build import build_errors, build_inputs, progress, wheels_folder
from sessions.build.model import BuildEnv, Wheel
from sessions.command_line import child_nox
from sessions.command_line.option_values import PTX, baselines
from sessions.fetch import build_tools
from sessions.fetch.model import Source, Toolkit
from sessions.probe.model import Compiler, Toolchain
from sessions.shared import (
    code_digest,
    console,
    disk,
    knowledge,
    programs,
    records,
    venvs,
    wheel_name,
)
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.targets import spec, targets_file


def wheels(ctx: Context) -> list[Path]:
    """The wheels that ``--baseline`` names, built if need be. Raises Problem."""
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
    """The target with PTX only: a build of ours, in a run of its own."""
    targets = targets_file.load(
        (ctx.root / "targets.toml").read_text(encoding="utf-8"), ctx.spec.platform
    )
    label = spec.ptx(targets, ctx.options).target
    archs = ";".join(spec.virtual(ctx.spec))
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


def numbers(of: BuildSpec) -> list[str]:
    """The target's architectures without what they are compiled to: "120a-real" -> "120"."""
    return [str(knowledge.parse_arch(arch)[0]) for arch in of.archs]


def environment(
    of: BuildSpec, row: Mapping[str, str], build: BuildEnv, compiler: Compiler, kit: Toolkit | None
) -> dict[str, str]:
    """What a procedure's user has set: its variable, the toolkit, and this machine's compiler.

    Not what our own build sets besides: SOURCE_DATE_EPOCH would change what ggml compiles. And no
    compiler cache, though ggml takes the ccache that it finds among our tools: a second build
    would measure that.
    """
    ours = ("CCACHE_", "SCCACHE_", "SOURCE_DATE_EPOCH")
    env = {name: value for name, value in build.variables.items() if not name.startswith(ours)}
    env["CCACHE_DISABLE"] = "1"
    if of.platform != "windows":  # there, cl.exe is found on the PATH that Visual Studio sets
        env |= {"CC": compiler.cc, "CXX": compiler.cxx}
    if kit is None:
        return {**env, row["variable"]: row["cpu"]}
    nvcc = "nvcc.exe" if of.platform == "windows" else "nvcc"
    folders = dict.fromkeys(("CUDA_PATH", "CUDAToolkit_ROOT"), kit.root)
    env |= {**folders, "CUDACXX": str(Path(kit.root) / "bin" / nvcc), "CUDAHOSTCXX": compiler.cxx}
    if of.platform != "windows":  # upstream's programs are linked too, against all of CUDA
        env["LDFLAGS"] = f"-Wl,-rpath-link,{kit.root}/lib"
    return {**env, row["variable"]: row["value"].replace("{arch}", ";".join(numbers(of)))}


def _foreign(ctx: Context, name: str) -> Path:
    """A wheel by somebody else's procedure, from the same source with the same toolkit."""
    row = knowledge.load("baselines.toml")[name]
    if "{arch}" in row["value"] and len(ctx.spec.archs) > 1:
        raise Problem(
            f"The baseline {name} can be built for one GPU architecture only.",
            id="baseline-two-architectures",
            code=USAGE,
            remedy="choose a target of one architecture",
        )
    build = ctx.need("configure", BuildEnv)
    found = ctx.need("probe", Toolchain)
    source = ctx.need("source", Source)
    kit = ctx.need("toolkit", Toolkit) if ctx.spec.cuda else None
    assert found.compiler is not None  # the probe fails without one
    env = environment(ctx.spec, row, build, found.compiler, kit)
    label = f"{ctx.spec.target}+{name}"
    folder, target = ctx.root / "build" / label, ctx.root / "wheels" / label
    ctx.target_lock(label)
    programs.end_leftovers(programs.BUILD_MARK, str(folder))
    python = found.python.version if found.python else ""
    before_it = build_inputs.machine(
        ctx.spec, found.compiler, python, kit.fingerprint if kit else ""
    )
    procedure = [row["variable"], row["value"], row["cpu"], code_digest.code(Path(__file__))]
    fingerprint = records.fingerprint([before_it, source.digest, procedure])
    done = records.read(target / "wheel.json", "wheel", Wheel)
    if done and wheels_folder.is_current(done, fingerprint, target):
        return target / done.file
    before = records.read(folder / "inputs.json", "inputs", str)
    now = records.fingerprint(
        [fingerprint, build_inputs.places(found, ctx.spec, ctx.root, ctx.cache)]
    )
    if folder.exists() and before != now:
        disk.remove(folder)
    disk.room(
        {folder: knowledge.disk_mib("build"), target: knowledge.disk_mib("wheel")}, "The baseline"
    )
    disk.mark(folder)
    records.write(folder / "inputs.json", "inputs", now)
    shutil.rmtree(folder / "src", ignore_errors=True)
    with ctx.source_lock(source.version):
        shutil.copytree(source.path, folder / "src")
    start, cpu = time.monotonic(), programs.cpu_seconds()
    console.say(f"Building the baseline {name} ({row['source']})")
    steps = _build(ctx, folder, env, found.jobs)
    made = sorted((folder / "dist").glob("*.whl"))
    if len(made) != 1:
        raise Problem(
            f"The build of the baseline {name} left {len(made)} wheels, not 1.",
            id="baseline-build-output",
            remedy=f"read {folder / 'build.log'}, correct the error that it shows, and run the "
            "same command again",
        )
    path = wheels_folder.publish(made[0], target)
    wheel = Wheel(
        file=path.name,
        sha256=records.file_sha256(path),
        size=path.stat().st_size,
        fingerprint=fingerprint,
        target=label,
        version=source.version,
        archs=ctx.spec.archs if "{arch}" in row["value"] else (),
        cuda=ctx.spec.cuda,
        compiler=f"{found.compiler.family} {found.compiler.version}",
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
    records.write(target / "wheel.json", "wheel", wheel)
    console.say(f"  {path}, {wheel.size / 1e6:.1f} MB in {console.duration(wheel.wall_seconds)}")
    return path


def _build(ctx: Context, folder: Path, env: Mapping[str, str], jobs: int) -> int:
    """Run it, its output in ``build.log``; return the number of ninja's steps."""
    shutil.rmtree(folder / "dist", ignore_errors=True)
    python = str(venvs.program(build_tools.tools(ctx), "python"))
    command = [python, "-I", "-m", "build", "--wheel", "--no-isolation"]
    command += ["--outdir", str(folder / "dist")]
    # The tree is named only so that what was compiled before an interruption is not lost.
    command += [f"-Cbuild-dir={(folder / 'tree').as_posix()}", "-Ccmake.verbose=false"]
    found = (folder / "src").rglob("ggml-cuda/**/*.cu")
    kernels = [path.name for path in found] if ctx.spec.cuda else []
    steps: list[progress.Step] = []
    start, log_path = time.monotonic(), folder / "build.log"
    with (
        log_path.open("w", encoding="utf-8", buffering=1) as log,
        console.Meter("building the baseline") as meter,
    ):

        def follow(line: str) -> None:
            step = progress.parse_step(line)
            if step:
                steps.append(step)
                left = progress.time_left(steps, kernels, time.monotonic() - start)
                meter.update(step.done, step.total, left, step.file)

        told = {**env, "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs), programs.BUILD_MARK: str(folder)}
        words = [*command, str(folder / "src")]
        done = programs.stream(words, env=told, log=log, on_line=follow, cwd=folder)
    if done.returncode:
        with log_path.open(encoding="utf-8", errors="replace") as lines:
            raise build_errors.failure(
                build_errors.first_error(lines) or done.output, str(log_path), jobs
            )
    return len(steps)
