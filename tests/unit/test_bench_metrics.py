"""The statistics of a benchmark: ratios, intervals, verdicts, completeness, tables and labels."""

from __future__ import annotations

import math
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sessions.payload import bench_metrics
from tests import fakes

SPEED = "generation_per_second"
TIME = "import_seconds"


def around(middle: float, seed: int, count: int = 10, spread: float = 0.03) -> list[float]:
    draw = random.Random(seed)
    return [middle * draw.lognormvariate(0, spread) for _ in range(count)]


# ---- one ratio ----------------------------------------------------------------------------------


def test_equal_values_have_the_ratio_one() -> None:
    values = around(5.0, 1)
    found = bench_metrics.ratio(TIME, values, values)
    assert (found["ratio"], found["low"], found["high"]) == (1.0, 1.0, 1.0)
    assert (found["count"], found["verdict"]) == (10, "same")


@pytest.mark.parametrize(
    ("metric", "factor", "verdict"),
    [(TIME, 1.2, "worse"), (TIME, 0.8, "better"), (SPEED, 1.2, "better"), (SPEED, 0.8, "worse")],
)
def test_a_difference_of_20_percent_is_found(metric: str, factor: float, verdict: str) -> None:
    found = bench_metrics.ratio(metric, around(5.0 * factor, 1), around(5.0, 2))
    assert found["verdict"] == verdict
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["ratio"] == pytest.approx(factor, rel=0.05)


def test_a_load_in_some_rounds_is_not_a_difference() -> None:
    # The machine was ten times slower in half of the rounds; this wheel takes 1.1 times as long.
    load = [1.0, 10.0] * 5
    one = [1.1 * a * b for a, b in zip(load, around(1.0, 1, spread=0.001), strict=True)]
    other = [a * b for a, b in zip(load, around(1.0, 2, spread=0.001), strict=True)]
    found = bench_metrics.ratio(TIME, one, other)
    assert found["verdict"] == "worse"
    assert found["low"] == pytest.approx(1.1, rel=0.02)


def test_one_outlier_changes_nothing() -> None:
    found = bench_metrics.ratio(TIME, [*around(5.0, 1)[:9], 500.0], around(5.0, 2))
    assert found["verdict"] == "same"
    assert found["ratio"] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("count", [8, 10, 12, 25, 100])
def test_the_interval_is_as_narrow_as_the_confidence_allows(count: int) -> None:
    def misses(out: int) -> float:
        return sum(math.comb(count, n) for n in range(out + 1)) / float(2 ** (count - 1))

    out = bench_metrics.outside(count)
    assert misses(out) <= 1 - bench_metrics.CONFIDENCE < misses(out + 1)


def test_with_few_values_the_interval_has_all_of_them() -> None:
    assert [bench_metrics.outside(count) for count in (1, 2, 7, 8, 11, 12)] == [0, 0, 0, 0, 0, 1]
    enough = [n for n in range(1, 50) if 2 / 2**n <= 1 - bench_metrics.CONFIDENCE]
    assert enough[0] == bench_metrics.ENOUGH


@pytest.mark.parametrize("values", [8, 12])
def test_one_percent_of_the_intervals_of_equal_wheels_is_wrong(values: int) -> None:
    """Also if their values are skewed."""
    draw = random.Random(2026)
    count = 2000
    verdicts = [
        bench_metrics.ratio(
            TIME, *([1 + draw.paretovariate(2) for _ in range(values)] for _ in range(2))
        )
        for _ in range(count)
    ]
    missed = sum(found["verdict"] != "same" for found in verdicts)
    assert missed <= 0.012 * count


def test_with_too_few_values_the_verdict_is_unsure() -> None:
    few = bench_metrics.ENOUGH - 1
    assert bench_metrics.ratio(TIME, [9.0] * few, [1.0] * few)["verdict"] == "unsure"
    assert bench_metrics.ratio(TIME, [9.0] * (few + 1), [1.0] * (few + 1))["verdict"] == "worse"


