"""Links for glibc 2.28 on a machine with a newer glibc, so that the wheel runs on older systems.

Sources are compiled as usual. At link time, stub libraries replace the machine's glibc: they have
the names and versions of 2.28's symbols and no code. So a symbol that 2.28 lacks is a link error.
libstdc++ is linked statically, because older systems have an older one, and hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sessions.build import openmp
from sessions.probe.record_types import Compiler
from sessions.shared import code_digest, knowledge, programs, records
from sessions.shared.errors import Problem

FOLDER = "link"  # beside the CMake tree
_ADDED = Path(__file__).parent / "overlay" / "glibc_2_28.c"
_LIBC = "libc.so.6"
# Template instances of the C++ runtime are hidden, so that those of another library (PyTorch's, for
# example) do not replace them. Exceptions still work across libraries: their types are compared by
# name.
_NAMES = (
    "_ZNSt*", "_ZNKSt*", "_ZSt*", "_ZZNSt*", "_ZZNKSt*", "_ZZSt*", "_ZGVNSt*", "_ZGVZNSt*",
    "_ZGVZNKSt*", "_ZT?St*", "_ZT?NSt*", "_ZN9__gnu_cxx*", "_ZNK9__gnu_cxx*", "_ZT?N9__gnu_cxx*",
)  # fmt: skip
_EXPORTS = f"{{ local: {' '.join(f'{name};' for name in _NAMES)} }};\n"


def identity() -> str:
    """A digest of all inputs of the link step except the compiler."""
    files = (knowledge.KNOWLEDGE / "glibc.toml", _ADDED, Path(__file__), Path(openmp.__file__))
    return records.fingerprint([code_digest.code(path) for path in files])[:16]


def linker_flags() -> str:
    """The linker options, relative to the CMake tree; the same for every library."""
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
    """The assembler source of a stub library: one byte per symbol."""
    lines = []
    for entry in (entry for names in versions.values() for entry in names):
        name, _, kind = entry.partition(":")
        section, of = (".data", "object") if kind else (".text", "function")
        lines += [section, f".globl {name}", f".type {name},@{of}", f"{name}: .byte 0"]
        lines.append(f".size {name},1")
    return "\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""])


def version_script(versions: Mapping[str, tuple[str, ...]]) -> str:
    """The version script of a stub library: the version of each symbol."""
    lines = []
    for version, entries in versions.items():
        names = " ".join(f"{entry.partition(':')[0]};" for entry in entries)
        lines.append(f"{version} {{ {names} }};\n")
    return "".join(lines)


def scripts() -> dict[str, str]:
    """The linker scripts for ``-lc``, ``-lm`` and so on; the one for ``-lc`` adds the others."""
    others = [name for name in knowledge.glibc() if name != _LIBC]
    needed = " ".join(f"-l:{name}" for name in others)
    found = {f"{name.partition('.so')[0]}.so": f"INPUT(AS_NEEDED(-l:{name}))\n" for name in others}
    return {**found, "libc.so": f"GROUP(-l:{_LIBC} AS_NEEDED({needed}))\n"}


def make(compiler: Compiler, folder: Path, env: Mapping[str, str]) -> None:
    """Create in ``folder`` what ``linker_flags`` names. Raises Problem if a program fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**scripts(), "exports.map": _EXPORTS}.items():
        records.write_text(folder / name, text)
    for library, versions in knowledge.glibc().items():
        records.write_text(folder / f"{library}.s", assembly(versions))
        records.write_text(folder / f"{library}.map", version_script(versions))
        args = ["-shared", "-nostdlib", f"-Wl,-soname,{library}"]
        args += [f"-Wl,--version-script,{library}.map", "-o", library, f"{library}.s"]
        _run(compiler, args, folder, env)
    # Without -fno-builtin the compiler may treat atexit and strtol as built-in functions.
    args = ["-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections"]
    args += ["-fno-builtin", "-w", "-c", str(_ADDED), "-o", f"{_ADDED.stem}.o"]
    _run(compiler, args, folder, env)
    if compiler.family == "gnu":
        runtime_path = _run(compiler, [f"-print-file-name={openmp.FILE}"], folder, env)
        runtime = openmp.portable(Path(runtime_path.strip()).resolve(), knowledge.glibc())
        (folder / openmp.FILE).write_bytes(runtime)


def _run(compiler: Compiler, args: list[str], folder: Path, env: Mapping[str, str]) -> str:
    done = programs.capture([compiler.cc, *args], env=env, cwd=folder)
    if done.returncode:
        raise Problem(
            "The stub libraries of glibc 2.28, which are needed for linking, could not be made.",
            id="glibc-stubs-failed",
            evidence="\n".join(done.output.splitlines()[-10:]),
            remedy="nox -s probe shows the compiler in use; choose another with --compiler PATH, "
            "or link with this system's glibc: --glibc host",
        )
    return done.output
