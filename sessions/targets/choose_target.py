"""Makes a BuildSpec from ``targets.toml`` and the options, and checks it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.shared import knowledge, programs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.errors import Problem, UsageProblem
from sessions.shared.options import Options
from sessions.targets import gpu_names, targets_file, user_cmake_options

ALL = "all"  # as --targets: every product; as --pythons: every Python version
# Options that override the field of the same name.
_OVERRIDES = ("version", "cuda", "python", "toolkit", "glibc")


def choose(targets: dict[str, BuildSpec], options: Options) -> BuildSpec:
    """The spec of a run: the target's table, overridden by the options. Raises Problem.

    Options that change what is built are added to the target name ("rtx50+arch90-real").
    """
    options, default = normalized(options), first(targets)
    name = default if options.target is None else options.target
    if name not in targets:
        words, why = gpu_names.suggest(name, targets)
        wheel = ["nox", "-s", "wheel", "--", *(words or ["--target", default])]
        raise UsageProblem(
            f"There is no target {name!r}.",
            id="target-unknown",
            evidence="\n".join([*filter(None, [why]), f"targets.toml has: {', '.join(targets)}"]),
            remedy=f"{'' if words else 'choose one of those: '}{programs.typed(wheel)}",
        )
    base = targets[name]
    archs = base.archs if options.arch is None else tuple(options.arch.split(";"))
    cmake = user_cmake_options.merged(dict(base.cmake), options.cmake)
    spec = dataclasses.replace(
        base,
        **{name: value for name in _OVERRIDES if (value := getattr(options, name)) is not None},
        archs=archs,
        budget_mb=_budget(base, archs) * user_cmake_options.growth(cmake),
        source=options.source,
        cmake=tuple(cmake.items()),
        cache=options.cache,
        compiler=options.compiler,
        prerelease=options.prerelease,
    )
    spec = _named(base, spec)
    _validate(spec, force=options.force, glibc=options.glibc)
    if spec.cuda and knowledge.toolkit(spec.cuda).bad:  # refused without --force
        spec = dataclasses.replace(spec, overrides=(*spec.overrides, "--force"))
    return spec


def first(targets: Mapping[str, BuildSpec]) -> str:
    """The default target. Raises Problem if there is none."""
    if not targets:
        raise UsageProblem(
            "targets.toml names no target.", id="targets-empty", remedy="git checkout targets.toml"
        )
    return next(iter(targets))


def normalized(options: Options) -> Options:
    """The options with --version and --arch in the form of targets.toml."""
    version, arch = options.version, options.arch
    if version == targets_file.LATEST:
        version = knowledge.newest_sdist()
    elif version and re.match(r"v\d", version, re.ASCII):
        version = version[1:]
    if arch:
        arch = ";".join(map(knowledge.cmake_arch, re.split("[;,]", arch)))
    return dataclasses.replace(options, version=version, arch=arch)


def _budget(base: BuildSpec, archs: Sequence[str]) -> int:
    """The size limit in MB: that of the table, or more if --arch asks for more GPU code."""
    if not base.archs:
        return base.budget_mb
    ours, table = (sum(1 if "-" in arch else 2 for arch in of) for of in (archs, base.archs))
    return base.budget_mb * max(ours, table) // table


def python_of(targets: Mapping[str, BuildSpec], options: Options) -> str | None:
    """The Python version of the target's table; None if it has no effect.

    A release with one wheel for every Python has none, and neither have several targets.
    """
    base = targets.get(first(targets) if options.target is None else options.target)
    if base is None:
        return None
    version = options.version or base.version
    same = options.source is None and knowledge.knows_no_python(version)
    return None if same else base.python


def virtual(spec: BuildSpec) -> list[str]:
    """The target's architectures with PTX instead of machine code: "120a-real" -> "120-virtual"."""
    return [f"{knowledge.parse_arch(arch)[0]}-virtual" for arch in spec.archs]


def ptx(targets: dict[str, BuildSpec], options: Options) -> BuildSpec:
    """The spec of ``--baseline ptx``: the run's spec with PTX instead of machine code.

    Raises Problem for a CPU target, and for a target that has only PTX: that would be the same
    target, and its build would wait forever for the lock that this run holds.
    """
    spec = choose(targets, options)
    if not spec.archs:
        raise UsageProblem(
            "A wheel for the CPU contains no PTX.",
            id="baseline-ptx-of-cpu",
            remedy="choose a CUDA target, or --baseline seed",
        )
    other = choose(targets, dataclasses.replace(options, arch=";".join(virtual(spec))))
    if other.target == spec.target:
        raise UsageProblem(
            f"{spec.target} itself contains only PTX, so --baseline ptx would compare it with "
            "itself.",
            id="baseline-is-the-target",
            remedy="leave --baseline ptx out, or --arch",
        )
    return other


def matrix(targets: dict[str, BuildSpec], options: Options) -> list[BuildSpec]:
    """The specs of all wheels that --targets and --pythons name.

    For each target, the first spec is compiled; the wheels of the others are repacked from it.
    """
    names = named(targets, options.targets or "")
    pythons = _listed("--pythons", options.pythons) if options.pythons is not None else []
    if pythons == [ALL]:
        pythons = list(knowledge.pythons())
    unknown = [python for python in pythons if python not in knowledge.pythons()]
    if unknown:
        raise _unknown_python(", ".join(unknown), "--pythons")
    specs = []
    for name in names:
        own = dataclasses.replace(options, target=name)
        specs.append(choose(targets, own))
        others = [python for python in pythons if python != specs[-1].python]
        specs += [choose(targets, dataclasses.replace(own, python=python)) for python in others]
    return specs


