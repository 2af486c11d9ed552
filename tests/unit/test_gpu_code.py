"""Reading a library: CPU code, GPU code, source paths, ELF headers; and the rules for them."""

from __future__ import annotations

import importlib.metadata
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from iced_x86 import CpuidFeature

from sessions.shared.programs import Finished
from sessions.verify import cpu_code, fatbin, gpu_code, library, wheel_rules
from sessions.verify.fatbin import MAGIC, Unreadable
from sessions.verify.wheel_facts import Library
from tests import elfs
from tests.elfs import fat_binary
from tests.elfs import gpu_code as piece

# ---- CPU code -----------------------------------------------------------------------------------

NOP = b"\x90"
ADDPS = bytes.fromhex("0f58c1")  # SSE
VADDPS_ZMM = bytes.fromhex("62f17c4858c1")  # vaddps zmm0,zmm0,zmm1
BAD = b"\x06"  # push es: not an instruction in 64-bit code


@pytest.mark.parametrize("seed", range(4))
def test_scan_finds_one_instruction_among_200000_anywhere(seed: int) -> None:
    generator = random.Random(seed)
    pieces = generator.choices([NOP, ADDPS, bytes.fromhex("660f58c1")], k=200_000)
    # A random place, and the first or the last.
    places = sorted({generator.randrange(200_000), [0, 199_999][seed % 2]})
    for place in places:
        pieces[place] = VADDPS_ZMM
    starts = [0x401000 + sum(map(len, pieces[:place])) for place in places]
    total, features, first = cpu_code.scan([(0x401000, b"".join(pieces))])
    assert total == 200_000
    assert features["AVX512F"] == len(places)
    assert first["AVX512F"] == [f"{start:#x} vaddps zmm0,zmm0,zmm1" for start in starts]
    assert set(features) == {"INTEL8086", "SSE", "SSE2", "AVX512F"}


@pytest.mark.parametrize(
    ("code", "feature", "allowed"),
    [
        ("90", "INTEL8086", True),
        ("4801c8", "X64", True),
        ("f30f1efa", "CET_IBT", True),
        ("f390", "PAUSE", True),
        ("0f1f4000", "MULTIBYTENOP", True),
        ("0f05", "SYSCALL", True),
        ("f30fb8c1", "POPCNT", False),
        ("c5f458c1", "AVX", False),
        ("c5f5fec1", "AVX2", False),
        ("c4e27598c1", "FMA", False),
        ("c4e27d13c1", "F16C", False),
        ("c4e27bf7c1", "BMI2", False),
        ("f30fbdc1", "LZCNT", False),
        ("f3480fbcc8", "INTEL386", True),  # tzcnt rcx,rax: a CPU without BMI1 executes bsf
        ("c4e278f3c9", "BMI1", False),  # blsr eax,ecx
        ("0f01d0", "XSAVE", False),
        ("62f17c4858c1", "AVX512F", False),
        ("62f17c2858c1", "AVX512VL", False),
        ("62f2752850c1", "AVX512_VNNI", False),
        ("c4e27550c1", "AVX_VNNI", False),
        ("c4e27849c0", "AMX_TILE", False),
        ("660f38dcc1", "AES", False),
        ("0f38c8c1", "SHA", False),
        ("0fc7f0", "RDRAND", False),
        ("06", "INVALID", False),
    ],
)
def test_scan_returns_the_cpu_feature_of_an_instruction(
    code: str, feature: str, allowed: bool
) -> None:
    count, features, first = cpu_code.scan([(0, bytes.fromhex(code))])
    assert count == 1
    assert features[feature] == 1
    assert first[feature][0].startswith("0x0 ")
    assert (set(features) <= wheel_rules.cpu().features) is allowed


SUBPS_ZMM = bytes.fromhex("62f17c485cc1")


