"""The session bundle: the content of a bundle, its manifest, its Pythons and its signature."""

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
from sessions.build.record_types import Wheel
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
Output = pytest.CaptureFixture[str]


def bundling(root: Path, *words: str, **changes: Any) -> Context:
    """The context of ``nox -s bundle -- …``, with a built wheel."""
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
    """Replaces pip: it plans the wheel's requirements, and each download writes a file."""

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


def replace_pip(patch: pytest.MonkeyPatch) -> Pip:
    fake = Pip()
    patch.setattr(venvs, "pip", fake)
    patch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    return fake


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    return replace_pip(monkeypatch)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pip]:
    """A bundle, made once, and the calls of pip for it."""
    with pytest.MonkeyPatch.context() as patch:
        pip = replace_pip(patch)
        ctx = bundling(tmp_path_factory.mktemp("bundle"))
        main_bundle.main(ctx)
    return ctx.wheels / "smoke-rtx50.pyz", pip


@pytest.fixture
def bundle(bundled: tuple[Path, Pip]) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(bundled[0]) as archive:
        yield archive


# ---- the content ---------------------------------------------------------------------------------


def test_a_bundle_has_the_wheel_its_requirements_and_the_payload(bundle: zipfile.ZipFile) -> None:
    names = set(bundle.namelist())
    assert len(names) == len(bundle.namelist())
    files = {f"families/{path.name}" for path in families.FAMILIES.glob("*.npz")}
    assert files
    payload = {
        f"payload/{path.name}": path.read_bytes()
        for path in smoke_input.PAYLOAD.iterdir()
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == {
        *files,
        *payload,
        "__main__.py",
        "manifest.json",
        "nvml/pynvml.py",
        f"wheels/{NAME}",
        "wheels/numpy-2.4.6-py3-none-any.whl",
        "wheels/cuda_pathfinder-1.3.3-py3-none-any.whl",
        "wheels/gguf-0.19.0-py3-none-any.whl",
    }
    assert {name: bundle.read(name) for name in payload} == payload
    assert bundle.read("__main__.py") == payload["payload/bundle_start.py"]
    wheel = bundle.read(f"wheels/{NAME}")
    manifest = json.loads(bundle.read("manifest.json"))
    assert hashlib.sha256(wheel).hexdigest() == manifest["job"]["identity"]["sha256"]


def test_wheels_and_families_are_not_compressed_again(bundle: zipfile.ZipFile) -> None:
    for info in bundle.infolist():
        whole = info.filename.endswith((".whl", ".npz"))
        assert info.compress_type == (zipfile.ZIP_STORED if whole else zipfile.ZIP_DEFLATED), info


def test_requirements_are_downloaded_as_wheels_and_by_their_hashes(
    bundled: tuple[Path, Pip],
) -> None:
    pip = bundled[1]
    assert pip.downloads()[:2] == ["numpy==2.4.6", "cuda-pathfinder==1.3.3"]
    assert not any("llama" in pin or "nvidia" in pin for pin in pip.downloads())
    for command in pip.commands:
        if command[0] == "download":
            assert {"--only-binary=:all:", "--no-deps"} <= set(command)
    locked = [command for command in pip.commands if "-r" in command]
    assert len(locked) == 2
    assert all("--require-hashes" in command for command in locked)
    # Of the packages that the sessions import, a bundle needs only NVML's bindings.
    nvml = main_bundle._requirement(knowledge.LOCKS / "runtime.txt", "nvidia-ml-py")
    assert nvml.startswith("nvidia-ml-py==")
    assert "--hash=sha256:" in nvml
    assert nvml.count("==") == 1


# ---- the commands that are printed ---------------------------------------------------------------


def baseline(root: Path) -> Path:
    """Another wheel to compare with."""
    path = root / "wheels" / "rtx50+seed" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(b"by another procedure")
    return path


@pytest.mark.parametrize(("platform", "python"), [("linux", "python3.11"), ("windows", "py -3.11")])
def test_the_commands_for_the_other_machine_are_printed(
    platform: str,
    python: str,
    tmp_path: Path,
    pip: Pip,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main_bundle, "_ops", lambda *_: {"library": "ops.dll"})
    other = baseline(tmp_path)
    ctx = bundling(tmp_path, "--baseline", str(other), spec=fakes.spec(platform=platform))
    main_bundle.main(ctx)
    output = capsys.readouterr().out
    path = ctx.wheels / "smoke-rtx50.pyz"
    assert f"  {path}\n" in output
    assert records.file_sha256(path) in output
    assert f"on the machine with the GPU: {python} smoke-rtx50.pyz\n" in output
    assert f"to test every operator there: {python} smoke-rtx50.pyz --ops\n" in output
    words = f"smoke-rtx50.pyz --bench --baseline rtx50+seed/{NAME}"
    assert f"to benchmark there: {python} {words}" in output
    assert f"copy this file too, in its folder: {other}" in output
    with zipfile.ZipFile(path) as archive:
        assert archive.read(f"wheels/{NAME}") == (ctx.wheels / NAME).read_bytes()


# ---- the Pythons ---------------------------------------------------------------------------------


def for_any_python(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Any]:
    """The files of a bundle for a list with one target, and the manifest of that target."""
    monkeypatch.setattr(main_bundle, "_build", lambda each: None)
    main_bundle.main(dataclasses.replace(ctx, specs=(ctx.spec,)))
    with zipfile.ZipFile(ctx.root / "wheels" / "smoke.pyz") as archive:
        (manifest,) = json.loads(archive.read("manifest.json"))["targets"]
        return archive.namelist(), manifest


SERVES_ALL = "llama_cpp_python-0.3.16-py3-none-manylinux_2_35_x86_64.whl"


class PipOfMany(Pip):
    """Replaces pip: numpy depends on Python and does not exist for 3.14."""

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


def test_a_bundle_has_the_packages_for_each_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    fake = PipOfMany()
    fake.required = [("numpy", "2.4.6")]
    monkeypatch.setattr(venvs, "pip", fake)
    monkeypatch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    ctx = bundling(tmp_path)
    (ctx.wheels / NAME).rename(ctx.wheels / SERVES_ALL)
    found = records.need(ctx.record("wheel"), "wheel", Wheel)
    wheel = dataclasses.replace(found, file=SERVES_ALL)
    records.write(ctx.record("wheel"), "wheel", wheel)
    files, manifest = for_any_python(ctx, monkeypatch)
    assert [name for name in files if "numpy" in name] == [
        "python3.12/numpy-2.4.6-cp312-cp312-manylinux_2_27_x86_64.whl",
        "python3.13/numpy-2.4.6-cp313-cp313-manylinux_2_27_x86_64.whl",
        "wheels/numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl",
    ]
    assert manifest["pythons"] == ["3.11", "3.12", "3.13"]
    output = capsys.readouterr().out
    assert "the bundle is not for Python 3.14" in " ".join(output.split())


def test_a_wheel_for_one_python_is_tested_with_the_others(
    tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, manifest = for_any_python(bundling(tmp_path), monkeypatch)
    assert "-cp311-cp311-" in NAME
    assert manifest["pythons"] == ["3.11", "3.12", "3.13", "3.14"]


def test_the_packages_are_for_the_python_of_the_target(tmp_path: Path, pip: Pip) -> None:
    ctx = bundling(tmp_path)
    main_bundle.main(dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, python="3.13")))
    calls = [dict(itertools.pairwise(words)) for words in pip.commands if words[-1] != NAME]
    assert {named.get("--python-version") for named in calls[:-1]} == {"3.13"}
    assert "nvml" in calls[-1]["--target"]  # NVML's bindings do not depend on Python


