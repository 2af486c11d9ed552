"""Reads a report from another machine once, and checks who signed it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from sessions.payload import report_file
from sessions.shared import child_environment, console, disk, locks, programs, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem

LARGEST = 16 * 2**20  # bytes of a report; one with 400 answers has 0.2 MB
LARGEST_SIGNATURE = 2**16  # bytes of a signature; ssh-keygen -Y sign usually writes 300


def read(path: Path, session: str) -> bytes:
    """The bytes of a report file, which are UTF-8. Raises Problem if it cannot be read."""
    remedy = f"name the file that python smoke-….pyz wrote: nox -s {session} -- --report FILE"
    try:
        data = _bytes(path, LARGEST)
        data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise Problem(
            f"The report {path} cannot be read.",
            id="report-unreadable",
            code=USAGE,
            evidence=str(error),
            remedy=remedy,
        ) from error
    return data


def taken(ctx: Context, session: str, folder: Path, run: Callable[[], str]) -> tuple[str, str, str]:
    """A report's text, its origin (see RunReport), and its signature, which is "" if there is none.

    It is the report that --report names, or else the one that ``run`` makes here under a lock. A
    signature is checked only with --signers. Raises Problem.
    """
    if ctx.options.report is None:
        disk.mark(folder)
        with locks.lock(folder / f"{session}.lock", console.say):
            return run(), "here", ""
    path = Path(ctx.options.report).expanduser()
    data, signature = read(path, session), ""
    if ctx.options.signers is not None:
        signature = signed(ctx, path, data, Path(ctx.options.signers).expanduser())
    return data.decode("utf-8"), origin(path), signature


def keep(path: Path, text: str, signature: str) -> None:
    """Write a report unchanged, with its signature beside it; a release contains both files."""
    records.write_text(path, text)
    beside = path.with_name(f"{path.name}.sig")
    beside.unlink(missing_ok=True)
    if signature:
        records.write_text(beside, signature)


def is_of_ops(path: Path) -> bool:
    """Whether a report is of the operator test. It is not checked here."""
    try:
        data = read(path, "release")
    except Problem:  # the session that reads it reports this
        return False
    return f'"kind": "{report_file.OPS}"'.encode() in data[:200]


def origin(path: Path) -> str:
    """The name of a report's file in UTF-8, which a record requires."""
    return path.name.encode("utf-8", "replace").decode("utf-8")


def signed(ctx: Context, report: Path, data: bytes, signers: Path) -> str:
    """Check that one of the named keys signed the report's bytes; return the signature.

    The files may change at any moment, so ssh-keygen gets copies of the bytes that were read, in
    a folder that only this user can write. Raises Problem.
    """
    ssh = shutil.which("ssh-keygen", path=ctx.env.get("PATH"))
    if ssh is None:
        raise Problem(
            "ssh-keygen is not on PATH.",
            id="ssh-keygen-missing",
            remedy="install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)",
        )
    beside = report.with_name(report.name + ".sig")
    try:
        signature = _bytes(beside, LARGEST_SIGNATURE).decode("utf-8")
    except (OSError, ValueError) as error:
        raise _unsigned(report, str(error)) from error
    env = child_environment.system_environment(ctx.env)
    with tempfile.TemporaryDirectory(prefix="blackwheel-report-") as folder:
        copy, copied = Path(folder) / "report", Path(folder) / "report.sig"
        copy.write_bytes(data)
        copied.write_bytes(signature.encode())
        words = ["-s", str(copied), "-f", str(signers)]
        who = programs.capture([ssh, "-Y", "find-principals", *words], env=env)
        name = (who.stdout.split() or [""])[0]
        words += ["-n", "blackwheel", "-I", name]
        done = programs.capture([ssh, "-Y", "verify", *words], env=env, stdin=copy)
    if who.returncode or done.returncode:
        raise _unsigned(report, venvs.tail((who if who.returncode else done).output, 4))
    console.say(f"Signed by {name}")
    return signature


def _unsigned(report: Path, evidence: str) -> Problem:
    return Problem(
        "The report is not signed by any of the keys in the file that --signers names.",
        id="report-signature-invalid",
        code=CHECK_FAILED,
        evidence=evidence,
        remedy=f"sign it where it was made: ssh-keygen -Y sign -n blackwheel -f KEY {report}, "
        f"and copy {report.name}.sig here too",
    )


def _bytes(path: Path, largest: int) -> bytes:
    """A regular file's bytes. Raises ValueError for another kind of file, or a larger one.

    A pipe or a device may give other bytes to each reader, or never end, so it is not read.
    """
    # On Windows, O_BINARY keeps the line ends, which are signed too.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError(f"{path} is not a regular file")
        data = stream.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"{path} has more than {largest} bytes")
    return data
