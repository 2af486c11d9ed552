"""Builds small wheels like ours, with libraries from real compilers, and checks them."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sessions.build import import_hooks, sbom
from sessions.build.record_types import Wheel
from sessions.fetch.record_types import Toolkit
from sessions.lock import main_lock as locking
from sessions.probe.record_types import Toolchain
from sessions.shared import child_environment, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check
from sessions.targets import targets_file
from sessions.verify import reader
from sessions.verify.check_input import Case
from sessions.verify.run_checks import check_wheel
from sessions.verify.wheel_facts import WheelFacts
from sessions.verify.wheel_rules import Upstream
from tests import fakes
from tests.integration.conftest import REPOSITORY, sha256

LIB = "llama_cpp/lib"
UPSTREAM = ("llama.cpp", "ggml")
TIME = (2022, 11, 9, 12, 37, 20)
MANYLINUX = "cp311-cp311-manylinux_2_17_x86_64"
WINDOWS = "cp311-cp311-win_amd64"
REQUIRES = (
    "cuda-pathfinder>=1.3",
    "nvidia-cuda-runtime>=13.1.80,<14",
    "nvidia-cublas>=13.2.2.2,<14",
)
FATBIN = bytes.fromhex("50ed55ba01001000")  # how a fat binary begins
LEAST_AVX512 = bytes.fromhex("62f17c4858c1")  # vaddps zmm0, zmm0, zmm1

# ---- Sources of the libraries ------------------------------------------------------------------

BASE = "EXPORT int ggml_version(void) { return 16; }"
CPU = """
typedef int wide __attribute__((vector_size(WIDTH), aligned(4)));
EXPORT void ggml_cpu_add(wide *x, const wide *y) { *x += *y; }
"""
MODULE = "EXPORT int ggml_backend_score(void) { return 1; }\n"
GGML = "EXPORT int ggml_backend_count(void) { return 2; }"
LLAMA = """
EXPORT void llama_backend_init(void) {}
EXPORT unsigned long llama_max_devices(void) { return 16; }
EXPORT int llama_decode(const int *tokens, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++) sum = 31 * sum + (tokens[i] ^ (sum >> 7)) % 1009;
    return sum;
}
"""
MTMD = 'EXPORT const char *mtmd_default_marker(void) { return "<__media__>"; }'

_KERNEL = r"""
extern "C" int cublasCreate_v2(void **);
extern "C" int cuInit(unsigned);
#define A "r"(in[0]), "r"(in[1]), "r"(in[2]), "r"(in[3]), "r"(in[4]), "r"(in[5])
#define SUM "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3}"
__global__ void multiply(const unsigned *in, float *f, int *i) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 " SUM ";"
                 : "+f"(f[0]), "+f"(f[1]), "+f"(f[2]), "+f"(f[3]) : A);
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 " SUM ";"
                 : "+r"(i[0]), "+r"(i[1]), "+r"(i[2]), "+r"(i[3]) : A);
#ifdef FP4
    asm volatile("mma.sync.aligned.kind::mxf4.block_scale.scale_vec::2X.m16n8k64.row.col"
                 ".f32.e2m1.e2m1.f32.ue8m0 " SUM ", %10, {0, 0}, %11, {0, 0};"
                 : "+f"(f[0]), "+f"(f[1]), "+f"(f[2]), "+f"(f[3]) : A, "r"(in[6]), "r"(in[7]));
