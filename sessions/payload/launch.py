"""The program of a smoke bundle: tests one wheel on this machine, with Python and a driver only.

``python smoke-TARGET.pyz`` makes a venv of its own, installs the wheel that the bundle holds, runs
every check and writes a report; with --bench it measures the wheel instead, in turn with others
that are named; with --ops it runs upstream's test of every operator. Both go on where such a run
was stopped. NVIDIA's runtime comes from pip if there
is a network, else from the packages of the Python that runs this, else from an installed toolkit.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

STATE = "state.json"  # of a benchmark, in its folder: what was measured so far (bench.py)
RUNTIME = ("nvidia-cuda-runtime", "nvidia-cublas")
MARKS = {"ok": "ok  ", "fail": "FAIL"}
KEPT = (
    "HOME", "USER", "LANG", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR",
    "COMSPEC", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
)  # fmt: skip
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds
# Windows opens a console for a console program whose parent has none.
NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW


def main() -> None:
    """Everything, and a report; exit code 1 if a check fails, 2 if none could be made."""
    options = _options()
    _at_home()
    session = "bench" if options.bench else "ops" if options.ops else "smoke"
    path = Path(options.report or f"{session}-report.json")
    if not path.resolve().parent.is_dir():
        _stop(f"There is no folder for {path}.", "name a file in one that is there")
    if options.model and not Path(options.model).is_file():
        _stop(f"There is no model {options.model}.", "name a GGUF file: --model PATH")
    others = _others(options)
    with zipfile.ZipFile(sys.argv[0]) as bundle:
        manifest = json.loads(bundle.read("manifest.json").decode("utf-8"))
    manifest = _chosen(manifest, options)
    _fits(manifest)  # before what an older Python cannot run
    if options.ops:
        _has_ops(manifest, options)
    with _folder(path, kept=options.bench or options.ops) as folder:
        own = f"targets/{manifest['target']}/"
        with zipfile.ZipFile(sys.argv[0]) as bundle:
            names = bundle.namelist()
            wanted = [name for name in names if not name.startswith("targets/") or own in name]
            bundle.extractall(folder / "bundle", wanted)
        wheels = folder / "bundle" / "wheels"
        for more in (f"python{HERE}", own):
            for file in (folder / "bundle" / more).glob("*.whl"):
                for other in wheels.glob(f"{file.name.split('-')[0]}-*.whl"):
                    other.unlink()  # the same package, for another Python
                file.replace(wheels / file.name)
        wheel = wheels / manifest["job"]["identity"]["file"]
        if wheel.exists():
            wheel.replace(wheel.with_name(for_this_python(wheel.name)))
        device = _card(folder, manifest, options)
        if options.bench:
            report = _bench(folder, manifest, options, device, others)
        else:
            python = _install(folder)
            places = _runtime(folder / "venv", manifest, options) if manifest["runtime"] else []
            run = _ops if options.ops else _prove
            report = run(folder, manifest, options, device, python, places)
        write(path, report)
        (folder / "run" / STATE).unlink(missing_ok=True)  # last: until here, the next run goes on
        found = json.loads(report)["report"]
        if options.bench:
            _show(found)
    for check in found.get("checks", ()):
        print(MARKS[check["status"]], check["summary"])
        if check["status"] != "ok":
            for line in [*check["evidence"].splitlines(), f"fix: {check['remedy']}"]:
                print("    ", line)
    print(f"report: {path.resolve()}")
    print(f"take it back: nox -s {session} -- --target {manifest['target']} --report {path.name}")
    path.with_name(path.name + ".sig").unlink(missing_ok=True)
    if options.sign:
        command = ["ssh-keygen", "-Y", "sign", "-f", options.sign, "-n", "blackwheel", str(path)]
        try:
            signed = subprocess.run(command, check=False).returncode == 0
        except OSError:  # there is none
            signed = False
        if not signed:
            remedy = (
                "install OpenSSH's client (Debian, Ubuntu: apt install openssh-client), and name "
            )
            remedy += "a private key: --sign KEY"
            _stop("ssh-keygen could not sign the report, which is written.", remedy)
    sys.exit(any(check["status"] == "fail" for check in found.get("checks", ())))


def _chosen(manifest: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The manifest of the target to test. A bundle of several tests all that fit, and ends here."""
    if "targets" not in manifest:
        if options.target or options.reports:
            _stop("--target and --reports are for a bundle of several targets.", "leave them out")
        return manifest
    several: dict[str, dict[str, Any]] = {one["target"]: one for one in manifest["targets"]}
    if options.target in several:
        return several[options.target]
    if options.target or options.report or options.bench or options.ops:
        _stop("This bundle has several targets.", f"name one: --target {'|'.join(several)}")
    for one in several.values():
        _fits(one)  # all are for the same system
    import several as each

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    sys.exit(each.main(list(several.values()), options, sys.argv[0], visible))


