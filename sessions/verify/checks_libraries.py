"""Checks of the libraries: CPU code, imports, exports, search paths, symbol versions. All pure."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterator, Sequence

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from sessions.shared import knowledge
from sessions.shared.check_result import Check
from sessions.verify import wheel_rules
from sessions.verify.check_input import Case, check, find, rebuild, required, stem, unread
from sessions.verify.metadata import PACKAGE
from sessions.verify.wheel_facts import Binding, Library

_LOWER_BOUNDS = (">=", "==", "~=", ">")
BY_PATH = "$ORIGIN/"  # before the name of a needed library: the one in the same folder
_ORIGIN = re.compile(r"\$(?:ORIGIN|\{ORIGIN\})(?=/|$)")


def libraries(case: Case) -> Check:
    """Every library can be read completely, is for x86-64, and can be loaded by the system."""
    return check(
        "libraries",
        _libraries(case),
        ok=f"{len(case.libraries)} × {'PE' if case.windows else 'ELF'} for x86-64",
        fail="a library is damaged, or made for another system",
        remedy=rebuild(case),
    )


def _libraries(case: Case) -> Iterator[str]:
    yield from unread(case)
    expected = "pe" if case.windows else "elf"
    for library in case.libraries:
        if library.error and not library.format:
            continue
        if library.format != expected:
            yield f"{library.member}: {library.format.upper()}, and the tag says {expected.upper()}"
        if library.machine != "x86_64":
            yield f"{library.member}: for {library.machine or 'an unknown machine'}"
        elif not library.instructions:
            yield f"{library.member}: no machine code in it"
        if library.executable_stack and library.format == "elf":
            yield f"{library.member}: wants an executable stack, which glibc 2.41 refuses"
        yield from (f"{library.member}: {fault}" for fault in library.faults)
    yield from _names(case)


def _names(case: Case) -> Iterator[str]:
    """Libraries with unknown names, and those whose SONAME is that of another library."""
    own, carried = wheel_rules.libraries("windows" if case.windows else "linux")
    known = re.compile("|".join([*map(re.escape, sorted(own)), *carried]))
    same = {(lib.sha256, lib.member.rsplit("/", 1)[-1]) for lib in case.libraries}
    for library in case.libraries:
        name = stem(library.member)
        if library.format and not known.fullmatch(name.lower() if case.windows else name):
            yield f"{library.member}: not a library that a wheel of llama-cpp-python has"
        # A zip file has copies where a file system has links; the SONAME is that of one copy.
        named = library.soname.removeprefix(BY_PATH)
        if named and (library.sha256, named) not in same:
            yield f"{library.member}: its SONAME is {library.soname}"


def imports(case: Case) -> Check:
    """Each needed library comes with the system, the wheel, the driver or a required package."""
    needed = sorted({name for lib in case.libraries for name in lib.imports})
    return check(
        "imports",
        [*unread(case), *_imports(case, needed), *_neighbours(case)],
        ok=f"{len(needed)} libraries, each from the system, the wheel, the driver "
        "or a required package",
        fail="a library would not be found on the user's machine",
        remedy="add the library to the wheel, or the package that has it to the requirements; then "
        + rebuild(case),
    )


def _imports(case: Case, needed: Sequence[str]) -> Iterator[str]:
    known = wheel_rules.platform_libraries("windows" if case.windows else "linux")
    inside = {lib.member.rsplit("/", 1)[-1] for lib in case.libraries}
    inside |= {name.lower() for name in inside} if case.windows else set()
    for name in needed:
        users = [lib.member.rsplit("/", 1)[-1] for lib in case.libraries if name in lib.imports]
        who = f"needed by {', '.join(users)}"
        if re.search(r"[/\\$]", name.removeprefix(BY_PATH)):
            yield f"{name}: a path, not a name: it is loaded from there ({who})"
            continue
        provided = name.removeprefix(BY_PATH) in inside or name in known.system
        if provided or name.startswith(known.prefixes):
            continue
        if name in known.driver:
            if not case.spec.archs:
                yield f"{name}: the driver's, and the target is for machines without one"
            continue
        runtime = known.runtime(name)
        if runtime is None:
            yield f"{name}: nothing provides it ({who})"
            continue
        package, major = runtime
        if case.spec.cuda is None:
            yield f"{name}: CUDA, and the target is for the CPU only"
        elif major != case.spec.cuda.split(".")[0]:
            yield f"{name}: CUDA {major}, and the target is CUDA {case.spec.cuda}"
        else:
            yield from _requirement(case, name, package, major)


def _requirement(case: Case, name: str, package: str, major: str) -> Iterator[str]:
    """Problems of the requirement in METADATA of the package that has a CUDA library."""
    found = required(case, package, f"{package}-cu{major}")
    if not found:
        yield f"{name}: METADATA requires no {package}, so nothing brings it"
        return
    specifiers = SpecifierSet(",".join(str(r.specifier) for r in found))
    if _majors(specifiers) != {int(major)}:
        yield f"{name}: {found[0]} does not limit pip to CUDA {major}"
    floor = knowledge.floors(major)[package]
    lower = [s.version.removesuffix(".*") for s in specifiers if s.operator in _LOWER_BOUNDS]
    oldest = max(map(Version, lower), default=None)
    if oldest is None or oldest < Version(floor.version):
        yield f"{name}: {found[0]} admits releases older than {floor.version}, the oldest known"
    taken = {f for library in case.libraries for f in library.runtime.get(name, ())}
    if not taken:
        yield f"{name}: not checked, it is not known which of its functions are needed"
    lacking = sorted(taken - floor.exports)
    if lacking:
        yield (
            f"{name}: {package} {floor.version}, which METADATA admits, lacks functions that are "
            f"needed: {lacking[0]}" + (f" and {len(lacking) - 1} more" if lacking[1:] else "")
        )


@functools.cache
def _majors(specifiers: SpecifierSet) -> frozenset[int]:
    """The major versions that are admitted, tested with the named versions and a grid."""
    named = [s.version.removesuffix(".*") for s in specifiers]
    grid = [f"{major}.{minor}" for major in range(100) for minor in (0, 5)]
    found = set()
    for text in [*named, *(f"{version}.1" for version in named), *grid]:
        try:
            if specifiers.contains(text):
                found.add(Version(text).major)
        except ValueError:  # not a version, or more digits than Python converts
            continue
    return frozenset(found)


def _neighbours(case: Case) -> Iterator[str]:
    """Libraries that would not find another library of the wheel."""
    if case.windows:
        yield from _apart(case)
        return
    inside = {lib.member.rsplit("/", 1)[-1] for lib in case.libraries}
    system = wheel_rules.platform_libraries("linux").system
    home = f"{PACKAGE}/lib/"  # auditwheel copies libraries elsewhere, under unique names
    private = {m.removeprefix(home) for m in case.facts.members if m.startswith(home)}
    private -= wheel_rules.platform_libraries("linux").shared
    for library in case.libraries:
        places = [
            place
            for each in [library, *_needing(case, library)]
            for place in _searched(
                each, library.search_paths if each is library else each.inherited_paths
            )
        ]
        for name in library.imports:
            if name.startswith(BY_PATH):
                beside = f"{posixpath.dirname(library.member)}/{name.removeprefix(BY_PATH)}"
                if beside not in case.facts.members:
                    yield f"{library.member}: needs {beside}, which is not in the wheel"
                continue
            found = any(f"{place}/{name}" in case.facts.members for place in places)
            if name in inside - system and not found:
                yield f"{library.member}: no search path leads it to {name}, which is in the wheel"
            if case.ours and name in private - system:
                yield (
                    f"{library.member}: needs {name} by its name, so another one that is "
                    "loaded already, or in LD_LIBRARY_PATH, would be taken for it"
                )


def _apart(case: Case) -> Iterator[str]:
    """DLLs that need a DLL in another folder of the wheel, which nothing loads first.

    Upstream loads llama.dll with winmode=0: Windows searches other folders only if they are on
    PATH, to which upstream adds llama_cpp/lib.
    """
    found = case.facts
    if found.preload == case.preload and found.preload_called:
        return
    places = {lib.member.rsplit("/", 1)[-1].lower(): lib.member for lib in case.libraries}
    for library in case.libraries:
        for name in library.imports:
            place = posixpath.dirname(places.get(name, library.member))
            if place not in (posixpath.dirname(library.member), f"{PACKAGE}/lib"):
                yield f"{library.member}: needs {name}, and nothing loads it from {place} first"


def _needing(case: Case, library: Library) -> list[Library]:
    """The libraries that need this one, directly or not: their DT_RPATH applies to it too.

    None if it has its own DT_RUNPATH (ld.so(8)).
    """
    found: list[Library] = []
    if library.search_paths and not library.inherited_paths:
        return found
    waiting = [library]
    while waiting:
        name = waiting.pop().member.rsplit("/", 1)[-1]
        more = [
            each
            for each in case.libraries
            if {name, BY_PATH + name} & {*each.imports} and each not in found
        ]
        found += more
        waiting += more
    return found


def _searched(library: Library, paths: Sequence[str]) -> list[str]:
    """The folders of the wheel that search paths of a library name."""
    here = posixpath.dirname(library.member)
    inside = [path for path in paths if _ORIGIN.match(path)]
    return [posixpath.normpath(_ORIGIN.sub(lambda _: here, path, count=1)) for path in inside]


def api(case: Case) -> Check:
    """Every function that the package's Python looks up is exported by its library."""
    return check(
        "api",
        _api(case),
        ok=f"{sum(len(binding.functions) for binding, _ in _lookups(case))} functions are exported",
        fail="the Python files call functions that the libraries do not export: the import fails",
        remedy=rebuild(case),
    )


