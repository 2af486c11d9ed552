"""A report from another machine: its bytes, read once, and whose signature they have."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from sessions.payload import report_file
from sessions.shared import child_environment, console, programs, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem

LARGEST = 16 * 2**20  # bytes of a report; one of 400 answers has 0.2 MB
LARGEST_SIGNATURE = 2**16  # bytes of a file that ssh-keygen -Y sign writes; most have 300


def read(path: Path, session: str) -> bytes:
    """The bytes of a report file: UTF-8 text. Raises Problem where it cannot be read."""
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


def taken(ctx: Context, session: str, named: str) -> tuple[str, str, str]:
    """The report that --report names: its text, its file's name, and its signature.

    The signature is "" where --signers does not ask for one. Raises Problem.
    """
    path = Path(named).expanduser()
    data, signature = read(path, session), ""
    if ctx.options.signers is not None:
        signature = signed(ctx, path, data, Path(ctx.options.signers).expanduser())
    return data.decode("utf-8"), origin(path), signature


def keep(path: Path, text: str, signature: str) -> None:
    """Write a report as it was handed in, which is how a release hands it on; so its signature."""
    records.write_text(path, text)
    beside = path.with_name(f"{path.name}.sig")
    beside.unlink(missing_ok=True)
    if signature:
        records.write_text(beside, signature)


def is_of_ops(path: Path) -> bool:
    """Whether a report is of the operator test; what it is worth is for its session to say."""
    try:
        data = read(path, "release")
    except Problem:  # which its session says
        return False
    return f'"kind": "{report_file.OPS}"'.encode() in data[:200]


def origin(path: Path) -> str:
    """The name of a report's file, as a record can have it: in UTF-8, whatever the system's is."""
    return path.name.encode("utf-8", "replace").decode("utf-8")


def signed(ctx: Context, report: Path, data: bytes, signers: Path) -> str:
    """Refuse a report whose bytes none of the named keys signed; return the signature.

    The files may change at any moment: ssh-keygen is given copies of the bytes that were read, in
    a folder of this user only.
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

    A pipe or a device gives other bytes to each reader, or none for ever, so it is not even waited
    for.
    """
    # Windows has neither flag's problem; O_BINARY keeps its line ends, which are signed too.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError(f"{path} is not a regular file")
        data = stream.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"{path} has more than {largest} bytes")
    return data
