"""A wheel tagged for another Python: what changes, and for which wheels it is refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path

import pytest

from sessions.build import main_wheel, python_tag, sbom
from sessions.shared import records
from sessions.verify import diff
from tests import fakes
from tests.problems import raises

LINUX = "llama_cpp_python-0.3.16-cp311-cp311-manylinux_2_35_x86_64.whl"
TEXTS = {"METADATA": "Metadata-Version: 2.1\nName: llama_cpp_python\nRequires-Python: >=3.8\n"}


def sbom_text(target: str) -> str:
    source = fakes.source()
    gomp = sbom.Part("libgomp", "12.2.0", "pkg:generic/libgomp", "MIT", (sbom.SHIPPED,))
    spec = fakes.cpu_spec(target=target)
    return json.dumps(sbom.document(spec, source, source.epoch, (gomp,)), indent=1) + "\n"


def digest(data: bytes) -> str:
    """The digest in the notation of RECORD."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def pack(
    path: Path,
    tag: str,
    target: str,
    *,
    end: str = "\r\n",
    metadata: str = TEXTS["METADATA"],
    extra: dict[str, bytes] | None = None,
) -> Path:
    """A wheel as a build leaves it, with auditwheel's order of members: RECORD is not the last."""
    tags = [f"{tag}-manylinux_2_35_x86_64", f"{tag}-linux_x86_64"]
    lines = ["Wheel-Version: 1.0", "Root-Is-Purelib: false", *(f"Tag: {t}" for t in tags)]
    first = {
        "llama_cpp/": b"",
        "llama_cpp/odd, name.py": b"pass\n",
        "llama_cpp/lib.txt": b"cp311-cp311 in a text" * 100,
        **(extra or {}),
        f"{fakes.INFO}/METADATA": metadata.encode(),
        f"{fakes.INFO}/WHEEL": ("\n".join(lines) + "\n").encode(),
    }
    last = {f"{fakes.INFO}/sboms/blackwheel.cdx.json": sbom_text(target).encode()}
    listed = {n: d for n, d in {**first, **last}.items() if not n.endswith("/")}
    rows = [(n, f"sha256={digest(d)}", str(len(d))) for n, d in listed.items()]
    rows.append((f"{fakes.INFO}/RECORD", "", ""))
    with path.with_suffix(".record").open("w", newline="") as stream:
        csv.writer(stream, lineterminator=end).writerows(rows)
    record = {f"{fakes.INFO}/RECORD": path.with_suffix(".record").read_bytes()}
    path.with_suffix(".record").unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**first, **record, **last}.items():
            info = zipfile.ZipInfo(name, (2022, 11, 9, 12, 37, 20))
            info.compress_type = zipfile.ZIP_DEFLATED if data else zipfile.ZIP_STORED
            info.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
            archive.writestr(info, data)
    return path


@pytest.mark.parametrize("end", ["\r\n", "\n"], ids=["auditwheel", "scikit-build-core"])
@pytest.mark.parametrize("python", ["3.8", "3.12"])
def test_retagged_has_the_bytes_of_a_build_with_that_python(
    tmp_path: Path, python: str, end: str
) -> None:
    tag = f"cp{python.replace('.', '')}"
    name = python_tag.name(LINUX, python)
    assert name == LINUX.replace("cp311", tag)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    base = pack(tmp_path / LINUX, "cp311-cp311", "cpu", end=end)
    whole = pack(there / name, f"{tag}-{tag}", f"cpu+py{python}", end=end)
    told = python_tag.retagged(base, here / name, python, f"cpu+py{python}")
    assert diff.differences(here / name, whole) == ()
    assert told == records.text_sha256(sbom_text(f"cpu+py{python}").encode())
    # And it was no copy.
    assert diff.differences(base, whole) != ()


def test_a_different_target_in_the_sbom_is_found(tmp_path: Path) -> None:
    base = pack(tmp_path / LINUX, "cp311-cp311", "cpu")
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / LINUX
    python_tag.retagged(base, other, "3.11", "rtx50")
    found = diff.differences(base, other)
    assert any("sboms" in line for line in found)
    assert any("RECORD" in line for line in found)


@pytest.mark.parametrize(
    ("tag", "python", "expected"),
    [
        ("cp311-cp311", "3.11", True),
        ("cp311-cp311", "3.12", False),
        ("cp311-cp311", "3.1", False),
        ("py3-none", "3.8", True),
        ("py3-none", "3.14", True),
        ("py2.py3-none", "3.12", True),
        ("py2-none", "3.12", False),
        ("cp310-abi3", "3.12", True),
        ("cp310-abi3", "3.10", True),
        ("cp312-abi3", "3.10", False),
        ("cp312-none", "3.12", True),
        ("cp313-cp313t", "3.13", False),
    ],
)
def test_serves(tag: str, python: str, expected: bool) -> None:
    assert python_tag.serves(f"llama_cpp_python-0.3.36-{tag}-win_amd64.whl", python) is expected


