"""What clean deletes and why, with and without options, and what it never deletes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sessions.build import build_inputs, main_clean
from sessions.probe.record_types import Toolchain
from sessions.shared import disk, locks, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from tests import fakes
from tests.problems import raises

SOURCES = "llama-cpp-python-src"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """A project in which rtx50 was built from the current inputs."""
    context = fakes.context(tmp_path, session="clean")
    disk.mark(tmp_path / "build")
    disk.mark(context.build)
    disk.mark(context.build / "tree")
    (context.build / "tree" / "build.ninja").write_text("")
    records.write(context.record("probe"), "probe", fakes.chain())
    built_from(context, context.spec, fakes.chain())
    disk.mark(tmp_path / SOURCES / "0.3.16")
    (tmp_path / SOURCES / "README.md").write_text("kept")
    return context


def built_from(ctx: Context, spec: BuildSpec, chain: Toolchain) -> None:
    noted = build_inputs.tree(spec, chain, ctx.root, ctx.cache) | {"source files": "of then"}
    records.write(ctx.build / "inputs.json", "inputs", noted)


def with_options(ctx: Context, *words: str) -> Context:
    return dataclasses.replace(ctx, options=fakes.parsed(*words), asked=frozenset({"clean"}))


def names(ctx: Context, removals: list[main_clean.Removal]) -> list[str]:
    return [removal.path.relative_to(ctx.root).as_posix() for removal in removals]


def test_a_tree_of_the_current_inputs_is_kept(ctx: Context) -> None:
    words = dataclasses.replace(ctx.spec, summary="other", warning="mind", budget_mb=99)
    for spec in (ctx.spec, words):
        assert main_clean.stale(dataclasses.replace(ctx, spec=spec)) == []
    main_clean.main(ctx)
    assert (ctx.build / "tree" / "build.ninja").exists()


def of(**changes: Any) -> dict[str, Any]:
    """What the probe finds with another compiler."""
    return {"compiler": fakes.compiler(**changes)}


@pytest.mark.parametrize(
    ("spec", "then", "now", "why"),
    [
        (
            {},
            of(version="11.4.0"),
            {},
            "compiler: gnu 11.4.0 /usr/bin/g++ then, gnu 12.2.0 /usr/bin/g++ now",
        ),
        ({"archs": ("90-real",)}, {}, {}, "architectures: 90-real then, 120-real now"),
        ({"cache": "none"}, {}, {}, "compiler cache: none then, ccache now"),
        ({"source": "/src/mine"}, {}, {}, "source: a checkout then, 0.3.16 34ed0f9bd9431af0 now"),
        ({}, {"python": fakes.python(version="3.11.9")}, {}, "python: 3.11.9 then, 3.11.2 now"),
        (
            {},
            {"python": fakes.python(path="/opt/python3.11")},
            {},
            "Python's path: /opt/python3.11 then, /usr/bin/python3.11 now",
        ),
        (
            {"cache": "none", "archs": ("90-real",)},
            {},
            {},
            "architectures: 90-real then, 120-real now; compiler cache: none then, ccache now",
        ),
        (
            {},
            of(identity={"cc1plus": "a"}),
            of(identity={"cc1plus": "b"}),
            "compiler's cc1plus: a then, b now",
        ),
        ({}, {}, of(identity={"cc1plus": "b"}), "compiler's cc1plus: unknown then, b now"),
        (
            {},
            of(linked={"libgomp.so.1": "a"}),
            of(linked={"libgomp.so.1": "b"}),
            "linked libgomp.so.1: a then, b now",
        ),
    ],
)
def test_a_tree_of_other_inputs_is_deleted_and_each_difference_is_named(
    spec: dict[str, Any], then: dict[str, Any], now: dict[str, Any], why: str, ctx: Context
) -> None:
    built_from(ctx, fakes.spec(**spec), fakes.chain(**then))
    records.write(ctx.record("probe"), "probe", fakes.chain(**now))
    assert main_clean.stale(ctx) == [
        main_clean.Removal(ctx.build / "tree", why, marked=True, lock=ctx.lock_of("rtx50"))
    ]


def test_of_many_differences_only_the_first_are_named(ctx: Context) -> None:
    compiler = fakes.compiler(version="13.1.0", identity=dict.fromkeys("abcdef", "b"))
    records.write(ctx.record("probe"), "probe", fakes.chain(compiler=compiler))
    (removal,) = main_clean.stale(ctx)
    assert removal.why.startswith("compiler: gnu 12.2.0 ")
    assert removal.why.count(" then, ") == main_clean.SHOWN
    assert removal.why.endswith("; and 3 more")


def test_a_tree_of_another_or_changed_installed_toolkit_is_deleted(ctx: Context) -> None:
    system = dataclasses.replace(ctx, spec=fakes.spec(toolkit="system"))
    kits = {name: fakes.chain(toolkit=fakes.installed(files=name)) for name in "ab"}
    built_from(system, system.spec, kits["a"])
    (removal,) = main_clean.stale(ctx)
    assert removal.why.startswith("toolkit: CUDA 13.1 system ")
    records.write(ctx.record("probe"), "probe", kits["a"])
    assert main_clean.stale(system) == []
    records.write(ctx.record("probe"), "probe", kits["b"])
    (removal,) = main_clean.stale(system)
    assert removal.why.startswith("toolkit: ")


def test_a_tree_is_deleted_if_its_cache_was_moved_or_its_inputs_are_unknown(ctx: Context) -> None:
    (removal,) = main_clean.stale(dataclasses.replace(ctx, cache=ctx.root / "elsewhere"))
    assert removal.why.startswith("folders: ")
    (ctx.build / "inputs.json").unlink()
    (removal,) = main_clean.stale(ctx)
    assert removal.why == "no record says what it was made from"
    ctx.record("probe").unlink()  # before the first probe nothing is known
    assert main_clean.stale(ctx) == []


def test_fresh_deletes_the_tree_only_for_the_session_wheel(ctx: Context) -> None:
    fresh = dataclasses.replace(with_options(ctx, "--fresh"), asked=frozenset({"wheel"}))
    assert [removal.why for removal in main_clean.stale(fresh)] == ["--fresh"]
    other = dataclasses.replace(fresh, asked=frozenset({"source"}))
    assert main_clean.stale(other) == []


def test_libraries_in_an_unpacked_source_are_deleted(ctx: Context) -> None:
    left = ctx.root / SOURCES / "0.3.16" / "llama_cpp" / "lib"
    left.mkdir(parents=True)
    (ctx.root / SOURCES / "mine" / "llama_cpp" / "lib").mkdir(parents=True)  # without our mark
    (left / "libllama.so").write_text("")
    assert names(ctx, main_clean.stale(ctx)) == [f"{SOURCES}/0.3.16/llama_cpp/lib"]
    main_clean.main(ctx)
    assert not left.exists()
    assert left.parent.exists()


def test_all_deletes_only_what_was_built_here(ctx: Context) -> None:
    disk.mark(ctx.root / "build" / "cpu")
    notes = ctx.root / "build" / "notes"
    notes.mkdir()
    (notes / "mine.txt").write_text("mine")
    (ctx.root / SOURCES / "mine").mkdir()
    deleted = [f"{SOURCES}/0.3.16", "build/cpu", "build/rtx50"]
    assert names(ctx, main_clean.everything(ctx)) == deleted
    wheel = finished(ctx)
    main_clean.main(with_options(ctx, "--all"))
    assert not any((ctx.root / name).exists() for name in deleted)
    assert (notes / "mine.txt").read_text() == "mine"
    assert (ctx.root / SOURCES / "README.md").exists()
    assert wheel.exists()


def finished(ctx: Context) -> Path:
    """A wheel, its record, and a file of the user beside them."""
    record = fakes.wheel()
    ctx.wheels.mkdir(parents=True)
    (ctx.wheels / record.file).write_text("wheel")
    (ctx.wheels / "mine.whl").write_text("not ours")
    records.write(ctx.wheels / "wheel.json", "wheel", record)
    return ctx.wheels / record.file


def test_wheels_deletes_only_wheels_with_a_record(ctx: Context) -> None:
    wheel = finished(ctx)
    main_clean.main(ctx)
    assert wheel.exists()
    main_clean.main(with_options(ctx, "--wheels"))
    assert [path.name for path in ctx.wheels.iterdir()] == ["mine.whl"]


def test_caches_deletes_everything_in_the_cache_but_the_locks(ctx: Context) -> None:
    disk.mark(ctx.cache)
    (ctx.cache / "ccache").mkdir()
    main_clean.main(with_options(ctx, "--all"))
    assert (ctx.cache / "ccache").exists()
    (ctx.root / "build").mkdir(exist_ok=True)
    main_clean.main(with_options(ctx, "--caches"))
    # The locks are kept: a run that waits for one would otherwise wait for another file than the
    # next run creates.
    assert sorted(path.name for path in ctx.cache.iterdir()) == [disk.TAG, "locks", "tmp"]
    assert not [path for path in (ctx.cache / "tmp").iterdir() if path.is_dir()]


def test_a_cache_folder_that_is_not_ours_is_not_deleted(ctx: Context) -> None:
    (ctx.cache / "precious").mkdir(parents=True)
    with raises("cache-folder-foreign"):
        main_clean.main(with_options(ctx, "--caches"))
    assert (ctx.cache / "precious").exists()


def test_a_dry_run_lists_and_deletes_nothing(
    ctx: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = finished(ctx)
    main_clean.main(with_options(ctx, "--all", "--wheels", "--dry-run"))
    output = capsys.readouterr().out
    assert f"would delete {ctx.build}: --all" in output
    assert f"would delete {wheel}: --wheels" in output
    assert "deleting" not in output
    assert (ctx.build / "tree" / "build.ninja").exists()
    assert wheel.exists()


def test_each_deleted_folder_is_printed_with_the_reason(
    ctx: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    built_from(ctx, fakes.spec(archs=("90-real",)), fakes.chain())
    main_clean.main(ctx)
    assert (
        f"deleting {ctx.build / 'tree'}: architectures: 90-real then, 120-real now"
        in capsys.readouterr().out
    )
    assert not (ctx.build / "tree").exists()
    assert ctx.record("probe").exists()


def test_all_keeps_the_folder_that_another_run_uses(ctx: Context) -> None:
    busy = ctx.root / "build" / "hopper+v0.3.36"
    disk.mark(busy)
    with locks.lock(busy.with_name(f"{busy.name}.lock"), lambda _: None):
        main_clean.main(with_options(ctx, "--all"))
    assert busy.exists()
    assert not ctx.build.exists()
