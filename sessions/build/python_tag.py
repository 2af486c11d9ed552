"""A finished wheel made into that of another Python, where nothing in it is of a Python."""

from __future__ import annotations

import base64
import csv
import email.parser
import hashlib
import json
import re
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from sessions.build import sbom
from sessions.shared import records
from sessions.shared.errors import CHECK_FAILED, Problem

# A wheel for one Python only: cp311-cp311.
_ONE = re.compile(r"(.+)-(cp\d+)-\2-([^-]+\.whl)")


def serves(file: str, python: str) -> bool:
    """Whether a wheel of that name is for this Python too ("3.12"), by its tags only."""
    tags = {f"{tag.interpreter}-{tag.abi}" for tag in parse_wheel_filename(file)[3]}
    version, name = _numbers(python), f"cp{python.replace('.', '')}"
    known = [
        *cpython_tags(version, abis=[name], platforms=["any"]),
        *compatible_tags(version, interpreter=name, platforms=["any"]),
    ]
    return bool(tags & {f"{tag.interpreter}-{tag.abi}" for tag in known})


def refusal(wheel: Path, python: str) -> str | None:
    """Why the wheel is for this Python neither as it is nor under another tag; None where it is."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(_member(archive, "METADATA")).decode("utf-8", "replace")
    # Of the headers only: the text below may be made to be taken apart without an end.
    wanted = email.parser.HeaderParser().parsestr(text).get("Requires-Python", "")
    try:
        if not SpecifierSet(wanted).contains(f"{python}.0"):
            return f"Requires-Python is {wanted}"
    except ValueError:  # InvalidSpecifier, and numbers with more digits than Python converts
        return f"Requires-Python is {wanted!r:.80}, which cannot be read"
    if not serves(wheel.name, python) and not _ONE.fullmatch(wheel.name):
        return f"its tag is {'-'.join(wheel.stem.split('-')[-3:])}"
    return None


def calls(wheel: Path) -> list[str]:
    """Of each library that needs Python's own: a function of it, or its library, and who needs it.

    ctypes loads a library without such; an extension module has some.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [n for n in archive.namelist() if re.search(r"\.(so|dll|pyd)(\.[\d.]+)?$", n)]
        found = [(member, _symbols(archive.read(member))) for member in members]
    return [f"{symbols[0]} in {member}" for member, symbols in found if symbols]


def retagged(wheel: Path, path: Path, python: str, target: str) -> str:
    """Write to ``path`` what a build by this Python would have made, as far as it is another.

    That is the tag in WHEEL, the target's name in the bill of materials, and RECORD's lines of
    these two. Everything else is taken over, in its order, compressed anew. Returns the new
    bill's sha256.
    """
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w") as new:
        names = [_member(old, n) for n in ("WHEEL", f"sboms/{sbom.FILE}", "RECORD")]
        tags, bill, record = (old.read(name) for name in names)
        changed = {names[0]: _tagged(tags, python), names[1]: _renamed(bill, target)}
        changed[names[2]] = _recorded(record, changed)
        for info in old.infolist():
            new.writestr(info, changed.get(info.filename, old.read(info)))
    return records.text_sha256(changed[names[1]])


def name(file: str, python: str) -> str:
    """The name of a wheel for one Python only, for another."""
    return _ONE.sub(rf"\1-{_tag(python)}-\3", file)


def _tag(python: str) -> str:
    number = python.replace(".", "")
    return f"cp{number}-cp{number}"


def _numbers(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in python.split("."))


def _member(archive: zipfile.ZipFile, name: str) -> str:
    return next(n for n in archive.namelist() if re.fullmatch(rf"[^/]+\.dist-info/{name}", n))


def _tagged(wheel: bytes, python: str) -> bytes:
    return re.sub(rb"(?m)^(Tag: )cp\d+-cp\d+-", rb"\g<1>" + f"{_tag(python)}-".encode(), wheel)


def _renamed(bill: bytes, target: str) -> bytes:
    """The bill as ``sbom.document`` makes it for that target."""
    document: dict[str, Any] = json.loads(bill)
    document.pop("serialNumber")
    for row in document["metadata"]["component"]["properties"]:
        if row["name"] == "blackwheel:target":
            row["value"] = target
    number = uuid.uuid5(uuid.NAMESPACE_URL, records.fingerprint(document))
    document["serialNumber"] = f"urn:uuid:{number}"
    return (json.dumps(document, indent=1) + "\n").encode()


def _recorded(record: bytes, changed: Mapping[str, bytes]) -> bytes:
    """RECORD with the lines of what changed made anew, every other as it was."""
    lines = []
    for line in record.decode().splitlines(keepends=True):
        (row,) = csv.reader([line])
        if row[0] in changed:
            data = changed[row[0]]
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            end = line[len(line.rstrip("\r\n")) :]
            line = f"{row[0]},sha256={digest},{len(data)}{end}"
        lines.append(line)
    return "".join(lines).encode()


def _symbols(library: bytes) -> list[str]:
    import lief  # here: every run of nox imports this module, and lief takes a while

    binary = lief.parse(library)
    if isinstance(binary, lief.PE.Binary):
        names = [str(entry.name) for entry in binary.imports]
        return [name for name in names if re.match(r"python3\d*t?\.dll$", name, re.IGNORECASE)]
    if isinstance(binary, lief.ELF.Binary):
        # Not imported_symbols: those of Python have no type, and are left out there.
        names = [str(symbol.name) for symbol in binary.dynamic_symbols]
        return [name for name in names if re.match(r"_?Py[A-Z]\w*_|_?Py_", name)]
    raise Problem(
        "A library of the wheel cannot be read.",
        id="library-unreadable",
        code=CHECK_FAILED,
        remedy="build the wheel again, with --fresh",
    )
