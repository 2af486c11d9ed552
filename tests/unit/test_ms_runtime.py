"""Microsoft's runtime in Visual Studio's folder for redistribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessions.probe import ms_runtime
from tests.problems import raises

HASH = "0f885b509a685d2bbfa652fed26b5fb3"


def put(root: Path, *relative: str) -> dict[str, str]:
    for name in relative:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"MZ")
    return {"VCTOOLSREDISTDIR": f"{root}/"}


def test_files_are_the_cpp_and_the_openmp_runtime() -> None:
    assert ms_runtime.files() == ("msvcp140.dll", "vcomp140.dll")


@pytest.mark.parametrize("toolset", ["VC142", "VC143", "VC145"])
def test_find_returns_each_dll_from_its_folder(tmp_path: Path, toolset: str) -> None:
    crt, openmp = f"x64/Microsoft.{toolset}.CRT", f"x64/Microsoft.{toolset}.OpenMP"
    variables = put(
        tmp_path,
        f"{crt}/msvcp140.dll",
        f"{crt}/msvcp140_1.dll",
        f"{crt}/vcruntime140.dll",
        f"{openmp}/vcomp140.dll",
    )
    assert ms_runtime.find(variables) == {
        "msvcp140.dll": tmp_path / crt / "msvcp140.dll",
        "vcomp140.dll": tmp_path / openmp / "vcomp140.dll",
    }


@pytest.mark.parametrize(
    "elsewhere",
    [
        "x86/Microsoft.VC143.OpenMP/vcomp140.dll",
        "onecore/x64/Microsoft.VC143.OpenMP/vcomp140.dll",
        "debug_nonredist/x64/Microsoft.VC143.OpenMP/vcomp140.dll",
        "x64/Microsoft.VC143.CXXAMP/vcomp140.dll",
        "x64/vcomp140.dll",
    ],
)
def test_find_searches_no_other_folder(tmp_path: Path, elsewhere: str) -> None:
    variables = put(tmp_path, "x64/Microsoft.VC143.CRT/msvcp140.dll", elsewhere)
    with raises("msvc-runtime-missing") as caught:
        ms_runtime.find(variables)
    assert caught.value.evidence.startswith("vcomp140.dll: not in x64 of VCToolsRedistDir (")
    assert "VC.Redist" in caught.value.remedy


@pytest.mark.parametrize("variables", [{}, {"VCTOOLSREDISTDIR": ""}])
def test_find_does_not_search_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    put(tmp_path, "x64/Microsoft.VC143.CRT/msvcp140.dll", "x64/Microsoft.VC143.OpenMP/vcomp140.dll")
    monkeypatch.chdir(tmp_path)
    with raises("msvc-runtime-missing"):
        ms_runtime.find(variables)


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (f"llama_cpp_python.libs/msvcp140-{HASH}.dll", "msvcp140.dll"),
        (f"llama_cpp_python.libs/msvcp140_1-{HASH}.dll", "msvcp140_1.dll"),
        ("llama_cpp_python.libs/msvcp140.dll", "msvcp140.dll"),
        ("llama_cpp/lib/ggml-base.dll", "ggml-base.dll"),
        (
            "llama_cpp_python.libs/.load-order-llama_cpp_python-0.3.36",
            ".load-order-llama_cpp_python-0.3.36",
        ),
    ],
)
def test_original_is_the_name_before_delvewheel(member: str, name: str) -> None:
    assert ms_runtime.original(member) == name
