"""From ``targets.toml`` and the options to the BuildSpec."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from sessions.core import facts, run
from sessions.core.errors import USAGE, Problem
from sessions.core.model import BuildSpec
from sessions.core.options import Options

PTX = "ptx"  # a baseline: the project's own build of the target, with PTX only
_NEEDED = {"summary", "version", "archs", "python", "budget_mb"}
_KEYS = _NEEDED | {"cuda", "warning", "device_features"}


def load(text: str, platform: str) -> dict[str, BuildSpec]:
    """Every target of a ``targets.toml``, in its order. Raises Problem for a wrong table."""
    try:
        tables: dict[str, dict[str, Any]] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Problem(
            "targets.toml is not TOML.",
            id="targets-not-toml",
            code=USAGE,
            evidence=str(error),
            remedy="mend that line",
        ) from error
    specs = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise Problem(
                f"{name} in targets.toml is no table.",
                id="target-not-a-table",
                code=USAGE,
                remedy=f"write it as [{name}]",
            )
        wrong = (set(table) - _KEYS) | (_NEEDED - set(table))
        wrong |= set() if isinstance(table.get("archs"), list) else {"archs as a list"}
        if wrong:
            raise Problem(
                f"The table [{name}] of targets.toml is wrong.",
                id="target-table-invalid",
                code=USAGE,
                evidence="unknown or missing: " + ", ".join(sorted(wrong)),
                remedy="a target has " + ", ".join(sorted(_KEYS)),
            )
        specs[name] = BuildSpec(
            target=name,
            summary=table["summary"],
            version=table["version"],
            cuda=table.get("cuda"),
            archs=tuple(table["archs"]),
            python=table["python"],
            platform=platform,
            warning=table.get("warning"),
            budget_mb=table["budget_mb"],
            device_features=tuple(table.get("device_features", ())),
        )
    return specs


def choose(targets: dict[str, BuildSpec], options: Options) -> BuildSpec:
    """The spec of a run: the target, the options laid over it, and judged.

    A spec that differs from its table in what it builds gets a name of its own
    ("rtx50+arch90-real"), so that it never passes for the target it came from.
    """
    if not targets:
        raise Problem(
            "targets.toml names no target.",
            id="targets-empty",
            code=USAGE,
            remedy="git checkout targets.toml",
        )
    name = options.target or next(iter(targets))
    if name not in targets:
        raise Problem(
            f"There is no target {name!r}.",
            id="target-unknown",
            code=USAGE,
            evidence="targets.toml has: " + ", ".join(targets),
            remedy=f"choose one of those: nox -s wheel -- --target {next(iter(targets))}",
        )
    base = targets[name]
    spec = dataclasses.replace(
        base,
        version=options.version or base.version,
        cuda=options.cuda or base.cuda,
        archs=tuple(re.split("[;,]", options.arch)) if options.arch else base.archs,
        python=options.python or base.python,
        toolkit=options.toolkit or base.toolkit,
        source=options.source,
        cache=options.cache,
        compiler=options.compiler,
        prerelease=options.prerelease,
    )
    label = "+".join([name, *_differences(base, spec)])
    spec = dataclasses.replace(spec, target=label)
    _judge(spec, force=options.force)
    return spec


def virtual(spec: BuildSpec) -> list[str]:
    """The target's architectures with PTX instead of machine code: "120a-real" -> "120-virtual"."""
    return [f"{facts.parse_arch(arch)[0]}-virtual" for arch in spec.archs]


def ptx(targets: dict[str, BuildSpec], options: Options) -> BuildSpec:
    """The spec of ``--baseline ptx``: what a run builds, with PTX instead of machine code.

    Raises Problem where there is none, or where it would be the run's own target, which a second
    build would wait for without end.
    """
    spec = choose(targets, options)
    if not spec.archs:
        raise Problem(
            "A wheel for the CPU contains no PTX.",
            id="baseline-ptx-of-cpu",
            code=USAGE,
            remedy="choose a CUDA target, or --baseline seed",
        )
    other = choose(targets, dataclasses.replace(options, arch=";".join(virtual(spec))))
    if other.target == spec.target:
        raise Problem(
            f"The baseline {PTX} of {spec.target} is that target itself.",
            id="baseline-is-the-target",
            code=USAGE,
            remedy="leave --baseline ptx out, or --arch",
        )
    return other


