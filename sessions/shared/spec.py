"""From ``targets.toml`` and the options to the BuildSpec."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from sessions.shared import knowledge, programs, records
from sessions.shared.errors import USAGE, Problem
from sessions.shared.options import Options
from sessions.shared.target import BuildSpec


@dataclass(frozen=True)
class Table:
    """A table of ``targets.toml``, with the fields of BuildSpec that it may set."""

    summary: str
    version: str
    archs: tuple[str, ...]
    python: str
    budget_mb: int
    cuda: str | None = None
    warning: str | None = None
    device_features: tuple[str, ...] = ()


_LAID_OVER = ("version", "cuda", "python", "toolkit")  # over the table, where an option is given
# What dist/ has beside a folder for each target (release/index/builder.py).
_TAKEN = re.compile(r"simple|cu\d+-.*")
_FORMS = {
    "version": (r"\d+(\.\d+)+[a-z0-9.]*", "0.3.16"),
    "cuda": (r"\d+\.\d+", "13.1"),
    "python": (r"3\.\d+", "3.11"),
}


def load(text: str, platform: str) -> dict[str, BuildSpec]:
    """Every target of a ``targets.toml``, in its order.

    Raises Problem for a wrong table, which says all that is wrong with it. Whether a CUDA release
    has an architecture, or a version is locked, is asked of the chosen target only.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(
            "targets.toml is not TOML.",
            id="targets-not-toml",
            code=USAGE,
            evidence=str(error),
            remedy="correct that line",
        ) from error
    specs = {}
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise Problem(
                f"{name} in targets.toml is not a table.",
                id="target-not-a-table",
                code=USAGE,
                remedy=f"write it as [{name}]",
            )
        try:
            table: Table = records.from_json(Table, value, whole=False, name=name)
        except ValueError as error:
            raise _wrong(name, str(error)) from error
        if faults := [*_name_faults(name), *_faults(table)]:
            raise _wrong(name, "\n".join(f"{name}{fault}" for fault in faults))
        specs[name] = BuildSpec(target=name, platform=platform, **vars(table))
    return specs


def _wrong(name: str, faults: str) -> Problem:
    needed = [field.name for field in dataclasses.fields(Table)]
    return Problem(
        f"The table [{name}] of targets.toml is wrong.",
        id="target-table-invalid",
        code=USAGE,
        evidence=faults,
        remedy=f"a target has {', '.join(needed)}; the comment in targets.toml says what they are",
    )


