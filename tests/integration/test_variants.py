"""uv chooses a variant wheel by the GPU (experimental). The GPU is simulated with variables."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from variantlib.variant_dist_info import VariantDistInfo
from variantlib.variants_json import VariantsJson

from sessions.release.index import builder
from tests import tiny
from tests.integration import servers

PROJECT = "llama-cpp-python"
ALL = "simple/llama-cpp-python"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants") / "dist"
    tiny.all_cards(folder)
    builder.write(folder)
    return folder


@pytest.fixture(scope="module")
def url(dist: Path) -> Iterator[str]:
    with servers.static(dist) as host:
        yield f"{host.url}simple/"


Install = Callable[..., str]


@pytest.fixture
def install(environment: dict[str, str], tmp_path: Path, url: str) -> Install:
    """Install with uv as on a machine with this GPU. Returns the mark and version, or the error."""
    created = servers.venv(tmp_path / "v", environment)

    def installed(
        what: str, gpu: str | None, driver: str = "13.1", *, variants: bool = True, where: str = url
    ) -> str:
        env = dict(environment)
        if gpu:
            env["NV_VARIANT_PROVIDER_FORCE_SM_ARCH"] = gpu
            env["NV_VARIANT_PROVIDER_FORCE_CUDA_DRIVER_VERSION"] = driver
        words = ["--preview-features", "wheel-variants"] if variants else []
        words += ["--no-deps", "--reinstall", "--index-url", where, what]
        done = dataclasses.replace(created, env=env).uv("install", *words)
        if done.returncode:
            return done.stderr
        return created.output("import llama_cpp; print(llama_cpp.MARK, llama_cpp.__version__)")

    return installed


@pytest.mark.parametrize(
    ("gpu", "wheel"),
    [
        ("12.0", "rtx50 0.3.16"),
        ("12.1", "rtx50 0.3.16"),  # it runs sm_120 too
        ("9.0", "hopper 0.3.16"),
        # There is no machine code for these.
        ("10.0", "cpu 0.3.16"),
        ("8.9", "cpu 0.3.16"),
        (None, "cpu 0.3.16"),
    ],
)
def test_uv_installs_the_wheel_for_the_gpu(install: Install, gpu: str | None, wheel: str) -> None:
    assert install(f"{PROJECT}==0.3.16", gpu) == wheel


def test_uv_installs_the_newest_version_with_a_wheel_for_the_gpu(install: Install) -> None:
    assert install(PROJECT, "12.0") == "rtx50-fp4 0.3.36"
    assert install(PROJECT, "9.0") == "hopper 0.3.16"
    assert install(PROJECT, None) == "cpu 0.3.16"


@pytest.mark.parametrize(("driver", "wheel"), [("13.0", "rtx50"), ("12.9", "cpu")])
def test_the_driver_must_support_the_cuda_version(
    install: Install, driver: str, wheel: str
) -> None:
    assert install(f"{PROJECT}==0.3.16", "12.0", driver) == f"{wheel} 0.3.16"


def test_uv_without_the_option_installs_the_plain_wheel(install: Install) -> None:
    assert install(PROJECT, "12.0", variants=False) == "cpu 0.3.16"


def test_uv_reports_a_missing_wheel_for_the_gpu(install: Install, tmp_path: Path) -> None:
    tiny.release(tmp_path / "dist", "hopper", "13.1", ("90-real",))
    builder.write(tmp_path / "dist")
    with servers.static(tmp_path / "dist") as host:
        assert install(PROJECT, "9.0", where=f"{host.url}simple/") == "hopper 0.3.16"
        error = install(PROJECT, "12.0", where=f"{host.url}simple/")
    assert "has only unsupported wheel variants" in error


def test_ptx_needs_a_driver_that_can_compile_it(install: Install, tmp_path: Path) -> None:
    tiny.release(tmp_path / "dist", "seed", "13.1", ("100",))
    builder.write(tmp_path / "dist")
    with servers.static(tmp_path / "dist") as host:
        where = f"{host.url}simple/"
        assert install(PROJECT, "10.0", "13.1", where=where) == "seed 0.3.16"
        assert "unsupported" in install(PROJECT, "10.0", "13.0", where=where)
        assert "unsupported" in install(PROJECT, "12.0", "13.1", where=where)


def test_the_reference_library_reads_our_files(dist: Path) -> None:
    known = VariantsJson(
        json.loads((dist / ALL / "llama_cpp_python-0.3.16-variants.json").read_text())
    )
    assert sorted(known.variants) == ["cu131_sm120", "cu131_sm90"]
    for path in sorted((dist / ALL).glob("*0.3.16*.whl")):
        with zipfile.ZipFile(path) as archive:
            text = archive.read("llama_cpp_python-0.3.16.dist-info/variant.json")
        label = path.stem.rpartition("-")[2]
        one = VariantDistInfo(text, expected_label=label)
        assert one.variant_desc == known.variants[label]
        assert one.namespace_priorities == known.namespace_priorities
        assert one.providers == known.providers
    properties = {p.to_str() for p in known.variants["cu131_sm90"].properties}
    assert properties == {
        "nvidia :: cuda_version_lower_bound :: 13.0",
        "nvidia :: sm_arch :: 90_real",
    }
