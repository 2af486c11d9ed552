"""What git says of this project's own files, before and after a build."""

from __future__ import annotations

import re
from pathlib import Path

from sessions.release import dist_folder
from sessions.release.gate import Checkout
from sessions.shared import child_environment, programs, venvs
from sessions.shared.context import Context


def _words(checkout: Checkout) -> list[str]:
    return [checkout.problem or checkout.commit or "no commit", *checkout.changes]


def read(ctx: Context) -> Checkout:
    """What git says of this project's own files."""
    env = child_environment.pip_environment(ctx.env)

    def git(*words: str) -> programs.Finished:
        return programs.capture(["git", "-C", str(ctx.root), *words], env=env)

    top, head = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=normal")  # whatever is configured
    for asked in (top, head, status):
        if asked.returncode:
            return Checkout("", (), f"git: {venvs.tail(asked.output, 2)}")
    if ctx.root.resolve() not in [Path(line).resolve() for line in top.stdout.splitlines()]:
        return Checkout("", (), f"{ctx.root} is not a git checkout of its own")
    commit = re.search(r"^[0-9a-f]{40}$", head.stdout, re.MULTILINE)
    if commit is None:
        return Checkout("", (), f"git names no commit: {venvs.tail(head.output, 2)}")
    said = git("show", "--no-patch", "--format=%an%n%cs", "HEAD").stdout.splitlines()
    author, date = said[-2:] if len(said) > 1 else ("", "")
    address = git("remote", "get-url", "origin").stdout.strip()
    return Checkout(
        commit[0],
        tuple(status.stdout.splitlines()),
        author=author,
        date=date,
        origin=address if _public(address) else "",
    )


def _public(address: str) -> bool:
    """Whether others can clone from an address, and no secret is in it."""
    return bool(re.fullmatch(r"(https://[^@\s]+|git@[\w.-]+:\S+)", address))


def unchanged(ctx: Context, before: Checkout) -> Checkout:
    """What git says now, if it is what it said before the build; else that it is not."""
    # Alone: else another run's .dist.part would be a change.
    with dist_folder.alone(ctx, ctx.root / "dist"):
        after = read(ctx)
    if after == before:
        return before
    lines = [f"before: {line}" for line in _words(before)]
    lines += [f"after: {line}" for line in _words(after)]
    return Checkout(before.commit, after.changes, "\n".join(["it changed meanwhile", *lines]))
