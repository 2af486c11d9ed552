"""The texts of ``--help`` and of ``docs/cli.md``. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

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
    pytest = ", ".join(map(_code, session_order.PYTEST))
    return f"""\
# The command line

Type `nox -s SESSION -- OPTIONS`. Without nox, type
`python3 noxfile.py -s SESSION -- OPTIONS`.

## Options

A session also takes the options of the sessions that it runs first: for example,
`nox -s wheel` takes `--jobs`, which `probe` reads. `nox -s SESSION -- --help` prints
the options that a session takes, and the list of targets.

| option | meaning | read by |
| --- | --- | --- |
{_rows([_code(o.shown), _cell(o.help), _read_by(o)] for o in OPTIONS)}

## Sessions

| session | runs first |
| --- | --- |
{_rows([_code(name), _runs_first(name)] for name in session_order.REQUIRES)}

`{session_order.OF_FOLDERS}` takes the folders to merge into one index: `-- DIST DIST`.
`matrix` and `release` run the other sessions themselves, once for each target.
{pytest}: the words after `--` go to pytest. `{session_order.LINT}` takes none.

## Rules

- A command with several sessions takes the options of all of them.
- {_only("asked")} affect only the sessions that are named after `-s`.
- {_only("all")} are allowed only if every session after `-s` reads them.
- With `--wheel` nothing is built, so build options are refused.
{_idle()}
- An option that has no effect is refused before anything runs, and so are an empty
  value, an option given twice, and a path that does not exist.
- A relative path is taken from the folder where the command is run.
- `--device cpu` with a CUDA target runs the wheel on the CPU and does not test its GPU
  code. The wheel must have been built before, or `--wheel` must name it.

## Exit codes

| code | meaning |
| --- | --- |
{_rows([str(code), what] for code, what in EXIT_CODES.items())}

This page is generated from `sessions/command_line/option_list.py`:
`BLACKWHEEL_REGOLD=1 nox -s tests -- tests/unit/test_help_text.py` writes it again.
"""


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _runs_first(session: str) -> str:
    return ", ".join(name for name in session_order.closure([session]) if name != session) or "none"


def _idle() -> str:
    lines = []
    for field, others in IDLE.items():
        names = ", ".join(_code(BY_FIELD[other].flag) for other in others)
        lines.append(f"- `--{field}` cannot be combined with {names}.")
    for field, needed in NEEDS.items():
        lines.append(f"- `--{field}` needs {' or '.join(f'`--{each}`' for each in needed)}.")
    return "\n".join(lines)


def _only(reach: str) -> str:
    return ", ".join(_code(option.flag) for option in OPTIONS if option.reach == reach)


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
