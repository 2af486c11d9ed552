"""Baselines: which wheels are taken, how others are built, and in which environment."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions.build import baselines
from sessions.build.record_types import BuildEnv, Wheel
from sessions.command_line import child_nox, option_list, option_values
from sessions.fetch import build_tools
from sessions.shared import code_digest, disk, knowledge, programs, records
from sessions.shared.context import Context
from sessions.shared.errors import USAGE
from sessions.shared.programs import Finished
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel().file
ROWS = knowledge.load("baselines.toml")
TARGETS = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")


def benching(root: Path, *words: str, **changes: Any) -> Context:
    """The context of ``nox -s bench -- …`` with all records of a build."""
    ctx = fakes.context(root, *words, **{"session": "bench", **changes})
    cuda = ctx.spec.cuda is not None
    disk.mark(ctx.build)
    (root / "targets.toml").write_text(TARGETS, encoding="utf-8")
    source = root / "llama-cpp-python-src" / "0.3.16"
    (source / "vendor").mkdir(parents=True)
    (source / "pyproject.toml").write_text("upstream's own\n", encoding="utf-8")
    records.write(ctx.record("configure"), "configure", fakes.build_env())
    records.write(ctx.record("probe"), "probe", fakes.chain())
    records.write(ctx.record("source"), "source", fakes.source(path=str(source)))
    if cuda:
        records.write(ctx.record("toolkit"), "toolkit", fakes.toolkit())
    return ctx


# ---- A wheel named by its path ------------------------------------------------------------------


def test_a_wheel_is_named_by_its_path(tmp_path: Path) -> None:
    other = tmp_path / "seed" / NAME
    other.parent.mkdir()
    other.write_bytes(b"")
    assert baselines.wheels(fakes.context(tmp_path, "--baseline", str(other))) == [other]
    assert baselines.wheels(fakes.context(tmp_path)) == []


@pytest.mark.parametrize("name", ["gone.whl", "seeds", "targets.toml"])
def test_a_path_that_is_not_a_wheel_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "targets.toml").write_text("")
    with raises("baseline-wheel-missing") as caught:
        baselines.wheels(fakes.context(tmp_path, "--baseline", str(tmp_path / name)))
    assert "seed, upstream, ptx" in caught.value.remedy
    metavar = option_list.BY_FIELD["baseline"].metavar
    assert metavar == "|".join(["WHEEL", *option_values.baselines()])


def test_with_an_external_wheel_no_baseline_is_built(tmp_path: Path) -> None:
    ctx = fakes.context(tmp_path, "--wheel", "x.whl", "--baseline", "seed")
    with raises("baseline-not-built"):
        baselines.wheels(ctx)


# ---- The environment of a build -----------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_every_procedure_has_a_source_and_values_for_cuda_and_cpu(name: str) -> None:
    row = ROWS[name]
    assert set(row) == {"variable", "value", "cpu", "source"}
    assert row["variable"] in ("CMAKE_ARGS", "SKBUILD_CMAKE_ARGS")
    assert "CMAKE_CUDA_ARCHITECTURES=" in row["value"]
    assert "CUDA" not in row["cpu"]


def environment(name: str, **changes: Any) -> dict[str, str]:
    variables = {
        "PATH": "/tools:/usr/bin",
        "HOME": "/home/user",
        "CCACHE_DIR": "/c",
        "SOURCE_DATE_EPOCH": "1",
    }
    return baselines.environment(
        fakes.spec(**changes),
        ROWS[name],
        fakes.build_env(variables=variables),
        fakes.compiler(),
        fakes.toolkit() if changes.get("cuda", "13.1") else None,
    )


def test_seed_is_built_for_the_targets_architecture() -> None:
    env = environment("seed", archs=("120a-real",))
    assert env["SKBUILD_CMAKE_ARGS"] == (
        "-G Ninja;-DGGML_CUDA=ON;-DCMAKE_CUDA_ARCHITECTURES=120;"
        '-DCMAKE_CUDA_FLAGS="-allow-unsupported-compiler"'
    )
    root = fakes.toolkit().root
    assert (env["CUDA_PATH"], env["CUDACXX"]) == (root, str(Path(root, "bin", "nvcc")))
    assert (env["CC"], env["CXX"]) == ("/usr/bin/gcc", "/usr/bin/g++")
    assert (env["PATH"], env["HOME"]) == ("/tools:/usr/bin", "/home/user")
    # ggml changes its optimizations if it finds the date. A second build would measure the cache.
    assert not {"CCACHE_DIR", "SOURCE_DATE_EPOCH"} & set(env)
    assert env["CCACHE_DISABLE"] == "1"


def test_upstream_is_built_with_the_flags_of_its_releases() -> None:
    env = environment("upstream", archs=("120-real",))
    words = env["CMAKE_ARGS"].split()
    assert "-DCMAKE_CUDA_ARCHITECTURES=75-real;80-real;86-real;89-real;90-real;90-virtual" in words
    assert "-DGGML_CUDA_FORCE_MMQ=ON" in words
    assert "SKBUILD_CMAKE_ARGS" not in env


def test_a_baseline_for_the_cpu_gets_nothing_of_cuda() -> None:
    env = environment("seed", cuda=None, archs=())
    assert env["SKBUILD_CMAKE_ARGS"] == "-G Ninja"
    assert not any("CUDA" in name for name in env)
    assert environment("upstream", cuda=None, archs=())["CMAKE_ARGS"] == "-DGGML_NATIVE=off"


# ---- The build ----------------------------------------------------------------------------------


class Builder:
    """Stands for ``python -m build``: leaves wheels in its outdir."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.env: Mapping[str, str] = {}
        self.made = [NAME]
        self.code = 0
        self.lines = ["[1/2] Building CUDA object a.cu.o", "[2/2] Linking b.so"]

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str], **how: Any) -> Finished:
        self.commands.append(list(command))
        self.env = env
        assert (Path(command[-1]) / "pyproject.toml").read_text() == "upstream's own\n"
        for line in self.lines:
            how["log"].write(line + "\n")
            how["on_line"](line)
        dist = Path(command[command.index("--outdir") + 1])
        dist.mkdir()
        for name in self.made:
            (dist / name).write_bytes(b"by another procedure")
        return Finished((), self.code, "", 0.0)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    fake = Builder()
    monkeypatch.setattr("sessions.shared.programs.stream", fake)
    monkeypatch.setattr(build_tools, "tools", lambda ctx: ctx.cache / "tools")
    return fake


