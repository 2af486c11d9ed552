"""Tasks for test_limited. Each of their processes imports this module, so it imports little."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sessions.verify import limited_process
from sessions.verify.wheel_facts import Material


def material(name: str, count: int) -> Material:
    return Material(name, str(count), ("a role",), "", "", "")


def where() -> list[str]:
    return [os.environ.get("PYTHONPATH", ""), str(Path.cwd() in map(Path, sys.path))]


def take_memory() -> str:
    return "x" * (4 << 30)


def take_memory_in_a_program() -> str:
    # Each child is below the limit; together they are above it.
    code = "import time; x = b'x' * (400 << 20); time.sleep(60)"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    return str([child.wait() for child in children])


def wait() -> str:
    time.sleep(2)
    return "done"


def sleep() -> str:
    time.sleep(600)
    return ""


def spin() -> str:
    while True:
        pass


def start_and_sleep(note: str) -> str:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(note).write_text(f"{os.getpid()} {child.pid}")
    return str(child.wait())


def die() -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return ""


def fail() -> str:
    raise LookupError("no such thing")


def say_much() -> str:
    return "x" * (limited_process.ANSWER + 1)


def full_disk() -> str:
    raise OSError(errno.ENOSPC, "No space left on device", "/some/file")
