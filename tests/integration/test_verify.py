"""What ``verify`` finds in real wheels: nothing in a sound one, and each defect that is planted."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
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

from sessions.build.model import Wheel
from sessions.shared import child_environment, records
from sessions.shared.checks import Check
from sessions.verify import fatbin, gpu_code, library, limited, reader
from sessions.verify.check_input import Case
from sessions.verify.model import Library
from sessions.verify.run_checks import judge
from tests.integration import wheels
from tests.integration.conftest import ODD, REPOSITORY, Project, Ran, copy_project, snapshot
from tests.integration.wheels import LIB, Draft, Workshop, judged, target

CHECKS = 19
REAL = REPOSITORY / "wheels" / "rtx50"
CUDA = f"{LIB}/libggml-cuda.so"
LLAMA = f"{LIB}/libllama.so"
INIT = "llama_cpp/__init__.py"
LOADER = "llama_cpp/_cuda_runtime.py"
# Checks that make no judgement where a library cannot be read.
UNREAD = {
    "gpu-code", "ptx", "gpu-features", "libraries", "imports", "cpu-baseline", "paths",
    "platform-tag",
}  # fmt: skip

OLD_LAYOUT = "-Wl,-z,noseparate-code"

Defect = Callable[[Workshop, Draft], None]


@pytest.fixture(scope="module", autouse=True)
def _each_library_is_read_once_and_here() -> Iterator[None]:
    """Most libraries of a planted wheel are the sound one's, and a process a library takes time.

    What ends its process badly is read by the real thing; so is all that the command reads.
    """
    real, known = limited.call_all, dict[tuple[str, str], Library]()

    def once(
        tasks: Sequence[limited.Task[Library]], **how: Any
    ) -> Iterator[tuple[int, Library | limited.Ended]]:
        if any(task.kind is not Library for task in tasks):  # all else of the wheel
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
        patch.setattr(limited, "call_all", once)
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
    """Any library of the real wheel, unpacked."""
    folder = tmp_path_factory.mktemp("real")

    def unpack(member: str) -> Path:
        with zipfile.ZipFile(real_wheel()) as opened:
            return Path(opened.extract(member, folder))

    return unpack


def real_wheel() -> Path:
    record = records.read(REAL / "wheel.json", "wheel", Wheel)
    if record is None:
        pytest.fail("There is no rtx50 wheel to look at. Build it first: nox -s wheel")
    return REAL / record.file


def failing(checks: Mapping[str, Check]) -> set[str]:
    return {check.id for check in checks.values() if check.status == "fail"}


def said(checks: Mapping[str, Check]) -> str:
    return "\n".join(f"{c.summary}\n{c.evidence}" for c in checks.values() if c.status == "fail")


def all_hold(checks: Mapping[str, Check]) -> None:
    assert {check.status for check in checks.values()} == {"ok"}, said(checks)
    assert len(checks) == CHECKS


# ---- Sound wheels ------------------------------------------------------------------------------


def test_sound_wheel_passes_every_check(sound: Draft, tmp_path: Path) -> None:
    all_hold(judged(sound.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch"))


def test_sound_wheel_for_windows_passes_every_check(sound_windows: Draft, tmp_path: Path) -> None:
    path = sound_windows.pack(tmp_path / "wheel")
    checks = judged(path, target("rtx50", "windows"), tmp_path / "scratch")
    all_hold(checks)
    assert checks["libraries"].summary == "libraries: 9 × PE for x86-64"
    assert "1 × SASS in ggml-cuda.dll" in checks["gpu-code"].summary


def test_sound_wheel_of_two_platform_tags_passes(sound: Draft, tmp_path: Path) -> None:
    wheel = sound.copy()
    wheel.file = wheel.file.replace("manylinux_2_17", "manylinux2014_x86_64.manylinux_2_17")
    tag = f"Tag: {wheels.MANYLINUX}\n"
    old = tag.replace("manylinux_2_17", "manylinux2014")
    wheel.edit(f"{wheel.info}/WHEEL", tag.encode(), (tag + old).encode())
    all_hold(judged(wheel.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch"))


def test_native_fp4_is_found_where_it_is_claimed(
    shop: Workshop, sound: Draft, tmp_path: Path
) -> None:
    wheel = of_the_fp4_target(sound)
    wheel.members[CUDA] = shop.cuda("sm_120a", fp4=True)
    checks = judged(wheel.pack(tmp_path / "wheel"), target("rtx50-fp4"), tmp_path / "scratch")
    all_hold(checks)
    assert checks["gpu-features"].summary == "gpu-features: 1 × HMMA, 1 × IMMA, 1 × OMMA"


def of_the_fp4_target(sound: Draft) -> Draft:
    libraries = {n.rsplit("/", 1)[-1]: d for n, d in sound.members.items() if n.startswith(LIB)}
    return wheels.draft(libraries, version="0.3.36", tag="py3-none-manylinux_2_17_x86_64")


# ---- Planted in the wheel for Linux ------------------------------------------------------------


def architecture_100(shop: Workshop, wheel: Draft) -> None:
    wheel.members[CUDA] = shop.cuda("sm_100")


def ptx_alone(shop: Workshop, wheel: Draft) -> None:
    wheel.members[CUDA] = shop.cuda("compute_120")


def machine_code_and_ptx(shop: Workshop, wheel: Draft) -> None:
    wheel.members[CUDA] = shop.cuda("sm_120", "compute_120")


def two_architectures(shop: Workshop, wheel: Draft) -> None:
    wheel.members[CUDA] = shop.cuda("sm_89", "sm_120")


def cpu_code_named_cuda(shop: Workshop, wheel: Draft) -> None:
    wheel.members[CUDA] = shop.elf("libggml-cuda.so", wheels.GGML)


def library_of_another_build(shop: Workshop, wheel: Draft) -> None:
    wheel.made = wheel.libraries
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA.replace("1009", "1013"))


def library_that_the_build_did_not_make(shop: Workshop, wheel: Draft) -> None:
    wheel.made = wheel.libraries
    wheel.members[f"{LIB}/libextra.so"] = shop.elf("libextra.so", wheels.GGML)


def second_copy_and_strays(_: Workshop, wheel: Draft) -> None:
    wheel.members["lib/libllama.so"] = wheel.members[LLAMA]
    wheel.members["bin/llama-quantize.txt"] = b"a tool"
    wheel.members["include/llama.h"] = b"#pragma once\n"


def avx512(shop: Workshop, wheel: Draft) -> None:
    data = shop.module("haswell", "-mavx512f", "-DWIDTH=64")
    wheel.members[f"{LIB}/libggml-cpu-haswell.so"] = data


def avx512_under_another_name(shop: Workshop, wheel: Draft) -> None:
    code = shop.elf("libggml-cpu.so", wheels.CPU, "-mavx512f", "-DWIDTH=64")
    wheel.members["llama_cpp/cpu.dat"] = code


def avx2_in_the_module_for_every_cpu(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/libggml-cpu-x64.so"] = shop.module("x64", "-mavx2", "-DWIDTH=32")


def no_module_for_every_cpu(_: Workshop, wheel: Draft) -> None:
    del wheel.members[f"{LIB}/libggml-cpu-x64.so"]


def module_that_is_linked(shop: Workshop, wheel: Draft) -> None:
    code = "int ggml_backend_score(void);\nEXPORT int more(void) { return ggml_backend_score(); }"
    module = shop.folder / "linux" / "libggml-cpu-haswell.so"
    wheel.members[f"{LIB}/libggml.so"] = shop.elf("libggml.so", wheels.GGML + code, module)


def no_mtmd(_: Workshop, wheel: Draft) -> None:
    del wheel.members[f"{LIB}/libmtmd.so"]


def function_gone(shop: Workshop, wheel: Draft) -> None:
    code = wheels.LLAMA.replace("llama_decode", "llama_decode_v2")
    wheel.members[LLAMA] = shop.elf("libllama.so", code)


def cublas_12(shop: Workshop, wheel: Draft) -> None:
    old = shop.folder / "libcublas.so.12"
    code = "EXPORT int cublasCreate_v2(void **handle) { return 0; }"
    old.write_bytes(shop.elf(old.name, code))
    wheel.members[CUDA] = shop.cuda("sm_120", cublas=old)


def library_from_nowhere(shop: Workshop, wheel: Draft) -> None:
    other = shop.folder / "libopenblas.so.0"
    other.write_bytes(shop.elf(other.name, wheels.BASE))
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA, other)


def searches_a_home_folder(shop: Workshop, wheel: Draft) -> None:
    path = "$ORIGIN:/home/builder/lib"
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA, rpath=path)


def searches_the_folder_above(shop: Workshop, wheel: Draft) -> None:
    needs = shop.folder / "libllama.so"
    needs.write_bytes(shop.elf(needs.name, wheels.LLAMA, by_name=True))
    wheel.members[f"{LIB}/libmtmd.so"] = shop.elf(
        "libmtmd.so", wheels.MTMD, needs, rpath="$ORIGIN/.."
    )


def needs_a_neighbour_by_its_name(shop: Workshop, wheel: Draft) -> None:
    needs = shop.folder / "libllama.so"
    needs.write_bytes(shop.elf(needs.name, wheels.LLAMA, by_name=True))
    wheel.members[f"{LIB}/libmtmd.so"] = shop.elf("libmtmd.so", wheels.MTMD, needs)


def source_path(shop: Workshop, wheel: Draft) -> None:
    where = 'EXPORT const char *where(void) { return "/home/builder/work/llama.cpp"; }'
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA + where)


def source_path_with_a_space(shop: Workshop, wheel: Draft) -> None:
    where = 'EXPORT const char *where(void) { return "/home/builder/my builds/src/llama.cpp"; }'
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA + where)


def renamed(_: Workshop, wheel: Draft) -> None:
    wheel.file = wheel.file.replace("0.3.16", "0.3.16+cu131")


def another_python(_: Workshop, wheel: Draft) -> None:
    wheel.file = wheel.file.replace("cp311-cp311", "cp310-cp310")
    wheel.edit(f"{wheel.info}/WHEEL", b"cp311-cp311", b"cp310-cp310")


def tag_too_old(shop: Workshop, wheel: Draft) -> None:
    # glibc has it since 2.25.
    code = "long getrandom(void *, unsigned long, unsigned);\n"
    code += "EXPORT long seed(void *to) { return getrandom(to, 4, 0); }"
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA + code)


def packed_relocations(shop: Workshop, wheel: Draft) -> None:
    # It needs glibc 2.36, by a symbol version that has no number: GLIBC_ABI_DT_RELR.
    code = wheels.LLAMA + "int a;\nint *const at[] = {&a, &a};\n"
    code += "EXPORT int *const *all(void) { return at; }\nint printf(const char *, ...);\n"
    code += 'EXPORT void show(void) { printf("%p", (void *)at); }'
    words = ("-Wl,-z,pack-relative-relocs",)
    wheel.members[LLAMA] = shop.elf("libllama.so", code, *words)


def linux_tag(_: Workshop, wheel: Draft) -> None:
    wheel.file = wheel.file.replace("manylinux_2_17", "linux")
    wheel.edit(f"{wheel.info}/WHEEL", b"manylinux_2_17", b"linux")


def another_hash_than_recorded(_: Workshop, wheel: Draft) -> None:
    wheel.record()
    wheel.members["llama_cpp/llama.py"] += b"# changed\n"


def not_in_the_record(_: Workshop, wheel: Draft) -> None:
    wheel.record()
    wheel.members["llama_cpp/more.py"] = b"# added\n"


def recorded_and_gone(_: Workshop, wheel: Draft) -> None:
    wheel.members["llama_cpp/more.py"] = b"# to go\n"
    wheel.record()
    del wheel.members["llama_cpp/more.py"]


def no_loader(_: Workshop, wheel: Draft) -> None:
    for name in wheels.added():
        del wheel.members[f"llama_cpp/{name}"]


def loader_changed(_: Workshop, wheel: Draft) -> None:
    wheel.edit(LOADER, b'CUDA = "13.1"', b'CUDA = "13.0"')


def loader_not_called_first(_: Workshop, wheel: Draft) -> None:
    wheel.members[INIT] = b"import os\n" + wheel.members[INIT]


def executable_stack(shop: Workshop, wheel: Draft) -> None:
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA, "-Wl,-z,execstack")


def for_aarch64(shop: Workshop, wheel: Draft) -> None:
    wheel.members[LLAMA] = shop.foreign("aarch64-linux-gnu", "libllama.so", wheels.LLAMA)


def of_32_bits(shop: Workshop, wheel: Draft) -> None:
    wheel.members[LLAMA] = shop.foreign("x86-linux-gnu", "libllama.so", wheels.LLAMA)


def for_windows(shop: Workshop, wheel: Draft) -> None:
    wheel.members[LLAMA] = shop.foreign("x86_64-windows-gnu", "llama.dll", wheels.LLAMA)


def cut_short(_: Workshop, wheel: Draft) -> None:
    data = wheel.members[LLAMA]
    wheel.members[LLAMA] = data[: len(data) * 2 // 3]


def cut_in_its_section_table(_: Workshop, wheel: Draft) -> None:
    """All that runs is there; of the sections, by which code is found, half are not."""
    data = wheel.members[LLAMA]
    wheel.members[LLAMA] = data[: (section_table(data)[0] + len(data)) // 2]


def garbage(_: Workshop, wheel: Draft) -> None:
    wheel.members[LLAMA] = bytes(range(256)) * 64


def empty_library(_: Workshop, wheel: Draft) -> None:
    wheel.members[LLAMA] = b""


def garbage_in_the_fat_binary(_: Workshop, wheel: Draft) -> None:
    data = wheel.members[CUDA]
    at = data.index(wheels.FATBIN) + 16
    wheel.members[CUDA] = data[:at] + b"\xa5" * 256 + data[at + 256 :]


def absurd_size_of_the_fat_binary(_: Workshop, wheel: Draft) -> None:
    data = wheel.members[CUDA]
    at = data.index(wheels.FATBIN) + 8
    wheel.members[CUDA] = data[:at] + b"\xff" * 8 + data[at + 8 :]


def no_fat_binary_of_that_version(_: Workshop, wheel: Draft) -> None:
    wheel.edit(CUDA, wheels.FATBIN, wheels.FATBIN[:4] + b"\x02\x00\x10\x00")


def requires_no_cublas(_: Workshop, wheel: Draft) -> None:
    line = f"Requires-Dist: {wheels.REQUIRES[2]}\n".encode()
    wheel.edit(f"{wheel.info}/METADATA", line, b"")


def requires_cublas_on_windows_alone(_: Workshop, wheel: Draft) -> None:
    marked = b'nvidia-cublas>=13.2.2.2,<14; sys_platform == "win32"'
    wheel.edit(f"{wheel.info}/METADATA", b"nvidia-cublas>=13.2.2.2,<14", marked)


def requires_any_cublas(_: Workshop, wheel: Draft) -> None:
    wheel.edit(f"{wheel.info}/METADATA", b"nvidia-cublas>=13.2.2.2,<14", b"nvidia-cublas>=13.2")


def requires_another_python(_: Workshop, wheel: Draft) -> None:
    wheel.edit(f"{wheel.info}/METADATA", b"Requires-Python: >=3.8", b"Requires-Python: >=3.12")


def another_time(_: Workshop, wheel: Draft) -> None:
    wheel.times[INIT] = (2026, 1, 1, 0, 0, 0)


def too_large(_: Workshop, wheel: Draft) -> None:
    wheel.members["llama_cpp/model.bin"] = os.urandom(31_000_000)


def link(_: Workshop, wheel: Draft) -> None:
    wheel.members["llama_cpp/link"] = b"/etc/passwd"
    wheel.modes["llama_cpp/link"] = stat.S_IFLNK | 0o777


def names_for_one_file(_: Workshop, wheel: Draft) -> None:
    wheel.members["llama_cpp/LLAMA.py"] = b"# another\n"


def leaves_its_folder(_: Workshop, wheel: Draft) -> None:
    wheel.members["llama_cpp/../../evil.py"] = b"# evil\n"


def search_path_that_leaves(shop: Workshop, wheel: Draft) -> None:
    path = "$ORIGIN:$ORIGIN/../../../../tmp"
    wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA, rpath=path)


def linked(*words: str) -> Defect:
    """libllama linked with further options."""

    def plant(shop: Workshop, wheel: Draft) -> None:
        wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA, *words)

    return plant


def written(code: str, *words: str) -> Defect:
    """libllama with more C code."""

    def plant(shop: Workshop, wheel: Draft) -> None:
        wheel.members[LLAMA] = shop.elf("libllama.so", wheels.LLAMA + code, *words)

    return plant


def evil_library(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/libggml-evil.so"] = shop.elf("libggml-evil.so", wheels.GGML)
    wheel.made = wheel.libraries


def with_member(name: str, data: bytes, mode: int = 0o644) -> Defect:
    def plant(_: Workshop, wheel: Draft) -> None:
        wheel.members[f"llama_cpp/{name}"] = data
        wheel.modes[f"llama_cpp/{name}"] = stat.S_IFREG | mode

    return plant


def gzipped_library(_: Workshop, wheel: Draft) -> None:
    wheel.members["llama_cpp/model.bin"] = gzip.compress(wheel.members[LLAMA])


def altered_code(old: bytes, new: bytes) -> Defect:
    """libggml-cuda with other bytes; fat binaries have no checksum."""

    def plant(_: Workshop, wheel: Draft) -> None:
        wheel.edit(CUDA, old, new)

    return plant


PTX_TEXT = (
    'EXPORT const char *text(void) { return ".version 9.0\\n.target sm_120\\n.entry f(){ret;}"; }'
)
TEXT_RELOCATION = '__asm__(".text\\n.quad llama_decode\\n");'
AS_A_PROGRAM = (
    'const char interp[] __attribute__((section(".interp"))) = "/lib64/ld-linux-x86-64.so.2";'
)
INSIDE = (
    'EXPORT const char *inside(void) { return "\\177ELF\\2\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0'
    + "\\2\\0\\276\\0"  # EM_CUDA
    + f'{"x" * 60}"; }}'
)
ALONE = {"libraries"}
STRANGE = UNREAD | {"sbom", "freshness"}  # a file that is not the build's and cannot be judged
HIDDEN: dict[str, tuple[Defect, set[str], str]] = {
    "search path that leaves": (search_path_that_leaves, {"paths"}, "leaves the wheel: ../../tmp"),
    "auxiliary": (linked("-Wl,-f,libevil.so"), ALONE, "by DT_AUXILIARY: libevil.so"),
    "filter": (linked("-Wl,-F,libevil.so"), ALONE, "by DT_FILTER: libevil.so"),
    "audit": (linked("-Wl,--audit,libevil.so"), ALONE, "by DT_AUDIT: libevil.so"),
    "audit of what it needs": (linked("-Wl,--depaudit,libe.so"), ALONE, "by DT_DEPAUDIT: libe.so"),
    "interposing": (linked("-Wl,-z,interpose"), ALONE, "DF_1_INTERPOSE"),
    "that dlopen refuses": (linked("-Wl,-z,nodlopen"), ALONE, "DF_1_NOOPEN"),
    "another SONAME": (linked("-Wl,-soname,libggml.so"), ALONE, "its SONAME is libggml.so"),
    "text relocation": (
        written(TEXT_RELOCATION, "-Wl,-z,notext"), ALONE, "it has text relocations",
    ),
    "program interpreter": (written(AS_A_PROGRAM), ALONE, "it names a program interpreter"),
    "raw PTX": (written(PTX_TEXT), {"gpu-code"}, "libllama.so: PTX at"),
    "raw cubin": (written(INSIDE), {"gpu-code"}, "libllama.so: a cubin at"),
    "library of no target": (evil_library, ALONE, "libggml-evil.so: not a library"),
    "static archive": (
        with_member("more.bin", b"!<arch>\n" + bytes(60)), STRANGE, "a static archive",
    ),
    "gzipped library": (gzipped_library, STRANGE, "model.bin: not checked, a gzip file"),
    "wheel in the wheel": (
        with_member("more.bin", b"PK\3\4" + bytes(60)), STRANGE, "a wheel in the wheel",
    ),
    "script": (
        with_member("run", b"#!/bin/sh\n", 0o755), STRANGE, "a script that can be",
    ),
    "fat binary without its magic": (
        altered_code(wheels.FATBIN, bytes(8)), {"gpu-code", "gpu-features"}, "fat binary at 0x",
    ),
    "fat binary with another magic": (
        altered_code(wheels.FATBIN, b"\x01\x5a\xe5\x1e" + wheels.FATBIN[4:]),
        {"gpu-code", "gpu-features"},
        "a piece of device code at",
    ),
    "fat binary that nothing registers": (
        altered_code(bytes.fromhex("b143624601000000"), bytes(8)), {"gpu-code"},
        "1 of 1 fat binaries are not registered",
    ),
}  # fmt: skip

PLANTED: dict[str, tuple[Defect, set[str], str]] = {
    "architecture 100": (architecture_100, {"gpu-code"}, "no SASS for sm_120"),
    "PTX only": (ptx_alone, {"gpu-code", "ptx", "gpu-features"}, "1 × PTX for compute_120"),
    "machine code and PTX": (machine_code_and_ptx, {"ptx"}, "1 × PTX for compute_120"),
    "two architectures": (two_architectures, {"gpu-code"}, "1 × SASS for sm_89"),
    "CPU code named cuda": (
        cpu_code_named_cuda, {"gpu-code", "gpu-features"}, "computes on the CPU only",
    ),
    "library of another build": (
        library_of_another_build, {"freshness"}, "libllama.so: made by another build",
    ),
    "library not of the build": (
        library_that_the_build_did_not_make, {"freshness", "sbom", "libraries"},
        "libextra.so: not made by that build",
    ),
    "second copy and strays": (
        second_copy_and_strays, {"layout", "imports"},
        "2 copies: llama_cpp/lib/libllama.so, lib/libllama.so",
    ),
    "AVX-512": (avx512, {"cpu-baseline"}, "× AVX512F, such as"),
    "AVX2-for-every-CPU": (avx2_in_the_module_for_every_cpu, {"cpu-baseline"}, "× AVX2, such as"),
    "no-module-for-every-CPU": (
        no_module_for_every_cpu, {"cpu-baseline"}, "there is no ggml-cpu-x64",
    ),
    "module-that-is-linked": (
        module_that_is_linked, {"cpu-baseline"}, "so every CPU has to run that module",
    ),
    "AVX-512 under another name": (
        avx512_under_another_name, {"cpu-baseline", "freshness", "sbom", "libraries"},
        "llama_cpp/cpu.dat",
    ),
    "no libmtmd": (no_mtmd, {"layout"}, "missing: mtmd"),
    "function gone": (function_gone, {"api"}, "llama_decode is not in"),
    "cuBLAS 12": (cublas_12, {"imports"}, "libcublas.so.12: CUDA 12"),
    "library from nowhere": (library_from_nowhere, {"imports"}, "libopenblas.so.0: nothing"),
    "searches the folder above": (
        searches_the_folder_above, {"imports"}, "no search path leads it to libllama.so",
    ),
    "needs a neighbour by its name": (
        needs_a_neighbour_by_its_name, {"imports"}, "libmtmd.so: needs libllama.so by its name",
    ),
    "searches a home folder": (searches_a_home_folder, {"paths"}, "/home/builder/lib"),
    "source path": (source_path, {"paths"}, "/home/builder/work/llama.cpp"),
    "source path with a space": (source_path_with_a_space, {"paths"}, "my builds/src/llama.cpp"),
    "renamed": (renamed, {"metadata"}, "0.3.16+cu131 by the file, 0.3.16 by METADATA"),
    "another Python": (another_python, {"metadata"}, "cp310-cp310, and the target's is cp311"),
    "tag too old": (tag_too_old, {"platform-tag"}, "libllama.so needs 2.25"),
    "packed relocations": (packed_relocations, {"platform-tag"}, "libllama.so needs"),
    "linux tag": (linux_tag, {"platform-tag"}, "linux_x86_64 is not a tag"),
    "another hash than recorded": (
        another_hash_than_recorded, {"record", "python-files"}, "another hash",
    ),
    "not in RECORD": (
        not_in_the_record, {"record", "python-files"}, "more.py: not listed",
    ),
    "recorded and gone": (recorded_and_gone, {"record"}, "more.py: listed, and not there"),
    "no loader": (no_loader, {"loader"}, "missing: nothing finds cudart"),
    "loader changed": (loader_changed, {"loader"}, "not the one that this target's wheel has"),
    "loader not called first": (
        loader_not_called_first, {"loader", "python-files"}, "does not call it first",
    ),
    "executable stack": (executable_stack, {"libraries"}, "wants an executable stack"),
    "for aarch64": (for_aarch64, {"libraries"}, "libllama.so: for aarch64"),
    "of 32 bits": (of_32_bits, {"libraries"}, "libllama.so: for i386"),
    "for Windows": (for_windows, {"libraries"}, "libllama.so: PE, and the tag says ELF"),
    "cut short": (cut_short, UNREAD | {"api"}, "libllama.so: not checked, cut short"),
    "cut in its section table": (
        cut_in_its_section_table, UNREAD | {"api"}, "libllama.so: not checked, cut short",
    ),
    "garbage": (garbage, UNREAD | {"api"}, "neither an ELF nor a PE file"),
    "empty library": (empty_library, UNREAD | {"api"}, "neither an ELF nor a PE file"),
    "garbage in the fat binary": (
        garbage_in_the_fat_binary, UNREAD, "libggml-cuda.so: not checked",
    ),
    "absurd size of the fat binary": (
        absurd_size_of_the_fat_binary, UNREAD, "reaches past the end of the file",
    ),
    "fat binary of another version": (
        no_fat_binary_of_that_version, {"gpu-code", "gpu-features"}, "no library contains GPU code",
    ),
    "requires no cuBLAS": (requires_no_cublas, {"imports", "sbom"}, "requires no nvidia-cublas"),
    "requires cuBLAS on Windows only": (
        requires_cublas_on_windows_alone, {"imports", "sbom"}, "nvidia-cublas",
    ),
    "requires any cuBLAS": (requires_any_cublas, {"imports"}, "does not limit pip to CUDA 13"),
    "requires another Python": (requires_another_python, {"metadata"}, ">=3.12 refuses"),
    "another time": (another_time, {"reproducible"}, "2 different times"),
    "too large": (too_large, {"size", "python-files"}, "the target allows 30"),
    "link": (link, {"archive", "python-files"}, "llama_cpp/link: a symbolic link"),
    "names for one file": (
        names_for_one_file, {"archive", "layout", "python-files"}, "2 names that Windows or macOS",
    ),
    "leaves its folder": (leaves_its_folder, {"archive", "python-files"}, "leaves its folder"),
}  # fmt: skip


PLANTED |= HIDDEN


@pytest.mark.parametrize(("plant", "expected", "word"), PLANTED.values(), ids=list(PLANTED))
def test_planted_defect_fails_its_checks_and_no_others(
    shop: Workshop, sound: Draft, tmp_path: Path, plant: Defect, expected: set[str], word: str
) -> None:
    wheel = sound.copy()
    plant(shop, wheel)
    checks = judged(wheel.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch")
    assert failing(checks) == expected, said(checks)
    assert len(checks) == CHECKS
    assert word in said(checks)


def test_wheel_whose_loader_cannot_find_cuda_pathfinder_fails(sound: Draft, tmp_path: Path) -> None:
    wheel = sound.copy()
    wheel.edit(f"{wheel.info}/METADATA", b"Requires-Dist: cuda-pathfinder>=1.3\n", b"")
    checks = judged(wheel.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch")
    assert "cuda-pathfinder" in said(checks)


def test_fp4_that_is_claimed_and_absent_fails_its_check_alone(
    shop: Workshop, sound: Draft, tmp_path: Path
) -> None:
    wheel = of_the_fp4_target(sound)
    wheel.members[CUDA] = shop.cuda("sm_120a")
    checks = judged(wheel.pack(tmp_path / "wheel"), target("rtx50-fp4"), tmp_path / "scratch")
    assert failing(checks) == {"gpu-features"}
    assert "no OMMA.E2M1 instruction; found: 1 × HMMA, 1 × IMMA" in said(checks)


def test_wheel_of_ours_without_a_record_is_neither_fresh_nor_reproducible(
    sound: Draft, tmp_path: Path
) -> None:
    path = sound.pack(tmp_path / "wheel", recorded=False)
    (tmp_path / "scratch").mkdir()
    found = reader.read(
        path,
        tmp_path / "scratch",
        child_environment.system_environment(os.environ),
        2,
        lambda *_: None,
    )
    groups = judge(Case(found, target("rtx50"), None, True, found.loader or "", wheels.preload()))
    checks = {check.id: check for group in groups for check in group.checks}
    assert failing(checks) == {"reproducible", "freshness"}


# ---- Planted in the wheel for Windows ----------------------------------------------------------


def windows_cublas_12(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/ggml-cuda.dll"] = shop.windows_cuda("sm_120", cublas="cublas64_12.dll")


def windows_vcomp_not_in_the_wheel(_: Workshop, wheel: Draft) -> None:
    del wheel.members[f"{LIB}/vcomp140.dll"]


def windows_avx512(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/ggml-cpu-haswell.dll"] = shop.windows_cpu("-mavx512f", "-DWIDTH=64")


def windows_debug_file(shop: Workshop, wheel: Draft) -> None:
    pdb = r"D:\a\llama\build\llama.pdb"
    wheel.members[f"{LIB}/llama.dll"] = shop.dll_with_debug_file("llama.dll", wheels.LLAMA, pdb)


def windows_architecture_100(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/ggml-cuda.dll"] = shop.windows_cuda("sm_100")


def windows_cpu_code_named_cuda(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/ggml-cuda.dll"] = shop.dll("ggml-cuda.dll", wheels.GGML)


def windows_cut_short(_: Workshop, wheel: Draft) -> None:
    data = wheel.members[f"{LIB}/llama.dll"]
    wheel.members[f"{LIB}/llama.dll"] = data[: len(data) * 2 // 3]


def windows_no_mtmd(_: Workshop, wheel: Draft) -> None:
    del wheel.members[f"{LIB}/mtmd.dll"]


def windows_of_32_bits(shop: Workshop, wheel: Draft) -> None:
    code = wheels.LLAMA
    wheel.members[f"{LIB}/llama.dll"] = shop.foreign("x86-windows-gnu", "llama.dll", code)


def windows_library_for_linux(shop: Workshop, wheel: Draft) -> None:
    wheel.members[f"{LIB}/llama.dll"] = shop.elf("llama.so", wheels.LLAMA)


PLANTED_ON_WINDOWS: dict[str, tuple[Defect, set[str], str]] = {
    "cuBLAS 12": (windows_cublas_12, {"imports"}, "cublas64_12.dll: CUDA 12"),
    "vcomp140 not in the wheel": (
        windows_vcomp_not_in_the_wheel, {"imports", "sbom"}, "vcomp140.dll: nothing provides it",
    ),
    "AVX-512": (windows_avx512, {"cpu-baseline"}, "× AVX512F, such as"),
    "debug file": (windows_debug_file, {"paths"}, r"D:\a\llama\build\llama.pdb"),
    "architecture 100": (windows_architecture_100, {"gpu-code"}, "no SASS for sm_120"),
    "CPU code named cuda": (
        windows_cpu_code_named_cuda, {"gpu-code", "gpu-features"}, "computes on the CPU only",
    ),
    "cut short": (windows_cut_short, UNREAD | {"api"}, "llama.dll: not checked"),
    "no mtmd.dll": (windows_no_mtmd, {"layout"}, "missing: mtmd"),
    "of 32 bits": (windows_of_32_bits, {"libraries"}, "llama.dll: for i386"),
    "library for Linux": (
        windows_library_for_linux, {"libraries", "imports"}, "ELF, and the tag says PE",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("plant", "expected", "word"), PLANTED_ON_WINDOWS.values(), ids=list(PLANTED_ON_WINDOWS)
)
def test_planted_defect_of_a_windows_wheel_fails_its_checks_and_no_others(
    shop: Workshop,
    sound_windows: Draft,
    tmp_path: Path,
    plant: Defect,
    expected: set[str],
    word: str,
) -> None:
    wheel = sound_windows.copy()
    plant(shop, wheel)
    path = wheel.pack(tmp_path / "wheel")
    checks = judged(path, target("rtx50", "windows"), tmp_path / "scratch")
    assert failing(checks) == expected, said(checks)
    assert len(checks) == CHECKS
    assert word in said(checks)


# ---- How it reads ------------------------------------------------------------------------------


def test_without_cuobjdump_nothing_is_known_of_device_code_and_nothing_passes(
    sound: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sound.pack(tmp_path / "wheel")
    (tmp_path / "scratch").mkdir()
    env = child_environment.system_environment(os.environ)
    found = reader.read(path, tmp_path / "scratch", env, 2, lambda *_: None)

    def none(name: str) -> Path:
        raise fatbin.Unreadable(f"the package nvidia-cuda-{name} is not installed")

    monkeypatch.setattr(gpu_code, "installed", none)
    (tmp_path / "libggml-cuda.so").write_bytes(sound.members[CUDA])
    read = library.read(tmp_path / "libggml-cuda.so", CUDA, tmp_path / "unpacked")
    assert read.device is not None
    assert read.device.error == "the package nvidia-cuda-cuobjdump is not installed"
    others = [item for item in found.libraries if item.member != CUDA]
    found = dataclasses.replace(found, libraries=(*others, read))
    record = records.read(path.parent / "wheel.json", "wheel", Wheel)
    groups = judge(Case(found, target("rtx50"), record, True, found.loader or "", wheels.preload()))
    checks = {check.id: check for group in groups for check in group.checks}
    assert failing(checks) == UNREAD
    assert "nvidia-cuda-cuobjdump is not installed" in checks["gpu-code"].evidence


def plant_avx512(data: bytes) -> bytes:
    """One AVX-512 instruction in the middle of a library's code, where an instruction begins."""
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
    """Where the section headers of a 64-bit ELF file begin, and how many there are."""
    return int.from_bytes(data[0x28:0x30], "little"), int.from_bytes(data[0x3C:0x3E], "little")


