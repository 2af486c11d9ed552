"""The format of a report file: its digest, and the texts that it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sessions.payload import report_file
from tests import fakes


def record(**changes: Any) -> str:
    """A report file with changed fields; its digest is right unless it is one of them."""
    base = json.loads(report_file.text(fakes.smoke_report()))
    return json.dumps({**base, **changes})


@pytest.mark.parametrize(
    "report",
    [
        fakes.smoke_report(device="Größe 漢字 \N{GRINNING FACE}"),
        {"nmse": [float("nan"), float("inf")]},  # the results of a wrong wheel
    ],
    ids=["unicode", "nan"],
)
def test_a_written_report_can_be_read(report: dict[str, Any]) -> None:
    assert str(report_file.read(report_file.text(report))) == str(report)


def test_the_text_is_readable_and_may_be_formatted_again() -> None:
    report = fakes.smoke_report(device="Größe")
    text = report_file.text(report)
    assert text.endswith("}\n")
    assert '"device": "Größe"' in text
    again = json.dumps(json.loads(text), sort_keys=True, indent=7)
    assert report_file.read(again) == report


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"status": "ok"', '"status": "oK"'),
        ('"nmse": 1e-05', '"nmse": 2e-05'),
        ('"equal": 20', '"equal": 21'),
        ("0000000000", "0000000001"),
        ('"target": "rtx50"', '"target": "rtx60"'),
        ('"sha256": "', '"sha256": "0'),
    ],
    ids=["letter", "number", "count", "wheel", "target", "digest"],
)
def test_a_changed_character_is_found(old: str, new: str) -> None:
    text = report_file.text(fakes.smoke_report())
    assert old in text
    with pytest.raises(ValueError, match="it was changed or damaged"):
        report_file.read(text.replace(old, new, 1))


TEXTS = {
    "empty": "",
    "zip": "PK\x03\x04",
    "too-deep": "[" * 200_000,
    "list": "[]",
    "null": "null",
    "string": '"text"',
    "object": "{}",
    "no-report": '{"schema": 1, "kind": "smoke-report"}',
    "cut": report_file.text(fakes.smoke_report())[:-10],
    "kind": record(kind="wheel"),
    "schema": record(schema=2),
    "no-schema": record(schema=None),
    "report-a-list": record(report=[], sha256=report_file.digest([])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a report"):
        report_file.read(text)


def test_a_report_of_another_kind_is_refused() -> None:
    text = report_file.text(fakes.bench_report(), report_file.BENCH)
    assert report_file.read(text, report_file.BENCH) == fakes.bench_report()
    with pytest.raises(ValueError, match="no smoke-report of schema 1"):
        report_file.read(text)
    with pytest.raises(ValueError, match="no bench-report of schema 1"):
        report_file.read(report_file.text(fakes.smoke_report()), report_file.BENCH)
