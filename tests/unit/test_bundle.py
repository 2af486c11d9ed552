"""One file for another machine: what is in it, what is not, and that Python runs it."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import itertools
import json
import runpy
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sessions.build import python_tag
from sessions.build.model import Wheel
from sessions.command_line import child_nox
from sessions.fetch import build_tools
from sessions.run import families, main_bundle, smoke_input
from sessions.shared import knowledge, programs, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.programs import Finished
from sessions.targets import targets_file
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel().file
TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
REQUIRES = (
    "cuda-pathfinder>=1.3",
    "nvidia-cuda-runtime<14,>=13.1.80",
    "NVIDIA_cublas<14,>=13.2.2.2",
)
Told = pytest.CaptureFixture[str]


def bundling(root: Path, *words: str, **changes: Any) -> Context:
    """The surroundings of ``nox -s bundle -- …``, with the wheel that was built before it."""
    named: dict[str, Any] = {"session": "bundle", "asked": frozenset({"bundle"}), **changes}
    ctx = fakes.context(root, *words, **named)
    path = ctx.wheels / NAME
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{fakes.INFO}/METADATA", "Name: llama_cpp_python\n")
    wheel = fakes.wheel(sha256=records.file_sha256(path), requires=REQUIRES)
    records.write(ctx.record("wheel"), "wheel", wheel)
    return ctx


class Pip:
    """Plays pip: a plan of what the wheel requires, and downloads that leave a file."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.required = [
            ("numpy", "2.4.6"),
            ("cuda-pathfinder", "1.3.3"),
            ("nvidia-cuda-runtime", "13.1.80"),
            ("nvidia_cublas", "13.2.2.2"),
        ]

    def __call__(self, ctx: Context, venv: Path, words: Sequence[str], what: str) -> str:
        self.commands.append(list(words))
        named = dict(itertools.pairwise(words))
        if "--report" in words:
            wheel = Path(words[-1])
            items = [("llama_cpp_python", "0.3.16", wheel.resolve().as_uri())]
            items += [(name, v, f"https://x/{name}.whl") for name, v in self.required]
            plan = [
                {"metadata": {"name": name, "version": v}, "download_info": {"url": url}}
                for name, v, url in items
            ]
            Path(named["--report"]).write_text(json.dumps({"install": plan}), encoding="utf-8")
        elif "--target" in words:
            cached = Path(named["--target"]) / "__pycache__"
            cached.mkdir(parents=True)
            (cached / "pynvml.cpython-311.pyc").write_bytes(b"stale")
            (cached.parent / "pynvml.py").write_text("# NVML\n", encoding="utf-8")
        elif words[0] == "download":
            folder = Path(named["-d"])
            folder.mkdir(parents=True, exist_ok=True)
            name = (
                "gguf-0.19.0" if "-r" in named else words[-1].replace("-", "_").replace("==", "-")
            )
            (folder / f"{name}-py3-none-any.whl").write_bytes(b"what is needed")
        return ""

    def downloads(self) -> list[str]:
        return [command[-1] for command in self.commands if command[0] == "download"]


def played(patch: pytest.MonkeyPatch) -> Pip:
    made = Pip()
    patch.setattr(venvs, "pip", made)
    patch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    return made


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    return played(monkeypatch)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pip]:
    """The bundle of a wheel, made once, and what pip was asked for it."""
    with pytest.MonkeyPatch.context() as patch:
        asked = played(patch)
        ctx = bundling(tmp_path_factory.mktemp("bundle"))
        main_bundle.main(ctx)
    return ctx.wheels / "smoke-rtx50.pyz", asked


@pytest.fixture
def made(bundled: tuple[Path, Pip]) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(bundled[0]) as archive:
        yield archive


@pytest.fixture
def asked(bundled: tuple[Path, Pip]) -> Pip:
    return bundled[1]


# ---- what is in it ------------------------------------------------------------------------------


def test_a_bundle_has_the_wheel_what_it_needs_and_the_checks(made: zipfile.ZipFile) -> None:
    names = set(made.namelist())
    assert len(names) == len(made.namelist())
    files = {f"families/{path.name}" for path in families.FAMILIES.glob("*.npz")}
    assert files
    assert files <= names
    assert {name for name in names if not name.startswith("payload/")} - files == {
        "__main__.py",
        "manifest.json",
        "nvml/pynvml.py",
        f"wheels/{NAME}",
        "wheels/numpy-2.4.6-py3-none-any.whl",
        "wheels/cuda_pathfinder-1.3.3-py3-none-any.whl",
        "wheels/gguf-0.19.0-py3-none-any.whl",
    }


