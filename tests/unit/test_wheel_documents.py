"""Hostile archives, metadata, Python files and SBOMs become problems, never exceptions."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sessions.build import sbom
from sessions.build.import_hooks import DLLS_HOOK, HOOK, LOADER
from sessions.shared import child_environment, records
from sessions.shared.check_result import Check
from sessions.verify import metadata, reader, wheel_documents, zip_archive
from sessions.verify.limited_process import Limits
from sessions.verify.run_checks import check_wheel
from sessions.verify.wheel_facts import WheelFacts
from tests import elfs, fakes

INFO = "llama_cpp_python-0.3.16.dist-info"
NAME = "llama_cpp_python-0.3.16-cp311-cp311-manylinux_2_35_x86_64.whl"
METADATA = b"Metadata-Version: 2.2\nName: llama_cpp_python\nVersion: 0.3.16\n"
WHEEL = (
    b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n"
    b"Tag: cp311-cp311-manylinux_2_35_x86_64\n"
)
BILL: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": sbom.SPEC,
    "metadata": {"component": {"name": "llama-cpp-python", "version": "0.3.16"}},
    "components": [],
}
SBOM = f"{INFO}/sboms/{sbom.FILE}"
MEMBERS = {
    "llama_cpp/__init__.py": b"from .llama_cpp import *\n",
    "llama_cpp/llama_cpp.py": b'load_shared_library("llama", path)\n',
    f"{INFO}/METADATA": METADATA,
    f"{INFO}/WHEEL": WHEEL,
    SBOM: json.dumps(BILL).encode(),
}


def packed(folder: Path, changes: Mapping[str, bytes], *, record: bytes | None = None) -> Path:
    """A wheel with a few members, of which ``changes`` are replaced or added."""
    members = {**MEMBERS, **changes}
    if record is None:
        lines = [f"{INFO}/RECORD,,\n"]
        for name, data in members.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
            lines.append(f"{name},sha256={digest.decode()},{len(data)}\n")
        record = "".join(lines).encode()
    path = folder / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**members, f"{INFO}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


def here(path: Path) -> WheelFacts:
    """The facts of a wheel, read in this process."""
    (path.parent / "scratch").mkdir(exist_ok=True)
    return wheel_documents.read(str(path), str(path.parent / "scratch")).facts


def there(path: Path) -> WheelFacts:
    """The facts of a wheel, read as verify reads it."""
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    env = child_environment.system_environment(os.environ)
    return reader.read(path, scratch, env, 2, lambda *_: None)


def checks(facts: WheelFacts, **changes: Any) -> dict[str, Check]:
    groups = check_wheel(fakes.case(facts, record=None, ours=False, **changes))
    return {check.id: check for group in groups for check in group.checks}


def test_the_wheel_without_a_defect_is_sound(tmp_path: Path) -> None:
    path = packed(tmp_path, {"llama_cpp/lib/libsome.so": elfs.library()})
    facts = there(path)
    assert (facts.file, facts.size) == (NAME, path.stat().st_size)
    assert [(lib.error, lib.exports) for lib in facts.libraries] == [(None, ("f",))]
    problems = facts.archive_problems, facts.record_problems, facts.metadata_problems
    assert problems == ((), (), ())
    assert (facts.metadata_name, facts.metadata_version) == ("llama_cpp_python", "0.3.16")
    assert [b.problems for b in facts.bills] == [()]
    assert facts.tracebacks == {}
    assert set(facts.package_files) == {"llama_cpp/__init__.py", "llama_cpp/llama_cpp.py"}
    found = checks(facts)
    assert {found[id_].status for id_ in ("archive", "record", "metadata")} == {"ok"}


DIGITS = b"9" * 5_000
LETTER = METADATA + b"Content-Type: message/rfc822\n\n"
PARTS = METADATA + b'Content-Type: multipart/mixed; boundary="x"\n\n'
TEXTS: dict[str, tuple[str, bytes]] = {
    "letter-in-a-letter": ("METADATA", LETTER + b"Content-Type: message/rfc822\n\n" * 5_000),
    "parts-in-parts": (
        "METADATA",
        PARTS + b'--x\nContent-Type: multipart/mixed; boundary="x"\n\n' * 5_000,
    ),
    "encoding-of-a-letter": ("METADATA", METADATA + b"Content-Transfer-Encoding: base64\n\nTmFtZQ"),
    "version-of-5000-digits": ("METADATA", METADATA.replace(b"0.3.16", DIGITS)),
    "requirement-of-5000-digits": ("METADATA", METADATA + b"Requires-Dist: numpy>=" + DIGITS),
    "python-of-5000-digits": ("METADATA", METADATA + b"Requires-Python: >=" + DIGITS),
    "undefined-variable": ("METADATA", METADATA + b"Requires-Dist: numpy; 'a' in extras\n"),
    "no-requirement": ("METADATA", METADATA + b"Requires-Dist: numpy about 1\n"),
    "two-names": ("METADATA", METADATA + b"Name: numpy\n"),
    "two-versions": ("METADATA", METADATA + b"Version: 0.3.17\n"),
    "unknown-field": ("METADATA", METADATA + b"Requires-Magic: yes\n"),
    "metadata-of-the-future": ("METADATA", METADATA.replace(b"2.2", b"9.9")),
    "no-metadata-version": ("METADATA", METADATA.replace(b"Metadata-Version: 2.2\n", b"")),
    "metadata-not-utf8": ("METADATA", METADATA + b"Author: \xff\n"),
    "metadata-with-nul": ("METADATA", METADATA + b"Author: a\0b\n"),
    "metadata-of-no-headers": ("METADATA", b"\n" + METADATA),
    "metadata-of-3-mb": ("METADATA", METADATA + b"Keywords: " + b"a" * (3 << 20)),
    "metadata-of-20000-lines": ("METADATA", METADATA + b"Platform: a\n" * 20_000 + b"x"),
    "100000-requirements": ("METADATA", METADATA + b"Requires-Dist: numpy\n" * 100_000),
    "a-long-requirement": ("METADATA", METADATA + b"Requires-Dist: numpy" + b">=1," * 100_000),
    "wheel-99": ("WHEEL", WHEEL.replace(b"1.0", b"99.0")),
    "wheel-1.1": ("WHEEL", WHEEL.replace(b"1.0", b"1.1")),
    "wheel-of-words": ("WHEEL", WHEEL.replace(b"1.0", b"one")),
    "wheel-of-5000-digits": ("WHEEL", WHEEL.replace(b"1.0", DIGITS)),
    "no-wheel-version": ("WHEEL", WHEEL.replace(b"Wheel-Version: 1.0\n", b"")),
    "two-wheel-versions": ("WHEEL", WHEEL + b"Wheel-Version: 1.0\n"),
    "two-purelibs": ("WHEEL", WHEEL + b"Root-Is-Purelib: true\n"),
    "purelib": ("WHEEL", WHEEL.replace(b"false", b"true")),
    "purelib-of-neither": ("WHEEL", WHEEL.replace(b"false", b"no")),
    "no-purelib": ("WHEEL", WHEEL.replace(b"Root-Is-Purelib: false\n", b"")),
    "other-tag": ("WHEEL", WHEEL.replace(b"cp311-manylinux", b"abi3-manylinux")),
    "one-tag-more": ("WHEEL", WHEEL + b"Tag: py3-none-any\n"),
    "one-tag-twice": ("WHEEL", WHEEL + b"Tag: cp311-cp311-manylinux_2_35_x86_64\n"),
    "no-tag": ("WHEEL", WHEEL.split(b"Tag")[0]),
    "build-number": ("WHEEL", WHEEL + b"Build: 7\n"),
    "text-after-the-headers": ("WHEEL", WHEEL + b"\nTag: py3-none-any\n"),
    "wheel-not-utf8": ("WHEEL", WHEEL + b"Generator: \xff\n"),
    "wheel-of-no-headers": ("WHEEL", b"hello\n" + WHEEL),
}


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_metadata_fails_its_check(name: str, tmp_path: Path) -> None:
    part, text = TEXTS[name]
    facts = here(packed(tmp_path, {f"{INFO}/{part}": text}))
    records.text("facts", facts).encode("utf-8")  # or no record could be written
    found = checks(facts)
    assert found["metadata"].status == "fail"
    assert found["archive"].status == found["record"].status == "ok"
    assert len(found["metadata"].evidence) < 5_000
    assert facts.tracebacks == {}


@pytest.mark.parametrize(
    "member",
    ["numpy-2.0.dist-info/entry_points.txt", f"{INFO}/RECORD.jws", f"{INFO.upper()}/METADATA"],
)
def test_other_files_in_the_metadata_fail_a_check(member: str, tmp_path: Path) -> None:
    found = checks(here(packed(tmp_path, {member: b"x"})))
    assert "fail" in {found["layout"].status, found["metadata"].status}


def record_of(path: str, code: str = "", size: str = "") -> bytes:
    return f"{path},{code},{size}\n".encode()


RECORDS = {
    "newlines": b"\n" * (2 << 20),
    "rows-of-what-is-absent": b"".join(record_of(f"llama_cpp/{n}.py") for n in range(50_000)),
    "one-row-many-times": record_of("llama_cpp/a.py") * 100_000,
    "quotes": b'"' * (2 << 20),
    "commas": b"," * (2 << 20),
    "not-utf8": b"llama_cpp/\xff.py,,\n",
    "lone-surrogates": b"llama_cpp/\xed\xa0\x80.py,,\n",
    "itself-with-a-hash": record_of(f"{INFO}/RECORD", "sha256=AAAA", "5"),
    "md5": record_of("llama_cpp/__init__.py", "md5=AAAA", "25"),
    "too-large": b"\n" * ((2 << 20) + 1),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_hostile_record_fails_its_check_quickly_with_few_lines(name: str, tmp_path: Path) -> None:
    path = packed(tmp_path, {}, record=RECORDS[name])
    start = time.process_time()
    facts = here(path)
    assert time.process_time() - start < 5
    assert 0 < len(facts.record_problems) <= metadata.MOST
    assert checks(facts)["record"].status == "fail"
    assert facts.tracebacks == {}


def test_modules_of_a_megabyte_are_unparsed_in_little_time_and_memory(
    tmp_path: Path,
) -> None:
    names = [f"llama_cpp/{n}.py" for n in range(4)]
    path = packed(tmp_path, dict.fromkeys(names, b"a\n" * (1 << 19)))
    start = time.monotonic()
    facts = there(path)
    assert time.monotonic() - start < 20
    assert set(facts.unparsed) == set(names)
    assert checks(facts)["layout"].status == "fail"


def test_all_modules_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"llama_cpp/m{n}.py" for n in range(60)]
    text = b"x = 1\n" * 100
    own = sum(len(data) for name, data in MEMBERS.items() if name.endswith(".py"))
    monkeypatch.setattr(metadata, "PYTHON", own + 20 * len(text))
    facts = here(packed(tmp_path, dict.fromkeys(names, text)))
    assert facts.unparsed == tuple(names[20:])


def test_all_texts_together_have_a_limit(tmp_path: Path) -> None:
    text = b"#" * (1 << 20)
    path = packed(tmp_path, {f"llama_cpp/{n}.txt": text for n in range(40)})
    (tmp_path / "scratch").mkdir()
    contents = zip_archive.read(path, tmp_path / "scratch")
    assert sum(map(len, contents.texts.values())) <= zip_archive.TEXTS
    assert len(contents.digests) == len(contents.members)


# ---- Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "check"),
    [
        ("zip_archive.read", "archive"),
        ("metadata.read", "metadata"),
        ("metadata.record_problems", "record"),
        ("metadata.bindings", "layout"),
        ("sbom_reader.read", "sbom"),
    ],
)
@pytest.mark.parametrize("error", [RecursionError, MemoryError, ZeroDivisionError, OSError])
def test_an_exception_of_a_reader_fails_a_check_and_is_kept(
    function: str,
    check: str,
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise error("planted")

    module, name = function.split(".")
    monkeypatch.setattr(getattr(wheel_documents, module), name, broken)
    facts = here(packed(tmp_path, {}))
    result = checks(facts)[check]
    assert result.status == "fail"
    assert f"could not be read: {error.__name__}: planted" in result.evidence
    assert len(facts.tracebacks) == 1
    assert "in broken" in next(iter(facts.tracebacks.values()))


def test_a_full_disk_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full", "scratch")

    monkeypatch.setattr(zip_archive, "read", full)
    with pytest.raises(OSError, match="full"):
        here(packed(tmp_path, {}))


def test_if_the_reader_is_ended_only_the_archive_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "DOCUMENTS", Limits(memory=2 << 30, seconds=0.001))
    found = checks(there(packed(tmp_path, {})))
    assert {id_: check.status for id_, check in found.items()} == {"archive": "fail"}
    assert "0.001 s" in found["archive"].evidence


def test_facts_with_lone_surrogates_can_be_recorded() -> None:
    library = fakes.library(exports=("a\udcff",), build_paths=("/x/\ud800.c",))
    facts = fakes.wheel_facts(libraries=(library,), requires=("\udc80",))
    whole = reader._plain(facts)
    records.text("facts", whole).encode("utf-8")
    assert whole.libraries[0].exports == ("a\\udcff",)
    assert reader._plain(fakes.wheel_facts()) == fakes.wheel_facts()


# ---- SBOM ---------------------------------------------------------------------------------------

GOOD = json.dumps(BILL).encode()
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
LISTS = b"[" * 100_000 + b"]" * 100_000


def with_component(**fields: Any) -> bytes:
    return json.dumps({**BILL, "components": [{"name": "x", **fields}]}).encode()


HASH = {"alg": "SHA-256", "content": "0" * 64}
BILLS = {
    "empty": b"",
    "objects-in-objects": DEEP,
    "lists-in-lists": LISTS,
    "nan": GOOD.replace(b"[]", b"[NaN]"),
    "infinity": GOOD.replace(b'"0.3.16"', b"Infinity"),
    "overflow": GOOD[:-1] + b', "x": 1e999}',
    "a-number-of-5000-digits": GOOD[:-1] + b', "x": ' + DIGITS + b"}",
    "one-name-twice": GOOD[:-1] + b', "components": []}',
    "lone-surrogate": GOOD.replace(b"llama-cpp-python", rb"llama\ud800"),
    "lone-surrogate-elsewhere": GOOD[:-1] + rb', "x": "\udfff"}',
    "utf-16": json.dumps(BILL).encode("utf-16"),
    "byte-order-mark": b"\xef\xbb\xbf" + GOOD,
    "two-hashes": with_component(hashes=[HASH, {**HASH, "content": "1" * 64}]),
    "hash-of-a-number": with_component(hashes=[{"alg": "SHA-256", "content": 7}]),
    "hashes-of-an-object": with_component(hashes={"alg": "SHA-256"}),
    "version-of-a-number": with_component(version=1.5),
    "components-of-an-object": GOOD.replace(b"[]", b"{}"),
    "a-list": b"[]",
    "a-number": b"7",
    "null": b"null",
    "too-large": GOOD + b" " * (1 << 20),
}


@pytest.mark.parametrize("name", BILLS)
def test_an_sbom_that_readers_could_read_differently_fails_its_check(
    name: str, tmp_path: Path
) -> None:
    facts = here(packed(tmp_path, {SBOM: BILLS[name]}))
    assert [len(bill.problems) for bill in facts.bills] == [1]
    records.text("facts", facts).encode("utf-8")
    assert checks(facts)["sbom"].status == "fail"
    assert facts.tracebacks == {}


# ---- The package's files ------------------------------------------------------------------------


@pytest.mark.parametrize("hooks", ["", HOOK, HOOK + DLLS_HOOK, DLLS_HOOK])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_digest_of_init_is_without_our_lines_and_windows_line_ends(
    hooks: str, end: str, tmp_path: Path
) -> None:
    text = "from .llama_cpp import *\n"
    init = (hooks + text).replace("\n", end).encode()
    facts = here(packed(tmp_path, {"llama_cpp/__init__.py": init}))
    assert facts.package_files["llama_cpp/__init__.py"] == records.text_sha256(text.encode())


@pytest.mark.parametrize(
    "init", [HOOK + HOOK, f"\n{HOOK}", DLLS_HOOK + HOOK, HOOK + "import os\n", f"x = 1\n{HOOK}"]
)
def test_the_digest_of_init_contains_any_other_line(init: str, tmp_path: Path) -> None:
    text = "from .llama_cpp import *\n"
    facts = here(packed(tmp_path, {"llama_cpp/__init__.py": (init + text).encode()}))
    assert facts.package_files["llama_cpp/__init__.py"] != records.text_sha256(text.encode())


@pytest.mark.parametrize(
    ("init", "called"),
    [
        (HOOK, (True, False)),
        (HOOK + DLLS_HOOK, (True, True)),
        ("", (False, False)),
        ("import os\n" + HOOK, (False, False)),
    ],
)
def test_our_modules_are_called_if_they_are_the_first_lines_of_init(
    init: str, called: tuple[bool, bool], tmp_path: Path
) -> None:
    files = {f"llama_cpp/{LOADER}": b"x = 1\n", "llama_cpp/__init__.py": init.encode()}
    facts = here(packed(tmp_path, files))
    assert (facts.loader_called, facts.preload_called) == called


def test_every_file_of_the_package_except_libraries_has_a_digest(tmp_path: Path) -> None:
    more = {"llama_cpp/a.txt": b"a", "llama_cpp/lib/x.so": b"\x7fELF", "llama_cpp/b.bin": bytes(9)}
    files = here(packed(tmp_path, more)).package_files
    assert set(files) == {
        "llama_cpp/__init__.py", "llama_cpp/llama_cpp.py", "llama_cpp/a.txt", "llama_cpp/b.bin",
    }  # fmt: skip
    assert files["llama_cpp/a.txt"] == hashlib.sha256(b"a").hexdigest()
