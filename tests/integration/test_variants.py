"""uv chooses a wheel by the GPU (experimental), which is forced here: there need be no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
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
    """Install with uv as on a machine with this GPU and driver; the mark, or why there is none."""
    python = tmp_path / "v" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)

    def installed(
        what: str, card: str | None, driver: str = "13.1", *, asks: bool = True, where: str = url
    ) -> str:
        env = dict(environment)
        if card:
            env["NV_VARIANT_PROVIDER_FORCE_SM_ARCH"] = card
            env["NV_VARIANT_PROVIDER_FORCE_CUDA_DRIVER_VERSION"] = driver
        words = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--no-deps"]
        words += ["--no-cache", "--reinstall", "--python", str(python), "--index-url", where]
        words += ["--preview-features", "wheel-variants"] if asks else []
        done = subprocess.run([*words, what], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr
        code = "import llama_cpp; print(llama_cpp.MARK, llama_cpp.__version__)"
        ran = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    return installed


@pytest.mark.parametrize(
    ("card", "wheel"),
    [
        ("12.0", "rtx50 0.3.16"),
        ("12.1", "rtx50 0.3.16"),  # sm_120 runs there too
        ("9.0", "hopper 0.3.16"),
        # Neither may get machine code that it cannot run.
        ("10.0", "cpu 0.3.16"),
        ("8.9", "cpu 0.3.16"),
        (None, "cpu 0.3.16"),
    ],
)
def test_uv_takes_the_wheel_of_the_gpu(install: Install, card: str | None, wheel: str) -> None:
    assert install(f"{PROJECT}==0.3.16", card) == wheel


def test_the_newest_version_that_has_a_wheel_for_the_gpu(install: Install) -> None:
    assert install(PROJECT, "12.0") == "rtx50-fp4 0.3.36"
    assert install(PROJECT, "9.0") == "hopper 0.3.16"
    assert install(PROJECT, None) == "cpu 0.3.16"


@pytest.mark.parametrize(("driver", "wheel"), [("13.0", "rtx50"), ("12.9", "cpu")])
def test_the_driver_must_be_of_the_cuda_version(install: Install, driver: str, wheel: str) -> None:
    assert install(f"{PROJECT}==0.3.16", "12.0", driver) == f"{wheel} 0.3.16"


def test_uv_that_was_not_asked_to_takes_the_plain_wheel(install: Install) -> None:
    assert install(PROJECT, "12.0", asks=False) == "cpu 0.3.16"


def test_where_there_is_no_wheel_for_the_gpu_and_no_plain_one_uv_says_so(
    install: Install, tmp_path: Path
) -> None:
    tiny.release(tmp_path / "dist", "hopper", "13.1", ("90-real",))
    builder.write(tmp_path / "dist")
    with servers.static(tmp_path / "dist") as host:
        assert install(PROJECT, "9.0", where=f"{host.url}simple/") == "hopper 0.3.16"
        why = install(PROJECT, "12.0", where=f"{host.url}simple/")
    assert "has only unsupported wheel variants" in why


def test_ptx_is_for_the_same_gpu_with_a_driver_that_can_compile_it(
    install: Install, tmp_path: Path
) -> None:
    tiny.release(tmp_path / "dist", "seed", "13.1", ("100",))
    builder.write(tmp_path / "dist")
    with servers.static(tmp_path / "dist") as host:
        where = f"{host.url}simple/"
        assert install(PROJECT, "10.0", "13.1", where=where) == "seed 0.3.16"
        assert "unsupported" in install(PROJECT, "10.0", "13.0", where=where)
        # The founding note's wheel for "RTX 50" is none.
        assert "unsupported" in install(PROJECT, "12.0", "13.1", where=where)


def test_the_reference_library_reads_what_we_write(dist: Path) -> None:
    told = VariantsJson(
        json.loads((dist / ALL / "llama_cpp_python-0.3.16-variants.json").read_text())
    )
    assert sorted(told.variants) == ["cu131_sm120", "cu131_sm90"]
    for path in sorted((dist / ALL).glob("*0.3.16*.whl")):
        with zipfile.ZipFile(path) as archive:
            text = archive.read("llama_cpp_python-0.3.16.dist-info/variant.json")
        label = path.stem.rpartition("-")[2]
        one = VariantDistInfo(text, expected_label=label)
        assert one.variant_desc == told.variants[label]
        assert one.namespace_priorities == told.namespace_priorities
        assert one.providers == told.providers
    properties = {p.to_str() for p in told.variants["cu131_sm90"].properties}
    assert properties == {
        "nvidia :: cuda_version_lower_bound :: 13.0",
        "nvidia :: sm_arch :: 90_real",
    }
