"""Reads the GPU code of a library with NVIDIA's cuobjdump and nvdisasm."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import lief

from sessions.shared import child_environment, programs
from sessions.verify import fatbin
from sessions.verify.fatbin import Unreadable
from sessions.verify.wheel_facts import DeviceCode

HIDDEN = 100  # findings of one library that are kept
TIMEOUT = 60  # seconds; the 98 cubins of an rtx50 wheel are extracted in half a second
_INSTRUCTION = 16  # bytes, since Volta (compute capability 7.0)


def read(data: bytes, folder: Path) -> DeviceCode | None:
    """The GPU code of a library, unpacked into ``folder``; None if it has none.

    Fat binaries are found by their first bytes in any section and kind of file, because
    cuobjdump for Linux does not read PE files.
    """
    try:
        found = fatbin.places(data)
        hidden = tuple(itertools.islice(fatbin.hidden(data, found), HIDDEN))
    except Unreadable as problem:
        return DeviceCode(data.count(fatbin.MAGIC), {}, {}, 0, {}, {}, (), str(problem))
    if not found:
        return DeviceCode(0, {}, {}, 0, {}, {}, hidden, None) if hidden else None
    try:
        return _read([data[start:end] for start, end in found], folder, hidden)
    except Unreadable as problem:
        return DeviceCode(len(found), {}, {}, 0, {}, {}, hidden, str(problem))


def _read(pieces: Sequence[bytes], folder: Path, hidden: tuple[str, ...]) -> DeviceCode:
    folder.mkdir(parents=True, exist_ok=True)
    entries = [fatbin.entries(piece) for piece in pieces]
    expected = Counter((entry.kind, entry.arch) for found in entries for entry in found)
    carved = folder / "all.fatbin"
    carved.write_bytes(b"".join(map(fatbin.nameless, pieces, entries)))
    sass = listed(_program("cuobjdump", "--list-elf", str(carved)), "ELF file")
    ptx = listed(_program("cuobjdump", "--list-ptx", str(carved)), "PTX file")
    if _numbered(sass, fatbin.ELF) + _numbered(ptx, fatbin.PTX) != expected:
        raise Unreadable(
            f"{expected.total()} pieces of device code, but cuobjdump reads {sass} and {ptx}"
        )
    if empty := sum(not found for found in entries):
        raise Unreadable(f"{empty} of {len(pieces)} fat binaries have no code in them")
    _program("cuobjdump", "--extract-elf", "all", str(carved.resolve()), cwd=folder)
    instructions, tensor, kernels = 0, Counter[str](), Counter[str]()
    for arch, count in sass.items():
        cubins = sorted(folder.glob(f"*.{arch}.cubin"))
        if len(cubins) != count:
            raise Unreadable(f"{len(cubins)} of {count} cubins for {arch} can be extracted")
        found = [named for path in cubins for named in _code(path)]
        for name, piece in found:
            kernels[family(name)] += len(piece)
        code = [piece for _, piece in found]
        instructions += sum(map(len, code)) // _INSTRUCTION
        tensor += tensor_instructions(code, _disassembler(arch, folder))
    if sass and not instructions:
        raise Unreadable("machine code without an instruction")
    return DeviceCode(
        len(pieces),
        sass,
        ptx,
        instructions,
        dict(sorted(tensor.items())),
        dict(sorted(kernels.items())),
        hidden,
        None,
    )


def _numbered(counts: Mapping[str, int], kind: int) -> Counter[tuple[int, int]]:
    """{"sm_120a": 2} as in a fat binary, whose architectures have no letters: {(2, 120): 2}."""
    found = Counter[tuple[int, int]]()
    for arch, count in counts.items():
        found[kind, int(re.sub(r"\D", "", arch))] += count
    return found


def _program(name: str, *words: str, cwd: Path | None = None) -> str:
    """Run a tool of NVIDIA's packages in this environment; return its output."""
    command = [str(installed(name)), *words]
    # Windows' programs need SystemRoot and a temporary folder.
    env = child_environment.system_environment(child_environment.environment())
    done = programs.capture(command, env=env, cwd=cwd, timeout=TIMEOUT)
    if done.returncode:
        last = " ".join(done.output.split())[-300:]
        raise Unreadable(f"{name} ended with {done.returncode}: {last}")
    return done.stdout


def installed(name: str) -> Path:
    """The program of the package ``nvidia-cuda-<name>`` that pip installed. Raises Unreadable."""
    program = f"{name}.exe" if sys.platform == "win32" else name
    try:
        files = importlib.metadata.files(f"nvidia-cuda-{name}") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise Unreadable(f"the package nvidia-cuda-{name} is not installed") from error
    for file in files:
        if file.name == program:
            return Path(str(file.locate()))
    raise Unreadable(f"the package nvidia-cuda-{name} holds no {program}")