def test_library_of_an_older_linker_passes(shop: Workshop, sound: Draft, tmp_path: Path) -> None:
    """Its headers, its constants and its code are one segment, which the system executes."""
    wheel = sound.copy()
    code = wheels.LLAMA + 'EXPORT const char *text(void) { return "vaddps"; }'
    wheel.members[LLAMA] = shop.elf("libllama.so", code, OLD_LAYOUT)
    all_hold(judged(wheel.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch"))


def unmarked(data: bytes, name: str) -> bytes:
    """A library of which one section is no longer marked as code."""
    lief.logging.disable()
    binary = lief.ELF.parse(list(data))
    assert binary is not None
    flags = section_table(data)[0] + 64 * [s.name for s in binary.sections].index(name) + 8
    assert data[flags] & 4  # SHF_EXECINSTR
    return data[:flags] + bytes([data[flags] & ~4]) + data[flags + 1 :]


@pytest.mark.parametrize("layout", ["-Wl,-z,separate-code", OLD_LAYOUT])
def test_functions_outside_of_every_section_of_code_are_not_passed_over(
    shop: Workshop, sound: Draft, tmp_path: Path, layout: str
) -> None:
    data = shop.module("haswell", "-mavx2", "-DWIDTH=32", layout)
    wheel = sound.copy()
    wheel.members[f"{LIB}/libggml-cpu-haswell.so"] = unmarked(data, ".text")
    checks = judged(wheel.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch")
    assert failing(checks) == UNREAD
    assert "libggml-cpu-haswell.so: not checked, 2 functions outside of its code" in said(checks)


def test_code_that_is_executed_and_in_no_section_of_code_is_decoded(
    shop: Workshop, sound: Draft, tmp_path: Path
) -> None:
    code = wheels.CPU.replace("EXPORT", '__attribute__((noinline, section(".more"))) static')
    code += "EXPORT void ggml_cpu_twice(wide *x) { ggml_cpu_add(x, x); }"
    data = shop.elf("libggml-cpu-haswell.so", code, "-mavx512f", "-DWIDTH=64")
    wheel = sound.copy()
    wheel.members[f"{LIB}/libggml-cpu-haswell.so"] = unmarked(data, ".more")
    checks = judged(wheel.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch")
    assert failing(checks) == {"cpu-baseline"}
    assert "libggml-cpu-haswell.so: 3 × AVX512F" in said(checks)


def test_one_avx512_instruction_alone_fails_the_wheel(sound: Draft, tmp_path: Path) -> None:
    wheel = sound.copy()
    wheel.members[LLAMA] = plant_avx512(wheel.members[LLAMA])
    checks = judged(wheel.pack(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch")
    assert failing(checks) == {"cpu-baseline"}
    assert "libllama.so: 1 × AVX512F, such as" in said(checks)
    assert "vaddps zmm0,zmm0,zmm1" in said(checks)


def test_one_avx512_instruction_in_300_000_of_a_real_library_is_found(
    real_library: Callable[[str], Path], tmp_path: Path
) -> None:
    before = library.read(real_library(LLAMA), LLAMA, tmp_path / "before")
    planted = tmp_path / "libllama.so"
    planted.write_bytes(plant_avx512(real_library(LLAMA).read_bytes()))
    after = library.read(planted, LLAMA, tmp_path / "after")
    assert before.instructions > 300_000
    assert "AVX512F" not in before.cpu_features
    assert after.cpu_features["AVX512F"] == 1


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
    # As nvcc mangles a template's name: _Z18flash_attn_ext_f16I…
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


def test_names_in_a_fat_binary_say_nothing_that_is_believed(shop: Workshop, tmp_path: Path) -> None:
    """cuobjdump prints the name of a piece of code as it stands, line ends included."""
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
    """A fresh clone that has built nothing, with this project's own venv of nox.

    To it, a locked release is what a draft has of it.
    """
    project = pristine(environment, tmp_path_factory.mktemp("verify"))
    wheels.lock(project.root)
    return project


def pristine(environment: Mapping[str, str], folder: Path) -> Project:
    """A clone as it is."""
    root = folder / ODD
    copy_project(root)
    (REPOSITORY / ".nox").mkdir(exist_ok=True)
    (root / ".nox").symlink_to(REPOSITORY / ".nox")
    project = Project(root, environment)
    # In a fresh checkout this makes the venv, which is not part of the time of what follows.
    project.start("verify", "--help").end(timeout=600).well()
    return project


def verify(clone: Project, wheel: Path, tmp_path: Path) -> Ran:
    """Run the command on a wheel; all that it may leave behind is in build/."""
    (tmp_path / "tmp").mkdir()
    before = files(clone.root), snapshot(wheel.parent)
    run = clone.nox("verify", "--wheel", str(wheel), env={"TMPDIR": str(tmp_path / "tmp")})
    assert (files(clone.root), snapshot(wheel.parent)) == before
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (clone.root / "build" / "bug-verify.log").exists(), run.output
    return run


def files(root: Path) -> list[str]:
    """What is in and beside the project, less build/, .nox/ and what Python caches."""
    own = (root / "build", root / ".nox")
    found = [p for p in root.rglob("*") if not any(p.is_relative_to(folder) for folder in own)]
    beside = [p for p in root.parent.iterdir() if p.suffix != ".log"]
    return sorted(str(p) for p in [*found, *beside] if "__pycache__" not in p.parts)


def statuses(clone: Project, wheel: Path) -> dict[str, str]:
    """Each check's status by the report that the command left."""
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


def test_command_passes_a_foreign_wheel_and_says_what_cannot_be_known(
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
    for plant in (machine_code_and_ptx, avx512, no_mtmd, loader_changed, another_time):
        plant(shop, wheel)
    path = wheel.pack(tmp_path / "wheel")
    expected = ["layout", "ptx", "cpu-baseline", "loader"]
    run = verify(clone, path, tmp_path).badly(
        f"{path.name} fails 4 of {CHECKS} checks for the target rtx50: {', '.join(expected)}."
    )
    assert run.code == 1
    for id_ in expected:
        assert f"✗ {id_}: " in run.output
    assert "! reproducible: " in run.output  # not built here: that fails a wheel of ours only
    found = statuses(clone, path)
    assert [id_ for id_, status in found.items() if status == "fail"] == expected
    assert sorted(found.values()) == ["fail"] * 4 + ["ok"] * (CHECKS - 5) + ["warn"]


def text_wheel() -> Draft:
    """A wheel without libraries, which is enough for what is wrong with its zip file."""
    return wheels.draft({})


def link_member(folder: Path) -> Path:
    wheel = text_wheel()
    wheel.members[f"{LIB}/libllama.so"] = b"/etc/passwd"
    wheel.modes[f"{LIB}/libllama.so"] = stat.S_IFLNK | 0o777
    return wheel.pack(folder)


def parent_member(folder: Path) -> Path:
    wheel = text_wheel()
    wheel.members["../../../escaped.so"] = b"\x7fELF evil"
    wheel.members["/tmp/escaped.so"] = b"\x7fELF evil"
    return wheel.pack(folder)


def control_characters(folder: Path) -> Path:
    wheel = text_wheel()
    wheel.members["llama_cpp/\x1b[31mred\x1b]0;title\x07.py"] = b""
    wheel.record()
    wheel.members["\x1b[2J.py"] = b""
    return wheel.pack(folder)


def ten_thousand_members(folder: Path) -> Path:
    wheel = text_wheel()
    wheel.members |= {f"llama_cpp/{number}.py": b"" for number in range(10_000)}
    return wheel.pack(folder)


def bomb(folder: Path) -> Path:
    """8 GiB of zeros, it says, of which 32 MiB are there."""
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as opened:
        for number in range(2):
            opened.writestr(f"llama_cpp/{number}.so", bytes(1 << 24))
            opened.getinfo(f"llama_cpp/{number}.so").file_size = (1 << 32) - 2
    return path


def overlapping(folder: Path) -> Path:
    """Many members of which all are the same bytes of the file."""
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("llama_cpp/0.so", bytes(1 << 24))
        first = opened.getinfo("llama_cpp/0.so")
        for number in range(1, 100):
            again = zipfile.ZipInfo(f"llama_cpp/{number}.so", wheels.TIME)
            for part in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                setattr(again, part, getattr(first, part))
            opened.filelist.append(again)
            opened.NameToInfo[again.filename] = again
        opened._didModify = True  # type: ignore[attr-defined]
    return path


def liar(folder: Path) -> Path:
    """16 bytes, it says; 16 MiB come out."""
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("llama_cpp/0.so", bytes(1 << 24))
        opened.getinfo("llama_cpp/0.so").file_size = 16
    return path


def no_zip(folder: Path) -> Path:
    path = text_wheel().pack(folder)
    path.write_bytes(b"this is not a wheel\n" * 1000)
    return path


def empty_zip(folder: Path) -> Path:
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "w"):
        pass
    return path


def folders_alone(folder: Path) -> Path:
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("llama_cpp/", b"")
    return path


def zip_of_the_future(folder: Path) -> Path:
    """A member that says it needs version 25.5 of the zip specification."""
    path = text_wheel().pack(folder)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(data)
    return path


def damaged_lzma(folder: Path) -> Path:
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as opened:
        opened.writestr("llama_cpp/more.py", b"# more\n" * 100)
        offset = opened.getinfo("llama_cpp/more.py").header_offset
    data = bytearray(path.read_bytes())
    start = offset + 30 + len("llama_cpp/more.py")
    data[start + 4 : start + 9] = b"\xff" * 5
    path.write_bytes(data)
    return path


def offset_beyond_measure(folder: Path) -> Path:
    """A member that is, if its zip64 field is right, 2^63 bytes and more from the start."""
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("llama_cpp/more.py", b"")
        opened.getinfo("llama_cpp/more.py").header_offset = (1 << 64) - 1
    return path


def no_name(folder: Path) -> Path:
    path = text_wheel().pack(folder)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(zipfile.ZipInfo("", wheels.TIME), b"# without a name\n")
    return path


def huge_field_of_record(folder: Path) -> Path:
    wheel = text_wheel()
    wheel.record()
    wheel.members[f"{wheel.info}/RECORD"] += b"x" * 200_000 + b",,\n"
    return wheel.pack(folder)


def deep_python(folder: Path) -> Path:
    wheel = text_wheel()
    wheel.members["llama_cpp/deep.py"] = b"x = " + b"-" * 200_000 + b"1\n"
    return wheel.pack(folder)


Hostile = Callable[[Path], Path]
HOSTILE: dict[str, tuple[Hostile, str]] = {
    "link": (link_member, "llama_cpp/lib/libllama.so: a symbolic link"),
    "parent folder": (parent_member, "leaves its folder"),
    "control characters": (control_characters, "not a name for a file on every system"),
    "10,000 members": (ten_thousand_members, "more than 2000 are not read"),
    "bomb": (bomb, "more than 67108864 are not read"),
    "overlapping": (overlapping, "members overlap: "),
    "wrong size": (liar, "llama_cpp/0.so: its local header has another size"),
    "no zip": (no_zip, "not a zip file that can be read"),
    "empty zip": (empty_zip, "archive: "),
    "folders only": (folders_alone, "archive: "),
    "zip of the future": (zip_of_the_future, "it needs version 25.5 of zip"),
    "damaged LZMA": (damaged_lzma, "llama_cpp/more.py: neither stored nor deflated"),
    "offset beyond measure": (offset_beyond_measure, "more.py"),
    "member without a name": (no_name, "archive: "),
    "huge field of RECORD": (huge_field_of_record, "RECORD"),
    "deep Python": (deep_python, "no library in it"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "word"), HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_file_is_a_finding(tmp_path: Path, make: Hostile, word: str) -> None:
    checks = judged(make(tmp_path / "wheel"), target("rtx50"), tmp_path / "scratch")
    assert failing(checks)
    assert word in said(checks)


@pytest.mark.parametrize("name", ["parent folder", "bomb", "control characters"])
def test_command_refuses_a_hostile_file(clone: Project, tmp_path: Path, name: str) -> None:
    make, word = HOSTILE[name]
    wheel = make(tmp_path / "wheel")
    run = verify(clone, wheel, tmp_path).badly(word, "✗ archive: ")
    assert run.code == 1
    assert run.seconds < 30
    assert "\x1b" not in run.output  # a name may not command the terminal
    assert statuses(clone, wheel)["archive"] == "fail"
    assert not list(tmp_path.rglob("*escaped*")) + list(Path("/tmp").glob("escaped*"))


def test_file_of_dots_leaves_the_records_of_the_target_alone(
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