def for_this_python(name: str) -> str:
    """A wheel's name with this Python's tag, where it has another's.

    pip refuses any other. What is in the wheel stays as it is: its libraries are loaded by ctypes
    and do not depend on Python.
    """
    tag = f"cp{HERE.replace('.', '')}"
    return re.sub(r"-(cp3\d+)-\1-", f"-{tag}-{tag}-", name)


@contextlib.contextmanager
def _folder(report: Path, *, kept: bool) -> Iterator[Path]:
    """The folder to work in, beside the report: what a run that is killed left goes with the next.

    ``kept``: a benchmark goes on from what its last run measured.
    """
    folder = report.resolve().with_suffix(".unfinished")
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("a+b")
    except OSError as error:
        _stop(f"{folder} cannot be made: {error}", "name a report in a folder of yours: --report")
    with lock:
        if (
            not _locked(lock) or not (folder / "lock").exists()
        ):  # deleted by its last owner just now
            remedy = "wait until it ends, or name another report: --report FILE"
            _stop(f"Another run is using {folder}.", remedy)
        if not kept:
            _empty(folder)
        shutil.rmtree(folder / "bundle", ignore_errors=True)  # it may be another one's
        try:
            yield folder
        finally:
            if not (folder / "run" / STATE).exists():
                _empty(folder)
                if sys.platform == "win32":  # which deletes no file that is open
                    lock.close()
                shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        elif child.name != "lock":
            child.unlink()


def _locked(file: IO[bytes]) -> bool:
    """Lock an open file for this process; whether no other one has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


def write(path: Path, text: str) -> None:
    """Write a file whole, or leave it as it was.

    On Windows a virus scanner may have the new file open for a moment, which then cannot be moved.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        for pause in PAUSES if sys.platform == "win32" else ():
            try:
                part.replace(path)
                return
            except PermissionError:
                time.sleep(pause)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--device", metavar="N|cpu", help="which GPU, by its index; or the CPU only")
    add("--report", metavar="FILE", help="where the report goes")
    add("--target", metavar="NAME", help="of a bundle of several targets: this one only")
    add("--reports", metavar="DIR", help="of a bundle of several: where the reports go")
    add("--model", metavar="FILE", help="a GGUF model to test too; with --bench: to measure too")
    add("--bench", action="store_true", help="measure the wheel instead of testing it")
    add("--ops", action="store_true", help="run upstream's test of every operator instead")
    add(
        "--baseline",
        metavar="WHEEL",
        action="append",
        help="--bench: also measure this wheel, alternating",
    )
    add("--cpu-module", metavar="NAME", action="append", help="--bench: also with this module")
    add(
        "--rounds",
        metavar="N",
        type=int,
        default=10,
        help="--bench: how many times each wheel is measured (10)",
    )
    add("--offline", action="store_true", help="ask no package index for NVIDIA's runtime")
    add("--sign", metavar="KEY", help="sign the report with this SSH key")
    options = parser.parse_args()
    if (options.baseline or options.cpu_module or options.rounds != 10) and not options.bench:
        parser.error("--baseline, --cpu-module and --rounds are for --bench")
    if options.ops and (options.bench or options.model):
        parser.error("--ops cannot be combined with --bench or --model")
    if options.rounds < 1:
        parser.error("--rounds is a number of 1 or more")
    return options


def _at_home() -> None:
    """On Windows: no dialogue for a crash of a child, and no failure over a sign of the text."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(
            msvcrt.SEM_FAILCRITICALERRORS
            | msvcrt.SEM_NOGPFAULTERRORBOX
            | msvcrt.SEM_NOOPENFILEERRORBOX
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _others(options: argparse.Namespace) -> list[Path]:
    """The wheels to measure in turn with the bundle's."""
    found = [Path(name).resolve() for name in options.baseline or ()]
    for path in found:
        if path.suffix != ".whl" or not path.is_file():
            _stop(f"There is no wheel {path}.", "name a file: --baseline seed/llama….whl")
    return found


