"""What one child of a benchmark measures, llama.cpp played here."""

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
    """Plays time.monotonic: moves when something is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Llama:
    """Plays llama.py: each batch takes a while, whatever is in it."""

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
        self.clock.now += 7.0  # which no speed may show


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Llama:
    clock = Clock()
    played = Llama(clock)
    bindings = SimpleNamespace(
        __version__="0.3.16",
        llama_vocab_n_tokens=lambda _: 512,
        llama_model_get_vocab=lambda _: None,
    )
    monkeypatch.setitem(sys.modules, "llama", played)
    monkeypatch.setitem(sys.modules, "llama_cpp", bindings)
    monkeypatch.setattr(bench_speed, "time", clock)
    return played


def measured(**changes: Any) -> Found:
    told: Found = {"model": "m.gguf", "layers": 999, "threads": 1, "speeds": True, "large": False}
    told |= changes
    said: Found = {}
    bench_speed.measure(told, said.update)
    return said


def test_each_time_is_of_its_own_part(llama: Llama) -> None:
    said = measured()
    assert said["load_seconds"] == pytest.approx(1.75)
    assert said["first_token_seconds"] == pytest.approx(4.0)
    assert said["import_seconds"] == 0
    assert said["prompt_per_second"] == pytest.approx(512 / 0.002)
    assert said["generation_per_second"] == pytest.approx(1 / 0.002)
    assert (said["version"], said["offloaded"]) == ("0.3.16", (3, 3))
    assert llama.settings["batch"] == 512


def test_a_prompt_is_one_batch_and_what_is_generated_one_token_each(llama: Llama) -> None:
    said = measured()
    assert llama.batches[0] == 32
    assert llama.batches[1] == 512
    # Each of both: one that does not count, and those that do.
    prompts, generations = said["repeats"]
    assert llama.batches.count(512) == prompts + 1
    assert llama.batches.count(1) == 128 * (generations + 1)
    assert prompts >= 3
    assert generations >= 3
    assert llama.forgotten == prompts + generations + 2


def test_of_a_larger_model_less_is_generated_and_repeated(llama: Llama) -> None:
    said = measured(large=True)
    prompts, generations = said["repeats"]
    assert llama.batches.count(512) == prompts + 1
    assert llama.batches.count(1) == 32 * (generations + 1)
    assert said["prompt_per_second"] == pytest.approx(512 / 0.002)


def test_what_takes_long_of_a_larger_model_is_done_once_after_the_first(llama: Llama) -> None:
    def work() -> None:
        llama.clock.now += 60.0

    assert len(bench_speed.speeds(work, 60, lambda: None, bench_speed.LARGE_REPEATS)) == 1


def test_for_the_first_token_alone_nothing_more_is_done(llama: Llama) -> None:
    said = measured(speeds=False)
    assert llama.batches == [32]
    assert "prompt_per_second" not in said
    assert said["first_token_seconds"] == pytest.approx(4.0)


def test_what_is_quick_is_repeated_for_a_while(llama: Llama) -> None:
    def work() -> None:
        llama.clock.now += 0.01

    found = bench_speed.speeds(work, 1, lambda: None)
    assert len(found) == pytest.approx(bench_speed.SECONDS / 0.01, abs=2)


def test_what_is_slow_is_repeated_a_few_times(llama: Llama) -> None:
    def work() -> None:
        llama.clock.now += 60.0

    assert bench_speed.speeds(work, 60, lambda: None) == pytest.approx([1.0] * bench_speed.REPEATS)