def named(targets: Mapping[str, BuildSpec], text: str) -> list[str]:
    """The targets that --targets names: "A,B", or "all" for every product."""
    names = _listed("--targets", text)
    return [n for n, target in targets.items() if target.product] if names == [ALL] else names


def _unknown_python(versions: str, option: str) -> Problem:
    return UsageProblem(
        f"No wheel can be built for Python {versions}.",
        id="python-unknown",
        evidence="known: " + ", ".join(knowledge.pythons()),
        remedy=f"choose one of those with {option}",
    )


def _listed(option: str, text: str) -> list[str]:
    names = list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    if not names:
        raise UsageProblem(
            f"{option} names nothing.",
            id="option-names-nothing",
            remedy=f"for example {option} " + ("3.11,3.12" if "python" in option else "rtx50,ada"),
        )
    return names


def _named(base: BuildSpec, spec: BuildSpec) -> BuildSpec:
    """The spec with the options that differ from its table in its overrides and its name."""
    cmake = [f"{name}={value}" for name, value in spec.cmake]
    rows = (
        ("version", "--version", [spec.version], f"v{spec.version}"),
        ("cuda", "--cuda", [str(spec.cuda)], f"cuda{spec.cuda}"),
        ("archs", "--arch", [";".join(spec.archs)], "arch" + "-".join(spec.archs)),
        ("python", "--python", [spec.python], f"py{spec.python}"),
        ("glibc", "--glibc", [spec.glibc], f"glibc{spec.glibc}"),
        ("toolkit", "--toolkit", [spec.toolkit], f"toolkit-{Path(spec.toolkit).name}"),
        ("source", "--source", [str(spec.source)], f"source-{_name_of_folder(spec.source)}"),
        ("cmake", "--cmake", cmake, user_cmake_options.label(dict(spec.cmake))),
    )
    changed = [row for row in rows if getattr(spec, row[0]) != getattr(base, row[0])]
    parts = [re.sub(r"[^A-Za-z0-9.-]+", "_", part) for *_, part in changed]
    overrides = tuple(
        word for _, option, values, _ in changed for value in values for word in (option, value)
    )
    return dataclasses.replace(spec, target="+".join([base.base, *parts]), overrides=overrides)


def _name_of_folder(path: str | None) -> str:
    return Path(path or "").resolve().name


def _validate(spec: BuildSpec, *, force: bool, glibc: str | None) -> None:
    if not re.fullmatch(r"3\.\d+", spec.python):
        raise UsageProblem(
            f"--python {spec.python} is not a Python version.",
            id="python-invalid",
            remedy="write it as --python 3.11",
        )
    if spec.python not in knowledge.pythons():
        raise _unknown_python(spec.python, "--python")
    if spec.source is None and spec.version not in {*knowledge.sdists(), *knowledge.OFFERED}:
        form, _ = targets_file.FORMS["version"]
        lock = f", or lock it: nox -s lock -- --add llama-cpp-python=={spec.version}"
        raise UsageProblem(
            f"llama-cpp-python {spec.version} is not locked: blackwheel does not know the hash of "
            "its files.",
            id="version-not-locked",
            evidence="locked: " + ", ".join(knowledge.sdists()),
            remedy=f"choose one of those with --version (latest is {knowledge.newest_sdist()})"
            + (lock if re.fullmatch(form, spec.version, re.ASCII) else ""),
        )
    if glibc is not None and spec.platform != "linux":
        raise UsageProblem(
            "--glibc has no effect on a wheel for Windows.",
            id="glibc-on-windows",
            remedy="leave out --glibc",
        )
    if spec.cuda is None:
        if spec.archs:
            raise UsageProblem(
                f"The target {spec.target!r} builds for the CPU, so --arch has no effect.",
                id="arch-for-cpu-target",
                remedy="choose a CUDA target, for example --target rtx50",
            )
        if spec.toolkit != "pypi":
            raise UsageProblem(
                f"The target {spec.target!r} builds for the CPU, so --toolkit has no effect on it.",
                id="cpu-target-with-toolkit",
                remedy="choose a CUDA target, or leave out --toolkit",
            )
        return
    known = knowledge.toolkit(spec.cuda)
    if known.bad and not force:
        raise UsageProblem(
            f"CUDA {spec.cuda} is refused: {known.bad}.",
            id="cuda-refused",
            remedy="use --cuda 13.1 or --cuda 13.4; to build with it anyway, add --force",
        )
    if not spec.archs:
        raise UsageProblem(
            f"The target {spec.target!r} names no GPU architecture.",
            id="target-without-arch",
            remedy="name one, for example --arch 120-real",
        )
    seen: set[str] = set()
    for arch in spec.archs:
        if seen & knowledge.compiled_to(arch):
            raise UsageProblem(
                f"Architecture {arch} is named twice.",
                id="arch-twice",
                evidence=";".join(spec.archs),
                remedy="name each once: 120 means 120-real (machine code) and 120-virtual (PTX)",
            )
        seen |= knowledge.compiled_to(arch)
        number, _, _ = knowledge.parse_arch(arch)
        if number not in known.archs:
            raise UsageProblem(
                f"CUDA {spec.cuda} cannot build architecture {arch}.",
                id="arch-not-in-cuda",
                evidence=f"it builds {', '.join(map(str, known.archs))} ({known.source})",
                remedy="choose one of those with --arch, or a newer toolkit with --cuda",
            )
