"""Writes a bundle: one file with a wheel, its requirements and the checks, for other machines."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from sessions.build import baselines, python_tag
from sessions.build.record_types import Wheel
from sessions.command_line import child_nox
from sessions.fetch import build_tools
from sessions.probe import gpu_for_tests
from sessions.run import check_ops_report, families, ops_build, smoke_input
from sessions.shared import child_environment, console, disk, knowledge, programs, records, venvs
from sessions.shared.command_text import command, python
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, Problem

# NVIDIA's runtime and its requirements (0.6 GB): installed by pip or found on the other machine.
RUNTIME = re.compile(r"nvidia[-_]", re.IGNORECASE)

OLDEST = Version("3.11")  # the oldest Python with which the payload was tested


def main(ctx: Context) -> None:
    """Write ``wheels/<target>/smoke-<target>.pyz``; for several targets, ``wheels/smoke.pyz``."""
    each = [dataclasses.replace(ctx, spec=spec) for spec in ctx.specs] or [ctx]
    if ctx.specs:
        _build(each)
    ctx = each[0]
    others = [] if ctx.specs else baselines.wheels(ctx)
    target = ctx.wheels / f"smoke-{ctx.spec.target}.pyz"
    if ctx.specs:
        target = ctx.root / "wheels" / "smoke.pyz"
    with ctx.scratch() as scratch:
        folder = scratch / "bundle"
        manifests, pythons, ops = [], knowledge.pythons(), {}
        for one in each:
            wheel = one.need("wheel", Wheel)
            found = _collect(one, wheel, one.wheels / wheel.file, folder / "wheels", scratch)
            pythons = tuple(python for python in pythons if python in found)
            path, folder_of_ops = one.wheels / wheel.file, folder / "ops"
            if test := _ops(one, wheel, path, folder_of_ops, scratch / one.spec.target):
                ops[one.spec.target] = test
            if ctx.specs:
                own = folder / "targets" / one.spec.target
                own.mkdir(parents=True)
                (folder / "wheels" / wheel.file).replace(own / wheel.file)
            manifests.append((one, wheel))
        _refuse_doubles(folder / "wheels")
        words = ["install", "--no-deps", "--require-hashes", "--target", str(folder / "nvml")]
        lock = scratch / "nvml.txt"
        records.write_text(lock, _requirement(knowledge.LOCKS / "runtime.txt", "nvidia-ml-py"))
        venvs.pip(ctx, build_tools.tools(ctx), [*words, "-r", str(lock)], "nvidia-ml-py")
        parts = [
            {**manifest(one, wheel, pythons), "ops": ops.get(one.spec.target)}
            for one, wheel in manifests
        ]
        text = json.dumps({"targets": parts} if ctx.specs else parts[0], indent=1)
        records.write_text(folder / "manifest.json", text)
        with disk.whole(target) as part:
            pack(folder, part)
    target.with_name(target.name + ".sig").unlink(missing_ok=True)  # of an earlier bundle
    if ctx.options.sign:
        _sign(ctx, target, ctx.options.sign)
    console.say(f"  {target}")
    console.say(f"  on the machine with the GPU: {python(ctx.spec, target.name)}")
    if ops:
        console.say(f"  to test every operator there: {python(ctx.spec, target.name, '--ops')}")
    if len(pythons) > 1:
        console.say(f"  or with Python {', '.join(pythons)}")
    elif not ctx.specs:
        words = ["nox", "-s", "bundle", "--", "--targets", ctx.spec.base, *ctx.spec.overrides]
        console.say(f"  for every Python: {programs.typed(words)}")
    if others:
        words = [target.name, "--bench"]
        words += [w for o in others for w in ("--baseline", f"{o.parent.name}/{o.name}")]
        console.say(f"  to benchmark there: {python(ctx.spec, *words)}")
        for other in others:
            console.say(f"  and copy this file too, in its folder: {other}")
    console.done(
        f"bundle: {target.stat().st_size / 1e6:.1f} MB, sha256 {records.file_sha256(target)}"
    )


def _build(each: Sequence[Context]) -> None:
    """Build and verify the wheel of each target, then lock all of the targets."""
    for one in each:
        name = one.spec.base
        if child_nox.follow(one.root, ["verify"], name, child_nox.words(one.options)):
            raise Problem(
                f"The wheel of {name} was not built, or failed a check, so there is no bundle.",
                id="bundle-target-failed",
                code=CHECK_FAILED,
                evidence="the reason is above",
                remedy=command("verify", one.spec),
            )
    for one in sorted(each, key=lambda one: one.spec.target):
        one.target_lock(one.spec.target)


def _refuse_doubles(folder: Path) -> None:
    """Raise Problem if there are two releases of a package, which one venv cannot have."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.whl")):
        name = parse_wheel_filename(path.name)[0]
        if name in found:
            raise Problem(
                f"The wheels of this bundle need two releases of {name}.",
                id="bundle-two-releases",
                evidence=f"{found[name]}\n{path.name}",
                remedy="make a bundle for each target: nox -s bundle -- --target NAME",
            )
        found[name] = path.name