@pytest.mark.parametrize(("size", "verdict"), [(50, "better"), (200, "worse"), (100.05, "same")])
def test_one_value_of_a_size_is_enough(size: float, verdict: str) -> None:
    assert bench_metrics.ratio("wheel_bytes", [size], [100])["verdict"] == verdict


# ---- what is not a measurement -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "was never measured"),
        ([1.0, 0.0], "no measurements"),
        ([1.0, -1.0], "no measurements"),
        ([float("nan")], "no measurements"),
        ([float("inf")], "no measurements"),
    ],
)
def test_an_invalid_series_is_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench_metrics.checked(TIME, values)
    with pytest.raises(ValueError, match=message):
        bench_metrics.ratio(TIME, [1.0], values)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing that is measured"):
        bench_metrics.checked("beauty", [1.0])


def test_different_numbers_of_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values against 2"):
        bench_metrics.ratio(TIME, [1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_complete_report_is_accepted() -> None:
    bench_metrics.complete(fakes.bench_report())
    bench_metrics.complete(fakes.bench_report(fakes.bench_wheel()))


@pytest.mark.parametrize("metric", [m for m in bench_metrics.METRICS if not m.startswith("real_")])
def test_a_report_without_a_series_is_refused(metric: str) -> None:
    other = fakes.bench_wheel("seed")
    del other["values"][metric]
    device = "cpu" if metric.startswith("cpu_") else fakes.bench_report()["device"]
    with pytest.raises(ValueError, match=f"seed: 0 values of {metric}"):
        bench_metrics.complete(fakes.bench_report(fakes.bench_wheel(), other, device=device))


def test_a_missing_round_is_noticed() -> None:
    this = fakes.bench_wheel()
    this["values"][SPEED].pop()
    with pytest.raises(ValueError, match=f"rtx50: 7 values of {SPEED} instead of 8"):
        bench_metrics.complete(fakes.bench_report(this))


def test_the_required_series_depend_on_the_model_and_the_device() -> None:
    with pytest.raises(ValueError, match="0 values of real_load_seconds"):
        bench_metrics.complete(
            fakes.bench_report(model={"file": "m", "size": 1, "sha256": "2" * 64})
        )
    wheel = fakes.bench_wheel()
    del wheel["values"]["vram_mib"]
    bench_metrics.complete(fakes.bench_report(wheel, device="cpu"))


# ---- files in a job -----------------------------------------------------------------------------


def test_a_model_is_identified_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "real.gguf"
    path.write_bytes(b"GGUF")
    found = bench_metrics.model(path)
    assert found is not None
    assert (found["path"], found["file"], found["size"]) == (str(path), "real.gguf", 4)
    path.write_bytes(b"gguf")
    assert bench_metrics.model(path) != found
    assert bench_metrics.model(None) is None


def test_the_measuring_program_is_identified_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_metrics, "__file__", str(tmp_path / "bench_metrics.py"))
    (tmp_path / "bench_speed.py").write_bytes(b"REPEATS = 3")
    before = bench_metrics.code()
    assert bench_metrics.code() == before
    (tmp_path / "bench_speed.py").write_bytes(b"REPEATS = 4")
    assert bench_metrics.code() != before


# ---- labels and tables --------------------------------------------------------------------------


def test_the_labels_of_wheels_are_the_target_and_folders(tmp_path: Path) -> None:
    names = ("wheels/rtx50", "seed", "more/seed", "ptx")
    paths = [tmp_path / name / "llama_cpp_python-1-py3-none-any.whl" for name in names]
    for n, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % n)
    found = bench_metrics.wheels("rtx50", paths)
    assert [wheel["label"] for wheel in found] == ["rtx50", "seed", "seed #2", "ptx"]
    assert [wheel["path"] for wheel in found] == list(map(str, paths))
    assert len({wheel["sha256"] for wheel in found}) == 4


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (19_420_341, "B", "19.4 MB"),
        (0.0123, "s", "12.3 ms"),
        (4.968, "s", "4.97 s"),
        (130341.4, "tokens/s", "130341 tok/s"),
        (7.25, "tokens/s", "7.25 tok/s"),
        (612.4, "MiB", "612 MiB"),
    ],
)
def test_values_are_shown_with_units(value: float, unit: str, text: str) -> None:
    assert bench_metrics.shown(value, unit) == text


