"""Runs a phase as a nox session: makes its Context, and turns its errors into exit codes."""

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
from typing import Any, NoReturn

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
    command_text,
    console,
    disk,
    in_use,
    knowledge,
    programs,
)
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import BUG, REPORT, Problem, UsageProblem
from sessions.shared.machine import has_python, real
from sessions.shared.options import Options
from sessions.targets import auto_target, choose_target, targets_file

ROOT = Path(__file__).resolve().parents[2]
MANY = ("release", "publish")  # accept several targets: --target A,B
OF_NO_TARGET = ("index", "lock")  # need no lock of a target
MATRIX = "matrix"  # takes --targets and --pythons
_failed: list[int] = []  # the exit codes of the sessions that failed in this process


def main(root: Path) -> NoReturn:
    """Check the command line, let nox run it, and exit with the code of the error.

    nox itself exits with 1 for every error.
    """
    code = _prepare()
    if code is not None:
        sys.exit(code)
    # nox would look for a noxfile in the current folder.
    noxfile = str(root / "noxfile.py")
    sys.argv = [noxfile, "-f", noxfile, *bootstrap.arguments(sys.argv[1:])]
    quiet = is_quiet(sys.argv[3:])
    logging.getLogger("nox").addFilter(functools.partial(_is_shown, quiet=quiet))
    try:
        nox.main()
    except SystemExit as end:
        sys.exit(exit_code(end.code))
    sys.exit(0)


def is_quiet(words: Sequence[str]) -> bool:
    """Whether a command without -v runs only our sessions, which print their results themselves.

    ``words`` is the command line without the program.
    """
    request = nox_arguments.read(words, child_environment.environment())
    before = words[: words.index("--")] if "--" in words else words
    ours = request.runs and request.sessions == request.phases
    return ours and not {"-v", "--verbose"} & set(before)


def _is_shown(record: logging.LogRecord, *, quiet: bool) -> bool:
    """Whether to print a message of nox: with ``quiet`` only warnings.

    Never that uv is missing, because nothing here needs uv.
    """
    if record.levelno >= logging.WARNING:
        return True
    return not quiet and record.getMessage() != "uv binary not found."


def exit_code(of_nox: str | int | None) -> str | int | None:
    """The exit code of a run: that of the session that failed, else ``of_nox``, the code of nox."""
    return _failed[-1] if of_nox == 1 and _failed else of_nox


def _prepare() -> int | None:
    """Check the command before nox starts. Returns an exit code if the command ends here."""
    try:
        request = nox_arguments.read(sys.argv[1:], child_environment.environment())
        if request.help:
            sessions = {name: each.__doc__ or "" for name, each in nox.registry.get().items()}
            console.say(help_text.overview(sessions, _targets()))
            return 0
        if not request.runs or not request.phases:
            return None
        chosen = _chosen(request, Path.cwd())
        if chosen.help:
            console.say(help_text.text(request.phases, _targets()))
            return 0
        specs = {name: _specs(name, chosen) for name in request.phases}
        if option_values.PTX in chosen.baseline:
            choose_target.ptx(_targets(), chosen)
        for name in {"smoke", "bench"} & set(specs):
            _check_device(chosen, specs[name][0])
        if "ops" in specs:
            _check_ops(chosen, specs["ops"][0])
    except Problem as problem:
        console.problem(problem)
        return problem.code
    except Exception as error:
        bug = _bug("start", error)
        console.problem(bug)
        return bug.code
    return None


def run_phase(session: nox.Session, work: Callable[[Context], None]) -> None:
    """Run one phase. This is the only place where our errors become errors of nox."""
    programs.ended_by_signals(_terminated)
    try:
        request = nox_arguments.read(sys.argv[1:], child_environment.environment())
        request = dataclasses.replace(request, words=tuple(session.posargs))
        chosen = _chosen(request, Path(session.invoked_from))
        if chosen.help:  # nox was started without main
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
    """The options of a command that was typed in ``folder``, checked."""
    chosen = parse_options.parse(request.words, request.phases)
    if chosen.help:
        return chosen
    chosen = option_values.resolve(chosen, folder)
    option_values.check(chosen, request.phases, child_environment.environment().get("PATH", ""))
    if chosen.target is not None and auto_target.AUTO in chosen.target.split(","):
        chosen = _auto(chosen)
    env = child_environment.environment()
    added_releases.load(_cache(env.get("BLACKWHEEL_CACHE")))
    if chosen.version == targets_file.LATEST:
        why = "" if chosen.offline else _ask_index()
        newest = choose_target.normalized(chosen).version
        _say_once(f"version latest: {newest}{why or ', the newest of the locked releases'}")
    return _for_python(choose_target.normalized(chosen), request.phases)


def _for_python(chosen: Options, sessions: Collection[str]) -> Options:
    """The options, with this process's Python if the target's Python is not installed."""
    if (
        chosen.python
        or chosen.wheel
        or not {"wheel", "release"} & set(session_order.closure(sessions))
    ):
        return chosen
    here = _here()
    needed = choose_target.python_of(_targets(), chosen)
    if needed in (None, here) or here not in knowledge.builders() or _has_python(str(needed)):
        return chosen
    _say_once(f"Python {needed} is not here, so the wheel is for Python {here}, which runs this")
    return dataclasses.replace(chosen, python=here)


def _here() -> str:
    """The minor version of this process's Python: "3.12"."""
    return ".".join(map(str, sys.version_info[:2]))


@functools.cache
def _has_python(version: str) -> bool:
    env = child_environment.environment()
    return has_python(real(env, ROOT, _cache(env.get("BLACKWHEEL_CACHE"))), version)


