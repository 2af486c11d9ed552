"""Microsoft's C++ and OpenMP runtime: which DLLs a Windows wheel contains, and where they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sessions.shared import knowledge
from sessions.shared.errors import Problem

FOLDER = "llama_cpp_python.libs"  # of the wheel: delvewheel copies DLLs into it


def files() -> tuple[str, ...]:
    """The names of the DLLs: "msvcp140.dll"."""
    rows = knowledge.load("third_party_code.toml")["runtime"]
    return tuple(file for row in rows if row["family"] == "msvc" for file in row["files"])


def original(member: str) -> str:
    """The name that a DLL had before delvewheel renamed it (msvcp140-0f88….dll)."""
    return re.sub(r"-[0-9a-f]{32}(?=\.dll$)", "", member.rsplit("/", 1)[-1])


def find(variables: Mapping[str, str]) -> dict[str, Path]:
    """The DLLs by name, in the Visual Studio whose ``vcvars64.bat`` set ``variables``.

    Only the folder for redistribution is searched. The DLLs beside the compiler and in System32 may
    not be redistributed, or have another version. Raises Problem if one is missing.
    """
    root = variables.get("VCTOOLSREDISTDIR", "")
    folders = sorted(Path(root).glob("x64/Microsoft.VC*")) if root else []
    found = {
        path.name.lower(): path
        for folder in folders
        if folder.suffix in (".CRT", ".OpenMP")
        for path in sorted(folder.glob("*.dll"))
    }
    missing = [name for name in files() if name not in found]
    if missing:
        raise Problem(
            "Microsoft's C++ runtime is not where Visual Studio keeps it for redistribution.",
            id="msvc-runtime-missing",
            evidence=f"{', '.join(missing)}: not in x64 of VCToolsRedistDir "
            f"({root or 'which vcvars64.bat does not set'})",
            remedy='in the Visual Studio Installer add the component "C++ Redistributable Update" '
            "(Microsoft.VisualStudio.Component.VC.Redist.14.Latest), then: nox -s wheel",
        )
    return {name: found[name] for name in files()}