def _lookups(case: Case) -> list[tuple[Binding, Library]]:
    """The bindings that are imported, with their libraries. Layout reports missing libraries."""
    found = [(b, find(case, b.library)) for b in case.facts.bindings if b.reached]
    return [(binding, library) for binding, library in found if library]


def _api(case: Case) -> Iterator[str]:
    yield from (
        f"{module}: not checked, it cannot be read, or looks up functions in an unknown way"
        for module in case.facts.unparsed
    )
    lookups = _lookups(case)
    if not any(binding.functions for binding, _ in lookups):
        yield "not checked: no module looks up a function in a library of the wheel"
    for binding, library in lookups:
        if library.error:
            yield f"{library.member}: not checked, {library.error}"
        for name in sorted(set(binding.functions) - set(library.exports)):
            yield f"{binding.module}: {name} is not in {library.member}"


def cpu_baseline(case: Case) -> Check:
    """No library has instructions that a CPU which loads it may lack; every CPU has a module.

    ggml loads a module only if the score of the module shows that the CPU can run it.
    """
    cpu = wheel_rules.cpu()
    variants = [name for lib in case.libraries if (name := cpu.variant(stem(lib.member)))]
    total = sum(lib.instructions for lib in case.libraries)
    return check(
        "cpu-baseline",
        [*unread(case), *_beyond(case, cpu), *_dispatch(case, cpu, variants)],
        ok=f"{total} instructions, none beyond {cpu.level} except in the modules that ggml chooses "
        f"for the CPU: {', '.join(sorted(variants))}",
        fail="on some CPUs it would crash (illegal instruction) or find no module",
        remedy="build it without -march=native (GGML_NATIVE=ON) or a similar option; "
        + rebuild(case),
    )


