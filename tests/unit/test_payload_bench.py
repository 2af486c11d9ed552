"""The program that measures wheels alternately; its processes are replaced, its files are real."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessions.payload import (
    bench,
    bench_files,
    bench_metrics,
    gpu_watch,
    report_file,
    run_folder,
    spawn,
)
from tests import fakes

Found = dict[str, Any]
Output = pytest.CaptureFixture[str]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def write_wheel(path: Path, *requires: str) -> Path:
    """A wheel with METADATA only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, version = path.name.split("-")[:2]
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n\nText\n")
    return path


PACKAGES = ("numpy", "jinja2", "markupsafe", "gguf", "pyyaml", "tqdm")
WHEEL = "llama_cpp_python-0.3.16-py3-none-any.whl"


def entry(path: Path) -> Found:
    """A wheel of a job; its label is its folder."""
    return {"label": path.parent.name, "path": str(path), "sha256": path.parent.name * 64}


@pytest.fixture
def job(tmp_path: Path) -> Found:
    """A job: two wheels, three rounds, no GPU."""
    packages = tmp_path / "packages"
    for name in PACKAGES:
        requires = ["MarkupSafe>=2.0"] if name == "jinja2" else []
        write_wheel(packages / f"{name}-1.0-py3-none-any.whl", *requires)
    wheels = [write_wheel(tmp_path / n / WHEEL, "numpy>=1.20", "Jinja2") for n in ("a", "b")]
    (tmp_path / "run").mkdir()
    return {
        "wheels": [entry(path) for path in wheels],
        "packages": str(packages),
        "python": "/usr/bin/python3.11",
        "folder": str(tmp_path / "run"),
        "layers": 0,
        "index": 0,
        "visible": "0",
        "threads": 1,
        "cpu_threads": 2,
        "rounds": 3,
        "model": None,
        "runtime": "none",
        "link": None,
        "runtime_places": [],
        "identity": {**fakes.smoke_job()["identity"], "device": "cpu"},
    }