#endif
}
extern "C" int ggml_cuda_multiply(const unsigned *in, float *f, int *i) {
    void *handle;
    if (cuInit(0) || cublasCreate_v2(&handle)) return 1;
    multiply<<<1, 32>>>(in, f, i);
    return 0;
}
"""
# For Windows: the fat binary in the section that nvcc uses, and the calls written by hand.
_WINDOWS_CUDA = """
IMPORT int cudaGetDeviceCount(int *);
IMPORT int cublasCreate_v2(void **);
IMPORT int cuInit(unsigned);
__asm__(".section .nv_fatb,\\"dr\\"\\n.balign 16\\ncode: .incbin \\"@FATBIN@\\"\\n.text\\n");
__asm__(".section .nvFatBi,\\"dw\\"\\n.balign 8\\n.long 0x466243b1, 1\\n.quad code, 0\\n.text\\n");
extern const char code[];
EXPORT const char *ggml_cuda_code(void) {
    void *handle;
    int count;
    return cuInit(0) || cudaGetDeviceCount(&count) || cublasCreate_v2(&handle) ? 0 : code;
}
"""
_ELF = '#define EXPORT __attribute__((visibility("default")))\n'
_PE = """#define EXPORT __declspec(dllexport)
#define IMPORT __declspec(dllimport)
int __stdcall DllMainCRTStartup(void *self, unsigned why, void *more) { return 1; }
"""

# ---- The package -------------------------------------------------------------------------------

_BINDINGS = """\
import ctypes
import os
import pathlib

from llama_cpp._ctypes_extensions import ctypes_function_for_shared_library, load_shared_library

_lib_base_name = "{library}"
_base_path = pathlib.Path(os.path.abspath(os.path.dirname(__file__))) / "lib"
_lib = load_shared_library(_lib_base_name, _base_path)
ctypes_function = ctypes_function_for_shared_library(_lib)
"""
_FUNCTION = """

@ctypes_function("{name}", [], ctypes.c_int)
def {name}():
    ...
"""
_EXTENSIONS = """\
import ctypes


def load_shared_library(lib_base_name, base_path):
    return ctypes.CDLL(str(base_path / "lib{}.so".format(lib_base_name)))


def ctypes_function_for_shared_library(lib):
    def ctypes_function(name, argtypes, restype, enabled=True):
        def decorator(f):
            return getattr(lib, name)

        return decorator

    return ctypes_function