@functools.cache
def _ask_index() -> str:
    """Add the newest release of the package index to ``knowledge``; return a note for the user."""
    env, python = child_environment.pip_environment(child_environment.environment()), sys.executable
    settings = programs.capture([python, *pipconfig.LIST], env=env)
    command = [python, "-I", "-m", "pip", "index", "versions", "llama-cpp-python"]
    answer = programs.capture(command, env=pipconfig.environment(env, settings.stdout, "index"))
    newest = re.search(r"^llama[-_]cpp[-_]python \((\d+(?:\.\d+)+)\)$", answer.stdout, re.MULTILINE)
    if answer.returncode or not newest:
        return ", the newest of the locked releases, because pip could not ask the package index"
    knowledge.OFFERED.add(newest[1])
    return ", the newest of the package index" if newest[1] == knowledge.newest_sdist() else ""


def _auto(chosen: Options) -> Options:
    """The options with the target for the GPUs of this machine. Prints the choice."""
    visible = child_environment.environment().get("CUDA_VISIBLE_DEVICES")
    options, why = auto_target.auto(_targets(), chosen, _nvml(), visible)
    names = (chosen.target or "").split(",")
    if len(names) > 1 and options.arch:
        raise UsageProblem(
            "This machine has GPUs of several architectures, so --target auto cannot be "
            "combined with other targets.",
            id="auto-beside-targets",
            evidence=why,
            remedy="use only --target auto",
        )
    _say_once(why)
    target = ",".join(
        options.target or name if name == auto_target.AUTO else name for name in names
    )
    return dataclasses.replace(options, target=target)


@functools.cache
def _nvml() -> dict[str, Any]:
    """The driver's answer about its GPUs; cached, so that all sessions have the same target."""
    return gpu.read()


@functools.cache
def _say_once(text: str) -> None:
    console.say(text)


def _targets() -> dict[str, BuildSpec]:
    platform = "windows" if sys.platform == "win32" else "linux"
    return targets_file.load((ROOT / "targets.toml").read_text(encoding="utf-8"), platform)


def _specs(session: str, chosen: Options) -> list[BuildSpec]:
    """The specs that a session works on. Raises Problem for an unknown target."""
    targets = _targets()
    if session == MATRIX:
        return choose_target.matrix(targets, chosen)
    if chosen.targets is not None:
        names = choose_target.named(targets, chosen.targets)
        return [
            choose_target.choose(targets, dataclasses.replace(chosen, target=name))
            for name in names
        ]
    if session not in MANY or chosen.target is None:
        return [choose_target.choose(targets, chosen)]
    listed = dict.fromkeys(n for n in chosen.target.split(",") if n) or {chosen.target: None}
    return [
        choose_target.choose(targets, dataclasses.replace(chosen, target=name)) for name in listed
    ]


def _check_device(chosen: Options, build: BuildSpec) -> None:
    """Raise Problem if --device cpu is given for a CUDA target whose wheel is not built yet."""
    if chosen.device != "cpu" or chosen.wheel or not build.archs:
        return
    if not (ROOT / "wheels" / build.target / "wheel.json").is_file():
        raise UsageProblem(
            f"There is no wheel of {build.target} yet. --device cpu builds nothing: it runs a "
            "wheel that has been built, on the CPU, and does not test its GPU code.",
            id="cpu-of-cuda-target",
            remedy=f"build it first: {command_text.command('wheel', build)}",
        )
    console.warn("--device cpu: the wheel runs on the CPU, and its GPU code is not tested")


def _check_ops(chosen: Options, build: BuildSpec) -> None:
    """Raise Problem if the operator test could not test this wheel."""
    if chosen.device == "cpu" and build.archs:
        raise UsageProblem(
            f"--device cpu would test no GPU kernel of a wheel of {build.target}. Its CPU code is "
            "that of the target cpu.",
            id="ops-cpu-of-cuda-target",
            remedy="to test that code: nox -s ops -- --target cpu; to use a GPU, leave out "
            "--device cpu",
        )
    known = knowledge.ops()
    if build.version not in known and not (chosen.wheel or chosen.source):
        raise UsageProblem(
            f"blackwheel does not know the operators of llama-cpp-python {build.version}.",
            id="ops-version-unknown",
            evidence=f"known: {', '.join(known)}",
            remedy="test one of these releases, for example --version "
            f"{next(reversed(known), 'V')}",
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
    if chosen.wheel:  # the target's own files are not changed, so other runs need not wait
        in_use.share(context.lock_of(context.spec.target), console.say)
    else:
        context.target_lock(context.spec.target)
        programs.end_leftovers(programs.BUILD_MARK, str(context.build))
    disk.mark(context.build)
    return context


def _cache(named: str | None) -> Path:
    return Path(named or platformdirs.user_cache_path("blackwheel")).expanduser().resolve()


def _fail(session: nox.Session, problem: Problem) -> NoReturn:
    # nox adds a dot or a time to its message, which must not become a part of the remedy.
    console.problem(problem)
    _failed.append(problem.code)
    session.error(f"the reason is above (exit code {problem.code})")


def _bug(session: str, error: BaseException) -> Problem:
    text = "".join(traceback.format_exception(error))
    log = ROOT / "build" / f"bug-{session}.log"
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
    # SystemExit unwinds the stack, so that programs.stream ends the compilers that it started.
    with contextlib.suppress(OSError):  # the terminal is gone
        console.say("Terminated; the next run continues where this one stopped.")
    sys.exit(128 + number)
