"""One file that tests a wheel on another machine: the wheel, what it needs, and the checks."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from sessions.build import baselines, retag
from sessions.build.model import Wheel
from sessions.fetch import build_tools
from sessions.probe import gpu_choice
from sessions.run import families, job
from sessions.shared import console, disk, knowledge, options, programs, records, venvs
from sessions.shared.errors import Problem
from sessions.shared.nox_session import Context

# NVIDIA's runtime and what it requires: brought by pip or found on the other machine; 0.6 GB.
RUNTIME = re.compile(r"nvidia[-_]", re.IGNORECASE)

OLDEST = Version("3.11")  # of a Python that the payload was tried with


def main(ctx: Context) -> None:
    """Write ``wheels/<target>/smoke-<target>.pyz``."""
    wheel = records.need(ctx.record("wheel"), "wheel", Wheel)
    path = ctx.wheels / wheel.file
    others = baselines.wheels(ctx)
    target = ctx.wheels / f"smoke-{ctx.spec.target}.pyz"
    with ctx.scratch() as scratch:
        folder = scratch / "bundle"
        pythons = _collect(ctx, wheel, path, folder / "wheels", scratch)
        words = ["install", "--no-deps", "--require-hashes", "--target", str(folder / "nvml")]
        lock = scratch / "nvml.txt"
        records.write_text(lock, _requirement(knowledge.LOCKS / "runtime.txt", "nvidia-ml-py"))
        venvs.pip(ctx, build_tools.tools(ctx), [*words, "-r", str(lock)], "nvidia-ml-py")
        text = json.dumps(manifest(ctx, wheel, pythons), indent=1)
        records.write_text(folder / "manifest.json", text)
        with disk.whole(target) as part:
            pack(folder, part)
    target.with_name(target.name + ".sig").unlink(missing_ok=True)  # of the bundle before
    if ctx.options.sign:
        _sign(ctx, target, ctx.options.sign)
    console.say(f"  {target}")
    console.say(f"  on the machine with the GPU: python{ctx.spec.python} {target.name}")
    if len(pythons) > 1:
        console.say(f"  or by any of Python {', '.join(pythons)}")
    if others:
        given = " ".join(f"--baseline {other.parent.name}/{other.name}" for other in others)
        console.say(f"  to measure there: python{ctx.spec.python} {target.name} --bench {given}")
        for other in others:
            console.say(f"  and take along, in its folder: {other}")
    console.done(
        f"bundle: {target.stat().st_size / 1e6:.1f} MB, sha256 {records.file_sha256(target)}"
    )


def manifest(ctx: Context, wheel: Wheel, pythons: Sequence[str]) -> dict[str, object]:
    """What the bundle's program is told."""
    platform = "win_amd64" if ctx.spec.platform == "windows" else "linux_x86_64"
    return {
        "target": ctx.spec.target,
        "pythons": list(pythons),
        "platforms": [platform],
        "driver": knowledge.toolkit(ctx.spec.cuda).driver if ctx.spec.cuda else 0,
        "bad_drivers": knowledge.bad_drivers(ctx.spec.archs),
        "runtime": [need for need in wheel.requires if RUNTIME.match(need)],
        "capabilities": gpu_choice.capabilities(ctx.spec),
        "job": job.job(
            ctx.spec,
            file=wheel.file,
            sha256=wheel.sha256,
            version=wheel.version,
            chosen=ctx.options.families,
        ),
    }


def _collect(
    ctx: Context, wheel: Wheel, path: Path, folder: Path, scratch: Path
) -> tuple[str, ...]:
    """The wheel, and all that it and the payload import but NVIDIA's runtime, as wheels.

    Returns the Pythons that all of them are for: one, or each that a py3-none wheel serves.
    """
    console.say("Collecting what the wheel and its checks need")
    tools = build_tools.tools(ctx)
    plan = scratch / "plan.json"
    words = ["install", "--dry-run", "--ignore-installed", "--report", str(plan), str(path)]
    venvs.pip(ctx, tools, words, "the wheel's requirements")
    for item in json.loads(plan.read_text(encoding="utf-8"))["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if RUNTIME.match(name) or item["download_info"]["url"].startswith(path.resolve().as_uri()):
            continue
        pin = f"{name}=={version}"
        words = ["download", "--no-deps", "--only-binary=:all:", "-d", str(folder), pin]
        venvs.pip(ctx, tools, words, pin)
    words = ["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(folder)]
    venvs.pip(ctx, tools, [*words, "-r", str(knowledge.payload_lock())], "what the checks need")
    shutil.copyfile(path, folder / wheel.file)
    pythons = tuple(
        python
        for python in knowledge.pythons()
        if retag.serves(wheel.file, python)
        and (python == ctx.spec.python or Version(python) >= OLDEST)
    )
    return tuple(p for p in pythons if p == ctx.spec.python or _collect_for(ctx, folder, p))


def _collect_for(ctx: Context, folder: Path, python: str) -> bool:
    """The packages that are made for each Python, for another than the target's, in ``pythonX.Y``.

    Whether they could be had.
    """
    words = ["download", "--no-deps", "--only-binary=:all:", "--python-version", python]
    words += ["-d", str(folder.with_name(f"python{python}"))]
    for name, version in needed(folder, python):
        lock = folder.parent / "one.txt"
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
    found = [path.name for path in folder.glob("*.whl") if not retag.serves(path.name, python)]
    return sorted((str(n), str(v)) for n, v, *_ in map(parse_wheel_filename, found))


def _requirement(lock: Path, name: str) -> str:
    """The lines of one package in a lock; empty where it has none."""
    match = re.search(rf"^{name}==.*(?:\n    .*)*", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return match[0] + "\n" if match else ""


def pack(folder: Path, target: Path) -> None:
    """Write the bundle: a zip that Python runs, the payload's ``start.py`` its program."""
    with target.open("wb") as stream:
        stream.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    whole = path.suffix == ".whl"  # compressed already
                    kind = zipfile.ZIP_STORED if whole else zipfile.ZIP_DEFLATED
                    archive.write(path, path.relative_to(folder), kind)
            for path in sorted(job.PAYLOAD.iterdir()):
                if path.suffix in (".py", ".json"):
                    archive.write(path, f"payload/{path.name}")
            for path in sorted(families.FAMILIES.glob("*.npz")):
                archive.write(path, f"families/{path.name}")  # compressed already
            archive.write(job.PAYLOAD / "start.py", "__main__.py")


def _sign(ctx: Context, target: Path, key: str) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "blackwheel", str(target)]
    agent = {name: ctx.env[name] for name in ("SSH_AUTH_SOCK",) if name in ctx.env}
    done = programs.capture(command, env={**options.pip_environment(ctx.env), **agent})
    if done.returncode:
        raise Problem(
            "ssh-keygen could not sign the bundle.",
            id="bundle-sign-failed",
            evidence=venvs.tail(done.output, 4),
            remedy="name a private SSH key: --sign ~/.ssh/id_ed25519",
        )
    console.say(f"  {target}.sig")
