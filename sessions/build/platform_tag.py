"""Runs auditwheel or delvewheel, so that a wheel works on other machines than the build machine."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sessions.shared import programs, venvs
from sessions.shared.errors import CHECK_FAILED, REPORT, Problem

# Not copied into the wheel: libraries of the driver, of NVIDIA's packages and of Python; and those
# named by $ORIGIN/ (overlay/wheel.cmake), which are in the wheel where auditwheel does not look.
EXCLUDED = ("$ORIGIN/*", "libcuda.so.*", "libcudart.so.*", "libcublas.so.*", "libcublasLt.so.*")
AGAIN = f"build the wheel again with --fresh; if it happens again, {REPORT}"
EXCLUDED_DLLS = ("nvcuda.dll", "cudart64_*.dll", "cublas*64_*.dll", "vcruntime140*.dll")


def linux(python: str, raw: Path, out: Path, env: Mapping[str, str], remedy: str = AGAIN) -> None:
    """Leave the wheel in ``out`` with the platform tag that its libraries need.

    ``remedy`` is that of the Problem if auditwheel fails.
    """
    excludes = [word for name in EXCLUDED for word in ("--exclude", name)]
    command = [python, "-I", "-m", "auditwheel", "repair", *excludes, "-w", str(out), str(raw)]
    before = os.umask(0o022)  # auditwheel stores the modes of the unpacked folders
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
    """Leave the wheel in ``out`` with copies of the DLLs in ``folders`` that it needs, renamed.

    Only ``folders`` are searched: PATH may have other copies of Microsoft's DLLs.
    """
    with zipfile.ZipFile(raw) as archive:
        own = [Path(n).name for n in archive.namelist() if n.endswith(".dll")]
    # With --ignore-existing, delvewheel 1.13 does not rename what it copies, or fails
    # (--with-mangle).
    excludes = [word for name in (*EXCLUDED_DLLS, *own) for word in ("--exclude", name)]
    args = ["-m", "delvewheel", "repair", "--analyze-existing", "--custom-patch", *excludes]
    done = programs.capture(
        [python, *args, "-w", str(out / "delvewheel"), str(raw)],
        # delvewheel writes sets of names, whose order depends on PYTHONHASHSEED.
        env={**env, "PATH": os.pathsep.join(map(str, folders)), "PYTHONHASHSEED": "0"},
        # -I would ignore PYTHONHASHSEED, so the current folder contains only the wheel.
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
    """The same wheel in ``folder``, with its members in a fixed order and with fixed modes.

    delvewheel takes both from the file system.
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
