"""What the project takes Windows to do otherwise than Linux: each function is run in its Python.

``behaviour.py NAME FOLDER``, by ``test_behaviour.py``; the folder is empty. Where one of them does
not hold, a precaution of the project guards against nothing, or lacks its ground.
"""

from __future__ import annotations

import ctypes
import locale
import os
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

assert sys.platform == "win32"
raises = unittest.TestCase().assertRaises  # of the standard library, which is all that is there
SYSTEM = Path(os.environ["SYSTEMROOT"], "system32")


def text_without_an_encoding_is_not_utf_8(folder: Path) -> None:
    # Hence encoding= and newline= wherever text is read or written.
    assert locale.getpreferredencoding(False) == "cp1252"
    (folder / "a").write_text("ñ\n")
    assert (folder / "a").read_bytes() == b"\xf1\r\n"


def names_of_files_are_the_same_in_any_case(folder: Path) -> None:
    (folder / "Ggml.DLL").touch()
    assert (folder / "ggml.dll").exists()


def names_of_variables_are_the_same_in_any_case(folder: Path) -> None:
    # A caller's "Path" is PATH.
    mixed = "FoO"
    os.environ[mixed] = "1"
    assert os.environ[mixed.lower()] == "1"
    words = [sys.executable, "-c", "import os; print([n for n in os.environ if 'FOO' in n])"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == "['FOO']\n"


def a_file_that_is_open_stays_where_it_is(folder: Path) -> None:
    (folder / "new").touch()
    with (folder / "old").open("w"):
        with raises(PermissionError):
            (folder / "old").unlink()
        with raises(PermissionError):
            (folder / "new").replace(folder / "old")


def a_folder_with_an_open_file_is_not_renamed(folder: Path) -> None:
    (folder / "part").mkdir()
    with (folder / "part" / "file").open("w"), raises(PermissionError):
        (folder / "part").rename(folder / "whole")


def rename_takes_no_others_place_and_replace_does(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).write_text(name)
        (folder / f"{name}.d").mkdir()
    with raises(FileExistsError):
        (folder / "a").rename(folder / "b")
    with raises(OSError):
        (folder / "a.d").rename(folder / "b.d")
    (folder / "a").replace(folder / "b")
    assert (folder / "b").read_text() == "a"


def what_is_read_only_is_not_deleted(folder: Path) -> None:
    (folder / "a").touch()
    (folder / "a").chmod(0o444)
    with raises(PermissionError):
        (folder / "a").unlink()
    (folder / "a").chmod(0o666)
    (folder / "a").unlink()


def a_program_that_runs_is_not_deleted(folder: Path) -> None:
    # clean beside a smoke run; the venv of a run that still goes on.
    program = folder / "program.exe"
    shutil.copy(SYSTEM / "cmd.exe", program)
    child = subprocess.Popen([str(program), "/k"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        with raises(PermissionError):
            program.unlink()
    finally:
        child.kill()
        child.wait()


def a_library_that_is_loaded_is_not_deleted(folder: Path) -> None:
    library = folder / "ggml.dll"
    shutil.copy(SYSTEM / "version.dll", library)
    ctypes.CDLL(str(library))
    with raises(PermissionError):
        library.unlink()


def upstreams_way_to_load_does_not_look_in_added_folders(folder: Path) -> None:
    # Hence sessions/build/overlay/_bundled_dlls.py: upstream loads llama.dll with winmode=0.
    shutil.copy(SYSTEM / "version.dll", folder / "only_here.dll")
    with raises(FileNotFoundError):
        ctypes.CDLL("only_here.dll")
    os.add_dll_directory(str(folder))
    with raises(FileNotFoundError):
        ctypes.CDLL("only_here.dll", winmode=0)
    ctypes.CDLL("only_here.dll")
    ctypes.CDLL("only_here.dll", winmode=0)  # what is loaded already is not looked for


def a_path_in_utf_8_is_not_found_in_the_code_page(folder: Path) -> None:
    # Hence _backends.register: ggml_backend_load makes a std::filesystem::path of the bytes that it
    # is given, which MSVC's library reads in the code page.
    library = folder / "José.dll"
    shutil.copy(SYSTEM / "version.dll", library)
    load = ctypes.WinDLL("kernel32").LoadLibraryA
    load.restype = ctypes.c_void_p
    assert not load(str(library).encode("utf-8"))
    assert load(str(library).encode("mbcs"))


def links_are_refused(folder: Path) -> None:
    # As to most users of Windows: the runtime of another Python is copied instead.
    with raises(OSError) as caught:
        (folder / "link").symlink_to(folder)
    assert caught.exception.winerror == 1314


def a_lock_keeps_others_out(folder: Path) -> None:
    import msvcrt

    with (folder / "lock").open("wb") as first, (folder / "lock").open("wb") as second:
        msvcrt.locking(first.fileno(), msvcrt.LK_NBLCK, 1)
        with raises(PermissionError):
            msvcrt.locking(second.fileno(), msvcrt.LK_NBLCK, 1)


def what_a_killed_program_started_lives_on(folder: Path) -> None:
    # Hence each descendant is ended by itself (programs.py, spawn.py).
    held, end = str(folder / "held"), folder / "end"
    child = (
        f"import os, time; file = open({held!r}, 'w')\n"
        f"while not os.path.exists({str(end)!r}): time.sleep(0.05)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not Path(held).exists():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    try:
        with raises(PermissionError):
            Path(held).unlink()
    finally:
        end.touch()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
