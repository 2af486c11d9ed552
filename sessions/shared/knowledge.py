"""The data in ``sessions/data``, typed, and the parsers of the texts it was read from."""

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
from sessions.shared.errors import USAGE, Problem

_KINDS = ("real", "virtual")
KNOWLEDGE = Path(__file__).parent.parent / "data" / "knowledge"
LOCKS = KNOWLEDGE.parent / "locks"


@dataclass(frozen=True)
class ToolkitFacts:
    """What is known of one CUDA release line ("13.1")."""

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
    py_api: str | None  # "py3": the wheel is py3-none; None: it carries the Python it was built by
    merged: tuple[tuple[str, ...], ...] = ()  # files of ggml-cuda that are compiled as one


@dataclass(frozen=True)
class Floor:
    """The oldest release of one of NVIDIA's packages that has all that the wheels need of it."""

    package: str
    version: str
    source: tuple[str, ...]  # the files whose exports were read, with their digests
    wheels: tuple[str, ...]  # those whose needs were read
    needs: frozenset[str]  # functions
    exports: frozenset[str]  # functions that the release has on Linux and on Windows

    def lists(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The lists of functions, with their names."""
        return ("needs", self.needs), ("exports", self.exports)


@dataclass(frozen=True)
class Header:
    """What is wrong with a header of a CUDA release line on a newer glibc, and its correction."""

    what: str
    fixed: str  # the CUDA release line to use instead
    file: str  # below the include folder
    old: str  # regular expression
    new: str  # what re.sub puts in its place
    times: int  # how often it occurs


@functools.cache
def load(name: str) -> dict[str, Any]:
    """One of the data files, parsed once."""
    return tomllib.loads((KNOWLEDGE / name).read_text(encoding="utf-8"))


def toolkits() -> dict[str, ToolkitFacts]:
    """Every CUDA release line the project knows, by "major.minor"."""
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
    """The facts of one release line. Raises Problem for an unknown one."""
    known = toolkits()
    line = ".".join(version.split(".")[:2])
    if line not in known:
        raise Problem(
            f"blackwheel does not know CUDA {version}.",
            id="cuda-unknown",
            code=USAGE,
            evidence="known: " + ", ".join(known),
            remedy="choose one of those with --cuda (CONTRIBUTING.md says how to add another)",
        )
    return known[line]


def floors(major: str) -> dict[str, Floor]:
    """The runtime packages of one CUDA major, by name. Raises Problem for an unknown major."""
    rows = load("floors.toml")
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
    """Driver release -> what is reported to fail with it on GPUs of these architectures."""
    numbers = {parse_arch(arch)[0] for arch in archs}
    return {
        release: f"{row['what']} ({row['source']})"
        for row in load("drivers.toml")["bad"]
        if numbers & set(row["capabilities"])
        for release in row["releases"]
    }


def has_code(archs: Sequence[str], capability: str) -> bool:
    """Whether a GPU ("12.0") can run code of these architectures; its driver is not looked at.

    CUDA C++ Programming Guide, compute capability: machine code runs on GPUs of its major and of
    its minor or a newer one, PTX on every newer GPU. Code with the suffix a runs on that very
    capability only, with f on those of its major. overlay/_gpu_check.py has the same rule.
    """
    has = _numbers(capability)
    for arch in archs:
        number, suffix, kind = parse_arch(arch)
        built = divmod(number, 10)
        of_major = has[0] == built[0] and has[1] >= built[1]
        if suffix == "a":
            fits = has == built
        elif suffix == "f" or kind == "real":
            fits = of_major
        else:
            fits = has >= built
        if fits:
            return True
    return False


def headers(cuda: str, glibc: str) -> tuple[Header, ...]:
    """The headers of a release line that do not compile with this glibc ("2.42"; "" for none)."""
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
    """The oldest host compiler upstream's C++17 needs, by family, as major version."""
    row = load("cuda.toml")["host"]
    return {"gnu": row["gnu_min"], "clang": row["clang_min"], "msvc": row["msvc_min"]}


def glibc() -> dict[str, dict[str, tuple[str, ...]]]:
    """What glibc 2.28 exports: library -> symbol version -> symbols, with ":object" for data."""
    return {
        library: {version: tuple(names.split()) for version, names in versions.items()}
        for library, versions in load("glibc.toml").items()
        if isinstance(versions, dict)
    }


def left_out(version: str, family: str, compiler: str) -> list[str]:
    """Ggml's modules for the CPU that compute wrongly: in a release, or by a version of GCC."""

    def numbers(text: str) -> list[int]:  # the bootstrap, which imports this, has no packaging
        return [int(number) for number in re.findall(r"\d+", text)]

    def wrong(row: Mapping[str, Any]) -> bool:
        old = family == "gnu" and numbers(compiler) < numbers(row.get("gnu_before", "0"))
        return old or version in row.get("releases", ())

    rows = load("wheels.toml")["dispatch"]["left_out"]
    return list(dict.fromkeys(row["module"] for row in rows if wrong(row)))


def capability_names() -> dict[int, str]:
    """Compute capability times ten -> the GPUs that have it."""
    rows = load("cuda.toml")["capability"]
    return {int(key): text for key, text in rows.items() if key != "source"}


def sdists() -> dict[str, Sdist]:
    """The locked upstream releases, by version; this repository's locks are over the cache's."""
    rows = load("sdists.toml")["sdist"]
    return _KEPT | {version: sdist_of(version, row) for version, row in rows.items()}


def sdist_of(version: str, row: Mapping[str, Any]) -> Sdist:
    """A locked release from its row of sdists.toml."""
    return Sdist(
        version=version,
        file=row["file"],
        sha256=row["sha256"],
        epoch=row["epoch"],
        py_api=row.get("py_api"),
        merged=tuple(map(tuple, row.get("merged", ()))),
    )


_KEPT: dict[str, Sdist] = {}  # what the cache has locked: read when a command starts


def keep(sdists: Iterable[Sdist]) -> None:
    """Add releases that are locked in the cache."""
    _KEPT.update({sdist.version: sdist for sdist in sdists})


def is_in_repository(version: str) -> bool:
    """Whether a release is locked in this repository, and not only in a cache."""
    return version in load("sdists.toml")["sdist"]


# The newest release of the package index, where it was asked: locked in the cache at first use.
OFFERED: set[str] = set()


def newest_sdist() -> str:
    """The newest upstream release that is locked, or that the index was found to have."""
    return max({*sdists(), *OFFERED}, key=_numbers)


def runtime_mb() -> int:
    """Megabytes that pip downloads of NVIDIA's packages for a CUDA wheel."""
    sizes: dict[str, int] = load("wheels.toml")["runtime"]["bytes"]
    return round(sum(sizes.values()) / 1e6)


def disk_mib(step: str) -> int:
    """Free space in MiB that a step needs on the disk that it writes to."""
    mib: int = load("disk.toml")[step]["mib"]
    return mib


def pythons() -> tuple[str, ...]:
    """The Pythons that wheels are made for, as "3.12"."""
    return tuple(load("sdists.toml")["python"]["known"])


def builders() -> tuple[str, ...]:
    """The Pythons that the locked build tools run on."""
    oldest: str = load("sdists.toml")["python"]["oldest_builder"]
    return tuple(p for p in pythons() if _numbers(p) >= _numbers(oldest))


def knows_no_python(version: str) -> bool:
    """Whether a locked release makes one wheel for every Python (py3-none)."""
    sdist = sdists().get(version)
    return sdist is not None and sdist.py_api is not None


def staging_excludes() -> tuple[str, ...]:
    """Folders of an upstream source that no build reads, relative to its root."""
    return tuple(load("sdists.toml")["staging"]["exclude"])


def staging_keeps() -> tuple[str, ...]:
    """Folders inside the excluded ones that a build does read."""
    return tuple(load("sdists.toml")["staging"]["keep"])


def toolkit_lock(cuda: str) -> Path:
    """The requirements file, pinned and hashed, that makes the toolkit of a release line."""
    path = LOCKS / f"cuda-{cuda}.txt"
    if not path.exists():
        locked = sorted(p.stem.removeprefix("cuda-") for p in LOCKS.glob("cuda-*.txt"))
        raise Problem(
            f"CUDA {cuda} is not locked, so it cannot be assembled from NVIDIA's packages.",
            id="cuda-not-locked",
            code=USAGE,
            evidence="locked: " + ", ".join(locked),
            remedy=f"choose one of those with --cuda, use --toolkit system, "
            f"or lock it: nox -s lock -- --add cuda=={cuda}",
        )
    return path


def is_locked(cuda: str) -> bool:
    """Whether the toolkit of a release line can be made from NVIDIA's packages."""
    return (LOCKS / f"cuda-{cuda}.txt").exists()


def tools_lock() -> Path:
    """The requirements file, pinned and hashed, of the build tools."""
    return LOCKS / "tools.txt"


def payload_lock() -> Path:
    """The requirements file, pinned and hashed, of what the checks import beside the wheel."""
    return LOCKS / "payload.txt"


def parse_requirements(text: str) -> dict[str, str]:
    """Package -> version of a pinned requirements file."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def parse_host_config(text: str) -> HostRange | None:
    """The accepted host compilers from the text of ``crt/host_config.h``; None if unreadable.

    The last clang line counts: the earlier ones are for other compilers built on clang.
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
    # "a" begins with 9.0, "f" with 10.0 (CUDA C++ Programming Guide, feature-set suffixes).
    oldest = {"": 0, "a": 90, "f": 100}[match[2]] if match else 0
    if not match or int(match[1]) not in capability_names() or int(match[1]) < oldest:
        raise Problem(
            f"blackwheel does not know the CUDA architecture {arch!r}.",
            id="arch-unknown",
            code=USAGE,
            evidence="known:\n"
            + "\n".join(f"{n} ({text})" for n, text in sorted(capability_names().items())),
            remedy="name one of those, for example --arch 120-real (machine code only) or "
            "--arch 120 (PTX as well); for the GPUs of this machine: --target auto",
        )
    return int(match[1]), match[2], match[3] or ""


def arch_named(text: str) -> str:
    """An architecture as CMAKE_CUDA_ARCHITECTURES has it, from what other tools call it.

    nvcc: "sm_120" -> "120-real", "compute_120" -> "120-virtual". PyTorch: "12.0" -> "120-real",
    "12.0+PTX" -> "120". Every other text is returned as it is.
    """
    word = text.strip().lower()
    if match := re.fullmatch(r"(sm|compute)_?(\d{2,3}[af]?)", word, re.ASCII):
        return f"{match[2]}-{'real' if match[1] == 'sm' else 'virtual'}"
    if match := re.fullmatch(r"(\d{1,2})\.(\d)([af]?)(\+ptx)?", word, re.ASCII):
        name = match[1] + match[2] + match[3]
        return name if match[4] else f"{name}-real"
    return text


def compiled_to(arch: str) -> frozenset[str]:
    """What an architecture stands for: "120" for "120-real" (code) and "120-virtual" (PTX)."""
    number, suffix, kind = parse_arch(arch)
    return frozenset(f"{number}{suffix}-{each}" for each in ((kind,) if kind else _KINDS))


def shortest(names: Iterable[str]) -> tuple[str, ...]:
    """The inverse of ``compiled_to`` for several: "120" where both its parts are there."""
    both = sorted(set(names))
    stems = dict.fromkeys(name.rpartition("-")[0] or name for name in both)
    return tuple(
        name
        for stem in stems
        for name in (
            [stem]
            if all(f"{stem}-{kind}" in both for kind in _KINDS)
            else [name for name in both if (name.rpartition("-")[0] or name) == stem]
        )
    )


def ops() -> dict[str, dict[str, Any]]:
    """Upstream release -> its row of ops.toml: which operators its test has, on which backends."""
    rows: dict[str, dict[str, Any]] = load("ops.toml")["release"]
    return rows
