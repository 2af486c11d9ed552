"""Typed access to ``sessions/data``: toolkits, releases, drivers, headers, GPU architectures."""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessions.shared.build_spec import HostRange
from sessions.shared.errors import Problem, UsageProblem

_KINDS = ("real", "virtual")
KNOWLEDGE = Path(__file__).parent.parent / "data" / "knowledge"
LOCKS = KNOWLEDGE.parent / "locks"


@dataclass(frozen=True)
class ToolkitFacts:
    """The facts of a CUDA minor version ("13.1")."""

    version: str
    accepts: HostRange
    archs: tuple[int, ...]
    driver: int
    source: str
    bad: str | None


@dataclass(frozen=True)
class Sdist:
    """One locked upstream source distribution."""

    version: str
    file: str
    sha256: str
    epoch: int
    py_api: str | None  # "py3": the wheel is py3-none; None: it is for the Python that built it
    merged: tuple[tuple[str, ...], ...] = ()  # unity build groups: files of ggml-cuda


@dataclass(frozen=True)
class Floor:
    """The oldest release of one of NVIDIA's packages with all functions that the wheels need."""

    package: str
    version: str
    source: tuple[str, ...]  # the files whose exports were read, with their digests
    wheels: tuple[str, ...]  # the wheels whose imports were read
    needs: frozenset[str]  # functions
    exports: frozenset[str]  # functions that the release has on Linux and on Windows

    def lists(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The lists of functions, with their names."""
        return ("needs", self.needs), ("exports", self.exports)


@dataclass(frozen=True)
class Header:
    """A header of a CUDA minor version that fails with a newer glibc, and its correction."""

    what: str
    fixed: str  # the CUDA minor version to use instead
    file: str  # below the include folder
    old: str  # regular expression
    new: str  # replacement for re.sub
    times: int  # number of occurrences


@functools.cache
def load(name: str) -> dict[str, Any]:
    """The content of a data file. It is parsed once."""
    return tomllib.loads((KNOWLEDGE / name).read_text(encoding="utf-8"))


def toolkits() -> dict[str, ToolkitFacts]:
    """Every known CUDA minor version: "13.1" -> its facts."""
    return {
        version: ToolkitFacts(
            version=version,
            accepts=HostRange(**row["accepts"]),
            archs=tuple(row["archs"]),
            driver=row["driver"],
            source=row["source"],
            bad=row.get("bad"),
        )
        for version, row in load("cuda.toml")["toolkit"].items()
    }


def toolkit(version: str) -> ToolkitFacts:
    """The facts of a CUDA version ("13.1.115"). Raises Problem if its minor version is unknown."""
    known = toolkits()
    line = ".".join(version.split(".")[:2])
    if line not in known:
        raise UsageProblem(
            f"blackwheel does not know CUDA {version}.",
            id="cuda-unknown",
            evidence="known: " + ", ".join(known),
            remedy="choose one of those with --cuda (CONTRIBUTING.md says how to add another)",
        )
    return known[line]


def floors(major: str) -> dict[str, Floor]:
    """Package -> Floor for a CUDA major version. Raises Problem if it is unknown."""
    rows = load("oldest_cuda_packages.toml")
    if major not in rows:
        raise Problem(
            f"blackwheel does not know which releases of NVIDIA's packages CUDA {major} needs.",
            id="floors-unknown",
            remedy="use --cuda 13.1; maintainers: nox -s lock -- --add runtime==FILE.whl finds "
            "them in a wheel for that CUDA version",
        )
    return {
        package: Floor(
            package=package,
            version=row["version"],
            source=tuple(row["source"]),
            wheels=tuple(row["wheels"]),
            needs=frozenset(row["needs"].split()),
            exports=frozenset(row["exports"].split()),
        )
        for package, row in rows[major].items()
    }


def bad_drivers(archs: Sequence[str]) -> dict[str, str]:
    """Driver release -> the fault that is reported for GPUs of these architectures."""
    numbers = {parse_arch(arch)[0] for arch in archs}
    return {
        release: f"{row['what']} ({row['source']})"
        for row in load("drivers.toml")["bad"]
        if numbers & set(row["capabilities"])
        for release in row["releases"]
    }


def has_code(archs: Sequence[str], capability: str) -> bool:
    """Whether a GPU ("12.0") can run code of these architectures, with a sufficient driver.

    CUDA C++ Programming Guide, compute capability: machine code runs on GPUs of the same major
    version with the same or a newer minor version, PTX on every newer GPU. With the suffix a, only
    on the same capability; with f, only within the major version. overlay/_gpu_check.py has the
    same rule.
    """
    gpu = _numbers(capability)

    def runs(arch: str) -> bool:
        number, suffix, kind = parse_arch(arch)
        built = divmod(number, 10)
        if suffix == "a":
            return gpu == built
        return gpu >= built and (gpu[0] == built[0] or (suffix == "" and kind != "real"))

    return any(map(runs, archs))


def headers(cuda: str, glibc: str) -> tuple[Header, ...]:
    """The headers of a CUDA version that do not compile with a glibc ("2.42"; "" for none)."""
    version = _numbers(glibc)
    names = [field.name for field in dataclasses.fields(Header)]
    return tuple(
        Header(**{name: row[name] for name in names})
        for row in load("cuda.toml")["header"]
        if cuda in row["cuda"] and version >= _numbers(row["glibc"])
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def host_minimum() -> dict[str, int]:
    """Family -> the oldest major version of a host compiler that compiles upstream's C++17."""
    row = load("cuda.toml")["host"]
    return {"gnu": row["gnu_min"], "clang": row["clang_min"], "msvc": row["msvc_min"]}


def glibc() -> dict[str, dict[str, tuple[str, ...]]]:
    """The exports of glibc 2.28: library -> symbol version -> symbols, with ":object" for data."""
    return {
        library: {version: tuple(names.split()) for version, names in versions.items()}
        for library, versions in load("glibc.toml").items()
        if isinstance(versions, dict)
    }


def left_out(version: str, family: str, compiler: str) -> list[str]:
    """The CPU modules of ggml that compute wrongly in a release, or with a version of GCC."""

    def wrong(row: Mapping[str, Any]) -> bool:
        old = family == "gnu" and _numbers(compiler) < _numbers(row.get("gnu_before", "0"))
        return old or version in row.get("releases", ())

    rows = load("wheel_policy.toml")["dispatch"]["left_out"]
    return list(dict.fromkeys(row["module"] for row in rows if wrong(row)))


def capability_names() -> dict[int, str]:
    """Compute capability times ten -> the names of its GPUs."""
    rows = load("cuda.toml")["capability"]
    return {int(key): text for key, text in rows.items() if key != "source"}


def sdists() -> dict[str, Sdist]:
    """Version -> locked upstream release. This repository's locks override those of the cache."""
    rows = load("sdists.toml")["sdist"]
    return _KEPT | {version: sdist_of(version, row) for version, row in rows.items()}


def sdist_of(version: str, row: Mapping[str, Any]) -> Sdist:
    """The Sdist of a row of sdists.toml."""
    return Sdist(
        version=version,
        file=row["file"],
        sha256=row["sha256"],
        epoch=row["epoch"],
        py_api=row.get("py_api"),
        merged=tuple(map(tuple, row.get("merged", ()))),
    )


_KEPT: dict[str, Sdist] = {}  # releases locked in the cache, read when a command starts


def add_sdists(sdists: Iterable[Sdist]) -> None:
    """Add releases that are locked in the cache."""
    _KEPT.update({sdist.version: sdist for sdist in sdists})


def is_in_repository(version: str) -> bool:
    """Whether a release is locked in this repository, and not only in a cache."""
    return version in load("sdists.toml")["sdist"]


# The newest release of the package index, if --version latest asked for it. Not yet locked.
OFFERED: set[str] = set()


def newest_sdist() -> str:
    """The newest upstream release that is locked or offered by the package index."""
    return max({*sdists(), *OFFERED}, key=_numbers)


def runtime_mb() -> int:
    """Size in MB of NVIDIA's packages that pip downloads for a CUDA wheel."""
    sizes: dict[str, int] = load("wheel_policy.toml")["runtime"]["bytes"]
    return round(sum(sizes.values()) / 1e6)


def disk_mib(step: str) -> int:
    """Free disk space in MiB that a step needs."""
    mib: int = load("disk.toml")[step]["mib"]
    return mib


def pythons() -> tuple[str, ...]:
    """The Python versions that wheels are built for: "3.12"."""
    return tuple(load("sdists.toml")["python"]["known"])


def builders() -> tuple[str, ...]:
    """The Python versions that the locked build tools run on."""
    oldest: str = load("sdists.toml")["python"]["oldest_builder"]
    return tuple(p for p in pythons() if _numbers(p) >= _numbers(oldest))


def knows_no_python(version: str) -> bool:
    """Whether a locked release has one wheel for every Python (py3-none)."""
    sdist = sdists().get(version)
    return sdist is not None and sdist.py_api is not None


def staging_excludes() -> tuple[str, ...]:
    """Folders of an upstream source that no build reads, relative to its root."""
    return tuple(load("sdists.toml")["staging"]["exclude"])


def staging_keeps() -> tuple[str, ...]:
    """Folders inside the excluded ones that a build reads."""
    return tuple(load("sdists.toml")["staging"]["keep"])


def toolkit_lock(cuda: str) -> Path:
    """The hashed requirements file of a CUDA toolkit. Raises Problem if there is none."""
    path = LOCKS / f"cuda-{cuda}.txt"
    if not path.exists():
        locked = sorted(p.stem.removeprefix("cuda-") for p in LOCKS.glob("cuda-*.txt"))
        raise UsageProblem(
            f"CUDA {cuda} is not locked, so it cannot be assembled from NVIDIA's packages.",
            id="cuda-not-locked",
            evidence="locked: " + ", ".join(locked),
            remedy=f"choose one of those with --cuda, use --toolkit system, "
            f"or lock it: nox -s lock -- --add cuda=={cuda}",
        )
    return path


def is_locked(cuda: str) -> bool:
    """Whether a CUDA minor version can be installed from NVIDIA's packages."""
    return (LOCKS / f"cuda-{cuda}.txt").exists()


def tools_lock() -> Path:
    """The hashed requirements file of the build tools."""
    return LOCKS / "tools.txt"


def payload_lock() -> Path:
    """The hashed requirements file of the payload's own imports."""
    return LOCKS / "payload.txt"


def parse_requirements(text: str) -> dict[str, str]:
    """Package -> version of a pinned requirements file."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def parse_host_config(text: str) -> HostRange | None:
    """The host compilers that ``crt/host_config.h`` accepts; None if a line is missing.

    Only the last clang line is for clang itself.
    """
    gnu = re.search(r"^#if __GNUC__ > (\d+)", text, re.MULTILINE)
    clang = re.findall(
        r"^#if \(__clang_major__ >= (\d+)\) \|\| \(__clang_major__ < (\d+)\)", text, re.MULTILINE
    )
    msvc = re.search(r"^#if _MSC_VER < (\d+) \|\| _MSC_VER >= (\d+)", text, re.MULTILINE)
    if not (gnu and clang and msvc):
        return None
    return HostRange(
        gnu_max=int(gnu[1]),
        clang_min=int(clang[-1][1]),
        clang_max=int(clang[-1][0]) - 1,
        msvc_min=int(msvc[1]),
        msvc_max=int(msvc[2]) - 1,
    )


def parse_arch(arch: str) -> tuple[int, str, str]:
    """Split "120a-real" into (120, "a", "real"). Raises Problem for anything else."""
    match = re.fullmatch(r"(\d{2,3})([af]?)(?:-(real|virtual))?", arch)
    # "a" exists since 9.0, "f" since 10.0 (CUDA C++ Programming Guide, feature-set suffixes).
    oldest = {"": 0, "a": 90, "f": 100}[match[2]] if match else 0
    if not match or int(match[1]) not in capability_names() or int(match[1]) < oldest:
        raise UsageProblem(
            f"blackwheel does not know the CUDA architecture {arch!r}.",
            id="arch-unknown",
            evidence="known:\n"
            + "\n".join(f"{n} ({text})" for n, text in sorted(capability_names().items())),
            remedy="name one of those, for example --arch 120-real (machine code only) or "
            "--arch 120 (PTX as well); for the GPUs of this machine: --target auto",
        )
    return int(match[1]), match[2], match[3] or ""


def cmake_arch(text: str) -> str:
    """Convert an architecture to the form of CMAKE_CUDA_ARCHITECTURES.

    nvcc: "sm_120" -> "120-real", "compute_120" -> "120-virtual". PyTorch: "12.0" -> "120-real",
    "12.0+PTX" -> "120". Every other text is returned unchanged.
    """
    word = text.strip().lower()
    if match := re.fullmatch(r"(sm|compute)_?(\d{2,3}[af]?)", word, re.ASCII):
        return f"{match[2]}-{'real' if match[1] == 'sm' else 'virtual'}"
    if match := re.fullmatch(r"(\d{1,2})\.(\d)([af]?)(\+ptx)?", word, re.ASCII):
        name = match[1] + match[2] + match[3]
        return name if match[4] else f"{name}-real"
    return text


def compiled_to(arch: str) -> frozenset[str]:
    """The outputs of an architecture: "120" is "120-real" (code) and "120-virtual" (PTX)."""
    number, suffix, kind = parse_arch(arch)
    return frozenset(f"{number}{suffix}-{each}" for each in ((kind,) if kind else _KINDS))


def shortest(names: Iterable[str]) -> tuple[str, ...]:
    """The inverse of ``compiled_to``: "120" instead of "120-real" and "120-virtual"."""
    stems: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        stems.setdefault(name.rpartition("-")[0] or name, []).append(name)
    for stem, members in stems.items():
        if {f"{stem}-{kind}" for kind in _KINDS} <= {*members}:
            stems[stem] = [stem]
    return tuple(name for members in stems.values() for name in members)


def ops() -> dict[str, dict[str, Any]]:
    """Upstream release -> its row of ops_expected.toml: the operators of its test, by backend."""
    rows: dict[str, dict[str, Any]] = load("ops_expected.toml")["release"]
    return rows
