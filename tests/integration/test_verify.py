"""``verify`` on wheels with compiled libraries: sound wheels pass, and each defect is found."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import stat
import subprocess
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import iced_x86
import lief
import pytest

from sessions.build.record_types import Wheel
from sessions.shared import records
from sessions.shared.check_result import Check
from sessions.verify import fatbin, gpu_code, library, limited_process
from sessions.verify.wheel_facts import Library
from tests.integration import wheels
from tests.integration.conftest import ODD, REPOSITORY, Project, Ran, copy_project, snapshot
from tests.integration.wheels import LIB, Draft, Workshop, checked, target

CHECKS = 19
REAL = REPOSITORY / "wheels" / "rtx50"
CUDA = f"{LIB}/libggml-cuda.so"
LLAMA = f"{LIB}/libllama.so"
HASWELL = f"{LIB}/libggml-cpu-haswell.so"
INIT = "llama_cpp/__init__.py"
LOADER = "llama_cpp/_cuda_runtime.py"
# The ids of the checks that fail if a library cannot be read.
UNREAD = "gpu-code ptx gpu-features libraries imports cpu-baseline paths platform-tag"

OLD_LAYOUT = "-Wl,-z,noseparate-code"

Defect = Callable[[Workshop, Draft], None]


@pytest.fixture(scope="module", autouse=True)
def _read_each_library_once_in_this_process() -> Iterator[None]:
    """Most libraries of a wheel with a defect are those of the sound one, and a process takes time.

    A library whose reader raises is read in a process; so is everything that the command reads.
    """
    real, known = limited_process.call_all, dict[tuple[str, str], Library]()

    def once(
        tasks: Sequence[limited_process.Task[Library]], **how: Any
    ) -> Iterator[tuple[int, Library | limited_process.Ended]]:
        if any(task.kind is not Library for task in tasks):  # the rest of the wheel
            yield from real(tasks, **how)
            return
        for index, task in enumerate(tasks):
            copy, member, folder = map(str, task.args)
            key = (member, records.file_sha256(Path(copy)))
            if key not in known:
                try:
                    known[key] = library.read(copy, member, folder)
                except Exception:
                    ((_, result),) = real([task], **how)
                    yield index, result
                    continue
            yield index, known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limited_process, "call_all", once)
        yield


@pytest.fixture(scope="module")
def shop(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"), environment)


@pytest.fixture(scope="module")
def sound(shop: Workshop) -> Draft:
    return wheels.draft(shop.linux_libraries())


@pytest.fixture(scope="module")
def sound_windows(shop: Workshop) -> Draft:
    return wheels.draft(shop.windows_libraries(), tag=wheels.WINDOWS)


@pytest.fixture(scope="module")
def real_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpacks a library of the real wheel."""
    folder = tmp_path_factory.mktemp("real")

    def unpack(member: str) -> Path:
        with zipfile.ZipFile(real_wheel()) as opened:
            return Path(opened.extract(member, folder))

    return unpack


def real_wheel() -> Path:
    record = records.read(REAL / "wheel.json", "wheel", Wheel)
    if record is None:
        pytest.fail("There is no rtx50 wheel. Build it first: nox -s wheel")
    return REAL / record.file


def failing(checks: Mapping[str, Check]) -> set[str]:
    return {check.id for check in checks.values() if check.status == "fail"}


def evidence(checks: Mapping[str, Check]) -> str:
    return "\n".join(f"{c.summary}\n{c.evidence}" for c in checks.values() if c.status == "fail")


def all_pass(checks: Mapping[str, Check]) -> None:
    assert {check.status for check in checks.values()} == {"ok"}, evidence(checks)
    assert len(checks) == CHECKS


# ---- Sound wheels ------------------------------------------------------------------------------


CheckWheel = Callable[..., dict[str, Check]]


@pytest.fixture
def check(tmp_path: Path) -> CheckWheel:
    """Packs a draft and returns the checks of the wheel."""

    def run(wheel: Draft, name: str = "rtx50", system: str = "linux") -> dict[str, Check]:
        path = wheel.pack(tmp_path / "wheel")
        return checked(path, target(name, system), tmp_path / "scratch")

    return run


def test_sound_wheel_passes_every_check(sound: Draft, check: CheckWheel) -> None:
    all_pass(check(sound))


def test_sound_wheel_for_windows_passes_every_check(
    sound_windows: Draft, check: CheckWheel
) -> None:
    checks = check(sound_windows, system="windows")
    all_pass(checks)
    assert checks["libraries"].summary == "libraries: 9 × PE for x86-64"
    assert "1 × SASS in ggml-cuda.dll" in checks["gpu-code"].summary