@pytest.mark.parametrize(
    ("pieces", "features", "first"),
    [
        (
            [(0x10, NOP + BAD * 8 + NOP)],
            {"INTEL8086": 2, "INVALID": 8},
            {"INVALID": ["0x11 (bad)", "0x12 (bad)", "0x13 (bad)"]},
        ),
        # The decoder takes the byte after such an opcode as its operand.
        (
            [(0x10, BAD + VADDPS_ZMM + NOP)],
            {"AVX512F": 1, "INTEL8086": 1, "INVALID": 1},
            {"AVX512F": ["0x11 vaddps zmm0,zmm0,zmm1"]},
        ),
        # Decoded as one piece of code these bytes would be other instructions.
        (
            [(0x2000, VADDPS_ZMM[:1]), (0x1000, VADDPS_ZMM)],
            {"AVX512F": 1, "INVALID": 1},
            {"AVX512F": ["0x1000 vaddps zmm0,zmm0,zmm1"]},
        ),
        (
            [(0, SUBPS_ZMM + VADDPS_ZMM * 5 + SUBPS_ZMM)],
            {"AVX512F": 7},
            {
                "AVX512F": [
                    "0x0 vsubps zmm0,zmm0,zmm1",
                    "0x6 vaddps zmm0,zmm0,zmm1",
                    "0xc vaddps zmm0,zmm0,zmm1",
                ]
            },
        ),
        ([], {}, {}),
        ([(0x1000, b"")], {}, {}),
    ],
    ids=["invalid", "after-data", "pieces", "first-by-address", "no-piece", "empty-piece"],
)
def test_scan_counts_instructions_by_feature_and_shows_the_first(
    pieces: list[tuple[int, bytes]], features: dict[str, int], first: dict[str, list[str]]
) -> None:
    total, found, shown = cpu_code.scan(pieces)
    assert (total, found) == (sum(features.values()), features)
    assert {name: shown[name] for name in first} == first


def test_scan_does_not_count_an_instruction_that_is_cut_off() -> None:
    features = cpu_code.scan([(0, NOP + VADDPS_ZMM[:-1])])[1]
    assert features["INVALID"] == 1
    assert "AVX512F" not in features


# ---- GPU code -----------------------------------------------------------------------------------

HMMA, IMMA, MOV = 0x23C, 0x237, 0x202
NAMES = {HMMA: "HMMA.16816.F32", IMMA: "IMMA.16832.S8.S8", MOV: "MOV"}


def gpu(opcode: int, *bits: int) -> bytes:
    """A GPU instruction: its opcode, and further bits that are set."""
    return (opcode | sum(1 << bit for bit in bits)).to_bytes(16, "little")


