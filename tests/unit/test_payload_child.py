"""The work of a child that needs no wheel: its lines, its cases, and the answers of one type."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest

from sessions.payload import child, spawn, tiny_llama, tiny_reference
from tests import fakes

Output = pytest.CaptureFixture[str]


# ---- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            'ggml: one\n@{"a": 1}\nsome @{"not": "one"}\n@ {"nor": "this"}\n@{"b": 2}\n',
            [{"a": 1}, {"b": 2}],
        ),
        ('@{"a": 1}\n@{"b": ', [{"a": 1}]),
        ("", []),
        ('@{"a": 1}\r\n@{"b": 2}\r\n', [{"a": 1}, {"b": 2}]),
    ],
    ids=["noise", "cut-off", "empty", "windows"],
)
def test_the_lines_of_a_child_are_found_in_its_output(
    output: str, expected: list[dict[str, int]]
) -> None:
    assert list(spawn.lines(output)) == expected


def test_a_line_may_have_any_text_and_nan(capsys: Output) -> None:
    child.say(text="two\nlines, and \N{GRINNING FACE}", nmse=float("nan"))
    (line,) = spawn.lines(capsys.readouterr().out)
    assert line["text"] == "two\nlines, and \N{GRINNING FACE}"
    assert line["nmse"] != line["nmse"]


# ---- cases ---------------------------------------------------------------------------------------


def test_each_batch_is_computed_with_each_attention() -> None:
    assert len(child.CASES) == len(child.LENGTHS) * len(child.ATTENTION) == 16
    assert len({json.dumps(case) for case in child.CASES}) == 16
    assert {case["batch"] for case in child.CASES} == {1, 4, 32, 512}
    assert {case["kv"] for case in child.CASES} == {"f16", "q8_0", "q4_0"}
    # Upstream refuses a quantized cache without flash attention.
    assert all(case["flash"] or case["kv"] == "f16" for case in child.CASES)
    for batch, length in child.LENGTHS.items():
        assert length % batch == 0
        assert length <= tiny_llama.CONTEXT
    # These are computed twice: flash attention with the usual cache.
    twice = child.CASES[1::4]
    assert [case["batch"] for case in twice] == list(child.LENGTHS)
    assert {(case["flash"], case["kv"]) for case in twice} == {(True, "f16")}


# ---- planted defects ----------------------------------------------------------------------------


def test_flip_changes_half_of_one_tensor_and_nothing_else(tmp_path: Path) -> None:
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
    """Replaces llama.Refused."""


class Llama(SimpleNamespace):
    """Replaces the module llama: it returns the results of the reference, with planted errors."""

    Refused = Refused

    def __init__(self, reference: Any) -> None:
        super().__init__(known=True, shift=0.0, calls=[], refuses=False, drift=0.0)
        self.LOG = SimpleNamespace(offloaded=lambda: (3, 3), buffers=lambda: {"CUDA0 model": 3.0})
        self._reference = reference

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
        logits, _ = self._reference.forward(weights, tiny_llama.prompt(max(child.LENGTHS.values())))
        yield logits.astype(np.float32)

    @contextlib.contextmanager
    def context(self, loaded: Any, **settings: Any) -> Iterator[Any]:
        if self.refuses and settings["kv"] == "q4_0":
            raise Refused("no context: unsupported cache")
        yield loaded

    def evaluate(self, context: Any, tokens: list[int], batch: int, _: int) -> Any:
        self.calls.append((batch, len(tokens)))
        # A token does not see later tokens, so the logits of a prefix are the first rows.
        return context[: len(tokens)] + np.float32(self.shift + self.drift * len(self.calls))


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Llama:
    monkeypatch.setattr(child, "LENGTHS", {1: 2, 4: 4, 32: 5, 512: 6})  # fewer than usual
    small: Any = tiny_llama
    changes = {"embd": 256, "ff": 256, "heads": 4, "kv_heads": 2}
    monkeypatch.setattr(small, "TINY", dataclasses.replace(small.TINY, **changes))
    for name, value in changes.items():
        monkeypatch.setattr(small, name.upper(), value)
    for name, value in {"HEAD": 64, "HEADS": 4, "KV_HEADS": 2}.items():
        monkeypatch.setattr(tiny_reference, name, value)
    fake = Llama(tiny_reference)
    monkeypatch.setitem(sys.modules, "llama", fake)
    return fake


Answer = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def answer(tmp_path: Path, llama: Llama, capsys: Output) -> Answer:
    """Computes the answers of F32 with these changes of the job; returns the printed lines."""

    def lines(**changes: Any) -> list[dict[str, Any]]:
        job = {"folder": str(tmp_path), "type": "F32", "first": 0, **changes}
        child.answers(fakes.smoke_job(**job))
        return list(spawn.lines(capsys.readouterr().out))

    return lines


def results(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["result"] for line in lines if "result" in line]


def test_each_case_is_announced_and_computed(answer: Answer, llama: Llama) -> None:
    lines = answer()
    assert [line["case"] for line in lines if "case" in line] == list(range(16))
    found = results(lines)
    keys = ("batch", "flash", "kv")
    assert [{name: case[name] for name in keys} for case in found] == child.CASES
    assert {case["type"] for case in found} == {"F32"}
    assert all(case["nmse"] < 1e-12 and case["finite"] for case in found)
    assert all(case["equal"] == case["tokens"] > 0 for case in found[12:])
    assert [n for n, case in enumerate(found) if "repeats" in case] == [1, 5, 9, 13]
    assert all(case.get("repeats", True) for case in found)
    merged = spawn.merged(lines)
    assert merged["offloaded"] == [3, 3]
    assert merged["buffers"] == {"CUDA0 model": 3.0}
    assert len(llama.calls) == 20  # one case of each batch is computed twice
    assert {length for batch, length in llama.calls if batch == 512} == {6}


def test_wrong_logits_have_an_error(answer: Answer, llama: Llama) -> None:
    llama.shift = 0.5
    assert all(0.1 < case["nmse"] < 1 for case in results(answer()))


def test_logits_that_are_nan_are_not_finite(answer: Answer, llama: Llama) -> None:
    llama.shift = float("nan")
    found = results(answer())
    assert not any(case["finite"] for case in found)
    assert all(case["nmse"] != case["nmse"] for case in found)
    assert all(case.get("repeats", True) for case in found)  # NaN is equal to NaN here


def test_other_bits_in_the_second_evaluation_are_noticed(answer: Answer, llama: Llama) -> None:
    llama.drift = 1e-3
    found = results(answer())
    assert [n for n, case in enumerate(found) if case.get("repeats") is False] == [1, 5, 9, 13]


def test_a_refused_case_has_an_error_and_the_next_is_computed(answer: Answer, llama: Llama) -> None:
    llama.refuses = True
    found = results(answer())
    assert len(found) == 16
    assert [n for n, case in enumerate(found) if "error" in case] == [3, 7, 11, 15]
    assert found[3]["error"] == "no context: unsupported cache"
    assert "nmse" not in found[3]


def test_after_a_crash_it_continues_at_the_given_case(answer: Answer) -> None:
    assert [line["case"] for line in answer(first=14) if "case" in line] == [14, 15]


def test_an_unknown_type_is_not_computed(answer: Answer, llama: Llama) -> None:
    llama.known = False
    assert answer() == [{"unknown": "F32"}]
    assert llama.calls == []


@pytest.mark.parametrize("plant", [{"flip": True}, {"oracle_seed": 7}], ids=["flip", "seed"])
def test_a_planted_defect_changes_every_case(plant: dict[str, Any], answer: Answer) -> None:
    assert all(not case["nmse"] <= 1e-3 for case in results(answer(**plant)))