def test_sound_wheel_with_two_platform_tags_passes(sound: Draft, check: CheckWheel) -> None:
    wheel = sound.copy()
    wheel.file = wheel.file.replace("manylinux_2_17", "manylinux2014_x86_64.manylinux_2_17")
    tag = f"Tag: {wheels.MANYLINUX}\n"
    old = tag.replace("manylinux_2_17", "manylinux2014")
    wheel.edit(f"{wheel.info}/WHEEL", tag.encode(), (tag + old).encode())
    all_pass(check(wheel))


def test_native_fp4_is_found(shop: Workshop, sound: Draft, check: CheckWheel) -> None:
    libraries = {n.rsplit("/", 1)[-1]: d for n, d in sound.members.items() if n.startswith(LIB)}
    wheel = wheels.draft(libraries, version="0.3.36", tag="py3-none-manylinux_2_17_x86_64")
    wheel.members[CUDA] = shop.cuda("sm_120a", fp4=True)
    checks = check(wheel, "rtx50-fp4")
    all_pass(checks)
    assert checks["gpu-features"].summary == "gpu-features: 1 × HMMA, 1 × IMMA, 1 × OMMA"
    wheel.members[CUDA] = shop.cuda("sm_120a")
    checks = check(wheel, "rtx50-fp4")
    assert failing(checks) == {"gpu-features"}
    assert "no OMMA.E2M1 instruction; found: 1 × HMMA, 1 × IMMA" in evidence(checks)


# ---- Defects of the wheel for Linux ------------------------------------------------------------


def llama(code: str = "", *words: str, rpath: str = "$ORIGIN") -> Defect:
    """libllama.so with more C code, or linked with further options."""

    def plant(shop: Workshop, wheel: Draft) -> None:
        wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA + code, *words, rpath=rpath)

    return plant


def foreign(zig_target: str, name: str = "libllama.so") -> Defect:
    """libllama.so for another machine or system."""

    def plant(shop: Workshop, wheel: Draft) -> None:
        wheel.members[LLAMA] = shop.foreign(zig_target, name, wheels.LLAMA)

    return plant


def changed(member: str, change: Callable[[bytes], bytes]) -> Defect:
    """Other bytes in a member."""

    def plant(_: Workshop, wheel: Draft) -> None:
        wheel.members[member] = change(wheel.members[member])

    return plant


def cuda(*codes: str) -> Defect:
    """libggml-cuda.so with other GPU code."""

    def plant(shop: Workshop, wheel: Draft) -> None:
        wheel.members[CUDA] = shop.cuda(*codes)

    return plant


def edited(member: str, old: bytes, new: bytes) -> Defect:
    """Other bytes in a member. ``member`` may begin with INFO/ for the folder .dist-info."""

    def plant(_: Workshop, wheel: Draft) -> None:
        wheel.edit(member.replace("INFO", wheel.info), old, new)

    return plant


def module(name: str, *words: str) -> Defect:
    """Another module for the CPU."""

    def plant(shop: Workshop, wheel: Draft) -> None:
        wheel.members[f"{LIB}/libggml-cpu-{name}.so"] = shop.module(name, *words)

    return plant


def without(*members: str) -> Defect:
    """The wheel without these members."""

    def plant(_: Workshop, wheel: Draft) -> None:
        for member in members:
            del wheel.members[member]

    return plant


def with_member(name: str, data: bytes, mode: int = stat.S_IFREG | 0o644) -> Defect:
    """The wheel with one more member in the package."""

    def plant(_: Workshop, wheel: Draft) -> None:
        wheel.members[f"llama_cpp/{name}"] = data
        wheel.modes[f"llama_cpp/{name}"] = mode

    return plant


def cpu_code_named_cuda(shop: Workshop, wheel: Draft) -> None:
    wheel.members[CUDA] = shop.elf("libggml-cuda.so", wheels.GGML)


def library_of_another_build(shop: Workshop, wheel: Draft) -> None:
    wheel.built = wheel.libraries
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA.replace("1009", "1013"))


def unknown_library(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/libggml-evil.so"] = shop.elf("libggml-evil.so", wheels.GGML)


def unknown_library_of_another_build(shop: Workshop, wheel: Draft) -> None:
    wheel.built = wheel.libraries
    wheel.members[f"{LIB}/libextra.so"] = shop.elf("libextra.so", wheels.GGML)


def second_copy_and_strays(_: Workshop, wheel: Draft) -> None:
    wheel.members["lib/libllama.so"] = wheel.members[LLAMA]
    wheel.members["bin/llama-quantize.txt"] = b"a tool"
    wheel.members["include/llama.h"] = b"#pragma once\n"


def avx512_under_another_name(shop: Workshop, wheel: Draft) -> None:
    code = shop.elf("libggml-cpu.so", wheels.CPU, "-mavx512f", "-DWIDTH=64")
    wheel.members["llama_cpp/cpu.dat"] = code


def module_that_is_linked(shop: Workshop, wheel: Draft) -> None:
    code = "int ggml_backend_score(void);\nEXPORT int more(void) { return ggml_backend_score(); }"
    linked = shop.folder / "linux" / "libggml-cpu-haswell.so"
    wheel.members[f"{LIB}/libggml.so"] = shop.elf("libggml.so", wheels.GGML + code, linked)


def function_gone(shop: Workshop, wheel: Draft) -> None:
    code = wheels.LLAMA.replace("llama_decode", "llama_decode_v2")
    wheel.members[LLAMA] = shop.elf("libllama.so", code)


def cublas_12(shop: Workshop, wheel: Draft) -> None:
    old = shop.folder / "libcublas.so.12"
    code = "EXPORT int cublasCreate_v2(void **handle) { return 0; }"
    old.write_bytes(shop.elf(old.name, code))
    wheel.members[CUDA] = shop.cuda("sm_120", cublas=old)


def openblas(shop: Workshop, wheel: Draft) -> None:
    other = shop.folder / "libopenblas.so.0"
    other.write_bytes(shop.elf(other.name, wheels.BASE))
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA, other)


