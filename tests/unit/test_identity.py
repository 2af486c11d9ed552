"""What decides the code of an installed compiler or toolkit: each of it is seen to change."""

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
from sessions.shared.machine import Machine
from tests import fakes

DEBIAN = fakes.ROOT / "tests" / "data" / "machines" / "debian12-cuda13.0" / "machine.json"
LIB = "/usr/lib/gcc/x86_64-linux-gnu/12"


def debian(**answers: Any) -> Machine:
    """The recorded machine; an answer is named by the last word of its question."""
    recorded = machine.replay(DEBIAN)

    def ask(question: str, *words: str) -> Any:
        last = "/".join([question, words[-1].rsplit("/", 1)[-1]])
        return answers[last] if last in answers else recorded(question, *words)

    return ask


def test_compiler_is_known_to_its_distributions_revision() -> None:
    found = identity.compiler(debian(), fakes.compiler())
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
        ("sha256/libgomp.so.1", "f" * 64, "linked libgomp.so.1"),
        ("sha256/libgomp.so.1", None, "linked libgomp.so.1"),
        ("sha256/libgcc.a", "f" * 64, "linked libgcc.a"),
        ("sha256/cc1plus", "f" * 64, "compiler's cc1plus"),
        ("sha256/cc1", "f" * 64, "compiler's cc1"),
        ("sha256/g++", "f" * 64, "compiler's g++"),
        ("sha256/as", "f" * 64, "compiler's as"),
        ("sha256/ld", "f" * 64, "linked linker"),
    ],
)
def test_each_file_that_decides_a_wheel_changes_the_inputs(
    question: str, answer: str | None, part: str
) -> None:
    assert changed(debian(**{question: answer})) == [part]


@pytest.mark.parametrize(
    ("program", "text", "part"),
    [
        ("/usr/bin/g++", "g++ (Debian 12.2.0-15) 12.2.0\n…", "compiler"),
        ("/usr/bin/as", "GNU assembler 2.44\n…", "compiler's as"),
        ("/usr/bin/ld", "GNU ld 2.44\n…", "linked linker"),
        ("/usr/bin/ldd", "ldd (Debian GLIBC 2.36-9+deb12u15) 2.36\n…", "linked C library"),
    ],
)
def test_each_version_that_decides_a_wheel_changes_the_inputs(
    program: str, text: str, part: str
) -> None:
    recorded = debian()

    def ask(question: str, *words: str) -> Any:
        if (question, *words) == ("run", program, "--version"):
            return {"returncode": 0, "output": text}
        return recorded(question, *words)

    assert changed(ask) == [part]


def changed(ask: Machine) -> list[str]:
    """Names of the inputs that differ from those of the recorded machine."""
    then, now = (
        build_inputs.machine(fakes.spec(), identity.compiler(each, fakes.compiler()), "3.11.2", "t")
        for each in (debian(), ask)
    )
    return [line.split(": ")[0] for line in build_inputs.differences(then, now)]


def test_a_compiler_that_answers_nothing_has_an_identity_all_the_same() -> None:
    def ask(question: str, *words: str) -> Any:
        nothing = {"run": {"returncode": 1, "output": "noise"}, "glob": [], "real": words[0]}
        return nothing.get(question)

    for compiler in (fakes.compiler(), fakes.clang()):
        found = identity.compiler(ask, compiler)
        assert found.identity["release"] == "does not say"
        assert found.linked["libgcc.a"] == "none"


def test_clang_is_what_its_libraries_are() -> None:
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


def test_of_visual_studio_the_libraries_that_ship_are_known() -> None:
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
def test_each_file_of_an_installed_toolkit_that_a_build_reads_counts(
    name: str, change: Callable[[Path], None], kit: Path
) -> None:
    before = listed(kit)
    assert before == listed(kit)
    change(kit / name)
    assert listed(kit) != before


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_build_reads_of_an_installed_toolkit_does_not_count(name: str, kit: Path) -> None:
    before = listed(kit)
    grown(kit / name)
    assert listed(kit) == before


def test_a_changed_installed_toolkit_is_another_one() -> None:
    spec = fakes.spec(toolkit="system")
    kits = [fakes.installed(), fakes.installed(files="b"), fakes.installed(root="/opt/cuda")]
    digests = {toolkit_identity.toolkit_identity(spec, found) for found in kits}
    assert len(digests) == 3
    assert toolkit_identity.toolkit_identity(fakes.spec(), kits[0]) not in digests
    assert toolkit_identity.toolkit_identity(fakes.cpu_spec(), None) == ""


def test_the_question_for_a_digest_answers_none_where_there_is_no_file(tmp_path: Path) -> None:
    ask = machine.real({}, tmp_path, tmp_path)
    (tmp_path / "f").write_bytes(b"abc")
    assert ask("sha256", str(tmp_path / "f")) == hashlib.sha256(b"abc").hexdigest()
    assert ask("sha256", str(tmp_path / "none")) is None
    assert ask("sha256", str(tmp_path)) is None


def test_the_recording_has_only_answers_to_questions_that_are_asked() -> None:
    asked: dict[str, Any] = {}
    identity.compiler(machine.recording(machine.replay(DEBIAN), asked), fakes.compiler())
    tape = json.loads(DEBIAN.read_text(encoding="utf-8"))
    digests = {key for key in tape if json.loads(key)[0] == "sha256"}
    assert digests <= set(asked)
