"""The provenance: valid in-toto and SLSA by their own types, and true of the records."""

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

from sessions.build import main_configure
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


def made(found: Evidence) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(provenance.text(found, COMMIT))
    return told


def validate(told: dict[str, Any]) -> None:
    """By the types of the in-toto attestation framework; what they do not know is refused."""
    statement = json_format.ParseDict(told, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    predicate = json_format.ParseDict(told["predicate"], provenance_pb2.Provenance())
    for thing in predicate.build_definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(thing).validate()
    for thing in predicate.run_details.byproducts:
        ResourceDescriptor.copy_from_pb(thing).validate()


@pytest.mark.parametrize("name", WHEELS)
def test_it_is_valid(name: str) -> None:
    validate(made(WHEELS[name]))


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": [{"name": "a.whl"}]},
        {"predicateType": ""},
        {"unknown": 1},
    ],
)
def test_what_is_not_valid_would_be_noticed(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, json_format.ParseError)):
        validate({**made(fakes.evidence()), **change})


def test_an_unknown_field_of_the_predicate_would_be_noticed() -> None:
    told = made(fakes.evidence())
    told["predicate"]["buildDefinition"]["when"] = "today"
    with pytest.raises(json_format.ParseError, match="when"):
        validate(told)


def test_the_subject_is_the_wheel() -> None:
    found = fakes.evidence()
    told = made(found)
    assert told["subject"] == [{"name": found.wheel.file, "digest": {"sha256": found.sha256}}]
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"


def dependencies(found: Evidence) -> list[dict[str, Any]]:
    definition = made(found)["predicate"]["buildDefinition"]
    told: list[dict[str, Any]] = definition["resolvedDependencies"]
    return told


def test_all_that_went_into_the_build_is_named() -> None:
    found = fakes.evidence()
    told = dependencies(found)
    assert {"name": "blackwheel", "digest": {"gitCommit": COMMIT}} in told
    sdist = knowledge.sdists()["0.3.16"]
    assert {
        "uri": "pkg:pypi/llama-cpp-python@0.3.16",
        "name": sdist.file,
        "digest": {"sha256": sdist.sha256},
    } in told
    for name in ("tools.txt", "cuda-13.1.txt"):
        digest = records.text_sha256(
            (
                (knowledge.KNOWLEDGE if name.endswith(".toml") else knowledge.LOCKS) / name
            ).read_bytes()
        )
        assert {"name": f"sessions/data/locks/{name}", "digest": {"sha256": digest}} in told
    uris = {item["uri"] for item in told if "uri" in item}
    assert uris >= {
        "pkg:pypi/nvidia-cuda-runtime@13.1.80",
        "pkg:pypi/nvidia-cublas@13.2.2.2",
        "pkg:generic/gnu@12.2.0",
        "pkg:generic/python@3.11.2",
    }


def test_an_installed_toolkit_and_a_checkout_are_named_as_such() -> None:
    uris = [item.get("uri") for item in dependencies(WHEELS["installed toolkit"])]
    assert "pkg:generic/cuda-toolkit@13.1" in uris
    names = [item.get("name") for item in dependencies(WHEELS["installed toolkit"])]
    assert "sessions/data/locks/cuda-13.1.txt" not in names
    own = [i for i in dependencies(WHEELS["checkout"]) if "annotations" in i]
    assert own == [
        {"uri": "pkg:pypi/llama-cpp-python@0.3.16", "annotations": {"tree-sha256": "d" * 64}}
    ]


def test_what_was_asked_for_are_the_parameters() -> None:
    asked = made(WHEELS["rtx50-fp4"])["predicate"]["buildDefinition"]["externalParameters"]
    assert asked == {
        "target": "rtx50-fp4",
        "version": "0.3.36",
        "cuda": "13.1",
        "architectures": ["120a-real"],
        "python": "3.11",
        "platform": "linux",
        "glibc": "host",
        "toolkit": "pypi",
    }
    assert "cuda" not in made(WHEELS["cpu"])["predicate"]["buildDefinition"]["externalParameters"]


def test_the_records_that_go_with_the_wheel_are_its_byproducts() -> None:
    found = fakes.evidence()
    told = made(found)["predicate"]["runDetails"]["byproducts"]
    assert told == [
        {"name": name, "digest": {"sha256": hashlib.sha256(text.encode()).hexdigest()}}
        for name, text in released_records(found).items()
    ]
    assert [item["name"] for item in told] == [
        "wheel.json",
        "facts.json",
        "verify.json",
        "smoke-12.0.json",
        "ops-12.0.json",
    ]


def test_no_folder_of_the_machine_is_told() -> None:
    text = provenance.text(fakes.evidence(), COMMIT)
    assert "/home/user" not in text
    assert '"./build/rtx50/tree"' in text
    assert "$BLACKWHEEL_CACHE/tools-py3.11-0123456789ab/bin/ccache" in text


def test_windows_folders_are_not_told_either() -> None:
    spec = fakes.claiming(platform="windows")
    kit = fakes.windows_toolkit()
    found = fakes.evidence()
    build = main_configure.configure(
        spec, fakes.msvc(), kit, found.source, fakes.windows_places(), {}
    )
    other = {n: t.replace("Users", "users") for n, t in build.settings.items()}  # means the same
    assert "José" in str(build.settings)
    build = dataclasses.replace(build, settings={**other, "build-dir": build.settings["build-dir"]})
    text = provenance.text(dataclasses.replace(found, spec=spec, toolkit=kit, build=build), COMMIT)
    assert "José" not in json.dumps(json.loads(text), ensure_ascii=False)


def test_untested_is_said_and_only_where_it_is_so() -> None:
    def parameters(name: str) -> dict[str, Any]:
        definition = made(WHEELS[name])["predicate"]["buildDefinition"]
        found: dict[str, Any] = definition["internalParameters"]
        return found

    assert parameters("untested")["untested"] == "UNTESTED on 12.0"
    assert "UNTESTED" not in json.dumps(parameters("rtx50"))


@pytest.mark.parametrize("name", WHEELS)
def test_the_same_records_give_the_same_text(name: str) -> None:
    assert provenance.text(WHEELS[name], COMMIT) == provenance.text(WHEELS[name], COMMIT)