def _name_faults(name: str) -> Iterator[str]:
    """A target's name is that of folders, and of options: "+" begins what differs from a table."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or len(name) > 40:
        yield ": a name is of a-z, 0-9 and - between them, and no longer than 40"
    elif PureWindowsPath(name).is_reserved():
        yield ": Windows has no folder of this name"
    elif _TAKEN.fullmatch(name):
        yield ": dist/ has a folder of this name for the package index"


def _faults(table: Table) -> Iterator[str]:
    for field, (form, example) in _FORMS.items():
        value = getattr(table, field)
        if value is not None and (not re.fullmatch(form, value, re.ASCII) or len(value) > 40):
            yield f".{field}: {value!r:.60} is not written as {example!r}"
    for field in ("summary", "warning"):
        if getattr(table, field) is not None and not getattr(table, field).strip():
            yield f".{field}: it is empty"
    if table.budget_mb < 0:
        yield f".budget_mb: {table.budget_mb} is less than nothing"
    if table.cuda is not None and not table.archs:
        yield ".archs: it is empty, and the target has a cuda"
    if table.archs and table.cuda is None:
        yield ".archs: it is for a target with a cuda"
    if table.device_features and table.cuda is None:
        yield ".device_features: it is for a target with a cuda"
    for field in ("archs", "device_features"):
        items = getattr(table, field)
        yield from (f".{field}[{n}]: it is empty" for n, item in enumerate(items) if not item)
        twice = {item for item in items if items.count(item) > 1}
        yield from (f".{field}: {item!r} is there twice" for item in sorted(twice))
    for arch in filter(None, table.archs):
        try:
            knowledge.parse_arch(arch)
        except Problem as problem:
            yield f".archs: {problem.what}"


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
    name = next(iter(targets)) if options.target is None else options.target
    if name not in targets:
        raise Problem(
            f"There is no target {name!r}.",
            id="target-unknown",
            code=USAGE,
            evidence="\n".join([*near(name, targets), "targets.toml has: " + ", ".join(targets)]),
            remedy=f"choose one of those: nox -s wheel -- --target {next(iter(targets))}",
        )
    base = targets[name]
    spec = dataclasses.replace(
        base,
        **{name: value for name in _LAID_OVER if (value := getattr(options, name)) is not None},
        archs=base.archs if options.arch is None else tuple(re.split("[;,]", options.arch)),
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
    return [f"{knowledge.parse_arch(arch)[0]}-virtual" for arch in spec.archs]


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
            f"The baseline ptx of {spec.target} is that target itself.",
            id="baseline-is-the-target",
            code=USAGE,
            remedy="leave --baseline ptx out, or --arch",
        )
    return other


def near(name: str, targets: Iterable[str]) -> list[str]:
    """The target that a wrong name was probably meant as, as a line; none where there is none."""
    found = difflib.get_close_matches(name.lower(), list(targets), 1)
    return [f"did you mean {found[0]}?"] if found else []


def matrix(targets: dict[str, BuildSpec], options: Options) -> list[BuildSpec]:
    """The specs of every wheel that --targets and --pythons name.

    Of each target first the one that is built: by its own Python, or --python.
    """
    names = _listed("--targets", options.targets or "")
    pythons = _listed("--pythons", options.pythons) if options.pythons is not None else []
    unknown = [python for python in pythons if python not in knowledge.pythons()]
    if unknown:
        raise Problem(
            f"There is no Python {', '.join(unknown)} that a wheel could be for.",
            id="python-unknown",
            code=USAGE,
            evidence="known: " + ", ".join(knowledge.pythons()),
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
    return programs.typed([*words, *more])


def _judge(spec: BuildSpec, *, force: bool) -> None:
    if not re.fullmatch(r"3\.\d+", spec.python):
        raise Problem(
            f"--python {spec.python} is not a Python version.",
            id="python-invalid",
            code=USAGE,
            remedy="write it as --python 3.11",
        )
    if spec.source is None and spec.version not in knowledge.sdists():
        raise Problem(
            f"llama-cpp-python {spec.version} is not locked here.",
            id="version-not-locked",
            code=USAGE,
            evidence="locked: " + ", ".join(knowledge.sdists()),
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
        if spec.toolkit != "pypi":
            raise Problem(
                f"The target {spec.target!r} builds for the CPU, so --toolkit has no effect on it.",
                id="cpu-target-with-toolkit",
                code=USAGE,
                remedy="choose a CUDA target, or leave out --toolkit",
            )
        return
    known = knowledge.toolkit(spec.cuda)
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
    seen: set[str] = set()
    for arch in spec.archs:
        if seen & knowledge.compiled_to(arch):
            raise Problem(
                f"Architecture {arch} is named twice.",
                id="arch-twice",
                code=USAGE,
                evidence=";".join(spec.archs),
                remedy="name each once: 120 is both 120-real (machine code) and 120-virtual (PTX)",
            )
        seen |= knowledge.compiled_to(arch)
        number, _, _ = knowledge.parse_arch(arch)
        if number not in known.archs:
            raise Problem(
                f"CUDA {spec.cuda} cannot build architecture {arch}.",
                id="arch-not-in-cuda",
                code=USAGE,
                evidence=f"it builds {', '.join(map(str, known.archs))} ({known.source})",
                remedy="choose one of those with --arch, or a newer toolkit with --cuda",
            )
