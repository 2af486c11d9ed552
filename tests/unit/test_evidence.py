"""All records of a target, read together: none is missed, and none that was changed is taken."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import pytest

from sessions.build.model import BuildStep, Timeline
from sessions.build.ninja_log import summary
from sessions.release.evidence import Evidence, Reproduced, handed_on, read
from sessions.shared import records
from tests import fakes
from tests.problems import raises

WHEEL = b"a wheel"
TIMELINE = Timeline("2026-01-02T03:04:05Z", 2, 0, {}, (BuildStep("a.o", "c", 0, 9),), ("a.o",))
STAGES = (
    "probe",
    "source",
    "toolkit",
    "configure",
    "wheel",
    "facts",
    "verify",
    "steps",
    "smoke-12.0",
)
# What fixes a record: to test anew does nothing about what the build left.
MENDS = {
    "smoke-12.0": "nox -s smoke -- --target rtx50",
    "steps": "nox -s wheel -- --target rtx50 --fresh",
}


def lay(root: Path, found: Evidence) -> None:
    """The records and the wheel, as the stages leave them."""
    fakes.lay(root / "build", found)
    (root / "wheels").mkdir()
    (root / "wheels" / found.wheel.file).write_bytes(WHEEL)


@functools.cache
def known() -> Evidence:
    sha256 = hashlib.sha256(WHEEL).hexdigest()
    found = fakes.evidence(fakes.wheel_facts(sha256=sha256), timeline=TIMELINE)
    timing = {**summary(TIMELINE), "cpu_efficiency": 0.9}
    return dataclasses.replace(found, wheel=dataclasses.replace(found.wheel, timing=timing))


def whole(root: Path) -> Evidence:
    found = dataclasses.replace(known(), path=root / "wheels" / known().wheel.file)
    lay(root, found)
    return found


def of(root: Path, found: Evidence) -> Evidence:
    return read(found.spec, root / "build", root / "wheels")


def test_every_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    found = whole(tmp_path)
    assert of(tmp_path, found) == found


def test_the_hash_is_that_of_the_file_that_lies_there(tmp_path: Path) -> None:
    found = whole(tmp_path)
    found.path.write_bytes(b"another wheel")
    assert of(tmp_path, found).sha256 == hashlib.sha256(b"another wheel").hexdigest()


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_a_record_that_is_missing_is_named(stage: str, tmp_path: Path) -> None:
    found = whole(tmp_path)
    (tmp_path / "build" / f"{stage}.json").unlink()
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence == f"{stage}.json is missing"
    assert caught.value.remedy == MENDS.get(stage, "nox -s verify -- --target rtx50")


@pytest.mark.parametrize("stage", STAGES)
def test_a_record_that_was_changed_by_hand_is_noticed(stage: str, tmp_path: Path) -> None:
    found = whole(tmp_path)
    path = tmp_path / "build" / f"{stage}.json"
    text = path.read_text(encoding="utf-8")
    assert '"0.3.16"' in text or "rtx50" in text or "13.1" in text or "8" in text
    path.write_text(text.replace("8", "9", 1), encoding="utf-8")
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert f"{stage}.json is damaged, or was changed by hand" in caught.value.evidence
    assert caught.value.remedy == MENDS.get(stage, "nox -s verify -- --target rtx50")


def test_the_steps_are_those_of_the_wheels_own_build(tmp_path: Path) -> None:
    found = whole(tmp_path)
    slower = dataclasses.replace(TIMELINE, steps=(BuildStep("a.o", "c", 0, 10),))
    records.write(tmp_path / "build" / "steps.json", "steps", slower)
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence == "steps.json belongs to another build than the wheel"
    assert caught.value.remedy == MENDS["steps"]
    # Of a wheel that was packed again, with nothing compiled for it, they are all there is.
    wheel = dataclasses.replace(found.wheel, timing={})
    records.write(tmp_path / "build" / "wheel.json", "wheel", wheel)
    assert of(tmp_path, found).timeline == slower


def test_what_a_second_build_gave_is_known_of_this_wheel_alone(tmp_path: Path) -> None:
    found = whole(tmp_path)
    path = tmp_path / "build" / "reproduce.json"
    for sha256, known in ((found.sha256, True), ("e" * 64, False)):
        again = Reproduced(sha256, ("llama_cpp/lib/libllama.so: other",))
        records.write(path, "reproduce", again)
        assert of(tmp_path, found).again == (again if known else None)
    path.write_text(path.read_text().replace("other", "so"), encoding="utf-8")
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence == "reproduce.json is damaged, or was changed by hand"
    assert caught.value.remedy == f"delete {path}"


@pytest.mark.parametrize("name", ["smoke-report-12.0.json", "bench-report.json"])
def test_a_report_that_is_no_text_is_a_reason(name: str, tmp_path: Path) -> None:
    found = measured(tmp_path)
    path = tmp_path / "build" / name
    path.write_bytes(path.read_bytes().replace(b"Linux", b"Linu\xff"))
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence.startswith(f"{name}: its digest is not that of its content")


def test_a_failed_verdict_that_was_turned_into_a_good_one_is_noticed(tmp_path: Path) -> None:
    found = whole(tmp_path)
    path = tmp_path / "build" / "verify.json"
    records.write(path, "verify", found.verify, ok=False)
    path.write_text(path.read_text().replace('"ok": false', '"ok": true'))
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert "verify.json" in caught.value.evidence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "smoke-report-12.0.json: missing"),
        (("1e-05", "1e-06"), "smoke-report-12.0.json: its digest is not that of its content"),
        (("{", "["), "smoke-report-12.0.json: not a report"),
    ],
    ids=["missing", "changed", "damaged"],
)
def test_the_report_that_was_handed_in_is_there_and_whole(
    change: tuple[str, str] | None, words: str, tmp_path: Path
) -> None:
    found = whole(tmp_path)
    path = tmp_path / "build" / "smoke-report-12.0.json"
    if change is None:
        path.unlink()
    else:
        assert change[0] in path.read_text()
        path.write_text(path.read_text().replace(*change, 1))
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert words in caught.value.evidence
    assert "nox -s smoke" in caught.value.remedy


def test_a_report_that_says_otherwise_than_its_record_is_noticed(tmp_path: Path) -> None:
    found = whole(tmp_path)
    other = fakes.report_text(found.facts, seconds=1.0)
    (tmp_path / "build" / "smoke-report-12.0.json").write_bytes(other.encode())
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence == "smoke-report-12.0.json: smoke-12.0.json says otherwise"


def test_a_wheel_that_is_missing_is_named(tmp_path: Path) -> None:
    found = whole(tmp_path)
    found.path.unlink()
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence == f"{found.wheel.file} is missing"


def test_what_a_wheel_need_not_have_may_be_missing(tmp_path: Path) -> None:
    found = whole(tmp_path)
    wheel = dataclasses.replace(found.wheel, timing={})
    records.write(tmp_path / "build" / "wheel.json", "wheel", wheel)
    for name in ("smoke-12.0.json", "smoke-report-12.0.json", "steps.json"):
        (tmp_path / "build" / name).unlink()
    again = of(tmp_path, found)
    assert (again.runs, again.timeline) == ((), None)


def test_a_wheel_for_the_cpu_has_no_toolkit(tmp_path: Path) -> None:
    found = fakes.cpu_evidence()
    found = dataclasses.replace(found, wheel=dataclasses.replace(found.wheel, timing={}))
    lay(tmp_path, found)
    assert not (tmp_path / "build" / "toolkit.json").exists()
    assert of(tmp_path, found).toolkit is None


def test_a_failed_smoke_is_read_like_any_other(tmp_path: Path) -> None:
    found = whole(tmp_path)
    records.write(tmp_path / "build" / "smoke-12.0.json", "smoke", fakes.report(found), ok=False)
    assert of(tmp_path, found).runs == found.runs


def test_what_is_handed_on_are_the_records_as_they_are(tmp_path: Path) -> None:
    found = whole(tmp_path)
    (run,) = found.runs
    found = dataclasses.replace(found, runs=(dataclasses.replace(run, signature="signed\n"),))
    files = handed_on(found)
    assert sorted(files) == [
        "facts.json", "ops-12.0.json", "smoke-12.0.json", "smoke-12.0.json.sig", "steps.json",
        "verify.json", "wheel.json",
    ]  # fmt: skip
    for name in ("wheel", "facts", "verify", "steps"):
        assert files[f"{name}.json"] == (tmp_path / "build" / f"{name}.json").read_text("utf-8")
    assert json.loads(files["smoke-12.0.json"])["report"]["seconds"] == 61.5
    assert files["smoke-12.0.json.sig"] == "signed\n"


def test_signatures_come_along(tmp_path: Path) -> None:
    found = whole(tmp_path)
    (tmp_path / "build" / "smoke-report-12.0.json.sig").write_bytes(b"signed\n")
    assert of(tmp_path, found).runs[0].signature == "signed\n"


def test_no_host_is_in_what_is_handed_on() -> None:
    text = "".join(handed_on(fakes.evidence(timeline=TIMELINE)).values())
    assert "/home/user" not in text


def measured(root: Path, **changes: str) -> Evidence:
    found = fakes.measured(whole(root), "seed", **changes)
    records.write(root / "build" / "bench.json", "bench", found.bench)
    assert found.measured is not None
    (root / "build" / "bench-report.json").write_bytes(found.measured.encode())
    return found


def test_a_benchmark_of_this_wheel_comes_along(tmp_path: Path) -> None:
    found = measured(tmp_path)
    again = of(tmp_path, found)
    assert again == found
    assert handed_on(again)["bench.json"] == found.measured


def test_a_benchmark_of_an_earlier_wheel_is_none_of_this(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found.bench is not None
    earlier = dataclasses.replace(found.bench, sha256="e" * 64)
    records.write(tmp_path / "build" / "bench.json", "bench", earlier)
    again = of(tmp_path, found)
    assert (again.bench, again.measured) == (None, None)
    assert "bench.json" not in handed_on(again)


@pytest.mark.parametrize("name", ["bench.json", "bench-report.json"])
def test_a_benchmark_that_was_changed_by_hand_is_noticed(name: str, tmp_path: Path) -> None:
    found = measured(tmp_path)
    path = tmp_path / "build" / name
    text = path.read_text(encoding="utf-8")
    assert "104.0" in text
    path.write_text(text.replace("104.0", "204.0"), encoding="utf-8")
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence.startswith(name)
    assert "nox -s bench -- --target rtx50" in caught.value.remedy


def test_the_runs_on_two_gpus_are_both_read(tmp_path: Path) -> None:
    found = whole(tmp_path)
    (more,) = fakes.rerun(found, device="NVIDIA H200", capability="9.0").runs
    records.write(tmp_path / "build" / "smoke-9.0.json", "smoke", more.report)
    (tmp_path / "build" / "smoke-report-9.0.json").write_bytes(more.report_text.encode())
    again = of(tmp_path, found)
    assert again.runs == (more, *found.runs)  # in the order of the compute capabilities
    files = handed_on(again)
    assert files["smoke-9.0.json"] == more.report_text
    assert files["smoke-12.0.json"] == found.runs[0].report_text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"capability": "9.0"}, "it was run on 9.0, not on 12.0"),
        (
            {"file": "llama_cpp_python-0.3.9-py3-none-linux_x86_64.whl"},
            "it calls the wheel llama_cpp_python-0.3.9-py3-none-linux_x86_64.whl",
        ),
    ],
)
def test_a_report_stands_for_nothing_but_what_it_is_of(
    changes: dict[str, str], reason: str, tmp_path: Path
) -> None:
    found = whole(tmp_path)
    (run,) = fakes.rerun(found, **changes).runs
    records.write(tmp_path / "build" / "smoke-12.0.json", "smoke", run.report)
    (tmp_path / "build" / "smoke-report-12.0.json").write_bytes(run.report_text.encode())
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence == f"smoke-report-12.0.json: {reason}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"capability": "9.0"}, "it was run on 9.0, not on 12.0"),
        (
            {"file": "llama_cpp_python-0.3.16-py3-none-linux_x86_64.whl"},
            "it calls the wheel llama_cpp_python-0.3.16-py3-none-linux_x86_64.whl",
        ),
    ],
)
def test_so_does_a_report_of_the_operators(
    changes: dict[str, str], reason: str, tmp_path: Path
) -> None:
    found = whole(tmp_path)
    run = fakes.ops_run(found.facts, found.spec, **changes)
    records.write(tmp_path / "build" / "ops-12.0.json", "ops", run.report)
    (tmp_path / "build" / "ops-report-12.0.json").write_bytes(run.report_text.encode())
    with raises("release-records-missing") as caught:
        of(tmp_path, found)
    assert caught.value.evidence == f"ops-report-12.0.json: {reason}"


def test_the_report_of_another_wheel_is_not_handed_on(tmp_path: Path) -> None:
    found = fakes.reported(whole(tmp_path), sha256="e" * 64)
    assert "smoke-12.0.json" not in handed_on(found)