def manifest(ctx: Context, wheel: Wheel, pythons: Sequence[str]) -> dict[str, object]:
    """The manifest that the bundle's program reads."""
    platform = "win_amd64" if ctx.spec.platform == "windows" else "linux_x86_64"
    return {
        "target": ctx.spec.target,
        "arguments": programs.typed(ctx.spec.arguments),  # quoted for this machine's shell
        "pythons": list(pythons),
        "platforms": [platform],
        "driver": knowledge.toolkit(ctx.spec.cuda).driver if ctx.spec.cuda else 0,
        "bad_drivers": knowledge.bad_drivers(ctx.spec.archs),
        "runtime": [need for need in wheel.requires if RUNTIME.match(need)],
        "capabilities": gpu_for_tests.capabilities(ctx.spec),
        "job": smoke_input.job(
            ctx.spec,
            file=wheel.file,
            sha256=wheel.sha256,
            version=wheel.version,
            chosen=ctx.options.families,
        ),
    }


def _ops(
    ctx: Context, wheel: Wheel, path: Path, folder: Path, scratch: Path
) -> dict[str, object] | None:
    """Put upstream's operator test into ``folder``; return its part of the manifest.

    Returns None if the operators of the release are not known, or nothing can be compiled.
    """
    try:
        release = ops_build.known(wheel.version)
        built = ops_build.built(ctx, path, scratch / "ops", reference=not ctx.spec.archs)
    except Problem as problem:
        if problem.code == CHECK_FAILED:
            raise
        console.warn(f"the bundle has no operator test (--ops): {problem.what}")
        return None
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str | None] = {"reference": None}
    for kind, library in (("library", built.test), ("reference", built.reference)):
        if library:  # a bundle may have the wheels of several targets
            names[kind] = f"{library.stem}-{ctx.spec.target}{library.suffix}"
            shutil.copyfile(library, folder / str(names[kind]))
    return {**check_ops_report.for_job(ctx.spec, release), **names}