def _stop(what: str, remedy: str) -> NoReturn:
    print(f"{what}\nFix: {remedy}", file=sys.stderr)
    sys.exit(2)


def _fits(manifest: dict[str, Any]) -> None:
    pythons = manifest["pythons"]
    if HERE not in pythons:
        _stop(
            f"The wheel is for Python {' or '.join(pythons)}; this is {HERE}.",
            f"python{pythons[0]} {Path(sys.argv[0]).name}",
        )
    if sysconfig.get_platform().replace("-", "_") not in manifest["platforms"]:
        _stop(
            f"The wheel is for {' or '.join(manifest['platforms'])}; "
            f"this is {sysconfig.get_platform()}.",
            "build the wheel and the bundle for this system",
        )


def _card(
    folder: Path, manifest: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any] | None:
    """The GPU to use, with the driver's release; None for the CPU. Nothing is installed yet."""
    sys.path[:0] = [str(folder / "bundle" / "payload"), str(folder / "bundle" / "nvml")]
    if options.device == "cpu" or not manifest["capabilities"]:
        return None
    import gpu

    nvml = gpu.read()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    device, what, remedy = gpu.choose(
        nvml, manifest["capabilities"], manifest["driver"], options.device, visible
    )
    if device is None:
        _stop(what, remedy)
    if warning := gpu.driver_warning(nvml["release"], manifest["bad_drivers"]):
        print(f"! {warning}", file=sys.stderr)
    second = gpu.second(nvml, manifest["capabilities"], device, options.device, visible)
    names = {"visible": gpu.selector(device), "second": second}
    return {**device, **names, "release": nvml["release"]}


def _install(folder: Path) -> str:
    """A fresh venv with the wheel. Returns its Python."""
    venv = folder / "venv"
    _run([sys.executable, "-I", "-m", "venv", str(venv)], "Python could not make a venv.")
    wheels = sorted(map(str, (folder / "bundle" / "wheels").glob("*.whl")))
    command = [*_pip(venv), "--no-index", "--no-deps", *wheels]
    env = _pip_environment(python_of(venv), "install")
    _run(command, "pip could not install the bundle's wheels.", env)
    return python_of(venv)


def python_of(venv: Path) -> str:
    """The Python of a venv."""
    return str(venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


def _pip(venv: Path) -> list[str]:
    return [python_of(venv), "-I", "-m", "pip", "--disable-pip-version-check", "install", "-q"]


def _pip_environment(python: str, command: str) -> dict[str, str]:
    """An environment in which pip's settings say where packages come from, and nothing else."""
    import pipconfig

    asked = subprocess.run(
        [python, *pipconfig.LIST],
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        creationflags=NO_WINDOW,
        check=False,
    )
    env: dict[str, str] = pipconfig.environment(os.environ, asked.stdout, command)
    return env


def without_files() -> dict[str, str]:
    """This environment, in which pip reads no file; --isolated would leave the machine's own."""
    return {**os.environ, "PIP_CONFIG_FILE": os.devnull}


def _run(command: list[str], what: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        creationflags=NO_WINDOW,
        check=False,
    )
    if done.returncode:
        _stop(
            f"{what}\n{(done.stdout + done.stderr)[-800:]}",
            "correct the error that is shown above, then run the same command again",
        )


def _well(command: list[str], env: dict[str, str]) -> bool:
    done = subprocess.run(
        command, env=env, capture_output=True, creationflags=NO_WINDOW, check=False
    )
    return done.returncode == 0


def _runtime(venv: Path, manifest: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """NVIDIA's runtime for the venv: from pip, else from this Python's packages, else a toolkit.

    Returns the folders that it may then be loaded from, beside the venv.
    """
    if not options.offline:
        print("Getting NVIDIA's CUDA runtime with pip ...", flush=True)
        command = [*_pip(venv), "--retries", "1", "--timeout", "10", *manifest["runtime"]]
        if _well(command, _pip_environment(python_of(venv), "install")):
            return []
    source = _packages()
    if source is None:
        return _toolkits()
    link(venv, source)
    return [str(source)]


def _packages() -> Path | None:
    """The folder of NVIDIA's runtime in the packages of this Python."""
    try:
        for name in RUNTIME:
            importlib.metadata.version(name)
        found = importlib.util.find_spec("nvidia.cu13")
    except (importlib.metadata.PackageNotFoundError, ImportError):
        return None
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])


