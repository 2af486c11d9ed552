"""Checks of the Python files: upstream's and ours, and nothing else that Python runs. All pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sessions.build import import_hooks
from sessions.build.import_hooks import DLLS
from sessions.probe import ms_runtime
from sessions.shared.check_result import Check
from sessions.verify.check_input import Case, check, rebuild
from sessions.verify.metadata import PACKAGE

# Suffixes of files that Python imports (importlib.machinery): source, bytecode, extensions.
_IMPORTED = re.compile(r"(\.[^./]+)?\.(so|pyd)|\.pyc?|\.pyw", re.IGNORECASE)
# Files that may be in .dist-info; pip or other programs could read any other file there.
_INFO = re.compile(
    r"METADATA|WHEEL|RECORD|LICENSE[^/]*|(licenses|sboms)/.+|top_level\.txt|DELVEWHEEL|variant\.json"
)


def python_files(case: Case) -> Check:
    """Each file of the package has the hash of upstream's, or is ours, and none is missing."""
    known = case.upstream
    version = case.facts.metadata_version or "of that version"
    return check(
        "python-files",
        _differences(case)
        if known
        else [f"the files of llama-cpp-python {version[:40]} are not known"],
        ok=f"{len(known.files) if known else 0} files are those of the sdist of "
        f"{known.version if known else '?'}",
        fail="not compared with upstream's files"
        if not known
        else "the Python files differ from upstream's",
        remedy=rebuild(case)
        if known
        else "nothing to do: a checkout has its own files"
        if case.spec.source
        else f"lock the release: nox -s lock -- --add llama-cpp-python=={version[:40]}",
        soft=known is None or case.spec.source is not None,
    )


def _differences(case: Case) -> Iterator[str]:
    assert case.upstream is not None
    found, known = case.facts.package_files, case.upstream.files
    # The check `loader` and the last lines of this function compare their text.
    added = import_hooks.added(cuda=case.spec.cuda is not None, windows=case.windows)
    ours = {f"{PACKAGE}/{name}" for name in added}
    for name in sorted(found.keys() - known.keys() - ours):
        yield f"{name}: not upstream's"
    for name in sorted(known.keys() - found.keys()):
        yield f"{name}: upstream has it, and it is missing"
    for name in sorted(known.keys() & found.keys()):
        if found[name] != known[name]:
            yield f"{name}: differs from upstream's"
    if case.facts.preload_called and not case.windows:
        yield f"{PACKAGE}/__init__.py: calls what only a wheel for Windows has"
    if case.windows and case.facts.preload not in (None, case.preload):
        yield f"{PACKAGE}/{DLLS}: differs from that of this target's wheel"


def hidden(members: Iterable[str]) -> Iterator[str]:
    """Members that Python or an installer would run or read without an import."""
    names = sorted(members)
    for name in names:
        parts = name.split("/")
        top, rest, last = parts[0], "/".join(parts[1:]), parts[-1].lower()
        if last.endswith((".pyc", ".pyo")) or "__pycache__" in map(str.lower, parts[:-1]):
            yield f"{name}: bytecode, which Python runs in the place of its source"
        elif last.endswith((".pth", ".egg-link")) or last.startswith(("sitecustomize.", "usercus")):
            yield f"{name}: run at each start of Python"
        elif top.lower().endswith(".data"):
            yield f"{name}: put elsewhere by the installer"
        elif top.lower().endswith(".dist-info") and not _INFO.fullmatch(rest):
            yield f"{name}: does not belong in .dist-info"
        elif top == ms_runtime.FOLDER and not re.fullmatch(r"[^/]+\.(dll|so[.\d]*)", rest):
            yield f"{name}: not a library"
    yield from _shadows(names)


def _shadows(names: Iterable[str]) -> Iterator[str]:
    """Modules with the same name: Python prefers packages, then extension modules."""
    found: dict[str, set[str]] = {}
    for name in names:
        parts = name.split("/")
        match = re.fullmatch(rf"([^.]+)(?:{_IMPORTED.pattern})", parts[-1], re.IGNORECASE)
        if not match or not parts[:-1]:
            continue
        found.setdefault("/".join([*parts[:-1], match[1]]).casefold(), set()).add(name)
        # A folder with code in it is a package, and so are its parent folders.
        for count in range(2, len(parts)):
            folder = "/".join(parts[:count])
            found.setdefault(folder.casefold(), set()).add(f"{folder}/")
    for same in found.values():
        if len(same) > 1:
            yield f"{' and '.join(sorted(same))}: modules of one name"
