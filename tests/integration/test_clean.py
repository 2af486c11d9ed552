"""``clean`` deletes outputs whose inputs have changed, and keeps the files of others."""

from __future__ import annotations

from pathlib import Path

from tests.integration.conftest import SOURCES, Checkout, SlowCompiler, snapshot, write_program


def test_only_a_tree_of_other_inputs_is_deleted_with_the_reason(
    mini: Checkout, slow_compiler: SlowCompiler, tmp_path: Path
) -> None:
    mini.nox().well()
    before = snapshot(mini.build / "tree")
    run = mini.project.nox("clean", *mini.options).well()
    assert "clean: nothing stale" in run.output
    write_program(tmp_path / "no compiler" / "g++", "#!/bin/sh\nexit 1\n")
    mini.nox("--compiler", str(tmp_path / "no compiler" / "g++")).badly("--compiler")
    assert snapshot(mini.build / "tree") == before, "deleted although the probe failed"
    run = mini.nox("--compiler", slow_compiler.options[1]).well()
    (line,) = (line for line in run.output.splitlines() if line.startswith("deleting "))
    assert line.startswith(f"deleting {mini.build / 'tree'}: compiler: gnu ")
    assert " then, gnu " in line
    assert slow_compiler.options[1] in line
    assert len(mini.compiled()) == SOURCES


def test_clean_all(mini: Checkout, tmp_path: Path) -> None:
    mini.project.nox("clean", "--all").well()  # in a fresh clone
    mini.nox().well()
    project, cache = mini.project, Path(mini.project.env["BLACKWHEEL_CACHE"])
    foreign = project.root / "build" / "not ours" / "work.txt"
    foreign.parent.mkdir()
    foreign.write_text("of someone else")
    sources = project.root / "llama-cpp-python-src" / "of mine" / "work.txt"
    sources.parent.mkdir(parents=True)
    sources.write_text("of someone else")
    wheels, tools = snapshot(mini.wheels), sorted(p.name for p in cache.iterdir())
    checkout = snapshot(mini.path)

    before = snapshot(mini.build)
    run = project.nox("clean", *mini.options, "--all", "--dry-run").well()
    assert f"would delete {mini.build}: " in run.output
    assert "not ours" not in run.output
    assert {n: s for n, s in snapshot(mini.build).items() if n in before} == before

    run = project.nox("clean", *mini.options, "--all").well()
    assert f"deleting {mini.build}: " in run.output
    assert not mini.build.exists()

    assert foreign.read_text() == sources.read_text() == "of someone else"
    assert snapshot(mini.wheels) == wheels
    assert sorted(p.name for p in cache.iterdir()) == tools
    assert snapshot(mini.path) == checkout

    mini.nox().well()
    assert mini.record["cache"] == {"hits": SOURCES, "misses": 0}
