"""Linking against glibc 2.28 on a machine with a newer one, so that a wheel runs on older systems.

Sources are compiled as always. Only the link differs: in place of the machine's glibc it gets
stubs, libraries with the names and versions of 2.28's symbols and no code, as a CUDA toolkit
has one of the driver's library. So a symbol that 2.28 does not have is an error of the link. The
C++ runtime, newer than that of the system which will run the wheel, is linked in and hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sessions.build import openmp
from sessions.probe.model import Compiler
from sessions.shared import code_digest, knowledge, programs, records
from sessions.shared.errors import Problem

FOLDER = "link"  # beside the CMake tree
_ADDED = Path(__file__).parent / "overlay" / "glibc_2_28.c"
_LIBC = "libc.so.6"
# Names of the C++ runtime's templates stay inside: those in one library must not meet those in
# another, with which PyTorch came, say. Exceptions still cross: their types are compared by name.
_NAMES = (
    "_ZNSt*", "_ZNKSt*", "_ZSt*", "_ZZNSt*", "_ZZNKSt*", "_ZZSt*", "_ZGVNSt*", "_ZGVZNSt*",
    "_ZGVZNKSt*", "_ZT?St*", "_ZT?NSt*", "_ZN9__gnu_cxx*", "_ZNK9__gnu_cxx*", "_ZT?N9__gnu_cxx*",
)  # fmt: skip
_EXPORTS = f"{{ local: {' '.join(f'{name};' for name in _NAMES)} }};\n"


def identity() -> str:
    """A digest of all that decides the link beside the compiler."""
    files = (knowledge.KNOWLEDGE / "glibc.toml", _ADDED, Path(__file__), Path(openmp.__file__))
    return records.fingerprint([code_digest.code(path) for path in files])[:16]


def linker_flags() -> str:
    """The options of a link that runs in the CMake tree. The same for every library."""
    return " ".join(
        (
            f"-L../{FOLDER}",
            f"../{FOLDER}/{_ADDED.stem}.o",
            "-static-libstdc++",
            "-Wl,--exclude-libs,libstdc++.a",
            f"-Wl,--version-script,../{FOLDER}/exports.map",
            "-Wl,-z,defs",
            "-Wl,--gc-sections",
        )
    )


def assembly(versions: Mapping[str, tuple[str, ...]]) -> str:
    """A library's symbols for an assembler; each holds a byte."""
    lines = []
    for entry in (entry for names in versions.values() for entry in names):
        name, _, kind = entry.partition(":")
        section, of = (".data", "object") if kind else (".text", "function")
        lines += [section, f".globl {name}", f".type {name},@{of}", f"{name}: .byte 0"]
        lines.append(f".size {name},1")
    return "\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""])


def version_script(versions: Mapping[str, tuple[str, ...]]) -> str:
    """The linker's version script of a library: which version each symbol has."""
    lines = []
    for version, entries in versions.items():
        names = " ".join(f"{entry.partition(':')[0]};" for entry in entries)
        lines.append(f"{version} {{ {names} }};\n")
    return "".join(lines)


def scripts() -> dict[str, str]:
    """Linker scripts, by the names for which ``-lc`` and the like look.

    Everything links with ``-lc`` last, which finds what is still missing in the other libraries.
    """
    others = [name for name in knowledge.glibc() if name != _LIBC]
    needed = " ".join(f"-l:{name}" for name in others)
    found = {f"{name.partition('.so')[0]}.so": f"INPUT(AS_NEEDED(-l:{name}))\n" for name in others}
    return {**found, "libc.so": f"GROUP(-l:{_LIBC} AS_NEEDED({needed}))\n"}


def make(compiler: Compiler, folder: Path, env: Mapping[str, str]) -> None:
    """Leave in ``folder`` all that ``linker_flags`` name. Raises Problem where a program fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**scripts(), "exports.map": _EXPORTS}.items():
        records.write_text(folder / name, text)
    for library, versions in knowledge.glibc().items():
        records.write_text(folder / f"{library}.s", assembly(versions))
        records.write_text(folder / f"{library}.map", version_script(versions))
        words = ["-shared", "-nostdlib", f"-Wl,-soname,{library}"]
        words += [f"-Wl,--version-script,{library}.map", "-o", library, f"{library}.s"]
        _run(compiler, words, folder, env)
    # -fno-builtin: without it a compiler may take atexit or strtol for its own.
    words = ["-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections"]
    words += ["-fno-builtin", "-w", "-c", str(_ADDED), "-o", f"{_ADDED.stem}.o"]
    _run(compiler, words, folder, env)
    if compiler.family == "gnu":
        asked = _run(compiler, [f"-print-file-name={openmp.FILE}"], folder, env)
        runtime = openmp.portable(Path(asked.strip()).resolve(), knowledge.glibc())
        (folder / openmp.FILE).write_bytes(runtime)


def _run(compiler: Compiler, words: list[str], folder: Path, env: Mapping[str, str]) -> str:
    done = programs.capture([compiler.cc, *words], env=env, cwd=folder)
    if done.returncode:
        raise Problem(
            "The stub libraries of glibc 2.28, which are needed for linking, could not be made.",
            id="glibc-stubs-failed",
            evidence="\n".join(done.output.splitlines()[-10:]),
            remedy="nox -s probe shows the compiler in use; choose another with --compiler PATH, "
            "or link with this system's glibc: --glibc host",
        )
    return done.output
