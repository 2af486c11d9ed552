"""The JSON schemas in docs/ are generated from the types of the records.

``BLACKWHEEL_REGOLD=1`` writes them again.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from sessions.build.record_types import Timeline, Wheel
from sessions.matrix.record_types import Matrix
from sessions.release.record_types import Gate, Release
from sessions.run.record_types import BenchReport, OpsReport, SmokeReport
from sessions.shared import records
from sessions.shared.check_result import CheckGroup
from sessions.verify.record_types import VerifyReport
from sessions.verify.wheel_facts import WheelFacts
from tests import evidence, fakes

KINDS: dict[str, Any] = {
    "wheel": Wheel,
    "facts": WheelFacts,
    "verify": VerifyReport,
    "smoke": SmokeReport,
    "bench": BenchReport,
    "ops": OpsReport,
    "steps": Timeline,
    "gate": Gate,
    "release": Release,
    "matrix": Matrix,
}


def schema(kind: str) -> dict[str, Any]:
    from pydantic import TypeAdapter  # not at the top: it takes half a second

    inner = TypeAdapter(KINDS[kind]).json_schema()
    definitions = inner.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{kind}.json",
        "type": "object",
        "properties": {
            "schema": {"const": records.SCHEMA},
            "kind": {"const": kind},
            "ok": {"type": "boolean", "description": "whether a later session may use this record"},
            kind: inner,
            "sha256": {"type": "string", "description": "of the canonical JSON of everything else"},
        },
        "required": ["schema", "kind", "ok", kind, "sha256"],
        "$defs": definitions,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_schema_is_up_to_date(kind: str) -> None:
    path = fakes.ROOT / "docs" / f"{kind}.schema.json"
    text = json.dumps(schema(kind), indent=2) + "\n"
    if os.environ.get("BLACKWHEEL_REGOLD"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


VERIFY = VerifyReport("a.whl", "0" * 64, "cpu", "f", 1.5, (CheckGroup("The file", ()),))
VALUES = {
    "wheel": fakes.wheel(),
    "facts": fakes.wheel_facts(),
    "verify": VERIFY,
    "steps": evidence.cold(),
    "matrix": Matrix("2026-11-24T04:00:00+00:00", 30.5, (fakes.matrix_row(),)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_record_is_valid_and_not_without_one_of_its_fields(kind: str) -> None:
    import jsonschema  # not at the top: it takes two seconds

    record = json.loads(records.text(kind, VALUES[kind]))
    jsonschema.validate(record, schema(kind))
    record[kind].popitem()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema(kind))