"""


def _bindings(library: str, *functions: str) -> bytes:
    text = _BINDINGS.format(library=library) + "".join(_FUNCTION.format(name=f) for f in functions)
    return text.encode()


@dataclasses.dataclass
class Draft:
    """A wheel before it is packed. ``built`` are the libraries in the record of its build; if None,
    those in the wheel. ``times`` and ``modes`` are exceptions for members.
    """

    members: dict[str, bytes]
    file: str
    built: dict[str, str] | None = None
    times: dict[str, tuple[int, int, int, int, int, int]] = dataclasses.field(default_factory=dict)
    modes: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def info(self) -> str:
        return next(n.split("/")[0] for n in self.members if ".dist-info/" in n)

    @property
    def libraries(self) -> dict[str, str]:
        """File name -> sha256 of the files in the folder of the libraries."""
        lib = {n: data for n, data in self.members.items() if n.startswith(f"{LIB}/")}
        return {name.rsplit("/", 1)[-1]: sha256(data) for name, data in lib.items()}

    def copy(self) -> Draft:
        return dataclasses.replace(
            self, members=dict(self.members), times=dict(self.times), modes=dict(self.modes)
        )

    def edit(self, member: str, old: bytes, new: bytes) -> None:
        assert old in self.members[member], member
        self.members[member] = self.members[member].replace(old, new)

    def record(self) -> None:
        """Write RECORD for the present members. Packing does this if RECORD is missing."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        for name, data in self.members.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
            writer.writerow([name, f"sha256={digest.decode()}", len(data)])
        writer.writerow([f"{self.info}/RECORD", "", ""])
        self.members[f"{self.info}/RECORD"] = lines.getvalue().encode()

    def pack(self, folder: Path, *, recorded: bool = True) -> Path:
        """Write the wheel and, if ``recorded``, wheel.json beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file
        packed = self.copy()
        if f"{self.info}/RECORD" not in self.members:
            packed.record()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, data in packed.members.items():
                info = zipfile.ZipInfo(name, self.times.get(name, TIME))
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = self.modes.get(name, stat.S_IFREG | 0o644) << 16
                archive.writestr(info, data)
        if recorded:
            libraries = self.libraries if self.built is None else self.built
            bill = self.members.get(f"{self.info}/sboms/{sbom.FILE}", b"")
            record = fakes.wheel(
                file=path.name,
                sha256=records.file_sha256(path),
                size=path.stat().st_size,
                version=path.name.split("-")[1],
                libraries=libraries,
                requires=REQUIRES,
                sbom=sha256(bill),
            )
            records.write(folder / "wheel.json", "wheel", record)
        return path


def draft(
    libraries: Mapping[str, bytes], *, version: str = "0.3.16", tag: str = MANYLINUX
) -> Draft:
    """A sound wheel with these libraries."""
    info = f"llama_cpp_python-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {version}"]
    metadata += ["Requires-Python: >=3.8", *(f"Requires-Dist: {r}" for r in REQUIRES)]
    ours = added()
    wheel = f"Wheel-Version: 1.0\nGenerator: test 1\nRoot-Is-Purelib: false\nTag: {tag}\n"
    members = {
        "llama_cpp/__init__.py": "".join(
            hook for name, hook in import_hooks.HOOKS.items() if name in ours
        ).encode()
        + b"from .llama_cpp import *\nfrom .llama import *\n",
        "llama_cpp/_ctypes_extensions.py": _EXTENSIONS.encode(),
        **{f"llama_cpp/{name}": text.encode() for name, text in ours.items()},
        "llama_cpp/llama.py": b"from . import llama_cpp, mtmd_cpp\n",
        "llama_cpp/llama_cpp.py": _bindings(
            "llama", "llama_backend_init", "llama_max_devices", "llama_decode"
        ),
        "llama_cpp/mtmd_cpp.py": _bindings("mtmd", "mtmd_default_marker"),
        **{f"{LIB}/{name}": data for name, data in libraries.items()},
        f"{info}/METADATA": "\n".join([*metadata, "", "Bindings.\n"]).encode(),
        f"{info}/WHEEL": wheel.encode(),
        f"{info}/sboms/{sbom.FILE}": _bill(version, libraries).encode(),
    }
    return Draft(members, f"llama_cpp_python-{version}-{tag}.whl")


def _bill(version: str, libraries: Mapping[str, bytes]) -> str:
    """The SBOM that a build would write."""
    kit = fakes.toolkit(components={"nvidia-cuda-runtime": "13.1.80", "nvidia-cublas": "13.2.2.2"})
    inside = [
        sbom.Part(n, "", f"pkg:github/x/{n}", "MIT", ("compiled in",))
        for n in (*UPSTREAM, "libstdc++")
    ]
    others = [
        sbom.Part(name, "", f"pkg:generic/{name}", "MIT", ("a file of it",), name, sha256(data))
        for name, data in libraries.items()
        if not re.match(r"(lib)?(ggml|llama|mtmd)[.-]", name)
    ]
    parts = [*inside, *others, *sbom.cuda(kit, REQUIRES)]
    source = fakes.source(version=version)
    return json.dumps(sbom.document(fakes.spec(), source, source.epoch, parts))


def added(platform: str = "linux", archs: tuple[str, ...] = ("120-real",)) -> dict[str, str]:
    """The modules that we add to an rtx50 wheel."""
    overlay = REPOSITORY / "sessions" / "build" / "overlay"
    texts = {path.name: path.read_text(encoding="utf-8") for path in overlay.glob("*.py")}
    return import_hooks.modules(texts, platform=platform, cuda="13.1", archs=archs)


def preload() -> str:
    """The digest of the module that loads a Windows wheel's libraries."""
    return records.text_sha256(
        (REPOSITORY / "sessions" / "build" / "overlay" / import_hooks.DLLS).read_bytes()
    )


def known(version: str) -> Upstream:
    """The known facts of the release in a draft."""
    members = draft({}).members
    text = members["llama_cpp/__init__.py"]
    for hook in import_hooks.HOOKS.values():
        text = text.removeprefix(hook.encode())
    files = {
        name: records.text_sha256(data)
        for name, data in {**members, "llama_cpp/__init__.py": text}.items()
        if name.startswith("llama_cpp/")
        and not name.endswith((*import_hooks.HOOKS, import_hooks.DOCTOR))
    }
    sdist = fakes.source().sdist_sha256
    assert sdist is not None
    return Upstream(version, sdist, files, dict.fromkeys(UPSTREAM, ""), frozenset())


