"""Context, the argument of every phase: options, BuildSpec, machine, folders and locks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

from sessions.shared import command_text, console, in_use, locks, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.machine import Machine
from sessions.shared.options import Options

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """Options, BuildSpec, machine, folders and locks of a phase."""

    LOCKS: ClassVar = "locks"  # in the cache; never deleted, because runs may wait for a lock
    SCRATCH: ClassVar = "tmp"  # in the cache; each run deletes its own part

    session: str  # the session that runs
    asked: frozenset[str]  # the sessions after -s
    options: Options
    spec: BuildSpec
    env: Mapping[str, str]  # the caller's environment
    machine: Machine
    root: Path  # of the project
    cache: Path  # toolkits, downloads, build tools, compiler cache: kept between builds
    specs: tuple[BuildSpec, ...] = ()  # all specs, if the session takes several targets
    targets: Mapping[str, BuildSpec] = field(default_factory=dict)  # every table of targets.toml

    @property
    def build(self) -> Path:
        """The folder of the target's records, logs, staged source and CMake tree.

        Symlinks are resolved, as CMake does: otherwise the libraries would contain this path.
        """
        return (self.root / "build" / self.spec.target).resolve()

    @property
    def wheels(self) -> Path:
        """The folder of the target's built wheels."""
        return self.root / "wheels" / self.spec.target

    def given(self, wheel: Path, sha256: str) -> Path:
        """The folder of the records of an external wheel. Each wheel has its own."""
        name = re.sub("[^A-Za-z0-9._+-]", "_", wheel.stem)[:100]
        return self.build / "given" / f"{name}-{sha256[:8]}"

    def record(self, session: str) -> Path:
        """The path of a phase's record. Those of an external wheel are in a folder of their own."""
        folder = self.build / "given" if self.options.wheel else self.build
        return folder / f"{session}.json"

    def need(self, session: str, type_: type[T]) -> T:
        """The value of the record that an earlier phase of this run wrote. Raises Problem."""
        remedy = command_text.command(session, self.spec)
        return records.need(self.record(session), session, type_, remedy)

    @property
    def fresh(self) -> bool:
        """Whether this session must run again even if it is up to date."""
        return self.options.fresh and self.session in self.asked

    @property
    def runs_wheel(self) -> bool:
        """Whether this run executes the wheel here, and does not import a report with --report."""
        return bool({"smoke", "bench"} & self.asked) and not self.options.report

    def cache_lock(self, name: str) -> AbstractContextManager[object]:
        """Lock a cache entry while this run creates it, in a with statement."""
        return locks.lock(self.cached_lock(name), console.say)

    def use_cached(self, name: str) -> None:
        """Use a cache entry: until this process ends, no run deletes or replaces it."""
        in_use.share(self.cached_lock(name), console.say)

    def replace_cached(self, name: str) -> AbstractContextManager[None]:
        """Wait until no run uses a cache entry, and lock it, in a with statement."""
        return in_use.exclusive(self.cached_lock(name), console.say)

    def scratch(self) -> AbstractContextManager[Path]:
        """A temporary folder on the disk of the cache."""
        return in_use.scratch(self.cache / self.SCRATCH)

    def cached_lock(self, name: str) -> Path:
        """The lock file of a cache entry."""
        return self.cache / self.LOCKS / f"{name}.lock"

    def lock_of(self, name: str) -> Path:
        """The lock file of a target, or of an unpacked source ("source-0.3.16")."""
        return self.root / "build" / f"{name}.lock"

    def use_source(self, version: str) -> None:
        """Use an unpacked source: until this process ends, no run deletes it."""
        in_use.share(self.lock_of(f"source-{version}"), console.say)

    def source_lock(self, version: str) -> AbstractContextManager[object]:
        """Lock an unpacked source, in a with statement."""
        return locks.lock(self.lock_of(f"source-{version}"), console.say)

    def target_lock(self, target: str) -> None:
        """Lock a target's build folder until this process ends."""
        locks.hold(self.lock_of(target), console.say)
