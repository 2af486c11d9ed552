"""Checks of a wheel: a sound wheel passes; each defect fails its checks and no other."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from sessions.shared import knowledge, records
from sessions.shared.check_result import Check
from sessions.verify import checks_file, wheel_facts, wheel_rules
from sessions.verify import checks_libraries as host
from sessions.verify.check_input import SHOWN, Case, stem
from sessions.verify.checks_gpu_code import has_feature
from sessions.verify.run_checks import check_wheel
from sessions.verify.wheel_facts import Binding, Library, Material, WheelFacts
from tests import fakes

LIB = "llama_cpp/lib"
LLAMA, MTMD = fakes.wheel_facts().bindings[0], fakes.wheel_facts().bindings[2]
IDS = {
    "archive", "record", "metadata", "layout", "python-files", "size", "sbom", "reproducible",
    "gpu-code", "ptx", "gpu-features",
    "libraries", "imports", "api", "cpu-baseline", "paths", "platform-tag",
    "loader", "freshness",
}  # fmt: skip


def checks(case: Case) -> dict[str, Check]:
    """All checks of a wheel, by id."""
    return {check.id: check for group in check_wheel(case) for check in group.checks}


def with_status(case: Case, status: str) -> set[str]:
    """The ids of the checks that have this status."""
    return {id_ for id_, check in checks(case).items() if check.status == status}


def not_ok(case: Case) -> list[str]:
    return [f"{c.summary}: {c.evidence}" for c in checks(case).values() if c.status != "ok"]


# ---- Builders of wheels with a defect ------------------------------------------------------------


def edited(
    file: str, libraries: tuple[Library, ...] | None = None, **changes: Any
) -> tuple[Library, ...]:
    """The libraries, with changes to the one with this file name."""
    inside = fakes.libraries() if libraries is None else libraries
    assert [found for found in inside if found.member == f"{LIB}/{file}"]  # else nothing changes
    return tuple(
        dataclasses.replace(found, **changes) if found.member == f"{LIB}/{file}" else found
        for found in inside
    )


def facts(target: dict[str, Any] | None = None, **changes: Any) -> Case:
    """The rtx50 wheel with other facts; ``target`` are changes to its target."""
    return fakes.case(fakes.wheel_facts(**changes), spec=fakes.claiming(**(target or {})))


def linux(file: str, target: dict[str, Any] | None = None, **changes: Any) -> Case:
    """The rtx50 wheel with one changed library."""
    return facts(target, libraries=edited(file, **changes))


def llama(**changes: Any) -> Case:
    """The rtx50 wheel with another libllama.so."""
    return linux("libllama.so", **changes)


def cuda(target: dict[str, Any] | None = None, **changes: Any) -> Case:
    """The rtx50 wheel with other GPU code."""
    return linux("libggml-cuda.so", target, device=fakes.device(**changes))


def for_archs(*archs: str, **changes: Any) -> Case:
    """The rtx50 wheel with other GPU code, for a target with these architectures."""
    return cuda({"archs": archs}, **changes)


def needing(file: str, *names: str) -> Case:
    """The rtx50 wheel with one library that needs these libraries too."""
    (found,) = (found for found in fakes.libraries() if found.member == f"{LIB}/{file}")
    return linux(file, imports=(*found.imports, *names))


def without(file: str) -> Case:
    """The rtx50 wheel without a library; its build did not make it either."""
    return facts(libraries=tuple(lib for lib in fakes.libraries() if not lib.member.endswith(file)))


def with_more(*members: str) -> Case:
    """The rtx50 wheel with further libraries, which its build made too."""
    return facts(libraries=(*fakes.libraries(), *map(fakes.library, members)))


def unread(file: str) -> Case:
    """The rtx50 wheel with a library that could not be read."""
    (found,) = (found for found in fakes.libraries() if found.member == f"{LIB}/{file}")
    error = "its reader ended with -11: it printed nothing"
    return linux(file, **vars(wheel_facts.unread(found.member, found.sha256, found.size, error)))


def sbom(**changes: Any) -> Case:
    """The rtx50 wheel with another SBOM."""
    return facts(bills=(fakes.bill(fakes.wheel_facts(), **changes),))


def component(named: str, **changes: Any) -> Case:
    """The rtx50 wheel with one changed component in its SBOM."""
    parts = fakes.bill(fakes.wheel_facts()).materials
    assert named in [part.name for part in parts]  # else nothing changes
    return sbom(
        materials=tuple(
            dataclasses.replace(part, **changes) if part.name == named else part for part in parts
        )
    )


def members(*names: str) -> Case:
    """The rtx50 wheel with further members."""
    return facts(members={**fakes.wheel_facts().members, **dict.fromkeys(names, 1)})


def tagged(*tags: str, **changes: Any) -> Case:
    """The rtx50 wheel with other tags, in its name and in WHEEL."""
    return facts(tags=tags, wheel_tags=tags, **changes)


def platform(name: str, **changes: Any) -> Case:
    return tagged(f"cp311-cp311-{name}", **changes)


def for_old_glibc(*materials: Material) -> Case:
    """The rtx50 wheel for a target with glibc 2.28, with these components in its SBOM too."""
    bill = fakes.bill(fakes.wheel_facts())
    bill = dataclasses.replace(bill, materials=(*bill.materials, *materials))
    return facts({"glibc": "2.28"}, bills=(bill,))


def requiring(*requirements: str) -> Case:
    """The rtx50 wheel with these instead of its requirement of nvidia-cublas."""
    others = [text for text in fakes.wheel_facts().requires if "cublas" not in text]
    return facts(requires=(*others, *requirements))


def recorded(**changes: Any) -> Case:
    """The rtx50 wheel with another record of its build."""
    return fakes.case(record=fakes.recorded(fakes.wheel_facts(), **changes))


def release(number: str, tag: str, **target: Any) -> Case:
    """A wheel of another release with this tag, for a target with that release."""
    tags = (f"{tag}-manylinux_2_35_x86_64",)
    version = {"version": number, "metadata_version": number}
    return facts({"version": number, **target}, tags=tags, wheel_tags=tags, **version)


CUBLAS = knowledge.floors("13")["nvidia-cublas"]
CPU_SPEC = fakes.cpu_spec(budget_mb=4)
WINDOWS_SPEC = fakes.claiming(platform="windows")


def cpu_facts(**changes: Any) -> Case:
    """The wheel of the cpu target with other facts."""
    return fakes.case(fakes.cpu_facts(**changes), spec=CPU_SPEC)


def cpu(file: str = "libggml-cpu-haswell.so", **changes: Any) -> Case:
    """The wheel of the cpu target with one changed library."""
    return cpu_facts(libraries=edited(file, fakes.cpu_facts().libraries, **changes))


def windows(**changes: Any) -> Case:
    """The Windows wheel with other facts."""
    return fakes.case(fakes.windows_facts(**changes), spec=WINDOWS_SPEC)


def dll(file: str, *imports: str, **changes: Any) -> Case:
    """The Windows wheel with one library that is changed or needs these DLLs too."""
    (found,) = (f for f in fakes.windows_libraries() if f.member == f"{LIB}/{file}")
    changes = {"imports": (*found.imports, *imports), **changes}
    return windows(libraries=edited(file, fakes.windows_libraries(), **changes))


MADE = fakes.recorded(fakes.wheel_facts()).libraries
FILES = fakes.wheel_facts().package_files
MODULE = "llama_cpp/llama_cpp.py"
INFO = fakes.INFO
FP4 = ("HMMA", "IMMA", "OMMA.E2M1")
OMMA = {"HMMA.16816.F32": 5, "IMMA.16832.S8.S8": 6, "OMMA.SF.16864.F32.E2M1.E2M1.E8": 7}
AVX2 = {**fakes.BASELINE, "AVX2": 3}
AVX512: dict[str, Any] = {
    "cpu_features": {**fakes.BASELINE, "AVX512F": 9},
    "first_use": {"AVX512F": ["0x1a2b vaddps zmm0,zmm0,zmm1"]},
}
OLD = {"GLIBC": "2.17", "GLIBCXX": "3.4.19", "CXXABI": "1.3.7", "GCC": "4.8.0"}
OLD_LIBRARIES = tuple(
    dataclasses.replace(found, symbol_versions=OLD) for found in fakes.libraries()
)
# The checks that read all libraries. `api` reads only those whose functions Python looks up.
NEED_LIBRARIES = (
    "gpu-code ptx gpu-features libraries imports cpu-baseline paths platform-tag"  # ids
)

# The ids of the checks that must fail -> wheels with one defect, and a part of the evidence.
DEFECTS: dict[str, list[tuple[Case, str]]] = {
    # -- GPU code
    "gpu-code": [
        (
            cuda(sass={"sm_100": 98}),
            "no SASS for sm_120\n"
            f"{LIB}/libggml-cuda.so: 98 × SASS for sm_100, which the target does not name",
        ),
        (cuda(sass={"sm_120": 98, "sm_90": 98}), "98 × SASS for sm_90, which the target does not"),
        (cuda(sass={"sm_120a": 98}), "98 × SASS for sm_120a"),
        (for_archs("120a-real"), "no SASS for sm_120a"),
        (
            facts(
                libraries=edited(
                    "libggml-cuda.so", edited("libllama.so", device=fakes.device()), device=None
                )
            ),
            "libggml-cuda.so: it contains no GPU code",
        ),
        (llama(device=fakes.device(sass={"sm_89": 1})), "libllama.so: 1 × SASS for sm_89"),
        (for_archs("120-real", "90-real"), "no SASS for sm_90"),
        (
            for_archs("120-real", "90-real", sass={"sm_120": 98, "sm_90": 1}),
            "libggml-cuda.so: 1 × SASS for sm_90 in 98 fat binaries",
        ),
        (for_archs("120", sass={"sm_120": 1}, ptx={"compute_120": 98}), "1 × SASS for sm_120 in"),
        (for_archs("120-virtual", ptx={"compute_120": 98}), "98 × SASS for sm_120, which the"),
        (cpu(device=fakes.device()), "98 × SASS for sm_120, which the target does not name"),
        (cuda(hidden=("a cubin at 0x100",)), "libggml-cuda.so: a cubin at 0x100"),
        (
            llama(device=fakes.device(containers=0, sass={}, hidden=("PTX at 0x1",))),
            "libllama.so: PTX at 0x1",
        ),
    ],
    "ptx": [
        (cuda(ptx={"compute_120": 98}), "98 × PTX for compute_120, to be compiled by the driver"),
        (for_archs("120", ptx={"compute_120": 97}), "97 × PTX for compute_120 in 98 fat binaries"),
        (for_archs("120"), "no PTX for compute_120"),
        (for_archs("120", ptx={"compute_90": 98}), "98 × PTX for compute_90"),
        (cpu(device=fakes.device(sass={}, ptx={"compute_120": 1})), "1 × PTX for compute_120"),
    ],
    "gpu-features": [
        (facts({"device_features": FP4}), "no OMMA.E2M1 instruction; found: 23424 × HMMA, 36288"),
        (cuda(tensor={}), "no HMMA instruction; found: no tensor-core instructions"),
    ],
    "gpu-code gpu-features": [
        (linux("libggml-cuda.so", device=None), "this wheel computes on the CPU only"),
        (without("libggml-cuda.so"), "there is no ggml-cuda library"),
    ],
    "gpu-code ptx gpu-features": [
        (cuda(sass={}, ptx={"compute_120": 98}, instructions=0, tensor={}), "no SASS for sm_120"),
    ],
    # -- CPU code and what the libraries need
    "libraries": [
        (llama(executable_stack=True), "libllama.so: wants an executable stack"),
        (llama(machine="aarch64", instructions=0, cpu_features={}), "libllama.so: for aarch64"),
        (llama(machine=""), "an unknown machine"),
        (llama(instructions=0, cpu_features={}), "libllama.so: no machine code in it"),
        (llama(format="pe"), "libllama.so: PE, and the tag says ELF"),
        (dll("llama.dll", format="elf"), "llama.dll: ELF, and the tag says PE"),
        (llama(faults=("it has DT_FILTER: libevil.so",)), "libllama.so: it has DT_FILTER: libevil"),
        (llama(soname="libggml.so"), "its SONAME is libggml.so"),
    ],
    "libraries layout api": [
        (
            facts(libraries=edited("libmtmd.so", member=f"{LIB}/libggml-evil.so"), bindings=()),
            "libggml-evil.so: not a library that a wheel",
        ),
    ],
    NEED_LIBRARIES: [
        (linux("libggml-cuda.so", error="cut short: 10 bytes of 20"), "libggml-cuda.so: not"),
    ],
    f"{NEED_LIBRARIES} api": [
        (unread("libllama.so"), "libllama.so: not checked, its reader ended with -11"),
        (llama(error="cut short: 10 bytes of 20"), "libllama.so: not checked, cut short: 10 bytes"),
    ],
    "imports": [
        (needing("libggml-cuda.so", "libcublas.so.12"), "libcublas.so.12: CUDA 12, and the"),
        (
            needing("libmtmd.so", "libopenblas.so.0"),
            "libopenblas.so.0: nothing provides it (needed by libmtmd.so)",
        ),
        (needing("libmtmd.so", "libllama.so.0"), "libllama.so.0: nothing provides it"),
        (llama(imports=("libggml-base.so",), search_paths=()), "libllama.so: no search path"),
        (llama(imports=("libggml-base.so",)), "libllama.so: needs libggml-base.so by its name"),
        (llama(imports=("$ORIGIN/libggml-new.so",)), "$ORIGIN/libggml-new.so: nothing provides"),
        (
            linux("libmtmd.so", imports=("libggml.so",), search_paths=("$ORIGIN/..",)),
            "libmtmd.so: no search path leads it to libggml.so",
        ),
        (needing("libllama.so", "../../evil/libggml.so"), "../../evil/libggml.so: a path, not a"),
        (needing("libllama.so", "$ORIGIN"), "$ORIGIN: a path, not a name"),
        (dll("llama.dll", "..\\evil.dll"), "evil.dll: a path, not a name"),
        (
            linux("libggml-cuda.so", runtime={**fakes.RUNTIME, "libcublas.so.13": ("cublasNew",)}),
            f"nvidia-cublas {CUBLAS.version}, which METADATA admits, lacks functions that",
        ),
        (linux("libggml-cuda.so", runtime={}), "libcudart.so.13: not checked, it is not known"),
        (requiring("nvidia-cublas>=13,<14"), f"admits releases older than {CUBLAS.version}"),
        (requiring(), "libcublas.so.13: METADATA requires no nvidia-cublas, so nothing brings it"),
        *(
            (requiring(text), "METADATA requires no nvidia-cublas")
            for text in (
                'nvidia-cublas<14,>=13.2; extra == "cuda"',
                "nvidia-cublas-cu12<13,>=12.1",
                "nvidia-cublas<14,>=13.2; sys_platform == 'win32'",
                "nvidia-cublas<14,>=13.2; python_version < '3.9'",
                "nvidia-cublas<14,>=13.2; platform_machine == 'aarch64'",
                "nvidia-cublas<14,>=13.2; platform_release > '5'",
            )
        ),
        (requiring("nvidia-cublas"), "libcublas.so.13: nvidia-cublas does not limit pip to CUDA"),
        *(
            (requiring(text), "does not limit pip to CUDA 13")
            for text in (
                "nvidia-cublas>=13",
                "nvidia-cublas<14",
                "nvidia-cublas<13,>=12.1",
                "nvidia-cublas<15,>=13.1",
                "nvidia-cublas<14.9,>=13.2",
                "nvidia-cublas<=14,>=13.2",
                "nvidia-cublas<15,>=13.2,!=14.0,!=14.5",
                "nvidia-cublas==14.1.2.3",
                "nvidia-cublas @ https://example.org/nvidia_cublas.whl",
                "nvidia-cublas===new",
            )
        ),
        (cpu(imports=("libc.so.6", "libcudart.so.13")), "libcudart.so.13: CUDA, and the target"),
        (cpu(imports=("libc.so.6", "libcuda.so.1")), "libcuda.so.1: the driver's, and the target"),
        (dll("ggml-cuda.dll", "cublas64_12.dll"), "cublas64_12.dll: CUDA 12, and the target is"),
        (
            windows(requires=("cuda-pathfinder", "nvidia-cublas<14,>=13.2")),
            "cudart64_13.dll: METADATA requires no nvidia-cuda-runtime",
        ),
        (dll("llama.dll", "msvcp140.dll"), "msvcp140.dll: nothing provides it (needed by llama.d"),
        (dll("ggml-cpu-haswell.dll", "vcomp140.dll"), "vcomp140.dll: nothing provides it"),
        (dll("llama.dll", "libstdc++.so.6"), "libstdc++.so.6: nothing provides it"),
        (windows(preload=None, preload_called=False), "loads it from llama_cpp_python.libs first"),
        (windows(preload_called=False), f"ggml-cpu-haswell.dll: needs vcomp140-{'0f' * 16}.dll,"),
    ],
    "imports python-files": [
        (windows(preload="e" * 64), f"ggml-base.dll: needs msvcp140-{'0f' * 16}.dll, and nothing"),
    ],
    "imports metadata": [
        (requiring("nvidia-cublas about 13"), "METADATA requires no nvidia-cublas"),
        *(
            (requiring(text), f"Requires-Dist {text!r:.80} cannot be read")
            for text in (
                f"nvidia-cublas; {'(' * 9_000}os_name == 'nt'{')' * 9_000}",
                "nvidia-cublas<14,>=13.2; os_name ~= 'posix'",
                "nvidia-cublas<14,>=13.2; 'cuda' in extras",
                "nvidia-cublas<14,>=13.2; 'cuda' in dependency_groups",
                f"nvidia-cublas>={'9' * 5_000}",
                f"nvidia-cublas; python_version > '{'9' * 5_000}'",
            )
        ),
    ],
    "api": [
        (llama(exports=("llama_free",)), f"{MODULE}: llama_decode is not in {LIB}/libllama.so"),
        (dll("mtmd.dll", exports=()), f"mtmd_init is not in {LIB}/mtmd.dll"),
        (
            facts(bindings=tuple(dataclasses.replace(b, functions=()) for b in (LLAMA, MTMD))),
            "no module looks up a function",
        ),
    ],
    "cpu-baseline": [
        (
            linux("libggml-cpu-haswell.so", **AVX512),
            "libggml-cpu-haswell.so: 9 × AVX512F, such as 0x1a2b vaddps zmm0,zmm0,zmm1",
        ),
        (llama(**AVX512), "libllama.so: 9 × AVX512F"),
        (llama(cpu_features=AVX2), "libllama.so: 3 × AVX2"),
        (linux("libggml-cpu-x64.so", cpu_features=AVX2), "libggml-cpu-x64.so: 3 × AVX2"),
        (without("libggml-cpu-x64.so"), "there is no ggml-cpu-x64, the module that every CPU can"),
        (
            facts(
                libraries=tuple(
                    lib
                    for lib in edited(
                        "libggml-cpu-x64.so",
                        member=f"{LIB}/libggml-cpu.so",
                        soname="$ORIGIN/libggml-cpu.so",
                    )
                    if "haswell" not in lib.member
                )
            ),
            "there is no ggml-cpu-x64, the module that every CPU can run",
        ),
        (
            linux(
                "libggml-cpu-haswell.so",
                member=f"{LIB}/libggml-cpu-fast.so",
                soname="$ORIGIN/libggml-cpu-fast.so",
            ),
            "it is not known which CPUs a module of that name is for",
        ),
        (
            linux("libggml-cpu-haswell.so", exports=("ggml_backend_init",)),
            "libggml-cpu-haswell.so: exports no ggml_backend_score, so ggml does not load it",
        ),
        (
            linux("libggml.so", imports=("$ORIGIN/libggml-cpu-haswell.so", "libc.so.6")),
            "libggml.so: needs $ORIGIN/libggml-cpu-haswell.so, so every CPU has to run that module",
        ),
        (llama(instructions=100_000, cpu_features={"INVALID": 1_000}), "1000 × INVALID"),
    ],
    "paths": [
        *(
            (llama(search_paths=("$ORIGIN", path)), phrase)
            for path, phrase in {
                "/home/user/build/bin": "libllama.so: searches for libraries in /home/user/build",
                "": "searches for libraries in an empty path",
                "lib": "in lib",
                "$ORIGINAL/lib": "in $ORIGINAL/lib",
                "$LIB": "in $LIB",
                "$ORIGIN/$PLATFORM": "$ORIGIN/$PLATFORM, which each system reads otherwise",
                "$ORIGIN/../../../../tmp": "a search path leaves the wheel: ../../tmp",
                "${ORIGIN}/../../..": "a search path leaves the wheel: ..",
            }.items()
        ),
        (llama(build_paths=("/home/user/a.cpp", "/home/user/b.cpp")), "libllama.so: 2 of source"),
        (
            dll("llama.dll", build_paths=(r"D:\a\llama\llama.pdb",)),
            r"llama.dll: 1 of source and debug files, such as D:\a\llama\llama.pdb",
        ),
    ],
    "platform-tag": [
        (platform("manylinux_2_31_x86_64"), "manylinux_2_31_x86_64 has GLIBC 2.31;"),
        (platform("manylinux_2_34_x86_64"), "GLIBCXX 3.4.29; libggml-cuda.so needs 3.4.30"),
        (platform("manylinux2014_x86_64"), "manylinux2014_x86_64 has GLIBC 2.17"),
        (for_old_glibc(fakes.material("libstdc++")), "manylinux_2_35_x86_64: the target is for"),
        (
            tagged("cp311-cp311-manylinux_2_31_x86_64", "cp311-cp311-manylinux_2_35_x86_64"),
            "manylinux_2_31_x86_64 has GLIBC 2.31",
        ),
        (platform("linux_x86_64"), "linux_x86_64 is not a tag of Windows x64 or manylinux x86_64"),
        (
            windows(tags=("cp311-cp311-win32",), wheel_tags=("cp311-cp311-win32",)),
            "win32 is not a tag of Windows x64",
        ),
        (
            llama(symbol_versions={"GLIBC": "2.34", "GLIBC_ABI_DT_RELR": "0"}),
            "manylinux_2_35_x86_64 has no GLIBC_ABI_DT_RELR; libllama.so needs it",
        ),
        (
            platform(
                "manylinux_2_41_x86_64",
                libraries=edited("libllama.so", symbol_versions={"GLIBC_PRIVATE": "0"}),
            ),
            "has no GLIBC_PRIVATE; libllama.so needs it",
        ),
    ],
    "platform-tag sbom": [(for_old_glibc(), "libstdc++: in the wheel, and not named")],
    # -- The file
    "archive": [(facts(archive_problems=("a.py: 2 members",)), "a.py: 2 members")],
    "record": [(facts(record_problems=("a.py: another hash",)), "a.py: another hash")],
    "metadata": [
        (facts(version="0.3.16+cu131"), "version: 0.3.16+cu131 by the file, 0.3.16 by METADATA"),
        (release("0.3.15", "cp311-cp311", version="0.3.16"), "version: 0.3.15, and the target's"),
        (facts(version="", metadata_version=""), "version:  by the file"),
        (facts(name="llama-cpp", metadata_name="llama_cpp"), "name: llama-cpp by the file,"),
        (facts(metadata_name=""), "none by METADATA"),
        (facts(metadata_problems=("no WHEEL",)), "no WHEEL"),
        (tagged("cp312-cp312-manylinux_2_35_x86_64"), "Python tag: cp312-cp312, and the target's"),
        (release("0.3.36", "cp311-cp311"), "Python tag: cp311-cp311, and the target's is py3-none"),
        (facts(wheel_tags=("cp311-cp311-linux_x86_64",)), "cp311-cp311-manylinux_2_35_x86_64 by"),
        (facts(requires_python=">=3.12"), "Requires-Python >=3.12 refuses the target's 3.11"),
        (facts(requires_python="3 or so"), "Requires-Python '3 or so' cannot be read"),
        (facts(purelib=True), "Root-Is-Purelib is not false"),
        (fakes.case(fakes.windows_facts()), "platform: cp311-cp311-win_amd64, and the target's"),
        *(
            (facts(requires=(*fakes.wheel_facts().requires, text)), "upstream does not require it")
            for text in (
                "evil",
                "evil; extra == 'server'",
                "numpy @ https://example.org/numpy.whl",
                "numpy==1.20.1",
                "nvidia-cublas-evil",
            )
        ),
    ],
    "layout": [
        (
            members("bin/llama-mtmd-cli", "include/llama.h", "include/ggml.h"),
            "stray: bin/ (1 files)\nstray: include/ (2 files)",
        ),
        (members("README.md"), "stray: README.md (1 files)"),
        (
            with_more("lib/libllama.so", "lib/libmtmd.so"),
            f"stray: lib/ (2 files)\n2 copies: {LIB}/libllama.so, lib/libllama.so",
        ),
        (with_more(f"{LIB}/libllama.so.0"), f"2 copies: {LIB}/libllama.so, {LIB}/libllama.so.0"),
        (
            with_more("llama_cpp_python.libs/libgomp-a34b3233.so.1.0.0"),
            f"2 copies: {LIB}/libgomp.so.1, llama_cpp_python.libs/libgomp-a34b3233.so.1.0.0",
        ),
        (without("libmtmd.so"), f"missing: mtmd, which llama_cpp/mtmd_cpp.py loads from {LIB}/"),
        (
            facts(bindings=(LLAMA, MTMD, Binding("llama_cpp/llava_cpp.py", "llava", (), True))),
            "missing: llava",
        ),
        # What Python or an installer would run or read.
        *(
            (members(member), member.removesuffix("__init__.py"))
            for member in (
                "llama_cpp/llama_cpp.pyc",
                "llama_cpp/llama_cpp.PYO",
                "llama_cpp/__pycache__/llama_cpp.cpython-311.pyc",
                "llama_cpp/__pycache__/x.py",
                "llama_cpp/a.pth",
                "llama_cpp/A.PTH",
                "llama_cpp/sitecustomize.py",
                f"{INFO}/entry_points.txt",
                f"{INFO}/direct_url.json",
                f"{INFO}/INSTALLER",
                f"{INFO}/setup.py",
                "llama_cpp/llama_cpp/__init__.py",  # Python takes it instead of llama_cpp.py
                "llama_cpp/llama_cpp.cpython-311-x86_64-linux-gnu.so",
                "llama_cpp/llama_cpp.so",
                "llama_cpp/llama_cpp.abi3.so",
                "llama_cpp/llama_cpp.pyd",
                "llama_cpp/LLAMA_CPP.PYD",
                "llama_cpp/server.py",  # beside the folder server/
                "llama_cpp_python.libs/a.py",
            )
        ),
        *(
            (members(member), "stray: ")
            for member in (
                "llama_cpp_python-0.3.16.data/scripts/llama",
                "llama_cpp_python-0.3.16.data/purelib/numpy/__init__.py",
                "evil.pth",
                "numpy.py",
                "llama_cpp.py",
                "usercustomize.py",
                "numpy.egg-info/PKG-INFO",
            )
        ),
    ],
    "layout imports": [
        (
            linux("libmtmd.so", member="llama_cpp/libmtmd.so", search_paths=("$ORIGIN/lib",)),
            "missing: mtmd",
        ),
    ],
    "layout api": [
        (facts(unparsed=("llama_cpp/deep.py",)), "llama_cpp/deep.py: it cannot be read as Python"),
        (facts(bindings=()), "no module of llama_cpp loads a library"),
        (facts(bindings=(dataclasses.replace(LLAMA, reached=False),)), "no module of llama_cpp"),
    ],
    "python-files": [
        *(
            (facts(package_files=files), phrase)
            for files, phrase in (
                ({**FILES, MODULE: "e" * 64}, f"{MODULE}: differs from upstream's"),
                ({**FILES, MODULE: ""}, f"{MODULE}: differs from upstream's"),
                ({**FILES, "llama_cpp/evil.py": "e" * 64}, "evil.py: not upstream's"),
                ({**FILES, f"{LIB}/a.bin": "e" * 64}, "a.bin: not upstream's"),
                (
                    {name: digest for name, digest in FILES.items() if name != MODULE},
                    f"{MODULE}: upstream has it, and it is missing",
                ),
                ({**FILES, "llama_cpp/_bundled_dlls.py": "e" * 64}, "_bundled_dlls.py: not"),
            )
        ),
        (facts(preload_called=True), "calls what only a wheel for Windows has"),
        (cpu_facts(package_files=FILES), "_cuda_runtime.py: not upstream's"),
    ],
    "size": [
        (
            facts(size=30_100_000),
            f"30.1 MB, and the target allows 30\n{LIB}/libggml-cuda.so: 25.0 MB unpacked",
        ),
    ],
    "sbom": [
        (facts(bills=()), "0 SBOMs of blackwheel instead of one"),
        (facts(bills=(fakes.bill(fakes.wheel_facts()),) * 2), "2 SBOMs"),
        (sbom(problems=("KeyError: 'components'",)), "cannot be read: KeyError"),
        (sbom(name="llama-cpp"), "it is of llama-cpp 0.3.16"),
        (sbom(version="0.3.15"), "it is of llama-cpp-python 0.3.15"),
        (sbom(sha256="e" * 64), "not the one that the recorded build put there"),
        (sbom(sdist_sha256="e" * 64), "made from another sdist"),
        (sbom(sdist_sha256=""), "made from another sdist"),
        (
            sbom(
                materials=(
                    *fakes.bill(fakes.wheel_facts()).materials,
                    fakes.material("gcc", roles=("built with",)),
                )
            ),
            "gcc: named 2 times",
        ),
        *(
            (component(name, **changes), phrase)
            for name, changes, phrase in (
                ("llama.cpp", {"name": "other"}, "llama.cpp: in the wheel, and not"),
                ("llama.cpp", {"version": "e" * 40}, "llama.cpp: eeee"),
                ("llama.cpp", {"version": ""}, "no version"),
                ("ggml", {"name": "other"}, "ggml: in the wheel, and not named"),
                ("ggml", {"roles": ("built with",)}, "ggml: in 0.3.16, and not named"),
                (
                    "nvidia-cublas",
                    {"requirement": ""},
                    "nvidia-cublas: METADATA requires it, and it is not named as required",
                ),
                (
                    "nvidia-cublas",
                    {"version": "14.1"},
                    "nvidia-cublas: 14.1, and METADATA requires nvidia-cublas<14,>=13.2.2.2",
                ),
                ("nvidia-cublas", {"version": "9" * 5_000}, "nvidia-cublas: 9999"),
                (
                    "gcc",
                    {"requirement": "gcc>=12"},
                    "gcc: named as required, and METADATA does not require it",
                ),
                ("gcc", {"file": "libstdc++.so.6"}, "libstdc++.so.6: named, and not in the wheel"),
                ("libgomp.so.1", {"file": ""}, "libgomp.so.1: in the wheel, and not named"),
                ("libgomp.so.1", {"sha256": ""}, "libgomp.so.1: not the file that is named"),
                ("libgomp.so.1", {"sha256": "0" * 64}, "libgomp.so.1: not the file that is named"),
            )
        ),
    ],
    "reproducible": [
        (
            facts(times=("2022-11-09T12:37:20", "2026-01-01T00:00:00")),
            "2 different times, 2022-11-09T12:37:20 to 2026-01-01T00:00:00",
        ),
        (facts(times=()), "no time"),
        (recorded(source_digest=""), "lacks the digests of its inputs"),
    ],
    # -- Its build
    "loader": [
        (facts(loader=None), "nothing finds cudart and cuBLAS"),
        (facts(loader="d" * 64), "not the one that this target's wheel"),
        (facts(loader_called=False), "llama_cpp/__init__.py does not call it first"),
        (
            facts(requires=tuple(r for r in fakes.wheel_facts().requires if "pathfinder" not in r)),
            "METADATA does not require",
        ),
        (cpu_facts(loader="e" * 64), "it is not the one that this target's wheel has"),
        (cpu_facts(loader=None), "nothing loads the module for the CPU"),
    ],
    "freshness": [
        (recorded(libraries={**MADE, "libllama.so": "e" * 64}), "libllama.so: made by another"),
        (recorded(libraries={**MADE, "libggml-rpc.so": "e" * 64}), "libggml-rpc.so: made by that"),
        (recorded(sha256="e" * 64), "the wheel's own sha256 is not the recorded one"),
    ],
    "freshness libraries": [
        (
            dataclasses.replace(with_more(f"{LIB}/libggml-rpc.so"), record=fakes.case().record),
            "libggml-rpc.so: not made by that build",
        ),
    ],
    "reproducible freshness": [
        (fakes.case(record=None), "there is no record of its build beside it"),
    ],
}
ROWS = [(ids, case, phrase) for ids, rows in DEFECTS.items() for case, phrase in rows]


@pytest.mark.parametrize(
    ("ids", "case", "phrase"), ROWS, ids=[f"{ids}: {phrase[:60]}" for ids, _, phrase in ROWS]
)
def test_each_defect_fails_its_checks_and_no_others(ids: str, case: Case, phrase: str) -> None:
    found, failing = checks(case), set(ids.split())
    assert {id_ for id_, check in found.items() if check.status != "ok"} == failing
    assert phrase in "\n".join(found[id_].evidence for id_ in sorted(failing))
    assert {found[id_].status for id_ in failing} == {"fail"}
    assert [id_ for id_ in failing if not found[id_].remedy] == []


def test_every_check_has_a_wheel_for_which_it_fails() -> None:
    assert {id_ for ids in DEFECTS for id_ in ids.split()} == set(checks(fakes.case())) == IDS


@pytest.mark.parametrize(
    ("inherited", "own", "found"),
    [
        (("$ORIGIN/../x.libs",), (), True),
        ((), (), False),  # a DT_RUNPATH applies only to the library that has it
        (("$ORIGIN/../x.libs",), ("$ORIGIN/lib",), False),  # its own DT_RUNPATH replaces it
    ],
    ids=["rpath", "runpath", "own-runpath"],
)
def test_imports_follows_the_rpath_of_what_needs_a_library(
    inherited: tuple[str, ...], own: tuple[str, ...], found: bool
) -> None:
    outer = {"search_paths": ("$ORIGIN/../x.libs",), "inherited_paths": inherited}
    libraries = (
        fakes.library("llama_cpp/libllama.so", imports=("libggml.so",), **outer),
        fakes.library("x.libs/libggml.so", imports=("libgomp-1a2b3c4d.so.1",), search_paths=own),
        fakes.library("x.libs/libgomp-1a2b3c4d.so.1", imports=()),
    )
    case = facts(libraries=libraries, members={lib.member: 1 for lib in libraries})
    lost = "x.libs/libggml.so: no search path leads it to libgomp-1a2b3c4d.so.1"
    assert (lost not in host.imports(case).evidence) is found


@pytest.mark.parametrize(("guarded", "status"), [(("RDRAND",), "ok"), ((), "fail")])
def test_an_instruction_that_a_runtime_uses_only_after_cpuid_passes(
    guarded: tuple[str, ...], status: str
) -> None:
    case = llama(cpu_features={**fakes.BASELINE, "CPUID": 2, "RDRAND": 1}, guarded=guarded)
    assert host.cpu_baseline(case).status == status


def test_a_copy_of_a_library_may_have_the_soname_of_another_copy() -> None:
    # A zip file has copies where a file system has links.
    same = {"sha256": "1" * 64, "soname": "libggml.so.0"}
    both = [fakes.library(f"{LIB}/{name}", **same) for name in ("libggml.so", "libggml.so.0")]
    assert "SONAME" not in host.libraries(facts(libraries=tuple(both))).evidence
    evidence = host.libraries(facts(libraries=(both[0],))).evidence
    assert "libggml.so: its SONAME is libggml.so.0" in evidence


@pytest.mark.parametrize(
    ("data", "features", "guarded"),
    [
        (b"..random_device could not be read..", ["CPUID", "RDRAND", "SSE"], ("RDRAND",)),
        (b"..random_device..", ["CPUID", "RDRAND", "RDSEED"], ("RDRAND", "RDSEED")),
        (b"..random_device..", ["RDRAND"], ()),
        (b"..random_device..", ["CPUID", "LZCNT"], ()),
        (b"..fLaC..", ["CPUID", "LZCNT", "AVX"], ("LZCNT",)),
        (b"..fLaC..", ["LZCNT"], ()),
        (b"no runtime", ["CPUID", "RDRAND"], ()),
        (b"..random_device..", ["CPUID", "AVX512F"], ()),
        (b"..VCRUNTIME140.dll..", ["CPUID", "XSAVE", "AVX2"], ("AVX2", "XSAVE")),
        (b"..VCRUNTIME140.dll..", ["CPUID", "AMX_TILE"], ()),
        (b"..vcomp140.amd64.pdb..", ["CPUID", "AVX"], ("AVX",)),
    ],
)
def test_guarded_features_are_those_of_a_runtime_that_uses_cpuid(
    data: bytes, features: list[str], guarded: tuple[str, ...]
) -> None:
    assert wheel_rules.guarded(data, dict.fromkeys(features, 1), 100) == guarded


def test_guarded_instructions_of_msvcs_runtime_are_a_small_share_of_a_library() -> None:
    # As in whisper.dll and in a library that /arch:AVX2 compiled (wheel_policy.toml names them).
    few = {"CPUID": 20, "XSAVE": 1, "AVX": 52, "AVX2": 30}
    assert wheel_rules.guarded(b"VCRUNTIME140.dll", few, 107_762) == ("AVX", "AVX2", "XSAVE")
    many = {"CPUID": 20, "XSAVE": 1, "AVX": 13_912, "AVX2": 4_297}
    assert wheel_rules.guarded(b"VCRUNTIME140.dll", many, 142_182) == ("XSAVE",)


SKYLAKE = linux(
    "libggml-cpu-haswell.so",
    member=f"{LIB}/libggml-cpu-skylakex.so",
    soname="$ORIGIN/libggml-cpu-skylakex.so",
    **AVX512,
)
PACKED_RELOCATIONS = platform(
    "manylinux_2_36_x86_64",
    libraries=edited("libllama.so", symbol_versions={"GLIBC": "2.36", "GLIBC_ABI_DT_RELR": "0"}),
)
SOUND: dict[str, Case] = {
    "rtx50": fakes.case(),
    "cpu": cpu_facts(),
    "windows": windows(),
    "sass-and-ptx": for_archs("120", ptx={"compute_120": 98}),
    "ptx-only": cuda(
        {"archs": ("120-virtual",), "device_features": ()},
        sass={},
        ptx={"compute_120": 98},
        tensor={},
    ),
    "two-architectures": for_archs("120-real", "90-real", sass={"sm_120": 98, "sm_90": 98}),
    "architecture-specific": for_archs("120a-real", sass={"sm_120a": 98}),
    "fp4": cuda({"device_features": FP4}, tensor=OMMA),
    "avx512-in-its-module": SKYLAKE,
    "data-between-functions": llama(
        cpu_features={**fakes.BASELINE, "INVALID": 999}, instructions=100_000
    ),
    "search-in-folders-of-the-wheel": llama(
        search_paths=("$ORIGIN", "$ORIGIN/..", "${ORIGIN}/lib")
    ),
    "no-search-path-for-system-libraries": linux("libgomp.so.1", search_paths=()),
    "folder-of-auditwheel": facts(
        libraries=edited(
            "libggml-cpu-haswell.so",
            edited(
                "libggml-cpu-x64.so",
                edited("libgomp.so.1", member="llama_cpp_python.libs/libgomp-a34b3233.so.1.0.0"),
                imports=("libc.so.6",),
            ),
            imports=("libc.so.6", "libgomp-a34b3233.so.1.0.0"),
            search_paths=("$ORIGIN/../../llama_cpp_python.libs",),
        )
    ),
    "local-version": facts(version="0.3.16+cu131", metadata_version="0.3.16+cu131"),
    "portable-release": release("0.3.36", "py3-none"),
    "tag-of-an-unknown-release": release("0.3.99", "cp313-cp313"),
    "tag-of-a-checkout": release("0.3.16", "py3-none", source="/home/user/llama-cpp-python"),
    "no-requires-python": facts(requires_python=""),
    "manylinux2014": platform("manylinux2014_x86_64", libraries=OLD_LIBRARIES),
    "two-platform-tags": tagged(
        "cp311-cp311-manylinux2014_x86_64",
        "cp311-cp311-manylinux_2_17_x86_64",
        libraries=OLD_LIBRARIES,
    ),
    **{
        f"cublas: {'; '.join(texts)}": requiring(*texts)
        for texts in (
            ["nvidia-cublas~=13.2"],
            ["nvidia-cublas==13.2.2.2"],
            [f"nvidia-cublas>={CUBLAS.version},<14"],
            ["nvidia-cublas<13.9,>=13.2"],
            [
                "nvidia-cublas<14,>=13.2; sys_platform == 'linux' and platform_machine == 'x86_64'"
                " and python_version >= '3.11' and implementation_name == 'cpython'"
            ],
            ["nvidia-cublas<14,>=13.2", "nvidia-cublas<13,>=12; sys_platform == 'win32'"],
            ["nvidia-cublas<13.3,>13.2"],
            ["nvidia-cublas==13.2.*"],
            ["nvidia-cublas>=13.2", "nvidia-cublas<14"],
            ["NVIDIA.cuBLAS<14,>=13.2"],
            ["nvidia-cublas-cu13<14,>=13.2"],
        )
    },
    "packed-relocations": PACKED_RELOCATIONS,
    "size-of-the-budget": facts(size=30_000_000),
    "windows-with-the-runtime-in-upstreams-folder": windows(
        libraries=tuple(
            dataclasses.replace(lib, member=lib.member.replace("llama_cpp_python.libs", LIB))
            for lib in fakes.windows_libraries()
        ),
        preload=None,
        preload_called=False,
    ),
    "windows-with-cublaslt": dll(
        "ggml-cuda.dll",
        "cublaslt64_13.dll",
        "ext-ms-win-a-l1.dll",
        runtime={
            "cublas64_13.dll": ("cublasCreate_v2",),
            "cublaslt64_13.dll": ("cublasLtCreate",),
            "cudart64_13.dll": ("cudaMalloc",),
        },
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_wheel_passes_every_check(name: str) -> None:
    assert not_ok(SOUND[name]) == []


def recorded_facts(file: str) -> WheelFacts:
    """The facts that ``verify`` wrote for a real wheel."""
    found = records.read(fakes.ROOT / "tests/data/wheelfile" / file, "facts", WheelFacts)
    assert found is not None, "WheelFacts has changed: verify the wheel again, and copy its facts"
    return found


KNOWN = wheel_rules.upstream("0.3.16")


def test_the_facts_of_a_real_wheel_pass_every_check() -> None:
    """An rtx50 wheel of 0.3.16: CUDA 13.1, GCC 12.2."""
    found = recorded_facts("rtx50.json")
    record = fakes.recorded(found, sbom=found.bills[0].sha256)
    case = fakes.case(found, loader=found.loader, record=record, upstream=KNOWN)
    assert not_ok(case) == []
    summaries = {id_: check.summary for id_, check in checks(case).items()}
    assert summaries["gpu-code"] == "gpu-code: sm_120: 71 × SASS in libggml-cuda.so"
    assert summaries["api"] == "api: 236 functions are exported"
    assert summaries["platform-tag"].endswith("is right (GCC 4.2.0, GLIBC 2.27)")
    modules = "alderlake, haswell, icelake, sandybridge, skylakex, sse42, x64"
    assert summaries["cpu-baseline"].endswith(f"ggml chooses for the CPU: {modules}")


def test_a_real_wheel_without_its_baseline_module_or_with_one_library_for_the_cpu_fails() -> None:
    found = recorded_facts("rtx50.json")
    (x64,) = [lib for lib in found.libraries if lib.member.endswith("libggml-cpu-x64.so")]
    (haswell,) = [lib for lib in found.libraries if lib.member.endswith("libggml-cpu-haswell.so")]
    rest = [lib for lib in found.libraries if lib not in (x64, haswell)]

    def evidence(library: Library) -> str:
        changed = dataclasses.replace(found, libraries=(*rest, library))
        check = checks(fakes.case(changed, upstream=KNOWN))["cpu-baseline"]
        assert check.status == "fail"
        return check.evidence

    assert "there is no ggml-cpu-x64" in evidence(haswell)
    renamed = evidence(dataclasses.replace(haswell, member=f"{LIB}/libggml-cpu-x64.so"))
    assert "libggml-cpu-x64.so: " in renamed
    assert "× AVX" in renamed


def test_a_wheel_of_a_plain_build_fails_for_each_of_its_defects() -> None:
    """Built with ``python -m build`` and ``CMAKE_ARGS`` only, for architecture 120."""
    found = recorded_facts("seed-procedure.json")
    results = checks(fakes.case(found, record=None, ours=False, upstream=KNOWN))
    failed = {id_: check for id_, check in results.items() if check.status == "fail"}
    assert set(failed) == {
        "layout", "size", "ptx", "libraries", "imports", "paths", "platform-tag", "loader",
        "cpu-baseline",
    }  # fmt: skip
    assert "stray: include/ (19 files)" in failed["layout"].evidence
    assert "72.4 MB" in failed["size"].evidence
    assert "98 × PTX for compute_120" in failed["ptx"].evidence
    warned = {id_ for id_, check in results.items() if check.status == "warn"}
    assert warned == {"sbom", "reproducible", "freshness"}


def test_each_check_runs_once_in_one_of_four_groups() -> None:
    groups = check_wheel(fakes.case())
    results = [check.id for group in groups for check in group.checks]
    assert len(results) == len(set(results))
    names = ["The file", "Device code", "Host code", "Its build"]
    assert [group.name for group in groups] == names


def test_the_summary_of_a_check_that_passes_has_the_facts() -> None:
    summaries = {id_: check.summary for id_, check in checks(fakes.case()).items()}
    assert summaries["gpu-code"] == "gpu-code: sm_120: 98 × SASS in libggml-cuda.so"
    assert summaries["gpu-features"] == "gpu-features: 23424 × HMMA, 36288 × IMMA"
    assert summaries["size"] == "size: 19.4 of 30 MB"
    assert summaries["api"] == "api: 3 functions are exported"
    assert summaries["libraries"] == "libraries: 8 × ELF for x86-64"
    versions = "(CXXABI 1.3.13, GCC 3.4, GLIBC 2.34, GLIBCXX 3.4.30)"
    assert summaries["platform-tag"].endswith(versions)
    packed = checks(PACKED_RELOCATIONS)["platform-tag"].summary
    assert packed.endswith("GLIBC 2.36, GLIBCXX 3.4.30, GLIBC_ABI_DT_RELR)")
    modules = checks(SKYLAKE)["cpu-baseline"].summary
    assert "none beyond x86-64 except in the modules" in modules
    assert modules.endswith("for the CPU: skylakex, x64")


@pytest.mark.parametrize(
    ("case", "failed", "warned"),
    [
        (fakes.case(record=None, ours=False), set(), {"reproducible", "freshness"}),
        (dataclasses.replace(recorded(sha256="e" * 64), ours=False), {"freshness"}, set()),
        (
            dataclasses.replace(facts(times=("2020-01-01T00:00:00", "2021")), ours=False),
            set(),
            {"reproducible"},
        ),
        (fakes.case(fakes.windows_facts(), ours=False), set(), set()),
    ],
    ids=["no-record", "another-record", "two-times", "another-system"],
)
def test_an_external_wheel_may_lack_what_only_a_build_here_has(
    case: Case, failed: set[str], warned: set[str]
) -> None:
    assert with_status(case, "fail") == failed
    assert with_status(case, "warn") == warned


@pytest.mark.parametrize("case", [facts(libraries=()), cpu_facts(libraries=())])
def test_without_libraries_no_check_of_libraries_passes(case: Case) -> None:
    found = checks(case)
    named = {id_ for id_, check in found.items() if "there is no library in it" in check.evidence}
    assert named == set(NEED_LIBRARIES.split())
    assert {found[id_].status for id_ in named | {"api"}} == {"fail"}


def test_for_a_file_that_cannot_be_read_there_is_only_the_check_of_the_archive() -> None:
    found = checks(facts(members={}, archive_problems=("not a zip file",)))
    assert set(found) == {"archive"}
    assert found["archive"].status == "fail"
    assert "not a zip file" in found["archive"].evidence


def test_without_tags_in_the_file_name_those_of_wheel_name_the_system() -> None:
    renamed = windows(tags=())
    assert renamed.windows
    assert with_status(renamed, "fail") == {"metadata"}
    assert "platform-tag" in with_status(tagged(), "fail")


SOURCE = "/home/user/llama-cpp-python"


@pytest.mark.parametrize("source", [None, SOURCE])
def test_files_of_a_release_that_is_not_locked_are_a_warning(source: str | None) -> None:
    unknown = fakes.case(upstream=None, spec=fakes.claiming(source=source))
    assert with_status(unknown, "warn") == {"python-files"}
    assert with_status(unknown, "fail") == set()


def test_changed_files_of_a_checkout_are_a_warning() -> None:
    case = facts({"source": SOURCE}, package_files={**FILES, MODULE: "e" * 64})
    check = checks(case)["python-files"]
    assert check.status == "warn"
    assert MODULE in check.evidence


@pytest.mark.parametrize(
    ("recorded", "found", "fails"),
    [("0.3.47", "0.3.47", False), ("0.3.47", "0.3.16", True), ("0.3.16", "0.3.47", True)],
)
def test_the_version_of_a_checkout_is_the_one_that_its_build_recorded(
    recorded: str, found: str, fails: bool
) -> None:
    wheel = fakes.wheel_facts(version=found, metadata_version=found)
    record, spec = fakes.recorded(wheel, version=recorded), fakes.claiming(source=SOURCE)
    results = checks(fakes.case(wheel, spec=spec, record=record, upstream=None))
    assert (results["metadata"].status == "fail") is fails
    assert not fails or f"the checkout's is {recorded}" in results["metadata"].evidence
    assert "lock" not in results["python-files"].remedy


@pytest.mark.parametrize("version", ["0.3.16", "0.3.16.0", "0.3.16+cu131", "v0.3.16"])
def test_upstream_finds_a_locked_release_by_any_spelling_of_its_version(version: str) -> None:
    known = wheel_rules.upstream(version)
    assert known is not None
    assert known.version == "0.3.16"
    assert known.sdist_sha256 == knowledge.sdists()["0.3.16"].sha256
    assert known.files["llama_cpp/py.typed"] == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("version", ["", "0.3.15", "new", "9" * 5_000, "0.3.16.1"])
def test_upstream_returns_none_for_a_version_that_is_not_locked(version: str) -> None:
    assert wheel_rules.upstream(version) is None


def test_every_locked_release_is_known_file_by_file() -> None:
    for version in knowledge.sdists():
        known = wheel_rules.upstream(version)
        assert known is not None
        assert {"llama_cpp/__init__.py", MODULE} <= known.files.keys()
        assert known.parts["llama.cpp"]


@pytest.mark.parametrize("error", [RecursionError, ZeroDivisionError, UnicodeEncodeError])
def test_a_check_that_raises_fails_and_leaves_a_traceback(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(case: Case) -> Check:
        raise error(*(("utf-8", "x", 0, 1, "planted") if error is UnicodeEncodeError else ("x",)))

    monkeypatch.setattr(checks_file, "size", size)
    bugs: dict[str, str] = {}
    results = {c.id: c for group in check_wheel(fakes.case(), bugs) for c in group.checks}
    assert {id_ for id_, check in results.items() if check.status != "ok"} == {"size"}
    assert set(results) == IDS
    assert results["size"].evidence.startswith(error.__name__)
    assert set(bugs) == {"size"}
    assert "in size" in bugs["size"]


def test_evidence_is_cut_to_a_number_of_lines_and_a_length_of_each() -> None:
    def evidence(*problems: str) -> list[str]:
        return checks(facts(record_problems=problems))["record"].evidence.splitlines()

    many = [f"a{n}.py: not listed" for n in range(SHOWN + 3)]
    assert evidence(*many) == [*many[:SHOWN], "… and 3 more"]
    assert evidence(*many[:SHOWN]) == many[:SHOWN]
    (line,) = evidence("x" * 100_000)
    assert len(line) < 1_000


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ("llama_cpp/lib/libggml-cpu.so", "ggml-cpu"),
        ("llama_cpp/lib/libggml-cpu.so.0", "ggml-cpu"),
        ("llama_cpp/lib/libgomp.so.1.0.0", "gomp"),
        ("llama_cpp_python.libs/libgomp-a34b3233.so.1.0.0", "gomp"),
        ("llama_cpp/lib/ggml-cuda.dll", "ggml-cuda"),
        ("llama_cpp_python.libs/msvcp140-0123456789abcdef.dll", "msvcp140"),
        ("llama_cpp/lib/libggml-cpu-haswell.so", "ggml-cpu-haswell"),
        ("bin/llama-cli", "llama-cli"),
    ],
)
def test_stem_is_the_same_on_every_system(member: str, name: str) -> None:
    assert stem(member) == name


@pytest.mark.parametrize(
    ("mnemonic", "claim", "has"),
    [
        ("HMMA.16816.F32", "HMMA", True),
        ("HMMA.16816.F32", "IMMA", False),
        ("OMMA.SF.16864.F32.E2M1.E2M1.E8", "OMMA.E2M1", True),
        ("QMMA.SF.16832.F32.E2M1.E2M1.E8", "OMMA.E2M1", False),
        ("OMMA.SF.16864.F32.E4M3.E4M3.E8", "OMMA.E2M1", False),
        ("HMMA.16816.F32", "HMM", False),
    ],
)
def test_has_feature_needs_every_part_of_the_claim(mnemonic: str, claim: str, has: bool) -> None:
    assert has_feature(mnemonic, claim) is has
