"""Checks of the zip file, its metadata, its SBOM, and the record of its build. All pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from sessions.build.sbom import INSIDE
from sessions.probe import ms_runtime
from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check
from sessions.verify import checks_python
from sessions.verify.check_input import (
    REFUSED,
    Case,
    check,
    find,
    rebuild,
    required,
    requirement_of,
    stem,
)
from sessions.verify.metadata import PACKAGE
from sessions.verify.wheel_facts import Bill, Material
from sessions.verify.wheel_rules import platform_libraries


def archive(case: Case) -> Check:
    """The zip file has no duplicates, no links, nothing hidden, and no path outside its folder."""
    return check(
        "archive",
        case.facts.archive_problems,
        ok=f"{len(case.facts.members)} files, {case.facts.size / 1e6:.1f} MB",
        fail="the zip file is not well formed",
        remedy="do not install it; download it again, or " + rebuild(case),
    )


def record(case: Case) -> Check:
    """RECORD lists exactly the members, with their hashes and sizes."""
    return check(
        "record",
        case.facts.record_problems,
        ok=f"{len(case.facts.members) - 1} hashes agree",
        fail="RECORD and the files differ: the wheel was changed after it was built",
        remedy="do not install it; download it again, or " + rebuild(case),
    )


def metadata(case: Case) -> Check:
    """File name, METADATA, WHEEL and tags agree with one another and with the target."""
    return check(
        "metadata",
        _metadata(case),
        ok=f"{case.facts.name} {case.facts.version}, {', '.join(case.facts.tags)}",
        fail="file name, METADATA, WHEEL and target do not agree",
        remedy="give the file back its original name (python -m wheel tags changes tags), or "
        + rebuild(case),
    )


def _metadata(case: Case) -> Iterator[str]:
    facts, spec = case.facts, case.spec
    yield from facts.metadata_problems
    if canonicalize_name(facts.metadata_name) != facts.name or facts.name != "llama-cpp-python":
        yield f"name: {facts.name} by the file, {facts.metadata_name or 'none'} by METADATA"
    if not _same_version(facts.version, facts.metadata_version):
        yield f"version: {facts.version} by the file, {facts.metadata_version} by METADATA"
    # The version of a checkout is the one that its build recorded.
    recorded = case.record.version if spec.source and case.record else None
    version, whose = (recorded, "checkout") if recorded else (spec.version, "target")
    if not _same_version(facts.metadata_version.split("+")[0], version):
        yield f"version: {facts.metadata_version}, and the {whose}'s is {version}"
    if facts.tags != facts.wheel_tags:
        yield f"tags: {', '.join(facts.tags)} by the file, {', '.join(facts.wheel_tags)} by WHEEL"
    expected = _python_tags(spec)
    for tag in facts.tags:
        python = "-".join(tag.split("-")[:2])
        if expected and python != expected:
            yield f"Python tag: {python}, and the target's is {expected}"
    if facts.purelib:
        yield "Root-Is-Purelib is not false, and it contains machine code"
    try:
        if not SpecifierSet(facts.requires_python).contains(spec.python):
            yield f"Requires-Python {facts.requires_python} refuses the target's {spec.python}"
    except ValueError:  # InvalidSpecifier, and numbers with more digits than Python converts
        yield f"Requires-Python {facts.requires_python!r:.80} cannot be read"
    yield from _requirements(case)
    if case.ours and case.windows != (spec.platform == "windows"):
        yield f"platform: {', '.join(facts.tags)}, and the target's is {spec.platform}"


def _requirements(case: Case) -> Iterator[str]:
    """Requirements that cannot be read, or that neither upstream nor our builds add.

    An installer installs them, so their code is run as part of the wheel.
    """
    packages = {package for _, package in platform_libraries("linux").cuda} | {"cuda-pathfinder"}
    ours = re.compile("|".join(rf"{re.escape(package)}(-cu\d+)?" for package in packages))
    for text in case.facts.requires:
        try:
            requirement, _ = requirement_of(case, text)
            requirement.specifier.contains("1")
        except REFUSED:
            yield f"Requires-Dist {text!r:.80} cannot be read"
            continue
        name = canonicalize_name(requirement.name)
        known = case.upstream is None or str(requirement) in case.upstream.requires
        if known or case.spec.source is not None:
            continue
        if case.spec.cuda is None or not ours.fullmatch(name):
            yield f"Requires-Dist {text!r:.80}: upstream does not require it"


def _same_version(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except ValueError:  # InvalidVersion, and numbers with more digits than Python converts
        return False


def _python_tags(spec: BuildSpec) -> str | None:
    """Python and ABI tag as upstream sets them for the release; None if it is not known."""
    known = knowledge.sdists().get(spec.version)
    if spec.source or known is None:
        return None
    if known.py_api:
        return f"{known.py_api}-none"
    number = spec.python.replace(".", "")
    return f"cp{number}-cp{number}"


def layout(case: Case) -> Check:
    """Only the package and .dist-info; each library once; every library that Python loads."""
    count = len(case.libraries)
    vendored = any(name.startswith(f"{ms_runtime.FOLDER}/") for name in case.facts.members)
    folders = f"{PACKAGE}/, {ms_runtime.FOLDER}/" if vendored else f"{PACKAGE}/"
    return check(
        "layout",
        _layout(case),
        ok=f"{folders} and .dist-info/ only, {count} libraries, each once",
        fail="it contains files that do not belong there, or lacks files that it needs",
        remedy=rebuild(case),
    )


def _layout(case: Case) -> Iterator[str]:
    for top, count in Counter(name.split("/")[0] for name in case.facts.members).items():
        # ms_runtime.FOLDER: auditwheel and delvewheel copy libraries into it.
        if top not in (PACKAGE, ms_runtime.FOLDER) and not top.endswith(".dist-info"):
            yield f"stray: {top}{'' if top in case.facts.members else '/'} ({count} files)"
    yield from checks_python.hidden(case.facts.members)
    stems: dict[str, list[str]] = {}
    for library in case.libraries:
        stems.setdefault(stem(library.member), []).append(library.member)
    for members in stems.values():
        if len(members) > 1:
            yield f"{len(members)} copies: {', '.join(members)}"
    yield from (
        f"{module}: it cannot be read as Python, or uses its library in an unknown way"
        for module in case.facts.unparsed
    )
    loaded = [b for b in case.facts.bindings if b.reached]
    if not loaded:
        yield f"no module of {PACKAGE} loads a library, as upstream's do"
    needed = {b.library: b.module for b in loaded}
    # The check gpu-code looks for ggml-cuda.
    for name, why in needed.items():
        if find(case, name) is None:
            yield f"missing: {name}, which {why} loads from {PACKAGE}/lib/"


def size(case: Case) -> Check:
    """The wheel is not larger than the target's budget."""
    budget, found = case.spec.budget_mb, case.facts.size / 1e6
    over = [f"{found:.1f} MB, and the target allows {budget}"] if found > budget else []
    largest = sorted(case.libraries, key=lambda item: -item.size)[:4]
    over += [f"{item.member}: {item.size / 1e6:.1f} MB unpacked" for item in largest if over]
    return check(
        "size",
        over,
        ok=f"{found:.1f} of {budget} MB",
        fail="larger than the target allows",
        remedy="find what grew (layout and ptx above), or raise budget_mb in targets.toml",
    )


