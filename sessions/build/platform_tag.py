"""A wheel as the build left it, made fit for other machines by auditwheel or delvewheel."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.shared import programs, venvs
from sessions.shared.errors import CHECK_FAILED, REPORT, Problem

# What a driver, NVIDIA's packages or Python bring: never copied into the wheel. What begins with
# $ORIGIN/ is in it (overlay/wheel.cmake), where auditwheel does not look.
EXCLUDED = ("$ORIGIN/*", "libcuda.so.*", "libcudart.so.*", "libcublas.so.*", "libcublasLt.so.*")
AGAIN = f"build the wheel again with --fresh; if it happens again, {REPORT}"
EXCLUDED_DLLS = ("nvcuda.dll", "cudart64_*.dll", "cublas*64_*.dll", "vcruntime140*.dll")


def linux(python: str, raw: Path, out: Path, env: Mapping[str, str], remedy: str = AGAIN) -> None:
    """Leave the wheel in ``out`` with the platform tag that its libraries truly have.

    ``remedy`` is what to do where auditwheel refuses the wheel.
    """
    excludes = [word for name in EXCLUDED for word in ("--exclude", name)]
    command = [python, "-I", "-m", "auditwheel", "repair", *excludes, "-w", str(out), str(raw)]
    before = os.umask(0o022)  # auditwheel packs the wheel's folders with the modes it unpacked to
    try:
        done = programs.capture(command, env=env)
    finally:
        os.umask(before)
    if done.returncode:
        raise Problem(
            "auditwheel refuses the wheel.",
            id="auditwheel-refused",
            code=CHECK_FAILED,
            evidence=venvs.tail(done.output),
            remedy=remedy,
        )


def windows(
    python: str,
    raw: Path,
    out: Path,
    folders: Sequence[Path],
    env: Mapping[str, str],
    remedy: str = AGAIN,
) -> None:
    """Leave the wheel in ``out`` with what its libraries need of ``folders``, by unique names.

    Of ``folders`` only: PATH has other copies of Microsoft's libraries.
    """
    with zipfile.ZipFile(raw) as archive:
        own = [Path(n).name for n in archive.namelist() if n.endswith(".dll")]
    # delvewheel 1.13 has --ignore-existing for its own libraries, but then either leaves the names
    # of what it copies in as they are, or fails (--with-mangle).
    excludes = [word for name in (*EXCLUDED_DLLS, *own) for word in ("--exclude", name)]
    words = ["-m", "delvewheel", "repair", "--analyze-existing", "--custom-patch", *excludes]
    done = programs.capture(
        [python, *words, "-w", str(out / "delvewheel"), str(raw)],
        # It writes sets of names out, whose order hangs on their hashes.
        env={**env, "PATH": os.pathsep.join(map(str, folders)), "PYTHONHASHSEED": "0"},
        # Not by -I, which would leave PYTHONHASHSEED out: a folder with nothing but the wheel.
        cwd=raw.parent,
    )
    if done.returncode:
        raise Problem(
            "delvewheel refuses the wheel.",
            id="delvewheel-refused",
            code=CHECK_FAILED,
            evidence=venvs.tail(done.output),
            remedy=remedy,
        )
    repacked(out / "delvewheel" / raw.name, out)


def repacked(wheel: Path, folder: Path) -> Path:
    """The same wheel in ``folder``, its members in order and with the same modes always.

    delvewheel takes both from the file system that it unpacks to.
    """
    path = folder / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w") as new:
        infos = [info for info in old.infolist() if not info.is_dir()]
        for member in sorted(infos, key=lambda i: (".dist-info/" in i.filename, i.filename)):
            data = old.read(member)
            if member.filename.endswith(".dist-info/RECORD"):
                data = b"".join(sorted(data.splitlines(keepends=True)))
            info = zipfile.ZipInfo(member.filename, member.date_time)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, whose modes these are
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            new.writestr(info, data)
    return path