def lock(root: Path, version: str = "0.3.16") -> None:
    """Replace the data of this release in the project in ``root`` by that of a draft."""
    row = known(version)
    path = root / "sessions" / "data" / "knowledge" / "upstream.toml"
    facts_ = {"requires": list(row.requires), "parts": row.parts, "files": row.files}
    locking.put(path, "release", version, facts_)
    sources = root / "sessions" / "data" / "knowledge" / "sdists.toml"
    text = sources.read_text(encoding="utf-8")
    table = rf'(\[sdist."{re.escape(version)}"\][^\[]*sha256 = )"\w+"'
    changed = re.sub(table, rf'\1"{row.sdist_sha256}"', text, flags=re.S)
    assert changed != text
    sources.write_text(changed, encoding="utf-8")


# ---- The checks, in this process ---------------------------------------------------------------


def target(name: str, platform: str = "linux") -> BuildSpec:
    return targets_file.load((REPOSITORY / "targets.toml").read_text(encoding="utf-8"), platform)[
        name
    ]


def read(path: Path, scratch: Path) -> WheelFacts:
    """The facts of a wheel, as ``verify`` reads them."""
    scratch.mkdir(parents=True, exist_ok=True)
    env = child_environment.system_environment(os.environ)
    return reader.read(path, scratch, env, os.cpu_count() or 1, lambda *_: None)


def checked(
    path: Path,
    wanted: BuildSpec,
    scratch: Path,
    upstream: Upstream | None = None,
    *,
    ours: bool = False,
    found: WheelFacts | None = None,
) -> dict[str, Check]:
    """All checks of a wheel by id. With a record beside it, or if ``ours``, it was built here.

    Its release is ``upstream``, by default that of the drafts. ``found`` are facts that were read.
    """
    found = found or read(path, scratch)
    beside = records.read(path.parent / "wheel.json", "wheel", Wheel)
    record = beside if beside and beside.file == path.name else None
    digest = records.text_sha256(import_hooks.loader_text(added()).encode())
    release = upstream or known(found.version)
    case = Case(found, wanted, record, ours or record is not None, digest, preload(), release)
    return {check.id: check for group in check_wheel(case) for check in group.checks}


# ---- The compilers -----------------------------------------------------------------------------


def soname(name: str) -> str:
    """The SONAME in our builds, whose libraries need each other by path."""
    return f"$ORIGIN/{name}" if re.match("lib(ggml|llama|mtmd)", name) else name