def listed(output: str, word: str) -> dict[str, int]:
    """Count by architecture the lines "ELF file    1: x.1.sm_120.cubin" of cuobjdump."""
    found = re.findall(rf"^{word} +\d+: .*\.((?:sm|compute)_\w+)\.\w+$", output, re.MULTILINE)
    counts = Counter(found)
    if word == "PTX file":  # listed as sm_120, although it is compute_120
        counts = Counter({arch.replace("sm_", "compute_"): n for arch, n in counts.items()})
    return dict(sorted(counts.items()))


def _code(cubin: Path) -> list[tuple[str, bytes]]:
    """The mangled name and the machine code of every kernel in a cubin."""
    # Its bytes: on Windows LIEF opens no path with letters beyond ASCII.
    binary = lief.ELF.parse(cubin.read_bytes())
    if binary is None:
        raise Unreadable(f"{cubin.name} is not an ELF file")
    flag = lief.ELF.Section.FLAGS.EXECINSTR
    code = [s for s in binary.sections if str(s.name).startswith(".text") or s.has(flag)]
    if any(s.size % _INSTRUCTION for s in code):
        raise Unreadable(f"{cubin.name} has a kernel with an incomplete instruction")
    return [(str(s.name).removeprefix(".text."), bytes(s.content)) for s in code]


def family(kernel: str) -> str:
    """The function or outermost namespace of a kernel, the same for each template instance.

    ``_Z9mul_mat_qIL9ggml_type10E…`` is mul_mat_q; ``_ZN3cub…`` is cub. A name that is not
    mangled is returned unchanged.
    """
    rest = re.sub(r"^_Z(?:N[KVr]*)?", "", kernel)
    while rest != kernel and (length := re.match(r"L?(\d+)", rest)):
        end = length.end() + int(length[1])
        name, rest = rest[length.end() : end], rest[end:]
        if not name.startswith(("_GLOBAL__N_", "_INTERNAL_")):  # a namespace without a name
            return name
    return kernel


def tensor_instructions(
    code: Sequence[bytes], disassemble: Callable[[bytes], Sequence[str]]
) -> Counter[str]:
    """Count tensor-core instructions by mnemonic.

    An instruction has 16 bytes, with its opcode in the low 12 bits. One instruction per opcode
    is disassembled, and then, for the opcodes of tensor cores, one per variant (all bits except
    registers, predicate and scheduling).
    """
    opcodes: dict[int, bytes] = {}
    for piece in code:
        words = memoryview(piece).cast("H")[::8].tolist()
        for word in set(words) if len(words) > 1 else words:
            if word & 0xFFF not in opcodes:
                at = 16 * words.index(word)
                opcodes[word & 0xFFF] = piece[at : at + 16]
    names = dict(zip(opcodes, disassemble(b"".join(opcodes.values())), strict=True))
    tensor = {number for number, name in names.items() if is_tensor(name)}
    variants: dict[int, bytes] = {}
    counts: Counter[int] = Counter()
    for piece in code:
        words = memoryview(piece).cast("H")[::8].tolist()
        for index, word in enumerate(words):
            if word & 0xFFF in tensor:
                sample = piece[16 * index : 16 * index + 16]
                key = int.from_bytes(sample, "little") & _VARIANT
                variants.setdefault(key, sample)
                counts[key] += 1
    mnemonics = disassemble(b"".join(variants.values())) if variants else []
    total: Counter[str] = Counter()
    for key, mnemonic in zip(variants, mnemonics, strict=True):
        total[mnemonic] += counts[key]
    return total


# Bits 0-11 opcode, 12-15 predicate, 16-39 and 64-71 registers, 105-127 scheduling and reuse.
_VARIANT = ((1 << 105) - 1) & ~(0xF << 12) & ~(0xFFFFFF << 16) & ~(0xFF << 64)


def is_tensor(mnemonic: str) -> bool:
    """Whether a mnemonic is a matrix multiplication: HMMA, IMMA, OMMA, HGMMA, and so on."""
    return mnemonic.split(".")[0].endswith("MMA")


def _disassembler(arch: str, folder: Path) -> Callable[[bytes], list[str]]:
    def disassemble(code: bytes) -> list[str]:
        path = folder / "sample.bin"
        path.write_bytes(code)
        binary = arch.replace("sm_", "SM")
        return mnemonics(_program("nvdisasm", "--binary", binary, str(path)), len(code) // 16)

    return disassemble


def mnemonics(output: str, count: int) -> list[str]:
    """The mnemonics in nvdisasm's listing, without predicates and operands.

    Raises Unreadable if their number is not ``count``.
    """
    found = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", output, re.MULTILINE)
    if len(found) != count:
        raise Unreadable(f"nvdisasm shows {len(found)} of {count} instructions")
    return found
