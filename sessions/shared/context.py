"""What a phase is given: its options, its BuildSpec, the machine, and its folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

from sessions.shared import console, disk, in_use, records, remedies
from sessions.shared.build_spec import BuildSpec
from sessions.shared.machine import Machine
from sessions.shared.options import Options

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """Everything a stage may know of its surroundings."""

    LOCKS: ClassVar = "locks"  # in the cache: never deleted, as runs may wait for any of them
    SCRATCH: ClassVar = "tmp"  # in the cache: what runs unpack, deleted as they end

    session: str  # the session that runs
    asked: frozenset[str]  # the sessions that were asked for by name
    options: Options
    spec: BuildSpec
    env: Mapping[str, str]  # the caller's environment
    machine: Machine
    root: Path  # of the project
    cache: Path  # toolkits, downloads, build tools, compiler cache: kept between builds
    specs: tuple[BuildSpec, ...] = ()  # of a session that takes several targets: all of them
    targets: Mapping[str, BuildSpec] = field(default_factory=dict)  # every table of targets.toml

    @property
    def build(self) -> Path:
        """Records, logs, staged source and CMake tree of the target.

        Without links, as CMake has it: else its real path would be in the libraries.
        """
        return (self.root / "build" / self.spec.target).resolve()

    @property
    def wheels(self) -> Path:
        """Finished wheels of the target."""
        return self.root / "wheels" / self.spec.target

    def given(self, wheel: Path, sha256: str) -> Path:
        """Where records of a wheel lie that was not built here; that of no other wheel."""
        name = re.sub("[^A-Za-z0-9._+-]", "_", wheel.stem)[:100]
        return self.build / "given" / f"{name}-{sha256[:8]}"

    def record(self, stage: str) -> Path:
        """Where a stage's record is; of a given wheel apart from those of the target's build."""
        folder = self.build / "given" if self.options.wheel else self.build
        return folder / f"{stage}.json"

    def need(self, stage: str, type_: type[T]) -> T:
        """The value of the record that a stage of the same run must have left. Raises Problem."""
        remedy = remedies.command(stage, self.spec)
        return records.need(self.record(stage), stage, type_, remedy)

    @property
    def fresh(self) -> bool:
        """Whether this very session's work is to be done again."""
        return self.options.fresh and self.session in self.asked

    @property
    def runs_wheel(self) -> bool:
        """Whether the wheel is run here: not where the report of another machine is taken back."""
        return bool({"smoke", "bench"} & self.asked) and not self.options.report

    def cache_lock(self, name: str) -> AbstractContextManager[object]:
        """Be the one run that makes a part of the cache: a with statement."""
        return disk.lock(self.cached_lock(name), console.say)

    def use_cached(self, name: str) -> None:
        """Use a part of the cache until this process ends: no run deletes or replaces it."""
        in_use.share(self.cached_lock(name), console.say)

    def replace_cached(self, name: str) -> AbstractContextManager[None]:
        """Wait until no other run uses a part of the cache, and have it: a with statement."""
        return in_use.sole(self.cached_lock(name), console.say)

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder of this run's own on the disk of the cache, deleted at the end."""
        return in_use.scratch(self.cache / self.SCRATCH)

    def cached_lock(self, name: str) -> Path:
        """The lock file that stands for a part of the cache."""
        return self.cache / self.LOCKS / f"{name}.lock"

    def lock_of(self, name: str) -> Path:
        """The lock file that stands for a target, or for an unpacked source ("source-0.3.16")."""
        return self.root / "build" / f"{name}.lock"

    def use_source(self, version: str) -> None:
        """Use an unpacked source until this process ends: no run deletes it."""
        in_use.share(self.lock_of(f"source-{version}"), console.say)

    def source_lock(self, version: str) -> AbstractContextManager[object]:
        """Have one unpacked source only for this process: a with statement."""
        return disk.lock(self.lock_of(f"source-{version}"), console.say)

    def target_lock(self, target: str) -> None:
        """Have one target's build folder only for this process, until it ends."""
        disk.hold(self.lock_of(target), console.say)
