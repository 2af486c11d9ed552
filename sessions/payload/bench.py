"""Measures wheels alternately (A B B A …), each time in a fresh process.

``python -I payload --bench JOB REPORT`` with two JSON files. pip installs each wheel into its own
venv, from files only, so that no network is measured. The state is written after each step, and a
run that was stopped continues from it. The caller makes sure that the state belongs to the same
job, and deletes it after it has saved the report. Standard library, and pynvml on a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import bench_files as files
import bench_metrics
import gpu_watch
import installing
import report_file
import run_folder
import spawn
from bench_files import stop

Job = dict[str, Any]
TIMEOUT = 600.0  # seconds for one child: a driver that compiles PTX may take long
INSTALLS = 3
USUAL = 5.0  # seconds; the estimate for a step of which none was done yet
TYPE = "Q4_K"
# A larger model measures the CPU, alone or with a GPU: kind -> type. The names of its metrics begin
# with the kind.
LARGE = {"hybrid": "Q4_K"}  # half of the layers on the GPU
LARGE_ON_CPU = {"cpu_q4_k": "Q4_K", "cpu_q8_0": "Q8_0"}
HALF = 2  # layers of that model (tiny_llama.LARGE)
SPEEDS = ("prompt_per_second", "generation_per_second")
EXTRAS = ("gguf", "pyyaml", "tqdm")  # for making the models; not in the measured installation
# The metrics of a round, by the name that the child prints.
COLD = {
    "import_seconds": "import_seconds",
    "load_seconds": "first_load_seconds",
    "first_token_seconds": "first_token_cold_seconds",
}
WARM = {
    "first_token_seconds": "first_token_warm_seconds",
    "prompt_per_second": "prompt_per_second",
    "generation_per_second": "generation_per_second",
    "vram_mib": "vram_mib",
}
REAL = {
    "load_seconds": "real_load_seconds",
    "first_token_seconds": "real_first_token_seconds",
    "prompt_per_second": "real_prompt_per_second",
    "generation_per_second": "real_generation_per_second",
    "vram_mib": "real_vram_mib",
}


def main(job_path: Path, report: Path) -> None:
    """Measure and write the report file. If that fails, exits with 2 and a message on stderr."""
    job = json.loads(job_path.read_text(encoding="utf-8"))
    sys.path += [job["nvml"]] if job.get("nvml") else []
    run_folder.write(report, report_file.text(Bench(job).measure(), report_file.BENCH))


class Bench:
    """One benchmark: its job, its values so far, and the time that each kind of step took."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = Path(job["folder"])
        self.gpu = job["index"] if job["layers"] else None
        self.large = LARGE_ON_CPU if self.gpu is None else LARGE
        self.wheels: list[Job] = [
            {
                **wheel,
                "values": {},
                "jit_files": 0,
                "cpu_module": None,
                "file": Path(wheel["path"]).name,
            }
            for wheel in job["wheels"]
        ]
        self.conditions: list[Job] = []
        self.last: Job = {}
        self.took: dict[tuple[str, str], float] = {}
        self.started, self.seconds, self.stops = "", 0.0, 0
        self.state = self.folder / run_folder.STATE

    def measure(self) -> Job:
        """Run all steps. Returns the report."""
        done = self.resume()
        steps = self.plan()
        for number, (wheel, kind, round_) in enumerate(steps[done:], done):
            self.progress(number, steps)
            begun = time.monotonic()
            self.step(wheel, kind, round_)
            self.took[wheel["label"], kind] = time.monotonic() - begun
            self.seconds += time.monotonic() - begun
            self.keep(number + 1)
        self.progress(len(steps), steps)
        model = self.job["model"]
        report = {
            **self.job["identity"],
            "python": self.last["python"],
            "system": spawn.system(),
            "started": self.started,
            "seconds": round(self.seconds, 1),
            "stops": self.stops,
            "rounds": self.job["rounds"],
            "threads": self.job["threads"],
            "cpu_threads": self.job["cpu_threads"],
            "runtime": self.job["runtime"],
            "model": model and {name: model[name] for name in ("file", "size", "sha256")},
            "wheels": [{name: wheel[name] for name in SHOWN} for wheel in self.wheels],
            "conditions": self.conditions,
        }
        try:
            bench_metrics.complete(report)
        except (TypeError, ValueError) as error:
            stop(f"This benchmark is not valid: {error}.")
        return report

    def resume(self) -> int:
        """The number of steps that an earlier run of this job has done."""
        if not self.state.exists():
            self.started = spawn.started()
            return 0
        kept = json.loads(self.state.read_text(encoding="utf-8"))
        self.wheels = [{**wheel, "venv": Path(wheel["venv"])} for wheel in kept["wheels"]]
        self.took = {(label, kind): seconds for label, kind, seconds in kept["took"]}
        self.conditions, self.last = kept["conditions"], kept["last"]
        self.started, self.seconds = kept["started"], kept["seconds"]
        self.stops = kept["stops"] + 1
        return int(kept["done"])

    def keep(self, done: int) -> None:
        """Write the state after a number of steps."""
        text = json.dumps(
            {
                "done": done,
                "wheels": [{**w, "venv": str(w.get("venv", ""))} for w in self.wheels],
                "took": [[label, kind, seconds] for (label, kind), seconds in self.took.items()],
                "conditions": self.conditions,
                "last": self.last,
                "started": self.started,
                "seconds": self.seconds,
                "stops": self.stops,
            }
        )
        run_folder.write(self.state, text)

    def plan(self) -> list[tuple[Job, str, int]]:
        """All steps in order. In each round, each wheel is measured once.

        Round 0 is not recorded: it fills the caches of the disk and the driver. Every other round
        is in reverse order, so that a drift of the machine affects all wheels equally.
        """
        used = ["warm", *(["real"] if self.job["model"] else [])]
        large = list(self.large)  # not in round 0: its file was just written, so it is cached
        steps = [
            (w, "install", n) for n in range(min(INSTALLS, self.job["rounds"])) for w in self.wheels
        ]
        steps += [(self.wheels[0], "models", 0)]
        steps += [(wheel, kind, 0) for wheel in self.wheels for kind in used]
        for number in range(1, self.job["rounds"] + 1):
            turns = self.wheels if number % 2 else self.wheels[::-1]
            steps += [(wheel, kind, number) for wheel in turns for kind in ("cold", *used, *large)]
        return steps

    def progress(self, done: int, steps: list[tuple[Job, str, int]]) -> None:
        """Print the progress, with an estimate of the time left from the second step on."""
        kinds = {kind: seconds for (_, kind), seconds in self.took.items()}
        left = sum(
            self.took.get((wheel["label"], kind), kinds.get(kind, USUAL))
            for wheel, kind, _ in steps[done:]
        )
        now = f"{steps[done][1]}, {steps[done][0]['label']}" if done < len(steps) else ""
        spawn.progress(done, len(steps), now, left if done else None)

    def step(self, wheel: Job, kind: str, round_: int) -> None:
        """One measurement of one wheel."""
        if kind == "install":
            self.install(wheel)
        elif kind == "models":
            self.models()
        else:
            large = {name: f"{kind}_{name}" for name in SPEEDS}
            names = {"cold": COLD, "warm": WARM, "real": REAL}.get(kind, large)
            found = self.child(wheel, kind, round_)
            for name, metric in names.items() if round_ else ():
                if self.gpu is not None or name != "vram_mib":
                    add(wheel, metric, found.get(name))

    # ---- installing -----------------------------------------------------------------------------

    def install(self, wheel: Job) -> None:
        """Make a venv and measure the installation of the wheel and its requirements."""
        venv = self.folder / f"venv-{self.wheels.index(wheel)}"
        if venv.exists():
            shutil.rmtree(venv)
        files.run(
            [self.job["python"], "-I", "-m", "venv", str(venv)], "Python could not make a venv"
        )
        if self.job["link"]:
            installing.link(venv, Path(self.job["link"]))
        before = files.size(venv)
        path, packages = Path(wheel["path"]), Path(self.job["packages"])
        linked = self.job["runtime"] != "packages"
        taken = [path, *files.required(path, packages, linked=linked)]
        wheel["brings_runtime"] = any(name.startswith("nvidia-") for name, _ in files.needs(path))
        if self.job["runtime"] == "packages":  # also for a wheel that does not require it
            taken += [f for f in sorted(packages.glob("nvidia_*.whl")) if f not in taken]
        start = time.monotonic()
        files.pip(venv, taken, wheel["label"])
        add(wheel, "install_seconds", time.monotonic() - start)
        wheel["values"]["wheel_bytes"] = [path.stat().st_size]
        wheel["values"]["installed_bytes"] = [files.size(venv) - before]
        wheel["packages"] = sorted(file.name for file in taken)
        wheel["venv"] = venv

    def models(self) -> None:
        """Make the models for all wheels in the first wheel's venv."""
        first = self.wheels[0]
        packages = Path(self.job["packages"])
        for wheel in self.wheels:
            files.pip(wheel["venv"], files.within(packages, EXTRAS), wheel["label"])
        models = [("tiny", TYPE), *(("large", type_) for type_ in self.large.values())]
        for shape, type_ in models:
            path = self.model_path(shape, type_)
            given = {"model": path, "type": type_, "large": shape == "large"}
            self.spawn(first, {"work": "model", **given}, {})

    def model_path(self, shape: str, type_: str) -> str:
        """The path of a model that is made here."""
        return str(self.folder / f"{shape}-{type_}.gguf")

    # ---- running --------------------------------------------------------------------------------

    def child(self, wheel: Job, kind: str, round_: int) -> Job:
        """Measure in a fresh process, and note the state of the GPU meanwhile."""
        name = f"jit-{self.wheels.index(wheel)}"
        cache = self.folder / (f"{name}-cold" if kind == "cold" else name)
        if kind == "cold" and cache.exists():
            shutil.rmtree(cache)
        cache.mkdir(exist_ok=True)
        large = self.large.get(kind)
        on_cpu = large or (kind == "real" and self.gpu is None)
        model = self.model_path("large", large) if large else self.model_path("tiny", TYPE)
        job = {
            "work": "speed",
            "model": self.job["model"]["path"] if kind == "real" else model,
            "layers": HALF if kind == "hybrid" else self.job["layers"],
            "threads": self.job["cpu_threads" if on_cpu else "threads"],
            "speeds": kind != "cold",
            "large": bool(large),
        }
        with gpu_watch.watching(self.gpu) as looks:
            found = self.spawn(wheel, job, {"CUDA_CACHE_PATH": str(cache)})
        if self.gpu is not None:
            on_the_gpu(wheel["label"], found, HALF if kind == "hybrid" else None)
            seen = gpu_watch.summary(looks)
            found["vram_mib"] = seen["vram_mib"]
            self.conditions.append({"wheel": wheel["label"], "kind": kind, "round": round_, **seen})
        if kind == "cold":
            compiled = sum(path.is_file() for path in cache.rglob("*"))
            wheel["jit_files"] = max(wheel["jit_files"], compiled)
        used, wanted = found.get("cpu_module"), wheel.get("cpu")
        if wanted and used != wanted:
            stop(f"{wheel['label']} should use the CPU module {wanted}, and used {used or 'none'}.")
        wheel["version"], wheel["cpu_module"], self.last = found["version"], used, found
        return found

    def spawn(self, wheel: Job, job: Job, environment: dict[str, str]) -> Job:
        """The values that a child in a wheel's venv printed. Exits if it failed."""
        path = self.folder / "child.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        python = installing.python_of(wheel["venv"])
        environment = {
            **spawn.GPU_ORDER,
            "CUDA_VISIBLE_DEVICES": "-1" if self.gpu is None else self.job["visible"],
            "BLACKWHEEL_CPU": wheel.get("cpu") or "",
            **self.loader(wheel),
            **environment,
        }
        lines, error = spawn.spawn(python, path, environment, self.job.get("timeout", TIMEOUT))
        if error:
            stop(f"{wheel['label']} ({wheel['file']}) could not be measured: {error}")
        values: Job = spawn.merged(lines)
        return values

    def loader(self, wheel: Job) -> dict[str, str]:
        """The loader's search path for a wheel that does not require NVIDIA's packages.

        The user of such a wheel would set it. A wheel that requires the packages finds them itself.
        """
        if wheel["brings_runtime"] or self.job["runtime"] == "none":
            return {}
        roots = [Path(place) for place in self.job["runtime_places"]]
        roots.append(installing.site_packages(wheel["venv"]) / "nvidia" / "cu13")
        inside = ("bin/x86_64", "bin/x64", "bin") if sys.platform == "win32" else ("lib", "lib64")
        folders = [str(root / name) for root in roots for name in inside if (root / name).is_dir()]
        if sys.platform == "win32":
            return {"PATH": os.pathsep.join([*folders, *spawn.search_path().values()])}
        return {"LD_LIBRARY_PATH": os.pathsep.join(folders)}


SHOWN = (
    "label", "file", "sha256", "version", "cpu_module", "brings_runtime", "packages", "jit_files",
    "values",
)  # fmt: skip


def on_the_gpu(label: str, found: Job, layers: int | None) -> None:
    """Exit if a child did not have this number of layers on the GPU; None means all layers.

    Its times would be those of a CPU.
    """
    there = found["offloaded"]
    if not found["devices"] or not there or there[0] != (layers or there[1]):
        stop(
            f"{label} does not compute on the GPU: it sees {found['devices'] or 'none'}, and has "
            f"{there or 'no'} layers there."
        )


def add(wheel: Job, metric: str, value: Any) -> None:
    """Add a value. Exits at once if it is not a valid measurement."""
    try:
        wheel["values"].setdefault(metric, []).extend(bench_metrics.checked(metric, [value]))
    except (TypeError, ValueError) as error:
        stop(f"This benchmark is not valid: {wheel['label']}: {metric} is {value}: {error}.")
