"""The program of a smoke bundle: proves one wheel on this machine, with Python and a driver alone.

``python smoke-TARGET.pyz`` makes a venv of its own, installs the wheel that the bundle holds, runs
every proof and writes a report. NVIDIA's runtime comes from pip if there is a network, else from
the packages of the Python that runs this, else from an installed toolkit.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NoReturn

RUNTIME = ("nvidia-cuda-runtime", "nvidia-cublas")
MARKS = {"ok": "ok  ", "fail": "FAIL"}


def main() -> None:
    """Everything, and a report; exit code 1 if a proof fails, 2 if none could be made."""
    options = _options()
    if not Path(options.report).resolve().parent.is_dir():
        _stop(f"There is no folder for {options.report}.", "name a file in one that is there")
    with tempfile.TemporaryDirectory(prefix="blackwheel-smoke-") as name:
        folder = Path(name).resolve()
        with zipfile.ZipFile(sys.argv[0]) as bundle:
            bundle.extractall(folder / "bundle")
        manifest = json.loads((folder / "bundle" / "manifest.json").read_text(encoding="utf-8"))
        _fits(manifest)
        device = _card(folder, manifest, options)
        python = _install(folder)
        places = _runtime(folder / "venv", manifest, options) if manifest["runtime"] else []
        report = _prove(folder, manifest, options, device, python, places)
    path = Path(options.report)
    path.write_text(report, encoding="utf-8")
    checks = json.loads(report)["report"]["checks"]
    for check in checks:
        print(MARKS[check["status"]], check["summary"])
        if check["status"] != "ok":
            for line in [*check["evidence"].splitlines(), f"to mend it: {check['remedy']}"]:
                print("    ", line)
    print(f"report: {path.resolve()}")
    print(f"take it back: nox -s smoke -- --target {manifest['target']} --report {path.name}")
    path.with_name(path.name + ".sig").unlink(missing_ok=True)
    if options.sign:
        command = ["ssh-keygen", "-Y", "sign", "-f", options.sign, "-n", "blackwheel", str(path)]
        try:
            signed = subprocess.run(command, check=False).returncode == 0
        except OSError:  # there is none
            signed = False
        if not signed:
            remedy = "install OpenSSH's client and name a private key with --sign"
            _stop("ssh-keygen could not sign the report, which is written.", remedy)
    sys.exit(any(check["status"] == "fail" for check in checks))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--device", metavar="N|cpu", help="which card, by its index; or the CPU alone")
    add("--report", metavar="FILE", default="smoke-report.json", help="where the report goes")
    add("--model", metavar="FILE", help="a real GGUF model to ask for facts too")
    add("--offline", action="store_true", help="ask no package index for NVIDIA's runtime")
    add("--sign", metavar="KEY", help="sign the report with this SSH key")
    return parser.parse_args()


def _stop(what: str, remedy: str) -> NoReturn:
    print(f"{what}\nTo mend it: {remedy}", file=sys.stderr)
    sys.exit(2)


def _fits(manifest: dict[str, Any]) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != manifest["python"]:
        _stop(
            f"The wheel is for Python {manifest['python']}; this is {here}.",
            f"python{manifest['python']} {Path(sys.argv[0]).name}",
        )
    if sysconfig.get_platform().replace("-", "_") not in manifest["platforms"]:
        _stop(
            f"The wheel is for {' or '.join(manifest['platforms'])}; "
            f"this is {sysconfig.get_platform()}.",
            "make the bundle of a wheel for this system",
        )


def _card(
    folder: Path, manifest: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any] | None:
    """The card to use, with the driver's release; None for the CPU. Nothing is installed yet."""
    if options.device == "cpu" or not manifest["capabilities"]:
        return None
    sys.path[:0] = [str(folder / "bundle" / "payload"), str(folder / "bundle" / "nvml")]
    import card

    nvml = card.read()
    device, what, remedy = card.choose(
        nvml, manifest["capabilities"], manifest["driver"], options.device
    )
    if device is None:
        _stop(what, remedy)
    return {**device, "release": nvml["release"]}