def mtmd_that_needs_llama_by_name(rpath: str) -> Defect:
    def plant(shop: Workshop, wheel: Draft) -> None:
        needs = shop.folder / "libllama.so"
        needs.write_bytes(shop.elf(needs.name, wheels.LLAMA, by_name=True))
        member = f"{LIB}/libmtmd.so"
        wheel.members[member] = shop.elf("libmtmd.so", wheels.MTMD, needs, rpath=rpath)

    return plant


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def cut_in_its_section_table(data: bytes) -> bytes:
    """All that runs is in the file, but only a half of the section headers."""
    return data[: (section_table(data)[0] + len(data)) // 2]


def in_the_fat_binary(offset: int, new: bytes) -> Defect:
    """Other bytes at an offset of the fat binary in libggml-cuda.so, which has no checksum."""

    def plant(_: Workshop, wheel: Draft) -> None:
        data = wheel.members[CUDA]
        at = data.index(wheels.FATBIN) + offset
        wheel.members[CUDA] = data[:at] + new + data[at + len(new) :]

    return plant


def another_time(_: Workshop, wheel: Draft) -> None:
    wheel.times[INIT] = (2026, 1, 1, 0, 0, 0)


def gzipped_library(_: Workshop, wheel: Draft) -> None:
    wheel.members["llama_cpp/model.bin"] = gzip.compress(wheel.members[LLAMA])


def where(path: str) -> str:
    return f'EXPORT const char *where(void) {{ return "{path}"; }}'


# glibc has getrandom since 2.25.
GETRANDOM = """long getrandom(void *, unsigned long, unsigned);
EXPORT long seed(void *to) { return getrandom(to, 4, 0); }"""
# They need glibc 2.36, by a symbol version without a number: GLIBC_ABI_DT_RELR.
PACKED_RELOCATIONS = """int a;
int *const at[] = {&a, &a};
EXPORT int *const *all(void) { return at; }
int printf(const char *, ...);
EXPORT void show(void) { printf("%p", (void *)at); }"""
PTX_TEXT = (
    'EXPORT const char *text(void) { return ".version 9.0\\n.target sm_120\\n.entry f(){ret;}"; }'
)
TEXT_RELOCATION = '__asm__(".text\\n.quad llama_decode\\n");'
INTERPRETER = (
    'const char interp[] __attribute__((section(".interp"))) = "/lib64/ld-linux-x86-64.so.2";'
)
CUBIN_TEXT = (
    'EXPORT const char *inside(void) { return "\\177ELF\\2\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0'
    + "\\2\\0\\276\\0"  # EM_CUDA
    + f'{"x" * 60}"; }}'
)
CUBLAS = b"nvidia-cublas>=13.2.2.2,<14"
REGISTERED = bytes.fromhex("b143624601000000")  # how what registers a fat binary begins
OTHER_KIND = f"{UNREAD} sbom freshness"  # a file that is not the build's and cannot be read

# The ids of the checks that must fail -> defects, each with a part of the output. Defects of the
# zip file, METADATA, WHEEL and RECORD are in the unit tests (test_zip_archive, test_members, …).
DEFECTS: dict[str, list[tuple[Defect, str]]] = {
    "gpu-code": [
        (cuda("sm_100"), "no SASS for sm_120"),
        (cuda("sm_89", "sm_120"), "1 × SASS for sm_89"),
        (llama(PTX_TEXT), "libllama.so: PTX at"),
        (llama(CUBIN_TEXT), "libllama.so: a cubin at"),
        (edited(CUDA, REGISTERED, bytes(8)), "1 of 1 fat binaries are not registered"),
    ],
    "gpu-code gpu-features": [
        (cpu_code_named_cuda, "computes on the CPU only"),
        (in_the_fat_binary(0, bytes(8)), "fat binary at 0x"),
        (in_the_fat_binary(0, b"\x01\x5a\xe5\x1e"), "a piece of device code at"),
        (in_the_fat_binary(4, b"\x02\x00\x10\x00"), "no library contains GPU code"),
    ],
    "gpu-code ptx gpu-features": [(cuda("compute_120"), "1 × PTX for compute_120")],
    "ptx": [(cuda("sm_120", "compute_120"), "1 × PTX for compute_120")],
    UNREAD: [
        (in_the_fat_binary(16, b"\xa5" * 256), "libggml-cuda.so: not checked"),
        (in_the_fat_binary(8, b"\xff" * 8), "reaches past the end of the file"),
    ],
    f"{UNREAD} api": [
        (changed(LLAMA, cut), "libllama.so: not checked, cut"),
        (changed(LLAMA, cut_in_its_section_table), "libllama.so: not checked, cut short"),
        (changed(LLAMA, lambda _: bytes(range(256)) * 64), "neither an ELF nor a PE file"),
        (changed(LLAMA, lambda _: b""), "neither an ELF nor a PE file"),
    ],
    OTHER_KIND: [
        (with_member("more.bin", b"!<arch>\n" + bytes(60)), "a static archive"),
        (gzipped_library, "model.bin: not checked, a gzip file"),
        (with_member("more.bin", b"PK\3\4" + bytes(60)), "a wheel in the wheel"),
        (with_member("run", b"#!/bin/sh\n", stat.S_IFREG | 0o755), "a script that can be"),
    ],
    "libraries": [
        (llama("", "-Wl,-z,execstack"), "wants an executable stack"),
        (foreign("aarch64-linux-gnu"), "libllama.so: for aarch64"),
        (foreign("x86-linux-gnu"), "libllama.so: for i386"),
        (foreign("x86_64-windows-gnu", "llama.dll"), "libllama.so: PE, and the tag says ELF"),
        (llama("", "-Wl,-f,libevil.so"), "by DT_AUXILIARY: libevil.so"),
        (llama("", "-Wl,-F,libevil.so"), "by DT_FILTER: libevil.so"),
        (llama("", "-Wl,--audit,libevil.so"), "by DT_AUDIT: libevil.so"),
        (llama("", "-Wl,--depaudit,libe.so"), "by DT_DEPAUDIT: libe.so"),
        (llama("", "-Wl,-z,interpose"), "DF_1_INTERPOSE"),
        (llama("", "-Wl,-z,nodlopen"), "DF_1_NOOPEN"),
        (llama("", "-Wl,-soname,libggml.so"), "its SONAME is libggml.so"),
        (llama(TEXT_RELOCATION, "-Wl,-z,notext"), "it has text relocations"),
        (llama(INTERPRETER), "it names a program interpreter"),
        (unknown_library, "libggml-evil.so: not a library"),
    ],
    "freshness": [(library_of_another_build, "libllama.so: made by another build")],
    "freshness sbom libraries": [
        (unknown_library_of_another_build, "libextra.so: not made by that build"),
    ],
    "cpu-baseline": [
        (module("haswell", "-mavx512f", "-DWIDTH=64"), "× AVX512F, such as"),
        (module("x64", "-mavx2", "-DWIDTH=32"), "× AVX2, such as"),
        (without(f"{LIB}/libggml-cpu-x64.so"), "there is no ggml-cpu-x64"),
        (module_that_is_linked, "so every CPU has to run that module"),
    ],
    "cpu-baseline freshness sbom libraries": [(avx512_under_another_name, "llama_cpp/cpu.dat")],
    "api": [(function_gone, "llama_decode is not in")],
    "imports": [
        (cublas_12, "libcublas.so.12: CUDA 12"),
        (openblas, "libopenblas.so.0: nothing"),
        (mtmd_that_needs_llama_by_name("$ORIGIN/.."), "no search path leads it to libllama.so"),
        (mtmd_that_needs_llama_by_name("$ORIGIN"), "libmtmd.so: needs libllama.so by its name"),
        (edited("INFO/METADATA", CUBLAS, b"nvidia-cublas>=13.2"), "does not limit pip to CUDA 13"),
    ],
    "paths": [
        (llama(rpath="$ORIGIN:/home/builder/lib"), "/home/builder/lib"),
        (llama(rpath="$ORIGIN:$ORIGIN/../../../../tmp"), "leaves the wheel: ../../tmp"),
        (llama(where("/home/builder/work/llama.cpp")), "/home/builder/work/llama.cpp"),
        (llama(where("/home/builder/my builds/src/llama.cpp")), "my builds/src/llama.cpp"),
    ],
    "platform-tag": [
        (llama(GETRANDOM), "libllama.so needs 2.25"),
        (llama(PACKED_RELOCATIONS, "-Wl,-z,pack-relative-relocs"), "libllama.so needs"),
    ],
    "layout": [(without(f"{LIB}/libmtmd.so"), "missing: mtmd")],
    "layout imports": [
        (second_copy_and_strays, "2 copies: llama_cpp/lib/libllama.so, lib/libllama.so"),
    ],
    "loader": [
        (without(*(f"llama_cpp/{name}" for name in wheels.added())), "missing: nothing finds"),
        (edited(LOADER, b'CUDA = "13.1"', b'CUDA = "13.0"'), "not the one that this target's"),
    ],
    "loader sbom": [
        (edited("INFO/METADATA", b"Requires-Dist: cuda-pathfinder>=1.3\n", b""), "cuda-pathfinder"),
    ],
    "loader python-files": [
        (changed(INIT, lambda data: b"import os\n" + data), "does not call it first"),
    ],
    "reproducible": [(another_time, "2 different times")],
}
ROWS = [(ids, plant, phrase) for ids, rows in DEFECTS.items() for plant, phrase in rows]


def only_fails(checks: Mapping[str, Check], ids: str, phrase: str) -> None:
    assert failing(checks) == set(ids.split()), evidence(checks)
    assert len(checks) == CHECKS
    assert phrase in evidence(checks)


@pytest.mark.parametrize(("ids", "plant", "phrase"), ROWS, ids=[f"{i}: {p}" for i, _, p in ROWS])
def test_each_defect_fails_its_checks_and_no_others(
    shop: Workshop, sound: Draft, check: CheckWheel, ids: str, plant: Defect, phrase: str
) -> None:
    wheel = sound.copy()
    plant(shop, wheel)
    only_fails(check(wheel), ids, phrase)


def test_a_wheel_of_this_checkout_without_a_record_fails(sound: Draft, tmp_path: Path) -> None:
    path = sound.pack(tmp_path / "wheel", recorded=False)
    checks = checked(path, target("rtx50"), tmp_path / "scratch", ours=True)
    assert failing(checks) == {"reproducible", "freshness"}


# ---- Defects of the wheel for Windows ----------------------------------------------------------


def dll(name: str, build: Callable[[Workshop], bytes]) -> Defect:
    """The wheel with another DLL."""

    def plant(shop: Workshop, wheel: Draft) -> None:
        wheel.members[f"{LIB}/{name}"] = build(shop)

    return plant


CUBLAS_12 = "cublas64_12.dll"
PDB = r"D:\a\llama\build\llama.pdb"
WINDOWS_DEFECTS: list[tuple[str, Defect, str]] = [
    (
        "imports",
        dll("ggml-cuda.dll", lambda shop: shop.windows_cuda("sm_120", cublas=CUBLAS_12)),
        "cublas64_12.dll: CUDA 12",
    ),
    ("imports sbom", without(f"{LIB}/vcomp140.dll"), "vcomp140.dll: nothing provides it"),
    (
        "cpu-baseline",
        dll("ggml-cpu-haswell.dll", lambda shop: shop.windows_cpu("-mavx512f", "-DWIDTH=64")),
        "× AVX512F, such as",
    ),
    (
        "paths",
        dll("llama.dll", lambda shop: shop.dll_with_debug_file("llama.dll", wheels.LLAMA, PDB)),
        PDB,
    ),
    (
        "gpu-code",
        dll("ggml-cuda.dll", lambda shop: shop.windows_cuda("sm_100")),
        "no SASS for sm_1",
    ),
    (
        "gpu-code gpu-features",
        dll("ggml-cuda.dll", lambda shop: shop.dll("ggml-cuda.dll", wheels.GGML)),
        "computes on the CPU only",
    ),
    (f"{UNREAD} api", changed(f"{LIB}/llama.dll", cut), "llama.dll: not checked"),
    ("layout", without(f"{LIB}/mtmd.dll"), "missing: mtmd"),
    (
        "libraries",
        dll("llama.dll", lambda shop: shop.foreign("x86-windows-gnu", "llama.dll", wheels.LLAMA)),
        "llama.dll: for i386",
    ),
    (
        "libraries imports",
        dll("llama.dll", lambda shop: shop.elf("llama.so", wheels.LLAMA)),
        "ELF, and the tag says PE",
    ),
]


@pytest.mark.parametrize(
    ("ids", "plant", "phrase"), WINDOWS_DEFECTS, ids=[f"{i}: {p}" for i, _, p in WINDOWS_DEFECTS]
)
def test_each_defect_of_a_windows_wheel_fails_its_checks_and_no_others(
    shop: Workshop, sound_windows: Draft, check: CheckWheel, ids: str, plant: Defect, phrase: str
) -> None:
    wheel = sound_windows.copy()
    plant(shop, wheel)
    only_fails(check(wheel, system="windows"), ids, phrase)


# ---- How it reads ------------------------------------------------------------------------------


def test_without_cuobjdump_no_check_of_libraries_passes(
    sound: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sound.pack(tmp_path / "wheel")
    found = wheels.read(path, tmp_path / "scratch")

    def none(name: str) -> Path:
        raise fatbin.Unreadable(f"the package nvidia-cuda-{name} is not installed")

    monkeypatch.setattr(gpu_code, "installed", none)
    (tmp_path / "libggml-cuda.so").write_bytes(sound.members[CUDA])
    read = library.read(tmp_path / "libggml-cuda.so", CUDA, tmp_path / "unpacked")
    assert read.device is not None
    assert read.device.error == "the package nvidia-cuda-cuobjdump is not installed"
    others = [item for item in found.libraries if item.member != CUDA]
    found = dataclasses.replace(found, libraries=(*others, read))
    checks = checked(path, target("rtx50"), tmp_path / "scratch", found=found)
    assert failing(checks) == set(UNREAD.split())
    assert "nvidia-cuda-cuobjdump is not installed" in checks["gpu-code"].evidence


def plant_avx512(data: bytes) -> bytes:
    """Write one AVX-512 instruction into the middle of a library's code, at an instruction."""
    lief.logging.disable()
    binary = lief.ELF.parse(list(data))
    assert binary is not None
    text = binary.get_section(".text")
    assert text is not None
    code = bytes(text.content)
    starts = [instruction.ip for instruction in iced_x86.Decoder(64, code)]
    at = text.file_offset + starts[len(starts) // 2]
    return data[:at] + wheels.LEAST_AVX512 + data[at + len(wheels.LEAST_AVX512) :]


def section_table(data: bytes | bytearray) -> tuple[int, int]:
    """Offset and number of the section headers of a 64-bit ELF file."""
    return int.from_bytes(data[0x28:0x30], "little"), int.from_bytes(data[0x3C:0x3E], "little")


def test_library_of_an_older_linker_passes(shop: Workshop, sound: Draft, check: CheckWheel) -> None:
    """Its headers, constants and code are in one executable segment."""
    wheel = sound.copy()
    code = 'EXPORT const char *text(void) { return "vaddps"; }'
    llama(code, OLD_LAYOUT)(shop, wheel)
    all_pass(check(wheel))


def unmarked(data: bytes, name: str) -> bytes:
    """A library in which one section is not marked as code any more."""
    lief.logging.disable()
    binary = lief.ELF.parse(list(data))
    assert binary is not None
    flags = section_table(data)[0] + 64 * [s.name for s in binary.sections].index(name) + 8
    assert data[flags] & 4  # SHF_EXECINSTR
    return data[:flags] + bytes([data[flags] & ~4]) + data[flags + 1 :]


@pytest.mark.parametrize("layout", ["-Wl,-z,separate-code", OLD_LAYOUT])
def test_functions_outside_the_sections_of_code_are_an_error(
    shop: Workshop, sound: Draft, check: CheckWheel, layout: str
) -> None:
    data = shop.module("haswell", "-mavx2", "-DWIDTH=32", layout)
    wheel = sound.copy()
    wheel.members[HASWELL] = unmarked(data, ".text")
    error = "libggml-cpu-haswell.so: not checked, 2 functions outside of its code"
    only_fails(check(wheel), UNREAD, error)


def test_executable_code_outside_the_sections_of_code_is_decoded(
    shop: Workshop, sound: Draft, check: CheckWheel
) -> None:
    code = wheels.CPU.replace("EXPORT", '__attribute__((noinline, section(".more"))) static')
    code += "EXPORT void ggml_cpu_twice(wide *x) { ggml_cpu_add(x, x); }"
    data = shop.elf("libggml-cpu-haswell.so", code, "-mavx512f", "-DWIDTH=64")
    wheel = sound.copy()
    wheel.members[HASWELL] = unmarked(data, ".more")
    only_fails(check(wheel), "cpu-baseline", "libggml-cpu-haswell.so: 3 × AVX512F")


def test_one_avx512_instruction_fails_the_wheel(sound: Draft, check: CheckWheel) -> None:
    wheel = sound.copy()
    wheel.members[LLAMA] = plant_avx512(wheel.members[LLAMA])
    checks = check(wheel)
    only_fails(checks, "cpu-baseline", "libllama.so: 1 × AVX512F, such as")
    assert "vaddps zmm0,zmm0,zmm1" in evidence(checks)


@pytest.mark.parametrize(
    ("kernel", "kinds"),
    [("flash_attn_ext_f16", {"HMMA"}), ("mul_mat_q", {"IMMA"})],
    ids=["HMMA", "IMMA"],
)
def test_count_of_tensor_instructions_is_that_of_a_full_disassembly(
    shop: Workshop,
    real_library: Callable[[str], Path],
    tmp_path: Path,
    kernel: str,
    kinds: set[str],
) -> None:
    words = [str(gpu_code.installed("cuobjdump")), "--extract-elf", "all"]
    subprocess.run([*words, str(real_library(CUDA))], cwd=tmp_path, check=True, capture_output=True)
    # The mangled name of a template: _Z18flash_attn_ext_f16I…
    name = f"{len(kernel)}{kernel}I".encode()
    named = [path for path in tmp_path.glob("*.cubin") if name in path.read_bytes()]
    cubin = min(named, key=lambda path: path.stat().st_size)
    words = [str(gpu_code.installed("nvdisasm")), "-c", str(cubin)]
    listing = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    expected = Counter(re.findall(r"\s([A-Z]*MMA(?:\.\w+)*)\s", listing))
    assert {mnemonic.split(".")[0] for mnemonic in expected} == kinds
    assert sum(expected.values()) > 100

    shop.run(
        *(shop.toolkit / "bin" / "fatbinary", "--64", f"--create={tmp_path / 'one.fatbin'}"),
        f"--image3=kind=elf,sm=120,file={cubin}",
    )
    found = gpu_code.read((tmp_path / "one.fatbin").read_bytes(), tmp_path / "unpacked")
    assert found is not None
    assert found.error is None
    assert found.tensor == dict(expected)
    assert found.instructions == len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", listing, re.MULTILINE))


def test_names_in_a_fat_binary_are_not_read(shop: Workshop, tmp_path: Path) -> None:
    """cuobjdump prints the name of a piece of code unchanged, including line ends."""
    cubin = tmp_path / "one.cubin"
    words = [str(gpu_code.installed("cuobjdump")), "--extract-elf", "all"]
    subprocess.run([*words, str(shop.fatbin("sm_120"))], cwd=tmp_path, check=True)
    next(tmp_path.glob("*.cubin")).rename(cubin)
    name = "evil\nELF file    2: y.sm_90.cubin\nPTX file    1: z.sm_90.ptx"
    shop.run(
        *(shop.toolkit / "bin" / "fatbinary", "--64", f"--create={tmp_path / 'named.fatbin'}"),
        *(f"--ident={name}", f"--image3=kind=elf,sm=120,file={cubin}"),
    )
    data = (tmp_path / "named.fatbin").read_bytes()
    assert name.encode() in data
    found = gpu_code.read(data, tmp_path / "unpacked")
    assert found is not None
    assert (found.error, found.sass, found.ptx) == (None, {"sm_120": 1}, {})
    assert found.tensor.keys() == {"HMMA.16816.F32", "IMMA.16832.S8.S8"}


# ---- The command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone without builds, with this checkout's nox venv.

    The files of its locked release are those of a draft.
    """
    project = pristine(environment, tmp_path_factory.mktemp("verify"))
    wheels.lock(project.root)
    return project


def pristine(environment: Mapping[str, str], folder: Path) -> Project:
    """A clone with the unchanged data of the releases."""
    root = folder / ODD
    copy_project(root)
    (REPOSITORY / ".nox").mkdir(exist_ok=True)
    (root / ".nox").symlink_to(REPOSITORY / ".nox")
    project = Project(root, environment)
    # In a fresh checkout this creates the venv, outside the time that the tests measure.
    project.start("verify", "--help").end(timeout=600).well()
    return project


def verify(clone: Project, wheel: Path, tmp_path: Path) -> Ran:
    """Run the command on a wheel. It may write only into build/."""
    (tmp_path / "tmp").mkdir()
    before = files(clone.root), snapshot(wheel.parent)
    run = clone.nox("verify", "--wheel", str(wheel), env={"TMPDIR": str(tmp_path / "tmp")})
    assert (files(clone.root), snapshot(wheel.parent)) == before
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (clone.root / "build" / "bug-verify.log").exists(), run.output
    return run


def files(root: Path) -> list[str]:
    """The files in and beside the project, without build/, .nox/ and Python's caches."""
    own = (root / "build", root / ".nox")
    found = [p for p in root.rglob("*") if not any(p.is_relative_to(folder) for folder in own)]
    beside = [p for p in root.parent.iterdir() if p.suffix != ".log"]
    return sorted(str(p) for p in [*found, *beside] if "__pycache__" not in p.parts)


def statuses(clone: Project, wheel: Path) -> dict[str, str]:
    """The status of each check in the report of the command."""
    folder = f"{wheel.stem}-{records.file_sha256(wheel)[:8]}"
    path = clone.root / "build" / "rtx50" / "given" / folder / "verify.json"
    report = json.loads(path.read_text(encoding="utf-8"))["verify"]
    return {c["id"]: c["status"] for group in report["groups"] for c in group["checks"]}


def test_command_passes_a_sound_wheel(clone: Project, sound: Draft, tmp_path: Path) -> None:
    wheel = sound.pack(tmp_path / "wheel")
    run = verify(clone, wheel, tmp_path).well()
    assert f"verify: {CHECKS} checks passed for {wheel.name}" in run.output
    assert "SASS in libggml-cuda.so" in run.output
    assert "✗" not in run.output
    assert "!" not in run.output
    assert set(statuses(clone, wheel).values()) == {"ok"}


def test_command_passes_an_external_wheel_with_warnings(
    clone: Project, sound: Draft, tmp_path: Path
) -> None:
    wheel = sound.pack(tmp_path / "wheel", recorded=False)
    run = verify(clone, wheel, tmp_path).well()
    found = statuses(clone, wheel)
    assert {id_ for id_, status in found.items() if status == "warn"} == {
        "reproducible",
        "freshness",
    }
    assert set(found.values()) == {"ok", "warn"}
    assert "there is no record" in run.output


def test_command_lists_all_failing_checks_of_a_bad_wheel(
    clone: Project, shop: Workshop, sound: Draft, tmp_path: Path
) -> None:
    wheel = sound.copy()
    for plant in (
        cuda("sm_120", "compute_120"),
        module("haswell", "-mavx512f", "-DWIDTH=64"),
        without(f"{LIB}/libmtmd.so"),
        edited(LOADER, b'CUDA = "13.1"', b'CUDA = "13.0"'),
        another_time,
    ):
        plant(shop, wheel)
    path = wheel.pack(tmp_path / "wheel")
    expected = ["layout", "ptx", "cpu-baseline", "loader"]
    run = verify(clone, path, tmp_path).badly(
        f"{path.name} fails 4 of {CHECKS} checks for the target rtx50: {', '.join(expected)}."
    )
    assert run.code == 1
    for id_ in expected:
        assert f"✗ {id_}: " in run.output
    assert "! reproducible: " in run.output  # a failure only for a wheel of this checkout
    found = statuses(clone, path)
    assert [id_ for id_, status in found.items() if status == "fail"] == expected
    assert sorted(found.values()) == ["fail"] * 4 + ["ok"] * (CHECKS - 5) + ["warn"]


def parent_member(folder: Path) -> Path:
    wheel = wheels.draft({})
    wheel.members["../../../escaped.so"] = b"\x7fELF evil"
    wheel.members["/tmp/escaped.so"] = b"\x7fELF evil"
    return wheel.pack(folder)


def control_characters(folder: Path) -> Path:
    wheel = wheels.draft({})
    wheel.members["llama_cpp/\x1b[31mred\x1b]0;title\x07.py"] = b""
    wheel.record()
    wheel.members["\x1b[2J.py"] = b""
    return wheel.pack(folder)


def bomb(folder: Path) -> Path:
    """A file that claims to unpack to 8 GiB of zeros; it contains 32 MiB of them."""
    path = wheels.draft({}).pack(folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as opened:
        for number in range(2):
            opened.writestr(f"llama_cpp/{number}.so", bytes(1 << 24))
            opened.getinfo(f"llama_cpp/{number}.so").file_size = (1 << 32) - 2
    return path


def no_zip(folder: Path) -> Path:
    path = wheels.draft({}).pack(folder)
    path.write_bytes(b"this is not a wheel\n" * 1000)
    return path


Hostile = Callable[[Path], Path]
HOSTILE: dict[str, tuple[Hostile, str]] = {
    "parent folder": (parent_member, "leaves its folder"),
    "bomb": (bomb, "more than 67108864 are not read"),
    "control characters": (control_characters, "not a name for a file on every system"),
}


@pytest.mark.parametrize(("make", "word"), HOSTILE.values(), ids=list(HOSTILE))
def test_command_refuses_a_hostile_file(
    clone: Project, tmp_path: Path, make: Hostile, word: str
) -> None:
    """The unit tests of ``zip_archive`` and ``zip_framing`` have the other hostile files."""
    wheel = make(tmp_path / "wheel")
    run = verify(clone, wheel, tmp_path).badly(word, "✗ archive: ")
    assert run.code == 1
    assert run.seconds < 30
    assert "\x1b" not in run.output  # a name must not control the terminal
    assert statuses(clone, wheel)["archive"] == "fail"
    assert not list(tmp_path.rglob("*escaped*")) + list(Path("/tmp").glob("escaped*"))


def test_a_file_name_of_dots_does_not_change_the_records_of_the_target(
    clone: Project, tmp_path: Path
) -> None:
    wheel = no_zip(tmp_path / "wheel")
    dots = wheel.rename(wheel.with_name("...whl"))
    verify(clone, dots, tmp_path).badly("✗ archive: ")
    assert not (clone.root / "build" / "rtx50" / "verify.json").exists()


# ---- The real wheel ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_wheel_passes_every_check_in_less_than_a_minute(
    environment: dict[str, str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    clone = pristine(environment, tmp_path)
    start = time.monotonic()
    wheel = real_wheel()
    run = verify(clone, wheel, tmp_path).well()
    seconds = time.monotonic() - start
    record_property("seconds", round(seconds, 1))
    print(f"{wheel.name}: {seconds:.1f} s")
    assert set(statuses(clone, wheel).values()) == {"ok"}, run.output
    assert seconds < 60
