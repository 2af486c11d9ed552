"""From ``targets.toml`` and the options to the BuildSpec."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from sessions.payload import gpu
from sessions.shared import cmake_options, knowledge, programs, records
from sessions.shared.errors import USAGE, Problem
from sessions.shared.options import Options
from sessions.shared.target import GLIBCS, BuildSpec


@dataclass(frozen=True)
class Table:
    """A table of ``targets.toml``, with the fields of BuildSpec that it may set."""

    summary: str
    version: str
    archs: tuple[str, ...]
    python: str
    budget_mb: int
    cuda: str | None = None
    glibc: str = "2.28"
    warning: str | None = None
    device_features: tuple[str, ...] = ()
    cmake: dict[str, str] = dataclasses.field(default_factory=dict)
    product: bool = True


DEFAULTS = "defaults"  # the table of what targets inherit; no target
ALL = "all"  # as --targets and --pythons: every one that is a product
AUTO = "auto"  # as --target: the target for the GPUs of this machine
LATEST = "latest"  # as --version: the newest release of the package index
_INHERITED = ("version", "cuda", "python", "glibc")  # what [defaults] may set
# Over the table, where an option is given.
_LAID_OVER = ("version", "cuda", "python", "toolkit", "glibc")
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
    inherited = tables.pop(DEFAULTS, {})
    specs = {}
    for name, value in {DEFAULTS: inherited, **tables}.items():
        if not isinstance(value, dict):
            raise Problem(
                f"{name} in targets.toml is not a table.",
                id="target-not-a-table",
                code=USAGE,
                remedy=f"write it as [{name}]",
            )
        if name == DEFAULTS:
            if unknown := set(value) - set(_INHERITED):
                raise _wrong(name, f"{name}: {', '.join(sorted(unknown))} cannot be inherited")
            continue
        try:
            own = {**inherited, **value}
            table: Table = records.from_json(Table, own, whole=False, name=name)
        except ValueError as error:
            raise _wrong(name, str(error)) from error
        if table.version == LATEST:
            table = dataclasses.replace(table, version=knowledge.newest_sdist())
        if faults := [*_name_faults(name), *_faults(table)]:
            raise _wrong(name, "\n".join(f"{name}{fault}" for fault in faults))
        cmake = tuple(sorted(table.cmake.items()))
        fields = {**vars(table), "cmake": cmake}
        specs[name] = BuildSpec(target=name, platform=platform, **fields)
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
    if table.glibc not in GLIBCS:
        yield f".glibc: {table.glibc!r:.60} is not one of {', '.join(GLIBCS)}"
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
    for name, text in table.cmake.items():
        if why := cmake_options.refusal(name, text):
            yield f".cmake: {name} = {text!r:.60} is refused: {why}"
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
    options = normal(options)
    name = first(targets) if options.target is None else options.target
    if name not in targets:
        raise Problem(
            f"There is no target {name!r}.",
            id="target-unknown",
            code=USAGE,
            evidence="\n".join([*near(name, targets), "targets.toml has: " + ", ".join(targets)]),
            remedy=f"choose one of those: nox -s wheel -- --target {next(iter(targets))}",
        )
    base = targets[name]
    archs = base.archs if options.arch is None else tuple(options.arch.split(";"))
    cmake = cmake_options.merged(dict(base.cmake), options.cmake)
    spec = dataclasses.replace(
        base,
        **{name: value for name in _LAID_OVER if (value := getattr(options, name)) is not None},
        archs=archs,
        budget_mb=_budget(base, archs) * cmake_options.growth(cmake),
        source=options.source,
        cmake=tuple(cmake.items()),
        cache=options.cache,
        compiler=options.compiler,
        prerelease=options.prerelease,
    )
    label = "+".join([name, *_differences(base, spec)])
    spec = dataclasses.replace(spec, target=label)
    _judge(spec, force=options.force, glibc=options.glibc)
    return spec


def first(targets: Mapping[str, BuildSpec]) -> str:
    """The default target. Raises Problem where there is none."""
    if not targets:
        raise Problem(
            "targets.toml names no target.",
            id="targets-empty",
            code=USAGE,
            remedy="git checkout targets.toml",
        )
    return next(iter(targets))


def normal(options: Options) -> Options:
    """The options with --version and --arch as targets.toml writes them."""
    version, arch = options.version, options.arch
    if version == LATEST:
        version = knowledge.newest_sdist()
    elif version and re.match(r"v\d", version, re.ASCII):
        version = version[1:]
    if arch:
        arch = ";".join(map(knowledge.arch_named, re.split("[;,]", arch)))
    return dataclasses.replace(options, version=version, arch=arch)


def _budget(base: BuildSpec, archs: Sequence[str]) -> int:
    """The table's budget, larger by as much as there is more GPU code than the table asks for."""
    if not base.archs:
        return base.budget_mb
    now, then = (sum(1 if "-" in arch else 2 for arch in of) for of in (archs, base.archs))
    return base.budget_mb * max(now, then) // then