class Disassembler:
    """Names instructions by their opcode, and records how many it got in each call."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def __call__(self, code: bytes) -> Sequence[str]:
        self.counts.append(len(code) // 16)
        opcodes = [code[at] | (code[at + 1] & 0xF) << 8 for at in range(0, len(code), 16)]
        return [NAMES[opcode] for opcode in opcodes]


@pytest.mark.parametrize(
    ("code", "found", "disassembled"),
    [
        # One of each opcode, then one of each variant: not the whole code.
        (
            [gpu(MOV) + gpu(HMMA) * 3 + gpu(MOV), gpu(IMMA) + gpu(MOV) * 5 + gpu(HMMA)],
            {"HMMA.16816.F32": 4, "IMMA.16832.S8.S8": 1},
            [3, 2],
        ),
        ([gpu(HMMA, 110), gpu(HMMA, 16), gpu(HMMA)], {"HMMA.16816.F32": 3}, [1, 1]),
        (
            [gpu(MOV) * 1_000, gpu(MOV, 16, 41, 105) * 1_000 + gpu(IMMA)],
            {"IMMA.16832.S8.S8": 1},
            [2, 1],
        ),
        ([gpu(MOV) * 5], {}, [1]),
    ],
    ids=["several", "same-in-all-pieces", "at-the-end", "none"],
)
def test_tensor_instructions_are_counted_by_mnemonic(
    code: list[bytes], found: dict[str, int], disassembled: list[int]
) -> None:
    disassembler = Disassembler()
    assert gpu_code.tensor_instructions(code, disassembler) == found
    assert disassembler.counts == disassembled


@pytest.mark.parametrize(
    ("bit", "variants"),
    [
        (12, 1), (15, 1), (16, 1), (39, 1), (64, 1), (71, 1), (105, 1), (127, 1),
        (40, 2), (63, 2), (72, 2), (104, 2),
    ],
)  # fmt: skip
def test_registers_predicate_and_scheduling_are_not_part_of_a_variant(
    bit: int, variants: int
) -> None:
    disassembler = Disassembler()
    code = [gpu(HMMA) * 2 + gpu(HMMA, bit)]
    assert gpu_code.tensor_instructions(code, disassembler) == {"HMMA.16816.F32": 3}
    assert disassembler.counts == [1, variants]


def test_each_variant_of_an_instruction_is_disassembled() -> None:
    def disassemble(code: bytes) -> list[str]:
        # Bit 78 is another type of the sum.
        return [f"HMMA.F{32 if code[at + 9] & 64 else 16}" for at in range(0, len(code), 16)]

    code = [gpu(HMMA) + gpu(HMMA, 78) * 2 + gpu(HMMA, 20)]
    assert gpu_code.tensor_instructions(code, disassemble) == {"HMMA.F16": 2, "HMMA.F32": 2}


@pytest.mark.parametrize(
    ("mnemonic", "tensor"),
    [
        ("HMMA.16816.F32", True),
        ("OMMA.SF.16864.F32.E2M1.E2M1.E8", True),
        ("QGMMA.64x8x32.F32.E4M3.E4M3", True),
        ("DMMA.884", True),
        ("UTCHMMA", True),
        ("FFMA.FTZ", False),
        ("MOV", False),
        ("LDGSTS.MMA", False),
    ],
)
def test_is_tensor_uses_the_first_part_of_the_mnemonic(mnemonic: str, tensor: bool) -> None:
    assert gpu_code.is_tensor(mnemonic) is tensor


LISTING = """\
	.headerflags	@"EF_CUDA_SM120"
        /*0000*/                   LDC R1, c[0x0][0x37c] ;                 /* 0x0000df00ff017b82 */
                                                                           /* 0x000fe20000000800 */
        /*0010*/              @!P0 HMMA.16816.F32 R4, R8, R2, R4 ;         /* 0x0000000208047c3c */
                                                                           /* 0x004fde0000001804 */
        /*0020*/               @P1 EXIT ;                                  /* 0x000000000000194d */
        /*0030*/             @!UP2 UMOV UR4, 0x1 ;                         /* 0x0000000100047882 */
        /*0fff0*/                  BRA 0x30;                               /* 0xfffffffc00fc7947 */
