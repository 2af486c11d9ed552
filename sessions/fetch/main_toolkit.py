"""The session toolkit: a complete CUDA toolkit, from NVIDIA's packages or from the system."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.fetch import build_tools, toolkit_identity
from sessions.fetch.record_types import Toolkit
from sessions.probe.record_types import InstalledToolkit, Toolchain
from sessions.probe.selection import minor_version
from sessions.shared import child_environment, console, disk, knowledge, programs, records, venvs
from sessions.shared.build_spec import HostRange
from sessions.shared.context import Context
from sessions.shared.errors import Problem

_READY = "ready.json"


def main(ctx: Context) -> None:
    """Write the record of the toolkit that the target is built with; a CPU target needs none."""
    if ctx.spec.cuda is None:
        console.done("toolkit: none needed for a CPU build")
        return
    if ctx.spec.toolkit == "pypi":
        toolkit, fresh = from_pypi(ctx, ctx.spec.cuda)
    else:
        chain = ctx.need("probe", Toolchain)
        identity = toolkit_identity.toolkit_identity(ctx.spec, chain.toolkit)
        toolkit, fresh = from_system(chain.toolkit, ctx.spec.cuda, identity), False
    records.write(ctx.record("toolkit"), "toolkit", toolkit)
    state = "made" if fresh else "up to date" if toolkit.origin == "pypi" else "installed"
    console.done(f"toolkit: CUDA {toolkit.version} ({state}), {toolkit.root}")


def from_pypi(ctx: Context, cuda: str) -> tuple[Toolkit, bool]:
    """The toolkit from the locked packages of a CUDA version, and whether it was created now."""
    lock = knowledge.toolkit_lock(cuda)
    text = lock.read_text(encoding="utf-8")
    chain = ctx.need("probe", Toolchain)
    identity = toolkit_identity.toolkit_identity(ctx.spec, None, chain.host.glibc)
    headers = knowledge.headers(cuda, chain.host.glibc)
    folder = ctx.cache / f"cuda-{cuda}-{identity[:12]}"
    fresh = ctx.fresh
    if fresh:
        with ctx.replace_cached(folder.name):
            _create(ctx, folder, lock, cuda, headers)
    ctx.use_cached(folder.name)
    if not (folder / _READY).exists():
        with ctx.cache_lock(folder.name):
            if not (folder / _READY).exists():
                fresh = True
                _create(ctx, folder, lock, cuda, headers)
    root = folder / "nvidia" / f"cu{cuda.split('.')[0]}"
    accepts = accepted((root / "include/crt/host_config.h").read_text(encoding="utf-8"), cuda)
    return (
        Toolkit(
            origin="pypi",
            root=str(root),
            version=cuda,
            fingerprint=identity,
            components=knowledge.parse_requirements(text),
            accepts=accepts,
        ),
        fresh,
    )


def accepted(host_config: str, cuda: str) -> HostRange:
    """The host compilers that a toolkit's header accepts.

    The probe chose the compiler by knowledge/cuda.toml, before this header was downloaded.
    Raises Problem if they differ.
    """
    in_header, known = knowledge.parse_host_config(host_config), knowledge.toolkit(cuda).accepts
    if in_header != known:
        raise Problem(
            f"CUDA {cuda} accepts other compilers than sessions/data/knowledge/cuda.toml says.",
            id="toolkit-compiler-mismatch",
            evidence=f"its crt/host_config.h: {in_header or 'not in a form that is known'}\n"
            f"sessions/data/knowledge/cuda.toml: {known}",
            remedy="use an installed toolkit (--toolkit system) or another version (--cuda 13.1); "
            f'maintainers: correct accepts of toolkit."{cuda}" in that file',
        )
    return known


def _create(
    ctx: Context, folder: Path, lock: Path, cuda: str, headers: Sequence[knowledge.Header]
) -> None:
    """Create the toolkit in a temporary folder, then move it to ``folder``."""
    disk.room({folder: knowledge.disk_mib("toolkit")}, f"CUDA {cuda}")
    console.say(f"Getting CUDA {cuda} from NVIDIA's packages (about 800 MB unpacked, once).")
    with ctx.scratch() as scratch:
        new = scratch / "part"
        disk.mark(new)
        args = ["install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
        args += ["--target", str(new), "-r", str(lock)]
        venvs.pip(ctx, build_tools.tools(ctx), args, f"CUDA {cuda}")
        root = new / "nvidia" / f"cu{cuda.split('.')[0]}"
        correct(root / "include", headers)
        _complete(ctx, root)
        records.write_text(new / _READY, "{}\n")
        if folder.exists():
            disk.put(folder, scratch / "old")
        disk.put(new, folder)


def _complete(ctx: Context, root: Path) -> None:
    """Add what NVIDIA's packages lack: symlinks and a libcuda stub, or import libraries."""
    compiler = ctx.need("probe", Toolchain).compiler
    assert compiler is not None  # the probe fails without one
    if sys.platform == "win32":
        librarian = str(Path(compiler.cxx).with_name("lib.exe"))
        import_libraries(
            root, librarian, child_environment.system_environment(ctx.env) | compiler.variables
        )
    else:
        assemble(root)
        _driver_stub(root, compiler.cc)


