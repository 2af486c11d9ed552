"""Writes how a wheel was built: an in-toto statement with SLSA provenance, version 1. Pure.

It contains no time of writing, so the same records give the same statement.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from sessions.release.evidence import Evidence, released_records, untested_places
from sessions.shared import knowledge, records

STATEMENT = "https://in-toto.io/Statement/v1"  # in-toto attestation framework, spec v1.1
PREDICATE = "https://slsa.dev/provenance/v1"
# docs/release.md explains these two names.
BUILD_TYPE = "urn:blackwheel:build:1"
BUILDER = "urn:blackwheel:builder:self"


def text(found: Evidence, commit: str) -> str:
    """The statement as a file. ``commit`` is the commit of blackwheel."""
    return json.dumps(statement(found, commit), indent=1) + "\n"


def statement(found: Evidence, commit: str) -> dict[str, Any]:
    """The statement as JSON values."""
    spec, untested = found.spec, untested_places(found)
    parameters = {
        "target": spec.target,
        "version": spec.version,
        "cuda": spec.cuda,
        "architectures": list(spec.archs),
        "python": spec.python,
        "platform": spec.platform,
        "cmake": dict(spec.cmake) or None,
        "glibc": spec.glibc if spec.platform == "linux" else None,
        "toolkit": spec.toolkit if spec.toolkit in ("pypi", "system") else "a folder",
    }
    internal = {
        "settings": {name: neutral(found, text) for name, text in found.build.settings.items()},
        "sourceDateEpoch": found.build.variables["SOURCE_DATE_EPOCH"],
        "requires": list(found.build.requires),
        **({"untested": f"UNTESTED on {', '.join(untested)}"} if untested else {}),
    }
    byproducts = [
        {"name": name, "digest": {"sha256": hashlib.sha256(text.encode()).hexdigest()}}
        for name, text in released_records(found).items()
    ]
    return {
        "_type": STATEMENT,
        "subject": [{"name": found.wheel.file, "digest": {"sha256": found.sha256}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {k: v for k, v in parameters.items() if v is not None},
                "internalParameters": internal,
                "resolvedDependencies": list(_materials(found, commit)),
            },
            "runDetails": {"builder": {"id": BUILDER}, "byproducts": byproducts},
        },
    }


def _materials(found: Evidence, commit: str) -> Iterator[dict[str, Any]]:
    """The inputs of the build, with their digests if known."""
    yield {"name": "blackwheel", "digest": {"gitCommit": commit}}
    sdist = knowledge.sdists().get(found.source.version)
    upstream = {"uri": f"pkg:pypi/llama-cpp-python@{found.source.version}"}
    if found.source.sdist_sha256 and sdist:
        digest = {"sha256": found.source.sdist_sha256}
        yield {**upstream, "name": sdist.file, "digest": digest}
    else:
        yield {**upstream, "annotations": {"tree-sha256": found.source.digest}}
    locks = [knowledge.tools_lock()]
    if found.toolkit and found.toolkit.origin == "pypi":
        locks.append(knowledge.toolkit_lock(found.toolkit.version))
    for lock in locks:
        digest = {"sha256": records.text_sha256(lock.read_bytes())}
        yield {"name": f"sessions/data/locks/{lock.name}", "digest": digest}
    if found.toolkit:
        for name, version in found.toolkit.components.items():
            yield {"uri": f"pkg:pypi/{name}@{version}"}
        if not found.toolkit.components:
            yield {"uri": f"pkg:generic/cuda-toolkit@{found.toolkit.version}"}
    compiler, python = found.toolchain.compiler, found.toolchain.python
    if compiler:
        yield {"uri": f"pkg:generic/{compiler.family}@{compiler.version}"}
    if python:
        yield {"uri": f"pkg:generic/python@{python.version}"}


def neutral(found: Evidence, text: str) -> str:
    """A setting without the private folder names of the build machine."""
    pure = PureWindowsPath if found.spec.platform == "windows" else PurePosixPath
    tree = pure(found.build.settings["build-dir"])
    project = tree.parents[2]
    separator = ";" if found.spec.platform == "windows" else ":"
    tools = pure(found.build.variables["PATH"].split(separator)[0])
    case = re.IGNORECASE if found.spec.platform == "windows" else re.NOFLAG
    for folder, name in ((project, "."), (tools.parents[1], "$BLACKWHEEL_CACHE")):
        for spelling in {str(folder), folder.as_posix()}:
            text = re.sub(re.escape(spelling), name, text, flags=case)
    return text
