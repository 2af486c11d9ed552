"""The results of a benchmark in the documents: the numbers and directions of the record."""

from __future__ import annotations

import statistics

from sessions.release.documents import bench_charts, report_page, wheel_card
from sessions.release.evidence import Evidence
from sessions.release.gate import Checkout
from sessions.run import check_bench_report
from tests import fakes

CHECKOUT = Checkout("4" * 40, ())


def found(*others: str, **changes: str | None) -> Evidence:
    return fakes.measured(fakes.evidence(), *others, **changes)


def charts(evidence: Evidence) -> dict[str, report_page.Chart]:
    assert evidence.bench is not None
    return {chart.title: chart for chart in bench_charts.charts(evidence.bench)}


def test_a_chart_has_the_ratio_to_each_other_wheel_and_the_better_direction() -> None:
    evidence = found("seed", "ptx")
    titles = [
        title for name, (title, _, _) in check_bench_report.METRICS.items() if "real" not in name
    ]
    assert list(charts(evidence)) == titles
    chart = charts(evidence)["generation"]
    assert chart.unit == "ratio, more is better"
    assert chart.reference == 1.0
    assert [bar.name for bar in chart.bars] == ["over seed: same", "over ptx: same"]
    assert all(bar.low is not None and bar.low <= bar.value for bar in chart.bars)
    assert charts(evidence)["install"].unit == "ratio, less is better"
    assert (
        "On NVIDIA GeForce RTX 5090, 8 alternating rounds; medians: rtx50 104 tok/s" in chart.note
    )


def test_without_another_wheel_a_chart_has_the_own_values() -> None:
    evidence = found()
    chart = charts(evidence)["generation"]
    assert evidence.bench is not None
    values = evidence.bench.wheels[0].values["generation_per_second"]
    assert (chart.unit, chart.reference) == ("tokens/s", None)
    assert [(bar.name, bar.value) for bar in chart.bars] == [("rtx50", statistics.median(values))]


def test_the_documents_have_the_ratios() -> None:
    evidence = found("seed")
    assert evidence.bench is not None
    page = report_page.render(evidence, CHECKOUT.commit, bench_charts.charts(evidence.bench))
    assert "over seed: same" in page
    assert 'id="speed"' in page
    for language in wheel_card.LANGUAGES:
        text = wheel_card.render(evidence, CHECKOUT, language)
        for item in evidence.bench.ratios:
            title = check_bench_report.METRICS[item.metric][0]
            assert f"| seed | {title} | {item.ratio:.3g} |" in text
        assert "99%" in text


def test_the_card_names_a_missing_comparison_on_the_gpu() -> None:
    compared = found("seed")
    on_cpu = found("seed", device="cpu", capability=None, driver=None)
    for language, none, only_cpu in (
        ("en", "was not compared with", "compared only on the CPU"),
        ("es", "no se comparó", "solo se comparó en la CPU"),
    ):
        card = wheel_card.render(compared, CHECKOUT, language)
        assert none not in card
        assert only_cpu not in card
        for evidence in (found(), fakes.evidence()):
            assert none in wheel_card.render(evidence, CHECKOUT, language)
        assert only_cpu in wheel_card.render(on_cpu, CHECKOUT, language)
