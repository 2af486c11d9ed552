"""The plan of model families, the checks of its rows, and the reading of a report."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.version import Version

from sessions.payload import family_checks, feature_checks
from sessions.run import families
from sessions.shared import knowledge
from tests import fakes

Row = dict[str, Any]
OLD, NEW = Version("0.3.16"), Version("0.3.36")


def plan(version: Version = OLD, *, on_gpu: bool = True) -> list[Row]:
    return families.plan(version, "default", on_gpu=on_gpu)


def rows(version: Version = OLD, *, on_gpu: bool = True) -> list[Row]:
    """The rows of a good report."""
    return [fakes.family_row(row) for row in plan(version, on_gpu=on_gpu)]


def wrong(changed: list[Row], version: Version = OLD, *, on_gpu: bool = True) -> list[str]:
    return family_checks.problems(plan(version, on_gpu=on_gpu), changed, on_gpu=on_gpu)


def at(found: list[Row], **wanted: Any) -> int:
    """The number of the first row that has these values."""
    return next(n for n, r in enumerate(found) if all(r[k] == v for k, v in wanted.items()))


def changed(which: dict[str, Any], version: Version = OLD, **values: Any) -> list[Row]:
    """The rows of a good report, the first that ``which`` describes with other values."""
    found = rows(version)
    number = at(found, **which)
    found[number] = {**found[number], **values}
    return found


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_good_report_has_no_problem(version: Version, on_gpu: bool) -> None:
    assert wrong(rows(version, on_gpu=on_gpu), version, on_gpu=on_gpu) == []


MOE = {"family": "qwen3moe", "type": "Q4_K", "batch": 32}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"nmse": 0.006}, "NMSE 6.00e-03, allowed 5e-03"),
        ({"nmse": float("nan")}, "not a number"),
        ({"finite": False}, "not a number"),
        ({"nmse": -1.0}, "not a number"),
    ],
)
def test_a_row_over_its_bound_or_without_a_valid_number_is_wrong(values: Row, why: str) -> None:
    (found,) = wrong(changed(MOE, **values))
    assert found == f"qwen3moe Q4_K, batch 32, plain attention: {why}"


def test_a_missing_repeated_or_unexpected_row_is_wrong() -> None:
    good = rows()
    number = at(good, **MOE)
    assert wrong(good[:number] + good[number + 1 :]) == [
        "qwen3moe Q4_K, batch 32, plain attention: missing"
    ]
    assert wrong([*good, good[number]]) == [
        "qwen3moe Q4_K, batch 32, plain attention: it appears 2 times"
    ]
    assert wrong([*good, {**good[number], "batch": 7}]) == [
        "qwen3moe Q4_K, batch 7, plain attention: not in the plan of this release"
    ]
    assert len(wrong([])) == len([row for row in plan() if not row["late"]])


def test_a_crash_is_one_problem() -> None:
    whole = {"family": "qwen3moe", "type": "Q4_K"}
    good = [row for row in rows() if (row["family"], row["type"]) != ("qwen3moe", "Q4_K")]
    assert wrong([*good, {**whole, "error": "ended by -11"}]) == ["qwen3moe Q4_K: ended by -11"]


def test_only_a_family_of_a_later_release_may_be_missing_entirely() -> None:
    late = {row["family"] for row in plan() if row["late"]}
    assert "qwen3next" in late
    without = [row for row in rows() if row["family"] not in late]
    assert wrong(without) == []
    one = next(row for row in rows() if row["family"] == "qwen3next")
    assert any("qwen3next" in each and "missing" in each for each in wrong([*without, one]))
    # The release that has it must compute it.
    assert any("qwen3next" in each and "missing" in each for each in wrong(without, NEW))


def test_a_known_fault_passes_and_its_correction_fails() -> None:
    which = {"family": "deepseek2-groups"}
    assert "deepseek2-groups" in " ".join(family_checks.known(plan(), rows()))
    (gone,) = wrong(changed(which, nmse=1e-7))
    assert "has corrected a known fault" in gone
    # 0.3.36 computes it right, so there a large error is wrong.
    (found,) = wrong(changed(which, NEW, nmse=0.09), NEW)
    assert "allowed 1e-05" in found


@pytest.mark.parametrize("values", [{"host_mib": 1.0}, {"gpu_mib": 0.0}])
def test_a_split_model_must_be_on_the_gpu_and_the_cpu(values: Row) -> None:
    (found,) = wrong(changed({"family": "gpt-oss", "split": "experts"}, **values))
    assert "the model is not split" in found


def test_the_sizes_of_a_model_are_computed_from_its_buffers() -> None:
    buffers = {"CPU_Mapped model": 3.0, "CUDA0 model": 8.0, "CUDA0 KV": 2.0, "CUDA1 model": 1.0}
    found = family_checks.row({"family": "x", "type": "F32"}, {"nmse": 0.0, "buffers": buffers})
    assert (found["host_mib"], found["gpu_mib"], "buffers" in found) == (3.0, 9.0, False)


def test_the_check_of_families() -> None:
    job = fakes.smoke_job()
    check = feature_checks.families(job, fakes.smoke_found())
    assert check["status"] == "ok"
    for part in ("known faults of upstream", "YaRN"):
        assert part in check["summary"]
    nothing: list[dict[str, Any]] = [{}, {"families": {}}]
    for broken in nothing:
        failing = feature_checks.families(job, {**fakes.smoke_found(families={}), **broken})
        assert failing["status"] == "fail"


# ---- the data -----------------------------------------------------------------------------------


def test_every_family_has_a_file_digests_and_bounds() -> None:
    facts = knowledge.load("families.toml")
    there = {path.stem for path in families.FAMILIES.glob("*.npz")}
    assert there == set(facts["family"]) == set(families.digests())
    for name, family in facts["family"].items():
        assert set(families.digests()[name]) == set(family["types"])
        assert all(0 < families.bound(name, kind) <= 5e-3 for kind in family["types"])
    for name in (*facts["default"]["gpu"], *facts["default"]["cpu"], *facts["split"]["families"]):
        assert name in facts["family"]
    assert set(facts["known"]) <= set(facts["family"])
    assert all(row["source"] and row["what"] for row in facts["known"].values())


def test_the_set_all_is_larger_than_the_default_and_a_cpu_has_fewer_rows() -> None:
    counts = [
        len(families.plan(OLD, chosen, on_gpu=on_gpu))
        for chosen, on_gpu in (("all", True), ("default", True), ("default", False))
    ]
    assert counts[0] > counts[1] > counts[2] > 40


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in families.FAMILIES.iterdir()) < 4e6


# ---- a report from elsewhere --------------------------------------------------------------------


def test_the_families_of_a_report_are_read_strictly() -> None:
    good = fakes.smoke_report()["families"]
    assert families.read("families", good) == good
    row = good["rows"][0]
    error = {"family": "x", "type": "F32", "error": "ended by -11"}
    assert families.read("families", {**good, "rows": [error]})["rows"] == [error]
    for bad in (
        {**good, "set": "some"},
        {**good, "more": 1},
        {**good, "operations": "MUL_MAT"},
        {**good, "operations": ["two\nlines"]},
        {**good, "rows": [{**row, "batch": True}]},
        {**good, "rows": [{**row, "nmse": "0"}]},
        {**good, "rows": [{**row, "more": 0}]},
        {**good, "rows": [{k: v for k, v in row.items() if k != "split"}]},
    ):
        with pytest.raises(ValueError, match=r"."):
            families.read("families", bad)


def test_the_fault_of_large_batches_is_accepted_only_on_a_gpu() -> None:
    """0.3.16 adds some sums to the wrong rows of an expert; which rows depends on the GPU."""
    mixtral = {"family": "mixtral", "type": "Q4_K", "batch": 512}
    what = knowledge.load("families.toml")["large-batches"]["what"]
    for nmse, shown in ((3e-2, True), (1e-3, False)):
        found = changed(mixtral, nmse=nmse)
        assert wrong(found) == []
        only = [found[at(found, **mixtral)]]
        assert family_checks.known(plan(), only) == ([f"mixtral: {what}"] if shown else [])
    assert "allowed 5e-01" in wrong(changed(mixtral, nmse=0.6))[0]
    assert "not a number" in wrong(changed(mixtral, nmse=float("nan")))[0]
    # It is an error in small batches, F32, dense models, on the CPU and in 0.3.36.
    for other in ({"batch": 32}, {"type": "F32"}, {"family": "qwen2"}):
        assert "allowed" in wrong(changed({**mixtral, **other}, nmse=3e-2))[0]
    assert "allowed 5e-03" in wrong(changed(mixtral, NEW, nmse=3e-2), NEW)[0]
    cpu = rows(on_gpu=False)
    number = at(cpu, family="qwen3moe", type="Q4_K", batch=512)
    cpu[number] = {**cpu[number], "nmse": 3e-2}
    assert "allowed 5e-03" in wrong(cpu, on_gpu=False)[0]
