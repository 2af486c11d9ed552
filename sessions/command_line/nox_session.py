"""From a nox session to a stage: what the stage is told, and how its errors reach nox."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import re
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import nox
import platformdirs

from sessions.command_line import (
    help_text,
    nox_arguments,
    option_values,
    parse_options,
    session_order,
)
from sessions.command_line.nox_arguments import Request
from sessions.payload import gpu, pipconfig
from sessions.shared import (
    added_releases,
    bootstrap,
    child_environment,
    console,
    disk,
    in_use,
    knowledge,
    programs,
    remedies,
)
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import BUG, REPORT, USAGE, Problem
from sessions.shared.machine import has_python, real
from sessions.shared.options import Options
from sessions.targets import auto_target, spec, targets_file

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
MANY = ("release", "publish")  # sessions that take several targets (--target A,B), one by one
OF_NO_TARGET = ("index", "lock")  # wait for no target
MATRIX = "matrix"  # takes --targets and --pythons: every wheel that these name
_failed: list[int] = []  # the exit codes of the sessions that failed in this process


def main(root: Path) -> NoReturn:
    """Check the whole command line, have nox run it, and end with the code of what failed.

    nox by itself ends with 1 whatever failed.
    """
    code = _prepared()
    if code is not None:
        sys.exit(code)
    # nox takes a noxfile from the current folder, which the user chose.
    noxfile = str(root / "noxfile.py")
    sys.argv = [noxfile, "-f", noxfile, *bootstrap.arguments(sys.argv[1:])]
    quiet = is_quiet(sys.argv[3:])
    logging.getLogger("nox").addFilter(functools.partial(_worth_saying, quiet=quiet))
    try:
        nox.main()
    except SystemExit as end:
        sys.exit(exit_code(end.code))
    sys.exit(0)


def is_quiet(words: Sequence[str]) -> bool:
    """Whether a command runs only sessions of ours, which say themselves how they end, without -v.

    ``words`` is the command line without its program.
    """
    request = nox_arguments.read(words, child_environment.environment())
    before = words[: words.index("--")] if "--" in words else words
    ours = request.runs and request.sessions == request.stages
    return ours and not {"-v", "--verbose"} & set(before)


def _worth_saying(record: logging.LogRecord, *, quiet: bool) -> bool:
    """Whether to print a line of nox's: not that uv is absent, which nothing here needs.

    Where it is ``quiet``: nor that a session runs, nor that it was successful.
    """
    if record.levelno >= logging.WARNING:
        return True
    return not quiet and record.getMessage() != "uv binary not found."


def exit_code(of_nox: str | int | None) -> str | int | None:
    """The exit code of a run that nox ends with ``of_nox``: that of the session that failed."""
    return _failed[-1] if of_nox == 1 and _failed else of_nox


def _prepared() -> int | None:
    """The exit code of a command that ends before nox does anything; None where nox goes on."""
    try:
        request = nox_arguments.read(sys.argv[1:], child_environment.environment())
        if request.help:
            sessions = {name: each.__doc__ or "" for name, each in nox.registry.get().items()}
            console.say(help_text.overview(sessions, _targets()))
            return 0
        if not request.runs or not request.stages:
            return None
        chosen = _chosen(request, Path.cwd())
        if chosen.help:
            console.say(help_text.text(request.stages, _targets()))
            return 0
        specs = {name: _specs(name, chosen) for name in request.stages}
        if option_values.PTX in chosen.baseline:
            spec.ptx(_targets(), chosen)
        for name in {"smoke", "bench"} & set(specs):
            _early(chosen, specs[name][0])
        if "ops" in specs:
            _early_ops(chosen, specs["ops"][0])
    except Problem as problem:
        console.problem(problem)
        return problem.code
    except Exception as error:
        bug = _bug("start", error)
        console.problem(bug)
        return bug.code
    return None


def stage(session: nox.Session, work: Callable[[Context], None]) -> None:
    """Run one stage. Every error of the project becomes nox's here, and only here."""
    programs.ended_by_signals(_terminated)
    try:
        request = nox_arguments.read(sys.argv[1:], child_environment.environment())
        request = dataclasses.replace(request, words=tuple(session.posargs))
        chosen = _chosen(request, Path(session.invoked_from))
        if chosen.help:  # of a nox that was started past main
            console.say(help_text.text([session.name], _targets()))
            return
        work(_context(session.name, request, chosen))
    except Problem as problem:
        _fail(session, problem)
    except OSError as error:
        _fail(session, disk.problem_of(error) or _bug(session.name, error))
    except Exception as error:
        _fail(session, _bug(session.name, error))


