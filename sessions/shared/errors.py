"""The one error that a user may see, and the exit codes that it can end with."""

from __future__ import annotations

CHECK_FAILED = 1  # something was checked and is not as it should be
USAGE = 2  # the command line or a file of the user's is wrong
ENVIRONMENT = 3  # the machine lacks something: a tool, a GPU, disk space, the network
BUG = 4  # an error of this project


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