"""


def test_mnemonics_are_read_without_predicate_and_operands() -> None:
    assert gpu_code.mnemonics(LISTING, 5) == ["LDC", "HMMA.16816.F32", "EXIT", "UMOV", "BRA"]


@pytest.mark.parametrize("count", [4, 6])
def test_mnemonics_refuses_a_listing_of_another_length(count: int) -> None:
    with pytest.raises(Unreadable, match=f"nvdisasm shows 5 of {count} instructions"):
        gpu_code.mnemonics(LISTING, count)


def test_listed_counts_by_architecture() -> None:
    output = (
        "Fatbin ptx code:\n"
        "ELF file    1: all.1.sm_120.cubin\n"
        "ELF file    2: all.2.sm_120.cubin\n"
        "ELF file   10: all.10.sm_120a.cubin\n"
        "ELF file  100: all.100.sm_90.cubin\n"
        "PTX file    1: all.1.sm_120.ptx\n"
    )
    assert gpu_code.listed(output, "ELF file") == {"sm_120": 2, "sm_120a": 1, "sm_90": 1}
    assert gpu_code.listed(output, "PTX file") == {"compute_120": 1}


@pytest.mark.parametrize(
    "output",
    ["", "No ELF file found to extract\n", "cuobjdump info: no sm_120 here\n", "ELF file 1: x.ptx"],
)
def test_listed_without_files_is_empty(output: str) -> None:
    assert gpu_code.listed(output, "ELF file") == {}


def carved(data: bytes) -> list[bytes]:
    return [data[start:end] for start, end in fatbin.places(data)]


ONE, TWO = fat_binary(piece(b"one")), fat_binary(piece(b"two"))
OUTER = fat_binary(b"data" + MAGIC + b"data")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"ELF" + ONE + bytes(9) + fat_binary() + ONE, [ONE, fat_binary(), ONE]),
        (b"", []),
        (MAGIC[:-2] + bytes(20), []),
        (OUTER, [OUTER]),  # one inside another is not found twice
    ],
)
def test_places_finds_every_fat_binary_of_a_file(data: bytes, found: list[bytes]) -> None:
    assert carved(data) == found


@pytest.mark.parametrize(
    "data", [MAGIC, *(fat_binary(b"abc", size=n) for n in (4, 1 << 40, (1 << 64) - 1))]
)
def test_places_refuses_a_fat_binary_that_reaches_past_the_end(data: bytes) -> None:
    with pytest.raises(Unreadable, match="reaches past the end of the file"):
        fatbin.places(data)


def cubin(*kernels: bytes) -> bytes:
    """An ELF file for CUDA with these kernels."""
    code = [(b".text.kernel", 1, kernel) for kernel in kernels]
    return elfs.with_sections(190, (b".nv.info", 1, b"no code" * 16), *code)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Fake tools of NVIDIA: the output of --list-elf and --list-ptx, and the one that fails.

    "extracted" is the number of kernels in each cubin, with one HMMA and two MOV each.
    """
    fake = {
        "--list-elf": "ELF file    1: all.1.sm_120.cubin\nELF file    2: all.2.sm_120.cubin\n",
        "--list-ptx": "No PTX file found to extract from 'all.fatbin'\n",
        "fails": "",
        "extracted": "1",
    }

    def capture(command: Sequence[str], **how: object) -> Finished:
        name, word = Path(command[0]).name, command[1]
        assert how["env"] == {"SYSTEMROOT": r"C:\Windows", "TEMP": r"C:\T"}
        assert how["timeout"]
        if fake["fails"] in (name, word):
            return Finished(tuple(command), 255, "cuobjdump fatal   : cannot\nread it", 0.1)
        text = fake.get(word, "")
        if word == "--extract-elf":
            folder = how["cwd"]
            assert isinstance(folder, Path)
            code = [gpu(HMMA) + gpu(MOV) * 2] * int(fake["extracted"])
            for line in fake["--list-elf"].splitlines():
                (folder / line.split(": ")[1]).write_bytes(cubin(*code))
        if name == "nvdisasm":
            assert command[1:3] == ["--binary", "SM120"]
            names = Disassembler()(Path(command[3]).read_bytes())
            text = "".join(f"   /*{16 * n:04x}*/   {name} R1 ;\n" for n, name in enumerate(names))
        return Finished(tuple(command), 0, text, 0.1, "warning: cannot set locale")

    env = {"SYSTEMROOT": r"C:\Windows", "TEMP": r"C:\T", "LD_PRELOAD": "/x.so", "PATH": "/x"}
    monkeypatch.setattr("sessions.shared.child_environment.environment", lambda: env)
    monkeypatch.setattr("sessions.shared.programs.capture", capture)
    monkeypatch.setattr(gpu_code, "installed", Path)
    return fake


