"""The texts of ``--help`` and of ``docs/cli.md``. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from sessions.command_line import session_order
from sessions.command_line.option_list import BY_FIELD, IDLE, NEEDS, OPTIONS, Option, takes
from sessions.shared.build_spec import BuildSpec

EXIT_CODES = {
    0: "success",
    1: "a wheel, a report or a build failed a check",
    2: "wrong use: the command line, `targets.toml` or a named file is wrong",
    3: "something is missing: a tool, a GPU, disk space, the network",
    4: "a bug of blackwheel; `build/bug-SESSION.log` has the traceback",
    129: "the terminal was closed (SIGHUP)",
    130: "interrupted (Ctrl-C)",
    143: "terminated (SIGTERM)",
}


def text(sessions: Sequence[str], targets: Mapping[str, BuildSpec]) -> str:
    """The text that ``nox -s SESSIONS -- --help`` prints."""
    names = " ".join(sessions)
    taken = [option for option in OPTIONS if takes(option, sessions)]
    first = [name for name in session_order.closure(sessions) if name not in sessions]
    width = max(len(option.shown) for option in taken)
    folders = " DIST DIST …" if session_order.OF_FOLDERS in sessions else ""
    lines = [f"usage: nox -s {names} -- [options]{folders}", ""]
    lines += [f"runs first: {', '.join(first)}", ""] if first else []
    lines += ["options:", *(f"  {o.shown:<{width}}  {o.help}" for o in taken)]
    if not {"target", "targets"}.isdisjoint(option.name for option in taken):
        lines += ["", *_targets(targets)]
    codes = (f"  {code:<3}  {what.replace('`', '')}" for code, what in EXIT_CODES.items())
    return "\n".join([*lines, "", "exit codes:", *codes])


def overview(sessions: Mapping[str, str], targets: Mapping[str, BuildSpec]) -> str:
    """The text that ``python3 noxfile.py --help`` prints. ``sessions``: name -> what it does."""
    lines = ["usage: nox -s SESSION -- [options]", "", "sessions:"]
    lines += _aligned(sessions)
    lines += ["", *_targets(targets), "", "examples:"]
    lines += _aligned(_EXAMPLES)
    return "\n".join(lines)


_EXAMPLES = {
    "nox -s wheel -- --target auto": "build the wheel for the GPU of this machine",
    "nox -s smoke": "test the wheel on the GPU",
    "nox -s wheel -- --help": "list the options of a session",
}


def _targets(targets: Mapping[str, BuildSpec]) -> list[str]:
    rows = _aligned({name: spec.summary for name, spec in targets.items()})
    return ["targets (targets.toml):", *rows]


def _aligned(rows: Mapping[str, str]) -> list[str]:
    wide = max(map(len, rows), default=0)
    return [f"  {name:<{wide}}  {what}" for name, what in rows.items()]


def markdown() -> str:
    """The page ``docs/cli.md``."""
    return "\n".join([*_head(), *_table(), *_sessions(), *_rules(), *_codes()])


def _head() -> Iterator[str]:
    yield "# The command line"
    yield ""
    yield "Type `nox -s SESSION -- OPTIONS`. Without nox, type"
    yield "`python3 noxfile.py -s SESSION -- OPTIONS`."
    yield ""


def _table() -> Iterator[str]:
    yield "## Options"
    yield ""
    yield "A session also takes the options of the sessions that it runs first: for example,"
    yield "`nox -s wheel` takes `--jobs`, which `probe` reads. `nox -s SESSION -- --help` prints"
    yield "the options that a session takes, and the list of targets."
    yield ""
    yield "| option | meaning | read by |"
    yield "| --- | --- | --- |"
    for option in OPTIONS:
        yield f"| {_code(option.shown)} | {_cell(option.help)} | {_read_by(option)} |"
    yield ""


def _sessions() -> Iterator[str]:
    yield "## Sessions"
    yield ""
    yield "| session | runs first |"
    yield "| --- | --- |"
    for name in session_order.REQUIRES:
        first = ", ".join(s for s in session_order.closure([name]) if s != name) or "none"
        yield f"| `{name}` | {first} |"
    yield ""
    names = ", ".join(f"`{name}`" for name in session_order.PYTEST)
    yield f"`{session_order.OF_FOLDERS}` takes the folders to merge into one index: `-- DIST DIST`."
    yield "`matrix` and `release` run the other sessions themselves, once for each target."
    yield f"{names}: the words after `--` go to pytest. `{session_order.LINT}` takes none."
    yield ""


def _rules() -> Iterator[str]:
    yield "## Rules"
    yield ""
    yield "- A command with several sessions takes the options of all of them."
    yield "- " + _only("asked", "affect only the sessions that are named after `-s`")
    yield "- " + _only("all", "are allowed only if every session after `-s` reads them")
    yield "- With `--wheel` nothing is built, so build options are refused."
    for field, others in IDLE.items():
        names = ", ".join(_code(BY_FIELD[other].flag) for other in others)
        yield f"- `--{field}` cannot be combined with {names}."
    for field, needed in NEEDS.items():
        yield f"- `--{field}` needs {' or '.join(f'`--{each}`' for each in needed)}."
    yield "- An option that has no effect is refused before anything runs, and so are an empty"
    yield "  value, an option given twice, and a path that does not exist."
    yield "- A relative path is taken from the folder where the command is run."
    yield "- `--device cpu` with a CUDA target runs the wheel on the CPU and does not test its GPU"
    yield "  code. The wheel must have been built before, or `--wheel` must name it."
    yield ""


def _codes() -> Iterator[str]:
    yield "## Exit codes"
    yield ""
    yield "| code | meaning |"
    yield "| --- | --- |"
    yield from (f"| {code} | {what} |" for code, what in EXIT_CODES.items())
    yield ""
    yield "This page is generated from `sessions/command_line/option_list.py`:"
    yield "`BLACKWHEEL_REGOLD=1 nox -s tests -- tests/unit/test_help_text.py` writes it again."
    yield ""


def _only(reach: str, rule: str) -> str:
    names = (_code(option.flag) for option in OPTIONS if option.reach == reach)
    return f"{', '.join(names)} {rule}."


def _read_by(option: Option) -> str:
    others = [name for name in session_order.REQUIRES if name not in option.sessions]
    if len(others) > 3:
        return _names(option.sessions)
    return f"all but {', '.join(others)}" if others else "all"


def _names(sessions: Collection[str]) -> str:
    return ", ".join(name for name in session_order.REQUIRES if name in sessions)


def _code(value: str) -> str:
    return f"`{_cell(value)}`"


def _cell(value: str) -> str:
    return value.replace("|", "\\|")
