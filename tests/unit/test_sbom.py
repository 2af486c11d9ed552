"""The SBOM of a wheel: valid CycloneDX, with the parts of the source, reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from packageurl import PackageURL

from sessions.build import openmp, sbom
from sessions.fetch.record_types import Source
from sessions.shared import knowledge, programs, records
from sessions.shared.programs import Finished
from sessions.verify import sbom_reader
from tests import fakes

COMPONENTS = {
    "nvidia-cuda-nvcc": "13.1.115",
    "nvidia-nvvm": "13.1.115",
    "nvidia-cuda-crt": "13.1.115",
    "nvidia-cuda-runtime": "13.1.80",
    "nvidia-cuda-cccl": "13.1.115",
    "nvidia-cublas": "13.2.2.2",
}
REQUIRES = ("cuda-pathfinder>=1.3", "nvidia-cuda-runtime>=13.1.80,<14", "nvidia-cublas>=13.2,<14")
LOG = """# Changelog

## [Unreleased]

## [0.3.16]

- feat: Update llama.cpp to ggerganov/llama.cpp@4227c9be4268ac844921b90f31595f81236bd317

## [0.3.15]

- feat: Update llama.cpp to ggerganov/llama.cpp@9a96389544a08fd829fccda28142ce2066017fde
"""
VENDOR = "vendor/llama.cpp/vendor"
FILES = {
    "CHANGELOG.md": LOG,
    "vendor/llama.cpp/ggml/CMakeLists.txt": "set(GGML_VERSION_MAJOR 0)\n"
    "set(GGML_VERSION_MINOR 25)\nset(GGML_VERSION_PATCH 3)\n",
    f"{VENDOR}/stb/stb_image.h": "/* stb_image - v2.30 - public domain image loader\n",
    f"{VENDOR}/miniaudio/miniaudio.h": "#define MA_VERSION_MAJOR    0\n"
    "#define MA_VERSION_MINOR    11\n#define MA_VERSION_REVISION 22\n",
}
GOMP = b"\x7fELF the OpenMP runtime"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for name, text in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return fakes.source(path=str(tmp_path / "source"))


class System:
    """Stands for a compiler with an OpenMP runtime, and for dpkg, which knows its package."""

    def __init__(self, library: Path) -> None:
        self.answers: dict[str, tuple[int, str]] = {
            "/usr/bin/gcc -print-file-name=libgomp.so.1": (0, f"{library}\n"),
            f"dpkg-query --search {library}": (0, f"libgomp1:amd64: {library}\n"),
            "dpkg-query --show -f ${Version} libgomp1:amd64": (0, "12.2.0-14+deb12u1"),
        }

    def __call__(self, command: list[str], *, env: Any) -> Finished:
        code, text = self.answers.get(" ".join(command), (127, f"{command[0]}: not found"))
        return Finished(tuple(command), code, text, 0.0, "warning: cannot set locale")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    library = tmp_path / "libgomp.so.1.0.0"
    library.write_bytes(GOMP)
    played = System(library)
    monkeypatch.setattr(programs, "capture", played)
    return played


def bom_of(source: Source, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "spec": fakes.spec(),
        "compiler": fakes.compiler(),
        "toolkit": fakes.toolkit(components=COMPONENTS),
        "requires": REQUIRES,
        "env": {"PATH": "/usr/bin:/bin"},
        **changes,
    }
    found: dict[str, Any] = json.loads(sbom.text(source=source, **arguments))
    return found


def parts(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["name"]: part for part in bom["components"]}


def values_of(part: dict[str, Any], name: str) -> list[str]:
    return [p["value"] for p in part["properties"] if p["name"] == f"blackwheel:{name}"]


def invalid(text: str) -> str | None:
    """The error of the published schema for an SBOM, or None."""
    # Loading the validator takes seconds, so only these tests do it.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return None if error is None else str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spec": fakes.cpu_spec(), "toolkit": None, "requires": ()},
        {"toolkit": fakes.toolkit(origin="system", components={})},
        {"compiler": fakes.clang()},
    ],
    ids=["cuda", "cpu", "installed-toolkit", "clang"],
)
def test_the_sbom_is_valid_cyclonedx(
    changes: dict[str, Any], source: Source, system: System
) -> None:
    found = bom_of(source, **changes)
    assert invalid(json.dumps(found)) is None
    assert ("nvidia" in json.dumps(found)) is (changes.get("toolkit", True) is not None)
    assert ("libgomp" in parts(found)) is (
        changes.get("compiler", fakes.compiler()).family == "gnu"
    )
    found["components"][0]["scope"] = "perhaps"
    assert "perhaps" in str(invalid(json.dumps(found)))


def test_the_sbom_describes_upstream_and_its_sdist(source: Source, system: System) -> None:
    root = bom_of(source)["metadata"]["component"]
    assert root["purl"] == "pkg:pypi/llama-cpp-python@0.3.16"
    (where,) = root["externalReferences"]
    assert where["type"] == "source-distribution"
    assert where["url"] == "llama_cpp_python-0.3.16.tar.gz"
    assert where["hashes"] == [{"alg": "SHA-256", "content": "5" * 64}]
    checkout = fakes.source(path=source.path, sdist_sha256=None)
    assert "externalReferences" not in bom_of(checkout)["metadata"]["component"]


def test_compiled_parts_have_their_versions_if_these_are_known(
    source: Source, system: System
) -> None:
    found = parts(bom_of(source))
    purls = {name: found[name]["purl"] for name in ("llama.cpp", "ggml", "stb_image", "miniaudio")}
    assert purls == {
        "llama.cpp": "pkg:github/ggml-org/llama.cpp@4227c9be4268ac844921b90f31595f81236bd317",
        "ggml": "pkg:github/ggml-org/ggml@0.25.3",
        "stb_image": "pkg:github/nothings/stb@2.30",
        "miniaudio": "pkg:github/mackron/miniaudio@0.11.22",
    }
    assert all(values_of(found[name], "role") == ["compiled in"] for name in purls)
    assert "xxHash" not in found  # this source has none
    Path(source.path, "CHANGELOG.md").write_text(LOG.replace("0.3.16", "0.3.99"))
    Path(source.path, "vendor/llama.cpp/ggml/CMakeLists.txt").unlink()
    found = parts(bom_of(source))
    for name in ("llama.cpp", "ggml"):
        assert "version" not in found[name]
        assert found[name]["purl"] == f"pkg:github/ggml-org/{name}"


def test_the_openmp_runtime_has_its_package_and_hash(source: Source, system: System) -> None:
    gomp = parts(bom_of(source))["libgomp"]
    assert PackageURL.from_string(gomp["purl"]) == PackageURL(
        "deb", "debian", "libgomp1", "12.2.0-14+deb12u1"
    )
    assert gomp["hashes"][0]["content"] == records.text_sha256(GOMP)
    assert (values_of(gomp, "role"), values_of(gomp, "file")) == (
        ["a file of it"],
        ["libgomp.so.1"],
    )
    assert gomp["licenses"] == [{"expression": "GPL-3.0-or-later WITH GCC-exception-3.1"}]


def test_the_static_cpp_runtime_is_named(
    source: Source, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openmp, "portable", lambda path, table: path.read_bytes() + b" for 2.28")
    path = str(Path(source.path).parent / "libstdc++.a")
    Path(path).write_bytes(b"!<arch>")
    system.answers |= {
        "/usr/bin/gcc -print-file-name=libstdc++.a": (0, f"{path}\n"),
        f"dpkg-query --search {path}": (0, f"libstdc++-12-dev:amd64: {path}\n"),
        "dpkg-query --show -f ${Version} libstdc++-12-dev:amd64": (0, "12.2.0-14+deb12u1"),
    }
    whole = bom_of(source, spec=fakes.spec(glibc="2.28"))
    shipped = parts(whole)["libgomp"]["hashes"][0]["content"]
    assert shipped == records.text_sha256(GOMP + b" for 2.28")
    found = parts(whole)["libstdc++"]
    assert PackageURL.from_string(found["purl"]) == PackageURL(
        "deb", "debian", "libstdc++-12-dev", "12.2.0-14+deb12u1"
    )
    assert values_of(found, "role") == ["compiled in"]
    assert found["licenses"] == [{"expression": "GPL-3.0-or-later WITH GCC-exception-3.1"}]
    assert values_of(whole["metadata"]["component"], "glibc") == ["2.28"]
    system.answers = {}
    nobody = parts(bom_of(source, spec=fakes.spec(glibc="2.28")))["libstdc++"]
    assert nobody["purl"] == "pkg:generic/libstdc%2B%2B"
    assert "libstdc++" not in parts(bom_of(source))


def test_without_dpkg_rpm_is_asked_and_without_both_there_is_no_version(
    source: Source, system: System
) -> None:
    first, (_, library) = next(iter(system.answers.items()))
    form = "--queryformat %{NAME} %{VERSION}-%{RELEASE}\n"
    rpm = {f"rpm --query {form} --file {library.strip()}": (0, "libgomp 14.2.1-3.fc41\n")}
    system.answers = {first: (0, library), **rpm}
    assert parts(bom_of(source))["libgomp"]["purl"] == "pkg:rpm/libgomp@14.2.1-3.fc41"
    system.answers = {first: (0, library)}
    gomp = parts(bom_of(source))["libgomp"]
    assert (gomp["purl"], "version" in gomp) == ("pkg:generic/libgomp", False)
    assert gomp["hashes"]


def test_the_parts_of_cuda_have_their_roles(source: Source, system: System) -> None:
    found = parts(bom_of(source))
    roles = {name: values_of(found[name], "role") for name in [*COMPONENTS, "cuda-pathfinder"]}
    assert roles == {
        "nvidia-cuda-nvcc": ["built with"],
        "nvidia-nvvm": ["built with"],
        "nvidia-cuda-crt": ["compiled in"],
        "nvidia-cuda-runtime": ["compiled in", "required"],
        "nvidia-cuda-cccl": ["compiled in"],
        "nvidia-cublas": ["required"],
        "cuda-pathfinder": ["required"],
    }
    assert found["nvidia-cublas"]["purl"] == "pkg:pypi/nvidia-cublas@13.2.2.2"
    assert values_of(found["nvidia-cublas"], "requirement") == ["nvidia-cublas>=13.2,<14"]
    assert {n for n, p in found.items() if p["scope"] == "excluded"} == {
        "nvidia-cuda-nvcc", "nvidia-nvvm", "gcc",
    }  # fmt: skip


def test_an_installed_toolkit_is_one_component(source: Source, system: System) -> None:
    found = parts(bom_of(source, toolkit=fakes.toolkit(origin="system", components={})))
    assert found["CUDA toolkit"]["version"] == "13.1"
    assert "version" not in found["nvidia-cublas"]


def test_every_component_is_in_the_dependency_graph_once(source: Source, system: System) -> None:
    found = bom_of(source)
    refs = [part["bom-ref"] for part in found["components"]]
    assert len(refs) == len(set(refs))
    root, *others = found["dependencies"]
    assert [item["ref"] for item in others] == refs
    assert set(root["dependsOn"]) == {
        part["bom-ref"] for part in found["components"] if part["scope"] == "required"
    }


def test_the_sbom_depends_on_the_inputs_only(source: Source, system: System) -> None:
    found = bom_of(source)
    assert found == bom_of(source)
    assert found["serialNumber"] != bom_of(source, spec=fakes.spec(archs=("90",)))["serialNumber"]
    assert found["metadata"]["timestamp"] == "2022-11-09T12:37:21Z"
    other = bom_of(source, env={"SOURCE_DATE_EPOCH": "0"})
    assert other["metadata"]["timestamp"] == "1970-01-01T00:00:00Z"


def test_the_reader_reads_what_was_written(source: Source, system: System) -> None:
    text = json.dumps(bom_of(source)).encode()
    member = f"{fakes.INFO}/sboms/{sbom.FILE}"
    (read,) = sbom_reader.read({member: text, "other.dist-info/sboms/auditwheel.cdx.json": b"{}"})
    assert read.problems == ()
    assert (read.name, read.version, read.member) == ("llama-cpp-python", "0.3.16", member)
    found = {part.name: part for part in read.materials}
    assert found["libgomp"].file == "libgomp.so.1"
    assert found["libgomp"].sha256 == records.text_sha256(GOMP)
    assert found["nvidia-cuda-runtime"].roles == ("compiled in", "required")
    assert found["nvidia-cuda-runtime"].requirement == "nvidia-cuda-runtime>=13.1.80,<14"


GOOD: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "metadata": {"component": {"name": "llama-cpp-python", "version": "0.3.16"}},
    "components": [],
}


DAMAGE: list[dict[str, Any]] = [
    {"specVersion": "1.4"},
    {"bomFormat": "SPDX"},
    {"metadata": {}},
    {"components": None},
    {"components": [{"version": "1"}]},
    {"components": [{"name": 1}]},
    {"components": ["ggml"]},
    {"components": [{"name": "a", "properties": [{}]}]},
    {"components": [{"name": "a", "hashes": [{"alg": 1}]}]},
]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        *(json.dumps({**GOOD, **damage}).encode() for damage in DAMAGE),
    ],
)
def test_the_reader_reports_an_invalid_sbom(text: bytes) -> None:
    member = f"x.dist-info/sboms/{sbom.FILE}"
    (good,) = sbom_reader.read({member: json.dumps(GOOD).encode()})
    assert good.problems == ()
    (read,) = sbom_reader.read({member: text})
    assert read.problems
    assert read.materials == ()


def test_every_row_of_parts_toml_has_a_licence_and_valid_purls() -> None:
    rows = knowledge.load("third_party_code.toml")
    for row in [*rows["part"], *rows["runtime"]]:
        assert row["licence"]
        if "purl" in row:
            assert str(PackageURL.from_string(row["purl"])) == row["purl"]