def test_read_returns_the_gpu_code_of_all_fat_binaries(
    tools: dict[str, str], tmp_path: Path
) -> None:
    data = b"\x7fELF" + ONE + bytes(5) + TWO
    found = gpu_code.read(data, tmp_path / "new")
    assert found is not None
    assert (found.containers, found.sass, found.ptx) == (2, {"sm_120": 2}, {})
    assert (found.instructions, found.tensor) == (6, {"HMMA.16816.F32": 2})
    assert found.error is None
    assert (tmp_path / "new" / "all.fatbin").read_bytes() == ONE + TWO
    tools["extracted"] = "3"
    found = gpu_code.read(ONE + TWO, tmp_path)
    assert found is not None
    assert (found.instructions, found.tensor) == (18, {"HMMA.16816.F32": 6})


def test_read_lists_ptx_and_needs_no_instructions(tools: dict[str, str], tmp_path: Path) -> None:
    tools["--list-elf"] = ""
    tools["--list-ptx"] = "PTX file    1: all.1.sm_120.ptx\n"
    found = gpu_code.read(fat_binary(piece(kind=fatbin.PTX)), tmp_path)
    assert found is not None
    assert (found.sass, found.ptx, found.error) == ({}, {"compute_120": 1}, None)


def test_read_returns_none_for_a_library_without_fat_binaries(tmp_path: Path) -> None:
    # It runs no tool: in a unit test that would fail.
    assert gpu_code.read(b"\x7fELF" + bytes(100), tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


ENDED = " ended with 255: cuobjdump fatal : cannot read it"


@pytest.mark.parametrize(
    ("data", "played", "error"),
    [
        (ONE + TWO, {"fails": "cuobjdump"}, f"cuobjdump{ENDED}"),
        (ONE + TWO, {"fails": "--list-ptx"}, f"cuobjdump{ENDED}"),
        (ONE + TWO, {"fails": "--extract-elf"}, f"cuobjdump{ENDED}"),
        (ONE + TWO, {"fails": "nvdisasm"}, f"nvdisasm{ENDED}"),
        (ONE * 3, {}, "3 pieces of device code, but cuobjdump reads {'sm_120': 2} and {}"),
        (ONE * 2, {"extracted": "0"}, "machine code without an instruction"),
        (
            fat_binary(b"one", size=1_000),
            {},
            "a fat binary of 1016 bytes reaches past the end of the file",
        ),
    ],
)
def test_gpu_code_that_cannot_be_read_is_a_fact_and_not_an_exception(
    data: bytes, played: dict[str, str], error: str, tools: dict[str, str], tmp_path: Path
) -> None:
    tools.update(played)
    found = gpu_code.read(data, tmp_path)
    assert found is not None
    assert found.error == error
    assert (found.containers, found.sass, found.tensor) == (data.count(MAGIC), {}, {})


def test_installed_names_a_missing_package() -> None:
    with pytest.raises(Unreadable, match="the package nvidia-cuda-nosuch is not installed"):
        gpu_code.installed("nosuch")


def test_installed_finds_a_tool_in_the_files_of_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def file(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, locate=lambda: tmp_path / name)

    packaged = [file("LICENSE"), file("cuobjdump")]
    monkeypatch.setattr(importlib.metadata, "files", lambda _: packaged)
    monkeypatch.setattr("sys.platform", "linux")
    assert gpu_code.installed("cuobjdump") == tmp_path / "cuobjdump"
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(Unreadable, match=r"holds no cuobjdump\.exe"):
        gpu_code.installed("cuobjdump")
    packaged.append(file("cuobjdump.exe"))
    assert gpu_code.installed("cuobjdump") == tmp_path / "cuobjdump.exe"


# ---- Libraries ----------------------------------------------------------------------------------


def read(data: bytes, tmp_path: Path, member: str = "a.so") -> Library:
    path = tmp_path / "some.so"
    path.write_bytes(data)
    return library.read(path, member, tmp_path / "new")


def build_paths(text: bytes, tmp_path: Path) -> tuple[str, ...]:
    """The paths of source and debug files in a library with this text among its bytes."""
    return read(b"\x01\x02" + text + b"\0\x03", tmp_path).build_paths


BUILD_PATHS = [
    "/home/user/llama/vendor/llama.cpp/src/llama.cpp",
    "/tmp/pip-install-x1_2/ggml/src/ggml-cuda/mmq.cuh",
    "/usr/local/cuda-13.1/include/cuda_fp16.h",
    "/usr/src/debug/ggml.c",
    "/opt/build+more/a@b/~c/d.o",
    "/build/ggml.cu",
    r"C:\Users\user\llama\ggml.c",
    r"C:\Users\Some One (2)\llama\ggml.cpp",
    "D:/a/llama/llama/ggml.pdb",
    r"d:\a\b/c.obj",
    "/home/user/black wheel/build/rtx50/src/ggml.c",
    "/home/josé/src/ggml.c",
    "/home/user (2)/日本/ggml.c",
    r"C:\Users\José Pérez\black wheel\ggml.c",
]
OTHER_PATHS = [
    "/usr/include/stdio.h",
    "/usr/lib/gcc/x86_64-linux-gnu/12/include/immintrin.h",
    "/usr/include/c++/12/bits/stl_vector.h",
    "/usr/include/ñ/bits/stl_vector.h",
    r"C:\Program Files\Microsoft Visual Studio\include\vector.h",
    r"C:\Program Files (x86)\Windows Kits\include\windows.h",
    "src/ggml-cuda/mmq.cu",
    "../ggml/src/ggml.c",
    "./ggml/src/ggml.c",
    "ggml.c",
    "/proc/self/maps",
    "/dev/null",
    "/etc/ssl/cert.pem",
    "https://example.org/a/b.html",
    "/home/user/a.cppx",
    "and/or a.c",
    r"\\server",
]


@pytest.mark.parametrize("text", [*BUILD_PATHS, *OTHER_PATHS])
def test_only_source_and_debug_files_of_the_build_machine_are_found(
    text: str, tmp_path: Path
) -> None:
    assert build_paths(text.encode(), tmp_path) == ((text,) if text in BUILD_PATHS else ())


def test_paths_of_the_build_machine_are_distinct_and_sorted(tmp_path: Path) -> None:
    text = b"/b/two.cpp\0/a/one.cpp\0/b/two.cpp:17: assertion failed"
    assert build_paths(text, tmp_path) == ("/a/one.cpp", "/b/two.cpp")


@pytest.mark.parametrize("data", [b"", b"\0", b"\x7fEL", b"MZ" + bytes(100), b"text\n"])
def test_a_file_that_is_neither_elf_nor_pe_is_an_error(data: bytes, tmp_path: Path) -> None:
    found = read(data, tmp_path)
    assert found.error == "neither an ELF nor a PE file"
    assert (found.member, found.size, found.format, found.machine) == ("a.so", len(data), "", "")


def test_unreadable_gpu_code_is_an_error_of_its_library(tmp_path: Path) -> None:
    found = read(elfs.library(data=fat_binary(b"one", size=1_000)), tmp_path)
    assert found.error == "a fat binary of 1016 bytes reaches past the end of the file"


@pytest.mark.parametrize("length", [4, 16, 63])
def test_an_elf_file_that_ends_in_its_header_is_not_for_x86_64(length: int, tmp_path: Path) -> None:
    found = read(cubin(NOP)[:length], tmp_path)
    assert found.error or found.machine != "x86_64"
    assert found.instructions == 0


@pytest.mark.filterwarnings("ignore:4660 is not a valid")  # from LIEF
def test_what_is_read_from_an_elf_file_for_another_machine(tmp_path: Path) -> None:
    data = cubin(NOP * 16)
    found = read(data, tmp_path)
    assert (found.format, found.instructions, found.cpu_features) == ("elf", 0, {})
    assert found.machine not in ("", "x86_64")
    assert found.executable_stack  # the default without a GNU_STACK segment
    assert read(data[:18] + b"\x34\x12" + data[20:], tmp_path).machine == "machine 4660"
    cut = read(data[:-10], tmp_path)
    assert cut.error == f"cut short: {len(data) - 10} bytes of {len(data)}"


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ([], {}),
        (["GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.4"], {"GLIBC": "2.34"}),
        (["GLIBC_2.9", "GLIBC_2.10"], {"GLIBC": "2.10"}),
        (
            ["GLIBCXX_3.4", "GLIBCXX_3.4.30", "GLIBCXX_3.4.9", "CXXABI_1.3", "GCC_3.0"],
            {"CXXABI": "1.3", "GCC": "3.0", "GLIBCXX": "3.4.30"},
        ),
        (["GOMP_4.0", "OMP_1.0", "libcudart.so.13", ""], {}),
        (["CXXABI_TM_1", "CXXABI_1.3.13"], {"CXXABI": "1.3.13"}),
        (
            ["GLIBC_ABI_DT_RELR", "GLIBC_2.2.5", "GLIBC_PRIVATE", "GLIBC_2.x"],
            {"GLIBC": "2.2.5", "GLIBC_2.x": "0", "GLIBC_ABI_DT_RELR": "0", "GLIBC_PRIVATE": "0"},
        ),
    ],
    ids=["none", "newest", "as-numbers", "each-kind", "others", "not-numbered", "of-glibc"],
)
def test_the_newest_symbol_version_of_each_kind_counts(
    versions: list[str], found: dict[str, str]
) -> None:
    assert library.newest(versions) == found
    assert library.newest(reversed(versions)) == found