def test_the_payload_is_in_it_whole_and_nothing_compiled(made: zipfile.ZipFile) -> None:
    names = {name for name in made.namelist() if name.startswith("payload/")}
    content = {name: made.read(name) for name in names}
    there = {
        path for path in smoke_input.PAYLOAD.iterdir() if path.is_file() and path.suffix != ".pyc"
    }
    assert content == {f"payload/{path.name}": path.read_bytes() for path in there}
    assert "payload/bounds.json" in names
    assert not any("__pycache__" in name for name in names)


def test_the_program_of_a_bundle_is_the_payloads_launcher(made: zipfile.ZipFile) -> None:
    assert made.read("__main__.py") == (smoke_input.PAYLOAD / "bundle_start.py").read_bytes()


def test_wheels_and_families_are_stored_as_they_are_and_the_rest_is_compressed(
    made: zipfile.ZipFile,
) -> None:
    kinds = {info.filename: info.compress_type for info in made.infolist()}
    for name, kind in kinds.items():
        whole = name.endswith((".whl", ".npz"))
        assert kind == (zipfile.ZIP_STORED if whole else zipfile.ZIP_DEFLATED), name


def test_the_wheel_in_it_is_the_one_that_was_built(made: zipfile.ZipFile) -> None:
    wheel = made.read(f"wheels/{NAME}")
    manifest = json.loads(made.read("manifest.json"))
    assert hashlib.sha256(wheel).hexdigest() == manifest["job"]["identity"]["sha256"]


def test_nvidias_runtime_is_left_out(made: zipfile.ZipFile, asked: Pip) -> None:
    assert [name for name in made.namelist() if "nvidia" in name.lower()] == []
    assert not any("nvidia" in pin for pin in asked.downloads())


def test_the_wheel_itself_is_not_looked_for_on_an_index(asked: Pip) -> None:
    assert asked.downloads()[:2] == ["numpy==2.4.6", "cuda-pathfinder==1.3.3"]
    assert not any("llama" in pin for pin in asked.downloads())


def test_nothing_in_it_is_compiled_from_source(asked: Pip) -> None:
    downloads = [command for command in asked.commands if command[0] == "download"]
    assert all("--only-binary=:all:" in command for command in downloads)
    assert all("--no-deps" in command for command in downloads)


def test_what_the_project_locks_is_taken_by_its_hashes(asked: Pip) -> None:
    locked = [command for command in asked.commands if "-r" in command]
    assert len(locked) == 2
    assert all("--require-hashes" in command for command in locked)
    # Of what the sessions import, the other machine needs the one package that reads the GPU.
    locked_nvml = main_bundle._requirement(knowledge.LOCKS / "runtime.txt", "nvidia-ml-py")
    assert locked_nvml.startswith("nvidia-ml-py==")
    assert "--hash=sha256:" in locked_nvml
    assert locked_nvml.count("==") == 1


def test_a_bundle_says_where_it_is_and_what_to_do_with_it(
    tmp_path: Path, pip: Pip, capsys: Told
) -> None:
    ctx = bundling(tmp_path)
    main_bundle.main(ctx)
    told = capsys.readouterr().out
    path = ctx.wheels / "smoke-rtx50.pyz"
    assert f"  {path}" in told
    assert "on the machine with the GPU: python3.11 smoke-rtx50.pyz" in told
    assert records.file_sha256(path) in told


def test_a_bundle_of_a_windows_wheel_is_run_by_the_launcher_of_windows(
    tmp_path: Path, pip: Pip, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_bundle, "_ops", lambda *_: {"library": "ops.dll"})
    other = tmp_path / "wheels" / "rtx50+seed" / NAME
    other.parent.mkdir(parents=True)
    other.write_bytes(b"by another procedure")
    spec = fakes.spec(platform="windows")
    main_bundle.main(bundling(tmp_path, "--baseline", str(other), spec=spec))
    told = capsys.readouterr().out
    assert "on the machine with the GPU: py -3.11 smoke-rtx50.pyz\n" in told
    assert "to test every operator there: py -3.11 smoke-rtx50.pyz --ops\n" in told
    assert "to benchmark there: py -3.11 smoke-rtx50.pyz --bench --baseline " in told
    assert "python3" not in told


