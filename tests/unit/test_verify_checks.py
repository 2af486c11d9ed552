"""Judgement of a wheel: a sound one passes, and what is planted in it is found by its check."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from sessions.shared import knowledge, records
from sessions.shared import knowledge as locked
from sessions.shared.build_spec import BuildSpec
from sessions.shared.checks import Check
from sessions.verify import checks_file, wheel_rules
from sessions.verify import checks_libraries as host
from sessions.verify.check_input import SHOWN, Case, stem
from sessions.verify.checks_gpu_code import has_feature
from sessions.verify.model import Binding, Library, Material, WheelFacts
from sessions.verify.run_checks import judge
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
    """The judgement, by id."""
    return {check.id: check for group in judge(case) for check in group.checks}


def complaints(case: Case, status: str = "fail") -> set[str]:
    return {id_ for id_, check in checks(case).items() if check.status == status}


# ---- What is planted ----------------------------------------------------------------------------


def edited(
    file: str, libraries: tuple[Library, ...] | None = None, **changes: Any
) -> tuple[Library, ...]:
    """The libraries with changes to the one of that file name."""
    inside = fakes.libraries() if libraries is None else libraries
    assert [found for found in inside if found.member == f"{LIB}/{file}"]  # else nothing is planted
    return tuple(
        dataclasses.replace(found, **changes) if found.member == f"{LIB}/{file}" else found
        for found in inside
    )


def linux(file: str, **changes: Any) -> Case:
    """The rtx50 wheel with one library changed."""
    return fakes.case(fakes.wheel_facts(libraries=edited(file, **changes)))


def cuda(**changes: Any) -> Case:
    """The rtx50 wheel with other GPU code."""
    return linux("libggml-cuda.so", device=fakes.device(**changes))


def needing(file: str, *names: str) -> Case:
    """The rtx50 wheel, one library of which needs these too."""
    (found,) = (found for found in fakes.libraries() if found.member == f"{LIB}/{file}")
    return linux(file, imports=(*found.imports, *names))


def without(file: str) -> Case:
    """The rtx50 wheel without a library, as a build that does not make it would have it."""
    left = tuple(found for found in fakes.libraries() if found.member != f"{LIB}/{file}")
    return fakes.case(fakes.wheel_facts(libraries=left))


def with_more(*more: Library) -> Case:
    """The rtx50 wheel with further libraries, all of them the recorded build's."""
    return fakes.case(fakes.wheel_facts(libraries=(*fakes.libraries(), *more)))


def facts(**changes: Any) -> Case:
    """The rtx50 wheel with other facts."""
    return fakes.case(fakes.wheel_facts(**changes))


def billed(**changes: Any) -> Case:
    """The rtx50 wheel with another bill of materials."""
    return facts(bills=(fakes.bill(fakes.wheel_facts(), **changes),))


def component(named: str, **changes: Any) -> Case:
    """The rtx50 wheel, one component in whose bill of materials is otherwise."""
    parts = fakes.bill(fakes.wheel_facts()).materials
    assert named in [part.name for part in parts]  # else nothing is planted
    return billed(
        materials=tuple(
            dataclasses.replace(part, **changes) if part.name == named else part for part in parts
        )
    )


def strays(*members: str) -> Case:
    """The rtx50 wheel with further members."""
    return facts(members={**fakes.wheel_facts().members, **dict.fromkeys(members, 1)})


def tagged(*tags: str, **changes: Any) -> Case:
    """The rtx50 wheel with other tags, in its name and in WHEEL."""
    return facts(tags=tags, wheel_tags=tags, **changes)


def platform(name: str, **changes: Any) -> Case:
    return tagged(f"cp311-cp311-{name}", **changes)


def for_old_glibc(*materials: Material) -> Case:
    """The rtx50 wheel for a target of glibc 2.28, with these in its SBOM too."""
    found = fakes.wheel_facts()
    (bill,) = found.bills
    bill = dataclasses.replace(bill, materials=(*bill.materials, *materials))
    found = dataclasses.replace(found, bills=(bill,))
    return fakes.case(found, spec=fakes.claiming(glibc="2.28"))


def requiring(*requirements: str) -> Case:
    """The rtx50 wheel with these in the place of its requirement of nvidia-cublas."""
    others = [text for text in fakes.wheel_facts().requires if "cublas" not in text]
    return facts(requires=(*others, *requirements))


def recorded(**changes: Any) -> Case:
    """The rtx50 wheel with another record of its build."""
    return fakes.case(record=fakes.recorded(fakes.wheel_facts(), **changes))


def for_spec(**changes: Any) -> Case:
    """The rtx50 wheel for another target."""
    return fakes.case(spec=fakes.claiming(**changes))


def release(number: str, tag: str, **changes: Any) -> Case:
    """A wheel of another release, tagged like this, for a target of that release."""
    tags = (f"{tag}-manylinux_2_35_x86_64",)
    found = fakes.wheel_facts(version=number, metadata_version=number, tags=tags, wheel_tags=tags)
    return fakes.case(found, spec=fakes.claiming(**{"version": number, **changes}))


CUBLAS = knowledge.floors("13")["nvidia-cublas"]
CPU_SPEC = fakes.cpu_spec(budget_mb=4)


def cpu(file: str = "libggml-cpu-haswell.so", **changes: Any) -> Case:
    """The wheel of the cpu target with one library changed."""
    inside = edited(file, fakes.cpu_facts().libraries, **changes)
    return fakes.case(fakes.cpu_facts(libraries=inside), spec=CPU_SPEC)


WINDOWS_SPEC = fakes.claiming(platform="windows")


def windows(found: WheelFacts | None = None, **changes: Any) -> Case:
    found = found or fakes.windows_facts(**changes)
    return fakes.case(found, spec=WINDOWS_SPEC)


def dll(file: str, *imports: str, more: tuple[Library, ...] = (), **changes: Any) -> Case:
    """The Windows wheel, one library of which is changed or needs these too."""
    (found,) = (f for f in fakes.windows_libraries() if f.member == f"{LIB}/{file}")
    inside = edited(
        file, fakes.windows_libraries(), **{"imports": (*found.imports, *imports), **changes}
    )
    return windows(libraries=(*inside, *more))


def native(name: str) -> Library:
    """A library that Windows wheels carry beside their own."""
    return fakes.library(
        f"{LIB}/{name}", format="pe", imports=(), search_paths=(), symbol_versions={}
    )


MADE = fakes.recorded(fakes.wheel_facts()).libraries
FP4 = ("HMMA", "IMMA", "OMMA.E2M1")
OMMA = {"HMMA.16816.F32": 5, "IMMA.16832.S8.S8": 6, "OMMA.SF.16864.F32.E2M1.E2M1.E8": 7}
AVX512: dict[str, Any] = {
    "cpu_features": {**fakes.BASELINE, "AVX512F": 9},
    "first_use": {"AVX512F": ["0x1a2b vaddps zmm0,zmm0,zmm1"]},
}
OLD = {"GLIBC": "2.17", "GLIBCXX": "3.4.19", "CXXABI": "1.3.7", "GCC": "4.8.0"}
OLD_LIBRARIES = tuple(
    dataclasses.replace(found, symbol_versions=OLD) for found in fakes.libraries()
)
UNREAD: dict[str, Any] = {
    "format": "",
    "machine": "",
    "imports": (),
    "search_paths": (),
    "exports": (),
    "symbol_versions": {},
    "instructions": 0,
    "cpu_features": {},
    "device": None,
    "error": "its reader ended with -11: it said nothing",
}
# The checks that look into libraries, but for api, which looks into those that are bound only.
NEED_LIBRARIES = {
    "gpu-code", "ptx", "gpu-features", "libraries", "imports", "cpu-baseline", "paths",
    "platform-tag",
}  # fmt: skip