class Machine:
    """Replaces venvs, pip and the children, and records their calls."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.children: list[tuple[str, Found, dict[str, str]]] = []
        self.says: Callable[[str, Found], Found] = lambda venv, given: {}  # other values
        self.error: str | None = None
        self.compiles: set[str] = set()
        self.base: Found = {
            "version": "0.3.16",
            "python": "3.11.2",
            "devices": [],
            "offloaded": None,
            "cpu_module": "haswell",
            "import_seconds": 0.5,
            "load_seconds": 0.25,
            "first_token_seconds": 0.01,
            "prompt_per_second": 5000.0,
            "generation_per_second": 400.0,
        }

    def run(self, command: list[str], what: str) -> None:
        self.ran.append(command)
        if command[1:4] == ["-I", "-m", "venv"]:
            inside = "Lib" if sys.platform == "win32" else f"lib/python{HERE}"
            site = Path(command[4]) / inside / "site-packages"
            site.mkdir(parents=True)
        else:
            site = next(Path(command[0]).parents[1].glob("[lL]ib/**/site-packages"))
            for word in command[command.index("--no-deps") + 1 :]:
                (site / Path(word).name).write_bytes(b"x" * 1000)

    def spawn(
        self, python: str, job_path: Path, environment: dict[str, str], timeout: float
    ) -> tuple[list[Found], str | None]:
        given = json.loads(job_path.read_text(encoding="utf-8"))
        venv = Path(python).parents[1].name
        self.children.append((venv, given, environment))
        if given["work"] == "model":
            Path(given["model"]).write_bytes(b"GGUF")
            return [{"sha256": "3" * 64}], None
        if venv in self.compiles:
            (Path(environment["CUDA_CACHE_PATH"]) / "kernel").write_bytes(b"compiled")
        return [{**self.base, **self.says(venv, given)}], self.error


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    fake = Machine()
    monkeypatch.setattr(bench_files, "run", fake.run)
    monkeypatch.setattr(spawn, "spawn", fake.spawn)
    return fake


def measured(job: Found) -> Found:
    report: Found = bench.Bench(job).measure()
    return report


def stopped(work: Callable[[], object], capsys: Output) -> str:
    """What is printed when ``work`` exits with 2."""
    with pytest.raises(SystemExit) as caught:
        work()
    assert caught.value.code == 2
    return capsys.readouterr().err


# ---- the order ----------------------------------------------------------------------------------


def kinds(machine: Machine) -> list[tuple[str, str]]:
    """(venv, kind) of each measurement: "cold", "warm", or the name of the larger model."""
    found = []
    for venv, given, _ in machine.children:
        if given["work"] == "speed":
            kind = "warm" if given["speeds"] else "cold"
            found.append((venv, Path(given["model"]).stem if given["large"] else kind))
    return found


def test_wheels_alternate_and_each_measurement_is_a_process(job: Found, machine: Machine) -> None:
    """Every other round is in reverse order. The first round is not recorded."""
    calls = {"n": 0}

    def says(venv: str, given: Found) -> Found:
        calls["n"] += 1
        return {"first_token_seconds": float(calls["n"])}

    machine.says = says
    report = measured(job)
    a, b = "venv-0", "venv-1"
    one = ["cold", "warm", "large-Q4_K", "large-Q8_0"]
    there = [*((a, kind) for kind in one), *((b, kind) for kind in one)]
    back = [*there[4:], *there[:4]]
    assert kinds(machine) == [(a, "warm"), (b, "warm"), *there, *back, *there]
    values = report["wheels"][0]["values"]
    assert values["first_token_cold_seconds"] == [3.0, 15.0, 19.0]
    assert values["first_token_warm_seconds"] == [4.0, 16.0, 20.0]
    venvs = [Path(c[4]).name for c in machine.ran if c[1:4] == ["-I", "-m", "venv"]]
    assert venvs == [a, b] * 3
    assert all(len(w["values"]["install_seconds"]) == 3 for w in report["wheels"])


def test_three_wheels_alternate(job: Found, machine: Machine, tmp_path: Path) -> None:
    job["wheels"].append(entry(write_wheel(tmp_path / "c" / WHEEL, "numpy")))
    report = measured(job)
    warm = [venv for venv, kind in kinds(machine) if kind == "warm"]
    there = ["venv-0", "venv-1", "venv-2"]
    assert warm == [*there, *there, *there[::-1], *there]
    assert [wheel["label"] for wheel in report["wheels"]] == ["a", "b", "c"]


@pytest.mark.parametrize(("of", "threads"), [("job", 2), ("gpu_job", 1)], ids=["cpu", "gpu"])
def test_a_real_model_is_measured_in_each_round(
    of: str, threads: int, machine: Machine, tmp_path: Path, request: Any
) -> None:
    """On the CPU it is computed by all cores; the tiny model always by one thread."""
    model = tmp_path / "real.gguf"
    model.write_bytes(b"GGUF of size")
    report = measured({**request.getfixturevalue(of), "model": bench_metrics.model(model)})
    digest = hashlib.sha256(b"GGUF of size").hexdigest()
    assert report["model"] == {"file": "real.gguf", "size": 12, "sha256": digest}
    for wheel in report["wheels"]:
        assert len(wheel["values"]["real_prompt_per_second"]) == 3
    run = [given for _, given, _ in machine.children if given["work"] == "speed"]
    used = [(given["model"], given["threads"]) for given in run]
    assert used.count((str(model), threads)) == 8
    assert {count for path, count in used if "tiny" in path} == {1}


# ---- the report ----------------------------------------------------------------------------------


def test_the_report_has_the_wheels_and_the_state_is_kept(
    job: Found, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    bench.main(tmp_path / "job.json", tmp_path / "report.json")
    report = report_file.read(
        (tmp_path / "report.json").read_text(encoding="utf-8"), report_file.BENCH
    )
    assert (report["device"], report["rounds"], report["python"]) == ("cpu", 3, "3.11.2")
    first = report["wheels"][0]
    assert (first["label"], first["file"], first["version"]) == ("a", WHEEL, "0.3.16")
    assert first["values"]["wheel_bytes"] == [Path(job["wheels"][0]["path"]).stat().st_size]
    assert first["values"]["installed_bytes"] == [4000]  # numpy, jinja2, markupsafe and the wheel
    assert first["packages"] == sorted(
        [WHEEL, *(f"{n}-1.0-py3-none-any.whl" for n in ("numpy", "jinja2", "markupsafe"))]
    )
    assert (tmp_path / "run" / run_folder.STATE).exists()
    assert [p.name for p in tmp_path.glob("report*")] == ["report.json"]


def test_a_child_that_fails_ends_the_benchmark(
    job: Found, machine: Machine, capsys: Output
) -> None:
    machine.error = "ended by -4: Illegal instruction"
    printed = stopped(lambda: measured(job), capsys)
    assert printed.startswith(f"a ({WHEEL}) could not be measured: ended by -4: Illegal")


def test_a_stopped_benchmark_is_continued(job: Found, machine: Machine, capsys: Output) -> None:
    whole = bench.Bench(job).plan()
    good: Any = machine.spawn
    spawn.spawn = lambda *given: ([], "killed") if len(machine.children) == 9 else good(*given)
    stopped(lambda: measured(job), capsys)
    ran, children = len(machine.ran), len(machine.children)
    assert children == 9
    spawn.spawn = good
    report = measured(job)
    assert len(machine.ran) == ran  # nothing was installed again
    # One step makes three models, each in its own process.
    assert len(machine.children) == len([kind for _, kind, _ in whole if kind != "install"]) + 2
    assert report["stops"] == 1
    for wheel in report["wheels"]:
        assert len(wheel["values"]["generation_per_second"]) == 3
        assert len(wheel["values"]["install_seconds"]) == 3
    # If the report was not written, it can be made again without a measurement.
    again = measured(job)
    assert (len(machine.ran), again["wheels"]) == (ran, report["wheels"])


@pytest.mark.parametrize("value", [None, 0.0, float("nan")])
def test_an_invalid_value_ends_the_benchmark_and_earlier_values_are_kept(
    value: float | None, job: Found, machine: Machine, capsys: Output
) -> None:
    machine.says = lambda venv, given: (
        {"prompt_per_second": value} if venv == "venv-1" and len(machine.children) == 11 else {}
    )
    printed = stopped(lambda: measured(job), capsys)
    assert f"This benchmark is not valid: b: prompt_per_second is {value}" in printed
    assert len(machine.children) == 11
    machine.says = lambda venv, given: {}
    report = measured(job)
    assert report["stops"] == 1
    for wheel in report["wheels"]:
        assert wheel["values"]["prompt_per_second"] == [5000.0] * 3


def test_progress_has_an_estimate(job: Found, machine: Machine, capsys: Output) -> None:
    measured(job)
    lines = list(spawn.lines(capsys.readouterr().out))
    assert [line["done"] for line in lines] == list(range(lines[-1]["total"] + 1))
    assert lines[0]["now"] == "install, a"
    assert [line["left"] is None for line in lines] == [True, *[False] * (len(lines) - 1)]
    assert lines[1]["left"] > bench.USUAL  # a guess for kinds of steps that were not done yet
    assert lines[-1] == {"done": 33, "total": 33, "now": "", "left": 0}


# ---- a GPU -------------------------------------------------------------------------------------


def on_gpu(venv: str, given: Found) -> Found:
    """All requested layers are on the GPU."""
    return {"offloaded": [2, 5] if given["large"] else [3, 3]}


@pytest.fixture
def gpu_job(job: Found, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Found:
    """The job on a GPU."""
    look = {"sm_mhz": 1980, "memory_mhz": 3201, "celsius": 41, "watts": 99.0, "reasons": 0}

    @contextlib.contextmanager
    def watching(index: int | None) -> Iterator[list[Found]]:
        assert index == 2
        yield [{**look, "used_mib": 500.0}, {**look, "used_mib": 1120.0}]

    monkeypatch.setattr(gpu_watch, "watching", watching)
    machine.base |= {"devices": [["NVIDIA H200", "9.0"]]}
    machine.says = on_gpu
    identity = {**job["identity"], "device": "NVIDIA H200"}
    return {**job, "layers": 999, "index": 2, "visible": "GPU-2", "identity": identity}


def test_the_memory_and_clocks_of_the_gpu_are_recorded(gpu_job: Found, machine: Machine) -> None:
    report = measured(gpu_job)
    assert report["wheels"][0]["values"]["vram_mib"] == [620.0] * 3
    assert len(report["conditions"]) == 2 + 3 * 6
    assert report["conditions"][-1] == {
        "wheel": "b",
        "kind": "hybrid",
        "round": 3,
        "sm_mhz": 1980,
        "sm_mhz_highest": 1980,
        "memory_mhz_highest": 3201,
        "celsius": 41,
        "watts": 99.0,
        "slowed": [],
        "before_mib": 500.0,
        "vram_mib": 620.0,
        "looks": 2,
    }
    for _, _, environment in machine.children:
        assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-2"
        assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # the order of NVML
        assert "CUDA_DISABLE_PTX_JIT" not in environment


def test_on_the_cpu_no_gpu_is_visible(job: Found, machine: Machine) -> None:
    report = measured(job)
    assert {env["CUDA_VISIBLE_DEVICES"] for _, _, env in machine.children} == {"-1"}
    assert report["conditions"] == []
    assert "vram_mib" not in report["wheels"][0]["values"]


def test_only_cold_measurements_begin_with_an_empty_compile_cache(
    gpu_job: Found, machine: Machine
) -> None:
    machine.compiles = {"venv-1"}
    left: list[tuple[str, bool, bool]] = []

    def says(venv: str, given: Found) -> Found:
        cache = Path(machine.children[-1][2]["CUDA_CACHE_PATH"])
        left.append((venv, given["speeds"], len(list(cache.iterdir())) > 1))
        (cache / f"{len(left)}").write_bytes(b"")
        return on_gpu(venv, given)

    machine.says = says
    report = measured(gpu_job)
    cold = [filled for _, speeds, filled in left if not speeds]
    warm = [filled for venv, speeds, filled in left if speeds and venv == "venv-1"]
    assert cold == [False] * 6
    assert warm == [False, *[True] * 6]
    assert [wheel["jit_files"] for wheel in report["wheels"]] == [1, 2]


@pytest.mark.parametrize(
    "changes", [{"offloaded": [0, 3]}, {"offloaded": None}, {"devices": []}], ids=str
)
def test_a_wheel_that_does_not_use_the_gpu_ends_the_benchmark(
    changes: Found, gpu_job: Found, machine: Machine, capsys: Output
) -> None:
    machine.says = lambda venv, given: {
        **on_gpu(venv, given),
        **(changes if venv == "venv-1" else {}),
    }
    assert "b does not compute on the GPU" in stopped(lambda: measured(gpu_job), capsys)


@pytest.mark.parametrize("layers", [[5, 5], [0, 5], [3, 5]], ids=str)
def test_a_hybrid_needs_the_requested_layers_on_the_gpu(
    layers: list[int], gpu_job: Found, machine: Machine, capsys: Output
) -> None:
    machine.says = lambda venv, given: (
        {"offloaded": layers} if given["large"] else on_gpu(venv, given)
    )
    assert f"has {layers} layers there" in stopped(lambda: measured(gpu_job), capsys)


# ---- the CPU ------------------------------------------------------------------------------------


def large(machine: Machine) -> list[Found]:
    """The jobs of the children that measured the larger model."""
    return [given for _, given, _ in machine.children if given.get("large") and "layers" in given]


def test_on_the_cpu_a_larger_model_is_measured_with_all_cores(job: Found, machine: Machine) -> None:
    machine.says = lambda venv, given: {
        "prompt_per_second": 800.0 if "Q8_0" in given["model"] else 500.0
    }
    report = measured(job)
    made = [(g["type"], g["large"]) for _, g, _ in machine.children if g["work"] == "model"]
    assert made == [("Q4_K", False), ("Q4_K", True), ("Q8_0", True)]
    assert {(given["layers"], given["threads"]) for given in large(machine)} == {(0, 2)}
    values = report["wheels"][0]["values"]
    assert values["cpu_q4_k_prompt_per_second"] == [500.0] * 3
    assert values["cpu_q8_0_prompt_per_second"] == [800.0] * 3
    assert not any(name.startswith("hybrid") for name in values)
    assert report["cpu_threads"] == 2


def test_on_a_gpu_half_of_the_larger_model_is_computed_by_the_cpu(
    gpu_job: Found, machine: Machine
) -> None:
    report = measured(gpu_job)
    assert {(given["layers"], given["threads"]) for given in large(machine)} == {(2, 2)}
    rest = [g for _, g, _ in machine.children if g["work"] == "speed" and not g["large"]]
    assert {(given["layers"], given["threads"]) for given in rest} == {(999, 1)}
    values = report["wheels"][0]["values"]
    assert values["hybrid_generation_per_second"] == [400.0] * 3
    assert not any(name.startswith("cpu") for name in values)


def test_the_requested_cpu_module_is_used_and_recorded(job: Found, machine: Machine) -> None:
    job["wheels"][1]["cpu"] = "x64"
    machine.says = lambda venv, given: {"cpu_module": "x64" if venv == "venv-1" else "haswell"}
    report = measured(job)
    assert {(venv, env["BLACKWHEEL_CPU"]) for venv, _, env in machine.children} == {
        ("venv-0", ""),
        ("venv-1", "x64"),
    }
    assert [wheel["cpu_module"] for wheel in report["wheels"]] == ["haswell", "x64"]


def test_another_cpu_module_ends_the_benchmark(
    job: Found, machine: Machine, capsys: Output
) -> None:
    job["wheels"][0]["cpu"] = "x64"
    printed = stopped(lambda: measured(job), capsys)
    assert "a should use the CPU module x64, and used haswell" in printed


def test_a_gpu_without_memory_figures_ends_the_benchmark(
    gpu_job: Found, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    nothing: dict[str, Any] = {"vram_mib": None, "slowed": []}
    monkeypatch.setattr(gpu_watch, "summary", lambda looks: nothing)
    assert "This benchmark is not valid" in stopped(lambda: measured(gpu_job), capsys)


# ---- NVIDIA's runtime ---------------------------------------------------------------------------


@pytest.fixture
def runtime(gpu_job: Found, tmp_path: Path) -> Found:
    """CUDA wheels; only the first requires NVIDIA's packages."""
    packages = Path(gpu_job["packages"])
    for name in ("nvidia_cuda_runtime", "nvidia_cublas"):
        write_wheel(packages / f"{name}-13.1-py3-none-any.whl")
    first = Path(gpu_job["wheels"][0]["path"])
    write_wheel(first, "numpy", "nvidia-cuda-runtime<14,>=13.1.80", "nvidia_cublas>=13")
    return {**gpu_job, "runtime": "packages"}