@pytest.mark.parametrize(
    ("python", "needs", "expected"),
    [
        ("3.9", ">=3.9,<3.13", None),
        ("3.12", ">=3.9,<3.13", None),
        ("3.8", ">=3.9,<3.13", "Requires-Python is >=3.9,<3.13"),
        ("3.13", ">=3.9,<3.13", "Requires-Python is >=3.9,<3.13"),
        ("3.8", None, None),
    ],
)
def test_refusal_by_requires_python(
    python: str, needs: str | None, expected: str | None, tmp_path: Path
) -> None:
    metadata = "Name: llama_cpp_python\n" + (f"Requires-Python: {needs}\n" if needs else "")
    base = pack(tmp_path / LINUX, "cp311-cp311", "cpu", metadata=metadata)
    assert python_tag.refusal(base, python) == expected


@pytest.mark.parametrize("tag", ["cp312-abi3", "cp313-cp313t", "cp311-none"])
def test_refusal_of_a_tag_that_is_not_for_one_python_only(tmp_path: Path, tag: str) -> None:
    base = pack(tmp_path / LINUX.replace("cp311-cp311", tag), tag, "cpu")
    assert python_tag.refusal(base, "3.9") == f"its tag is {tag}-manylinux_2_35_x86_64"


def extension() -> Path:
    """A module of this Python's own that is machine code."""
    for name in ("_ctypes", "_bz2", "_json", "_socket"):
        found = importlib.util.find_spec(name)
        if found and found.origin and Path(found.origin).suffix in (".so", ".pyd"):
            return Path(found.origin)
    raise AssertionError("this Python has no extension module as a file")


def test_calls_refuses_a_library_that_cannot_be_read_and_ignores_other_files(
    tmp_path: Path,
) -> None:
    assert python_tag.calls(pack(tmp_path / LINUX, "cp311-cp311", "cpu")) == []
    extra = {"llama_cpp/lib/libllama.so": b"not a library"}
    base = pack(tmp_path / LINUX, "cp311-cp311", "cpu", extra=extra)
    with raises("library-unreadable"):
        python_tag.calls(base)


@pytest.mark.parametrize("wanted", ["3 or so", f">={'9' * 5_000}"])
def test_refusal_if_requires_python_cannot_be_read(wanted: str, tmp_path: Path) -> None:
    text = TEXTS["METADATA"].replace(">=3.8", wanted)
    path = pack(tmp_path / LINUX, "cp311-cp311", "cpu", metadata=text)
    refused = python_tag.refusal(path, "3.12")
    assert refused is not None
    assert refused.endswith("which cannot be read")
    assert len(refused) < 200


def test_refusal_reads_metadata_with_nested_messages(tmp_path: Path) -> None:
    deep = TEXTS["METADATA"] + "Content-Type: message/rfc822\n\n" * 5_000
    path = pack(tmp_path / LINUX, "cp311-cp311", "cpu", metadata=deep)
    assert python_tag.refusal(path, "3.12") is None


# ---- What another Python than the target's has built ---------------------------------------------


def test_a_wheel_built_by_another_python_gets_the_targets_tag(tmp_path: Path) -> None:
    wheel = pack(tmp_path / LINUX, "cp311-cp311", "cpu+py3.13")
    made = main_wheel.for_python(wheel, fakes.cpu_spec(target="cpu+py3.13", python="3.13"))
    assert made.name == LINUX.replace("cp311", "cp313")
    (tmp_path / "whole").mkdir()
    whole = pack(tmp_path / "whole" / made.name, "cp313-cp313", "cpu+py3.13")
    assert diff.differences(made, whole) == ()


@pytest.mark.parametrize("tag", ["cp313-cp313", "py3-none", "cp38-abi3"])
def test_a_wheel_that_serves_the_targets_python_is_not_changed(tag: str, tmp_path: Path) -> None:
    wheel = pack(tmp_path / LINUX.replace("cp311-cp311", tag), tag, "cpu")
    assert main_wheel.for_python(wheel, fakes.cpu_spec(python="3.13")) == wheel


def test_a_wheel_with_an_extension_module_gets_no_other_tag(tmp_path: Path) -> None:
    path = extension()
    extra = {f"llama_cpp/{path.name}": path.read_bytes()}
    wheel = pack(tmp_path / LINUX, "cp311-cp311", "cpu", extra=extra)
    (found,) = python_tag.calls(wheel)
    assert found.endswith(f" in llama_cpp/{path.name}")
    assert found.startswith(("Py", "_Py", "python3"))
    with raises("wheel-of-other-python"):
        main_wheel.for_python(wheel, fakes.cpu_spec(python="3.13"))


def test_a_wheel_whose_requires_python_excludes_the_targets_gets_no_other_tag(
    tmp_path: Path,
) -> None:
    metadata = TEXTS["METADATA"].replace(">=3.8", ">=3.12")
    wheel = pack(tmp_path / LINUX, "cp311-cp311", "cpu", metadata=metadata)
    with raises("wheel-of-other-python"):
        main_wheel.for_python(wheel, fakes.cpu_spec(python="3.10"))