def _install(folder: Path) -> str:
    """A fresh venv with the wheel. Returns its Python."""
    venv = folder / "venv"
    _run([sys.executable, "-m", "venv", str(venv)], "Python could not make a venv.")
    wheels = sorted(map(str, (folder / "bundle" / "wheels").glob("*.whl")))
    command = [*_pip(venv), "--no-index", "--no-deps", *wheels]
    _run(command, "pip could not install the bundle's wheels.")
    return _python(venv)


def _python(venv: Path) -> str:
    return str(venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


def _pip(venv: Path) -> list[str]:
    return [_python(venv), "-m", "pip", "--disable-pip-version-check", "install", "-q"]


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        _stop(f"{what}\n{(done.stdout + done.stderr)[-800:]}", "see what it says above")


def _runtime(venv: Path, manifest: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """NVIDIA's runtime for the venv: from pip, else from this Python's packages, else a toolkit.

    Returns the folders that it may then be loaded from, beside the venv.
    """
    if not options.offline:
        print("Getting NVIDIA's CUDA runtime with pip ...", flush=True)
        command = [*_pip(venv), "--retries", "1", "--timeout", "10"]
        done = subprocess.run([*command, *manifest["runtime"]], capture_output=True, check=False)
        if done.returncode == 0:
            return []
    try:
        for name in RUNTIME:
            importlib.metadata.version(name)
        found = importlib.util.find_spec("nvidia.cu13")
    except (importlib.metadata.PackageNotFoundError, ImportError):
        found = None
    if found is None or not found.submodule_search_locations:
        print("NVIDIA's runtime packages are not here; an installed toolkit must have them.")
        named = [os.environ[n] for n in ("CUDA_PATH", "CUDA_HOME") if n in os.environ]
        return [*named, *map(str, Path("/usr/local").glob("cuda*"))]
    source = Path(found.submodule_search_locations[0])
    site = next(venv.glob("Lib/site-packages"), None) or next(venv.glob("lib/*/site-packages"))
    target = site / "nvidia" / "cu13"
    target.parent.mkdir(exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows lets only some make links
        shutil.copytree(source, target)
    return [str(source)]


def _prove(
    folder: Path,
    manifest: dict[str, Any],
    options: argparse.Namespace,
    device: dict[str, Any] | None,
    python: str,
    places: list[str],
) -> str:
    """Run the payload, showing its progress. Returns the report's text."""
    job = {
        **manifest["job"],
        "folder": str(folder / "run"),
        "layers": 999 if device else 0,
        "index": device["index"] if device else 0,
        "jobs": 4 if device else max(1, (os.cpu_count() or 2) // 2),
        "venv": str(folder / "venv"),
        "runtime_places": places,
        "model": str(Path(options.model).resolve()) if options.model else None,
        "identity": {
            **manifest["job"]["identity"],
            "device": device["name"] if device else "cpu",
            "capability": device["compute_capability"] if device else None,
            "driver": device["release"] if device else None,
        },
    }
    (folder / "run").mkdir()
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    keep: tuple[str, ...] = (
        "HOME",
        "USER",
        "LANG",
        "TMPDIR",
        "TEMP",
        "TMP",
        "SYSTEMROOT",
        "WINDIR",
        "USERPROFILE",
    )
    if places:  # no package: the toolkit's own variables are what finds it
        keep = (*keep, "CUDA_PATH", "CUDA_HOME")
    env = {name: value for name, value in os.environ.items() if name.upper() in keep}
    words = [str(folder / "bundle" / "payload"), str(folder / "job.json")]
    with subprocess.Popen(
        [python, "-I", *words, str(folder / "report.json")],
        env=env,
        cwd=folder / "run",
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("@{"):
                said = json.loads(line[1:])
                print(f"\r{said['done']} of {said['total']}: {said['now']:<12}", end="", flush=True)
    print()
    if child.returncode:
        _stop(f"The proofs ended with {child.returncode}.", "report it with the text above")
    return (folder / "report.json").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