def _collect(
    ctx: Context, wheel: Wheel, path: Path, folder: Path, scratch: Path
) -> tuple[str, ...]:
    """Download the wheel's and the payload's requirements, except NVIDIA's runtime, as wheels.

    Returns the Pythons for which all of them are. A bundle of one target has the packages for that
    target's Python (numpy has 17 MB per Python); one of several targets has them for each Python
    from OLDEST on, unless a library of the wheel calls Python's own functions.
    """
    console.say("Collecting what the wheel and its checks need")
    tools = build_tools.tools(ctx)
    plan = scratch / "plan.json"
    there = ["--only-binary=:all:", "--python-version", ctx.spec.python]  # it may be missing here
    words = ["install", "--dry-run", "--ignore-installed", "--report", str(plan), *there]
    # For another Python, pip requires a target folder.
    words += ["--target", str(scratch / "target"), str(path)]
    venvs.pip(ctx, tools, words, "the wheel's requirements")
    for item in json.loads(plan.read_text(encoding="utf-8"))["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if RUNTIME.match(name) or item["download_info"]["url"].startswith(path.resolve().as_uri()):
            continue
        pin = f"{name}=={version}"
        if any(folder.glob(f"{re.sub('[-_.]+', '_', name)}-{version}-*.whl")):
            continue  # downloaded for another target
        venvs.pip(ctx, tools, ["download", "--no-deps", *there, "-d", str(folder), pin], pin)
    words = ["download", "--no-deps", *there, "--require-hashes", "-d", str(folder)]
    venvs.pip(ctx, tools, [*words, "-r", str(knowledge.payload_lock())], "what the checks need")
    shutil.copyfile(path, folder / wheel.file)
    if not ctx.specs:
        return (ctx.spec.python,)
    bound = bool(python_tag.calls(path))
    pythons = tuple(
        python
        for python in knowledge.pythons()
        if (
            python_tag.serves(wheel.file, python) if bound else not python_tag.refusal(path, python)
        )
        and (python == ctx.spec.python or Version(python) >= OLDEST)
    )
    return tuple(p for p in pythons if p == ctx.spec.python or _collect_for(ctx, folder, p))


def _collect_for(ctx: Context, folder: Path, python: str) -> bool:
    """Download the packages that depend on Python for another Python, into ``pythonX.Y``.

    Returns False if one of them is not available.
    """
    words = ["download", "--no-deps", "--only-binary=:all:", "--python-version", python]
    words += ["-d", str(folder.with_name(f"python{python}"))]
    for name, version in needed(folder, python):
        if name == "llama-cpp-python":
            continue  # bundle_launch.py renames it for that Python
        if any(
            folder.with_name(f"python{python}").glob(f"{name.replace('-', '_')}-{version}-*.whl")
        ):
            continue
        lock = folder.parent.parent / "one.txt"
        records.write_text(lock, _requirement(knowledge.payload_lock(), name))
        pinned = ["--require-hashes", "-r", str(lock)] if lock.stat().st_size else []
        pin = f"{name}=={version}"
        try:
            venvs.pip(ctx, build_tools.tools(ctx), [*words, *(pinned or [pin])], pin)
        except Problem as problem:
            console.warn(f"the bundle is not for Python {python}: {problem.what}")
            return False
    return True


def needed(folder: Path, python: str) -> list[tuple[str, str]]:
    """Name and version of each wheel in ``folder`` that is not for that Python."""
    found = [path.name for path in folder.glob("*.whl") if not python_tag.serves(path.name, python)]
    return sorted((str(n), str(v)) for n, v, *_ in map(parse_wheel_filename, found))


def _requirement(lock: Path, name: str) -> str:
    """The lines of one package in a lock file, or "" if it is not there."""
    match = re.search(rf"^{name}==.*(?:\n    .*)*", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return match[0] + "\n" if match else ""


def pack(folder: Path, target: Path) -> None:
    """Write the bundle: a zip file that Python runs; its program is ``bundle_start.py``."""
    with target.open("wb") as stream:
        stream.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    whole = path.suffix == ".whl"  # already compressed, as families are
                    kind = zipfile.ZIP_STORED if whole else zipfile.ZIP_DEFLATED
                    archive.write(path, path.relative_to(folder), kind)
            for path in sorted(smoke_input.PAYLOAD.iterdir()):
                if path.suffix in (".py", ".json"):
                    archive.write(path, f"payload/{path.name}")
            for path in sorted(families.FAMILIES.glob("*.npz")):
                archive.write(path, f"families/{path.name}", zipfile.ZIP_STORED)
            archive.write(smoke_input.PAYLOAD / "bundle_start.py", "__main__.py")


def _sign(ctx: Context, target: Path, key: str) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "blackwheel", str(target)]
    agent = {name: ctx.env[name] for name in ("SSH_AUTH_SOCK",) if name in ctx.env}
    done = programs.capture(command, env={**child_environment.pip_environment(ctx.env), **agent})
    if done.returncode:
        raise Problem(
            "ssh-keygen could not sign the bundle.",
            id="bundle-sign-failed",
            evidence=venvs.tail(done.output, 4),
            remedy="name a private SSH key: --sign ~/.ssh/id_ed25519",
        )
    console.say(f"  {target}.sig")