def test_a_baseline_is_built_in_its_own_folder(tmp_path: Path, builder: Builder) -> None:
    ctx = benching(tmp_path, "--baseline", "seed")
    (path,) = baselines.wheels(ctx)
    assert path == tmp_path / "wheels" / "rtx50+seed" / NAME
    assert path.read_bytes() == b"by another procedure"
    wheel = records.need(path.parent / "wheel.json", "wheel", Wheel)
    assert (wheel.target, wheel.file, wheel.steps) == ("rtx50+seed", NAME, 2)
    assert wheel.sha256 == records.file_sha256(path)
    assert disk.is_marked(tmp_path / "build" / "rtx50+seed")
    assert "SKBUILD_CMAKE_ARGS" in builder.env
    assert builder.env["CMAKE_BUILD_PARALLEL_LEVEL"] == str(fakes.chain().jobs)
    # The target's own build is as it was.
    assert not (ctx.build / "src").exists()
    assert not ctx.wheels.exists()


def test_a_baseline_is_built_again_only_after_a_change(tmp_path: Path, builder: Builder) -> None:
    ctx = benching(tmp_path, "--baseline", "seed")
    (path,) = baselines.wheels(ctx)

    def builds() -> int:
        before = len(builder.commands)
        assert baselines.wheels(ctx) == [path]
        assert path.read_bytes() == b"by another procedure"
        return len(builder.commands) - before

    assert builds() == 0
    path.unlink()
    assert builds() == 1
    path.write_bytes(b"by anoth")  # half of it, or another
    assert builds() == 1
    tree = tmp_path / "build" / "rtx50+seed" / "tree"
    tree.mkdir()
    records.write(ctx.record("toolkit"), "toolkit", fakes.toolkit(fingerprint="b" * 64))
    assert builds() == 1
    assert not tree.exists()  # another toolkit had compiled it
    build = records.need(ctx.record("configure"), "configure", BuildEnv)
    folders = {**build.variables, "TMPDIR": "/scratch", "HOME": "/home/other"}
    moved = dataclasses.replace(build, variables=folders)
    records.write(ctx.record("configure"), "configure", moved)
    assert builds() == 0
    for field in ("identity", "linked"):
        compiler = fakes.compiler(**{field: {"cc1plus": "of a later revision"}})
        records.write(ctx.record("probe"), "probe", fakes.chain(compiler=compiler))
        assert builds() == 1


