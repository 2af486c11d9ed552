"""The program that measures wheels in turn; its processes are played, its files are real."""

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

from sessions.payload import bench, bench_files, gpu_watch, report_file, run_folder, spawn, stats
from tests import fakes

Found = dict[str, Any]
Told = pytest.CaptureFixture[str]
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


@pytest.fixture
def told(tmp_path: Path) -> Found:
    """A job: two wheels, three rounds, no GPU."""
    packages = tmp_path / "packages"
    for name in PACKAGES:
        requires = ["MarkupSafe>=2.0"] if name == "jinja2" else []
        write_wheel(packages / f"{name}-1.0-py3-none-any.whl", *requires)
    wheels = [write_wheel(tmp_path / n / WHEEL, "numpy>=1.20", "Jinja2") for n in ("a", "b")]
    (tmp_path / "run").mkdir()
    return {
        "wheels": [
            {"label": path.parent.name, "path": str(path), "sha256": path.parent.name * 64}
            for path in wheels
        ],
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
    """Plays venvs, pip and the children; notes what each was given, in order."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.children: list[tuple[str, Found, dict[str, str]]] = []
        self.says: Callable[[str, Found], Found] = lambda python, told: {}
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
        self, python: str, told: Path, environment: dict[str, str], timeout: float
    ) -> tuple[list[Found], str | None]:
        given = json.loads(told.read_text(encoding="utf-8"))
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
    played = Machine()
    monkeypatch.setattr(bench_files, "run", played.run)
    monkeypatch.setattr(spawn, "spawn", played.spawn)
    return played


def measured(told: Found) -> Found:
    report: Found = bench.Bench(told).measure()
    return report


def stopped(work: Callable[[], object], capsys: Told) -> str:
    with pytest.raises(SystemExit) as caught:
        work()
    assert caught.value.code == 2
    return capsys.readouterr().err


# ---- the order ----------------------------------------------------------------------------------


def kinds(machine: Machine) -> list[tuple[str, str]]:
    """(venv, kind) of each child that measured: "cold", "warm", or the larger model's type."""
    found = []
    for venv, given, _ in machine.children:
        if given["work"] == "speed":
            kind = "warm" if given["speeds"] else "cold"
            found.append((venv, Path(given["model"]).stem if given["large"] else kind))
    return found


def test_wheels_take_turns_and_each_measurement_is_a_process_of_its_own(
    told: Found, machine: Machine
) -> None:
    measured(told)
    a, b = "venv-0", "venv-1"
    one = ["cold", "warm", "large-Q4_K", "large-Q8_0"]
    there = [*((a, kind) for kind in one), *((b, kind) for kind in one)]
    back = [*there[4:], *there[:4]]
    assert kinds(machine) == [(a, "warm"), (b, "warm"), *there, *back, *there]


def test_with_three_wheels_each_round_has_each_once(
    told: Found, machine: Machine, tmp_path: Path
) -> None:
    path = write_wheel(tmp_path / "c" / WHEEL, "numpy")
    told["wheels"].append({"label": "c", "path": str(path), "sha256": "c" * 64})
    report = measured(told)
    warm = [venv for venv, kind in kinds(machine) if kind == "warm"]
    there, back = ["venv-0", "venv-1", "venv-2"], ["venv-2", "venv-1", "venv-0"]
    assert warm == [*there, *there, *back, *there]
    assert [wheel["label"] for wheel in report["wheels"]] == ["a", "b", "c"]


def test_installing_takes_turns_too_each_time_in_a_fresh_venv(
    told: Found, machine: Machine
) -> None:
    report = measured(told)
    made = [Path(c[4]).name for c in machine.ran if c[1:4] == ["-I", "-m", "venv"]]
    assert made == ["venv-0", "venv-1"] * 3
    assert all(len(w["values"]["install_seconds"]) == 3 for w in report["wheels"])


def test_the_first_round_counts_for_nothing(told: Found, machine: Machine) -> None:
    calls = {"n": 0}

    def says(venv: str, given: Found) -> Found:
        calls["n"] += 1
        return {"first_token_seconds": float(calls["n"])}

    machine.says = says
    report = measured(told)
    values = report["wheels"][0]["values"]
    assert values["first_token_cold_seconds"] == [3.0, 15.0, 19.0]
    assert values["first_token_warm_seconds"] == [4.0, 16.0, 20.0]


def test_a_real_model_is_measured_in_each_round_as_well(
    told: Found, machine: Machine, tmp_path: Path
) -> None:
    model = tmp_path / "real.gguf"
    model.write_bytes(b"GGUF of size")
    report = measured({**told, "model": stats.model(model)})
    digest = hashlib.sha256(b"GGUF of size").hexdigest()
    assert report["model"] == {"file": "real.gguf", "size": 12, "sha256": digest}
    for wheel in report["wheels"]:
        assert len(wheel["values"]["real_prompt_per_second"]) == 3
    used = [given["model"] for _, given, _ in machine.children if given.get("speeds")]
    assert used.count(str(model)) == 8


# ---- the report ---------------------------------------------------------------------------------


def test_a_report_is_sealed_and_says_what_it_is_of(
    told: Found, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(told), encoding="utf-8")
    bench.main(tmp_path / "job.json", tmp_path / "report.json")
    report = report_file.read(
        (tmp_path / "report.json").read_text(encoding="utf-8"), report_file.BENCH
    )
    assert (report["device"], report["rounds"], report["python"]) == ("cpu", 3, "3.11.2")
    first = report["wheels"][0]
    assert (first["label"], first["file"], first["version"]) == ("a", WHEEL, "0.3.16")
    assert first["values"]["wheel_bytes"] == [Path(told["wheels"][0]["path"]).stat().st_size]
    assert first["values"]["installed_bytes"] == [4000]  # numpy, jinja2, markupsafe and itself
    assert first["packages"] == sorted(
        [WHEEL, *(f"{n}-1.0-py3-none-any.whl" for n in ("numpy", "jinja2", "markupsafe"))]
    )


def test_a_child_that_fails_ends_it_and_is_named(
    told: Found, machine: Machine, capsys: Told
) -> None:
    machine.error = "ended by -4: Illegal instruction"
    said = stopped(lambda: measured(told), capsys)
    assert said.startswith(f"a ({WHEEL}) could not be measured: ended by -4: Illegal instruction")


def test_what_was_measured_before_it_was_stopped_is_not_measured_again(
    told: Found, machine: Machine, capsys: Told
) -> None:
    whole = bench.Bench(told).plan()
    good: Any = machine.spawn
    spawn.spawn = lambda *given: ([], "killed") if len(machine.children) == 9 else good(*given)
    stopped(lambda: measured(told), capsys)
    ran, children = len(machine.ran), len(machine.children)
    assert children == 9
    spawn.spawn = good
    report = measured(told)
    assert len(machine.ran) == ran  # nothing was installed again
    # One step makes three models, each in a process of its own.
    assert len(machine.children) == len([kind for _, kind, _ in whole if kind != "install"]) + 2
    assert report["stops"] == 1
    for wheel in report["wheels"]:
        assert len(wheel["values"]["generation_per_second"]) == 3
        assert len(wheel["values"]["install_seconds"]) == 3
    # A report that was not written can be made again without measuring anything.
    again = measured(told)
    assert (len(machine.ran), again["wheels"]) == (ran, report["wheels"])


@pytest.mark.parametrize("value", [None, 0.0, float("nan")])
def test_a_value_that_is_none_ends_it_at_once_and_what_was_measured_before_stays(
    value: float | None, told: Found, machine: Machine, capsys: Told
) -> None:
    machine.says = lambda venv, given: (
        {"prompt_per_second": value} if venv == "venv-1" and len(machine.children) == 11 else {}
    )
    said = stopped(lambda: measured(told), capsys)
    assert f"This benchmark is not valid: b: prompt_per_second is {value}" in said
    assert len(machine.children) == 11
    machine.says = lambda venv, given: {}
    report = measured(told)
    assert report["stops"] == 1
    for wheel in report["wheels"]:
        assert wheel["values"]["prompt_per_second"] == [5000.0] * 3


def test_a_report_is_written_whole_and_the_measurements_outlive_it(
    told: Found, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(told), encoding="utf-8")
    bench.main(tmp_path / "job.json", tmp_path / "report.json")
    assert (tmp_path / "run" / run_folder.STATE).exists()
    assert [p.name for p in tmp_path.glob("report*")] == ["report.json"]


def test_progress_is_told_with_an_estimate(told: Found, machine: Machine, capsys: Told) -> None:
    measured(told)
    lines = [json.loads(x[1:]) for x in capsys.readouterr().out.splitlines() if x[:2] == "@{"]
    assert [line["done"] for line in lines] == list(range(lines[-1]["total"] + 1))
    assert lines[0]["now"] == "install, a"
    assert lines[0]["left"] is None
    assert all(line["left"] is not None for line in lines[1:])
    assert lines[1]["left"] > bench.USUAL  # what was never done has a guess
    assert lines[-1] == {"done": 33, "total": 33, "now": "", "left": 0}


# ---- a GPU -------------------------------------------------------------------------------------


def on_gpu(venv: str, given: Found) -> Found:
    """Every layer is on the GPU that is to be there."""
    return {"offloaded": [2, 5] if given["large"] else [3, 3]}


@pytest.fixture
def carded(told: Found, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Found:
    """The job on a GPU, which every layer is on."""
    look = {"sm_mhz": 1980, "memory_mhz": 3201, "celsius": 41, "watts": 99.0, "reasons": 0}

    @contextlib.contextmanager
    def watching(index: int | None) -> Iterator[list[Found]]:
        assert index == 2
        yield [{**look, "used_mib": 500.0}, {**look, "used_mib": 1120.0}]

    monkeypatch.setattr(gpu_watch, "watching", watching)
    machine.base |= {"devices": [["NVIDIA H200", "9.0"]]}
    machine.says = on_gpu
    identity = {**told["identity"], "device": "NVIDIA H200"}
    return {**told, "layers": 999, "index": 2, "visible": "GPU-2", "identity": identity}


def test_on_a_gpu_its_memory_and_clocks_are_noted(carded: Found, machine: Machine) -> None:
    report = measured(carded)
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
        assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # as NVML counts them
        assert "CUDA_DISABLE_PTX_JIT" not in environment


def test_without_a_gpu_none_is_seen(told: Found, machine: Machine) -> None:
    report = measured(told)
    assert {env["CUDA_VISIBLE_DEVICES"] for _, _, env in machine.children} == {"-1"}
    assert report["conditions"] == []
    assert "vram_mib" not in report["wheels"][0]["values"]


def test_cold_is_an_empty_compile_cache_and_warm_one_that_was_filled(
    carded: Found, machine: Machine
) -> None:
    machine.compiles = {"venv-1"}
    left: list[tuple[str, bool, bool]] = []

    def says(venv: str, given: Found) -> Found:
        cache = Path(machine.children[-1][2]["CUDA_CACHE_PATH"])
        left.append((venv, given["speeds"], len(list(cache.iterdir())) > 1))
        (cache / f"{len(left)}").write_bytes(b"")
        return on_gpu(venv, given)

    machine.says = says
    report = measured(carded)
    cold = [filled for _, speeds, filled in left if not speeds]
    warm = [filled for venv, speeds, filled in left if speeds and venv == "venv-1"]
    assert cold == [False] * 6
    assert warm == [False, *[True] * 6]
    assert [wheel["jit_files"] for wheel in report["wheels"]] == [1, 2]


@pytest.mark.parametrize(
    "changes",
    [{"offloaded": [0, 3]}, {"offloaded": None}, {"devices": []}],
    ids=["no-layer", "nothing-said", "no-device"],
)
def test_a_wheel_that_computes_beside_the_gpu_is_not_compared(
    changes: Found, carded: Found, machine: Machine, capsys: Told
) -> None:
    machine.says = lambda venv, given: {
        **on_gpu(venv, given),
        **(changes if venv == "venv-1" else {}),
    }
    said = stopped(lambda: measured(carded), capsys)
    assert "b does not compute on the GPU" in said


@pytest.mark.parametrize("layers", [[5, 5], [0, 5], [3, 5]], ids=str)
def test_a_hybrid_with_other_layers_on_the_gpu_ends_it(
    layers: list[int], carded: Found, machine: Machine, capsys: Told
) -> None:
    machine.says = lambda venv, given: (
        {"offloaded": layers} if given["large"] else on_gpu(venv, given)
    )
    said = stopped(lambda: measured(carded), capsys)
    assert f"has {layers} layers there" in said


# ---- the CPU ------------------------------------------------------------------------------------


def large(machine: Machine) -> list[Found]:
    """What each child that measured the larger model was told."""
    return [given for _, given, _ in machine.children if given.get("large") and "layers" in given]


def test_on_the_cpu_a_larger_model_is_measured_in_two_types_by_all_its_cores(
    told: Found, machine: Machine
) -> None:
    machine.says = lambda venv, given: {
        "prompt_per_second": 800.0 if "Q8_0" in given["model"] else 500.0
    }
    report = measured(told)
    made = [(g["type"], g["large"]) for _, g, _ in machine.children if g["work"] == "model"]
    assert made == [("Q4_K", False), ("Q4_K", True), ("Q8_0", True)]
    assert {(given["layers"], given["threads"]) for given in large(machine)} == {(0, 2)}
    values = report["wheels"][0]["values"]
    assert values["cpu_q4_k_prompt_per_second"] == [500.0] * 3
    assert values["cpu_q8_0_prompt_per_second"] == [800.0] * 3
    assert not any(name.startswith("hybrid") for name in values)
    assert report["cpu_threads"] == 2


@pytest.mark.parametrize(("of", "threads"), [("told", 2), ("carded", 1)], ids=["cpu", "gpu"])
def test_a_real_model_on_the_cpu_has_all_cores_and_the_tiny_one_has_one_thread(
    of: str, threads: int, machine: Machine, tmp_path: Path, request: Any
) -> None:
    model = tmp_path / "real.gguf"
    model.write_bytes(b"GGUF")
    measured({**request.getfixturevalue(of), "model": stats.model(model)})
    run = [given for _, given, _ in machine.children if "layers" in given]
    used = [(given["model"], given["threads"]) for given in run]
    assert {count for path, count in used if path == str(model)} == {threads}
    assert {count for path, count in used if "tiny" in path} == {1}


def test_on_a_gpu_half_of_the_larger_model_is_there_and_half_on_the_cpu(
    carded: Found, machine: Machine
) -> None:
    report = measured(carded)
    assert {(given["layers"], given["threads"]) for given in large(machine)} == {(2, 2)}
    rest = [g for _, g, _ in machine.children if g["work"] == "speed" and not g["large"]]
    assert {(given["layers"], given["threads"]) for given in rest} == {(999, 1)}
    values = report["wheels"][0]["values"]
    assert values["hybrid_generation_per_second"] == [400.0] * 3
    assert not any(name.startswith("cpu") for name in values)


def test_a_module_is_asked_for_by_name_and_the_report_says_which_was_used(
    told: Found, machine: Machine
) -> None:
    told["wheels"][1]["cpu"] = "x64"
    machine.says = lambda venv, given: {"cpu_module": "x64" if venv == "venv-1" else "haswell"}
    report = measured(told)
    assert {(venv, env["BLACKWHEEL_CPU"]) for venv, _, env in machine.children} == {
        ("venv-0", ""),
        ("venv-1", "x64"),
    }
    assert [wheel["cpu_module"] for wheel in report["wheels"]] == ["haswell", "x64"]


def test_another_module_than_the_one_that_was_asked_for_ends_it(
    told: Found, machine: Machine, capsys: Told
) -> None:
    told["wheels"][0]["cpu"] = "x64"
    said = stopped(lambda: measured(told), capsys)
    assert "a should use the CPU module x64, and used haswell" in said


def test_a_gpu_that_will_not_tell_its_memory_ends_it(
    carded: Found, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    nothing: dict[str, Any] = {"vram_mib": None, "slowed": []}
    monkeypatch.setattr(gpu_watch, "summary", lambda looks: nothing)
    assert "This benchmark is not valid" in stopped(lambda: measured(carded), capsys)


# ---- NVIDIA's runtime ---------------------------------------------------------------------------


@pytest.fixture
def runtime(carded: Found, tmp_path: Path) -> Found:
    """Wheels of CUDA, of which the first requires NVIDIA's packages and the other does not."""
    packages = Path(carded["packages"])
    for name in ("nvidia_cuda_runtime", "nvidia_cublas"):
        write_wheel(packages / f"{name}-13.1-py3-none-any.whl")
    first = Path(carded["wheels"][0]["path"])
    write_wheel(first, "numpy", "nvidia-cuda-runtime<14,>=13.1.80", "nvidia_cublas>=13")
    return {**carded, "runtime": "packages"}


def test_a_wheel_that_names_no_runtime_gets_it_all_the_same(
    runtime: Found, machine: Machine
) -> None:
    report = measured(runtime)
    assert [wheel["brings_runtime"] for wheel in report["wheels"]] == [True, False]
    for wheel in report["wheels"]:
        assert {"nvidia_cuda_runtime-13.1-py3-none-any.whl"} <= set(wheel["packages"])
        assert len(set(wheel["packages"])) == len(wheel["packages"])


def test_it_alone_is_shown_the_way_to_it(runtime: Found) -> None:
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


def test_offline_each_venv_is_linked_to_the_runtime_that_is_there(
    carded: Found, machine: Machine, tmp_path: Path
) -> None:
    source = tmp_path / "python" / "nvidia" / "cu13"
    (source / "lib").mkdir(parents=True)
    (source / "lib" / "libcudart.so.13").write_bytes(b"x" * 10_000_000)
    first = Path(carded["wheels"][0]["path"])
    write_wheel(first, "numpy", "nvidia-cuda-runtime<14,>=13.1.80")
    places = [str(source)]
    named = {"runtime": "linked", "link": str(source), "runtime_places": places}
    report = measured({**carded, **named})
    for venv in ("venv-0", "venv-1"):
        (there,) = (Path(carded["folder"]) / venv).glob("**/site-packages/nvidia/cu13")
        assert (there / "lib" / "libcudart.so.13").exists()
    assert report["wheels"][0]["values"]["installed_bytes"] == [2000]  # it was there already
    assert report["runtime"] == "linked"


# ---- what a wheel requires ----------------------------------------------------------------------


def test_what_a_wheel_requires_is_taken_with_what_that_requires(told: Found) -> None:
    wheel, packages = Path(told["wheels"][0]["path"]), Path(told["packages"])
    found = bench_files.required(wheel, packages, linked=False)
    assert sorted(path.name.split("-")[0] for path in found) == ["jinja2", "markupsafe", "numpy"]


def test_extras_are_left_out_and_what_is_not_for_every_python_may_be_missing(
    told: Found, tmp_path: Path
) -> None:
    wheel = write_wheel(
        tmp_path / "x" / WHEEL, "pytest; extra == 'dev'", "tomli; python_version < '3.11'", "tqdm"
    )
    (found,) = bench_files.required(wheel, Path(told["packages"]), linked=False)
    assert found.name.startswith("tqdm-")


def test_a_requirement_that_is_not_there_ends_it(told: Found, tmp_path: Path, capsys: Told) -> None:
    wheel = write_wheel(tmp_path / "x" / WHEEL, "nvidia-cublas>=13")
    packages = Path(told["packages"])
    assert bench_files.required(wheel, packages, linked=True) == []
    said = stopped(lambda: bench_files.required(wheel, packages, linked=False), capsys)
    assert f"requires nvidia-cublas, which is not in {packages}" in said


@pytest.mark.parametrize("name", ["numpy", "gguf"])
def test_of_two_versions_none_is_taken(
    name: str, told: Found, machine: Machine, capsys: Told
) -> None:
    write_wheel(Path(told["packages"]) / f"{name}-2.0-py3-none-any.whl")
    said = stopped(lambda: measured(told), capsys)
    assert f"contains {name}-1.0-py3-none-any.whl and {name}-2.0-py3-none-any.whl" in said


def test_without_what_makes_the_model_it_ends(told: Found, machine: Machine, capsys: Told) -> None:
    (Path(told["packages"]) / "gguf-1.0-py3-none-any.whl").unlink()
    assert "gguf is not in" in stopped(lambda: measured(told), capsys)


def test_pip_takes_the_files_and_no_settings(told: Found, machine: Machine) -> None:
    measured(told)
    for command in (c for c in machine.ran if "pip" in c):
        assert {"--isolated", "--no-index", "--no-deps", "-I"} <= set(command)


def test_a_program_that_fails_ends_it_with_what_it_said(capsys: Told) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('it broke')"]
    said = stopped(lambda: bench_files.run(words, "pip could not"), capsys)
    assert "pip could not: it broke" in said


def test_a_program_gets_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(command: list[str], **words: Any) -> subprocess.CompletedProcess[str]:
        given.update(words)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    bench_files.run(["python"], "it could not")
    assert given["stdin"] == subprocess.DEVNULL


def test_a_size_counts_what_is_there_and_not_what_is_linked_to(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 5)
    if sys.platform != "win32":
        (tmp_path / "deep" / "c").symlink_to(tmp_path / "b")
    assert bench_files.size(tmp_path) == 15