@dataclass(frozen=True)
class Fit:
    """What builds one wheel that runs on several kinds of GPU."""

    target: str
    arch: str | None  # None: as the target has it
    cuda: str | None  # None: as the target has it
    served: bool  # whether each kind of GPU has a target of its own

    @property
    def words(self) -> list[str]:
        """The options of a command line."""
        named = (("--target", self.target), ("--arch", self.arch), ("--cuda", self.cuda))
        return [word for option, value in named if value for word in (option, value)]

    def command(self, session: str) -> str:
        """The command line that runs a session for it."""
        return programs.typed(["nox", "-s", session, "--", *self.words])


def fit(
    targets: Mapping[str, BuildSpec], capabilities: Iterable[str], cuda: str | None = None
) -> Fit | None:
    """What builds for GPUs of these compute capabilities ("8.9"); None where no CUDA can.

    The targets are taken in their order, so that the same GPUs give the same wheel whatever slots
    they are in. ``cuda`` is the release line that was asked for.
    """
    kinds = sorted(set(capabilities), key=_number, reverse=True)
    serving = {kind: _serving(targets, kind) for kind in kinds}
    names = [name for name in targets if name in serving.values()]
    target = names[0] if names else first(targets)
    archs = [arch for name in names for arch in targets[name].archs]
    archs += [f"{_number(kind)}-real" for kind in kinds if not serving[kind]]
    own = targets[target].cuda
    known = knowledge.toolkits()
    others = [n for n, row in known.items() if not row.bad and knowledge.is_locked(n)]
    lines = [cuda] if cuda else [own, *others]
    numbers = {_number(arch.partition("-")[0]) for arch in archs}
    able = [n for n in lines if n and numbers <= set(knowledge.toolkit(n).archs)]
    if not able:
        return None
    return Fit(
        target=target,
        arch=None if tuple(archs) == targets[target].archs else ";".join(archs),
        cuda=None if able[0] == own else able[0],
        served=all(serving.values()),
    )


def _serving(targets: Mapping[str, BuildSpec], capability: str) -> str | None:
    """The target that is chosen for a GPU; only one that has plain machine code, and no warning."""
    plain = {
        name: target.archs
        for name, target in targets.items()
        if target.cuda
        and not target.warning
        and all(knowledge.parse_arch(arch)[1:] == ("", "real") for arch in target.archs)
    }
    own = [name for name, archs in plain.items() if f"{_number(capability)}-real" in archs]
    able = [name for name, archs in plain.items() if knowledge.has_code(archs, capability)]
    return next(iter([*own, *able]), None)


def _number(capability: str) -> int:
    return int(capability.replace(".", ""))


def auto(
    targets: Mapping[str, BuildSpec],
    options: Options,
    nvml: Mapping[str, Any],
    visible: str | None = None,
) -> tuple[Options, str]:
    """The options of ``--target auto`` with a target in its place, and what was chosen and why.

    ``nvml`` is what NVML answered, ``visible`` is CUDA_VISIBLE_DEVICES where it is set: a GPU that
    it hides does not count. Raises Problem for a GPU that has no target.
    """
    if options.arch is not None:
        raise Problem(
            "--arch and --target auto both choose the GPU architecture; only one can be given.",
            id="auto-with-arch",
            code=USAGE,
            remedy="leave out --arch, or --target auto",
        )
    devices: list[dict[str, Any]] = list(nvml.get("devices", ()))
    why = f"NVIDIA's driver does not answer here ({nvml['error']})" if "error" in nvml else ""
    if nvml.get("error") == gpu.NO_DRIVER:
        why = "no NVIDIA driver is installed here"
    if not why and not devices:
        why = "there is no NVIDIA GPU here"
    if not why and visible is not None:
        devices = gpu.within(devices, visible)
        why = "" if devices else f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
    if why:
        name = first(targets)
        return dataclasses.replace(options, target=name), f"target auto: {name}, because {why}"
    gpus = {f"{d['name']} ({d['compute_capability']})": d["compute_capability"] for d in devices}
    lacking = [name for name, kind in gpus.items() if not _serving(targets, kind)]
    if lacking:
        raise _without_target(targets, options, gpus, lacking)
    found = fit(targets, gpus.values(), options.cuda)
    if found is None:  # --cuda names a release that cannot: choose says so
        found = fit(targets, gpus.values())
        assert found is not None
    told = found.target + (f" with --arch {found.arch}" if found.arch else "")
    chosen = dataclasses.replace(
        options, target=found.target, arch=found.arch, cuda=options.cuda or found.cuda
    )
    return chosen, f"target auto: {told}, for {' and '.join(gpus)}"