def test_a_bundle_says_what_to_take_along_to_measure_with(
    tmp_path: Path, pip: Pip, capsys: Told
) -> None:
    other = tmp_path / "wheels" / "rtx50+seed" / NAME
    other.parent.mkdir(parents=True)
    other.write_bytes(b"by another procedure")
    ctx = bundling(tmp_path, "--baseline", str(other))
    main_bundle.main(ctx)
    told = capsys.readouterr().out
    assert f"python3.11 smoke-rtx50.pyz --bench --baseline rtx50+seed/{NAME}" in told
    assert f"copy this file too, in its folder: {other}" in told
    with zipfile.ZipFile(ctx.wheels / "smoke-rtx50.pyz") as archive:
        assert archive.read(f"wheels/{NAME}") == (ctx.wheels / NAME).read_bytes()


# ---- a wheel that serves every Python -----------------------------------------------------------


def for_any_python(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Any]:
    """What a bundle of a list of one target holds, and what it is told of that target."""
    monkeypatch.setattr(main_bundle, "_build", lambda each: None)
    main_bundle.main(dataclasses.replace(ctx, specs=(ctx.spec,)))
    with zipfile.ZipFile(ctx.root / "wheels" / "smoke.pyz") as archive:
        (told,) = json.loads(archive.read("manifest.json"))["targets"]
        return archive.namelist(), told


SERVES_ALL = "llama_cpp_python-0.3.16-py3-none-manylinux_2_35_x86_64.whl"


class PipOfMany(Pip):
    """Plays pip where numpy is made for each Python, and for 3.14 not at all."""

    def __call__(self, ctx: Context, venv: Path, words: Sequence[str], what: str) -> str:
        named = dict(itertools.pairwise(words))
        python = named.get("--python-version", "3.11")
        if words[-1].startswith("numpy==") and "-d" in named:
            self.commands.append(list(words))
            if python == "3.14":
                raise Problem("There is no numpy.", id="pip-failed", remedy="none")
            folder, tag = Path(named["-d"]), f"cp{python.replace('.', '')}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"numpy-2.4.6-{tag}-{tag}-manylinux_2_27_x86_64.whl").write_text(python)
            return ""
        return super().__call__(ctx, venv, words, what)


def test_a_bundle_of_a_wheel_for_every_python_has_what_each_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    played = PipOfMany()
    played.required = [("numpy", "2.4.6")]
    monkeypatch.setattr(venvs, "pip", played)
    monkeypatch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    ctx = bundling(tmp_path)
    (ctx.wheels / NAME).rename(ctx.wheels / SERVES_ALL)
    found = records.need(ctx.record("wheel"), "wheel", Wheel)
    wheel = dataclasses.replace(found, file=SERVES_ALL)
    records.write(ctx.record("wheel"), "wheel", wheel)
    held, manifest = for_any_python(ctx, monkeypatch)
    assert [name for name in held if "numpy" in name] == [
        "python3.12/numpy-2.4.6-cp312-cp312-manylinux_2_27_x86_64.whl",
        "python3.13/numpy-2.4.6-cp313-cp313-manylinux_2_27_x86_64.whl",
        "wheels/numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl",
    ]
    assert manifest["pythons"] == ["3.11", "3.12", "3.13"]
    told = capsys.readouterr().out
    assert "the bundle is not for Python 3.14" in " ".join(told.split())


def test_a_wheel_of_one_python_is_tested_by_any_other(
    tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, manifest = for_any_python(bundling(tmp_path), monkeypatch)
    assert "-cp311-cp311-" in NAME
    assert manifest["pythons"] == ["3.11", "3.12", "3.13", "3.14"]


def test_packages_are_those_for_the_python_of_the_target(tmp_path: Path, pip: Pip) -> None:
    ctx = bundling(tmp_path)
    main_bundle.main(dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, python="3.13")))
    asked = [dict(itertools.pairwise(words)) for words in pip.commands if words[-1] != NAME]
    assert {named.get("--python-version") for named in asked[:-1]} == {"3.13"}
    assert "nvml" in asked[-1]["--target"]  # what runs beside the bundle is for any Python


