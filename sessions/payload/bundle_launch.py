"""The program of a bundle: tests one wheel on this machine, which needs only Python and a driver.

``python smoke-TARGET.pyz`` makes a venv, installs the bundle's wheel, runs every check and writes a
report. With --bench it measures the wheel and other wheels alternately; with --ops it runs
upstream's test of every operator. Both continue a run that was stopped. NVIDIA's CUDA runtime is
installed by pip; without a network it is taken from this Python's packages or from a toolkit.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import bundle_refusals
import installing
import run_folder
import spawn

MARKS = {"ok": "ok  ", "fail": "FAIL"}
KEPT = (
    "HOME", "USER", "LANG", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR",
    "COMSPEC", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
)  # fmt: skip


def main() -> None:
    """Run everything and write a report. Exit code 1: a check failed; 2: there is no report."""
    options = _options()
    spawn.quiet_crashes()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # no error for a character that cannot be printed
    session = "bench" if options.bench else "ops" if options.ops else "smoke"
    path = Path(options.report or f"{session}-report.json")
    if not path.resolve().parent.is_dir():
        bundle_refusals.stop(
            f"The folder of {path} does not exist.", "name a file in an existing folder"
        )
    if options.model and not Path(options.model).is_file():
        bundle_refusals.stop(
            f"There is no model {options.model}.", "name a GGUF file: --model PATH"
        )
    others = bundle_refusals.others(options)
    with zipfile.ZipFile(sys.argv[0]) as bundle:
        manifest = json.loads(bundle.read("manifest.json").decode("utf-8"))
    manifest = _chosen(manifest, options)
    bundle_refusals.fits(manifest)  # first, because an older Python cannot run the rest
    if options.ops:
        bundle_refusals.has_ops(manifest, options)
    with run_folder.folder(path, kept=options.bench or options.ops) as folder:
        own = f"targets/{manifest['target']}/"
        with zipfile.ZipFile(sys.argv[0]) as bundle:
            names = bundle.namelist()
            wanted = [name for name in names if not name.startswith("targets/") or own in name]
            bundle.extractall(folder / "bundle", wanted)
        _arrange(folder / "bundle", own, manifest)
        device = _gpu(folder, manifest, options)
        if options.bench:
            report = _bench(folder, manifest, options, device, others)
        else:
            python = installing.install(folder)
            places: list[str] = []
            if manifest["runtime"]:
                places = installing.runtime(folder / "venv", manifest, options)
            job = _job(folder, manifest, options, device, places)
            report = _payload(folder, python, job, *(("--ops",) if options.ops else ()))
        run_folder.write(path, report)
        # Last, so that a run that fails before this can be continued.
        (folder / "run" / run_folder.STATE).unlink(missing_ok=True)
        found = json.loads(report)["report"]
        if options.bench:
            _show(found)
    for check in found.get("checks", ()):
        print(MARKS[check["status"]], check["summary"])
        if check["status"] != "ok":
            for line in [*check["evidence"].splitlines(), f"fix: {check['remedy']}"]:
                print("    ", line)
    print(f"report: {path.resolve()}")
    print(f"import it: nox -s {session} -- {manifest['arguments']} --report {path.name}")
    path.with_name(path.name + ".sig").unlink(missing_ok=True)
    if options.sign:
        _sign(path, options.sign)
    sys.exit(any(check["status"] == "fail" for check in found.get("checks", ())))


def _arrange(bundle: Path, own: str, manifest: dict[str, Any]) -> None:
    """Put the wheels for this Python and this target, in ``own``, among the others."""
    wheels = bundle / "wheels"
    for more in (f"python{bundle_refusals.HERE}", own):
        for file in (bundle / more).glob("*.whl"):
            for other in wheels.glob(f"{file.name.split('-')[0]}-*.whl"):
                other.unlink()  # the same package for another Python
            file.replace(wheels / file.name)
    wheel = wheels / manifest["job"]["identity"]["file"]
    if wheel.exists():
        wheel.replace(wheel.with_name(installing.for_this_python(wheel.name)))


def _sign(path: Path, key: str) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "blackwheel", str(path)]
    try:
        signed = subprocess.run(command, check=False).returncode == 0
    except OSError:  # ssh-keygen is not installed
        signed = False
    if not signed:
        bundle_refusals.stop(
            "ssh-keygen could not sign the report, which is written.",
            "install OpenSSH's client (Debian, Ubuntu: apt install openssh-client), and name "
            "a private key: --sign KEY",
        )


def _chosen(manifest: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The manifest of the target to test. A bundle of several targets tests all and exits here."""
    if "targets" not in manifest:
        if options.target or options.reports:
            bundle_refusals.stop(
                "--target and --reports are for a bundle of several targets.", "leave them out"
            )
        return manifest
    several: dict[str, dict[str, Any]] = {one["target"]: one for one in manifest["targets"]}
    if options.target in several:
        return several[options.target]
    if options.target or options.report or options.bench or options.ops:
        bundle_refusals.stop(
            "This bundle has several targets.", f"name one: --target {'|'.join(several)}"
        )
    for one in several.values():
        bundle_refusals.fits(one)  # all targets have the same system
    import bundle_wheels as each

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    sys.exit(each.main(list(several.values()), options, sys.argv[0], visible))


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


