"""Makes variant wheels (drafts PEP 817 and 825), from which an installer chooses by the GPU.

Experimental. A variant wheel is the plain wheel with a label in its name and ``variant.json`` in
its ``.dist-info``. The same inputs give the same bytes.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sessions.shared import knowledge

Properties = dict[str, dict[str, list[str]]]  # namespace -> feature -> accepted values


def properties(cuda: str, archs: Sequence[str]) -> Properties:
    """The properties that a machine needs to run a wheel of these architectures.

    Machine code runs with any driver of its CUDA major version; PTX needs a driver of at least its
    CUDA version. ``120a`` becomes 120_real, because the provider has no property for it. So a GPU
    of compute capability 12.1, which cannot run ``120a``, is offered the wheel too.
    """
    features = knowledge.load("variants.toml")["features"]
    values = set()
    for arch in archs:
        number, _, kind = knowledge.parse_arch(arch)
        values |= {f"{number}_{part}" for part in ("real", "virtual") if kind in ("", part)}
    has_ptx = any(value.endswith("_virtual") for value in values)
    least = cuda if has_ptx else f"{cuda.split('.')[0]}.0"
    return {"nvidia": {features["driver"]: [least], features["architecture"]: sorted(values)}}


def metadata(variants: Mapping[str, Properties]) -> bytes:
    """``variant.json`` of one wheel, or ``NAME-VERSION-variants.json`` of a version's wheels."""
    known = knowledge.load("variants.toml")
    provider: dict[str, Any] = {
        "plugin-api": known["nvidia"]["plugin-api"],
        "requires": [known["nvidia"]["requires"]],
    }
    value = {
        "$schema": known["schema"]["url"],
        "default-priorities": {"namespace": ["nvidia"]},
        "providers": {"nvidia": provider},
        "variants": variants,
    }
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def make(wheel: Path, folder: Path, label: str, needs: Properties) -> Path:
    """Write the variant wheel of a plain wheel into ``folder``. Returns its path."""
    path = folder / f"{wheel.name.removesuffix('.whl')}-{label}.whl"
    info_folder = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    added = metadata({label: needs})
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w") as new:
        record = old.getinfo(f"{info_folder}/RECORD")
        for info in old.infolist():
            data = old.read(info)
            if info is record:
                member = copy.copy(info)  # the same time, kind and compression
                member.filename = f"{info_folder}/variant.json"
                new.writestr(member, added)
                data = _row(member.filename, added) + data
            new.writestr(info, data)
    return path


def _row(name: str, data: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\r\n".encode()
