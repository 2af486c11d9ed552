"""The input of every check of a wheel (``Case``), and functions that the checks share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sessions.build.record_types import Wheel
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check
from sessions.shared.command_text import command
from sessions.verify.metadata import PACKAGE
from sessions.verify.wheel_facts import Library, WheelFacts
from sessions.verify.wheel_rules import Upstream

SHOWN = 8  # lines of evidence that a check shows; facts.json has the rest
LINE = 400  # characters of one line
# What ``packaging`` raises for text that is not a requirement, a marker that compares what cannot
# be compared or has a variable of lock files, numbers of thousands of digits, or deep brackets.
REFUSED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Case:
    """A wheel's facts, and what they are compared with. ``record`` is that of its build, if any.

    If ``ours``, this checkout should have built the wheel, and a missing record is a failure.
    ``upstream`` has the known facts of the release that METADATA names, if it is locked.
    ``loader`` is the sha256 of our modules that this target's wheel runs on import, ``preload``
    that of the module that loads the libraries of a Windows wheel.
    """

    facts: WheelFacts
    spec: BuildSpec
    record: Wheel | None
    ours: bool
    loader: str
    preload: str
    upstream: Upstream | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """From the file name; if it is not that of a wheel, from WHEEL."""
        return self.facts.tags or self.facts.wheel_tags

    @property
    def windows(self) -> bool:
        """Whether the wheel is for Windows."""
        return any("-win" in tag for tag in self.tags)

    @property
    def libraries(self) -> tuple[Library, ...]:
        """The ELF and PE files in the wheel."""
        return self.facts.libraries


def rebuild(case: Case) -> str:
    """The remedy that builds the wheel of this target again."""
    return f"build it again: {command('wheel', case.spec, '--fresh')}"


def check(
    id_: str, problems: Iterable[str], *, ok: str, fail: str, remedy: str, soft: bool = False
) -> Check:
    """Passes if there is no problem; else it fails, or is a warning if ``soft``."""
    lines = [line if len(line) <= LINE else f"{line[:LINE]}…" for line in problems]
    if not lines:
        return Check(id_, "ok", f"{id_}: {ok}")
    if len(lines) > SHOWN:
        lines = [*lines[:SHOWN], f"… and {len(lines) - SHOWN} more"]
    return Check(id_, "warn" if soft else "fail", f"{id_}: {fail}", "\n".join(lines), remedy)


def unread(case: Case) -> Iterator[str]:
    """Why a check of the libraries cannot be performed."""
    if not case.libraries:
        yield "not checked: there is no library in it"
    for library in case.libraries:
        if library.error:
            yield f"{library.member}: not checked, {library.error}"


def required(case: Case, *names: str) -> list[Requirement]:
    """The requirements in METADATA of these packages on the wheel's platform, without extras.

    Environment markers are evaluated (PEP 508) for CPython in the target's version.
    """
    found = []
    for text in case.facts.requires:
        try:
            requirement, holds = requirement_of(case, text)
        except REFUSED:  # the check `metadata` shows it
            continue
        if holds and canonicalize_name(requirement.name) in names:
            found.append(requirement)
    return found


def requirement_of(case: Case, text: str) -> tuple[Requirement, bool]:
    """A requirement, and whether its marker is true. Raises one of ``REFUSED`` if it is invalid."""
    requirement = Requirement(text)
    marker = requirement.marker
    return requirement, marker is None or marker.evaluate(_environment(case))


def _environment(case: Case) -> dict[str, str]:
    system = {
        "os_name": "nt" if case.windows else "posix",
        "sys_platform": "win32" if case.windows else "linux",
        "platform_system": "Windows" if case.windows else "Linux",
        "platform_machine": "AMD64" if case.windows else "x86_64",
    }
    python = {
        "python_version": case.spec.python,
        "python_full_version": f"{case.spec.python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{case.spec.python}.0",
        "platform_python_implementation": "CPython",
    }
    return {**system, **python, "platform_release": "", "platform_version": "", "extra": ""}


def stem(member: str) -> str:
    """A library's base name: llama_cpp/lib/libggml-cpu.so.0 and ggml-cpu.dll -> ggml-cpu."""
    name = re.sub(r"\.(so|dll|pyd|dylib|exe)(\.\d+)*$", "", member.rsplit("/", 1)[-1])
    # auditwheel and delvewheel add a hash to the names of libraries that they copy into a wheel.
    return re.sub(r"-[0-9a-f]{8,}$", "", name.removeprefix("lib"))


def find(case: Case, name: str) -> Library | None:
    """The library with this base name in the folder from which Python loads it, or None."""
    folder = f"{PACKAGE}/lib/"
    for library in case.libraries:
        if library.member.startswith(folder) and stem(library.member) == name:
            return library
    return None
