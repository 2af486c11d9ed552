"""The SBOM in a wheel's ``.dist-info/sboms`` (PEP 770), in the format CycloneDX 1.6.

It is created from the inputs of the build, before it: two builds from the same inputs have the same
SBOM.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import quote

from packaging.requirements import Requirement

from sessions.build import openmp
from sessions.fetch.record_types import Source, Toolkit
from sessions.probe import ms_runtime
from sessions.probe.record_types import Compiler
from sessions.shared import knowledge, programs, records
from sessions.shared.build_spec import BuildSpec

FILE = "blackwheel.cdx.json"
SPEC = "1.6"
UPSTREAM = "llama-cpp-python"
# The roles of a component.
INSIDE, SHIPPED, REQUIRED, TOOL = "compiled in", "a file of it", "required", "built with"


@dataclass(frozen=True)
class Part:
    """A component. ``version`` is "" if the source does not contain it.

    ``file`` is the name of its file in the wheel, and ``sha256`` that file's digest.
    """

    name: str
    version: str
    purl: str  # without the version
    licence: str
    roles: tuple[str, ...]
    file: str = ""
    sha256: str = ""  # of the file
    requirement: str = ""  # as METADATA has it


def text(
    spec: BuildSpec,
    source: Source,
    compiler: Compiler,
    toolkit: Toolkit | None,
    requires: Sequence[str],
    env: Mapping[str, str],
) -> str:
    """The text of the SBOM for a build with these inputs. ``env`` is the build's environment."""
    parts = (
        *vendored(Path(source.path), source.version),
        *compilers_runtime(spec, compiler, env),
        *(cuda(toolkit, requires) if toolkit else ()),
        _compiler(compiler),
    )
    epoch = int(env.get("SOURCE_DATE_EPOCH", source.epoch))
    return json.dumps(document(spec, source, epoch, parts), indent=1) + "\n"


def document(spec: BuildSpec, source: Source, epoch: int, parts: Sequence[Part]) -> dict[str, Any]:
    """The SBOM as JSON values. Its timestamp is ``epoch``, in seconds."""
    root = f"pkg:pypi/{UPSTREAM}@{source.version}"
    moment = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": root,
        "name": UPSTREAM,
        "version": source.version,
        "purl": root,
        "licenses": [{"expression": "MIT"}],
        "properties": [
            {"name": "blackwheel:target", "value": spec.target},
            {"name": "blackwheel:cuda-architectures", "value": ";".join(spec.archs) or "none"},
            *([{"name": "blackwheel:glibc", "value": spec.glibc}] * (spec.platform == "linux")),
            {"name": "blackwheel:source-digest", "value": source.digest},
            *({"name": "blackwheel:cmake", "value": f"{n}={v}"} for n, v in spec.cmake),
        ],
    }
    if source.sdist_sha256:
        file = knowledge.sdists()[source.version].file
        hashes = [{"alg": "SHA-256", "content": source.sdist_sha256}]
        component["externalReferences"] = [
            {"type": "source-distribution", "url": file, "hashes": hashes}
        ]
    bom: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "blackwheel"}]},
            "component": component,
        },
        "components": [_component(part) for part in parts],
        "dependencies": [
            {"ref": root, "dependsOn": sorted(_ref(p) for p in parts if p.roles != (TOOL,))},
            *({"ref": _ref(part)} for part in parts),
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, records.fingerprint(bom))
    return {**bom, "serialNumber": f"urn:uuid:{number}"}


def _ref(part: Part) -> str:
    kind, _, name = part.purl.rpartition("/")
    # "+" means a space to some readers of package URLs.
    return f"{kind}/{name}" + (f"@{quote(part.version, safe='.-_~:')}" if part.version else "")


def _component(part: Part) -> dict[str, Any]:
    named = {"blackwheel:file": part.file, "blackwheel:requirement": part.requirement}
    properties = [*(("blackwheel:role", role) for role in part.roles), *named.items()]
    return {
        "type": "application" if part.roles == (TOOL,) else "library",
        "bom-ref": _ref(part),
        "name": part.name,
        **({"version": part.version} if part.version else {}),
        "scope": "excluded" if part.roles == (TOOL,) else "required",
        **({"hashes": [{"alg": "SHA-256", "content": part.sha256}]} if part.sha256 else {}),
        "licenses": [{"expression": part.licence}],
        "purl": _ref(part),
        "properties": [{"name": name, "value": value} for name, value in properties if value],
    }


def sources() -> frozenset[str]:
    """The files of a source, as relative paths, that ``vendored`` reads."""
    rows = knowledge.load("third_party_code.toml")
    llama = rows["llama"]
    return frozenset({llama["file"], llama["ggml"], *(row["file"] for row in rows["part"])})