def rows(report: dict[str, Any]) -> dict[str, dict[str, tuple[str, ...]]]:
    return {
        title: {row[0]: row[1:] for row in found}
        for title, _, found in bench_metrics.tables(report)
    }


def test_each_baseline_has_a_table() -> None:
    slow = fakes.bench_wheel("slow")
    slow["values"][SPEED] = [value / 2 for value in slow["values"][SPEED]]
    found = rows(fakes.bench_report(fakes.bench_wheel(), fakes.bench_wheel("seed"), slow))
    assert list(found) == ["rtx50 against seed", "rtx50 against slow"]
    assert found["rtx50 against seed"]["generation"] == (
        "104 tok/s", "104 tok/s", "1", "1-1", "same",
    )  # fmt: skip
    assert found["rtx50 against slow"]["generation"] == (
        "104 tok/s", "51.8 tok/s", "2", "2-2", "better",
    )  # fmt: skip
    assert found["rtx50 against slow"]["wheel size"] == ("0.0 MB", "0.0 MB", "1", "", "same")


def test_without_a_baseline_the_table_has_medians_and_counts() -> None:
    (found,) = rows(fakes.bench_report(fakes.bench_wheel())).values()
    assert found["peak VRAM"] == ("104 MiB", "100 MiB-107 MiB", "8")
    assert found["wheel size"][-1] == "1"


def test_the_rows_are_in_the_order_of_the_metrics() -> None:
    wheel = fakes.bench_wheel()
    wheel["values"] = dict(reversed(wheel["values"].items()))
    for report in (fakes.bench_report(wheel), fakes.bench_report(wheel, fakes.bench_wheel("b"))):
        ((_, columns, found),) = bench_metrics.tables(report)
        assert [row[0] for row in found] == [
            title for m, (title, *_) in bench_metrics.METRICS.items() if not m.startswith("real_")
        ]
        assert {len(row) for row in found} == {len(columns)}


def without(*starts: str) -> Any:
    """A wheel without the metrics with these prefixes."""
    wheel = fakes.bench_wheel()
    kept = {n: v for n, v in wheel["values"].items() if not n.startswith(starts)}
    return {**wheel, "values": kept}


def test_the_larger_model_is_required_on_the_cpu_and_as_a_hybrid() -> None:
    bench_metrics.complete(fakes.bench_report(without("cpu_")))
    bench_metrics.complete(fakes.bench_report(without("hybrid_", "vram"), device="cpu"))
    with pytest.raises(ValueError, match="0 values of hybrid_prompt_per_second"):
        bench_metrics.complete(fakes.bench_report(without("hybrid_")))


# ---- modules for the CPU ------------------------------------------------------------------------


def modular(path: Path, *names: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*names, "libggml-base.so", "libggml-cpu.so"):
            archive.writestr(f"llama_cpp/lib/{name}", b"ELF")
    return path


@pytest.mark.parametrize(
    "names",
    [("libggml-cpu-x64.so", "libggml-cpu-sse42.so"), ("ggml-cpu-x64.dll", "ggml-cpu-sse42.dll")],
    ids=["linux", "windows"],
)
def test_a_wheel_is_measured_with_each_requested_module(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    this, other = modular(tmp_path / "a.whl", *names), modular(tmp_path / "seed" / "b.whl")
    found = bench_metrics.wheels("cpu", [this, other], ["sse42", "x64", "sse42"])
    assert [wheel["label"] for wheel in found] == ["cpu", "cpu (sse42)", "cpu (x64)", "seed"]
    assert [wheel.get("cpu") for wheel in found] == [None, "sse42", "x64", None]
    assert {wheel["path"] for wheel in found[:3]} == {str(this)}


@pytest.mark.parametrize(("names", "has"), [((), "none"), (("libggml-cpu-x64.so",), "x64")])
def test_an_unknown_module_is_refused(names: tuple[str, ...], has: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has no module haswell for the CPU; it has {has}$"):
        bench_metrics.wheels("cpu", [modular(tmp_path / "a.whl", *names)], ["haswell"])