def _beyond(case: Case, cpu: wheel_rules.CpuRules) -> Iterator[str]:
    for library in case.libraries:
        allowed = cpu.variants.get(cpu.variant(stem(library.member)) or "", cpu.features)
        for feature, count in library.cpu_features.items():
            # Data between functions may decode as invalid instructions; if many are invalid, it is
            # not code.
            if feature == "INVALID" and count < library.instructions / 100:
                continue
            if feature not in allowed and feature not in library.guarded:
                shown = "; ".join(library.first_use.get(feature, []))
                yield f"{library.member}: {count} × {feature}, such as {shown}"


def _dispatch(case: Case, cpu: wheel_rules.CpuRules, variants: Sequence[str]) -> Iterator[str]:
    """CPU modules that ggml would not choose by their score, or CPUs without a module."""
    names = {lib.member.rsplit("/", 1)[-1]: cpu.variant(stem(lib.member)) for lib in case.libraries}
    for library in case.libraries:
        name = cpu.variant(stem(library.member))
        if name and name not in cpu.variants:
            yield f"{library.member}: it is not known which CPUs a module of that name is for"
        if name and cpu.dispatch_export not in library.exports:
            yield f"{library.member}: exports no {cpu.dispatch_export}, so ggml does not load it"
        for needed in library.imports:
            if names.get(needed.removeprefix(BY_PATH)):
                yield f"{library.member}: needs {needed}, so every CPU has to run that module"
    if case.libraries and cpu.baseline not in variants:
        linked = find(case, cpu.prefix.rstrip("-"))
        if case.ours or not linked:
            yield f"there is no {cpu.prefix}{cpu.baseline}, the module that every CPU can run"


