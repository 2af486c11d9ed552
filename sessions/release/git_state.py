"""The git state of blackwheel's own checkout, before and after a build."""

from __future__ import annotations

import re
from pathlib import Path

from sessions.release import dist_folder
from sessions.release.gate import Checkout
from sessions.shared import child_environment, programs, venvs
from sessions.shared.context import Context


def read(ctx: Context) -> Checkout:
    """The commit and the changes that git reports; ``problem`` is set if git reports none."""
    env = child_environment.pip_environment(ctx.env)

    def git(*words: str) -> programs.Finished:
        return programs.capture(["git", "-C", str(ctx.root), *words], env=env)

    top, head = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=normal")  # overrides git's settings
    for ended in (top, head, status):
        if ended.returncode:
            return Checkout("", (), f"git: {venvs.tail(ended.output, 2)}")
    if ctx.root.resolve() not in [Path(line).resolve() for line in top.stdout.splitlines()]:
        return Checkout("", (), f"{ctx.root} is not a git checkout of its own")
    commit = re.search(r"^[0-9a-f]{40}$", head.stdout, re.MULTILINE)
    if commit is None:
        return Checkout("", (), f"git names no commit: {venvs.tail(head.output, 2)}")
    shown = git("show", "--no-patch", "--format=%an%n%cs", "HEAD").stdout.splitlines()
    author, date = shown[-2:] if len(shown) > 1 else ("", "")
    address = git("remote", "get-url", "origin").stdout.strip()
    # Only an address from which others can clone, and which contains no secret.
    public = re.fullmatch(r"https://[^@\s]+|git@[\w.-]+:\S+", address)
    changes = tuple(status.stdout.splitlines())
    return Checkout(commit[0], changes, author=author, date=date, origin=address if public else "")


def unchanged(ctx: Context, before: Checkout) -> Checkout:
    """The state ``before`` a build if git reports the same now, otherwise one with a problem."""
    with dist_folder.locked(ctx, ctx.root / "dist"):  # .dist.part of another run would be a change
        after = read(ctx)
    if after == before:
        return before
    lines = [
        f"{when}: {line}"
        for when, state in (("before", before), ("after", after))
        for line in (state.problem or state.commit or "no commit", *state.changes)
    ]
    return Checkout(before.commit, after.changes, "\n".join(["it changed meanwhile", *lines]))
