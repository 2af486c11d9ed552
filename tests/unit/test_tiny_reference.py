"""The reference agrees with a second implementation in plain loops; its parts and its measure."""

from __future__ import annotations

import cmath
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sessions.payload import tiny_reference

Array = npt.NDArray[np.float64]
Matrix = list[list[float]]
LAYERS, HEADS, KV_HEADS, HEAD, FF, VOCAB = 2, 4, 2, 4, 6, 5
WIDTH = HEADS * HEAD


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module for a model that is small enough for loops."""
    module: Any = tiny_reference
    for name, value in (("LAYERS", LAYERS), ("HEADS", HEADS), ("KV_HEADS", KV_HEADS)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "HEAD", HEAD)
    return module


def noise(*shape: int, seed: int = 1) -> Array:
    return np.random.Generator(np.random.PCG64(seed)).normal(size=shape)


def weights() -> dict[str, npt.NDArray[np.float32]]:
    """Random weights of the small model."""
    seeds = itertools.count(1)

    def drawn(*shape: int) -> npt.NDArray[np.float32]:
        return (noise(*shape, seed=next(seeds)) / 2).astype(np.float32)

    found = {
        "token_embd.weight": drawn(VOCAB, WIDTH),
        "output_norm.weight": 1 + drawn(WIDTH),
        "output.weight": drawn(VOCAB, WIDTH),
    }
    for layer in range(LAYERS):
        found |= {
            f"blk.{layer}.attn_norm.weight": 1 + drawn(WIDTH),
            f"blk.{layer}.attn_q.weight": drawn(WIDTH, WIDTH),
            f"blk.{layer}.attn_k.weight": drawn(KV_HEADS * HEAD, WIDTH),
            f"blk.{layer}.attn_v.weight": drawn(KV_HEADS * HEAD, WIDTH),
            f"blk.{layer}.attn_output.weight": drawn(WIDTH, WIDTH),
            f"blk.{layer}.ffn_norm.weight": 1 + drawn(WIDTH),
            f"blk.{layer}.ffn_gate.weight": drawn(FF, WIDTH),
            f"blk.{layer}.ffn_up.weight": drawn(FF, WIDTH),
            f"blk.{layer}.ffn_down.weight": drawn(WIDTH, FF),
        }
    return found


# ---- the second implementation -------------------------------------------------------------------


def times(matrix: Matrix, vector: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def normed(vector: list[float], gain: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector) / len(vector) + 1e-5)
    return [x / length * g for x, g in zip(vector, gain, strict=True)]


def rotated(vector: list[float], position: int) -> list[float]:
    """Each pair of neighbours as a complex number, rotated by its angle for each position."""
    found: list[float] = []
    for pair in range(HEAD // 2):
        turn = cmath.exp(1j * position * 10000 ** (-2 * pair / HEAD))
        turned = complex(vector[2 * pair], vector[2 * pair + 1]) * turn
        found += [turned.real, turned.imag]
    return found


def part(vector: list[float], head: int) -> list[float]:
    return vector[head * HEAD : (head + 1) * HEAD]


def attended(q: list[float], keys: Matrix, values: Matrix) -> list[float]:
    powers = [math.exp(sum(a * b for a, b in zip(q, k, strict=True)) / HEAD**0.5) for k in keys]
    return [
        sum(power * value[i] for power, value in zip(powers, values, strict=True)) / sum(powers)
        for i in range(HEAD)
    ]


def answered(w: dict[str, Any], tokens: list[int]) -> tuple[Matrix, Matrix]:
    """Logits and normalized hidden states of each token, one token after the other."""
    logits, hidden = [], []
    memory: list[tuple[Matrix, Matrix]] = [([], []) for _ in range(LAYERS)]
    for position, token in enumerate(tokens):
        x = w["token_embd.weight"][token]
        for layer, (keys, values) in enumerate(memory):
            named = {key.split(".", 2)[2]: v for key, v in w.items() if f"blk.{layer}." in key}
            h = normed(x, named["attn_norm.weight"])
            q, k = times(named["attn_q.weight"], h), times(named["attn_k.weight"], h)
            keys.append(k)
            values.append(times(named["attn_v.weight"], h))
            seen: list[float] = []
            for head in range(HEADS):
                group = head * KV_HEADS // HEADS  # two heads share a key and a value
                seen += attended(
                    rotated(part(q, head), position),
                    [rotated(part(key, group), at) for at, key in enumerate(keys)],
                    [part(value, group) for value in values],
                )
            x = [a + b for a, b in zip(x, times(named["attn_output.weight"], seen), strict=True)]
            h = normed(x, named["ffn_norm.weight"])
            gate, up = times(named["ffn_gate.weight"], h), times(named["ffn_up.weight"], h)
            inner = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up, strict=True)]
            x = [a + b for a, b in zip(x, times(named["ffn_down.weight"], inner), strict=True)]
        hidden.append(normed(x, w["output_norm.weight"]))
        logits.append(times(w["output.weight"], hidden[-1]))
    return logits, hidden


def test_the_reference_agrees_with_plain_loops(reference: Any) -> None:
    drawn = weights()
    tokens = [1, 4, 2, 2, 0, 3]
    plain = {name: values.astype(np.float64).tolist() for name, values in drawn.items()}
    wanted_logits, wanted_hidden = answered(plain, tokens)
    logits, hidden = reference.forward(drawn, tokens)
    assert logits.dtype == hidden.dtype == np.float64
    assert np.allclose(logits, wanted_logits, rtol=1e-9, atol=1e-12)
    assert np.allclose(hidden, wanted_hidden, rtol=1e-9, atol=1e-12)


def test_a_token_does_not_see_later_tokens(reference: Any) -> None:
    drawn = weights()
    one, _ = reference.forward(drawn, [1, 2, 3, 4])
    other, _ = reference.forward(drawn, [1, 2, 4, 0])
    assert np.array_equal(one[:2], other[:2])
    assert not np.allclose(one[2:], other[2:])
    alone, _ = reference.forward(drawn, [1])
    assert np.allclose(one[:1], alone)


def test_every_weight_changes_the_result(reference: Any) -> None:
    drawn = weights()
    first, _ = reference.forward(drawn, [1, 2, 3])
    for name, values in drawn.items():
        other, _ = reference.forward({**drawn, name: values * np.float32(1.5)}, [1, 2, 3])
        assert not np.allclose(first, other, rtol=1e-6), name


# ---- its parts -----------------------------------------------------------------------------------


def test_softmax_ignores_invisible_tokens_and_sums_to_one(reference: Any) -> None:
    shares = reference._softmax(noise(2, 4, 4), np.tri(4, dtype=bool))
    assert shares.sum(axis=-1) == pytest.approx(np.ones((2, 4)))
    assert (shares[:, ~np.tri(4, dtype=bool)] == 0).all()
    high = np.full((1, 3, 3), 1000.0)  # exp(1000) would overflow
    equal = reference._softmax(high, np.tri(3, dtype=bool))
    assert equal[0, 2] == pytest.approx([1 / 3, 1 / 3, 1 / 3])


# ---- the measure --------------------------------------------------------------------------------


def test_an_exact_result_has_no_error(reference: Any) -> None:
    assert reference.nmse(np.array([1, 2], np.float32), np.array([1.0, 2.0])) == 0


def test_the_error_is_relative_and_squared(reference: Any) -> None:
    wanted = np.array([3.0, 4.0])
    assert reference.nmse(np.array([3.0, 4.5]), wanted) == pytest.approx(0.25 / 25)
    assert reference.nmse(np.array([300.0, 450.0]), 100 * wanted) == pytest.approx(0.25 / 25)
    assert reference.nmse(np.zeros(2), wanted) == 1


def test_the_error_is_computed_in_double_precision(reference: Any) -> None:
    found = np.full(4, 1 + 2**-20, np.float32)
    assert reference.nmse(found, np.ones(4)) == pytest.approx(2**-40)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_nan_and_infinity_exceed_every_bound(reference: Any, value: float) -> None:
    error = reference.nmse(np.array([1.0, value], np.float32), np.array([1.0, 2.0]))
    assert not error <= 1e300
