"""Checks the values of options before anything runs, and makes paths absolute."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from sessions.command_line import session_order
from sessions.command_line.option_list import BY_FIELD, REQUIRED
from sessions.shared import knowledge
from sessions.shared.errors import Problem, UsageProblem
from sessions.shared.options import Options

PTX = "ptx"  # as --baseline: a build of the target with PTX instead of machine code
_PATHS = ("wheel", "model", "report", "reports", "sign", "signers", "source", "record")
_FILES = ("wheel", "model", "report", "sign", "signers")
_EXAMPLES = {"add": "llama-cpp-python==latest", "targets": "rtx50,ada"}
_LARGEST = 64 << 20  # bytes of a report; they are about a megabyte
# What an option accepts, if it is not any file.
_NAMED = {
    "wheel": "a wheel file",
    "model": "a GGUF file",
    "report": "a report that a bundle wrote",
    "reports": "the folder of reports that a bundle wrote",
    "source": "the top folder of a checkout of llama-cpp-python",
    "toolkit": "the folder of an installed CUDA toolkit",
    "compiler": "a C++ compiler",
    "record": "a folder",
    "baseline": "a wheel file",
}
_KITS = ("pypi", "system")  # the values of --toolkit that are not folders


def baselines() -> tuple[str, ...]:
    """The values of ``--baseline`` that are not files."""
    return (*knowledge.load("baselines.toml"), PTX)


def resolve(options: Options, folder: Path) -> Options:
    """The options with every relative path made absolute.

    ``folder`` is the user's current folder: nox changes to the noxfile's folder before it runs a
    session. Links are not resolved, because the name of a compiler says which one it is.
    """

    def absolute(path: str) -> str:
        try:
            return str(folder / Path(path).expanduser())
        except RuntimeError:  # ~name of an unknown user
            return str(folder / path)

    changes: dict[str, object] = {
        field: absolute(value) for field in _PATHS if (value := getattr(options, field))
    }
    if options.toolkit and options.toolkit not in _KITS:
        changes["toolkit"] = absolute(options.toolkit)
    if options.compiler and _is_path(options.compiler):
        changes["compiler"] = absolute(options.compiler)
    changes["dists"] = tuple(map(absolute, options.dists))
    changes["baseline"] = tuple(
        name if name in baselines() else absolute(name) for name in options.baseline
    )
    return dataclasses.replace(options, **changes)  # type: ignore[arg-type]


def check(options: Options, asked: Collection[str], path: str) -> None:
    """Raise Problem for a path that does not exist or is of another kind. ``path`` is PATH.

    A missing file must not be found only after a long build.
    """
    for session, field in REQUIRED.items():
        if session in asked and getattr(options, field) is None:
            option = BY_FIELD[field]
            raise UsageProblem(
                f"nox -s {session} needs {option.flag}.",
                id="option-missing",
                remedy=f"for example: nox -s {session} -- {option.flag} {_EXAMPLES[field]}",
            )
    if session_order.OF_FOLDERS in asked and not options.dists:
        raise UsageProblem(
            "nox -s index needs the folders to merge into one index.",
            id="option-missing",
            remedy="nox -s index -- DIST DIST: name folders that nox -s release wrote",
        )
    for folder in options.dists:
        if not Path(folder).is_dir():
            raise UsageProblem(
                f"There is no folder {folder}.",
                id="index-folder-missing",
                remedy="nox -s index -- DIST DIST: name folders that nox -s release wrote",
            )
    for field in _FILES:
        if value := getattr(options, field):
            _file(field, Path(value))
    # verify itself reports a wrong file name.
    if options.wheel and not {"smoke", "ops", "bench"}.isdisjoint(asked):
        _wheel("wheel", Path(options.wheel))
    if options.model:
        with Path(options.model).open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise _wrong("model", options.model, "is not a GGUF file")
    for name in options.baseline:
        if name not in baselines():
            _file("baseline", Path(name))
            _wheel("baseline", Path(name))
    if options.source and not (Path(options.source) / "llama_cpp" / "__init__.py").is_file():
        raise _wrong("source", options.source, "is not a checkout of llama-cpp-python")
    if options.toolkit and options.toolkit not in _KITS and not _has_nvcc(Path(options.toolkit)):
        raise _wrong("toolkit", options.toolkit, "is not a CUDA toolkit: it has no bin/nvcc")
    if options.compiler and not _is_program(shutil.which(options.compiler, path=path)):
        where = "is not a program" if _is_path(options.compiler) else "is not on PATH"
        raise _wrong("compiler", options.compiler, where)
    if options.report and not _is_json(Path(options.report)):
        raise _wrong("report", options.report, "is not a report: it is not JSON")
    if options.report and options.signers:
        _file("report", Path(f"{options.report}.sig"))
    openssh = "install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)"
    for needed, program, remedy in (
        (options.sign or options.signers, "ssh-keygen", openssh),
        (options.sigstore, "sigstore", "pipx install sigstore"),
    ):
        if needed and not shutil.which(program, path=path):
            raise Problem(
                f"{program} is not on PATH.", id=f"{program}-missing-at-start", remedy=remedy
            )
    if options.reports and not Path(options.reports).is_dir():
        raise UsageProblem(
            f"--reports {options.reports} is not a folder.",
            id="reports-argument",
            remedy="copy the folder smoke-reports to this machine from the one where the bundle "
            "ran; for wheels without GPU code, leave --reports out",
        )
    if options.record and Path(options.record).exists() and not Path(options.record).is_dir():
        raise _wrong("record", options.record, "is not a folder")


def _is_path(text: str) -> bool:
    return any(sign and sign in text for sign in ("/", os.sep, os.altsep)) or text.startswith("~")


def _is_program(path: str | None) -> bool:
    """Whether ``shutil.which`` found a program. On Windows it accepts any file given as a path."""
    programs = (".exe", ".bat", ".cmd")
    return bool(path) and (sys.platform != "win32" or str(path).lower().endswith(programs))


def _is_json(path: Path) -> bool:
    try:
        return path.stat().st_size <= _LARGEST and isinstance(json.loads(path.read_bytes()), dict)
    except (ValueError, RecursionError):
        return False


def _has_nvcc(root: Path) -> bool:
    return any((root / "bin" / name).is_file() for name in ("nvcc", "nvcc.exe"))


def _file(field: str, path: Path) -> None:
    if not path.exists():
        raise _wrong(field, str(path), "does not exist")
    if not path.is_file():  # a folder, a pipe
        raise _wrong(field, str(path), "is not a file")
    if not os.access(path, os.R_OK):
        raise _wrong(field, str(path), "cannot be read")


def _wheel(field: str, path: Path) -> None:
    try:
        parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise _wrong(
            field,
            str(path),
            "does not have the name of a wheel",
            f"{error}\na wheel is named like llama_cpp_python-0.3.16-py3-none-linux_x86_64.whl",
        ) from error


def _wrong(field: str, value: str, why: str, evidence: str = "") -> Problem:
    option = BY_FIELD[field]
    more = f", or one of {', '.join(baselines())}" if field == "baseline" else ""
    return UsageProblem(
        f"{option.flag} {value} {why}.",
        id=f"{field}-argument",
        evidence=evidence,
        remedy=f"name {_NAMED.get(field, 'a file that exists')}{more}: {option.shown}",
    )
