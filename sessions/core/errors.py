"""The one error that a user may see."""

from __future__ import annotations


class Problem(Exception):
    """Something the user can mend.

    ``what`` happened, the ``evidence`` for it, and the ``remedy``: a command
    to run or a thing to change. Anything else that is raised is a bug of ours.
    """

    def __init__(self, what: str, *, remedy: str, evidence: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.evidence = evidence
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.what]
        if self.evidence:
            parts.append("\n".join("    " + line for line in self.evidence.splitlines()))
        parts.append(f"To mend it: {self.remedy}")
        return "\n".join(parts)
