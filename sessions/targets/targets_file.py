"""Reads and checks ``targets.toml``, which has one table per target."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

from sessions.shared import knowledge, records
from sessions.shared.build_spec import GLIBCS, BuildSpec
from sessions.shared.errors import Problem, UsageProblem
from sessions.targets import user_cmake_options


@dataclass(frozen=True)
class Table:
    """A table of ``targets.toml``, with the fields of BuildSpec that it may set."""

    summary: str
    version: str
    archs: tuple[str, ...]
    python: str
    budget_mb: int
    cuda: str | None = None
    glibc: str = "2.28"
    warning: str | None = None
    device_features: tuple[str, ...] = ()
    cmake: dict[str, str] = dataclasses.field(default_factory=dict)
    product: bool = True


LATEST = "latest"  # as --version: the newest release of the package index
DEFAULTS = "defaults"  # the table of inherited values; not a target
_INHERITED = ("version", "cuda", "python", "glibc")  # the fields that [defaults] may set
# Folders in dist/ that are not targets (release/index/builder.py).
_TAKEN = re.compile(r"simple|cu\d+-.*")
FORMS = {
    "version": (r"\d+(\.\d+)+[a-z0-9.]*", "0.3.16"),
    "cuda": (r"\d+\.\d+", "13.1"),
    "python": (r"3\.\d+", "3.11"),
}


def load(text: str, platform: str) -> dict[str, BuildSpec]:
    """Every target of a ``targets.toml``, in its order.

    Raises Problem, which names all errors of a wrong table. Whether the version is
    locked and CUDA knows the architectures is checked by ``choose_target.choose``.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageProblem(
            "targets.toml is not TOML.",
            id="targets-not-toml",
            evidence=str(error),
            remedy="correct that line",
        ) from error
    inherited = tables.pop(DEFAULTS, {})
    specs = {}
    for name, value in {DEFAULTS: inherited, **tables}.items():
        if not isinstance(value, dict):
            raise UsageProblem(
                f"{name} in targets.toml is not a table.",
                id="target-not-a-table",
                remedy=f"write it as [{name}]",
            )
        if name == DEFAULTS:
            if unknown := set(value) - set(_INHERITED):
                raise _wrong(name, f"{name}: {', '.join(sorted(unknown))} cannot be inherited")
            continue
        try:
            own = {**inherited, **value}
            table: Table = records.from_json(Table, own, whole=False, name=name)
        except ValueError as error:
            raise _wrong(name, str(error)) from error
        if table.version == LATEST:
            table = dataclasses.replace(table, version=knowledge.newest_sdist())
        if faults := [*_name_faults(name), *_faults(table)]:
            raise _wrong(name, "\n".join(f"{name}{fault}" for fault in faults))
        cmake = tuple(sorted(table.cmake.items()))
        fields = {**vars(table), "cmake": cmake}
        specs[name] = BuildSpec(base=name, target=name, platform=platform, **fields)
    return specs


def _wrong(name: str, faults: str) -> Problem:
    needed = [field.name for field in dataclasses.fields(Table)]
    return UsageProblem(
        f"The table [{name}] of targets.toml is wrong.",
        id="target-table-invalid",
        evidence=faults,
        remedy=f"a target has {', '.join(needed)}; the comment in targets.toml says what they are",
    )


def _name_faults(name: str) -> Iterator[str]:
    """Errors of a target's name. It is a folder name; "+" separates overrides."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or len(name) > 40:
        yield ": a name has a-z and 0-9, - between them, and at most 40 letters"
    elif PureWindowsPath(name).is_reserved():
        yield ": Windows has no folder of this name"
    elif _TAKEN.fullmatch(name):
        yield ": dist/ has a folder of this name for the package index"


def _faults(table: Table) -> Iterator[str]:
    for field, (form, example) in FORMS.items():
        value = getattr(table, field)
        if value is not None and (not re.fullmatch(form, value, re.ASCII) or len(value) > 40):
            yield f".{field}: {value!r:.60} is not written as {example!r}"
    for field in ("summary", "warning"):
        if getattr(table, field) is not None and not getattr(table, field).strip():
            yield f".{field}: it is empty"
    if table.glibc not in GLIBCS:
        yield f".glibc: {table.glibc!r:.60} is not one of {', '.join(GLIBCS)}"
    if table.budget_mb < 0:
        yield f".budget_mb: {table.budget_mb} is less than nothing"
    if table.cuda is not None and not table.archs:
        yield ".archs: it is empty, and the target has a cuda"
    if table.archs and table.cuda is None:
        yield ".archs: it is for a target with a cuda"
    if table.device_features and table.cuda is None:
        yield ".device_features: it is for a target with a cuda"
    for field in ("archs", "device_features"):
        items = getattr(table, field)
        yield from (f".{field}[{n}]: it is empty" for n, item in enumerate(items) if not item)
        twice = {item for item in items if items.count(item) > 1}
        yield from (f".{field}: {item!r} occurs twice" for item in sorted(twice))
    for name, text in table.cmake.items():
        if why := user_cmake_options.refusal(name, text):
            yield f".cmake: {name} = {text!r:.60} is refused: {why}"
    for arch in filter(None, table.archs):
        try:
            knowledge.parse_arch(arch)
        except Problem as problem:
            yield f".archs: {problem.what}"
