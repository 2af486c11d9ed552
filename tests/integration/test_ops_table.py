"""The table ``ops_expected.toml`` agrees with upstream's functions; no GPU is needed.

A device that computes nothing has upstream's ``supports_op`` of ggml-cuda, and the release's test
calls it for every case. The wheels in ``wheels/cpu*`` are used; that of the default release must
exist.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.run import check_ops_report, ops_build, smoke_input
from tests.integration import installed
from tests.integration.test_ops import compile_all, link

CUDA = f"{ops_build.GGML}/src/ggml-cuda"
# supports_op and what it calls, in the order in which C++ needs them. A release may lack some.
FUNCTIONS = (
    "static bool ggml_cuda_fattn_kv_type_supported(",
    "static best_fattn_kernel ggml_cuda_get_best_fattn_kernel(",
    "bool ggml_cuda_flash_attn_ext_supported(",
    "bool ggml_cuda_lightning_indexer_supported(",
    "bool ggml_cuda_op_mul_mat_use_fwht(",
    "static bool ggml_backend_cuda_device_supports_op(",
)


@dataclass(frozen=True)
class Release:
    """A release, the Python of its venv, and the job of the test's process."""

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


@pytest.fixture(scope="module", params=installed.CPU_WHEELS or ["cpu"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    version, wheel = installed.wheel(request.param)
    folder = tmp_path_factory.mktemp("table")
    source = folder / "source"
    installed.unpack(
        version, source, lambda name: name.startswith((f"{ops_build.GGML}/", ops_build.TEST))
    )
    python = installed.venv(folder / "venv", wheel)
    libraries = installed.libraries(python)
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
    job = {"folder": str(folder), "library": str(test), "reference": str(device), "visible": "-1"}
    return Release(version, python, job)


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The payload's module, imported with the modules beside it."""
    monkeypatch.syspath_prepend(str(smoke_input.PAYLOAD))
    yield importlib.import_module("ops")
    for name in ("ops", "ops_checks", "report_file", "spawn"):
        sys.modules.pop(name, None)


def counts(
    ops: Any, release: Release, monkeypatch: pytest.MonkeyPatch, supports: str | None, sample: Any
) -> Any:
    """The number of unsupported cases of each operator, by the device or by the reference."""
    monkeypatch.setattr(ops.sys, "executable", str(release.python))
    monkeypatch.delenv("DEVICE_SUPPORTS", raising=False)
    if supports:
        monkeypatch.setenv("DEVICE_SUPPORTS", supports)
    output, _, error = ops.call(release.job, f"output-{supports}", ["test", "-b", "CUDA0"])
    assert error is None
    rows = [case for case, kind, _ in ops.rows_of(output) if kind == "unsupported"]
    names = [case.partition("(")[0] for case in rows]
    pairs = zip(names, rows, strict=True)
    return Counter(n for n, case in pairs if ops.ops_checks.is_tested(n, case, sample))


@pytest.mark.slow
@pytest.mark.parametrize(("supports", "cuda"), [("none", True), (None, True), ("all", False)])
def test_the_table_agrees_with_upstreams_functions(
    ops: Any, release: Release, monkeypatch: pytest.MonkeyPatch, supports: str | None, cuda: bool
) -> None:
    """A device that supports nothing lists every case; one that supports all, the CPU's cases."""
    table = check_ops_report.expected(release.version, cuda=cuda)
    wanted = table["cases"] if supports == "none" else table["unsupported"]
    found = counts(ops, release, monkeypatch, supports, table["sample"])
    assert found == {name: count for name, count in wanted.items() if count}


def test_the_functions_are_found_in_the_source(tmp_path: Path) -> None:
    folder = tmp_path / CUDA
    folder.mkdir(parents=True)
    head = f"{FUNCTIONS[-1]}int x)"
    (folder / "a.cu").write_text(f"{head};\nint y;\n\n{head} {{\n    return x;\n}}\nint z;\n")
    assert supports_op(tmp_path) == f"{head} {{\n    return x;\n}}\n"