class Workshop:
    """The gcc and nvcc of the rtx50 wheel, and zig for other systems."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        build = REPOSITORY / "build" / "rtx50"
        toolkit = records.read(build / "toolkit.json", "toolkit", Toolkit)
        machine = records.read(build / "probe.json", "probe", Toolchain)
        if not (toolkit and Path(toolkit.root).is_dir() and machine and machine.compiler):
            pytest.fail("There is no toolkit of the rtx50 wheel. Build it first: nox -s wheel")
        if importlib.util.find_spec("ziglang") is None:
            pytest.fail("There is no zig: nox -s integration installs it")
        self.toolkit = Path(toolkit.root)
        self.cc, self.cxx = machine.compiler.cc, machine.compiler.cxx
        self.folder = folder
        zig = {"ZIG_GLOBAL_CACHE_DIR": "zig-global", "ZIG_LOCAL_CACHE_DIR": "zig-local"}
        self.env = {**env, **{name: str(folder / part) for name, part in zig.items()}}
        self._objects: dict[tuple[str, ...], Path] = {}

    def run(self, *words: object) -> None:
        command = [str(word) for word in words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"

    def zig(self, *words: object) -> None:
        self.run(sys.executable, "-m", "ziglang", *words)

    def _fresh(self, name: str) -> Path:
        """A path with this name in a new folder."""
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        return folder / name

    def _source(self, name: str, code: str, suffix: str = ".c") -> tuple[Path, Path]:
        """A path with this name in a new folder, and a source file with this code beside it."""
        out = self._fresh(name)
        source = out.with_suffix(suffix)
        source.write_text(code)
        return out, source

    def elf(
        self, name: str, code: str, *words: object, rpath: str = "$ORIGIN", by_name: bool = False
    ) -> bytes:
        """A Linux library linked as in our builds, or one that others then need by its name."""
        out, source = self._source(name, _ELF + code)
        self.run(
            *(self.cc, "-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-s", source, "-o", out),
            *(
                f"-ffile-prefix-map={out.parent}=.",
                f"-Wl,-soname,{name if by_name else soname(name)}",
            ),
            *(f"-Wl,-rpath,{rpath}", "-Wl,--enable-new-dtags,--no-as-needed"),
            *words,
        )
        return out.read_bytes()

    def foreign(self, zig_target: str, name: str, code: str) -> bytes:
        """A library for another machine."""
        out, source = self._source(name, (_PE if "windows" in zig_target else _ELF) + code)
        self.zig(
            "cc", "-target", zig_target, "-nostdlib", "-shared", "-O2", "-s", source, "-o", out
        )
        return out.read_bytes()

    def cuda(self, *codes: str, fp4: bool = False, cublas: Path | None = None) -> bytes:
        """libggml-cuda.so with machine code ("sm_120") or PTX ("compute_120") of its kernel."""
        out = self._fresh("libggml-cuda.so")
        lib = self.toolkit / "lib64"
        self.run(
            *(self.cxx, "-shared", "-s", self._object(*codes, fp4=fp4), "-o", out),
            *(f"-Wl,-soname,{soname(out.name)}", "-Wl,-rpath,$ORIGIN"),
            *("-Wl,--enable-new-dtags,--no-as-needed", f"-L{lib}", f"-L{lib / 'stubs'}"),
            *("-lcudart", cublas or "-lcublas", "-lcuda"),
        )
        return out.read_bytes()

    def _object(self, *codes: str, fp4: bool) -> Path:
        key = (*codes, str(fp4))
        if key not in self._objects:
            words = ("-c", "-Xcompiler", "-fPIC,-O2", *(["-DFP4"] if fp4 else []))
            self._objects[key] = self._nvcc("ggml-cuda.o", codes, *words)
        return self._objects[key]

    def fatbin(self, *codes: str) -> Path:
        """Only the GPU code of libggml-cuda."""
        return self._nvcc("ggml-cuda.fatbin", codes, "--fatbin")

    def _nvcc(self, name: str, codes: tuple[str, ...], *words: object) -> Path:
        out, source = self._source(name, _KERNEL, ".cu")
        pairs = [(code.replace("sm_", "compute_"), code) for code in codes]
        generate = [w for arch, code in pairs for w in ("-gencode", f"arch={arch},code={code}")]
        nvcc = self.toolkit / "bin" / "nvcc"
        self.run(nvcc, "-ccbin", self.cxx, *generate, *words, source, "-o", out)
        return out

    def dll(
        self, name: str, code: str, *words: object, needs: Mapping[str, str] | None = None
    ) -> bytes:
        """A Windows library; ``needs`` has a function of each DLL that it imports from."""
        out, source = self._source(name, _PE + code)
        libraries = [self._import_library(out.parent, *need) for need in (needs or {}).items()]
        self.zig(
            *("cc", "-target", "x86_64-windows-gnu", "-nostdlib", "-shared", "-O2", "-s"),
            *(source, *libraries, *words, "-o", out),
        )
        return out.read_bytes()

    def dll_with_debug_file(self, name: str, code: str, pdb: str) -> bytes:
        """A Windows library linked with /DEBUG: it contains the path of its PDB file."""
        out, source = self._source(name, _PE + code)
        self.zig(
            *("cc", "-target", "x86_64-windows-msvc", "-c", "-O2", "-g", source),
            *("-o", out.with_suffix(".obj")),
        )
        self.zig(
            *("lld-link", "/dll", "/debug", f"/pdbaltpath:{pdb}", "/entry:DllMainCRTStartup"),
            *(f"/out:{out}", out.with_suffix(".obj")),
        )
        return out.read_bytes()

    def _import_library(self, folder: Path, dll: str, function: str) -> Path:
        definition = folder / f"{dll}.def"
        definition.write_text(f"LIBRARY {dll}\nEXPORTS\n{function}\n")
        library = definition.with_suffix(".lib")
        self.zig("dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library)
        return library

    # ---- whole wheels -------------------------------------------------------------------------

    def linux_libraries(self) -> dict[str, bytes]:
        """The libraries of the sound rtx50 wheel."""
        folder = self.folder / "linux"
        folder.mkdir()
        found: dict[str, bytes] = {}

        def add(name: str, data: bytes) -> None:
            found[name] = data
            (folder / name).write_bytes(data)

        add("libggml-base.so", self.elf("libggml-base.so", BASE))
        base = folder / "libggml-base.so"
        add("libggml-cpu-x64.so", self.module("x64", "-DWIDTH=16", base, "-lm"))
        add("libggml-cpu-haswell.so", self.module("haswell", "-mavx2", "-DWIDTH=32", base, "-lm"))
        add("libggml-cuda.so", self.cuda("sm_120"))
        add("libggml.so", self.elf("libggml.so", GGML, base))
        add("libllama.so", self.elf("libllama.so", LLAMA, folder / "libggml.so", base))
        add("libmtmd.so", self.elf("libmtmd.so", MTMD, folder / "libllama.so", base))
        return found

    def windows_libraries(self) -> dict[str, bytes]:
        """The libraries of the sound rtx50 wheel for Windows."""
        runtime = {"MSVCP140.dll": "_Mtx_lock"}
        calls = "IMPORT int {0}(void);\nEXPORT int calls_{0}(void) {{ return {0}(); }}\n"
        locks, version = calls.format("_Mtx_lock"), calls.format("ggml_version")
        base = {"ggml-base.dll": "ggml_version"}
        return {
            "ggml-base.dll": self.dll("ggml-base.dll", BASE + locks, needs=runtime),
            "ggml-cpu-x64.dll": self.windows_cpu("-DWIDTH=16", name="x64"),
            "ggml-cpu-haswell.dll": self.windows_cpu("-mavx2", "-DWIDTH=32"),
            "ggml-cuda.dll": self.windows_cuda("sm_120"),
            "ggml.dll": self.dll("ggml.dll", GGML + version, needs=base),
            "llama.dll": self.dll("llama.dll", LLAMA + version, needs=base),
            "mtmd.dll": self.dll("mtmd.dll", MTMD + version, needs=base),
            "msvcp140.dll": self.dll("msvcp140.dll", "EXPORT int _Mtx_lock(void) { return 0; }"),
            "vcomp140.dll": self.dll("vcomp140.dll", "EXPORT int _vcomp_fork(void) { return 0; }"),
        }

    def module(self, name: str, *words: str | Path) -> bytes:
        """A CPU module of ggml."""
        return self.elf(f"libggml-cpu-{name}.so", CPU + MODULE, *words)

    def windows_cpu(self, *words: str, name: str = "haswell") -> bytes:
        code = (
            CPU
            + MODULE
            + "IMPORT int _vcomp_fork(void);\nEXPORT int forks(void) { return _vcomp_fork(); }\n"
        )
        return self.dll(f"ggml-cpu-{name}.dll", code, *words, needs={"VCOMP140.DLL": "_vcomp_fork"})

    def windows_cuda(self, *codes: str, cublas: str = "cublas64_13.dll") -> bytes:
        code = _WINDOWS_CUDA.replace("@FATBIN@", str(self.fatbin(*codes)))
        needs = {
            "cudart64_13.dll": "cudaGetDeviceCount",
            cublas: "cublasCreate_v2",
            "nvcuda.dll": "cuInit",
        }
        return self.dll("ggml-cuda.dll", code, needs=needs)