def test_every_wheel_gets_the_cuda_runtime(runtime: Found, machine: Machine) -> None:
    report = measured(runtime)
    assert [wheel["brings_runtime"] for wheel in report["wheels"]] == [True, False]
    for wheel in report["wheels"]:
        assert {"nvidia_cuda_runtime-13.1-py3-none-any.whl"} <= set(wheel["packages"])
        assert len(set(wheel["packages"])) == len(wheel["packages"])


def test_only_a_wheel_without_the_requirement_gets_a_search_path(runtime: Found) -> None:
    name = "PATH" if sys.platform == "win32" else "LD_LIBRARY_PATH"
    inside = "bin" if sys.platform == "win32" else "lib"
    instance = bench.Bench(runtime)
    site = Path(runtime["folder"]) / "venv-1" / "lib" / "python3.11" / "site-packages"
    (site / "nvidia" / "cu13" / inside).mkdir(parents=True)
    wheels = [
        {"venv": Path(runtime["folder"]) / "venv-0", "brings_runtime": True},
        {"venv": Path(runtime["folder"]) / "venv-1", "brings_runtime": False},
    ]
    assert instance.loader(wheels[0]) == {}
    assert str(site / "nvidia" / "cu13" / inside) in instance.loader(wheels[1])[name]


def test_offline_each_venv_is_linked_to_the_cuda_runtime(
    gpu_job: Found, machine: Machine, tmp_path: Path
) -> None:
    source = tmp_path / "python" / "nvidia" / "cu13"
    (source / "lib").mkdir(parents=True)
    (source / "lib" / "libcudart.so.13").write_bytes(b"x" * 10_000_000)
    first = Path(gpu_job["wheels"][0]["path"])
    write_wheel(first, "numpy", "nvidia-cuda-runtime<14,>=13.1.80")
    places = [str(source)]
    named = {"runtime": "linked", "link": str(source), "runtime_places": places}
    report = measured({**gpu_job, **named})
    for venv in ("venv-0", "venv-1"):
        (there,) = (Path(gpu_job["folder"]) / venv).glob("**/site-packages/nvidia/cu13")
        assert (there / "lib" / "libcudart.so.13").exists()
    assert report["wheels"][0]["values"]["installed_bytes"] == [2000]  # without the linked files
    assert report["runtime"] == "linked"