def vendored(source: Path, version: str) -> Iterator[Part]:
    """llama.cpp, ggml, and other third-party code that is compiled into the libraries."""
    rows = knowledge.load("third_party_code.toml")
    log = _read(source / rows["llama"]["file"])
    section = re.search(rf"^## \[{re.escape(version)}\]\n(.*?)(?=^## \[|\Z)", log, re.M | re.S)
    commit = re.search(rows["llama"]["commit"], section[1]) if section else None
    ggml = re.search(rows["llama"]["ggml_version"], _read(source / rows["llama"]["ggml"]))
    numbers = (commit[1] if commit else "", ".".join(ggml.groups()) if ggml else "")
    for name, number in zip(("llama.cpp", "ggml"), numbers, strict=True):
        yield Part(name, number, f"pkg:github/ggml-org/{name}", "MIT", (INSIDE,))
    for row in rows["part"]:
        path = source / row["file"]
        if path.is_file():
            found = re.search(row["version"], _read(path)) if "version" in row else None
            number = ".".join(found.groups()) if found else ""
            yield Part(row["name"], number, row["purl"], row["licence"], (INSIDE,))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def cuda(toolkit: Toolkit, requires: Sequence[str]) -> Iterator[Part]:
    """The parts of CUDA that are in the wheel, that it requires, or that built it."""
    row = knowledge.load("third_party_code.toml")["cuda"]
    needed = {Requirement(text).name: text for text in requires}
    known = toolkit.components
    for name in (*known, *(name for name in needed if name not in known)):
        roles = [INSIDE] if name in row["inside"] else []
        roles += [REQUIRED] if name in needed else []
        yield Part(
            name=name,
            version=known.get(name, ""),
            purl=f"pkg:pypi/{name}",
            licence=row["licence"] if name.startswith("nvidia-") else row["pathfinder"],
            roles=tuple(roles) or (TOOL,),
            requirement=needed.get(name, ""),
        )
    if not known:
        purl = "pkg:generic/cuda-toolkit"
        yield Part("CUDA toolkit", toolkit.version, purl, row["licence"], (INSIDE, TOOL))


def compilers_runtime(
    spec: BuildSpec, compiler: Compiler, env: Mapping[str, str]
) -> Iterator[Part]:
    """The compiler's runtime libraries: files of the wheel, or the linked C++ runtime."""
    for row in knowledge.load("third_party_code.toml")["runtime"]:
        if row["family"] != compiler.family:
            continue
        if compiler.family == "msvc":
            yield from _redistributed(row, env)
            continue
        for file in row["files"]:
            path, version, purl = _compilers_file(file, compiler, env)
            purl, digest = purl or f"pkg:generic/{row['name']}", ""
            if path and spec.old_glibc:
                digest = hashlib.sha256(openmp.portable(path, knowledge.glibc())).hexdigest()
            elif path:
                digest = records.file_sha256(path)
            yield Part(row["name"], version, purl, row["licence"], (SHIPPED,), file, digest)
    if spec.old_glibc:
        row = knowledge.load("third_party_code.toml")["linked"]
        _, version, purl = _compilers_file(row["file"], compiler, env)
        purl = purl or f"pkg:generic/{quote(row['name'])}"
        yield Part(row["name"], version, purl, row["licence"], (INSIDE,))


def _compilers_file(
    name: str, compiler: Compiler, env: Mapping[str, str]
) -> tuple[Path | None, str, str]:
    """A file that the compiler links with, and its package's version and URL; else None, "", ""."""
    printed = programs.capture([compiler.cc, f"-print-file-name={name}"], env=env)
    path = Path(printed.stdout.strip())
    # A compiler that has no such file prints the bare name.
    whole = path.resolve() if path.is_absolute() and path.is_file() else None
    return (whole, *(_owner(whole, env) if whole else ("", "")))


def _redistributed(row: Mapping[str, Any], env: Mapping[str, str]) -> Iterator[Part]:
    found = ms_runtime.find(env)
    number = PureWindowsPath(env["VCTOOLSREDISTDIR"]).name  # 14.44.35112
    for file in row["files"]:
        digest = records.file_sha256(found[file])
        yield Part(row["name"], number, row["purl"], row["licence"], (SHIPPED,), file, digest)


def _owner(path: Path, env: Mapping[str, str]) -> tuple[str, str]:
    """The version and URL of the system package that contains a file; "" if none does."""
    found = programs.capture(["dpkg-query", "--search", str(path)], env=env)
    package = found.stdout.split(": ")[0]
    if found.returncode == 0 and re.fullmatch(r"[a-z0-9.+-]+(:[a-z0-9]+)?", package):
        version = programs.capture(["dpkg-query", "--show", "-f", "${Version}", package], env=env)
        return version.stdout.strip(), f"pkg:deb/debian/{quote(package.split(':')[0])}"
    form = ["--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\n"]
    found = programs.capture(["rpm", "--query", *form, "--file", str(path)], env=env)
    fields = found.stdout.split()
    if found.returncode == 0 and len(fields) == 2:
        return fields[1], f"pkg:rpm/{quote(fields[0])}"
    return "", ""


def _compiler(compiler: Compiler) -> Part:
    name, licence = {
        "gnu": ("gcc", "GPL-3.0-or-later WITH GCC-exception-3.1"),
        "clang": ("clang", "Apache-2.0"),
        "msvc": ("msvc", "LicenseRef-Microsoft-Proprietary"),
    }[compiler.family]
    return Part(name, compiler.version, f"pkg:generic/{name}", licence, (TOOL,))