def _toolkits() -> list[str]:
    """Where an installed toolkit may be."""
    print("NVIDIA's runtime packages are not here; an installed toolkit must have them.")
    named = [os.environ[n] for n in ("CUDA_PATH", "CUDA_HOME") if n in os.environ]
    return [*named, *map(str, Path("/usr/local").glob("cuda*"))]


def link(venv: Path, source: Path) -> None:
    """Have a venv see NVIDIA's runtime of another Python."""
    target = site_packages(venv) / "nvidia" / "cu13"
    target.parent.mkdir(exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows lets only some make links
        shutil.copytree(source, target)


def site_packages(venv: Path) -> Path:
    """Where a venv's packages are."""
    return next(venv.glob("Lib/site-packages"), None) or next(venv.glob("lib/*/site-packages"))


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
        "visible": device["visible"] if device else "-1",
        "second": device["second"] if device else None,
        "families_folder": str(folder / "bundle" / "families"),
        "jobs": 4 if device else _half(),
        "venv": str(folder / "venv"),
        "runtime_places": places,
        "model": str(Path(options.model).resolve()) if options.model else None,
        "identity": _identity(manifest, device),
    }
    return _payload(folder, python, job)


def _has_ops(manifest: dict[str, Any], options: argparse.Namespace) -> None:
    """Stop where --ops would test nothing."""
    if not manifest.get("ops"):
        what = "This bundle does not have upstream's operator test."
        _stop(
            what,
            "make the bundle again on a machine with a C++ compiler (nox -s bundle says what "
            "is missing)",
        )
    if options.device == "cpu" and manifest["capabilities"]:
        what = "--ops --device cpu would test no kernel of this wheel."
        _stop(what, "leave out --device cpu, or use the bundle of the cpu target")


def _ops(
    folder: Path,
    manifest: dict[str, Any],
    options: argparse.Namespace,
    device: dict[str, Any] | None,
    python: str,
    places: list[str],
) -> str:
    """Run upstream's operator test, showing its progress. Returns the report's text."""
    del options
    # Beside the wheel's libraries, which name one another by $ORIGIN.
    libraries = site_packages(folder / "venv") / "llama_cpp" / "lib"
    names = {name: manifest["ops"][name] for name in ("library", "reference")}
    for name in filter(None, names.values()):
        shutil.copyfile(folder / "bundle" / "ops" / name, libraries / name)
    job = {
        **manifest["ops"],
        **{kind: str(libraries / name) if name else None for kind, name in names.items()},
        "visible": device["visible"] if device else "-1",
        "memory_mib": device["memory_free_mib"] if device else None,
        "cores": _cores(),
        "runtime_places": places,
        "identity": _identity(manifest, device),
    }
    return _payload(folder, python, job, "--ops")


def _cores() -> int:
    """The processors that this process may use, at least 1."""
    import cgroups

    return max(1, int(cgroups.cores(cgroups.limits(cgroups.read()))))


def _physical() -> int:
    """The physical cores that this process may use, at least 1."""
    import cgroups

    count: int = cgroups.physical(cgroups.limits(cgroups.read()))
    return count