# ---- Rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "glibc", "glibcxx"),
    [
        ("manylinux1_x86_64", "2.5", "3.4.8"),
        ("manylinux2010_x86_64", "2.12", "3.4.13"),
        ("manylinux2014_x86_64", "2.17", "3.4.19"),
        ("manylinux_2_17_x86_64", "2.17", "3.4.19"),
        ("manylinux_2_34_x86_64", "2.34", "3.4.29"),
        ("manylinux_2_35_x86_64", "2.35", "3.4.30"),
        ("manylinux_2_28_x86_64", "2.28", "3.4.24"),
        ("manylinux_2_38_x86_64", "2.38", "3.4.30"),
        ("manylinux_2_41_x86_64", "2.41", "3.4.33"),
        *(
            (tag, None, None)
            for tag in (
                "linux_x86_64",
                "manylinux_2_35_aarch64",
                "manylinux2014_i686",
                "manylinux2015_x86_64",
                "manylinux_2_4_x86_64",
                "manylinux_3_1_x86_64",
                "manylinux_2_x86_64",
                f"manylinux_2_{'9' * 5_000}_x86_64",
                "musllinux_1_2_x86_64",
                "win_amd64",
                "any",
                "",
                "manylinux_2_35_x86_64 ",
            )
        ),
    ],
)
def test_manylinux_returns_the_versions_that_a_tag_allows(
    tag: str, glibc: str | None, glibcxx: str | None
) -> None:
    allowed = wheel_rules.manylinux(tag)
    assert (allowed is None) is (glibc is None)
    if allowed is not None:
        assert (allowed["GLIBC"], allowed["GLIBCXX"]) == (glibc, glibcxx)
        assert set(allowed) >= {"GLIBC", "GLIBCXX", "CXXABI", "GCC"}


