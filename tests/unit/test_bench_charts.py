"""What a benchmark says in the documents: each number and its direction are those of the record."""

from __future__ import annotations

import statistics

from sessions.release.documents import bench_charts, report_page, wheel_card
from sessions.release.evidence import Evidence
from sessions.release.gate import Checkout
from sessions.run import bench_results
from tests import fakes

CHECKOUT = Checkout("4" * 40, ())


def found(*others: str, **changes: str | None) -> Evidence:
    return fakes.measured(fakes.evidence(), *others, **changes)


def charts(evidence: Evidence) -> dict[str, report_page.Chart]:
    assert evidence.bench is not None
    return {chart.title: chart for chart in bench_charts.charts(evidence.bench)}


def test_there_is_a_chart_for_each_thing_that_was_measured() -> None:
    made = charts(found("seed"))
    measured = [
        title for name, (title, _, _) in bench_results.METRICS.items() if "real" not in name
    ]
    assert list(made) == measured


def test_a_chart_has_the_ratio_to_each_other_wheel_and_what_is_better() -> None:
    evidence = found("seed", "ptx")
    chart = charts(evidence)["generation"]
    assert chart.unit == "ratio, more is better"
    assert chart.reference == 1.0
    assert [bar.name for bar in chart.bars] == ["over seed: same", "over ptx: same"]
    assert all(bar.low is not None and bar.low <= bar.value for bar in chart.bars)
    assert charts(evidence)["install"].unit == "ratio, less is better"
    assert (
        "On NVIDIA GeForce RTX 5090, 8 alternating rounds; medians: rtx50 104 tok/s" in chart.note
    )


def test_alone_a_wheel_has_its_own_values() -> None:
    evidence = found()
    chart = charts(evidence)["generation"]
    assert evidence.bench is not None
    values = evidence.bench.wheels[0].values["generation_per_second"]
    assert (chart.unit, chart.reference) == ("tokens/s", None)
    assert [(bar.name, bar.value) for bar in chart.bars] == [("rtx50", statistics.median(values))]


def test_the_page_shows_them() -> None:
    evidence = found("seed")
    assert evidence.bench is not None
    page = report_page.render(evidence, CHECKOUT.commit, bench_charts.charts(evidence.bench))
    assert "over seed: same" in page
    assert 'id="speed"' in page


def test_the_card_shows_each_ratio_in_both_languages() -> None:
    evidence = found("seed")
    assert evidence.bench is not None
    for language in wheel_card.LANGUAGES:
        text = wheel_card.render(evidence, CHECKOUT, language)
        for item in evidence.bench.ratios:
            title = bench_results.METRICS[item.metric][0]
            assert f"| seed | {title} | {item.ratio:.3g} |" in text
        assert "99%" in text
    assert "was not compared with" not in wheel_card.render(evidence, CHECKOUT, "en")
    assert "no se comparó" not in wheel_card.render(evidence, CHECKOUT, "es")


def test_a_wheel_that_was_measured_alone_was_compared_with_none() -> None:
    assert "was not compared with" in wheel_card.render(found(), CHECKOUT, "en")
    assert "was not compared with" in wheel_card.render(fakes.evidence(), CHECKOUT, "en")


def test_a_comparison_on_the_cpu_is_none_on_the_card() -> None:
    gone = {"device": "cpu", "capability": None, "driver": None}
    evidence = found("seed", **gone)
    assert "compared only on the CPU" in wheel_card.render(evidence, CHECKOUT, "en")
    assert "solo se comparó en la CPU" in wheel_card.render(evidence, CHECKOUT, "es")
    assert "compared only on the CPU" not in wheel_card.render(found("seed"), CHECKOUT, "en")