@pytest.mark.parametrize("changed", ["baselines.py", "compilation.py"])
def test_a_baseline_is_built_again_after_a_change_of_its_procedure(
    changed: str, tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = benching(tmp_path, "--baseline", "seed")
    baselines.wheels(ctx)
    before, real = len(builder.commands), code_digest.code
    monkeypatch.setattr(code_digest, "code", lambda p: "new" if p.name == changed else real(p))
    baselines.wheels(ctx)
    assert len(builder.commands) == before + 1


def test_an_interrupted_copy_leaves_no_wheel(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def killed(source: Path, target: Path, **how: Any) -> object:
        if not str(target).endswith(".part"):
            return copyfile(source, target, **how)
        target.write_bytes(b"by anoth")
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        baselines.wheels(benching(tmp_path, "--baseline", "seed"))
    assert list((tmp_path / "wheels" / "rtx50+seed").iterdir()) == []


def test_processes_of_a_killed_run_are_ended_first(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, ...]] = []
    monkeypatch.setattr(programs, "end_leftovers", lambda *mark: ended.append(mark))
    baselines.wheels(benching(tmp_path, "--baseline", "seed"))
    assert ended == [("BLACKWHEEL_BUILD", builder.env["BLACKWHEEL_BUILD"])]


def test_a_failed_build_shows_its_first_error_and_is_continued(
    tmp_path: Path, builder: Builder
) -> None:
    ctx = benching(tmp_path, "--baseline", "upstream")
    lines, builder.lines, builder.code = builder.lines, ["a.cpp:3: error: no such thing"], 1
    with raises("build-failed") as caught:
        baselines.wheels(ctx)
    assert "no such thing" in caught.value.evidence
    assert not (tmp_path / "wheels" / "rtx50+upstream").exists()
    tree = tmp_path / "build" / "rtx50+upstream" / "tree"
    tree.mkdir()
    builder.lines, builder.code = lines, 0
    baselines.wheels(ctx)
    assert tree.exists()


@pytest.mark.parametrize("made", [[], [NAME, "b-1-py3-none-any.whl"]])
def test_a_build_that_leaves_no_wheel_or_two_fails(
    made: list[str], tmp_path: Path, builder: Builder
) -> None:
    builder.made = made
    with raises("baseline-build-output"):
        baselines.wheels(benching(tmp_path, "--baseline", "seed"))


def test_seed_cannot_be_built_for_two_architectures(tmp_path: Path) -> None:
    ctx = benching(tmp_path, "--baseline", "seed", spec=fakes.spec(archs=("90-real", "120-real")))
    with raises("baseline-two-architectures"):
        baselines.wheels(ctx)


def test_a_baseline_needs_the_records_of_the_target(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        baselines.wheels(fakes.context(tmp_path, "--baseline", "seed"))
    assert caught.value.remedy == "nox -s configure -- --target rtx50"


# ---- PTX only ----------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands for the nox process that builds the wheel; the calls of it."""
    ran: list[Any] = []

    def follow(root: Path, sessions: Sequence[str], target: str, more: Sequence[str]) -> int:
        ran.append((list(sessions), target, list(more)))
        folder = root / "build" / "rtx50+arch120-virtual"
        records.write(folder / "wheel.json", "wheel", fakes.wheel(file="ptx.whl"))
        return 0

    monkeypatch.setattr(child_nox, "follow", follow)
    return ran


def test_ptx_is_our_build_with_another_architecture(tmp_path: Path, nested: list[Any]) -> None:
    ctx = benching(tmp_path, "--target", "rtx50", "--baseline", "ptx", "--jobs", "3")
    (path,) = baselines.wheels(ctx)
    assert path == tmp_path / "wheels" / "rtx50+arch120-virtual" / "ptx.whl"
    assert nested == [
        (["wheel"], "rtx50", ["--jobs=3", "--arch=120-virtual"]),
    ]


def test_a_ptx_build_that_fails_names_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_nox, "follow", lambda *_: 1)
    with raises("baseline-ptx-build-failed") as caught:
        baselines.wheels(benching(tmp_path, "--baseline", "ptx"))
    assert "nox -s wheel -- --target rtx50 --arch 120-virtual" in caught.value.remedy


def test_a_wheel_for_the_cpu_has_no_ptx(tmp_path: Path) -> None:
    (tmp_path / "targets.toml").write_text(TARGETS, encoding="utf-8")
    words = ("--target", "cpu", "--baseline", "ptx")
    with raises("baseline-ptx-of-cpu"):
        baselines.wheels(fakes.context(tmp_path, *words, spec=fakes.cpu_spec()))


def test_the_target_cannot_be_its_own_baseline(tmp_path: Path) -> None:
    """Its build would wait for the lock that this run holds."""
    ctx = benching(tmp_path, "--baseline", "ptx", "--arch", "120-virtual")
    with raises("baseline-is-the-target") as caught:
        baselines.wheels(ctx)
    assert caught.value.code == USAGE