def _chosen(request: Request, folder: Path) -> Options:
    """The options of a command that was given in ``folder``, their values looked at."""
    chosen = parse_options.parse(request.words, request.stages)
    if chosen.help:
        return chosen
    chosen = option_values.resolve(chosen, folder)
    option_values.check(chosen, request.stages, child_environment.environment().get("PATH", ""))
    if chosen.target is not None and auto_target.AUTO in chosen.target.split(","):
        chosen = _auto(chosen)
    env = child_environment.environment()
    added_releases.load(_cache(env.get("BLACKWHEEL_CACHE")))
    if chosen.version == targets_file.LATEST:
        why = "" if chosen.offline else _ask_index()
        newest = spec.normal(chosen).version
        _say_once(f"version latest: {newest}{why or ', the newest of the locked releases'}")
    return _for_python(spec.normal(chosen), request.stages)


def _for_python(chosen: Options, sessions: Collection[str]) -> Options:
    """The options with the Python that runs this, where the target's own is not installed."""
    if (
        chosen.python
        or chosen.wheel
        or not {"wheel", "release"} & set(session_order.closure(sessions))
    ):
        return chosen
    here = _here()
    wanted = spec.python_of(_targets(), chosen)
    if wanted in (None, here) or here not in knowledge.builders() or _has_python(str(wanted)):
        return chosen
    _say_once(f"Python {wanted} is not here, so the wheel is for Python {here}, which runs this")
    return dataclasses.replace(chosen, python=here)


def _here() -> str:
    """The minor version of the Python that runs this: "3.12"."""
    return ".".join(map(str, sys.version_info[:2]))


@functools.cache
def _has_python(version: str) -> bool:
    env = child_environment.environment()
    return has_python(real(env, ROOT, _cache(env.get("BLACKWHEEL_CACHE"))), version)


@functools.cache
def _ask_index() -> str:
    """Have ``knowledge`` know the newest release of the package index; what to say of it."""
    env, python = child_environment.pip_environment(child_environment.environment()), sys.executable
    listed = programs.capture([python, *pipconfig.LIST], env=env)
    command = [python, "-I", "-m", "pip", "index", "versions", "llama-cpp-python"]
    asked = programs.capture(command, env=pipconfig.environment(env, listed.stdout, "index"))
    found = re.search(r"^llama[-_]cpp[-_]python \((\d+(?:\.\d+)+)\)$", asked.stdout, re.MULTILINE)
    if asked.returncode or not found:
        return ", the newest of the locked releases, because pip could not ask the package index"
    knowledge.OFFERED.add(found[1])
    return ", the newest of the package index" if found[1] == knowledge.newest_sdist() else ""


def _auto(chosen: Options) -> Options:
    """The options with the target for the GPUs of this machine, which is said."""
    visible = child_environment.environment().get("CUDA_VISIBLE_DEVICES")
    found, told = auto_target.auto(_targets(), chosen, _nvml(), visible)
    names = (chosen.target or "").split(",")
    if len(names) > 1 and found.arch:
        raise Problem(
            "This machine has GPUs of several architectures, so --target auto cannot be "
            "combined with other targets.",
            id="auto-beside-targets",
            evidence=told,
            remedy="use only --target auto",
            code=USAGE,
        )
    _say_once(told)
    target = ",".join(found.target or name if name == auto_target.AUTO else name for name in names)
    return dataclasses.replace(found, target=target)


@functools.cache
def _nvml() -> dict[str, Any]:
    """What the driver says of its GPUs: one answer, so that each session has the same target."""
    return gpu.read()


@functools.cache
def _say_once(text: str) -> None:
    console.say(text)


def _targets() -> dict[str, BuildSpec]:
    platform = "windows" if sys.platform == "win32" else "linux"
    return targets_file.load((ROOT / "targets.toml").read_text(encoding="utf-8"), platform)