def sbom(case: Case) -> Check:
    """There is an SBOM (PEP 770), and it agrees with the wheel."""
    bills = case.facts.bills
    named = len(bills[0].materials) if bills else 0
    return check(
        "sbom",
        _sbom(case),
        ok=f"{named} {'component' if named == 1 else 'components'}, which match the wheel",
        fail="the SBOM is missing or wrong",
        remedy=rebuild(case),
        soft=not bills and not case.ours,
    )


def _sbom(case: Case) -> Iterator[str]:
    if len(case.facts.bills) != 1:
        yield f"{len(case.facts.bills)} SBOMs of blackwheel instead of one"
        return
    (bill,) = case.facts.bills
    if bill.problems:
        yield from (f"{bill.member} cannot be read: {line}" for line in bill.problems)
        return
    if (bill.name, bill.version) != (case.facts.name, case.facts.metadata_version.split("+")[0]):
        yield f"it is of {bill.name} {bill.version}"
    if case.record and case.record.sbom != bill.sha256:
        yield "it is not the one that the recorded build put there"
    names = Counter(part.name for part in bill.materials)
    yield from (f"{name}: named {count} times" for name, count in names.items() if count > 1)
    yield from _release(case, bill)
    yield from _materials(case, {part.name: part for part in bill.materials})


def _release(case: Case, bill: Bill) -> Iterator[str]:
    """Where the SBOM differs from the known facts of a locked release."""
    if case.upstream is None or case.spec.source is not None:
        return
    if bill.sdist_sha256 != case.upstream.sdist_sha256:
        yield f"made from another sdist than that of {case.upstream.version}, or from none"
    named = {part.name: part for part in bill.materials if INSIDE in part.roles}
    for name, version in case.upstream.parts.items():
        if name not in named:
            yield f"{name}: in {case.upstream.version}, and not named"
        elif named[name].version != version:
            yield f"{name}: {named[name].version or 'no version'}, and it is {version or 'unknown'}"


