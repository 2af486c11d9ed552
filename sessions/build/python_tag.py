"""Tags a wheel for another Python, if nothing in it depends on the Python that built it."""

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

# The name of a wheel for one Python only: cp311-cp311.
_ONE = re.compile(r"(.+)-(cp\d+)-\2-([^-]+\.whl)")


def serves(file: str, python: str) -> bool:
    """Whether the tags in a wheel's file name fit this Python ("3.12")."""
    tags = {f"{tag.interpreter}-{tag.abi}" for tag in parse_wheel_filename(file)[3]}
    version, name = _numbers(python), f"cp{python.replace('.', '')}"
    known = [
        *cpython_tags(version, abis=[name], platforms=["any"]),
        *compatible_tags(version, interpreter=name, platforms=["any"]),
    ]
    return bool(tags & {f"{tag.interpreter}-{tag.abi}" for tag in known})


def refusal(wheel: Path, python: str) -> str | None:
    """Why the wheel cannot be used for this Python, even with another tag; None if it can."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(_member(archive, "METADATA")).decode("utf-8", "replace")
    # Only the headers: parsing a malicious body could take forever.
    wanted = email.parser.HeaderParser().parsestr(text).get("Requires-Python", "")
    try:
        if not SpecifierSet(wanted).contains(f"{python}.0"):
            return f"Requires-Python is {wanted}"
    except ValueError:  # also for numbers with more digits than Python converts
        return f"Requires-Python is {wanted!r:.80}, which cannot be read"
    if not serves(wheel.name, python) and not _ONE.fullmatch(wheel.name):
        return f"its tag is {'-'.join(wheel.stem.split('-')[-3:])}"
    return None


def calls(wheel: Path) -> list[str]:
    """For each library that needs Python: a function of Python's C API or its DLL, and the library.

    Libraries that are loaded by ctypes need none; an extension module does.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [n for n in archive.namelist() if re.search(r"\.(so|dll|pyd)(\.[\d.]+)?$", n)]
        found = [(member, _symbols(archive.read(member))) for member in members]
    return [f"{symbols[0]} in {member}" for member, symbols in found if symbols]


def retagged(wheel: Path, path: Path, python: str, target: str) -> str:
    """Write to ``path`` the wheel that a build with this Python would create.

    Only the tag in WHEEL, the target's name in the SBOM, and their lines in RECORD change; the
    order of the members stays. Returns the new SBOM's SHA-256.
    """
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w") as new:
        names = [_member(old, n) for n in ("WHEEL", f"sboms/{sbom.FILE}", "RECORD")]
        tags, bom, record = (old.read(name) for name in names)
        changed = {names[0]: _tagged(tags, python), names[1]: _renamed(bom, target)}
        changed[names[2]] = _recorded(record, changed)
        for info in old.infolist():
            new.writestr(info, changed.get(info.filename, old.read(info)))
    return records.text_sha256(changed[names[1]])


def name(file: str, python: str) -> str:
    """The file name of a wheel for one Python, changed for another Python."""
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


def _renamed(bom: bytes, target: str) -> bytes:
    """The SBOM as ``sbom.document`` creates it for that target."""
    document: dict[str, Any] = json.loads(bom)
    document.pop("serialNumber")
    for row in document["metadata"]["component"]["properties"]:
        if row["name"] == "blackwheel:target":
            row["value"] = target
    number = uuid.uuid5(uuid.NAMESPACE_URL, records.fingerprint(document))
    document["serialNumber"] = f"urn:uuid:{number}"
    return (json.dumps(document, indent=1) + "\n").encode()


def _recorded(record: bytes, changed: Mapping[str, bytes]) -> bytes:
    """RECORD with new lines for the changed members; the other lines stay."""
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
    import lief  # takes a quarter of a second, so only where it is needed

    binary = lief.parse(library)
    if isinstance(binary, lief.PE.Binary):
        names = [str(entry.name) for entry in binary.imports]
        return [name for name in names if re.match(r"python3\d*t?\.dll$", name, re.IGNORECASE)]
    if isinstance(binary, lief.ELF.Binary):
        # imported_symbols would leave out symbols without a type, as Python's are.
        names = [str(symbol.name) for symbol in binary.dynamic_symbols]
        return [name for name in names if re.match(r"_?Py[A-Z]\w*_|_?Py_", name)]
    raise Problem(
        "A library of the wheel cannot be read.",
        id="library-unreadable",
        code=CHECK_FAILED,
        remedy="build the wheel again, with --fresh",
    )