def test_manylinux_allows_packed_relocations_since_glibc_2_36() -> None:
    older, newer = (wheel_rules.manylinux(f"manylinux_2_{minor}_x86_64") for minor in (35, 36))
    assert older is not None
    assert newer is not None
    assert newer.keys() - older.keys() == {"GLIBC_ABI_DT_RELR"}


def test_a_newer_manylinux_tag_never_allows_less() -> None:
    rows = [wheel_rules.manylinux(f"manylinux_2_{minor}_x86_64") for minor in range(5, 45)]
    numbers = [
        {name: tuple(map(int, version.split("."))) for name, version in row.items()}
        for row in rows
        if row is not None
    ]
    assert len(numbers) == 40
    for older, newer in itertools.pairwise(numbers):
        assert [name for name in older if newer[name] < older[name]] == []


@pytest.mark.parametrize(
    ("platform", "name", "runtime"),
    [
        ("linux", "libcudart.so.13", ("nvidia-cuda-runtime", "13")),
        ("linux", "libcublas.so.12", ("nvidia-cublas", "12")),
        ("linux", "libcublasLt.so.13", ("nvidia-cublas", "13")),
        ("linux", "libcublas.so", None),
        ("linux", "libcudart.so.13.1.80", None),
        ("linux", "cudart64_13.dll", None),
        ("linux", "libcudnn.so.9", None),
        ("windows", "cudart64_13.dll", ("nvidia-cuda-runtime", "13")),
        ("windows", "cublas64_13.dll", ("nvidia-cublas", "13")),
        ("windows", "cublaslt64_12.dll", ("nvidia-cublas", "12")),
        ("windows", "cublas32_13.dll", None),
        ("windows", "libcudart.so.13", None),
        ("windows", "cudart64_13xdll", None),
    ],
)
def test_runtime_returns_package_and_major_of_a_library_of_nvidia(
    platform: str, name: str, runtime: tuple[str, str] | None
) -> None:
    assert wheel_rules.platform_libraries(platform).runtime(name) == runtime


