"""Checks of the GPU code of a wheel. All pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sessions.shared import knowledge
from sessions.shared.build_spec import BuildSpec
from sessions.shared.check_result import Check
from sessions.verify.check_input import Case, check, rebuild, stem, unread
from sessions.verify.wheel_facts import Library

_FP4 = (
    "native FP4 needs llama-cpp-python 0.3.17 or newer and an architecture such as 120a: "
    "nox -s wheel -- --target rtx50-fp4"
)


def gpu_code(case: Case) -> Check:
    """Each fat binary has machine code for exactly the target's architectures."""
    expected = [a for a, kind in _architectures(case.spec) if kind != "virtual"]
    present = ", ".join(
        f"{sum(lib.device.sass.values())} × SASS in {lib.member.rsplit('/', 1)[-1]}"
        for lib in case.libraries
        if lib.device and lib.device.sass
    )
    return check(
        "gpu-code",
        _gpu_code(case, expected),
        ok=f"{', '.join(expected)}: {present}"
        if expected and present
        else "none, as the target asks",
        fail="not the machine code that the target's GPUs run",
        remedy=rebuild(case),
    )


def _architectures(spec: BuildSpec) -> list[tuple[str, str]]:
    """("sm_120a", "real") for each architecture of the target."""
    parsed = [knowledge.parse_arch(arch) for arch in spec.archs]
    return [(f"sm_{number}{suffix}", kind) for number, suffix, kind in parsed]


def _gpu_code(case: Case, expected: Sequence[str]) -> Iterator[str]:
    yield from unread(case)
    for library in case.libraries:
        for what in library.device.hidden if library.device else ():
            yield f"{library.member}: {what}"
    devices = [lib for lib in case.libraries if lib.device and lib.device.containers]
    if case.spec.archs and not devices:
        yield "no library contains GPU code: this wheel computes on the CPU only"
    cuda = [lib for lib in case.libraries if stem(lib.member) == "ggml-cuda"]
    for library in cuda:
        if library not in devices and devices:
            yield f"{library.member}: it contains no GPU code"
    if case.spec.archs and not cuda:
        yield "there is no ggml-cuda library"
    for library in devices:
        found = library.device.sass if library.device else {}
        yield from _missing(library, "SASS", expected, found)
        for arch, count in found.items():
            if arch not in expected:
                yield f"{library.member}: {count} × SASS for {arch}, which the target does not name"


def ptx(case: Case) -> Check:
    """There is PTX for exactly the architectures for which the target asks for it."""
    expected = {
        a.replace("sm_", "compute_") for a, kind in _architectures(case.spec) if kind != "real"
    }
    return check(
        "ptx",
        _ptx(case, expected),
        ok=f"{', '.join(sorted(expected))}, as the target asks" if expected else "none",
        fail="it has PTX that the target does not ask for, or lacks PTX that the target asks for",
        remedy='write the architecture as "120-real" for SASS only; ' + rebuild(case),
    )


def _ptx(case: Case, expected: set[str]) -> Iterator[str]:
    yield from unread(case)
    for library in case.libraries:
        found = library.device.ptx if library.device else {}
        for arch, count in found.items():
            if arch not in expected:
                yield f"{library.member}: {count} × PTX for {arch}, to be compiled by the driver"
        yield from _missing(library, "PTX", sorted(expected), found)


def _missing(
    library: Library, kind: str, expected: Sequence[str], found: Mapping[str, int]
) -> Iterator[str]:
    """Every source file makes a fat binary, and each must have code for every architecture."""
    pieces = library.device.containers if library.device else 0
    for arch in expected:
        count = found.get(arch, 0)
        if count != pieces:
            how = f"{count} × {kind} for {arch} in {pieces} fat binaries"
            yield f"{library.member}: {how if count else f'no {kind} for {arch}'}"


def gpu_features(case: Case) -> Check:
    """The machine code has the tensor-core instructions that the target claims."""
    classes, mnemonics = Counter[str](), set[str]()
    for library in case.libraries:
        for mnemonic, count in (library.device.tensor if library.device else {}).items():
            mnemonics.add(mnemonic)
            classes[mnemonic.split(".")[0]] += count
    present = ", ".join(f"{count} × {kind}" for kind, count in sorted(classes.items()))
    missing = [
        f"no {claim} instruction; found: {present or 'no tensor-core instructions'}"
        for claim in case.spec.device_features
        if not any(has_feature(mnemonic, claim) for mnemonic in mnemonics)
    ]
    return check(
        "gpu-features",
        [*unread(case), *missing],
        ok=present or "none claimed",
        fail="tensor-core instructions that the target claims are missing",
        remedy=_FP4 if any("E2M1" in line for line in missing) else rebuild(case),
    )


def has_feature(mnemonic: str, claim: str) -> bool:
    """Whether an instruction ("OMMA.SF.16864.F32.E2M1.E2M1.E8") has each part of "OMMA.E2M1"."""
    return set(claim.split(".")) <= set(mnemonic.split("."))
