"""``matrix``: which wheels it makes, in which order and at what cost; what a failure leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions.build import python_tag
from sessions.build.record_types import Wheel
from sessions.command_line import child_nox
from sessions.matrix import main_matrix
from sessions.matrix.record_types import Matrix, MatrixRow
from sessions.shared import console, knowledge, locks, programs, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.targets import choose_target, targets_file
from sessions.verify import diff
from tests import fakes
from tests.problems import raises
from tests.unit.test_python_tag import LINUX, pack

TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
Output = pytest.CaptureFixture[str]


# ---- options -------------------------------------------------------------------------------------


def labels(*words: str) -> list[str]:
    return [found.target for found in choose_target.matrix(TARGETS, fakes.parsed(*words))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--targets cpu,hopper", "cpu hopper"),
        # The target's own Python builds, even if it is not named.
        ("--targets rtx50,ada --pythons 3.11,3.12", "rtx50 rtx50+py3.12 ada ada+py3.12"),
        ("--targets cpu --pythons 3.12", "cpu cpu+py3.12"),
        ("--targets cpu --pythons 3.10,3.11 --python 3.12", "cpu+py3.12 cpu+py3.10 cpu"),
        (
            "--targets ' cpu, rtx50,,cpu ' --pythons '3.12 ,3.12'",
            "cpu cpu+py3.12 rtx50 rtx50+py3.12",
        ),
    ],
)
def test_the_wheels_that_the_options_name(words: str, expected: str) -> None:
    assert labels(*shlex.split(words)) == expected.split()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "--targets names nothing"),
        (("--targets", " , "), "--targets names nothing"),
        (("--targets", "cpu", "--pythons", ","), "--pythons names nothing"),
        (("--targets", "cpu,rtx5"), "There is no target 'rtx5'"),
        (("--targets", "all,cpu"), "There is no target 'all'"),
        (("--targets", "cpu", "--pythons", "3.11,3.99"), "No wheel can be built for Python 3.99"),
        (("--targets", "cpu", "--pythons", "3.7,12"), "No wheel can be built for Python 3.7, 12"),
    ],
    ids=str,
)
def test_invalid_options_are_refused(words: tuple[str, ...], what: str) -> None:
    with pytest.raises(Problem) as caught:
        labels(*words)
    assert caught.value.what.startswith(what)
    assert caught.value.remedy


def test_the_known_pythons_include_those_of_every_target() -> None:
    assert {found.python for found in TARGETS.values()} <= set(knowledge.pythons())
    assert knowledge.pythons()[0] == "3.8"


# ---- a project with fake child sessions ----------------------------------------------------------


@dataclasses.dataclass
class World:
    """A project with fake child sessions: their calls, and the files that they leave."""

    root: Path
    calls: list[tuple[list[str], str, list[str]]] = dataclasses.field(default_factory=list)
    codes: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    metadata: str = "Name: llama_cpp_python\nRequires-Python: >=3.8\n"
    output: str = "error: The build failed.\n    the first error\n"
    locks: list[str] = dataclasses.field(default_factory=list)

    def heard(
        self,
        root: Path,
        sessions: Sequence[str],
        target: str,
        more: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
    ) -> int:
        assert (root, env) == (self.root, {"PATH": "/usr/bin"})
        self.calls.append((list(sessions), target, list(more)))
        code = self.codes.get((sessions[0], target), 0)
        log.write_text(self.output if code else "✓ all is well\n", encoding="utf-8")
        if sessions[0] == "wheel" and not code:
            self.build(target, "--fresh" in more)
        return code

    def build(self, target: str, fresh: bool) -> None:
        """Leave the outputs of ``nox -s wheel verify``, if there are none or with ``--fresh``."""
        record = self.root / "build" / target / "wheel.json"
        if record.exists() and not fresh:
            return
        tag = self.tags.get(target, "cp311-cp311")
        folder = self.root / "wheels" / target
        folder.mkdir(parents=True, exist_ok=True)
        path = pack(folder / LINUX.replace("cp311-cp311", tag), tag, target, metadata=self.metadata)
        wheel = fakes.wheel(
            file=path.name,
            sha256=records.file_sha256(path),
            size=path.stat().st_size,
            target=target,
            cache={"hits": 51, "misses": 101},
        )
        records.write(record, "wheel", wheel)
        records.write(folder / "wheel.json", "wheel", wheel)
        records.write(record.with_name("source.json"), "source", fakes.source())
        records.write(record.with_name("toolkit.json"), "toolkit", fakes.toolkit())

    def context(self, *words: str) -> Context:
        specs = choose_target.matrix(TARGETS, fakes.parsed(*words))
        return fakes.context(
            self.root,
            *words,
            session="matrix",
            asked=frozenset({"matrix"}),
            spec=specs[0],
            specs=tuple(specs),
            env={"PATH": "/usr/bin"},
        )

    def run(self, *words: str) -> tuple[MatrixRow, ...]:
        main_matrix.main(self.context(*words))
        return self.rows()

    def rows(self) -> tuple[MatrixRow, ...]:
        return self.matrix().rows

    def matrix(self) -> Matrix:
        path = self.root / "build" / "matrix.json"
        found = records.read(path, "matrix", Matrix, failed=True)
        assert found is not None
        return found

    def session_calls(self) -> list[tuple[str, str]]:
        """Session and target of each child except probes."""
        return [(s[0], target) for s, target, _ in self.calls if s != ["probe"]]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(child_nox, "heard", world.heard)
    real = locks.lock

    def lock(path: Path, waiting: Any) -> Any:
        world.locks.append(path.name)
        return real(path, waiting)

    monkeypatch.setattr(locks, "lock", lock)
    (tmp_path / "build").mkdir()
    return world


def outcomes(rows: Sequence[MatrixRow]) -> list[tuple[str, str, str]]:
    return [(row.target, row.python, row.outcome) for row in rows]


BOTH = ("--targets", "rtx50,ada", "--pythons", "3.10,3.11")


def test_another_python_is_repacked_and_another_target_uses_the_cache(
    world: World, capsys: Output
) -> None:
    rows = world.run(*BOTH)
    assert outcomes(rows) == [
        ("rtx50", "3.11", "built"),
        ("rtx50", "3.10", "repacked"),
        ("ada", "3.11", "built"),
        ("ada", "3.10", "repacked"),
    ]
    # Two builds, two checks of repacked wheels, and one probe.
    steps = [("wheel", "rtx50"), ("verify", "rtx50"), ("wheel", "ada"), ("verify", "ada")]
    assert world.session_calls() == steps
    probes = [(target, words) for session, target, words in world.calls if session == ["probe"]]
    assert probes == [("rtx50", [])]
    assert rows[0].shared == ("51 objects",)
    assert rows[1].shared == ("the wheel of 3.11",)
    assert rows[2].shared == ("source 0.3.16", "CUDA 13.1", "51 objects")
    assert [sum(row.cache.values()) for row in rows] == [152, 0, 152, 0]
    output = capsys.readouterr().out
    for row in rows:
        path = world.root / "wheels" / row.folder / row.file
        assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert row.size == path.stat().st_size
        assert str(path) in output
    assert "51 of 152" in output
    assert "matrix: 4 wheels in" in output


def test_the_repacked_wheel_is_verified_for_its_python(world: World) -> None:
    rows = world.run("--targets", "rtx50", "--pythons", "3.12", "--jobs", "3")
    assert rows[1].folder == "rtx50+py3.12"
    path = world.root / "wheels" / "rtx50+py3.12" / LINUX.replace("cp311", "cp312")
    assert world.calls[-1][2] == [
        "--python=3.12", f"--wheel={path}",
    ]  # fmt: skip
    assert world.calls[1][2] == ["--jobs=3"]


def test_a_repacked_wheel_equals_a_built_one(world: World, tmp_path: Path) -> None:
    (_, row) = world.run("--targets", "cpu", "--pythons", "3.12")
    path = world.root / "wheels" / "cpu+py3.12" / row.file
    (tmp_path / "whole").mkdir()
    whole = pack(
        tmp_path / "whole" / row.file, "cp312-cp312", "cpu+py3.12", metadata=world.metadata
    )
    assert diff.differences(path, whole) == ()
    beside = records.need(path.parent / "wheel.json", "wheel", Wheel)
    base = records.need(world.root / "build" / "cpu" / "wheel.json", "wheel", Wheel)
    assert (beside.file, beside.sha256, beside.target) == (row.file, row.sha256, "cpu+py3.12")
    assert (beside.libraries, beside.source_digest) == (base.libraries, base.source_digest)
    assert (beside.steps, beside.cache, beside.timing) == (0, {}, {})
    assert beside.sbom != base.sbom
    assert sorted(p.name for p in path.parent.iterdir()) == [row.file, "wheel.json"]
    assert "cpu+py3.12.lock" in world.locks


def test_a_wheel_for_every_python_is_made_once(world: World, capsys: Output) -> None:
    world.tags["rtx50-fp4"] = "py3-none"
    rows = world.run("--targets", "rtx50-fp4", "--pythons", "3.9,3.11,3.14")
    assert outcomes(rows) == [
        ("rtx50-fp4", "3.11", "built"),
        ("rtx50-fp4", "3.9", "same"),
        ("rtx50-fp4", "3.14", "same"),
    ]
    assert len({(row.folder, row.file, row.sha256) for row in rows}) == 1
    assert [(r.wall_seconds, r.cpu_seconds, r.cache) for r in rows[1:]] == [(0.0, 0.0, {})] * 2
    assert rows[1].shared == ("the wheel of 3.11",)
    assert world.session_calls() == [("wheel", "rtx50-fp4")]
    assert not (world.root / "wheels" / "rtx50-fp4+py3.9").exists()
    assert capsys.readouterr().out.count("-py3-none-") == 1


def test_a_second_run_is_up_to_date(world: World) -> None:
    first = world.run(*BOTH)
    world.calls.clear()
    files = {p: p.stat().st_mtime_ns for p in (world.root / "wheels").rglob("*") if p.is_file()}
    rows = world.run(*BOTH)
    assert {row.outcome for row in rows} == {"up to date"}
    assert [r.sha256 for r in rows] == [r.sha256 for r in first]
    assert {row.shared for row in rows} == {()}
    assert world.session_calls() == [("wheel", "rtx50"), ("wheel", "ada")]  # which are up to date
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_fresh_makes_every_wheel_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("--targets", "cpu", "--pythons", "3.12")
    wheel = fakes.wheel
    monkeypatch.setattr(fakes, "wheel", lambda **c: wheel(**{"wall_seconds": 1.0, **c}))
    rows = world.run("--targets", "cpu", "--pythons", "3.12", "--fresh")
    assert [row.outcome for row in rows] == ["built", "repacked"]
    assert world.calls[-2][0] == ["wheel", "verify"]
    assert "--fresh" in world.calls[-2][2]


@pytest.mark.parametrize("damage", ["gone", "changed", "record", "base"])
def test_a_changed_wheel_or_record_is_repacked(world: World, damage: str) -> None:
    words = ("--targets", "cpu", "--pythons", "3.12")
    _, row = world.run(*words)
    path = world.root / "wheels" / "cpu+py3.12" / row.file
    match damage:
        case "gone":
            path.unlink()
        case "changed":
            path.write_bytes(b"something else")
        case "record":
            (world.root / "build" / "cpu+py3.12" / "repack.json").write_text("{}")
        case "base":
            world.metadata += "Summary: another\n"
            (world.root / "build" / "cpu" / "wheel.json").unlink()
    world.calls.clear()
    _, again = world.run(*words)
    assert again.outcome == "repacked"
    assert ("verify", "cpu") in world.session_calls()
    assert (again.sha256 == row.sha256) is (damage != "base")
    assert records.file_sha256(path) == again.sha256


def test_a_repacked_wheel_without_a_check_is_not_up_to_date(world: World) -> None:
    """If a run is killed before the check, or the check fails, the next run repeats it."""
    world.codes["verify", "cpu"] = 1
    with raises("matrix-incomplete"):
        world.run("--targets", "cpu", "--pythons", "3.12")
    world.codes.clear()
    world.calls.clear()
    _, row = world.run("--targets", "cpu", "--pythons", "3.12")
    assert row.outcome == "repacked"
    assert world.session_calls() == [("wheel", "cpu"), ("verify", "cpu")]


def test_the_record_of_a_build_with_the_same_bytes_stays(world: World, tmp_path: Path) -> None:
    _, row = world.run("--targets", "cpu", "--pythons", "3.12")
    beside = world.root / "wheels" / "cpu+py3.12" / "wheel.json"
    full = dataclasses.replace(records.need(beside, "wheel", Wheel), steps=59, fingerprint="full")
    records.write(beside, "wheel", full)
    (world.root / "build" / "cpu+py3.12" / "repack.json").unlink()
    _, again = world.run("--targets", "cpu", "--pythons", "3.12")
    assert (again.outcome, again.sha256) == ("repacked", row.sha256)
    assert records.need(beside, "wheel", Wheel) == full


def test_a_wheel_with_another_name_is_deleted(world: World) -> None:
    folder = world.root / "wheels" / "cpu+py3.12"
    folder.mkdir(parents=True)
    (folder / "old.whl").write_bytes(b"old")
    records.write(folder / "wheel.json", "wheel", fakes.wheel(file="old.whl"))
    _, row = world.run("--targets", "cpu", "--pythons", "3.12")
    assert sorted(p.name for p in folder.iterdir()) == [row.file, "wheel.json"]


# ---- failures ------------------------------------------------------------------------------------


def test_after_a_failure_the_others_are_made(world: World, capsys: Output) -> None:
    world.codes["wheel", "rtx50"] = 1
    with raises("matrix-incomplete") as caught:
        world.run(*BOTH, "--jobs", "2")
    assert outcomes(world.rows()) == [
        ("rtx50", "3.11", "failed"),
        ("rtx50", "3.10", "failed"),
        ("ada", "3.11", "built"),
        ("ada", "3.10", "repacked"),
    ]
    fix = "nox -s verify -- --target=rtx50 --jobs=2"
    assert world.rows()[0].reason == "The build failed."
    assert world.rows()[0].remedy == fix
    assert world.rows()[1].reason == "the wheel of Python 3.11, of which this one is made, failed"
    assert caught.value.what == "Not all wheels were made: 2 of 4 failed."
    assert "rtx50, Python 3.11: The build failed." in caught.value.evidence
    assert caught.value.remedy.splitlines() == [
        f"1. {fix}", "2. run the same command again",
    ]  # fmt: skip
    assert "failed" in capsys.readouterr().out
    record = world.root / "build" / "matrix.json"
    assert records.read(record, "matrix", Matrix) is None  # it is not ok


def fails_verify(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.codes["verify", "cpu"] = 1
    world.output = "✗ sbom: untrue\n✗ record: untrue\nerror: 2 checks fail.\n"


def excludes_python(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.metadata = "Requires-Python: >=3.11\n"


def calls_python(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_tag, "calls", lambda _: ["PyInit_x in llama_cpp/x.so"])


def wheel_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = world.build

    def build(target: str, fresh: bool) -> None:
        real(target, fresh)
        (path,) = (world.root / "wheels" / target).glob("*.whl")
        assert pack(path, "cp311-cp311", "somebody else's") == path

    monkeypatch.setattr(world, "build", build)


def disk_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = python_tag.retagged

    def retagged(wheel: Path, path: Path, python: str, target: str) -> str:
        if python == "3.10":
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        return real(wheel, path, python, target)

    monkeypatch.setattr(python_tag, "retagged", retagged)


@pytest.mark.parametrize(
    ("plant", "reason", "remedy", "others"),
    [
        (
            fails_verify,
            "2 checks fail. (sbom: untrue; record: untrue)",
            "--target=cpu --python=3.10 --wheel={path}",
            "failed",
        ),
        (
            excludes_python,
            "the wheel of 3.11 cannot serve Python 3.10: Requires-Python is >=3.11",
            "leave 3.10 out of --pythons",
            "repacked",
        ),
        (
            calls_python,
            "The libraries call PyInit_x in llama_cpp/x.so of Python, so each Python version "
            "needs its own build.",
            "nox -s verify -- --target=cpu --python=3.10",
            "failed",
        ),
        (wheel_changed, "was changed after it was tested", "run the same", "failed"),
        (disk_full, "The disk is full.", "", "repacked"),
    ],
)
def test_a_wheel_that_cannot_be_repacked_is_a_failed_row(
    plant: Callable[[World, pytest.MonkeyPatch], None],
    reason: str,
    remedy: str,
    others: str,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(world, monkeypatch)
    with raises("matrix-incomplete"):
        world.run("--targets", "cpu", "--pythons", "3.10,3.12")
    assert [row.outcome for row in world.rows()] == ["built", "failed", others]
    row = world.rows()[1]
    folder = world.root / "wheels" / "cpu+py3.10"
    assert reason in row.reason
    assert remedy.format(path=folder / LINUX.replace("cp311", "cp310")) in row.remedy
    if plant is disk_full:
        assert list(folder.iterdir()) == []
    else:
        assert folder.exists() is (plant is fails_verify)


def test_an_unexpected_error_is_not_a_failed_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retagged(*_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(python_tag, "retagged", retagged)
    with pytest.raises(OSError, match="Input/output"):
        world.run("--targets", "cpu", "--pythons", "3.12")


def test_without_a_python_nothing_is_built(world: World) -> None:
    world.codes["probe", "rtx50"] = 1
    world.output = (
        "✗ Python 3.11: none found (64-bit, on PATH)\n"
        "error: The target 'rtx50' cannot be built here.\n"
    )
    (world.root / "build" / "matrix.json").write_text("of an earlier run")
    with raises("matrix-nothing-built") as caught:
        world.run(*BOTH)
    assert caught.value.what == (
        "Nothing was built. The target 'rtx50' cannot be built here. "
        "(Python 3.11: none found (64-bit, on PATH))"
    )
    assert "--python X.Y" in caught.value.remedy
    assert world.session_calls() == []
    assert not (world.root / "build" / "matrix.json").exists()
    assert not (world.root / "wheels").exists()


# ---- pure parts ----------------------------------------------------------------------------------


def test_groups_keep_their_order() -> None:
    specs = choose_target.matrix(TARGETS, fakes.parsed(*BOTH))
    found = [[s.target for s in group] for group in main_matrix.groups([*specs[2:], *specs[:2]])]
    assert found == [["ada", "ada+py3.10"], ["rtx50", "rtx50+py3.10"]]


def row(**changes: Any) -> MatrixRow:
    numbers = {"size": 19_440_000, "wall_seconds": 1362.04, "cpu_seconds": 2638.0}
    cache = {"hits": 51, "misses": 101, "remote_hits": 3}
    shared = ("source 0.3.16", "51 objects")
    named = {"target": "rtx50", "python": "3.11", "outcome": "built", **numbers}
    return fakes.matrix_row(**{**named, "cache": cache, "shared": shared, **changes})


def test_the_cells_of_a_row() -> None:
    assert main_matrix.cells(row()) == (
        "rtx50", "3.11", "built", "19.4", "1362.0 s", "2638.0 s", "51 of 152",
        "source 0.3.16, 51 objects",
    )  # fmt: skip
    assert len(main_matrix.cells(row())) == len(main_matrix.COLUMNS)
    assert main_matrix.cells(row(cpu_seconds=None, cache={}))[5:7] == ("", "")


def test_a_failed_row_has_no_numbers() -> None:
    spec_ = fakes.spec()
    failed = main_matrix.failed(spec_, "why", "the command")
    assert main_matrix.cells(failed) == ("rtx50", "3.11", "failed", "", "", "", "", "why: below")
    assert (failed.file, failed.reason, failed.remedy) == ("", "why", "the command")


def test_only_shared_things_are_listed() -> None:
    mine, kit = fakes.source(), fakes.toolkit()
    other = fakes.source(path="/elsewhere"), fakes.toolkit(root="/other")
    assert main_matrix.shared((mine, kit, {"hits": 0, "misses": 5}), []) == ()
    assert main_matrix.shared((mine, kit, {}), [other]) == ()
    assert main_matrix.shared((mine, None, {}), [(mine, kit)]) == ("source 0.3.16",)
    assert main_matrix.shared((mine, kit, {}), [other, (None, kit)]) == ("CUDA 13.1",)
    assert main_matrix.shared((None, None, {"hits": 3}), [(None, None)]) == ("3 objects",)


def command(label: BuildSpec, *words: str) -> str:
    ctx = World(Path("/work")).context("--targets", "rtx50", *words)
    return main_matrix.command(ctx, label)


def test_the_command_for_one_wheel() -> None:
    base, other = choose_target.matrix(
        TARGETS, fakes.parsed("--targets", "rtx50", "--pythons", "3.12")
    )
    assert command(base) == "nox -s verify -- --target=rtx50"
    assert command(other) == "nox -s verify -- --target=rtx50 --python=3.12"
    words = ("--cache", "none", "--source", "/my checkout")
    arguments = ["--target=rtx50", "--source=/my checkout", "--cache=none"]
    assert command(base, *words) == programs.typed(["nox", "-s", "verify", "--", *arguments])

    with_python = fakes.parsed("--targets", "rtx50", "--python", "3.12", "--pythons", "3.11")
    built, own = choose_target.matrix(TARGETS, with_python)
    assert command(built, "--python", "3.12") == "nox -s verify -- --target=rtx50 --python=3.12"
    assert command(own, "--python", "3.12") == "nox -s verify -- --target=rtx50"


# ---- child sessions ------------------------------------------------------------------------------


def test_the_output_of_child_sessions_is_printed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    ran: list[Any] = []

    def stream(command: Sequence[str], *, env: Any, log: Any, on_line: Any) -> programs.Finished:
        ran.append((list(command), env))
        log.write("one\n")
        on_line("one")
        return programs.Finished(tuple(command), 3, "", 0.1)

    monkeypatch.setattr(programs, "stream", stream)
    log = tmp_path / "deep" / "matrix.log"
    code = child_nox.heard(
        tmp_path, ["wheel", "verify"], "cpu", ["--jobs=2"], env={"A": "1"}, log=log
    )
    assert code == 3
    expected = child_nox.command(tmp_path, ["wheel", "verify"], "cpu", ["--jobs=2"])
    assert ran == [(expected, {"A": "1"})]
    assert expected[-5:] == ["wheel", "verify", "--", "--target=cpu", "--jobs=2"]
    assert log.read_text() == "one\n"
    assert capsys.readouterr().out == "one\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "error: The build failed. The first error:\n    a.cpp:6: error\n"
            "Fix: read it.\nnox > Ran 2 sessions\nnox > * wheel: failed\n",
            "The build failed. The first error: a.cpp:6: error",
        ),
        (
            "✓ memory: fine\n✗ Python 3.13: none found\n    fix: install\n"
            "error: It cannot be built here.\n",
            "It cannot be built here. (Python 3.13: none found)",
        ),
        ("x disk: full\nerror: No.\n", "No. (disk: full)"),
        ("Traceback\nMemoryError\n\n", "MemoryError"),
        ("", "it said nothing"),
    ],
    ids=["problem", "checks", "ascii", "no nox", "silence"],
)
def test_the_reason_comes_from_the_output(output: str, expected: str) -> None:
    assert child_nox.reason(output) == expected


def test_the_table_fits_80_columns(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_WIDE", 80)  # as on a terminal; in a pipe no cell is folded
    console.table(
        "",
        main_matrix.COLUMNS,
        [main_matrix.cells(row()), main_matrix.cells(row(outcome="up to date"))],
    )
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any("up to date" in line for line in lines)
