"""The one error that a user may see, and the exit codes that it can end with."""

from __future__ import annotations

from collections.abc import Iterable

CHECK_FAILED = 1  # something was checked and is not as it should be
USAGE = 2  # the command line or a file of the user's is wrong
ENVIRONMENT = 3  # the machine lacks something: a tool, a GPU, disk space, the network
BUG = 4  # an error of this project
# Where a user reports a bug: the project has no other address than that of its repository.
REPORT = "open an issue in the repository that you cloned"


def numbered(remedies: Iterable[str]) -> str:
    """Several remedies as one, each of them once; with numbers if there are two or more."""
    found = list(dict.fromkeys(remedies))
    if len(found) < 2:
        return "".join(found)
    return "\n".join(f"{number}. {text}" for number, text in enumerate(found, 1))


class Problem(Exception):
    """Something the user can fix.

    ``what`` happened, the ``evidence`` for it, and the ``remedy``: a command
    to run or a thing to change. ``id`` is stable, in kebab case: tests and scripts
    rely on it, not on the words. ``code`` is the exit code. Anything else that is
    raised is a bug of ours.
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