def matrix(targets: dict[str, BuildSpec], options: Options) -> list[BuildSpec]:
    """The specs of every wheel that --targets and --pythons name.

    Of each target first the one that is built: by its own Python, or --python.
    """
    if options.target:
        raise Problem(
            "The session matrix takes --targets.",
            id="matrix-takes-targets",
            code=USAGE,
            remedy=f"--targets {options.target}",
        )
    names = _listed("--targets", options.targets or "")
    pythons = _listed("--pythons", options.pythons) if options.pythons is not None else []
    unknown = [python for python in pythons if python not in facts.pythons()]
    if unknown:
        raise Problem(
            f"There is no Python {', '.join(unknown)} that a wheel could be for.",
            id="python-unknown",
            code=USAGE,
            evidence="known: " + ", ".join(facts.pythons()),
            remedy="choose of those with --pythons",
        )
    found = []
    for name in names:
        built = choose(targets, dataclasses.replace(options, target=name))
        found.append(built)
        for python in pythons:
            if python != built.python:
                asked = dataclasses.replace(options, target=name, python=python)
                found.append(choose(targets, asked))
    return found


def _listed(option: str, text: str) -> list[str]:
    found = list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    if not found:
        raise Problem(
            f"{option} names nothing.",
            id="option-names-nothing",
            code=USAGE,
            remedy="nox -s matrix -- --targets rtx50,ada --pythons 3.11,3.12",
        )
    return found


def _differences(base: BuildSpec, spec: BuildSpec) -> list[str]:
    parts = []
    if spec.version != base.version:
        parts.append(f"v{spec.version}")
    if spec.cuda != base.cuda:
        parts.append(f"cuda{spec.cuda}")
    if spec.archs != base.archs:
        parts.append("arch" + "-".join(spec.archs))
    if spec.python != base.python:
        parts.append(f"py{spec.python}")
    if spec.toolkit != base.toolkit:
        parts.append("toolkit-" + Path(spec.toolkit).name)
    if spec.source:
        parts.append("source-" + Path(spec.source).resolve().name)
    return [re.sub(r"[^A-Za-z0-9.-]+", "_", part) for part in parts]


def command(session: str, spec: BuildSpec, *more: str) -> str:
    """The command line that runs a session for this very spec."""
    name, *parts = spec.target.split("+")
    words = ["nox", "-s", session, "--", "--target", name]
    for prefix, option, value in (
        ("v", "--version", spec.version),
        ("cuda", "--cuda", spec.cuda),
        ("arch", "--arch", ";".join(spec.archs)),
        ("py", "--python", spec.python),
        ("toolkit-", "--toolkit", spec.toolkit),
        ("source-", "--source", spec.source),
    ):
        if value and any(part.startswith(prefix) for part in parts):
            words += [option, value]
    return run.typed([*words, *more])


def _judge(spec: BuildSpec, *, force: bool) -> None:
    if not re.fullmatch(r"3\.\d+", spec.python):
        raise Problem(
            f"--python {spec.python} is not a Python version.",
            id="python-invalid",
            code=USAGE,
            remedy="write it as --python 3.11",
        )
    if spec.source is None and spec.version not in facts.sdists():
        raise Problem(
            f"llama-cpp-python {spec.version} is not locked here.",
            id="version-not-locked",
            code=USAGE,
            evidence="locked: " + ", ".join(facts.sdists()),
            remedy="choose one of those, or lock it: nox -s lock -- --add "
            f"llama-cpp-python=={spec.version}",
        )
    if spec.cuda is None:
        if spec.archs:
            raise Problem(
                f"The target {spec.target!r} builds for the CPU, so --arch means nothing to it.",
                id="arch-for-cpu-target",
                code=USAGE,
                remedy="choose a CUDA target, for example --target rtx50",
            )
        return
    known = facts.toolkit(spec.cuda)
    if known.bad and not force:
        raise Problem(
            f"CUDA {spec.cuda} is refused: {known.bad}.",
            id="cuda-refused",
            code=USAGE,
            remedy="use --cuda 13.1 or --cuda 13.4; to build with it all the same, add --force",
        )
    if not spec.archs:
        raise Problem(
            f"The target {spec.target!r} names no GPU architecture.",
            id="target-without-arch",
            code=USAGE,
            remedy="name one, for example --arch 120-real",
        )
    for arch in spec.archs:
        number, _, _ = facts.parse_arch(arch)
        if number not in known.archs:
            raise Problem(
                f"CUDA {spec.cuda} cannot build architecture {arch}.",
                id="arch-not-in-cuda",
                code=USAGE,
                evidence=f"it builds {', '.join(map(str, known.archs))} ({known.source})",
                remedy="choose one of those with --arch, or a newer toolkit with --cuda",
            )
