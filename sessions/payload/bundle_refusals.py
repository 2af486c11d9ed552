"""The errors of a bundle's program that occur before anything is installed."""

from __future__ import annotations

import argparse
import sys
import sysconfig
from pathlib import Path
from typing import Any, NoReturn

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def others(options: argparse.Namespace) -> list[Path]:
    """The wheels of --baseline. Exits if one does not exist."""
    found = [Path(name).resolve() for name in options.baseline or ()]
    for path in found:
        if path.suffix != ".whl" or not path.is_file():
            stop(f"There is no wheel {path}.", "name a file: --baseline seed/llama….whl")
    return found


def stop(what: str, remedy: str) -> NoReturn:
    """Print what is wrong and how to fix it, and exit with 2."""
    print(f"{what}\nFix: {remedy}", file=sys.stderr)
    sys.exit(2)


def fits(manifest: dict[str, Any]) -> None:
    """Exit if the wheel is for another Python or another system."""
    pythons = manifest["pythons"]
    if HERE not in pythons:
        # python.org's installer for Windows installs only ``py`` with a version (PEP 397).
        python = "py -" if manifest["platforms"][0].startswith("win") else "python"
        stop(
            f"The wheel is for Python {' or '.join(pythons)}; this is {HERE}.",
            f"{python}{pythons[0]} {Path(sys.argv[0]).name}",
        )
    if sysconfig.get_platform().replace("-", "_") not in manifest["platforms"]:
        stop(
            f"The wheel is for {' or '.join(manifest['platforms'])}; "
            f"this is {sysconfig.get_platform()}.",
            "build the wheel and the bundle for this system",
        )


def has_ops(manifest: dict[str, Any], options: argparse.Namespace) -> None:
    """Exit if --ops would test nothing."""
    if not manifest.get("ops"):
        stop(
            "This bundle does not have upstream's operator test.",
            "make the bundle again on a machine with a C++ compiler (nox -s bundle says what "
            "is missing)",
        )
    if options.device == "cpu" and manifest["capabilities"]:
        stop(
            "--ops --device cpu would test no GPU kernel of this wheel.",
            "leave out --device cpu, or use the bundle of the cpu target",
        )
