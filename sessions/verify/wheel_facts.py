"""The facts that are read from a wheel, without any check of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DeviceCode:
    """The GPU code in one library.

    ``sass`` and ``ptx`` count pieces of code by architecture ("sm_120", "compute_100").
    ``containers`` is the number of fat binaries that contain them. ``tensor`` counts the
    tensor-core instructions of the machine code by their full mnemonic ("HMMA.16816.F32");
    ``instructions`` is the number of all instructions that were read. ``kernels`` has the size
    (bytes) of the uncompressed machine code of each function.
    """

    containers: int
    sass: dict[str, int]
    ptx: dict[str, int]
    instructions: int
    tensor: dict[str, int]
    kernels: dict[str, int]
    hidden: tuple[str, ...]  # what is, or may be, GPU code outside the containers
    error: str | None  # what could not be read


@dataclass(frozen=True)
class Library:
    """One ELF or PE file. Lists are sorted; sizes in bytes.

    ``cpu_features`` counts machine instructions by the CPU feature they need (names of iced-x86's
    CpuidFeature), ``first_use`` has the first three instructions of each. ``build_paths`` are
    absolute paths of source files, debug files and search paths of the build machine.
    ``inherited_paths`` are the search paths that also apply to the libraries that this one needs:
    DT_RPATH without DT_RUNPATH. ``faults`` lists why the system's loader would refuse the file,
    and what it would do besides loading it.
    """

    member: str
    sha256: str
    size: int
    format: str  # "elf" | "pe" | "" if it cannot be read
    machine: str
    imports: tuple[str, ...]
    soname: str  # "" if it has none
    search_paths: tuple[str, ...]  # RUNPATH and RPATH
    inherited_paths: tuple[str, ...]
    exports: tuple[str, ...]  # C names only
    symbol_versions: dict[str, str]  # newest needed version: GLIBC -> 2.35; "0" without a number
    executable_stack: bool
    build_paths: tuple[str, ...]
    instructions: int
    cpu_features: dict[str, int]
    first_use: dict[str, list[str]]
    guarded: tuple[str, ...]  # CPU features that the library's runtime uses only after CPUID
    device: DeviceCode | None
    faults: tuple[str, ...]
    error: str | None  # what could not be read
    # The functions that it imports from NVIDIA's runtime: library -> names.
    runtime: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """A library that the package's Python loads, and the functions it looks up in it."""

    module: str  # member of the wheel
    library: str  # base name: "llama"
    functions: tuple[str, ...]
    reached: bool  # whether importing the package imports the module, also inside a function


@dataclass(frozen=True)
class Material:
    """A component that an SBOM names. A value that it does not have is ""."""

    name: str
    version: str
    roles: tuple[str, ...]  # "compiled in", "a file of it", "required", "built with"
    file: str  # base name
    sha256: str  # of that file
    requirement: str  # as METADATA must have it


@dataclass(frozen=True)
class Bill:
    """A CycloneDX SBOM in ``.dist-info/sboms``, as blackwheel writes it (PEP 770)."""

    member: str
    sha256: str
    name: str
    version: str
    sdist_sha256: str  # of the source distribution that it names
    materials: tuple[Material, ...]
    problems: tuple[str, ...]  # what cannot be read


@dataclass(frozen=True)
class WheelFacts:
    """Everything that was read from one wheel. Sizes in bytes."""

    file: str
    sha256: str
    size: int
    members: dict[str, int]
    times: tuple[str, ...]  # the members' distinct times, ISO 8601
    archive_problems: tuple[str, ...]
    record_problems: tuple[str, ...]
    name: str  # from the file name, like version and tags
    version: str
    tags: tuple[str, ...]
    metadata_name: str
    metadata_version: str
    requires_python: str
    requires: tuple[str, ...]
    wheel_tags: tuple[str, ...]  # from WHEEL
    purelib: bool
    generator: str
    metadata_problems: tuple[str, ...]
    package_files: dict[str, str]  # sha256 of each file but the libraries, without our lines
    bindings: tuple[Binding, ...]
    unparsed: tuple[str, ...]  # modules whose bindings are not known
    loader: str | None  # sha256 of our modules that run on import: the CUDA loader, the checks
    loader_called: bool  # all of them, before anything else
    preload: str | None  # sha256 of what loads a Windows wheel's libraries
    preload_called: bool
    bills: tuple[Bill, ...]
    libraries: tuple[Library, ...]
    tracebacks: dict[str, str]  # of readers that failed, by what they read


def unread(member: str, sha256: str, size: int, error: str | None) -> Library:
    """A library whose contents are not known."""
    return Library(
        member=member, sha256=sha256, size=size, format="", machine="", imports=(), soname="",
        search_paths=(), inherited_paths=(), exports=(), symbol_versions={},
        executable_stack=False, build_paths=(), instructions=0, cpu_features={}, first_use={},
        guarded=(), device=None, faults=(), error=error,
    )  # fmt: skip
