"""The identity of a compiler or an installed toolkit: which changes it contains."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessions.build import build_inputs
from sessions.fetch import toolkit_identity
from sessions.probe import identity
from sessions.shared import machine
from tests import fakes

DEBIAN = fakes.ROOT / "tests" / "data" / "machines" / "debian12-cuda13.0" / "machine.json"
LIB = "/usr/lib/gcc/x86_64-linux-gnu/12"


def test_the_identity_of_a_compiler_contains_the_distributions_revision() -> None:
    found = identity.compiler(machine.replay(DEBIAN), fakes.compiler())
    assert found.identity["release"] == "g++ (Debian 12.2.0-14+deb12u1) 12.2.0"
    assert found.identity["as"].startswith("GNU assembler (GNU Binutils for Debian) 2.40 ")
    assert found.linked["linker"].startswith("GNU ld (GNU Binutils for Debian) 2.40 ")
    assert found.linked["C library"] == "ldd (Debian GLIBC 2.36-9+deb12u14) 2.36"
    digests = [found.identity["cc1plus"], found.linked["libgomp.so.1"], found.linked["libc.so.6"]]
    assert all(len(digest) == 16 for digest in digests)
    assert "none" not in {**found.identity, **found.linked}.values()


@pytest.mark.parametrize(
    ("question", "answer", "part"),
    [
        (("sha256", "libgomp.so.1"), "f" * 64, "linked libgomp.so.1"),
        (("sha256", "libgomp.so.1"), None, "linked libgomp.so.1"),
        (("sha256", "libgcc.a"), "f" * 64, "linked libgcc.a"),
        (("sha256", "cc1plus"), "f" * 64, "compiler's cc1plus"),
        (("sha256", "cc1"), "f" * 64, "compiler's cc1"),
        (("sha256", "g++"), "f" * 64, "compiler's g++"),
        (("sha256", "as"), "f" * 64, "compiler's as"),
        (("sha256", "ld"), "f" * 64, "linked linker"),
        (("run", "/usr/bin/g++", "--version"), "g++ (Debian 12.2.0-15) 12.2.0", "compiler"),
        (("run", "/usr/bin/as", "--version"), "GNU assembler 2.44", "compiler's as"),
        (("run", "/usr/bin/ld", "--version"), "GNU ld 2.44", "linked linker"),
        (("run", "/usr/bin/ldd", "--version"), "ldd (Debian 2.36-9+deb12u15)", "linked C library"),
    ],
)
def test_each_file_and_version_that_decides_a_wheel_changes_the_inputs(
    question: tuple[str, ...], answer: str | None, part: str
) -> None:
    recorded = machine.replay(DEBIAN)

    def ask(*asked: str) -> Any:
        if (asked[0], *(word.rpartition("/")[2] for word in asked[1:])) == question:
            return answer
        if asked == question:
            return {"returncode": 0, "output": f"{answer}\n…"}
        return recorded(*asked)

    then, now = (
        build_inputs.machine(fakes.spec(), identity.compiler(each, fakes.compiler()), "3.11.2", "t")
        for each in (recorded, ask)
    )
    assert [line.split(": ")[0] for line in build_inputs.differences(then, now)] == [part]


def test_a_compiler_that_prints_nothing_has_an_identity() -> None:
    def ask(question: str, *words: str) -> Any:
        nothing = {"run": {"returncode": 1, "output": "noise"}, "glob": [], "real": words[0]}
        return nothing.get(question)

    for compiler in (fakes.compiler(), fakes.clang()):
        found = identity.compiler(ask, compiler)
        assert found.identity["release"] == "does not say"
        assert found.linked["libgcc.a"] == "none"


def test_the_identity_of_clang_contains_its_libraries() -> None:
    def ask(question: str, *words: str) -> Any:
        match question, words:
            case "real", ("/usr/bin/clang++",):
                return "/usr/lib/llvm-19/bin/clang"
            case "glob", (pattern,):
                name = "libclang-cpp.so.19.1"
                return [f"/usr/lib/llvm-19/lib/{name}"] if "libclang-cpp" in pattern else []
            case "sha256", (path,):
                return hashlib.sha256(path.encode()).hexdigest()
        return {"returncode": 0, "output": "clang version 19.1.7"}

    found = identity.compiler(ask, fakes.clang())
    path = "/usr/lib/llvm-19/lib/libclang-cpp.so.19.1"
    assert found.identity["libclang-cpp.so.19.1"] == hashlib.sha256(path.encode()).hexdigest()[:16]


def test_the_identity_of_visual_studio_contains_the_dlls_that_are_shipped() -> None:
    compiler = fakes.msvc()
    root = compiler.variables["VCTOOLSREDISTDIR"] + "x64\\"
    files = {
        f"{root}Microsoft.VC143.CRT\\msvcp140.dll": "a" * 64,
        f"{root}Microsoft.VC143.CXXAMP\\msvcp140.dll": "b" * 64,
        f"{root}Microsoft.VC143.OpenMP\\VCOMP140.DLL": "c" * 64,
    }

    def ask(question: str, *words: str) -> Any:
        if question == "glob":
            assert words == (f"{root}Microsoft.VC*\\*.dll",)
            return sorted(files)
        assert question == "sha256"
        return files[words[0]]

    assert identity.compiler(ask, compiler).linked == {
        "msvcp140.dll": "a" * 16,
        "vcomp140.dll": "c" * 16,
    }


FILES = (
    "bin/nvcc",
    "nvvm/bin/cicc",
    "lib64/libcublas.so.13",
    "lib64/libcudart_static.a",
    "include/cublas_v2.h",
    "include/cccl/cub/cub.cuh",
    "version.json",
)
OTHERS = ("doc/README", "lib64/libcufft.so.12", "bin/cuda-gdb", "nsight/x")


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    for name in (*FILES, *OTHERS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1e9, 1e9))
    return tmp_path


def listed(root: Path) -> str:
    ask = machine.real({}, root, root)
    return identity.toolkit(ask, fakes.installed(root=str(root))).files


def grown(path: Path) -> None:
    path.write_text("other bytes")
    os.utime(path, (1e9, 1e9))


def newer(path: Path) -> None:
    os.utime(path, (1e9, 1e9 + 2))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [grown, newer, Path.unlink])
def test_a_change_of_a_file_that_a_build_reads_changes_the_toolkits_identity(
    name: str, change: Callable[[Path], None], kit: Path
) -> None:
    before = listed(kit)
    assert before == listed(kit)
    change(kit / name)
    assert listed(kit) != before


@pytest.mark.parametrize("name", OTHERS)
def test_a_change_of_another_file_does_not_change_the_toolkits_identity(
    name: str, kit: Path
) -> None:
    before = listed(kit)
    grown(kit / name)
    assert listed(kit) == before


def test_toolkit_identity_differs_for_each_installed_toolkit() -> None:
    spec = fakes.spec(toolkit="system")
    kits = [fakes.installed(), fakes.installed(files="b"), fakes.installed(root="/opt/cuda")]
    digests = {toolkit_identity.toolkit_identity(spec, found) for found in kits}
    assert len(digests) == 3
    assert toolkit_identity.toolkit_identity(fakes.spec(), kits[0]) not in digests
    assert toolkit_identity.toolkit_identity(fakes.cpu_spec(), None) == ""


def test_the_digest_of_a_missing_file_is_none(tmp_path: Path) -> None:
    ask = machine.real({}, tmp_path, tmp_path)
    (tmp_path / "f").write_bytes(b"abc")
    assert ask("sha256", str(tmp_path / "f")) == hashlib.sha256(b"abc").hexdigest()
    assert ask("sha256", str(tmp_path / "none")) is None
    assert ask("sha256", str(tmp_path)) is None


def test_the_recording_contains_only_digests_that_are_asked_for() -> None:
    asked: dict[str, Any] = {}
    identity.compiler(machine.recording(machine.replay(DEBIAN), asked), fakes.compiler())
    tape = json.loads(DEBIAN.read_text(encoding="utf-8"))
    digests = {key for key in tape if json.loads(key)[0] == "sha256"}
    assert digests <= set(asked)
