r"""A Windows Python under Wine, for tests: made once, kept in the project's cache folder.

    lab.run(lab.python, "-c", "print(1)").output       # a Windows program, as a test sees it
    lab.drive / "users"                                # C:\users, as this machine names it
    lab.windows(path)                                  # and the other way round

Fixtures (``conftest.py``): ``lab``, and ``folder``, an empty folder on its drive C.

By hand: ``python -m tests.windows.lab 'C:\Python311\python.exe' -c 'print(1)'``.

What Wine 8 does otherwise than Windows, beside what ``test_behaviour.py`` shows:

- in cmd ``A && B`` and ``A || B`` always run B, and ``call`` loses exit codes;
- where, findstr, tasklist and powershell are stubs that end with 0 and print nothing;
- there are no symlinks, no junctions, no limit of 260 characters, no Ctrl-Break;
- a crash starts a debugger, which waits for ever, whatever the error mode says: the lab has none;
- a library may need functions that are not there, until they are called;
- PATH and TEMP do not come from the Unix side: ``run`` gives a PATH as WINEPATH, which Wine puts
  before its own; what needs another environment is started from the Windows Python.
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

from sessions.shared import console, disk
from sessions.shared.errors import Problem
from tests.windows import making


@dataclass(frozen=True)
class Ran:
    """A Windows program that has ended; ``output`` is stdout and stderr as one text."""

    returncode: int
    output: str

    def well(self) -> Ran:
        assert self.returncode == 0, f"ended with {self.returncode}:\n{self.output}"
        return self


@dataclass(frozen=True)
class Lab:
    """A Windows that runs, for one process at a time."""

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
        """Run a Windows program to its end, with pipes and a clean environment and ``env``.

        Every Path is written as Windows names it. ``cwd`` is drive C unless given. The time limit
        is for what hangs; what it started ends with it.
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
            making.start(self.folder)  # what it started has its pipe, and would meet the next test
            output, _ = child.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                told = f"{' '.join(words)} did not end within {timeout} s"
                raise AssertionError(f"{told}:\n{output}") from None
            raise
        return Ran(child.returncode, output)

    def windows(self, path: Path) -> str:
        r"""Return what Windows calls a path of this machine: on C, else on Z, which is ``/``."""
        path = path.absolute()
        if path.is_relative_to(self.drive):
            return "C:\\" + str(path.relative_to(self.drive)).replace("/", "\\").lstrip(".")
        return "Z:" + str(path).replace("/", "\\")


@contextmanager
def opened() -> Iterator[Lab]:
    """Have the lab only for this process, made if it was not yet; its processes end with it."""
    making.need_programs()
    cache = Path(os.environ.get("BLACKWHEEL_CACHE") or platformdirs.user_cache_path("blackwheel"))
    cache = cache.expanduser().resolve()
    disk.claim(cache)
    folder = cache / f"windows-lab-{making.identity()}"
    with disk.lock(cache / "locks" / f"{folder.name}.lock", console.say):
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            if part.exists():
                making.stop(part)
                disk.remove(part)
            disk.mark(part)
            making.make(part)
            part.rename(folder)
        making.start(folder)
        try:
            yield Lab(folder, folder / "prefix" / "drive_c")
        finally:
            making.stop(folder)


def main() -> int:
    """Make the lab, and run what the command line names."""
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
