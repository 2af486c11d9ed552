"""Reads PE files: imports, why Windows would refuse one, and what it loads or runs besides it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import lief

_DLL, _EXECUTE, _WRITE = 0x2000, 0x20000000, 0x80000000
_CLR = 14  # data directory of .NET
# Elements of a manifest that make Windows load files which the import table does not name.
_REDIRECTS = re.compile(r"<\s*(?:\w+:)?(dependentAssembly|file|loadFrom)\b", re.IGNORECASE)


def imports(binary: lief.PE.Binary) -> Iterator[str]:
    """The needed DLLs, in lower case: imports, delayed imports, targets of forwarded exports."""
    for needed in [*binary.imports, *binary.delay_imports]:
        yield str(needed.name).lower()
    exported = binary.get_export()
    for entry in exported.entries if exported else []:
        if entry.is_forwarded:
            library = str(entry.forward_information.library).lower()
            # "NTDLL.RtlAllocateHeap": the loader adds .dll to a name without a dot.
            yield library if "." in library else f"{library}.dll"


def faults(binary: lief.PE.Binary, size: int) -> Iterator[str]:
    """Why the loader would refuse a DLL of ``size`` bytes, or what else it would load or run."""
    header, optional = binary.header, binary.optional_header
    if int(optional.magic) != 0x20B:
        yield f"its optional header has the magic {int(optional.magic):#x}, not that of 64-bit"
    if not int(header.characteristics) & _DLL:
        yield "its header does not say that it is a DLL"
    file, memory = optional.file_alignment, optional.section_alignment
    if file & (file - 1) or memory & (memory - 1) or not 0 < file <= memory:
        yield f"its alignments are {file} in the file and {memory} in memory"
    yield from _sections(binary, size)
    entry = optional.addressof_entrypoint
    if entry and not _executed(binary, entry):
        yield f"its entry point {entry:#x} is not in code"
    directories = list(binary.data_directories)
    for directory in directories:
        # For certificates the address is an offset in the file.
        certificates = directory.type == lief.PE.DataDirectory.TYPES.CERTIFICATE_TABLE
        end = directory.rva + directory.size
        if directory.size and end > (size if certificates else optional.sizeof_image):
            yield f"its directory {directory.type} is outside of it"
    if len(directories) > _CLR and directories[_CLR].size:
        yield "it has .NET code, which no check reads"
    tls = binary.tls
    for callback in tls.callbacks if tls else []:
        if not _executed(binary, callback - binary.imagebase):
            yield f"a TLS callback at {callback:#x} is not in code"
    yield from _manifest(binary)


def _sections(binary: lief.PE.Binary, size: int) -> Iterator[str]:
    optional = binary.optional_header
    page = max(optional.section_alignment, 1)
    end = 0
    for section in binary.sections:
        name, flags = str(section.name), int(section.characteristics)
        extent = section.virtual_size or section.sizeof_raw_data
        if section.virtual_address % page or section.virtual_address < end:
            yield f"the section {name} is not after the one before, or not aligned"
        end = section.virtual_address + extent
        if section.sizeof_raw_data and section.pointerto_raw_data > size:
            yield f"the section {name} is outside of the file"
        if flags & _EXECUTE and flags & _WRITE:
            yield f"the section {name} can be both written and executed"
    if -(-end // page) * page != optional.sizeof_image:
        yield f"its sections end at {end}, and its header says {optional.sizeof_image}"


def _executed(binary: lief.PE.Binary, rva: int) -> bool:
    section = binary.section_from_rva(rva)
    return section is not None and bool(int(section.characteristics) & _EXECUTE)


def _manifest(binary: lief.PE.Binary) -> Iterator[str]:
    manager = binary.resources_manager if binary.has_resources else None
    if isinstance(manager, lief.PE.ResourcesManager) and manager.has_manifest:
        for element in sorted({m[1] for m in _REDIRECTS.finditer(str(manager.manifest))}):
            yield f"its manifest has <{element}>, by which Windows loads other files"
