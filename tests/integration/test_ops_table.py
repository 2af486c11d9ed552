"""The table of operators (``ops.toml``) says what upstream's own functions say, without a GPU.

A device that computes nothing is given upstream's ``supports_op`` of ggml-cuda, and the release's
test asks it about every case. The wheels of ``wheels/cpu*`` are used, that of the default release
must be there.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.run import ops_build, ops_results, smoke_input
from sessions.shared import knowledge
from tests.integration.conftest import REPOSITORY
from tests.integration.test_families import WHEELS
from tests.integration.test_ops import compile_all, link

CUDA = f"{ops_build.GGML}/src/ggml-cuda"
# What supports_op calls, in the order of C++: declared before it is used. Those that a release does
# not have are left out.
FUNCTIONS = (
    "static bool ggml_cuda_fattn_kv_type_supported(",
    "static best_fattn_kernel ggml_cuda_get_best_fattn_kernel(",
    "bool ggml_cuda_flash_attn_ext_supported(",
    "bool ggml_cuda_lightning_indexer_supported(",
    "bool ggml_cuda_op_mul_mat_use_fwht(",
    "static bool ggml_backend_cuda_device_supports_op(",
)


@dataclass(frozen=True)
class Asked:
    """A release, the venv's Python, and what the test's process is told."""

    version: str
    python: Path
    job: dict[str, Any]


def supports_op(source: Path) -> str:
    """Upstream's functions, as they are in the files of ggml-cuda."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((source / CUDA).glob("*.cu"))]
    found = []
    for text in texts:
        start = text.find("enum best_fattn_kernel {")
        if start >= 0 and FUNCTIONS[1] in text:
            found.append(text[start : text.index("};", start) + 2])
    for head in FUNCTIONS:  # a declaration, which ends with a semicolon, is not meant
        pattern = re.compile(rf"^{re.escape(head)}[^;{{]*\{{.*?^\}}\n", re.MULTILINE | re.DOTALL)
        found += [match[0] for text in texts if (match := pattern.search(text))]
    return "\n".join(found)


@pytest.fixture(scope="module", params=WHEELS or ["cpu"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    record = REPOSITORY / "wheels" / request.param / "wheel.json"
    if not record.is_file():
        pytest.fail("Build the cpu wheel first: nox -s wheel -- --target cpu")
    built = json.loads(record.read_text(encoding="utf-8"))["wheel"]
    version, folder = built["version"], tmp_path_factory.mktemp("table")
    cache = Path(os.environ.get("BLACKWHEEL_CACHE", Path.home() / ".cache" / "blackwheel"))
    with tarfile.open(cache / "downloads" / knowledge.sdists()[version].file) as tar:
        for member in tar.getmembers():
            member.name = member.name.partition("/")[2]
            wanted = member.name.startswith((f"{ops_build.GGML}/", ops_build.TEST))
            if wanted and member.isfile():
                tar.extract(member, folder / "source", filter="data")
    source = folder / "source"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, str(record.with_name(built["file"]))], check=True)
    (libraries,) = (folder / "venv").glob("lib/python*/site-packages/llama_cpp/lib")
    test = libraries / "blackwheel-ops.so"
    objects = compile_all([source / ops_build.TEST], source, folder / "test", header=True)
    link(objects, test, libraries, "ggml", "ggml-base")
    part = folder / "supports_op.h"
    part.write_text(supports_op(source), encoding="utf-8")
    include = [f"-I{source / ops_build.GGML / name}" for name in ("include", "src")]
    device = libraries / "blackwheel-device.so"
    subprocess.run(
        [
            *("g++", "-shared", "-fPIC", "-w", "-std=c++17", f'-DSUPPORTS_OP="{part}"', *include),
            *("-o", str(device), str(Path(__file__).with_name("ops_device.cpp"))),
            *(f"-L{libraries}", "-lggml-base", f"-Wl,-rpath-link,{libraries}"),
        ],
        check=True,
    )
    told = {"folder": str(folder), "library": str(test), "reference": str(device), "visible": "-1"}
    return Asked(version, python, told)


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The payload's module, imported as it is there: beside the others."""
    monkeypatch.syspath_prepend(str(smoke_input.PAYLOAD))
    yield importlib.import_module("ops")
    for name in ("ops", "ops_checks", "report_file", "spawn", "child"):
        sys.modules.pop(name, None)


def counts(
    ops: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch, told: str | None, sample: Any
) -> Any:
    """How many cases of each operator are not supported, by the device or by the reference."""
    monkeypatch.setattr(ops.sys, "executable", str(asked.python))
    monkeypatch.delenv("DEVICE_SUPPORTS", raising=False)
    if told:
        monkeypatch.setenv("DEVICE_SUPPORTS", told)
    output, _, error = ops.call(asked.job, f"said-{told}", ["test", "-b", "CUDA0"])
    assert error is None
    rows = [case for case, kind, _ in ops.rows_of(output) if kind == "unsupported"]
    names = [case.partition("(")[0] for case in rows]
    pairs = zip(names, rows, strict=True)
    return Counter(n for n, case in pairs if ops.ops_checks.is_tested(n, case, sample))


@pytest.mark.slow
@pytest.mark.parametrize(("told", "cuda"), [("none", True), (None, True), ("all", False)])
def test_the_table_is_what_upstreams_functions_say(
    ops: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch, told: str | None, cuda: bool
) -> None:
    """Of a device that supports nothing, every case is named; of one for all, the CPU's are."""
    table = ops_results.expected(asked.version, cuda=cuda)
    wanted = table["cases"] if told == "none" else table["unsupported"]
    found = counts(ops, asked, monkeypatch, told, table["sample"])
    assert found == {name: count for name, count in wanted.items() if count}


def test_the_functions_are_found_in_the_source(tmp_path: Path) -> None:
    folder = tmp_path / CUDA
    folder.mkdir(parents=True)
    head = f"{FUNCTIONS[-1]}int x)"
    (folder / "a.cu").write_text(f"{head};\nint y;\n\n{head} {{\n    return x;\n}}\nint z;\n")
    assert supports_op(tmp_path) == f"{head} {{\n    return x;\n}}\n"