def _specs(session: str, chosen: Options) -> list[BuildSpec]:
    """What a session is to work on. Raises Problem for a target that there is not."""
    targets = _targets()
    if session == MATRIX:
        return spec.matrix(targets, chosen)
    if chosen.targets is not None:
        names = spec.named(targets, chosen.targets)
        return [spec.choose(targets, dataclasses.replace(chosen, target=name)) for name in names]
    if session not in MANY or chosen.target is None:
        return [spec.choose(targets, chosen)]
    listed = dict.fromkeys(n for n in chosen.target.split(",") if n) or {chosen.target: None}
    return [spec.choose(targets, dataclasses.replace(chosen, target=name)) for name in listed]


def _early(chosen: Options, found: BuildSpec) -> None:
    """What would be known to be of no use after a build only. Raises Problem."""
    if chosen.device != "cpu" or chosen.wheel or not found.archs:
        return
    if not (ROOT / "wheels" / found.target / "wheel.json").is_file():
        raise Problem(
            f"There is no wheel of {found.target} yet. --device cpu builds nothing: it runs a "
            "wheel that has been built, on the CPU, and does not test its GPU code.",
            id="cpu-of-cuda-target",
            remedy=f"build it first: {remedies.command('wheel', found)}",
            code=USAGE,
        )
    console.warn("--device cpu: the wheel runs on the CPU, and its GPU code is not tested")


def _early_ops(chosen: Options, found: BuildSpec) -> None:
    """The same of the operator test. Raises Problem."""
    if chosen.device == "cpu" and found.archs:
        raise Problem(
            f"--device cpu would test no GPU kernel of a wheel of {found.target}. Its CPU code is "
            "that of the target cpu.",
            id="ops-cpu-of-cuda-target",
            remedy="to test that code: nox -s ops -- --target cpu; to use a GPU, leave out "
            "--device cpu",
            code=USAGE,
        )
    known = knowledge.ops()
    if found.version not in known and not (chosen.wheel or chosen.source):
        raise Problem(
            f"blackwheel does not know the operators of llama-cpp-python {found.version}.",
            id="ops-version-unknown",
            evidence=f"known: {', '.join(known)}",
            remedy="test one of these releases, for example --version "
            f"{next(reversed(known), 'V')}",
            code=USAGE,
        )


def _context(session: str, request: Request, chosen: Options) -> Context:
    env = child_environment.environment()
    cache = _cache(env.get("BLACKWHEEL_CACHE"))
    many = session in (*MANY, MATRIX) or chosen.targets is not None
    specs = _specs(session, chosen)
    context = Context(
        session=session,
        asked=frozenset(request.sessions),
        options=chosen,
        spec=specs[0],
        specs=tuple(specs) if many else (),
        targets=_targets(),
        env=env,
        machine=real(env, ROOT, cache),
        root=ROOT,
        cache=cache,
    )
    if many and chosen.dry_run:
        return context
    disk.mark(context.root / "build")
    disk.claim(context.cache)
    if many or session in OF_NO_TARGET:
        return context
    if chosen.wheel:  # nothing of the target is touched, and nobody need wait
        in_use.share(context.lock_of(context.spec.target), console.say)
    else:
        context.target_lock(context.spec.target)
        programs.end_leftovers(programs.BUILD_MARK, str(context.build))
    disk.mark(context.build)
    return context


def _cache(named: str | None) -> Path:
    return Path(named or platformdirs.user_cache_path("blackwheel")).expanduser().resolve()


def _fail(session: nox.Session, problem: Problem) -> NoReturn:
    # nox ends each error with a dot or a time, which would be pasted with the remedy.
    console.problem(problem)
    _failed.append(problem.code)
    session.error(f"the reason is above (exit code {problem.code})")


def _bug(stage: str, error: BaseException) -> Problem:
    text = "".join(traceback.format_exception(error))
    log = ROOT / "build" / f"bug-{stage}.log"
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text(text, encoding="utf-8")
        where = f"the traceback is in {log}"
    except OSError:
        where = text
    return Problem(
        f"A bug of blackwheel: {type(error).__name__}: {error}",
        id="bug",
        code=BUG,
        evidence=where,
        remedy=f"{REPORT}, with the traceback; nox -s clean -- --all deletes what was built "
        "here, so that the next run starts from nothing",
    )


def _terminated(number: int, _: object) -> NoReturn:
    # SystemExit unwinds the stack, so that run.stream ends the compilers it started.
    with contextlib.suppress(OSError):  # the terminal is gone
        console.say("Terminated; the next run continues where this one stopped.")
    sys.exit(128 + number)