def test_a_bundle_of_one_target_has_packages_for_its_own_python_only(
    tmp_path: Path, pip: Pip, capsys: Told
) -> None:
    ctx = bundling(tmp_path)
    main_bundle.main(ctx)
    with zipfile.ZipFile(ctx.wheels / "smoke-rtx50.pyz") as archive:
        assert json.loads(archive.read("manifest.json"))["pythons"] == ["3.11"]
        assert not [name for name in archive.namelist() if name.startswith(("python", "one.txt"))]
    assert "for every Python: nox -s bundle -- --targets rtx50\n" in capsys.readouterr().out
    changes: Any = {"target": "rtx50+v0.3.36", "overrides": ("--version", "0.3.36")}
    ctx = bundling(tmp_path, spec=dataclasses.replace(ctx.spec, **changes))
    main_bundle.main(ctx)
    assert "nox -s bundle -- --targets rtx50 --version 0.3.36\n" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["calls", "excludes"])
def test_a_wheel_that_needs_its_own_python_is_tested_by_it_only(
    what: str, tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = bundling(tmp_path)
    if what == "calls":
        monkeypatch.setattr(python_tag, "calls", lambda path: ["PyModule_Create2 in llama.so"])
    else:
        monkeypatch.setattr(
            python_tag, "refusal", lambda path, python: None if python == "3.11" else "<3.12"
        )
    assert for_any_python(ctx, monkeypatch)[1]["pythons"] == ["3.11"]


# ---- several targets ----------------------------------------------------------------------------


@dataclasses.dataclass
class Chains:
    """Plays the chain of each target: leaves a wheel, or fails."""

    root: Path
    fails: str = ""
    ran: list[str] = dataclasses.field(default_factory=list)

    def __call__(
        self, root: Path, sessions: Sequence[str], target: str, words: Sequence[str]
    ) -> int:
        assert sessions == ["verify"]
        self.ran.append(target)
        bundling(self.root, spec=TARGETS[target])
        return int(target == self.fails)


def several(tmp_path: Path, chains: Chains, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(child_nox, "follow", chains)
    named = {"session": "bundle", "asked": frozenset({"bundle"})}
    specs = (TARGETS["rtx50"], TARGETS["hopper"], TARGETS["cpu"])
    return fakes.context(
        tmp_path, "--targets", "rtx50,hopper,cpu", spec=specs[0], specs=specs, **named
    )


def test_one_file_has_the_wheels_of_several_targets(
    tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains = Chains(tmp_path)
    main_bundle.main(several(tmp_path, chains, monkeypatch))
    assert chains.ran == ["rtx50", "hopper", "cpu"]
    with zipfile.ZipFile(tmp_path / "wheels" / "smoke.pyz") as archive:
        names, told = archive.namelist(), json.loads(archive.read("manifest.json"))["targets"]
        for one in told:
            wheel = archive.read(f"targets/{one['target']}/{NAME}")
            assert hashlib.sha256(wheel).hexdigest() == one["job"]["identity"]["sha256"]
    assert [one["target"] for one in told] == chains.ran
    assert [one["capabilities"] for one in told] == [["12.0"], ["9.0"], []]
    assert f"wheels/{NAME}" not in names
    # What they share is in it once, and was looked for once.
    assert sum(name.startswith("wheels/numpy-") for name in names) == 1
    assert pip.downloads().count("numpy==2.4.6") == 1


def test_of_a_target_that_fails_no_bundle_is_made(
    tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises("bundle-target-failed") as caught:
        main_bundle.main(several(tmp_path, Chains(tmp_path, fails="hopper"), monkeypatch))
    assert caught.value.remedy == "nox -s verify -- --target hopper"
    assert not (tmp_path / "wheels" / "smoke.pyz").exists()


def test_two_releases_of_what_the_wheels_need_are_refused(tmp_path: Path) -> None:
    for name in ("numpy-2.4.6-py3-none-any.whl", "numpy-1.26.4-py3-none-any.whl"):
        (tmp_path / name).write_bytes(b"")
    with raises("bundle-two-releases") as caught:
        main_bundle._refuse_doubles(tmp_path)
    assert caught.value.evidence.count("numpy") == 2


# ---- the file itself ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What goes into a bundle."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "x.whl").write_bytes(b"x" * 1000)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_bundle_begins_with_the_program_that_runs_it(folder: Path, tmp_path: Path) -> None:
    main_bundle.pack(folder, tmp_path / "x.pyz")
    assert (tmp_path / "x.pyz").read_bytes().startswith(b"#!/usr/bin/env python3\nPK")


def test_a_bundle_is_a_sound_zip_for_all_that(folder: Path, tmp_path: Path) -> None:
    main_bundle.pack(folder, tmp_path / "x.pyz")
    with zipfile.ZipFile(tmp_path / "x.pyz") as archive:
        assert archive.testzip() is None
        assert archive.read("wheels/x.whl") == b"x" * 1000


def test_python_runs_a_bundle(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under another name than __main__ it defines all and does nothing.
    main_bundle.pack(folder, tmp_path / "x.pyz")
    for name in {path.stem for path in smoke_input.PAYLOAD.glob("[a-z]*.py")} & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)  # else the bundle would find those that are here
    before = set(sys.modules)
    found = runpy.run_path(str(tmp_path / "x.pyz"), run_name="a_bundle")
    assert (
        Path(found["bundle_launch"].__file__) == tmp_path / "x.pyz" / "payload" / "bundle_launch.py"
    )
    assert callable(found["bundle_launch"].start)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_first_file_of_a_bundle_can_be_read_by_any_python() -> None:
    """Python 2.7's grammar is not here to try; what newer ones brought is not in it."""
    text = (smoke_input.PAYLOAD / "bundle_start.py").read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    first = next(node for node in tree.body if isinstance(node, ast.If))
    before = tree.body[: tree.body.index(first)]
    assert [ast.unparse(node) for node in before[1:]] == ["import sys"]
    assert "from __future__" not in text


def test_what_was_compiled_on_the_way_is_left_out(folder: Path, tmp_path: Path) -> None:
    deep = folder / "nvml" / "__pycache__"
    deep.mkdir(parents=True)
    (deep / "pynvml.cpython-311.pyc").write_bytes(b"stale")
    main_bundle.pack(folder, tmp_path / "x.pyz")
    with zipfile.ZipFile(tmp_path / "x.pyz") as archive:
        assert not any("pyc" in name for name in archive.namelist())


def full_disk(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


def test_a_bundle_that_breaks_leaves_the_older_one_and_nothing_else(
    tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = bundling(tmp_path)
    target = ctx.wheels / "smoke-rtx50.pyz"
    target.write_bytes(b"older")
    monkeypatch.setattr(zipfile.ZipFile, "write", full_disk)
    with pytest.raises(OSError, match="No space"):
        main_bundle.main(ctx)
    assert target.read_bytes() == b"older"
    assert {path.name for path in ctx.wheels.iterdir()} == {NAME, target.name}


def test_without_a_wheel_the_session_that_builds_it_is_named(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_bundle.main(fakes.context(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"


# ---- the manifest -------------------------------------------------------------------------------


def manifest(target: str, root: Path, **changes: Any) -> dict[str, Any]:
    of = dataclasses.replace(TARGETS[target], **changes)
    wheel = fakes.wheel(version=of.version, requires=REQUIRES if of.cuda else ())
    return dict(main_bundle.manifest(fakes.context(root, spec=of), wheel, ["3.11"]))


def test_a_manifest_says_what_the_other_machine_must_be(tmp_path: Path) -> None:
    found = manifest("rtx50", tmp_path)
    told = found.pop("job")
    assert found == {
        "target": "rtx50",
        "arguments": "--target rtx50",
        "pythons": ["3.11"],
        "platforms": ["linux_x86_64"],
        "driver": 580,
        "bad_drivers": knowledge.bad_drivers(("120-real",)),
        "runtime": ["nvidia-cuda-runtime<14,>=13.1.80", "NVIDIA_cublas<14,>=13.2.2.2"],
        "capabilities": ["12.0"],
    }
    assert told["identity"] == {"file": NAME, "sha256": "0" * 64, "target": "rtx50"}
    assert told["version"] == "0.3.16"


def test_a_manifest_has_the_options_that_choose_its_target(tmp_path: Path) -> None:
    overrides = ("--arch", "120-real;89-real")
    found = manifest("rtx50", tmp_path, overrides=overrides)
    words = ["--target", "rtx50", "--arch", "120-real;89-real"]
    assert found["arguments"] == programs.typed(words)


def test_a_manifest_of_a_windows_wheel_names_windows(tmp_path: Path) -> None:
    assert manifest("rtx50", tmp_path, platform="windows")["platforms"] == ["win_amd64"]


def test_a_manifest_of_the_cpu_target_asks_for_no_gpu(tmp_path: Path) -> None:
    found = manifest("cpu", tmp_path)
    assert (found["driver"], found["runtime"], found["capabilities"]) == (0, [], [])


def test_a_manifest_of_native_fp4_says_so(tmp_path: Path) -> None:
    assert manifest("rtx50-fp4", tmp_path)["job"]["native_fp4"] is True
    assert manifest("rtx50", tmp_path)["job"]["native_fp4"] is False


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_manifest_of_every_target_can_be_written(target: str, tmp_path: Path) -> None:
    found = manifest(target, tmp_path)
    assert json.loads(json.dumps(found))["target"] == target


# ---- signatures ---------------------------------------------------------------------------------


class Keygen:
    """Plays ssh-keygen: leaves a signature beside what it signs."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.env: Mapping[str, str] = {}
        self.done = Finished((), 0, "", 0.0)
        self.overwrote = False

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str]) -> Finished:
        self.command, self.env = list(command), env
        signature = Path(command[-1] + ".sig")
        self.overwrote = signature.exists()
        if not self.done.returncode:
            signature.write_text("signature", encoding="utf-8")
        return self.done


@pytest.fixture
def keygen(monkeypatch: pytest.MonkeyPatch) -> Keygen:
    played = Keygen()
    monkeypatch.setattr("sessions.shared.programs.capture", played)
    return played


def test_a_bundle_is_signed_for_this_project_alone(
    tmp_path: Path, pip: Pip, keygen: Keygen, capsys: Told
) -> None:
    ctx = bundling(tmp_path, "--sign", "/home/user/.ssh/key", env=ENV)
    main_bundle.main(ctx)
    target = ctx.wheels / "smoke-rtx50.pyz"
    words = ["-Y", "sign", "-f", "/home/user/.ssh/key", "-n", "blackwheel", str(target)]
    assert keygen.command == ["ssh-keygen", *words]
    assert keygen.env == {"PATH": "/usr/bin", "SSH_AUTH_SOCK": "/run/agent"}
    assert f"{target}.sig" in capsys.readouterr().out


ENV = {"PATH": "/usr/bin", "X": "1", "SSH_AUTH_SOCK": "/run/agent"}


def test_an_older_signature_makes_way(tmp_path: Path, pip: Pip, keygen: Keygen) -> None:
    # ssh-keygen would ask whether it may overwrite, and nobody would answer.
    ctx = bundling(tmp_path, "--sign", "key")
    signature = ctx.wheels / "smoke-rtx50.pyz.sig"
    signature.write_text("of another bundle", encoding="utf-8")
    main_bundle.main(ctx)
    assert not keygen.overwrote
    assert signature.read_text(encoding="utf-8") == "signature"


@pytest.mark.parametrize(
    ("code", "text"),
    [(255, "Couldn't load private key"), (127, "ssh-keygen: No such file or directory")],
    ids=["no-such-key", "no-ssh-keygen"],
)
def test_a_bundle_that_cannot_be_signed_is_a_problem(
    code: int, text: str, tmp_path: Path, pip: Pip, keygen: Keygen
) -> None:
    keygen.done = Finished((), code, text, 0.0)
    with raises("bundle-sign-failed") as caught:
        main_bundle.main(bundling(tmp_path, "--sign", "gone"))
    assert text in caught.value.evidence


def test_nothing_is_signed_unasked(tmp_path: Path, pip: Pip) -> None:
    # The guard of these tests refuses any program.
    ctx = bundling(tmp_path)
    main_bundle.main(ctx)
    assert not (ctx.wheels / "smoke-rtx50.pyz.sig").exists()


def test_an_unsigned_bundle_leaves_no_signature_of_an_older_one(tmp_path: Path, pip: Pip) -> None:
    ctx = bundling(tmp_path)
    signature = ctx.wheels / "smoke-rtx50.pyz.sig"
    signature.write_text("of another bundle", encoding="utf-8")
    main_bundle.main(ctx)
    assert not signature.exists()
