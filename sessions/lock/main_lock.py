"""The session ``lock``: pins a release, a CUDA version or packages; computes model families."""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from packaging.metadata import parse_email
from packaging.version import Version

from sessions.build import sbom
from sessions.fetch import build_tools, sdist_lock, source_filter
from sessions.lock import family_reference
from sessions.shared import console, knowledge, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.targets.targets_file import LATEST

PACKAGE = "llama_cpp"
# The packages that a build of ggml's CUDA backend needs. The package `cuda-toolkit` requires more;
# these are locked at the versions that it pins.
COMPONENTS = (
    "nvidia-cuda-nvcc",
    "nvidia-nvvm",
    "nvidia-cuda-crt",
    "nvidia-cuda-runtime",
    "nvidia-cuda-cccl",
    "nvidia-cublas",
)
# Values of pip's --platform. pip matches a tag exactly, so every manylinux tag is listed.
PLATFORMS = {
    "linux": ("manylinux2014_x86_64", *(f"manylinux_2_{n}_x86_64" for n in range(17, 36))),
    "windows": ("win_amd64",),
}


def main(ctx: Context) -> None:
    """Lock what ``--add`` names."""
    assert ctx.options.add is not None  # the option is required
    name, _, version = ctx.options.add.partition("==")
    match name:
        case "cuda":
            lock_toolkit(ctx, version.removeprefix("v"))
        case "runtime":
            lock_floors(ctx, Path(version))
        case "family":
            family_reference.lock(ctx, version)
        case _:
            lock_sdist(ctx, version.removeprefix("v"))


def lock_sdist(ctx: Context, version: str) -> None:
    """Add one release of llama-cpp-python to ``data/knowledge/sdists.toml``."""
    requested, version = version, _published(ctx, version)
    if requested == LATEST and version in knowledge.sdists():
        console.done(f"The newest release, llama-cpp-python {version}, is locked already.")
        return
    with ctx.scratch() as folder:
        sdist = sdist_lock.download(ctx, build_tools.own(ctx), version, folder)
        path = knowledge.KNOWLEDGE / "sdists.toml"
        put(knowledge.KNOWLEDGE / "upstream.toml", "release", version, upstream_row(sdist, version))
        put(path, "sdist", version, sdist_lock.row(sdist))
    console.done(f"Locked llama-cpp-python {version} in {path.relative_to(ctx.root)}.")
    console.say(f'  next: version = "{version}" below [defaults] in targets.toml, then')
    console.say("  nox -s matrix -- --targets all --pythons all")


def _published(ctx: Context, version: str) -> str:
    """The number of a release on the package index; "latest" is the newest. Raises Problem."""
    words = ["index", "versions", "llama-cpp-python"]
    listed = venvs.pip(ctx, build_tools.own(ctx), words, "the releases of llama-cpp-python")
    found = releases(listed)
    if not found:
        raise Problem(
            "The package index lists no release of llama-cpp-python.",
            id="lock-no-releases",
            evidence=venvs.tail(listed, 4),
            remedy="see which package index pip uses: pip config list",
        )
    if version == LATEST:
        return found[-1]
    if version not in found:
        raise Problem(
            f"There is no release {version} of llama-cpp-python.",
            id="lock-release-unknown",
            evidence=f"the newest: {', '.join(reversed(found[-8:]))}",
            remedy=f"nox -s lock -- --add llama-cpp-python=={found[-1]}",
            code=USAGE,
        )
    return version


def put(path: Path, table: str, version: str, row: dict[str, Any]) -> None:
    """Write the row of a release into a TOML file, sorted by release.

    Keys that a person added to the row stay, for example the list of files to merge.
    """
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    rows: Any = document[table]
    kept = rows.pop(version, tomlkit.table())
    kept.update(row)
    rows[version] = kept
    for name in sorted(rows, key=Version):  # moves each row to the end
        rows[name] = rows.pop(name)
    records.write_text(path, tomlkit.dumps(document))


