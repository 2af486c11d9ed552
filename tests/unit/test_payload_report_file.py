"""A report is taken only whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sessions.payload import report_file
from tests import fakes


def record(**changes: Any) -> str:
    """A report file with some of its record changed, its digest right unless it is changed."""
    base = json.loads(report_file.text(fakes.smoke_report()))
    return json.dumps({**base, **changes})


def test_what_was_sealed_is_opened() -> None:
    report = fakes.smoke_report(device="Größe 漢字 \N{GRINNING FACE}")
    assert report_file.read(report_file.text(report)) == report


def test_a_report_is_a_file_that_people_can_read() -> None:
    text = report_file.text(fakes.smoke_report(device="Größe"))
    assert text.endswith("}\n")
    assert '"device": "Größe"' in text


def test_what_is_not_a_number_survives() -> None:
    # A wheel that computes nonsense gives NaN, and the report of it must open all the same.
    text = report_file.text({"nmse": [float("nan"), float("inf")]})
    assert str(report_file.read(text)) == "{'nmse': [nan, inf]}"


def test_the_order_of_names_and_the_spaces_do_not_matter() -> None:
    # An editor or a mail program may write JSON anew.
    again = json.dumps(json.loads(report_file.text(fakes.smoke_report())), sort_keys=True, indent=7)
    assert report_file.read(again) == fakes.smoke_report()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"status": "ok"', '"status": "oK"'),
        ('"nmse": 1e-05', '"nmse": 2e-05'),
        ('"equal": 20', '"equal": 21'),
        ("0000000000", "0000000001"),
        ('"target": "rtx50"', '"target": "rtx60"'),
    ],
    ids=["a-letter", "a-figure", "a-count", "the-wheel", "the-target"],
)
def test_one_changed_character_is_found(old: str, new: str) -> None:
    text = report_file.text(fakes.smoke_report())
    assert old in text
    with pytest.raises(ValueError, match="it was changed or damaged"):
        report_file.read(text.replace(old, new, 1))


def test_a_changed_digest_is_found() -> None:
    with pytest.raises(ValueError, match="it was changed or damaged"):
        report_file.read(record(sha256="0" * 64))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PK\x03\x04",
        "[" * 200_000,
        "[]",
        "null",
        '"text"',
        "{}",
        '{"schema": 1, "kind": "smoke-report"}',
        report_file.text(fakes.smoke_report())[:-10],
        record(kind="wheel"),
        record(schema=2),
        record(schema=None),
        record(report=[], sha256=report_file.digest([])),  # type: ignore[arg-type]
    ],
    ids=[
        "empty",
        "zip",
        "too-deep",
        "list",
        "null",
        "string",
        "nothing-in-it",
        "no-report",
        "cut",
        "kind",
        "schema",
        "no-schema",
        "report-a-list",
    ],
)
def test_what_is_no_report_of_this_schema_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a report"):
        report_file.read(text)


def test_a_report_of_another_kind_is_none() -> None:
    text = report_file.text(fakes.bench_report(), report_file.BENCH)
    assert report_file.read(text, report_file.BENCH) == fakes.bench_report()
    with pytest.raises(ValueError, match="no smoke-report of schema 1"):
        report_file.read(text)
    with pytest.raises(ValueError, match="no bench-report of schema 1"):
        report_file.read(report_file.text(fakes.smoke_report()), report_file.BENCH)
