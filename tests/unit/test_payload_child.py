"""What one child does, as far as it can be tried without a wheel: its cases, words and defects."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest

from sessions.payload import child, spawn, tiny_llama, tiny_reference
from tests import fakes

Told = pytest.CaptureFixture[str]


# ---- words --------------------------------------------------------------------------------------


def test_a_childs_lines_are_found_among_all_that_is_printed() -> None:
    output = 'ggml: found 1 device\n@{"a": 1}\nsome @{"not": "one"}\n@ {"nor": "this"}\n@{"b": 2}\n'
    assert list(spawn.lines(output)) == [{"a": 1}, {"b": 2}]


def test_a_line_that_was_cut_off_is_the_last() -> None:
    assert list(spawn.lines('@{"a": 1}\n@{"b": ')) == [{"a": 1}]
    assert list(spawn.lines("")) == []


def test_windows_ends_its_lines_otherwise() -> None:
    assert list(spawn.lines('@{"a": 1}\r\n@{"b": 2}\r\n')) == [{"a": 1}, {"b": 2}]


def test_what_is_said_can_be_read(capsys: Told) -> None:
    child.say(text="two\nlines, and \N{GRINNING FACE}", nmse=float("nan"))
    (line,) = spawn.lines(capsys.readouterr().out)
    assert line["text"] == "two\nlines, and \N{GRINNING FACE}"
    assert line["nmse"] != line["nmse"]


# ---- cases --------------------------------------------------------------------------------------


def test_each_batch_is_tried_with_each_attention() -> None:
    assert len(child.CASES) == len(child.LENGTHS) * len(child.ATTENTION) == 16
    assert len({json.dumps(case) for case in child.CASES}) == 16
    assert {case["batch"] for case in child.CASES} == {1, 4, 32, 512}
    assert {case["kv"] for case in child.CASES} == {"f16", "q8_0", "q4_0"}


def test_a_quantised_cache_goes_with_flash_attention_alone() -> None:
    # Upstream refuses the other.
    assert all(case["flash"] or case["kv"] == "f16" for case in child.CASES)


def test_every_batch_is_filled_and_fits_the_model() -> None:
    for batch, length in child.LENGTHS.items():
        assert length % batch == 0
        assert length <= tiny_llama.CONTEXT


def test_of_every_batch_one_case_is_computed_twice() -> None:
    # Those of number 1, 5, 9, 13: flash attention with the cache that most people have.
    twice = [case for number, case in enumerate(child.CASES) if number % 4 == 1]
    assert [case["batch"] for case in twice] == list(child.LENGTHS)
    assert {(case["flash"], case["kv"]) for case in twice} == {(True, "f16")}


# ---- damage on purpose --------------------------------------------------------------------------


def test_damaged_weights_are_half_of_one_tensor_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    tiny_llama.make(path, "F16")
    before = np.frombuffer(path.read_bytes(), np.uint8)
    child.flip(path)
    after = np.frombuffer(path.read_bytes(), np.uint8)
    (named,) = (t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_down.weight")
    changed = np.flatnonzero(before != after)
    start, size = int(named.data_offset), int(named.n_bytes)
    assert len(before) == len(after)
    assert (changed[0], changed[-1] + 1) == (start + size // 4, start + size // 4 + size // 2)
    assert len(changed) == size // 2
    assert (before[changed] ^ after[changed] == 0x55).all()


# ---- the answers of one type --------------------------------------------------------------------


class Refused(Exception):
    """What the payload's bindings raise."""


class Llama(SimpleNamespace):
    """Plays the payload's bindings: answers as the oracle does, but for what is planted."""

    Refused = Refused

    def __init__(self, oracle: Any) -> None:
        super().__init__(known=True, shift=0.0, calls=[], refuses=False, drift=0.0)
        self.LOG = SimpleNamespace(offloaded=lambda: (3, 3), buffers=lambda: {"CUDA0 model": 3.0})
        self._oracle = oracle

    def start(self) -> None:
        pass

    def knows(self, number: int) -> bool:
        assert number == 0  # F32
        return bool(self.known)

    @contextlib.contextmanager
    def model(self, path: Path, layers: int) -> Iterator[Any]:
        assert layers == 999
        tensors = gguf.GGUFReader(path).tensors
        weights = {tensor.name: np.array(tensor.data) for tensor in tensors}
        logits, _ = self._oracle.forward(weights, tiny_llama.prompt(max(child.LENGTHS.values())))
        yield logits.astype(np.float32)

    @contextlib.contextmanager
    def context(self, loaded: Any, **settings: Any) -> Iterator[Any]:
        if self.refuses and settings["kv"] == "q4_0":
            raise Refused("no context: unsupported cache")
        yield loaded

    def evaluate(self, context: Any, tokens: list[int], batch: int, _: int) -> Any:
        self.calls.append((batch, len(tokens)))
        # A token does not see those after it, so the logits of a prefix are the first ones.
        return context[: len(tokens)] + np.float32(self.shift + self.drift * len(self.calls))


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Llama:
    monkeypatch.setattr(child, "LENGTHS", {1: 2, 4: 4, 32: 5, 512: 6})  # enough to see
    small: Any = tiny_llama
    changes = {"embd": 256, "ff": 256, "heads": 4, "kv_heads": 2}
    monkeypatch.setattr(small, "TINY", dataclasses.replace(small.TINY, **changes))
    for name, value in changes.items():
        monkeypatch.setattr(small, name.upper(), value)
    for name, value in {"HEAD": 64, "HEADS": 4, "KV_HEADS": 2}.items():
        monkeypatch.setattr(tiny_reference, name, value)
    played = Llama(tiny_reference)
    monkeypatch.setitem(sys.modules, "llama", played)
    return played