def upstream_row(sdist: Path, version: str) -> dict[str, Any]:
    """The row of a release for ``verify``: the files of its package, its parts and requirements."""
    files: dict[str, str] = {}
    requires: list[str] = []
    with tempfile.TemporaryDirectory() as folder, tarfile.open(sdist) as archive:
        version_files = sbom.sources()  # the version of each part is read from these
        for member in archive:
            relative = member.name.partition("/")[2]
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            if relative.startswith(f"{PACKAGE}/") and source_filter.build_reads(relative):
                files[relative] = records.text_sha256(stream.read())
            elif relative == "PKG-INFO":
                requires = parse_email(stream.read())[0].get("requires_dist", [])
            elif relative in version_files:
                path = Path(folder) / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stream.read())
        parts = {part.name: part.version for part in sbom.vendored(Path(folder), version)}
    lines = tomlkit.array()
    lines.extend(requires)
    return {"requires": lines.multiline(True), "parts": parts, "files": dict(sorted(files.items()))}


def lock_toolkit(ctx: Context, cuda: str) -> None:
    """Write ``data/locks/cuda-X.Y.txt``: the components with their hashes for both systems."""
    if cuda not in knowledge.toolkits():
        raise Problem(
            f"CUDA {cuda} has no row in cuda.toml, so no session would use its lock file.",
            id="lock-cuda-unknown",
            evidence="rows: " + ", ".join(knowledge.toolkits()),
            remedy=f"copy the table of the newest version in sessions/data/knowledge/cuda.toml to "
            f'[toolkit."{cuda}"]; take accepts from its crt/host_config.h and archs from nvcc '
            "--list-gpu-code; then run the same command again",
            code=USAGE,
        )
    venv = build_tools.own(ctx)
    with ctx.scratch() as folder:
        bundle = f"cuda-toolkit=={cuda}.*"
        words = ["download", "--no-deps", "-d", str(folder), bundle]
        venvs.pip(ctx, venv, words, bundle)
        (wheel,) = folder.glob("*.whl")
        release, pins = bundle_pins(_metadata(wheel))
        hashes: dict[str, set[str]] = {}
        for platform, tags in PLATFORMS.items():
            report = folder / f"{platform}.json"
            words = ["install", "--dry-run", "--ignore-installed", "--no-deps"]
            words += ["--target", str(folder)]
            words += ["--only-binary=:all:", "--report", str(report)]
            words += [word for tag in tags for word in ("--platform", tag)]
            words += [f"{name}=={pins[name]}" for name in COMPONENTS]
            venvs.pip(ctx, venv, words, f"CUDA {cuda} for {platform}")
            for pin, digest in report_hashes(json.loads(report.read_bytes())).items():
                hashes.setdefault(pin, set()).add(digest)
    path = knowledge.LOCKS / f"cuda-{cuda}.txt"
    records.write_text(path, toolkit_text(release, hashes))
    console.done(f"Locked CUDA {release} in {path.relative_to(ctx.root)}.")


def lock_floors(ctx: Context, built: Path) -> None:
    """Write ``oldest_cuda_packages.toml``: the oldest releases with all needed functions.

    These are the functions that ``built`` and the wheels of earlier runs import.
    """
    from sessions.verify import symbols  # lief: a quarter of a second

    major, found = symbols.needed(built) if built.is_file() else ("", {})
    if not found:
        raise Problem(
            f"{built} is not a wheel whose libraries need the CUDA runtime.",
            id="lock-no-runtime",
            remedy="name the wheel of a CUDA target: nox -s lock -- --add "
            "runtime==wheels/rtx50/NAME.whl",
            code=USAGE,
        )
    known = {each: knowledge.floors(each) for each in knowledge.load("oldest_cuda_packages.toml")}
    before = known.get(major, {})
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        for package, functions in found.items():
            row = before.get(package)
            functions |= row.needs if row else frozenset()
            wheels = {*(row.wheels if row else ()), built.name}
            rows[package] = _floor(ctx, Path(folder), package, major, functions, sorted(wheels))
    path = knowledge.KNOWLEDGE / "oldest_cuda_packages.toml"
    records.write_text(path, floors_text({**known, major: rows}))
    console.done(f"Locked {', '.join(f'{n} {r.version}' for n, r in rows.items())} in {path.name}.")