def correct(include: Path, headers: Sequence[knowledge.Header]) -> None:
    """Correct headers that do not compile with this glibc. Raises Problem for unexpected texts."""
    for header in headers:
        path = include / header.file
        text, count = re.subn(header.old, header.new, path.read_text(encoding="utf-8"))
        if count != header.times:
            raise Problem(
                f"NVIDIA's {header.file} has an unexpected text, so it could not be corrected "
                "for this glibc.",
                id="toolkit-header-unknown",
                evidence=f"{header.what}\n{count} × {header.old} instead of {header.times}",
                remedy=f"build with --cuda {header.fixed}, which needs no correction",
            )
        records.write_text(path, text)


def assemble(root: Path) -> None:
    """Add ``lib64`` and ``libX.so`` to NVIDIA's Linux packages, which have ``lib/libX.so.13``."""
    lib = root / "lib"
    for library in sorted(lib.glob("lib*.so.*")):
        link = lib / (library.name.partition(".so.")[0] + ".so")
        if not link.exists():
            link.symlink_to(library.name)
    if not (root / "lib64").exists():
        (root / "lib64").symlink_to("lib")
    (lib / "stubs").mkdir(exist_ok=True)


def import_libraries(root: Path, librarian: str, env: Mapping[str, str]) -> None:
    """Create cuBLAS's import libraries with lib.exe (``librarian``). Raises Problem if it fails."""
    for name in ("cublas", "cublasLt"):
        (dll,) = (root / "bin" / "x86_64").glob(f"{name}64_*.dll")
        library = root / "lib" / "x64" / f"{name}.lib"
        listed = library.with_suffix(".def")
        listed.write_text(module_definition(dll.name, exports(dll)), encoding="ascii")
        args = [librarian, "/NOLOGO", "/MACHINE:X64", f"/DEF:{listed}", f"/OUT:{library}"]
        done = programs.capture(args, env=env)
        if done.returncode or not library.is_file():
            raise Problem(
                f"The import library of {dll.name} could not be made.",
                id="toolkit-import-library-failed",
                evidence=venvs.tail(done.output),
                remedy="repair Visual Studio in its Installer, or use another one (--compiler "
                "PATH of a cl.exe), or an installed toolkit (--toolkit system)",
            )


def exports(dll: Path) -> list[str]:
    """The C functions that a DLL exports, sorted. Raises Problem if there are none."""
    import lief  # takes a quarter of a second, so only where it is needed

    config = lief.PE.ParserConfig()
    config.parse_signature = config.parse_reloc = config.parse_rsrc = False
    # The bytes, because LIEF on Windows opens no path with letters outside ASCII.
    binary = lief.PE.parse(dll.read_bytes(), config)
    table = binary.get_export() if binary else None
    names = [str(entry.name) for entry in table.entries] if table else []
    found = sorted(name for name in names if re.fullmatch(r"[A-Za-z_]\w*", name))
    if not found:
        raise Problem(
            f"{dll.name} of NVIDIA's package exports no function.",
            id="toolkit-dll-without-exports",
            evidence=str(dll),
            remedy="download it again: nox -s toolkit -- --fresh",
        )
    return found


def module_definition(dll: str, names: Sequence[str]) -> str:
    """The text of a .def file, from which lib.exe creates the import library of a DLL."""
    return "".join([f"LIBRARY {dll}\n", "EXPORTS\n", *(f"  {name}\n" for name in names)])


def driver_functions(cuda_h: str) -> list[str]:
    """The names of all functions in ``cuda.h``, also those that macros select (cuMemAlloc_v2)."""
    declared = re.findall(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(", cuda_h)
    renamed = re.findall(r"^\s*#\s*define\s+cu[A-Z]\w*\s+(cu[A-Z]\w*)\s*$", cuda_h, re.MULTILINE)
    return sorted({*declared, *renamed})


def _driver_stub(root: Path, cc: str) -> None:
    """Create a ``libcuda.so`` to link with, as an installed toolkit has in ``lib64/stubs``.

    The real one belongs to the driver, which a build machine may lack. No package contains a stub.
    It is never shipped and never executed.
    """
    names = driver_functions((root / "include" / "cuda.h").read_text(encoding="utf-8"))
    source = root / "lib" / "stubs" / "libcuda.c"
    source.write_text("".join(f"int {name}(void) {{ return 34; }}\n" for name in names), "ascii")
    target = source.with_suffix(".so")
    args = [cc, "-shared", "-fPIC", "-fno-builtin", "-Wl,-soname,libcuda.so.1"]
    built = programs.capture([*args, "-o", str(target), str(source)], env={"PATH": "/usr/bin:/bin"})
    if built.returncode:
        raise Problem(
            "The stub of the driver library could not be made.",
            id="toolkit-stub-failed",
            evidence=venvs.tail(built.output),
            remedy="nox -s probe shows the compiler in use; choose another with --compiler PATH",
        )


def from_system(found: InstalledToolkit | None, cuda: str, identity: str) -> Toolkit:
    """The installed toolkit. Raises Problem if there is none, or it has another version."""
    if found is None:
        raise Problem(
            f"No installed CUDA {cuda} toolkit was found.",
            id="toolkit-not-installed",
            remedy="nox -s probe shows those found; use --toolkit PATH, or --toolkit pypi",
        )
    if (version := minor_version(found.version)) != cuda:
        raise Problem(
            f"The toolkit in {found.root} is CUDA {found.version}; the target asks for {cuda}.",
            id="toolkit-other-version",
            remedy=f"build with this toolkit: --cuda {version}; or "
            f"download CUDA {cuda}: --toolkit pypi",
        )
    return Toolkit(
        origin="system",
        root=found.root,
        version=cuda,
        fingerprint=identity,
        components={},
        accepts=found.accepts or knowledge.toolkit(cuda).accepts,
    )