def _half() -> int:
    """Half of them, at least 1."""
    return max(1, _cores() // 2)


def _identity(manifest: dict[str, Any], device: dict[str, Any] | None) -> dict[str, Any]:
    """What a report is of."""
    return {
        **manifest["job"]["identity"],
        "device": device["name"] if device else "cpu",
        "capability": device["compute_capability"] if device else None,
        "driver": device["release"] if device else None,
    }


def _bench(
    folder: Path,
    manifest: dict[str, Any],
    options: argparse.Namespace,
    device: dict[str, Any] | None,
    others: list[Path],
) -> str:
    """Measure the bundle's wheel in turn with others. Returns the report's text."""
    import stats

    packages = folder / "bundle" / "wheels"
    this = packages / for_this_python(manifest["job"]["identity"]["file"])
    try:
        wheels = stats.wheels(manifest["target"], [this, *others], options.cpu_module or ())
    except ValueError as error:
        _stop(f"{error}.", "name one that it has: --cpu-module")
    job = {
        "wheels": wheels,
        "packages": str(packages),
        "python": sys.executable,
        "nvml": str(folder / "bundle" / "nvml"),
        "layers": 999 if device else 0,
        "index": device["index"] if device else 0,
        "visible": device["visible"] if device else "-1",
        "threads": 1,  # the tiny model is too small to share out
        "cpu_threads": _physical(),
        "rounds": options.rounds,
        "model": stats.model(Path(options.model).resolve() if options.model else None),
        "code": stats.code(),
        "identity": _identity(manifest, device),
        **_runtime_files(packages, manifest, options),
    }
    return _payload(folder, sys.executable, job, "--bench")


def _show(report: dict[str, Any]) -> None:
    """The tables of what was measured."""
    import stats

    for title, columns, rows in stats.tables(report):
        print(title)
        lines = [columns, *rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
        for line in lines:
            print("  " + "  ".join(map(str.ljust, line, widths)).rstrip())


def _runtime_files(
    packages: Path, manifest: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """NVIDIA's runtime for venvs that are yet to be made, from where ``_runtime`` has it."""
    found: dict[str, Any] = {"runtime": "none", "link": None, "runtime_places": []}
    if not manifest["runtime"]:
        return found
    if not options.offline:
        print("Getting NVIDIA's CUDA runtime with pip ...", flush=True)
        words = ["download", "-q", "--retries", "1", "--timeout", "10", "-d", str(packages)]
        command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", *words]
        command += manifest["runtime"]
        if _well(command, _pip_environment(sys.executable, "download")):
            return {**found, "runtime": "packages"}
    source = _packages()
    if source is None:
        return {**found, "runtime": "toolkit", "runtime_places": _toolkits()}
    return {**found, "runtime": "linked", "link": str(source), "runtime_places": [str(source)]}


def _payload(folder: Path, python: str, job: dict[str, Any], *first: str) -> str:
    """Run the payload, showing its progress. Returns the report's text."""
    told, text = folder / "job.json", json.dumps({**job, "folder": str(folder / "run")})
    kept = (folder / "run" / STATE).exists() and told.exists()
    if kept and told.read_text(encoding="utf-8") == text:
        print("Continuing where the last run was stopped.")
    else:
        told.unlink(missing_ok=True)  # first: a state without its job is none
        shutil.rmtree(folder / "run", ignore_errors=True)
        (folder / "run").mkdir()
        told.write_text(text, encoding="utf-8")
    # No package: the toolkit's own variables are what finds it.
    keep = (*KEPT, "CUDA_PATH", "CUDA_HOME") if job.get("runtime_places") else KEPT
    env = {name: value for name, value in os.environ.items() if name.upper() in keep}
    words = [str(folder / "bundle" / "payload"), *first, str(told)]
    with subprocess.Popen(
        [python, "-I", *words, str(folder / "report.json")],
        env=env,
        cwd=folder / "run",
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        creationflags=NO_WINDOW,
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if line.startswith("@{"):
                    said = json.loads(line[1:])
                    left = "" if said["left"] is None else f", about {said['left']:.0f} s left"
                    done = f"{said['done']} of {said['total']}{left}: {said['now']}"
                    print(f"\r{done:<70}", end="", flush=True)
        except KeyboardInterrupt:
            _interrupt(child)
            raise
    print()
    if child.returncode:
        what = {(): "The checks", ("--ops",): "The operator test"}.get(first, "The measurements")
        _stop(
            f"{what} ended with exit code {child.returncode}.",
            "correct the error that is shown above, then run the same command again",
        )
    return (folder / "report.json").read_text(encoding="utf-8")


def _interrupt(child: subprocess.Popen[str]) -> None:
    """Have a child end that a terminal has told already, or that nobody has."""
    try:
        child.wait(2)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
        child.wait()


def start() -> None:
    """``main``, and what Ctrl-C means."""
    try:
        main()
    except KeyboardInterrupt:
        print(
            "\nStopped. With --bench or --ops, the same command continues from here.",
            file=sys.stderr,
        )
        sys.exit(130)