def _floor(
    ctx: Context,
    folder: Path,
    package: str,
    major: str,
    functions: frozenset[str],
    wheels: Sequence[str],
) -> knowledge.Floor:
    """The oldest release of a package that exports the functions on both systems."""
    from sessions.verify import symbols

    venv = build_tools.own(ctx)
    listed = venvs.pip(ctx, venv, ["index", "versions", package], f"the releases of {package}")
    lacking = ""
    for version in releases(listed, major):
        files, exported = [], []
        for platform, tags in PLATFORMS.items():
            into = folder / f"{package}-{version}-{platform}"
            words = ["download", "--no-deps", "--only-binary=:all:", "-d", str(into)]
            words += [word for tag in tags for word in ("--platform", tag)]
            pin = f"{package}=={version}"
            venvs.pip(ctx, venv, [*words, pin], f"{pin} for {platform}")
            (wheel,) = into.glob("*.whl")
            files.append(f"{wheel.name} sha256:{records.file_sha256(wheel)}")
            exported.append(symbols.exported(wheel))
            wheel.unlink()  # 400 MB
        both = exported[0] & exported[1]
        if functions <= both:
            return knowledge.Floor(package, version, tuple(files), tuple(wheels), functions, both)
        lacking = ", ".join(sorted(functions - both))
        console.say(f"{package} {version} lacks {lacking}")
    raise Problem(
        f"No release of {package} for CUDA {major} has all the functions that the wheels need.",
        id="lock-no-floor",
        evidence=f"the newest lacks {lacking}",
        remedy=f"lock the wheel of an older llama-cpp-python, or wait for a newer {package}",
    )


def releases(listed: str, major: str | None = None) -> list[str]:
    """The releases in the output of ``pip index versions``, oldest first; of one major version."""
    found = re.search(r"^Available versions: (.+)$", listed, re.MULTILINE)
    versions = [text.strip() for text in found[1].split(",")] if found else []
    fitting = [text for text in versions if major in (None, text.split(".")[0])]
    return sorted(fitting, key=Version)


def floors_text(majors: Mapping[str, Mapping[str, knowledge.Floor]]) -> str:
    """The text of ``oldest_cuda_packages.toml``: one table per CUDA major version."""
    lines = [
        "# The oldest releases of NVIDIA's packages that have every function which the libraries "
        "of our",
        "# wheels take from them, by CUDA major. Written by:",
        "#     nox -s lock -- --add runtime==wheels/rtx50/NAME.whl",
        "# source: the files whose exports were read; wheels: those whose needs were read;",
        "# exports: the C functions that the libraries of that release have on both systems.",
    ]
    found = [(major, row) for major, rows in sorted(majors.items()) for row in rows.values()]
    for major, row in found:
        lines += ["", f"[{major}.{row.package}]", f'version = "{row.version}"']
        lines += [f"source = {_strings(row.source)}", f"wheels = {_strings(row.wheels)}"]
        for name, names in row.lists():
            wrapped = textwrap.fill(" ".join(sorted(names)), 100, break_on_hyphens=False)
            lines.append(f'{name} = """\n{wrapped}\n"""')
    return "\n".join(lines) + "\n"


def _strings(texts: Sequence[str]) -> str:
    return "[\n" + "".join(f'    "{text}",\n' for text in texts) + "]"


def _metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def bundle_pins(metadata: str) -> tuple[str, dict[str, str]]:
    """The release of NVIDIA's ``cuda-toolkit`` and its pins: package -> version pattern.

    Raises Problem if it does not pin each of ``COMPONENTS``.
    """
    release = re.search(r"^Version: (\S+)", metadata, re.MULTILINE)
    assert release is not None
    pins = dict(
        re.findall(r"^Requires-Dist: (nvidia-[a-z-]+)==([0-9.]+\*?)", metadata, re.MULTILINE)
    )
    missing = [name for name in COMPONENTS if name not in pins]
    if missing:
        raise Problem(
            f"NVIDIA's package cuda-toolkit {release[1]} does not pin the versions of its parts.",
            id="lock-cuda-parts-unknown",
            evidence="not named: " + ", ".join(missing),
            remedy="lock another CUDA version: nox -s lock -- --add cuda==X.Y",
        )
    return release[1], pins


def report_hashes(report: dict[str, Any]) -> dict[str, str]:
    """The hashes in pip's installation report: "name==version" -> sha256."""
    return {
        f"{item['metadata']['name']}=={item['metadata']['version']}": item["download_info"][
            "archive_info"
        ]["hashes"]["sha256"]
        for item in report["install"]
    }


def toolkit_text(release: str, hashes: dict[str, set[str]]) -> str:
    """The requirements file of a CUDA release."""
    lines = [f"# CUDA {release}: NVIDIA's own packages, for Linux x64 and Windows x64."]
    for pin, digests in hashes.items():
        options = [f"    --hash=sha256:{digest}" for digest in sorted(digests)]
        lines.append(" \\\n".join([pin, *options]))
    return "\n".join(lines) + "\n"
