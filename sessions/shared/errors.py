"""Problem: the error that a user sees. The exit codes."""

from __future__ import annotations

from collections.abc import Iterable

CHECK_FAILED = 1  # a check has failed
USAGE = 2  # the command line or a file of the user is wrong
ENVIRONMENT = 3  # something is missing on the machine: a tool, a GPU, disk space, the network
BUG = 4  # an error in this project
# Where a user reports a bug. The project has no address other than its repository.
REPORT = "open an issue in the repository that you cloned"


def numbered(remedies: Iterable[str]) -> str:
    """Join remedies, without repetitions; numbered if there are two or more."""
    texts = list(dict.fromkeys(remedies))
    if len(texts) < 2:
        return "".join(texts)
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))


class Problem(Exception):
    """An error that the user can fix. Every other exception is a bug.

    ``what`` happened; the ``evidence``; the ``remedy``: a command to run or a thing to change.
    ``id`` is stable, in kebab case: tests and scripts use it, not the words. ``code``: exit code.
    """

    def __init__(
        self, what: str, *, id: str, remedy: str, evidence: str = "", code: int = ENVIRONMENT
    ) -> None:
        super().__init__(what)
        self.what = what
        self.id = id
        self.evidence = evidence
        self.remedy = remedy
        self.code = code

    def __str__(self) -> str:
        parts = [self.what]
        if self.evidence:
            parts.append("\n".join("    " + line for line in self.evidence.splitlines()))
        parts.append(f"Fix: {self.remedy}")
        return "\n".join(parts)


class UsageProblem(Problem):
    """A Problem of the command line or of a file that the user named: its code is USAGE."""

    def __init__(self, what: str, *, id: str, remedy: str, evidence: str = "") -> None:
        super().__init__(what, id=id, remedy=remedy, evidence=evidence, code=USAGE)