def test_the_libraries_of_each_system() -> None:
    linux, windows = map(wheel_rules.platform_libraries, ("linux", "windows"))
    assert linux.driver == {"libcuda.so.1"}
    assert windows.driver == {"nvcuda.dll"}
    assert linux.system & windows.system == set()
    assert (linux.prefixes, windows.prefixes) == ((), ("api-ms-win-", "ext-ms-win-"))
    # These are in no system.
    assert linux.system & {"libgomp.so.1", "libcuda.so.1"} == set()
    runtime = {"msvcp140.dll", "vcomp140.dll", "libomp140.x86_64.dll", "nvcuda.dll"}
    assert windows.system & runtime == set()
    # The reader writes the names of needed DLLs in lower case.
    names = [*windows.system, *windows.driver, *windows.prefixes]
    assert [name for name in names if name != name.lower()] == []


def test_the_decoder_knows_every_cpu_feature_of_the_rules() -> None:
    known = {name for name, value in vars(CpuidFeature).items() if isinstance(value, int)}
    assert wheel_rules.cpu().features - known == set()


def test_every_cpu_has_the_features_of_the_level_and_modules_have_more() -> None:
    cpu = wheel_rules.cpu()
    assert cpu.level == "x86-64"
    assert not {"SSE3", "SSE4_2", "POPCNT", "AVX", "AVX2", "FMA", "AVX512F"} & cpu.features
    assert cpu.variants[cpu.baseline] == cpu.features
    assert {"AVX2", "FMA", "BMI2", "F16C"} <= cpu.variants["haswell"]
    assert not [n for n in cpu.variants["haswell"] if n.startswith(("AVX512", "AMX", "AVX_"))]
    assert "AVX512F" in cpu.variants["skylakex"]
    assert "AMX_INT8" in cpu.variants["sapphirerapids"]
    assert all(cpu.features <= features for features in cpu.variants.values())
    assert (cpu.variant("ggml-cpu-zen4"), cpu.variant("ggml-cpu")) == ("zen4", None)
    assert cpu.dispatch_export == "ggml_backend_score"
