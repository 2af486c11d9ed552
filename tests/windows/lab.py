r"""A Windows Python under Wine, for tests: created once, kept in the project's cache folder.

    lab.run(lab.python, "-c", "print(1)").output       # a Windows program, as a test sees it
    lab.drive / "users"                                # C:\users as a path of this machine
    lab.windows(path)                                  # a path of this machine for Windows

Fixtures (``conftest.py``): ``lab``, and ``folder``, an empty folder on its drive C.

By hand: ``python -m tests.windows.lab 'C:\Python311\python.exe' -c 'print(1)'``.

Differences between Wine 8 and Windows, besides those that ``test_behaviour.py`` shows:

- in cmd ``A && B`` and ``A || B`` always run B, and ``call`` loses exit codes
- where, findstr, tasklist and powershell are stubs that exit with 0 and print nothing
- there are no symlinks, no junctions, no limit of 260 characters, no Ctrl-Break
- after a crash a debugger would wait forever, so the lab has none
- a library may need functions that do not exist, until they are called
- PATH and TEMP are not taken from the environment: ``run`` passes PATH as WINEPATH, which Wine
  puts before its own PATH; for another environment, start the program from the Windows Python
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from sessions.shared import console, disk, locks
from sessions.shared.errors import Problem
from tests.windows import making


@dataclass(frozen=True)
class Ran:
    """A Windows program that has ended. ``output`` contains stdout and stderr."""

    returncode: int
    output: str

    def well(self) -> Ran:
        assert self.returncode == 0, f"ended with {self.returncode}:\n{self.output}"
        return self


@dataclass(frozen=True)
class Lab:
    """A running Windows, for one process at a time."""

    folder: Path
    drive: Path  # drive C
    python: str = r"C:\Python311\python.exe"

    def run(
        self,
        program: str | Path,
        *args: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 600,
    ) -> Ran:
        """Run a Windows program to its end with a clean environment and ``env``.

        Every Path is translated for Windows. ``cwd`` is drive C by default. After ``timeout``
        seconds the program and everything that it started is killed.
        """
        words = [self.windows(w) if isinstance(w, Path) else w for w in (program, *args)]
        more = dict(env or {})
        if "PATH" in more:
            more["WINEPATH"] = more.pop("PATH")
        child = subprocess.Popen(
            making.command("wine", *words),
            env={**making.environment(self.folder), **more},
            cwd=cwd or self.drive,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = child.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            making.start(self.folder)  # ends what it started, which holds the pipe
            output, _ = child.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                text = f"{' '.join(words)} did not end within {timeout} s"
                raise AssertionError(f"{text}:\n{output}") from None
            raise
        return Ran(child.returncode, output)

    def windows(self, path: Path) -> str:
        r"""The name of a path of this machine in Windows: on C:, or on Z:, which is ``/``."""
        path = path.absolute()
        if path.is_relative_to(self.drive):
            return "C:\\" + str(path.relative_to(self.drive)).replace("/", "\\").lstrip(".")
        return "Z:" + str(path).replace("/", "\\")


@contextmanager
def opened() -> Iterator[Lab]:
    """Lock the lab for this process, create it if needed, and end its processes afterwards."""
    making.need_programs()
    cache = Path(os.environ.get("BLACKWHEEL_CACHE") or platformdirs.user_cache_path("blackwheel"))
    cache = cache.expanduser().resolve()
    disk.claim(cache)
    folder = cache / f"windows-lab-{making.identity()}"
    with locks.lock(cache / "locks" / f"{folder.name}.lock", console.say):
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            if part.exists():
                making.stop(part)
                disk.remove(part)
            disk.mark(part)
            making.create(part)
            part.rename(folder)
        making.start(folder)
        try:
            yield Lab(folder, folder / "prefix" / "drive_c")
        finally:
            making.stop(folder)


def main() -> int:
    """Create the lab, and run the program that the command line names."""
    try:
        with opened() as lab:
            words = sys.argv[1:] or [lab.python, "-c", "import sys; print(sys.version)"]
            ran = lab.run(words[0], *words[1:], cwd=Path.cwd(), timeout=3600)
            print(ran.output, end="")
            return ran.returncode
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
