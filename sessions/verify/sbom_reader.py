"""Reads blackwheel's SBOMs in a wheel, whose contents are not trusted. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sessions.build import sbom
from sessions.shared import records
from sessions.verify.wheel_facts import Bill, Material

SIZE = 1 << 20  # bytes; ours have 20 KB
DIGITS = 18  # of a number; readers differ in how they read a longer one


def read(texts: Mapping[str, bytes], members: Iterable[str] = ()) -> Iterator[Bill]:
    """Each ``.dist-info/sboms/blackwheel.cdx.json``. SBOMs of other tools are not checked."""
    for member in sorted({*texts, *members}):
        if re.fullmatch(rf"[^/]+\.dist-info/sboms/{re.escape(sbom.FILE)}", member):
            yield _bill(member, texts.get(member))


def _bill(member: str, data: bytes | None) -> Bill:
    digest = hashlib.sha256(data).hexdigest() if data is not None else ""
    try:
        if data is None or len(data) > SIZE:
            raise ValueError("damaged or too large")
        return _opened(member, digest, records.loads(data, digits=DIGITS))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        return Bill(member, digest, "", "", "", (), (why,))


def _opened(member: str, digest: str, record: Any) -> Bill:
    if (record["bomFormat"], record["specVersion"]) != ("CycloneDX", sbom.SPEC):
        raise ValueError(f"not CycloneDX {sbom.SPEC}")
    root, components = record["metadata"]["component"], record["components"]
    if not isinstance(components, list):
        raise TypeError("components is not a list")
    sources = [
        item for item in _list(root, "externalReferences") if item["type"] == "source-distribution"
    ]
    return Bill(
        member=member,
        sha256=digest,
        name=_text(root["name"]),
        version=_text(root["version"]),
        sdist_sha256="".join(_hash(item) for item in sources),
        materials=tuple(map(_material, components)),
        problems=(),
    )


def _material(item: dict[str, Any]) -> Material:
    properties = _properties(item)
    return Material(
        name=_text(item["name"]),
        version=_text(item.get("version", "")),
        roles=tuple(properties.get("blackwheel:role", [])),
        file="".join(properties.get("blackwheel:file", [])),
        sha256=_hash(item),
        requirement="".join(properties.get("blackwheel:requirement", [])),
    )


def _hash(item: dict[str, Any]) -> str:
    """The SHA-256 of an item, or "". Raises ValueError if there are two."""
    found = [_text(h["content"]) for h in _list(item, "hashes") if _text(h["alg"]) == "SHA-256"]
    if len(found) > 1:
        raise ValueError("two SHA-256 of one thing")
    return found[0] if found else ""


def _properties(item: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _list(item, "properties"):
        found.setdefault(_text(line["name"]), []).append(_text(line["value"]))
    return found


def _list(item: dict[str, Any], name: str) -> list[Any]:
    value = item.get(name, [])
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a text")
    return value
