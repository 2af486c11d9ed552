"""A report that was brought from another machine: its text, and whose signature it has."""

from __future__ import annotations

import shutil
from pathlib import Path

from sessions.core import console, options, pyenv, run
from sessions.core.context import Context
from sessions.core.errors import CHECK_FAILED, USAGE, Problem


def read(path: Path, session: str) -> str:
    """The text of a report file. Raises Problem where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")  # its line ends too are signed
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(
            f"The report {path} cannot be read.",
            id="report-unreadable",
            code=USAGE,
            evidence=str(error),
            remedy="name the file that python smoke-….pyz wrote: "
            f"nox -s {session} -- --report FILE",
        ) from error


def signed(ctx: Context, report: Path, signers: Path) -> str:
    """Refuse a report that none of the named keys signed; return the signature."""
    ssh = shutil.which("ssh-keygen", path=ctx.env.get("PATH"))
    if ssh is None:
        raise Problem(
            "ssh-keygen is not on PATH.", id="ssh-keygen-missing", remedy="install OpenSSH's client"
        )
    signature = report.with_name(report.name + ".sig")
    env = options.system_environment(ctx.env)
    words = ["-s", str(signature), "-f", str(signers)]
    who = run.capture([ssh, "-Y", "find-principals", *words], env=env)
    name = (who.stdout.split() or [""])[0]
    words += ["-n", "blackwheel", "-I", name]
    done = run.capture([ssh, "-Y", "verify", *words], env=env, stdin=report)
    if who.returncode or done.returncode:
        raise Problem(
            "The report is not signed by any of the keys that are asked for.",
            id="report-signature-invalid",
            code=CHECK_FAILED,
            evidence=pyenv.tail((who.output if who.returncode else done.output), 4),
            remedy=f"sign it where it was made: ssh-keygen -Y sign -n blackwheel -f KEY {report}, "
            f"and bring {signature.name} along",
        )
    console.say(f"Signed by {name}")
    return signature.read_text(encoding="utf-8")
