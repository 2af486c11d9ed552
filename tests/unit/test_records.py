"""Records: they carry every noun unchanged, and are whole or not there."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import inspect
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sessions.build.model import BuildStep, Wheel
from sessions.fetch.model import Pristine
from sessions.matrix.model import Matrix
from sessions.payload import report_file
from sessions.probe.model import Driver, InstalledToolkit, Toolchain
from sessions.release.model import Gate, PythonWheel, Release
from sessions.run import bench_results
from sessions.run.model import BenchRatio, BenchWheel, RunReport, SmokeReport
from sessions.shared import records
from sessions.shared.checks import Check, CheckGroup
from sessions.verify.report_model import VerifyReport
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
    SmokeReport(
        "a.whl",
        "0" * 64,
        "cpu",
        "cpu",
        None,
        None,
        "3.11.2",
        "Linux",
        "here",
        "2026",
        1.5,
        (),
        ({"type": "F16", "nmse": 1e-6, "bound": 1e-4},),
        ({"check": "lora", "case": "scale 1.0", "nmse": 1e-6, "bound": 1e-4},),
        {"set": "default", "rows": []},
        {"import_seconds": 0.2},
    ),
    BenchWheel("seed", "a.whl", "0" * 64, "0.3.16", "x64", False, (), 3, {"wheel_bytes": (5.0,)}),
    BenchRatio("seed", "import_seconds", 0.5, 0.4, 0.6, 10, "better"),
    bench_results.opened(
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
MODELS = [
    importlib.import_module(".".join(path.relative_to(fakes.ROOT).with_suffix("").parts))
    for path in sorted((fakes.ROOT / "sessions").rglob("*.py"))
    if (
        path.name in ("model.py", "report_model.py", "build_spec.py", "checks.py", "host.py")
        and path.parent.name != "verify"
    )
    or path.name == "report_model.py"
]
KINDS = [
    kind
    for module in MODELS
    for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    if kind.__module__ == module.__name__ and kind is not RunReport
]


def test_a_record_that_is_not_ok_is_none(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    records.write(path, "wheel", fakes.wheel(), ok=False)
    assert records.read(path, "wheel", Wheel) is None


def test_one_that_is_not_ok_is_read_by_whoever_tells_of_it(tmp_path: Path) -> None:
    records.write(tmp_path / "r.json", "wheel", fakes.wheel(), ok=False)
    assert records.read(tmp_path / "r.json", "wheel", Wheel, failed=True) == fakes.wheel()


def test_every_noun_is_tested_here() -> None:
    assert {type(value) for value in VALUES} == set(KINDS)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_noun_comes_back_from_its_record_as_it_was(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    records.write(path, "value", value)
    back = records.read(path, "value", type(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        fakes.cpu_spec(),
        fakes.chain(python=None, compiler=None, driver=None, gpus=(), toolkits=()),
        fakes.source(sdist_sha256=None),
        fakes.wheel(cuda=None, cpu_seconds=None, archs=()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_there_comes_back_as_none(value: Any, tmp_path: Path) -> None:
    records.write(tmp_path / "r.json", "value", value)
    assert records.read(tmp_path / "r.json", "value", type(value)) == value


def test_what_lies_inside_comes_back_as_a_noun_too(tmp_path: Path) -> None:
    records.write(tmp_path / "r.json", "probe", fakes.chain())
    chain = records.need(tmp_path / "r.json", "probe", Toolchain)
    assert isinstance(chain.toolkits, tuple)
    assert isinstance(chain.toolkits[0], InstalledToolkit)
    assert chain.toolkits[0].accepts == fakes.ACCEPTS


def test_a_record_says_what_it_is(tmp_path: Path) -> None:
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


def test_a_good_record_is_read(tmp_path: Path) -> None:
    # Else the damage below would test nothing.
    (tmp_path / "r.json").write_text(sealed(GOOD))
    assert records.read(tmp_path / "r.json", "driver", Driver) == Driver("580", "13.0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        sealed(GOOD)[:-10],
        "null",
        "[]",
        "3",
        sealed({**GOOD, "schema": 0}),
        sealed({**GOOD, "ok": False}),
        sealed({"schema": 1, "ok": True}),
        sealed({**GOOD, "driver": {"release": "580"}}),
        sealed({**GOOD, "driver": "580"}),
        sealed({**GOOD, "driver": None}),
        json.dumps(GOOD),
        json.dumps({**GOOD, "sha256": "0" * 64}),
        sealed(GOOD).replace("580", "610"),
        sealed({**GOOD, "ok": False}).replace("false", "true"),
        "\x00\x00\x00",
    ],
)
def test_a_damaged_record_is_as_if_it_were_not_there(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    assert records.read(tmp_path / "r.json", "driver", Driver) is None


def test_bytes_that_are_no_text_are_damage_too(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xff\xfe\x00{")
    assert records.read(tmp_path / "r.json", "driver", Driver) is None


STEPS = {"file": "a.whl", "steps": 3, "wall_seconds": 1.5, "archs": ["120-real"], "cuda": None}


def wheel_record(**changes: Any) -> dict[str, Any]:
    """A record of a wheel, with other values in it and its digest right."""
    whole = json.loads(records.text("wheel", fakes.wheel()))
    del whole["sha256"]
    whole["wheel"] |= changes
    return {**whole, "sha256": records.fingerprint(whole)}


@pytest.mark.parametrize("changes", [{}, STEPS, {"wall_seconds": 2}, {"timing": {"seconds": 1}}])
def test_read_takes_values_of_the_fields_types(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(wheel_record(**changes)))
    assert records.read(tmp_path / "r.json", "wheel", Wheel) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": "x"},
        {"steps": True},
        {"steps": 1.5},
        {"steps": None},
        {"file": 3},
        {"file": None},
        {"archs": "120-real"},
        {"archs": {"120-real": 1}},
        {"archs": [120]},
        {"archs": None},
        {"libraries": ["libllama.so"]},
        {"libraries": {"libllama.so": 1}},
        {"libraries": "libllama.so"},
        {"source_edited": 1},
        {"source_edited": "false"},
        {"cuda": 13.1},
        {"wall_seconds": "1.5"},
        {"wall_seconds": True},
        {"cache": {"hits": "0"}},
        {"cache": []},
        {"unknown": 1},
    ],
    ids=json.dumps,
)
def test_read_refuses_a_value_of_another_type(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(wheel_record(**changes)))
    assert records.read(tmp_path / "r.json", "wheel", Wheel) is None


def test_read_refuses_a_word_that_is_not_among_those_of_a_field(tmp_path: Path) -> None:
    record = {"schema": 1, "kind": "check", "ok": True, "check": records.to_json(CHECK)}
    for status, good in (("warn", True), ("fine", False), (1, False), ([], False)):
        record["check"] = {**records.to_json(CHECK), "status": status}
        (tmp_path / "r.json").write_text(sealed(record))
        assert (records.read(tmp_path / "r.json", "check", Check) is not None) is good


def test_read_refuses_what_lacks_a_field_that_has_a_default(tmp_path: Path) -> None:
    # An older version's record: what it does not say was not found out.
    record = {"schema": 1, "kind": "check", "ok": True, "check": records.to_json(CHECK)}
    del record["check"]["remedy"]
    (tmp_path / "r.json").write_text(sealed(record))
    assert records.read(tmp_path / "r.json", "check", Check) is None


def test_from_json_says_of_every_wrong_field_where_it_is_and_why() -> None:
    value = records.to_json(fakes.wheel(archs=("a", "b")))
    value |= {"steps": "x", "more": 1, "archs": ["a", 2]}
    with pytest.raises(ValueError, match="is not") as caught:
        records.from_json(Wheel, value, name="wheel")
    assert set(str(caught.value).splitlines()) == {
        "wheel.steps: 'x' is not an integer",
        "wheel.archs[1]: 2 is not a string",
        "wheel: extra fields found (more)",
    }


HOSTILE = {
    "nested lists": '{"schema": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{"a": ' * 100_000 + "1" + "}" * 100_000,
    "nested, closed late": sealed({**GOOD, "driver": "@"}).replace(
        '"@"', "[" * 50_000 + "]" * 50_000
    ),
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


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_read_takes_a_hostile_text_for_no_valid_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    assert records.read(tmp_path / "r.json", "driver", Driver) is None
    with raises("record-missing"):
        records.need(tmp_path / "r.json", "driver", Driver)


def test_read_takes_a_folder_for_no_valid_record(tmp_path: Path) -> None:
    assert records.read(tmp_path, "driver", Driver) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no fifo")
@pytest.mark.parametrize("linked", [False, True])
def test_read_does_not_wait_for_a_fifo(linked: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert records.read(tmp_path / ("link" if linked else "fifo"), "driver", Driver) is None


def test_read_takes_a_file_beyond_the_limit_for_no_valid_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.json").write_text(sealed(GOOD))
    monkeypatch.setattr(records, "LIMIT", len(sealed(GOOD)))
    assert records.read(tmp_path / "r.json", "driver", Driver) is not None
    monkeypatch.setattr(records, "LIMIT", len(sealed(GOOD)) - 1)
    assert records.read(tmp_path / "r.json", "driver", Driver) is None


def test_write_spells_out_half_a_surrogate_pair(tmp_path: Path) -> None:
    # As a hostile wheel may have it in a library's name, or a path that is not UTF-8.
    records.write(tmp_path / "r.json", "driver", Driver("a\udcff\\", "😀"))
    assert records.read(tmp_path / "r.json", "driver", Driver) == Driver("a\\udcff\\", "😀")


def test_a_missing_record_is_none(tmp_path: Path) -> None:
    assert records.read(tmp_path / "r.json", "driver", Driver) is None


def test_a_record_that_is_needed_names_the_session_that_leaves_it(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        records.need(tmp_path / "probe.json", "probe", Toolchain)
    assert caught.value.remedy == "nox -s probe"
    spec = fakes.spec(target="ada+py3.12", base="ada", overrides=("--python", "3.12"))
    with raises("record-missing") as caught:
        dataclasses.replace(fakes.context(tmp_path), spec=spec).need("probe", Toolchain)
    assert caught.value.remedy == "nox -s probe -- --target ada --python 3.12"


def full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    records.write_text(path, "old\n")
    monkeypatch.setattr(os if step == "fsync" else Path, step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        records.write_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(_: int) -> NoReturn:
        raise KeyboardInterrupt

    path = tmp_path / "r.json"
    records.write_text(path, "old\n")
    monkeypatch.setattr(os, "fsync", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        records.write_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_text_is_written_as_it_is_on_every_system(tmp_path: Path) -> None:
    records.write_text(tmp_path / "t", "é\nb\n")
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa9\nb\n"


def test_a_fingerprint_does_not_depend_on_the_order_of_names() -> None:
    assert records.fingerprint({"a": 1, "b": (2, 3)}) == records.fingerprint({"b": [2, 3], "a": 1})
    assert records.fingerprint({"a": 1}) != records.fingerprint({"a": 2})
    assert records.fingerprint(["a", "b"]) != records.fingerprint(["b", "a"])


def test_a_files_hash_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert records.file_sha256(tmp_path / "f") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