def ids(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What is planted, which checks must fail for it and no other, a phrase of their evidence.
PLANTED: dict[str, tuple[Case, frozenset[str], str]] = {
    # -- GPU code
    "other-architecture": (
        cuda(sass={"sm_100": 98}),
        ids("gpu-code"),
        "no SASS for sm_120\n"
        "llama_cpp/lib/libggml-cuda.so: 98 × SASS for sm_100, which the target does not name",
    ),
    "ptx-only": (
        cuda(sass={}, ptx={"compute_120": 98}, instructions=0, tensor={}),
        ids("gpu-code ptx gpu-features"),
        "no SASS for sm_120",
    ),
    "ptx-beside": (
        cuda(ptx={"compute_120": 98}),
        ids("ptx"),
        "98 × PTX for compute_120, to be compiled by the driver",
    ),
    "two-architectures": (
        cuda(sass={"sm_120": 98, "sm_90": 98}),
        ids("gpu-code"),
        "98 × SASS for sm_90, which the target does not name",
    ),
    "specific-instead-of-portable": (
        cuda(sass={"sm_120a": 98}),
        ids("gpu-code"),
        "98 × SASS for sm_120a",
    ),
    "portable-instead-of-specific": (
        for_spec(archs=("120a-real",)),
        ids("gpu-code"),
        "no SASS for sm_120a",
    ),
    "cpu-libraries-under-the-cuda-name": (
        linux("libggml-cuda.so", device=None),
        ids("gpu-code gpu-features"),
        "this wheel computes on the CPU only",
    ),
    "code-in-the-wrong-library": (
        fakes.case(
            fakes.wheel_facts(
                libraries=edited(
                    "libggml-cuda.so",
                    edited("libllama.so", device=fakes.device()),
                    device=None,
                )
            )
        ),
        ids("gpu-code"),
        "libggml-cuda.so: it contains no GPU code",
    ),
    "code-of-another-architecture-beside": (
        linux("libllama.so", device=fakes.device(sass={"sm_89": 1})),
        ids("gpu-code"),
        "libllama.so: 1 × SASS for sm_89",
    ),
    "no-ggml-cuda": (
        without("libggml-cuda.so"),
        ids("gpu-code gpu-features"),
        "there is no ggml-cuda library",
    ),
    "one-of-two-targeted-architectures": (
        for_spec(archs=("120-real", "90-real")),
        ids("gpu-code"),
        "no SASS for sm_90",
    ),
    "an-architecture-in-one-of-98-pieces": (
        fakes.case(
            cuda(sass={"sm_120": 98, "sm_90": 1}).facts,
            spec=fakes.claiming(archs=("120-real", "90-real")),
        ),
        ids("gpu-code"),
        "libggml-cuda.so: 1 × SASS for sm_90 in 98 fat binaries",
    ),
    "machine-code-in-one-of-98-pieces": (
        fakes.case(
            cuda(sass={"sm_120": 1}, ptx={"compute_120": 98}).facts,
            spec=fakes.claiming(archs=("120",)),
        ),
        ids("gpu-code"),
        "1 × SASS for sm_120 in 98 fat binaries",
    ),
    "ptx-in-97-of-98-pieces": (
        fakes.case(cuda(ptx={"compute_120": 97}).facts, spec=fakes.claiming(archs=("120",))),
        ids("ptx"),
        "97 × PTX for compute_120 in 98 fat binaries",
    ),
    "no-ptx-where-it-is-wanted": (for_spec(archs=("120",)), ids("ptx"), "no PTX for compute_120"),
    "ptx-of-another-architecture": (
        fakes.case(cuda(ptx={"compute_90": 98}).facts, spec=fakes.claiming(archs=("120",))),
        ids("ptx"),
        "98 × PTX for compute_90",
    ),
    "sass-where-ptx-alone-is-wanted": (
        fakes.case(
            cuda(ptx={"compute_120": 98}).facts, spec=fakes.claiming(archs=("120-virtual",))
        ),
        ids("gpu-code"),
        "98 × SASS for sm_120, which the target does not name",
    ),
    "no-fp4": (
        for_spec(device_features=FP4),
        ids("gpu-features"),
        "no OMMA.E2M1 instruction; found: 23424 × HMMA, 36288 × IMMA",
    ),
    "no-tensor-cores": (
        cuda(tensor={}),
        ids("gpu-features"),
        "no HMMA instruction; found: no tensor-core instructions",
    ),
    # -- The libraries' host code
    "executable-stack": (
        linux("libllama.so", executable_stack=True),
        ids("libraries"),
        "libllama.so: wants an executable stack",
    ),
    "other-machine": (
        linux("libllama.so", machine="aarch64", instructions=0, cpu_features={}),
        ids("libraries"),
        "libllama.so: for aarch64",
    ),
    "unknown-machine": (linux("libllama.so", machine=""), ids("libraries"), "an unknown machine"),
    "no-machine-code": (
        linux("libllama.so", instructions=0, cpu_features={}),
        ids("libraries"),
        "libllama.so: no machine code in it",
    ),
    "pe-under-a-tag-of-linux": (
        linux("libllama.so", format="pe"),
        ids("libraries"),
        "libllama.so: PE, and the tag says ELF",
    ),
    "unread": (
        linux("libllama.so", **UNREAD),
        frozenset(NEED_LIBRARIES | {"api"}),
        "libllama.so: not checked, its reader ended with -11",
    ),
    "partly-read": (
        linux("libggml-cuda.so", error="cut short: 10 bytes of 20"),
        frozenset(NEED_LIBRARIES),
        "libggml-cuda.so: not checked, cut short: 10 bytes of 20",
    ),
    "partly-read-and-asked-for-functions": (
        linux("libllama.so", error="cut short: 10 bytes of 20"),
        frozenset(NEED_LIBRARIES | {"api"}),
        "libllama.so: not checked, cut short: 10 bytes of 20",
    ),
    "cublas-of-another-major": (
        needing("libggml-cuda.so", "libcublas.so.12"),
        ids("imports"),
        "libcublas.so.12: CUDA 12, and the target is CUDA 13.1",
    ),
    "cublaslt-of-another-major": (
        needing("libggml-cuda.so", "libcublasLt.so.12"),
        ids("imports"),
        "libcublasLt.so.12: CUDA 12",
    ),
    "cudart-of-another-major": (
        needing("libggml-cuda.so", "libcudart.so.14"),
        ids("imports"),
        "libcudart.so.14: CUDA 14",
    ),
    "library-from-nowhere": (
        needing("libmtmd.so", "libopenblas.so.0"),
        ids("imports"),
        "libopenblas.so.0: nothing provides it (needed by libmtmd.so)",
    ),
    "library-under-a-versioned-name": (
        needing("libmtmd.so", "libllama.so.0"),
        ids("imports"),
        "libllama.so.0: nothing provides it",
    ),
    "neighbours-that-nothing-leads-to": (
        linux("libllama.so", imports=("libggml-base.so",), search_paths=()),
        ids("imports"),
        "libllama.so: no search path leads it to libggml-base.so, which is in the wheel",
    ),
    "neighbours-needed-by-name": (
        linux("libllama.so", imports=("libggml-base.so",)),
        ids("imports"),
        "libllama.so: needs libggml-base.so by its name",
    ),
    "neighbours-that-are-not-there": (
        linux("libllama.so", imports=("$ORIGIN/libggml-new.so",)),
        ids("imports"),
        "$ORIGIN/libggml-new.so: nothing provides it (needed by libllama.so)",
    ),
    "a-runtime-older-than-all-that-is-known": (
        requiring("nvidia-cublas>=13,<14"),
        ids("imports"),
        f"admits releases older than {CUBLAS.version}",
    ),
    "a-runtime-that-lacks-a-function": (
        linux("libggml-cuda.so", runtime={**fakes.RUNTIME, "libcublas.so.13": ("cublasNew",)}),
        ids("imports"),
        f"nvidia-cublas {CUBLAS.version}, which METADATA admits, lacks functions that are needed",
    ),
    "a-runtime-of-which-the-functions-are-not-known": (
        linux("libggml-cuda.so", runtime={}),
        ids("imports"),
        "libcudart.so.13: not checked, it is not known which of its functions are needed",
    ),
    "neighbours-looked-for-elsewhere": (
        linux("libmtmd.so", imports=("libggml.so",), search_paths=("$ORIGIN/..",)),
        ids("imports"),
        "libmtmd.so: no search path leads it to libggml.so",
    ),
    "nothing-brings-cublas": (
        requiring(),
        ids("imports"),
        "libcublas.so.13: METADATA requires no nvidia-cublas, so nothing brings it",
    ),
    "cublas-for-an-extra-only": (
        requiring('nvidia-cublas<14,>=13.2; extra == "cuda"'),
        ids("imports"),
        "METADATA requires no nvidia-cublas",
    ),
    "cublas-requirement-unreadable": (
        requiring("nvidia-cublas about 13"),
        ids("imports metadata"),
        "METADATA requires no nvidia-cublas",
    ),
    "cublas-without-a-bound": (
        requiring("nvidia-cublas"),
        ids("imports"),
        "libcublas.so.13: nvidia-cublas does not limit pip to CUDA 13",
    ),
    "cublas-without-an-upper-bound": (
        requiring("nvidia-cublas>=13"),
        ids("imports"),
        "nvidia-cublas>=13 does not limit pip to CUDA 13",
    ),
    "cublas-without-a-lower-bound": (
        requiring("nvidia-cublas<14"),
        ids("imports"),
        "nvidia-cublas<14 does not limit pip to CUDA 13",
    ),
    "cublas-requirement-of-another-major": (
        requiring("nvidia-cublas<13,>=12.1"),
        ids("imports"),
        "does not limit pip to CUDA 13",
    ),
    "cublas-of-two-majors": (
        requiring("nvidia-cublas<15,>=13.1"),
        ids("imports"),
        "does not limit pip to CUDA 13",
    ),
    **{
        f"cublas-{name}": (requiring(text), ids("imports"), "does not limit pip to CUDA 13")
        for name, text in {
            "into-the-next-major": "nvidia-cublas<14.9,>=13.2",
            "to-the-next-major": "nvidia-cublas<=14,>=13.2",
            "with-gaps": "nvidia-cublas<15,>=13.2,!=14.0,!=14.5",
            "of-another-version": "nvidia-cublas==14.1.2.3",
            "from-somewhere": "nvidia-cublas @ https://example.org/nvidia_cublas.whl",
            "of-any-name": "nvidia-cublas===new",
        }.items()
    },
    **{
        f"cublas-{name}": (requiring(text), ids("imports"), "METADATA requires no nvidia-cublas")
        for name, text in {
            "for-windows": "nvidia-cublas<14,>=13.2; sys_platform == 'win32'",
            "for-old-pythons": "nvidia-cublas<14,>=13.2; python_version < '3.9'",
            "for-arm": "nvidia-cublas<14,>=13.2; platform_machine == 'aarch64'",
            "for-no-release": "nvidia-cublas<14,>=13.2; platform_release > '5'",
        }.items()
    },
    **{
        f"cublas-{name}": (
            requiring(text),
            ids("imports metadata"),
            f"Requires-Dist {text!r:.80} cannot be read",
        )
        for name, text in {
            "behind-too-many-brackets": f"nvidia-cublas; {'(' * 9_000}os_name == 'nt'{')' * 9_000}",
            "for-what-cannot-be-compared": "nvidia-cublas<14,>=13.2; os_name ~= 'posix'",
            "for-what-only-a-lock-file-has": "nvidia-cublas<14,>=13.2; 'cuda' in extras",
            "for-a-group": "nvidia-cublas<14,>=13.2; 'cuda' in dependency_groups",
            "of-too-many-digits": f"nvidia-cublas>={'9' * 5_000}",
            "for-a-python-of-too-many-digits": f"nvidia-cublas; python_version > '{'9' * 5_000}'",
        }.items()
    },
    "cublas-package-of-another-major": (
        requiring("nvidia-cublas-cu12<13,>=12.1"),
        ids("imports"),
        "METADATA requires no nvidia-cublas",
    ),
    "function-not-exported": (
        linux("libllama.so", exports=("llama_free",)),
        ids("api"),
        "llama_cpp/llama_cpp.py: llama_decode is not in llama_cpp/lib/libllama.so",
    ),
    "no-function-looked-up": (
        facts(
            bindings=(
                dataclasses.replace(LLAMA, functions=()),
                dataclasses.replace(MTMD, functions=()),
            )
        ),
        ids("api"),
        "no module looks up a function",
    ),
    "module-that-cannot-be-read": (
        facts(unparsed=("llama_cpp/deep.py",)),
        ids("layout api"),
        "llama_cpp/deep.py: it cannot be read as Python",
    ),
    "avx512": (
        linux("libggml-cpu-haswell.so", **AVX512),
        ids("cpu-baseline"),
        "libggml-cpu-haswell.so: 9 × AVX512F, such as 0x1a2b vaddps zmm0,zmm0,zmm1",
    ),
    "avx512-in-the-library-that-is-no-module": (
        linux("libllama.so", **AVX512),
        ids("cpu-baseline"),
        "libllama.so: 9 × AVX512F",
    ),
    "avx2-in-the-library-that-is-no-module": (
        linux("libllama.so", cpu_features={**fakes.BASELINE, "AVX2": 3}),
        ids("cpu-baseline"),
        "libllama.so: 3 × AVX2",
    ),
    "avx2-in-the-module-that-every-cpu-runs": (
        linux("libggml-cpu-x64.so", cpu_features={**fakes.BASELINE, "AVX2": 3}),
        ids("cpu-baseline"),
        "libggml-cpu-x64.so: 3 × AVX2",
    ),
    "no-module-that-every-cpu-runs": (
        without("libggml-cpu-x64.so"),
        ids("cpu-baseline"),
        "there is no ggml-cpu-x64, the module that every CPU can run",
    ),
    "one-library-for-the-cpu-instead-of-modules": (
        fakes.case(
            fakes.wheel_facts(
                libraries=tuple(
                    dataclasses.replace(
                        lib, member="llama_cpp/lib/libggml-cpu.so", soname="$ORIGIN/libggml-cpu.so"
                    )
                    if "cpu-x64" in lib.member
                    else lib
                    for lib in fakes.libraries()
                    if "haswell" not in lib.member
                )
            )
        ),
        ids("cpu-baseline"),
        "there is no ggml-cpu-x64, the module that every CPU can run",
    ),
    "module-of-an-unknown-name": (
        linux(
            "libggml-cpu-haswell.so",
            member="llama_cpp/lib/libggml-cpu-fast.so",
            soname="$ORIGIN/libggml-cpu-fast.so",
        ),
        ids("cpu-baseline"),
        "it is not known which CPUs a module of that name is for",
    ),
    "module-that-says-no-score": (
        linux("libggml-cpu-haswell.so", exports=("ggml_backend_init",)),
        ids("cpu-baseline"),
        "libggml-cpu-haswell.so: exports no ggml_backend_score, so ggml does not load it",
    ),
    "module-that-another-library-needs": (
        linux("libggml.so", imports=("$ORIGIN/libggml-cpu-haswell.so", "libc.so.6")),
        ids("cpu-baseline"),
        "libggml.so: needs $ORIGIN/libggml-cpu-haswell.so, so every CPU has to run that module",
    ),
    "hardly-any-of-it-is-code": (
        linux("libllama.so", instructions=100_000, cpu_features={"INVALID": 1_000}),
        ids("cpu-baseline"),
        "1000 × INVALID",
    ),
    "runpath-into-a-home": (
        linux("libllama.so", search_paths=("$ORIGIN", "/home/user/build/bin")),
        ids("paths"),
        "libllama.so: searches for libraries in /home/user/build/bin",
    ),
    "empty-runpath-entry": (
        linux("libllama.so", search_paths=("", "$ORIGIN")),
        ids("paths"),
        "searches for libraries in an empty path",
    ),
    "relative-runpath": (
        linux("libllama.so", search_paths=("$ORIGIN", "lib")),
        ids("paths"),
        "in lib",
    ),
    "runpath-that-looks-like-origin": (
        linux("libllama.so", search_paths=("$ORIGIN", "$ORIGINAL/lib")),
        ids("paths"),
        "in $ORIGINAL/lib",
    ),
    "source-path": (
        linux("libllama.so", build_paths=("/home/user/a.cpp", "/home/user/b.cpp")),
        ids("paths"),
        "libllama.so: 2 of source and debug files, such as /home/user/a.cpp",
    ),
    "tag-too-old-for-glibc": (
        platform("manylinux_2_31_x86_64"),
        ids("platform-tag"),
        "manylinux_2_31_x86_64 has GLIBC 2.31; libggml-base.so, libggml-cpu-x64.so",
    ),
    "tag-too-old-for-libstdc++": (
        platform("manylinux_2_34_x86_64"),
        ids("platform-tag"),
        "manylinux_2_34_x86_64 has GLIBCXX 3.4.29; libggml-cuda.so needs 3.4.30",
    ),
    "newer-tag-than-the-target-is-for": (
        for_old_glibc(fakes.material("libstdc++")),
        ids("platform-tag"),
        "manylinux_2_35_x86_64: the target is for glibc 2.28 and newer",
    ),
    "a-linked-in-runtime-that-is-not-named": (
        for_old_glibc(),
        ids("platform-tag sbom"),
        "libstdc++: in the wheel, and not named",
    ),
    "one-of-two-tags-too-old": (
        tagged("cp311-cp311-manylinux_2_31_x86_64", "cp311-cp311-manylinux_2_35_x86_64"),
        ids("platform-tag"),
        "manylinux_2_31_x86_64 has GLIBC 2.31",
    ),
    "plain-linux-tag": (
        platform("linux_x86_64"),
        ids("platform-tag"),
        "linux_x86_64 is not a tag of Windows x64 or manylinux x86_64",
    ),
    "tag-of-another-machine": (
        platform("manylinux_2_35_aarch64"),
        ids("platform-tag"),
        "manylinux_2_35_aarch64 is not a tag",
    ),
    "tag-of-any-machine": (platform("any"), ids("platform-tag"), "any is not a tag"),
    "packed-relocations-under-an-older-tag": (
        linux("libllama.so", symbol_versions={"GLIBC": "2.34", "GLIBC_ABI_DT_RELR": "0"}),
        ids("platform-tag"),
        "manylinux_2_35_x86_64 has no GLIBC_ABI_DT_RELR; libllama.so needs it",
    ),
    "what-is-glibc's-own": (
        platform(
            "manylinux_2_41_x86_64",
            libraries=edited("libllama.so", symbol_versions={"GLIBC_PRIVATE": "0"}),
        ),
        ids("platform-tag"),
        "has no GLIBC_PRIVATE; libllama.so needs it",
    ),
    "legacy-tag-too-old": (
        platform("manylinux2014_x86_64"),
        ids("platform-tag"),
        "manylinux2014_x86_64 has GLIBC 2.17",
    ),
    # -- The file
    "archive": (
        facts(archive_problems=("llama_cpp/a.py: 2 members of that name",)),
        ids("archive"),
        "llama_cpp/a.py: 2 members of that name",
    ),
    "record": (
        facts(record_problems=("llama_cpp/a.py: another hash than in RECORD",)),
        ids("record"),
        "llama_cpp/a.py: another hash than in RECORD",
    ),
    "renamed-without-metadata": (
        facts(version="0.3.16+cu131"),
        ids("metadata"),
        "version: 0.3.16+cu131 by the file, 0.3.16 by METADATA",
    ),
    "other-release-than-the-target": (
        release("0.3.15", "cp311-cp311", version="0.3.16"),
        ids("metadata"),
        "version: 0.3.15, and the target's is 0.3.16",
    ),
    "no-version": (
        facts(version="", metadata_version=""),
        ids("metadata"),
        "version:  by the file",
    ),
    "other-project": (
        facts(name="llama-cpp", metadata_name="llama_cpp"),
        ids("metadata"),
        "name: llama-cpp by the file, llama_cpp by METADATA",
    ),
    "no-name-in-metadata": (facts(metadata_name=""), ids("metadata"), "none by METADATA"),
    "documents": (facts(metadata_problems=("no WHEEL",)), ids("metadata"), "no WHEEL"),
    "other-python-tag": (
        tagged("cp312-cp312-manylinux_2_35_x86_64"),
        ids("metadata"),
        "Python tag: cp312-cp312, and the target's is cp311-cp311",
    ),
    "portable-python-tag-where-there-is-none": (
        tagged("py3-none-manylinux_2_35_x86_64"),
        ids("metadata"),
        "Python tag: py3-none, and the target's is cp311-cp311",
    ),
    "one-python's-tag-where-it-is-portable": (
        release("0.3.36", "cp311-cp311"),
        ids("metadata"),
        "Python tag: cp311-cp311, and the target's is py3-none",
    ),
    "tags-differ": (
        facts(wheel_tags=("cp311-cp311-linux_x86_64",)),
        ids("metadata"),
        "cp311-cp311-manylinux_2_35_x86_64 by the file, cp311-cp311-linux_x86_64 by WHEEL",
    ),
    "python-refused": (
        facts(requires_python=">=3.12"),
        ids("metadata"),
        "Requires-Python >=3.12 refuses the target's 3.11",
    ),
    "python-unreadable": (
        facts(requires_python="3 or so"),
        ids("metadata"),
        "Requires-Python '3 or so' cannot be read",
    ),
    "purelib": (facts(purelib=True), ids("metadata"), "Root-Is-Purelib is not false"),
    "no-tag-of-linux-from-a-build-on-linux": (
        fakes.case(fakes.windows_facts()),
        ids("metadata"),
        "platform: cp311-cp311-win_amd64, and the target's is linux",
    ),
    "stray-folders": (
        strays("bin/llama-mtmd-cli", "include/llama.h", "include/ggml.h"),
        ids("layout"),
        "stray: bin/ (1 files)\nstray: include/ (2 files)",
    ),
    "stray-file": (strays("README.md"), ids("layout"), "stray: README.md (1 files)"),
    "libraries-twice": (
        with_more(fakes.library("lib/libllama.so"), fakes.library("lib/libmtmd.so")),
        ids("layout"),
        "stray: lib/ (2 files)\n2 copies: llama_cpp/lib/libllama.so, lib/libllama.so",
    ),
    "versioned-copy": (
        with_more(fakes.library(f"{LIB}/libllama.so.0")),
        ids("layout"),
        "2 copies: llama_cpp/lib/libllama.so, llama_cpp/lib/libllama.so.0",
    ),
    "copy-that-auditwheel-named": (
        with_more(fakes.library("llama_cpp_python.libs/libgomp-a34b3233.so.1.0.0")),
        ids("layout"),
        "2 copies: llama_cpp/lib/libgomp.so.1, llama_cpp_python.libs/libgomp-a34b3233.so.1.0.0",
    ),
    "no-mtmd": (
        without("libmtmd.so"),
        ids("layout"),
        "missing: mtmd, which llama_cpp/mtmd_cpp.py loads from llama_cpp/lib/",
    ),
    "library-where-nothing-looks": (
        fakes.case(
            fakes.wheel_facts(
                libraries=edited(
                    "libmtmd.so", member="llama_cpp/libmtmd.so", search_paths=("$ORIGIN/lib",)
                )
            )
        ),
        ids("layout imports"),
        "missing: mtmd",
    ),
    "llava-that-something-imports": (
        facts(
            bindings=(LLAMA, MTMD, Binding("llama_cpp/llava_cpp.py", "llava", ("llava_a",), True))
        ),
        ids("layout"),
        "missing: llava",
    ),
    "nothing-loads-a-library": (
        facts(bindings=()),
        ids("layout api"),
        "no module of llama_cpp loads a library",
    ),
    "nothing-that-is-imported-loads-a-library": (
        facts(bindings=(dataclasses.replace(LLAMA, reached=False),)),
        ids("layout api"),
        "no module of llama_cpp loads a library",
    ),
    "over-budget": (
        facts(size=30_100_000),
        ids("size"),
        "30.1 MB, and the target allows 30\nllama_cpp/lib/libggml-cuda.so: 25.0 MB unpacked",
    ),
    "two-times": (
        facts(times=("2022-11-09T12:37:20", "2026-01-01T00:00:00")),
        ids("reproducible"),
        "2 different times, 2022-11-09T12:37:20 to 2026-01-01T00:00:00",
    ),
    "no-time": (facts(times=()), ids("reproducible"), "no time"),
    "inputs-not-on-record": (
        recorded(source_digest=""),
        ids("reproducible"),
        "lacks the digests of its inputs",
    ),
    # -- Its build
    "no-loader": (facts(loader=None), ids("loader"), "nothing finds cudart and cuBLAS"),
    "other-loader": (facts(loader="d" * 64), ids("loader"), "not the one that this target's wheel"),
    "loader-not-called": (
        facts(loader_called=False),
        ids("loader"),
        "llama_cpp/__init__.py does not call it first",
    ),
    "loader-that-cannot-find-anything": (
        facts(requires=tuple(r for r in fakes.wheel_facts().requires if "pathfinder" not in r)),
        ids("loader"),
        "METADATA does not require cuda-pathfinder",
    ),
    "no-record-of-our-own-build": (
        fakes.case(record=None),
        ids("reproducible freshness"),
        "there is no record of its build beside it",
    ),
    "library-of-another-build": (
        recorded(libraries={**MADE, "libllama.so": "e" * 64}),
        ids("freshness"),
        "libllama.so: made by another build",
    ),
    "library-that-the-build-did-not-make": (
        fakes.case(
            fakes.wheel_facts(
                libraries=(*fakes.libraries(), fakes.library(f"{LIB}/libggml-rpc.so"))
            ),
            record=fakes.recorded(fakes.wheel_facts()),
        ),
        ids("freshness libraries"),
        "libggml-rpc.so: not made by that build",
    ),
    "library-that-the-build-made-and-is-not-there": (
        recorded(libraries={**MADE, "libggml-rpc.so": "e" * 64}),
        ids("freshness"),
        "libggml-rpc.so: made by that build, and not here",
    ),
    "other-bytes-than-the-recorded-wheel": (
        recorded(sha256="e" * 64),
        ids("freshness"),
        "the wheel's own sha256 is not the recorded one",
    ),
    # -- The cpu target
    "cpu-with-cuda": (
        cpu(imports=("libc.so.6", "libcudart.so.13")),
        ids("imports"),
        "libcudart.so.13: CUDA, and the target is for the CPU only",
    ),
    "cpu-with-the-driver": (
        cpu(imports=("libc.so.6", "libcuda.so.1")),
        ids("imports"),
        "libcuda.so.1: the driver's, and the target is for machines without one",
    ),
    "cpu-with-another-loader": (
        fakes.case(fakes.cpu_facts(loader="e" * 64), spec=CPU_SPEC),
        ids("loader"),
        "it is not the one that this target's wheel has",
    ),
    "cpu-without-the-check-of-the-cpu": (
        fakes.case(fakes.cpu_facts(loader=None), spec=CPU_SPEC),
        ids("loader"),
        "nothing loads the module for the CPU",
    ),
    "cpu-with-machine-code-of-a-gpu": (
        cpu(device=fakes.device()),
        ids("gpu-code"),
        "98 × SASS for sm_120, which the target does not name",
    ),
    "cpu-with-ptx": (
        cpu(device=fakes.device(sass={}, ptx={"compute_120": 1})),
        ids("ptx"),
        "1 × PTX for compute_120",
    ),
    # -- Windows
    "windows-cublas-of-another-major": (
        dll("ggml-cuda.dll", "cublas64_12.dll"),
        ids("imports"),
        "cublas64_12.dll: CUDA 12, and the target is CUDA 13.1",
    ),
    "windows-nothing-brings-cudart": (
        windows(requires=("cuda-pathfinder", "nvidia-cublas<14,>=13.2")),
        ids("imports"),
        "cudart64_13.dll: METADATA requires no nvidia-cuda-runtime",
    ),
    "windows-without-the-c++-library": (
        dll("llama.dll", "msvcp140.dll"),
        ids("imports"),
        "msvcp140.dll: nothing provides it (needed by llama.dll)",
    ),
    "windows-without-openmp": (
        dll("ggml-cpu-haswell.dll", "vcomp140.dll"),
        ids("imports"),
        "vcomp140.dll: nothing provides it (needed by ggml-cpu-haswell.dll)",
    ),
    "windows-nothing-loads-the-runtime": (
        windows(preload=None, preload_called=False),
        ids("imports"),
        "nothing loads it from llama_cpp_python.libs first",
    ),
    "windows-what-loads-the-runtime-was-changed": (
        windows(preload="e" * 64),
        ids("imports python-files"),
        f"ggml-base.dll: needs msvcp140-{'0f' * 16}.dll, and nothing loads it",
    ),
    "windows-what-loads-the-runtime-is-not-called": (
        windows(preload_called=False),
        ids("imports"),
        f"ggml-cpu-haswell.dll: needs vcomp140-{'0f' * 16}.dll, and nothing loads it",
    ),
    "windows-with-a-library-of-linux": (
        dll("llama.dll", "libstdc++.so.6"),
        ids("imports"),
        "libstdc++.so.6: nothing provides it",
    ),
    "elf-under-a-tag-of-windows": (
        dll("llama.dll", format="elf"),
        ids("libraries"),
        "llama.dll: ELF, and the tag says PE",
    ),
    "windows-of-32-bits": (
        windows(tags=("cp311-cp311-win32",), wheel_tags=("cp311-cp311-win32",)),
        ids("platform-tag"),
        "win32 is not a tag of Windows x64",
    ),
    "windows-other-architecture": (
        dll("ggml-cuda.dll", device=fakes.device(sass={"sm_100": 98})),
        ids("gpu-code"),
        "ggml-cuda.dll: 98 × SASS for sm_100",
    ),
    "windows-debug-file": (
        dll("llama.dll", build_paths=(r"D:\a\llama\llama.pdb",)),
        ids("paths"),
        r"llama.dll: 1 of source and debug files, such as D:\a\llama\llama.pdb",
    ),
    "windows-no-mtmd": (
        windows(
            libraries=tuple(f for f in fakes.windows_libraries() if not f.member.endswith("md.dll"))
        ),
        ids("layout"),
        "missing: mtmd",
    ),
    "windows-function-not-exported": (
        dll("mtmd.dll", exports=()),
        ids("api"),
        "mtmd_init is not in llama_cpp/lib/mtmd.dll",
    ),
}


REQUIRES = fakes.wheel_facts().requires
PLANTED |= {
    f"requires-{name}": (facts(requires=(*REQUIRES, text)), ids("metadata"), "does not require it")
    for name, text in {
        "another-package": "evil",
        "another-package-for-an-extra": "evil; extra == 'server'",
        "from-somewhere": "numpy @ https://example.org/numpy.whl",
        "another-version": "numpy==1.20.1",
        "a-name-alike": "nvidia-cublas-evil",
    }.items()
}
FILES = fakes.wheel_facts().package_files
MODULE = "llama_cpp/llama_cpp.py"
PLANTED |= {
    f"python-{name}": (facts(package_files=files), ids("python-files"), phrase)
    for name, (files, phrase) in {
        "changed-line": ({**FILES, MODULE: "e" * 64}, f"{MODULE}: differs from upstream's"),
        "damaged-module": ({**FILES, MODULE: ""}, f"{MODULE}: differs from upstream's"),
        "module-too-many": ({**FILES, "llama_cpp/evil.py": "e" * 64}, "evil.py: not upstream's"),
        "data-too-many": ({**FILES, "llama_cpp/lib/a.bin": "e" * 64}, "a.bin: not upstream's"),
        "module-missing": (
            {name: digest for name, digest in FILES.items() if name != MODULE},
            f"{MODULE}: upstream has it, and it is missing",
        ),
        "loader-of-windows": (
            {**FILES, "llama_cpp/_bundled_dlls.py": "e" * 64},
            "_bundled_dlls.py: not upstream's",
        ),
    }.items()
}
PLANTED |= {
    "python-hook-of-windows": (
        facts(preload_called=True),
        ids("python-files"),
        "calls what only a wheel for Windows has",
    ),
    "python-loader-in-a-cpu-wheel": (
        fakes.case(fakes.cpu_facts(package_files=FILES), spec=CPU_SPEC),
        ids("python-files"),
        "_cuda_runtime.py: not upstream's",
    ),
}

INFO = fakes.INFO
# Members that Python or an installer would run or read.
HIDDEN = {
    "bytecode": "llama_cpp/llama_cpp.pyc",
    "old-bytecode": "llama_cpp/llama_cpp.PYO",
    "cached-bytecode": "llama_cpp/__pycache__/llama_cpp.cpython-311.pyc",
    "in-a-cache": "llama_cpp/__pycache__/x.py",
    "path-file": "llama_cpp/a.pth",
    "path-file-in-capitals": "llama_cpp/A.PTH",
    "sitecustomize": "llama_cpp/sitecustomize.py",
    "entry-points": f"{INFO}/entry_points.txt",
    "direct-url": f"{INFO}/direct_url.json",
    "installer": f"{INFO}/INSTALLER",
    "script": f"{INFO}/setup.py",
    "package-in-the-place-of-a-module": "llama_cpp/llama_cpp/__init__.py",
    "extension-in-the-place-of-a-module": "llama_cpp/llama_cpp.cpython-311-x86_64-linux-gnu.so",
    "plain-extension": "llama_cpp/llama_cpp.so",
    "stable-extension": "llama_cpp/llama_cpp.abi3.so",
    "extension-of-windows": "llama_cpp/llama_cpp.pyd",
    "extension-in-capitals": "llama_cpp/LLAMA_CPP.PYD",
    "module-in-the-place-of-a-package": "llama_cpp/server.py",
    "python-among-vendored-libraries": "llama_cpp_python.libs/a.py",
}
PLANTED |= {
    f"hidden-{name}": (strays(member), ids("layout"), member.removesuffix("__init__.py"))
    for name, member in HIDDEN.items()
}
PLANTED |= {
    f"hidden-{name}": (strays(member), ids("layout"), "stray: ")
    for name, member in {
        "scripts": "llama_cpp_python-0.3.16.data/scripts/llama",
        "purelib": "llama_cpp_python-0.3.16.data/purelib/numpy/__init__.py",
        "path-file-at-the-top": "evil.pth",
        "module-at-the-top": "numpy.py",
        "module-at-the-top-of-our-name": "llama_cpp.py",
        "start-of-python": "usercustomize.py",
        "egg": "numpy.egg-info/PKG-INFO",
    }.items()
}  # fmt: skip

# What is wrong with a bill of materials: changes of a component by name, or of the whole.
BILL = fakes.bill(fakes.wheel_facts())
BILLS: dict[str, tuple[Case, str]] = {
    "none": (facts(bills=()), "0 SBOMs of blackwheel instead of one"),
    "two": (facts(bills=(fakes.bill(fakes.wheel_facts()),) * 2), "2 SBOMs"),
    "unreadable": (billed(problems=("KeyError: 'components'",)), "cannot be read: KeyError"),
    "of-another-project": (billed(name="llama-cpp"), "it is of llama-cpp 0.3.16"),
    "of-another-version": (billed(version="0.3.15"), "it is of llama-cpp-python 0.3.15"),
    "of-another-build": (billed(sha256="e" * 64), "not the one that the recorded build put there"),
    "without-llama.cpp": (component("llama.cpp", name="other"), "llama.cpp: in the wheel, and not"),
    "without-ggml": (component("ggml", name="other"), "ggml: in the wheel, and not named"),
    "without-a-requirement": (
        component("nvidia-cublas", requirement=""),
        "nvidia-cublas: METADATA requires it, and it is not named as required",
    ),
    "with-one-too-many": (
        component("gcc", requirement="gcc>=12"),
        "gcc: named as required, and METADATA does not require it",
    ),
    "linked-with-a-newer-one": (
        component("nvidia-cublas", version="14.1"),
        "nvidia-cublas: 14.1, and METADATA requires nvidia-cublas<14,>=13.2.2.2",
    ),
    "without-a-file": (
        component("libgomp.so.1", file=""),
        "llama_cpp/lib/libgomp.so.1: in the wheel, and not named",
    ),
    "with-a-file-too-many": (
        component("gcc", file="libstdc++.so.6"),
        "libstdc++.so.6: named, and not in the wheel",
    ),
    "without-the-hash-of-a-file": (
        component("libgomp.so.1", sha256=""),
        "llama_cpp/lib/libgomp.so.1: not the file that is named",
    ),
    "of-another-sdist": (billed(sdist_sha256="e" * 64), "made from another sdist"),
    "of-no-sdist": (billed(sdist_sha256=""), "made from another sdist"),
    "of-another-llama.cpp": (component("llama.cpp", version="e" * 40), "llama.cpp: eeee"),
    "of-a-llama.cpp-without-a-version": (component("llama.cpp", version=""), "no version"),
    "with-a-component-twice": (
        billed(materials=(*BILL.materials, fakes.material("gcc", roles=("built with",)))),
        "gcc: named 2 times",
    ),
    "of-a-component-that-is-not-inside": (
        component("ggml", roles=("built with",)),
        "ggml: in 0.3.16, and not named",
    ),
    "of-a-version-of-5000-digits": (
        component("nvidia-cublas", version="9" * 5_000),
        "nvidia-cublas: 9999",
    ),
    "with-another-file": (
        component("libgomp.so.1", sha256="0" * 64),
        "llama_cpp/lib/libgomp.so.1: not the file that is named",
    ),
}
# What the loader would load, and what hides from it.
HOSTILE: dict[str, tuple[Case, frozenset[str], str]] = {
    "device-code-beside-the-fat-binaries": (
        cuda(hidden=("a cubin at 0x100, outside of every fat binary",)),
        ids("gpu-code"),
        "libggml-cuda.so: a cubin at 0x100",
    ),
    "device-code-in-a-library-without-fat-binaries": (
        linux("libllama.so", device=fakes.device(containers=0, sass={}, hidden=("PTX at 0x1",))),
        ids("gpu-code"),
        "libllama.so: PTX at 0x1",
    ),
    "loader-fault": (
        linux("libllama.so", faults=("it loads another library by DT_FILTER: libevil.so",)),
        ids("libraries"),
        "libllama.so: it loads another library by DT_FILTER: libevil.so",
    ),
    "soname-of-another": (
        linux("libllama.so", soname="libggml.so"), ids("libraries"), "its SONAME is libggml.so",
    ),
    "library-of-no-target": (
        fakes.case(
            fakes.wheel_facts(
                libraries=edited("libmtmd.so", member="llama_cpp/lib/libggml-evil.so"),
                bindings=(),
            ),
        ),
        ids("libraries layout api"),
        "libggml-evil.so: not a library that a wheel",
    ),
    "search-path-that-leaves-the-wheel": (
        linux("libllama.so", search_paths=("$ORIGIN", "$ORIGIN/../../../../tmp")),
        ids("paths"),
        "a search path leaves the wheel: ../../tmp",
    ),
    "search-path-that-leaves-the-wheel-in-braces": (
        linux("libllama.so", search_paths=("$ORIGIN", "${ORIGIN}/../../..")),
        ids("paths"),
        "a search path leaves the wheel: ..",
    ),
    "search-path-by-platform": (
        linux("libllama.so", search_paths=("$ORIGIN", "$ORIGIN/$PLATFORM")),
        ids("paths"),
        "$ORIGIN/$PLATFORM, which each system reads otherwise",
    ),
    "search-path-by-lib": (
        linux("libllama.so", search_paths=("$ORIGIN", "$LIB")), ids("paths"), "in $LIB",
    ),
    "empty-search-path": (
        linux("libllama.so", search_paths=("$ORIGIN", "")), ids("paths"), "an empty path",
    ),
    "needed-by-a-path": (
        needing("libllama.so", "../../evil/libggml.so"),
        ids("imports"),
        "../../evil/libggml.so: a path, not a name",
    ),
    "needed-by-origin": (
        needing("libllama.so", "$ORIGIN"), ids("imports"), "$ORIGIN: a path, not a name",
    ),
    "needed-by-a-path-of-windows": (
        dll("llama.dll", "..\\evil.dll"), ids("imports"), "evil.dll: a path, not a name",
    ),
}  # fmt: skip
PLANTED |= HOSTILE
PLANTED |= {f"bill-{name}": (case, ids("sbom"), phrase) for name, (case, phrase) in BILLS.items()}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_by_its_checks_and_no_others(name: str) -> None:
    case, failing, phrase = PLANTED[name]
    found = checks(case)
    assert {id_ for id_, check in found.items() if check.status != "ok"} == failing
    assert phrase in "\n".join(found[id_].evidence for id_ in sorted(failing))
    assert {found[id_].status for id_ in failing} == {"fail"}
    assert [id_ for id_ in failing if not found[id_].remedy] == []


@pytest.mark.parametrize(
    ("needing_it", "own", "found"),
    [
        (
            {"search_paths": ("$ORIGIN/../x.libs",), "inherited_paths": ("$ORIGIN/../x.libs",)},
            {},
            True,
        ),
        ({"search_paths": ("$ORIGIN/../x.libs",)}, {}, False),  # DT_RUNPATH holds for itself only
        (
            {"search_paths": ("$ORIGIN/../x.libs",), "inherited_paths": ("$ORIGIN/../x.libs",)},
            {"search_paths": ("$ORIGIN/lib",)},  # which takes the other's away
            False,
        ),
    ],
    ids=["rpath", "runpath", "runpath-of-its-own"],
)
def test_imports_follows_the_rpath_of_what_needs_a_library(
    needing_it: dict[str, Any], own: dict[str, Any], found: bool
) -> None:
    libraries = (
        fakes.library("llama_cpp/libllama.so", imports=("libggml.so",), **needing_it),
        fakes.library(
            "x.libs/libggml.so", imports=("libgomp-1a2b3c4d.so.1",), **{"search_paths": (), **own}
        ),
        fakes.library("x.libs/libgomp-1a2b3c4d.so.1", imports=()),
    )
    members = {lib.member: 1 for lib in libraries}
    case = fakes.case(fakes.wheel_facts(libraries=libraries, members=members))
    lost = "x.libs/libggml.so: no search path leads it to libgomp-1a2b3c4d.so.1"
    assert (lost not in host.imports(case).evidence) is found


@pytest.mark.parametrize(("guarded", "status"), [(("RDRAND",), "ok"), ((), "fail")])
def test_an_instruction_that_the_runtime_asks_for_first_is_not_beyond_the_level(
    guarded: tuple[str, ...], status: str
) -> None:
    features = {**fakes.BASELINE, "CPUID": 2, "RDRAND": 1}
    case = linux("libllama.so", cpu_features=features, guarded=guarded)
    assert host.cpu_baseline(case).status == status


def test_names_of_copies_of_one_file_are_those_of_its_links() -> None:
    same = {"sha256": "1" * 64, "soname": "libggml.so.0"}
    both = [fakes.library(f"llama_cpp/lib/{n}", **same) for n in ("libggml.so", "libggml.so.0")]
    case = fakes.case(fakes.wheel_facts(libraries=tuple(both)))
    assert "SONAME" not in host.libraries(case).evidence
    case = fakes.case(fakes.wheel_facts(libraries=(both[0],)))
    assert "libggml.so: its SONAME is libggml.so.0" in host.libraries(case).evidence


@pytest.mark.parametrize(
    ("data", "features", "held"),
    [
        (b"..random_device could not be read..", ["CPUID", "RDRAND", "SSE"], ("RDRAND",)),
        (b"..random_device..", ["CPUID", "RDRAND", "RDSEED"], ("RDRAND", "RDSEED")),
        (b"..random_device..", ["RDRAND"], ()),
        (b"..random_device..", ["CPUID", "LZCNT"], ()),
        (b"..fLaC..", ["CPUID", "LZCNT", "AVX"], ("LZCNT",)),
        (b"..fLaC..", ["LZCNT"], ()),
        (b"nothing of it", ["CPUID", "RDRAND"], ()),
        (b"..random_device..", ["CPUID", "AVX512F"], ()),
        (b"..VCRUNTIME140.dll..", ["CPUID", "XSAVE", "AVX2"], ("AVX2", "XSAVE")),
        (b"..VCRUNTIME140.dll..", ["CPUID", "AMX_TILE"], ()),
        (b"..vcomp140.amd64.pdb..", ["CPUID", "AVX"], ("AVX",)),
    ],
)
def test_guarded_features_are_those_of_a_runtime_that_asks(
    data: bytes, features: list[str], held: tuple[str, ...]
) -> None:
    assert wheel_rules.guarded(data, dict.fromkeys(features, 1), 100) == held


def test_what_msvcs_runtime_asks_for_is_few_instructions_of_a_library() -> None:
    # As in whisper.dll and in a library that /arch:AVX2 compiled (wheels.toml says which).
    few = {"CPUID": 20, "XSAVE": 1, "AVX": 52, "AVX2": 30}
    assert wheel_rules.guarded(b"VCRUNTIME140.dll", few, 107_762) == ("AVX", "AVX2", "XSAVE")
    many = {"CPUID": 20, "XSAVE": 1, "AVX": 13_912, "AVX2": 4_297}
    assert wheel_rules.guarded(b"VCRUNTIME140.dll", many, 142_182) == ("XSAVE",)


def test_every_check_has_a_planted_failure() -> None:
    # A new check must come with the facts for which it fails.
    assert set(checks(fakes.case())) == set().union(
        *(failing for _, failing, _ in PLANTED.values())
    )


# What looks alike, and is sound.
SOUND: dict[str, Case] = {
    "rtx50": fakes.case(),
    "cpu": fakes.case(fakes.cpu_facts(), spec=CPU_SPEC),
    "windows": windows(),
    "sass-and-ptx-where-both-are-wanted": fakes.case(
        cuda(ptx={"compute_120": 98}).facts, spec=fakes.claiming(archs=("120",))
    ),
    "ptx-alone-where-it-is-wanted": fakes.case(
        cuda(sass={}, ptx={"compute_120": 98}, tensor={}).facts,
        spec=fakes.claiming(archs=("120-virtual",), device_features=()),
    ),
    "two-architectures-where-both-are-wanted": fakes.case(
        cuda(sass={"sm_120": 98, "sm_90": 98}).facts,
        spec=fakes.claiming(archs=("120-real", "90-real")),
    ),
    "specific-where-it-is-wanted": fakes.case(
        cuda(sass={"sm_120a": 98}).facts, spec=fakes.claiming(archs=("120a-real",))
    ),
    "fp4": fakes.case(cuda(tensor=OMMA).facts, spec=fakes.claiming(device_features=FP4)),
    "avx512-in-the-module-that-is-for-it": linux(
        "libggml-cpu-haswell.so",
        member="llama_cpp/lib/libggml-cpu-skylakex.so",
        soname="$ORIGIN/libggml-cpu-skylakex.so",
        **AVX512,
    ),
    "data-between-functions": linux(
        "libllama.so", cpu_features={**fakes.BASELINE, "INVALID": 999}, instructions=100_000
    ),
    "llava-that-nothing-imports": facts(bindings=fakes.wheel_facts().bindings),
    "search-beside-the-folder": linux(
        "libllama.so", search_paths=("$ORIGIN", "$ORIGIN/..", "${ORIGIN}/lib")
    ),
    "search-nowhere-for-system-libraries": linux("libgomp.so.1", search_paths=()),
    "auditwheel's-folder": fakes.case(
        fakes.wheel_facts(
            libraries=edited(
                "libggml-cpu-haswell.so",
                edited(
                    "libggml-cpu-x64.so",
                    edited(
                        "libgomp.so.1", member="llama_cpp_python.libs/libgomp-a34b3233.so.1.0.0"
                    ),
                    imports=("libc.so.6",),
                ),
                imports=("libc.so.6", "libgomp-a34b3233.so.1.0.0"),
                search_paths=("$ORIGIN/../../llama_cpp_python.libs",),
            )
        )
    ),
    "renamed-with-metadata": facts(version="0.3.16+cu131", metadata_version="0.3.16+cu131"),
    "portable-release": release("0.3.36", "py3-none"),
    "tag-of-an-unknown-release": release("0.3.99", "cp313-cp313"),
    "tag-of-a-checkout": release("0.3.16", "py3-none", source="/home/user/llama-cpp-python"),
    "no-requires-python": facts(requires_python=""),
    "legacy-tag-that-is-true": platform("manylinux2014_x86_64", libraries=OLD_LIBRARIES),
    "both-tags-that-are-true": tagged(
        "cp311-cp311-manylinux2014_x86_64",
        "cp311-cp311-manylinux_2_17_x86_64",
        libraries=OLD_LIBRARIES,
    ),
    "cublas-to-a-minor": requiring("nvidia-cublas~=13.2"),
    "cublas-to-the-letter": requiring("nvidia-cublas==13.2.2.2"),
    "cublas-of-the-oldest-release": requiring(f"nvidia-cublas>={CUBLAS.version},<14"),
    "cublas-below-a-minor": requiring("nvidia-cublas<13.9,>=13.2"),
    "cublas-for-this-very-platform": requiring(
        "nvidia-cublas<14,>=13.2; sys_platform == 'linux' and platform_machine == 'x86_64'"
        " and python_version >= '3.11' and implementation_name == 'cpython'"
    ),
    "cublas-of-another-major-for-others": requiring(
        "nvidia-cublas<14,>=13.2", "nvidia-cublas<13,>=12; sys_platform == 'win32'"
    ),
    "cublas-above-a-version": requiring("nvidia-cublas<13.3,>13.2"),
    "cublas-of-one-minor": requiring("nvidia-cublas==13.2.*"),
    "packed-relocations-under-a-true-tag": platform(
        "manylinux_2_36_x86_64",
        libraries=edited(
            "libllama.so", symbol_versions={"GLIBC": "2.36", "GLIBC_ABI_DT_RELR": "0"}
        ),
    ),
    "cublas-of-two-lines": requiring("nvidia-cublas>=13.2", "nvidia-cublas<14"),
    "cublas-spelt-otherwise": requiring("NVIDIA.cuBLAS<14,>=13.2"),
    "cublas-package-of-the-major": requiring("nvidia-cublas-cu13<14,>=13.2"),
    "as-large-as-the-budget": facts(size=30_000_000),
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
def test_a_sound_wheel_has_no_complaint(name: str) -> None:
    found = checks(SOUND[name])
    assert [f"{c.summary}: {c.evidence}" for c in found.values() if c.status != "ok"] == []
    assert set(found) == IDS


def test_the_facts_of_a_real_wheel_have_no_complaint() -> None:
    """They are what ``verify`` left of an rtx50 wheel of 0.3.16: CUDA 13.1, GCC 12.2."""
    path = fakes.ROOT / "tests" / "data" / "wheelfile" / "rtx50.json"
    found = records.read(path, "facts", WheelFacts)
    assert found is not None, "of another form than now: verify the wheel, and copy its facts"
    record = fakes.recorded(found, sbom=found.bills[0].sha256)
    known = wheel_rules.upstream("0.3.16")
    made = checks(fakes.case(found, loader=found.loader, record=record, upstream=known))
    assert [f"{c.summary}: {c.evidence}" for c in made.values() if c.status != "ok"] == []
    told = {id_: check.summary for id_, check in made.items()}
    assert told["gpu-code"] == "gpu-code: sm_120: 71 × SASS in libggml-cuda.so"
    assert told["api"] == "api: 236 functions are exported"
    assert told["platform-tag"].endswith("is right (GCC 4.2.0, GLIBC 2.27)")
    modules = "alderlake, haswell, icelake, sandybridge, skylakex, sse42, x64"
    assert told["cpu-baseline"].endswith(f"ggml chooses for the CPU: {modules}")


def test_a_real_wheel_without_its_baseline_module_or_with_one_library_for_the_cpu_fails() -> None:
    path = fakes.ROOT / "tests" / "data" / "wheelfile" / "rtx50.json"
    found = records.read(path, "facts", WheelFacts)
    assert found is not None
    (x64,) = [lib for lib in found.libraries if lib.member.endswith("libggml-cpu-x64.so")]
    (haswell,) = [lib for lib in found.libraries if lib.member.endswith("libggml-cpu-haswell.so")]

    def complaint(*libraries: Library) -> str:
        changed = dataclasses.replace(found, libraries=libraries)
        made = checks(fakes.case(changed, upstream=wheel_rules.upstream("0.3.16")))
        assert made["cpu-baseline"].status == "fail"
        return made["cpu-baseline"].evidence

    rest = [lib for lib in found.libraries if lib not in (x64, haswell)]
    assert "there is no ggml-cpu-x64" in complaint(*rest, haswell)
    renamed = dataclasses.replace(haswell, member="llama_cpp/lib/libggml-cpu-x64.so")
    assert "libggml-cpu-x64.so: " in complaint(*rest, renamed)
    assert "× AVX" in complaint(*rest, renamed)


def test_the_wheel_of_the_founding_procedure_fails_for_each_thing_wrong_with_it() -> None:
    """Facts that ``verify`` left of it, built as the note says but for architecture 120."""
    path = fakes.ROOT / "tests" / "data" / "wheelfile" / "seed-procedure.json"
    found = records.read(path, "facts", WheelFacts)
    assert found is not None, "of another form than now: verify the wheel, and copy its facts"
    known = wheel_rules.upstream("0.3.16")
    made = checks(fakes.case(found, record=None, ours=False, upstream=known))
    failed = {id_: check for id_, check in made.items() if check.status == "fail"}
    assert set(failed) == {
        "layout", "size", "ptx", "libraries", "imports", "paths", "platform-tag", "loader",
        "cpu-baseline",
    }  # fmt: skip
    assert "stray: include/ (19 files)" in failed["layout"].evidence
    assert "72.4 MB" in failed["size"].evidence
    assert "98 × PTX for compute_120" in failed["ptx"].evidence
    warned = {id_ for id_, check in made.items() if check.status == "warn"}
    assert warned == {"sbom", "reproducible", "freshness"}


def test_each_check_is_made_once_and_in_groups_for_people() -> None:
    groups = judge(fakes.case())
    made = [check.id for group in groups for check in group.checks]
    assert len(made) == len(set(made))
    assert [group.name for group in groups] == [
        "The file",
        "Device code",
        "Host code",
        "Its build",
    ]


def test_a_sound_wheel_is_told_with_what_was_found() -> None:
    told = {id_: check.summary for id_, check in checks(fakes.case()).items()}
    assert told["gpu-code"] == "gpu-code: sm_120: 98 × SASS in libggml-cuda.so"
    assert told["gpu-features"] == "gpu-features: 23424 × HMMA, 36288 × IMMA"
    assert told["size"] == "size: 19.4 of 30 MB"
    assert told["api"] == "api: 3 functions are exported"
    assert told["libraries"] == "libraries: 8 × ELF for x86-64"
    assert told["platform-tag"].endswith("(CXXABI 1.3.13, GCC 3.4, GLIBC 2.34, GLIBCXX 3.4.30)")
    packed = checks(SOUND["packed-relocations-under-a-true-tag"])["platform-tag"].summary
    assert packed.endswith("GLIBC 2.36, GLIBCXX 3.4.30, GLIBC_ABI_DT_RELR)")


def test_the_modules_that_ggml_chooses_from_are_mentioned() -> None:
    check = checks(SOUND["avx512-in-the-module-that-is-for-it"])["cpu-baseline"]
    assert "none beyond x86-64 except in the modules" in check.summary
    assert check.summary.endswith("for the CPU: skylakex, x64")


def test_a_given_wheel_without_a_record_is_warned_of_and_not_refused() -> None:
    given = fakes.case(record=None, ours=False)
    assert complaints(given) == set()
    assert complaints(given, "warn") == {"reproducible", "freshness"}


def test_a_given_wheel_that_is_not_what_its_record_says_is_refused() -> None:
    assert complaints(dataclasses.replace(recorded(sha256="e" * 64), ours=False)) == {"freshness"}


def test_times_of_a_given_wheel_are_a_warning() -> None:
    given = dataclasses.replace(facts(times=("2020-01-01T00:00:00", "2021")), ours=False)
    assert complaints(given) == set()
    assert complaints(given, "warn") == {"reproducible"}


def test_a_given_wheel_may_be_for_the_other_system() -> None:
    assert complaints(fakes.case(fakes.windows_facts(), ours=False)) == set()


@pytest.mark.parametrize("spec", [fakes.claiming(), CPU_SPEC], ids=lambda spec: spec.target)
def test_without_libraries_no_check_of_them_passes(spec: BuildSpec) -> None:
    found = checks(fakes.case(fakes.wheel_facts(libraries=()), spec=spec))
    told = {id_ for id_, check in found.items() if "there is no library in it" in check.evidence}
    assert told == NEED_LIBRARIES
    assert {found[id_].status for id_ in told | {"api"}} == {"fail"}


def test_of_a_file_that_was_not_read_nothing_but_that_is_said() -> None:
    unread = fakes.case(
        dataclasses.replace(fakes.wheel_facts(), members={}, archive_problems=("not a zip file",))
    )
    found = checks(unread)
    assert set(found) == {"archive"}
    assert found["archive"].status == "fail"
    assert "not a zip file" in found["archive"].evidence


def test_where_the_file_name_has_no_tags_those_in_the_documents_say_the_system() -> None:
    renamed = fakes.case(fakes.windows_facts(tags=()), spec=WINDOWS_SPEC)
    assert renamed.windows
    assert complaints(renamed) == {"metadata"}


def test_without_any_tag_the_platform_is_not_taken_for_true() -> None:
    assert "platform-tag" in complaints(tagged())


@pytest.mark.parametrize("source", [None, "/home/user/llama-cpp-python"])
def test_a_release_that_is_not_locked_is_a_warning_and_not_a_pass(source: str | None) -> None:
    unknown = fakes.case(upstream=None, spec=fakes.claiming(source=source))
    assert complaints(unknown, "warn") == {"python-files"}
    assert complaints(unknown) == set()


def test_what_differs_of_a_source_of_ones_own_is_named_and_a_warning() -> None:
    own = fakes.claiming(source="/home/user/llama-cpp-python")
    found = fakes.wheel_facts(package_files={**FILES, MODULE: "e" * 64})
    made = checks(fakes.case(found, spec=own))["python-files"]
    assert made.status == "warn"
    assert MODULE in made.evidence


@pytest.mark.parametrize(
    ("recorded", "found", "fails"),
    [("0.3.47", "0.3.47", False), ("0.3.47", "0.3.16", True), ("0.3.16", "0.3.47", True)],
)
def test_the_version_of_a_source_of_ones_own_is_the_one_that_its_build_recorded(
    recorded: str, found: str, fails: bool
) -> None:
    facts = fakes.wheel_facts(version=found, metadata_version=found)
    case = fakes.case(
        facts,
        spec=fakes.claiming(source="/home/user/llama-cpp-python"),
        record=fakes.recorded(facts, version=recorded),
        upstream=None,
    )
    made = checks(case)["metadata"]
    assert (made.status == "fail") is fails
    assert not fails or f"the checkout's is {recorded}" in made.evidence
    assert "lock" not in checks(case)["python-files"].remedy


@pytest.mark.parametrize("version", ["0.3.16", "0.3.16.0", "0.3.16+cu131", "v0.3.16"])
def test_a_release_is_known_however_its_version_is_spelt(version: str) -> None:
    known = wheel_rules.upstream(version)
    assert known is not None
    assert known.version == "0.3.16"
    assert known.sdist_sha256 == locked.sdists()["0.3.16"].sha256
    assert known.files["llama_cpp/py.typed"] == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("version", ["", "0.3.15", "new", "9" * 5_000, "0.3.16.1"])
def test_another_version_is_not_taken_for_it(version: str) -> None:
    assert wheel_rules.upstream(version) is None


def test_every_locked_release_is_known_file_by_file() -> None:
    for version in locked.sdists():
        known = wheel_rules.upstream(version)
        assert known is not None
        assert {"llama_cpp/__init__.py", "llama_cpp/llama_cpp.py"} <= known.files.keys()
        assert known.parts["llama.cpp"]


@pytest.mark.parametrize("error", [RecursionError, ZeroDivisionError, UnicodeEncodeError])
def test_a_check_that_raises_fails_and_leaves_a_traceback(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(case: Case) -> Check:
        raise error(*(("utf-8", "x", 0, 1, "planted") if error is UnicodeEncodeError else ("x",)))

    monkeypatch.setattr(checks_file, "size", size)
    bugs: dict[str, str] = {}
    made = {c.id: c for group in judge(fakes.case(), bugs) for c in group.checks}
    assert {id_ for id_, check in made.items() if check.status != "ok"} == {"size"}
    assert set(made) == IDS
    assert made["size"].evidence.startswith(error.__name__)
    assert set(bugs) == {"size"}
    assert "in size" in bugs["size"]


def test_a_line_of_evidence_is_cut() -> None:
    evidence = checks(facts(record_problems=("x" * 100_000,)))["record"].evidence
    assert len(evidence) < 1_000


def test_evidence_is_cut_where_there_is_too_much_of_it() -> None:
    many = tuple(f"a{n}.py: not listed" for n in range(SHOWN + 3))
    lines = checks(facts(record_problems=many))["record"].evidence.splitlines()
    assert lines == [*many[:SHOWN], "… and 3 more"]


def test_as_much_evidence_as_is_shown_is_not_cut() -> None:
    many = tuple(f"a{n}.py: not listed" for n in range(SHOWN))
    assert checks(facts(record_problems=many))["record"].evidence.splitlines() == list(many)


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
def test_a_library_has_one_base_name_on_every_system(member: str, name: str) -> None:
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
def test_an_instruction_is_what_is_claimed_when_every_part_is_in_it(
    mnemonic: str, claim: str, has: bool
) -> None:
    assert has_feature(mnemonic, claim) is has
