"""One file that proves a wheel on another machine: the wheel, what it needs, and the proofs."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from pathlib import Path

from sessions.core import baseline, console, facts, job, options, pyenv, records, run
from sessions.core.context import Context
from sessions.core.errors import Problem
from sessions.core.model import Wheel

# NVIDIA's runtime and what it requires: brought by pip or found on the other machine; 0.6 GB.
RUNTIME = re.compile(r"nvidia[-_]", re.IGNORECASE)


def main(ctx: Context) -> None:
    """Write ``wheels/<target>/smoke-<target>.pyz``."""
    wheel = records.need(ctx.record("wheel"), "wheel", Wheel)
    path = ctx.wheels / wheel.file
    others = baseline.wheels(ctx)
    target = ctx.wheels / f"smoke-{ctx.spec.target}.pyz"
    with tempfile.TemporaryDirectory(prefix="blackwheel-") as name:
        folder, scratch = Path(name) / "bundle", Path(name) / "scratch"
        _collect(ctx, wheel, path, folder / "wheels", scratch)
        words = ["install", "--no-deps", "--require-hashes", "--target", str(folder / "nvml")]
        lock = scratch / "nvml.txt"
        records.write_text(lock, _requirement("nvidia-ml-py"))
        pyenv.pip(ctx, pyenv.tools(ctx), [*words, "-r", str(lock)], "nvidia-ml-py")
        records.write_text(folder / "manifest.json", json.dumps(manifest(ctx, wheel), indent=1))
        part = target.with_name(f".{target.name}.part")
        try:
            pack(folder, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    target.with_name(target.name + ".sig").unlink(missing_ok=True)  # of the bundle before
    if ctx.options.sign:
        _sign(ctx, target, ctx.options.sign)
    console.say(f"  {target}")
    console.say(f"  on the machine with the card: python{ctx.spec.python} {target.name}")
    if others:
        given = " ".join(f"--baseline {other.parent.name}/{other.name}" for other in others)
        console.say(f"  to measure there: python{ctx.spec.python} {target.name} --bench {given}")
        for other in others:
            console.say(f"  and take along, in its folder: {other}")
    console.done(
        f"bundle: {target.stat().st_size / 1e6:.1f} MB, sha256 {records.file_sha256(target)}"
    )


def manifest(ctx: Context, wheel: Wheel) -> dict[str, object]:
    """What the bundle's program is told."""
    platform = "win_amd64" if ctx.spec.platform == "windows" else "linux_x86_64"
    return {
        "target": ctx.spec.target,
        "python": ctx.spec.python,
        "platforms": [platform],
        "driver": facts.toolkit(ctx.spec.cuda).driver if ctx.spec.cuda else 0,
        "runtime": [need for need in wheel.requires if RUNTIME.match(need)],
        "capabilities": job.capabilities(ctx.spec),
        "job": job.job(ctx.spec, file=wheel.file, sha256=wheel.sha256, version=wheel.version),
    }


def _collect(ctx: Context, wheel: Wheel, path: Path, folder: Path, scratch: Path) -> None:
    """The wheel, and all that it and the payload import but NVIDIA's runtime, as wheels."""
    console.say("Collecting what the wheel and its proofs need")
    tools = pyenv.tools(ctx)
    plan = scratch / "plan.json"
    scratch.mkdir()
    words = ["install", "--dry-run", "--ignore-installed", "--report", str(plan), str(path)]
    pyenv.pip(ctx, tools, words, "the wheel's requirements")
    for item in json.loads(plan.read_text(encoding="utf-8"))["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if RUNTIME.match(name) or item["download_info"]["url"].startswith(path.resolve().as_uri()):
            continue
        pin = f"{name}=={version}"
        words = ["download", "--no-deps", "--only-binary=:all:", "-d", str(folder), pin]
        pyenv.pip(ctx, tools, words, pin)
    words = ["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(folder)]
    pyenv.pip(ctx, tools, [*words, "-r", str(facts.payload_lock())], "what the proofs need")
    (folder / wheel.file).write_bytes(path.read_bytes())


def _requirement(name: str) -> str:
    """The lines of one package in the lock of what the sessions import."""
    text = (facts.FACTS / "runtime.txt").read_text(encoding="utf-8")
    match = re.search(rf"^{name}==.*(?:\n    .*)*", text, re.MULTILINE)
    assert match is not None
    return match[0] + "\n"


def pack(folder: Path, target: Path) -> None:
    """Write the bundle: a zip that Python runs, the payload's ``launch.py`` its program."""
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
            archive.write(job.PAYLOAD / "launch.py", "__main__.py")


def _sign(ctx: Context, target: Path, key: str) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "blackwheel", str(target)]
    done = run.capture(command, env=options.pip_environment(ctx.env))
    if done.returncode:
        raise Problem(
            "ssh-keygen could not sign the bundle.",
            id="bundle-sign-failed",
            evidence=pyenv.tail(done.output, 4),
            remedy="name a private SSH key: --sign ~/.ssh/id_ed25519",
        )
    console.say(f"  {target}.sig")
