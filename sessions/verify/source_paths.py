"""Finds paths of source and debug files in a library, in time proportional to its size."""

from __future__ import annotations

import re

LONGEST = 4096  # bytes of one path that are kept: Linux's PATH_MAX
MOST = 10_000  # paths that are kept; our libraries have none

# An absolute path of a source or debug file that not every machine has. Names are UTF-8 and may
# contain a space; a path does not begin inside a name. The quantifiers are possessive (++, *+),
# because with backtracking the search would take quadratic time.
_SIGN = rb"(?:[\w.+@~()-]|[\xc2-\xf4][\x80-\xbf]{1,3}+)"
_NAME = rb"%b++(?: ++%b++)*+" % (_SIGN, _SIGN)
_POSIX = re.compile(rb"(?:/%b)++" % _NAME)
_WINDOWS = re.compile(rb"[A-Za-z]:(?:[\\/]%b)++" % _NAME)
_DRIVE = re.compile(rb"[A-Za-z]:/")
_END = re.compile(rb"\.(?:c|cc|cpp|cxx|cu|cuh|h|hpp|inl|pdb|o|obj)(?!\w)")
_GOES_ON = re.compile(rb"[\w.+@~)/\\\x80-\xff-]")
_SEPARATOR = re.compile(rb"[\\/]")
_EVERYWHERE = re.compile(rb"/usr/(?:include|lib)/|[A-Za-z]:[\\/]Program Files")


def find(data: bytes) -> tuple[str, ...]:
    """The distinct paths, sorted; at most ``MOST``."""
    found = set[str]()
    for pattern in (_POSIX, _WINDOWS):
        for match in pattern.finditer(data):
            path = _path(data, match.start(), match.end())
            if path is not None:
                found.add(path[:LONGEST].decode("utf-8", "replace"))
            if len(found) == MOST:
                break
    return tuple(sorted(found))


def _path(data: bytes, start: int, end: int) -> bytes | None:
    """The longest path in a run of names, from the first name with which a path can begin."""
    last = max((match.end() for match in _END.finditer(data, start, end)), default=start)
    at = start
    if (
        start > 1
        and _DRIVE.match(data, start - 2)
        and not (start > 2 and _GOES_ON.match(data, start - 3))
    ):
        return None  # the rest of a Windows path
    while 0 <= at < last:
        begins = at == 0 or not _GOES_ON.match(data, at - 1)
        if begins and not _EVERYWHERE.match(data, at):
            path = data[at:last]
            # A single name is not a path of a machine.
            return path if len(_SEPARATOR.findall(path, 0, LONGEST)) > 1 else None
        # A Windows path can begin only with the drive, at the start of the run.
        at = data.find(b"/", at + 1, last) if data[start] == ord("/") else -1
    return None
