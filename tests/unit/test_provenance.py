"""The provenance: valid for the types of in-toto and SLSA, with the values of the records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from sessions.build import cmake_settings
from sessions.release import provenance
from sessions.release.evidence import Evidence, released_records
from sessions.shared import knowledge, records
from tests import fakes

COMMIT = "4" * 40
WHEELS = {
    "rtx50": fakes.evidence(),
    "rtx50-fp4": fakes.fp4_evidence(),
    "cpu": fakes.cpu_evidence(),
    "untested": fakes.evidence(runs=()),
    "installed toolkit": fakes.evidence(toolkit=fakes.toolkit(origin="system", components={})),
    "checkout": fakes.evidence(source=fakes.source(sdist_sha256=None)),
}


def statement(found: Evidence) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(provenance.text(found, COMMIT))
    return value


def validate(value: dict[str, Any]) -> None:
    """Check the types of the in-toto attestation framework; an unknown field is an error."""
    parsed = json_format.ParseDict(value, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    predicate = json_format.ParseDict(value["predicate"], provenance_pb2.Provenance())
    for descriptor in (
        *predicate.build_definition.resolved_dependencies,
        *predicate.run_details.byproducts,
    ):
        ResourceDescriptor.copy_from_pb(descriptor).validate()


@pytest.mark.parametrize("name", WHEELS)
def test_the_provenance_is_valid_and_reproducible(name: str) -> None:
    found = WHEELS[name]
    value = statement(found)
    validate(value)
    assert value["subject"] == [{"name": found.wheel.file, "digest": {"sha256": found.sha256}}]
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    assert value == statement(found)


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": [{"name": "a.whl"}]},
        {"predicateType": ""},
        {"unknown": 1},
        {"predicate": {"buildDefinition": {"when": "today"}}},
    ],
)
def test_an_invalid_statement_is_noticed(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, json_format.ParseError)):
        validate({**statement(fakes.evidence()), **change})


def definition(found: Evidence) -> dict[str, Any]:
    value: dict[str, Any] = statement(found)["predicate"]["buildDefinition"]
    return value


def test_all_inputs_of_the_build_are_named() -> None:
    inputs = definition(fakes.evidence())["resolvedDependencies"]
    assert {"name": "blackwheel", "digest": {"gitCommit": COMMIT}} in inputs
    sdist = knowledge.sdists()["0.3.16"]
    assert {
        "uri": "pkg:pypi/llama-cpp-python@0.3.16",
        "name": sdist.file,
        "digest": {"sha256": sdist.sha256},
    } in inputs
    for name in ("tools.txt", "cuda-13.1.txt"):
        digest = records.text_sha256((knowledge.LOCKS / name).read_bytes())
        assert {"name": f"sessions/data/locks/{name}", "digest": {"sha256": digest}} in inputs
    uris = {item["uri"] for item in inputs if "uri" in item}
    assert uris >= {
        "pkg:pypi/nvidia-cuda-runtime@13.1.80",
        "pkg:pypi/nvidia-cublas@13.2.2.2",
        "pkg:generic/gnu@12.2.0",
        "pkg:generic/python@3.11.2",
    }


def test_an_installed_toolkit_and_a_checkout_are_named() -> None:
    inputs = definition(WHEELS["installed toolkit"])["resolvedDependencies"]
    assert {"uri": "pkg:generic/cuda-toolkit@13.1"} in inputs
    assert "sessions/data/locks/cuda-13.1.txt" not in [item.get("name") for item in inputs]
    assert {
        "uri": "pkg:pypi/llama-cpp-python@0.3.16",
        "annotations": {"tree-sha256": "d" * 64},
    } in definition(WHEELS["checkout"])["resolvedDependencies"]


def test_the_external_parameters_are_those_of_the_target() -> None:
    assert definition(WHEELS["rtx50-fp4"])["externalParameters"] == {
        "target": "rtx50-fp4",
        "version": "0.3.36",
        "cuda": "13.1",
        "architectures": ["120a-real"],
        "python": "3.11",
        "platform": "linux",
        "glibc": "host",
        "toolkit": "pypi",
    }
    assert "cuda" not in definition(WHEELS["cpu"])["externalParameters"]


def test_the_byproducts_are_the_released_records() -> None:
    found = fakes.evidence()
    byproducts = statement(found)["predicate"]["runDetails"]["byproducts"]
    assert byproducts == [
        {"name": name, "digest": {"sha256": hashlib.sha256(text.encode()).hexdigest()}}
        for name, text in released_records(found).items()
    ]
    names = "wheel.json facts.json verify.json smoke-12.0.json ops-12.0.json"
    assert [item["name"] for item in byproducts] == names.split()


def test_folders_of_the_build_machine_are_replaced() -> None:
    text = provenance.text(fakes.evidence(), COMMIT)
    assert "/home/user" not in text
    assert '"./build/rtx50/tree"' in text
    assert "$BLACKWHEEL_CACHE/tools-py3.11-0123456789ab/bin/ccache" in text


def test_folders_of_a_windows_machine_are_replaced() -> None:
    spec = fakes.claiming(platform="windows")
    kit = fakes.windows_toolkit()
    found = fakes.evidence()
    build = cmake_settings.configure(
        spec, fakes.msvc(), kit, found.source, fakes.windows_places(), {}
    )
    other = {n: t.replace("Users", "users") for n, t in build.settings.items()}  # the same folder
    assert "José" in str(build.settings)
    build = dataclasses.replace(build, settings={**other, "build-dir": build.settings["build-dir"]})
    text = provenance.text(dataclasses.replace(found, spec=spec, toolkit=kit, build=build), COMMIT)
    assert "José" not in json.dumps(json.loads(text), ensure_ascii=False)


def test_an_untested_wheel_is_marked() -> None:
    parameters = definition(WHEELS["untested"])["internalParameters"]
    assert parameters["untested"] == "UNTESTED on 12.0"
    assert "UNTESTED" not in json.dumps(definition(WHEELS["rtx50"]))