def test_a_bundle_of_one_target_has_packages_for_one_python(
    tmp_path: Path, pip: Pip, capsys: Output
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
def test_a_wheel_that_depends_on_its_python_is_tested_only_with_it(
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
    """Replaces the pipeline of each target: it writes a wheel, or fails."""

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
        names = archive.namelist()
        manifests = json.loads(archive.read("manifest.json"))["targets"]
        for one in manifests:
            wheel = archive.read(f"targets/{one['target']}/{NAME}")
            assert hashlib.sha256(wheel).hexdigest() == one["job"]["identity"]["sha256"]
    assert [one["target"] for one in manifests] == chains.ran
    assert [one["capabilities"] for one in manifests] == [["12.0"], ["9.0"], []]
    assert f"wheels/{NAME}" not in names
    # Shared packages are downloaded once.
    assert sum(name.startswith("wheels/numpy-") for name in names) == 1
    assert pip.downloads().count("numpy==2.4.6") == 1


def test_if_a_target_fails_there_is_no_bundle(
    tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises("bundle-target-failed") as caught:
        main_bundle.main(several(tmp_path, Chains(tmp_path, fails="hopper"), monkeypatch))
    assert caught.value.remedy == "nox -s verify -- --target hopper"
    assert not (tmp_path / "wheels" / "smoke.pyz").exists()


def test_two_releases_of_a_package_are_refused(tmp_path: Path) -> None:
    for name in ("numpy-2.4.6-py3-none-any.whl", "numpy-1.26.4-py3-none-any.whl"):
        (tmp_path / name).write_bytes(b"")
    with raises("bundle-two-releases") as caught:
        main_bundle._refuse_doubles(tmp_path)
    assert caught.value.evidence.count("numpy") == 2


# ---- the file itself ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a bundle."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "x.whl").write_bytes(b"x" * 1000)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_bundle_is_a_zip_file_with_a_shebang_and_without_compiled_files(
    folder: Path, tmp_path: Path
) -> None:
    compiled = folder / "nvml" / "__pycache__" / "pynvml.cpython-311.pyc"
    compiled.parent.mkdir(parents=True)
    compiled.write_bytes(b"stale")
    main_bundle.pack(folder, tmp_path / "x.pyz")
    assert (tmp_path / "x.pyz").read_bytes().startswith(b"#!/usr/bin/env python3\nPK")
    with zipfile.ZipFile(tmp_path / "x.pyz") as archive:
        assert archive.testzip() is None
        assert archive.read("wheels/x.whl") == b"x" * 1000
        assert not any("pyc" in name for name in archive.namelist())


def test_python_runs_a_bundle(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under a name other than __main__, it defines everything and runs nothing.
    main_bundle.pack(folder, tmp_path / "x.pyz")
    for name in {path.stem for path in smoke_input.PAYLOAD.glob("[a-z]*.py")} & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)  # so that the bundle's modules are imported
    before = set(sys.modules)
    found = runpy.run_path(str(tmp_path / "x.pyz"), run_name="a_bundle")
    assert (
        Path(found["bundle_launch"].__file__) == tmp_path / "x.pyz" / "payload" / "bundle_launch.py"
    )
    assert callable(found["bundle_launch"].start)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_any_python_can_parse_the_first_file_of_a_bundle() -> None:
    """Python 2.7 is not available here, so the test looks for newer syntax."""
    text = (smoke_input.PAYLOAD / "bundle_start.py").read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    first = next(node for node in tree.body if isinstance(node, ast.If))
    before = tree.body[: tree.body.index(first)]
    assert [ast.unparse(node) for node in before[1:]] == ["import sys"]
    assert "from __future__" not in text


def full_disk(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


def test_a_failed_bundle_leaves_the_older_one_unchanged(
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


def test_without_a_wheel_the_command_that_builds_it_is_the_remedy(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_bundle.main(fakes.context(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"


# ---- the manifest -------------------------------------------------------------------------------


def manifest(target: str, root: Path, **changes: Any) -> dict[str, Any]:
    """The manifest of a target, as it is read from its file."""
    spec = dataclasses.replace(TARGETS[target], **changes)
    wheel = fakes.wheel(version=spec.version, requires=REQUIRES if spec.cuda else ())
    found = main_bundle.manifest(fakes.context(root, spec=spec), wheel, ["3.11"])
    return dict(json.loads(json.dumps(found)))


def test_a_manifest_describes_the_wheel_and_the_required_machine(tmp_path: Path) -> None:
    found = manifest("rtx50", tmp_path)
    job = found.pop("job")
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
    assert job["identity"] == {"file": NAME, "sha256": "0" * 64, "target": "rtx50"}
    assert job["version"] == "0.3.16"


OVERRIDES = ("--arch", "120-real;89-real")


@pytest.mark.parametrize(
    ("target", "changes", "expected"),
    [
        (
            "rtx50",
            {"overrides": OVERRIDES},
            {"arguments": programs.typed(["--target", "rtx50", *OVERRIDES])},
        ),
        ("rtx50", {"platform": "windows"}, {"platforms": ["win_amd64"]}),
        ("cpu", {}, {"driver": 0, "runtime": [], "capabilities": []}),
        *((target, {}, {"target": target}) for target in sorted(TARGETS)),
    ],
)
def test_a_manifest_depends_on_the_target(
    target: str, changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    found = manifest(target, tmp_path, **changes)
    assert {name: found[name] for name in expected} == expected
    assert found["job"]["native_fp4"] is (target == "rtx50-fp4")


# ---- signatures ---------------------------------------------------------------------------------


class Keygen:
    """Replaces ssh-keygen; it refuses to overwrite a signature."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.env: Mapping[str, str] = {}
        self.done = Finished((), 0, "", 0.0)

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str]) -> Finished:
        self.command, self.env = list(command), env
        signature = Path(command[-1] + ".sig")
        assert not signature.exists()  # ssh-keygen would ask
        if not self.done.returncode:
            signature.write_text("signature", encoding="utf-8")
        return self.done


@pytest.fixture
def keygen(monkeypatch: pytest.MonkeyPatch) -> Keygen:
    fake = Keygen()
    monkeypatch.setattr("sessions.shared.programs.capture", fake)
    return fake


def older_signature(ctx: Context) -> Path:
    """The signature of an earlier bundle."""
    path = ctx.wheels / "smoke-rtx50.pyz.sig"
    path.write_text("of another bundle", encoding="utf-8")
    return path


def test_a_bundle_is_signed_with_the_namespace_of_this_project(
    tmp_path: Path, pip: Pip, keygen: Keygen, capsys: Output
) -> None:
    env = {"PATH": "/usr/bin", "X": "1", "SSH_AUTH_SOCK": "/run/agent"}
    ctx = bundling(tmp_path, "--sign", "/home/user/.ssh/key", env=env)
    signature = older_signature(ctx)
    main_bundle.main(ctx)
    target = ctx.wheels / "smoke-rtx50.pyz"
    words = ["-Y", "sign", "-f", "/home/user/.ssh/key", "-n", "blackwheel", str(target)]
    assert keygen.command == ["ssh-keygen", *words]
    assert keygen.env == {"PATH": "/usr/bin", "SSH_AUTH_SOCK": "/run/agent"}
    assert f"{target}.sig" in capsys.readouterr().out
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


def test_without_sign_no_program_runs_and_an_older_signature_is_deleted(
    tmp_path: Path, pip: Pip
) -> None:
    ctx = bundling(tmp_path)
    signature = older_signature(ctx)
    main_bundle.main(ctx)
    assert not signature.exists()
