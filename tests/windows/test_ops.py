"""The operator test in a Windows Python: the wheel's CPU code compared with ggml in plain C.

mingw-w64 builds the test and the reference.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessions.probe.record_types import Compiler, Toolchain
from sessions.run import check_ops_report, ops_build
from sessions.shared import records
from sessions.shared.context import Context
from tests.windows import crossbuild
from tests.windows.lab import Lab
from tests.windows.test_wheel import ALONE

OPERATORS = ["ADD", "GELU", "RMS_NORM", "SOFT_MAX", "MUL_MAT"]
# MinGW's libraries read the environment of msvcrt.dll; Python and MSVC's libraries read that of
# Microsoft's newer runtime.
SITE = """\
import ctypes, os
putenv = os.putenv

def both(name, value):
    putenv(name, value)
    ctypes.cdll.msvcrt._wputenv(ctypes.c_wchar_p(f"{name}={value}"))

os.putenv = both
"""


# The linker for Windows lacks the options of Linux, and a missing function is always an error.
# The headers of MinGW 10 lack functions of Windows 8 and newer that ggml uses.
WRAPPER = """\
#!/bin/bash
words=()
for word; do case $word in
    -Wl,*) ;;
    -lggml*) words+=(-Wl,-Bdynamic "$word" -Wl,-Bstatic) ;;
    *) words+=("$word") ;;
esac; done
exec "@COMPILER@" -D_WIN32_WINNT=0x601 "${words[@]}" -static
"""


def compiler(root: Path) -> Compiler:
    """MinGW's compiler, with its runtime linked statically."""
    found = crossbuild.compiler_of_mingw()
    paths = {}
    for kind in ("cxx", "cc"):
        paths[kind] = root / "mingw" / f"static-{kind}"
        paths[kind].write_text(WRAPPER.replace("@COMPILER@", getattr(found, kind)))
        paths[kind].chmod(0o755)
    return dataclasses.replace(found, cxx=str(paths["cxx"]), cc=str(paths["cc"]))


@pytest.fixture(scope="module")
def report(
    lab: Lab, built: Context, wheel: Path, smoked: Path, tmp_path_factory: Any
) -> Iterator[dict[str, Any]]:
    """The report of some operators, from a run in the venv of `smoke`."""
    ctx = dataclasses.replace(built, root=tmp_path_factory.mktemp("ops"))
    chain = built.need("probe", Toolchain)
    made = dataclasses.replace(chain, compiler=compiler(built.root))
    records.write(ctx.record("probe"), "probe", made)
    libraries = ops_build.built(ctx, wheel, ctx.root / "work", reference=True)
    assert libraries.reference is not None
    folder = smoked / "venv" / "Lib" / "site-packages"
    placed = [
        folder / "llama_cpp" / "lib" / f"{path.stem}.dll"
        for path in (libraries.test, libraries.reference)
    ]
    site = [folder / "environment_of_msvcrt.py", folder / "environment_of_msvcrt.pth"]
    work = smoked.parent / "ops"
    work.mkdir()
    try:
        for source, target in zip((libraries.test, libraries.reference), placed, strict=True):
            shutil.copyfile(source, target)
        site[0].write_text(SITE)
        site[1].write_text("import environment_of_msvcrt\n")
        job = {
            **check_ops_report.for_job(built.spec, ops_build.release(wheel)),
            "only": OPERATORS,
            "identity": {},
            "folder": lab.windows(work / "run"),
            "library": lab.windows(placed[0]),
            "reference": lab.windows(placed[1]),
            "visible": "-1",
            "memory_mib": None,
            "cores": 2,
        }
        (work / "job.json").write_text(json.dumps(job))
        python = smoked / "venv" / "Scripts" / "python.exe"
        payload = Path(ops_build.__file__).parents[1] / "payload"
        words: list[str | Path] = ["-I", payload, "--ops", work / "job.json", work / "report.json"]
        lab.run(python, *words, env=ALONE, timeout=1200).well()
        yield json.loads((work / "report.json").read_text(encoding="utf-8"))["report"]
    finally:
        shutil.rmtree(work)
        for path in (*site, *placed):
            path.unlink(missing_ok=True)


def test_each_result_agrees_with_plain_c(report: dict[str, Any]) -> None:
    rows = report["operators"]
    assert {name: rows[name]["wrong"] for name in OPERATORS} == dict.fromkeys(OPERATORS, 0)
    assert all(
        rows[name]["right"] == rows[name]["listed"] - rows[name]["unsupported"] > 0
        for name in OPERATORS
    )
    assert report["problems"] == []


def test_the_wheels_libraries_are_compared_with_another_library(report: dict[str, Any]) -> None:
    checks = {check["id"]: check["status"] for check in report["checks"]}
    assert (checks["libraries"], checks["reference"]) == ("ok", "ok")