# ---- requirements --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requires", "linked", "expected"),
    [
        (["numpy>=1.20", "Jinja2"], False, ["jinja2", "markupsafe", "numpy"]),
        (["pytest; extra == 'dev'", "tomli; python_version < '3.11'", "tqdm"], False, ["tqdm"]),
        (["nvidia-cublas>=13"], True, []),
    ],
    ids=["indirect", "markers", "linked"],
)
def test_the_files_of_a_wheels_requirements(
    requires: list[str], linked: bool, expected: list[str], job: Found, tmp_path: Path
) -> None:
    wheel = write_wheel(tmp_path / "x" / WHEEL, *requires)
    found = bench_files.required(wheel, Path(job["packages"]), linked=linked)
    assert sorted(path.name.split("-")[0] for path in found) == expected


def test_a_missing_requirement_ends_the_benchmark(
    job: Found, machine: Machine, tmp_path: Path, capsys: Output
) -> None:
    wheel, packages = write_wheel(tmp_path / "x" / WHEEL, "nvidia-cublas>=13"), job["packages"]
    printed = stopped(lambda: bench_files.required(wheel, Path(packages), linked=False), capsys)
    assert f"requires nvidia-cublas, which is not in {packages}" in printed
    (Path(packages) / "gguf-1.0-py3-none-any.whl").unlink()
    assert "gguf is not in" in stopped(lambda: measured(job), capsys)


