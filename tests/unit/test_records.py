"""Records: every record type is read as it was written; a damaged file counts as missing."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sessions.build.record_types import BuildStep, Wheel
from sessions.fetch.record_types import Pristine
from sessions.matrix.record_types import Matrix
from sessions.payload import report_file
from sessions.probe.record_types import Driver, InstalledToolkit, Toolchain
from sessions.release.record_types import Gate, PythonWheel, Release
from sessions.run import check_bench_report
from sessions.run.record_types import BenchRatio, BenchWheel, RunReport
from sessions.shared import records
from sessions.shared.check_result import Check, CheckGroup
from sessions.verify.record_types import VerifyReport
from tests import evidence, fakes
from tests.problems import raises

VALUES: list[Any] = [
    fakes.spec(warning="mind", compiler="/usr/bin/g++"),
    fakes.chain().tools[0],
    fakes.python(),
    fakes.compiler(),
    fakes.ACCEPTS,
    fakes.installed(),
    fakes.gpu(),
    Driver("580.159.04", "13.0"),
    fakes.host(cpu="José's ☃"),
    Check("id", "warn", "summary", "evidence\nof two lines", "remedy"),
    fakes.chain(toolkit=fakes.installed(accepts=None)),
    fakes.source(edited=("llama_cpp/llama.py",)),
    Pristine("0" * 64, "1" * 64, {"CMakeLists.txt": "2" * 64}),
    fakes.toolkit(),
    fakes.build_env(settings={"cmake.define.A": '"C:\\a b" é;x'}),
    fakes.wheel(),
    CheckGroup("The file", (Check("archive", "ok", "archive: 37 members"),)),
    evidence.h200(),
    BenchWheel("seed", "a.whl", "0" * 64, "0.3.16", "x64", False, (), 3, {"wheel_bytes": (5.0,)}),
    BenchRatio("seed", "import_seconds", 0.5, 0.4, 0.6, 10, "better"),
    check_bench_report.opened(
        report_file.text(fakes.bench_report(), report_file.BENCH), "rtx50", "0" * 64, "here"
    ),
    VerifyReport("a.whl", "0" * 64, "rtx50", "f" * 64, 7.5, (CheckGroup("The file", ()),)),
    BuildStep("a.dir/x.cpp.o", "c++", 5, 105),
    evidence.cold(),
    Gate("cpu", "a.whl", "0" * 64, ("12.0",), ()),
    PythonWheel("3.12", "b.whl", "1" * 64, 8),
    fakes.ops_run(fakes.wheel_facts(), fakes.spec()).report,
    Release("cpu", ("--target", "cpu"), "a.whl", "0" * 64, 7, "0.3.16", None, (), False, None),
    fakes.matrix_row(),
    Matrix("2026", 30.5, (fakes.matrix_row(outcome="failed", reason="why", remedy="do this"),)),
]
CHECK = Check("id", "warn", "summary", "evidence", "remedy")
NAMES = ("record_types.py", "build_spec.py", "check_result.py", "host.py")
MODELS = [
    importlib.import_module(".".join(path.relative_to(fakes.ROOT).with_suffix("").parts))
    for path in sorted((fakes.ROOT / "sessions").rglob("*.py"))
    if path.name in NAMES
]
KINDS = [
    kind
    for module in MODELS
    for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    if kind.__module__ == module.__name__ and kind is not RunReport
]


def test_a_record_that_is_not_ok_is_read_only_to_report_it(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    records.write(path, "wheel", fakes.wheel(), ok=False)
    assert records.read(path, "wheel", Wheel) is None
    assert records.read(path, "wheel", Wheel, failed=True) == fakes.wheel()


def test_every_record_type_is_tested_here() -> None:
    assert {type(value) for value in VALUES} == set(KINDS)


WITH_NONE: list[Any] = [
    fakes.cpu_spec(),
    fakes.chain(python=None, compiler=None, driver=None, gpus=(), toolkits=()),
    fakes.source(sdist_sha256=None),
    fakes.wheel(cuda=None, cpu_seconds=None, archs=()),
]


@pytest.mark.parametrize("value", [*VALUES, *WITH_NONE], ids=lambda value: type(value).__name__)
def test_a_value_is_read_as_it_was_written(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    records.write(path, "value", value)
    back = records.read(path, "value", type(value))
    assert back == value
    assert type(back) is type(value)


def test_nested_values_have_their_types(tmp_path: Path) -> None:
    records.write(tmp_path / "r.json", "probe", fakes.chain())
    chain = records.need(tmp_path / "r.json", "probe", Toolchain)
    assert isinstance(chain.toolkits, tuple)
    assert isinstance(chain.toolkits[0], InstalledToolkit)
    assert chain.toolkits[0].accepts == fakes.ACCEPTS


def test_the_fields_of_a_record(tmp_path: Path) -> None:
    records.write(tmp_path / "r.json", "driver", Driver("580", "13.0"))
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == {
        "schema": 1,
        "kind": "driver",
        "ok": True,
        "driver": {"release": "580", "cuda": "13.0"},
        "sha256": "962bf9a0ab37541209d483a6ca9e9acaacabce4c1733e33018385c89aabf17a7",
    }


GOOD = {"schema": 1, "kind": "driver", "ok": True, "driver": {"release": "580", "cuda": "13.0"}}


def sealed(record: dict[str, Any]) -> str:
    return json.dumps({**record, "sha256": records.fingerprint(record)})


@pytest.fixture
def reads(tmp_path: Path) -> Callable[..., Any]:
    """Writes a text and reads it as a record."""

    def read(text: str | bytes, kind: str, type_: type) -> Any:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "r.json").write_bytes(data)
        return records.read(tmp_path / "r.json", kind, type_)

    return read


def test_the_good_record_is_read(reads: Any) -> None:
    # Otherwise the damaged ones below would prove nothing.
    assert reads(sealed(GOOD), "driver", Driver) == Driver("580", "13.0")


STEPS = {"file": "a.whl", "steps": 3, "wall_seconds": 1.5, "archs": ["120-real"], "cuda": None}


def wheel_record(**changes: Any) -> dict[str, Any]:
    """A record of a wheel, with other values in it and its digest right."""
    whole = json.loads(records.text("wheel", fakes.wheel()))
    del whole["sha256"]
    whole["wheel"] |= changes
    return {**whole, "sha256": records.fingerprint(whole)}


@pytest.mark.parametrize("changes", [{}, STEPS, {"wall_seconds": 2}, {"timing": {"seconds": 1}}])
def test_read_accepts_values_of_the_fields_types(changes: dict[str, Any], reads: Any) -> None:
    assert reads(json.dumps(wheel_record(**changes)), "wheel", Wheel) is not None


@pytest.mark.parametrize(
    "changes",
    [
        *({"steps": value} for value in ("x", True, 1.5, None)),
        *({"file": value} for value in (3, None)),
        *({"archs": value} for value in ("120-real", {"120-real": 1}, [120], None)),
        *({"libraries": value} for value in (["a.so"], {"a.so": 1}, "a.so")),
        *({"source_edited": value} for value in (1, "false")),
        {"cuda": 13.1},
        *({"wall_seconds": value} for value in ("1.5", True)),
        {"cache": {"hits": "0"}},
        {"cache": []},
        {"unknown": 1},
    ],
    ids=json.dumps,
)
def test_read_refuses_a_value_of_another_type(changes: dict[str, Any], reads: Any) -> None:
    assert reads(json.dumps(wheel_record(**changes)), "wheel", Wheel) is None


def test_read_refuses_a_value_that_is_not_one_of_a_literal(reads: Any) -> None:
    record = {"schema": 1, "kind": "check", "ok": True}
    for status, good in (("warn", True), ("fine", False), (1, False), ([], False)):
        value = {**records.to_json(CHECK), "status": status}
        assert (reads(sealed({**record, "check": value}), "check", Check) is not None) is good


def test_read_refuses_a_record_without_a_field_that_has_a_default(reads: Any) -> None:
    # A record of an older version: the default is not what that version found.
    value = records.to_json(CHECK)
    del value["remedy"]
    record = {"schema": 1, "kind": "check", "ok": True, "check": value}
    assert reads(sealed(record), "check", Check) is None


def test_from_json_names_every_wrong_field_with_the_reason() -> None:
    value = records.to_json(fakes.wheel(archs=("a", "b")))
    value |= {"steps": "x", "more": 1, "archs": ["a", 2]}
    with pytest.raises(ValueError, match="is not") as caught:
        records.from_json(Wheel, value, name="wheel")
    assert set(str(caught.value).splitlines()) == {
        "wheel.steps: 'x' is not an integer",
        "wheel.archs[1]: 2 is not a string",
        "wheel: extra fields found (more)",
    }


DAMAGED: dict[str, str | bytes] = {
    "empty": "",
    "cut": "{",
    "cut later": sealed(GOOD)[:-10],
    "null": "null",
    "list": "[]",
    "number": "3",
    "zeros": "\x00\x00\x00",
    "not UTF-8": b"\xff\xfe\x00{",
    "another schema": sealed({**GOOD, "schema": 0}),
    "not ok": sealed({**GOOD, "ok": False}),
    "not ok, edited": sealed({**GOOD, "ok": False}).replace("false", "true"),
    "no kind": sealed({"schema": 1, "ok": True}),
    "a missing field": sealed({**GOOD, "driver": {"release": "580"}}),
    "a string": sealed({**GOOD, "driver": "580"}),
    "none": sealed({**GOOD, "driver": None}),
    "no digest": json.dumps(GOOD),
    "a wrong digest": json.dumps({**GOOD, "sha256": "0" * 64}),
    "edited": sealed(GOOD).replace("580", "610"),
    "nested lists": '{"schema": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{"a": ' * 100_000 + "1" + "}" * 100_000,
    "nested value": sealed({**GOOD, "driver": 7}).replace("7", "[" * 50_000 + "]" * 50_000, 1),
    "integer of 5,000 digits": sealed({**GOOD, "driver": "@"}).replace('"@"', "9" * 5_000),
    "number beyond a float's": sealed(GOOD).replace('"580"', "1e999"),
    "NaN": sealed({**GOOD, "driver": {"release": float("nan"), "cuda": "13.0"}}),
    "infinity": sealed({**GOOD, "schema": float("inf")}),
    "half a surrogate pair": sealed({**GOOD, "driver": {"release": "\ud800", "cuda": "13.0"}}),
    "half a pair in a name": sealed({**GOOD, "\udfff": 1}),
    "a name twice": sealed(GOOD).replace('"ok": true', '"ok": false, "ok": true'),
    "another kind": sealed({**GOOD, "kind": "gpu"}),
    "an unknown name beside": sealed({**GOOD, "more": 1}),
    "schema true": sealed({**GOOD, "schema": True}),
    "digest of another type": json.dumps({**GOOD, "sha256": 5}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_hostile_record_counts_as_missing(
    text: str | bytes, reads: Any, tmp_path: Path
) -> None:
    assert reads(text, "driver", Driver) is None
    with raises("record-missing"):
        records.need(tmp_path / "r.json", "driver", Driver)


def test_a_missing_file_and_a_folder_count_as_missing(tmp_path: Path) -> None:
    assert records.read(tmp_path / "r.json", "driver", Driver) is None
    assert records.read(tmp_path, "driver", Driver) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no fifo")
@pytest.mark.parametrize("linked", [False, True])
def test_read_does_not_wait_for_a_fifo(linked: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert records.read(tmp_path / ("link" if linked else "fifo"), "driver", Driver) is None


def test_a_file_larger_than_the_limit_counts_as_missing(
    reads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, good in ((len(sealed(GOOD)), True), (len(sealed(GOOD)) - 1, False)):
        monkeypatch.setattr(records, "LIMIT", limit)
        assert (reads(sealed(GOOD), "driver", Driver) is not None) is good


def test_write_escapes_half_a_surrogate_pair(tmp_path: Path) -> None:
    # The name of a library in a hostile wheel may contain it, and a path that is not UTF-8.
    records.write(tmp_path / "r.json", "driver", Driver("a\udcff\\", "😀"))
    assert records.read(tmp_path / "r.json", "driver", Driver) == Driver("a\\udcff\\", "😀")


def test_the_error_for_a_missing_record_names_the_session_that_writes_it(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        records.need(tmp_path / "probe.json", "probe", Toolchain)
    assert caught.value.remedy == "nox -s probe"
    spec = fakes.spec(target="ada+py3.12", base="ada", overrides=("--python", "3.12"))
    with raises("record-missing") as caught:
        dataclasses.replace(fakes.context(tmp_path), spec=spec).need("probe", Toolchain)
    assert caught.value.remedy == "nox -s probe -- --target ada --python 3.12"


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("fsync", OSError(errno.ENOSPC, "No space left on device")),
        ("replace", OSError(errno.ENOSPC, "No space left on device")),
        ("fsync", KeyboardInterrupt()),
    ],
)
def test_a_write_that_fails_leaves_only_the_old_file(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    records.write_text(path, "old\n")
    monkeypatch.setattr(os if step == "fsync" else Path, step, Mock(side_effect=error))
    with pytest.raises(type(error)):
        records.write_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_text_is_written_as_utf8_with_line_feeds(tmp_path: Path) -> None:
    records.write_text(tmp_path / "t", "é\nb\n")
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa9\nb\n"


def test_a_fingerprint_does_not_depend_on_the_order_of_names() -> None:
    assert records.fingerprint({"a": 1, "b": (2, 3)}) == records.fingerprint({"b": [2, 3], "a": 1})
    assert records.fingerprint({"a": 1}) != records.fingerprint({"a": 2})
    assert records.fingerprint(["a", "b"]) != records.fingerprint(["b", "a"])


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert records.file_sha256(tmp_path / "f") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