def answered(folder: Path, capsys: Told, **changes: Any) -> list[dict[str, Any]]:
    child.answers(fakes.smoke_job(folder=str(folder), type="F32", first=0, **changes))
    return list(spawn.lines(capsys.readouterr().out))


def results(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["result"] for line in said if "result" in line]


def test_each_case_is_announced_and_answered(tmp_path: Path, llama: Llama, capsys: Told) -> None:
    said = answered(tmp_path, capsys)
    assert [line["case"] for line in said if "case" in line] == list(range(16))
    found = results(said)
    assert [
        {name: case[name] for name in ("batch", "flash", "kv")} for case in found
    ] == child.CASES
    assert {case["type"] for case in found} == {"F32"}
    assert all(case["nmse"] < 1e-12 and case["finite"] for case in found)
    assert all(case["equal"] == case["tokens"] > 0 for case in found[12:])
    assert [n for n, case in enumerate(found) if "repeats" in case] == [1, 5, 9, 13]
    assert all(case.get("repeats", True) for case in found)
    merged = {key: value for line in said for key, value in line.items()}
    assert merged["offloaded"] == [3, 3]
    assert merged["buffers"] == {"CUDA0 model": 3.0}


def test_one_case_of_a_batch_is_computed_twice(tmp_path: Path, llama: Llama, capsys: Told) -> None:
    answered(tmp_path, capsys)
    assert len(llama.calls) == 20
    assert {length for batch, length in llama.calls if batch == 512} == {6}


def test_other_logits_are_measured(tmp_path: Path, llama: Llama, capsys: Told) -> None:
    llama.shift = 0.5
    found = results(answered(tmp_path, capsys))
    assert all(0.1 < case["nmse"] < 1 for case in found)


def test_logits_that_are_no_numbers_are_said_to_be_none(
    tmp_path: Path, llama: Llama, capsys: Told
) -> None:
    llama.shift = float("nan")
    found = results(answered(tmp_path, capsys))
    assert not any(case["finite"] for case in found)
    assert all(case["nmse"] != case["nmse"] for case in found)
    # That it is not a number is the other finding.
    assert all(case.get("repeats", True) for case in found)


def test_other_bits_the_second_time_are_noticed(tmp_path: Path, llama: Llama, capsys: Told) -> None:
    llama.drift = 1e-3
    found = results(answered(tmp_path, capsys))
    assert [n for n, case in enumerate(found) if case.get("repeats") is False] == [1, 5, 9, 13]


def test_a_case_that_is_refused_is_an_error_and_the_next_is_tried(
    tmp_path: Path, llama: Llama, capsys: Told
) -> None:
    llama.refuses = True
    found = results(answered(tmp_path, capsys))
    assert len(found) == 16
    assert [n for n, case in enumerate(found) if "error" in case] == [3, 7, 11, 15]
    assert found[3]["error"] == "no context: unsupported cache"
    assert "nmse" not in found[3]


def test_after_a_crash_it_goes_on_at_the_case_it_is_told(
    tmp_path: Path, llama: Llama, capsys: Told
) -> None:
    child.answers(fakes.smoke_job(folder=str(tmp_path), type="F32", first=14))
    said = list(spawn.lines(capsys.readouterr().out))
    assert [line["case"] for line in said if "case" in line] == [14, 15]


def test_a_type_that_the_wheel_does_not_know_is_not_tried(
    tmp_path: Path, llama: Llama, capsys: Told
) -> None:
    llama.known = False
    assert answered(tmp_path, capsys) == [{"unknown": "F32"}]
    assert llama.calls == []


@pytest.mark.parametrize("plant", [{"flip": True}, {"oracle_seed": 7}], ids=["flip", "seed"])
def test_defects_that_are_planted_show_in_every_case(
    plant: dict[str, Any], tmp_path: Path, llama: Llama, capsys: Told
) -> None:
    found = results(answered(tmp_path, capsys, **plant))
    assert all(not case["nmse"] <= 1e-3 for case in found)