def _gpu(
    folder: Path, manifest: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any] | None:
    """The GPU to use, with the driver's release; None for the CPU. Exits if there is none."""
    sys.path[:0] = [str(folder / "bundle" / "payload"), str(folder / "bundle" / "nvml")]
    if options.device == "cpu" or not manifest["capabilities"]:
        return None
    import gpu

    nvml = gpu.read()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    only = [gpu.ELSEWHERE] if options.ops else []  # --ops does not run on the CPU
    device, what, remedy = gpu.choose(
        nvml, manifest["capabilities"], manifest["driver"], options.device, visible, *only
    )
    if device is None:
        bundle_refusals.stop(what, remedy)
    if warning := gpu.driver_warning(nvml["release"], manifest["bad_drivers"]):
        print(f"! {warning}", file=sys.stderr)
    second = gpu.second(nvml, manifest["capabilities"], device, options.device, visible)
    names = {"visible": gpu.selector(device), "second": second}
    return {**device, **names, "release": nvml["release"]}


def _job(
    folder: Path,
    manifest: dict[str, Any],
    options: argparse.Namespace,
    device: dict[str, Any] | None,
    places: list[str],
) -> dict[str, Any]:
    """The job of the checks; with --ops, that of upstream's operator test."""
    job = {**_placement(manifest, device), "runtime_places": places}
    if not options.ops:
        return {
            **manifest["job"],
            **job,
            "second": device["second"] if device else None,
            "families_folder": str(folder / "bundle" / "families"),
            "jobs": 4 if device else max(1, _cores() // 2),
            "venv": str(folder / "venv"),
            "model": str(Path(options.model).resolve()) if options.model else None,
        }
    # In the folder of the wheel's libraries, which find one another by $ORIGIN.
    libraries = installing.site_packages(folder / "venv") / "llama_cpp" / "lib"
    names = {name: manifest["ops"][name] for name in ("library", "reference")}
    for name in filter(None, names.values()):
        shutil.copyfile(folder / "bundle" / "ops" / name, libraries / name)
    return {
        **manifest["ops"],
        **job,
        **{kind: str(libraries / name) if name else None for kind, name in names.items()},
        "memory_mib": device["memory_free_mib"] if device else None,
        "cores": _cores(),
    }


def _cores() -> int:
    """The processors that this process may use, at least 1."""
    import cgroups

    count: int = cgroups.cores(cgroups.limits(cgroups.read()))
    return count


def _placement(manifest: dict[str, Any], device: dict[str, Any] | None) -> dict[str, Any]:
    """The part of a job that says where it runs, with the wheel and the device of the report."""
    return {
        "layers": 999 if device else 0,
        "index": device["index"] if device else 0,
        "visible": device["visible"] if device else "-1",
        "identity": {
            **manifest["job"]["identity"],
            "device": device["name"] if device else "cpu",
            "capability": device["compute_capability"] if device else None,
            "driver": device["release"] if device else None,
        },
    }


def _bench(
    folder: Path,
    manifest: dict[str, Any],
    options: argparse.Namespace,
    device: dict[str, Any] | None,
    others: list[Path],
) -> str:
    """Measure the bundle's wheel and others alternately. Returns the report's text."""
    import bench_metrics
    import cgroups

    packages = folder / "bundle" / "wheels"
    this = packages / installing.for_this_python(manifest["job"]["identity"]["file"])
    try:
        wheels = bench_metrics.wheels(manifest["target"], [this, *others], options.cpu_module or ())
    except ValueError as error:
        bundle_refusals.stop(f"{error}.", "name one that it has: --cpu-module")
    job = {
        **_placement(manifest, device),
        "wheels": wheels,
        "packages": str(packages),
        "python": sys.executable,
        "nvml": str(folder / "bundle" / "nvml"),
        "threads": 1,  # the tiny model is too small for more
        "cpu_threads": cgroups.physical(cgroups.limits(cgroups.read())),
        "rounds": options.rounds,
        "model": bench_metrics.model(Path(options.model).resolve() if options.model else None),
        "code": bench_metrics.code(),
        **installing.runtime_files(packages, manifest, options),
    }
    return _payload(folder, sys.executable, job, "--bench")


def _show(report: dict[str, Any]) -> None:
    """Print the tables of a benchmark."""
    import bench_metrics

    for title, columns, rows in bench_metrics.tables(report):
        print(title)
        lines = [columns, *rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
        for line in lines:
            print("  " + "  ".join(map(str.ljust, line, widths)).rstrip())


def _payload(folder: Path, python: str, job: dict[str, Any], *first: str) -> str:
    """Run the payload and show its progress. Returns the report's text. Exits if it fails."""
    job_path, text = folder / "job.json", json.dumps({**job, "folder": str(folder / "run")})
    kept = (folder / "run" / run_folder.STATE).exists() and job_path.exists()
    if kept and job_path.read_text(encoding="utf-8") == text:
        print("Continuing where the last run was stopped.")
    else:
        job_path.unlink(missing_ok=True)  # first: a state is not used without its job
        shutil.rmtree(folder / "run", ignore_errors=True)
        (folder / "run").mkdir()
        job_path.write_text(text, encoding="utf-8")
    # Without packages, the CUDA runtime is found by the toolkit's variables.
    keep = (*KEPT, "CUDA_PATH", "CUDA_HOME") if job.get("runtime_places") else KEPT
    env = {name: value for name, value in os.environ.items() if name.upper() in keep}
    words = [str(folder / "bundle" / "payload"), *first, str(job_path)]
    with subprocess.Popen(
        [python, "-I", *words, str(folder / "report.json")],
        env=env,
        cwd=folder / "run",
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        creationflags=spawn.NO_WINDOW,
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if line.startswith("@{"):
                    step = json.loads(line[1:])
                    left = "" if step["left"] is None else f", about {step['left']:.0f} s left"
                    done = f"{step['done']} of {step['total']}{left}: {step['now']}"
                    print(f"\r{done:<70}", end="", flush=True)
        except KeyboardInterrupt:
            _interrupt(child)
            raise
    print()
    if child.returncode:
        what = {(): "The checks", ("--ops",): "The operator test"}.get(first, "The measurements")
        bundle_refusals.stop(
            f"{what} ended with exit code {child.returncode}.",
            "correct the error that is shown above, then run the same command again",
        )
    return (folder / "report.json").read_text(encoding="utf-8")


def _interrupt(child: subprocess.Popen[str]) -> None:
    """Wait for a child after Ctrl-C. A terminal has interrupted it too; else it is done here."""
    try:
        child.wait(2)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
        child.wait()


def start() -> None:
    """Run ``main``; after Ctrl-C, exit with 130."""
    try:
        main()
    except KeyboardInterrupt:
        print(
            "\nStopped. With --bench or --ops, the same command continues from here.",
            file=sys.stderr,
        )
        sys.exit(130)
