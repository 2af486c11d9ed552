"""Wheels of a few hundred bytes with valid metadata, and ``dist/`` folders with them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from sessions.release import dist_contents
from sessions.release.index import builder
from sessions.release.record_types import Release
from sessions.shared import records

TAG = "cp311-cp311-manylinux_2_17_x86_64"
TIME = (2022, 11, 9, 12, 37, 20)
PROVEN = "2026-11-23T23:48:55Z"


def wheel(
    folder: Path, mark: str, *, version: str = "0.3.16", tag: str = TAG, filler: int = 0
) -> Path:
    """A wheel that pip can install; ``llama_cpp.MARK`` is ``mark``."""
    info = f"llama_cpp_python-{version}.dist-info"
    code = f"__version__ = {version!r}\nMARK = {mark!r}\n# {'x' * filler}\n"
    metadata = f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {version}\n"
    members = {
        "llama_cpp/__init__.py": code,
        f"{info}/METADATA": metadata
        + "Requires-Python: >=3.8,<4\nRequires-Dist: typing-extensions\n\nBindings\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: false\nTag: {tag}\n",
    }
    rows = [f"{name},sha256={_digest(text)},{len(text)}\r\n" for name, text in members.items()]
    members[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\r\n"])
    path = folder / f"llama_cpp_python-{version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if filler else zipfile.ZIP_DEFLATED) as z:
        for name, text in members.items():
            z.writestr(zipfile.ZipInfo(name, TIME), text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def release(
    dist: Path,
    target: str,
    cuda: str | None,
    archs: Sequence[str] = (),
    *,
    version: str = "0.3.16",
    tag: str = TAG,
    tested: bool = True,
    filler: int = 0,
    real: Path | None = None,
    arguments: Sequence[str] = (),
) -> Release:
    """Write a release to ``dist/`` as the session release does; the wheel's mark is the target.

    ``real``: use this wheel. ``arguments``: the options that choose the target.
    """
    if real:
        (dist / target).mkdir(parents=True, exist_ok=True)
        path = Path(shutil.copy(real, dist / target))
    else:
        path = wheel(dist / target, target, version=version, tag=tag, filler=filler)
    documents = ("SHA256SUMS", "WHEEL.md")
    for name in documents:
        records.write_text(dist / target / name, f"{name} of {target}\n")
    record = Release(
        target=target,
        arguments=tuple(arguments) or ("--target", target),
        file=path.name,
        sha256=records.file_sha256(path),
        size=path.stat().st_size,
        version=version,
        cuda=cuda,
        archs=tuple(archs),
        tested=tested,
        proven=PROVEN if tested else None,
        commit="c" * 40,
        files={name: records.file_sha256(dist / target / name) for name in documents},
    )
    records.write(dist / target / "release.json", "release", record)
    dist_contents.write(dist)
    return record


def indexed(dist: Path) -> None:
    """Write the index of the releases in ``dist/`` as the session release does."""
    builder.write(dist)
    dist_contents.write(dist)


def all_cards(dist: Path) -> None:
    """Releases for two GPUs with one file name, a newer one for the first GPU, and the CPU."""
    release(dist, "rtx50", "13.1", ("120-real",))
    release(dist, "hopper", "13.1", ("90-real",))
    release(dist, "rtx50-fp4", "13.1", ("120a-real",), version="0.3.36", tested=False)
    release(dist, "cpu", None)
