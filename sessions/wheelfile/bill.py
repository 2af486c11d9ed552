"""The bills of materials in a wheel that are of our making, not trusted; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sessions.core import sbom
from sessions.wheelfile.model import Bill, Material


def read(texts: Mapping[str, bytes]) -> Iterator[Bill]:
    """Each ``.dist-info/sboms/blackwheel.cdx.json``; those of other tools are theirs to judge."""
    for member in sorted(texts):
        if re.fullmatch(rf"[^/]+\.dist-info/sboms/{re.escape(sbom.FILE)}", member):
            yield _bill(member, texts[member])


def _bill(member: str, data: bytes) -> Bill:
    digest = hashlib.sha256(data).hexdigest()
    try:
        record = json.loads(data)
        if (record["bomFormat"], record["specVersion"]) != ("CycloneDX", sbom.SPEC):
            raise ValueError(f"not CycloneDX {sbom.SPEC}")
        root = record["metadata"]["component"]
        materials = tuple(_material(item) for item in record["components"])
        name, version = _text(root["name"]), _text(root["version"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Bill(member, digest, "", "", (), (f"{type(error).__name__}: {error}",))
    return Bill(member, digest, name, version, materials, ())


def _material(item: dict[str, Any]) -> Material:
    said = _properties(item)
    hashes = {_text(found["alg"]): _text(found["content"]) for found in item.get("hashes", [])}
    return Material(
        name=_text(item["name"]),
        version=_text(item.get("version", "")),
        roles=tuple(said.get("blackwheel:role", [])),
        file="".join(said.get("blackwheel:file", [])),
        sha256=hashes.get("SHA-256", ""),
        requirement="".join(said.get("blackwheel:requirement", [])),
    )


def _properties(item: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in item.get("properties", []):
        found.setdefault(_text(line["name"]), []).append(_text(line["value"]))
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