def paths(case: Case) -> Check:
    """There are no search paths and no source paths of the build machine."""
    return check(
        "paths",
        [*unread(case), *_paths(case)],
        ok="no folder of the build machine",
        fail="folders of the build machine are in the libraries",
        remedy=rebuild(case),
    )


def _paths(case: Case) -> Iterator[str]:
    for library in case.libraries:
        for path in library.search_paths:
            if not _ORIGIN.match(path):
                yield f"{library.member}: searches for libraries in {path or 'an empty path'}"
            elif "$" in path[1:]:
                yield f"{library.member}: searches in {path}, which each system reads otherwise"
        for place in _searched(library, library.search_paths):
            if place.split("/")[0] == "..":
                yield f"{library.member}: a search path leaves the wheel: {place}"
        if library.build_paths:
            count, first = len(library.build_paths), library.build_paths[0]
            yield f"{library.member}: {count} of source and debug files, such as {first}"


def platform_tag(case: Case) -> Check:
    """The platform tag allows no system that is older than the libraries need."""
    needs: dict[str, str] = {}
    for library in case.libraries:
        for name, version in library.symbol_versions.items():
            needs[name] = max(needs.get(name, "0"), version, key=Version)
    versions = ", ".join(
        f"{name} {version}".removesuffix(" 0") for name, version in sorted(needs.items())
    )
    return check(
        "platform-tag",
        [*unread(case), *_platform(case, needs)],
        ok=f"{', '.join(sorted(_platforms(case)))} is right{f' ({versions})' if versions else ''}",
        fail="the libraries need more than the platform tag allows",
        remedy="auditwheel show WHEEL names the right tag; " + rebuild(case),
    )


def _platforms(case: Case) -> set[str]:
    return {tag.split("-", 2)[2] for tag in case.tags if tag.count("-") >= 2}


def _platform(case: Case, needs: dict[str, str]) -> Iterator[str]:
    platforms = _platforms(case)
    if not platforms:
        yield "there is no platform tag"
    for platform in sorted(platforms):
        if case.windows and platform == "win_amd64":
            continue
        allowed = wheel_rules.manylinux(platform)
        if allowed is None:
            yield f"{platform} is not a tag of Windows x64 or manylinux x86_64"
            continue
        oldest = case.spec.glibc if case.ours and case.spec.old_glibc else allowed["GLIBC"]
        if Version(allowed["GLIBC"]) > Version(oldest):
            yield f"{platform}: the target is for glibc {oldest} and newer"
        for name, version in sorted(needs.items()):
            if name not in allowed or Version(version) > Version(allowed[name]):
                who = [
                    lib.member.rsplit("/", 1)[-1]
                    for lib in case.libraries
                    if lib.symbol_versions.get(name) == version
                ]
                has = f"{name} {allowed[name]}" if name in allowed else f"no {name}"
                needed = version if name in allowed else "it"
                yield f"{platform} has {has}; {', '.join(who)} needs {needed}"