@pytest.mark.parametrize("name", ["numpy", "gguf"])
def test_two_versions_of_a_package_end_the_benchmark(
    name: str, job: Found, machine: Machine, capsys: Output
) -> None:
    write_wheel(Path(job["packages"]) / f"{name}-2.0-py3-none-any.whl")
    printed = stopped(lambda: measured(job), capsys)
    assert f"contains {name}-1.0-py3-none-any.whl and {name}-2.0-py3-none-any.whl" in printed


def test_pip_uses_only_the_files(job: Found, machine: Machine) -> None:
    measured(job)
    for command in (c for c in machine.ran if "pip" in c):
        assert {"--isolated", "--no-index", "--no-deps", "-I"} <= set(command)


def test_a_program_that_fails_ends_the_benchmark(capsys: Output) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('it broke')"]
    printed = stopped(lambda: bench_files.run(words, "pip could not"), capsys)
    assert "pip could not: it broke" in printed


def test_a_program_gets_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(command: list[str], **words: Any) -> subprocess.CompletedProcess[str]:
        given.update(words)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    bench_files.run(["python"], "it could not")
    assert given["stdin"] == subprocess.DEVNULL


def test_the_size_of_a_folder_does_not_include_links(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 5)
    if sys.platform != "win32":
        (tmp_path / "deep" / "c").symlink_to(tmp_path / "b")
    assert bench_files.size(tmp_path) == 15
