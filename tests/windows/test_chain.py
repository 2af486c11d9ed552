"""The product's own sessions in the Windows Python, as far as a machine without MSVC can go.

Real: noxfile, bootstrap, pip, venv, cmd.exe with a vcvars64.bat, NVIDIA's Windows nvcc. Stand-ins:
vswhere, vcvars64.bat and cl.exe (``visualstudio.py``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions.core import facts
from sessions.core.model import BuildEnv, Toolchain, Toolkit
from sessions.wheelfile import devicecode
from tests.windows import visualstudio
from tests.windows.checkout import nox, record
from tests.windows.lab import Lab

# Without CUDA's headers, which the stand-in for cl.exe does not include.
KERNEL = "__declspec(__global__) void scale(float *x, float a) { *x *= a; }\n"


@pytest.fixture(scope="module")
def studios(lab: Lab) -> dict[str, visualstudio.Installed]:
    visualstudio.clear(lab)
    return {year: visualstudio.install(lab, year) for year in ("2022", "2026")}


@pytest.mark.parametrize(
    ("cuda", "target", "year", "toolset"),
    [
        ("13.1", "rtx50", "2022", "14.44.35207"),
        ("13.3", "rtx50+cuda13.3", "2026", "14.50.35717"),
    ],
)
def test_the_probe_takes_the_visual_studio_that_the_cuda_in_use_accepts(
    lab: Lab,
    project: Path,
    studios: dict[str, visualstudio.Installed],
    cuda: str,
    target: str,
    year: str,
    toolset: str,
) -> None:
    ran = nox(lab, project, "-s", "probe", "--", "--cuda", cuda).well()
    chain = record(project, target, "probe", Toolchain)
    assert {c.toolset for c in chain.compilers} == {"14.38.33130", "14.44.35207", "14.50.35717"}
    assert (chain.compiler.toolset, chain.compiler.vcvars) == (toolset, studios[year].vcvars)
    assert chain.compiler.variables["VCTOOLSVERSION"] == toolset
    assert set(chain.compiler.variables) <= set(facts.load("windows.toml")["vcvars"]["keep"])
    assert "Visual Studio" in ran.output
    assert not [check for check in chain.checks if check.status == "fail"]


def test_a_developer_prompt_of_another_architecture_changes_nothing(
    lab: Lab, project: Path, studios: dict[str, visualstudio.Installed]
) -> None:
    nox(lab, project, "-s", "probe").well()
    before = record(project, "rtx50", "probe", Toolchain).compiler
    active = {
        "VSCMD_ARG_TGT_ARCH": "x86",
        "VSCMD_VER": "17.14.13",
        "VCTOOLSVERSION": "14.38.33130",
        "VSINSTALLDIR": r"C:\elsewhere" + "\\",
        "INCLUDE": r"C:\elsewhere\include",
        "LIB": r"C:\elsewhere\lib",
        "PATH": r"C:\Python311;C:\windows\system32;"
        + ";".join(f"C:\\long\\{n}" for n in range(900)),
    }
    nox(lab, project, "-s", "probe", env=active).well()
    assert record(project, "rtx50", "probe", Toolchain).compiler == before


def test_without_visual_studio_the_probe_says_how_to_get_it(
    lab: Lab, project: Path, studios: dict[str, visualstudio.Installed]
) -> None:
    visualstudio.clear(lab)
    try:
        ran = nox(lab, project, "-s", "probe")
    finally:
        for year in ("2022", "2026"):
            visualstudio.install(lab, year)
    assert ran.returncode != 0
    assert "winget install" in ran.output
    assert "Traceback" not in ran.output


def test_nvidias_windows_compiler_makes_code_for_the_card_as_the_product_tells_it(
    lab: Lab,
    project: Path,
    studios: dict[str, visualstudio.Installed],
    folder: Path,
    tmp_path: Path,
) -> None:
    nox(lab, project, "-s", "configure").well()
    build = record(project, "rtx50", "configure", BuildEnv)
    toolkit = record(project, "rtx50", "toolkit", Toolkit)
    defines = {name.removeprefix("cmake.define."): value for name, value in build.settings.items()}
    assert toolkit.components["nvidia-cuda-nvcc"].startswith("13.1.")
    # NVIDIA's package brings cuBLAS without it; the stand-in for lib.exe copies what it is given.
    library = lab.drive / toolkit.root[3:].replace("\\", "/") / "lib" / "x64" / "cublas.lib"
    assert "  cublasGemmEx\n" in library.read_text(encoding="ascii")
    (folder / "kernel.cu").write_text(KERNEL, encoding="utf-8")
    number = defines["CMAKE_CUDA_ARCHITECTURES"].removesuffix("-real")
    # What CMake makes of these settings: Platform/Windows-NVIDIA-CUDA.cmake.
    words = [
        defines["CMAKE_CUDA_COMPILER"],
        f"-ccbin={defines['CMAKE_CUDA_HOST_COMPILER']}",
        *defines["CMAKE_CUDA_FLAGS_INIT"].split(),
        f"--generate-code=arch=compute_{number},code=[sm_{number}]",
        "-c", "kernel.cu", "-o", "kernel.obj", "--keep",
    ]  # fmt: skip
    told = json.dumps({"words": words, "env": build.variables})
    (folder / "kernel.json").write_text(told, encoding="utf-8")
    start = (
        "import json, pathlib, subprocess, sys; t = json.loads(pathlib.Path('kernel.json')"
        ".read_text('utf-8')); d = subprocess.run(t['words'], env=t['env'], capture_output=True); "
        "sys.stdout.buffer.write(d.stdout + d.stderr); sys.exit(d.returncode)"
    )
    lab.run(lab.python, "-c", start, cwd=folder).well()
    code = devicecode.read((folder / "kernel.fatbin").read_bytes(), tmp_path)
    assert code is not None
    assert (set(code.sass), code.ptx) == ({f"sm_{number}"}, {})
    called = studios["2022"].cl("14.44.35207").with_name("cl.log").read_text("utf-8", "replace")
    assert "/Zc:preprocessor" in called
    assert "/Brepro" in called
