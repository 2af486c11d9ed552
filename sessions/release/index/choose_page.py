"""Renders the wheel selection page, ``index.html`` of a package index. Pure.

It is a table of all releases with their installation commands. Its script shows only the rows that
fit the selected GPU, system and Python. The page loads no other file; without JavaScript it is the
whole table.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jinja2
from packaging.version import Version

from sessions.build import python_tag
from sessions.release.documents import templating
from sessions.release.record_types import Release
from sessions.shared import knowledge

SYSTEMS = {
    "linux-x86_64": "Linux x86-64",
    "windows-x86_64": "Windows x64",
    "linux-aarch64": "Linux Arm64",
}


SMALL = 3  # up to this number, the names of the GPUs of a family are shown


@dataclass(frozen=True)
class Offer:
    """A release on the page."""

    label: str  # of its index: "cu131-sm120"
    folder: str  # of its files, relative to the page
    release: Release
    system: str  # one of SYSTEMS


def render(project: str, offers: Iterable[Offer]) -> str:
    """The page with these releases."""
    ordered = sorted(
        offers,
        key=lambda o: (o.release.cuda is None, o.label, _newest_first(o), o.system),
    )
    rows = [_row(project, offer) for offer in ordered]
    script = (templating.TEMPLATES / "index.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(f"\n{script}".encode()).digest()
    systems = {row["system"] for row in rows}
    return _template().render(
        script=script,
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
        rows=rows,
        gpus=gpus(),
        systems=[(key, name) for key, name in SYSTEMS.items() if key in systems],
        pythons=[p for p in knowledge.pythons() if any(p in row["pythons"] for row in rows)],
        runtime_mb=knowledge.runtime_mb(),
        disk_mb=knowledge.load("other_wheel_sizes.toml")["runtime"]["disk_mb"],
        variants=any(row["cuda"] for row in rows),
    )


def _newest_first(offer: Offer) -> list[int]:
    return [-part for part in Version(offer.release.version).release]


@functools.cache
def _template() -> jinja2.Template:
    return templating.environment(html=True).get_template("index.html")


def gpus() -> list[tuple[str, list[tuple[str, str]]]]:
    """The families of GPUs, each with the names of its GPUs and their kinds: "9.0", "9.0-arm"."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in knowledge.load("gpus.toml")["family"]:
        names = found.setdefault(row["family"], [])
        names += [(name, _kind(row)) for name in row["names"]]
    return list(found.items())


def _kind(row: Mapping[str, Any]) -> str:
    """The compute capability of a GPU, with "-arm" if it is used with an Arm processor."""
    return f"{row['capability']}-arm" if row.get("arm") else str(row["capability"])


def _row(project: str, offer: Offer) -> dict[str, Any]:
    """The row of a release. One command installs any of its wheels."""
    release = offer.release
    served = [
        p for p in knowledge.pythons() if any(python_tag.serves(w.file, p) for w in release.wheels)
    ]
    documents = (("wheel card", "WHEEL.md"), ("report", "report.html"))
    links = [(name, file) for name, file in documents if file in release.files]
    links += [(f"file for {_span(pythons(wheel.file))}", wheel.file) for wheel in release.wheels]
    return {
        "kinds": kinds(release),
        "gpus": _gpu_names(release),
        "system": offer.system,
        "system_name": SYSTEMS.get(offer.system, offer.system),
        "pythons": served,
        "python_name": f"Python {_span(served)}",
        "version": release.version,
        "cuda": release.cuda,
        "driver": knowledge.toolkit(release.cuda).driver if release.cuda else None,
        "untested": not release.tested,
        "devices": release.devices or ("the GPU",),
        "proven": (release.proven or "")[:10],
        "lines": _lines(project, offer),
        "size": max(wheel.size for wheel in release.wheels),
        "links": [(name, f"{quote(offer.folder)}/{quote(file)}", file) for name, file in links],
    }


def kinds(release: Release) -> list[str]:
    """The kinds of GPUs (see ``gpus``) that can run a release; "cpu" if it needs none."""
    if release.cuda is None:
        return ["cpu"]
    arm = release.system.endswith("aarch64")
    able = [
        _kind(row)
        for row in knowledge.load("gpus.toml")["family"]
        if knowledge.has_code(release.archs, row["capability"]) and (arm or not row.get("arm"))
    ]
    return list(dict.fromkeys(able))


def _gpu_names(release: Release) -> str:
    """The GPUs that the machine code is for: families, or the GPUs of a small family."""
    if release.cuda is None:
        return "no GPU: any x86-64 CPU" if release.system.endswith("x86_64") else "no GPU"
    arm, shown = release.system.endswith("aarch64"), []
    for number in sorted({knowledge.parse_arch(arch)[0] for arch in release.archs}):
        capability = f"{number // 10}.{number % 10}"
        names = [
            name
            for row in knowledge.load("gpus.toml")["family"]
            if row["capability"] == capability and (arm or not row.get("arm"))
            for name in (row["names"] if len(row["names"]) <= SMALL else [row["family"]])
        ]
        shown.append(f"{', '.join(names)} ({capability})".lstrip())
    fp4 = any(arch.startswith("120a") for arch in release.archs)
    return ", ".join(shown) + (" with native FP4" if fp4 else "")


def pythons(file: str) -> list[str]:
    """The Python versions that can use a wheel."""
    return [python for python in knowledge.pythons() if python_tag.serves(file, python)]


def _span(found: Sequence[str]) -> str:
    """Python versions for people: "3.11", "3.10 to 3.12", "3.10, 3.12"."""
    known = list(knowledge.pythons())
    if len(found) > 1 and known[known.index(found[0]) :][: len(found)] == list(found):
        return f"{found[0]} to {found[-1]}"
    return ", ".join(found)


def _lines(project: str, offer: Offer) -> Sequence[tuple[str, str, str]]:
    """For each installer: its name, and its command before and after the address of the page."""
    index, pinned = f"{offer.label}/simple/", f"{project}=={offer.release.version}"
    return (
        ("pip", f"pip install --only-binary {project} --extra-index-url ", f"{index} {pinned}"),
        ("uv", "uv pip install --index ", f"{index} {pinned}"),
    )