def _without_target(
    targets: Mapping[str, BuildSpec],
    options: Options,
    gpus: Mapping[str, str],
    lacking: Sequence[str],
) -> Problem:
    names = ", ".join(lacking)
    able = fit(targets, gpus.values(), options.cuda) or fit(targets, gpus.values())
    if able:
        evidence = "the CUDA version can build for it without a target of its own"
        remedy = able.command("wheel")
    else:
        known = knowledge.toolkits()
        majors = " and ".join(sorted({line.partition(".")[0] for line in known}))
        has = sorted({number for row in known.values() for number in row.archs})
        evidence = f"CUDA {majors} cannot build for it: it builds for compute capability " + (
            ", ".join(f"{number // 10}.{number % 10}" for number in has)
        )
        rest = [kind for name, kind in gpus.items() if name not in lacking]
        others = fit(targets, rest) if rest else None
        cpu = next((name for name, target in targets.items() if target.cuda is None), None)
        remedy = (
            "for an older GPU, build llama-cpp-python from source with CUDA 12, not with blackwheel"
        )
        if others:
            remedy = f"build for the other GPUs: {others.command('wheel')}"
        elif cpu:
            typed = programs.typed(["nox", "-s", "wheel", "--", "--target", cpu])
            remedy += f"; for the CPU: {typed}"
    return Problem(
        f"There is no target for {names}.",
        id="gpu-without-target",
        evidence=evidence,
        remedy=remedy,
    )


def python_of(targets: Mapping[str, BuildSpec], options: Options) -> str | None:
    """The Python that the target's own table is for; None where that decides nothing.

    It decides nothing for a release whose wheel is for every Python, and of several targets.
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
            f"{spec.target} contains only PTX itself, so --baseline ptx would compare it with "
            "itself.",
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
    names = named(targets, options.targets or "")
    pythons = _listed("--pythons", options.pythons) if options.pythons is not None else []
    if pythons == [ALL]:
        pythons = list(knowledge.pythons())
    unknown = [python for python in pythons if python not in knowledge.pythons()]
    if unknown:
        raise _unknown_python(", ".join(unknown), "--pythons")
    found = []
    for name in names:
        built = choose(targets, dataclasses.replace(options, target=name))
        found.append(built)
        for python in pythons:
            if python != built.python:
                asked = dataclasses.replace(options, target=name, python=python)
                found.append(choose(targets, asked))
    return found


def named(targets: Mapping[str, BuildSpec], text: str) -> list[str]:
    """The targets that --targets names: "A,B", or "all" for every one that is a product."""
    names = _listed("--targets", text)
    return [n for n, target in targets.items() if target.product] if names == [ALL] else names


def _unknown_python(versions: str, option: str) -> Problem:
    return Problem(
        f"No wheel can be built for Python {versions}.",
        id="python-unknown",
        code=USAGE,
        evidence="known: " + ", ".join(knowledge.pythons()),
        remedy=f"choose one of those with {option}",
    )


def _listed(option: str, text: str) -> list[str]:
    found = list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    if not found:
        raise Problem(
            f"{option} names nothing.",
            id="option-names-nothing",
            code=USAGE,
            remedy=f"for example {option} " + ("3.11,3.12" if "python" in option else "rtx50,ada"),
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
    if spec.glibc != base.glibc:
        parts.append(f"glibc{spec.glibc}")
    if spec.toolkit != base.toolkit:
        parts.append("toolkit-" + Path(spec.toolkit).name)
    if spec.source:
        parts.append("source-" + Path(spec.source).resolve().name)
    if spec.cmake != base.cmake:
        parts.append(cmake_options.label(dict(spec.cmake)))
    return [re.sub(r"[^A-Za-z0-9.-]+", "_", part) for part in parts]


def _judge(spec: BuildSpec, *, force: bool, glibc: str | None) -> None:
    if not re.fullmatch(r"3\.\d+", spec.python):
        raise Problem(
            f"--python {spec.python} is not a Python version.",
            id="python-invalid",
            code=USAGE,
            remedy="write it as --python 3.11",
        )
    if spec.python not in knowledge.pythons():
        raise _unknown_python(spec.python, "--python")
    if spec.source is None and spec.version not in {*knowledge.sdists(), *knowledge.OFFERED}:
        form, _ = _FORMS["version"]
        lock = f", or lock it: nox -s lock -- --add llama-cpp-python=={spec.version}"
        raise Problem(
            f"llama-cpp-python {spec.version} is not one of the releases that blackwheel has "
            "locked: their files are known by hash.",
            id="version-not-locked",
            code=USAGE,
            evidence="locked: " + ", ".join(knowledge.sdists()),
            remedy=f"choose one of those with --version ({LATEST} is {knowledge.newest_sdist()})"
            + (lock if re.fullmatch(form, spec.version, re.ASCII) else ""),
        )
    if glibc is not None and spec.platform != "linux":
        raise Problem(
            "--glibc has no effect on a wheel for Windows.",
            id="glibc-on-windows",
            code=USAGE,
            remedy="leave out --glibc",
        )
    if spec.cuda is None:
        if spec.archs:
            raise Problem(
                f"The target {spec.target!r} builds for the CPU, so --arch has no effect.",
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
            remedy="use --cuda 13.1 or --cuda 13.4; to build with it anyway, add --force",
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
