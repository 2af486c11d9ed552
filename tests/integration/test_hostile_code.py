"""Machine code that the loader refuses, or that takes time or memory: each is a finding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sessions.wheelfile import elf
from tests import elfs

LOAD = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).f())"


def loaded(path: Path) -> subprocess.CompletedProcess[str]:
    """What comes of a library that glibc is to load, in a process of its own."""
    command = [sys.executable, "-c", LOAD, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library that gcc made."""
    folder = tmp_path_factory.mktemp("real")
    source = folder / "some.c"
    source.write_text("int f(void) { return 7; }\n")
    words = ["gcc", "-shared", "-fPIC", "-O2", "-Wl,-z,separate-code", "-Wl,--hash-style=both"]
    subprocess.run([*words, source, "-o", folder / "some.so"], check=True, cwd=folder)
    return (folder / "some.so").read_bytes()


SOUND = {"of gcc": True, "byte by byte": False}


@pytest.fixture(params=SOUND, ids=list(SOUND))
def sound(request: pytest.FixtureRequest, real: bytes) -> bytes:
    return real if SOUND[request.param] else elfs.library()


def test_glibc_loads_what_has_no_fault(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.so"
    path.write_bytes(sound)
    assert list(elf.faults(sound)) == []
    done = loaded(path)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


@pytest.mark.parametrize("name", elfs.REFUSED)
def test_what_glibc_refuses_has_a_fault(name: str, sound: bytes, tmp_path: Path) -> None:
    data = bytearray(sound)
    elfs.REFUSED[name](data)
    path = tmp_path / "some.so"
    path.write_bytes(data)
    assert loaded(path).returncode != 0  # else the table is wrong
    assert list(elf.faults(bytes(data))) != []
