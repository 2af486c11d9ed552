"""Decodes all x86-64 machine code of a library, and counts the CPU features that it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from iced_x86 import Code, CpuidFeature, Decoder, Formatter, FormatterSyntax, Instruction

# GCC writes "rep bsf" for every x86-64 CPU if the operand cannot be zero. A CPU without BMI1
# executes it as bsf, with the same result.
_TZCNT = (Code.TZCNT_R16_RM16, Code.TZCNT_R32_RM32, Code.TZCNT_R64_RM64)
SHOWN = 3  # instructions per feature that are kept as evidence
_NAMES = {value: name for name, value in vars(CpuidFeature).items() if isinstance(value, int)}


def scan(pieces: Iterable[tuple[int, bytes]]) -> tuple[int, dict[str, int], dict[str, list[str]]]:
    """Decode pieces of code (address, bytes), each from its first byte to its last.

    Returns the number of instructions, how many of them need each CPU feature, and the text of
    the first few per feature. A byte that begins no instruction has the feature "INVALID".
    """
    counts: Counter[int] = Counter()
    firsts: dict[int, list[Instruction]] = {}
    for address, code in pieces:
        decoder = Decoder(64, code, ip=address)
        for instruction in decoder:
            number = int(instruction.code)
            if number == Code.INVALID:  # the bytes after the first may be instructions
                decoder.ip = instruction.ip + 1
                decoder.position = decoder.ip - address
            counts[number] += 1
            if counts[number] <= SHOWN:
                firsts.setdefault(number, []).append(instruction.copy())
    features: Counter[str] = Counter()
    shown: dict[str, list[Instruction]] = {}
    for number, count in counts.items():
        for name in _features(firsts[number][0]):
            features[name] += count
            shown.setdefault(name, []).extend(firsts[number])
    formatter = Formatter(FormatterSyntax.INTEL)
    first = {
        name: [
            f"{i.ip:#x} {formatter.format(i)}" for i in sorted(found, key=lambda i: i.ip)[:SHOWN]
        ]
        for name, found in shown.items()
    }
    return sum(counts.values()), dict(sorted(features.items())), dict(sorted(first.items()))


def _features(instruction: Instruction) -> list[str]:
    if instruction.is_invalid:
        return ["INVALID"]
    if instruction.code in _TZCNT:
        return ["INTEL386"]
    return [_NAMES[number] for number in instruction.cpuid_features()]
