"""Libraries that the loader refuses, or that need much time or memory, have a fault or error."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessions.verify import elf, library, reader
from sessions.verify.wheel_facts import Library
from tests import elfs
from tests.integration import wheels
from tests.integration.conftest import sha256

LOAD = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).f())"


def loaded(path: Path) -> subprocess.CompletedProcess[str]:
    """A process in which glibc loads the library and calls its function."""
    command = [sys.executable, "-c", LOAD, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library that gcc built."""
    folder = tmp_path_factory.mktemp("real")
    source = folder / "some.c"
    source.write_text("int f(void) { return 7; }\n")
    words = ["gcc", "-shared", "-fPIC", "-O2", "-Wl,-z,separate-code", "-Wl,--hash-style=both"]
    subprocess.run([*words, source, "-o", folder / "some.so"], check=True, cwd=folder)
    return (folder / "some.so").read_bytes()


@pytest.fixture(params=["gcc", "elfs"])
def sound(request: pytest.FixtureRequest, real: bytes) -> bytes:
    return real if request.param == "gcc" else elfs.library()


def test_glibc_loads_a_library_without_faults(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.so"
    path.write_bytes(sound)
    assert list(elf.faults(sound)) == []
    done = loaded(path)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


@pytest.mark.parametrize("name", elfs.REFUSED)
def test_a_library_that_glibc_refuses_has_a_fault(name: str, sound: bytes, tmp_path: Path) -> None:
    data = bytearray(sound)
    elfs.REFUSED[name](data)
    path = tmp_path / "some.so"
    path.write_bytes(data)
    assert loaded(path).returncode != 0  # or the table is wrong
    assert list(elf.faults(bytes(data))) != []


# ---- Time and memory ---------------------------------------------------------------------------


def read(data: bytes, folder: Path) -> Library:
    """The only library of a wheel, as ``verify`` reads it."""
    path = wheels.draft({"libllama.so": data}).pack(folder / "wheel")
    (found,) = wheels.read(path, folder / "scratch").libraries
    return found


def test_a_hundred_sections_with_the_same_bytes_need_the_memory_of_one(tmp_path: Path) -> None:
    # With a copy for each section it was 1.7 GB.
    code = elfs.CODE * ((16 << 20) // len(elfs.CODE))
    start = time.monotonic()
    found = read(elfs.library(code=code, sections=[(0x1000, len(code))] * 100), tmp_path)
    assert found.error is None
    assert found.instructions == 3 * len(code) // len(elfs.CODE)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 400 << 10  # KiB
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("text", [b"/a(/a(", b"/a.c(/a(", b"/a a   a"])
def test_a_library_with_text_that_resembles_paths_is_read_in_seconds(
    text: bytes, tmp_path: Path
) -> None:
    start = time.monotonic()
    found = read(elfs.library(data=text * 100_000), tmp_path)
    assert found.error is None
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("limit", "value", "word"),
    [
        ("MEMORY", 64 << 20, "its reader gave no answer: it needed more than 64 MiB"),
        ("TIME", -60, "its reader gave no answer: it needed more than"),
        ("SECONDS", 0, "its reader gave no answer: the limit of 0 s for the whole wheel"),
    ],
)
def test_the_error_names_the_limit_that_a_reader_reached(
    limit: str, value: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, limit, value)
    monkeypatch.setattr(reader, "MEMORY_FACTOR", 0)
    found = read(elfs.library(), tmp_path)
    assert found.error is not None
    assert found.error.startswith(word)
    assert (found.format, found.sha256) == ("", sha256(elfs.library()))


# ---- PE files ----------------------------------------------------------------------------------


DLL = ("cc", "-target", "x86_64-windows-gnu", "-nostdlib", "-shared", "-O2", "-s")


def zig(folder: Path, *words: str) -> None:
    cache = str(
        folder.parent / "zig"
    )  # shared by all tests, because zig builds its own parts there
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    subprocess.run([sys.executable, "-m", "ziglang", *words], check=True, cwd=folder, env=env)


@pytest.fixture(scope="module")
def dll(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A DLL that zig built, with an export that is forwarded to another DLL."""
    folder = tmp_path_factory.mktemp("dll")
    (folder / "some.c").write_text(
        "int __stdcall DllMainCRTStartup(void *self, unsigned why, void *more) { return 1; }\n"
        "__declspec(dllexport) int f(void) { return 7; }\n"
        '__asm__(".section .drectve,\\"yn\\"\\n.ascii \\" /EXPORT:g=evil.g\\"\\n.text\\n");\n'
    )
    zig(folder, *DLL, "some.c", "-o", "some.dll")
    return (folder / "some.dll").read_bytes()


def parsed(data: bytes, tmp_path: Path) -> Library:
    path = tmp_path / "llama.dll"
    path.write_bytes(data)
    return library.read(path, "llama_cpp/lib/llama.dll", tmp_path / "scratch")


def test_the_target_of_a_forwarded_export_is_a_needed_dll(dll: bytes, tmp_path: Path) -> None:
    found = parsed(dll, tmp_path)
    assert (found.error, found.faults) == (None, ())
    assert found.imports == ("evil.dll",)


MANIFEST = """<assembly xmlns="urn:schemas-microsoft-com:asm.v1" manifestVersion="1.0">
<file name="evil.dll"/></assembly>
"""
TLS = """int __stdcall DllMainCRTStartup(void *self, unsigned why, void *more) { return 1; }
__declspec(dllexport) int f(void) { return 7; }
__asm__(".data\\n.globl _tls_used\\n.balign 8\\n_tls_used:\\n.quad 0,0,index,calls\\n.long 0,0\\n"
        "index: .quad 0\\ncalls: .quad CALLED,0\\nplain: .quad 0\\n.text\\n");
"""
# A manifest: a resource of type 24 with the name 2, below directories for type, name and language.
# It is written by hand, because zig first compiles its resource compiler, which takes a minute.
RESOURCE = """__asm__(".section .rsrc,\\"dr\\"\\n.balign 8\\n"
        "root: .long 0,0,0\\n.short 0,1\\n.long 24,0x80000018\\n"
        ".long 0,0,0\\n.short 0,1\\n.long 2,0x80000030\\n"
        ".long 0,0,0\\n.short 0,1\\n.long 1033,0x48\\n"
        ".rva manifest\\n.long end-manifest,0,0\\n"
        "manifest: .incbin \\"some.manifest\\"\\nend:\\n.text\\n");
"""


@pytest.mark.parametrize(
    ("called", "manifest", "fault"),
    [
        ("f", "<assembly/>", None),
        ("plain", "<assembly/>", "a TLS callback at"),
        ("f", MANIFEST, "its manifest has <file>"),
    ],
    ids=["sound", "callback", "manifest"],
)
def test_tls_callbacks_and_manifests_are_read(
    called: str, manifest: str, fault: str | None, tmp_path: Path
) -> None:
    (tmp_path / "some.c").write_text(TLS.replace("CALLED", called) + RESOURCE)
    (tmp_path / "some.manifest").write_text(manifest)
    zig(tmp_path, *DLL, "some.c", "-o", "some.dll")
    found = parsed((tmp_path / "some.dll").read_bytes(), tmp_path)
    assert found.error is None
    assert [line for line in found.faults if fault is None or fault not in line] == []
    assert len(found.faults) == (fault is not None)


# Offset from the PE signature, layout, value. The first section header is at 24 + 240 bytes.
SECTION = 24 + 240
PE_FAULTS: dict[str, tuple[int, str, int]] = {
    "magic": (24, "<H", 0x10B),
    "not a DLL": (22, "<H", 0x0022),
    "alignment in the file": (24 + 36, "<I", 3),
    "entry point outside": (24 + 16, "<I", 0x7000000),
    "entry point in data": (24 + 16, "<I", 0x40),
    "size of the image": (24 + 56, "<I", 0x1000),
    ".NET": (24 + 112 + 8 * 14 + 4, "<I", 72),
    "directory outside": (24 + 112 + 8 * 3 + 4, "<I", 0x7000000),
    "section out of order": (SECTION + 12, "<I", 0x900000),
    "section not aligned": (SECTION + 12, "<I", 0x1001),
    "section of code that can be written": (SECTION + 36, "<I", 0xE0000020),
}


@pytest.mark.parametrize("name", PE_FAULTS)
def test_a_dll_that_windows_refuses_has_a_fault(name: str, dll: bytes, tmp_path: Path) -> None:
    data = bytearray(dll)
    offset, layout, value = PE_FAULTS[name]
    struct.pack_into(layout, data, int.from_bytes(data[60:64], "little") + offset, value)
    found = parsed(bytes(data), tmp_path)
    assert found.faults or found.error
