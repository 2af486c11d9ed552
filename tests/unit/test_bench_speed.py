"""The measurements of a child of a benchmark, with a replaced llama.cpp and clock."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from sessions.payload import bench_speed

Found = dict[str, Any]


class Clock:
    """Replaces time: it advances when something is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Llama:
    """Replaces llama.py: each batch takes the same time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.batches: list[int] = []
        self.forgotten = 0
        self.LOG = SimpleNamespace(
            devices=lambda: [["NVIDIA H200", "9.0"]], offloaded=lambda: (3, 3)
        )
        self.settings: Found = {}
        self.slow_first = 0.0

    def start(self) -> None:
        self.clock.now += 0.25

    @contextlib.contextmanager
    def model(self, path: Any, layers: int) -> Iterator[str]:
        self.clock.now += 1.0
        yield "a model"

    @contextlib.contextmanager
    def context(self, loaded: str, **settings: Any) -> Iterator[str]:
        self.settings = settings
        self.clock.now += 0.5
        yield "a context"

    def decode(self, context: str, tokens: Sequence[int]) -> None:
        self.clock.now += 0.002 if self.batches else 4.0
        self.batches.append(len(tokens))

    def forget(self, context: str) -> None:
        self.forgotten += 1
        self.clock.now += 7.0  # must not be in a speed


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Llama:
    clock = Clock()
    fake = Llama(clock)
    bindings = SimpleNamespace(
        __version__="0.3.16",
        llama_vocab_n_tokens=lambda _: 512,
        llama_model_get_vocab=lambda _: None,
    )
    monkeypatch.setitem(sys.modules, "llama", fake)
    monkeypatch.setitem(sys.modules, "llama_cpp", bindings)
    monkeypatch.setattr(bench_speed, "time", clock)
    return fake


def measured(**changes: Any) -> Found:
    job: Found = {"model": "m.gguf", "layers": 999, "threads": 1, "speeds": True, "large": False}
    job |= changes
    found: Found = {}
    bench_speed.measure(job, found.update)
    return found


def test_each_time_has_only_its_own_part(llama: Llama) -> None:
    found = measured()
    assert found["load_seconds"] == pytest.approx(1.75)
    assert found["first_token_seconds"] == pytest.approx(4.0)
    assert found["import_seconds"] == 0
    assert found["prompt_per_second"] == pytest.approx(512 / 0.002)
    assert found["generation_per_second"] == pytest.approx(1 / 0.002)
    assert (found["version"], found["offloaded"]) == ("0.3.16", (3, 3))
    assert llama.settings["batch"] == 512


def test_a_prompt_is_one_batch_and_generation_is_token_by_token(llama: Llama) -> None:
    found = measured()
    assert llama.batches[0] == 32
    assert llama.batches[1] == 512
    # One run of each is not recorded.
    prompts, generations = found["repeats"]
    assert llama.batches.count(512) == prompts + 1
    assert llama.batches.count(1) == 128 * (generations + 1)
    assert prompts >= 3
    assert generations >= 3
    assert llama.forgotten == prompts + generations + 2


def test_a_larger_model_generates_fewer_tokens(llama: Llama) -> None:
    found = measured(large=True)
    prompts, generations = found["repeats"]
    assert llama.batches.count(512) == prompts + 1
    assert llama.batches.count(1) == 32 * (generations + 1)
    assert found["prompt_per_second"] == pytest.approx(512 / 0.002)


def test_without_speeds_only_the_first_token_is_measured(llama: Llama) -> None:
    found = measured(speeds=False)
    assert llama.batches == [32]
    assert "prompt_per_second" not in found
    assert found["first_token_seconds"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("seconds", "least", "count"),
    [
        (60.0, bench_speed.LARGE_REPEATS, 1),
        (60.0, bench_speed.REPEATS, bench_speed.REPEATS),
        (0.01, bench_speed.REPEATS, pytest.approx(bench_speed.SECONDS / 0.01, abs=2)),
    ],
    ids=["slow-and-large", "slow", "quick"],
)
def test_the_number_of_repetitions(seconds: float, least: int, count: Any, llama: Llama) -> None:
    def work() -> None:
        llama.clock.now += seconds

    found = bench_speed.speeds(work, 60, lambda: None, least)
    assert len(found) == count
    assert found == pytest.approx([60 / seconds] * len(found))