def _materials(case: Case, parts: dict[str, Material]) -> Iterator[str]:
    linked = ["libstdc++"] if case.ours and case.spec.old_glibc else []
    for name in ("llama.cpp", "ggml", *linked):
        if name not in parts:
            yield f"{name}: in the wheel, and not named"
    needed = {name for name in parts if parts[name].requirement}
    runtime = {package for _, package in platform_libraries("linux").cuda} | {"cuda-pathfinder"}
    requirements = {str(canonicalize_name(r.name)): r for r in required(case, *runtime, *needed)}
    for name in sorted(needed | requirements.keys()):
        part, requirement = parts.get(name), requirements.get(name)
        if part is None or not part.requirement:
            yield f"{name}: METADATA requires it, and it is not named as required"
        elif requirement is None:
            yield f"{name}: named as required, and METADATA does not require it"
        elif part.version and not _allows(requirement, part.version):
            yield f"{name}: {part.version}, and METADATA requires {requirement}"
    files = {stem(part.file): part for part in parts.values() if part.file}
    others = {stem(item.member): item for item in case.libraries if not _upstreams(item.member)}
    for name in sorted(files.keys() | others.keys()):
        if name not in others:
            yield f"{files[name].file}: named, and not in the wheel"
        elif name not in files:
            yield f"{others[name].member}: in the wheel, and not named"
        elif files[name].sha256 != others[name].sha256:
            yield f"{others[name].member}: not the file that is named"


def _allows(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(version)
    except ValueError:
        return False


def _upstreams(member: str) -> bool:
    return re.fullmatch(r"ggml(-.*)?|llama|mtmd", stem(member)) is not None


def reproducible(case: Case) -> Check:
    """All members have the same time, and the inputs of the build are on record."""
    return check(
        "reproducible",
        _reproducible(case),
        ok=f"every file has the time {case.facts.times[0] if case.facts.times else '?'}",
        fail="a second build could not give the same bytes",
        remedy=rebuild(case),
        soft=not case.ours,
    )


def _reproducible(case: Case) -> Iterator[str]:
    times = case.facts.times
    if len(times) != 1:
        yield f"{len(times)} different times, {times[0]} to {times[-1]}" if times else "no time"
    if case.record is None:
        yield "there is no record of what it was made from"
    elif not (case.record.fingerprint and case.record.source_digest and case.record.compiler):
        yield "the record of its build lacks the digests of its inputs"


def loader(case: Case) -> Check:
    """Our modules that run on import are complete, unmodified, and called first."""
    return check(
        "loader",
        _loader(case),
        ok="llama_cpp loads the module for the CPU"
        + (", finds the CUDA runtime and checks the GPUs" * bool(case.spec.cuda)),
        fail="import llama_cpp would fail, or would not say what the machine lacks",
        remedy=rebuild(case),
        # An external CPU wheel needs no loader.
        soft=case.spec.cuda is None and not case.ours,
    )


def _loader(case: Case) -> Iterator[str]:
    if case.facts.loader is None:
        finds = "nothing finds cudart and cuBLAS in NVIDIA's packages"
        yield f"missing: {finds if case.spec.cuda else 'nothing loads the module for the CPU'}"
        return
    if case.facts.loader != case.loader:
        yield "it is not the one that this target's wheel has"
    if not case.facts.loader_called:
        yield f"{PACKAGE}/__init__.py does not call it first"
    if case.spec.cuda and not required(case, "cuda-pathfinder"):
        yield "METADATA does not require cuda-pathfinder, with which it finds them"


def freshness(case: Case) -> Check:
    """The libraries are those that the recorded build made."""
    return check(
        "freshness",
        _freshness(case),
        ok="every library is the one that the recorded build made",
        fail="a library is not the one that the recorded build made, or there is no record",
        remedy=rebuild(case),
        soft=case.record is None and not case.ours,
    )


def _freshness(case: Case) -> Iterator[str]:
    if case.record is None:
        yield "there is no record of its build beside it"
        return
    recorded = case.record.libraries
    present = {lib.member.rsplit("/", 1)[-1]: lib.sha256 for lib in case.libraries}
    for name in sorted(present.keys() - recorded.keys()):
        yield f"{name}: not made by that build"
    for name in sorted(recorded.keys() - present.keys()):
        yield f"{name}: made by that build, and not here"
    for name in sorted(recorded.keys() & present.keys()):
        if recorded[name] != present[name]:
            yield f"{name}: made by another build"
    if case.record.sha256 != case.facts.sha256:
        yield "the wheel's own sha256 is not the recorded one"
